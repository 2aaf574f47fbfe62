"""The two products of a dense pass with inputs in bfloat16 and sums in float32, for ``exact: false``.

A bfloat16 is a float32 without its lower 16 bits: numbers keep 8 binary digits, so whole numbers up to 256 are exact.
A CPU that has them multiplies and adds pairs of terms at once, in the time of one float32.  Rows are rounded when
mini-batches are made, parameters and errors where they enter a product, to the nearest, ties to even; what a lane keeps
stays float32.  Squares of
``x`` are those of the rounded ``x``, rounded once more, and so is what they are multiplied with.

Functions and arguments are those of ``cpu_product``, which also says how panels lie; ``T`` and the squared lengths are
rounded into the room once a mini-batch.  A pair is two terms of a sum: of
two neighbouring features forward, of two rows backward.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fmtune.kernels.cpu_product import TERMS, clear, vectors_of
from fmtune.kernels.tiles import COLUMNS, VECTORS, WIDTH, braid16, halve16, pairs, squares_of_pairs, turn8


class Room(NamedTuple):
    """Where a block of rows waits between the two products, and scratch; all flat, pairs as int32.

    ``cuts``: pairs of rows, in panels of neighbouring features; ``panel``: some rows, turned; ``theta`` and ``errors``:
    the right sides, ``lengths`` and ``slopes`` those of the squares.
    """

    cuts: NDArray[np.int32]
    panel: NDArray[np.int32]
    theta: NDArray[np.int32]
    errors: NDArray[np.int32]
    lengths: NDArray[np.int32]
    slopes: NDArray[np.int32]


@njit(inline="always")
def room_of(columns, lanes, ld, down):  # type: ignore[no-untyped-def]
    """Return room for blocks of up to ``down`` rows."""
    return Room(
        np.empty(ld * (down // 2 + 1), np.int32), np.empty(TERMS * VECTORS * WIDTH, np.int32),
        np.empty(columns * ld // 2, np.int32), np.empty(columns * down // 2, np.int32),
        np.empty(lanes * ld // 2, np.int32), np.empty(lanes * down // 2, np.int32),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def multiply(left, l0, step, right, r0, across, terms, out, o0, down, vectors, columns):  # type: ignore[no-untyped-def]
    """Add a panel's product with some columns to ``out``; ``terms`` and places of ``left`` and ``right`` are pairs."""
    tiles = -(-columns // COLUMNS)
    for k in range(tiles):
        c = columns * k // tiles
        more = columns * (k + 1) // tiles - c
        pairs(left, l0, step, right, r0 + c * across, across, 1, terms, out, o0 + c * down, down, vectors, more)


@njit(cache=True, nogil=True)
def multiply_squares(left, l0, step, right, r0, across, terms, out, o0, down, vectors, columns):  # type: ignore[no-untyped-def]
    """As :func:`multiply`, with the squares of the left side."""
    for c in range(0, columns, COLUMNS):
        more = min(COLUMNS, columns - c)
        begin = r0 + c * across
        squares_of_pairs(left, l0, step, right, begin, across, 1, terms, out, o0 + c * down, down, vectors, more)


@njit(cache=True, nogil=True)
def halved(source, runs, length, ld, out):  # type: ignore[no-untyped-def]
    """Round runs of ``length`` numbers; of a last pair without a second number that is 0."""
    for c in range(runs):
        for i in range(0, length, 16):
            halve16(source, c * ld + i, out, (c * ld + i) // 2)
        if length % 2 == 1:
            out[(c * ld + length) // 2] &= 0xFFFF


@njit(cache=True, nogil=True)
def pairs_of(matrix):  # type: ignore[no-untyped-def]
    """Return rows (float32, (n, d)) as pairs of neighbouring features: int32, (n + 15, whole eights); the rest is 0.

    So many rows more can be read as belong to the last panel of a mini-batch.
    """
    n, d = matrix.shape
    half, whole = (d + 15) // 16 * 8, d - d % 16
    x, out, line = matrix.ravel(), np.zeros((n + WIDTH - 1, half), np.int32), np.zeros(16, np.float32)
    flat = out.ravel()
    for b in range(n):
        for i in range(0, whole, 16):
            halve16(x, b * d + i, flat, b * half + i // 2)
        if whole < d:
            for i in range(whole, d):
                line[i - whole] = x[b * d + i]
            halve16(line, 0, flat, b * half + whole // 2)
    return out


@njit(cache=True, nogil=True)
def cut(room, x, at, n, d, half, down):  # type: ignore[no-untyped-def]
    """Cut ``n`` rows into panels of pairs of rows; after the last there may be anything."""
    for b in range(0, n, 2):
        i, p = 0, at + b * half
        while i < d:
            height = vectors_of(d - i) * WIDTH
            for j in range(i, i + height, 16):
                o = i * (down // 2 + 1) + b // 2 * height + j - i
                braid16(x, p + j // 2, x, p + half + j // 2, room.cuts, o)
            i += height


@njit(cache=True, nogil=True)
def forward(room, x, at, n, d, half, columns, ld, lanes, s, thin, down):  # type: ignore[no-untyped-def]
    """Write ``X T`` into ``s`` and, for each lane, the sums of ``x**2 * lengths`` into ``thin``; ``T`` is in the room.

    ``x`` is that of :func:`pairs_of`, and a row of it is ``half`` long.
    """
    cut(room, x, at, n, d, half, down)
    clear(s, 0, columns * down)
    clear(thin, 0, lanes * down)
    r = 0
    while r < n:
        vectors = vectors_of(n - r)
        height = vectors * WIDTH
        for first in range(0, (d + 1) // 2, TERMS):
            last = min((d + 1) // 2, first + TERMS)
            for t in range(first, last, 8):
                for j in range(0, height, 8):
                    turn8(x, at + (r + j) * half + t, half, room.panel, (t - first) * height + j, height)
            terms = last - first
            multiply(room.panel, 0, height, room.theta, first, ld // 2, terms, s, r, down, vectors, columns)
            multiply_squares(room.panel, 0, height, room.lengths, first, ld // 2, terms, thin, r, down, vectors, lanes)
        r += height


@njit(cache=True, nogil=True)
def backward(room, n, d, errors, columns, e, lanes, down, g, weight, ld):  # type: ignore[no-untyped-def]
    """Add ``E' X`` to ``g`` and, for each lane, the sums of ``e x**2`` to ``weight``; after :func:`forward`."""
    halved(errors, columns, n, down, room.errors)
    halved(e, lanes, n, down, room.slopes)
    terms, i = (n + 1) // 2, 0
    while i < d:
        vectors = vectors_of(d - i)
        height, begin = vectors * WIDTH, i * (down // 2 + 1)
        multiply(room.cuts, begin, height, room.errors, 0, down // 2, terms, g, i, ld, vectors, columns)
        multiply_squares(room.cuts, begin, height, room.slopes, 0, down // 2, terms, weight, i, ld, vectors, lanes)
        i += height
