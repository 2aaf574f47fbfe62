"""Probes of a card: how fast it copies memory, and how fast it gathers rows of it."""

from __future__ import annotations

import numpy as np
from numba import cuda


@cuda.jit
def copy(source, target):  # type: ignore[no-untyped-def]
    """Copy an array of one dimension: 8 bytes an element cross the memory's bus."""
    i, step = cuda.grid(1), cuda.gridsize(1)
    while i < len(source):
        target[i] = source[i]
        i += step


@cuda.jit
def gather(table, indices, out):  # type: ignore[no-untyped-def]
    """Sum rows of ``table`` (rows, width) in turns of as many as ``out`` has sums a column: out[t * width + c].

    Thread (t, c) sums column c of the rows indices[t], indices[t + turns], ...: what a forward pass does, without its
    arithmetic.  Four bytes an element of ``indices`` and column are read.
    """
    width = table.shape[1]
    i, step, turns = cuda.grid(1), cuda.gridsize(1), len(out) // width
    while i < len(out):
        total = np.float32(0.0)
        for e in range(i // width, len(indices), turns):
            total += table[indices[e], i % width]
        out[i] = total
        i += step
