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

from fmtune.kernels.cpu_product import ROWS, TERMS, clear, vectors_of
from fmtune.kernels.tiles import COLUMNS, WIDTH, braid16, halve16, pairs, squares_of_pairs, turn8


class Room(NamedTuple):
    """The right sides of the products, as pairs in int32: parameters, errors, and those of the squares."""

    theta: NDArray[np.int32]
    errors: NDArray[np.int32]
    lengths: NDArray[np.int32]
    slopes: NDArray[np.int32]


@njit(inline="always")
def room_of(columns, lanes, ld, down):  # type: ignore[no-untyped-def]
    """Return room for blocks of up to ``down`` rows."""
    return Room(
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


@njit(inline="always")
def halves_of(d):  # type: ignore[no-untyped-def]
    """Return the pairs of a row of ``d`` numbers, whole eights."""
    return (d + 15) // 16 * 8


@njit(inline="always")
def sizes_of(n, d):  # type: ignore[no-untyped-def]
    """Return how long the two forms of a block are: see :func:`blocks_of`."""
    return (n + -n % WIDTH) * halves_of(d), (n + n % 2) * halves_of(d)


@njit(cache=True, nogil=True)
def blocks_of(matrix, rows):  # type: ignore[no-untyped-def]
    """Return mini-batches (float32, (n, d); they begin at ``rows``) as both products want them: int32, flat.

    A block of rows has two forms, one after the other: panels of some rows, turned, in pairs of features; and panels of
    features, in pairs of rows.  What is not there is 0.
    """
    d, length = matrix.shape[1], 0
    half, x = halves_of(d), matrix.ravel()
    for k in range(len(rows) - 1):
        for r0 in range(rows[k], rows[k + 1], ROWS):
            one, other = sizes_of(min(ROWS, rows[k + 1] - r0), d)
            length += one + other
    out, at = np.empty(length, np.int32), 0
    room, line = np.empty((ROWS + WIDTH) * half, np.int32), np.zeros(16, np.float32)
    for k in range(len(rows) - 1):
        for r0 in range(rows[k], rows[k + 1], ROWS):
            n = min(ROWS, rows[k + 1] - r0)
            _halve_rows(x, r0 * d, n, d, half, room, line)
            r = 0
            while r < n:
                height = vectors_of(n - r) * WIDTH
                for t in range(0, half, 8):
                    for j in range(0, height, 8):
                        turn8(room, (r + j) * half + t, half, out, at + t * height + j, height)
                r += height
                at += half * height
            terms, i = (n + 1) // 2, 0
            while i < d:
                height = vectors_of(d - i) * WIDTH
                for b in range(terms):
                    for j in range(0, height, 16):
                        p = 2 * b * half + (i + j) // 2
                        braid16(room, p, room, p + half, out, at + b * height + j)
                i += height
                at += terms * height
    return out


@njit(cache=True, nogil=True)
def _halve_rows(x, at, n, d, half, out, line):  # type: ignore[no-untyped-def]
    """Round ``n`` rows to pairs of features; after the last row, and the last feature, come zeros."""
    whole = d - d % 16
    for b in range(n):
        for i in range(0, whole, 16):
            halve16(x, at + b * d + i, out, b * half + i // 2)
        if whole < d:
            for i in range(whole, d):
                line[i - whole] = x[at + b * d + i]
            halve16(line, 0, out, b * half + whole // 2)
    clear(out, n * half, len(out))


@njit(cache=True, nogil=True)
def forward(room, x, at, n, d, columns, ld, lanes, s, thin, down):  # type: ignore[no-untyped-def]
    """Write ``X T`` into ``s`` and, for each lane, the sums of ``x**2 * lengths`` into ``thin``.

    The block's first form is at ``at`` of ``x``; ``T`` and the lengths are in the room.
    """
    clear(s, 0, columns * down)
    clear(thin, 0, lanes * down)
    r = 0
    while r < n:
        vectors = vectors_of(n - r)
        height = vectors * WIDTH
        for first in range(0, (d + 1) // 2, TERMS):
            begin, terms = at + first * height, min((d + 1) // 2, first + TERMS) - first
            multiply(x, begin, height, room.theta, first, ld // 2, terms, s, r, down, vectors, columns)
            multiply_squares(x, begin, height, room.lengths, first, ld // 2, terms, thin, r, down, vectors, lanes)
        r += height
        at += halves_of(d) * height


@njit(cache=True, nogil=True)
def backward(room, x, at, n, d, errors, columns, e, lanes, down, g, weight, ld):  # type: ignore[no-untyped-def]
    """Add ``E' X`` to ``g`` and, for each lane, the sums of ``e x**2`` to ``weight``.

    The block's second form is at ``at`` of ``x``.
    """
    halved(errors, columns, n, down, room.errors)
    halved(e, lanes, n, down, room.slopes)
    terms, i = (n + 1) // 2, 0
    while i < d:
        vectors = vectors_of(d - i)
        height = vectors * WIDTH
        multiply(x, at, height, room.errors, 0, down // 2, terms, g, i, ld, vectors, columns)
        multiply_squares(x, at, height, room.slopes, 0, down // 2, terms, weight, i, ld, vectors, lanes)
        i += height
        at += terms * height
