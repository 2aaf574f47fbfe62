r"""Learn and score on the CPU over dense rows: the pass is two matrix products, over all lanes of a pack at once.

The arena is a matrix, float32 of shape (columns of numbers, ld): a number of each feature lies along a row of it, with
``ld`` for the features up to whole vectors.  First stand the parameters of all lanes, ``T``: a lane's factors, then its
linear weights.  After them, in the same order, the states of a rule; where factors share their state, only two rows for
each lane: the state of its linear weights, and that of its factors.

    S = X T        z = w0 + S_linear + 1/2 (sum_f S_f^2 - sum_i x_i^2 |v_i|^2)
    G = X' E       with E = [e S_f ..., e]:  g_if = G_if - v_if sum_b e_b x_bi^2,  g_i = G_i,linear

The products are our own (``cpu_product``): each of their entries is one sum in the order of its terms, whatever stands
beside it, so a lane's bits do not depend on its neighbours, on the rows that share its pass, or on threads.  A BLAS
promises none of that, and was no faster here at the widths of packs.

All else runs along rows of a mini-batch or along features, eight at a time, and so needs no care for what is left over
of a lane's factors.  A mini-batch is taken by blocks of rows, which are read once for both products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fmtune.kernels import cpu_halves as halves
from fmtune.kernels.cpu_product import ROWS, backward, clear, forward, lengths8, room_of
from fmtune.kernels.losses import slope
from fmtune.kernels.rowwise import move_dense
from fmtune.kernels.rules import correction, pulled8
from fmtune.kernels.simd import either8, load8, splat8, store8
from fmtune.kernels.steps import settings, step1, step8
from fmtune.kernels.tiles import WIDTH


class Lanes(NamedTuple):
    """The lanes of a pack, as arrays.

    ``first`` (int64, (lanes,)): the lane's first row of the arena; ``factors`` (int64, (lanes,)); ``bias`` (float32,
    (lanes, 1 + states)); ``steps`` (int64, (lanes,)); ``knobs`` (float32, (lanes, 3, 6)): for bias, linear and factors:
    rate, decay, rescale, clip, eps, l1; ``decays`` (float32, (ld,) or None): factors of the features' decay.
    """

    first: NDArray[np.int64]
    factors: NDArray[np.int64]
    bias: NDArray[np.float32]
    steps: NDArray[np.int64]
    knobs: NDArray[np.float32]
    decays: NDArray[np.float32] | None


class Batches(NamedTuple):
    """Rows in training order: ``matrix`` (float32, (n, feature_dim); or that of ``cpu_halves.blocks_of``), ``labels``
    (float32, (n,)), ``rows`` (int64, (batches + 1,)), ``touched`` (bool, (batches, feature_dim)): columns not all zero
    in the batch, and ``weights`` (float32, (n,) or (0,)): factors of the rows' slopes; none is 1."""

    matrix: NDArray[Any]
    labels: NDArray[np.float32]
    rows: NDArray[np.int64]
    touched: NDArray[np.bool_]
    weights: NDArray[np.float32]


def padded(n: int) -> int:
    """Return how far apart runs of ``n`` numbers lie: whole vectors, and no power of two, which a cache takes ill."""
    whole = -(-n // WIDTH) * WIDTH
    return whole + WIDTH if whole % 512 == 0 else whole


_padded = njit(inline="always")(padded)


@njit(inline="always")
def _columns(lanes):  # type: ignore[no-untyped-def]
    """Return the columns of the products."""
    return lanes.factors.sum() + len(lanes.factors)


@njit(cache=True, nogil=True)
def _lengths(arena, ld, lanes, d, q):  # type: ignore[no-untyped-def]
    """Write the squared lengths of the features' factors into ``q`` (float32, (lanes * ld,))."""
    for lane in range(len(lanes.first)):
        lengths8(arena, lanes.first[lane] * ld, ld, lanes.factors[lane], d, q, lane * ld)


@njit(cache=True, nogil=True)
def _scores(n, lanes, lane, s, thin, down, z):  # type: ignore[no-untyped-def]
    """Write a lane's scores of ``n`` rows into ``z``, given its products; ``z`` has room for whole eights."""
    factors, p = lanes.factors[lane], lanes.first[lane] * down
    lengths8(s, p, down, factors, n, z, 0)
    bias, half = lanes.bias[lane, 0], np.float32(0.5)
    for b in range(0, n, 8):
        pairs = load8(z, b) - load8(thin, lane * down + b)
        store8(z, b, (load8(s, p + factors * down + b) + bias) + pairs * half)


@njit(cache=True, nogil=True)
def score(arena, ld, lanes, matrix, out):  # type: ignore[no-untyped-def]
    """Write raw scores into ``out`` (float32, (lanes, rows)); ``arena`` and ``ld`` as in :func:`learn`."""
    n, d = matrix.shape
    x, columns, many = matrix.ravel(), _columns(lanes), len(lanes.first)
    down = _padded(min(ROWS, n))
    s, thin, z = np.empty(columns * down, np.float32), np.empty(many * down, np.float32), np.empty(down, np.float32)
    q, room = np.empty(many * ld, np.float32), room_of(many, ld, down)
    _lengths(arena, ld, lanes, d, q)
    for start in range(0, n, ROWS):
        m = min(ROWS, n - start)
        forward(room, x, start * d, m, d, arena, columns, ld, q, many, s, thin, down)
        for lane in range(many):
            _scores(m, lanes, lane, s, thin, down, z)
            for b in range(m):
                out[lane, start + b] = z[b]


@njit(cache=True, nogil=True)
def _errors(lanes, lane, s, down, n, e):  # type: ignore[no-untyped-def]
    """Turn a lane's products into its columns of ``E``: times the rows' slopes, and the slopes."""
    p, factors = lanes.first[lane] * down, lanes.factors[lane]
    for f in range(factors):
        for b in range(0, n, 8):
            store8(s, p + f * down + b, load8(s, p + f * down + b) * load8(e, lane * down + b))
    for b in range(0, n, 8):
        store8(s, p + factors * down + b, load8(e, lane * down + b))


@njit(inline="always")
def _step_bias(rule, lanes, lane, total):  # type: ignore[no-untyped-def]
    """Count a lane's mini-batch and move its bias; returns the factor of its rates."""
    lanes.steps[lane] += 1
    factor, bias = correction(rule, lanes.steps[lane]), lanes.bias
    rate = np.float32(lanes.knobs[lane, 0, 0] * factor)
    step1(rule, bias.ravel(), lane * bias.shape[1], 1, total, rate, settings(lanes.knobs, lane, 0))
    return factor


@njit(inline="always")
def _marks(lazy, touched, d, mask, kinds):  # type: ignore[no-untyped-def]
    """Write which features are to move (1.0 or 0.0), and for each eight of them: 0 none, 1 some, 2 all."""
    clear(mask, 0, len(mask))
    for i in range(0, d, 8):
        last = min(d, i + 8)
        moving = 0
        for j in range(i, last):
            if not lazy or touched[j]:
                mask[j] = np.float32(1.0)
                moving += 1
        kinds[i // 8] = 2 if moving == last - i else min(moving, 1)


@njit(inline="always")
def _step(rule, arena, p, gap, planes, gradient, rate, own, some, mask, i, saved):  # type: ignore[no-untyped-def]
    """Move eight parameters; of ``some`` only those of the mask."""
    for plane in range(planes if some else 0):
        store8(saved, 8 * plane, load8(arena, p + plane * gap))
    step8(rule, arena, p, gap, gradient, rate, own)
    for plane in range(planes if some else 0):
        o = p + plane * gap
        store8(arena, o, either8(mask, i, load8(arena, o), load8(saved, 8 * plane)))


@njit(cache=True, nogil=True)
def _move(rule, share, arena, planes, ld, lanes, lane, d, columns, g, weight, rate, mask, kinds, saved):  # type: ignore[no-untyped-def]
    """Apply the rule to all of a lane's weights and factors."""
    first, factors, knobs = lanes.first[lane], lanes.factors[lane], lanes.knobs
    own, less = settings(knobs, lane, 2), splat8(np.float32(-1.0))
    state, gap = (columns + 2 * lane) * ld, columns * ld
    for i in range(0, d, 8):  # what the factors' gradients lose to their own share of the scores
        w = load8(weight, lane * ld + i)
        w = pulled8(w, less, lanes.decays, i, knobs[lane, 2, 1], knobs[lane, 2, 2])
        store8(weight, lane * ld + i, w)
        if share is not None and kinds[i // 8] > 0:
            some, p, sums = kinds[i // 8] == 1, first * ld + i, state + ld + i
            move_dense(arena, p, ld, lanes, lane, share, sums, g, w, rate[2], some, mask, i, saved)
    for f in range(factors if share is None else 0):
        for i in range(0, d, 8):
            if kinds[i // 8] > 0:
                p = (first + f) * ld + i
                gradient = load8(g, p) - load8(arena, p) * load8(weight, lane * ld + i)
                _step(rule, arena, p, gap, planes, gradient, rate[2], own, kinds[i // 8] == 1, mask, i, saved)
    own = settings(knobs, lane, 1)
    if share is not None:
        gap, planes = state - (first + factors) * ld, 2
    for i in range(0, d, 8):
        if kinds[i // 8] > 0:
            p = (first + factors) * ld + i
            gradient = pulled8(load8(g, p), load8(arena, p), lanes.decays, i, knobs[lane, 1, 1], knobs[lane, 1, 2])
            _step(rule, arena, p, gap, planes, gradient, rate[1], own, kinds[i // 8] == 1, mask, i, saved)


@njit(cache=True, nogil=True)
def learn(rule, loss, lazy, share, rounded, arena, planes, ld, lanes, batches, begin, end, scores):  # type: ignore[no-untyped-def]
    """Train all lanes on mini-batches ``begin`` to ``end`` (exclusive).

    Parameters
    ----------
    rule, loss : int
        Codes of ``RULES`` and ``losses.CODES``.
    lazy : bool
        Whether columns that are all zero in a mini-batch stay as they are.
    share : float32 (lanes,) or None
        One over the number of a lane's factors, 0 where it has none, where they share their state; None where each has
        its own, which is known when the kernel is compiled.
    rounded : bool or None
        None for exact products; else they take bfloat16 (``cpu_halves``), on CPUs that have it, as do the batches.
    arena : float32 (rows * ld,)
    planes, ld : int
        1 + the rule's number of states, or 1 where factors share theirs; and the length of a row of the arena.
    lanes : Lanes
    batches : Batches
    scores : float32 (lanes, rows of the batches or 0)
        Receives each row's score before its mini-batch's update, unless it is empty.
    """
    d, columns, many = batches.touched.shape[1], _columns(lanes), len(lanes.first)
    longest = np.int64(1)
    for k in range(begin, end):
        longest = max(longest, batches.rows[k + 1] - batches.rows[k])
    x, origin, weighted = batches.matrix.ravel(), batches.rows[begin], len(batches.weights) > 0
    down = _padded(min(ROWS, longest))  # type: ignore[arg-type]
    s, g = np.empty(columns * down, np.float32), np.empty(columns * ld, np.float32)
    thin, e, z = np.empty(many * down, np.float32), np.zeros(many * down, np.float32), np.empty(down, np.float32)
    q, weight, total = np.empty(many * ld, np.float32), np.empty(many * ld, np.float32), np.empty(many, np.float64)
    y, rate, saved = np.empty(2 * down, np.float32), np.empty(3, np.float32), np.empty(24, np.float32)
    mask, kinds = np.empty(ld, np.float32), np.empty(ld // 8, np.int64)
    if rounded is None:
        room = room_of(many, ld, down)
    else:
        small, at = halves.room_of(columns, many, ld, down), 0
        for k in range(begin):
            for r0 in range(batches.rows[k], batches.rows[k + 1], ROWS):
                one, other = halves.sizes_of(min(ROWS, batches.rows[k + 1] - r0), d)
                at += one + other
    for k in range(begin, end):
        _lengths(arena, ld, lanes, d, q)
        clear(g, 0, len(g))
        clear(weight, 0, len(weight))
        clear(total, 0, many)
        if rounded is not None:
            halves.halved(arena, columns, d, ld, small.theta)
            halves.halved(q, many, d, ld, small.lengths)
        for r0 in range(batches.rows[k], batches.rows[k + 1], ROWS):
            n = min(ROWS, batches.rows[k + 1] - r0)
            for b in range(n):
                y[b] = batches.labels[r0 + b]
                if weighted:
                    y[down + b] = batches.weights[r0 + b]
            if rounded is None:
                forward(room, x, r0 * d, n, d, arena, columns, ld, q, many, s, thin, down)
            else:
                one, other = halves.sizes_of(n, d)
                halves.forward(small, x, at, n, d, columns, ld, many, s, thin, down)
            for lane in range(many):
                _scores(n, lanes, lane, s, thin, down, z)
                if scores.shape[1] > 0:
                    for b in range(n):
                        scores[lane, r0 - origin + b] = z[b]
                for b in range(0, n, 8):
                    error = slope(loss, load8(z, b), load8(y, b))
                    if weighted:
                        error = error * load8(y, down + b)
                    store8(e, lane * down + b, error)
                for b in range(n):
                    total[lane] += e[lane * down + b]
                _errors(lanes, lane, s, down, n, e)
            if rounded is None:
                backward(room, x, r0 * d, n, d, s, columns, e, many, down, g, weight, ld)
            else:
                halves.backward(small, x, at + one, n, d, s, columns, e, many, down, g, weight, ld)
                at += one + other
        _marks(lazy, batches.touched[k], d, mask, kinds)
        for lane in range(many):
            factor = _step_bias(rule, lanes, lane, np.float32(total[lane]))
            for array in range(3):
                rate[array] = lanes.knobs[lane, array, 0] * factor
            _move(rule, share, arena, planes, ld, lanes, lane, d, columns, g, weight, rate, mask, kinds, saved)
