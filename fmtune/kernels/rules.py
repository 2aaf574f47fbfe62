r"""Update rules: how a parameter moves when its gradient is known.

A rule is a function of float32 scalars, in plain arithmetic, so that the same source is compiled for the
CPU (one float or eight side by side), for CUDA and for CUDA's simulator::

    step(theta, a, b, gradient, rate, eps, l1) -> (theta, a, b)

``a`` and ``b`` are the parameter's optimizer state (a rule returns those that it has not as they came),
``gradient`` is rescaled, decayed and clipped by :func:`decayed`, ``rate`` is the learning rate times
:func:`correction`, and ``l1`` is the L1 penalty, for rules that can make a parameter exactly zero.

To add a rule: write its function, give it a row in ``RULES``, a branch in ``steps`` and, if its rate changes
with time, one in :func:`correction`; the contract tests run over the table.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from fmtune.kernels.simd import float8, limited8, load8

ADAM, ADAGRAD, SGD, FTRL = 0, 1, 2, 3

_BETA1, _BETA2 = np.float32(0.9), np.float32(0.999)
_KEEP1, _KEEP2 = np.float32(1.0 - 0.9), np.float32(1.0 - 0.999)


class Rule(NamedTuple):
    """One row of ``RULES``.

    The kernels' code, the number of state arrays, the default ``eps``, and whether a feature's factors share one
    number of state: :func:`shared` then takes the place of the rule, which is that of a parameter by itself.
    """

    code: int
    states: int
    eps: float
    rowwise: bool = False


RULES = {
    "adam": Rule(ADAM, 2, 1e-8),
    "adagrad": Rule(ADAGRAD, 1, 1e-8),
    "sgd": Rule(SGD, 0, 1e-8),
    "ftrl": Rule(FTRL, 2, 1.0),
    "rowwise_adagrad": Rule(ADAGRAD, 1, 1e-8, rowwise=True),
}


def limited(g, limit):  # type: ignore[no-untyped-def]
    """Return ``g`` within ``[-limit, limit]``; NaN stays NaN."""
    if g > limit:
        g = limit
    if g < -limit:
        g = -limit
    return g


@overload(limited)
def _limited(g, limit):  # type: ignore[no-untyped-def]
    return (lambda g, limit: limited8(g, limit)) if g is float8 else limited


@njit(inline="always")
def decayed(gradient, theta, rescale, decay, clip):  # type: ignore[no-untyped-def]
    """Return ``gradient * rescale + decay * theta``, then clipped to ``[-clip, clip]`` (MXNet's order)."""
    return limited(gradient * rescale + decay * theta, clip)  # type: ignore[no-untyped-call]


@njit(inline="always")
def apart(factor, decay, rescale):  # type: ignore[no-untyped-def]
    """Return what a feature's own ``factor`` of the decay adds to its summed gradient, over theta.

    :func:`decayed` rescales that and adds the decay which all features have: together ``factor`` times as much.
    """
    return (factor - np.float32(1.0)) * decay / rescale


def pulled(gradient: Any, theta: Any, decays: Any, i: Any, decay: Any, rescale: Any) -> Any:
    """Return feature ``i``'s summed gradient with what its own factor of the decay adds; ``decays`` may be None.

    Whether it is None is known when a kernel is compiled: without factors nothing is left of this.
    """
    return gradient if decays is None else gradient + theta * apart(decays[i], decay, rescale)


@overload(pulled)
def _pulled(gradient, theta, decays, i, decay, rescale):  # type: ignore[no-untyped-def]
    if isinstance(decays, types.NoneType):
        return lambda gradient, theta, decays, i, decay, rescale: gradient
    return lambda gradient, theta, decays, i, decay, rescale: gradient + theta * apart(decays[i], decay, rescale)


def pulled8(gradient: Any, theta: Any, decays: Any, i: Any, decay: Any, rescale: Any) -> Any:
    """As :func:`pulled`, for eight features from ``i`` on side by side; in kernels only."""
    raise NotImplementedError


@overload(pulled8)
def _pulled8(gradient, theta, decays, i, decay, rescale):  # type: ignore[no-untyped-def]
    if isinstance(decays, types.NoneType):
        return lambda gradient, theta, decays, i, decay, rescale: gradient
    return lambda gradient, theta, decays, i, decay, rescale: (
        gradient + theta * apart(load8(decays, i), decay, rescale)
    )


@njit(inline="always")
def adam(theta, a, b, gradient, rate, eps, l1):  # type: ignore[no-untyped-def]
    """MXNet's Adam: ``eps`` outside the root, bias correction folded into ``rate``."""
    a = _BETA1 * a + _KEEP1 * gradient
    b = _BETA2 * b + _KEEP2 * (gradient * gradient)
    return theta - rate * a / (math.sqrt(b) + eps), a, b


@njit(inline="always")
def adagrad(theta, a, b, gradient, rate, eps, l1):  # type: ignore[no-untyped-def]
    """AdaGrad (Duchi et al., 2011): the rate falls with the root of the summed squares."""
    a = a + gradient * gradient
    return theta - rate * gradient / (math.sqrt(a) + eps), a, b


@njit(inline="always")
def shared(a, square, rate, eps):  # type: ignore[no-untyped-def]
    """Row-wise AdaGrad: ``a`` sums the mean of the factors' squared gradients; returns the rate of each, and ``a``."""
    a = a + square
    return rate / (math.sqrt(a) + eps), a


# The mean over one number is itself: so a bias and a linear weight move.
rowwise_adagrad = adagrad


@njit(inline="always")
def sgd(theta, a, b, gradient, rate, eps, l1):  # type: ignore[no-untyped-def]
    """Stochastic gradient descent: a plain step."""
    return theta - rate * gradient, a, b


@njit(inline="always")
def ftrl(theta, a, b, gradient, rate, eps, l1):  # type: ignore[no-untyped-def]
    """FTRL-Proximal, per coordinate (McMahan et al., 2013), with the start in the place of zero.

    ``eps`` is its beta (1 unless said otherwise).  Its ``z`` is kept as the part that L1 holds back, ``b``; the
    rest follows from ``theta``, so a parameter begins at its first value and not at zero.  Everything is
    multiplied by the rate, so that a rate of zero divides by nothing.
    """
    a = a + gradient * gradient
    root = math.sqrt(a) + eps
    z = b + rate * gradient - theta * root
    b = limited(z, rate * l1)  # type: ignore[no-untyped-call]
    return (b - z) / root, a, b


@njit(inline="always")
def correction(rule, t):  # type: ignore[no-untyped-def]
    """Return the factor of the learning rate at update ``t`` (1, 2, ...), in float64."""
    if rule == ADAM:
        return math.sqrt(1.0 - 0.999**t) / (1.0 - 0.9**t)
    return 1.0
