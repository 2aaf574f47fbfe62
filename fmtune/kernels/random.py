"""Initial values by a counter: each number depends on (seed, array, feature, factor) and on nothing else.

So a model starts the same on every device, at every place in a pack and in whatever order it is filled.
The counter goes through SplitMix64's finaliser (Steele, Lea and Flood, 2014); normals are Box and Muller's.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

NORMAL, UNIFORM, CONSTANT = 0, 1, 2

METHODS = {"normal": NORMAL, "uniform": UNIFORM, "constant": CONSTANT}

# Which array a number belongs to.
BIAS, LINEAR, FACTORS = 1, 2, 3

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@njit(inline="always")
def mix(x):  # type: ignore[no-untyped-def]
    """Return 64 bits that look unrelated to the 64 bits of ``x``."""
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


@njit(inline="always")
def unit(x):  # type: ignore[no-untyped-def]
    """Return a float64 in (0, 1) from 64 random bits."""
    return (np.float64(x >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@njit(inline="always")
def normal(x):  # type: ignore[no-untyped-def]
    """Return a standard normal float64 from 64 random bits."""
    y = mix(x + _GOLDEN)
    return math.sqrt(-2.0 * math.log(unit(x))) * math.cos(2.0 * math.pi * unit(y))


@njit(cache=True, nogil=True)
def fill(out, method, spread, value, seed, array, first=0):  # type: ignore[no-untyped-def]
    """Fill ``out`` (float32, (features, factors), any strides) with initial values.

    ``spread`` is the standard deviation (normal) or the half width (uniform); ``value`` the constant; ``first`` the
    number of the first feature.
    """
    key = mix(np.uint64(seed) * _GOLDEN + np.uint64(array))
    for i in range(out.shape[0]):
        row = mix(key + np.uint64(first + i + 1) * _GOLDEN)
        for f in range(out.shape[1]):
            if method == CONSTANT:
                out[i, f] = value
                continue
            x = mix(row + np.uint64(f + 1) * _GOLDEN)
            if method == UNIFORM:
                out[i, f] = spread * (2.0 * unit(x) - 1.0)
            else:
                out[i, f] = spread * normal(x)
