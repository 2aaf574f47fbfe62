"""Row-wise: a lane's factors of a feature moved together, where they share one number of state.

That number sums the mean of their squared gradients (:func:`~fmtune.kernels.rules.shared`), so there is one root and
one division for all of them.  Gradients are needed twice, for the mean and for the move, and wait in ``moves``.
``arena`` is flat, float32; ``lanes`` are those of ``cpu_sparse`` or ``cpu_dense``; ``share`` (float32, (lanes,)) is
one over the number of a lane's factors.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fmtune.kernels.cpu_product import lengths8
from fmtune.kernels.rules import decayed, pulled, shared
from fmtune.kernels.simd import either8, load8, splat8, spread8, store8, sums8
from fmtune.kernels.steps import settings


@njit(inline="always")
def move(arena, lanes, lane, share, columns, at, m, wide, moves, squares, begin, lines, rate):  # type: ignore[no-untyped-def]
    """Move a lane's factors of the ``m`` features at the places ``at`` by the gradients in ``moves``.

    With ``wide`` for ``m`` up to a multiple of eight: ``moves`` (float32, (wide * columns,)) has them by group of
    eight, then by feature; ``squares`` from ``begin`` on the sums of their squares, eight for each feature; ``lines``
    (float32, (2 * wide,)) is scratch.
    """
    state, eps = columns + len(lanes.first) + lane, lanes.knobs[lane, 2, 4]
    for e in range(m):
        lines[wide + e] = arena[at[e] + state]
    # The features' roots and divisions side by side: alone, each of them waits for its own.
    for e in range(0, m, 8):
        p = begin + 8 * e
        square = sums8(
            load8(squares, p), load8(squares, p + 8), load8(squares, p + 16), load8(squares, p + 24),
            load8(squares, p + 32), load8(squares, p + 40), load8(squares, p + 48), load8(squares, p + 56),
        )  # fmt: skip
        speed, a = shared(load8(lines, wide + e), square * share[lane], rate, eps)
        store8(lines, e, speed)
        store8(lines, wide + e, a)
    for e in range(m):
        arena[at[e] + state] = lines[wide + e]
    for group in range(lanes.first[lane], lanes.last[lane]):
        for e in range(m):
            p = at[e] + 8 * group
            store8(arena, p, load8(arena, p) - spread8(lines, e) * load8(moves, 8 * (wide * group + e)))


@njit(inline="always")
def slopes_of_row(arena, lanes, lane, lo, m, wide, indices, values, q, slip, at, moves, squares):  # type: ignore[no-untyped-def]
    """Write a lane's gradients of a row's ``m`` features for :func:`move`, by ``q`` and the row's slope ``slip``."""
    first, knobs, less = lanes.first[lane], lanes.knobs, splat8(np.float32(-1.0))
    decay, rescale, clip, _, _ = settings(knobs, lane, 2)
    for group in range(first, lanes.last[lane]):
        c = 8 * group
        sums = load8(q, c)
        for e in range(m):
            x, theta = spread8(values, lo + e), load8(arena, at[e] + c)
            weight = pulled((x * x) * slip, less, lanes.decays, indices[lo + e], knobs[lane, 2, 1], knobs[lane, 2, 2])
            g = decayed(x * sums - theta * weight, theta, rescale, decay, clip)
            store8(moves, 8 * (wide * group + e), g)
            store8(squares, 8 * e, g * g if group == first else load8(squares, 8 * e) + g * g)


@njit(inline="always")
def slopes_of_feature(arena, place, lanes, lane, columns, lo, hi, row, value, q, weight, slot, moves, squares):  # type: ignore[no-untyped-def]
    """Write a lane's gradients of the feature at ``place``, one of eight, by a mini-batch's entries ``lo`` to ``hi``.

    ``weight`` is the sum of ``e x^2``.  Same bits as :func:`slopes_of_row`.
    """
    decay, rescale, clip, _, _ = settings(lanes.knobs, lane, 2)
    total = splat8(np.float32(0.0))
    for group in range(lanes.first[lane], lanes.last[lane]):
        theta, g = load8(arena, place + 8 * group), splat8(np.float32(0.0))
        for t in range(lo, hi):
            g = g + spread8(value, t) * load8(q, np.int64(row[t]) * columns + 8 * group)
        g = decayed(g - theta * weight, theta, rescale, decay, clip)
        store8(moves, 8 * (8 * group + slot), g)
        total = total + g * g
    store8(squares, 8 * (8 * lane + slot), total)


@njit(inline="always")
def move_dense(arena, at, ld, lanes, lane, share, state, g, weight, rate, some, mask, i, line):  # type: ignore[no-untyped-def]
    """Move a lane's factors of eight features, the first of which is at ``at``, and their sums at ``state``.

    ``g`` has the products in the same places; ``weight`` eight numbers as in :func:`slopes_of_feature`; of ``some``
    features only those of the mask move; ``line`` (float32, (8,)) is scratch.
    """
    decay, rescale, clip, eps, _ = settings(lanes.knobs, lane, 2)
    for f in range(lanes.factors[lane]):
        p = at + f * ld
        theta = load8(arena, p)
        store8(g, p, decayed(load8(g, p) - theta * weight, theta, rescale, decay, clip))
    lengths8(g, at, ld, lanes.factors[lane], 8, line, 0)
    before = load8(arena, state)
    speed, a = shared(before, load8(line, 0) * share[lane], rate, eps)
    store8(arena, state, either8(mask, i, a, before) if some else a)
    for f in range(lanes.factors[lane]):
        p = at + f * ld
        theta = load8(arena, p)
        moved = theta - speed * load8(g, p)
        store8(arena, p, either8(mask, i, moved, theta) if some else moved)
