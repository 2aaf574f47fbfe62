"""Probes of a card: how fast it copies memory, and how fast it gathers rows of it."""

from __future__ import annotations

import numpy as np
from numba import cuda

from fmtune.kernels.cuda_quads import load4, store4

_ZERO = np.float32(0.0)


@cuda.jit
def copy(source, target):  # type: ignore[no-untyped-def]
    """Copy an array of one dimension, a multiple of four long: 8 bytes an element cross the memory's bus."""
    i, step = 4 * cuda.grid(1), 4 * cuda.gridsize(1)
    while i < len(source):
        a, b, c, d = load4(source, i)
        store4(target, i, a, b, c, d)
        i += step


@cuda.jit
def gather(table, width, indices, out):  # type: ignore[no-untyped-def]
    """Sum rows of ``table``, ``width`` long, in turns of as many as ``out`` has sums a column: out[t * width + c].

    Thread (t, c) sums four columns from c on of the rows indices[t], indices[t + turns], ...: what a forward pass does,
    without its arithmetic.  Four bytes an element of ``indices`` and column are read.
    """
    i, step, turns = 4 * cuda.grid(1), 4 * cuda.gridsize(1), len(out) // width
    while i < len(out):
        t, column = i // width, i % width
        s0 = s1 = s2 = s3 = _ZERO
        for e in range(t, len(indices), turns):
            a, b, c, d = load4(table, indices[e] * width + column)
            s0, s1, s2, s3 = s0 + a, s1 + b, s2 + c, s3 + d
        store4(out, i, s0, s1, s2, s3)
        i += step
