"""The two products of a dense pass, over all lanes of a pack at once.

Rows of a mini-batch, and features, lie along the vectors; columns of the pack are single numbers.  So a lane alone
wastes nothing on padding, whatever its ``num_factors``.  Rows are turned a panel at a time: the numbers of some rows
side by side, term after term, which stay in the second cache for all columns.

Everything is flat.  A mini-batch begins at ``at`` of the matrix ``x`` and has ``n`` rows of ``d`` numbers.  ``theta``
has a run of ``ld`` numbers for each column; what is returned by rows has runs of ``down``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fmtune.kernels.simd import load8, splat8, store8
from fmtune.kernels.tiles import COLUMNS, VECTORS, WIDTH, product, squares, turn8

# Rows at a time, whole panels: read from memory once, they stay in the second cache for both products.
ROWS = 144
# Terms between two stores of a sum, whole panels: a turned panel of so many stays in the second cache.
TERMS = 20 * VECTORS * WIDTH
PANEL = TERMS * VECTORS * WIDTH
"""Numbers of a turned panel, at most."""


class Room(NamedTuple):
    """Where a block of rows waits between the two products, and scratch; all flat, float32."""

    cuts: NDArray[np.float32]
    panel: NDArray[np.float32]
    parts: NDArray[np.float32]
    rests: NDArray[np.float32]


@njit(inline="always")
def room_of(lanes, ld, down):  # type: ignore[no-untyped-def]
    """Return room for blocks of up to ``down`` rows."""
    return Room(
        np.empty(ld * (down + 1), np.float32), np.empty(PANEL, np.float32), np.empty(8 * lanes * down, np.float32),
        np.empty(8 * lanes, np.float32),
    )  # fmt: skip


@njit(inline="always")
def vectors_of(left):  # type: ignore[no-untyped-def]
    """Return how many vectors the next panel has, where so many numbers are left."""
    return VECTORS if left > (VECTORS - 1) * WIDTH else 1


@njit(cache=True, nogil=True)
def clear(array, begin, end):  # type: ignore[no-untyped-def]
    """Write zeros; numba takes a second to compile a slice's assignment, and nothing for this."""
    for i in range(begin, end):
        array[i] = 0


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
def forward(room, x, at, n, d, theta, columns, ld, lengths, lanes, s, thin, down):  # type: ignore[no-untyped-def]
    """Write ``X T`` into ``s`` and, for each lane, the sums of ``x**2 * lengths`` into ``thin``."""
    cut(x, at, n, d, room.cuts, down)
    clear(s, 0, columns * down)
    clear(thin, 0, lanes * down)
    clear(room.parts, 0, 8 * lanes * down)
    whole, r = d - d % 8, 0
    while r < n:
        vectors = vectors_of(n - r)
        height = vectors * WIDTH
        for first in range(0, d, TERMS):
            last = min(d, first + TERMS)
            turn(room.cuts, d, down, r, height, first, last, room.panel)
            multiply(room.panel, 0, height, theta, first, ld, last - first, s, r, down, vectors, columns)
            # Eight sums, of features k, k + 8, and so on.
            eights = (min(last, whole) - first) // 8
            for k in range(8 if eights > 0 else 0):
                multiply_squares(
                    room.panel, k * height, 8 * height, lengths, first + k, ld, 8, eights,
                    room.parts, k * lanes * down + r, down, vectors, lanes,
                )  # fmt: skip
        r += height
    for lane in range(lanes if whole < d else 0):
        for b in range(n):
            for i in range(whole, d):
                v = x[at + b * d + i]
                thin[lane * down + b] += (v * v) * lengths[lane * ld + i]
    part, gap = room.parts, lanes * down
    for b in range(0, gap, 8):
        t0, t1, t2, t3 = load8(part, b), load8(part, b + gap), load8(part, b + 2 * gap), load8(part, b + 3 * gap)
        t4, t5, t6 = load8(part, b + 4 * gap), load8(part, b + 5 * gap), load8(part, b + 6 * gap)
        t7 = load8(part, b + 7 * gap)
        store8(thin, b, (((t0 + t1) + (t2 + t3)) + ((t4 + t5) + (t6 + t7))) + load8(thin, b))


@njit(cache=True, nogil=True)
def backward(room, x, at, n, d, errors, columns, e, lanes, down, g, weight, ld):  # type: ignore[no-untyped-def]
    """Add ``E' X`` to ``g`` and, for each lane, the sums of ``e x**2`` to ``weight``; after :func:`forward`."""
    whole, i = d - d % 8, 0
    for lane in range(lanes):
        for j in range(whole, d):
            room.rests[8 * lane + j - whole] = weight[lane * ld + j]
    while i < d:
        vectors = vectors_of(d - i)
        height, begin = vectors * WIDTH, i * (down + 1)
        multiply(room.cuts, begin, height, errors, 0, down, n, g, i, ld, vectors, columns)
        multiply_squares(room.cuts, begin, height, e, 0, down, 1, n, weight, i, ld, vectors, lanes)
        i += height
    for lane in range(lanes):  # after the last whole eight of features, products are rounded by themselves
        for j in range(whole, d):
            total = room.rests[8 * lane + j - whole]
            for b in range(n):
                v = x[at + b * d + j]
                total += (v * v) * e[lane * down + b]
            weight[lane * ld + j] = total


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
