"""Losses: the derivative with respect to the score, and the link from score to prediction.

``regressor``: half the squared error, derivative ``z - y``.  ``binary_classifier``: log loss of labels 0
and 1, derivative ``sigmoid(z) - y``.  As in MXNet's output layers, which SageMaker trains with.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba.extending import overload

from fmtune.kernels.rules import limited
from fmtune.kernels.simd import float8, power8

REGRESSOR, BINARY = 0, 1

CODES = {"regressor": REGRESSOR, "binary_classifier": BINARY}

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
# Adding and taking away 1.5 * 2**23 rounds a float32 to a whole number.
_ROUND = np.float32(12582912.0)
_LOG2E = np.float32(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LIMIT = np.float32(87.0)


@njit(inline="always")
def exponential(x):  # type: ignore[no-untyped-def]
    """Return e**x for float32 ``x`` within +-87, in plain arithmetic (Cephes' polynomial, 2 units in the last place).

    A library's exponential may differ between its vector and its scalar form; this one gives a lane the same
    bits wherever the compiler puts it.  NaN stays NaN.
    """
    m = x * _LOG2E + _ROUND
    n = m - _ROUND
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    p = r * np.float32(1.9875691500e-4) + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + _ONE
    return p * power(m)  # type: ignore[no-untyped-call]


def power(m):  # type: ignore[no-untyped-def]
    """Return 2**n for ``m``, the float32 ``n + 1.5 * 2**23``: its lower bits are those of ``n``."""
    return np.int32((np.float32(m).view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)


@overload(power)
def _power(m):  # type: ignore[no-untyped-def]
    return (lambda m: power8(m)) if m is float8 else power


@njit(inline="always")
def sigmoid(z):  # type: ignore[no-untyped-def]
    """Return 1 / (1 + e**-z) in float32, of one number or eight; NaN stays NaN."""
    return _ONE / (_ONE + exponential(_ZERO - limited(z, _LIMIT)))  # type: ignore[no-untyped-call]


@njit(inline="always")
def slope(loss, z, y):  # type: ignore[no-untyped-def]
    """Return the derivative of the loss at score ``z`` and label ``y`` (float32, or eight of them)."""
    if loss == BINARY:
        return sigmoid(z) - y
    return z - y


@njit(cache=True, nogil=True)
def link(loss, scores, out):  # type: ignore[no-untyped-def]
    """Write predictions of raw scores (float32, any one shape (n,)): the score itself, or its sigmoid."""
    for b in range(len(scores)):
        out[b] = sigmoid(scores[b]) if loss == BINARY else scores[b]
