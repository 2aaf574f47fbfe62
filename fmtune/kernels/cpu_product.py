"""The two products of a dense pass, over all lanes of a pack at once.

Rows of a mini-batch, and features, lie along the vectors; columns of the pack are single numbers.  So a lane alone
wastes nothing on padding, whatever its ``num_factors``.  Rows are turned a panel at a time: the numbers of some rows
side by side, term after term, which stay in the second cache for all columns.

Everything is flat.  A mini-batch begins at ``at`` of the matrix ``x`` and has ``n`` rows of ``d`` numbers.  ``theta``
has a run of ``ld`` numbers for each column; what is returned by rows has runs of ``down``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fmtune.kernels.simd import load8, splat8, store8
from fmtune.kernels.tiles import COLUMNS, VECTORS, WIDTH, product, squares, turn8

# Terms between two stores of a sum, whole panels: a turned panel of so many stays in the second cache.
TERMS = 20 * VECTORS * WIDTH
PANEL = TERMS * VECTORS * WIDTH
"""Numbers of a turned panel, at most."""


@njit(inline="always")
def vectors_of(left):  # type: ignore[no-untyped-def]
    """Return how many vectors the next panel has, where so many numbers are left."""
    return VECTORS if left > (VECTORS - 1) * WIDTH else 1


@njit(cache=True, nogil=True)
def multiply(left, l0, step, right, r0, across, terms, out, o0, down, vectors, columns):  # type: ignore[no-untyped-def]
    """Add a panel's product with some columns to ``out``, in tiles of about equal width."""
    tiles = -(-columns // COLUMNS)
    for k in range(tiles):
        c = columns * k // tiles
        more = columns * (k + 1) // tiles - c
        product(left, l0, step, right, r0 + c * across, across, 1, terms, out, o0 + c * down, down, vectors, more)


@njit(cache=True, nogil=True)
def multiply_squares(left, l0, step, right, r0, across, along, terms, out, o0, down, vectors, columns):  # type: ignore[no-untyped-def]
    """As :func:`multiply`, with the squares of the left side; terms of the right one lie ``along`` apart."""
    for c in range(0, columns, COLUMNS):
        more = min(COLUMNS, columns - c)
        squares(left, l0, step, right, r0 + c * across, across, along, terms, out, o0 + c * down, down, vectors, more)


@njit(cache=True, nogil=True)
def cut(x, at, n, d, cuts, down):  # type: ignore[no-untyped-def]
    """Cut rows into panels of neighbouring features, each of ``down`` rows one after the other; what is not there is 0.

    This is the one time that the rows are read.  They may lie far apart, on pages of their own, and in memory.
    """
    zero = splat8(np.float32(0.0))
    for b in range(n + -n % WIDTH):
        i = 0
        while i < d:
            height = vectors_of(d - i) * WIDTH
            p, size = i * (down + 1) + b * height, min(height, d - i) if b < n else 0
            whole = size - size % 8
            for j in range(0, whole, 8):
                store8(cuts, p + j, load8(x, at + b * d + i + j))
            for j in range(whole, height, 8):
                store8(cuts, p + j, zero)
            for j in range(whole, size):
                cuts[p + j] = x[at + b * d + i + j]
            i += height


@njit(cache=True, nogil=True)
def turn(cuts, d, down, r, height, first, last, panel):  # type: ignore[no-untyped-def]
    """Write features ``first`` to ``last`` of ``height`` rows from ``r`` on into a panel: rows lie side by side."""
    i = first
    while i < last:
        wide = vectors_of(d - i) * WIDTH
        for t in range(i, min(i + wide, last), 8):
            for j in range(0, height, 8):
                turn8(cuts, i * (down + 1) + (r + j) * wide + t - i, wide, panel, (t - first) * height + j, height)
        i += wide


@njit(cache=True, nogil=True)
def forward(cuts, n, d, theta, columns, ld, lengths, lanes, s, parts, down, panel):  # type: ignore[no-untyped-def]
    """Write ``X T`` into ``s`` and, for each lane, eight sums of ``x**2 * lengths`` into ``parts``.

    Sum ``k`` is that of features ``k``, ``k + 8``, and so on, without those after the last whole eight.
    """
    s[: columns * down] = 0.0
    parts[: 8 * lanes * down] = 0.0
    whole, r = d - d % 8, 0
    while r < n:
        vectors = vectors_of(n - r)
        height = vectors * WIDTH
        for first in range(0, d, TERMS):
            last = min(d, first + TERMS)
            turn(cuts, d, down, r, height, first, last, panel)
            multiply(panel, 0, height, theta, first, ld, last - first, s, r, down, vectors, columns)
            eights = (min(last, whole) - first) // 8
            for k in range(8 if eights > 0 else 0):
                multiply_squares(
                    panel, k * height, 8 * height, lengths, first + k, ld, 8, eights,
                    parts, k * lanes * down + r, down, vectors, lanes,
                )  # fmt: skip
        r += height


@njit(cache=True, nogil=True)
def backward(cuts, n, d, errors, columns, e, lanes, down, g, weight, ld):  # type: ignore[no-untyped-def]
    """Add ``E' X`` to ``g`` and, for each lane, the sums of ``e x**2`` to ``weight``."""
    i = 0
    while i < d:
        vectors = vectors_of(d - i)
        height = vectors * WIDTH
        multiply(cuts, i * (down + 1), height, errors, 0, down, n, g, i, ld, vectors, columns)
        multiply_squares(cuts, i * (down + 1), height, e, 0, down, 1, n, weight, i, ld, vectors, lanes)
        i += height


@njit(cache=True, nogil=True)
def lengths8(a, at, stride, factors, n, out, begin):  # type: ignore[no-untyped-def]
    """Write ``sum_f a[at + f * stride + b]**2`` into ``out``, for ``b`` up to ``n``, eight at a time.

    Whole eights of factors are eight sums, added by twos; then come the others.
    """
    zero = splat8(np.float32(0.0))
    whole = factors - factors % 8
    for b in range(0, n, 8):
        t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = rest = zero
        for f in range(0, whole, 8):
            p = at + f * stride + b
            v = load8(a, p)
            t0 = t0 + v * v
            v = load8(a, p + stride)
            t1 = t1 + v * v
            v = load8(a, p + 2 * stride)
            t2 = t2 + v * v
            v = load8(a, p + 3 * stride)
            t3 = t3 + v * v
            v = load8(a, p + 4 * stride)
            t4 = t4 + v * v
            v = load8(a, p + 5 * stride)
            t5 = t5 + v * v
            v = load8(a, p + 6 * stride)
            t6 = t6 + v * v
            v = load8(a, p + 7 * stride)
            t7 = t7 + v * v
        for f in range(whole, factors):
            v = load8(a, at + f * stride + b)
            rest = rest + v * v
        store8(out, begin + b, (((t0 + t1) + (t2 + t3)) + ((t4 + t5) + (t6 + t7))) + rest)
