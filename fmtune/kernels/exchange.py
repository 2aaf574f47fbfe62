"""Exchange: changes of parameters on their way between machines: to half precision and back, and summed in place.

Half precision is IEEE's binary16, handled as its 16 bits: numba has no such type on a CPU.  A multiplication by
2**-112 brings a float32's exponent to binary16's, subnormal numbers included; the 13 bits too many are rounded to
even.  Callers scale, so that nothing leaves the range.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_DOWN, _UP = np.float32(2.0**-112), np.float32(2.0**112)


@njit(inline="always")
def narrow(x):  # type: ignore[no-untyped-def]
    """Return the 16 bits of a finite float32 within binary16's range."""
    bits = np.float32(x * _DOWN).view(np.uint32)
    sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
    bits = bits & np.uint32(0x7FFFFFFF)
    rounded = bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return np.uint16(sign | (rounded >> np.uint32(13)))


@njit(inline="always")
def wide(bits):  # type: ignore[no-untyped-def]
    """Return the float32 of 16 bits that :func:`narrow` gave."""
    own = np.uint32(bits)
    moved = ((own & np.uint32(0x8000)) << np.uint32(16)) | ((own & np.uint32(0x7FFF)) << np.uint32(13))
    return np.uint32(moved).view(np.float32) * _UP


@njit(cache=True, nogil=True)
def largest(rows, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (planes,) with each plane's largest absolute value; ``rows`` is float32 (n, planes, columns)."""
    out[:] = 0.0
    for i in range(rows.shape[0]):
        for plane in range(rows.shape[1]):
            most = out[plane]
            for j in range(rows.shape[2]):
                most = max(most, abs(rows[i, plane, j]))
            out[plane] = most


@njit(cache=True, nogil=True)
def halve(rows, scale, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (uint16, as ``rows``) with the halves of ``rows`` times each plane's ``scale`` (planes,)."""
    for i in range(rows.shape[0]):
        for plane in range(rows.shape[1]):
            for j in range(rows.shape[2]):
                out[i, plane, j] = narrow(rows[i, plane, j] * scale[plane])


@njit(cache=True, nogil=True)
def count(places, counts):  # type: ignore[no-untyped-def]
    """Count at each place once more."""
    for place in places:
        counts[place] += 1


@njit(cache=True, nogil=True)
def clear(places, counts):  # type: ignore[no-untyped-def]
    """Set the counts of places to zero."""
    for place in places:
        counts[place] = 0


@njit(cache=True, nogil=True)
def add(rows, places, changes, counts):  # type: ignore[no-untyped-def]
    """Add ``changes`` (float32 (n, planes, columns)) to the rows at ``places``, each divided by its place's count."""
    for i in range(len(places)):
        place = places[i]
        share = np.float32(1.0) / np.float32(counts[place])
        for plane in range(rows.shape[1]):
            for j in range(rows.shape[2]):
                rows[place, plane, j] += share * changes[i, plane, j]


@njit(cache=True, nogil=True)
def add_halves(rows, places, changes, scale, counts):  # type: ignore[no-untyped-def]
    """Do as :func:`add` with halves, uint16, times each plane's ``scale``."""
    for i in range(len(places)):
        place = places[i]
        for plane in range(rows.shape[1]):
            share = scale[plane] / np.float32(counts[place])
            for j in range(rows.shape[2]):
                rows[place, plane, j] += share * wide(changes[i, plane, j])
