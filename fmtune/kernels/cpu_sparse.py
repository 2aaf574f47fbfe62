r"""Learn and score on the CPU over sparse rows, all lanes of a pack in one pass.

The parameters of all lanes lie side by side in one arena, float32 of shape (features, planes, columns).
Plane 0 holds the parameters, the others the optimizer's state.  The first columns hold factors, in groups of
eight, each group owned by one lane; then one column a lane holds its linear weight.  A feature's row has its
number.  Where a lane's factors share one number of state there is plane 0 alone, and two more columns a lane: the
state of its linear weight, after those of all lanes, and that of its factors.

A mini-batch is two passes.  Forward, over its rows::

    q_c = sum_i x_i theta_ic          s_c = sum_i (x_i theta_ic)^2
    z   = w0 + q_linear + 1/2 sum_f (q_f^2 - s_f)

Update, over the features it touches, by its transpose::

    g_if = sum_b e_b x_bi q_bf - theta_if sum_b e_b x_bi^2          g_i = sum_b e_b x_bi

with ``e`` the loss's slope.  Every sum runs in an order that depends on the rows and on ``num_factors``
only, so a lane's bits do not depend on its neighbours or its place.  No fastmath: the compiler may not
reorder.  (Rendle, 2010, "Factorization Machines", for the linear-time form.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fmtune.kernels.losses import slope
from fmtune.kernels.prefetch import prefetch
from fmtune.kernels.rowwise import move, slopes_of_feature, slopes_of_row
from fmtune.kernels.rules import correction, pulled
from fmtune.kernels.simd import load8, splat8, spread8, store8, sum8
from fmtune.kernels.steps import settings, step1, step8

GROUP = 8

# How far ahead parameters are asked for: entries in the forward pass (about one row of a click log), features in
# the update.  Without it both passes wait for memory at every feature; with it they ran 1.5 to 1.9 times as fast on
# a million features.
_ENTRIES_AHEAD = 40
_FEATURES_AHEAD = 4
_ROWS_AHEAD = 2

# From so many features in a row on, linear weights move eight at a time: for fewer, reading eight that were just
# written one by one waits longer than their roots and divisions take.
_SEVERAL = 5


class Lanes(NamedTuple):
    """The lanes of a pack, as arrays.

    ``first`` and ``last`` (int64, (lanes,)): the lane's groups of eight factor columns; ``bias`` (float32,
    (1 + states, lanes)); ``steps`` (int64, (lanes,)): updates done; ``knobs`` (float32, (lanes, 3, 6)): for bias,
    linear and factors: rate, decay, rescale, clip, eps, l1; ``decays`` (float32, (features,) or None): factors of the
    features' decay.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    bias: NDArray[np.float32]
    steps: NDArray[np.int64]
    knobs: NDArray[np.float32]
    decays: NDArray[np.float32] | None


@njit(cache=True, nogil=True)
def rearrange(old, new, groups, others):  # type: ignore[no-untyped-def]
    """Fill an arena from another one with the same features and planes, in one pass over both.

    ``groups`` (int64, (groups,)) and ``others`` (int64, (others,)): the old first column of each of the new arena's
    groups of eight and the old column of each of its other columns, or -1 for what is new, which becomes 0.
    """
    planes, columns, before = new.shape[1], new.shape[2], old.shape[2]
    source, target, zero = old.ravel(), new.ravel(), splat8(np.float32(0.0))
    for i in range(len(new) * planes):
        to, at = i * columns, i * before
        for group in range(len(groups)):
            c = groups[group]
            store8(target, to + 8 * group, load8(source, at + c) if c >= 0 else zero)
        for other in range(len(others)):
            c = others[other]
            target[to + 8 * len(groups) + other] = source[at + c] if c >= 0 else np.float32(0.0)


@njit(inline="always")
def _ask_for(arena, row, stop):  # type: ignore[no-untyped-def]
    """Prefetch the first ``stop`` bytes of a row of the arena."""
    for byte in range(0, stop, 64):
        prefetch(arena, row, byte)


@njit(inline="always")
def _forward(flat, values, lo, m, groups, columns, at, q, base, s):  # type: ignore[no-untyped-def]
    """Sum a row's ``m`` entries, from ``lo`` on and at the places ``at``, into ``q[base:]`` and ``s``."""
    group = 0
    while group + 4 <= groups:
        c = 8 * group
        q0 = q1 = q2 = q3 = s0 = s1 = s2 = s3 = splat8(np.float32(0.0))
        for e in range(m):
            x, p = spread8(values, lo + e), at[e] + c
            t0, t1 = x * load8(flat, p), x * load8(flat, p + 8)
            t2, t3 = x * load8(flat, p + 16), x * load8(flat, p + 24)
            q0, q1, q2, q3 = q0 + t0, q1 + t1, q2 + t2, q3 + t3
            s0, s1, s2, s3 = s0 + t0 * t0, s1 + t1 * t1, s2 + t2 * t2, s3 + t3 * t3
        store8(q, base + c, q0)
        store8(q, base + c + 8, q1)
        store8(q, base + c + 16, q2)
        store8(q, base + c + 24, q3)
        store8(s, c, s0)
        store8(s, c + 8, s1)
        store8(s, c + 16, s2)
        store8(s, c + 24, s3)
        group += 4
    while group < groups:
        q0 = s0 = splat8(np.float32(0.0))
        for e in range(m):
            t0 = spread8(values, lo + e) * load8(flat, at[e] + 8 * group)
            q0 = q0 + t0
            s0 = s0 + t0 * t0
        store8(q, base + 8 * group, q0)
        store8(s, 8 * group, s0)
        group += 1
    eights = 8 * groups
    while eights + 8 <= columns:
        q0 = splat8(np.float32(0.0))
        for e in range(m):
            q0 = q0 + spread8(values, lo + e) * load8(flat, at[e] + eights)
        store8(q, base + eights, q0)
        eights += 8
    for c in range(eights, columns):
        total = np.float32(0.0)
        for e in range(m):
            total += values[lo + e] * flat[at[e] + c]
        q[base + c] = total


@njit(inline="always")
def _score(lanes, lane, groups, q, base, s):  # type: ignore[no-untyped-def]
    """Return one lane's score; eight running sums, joined as a tree, so that the order is the same everywhere."""
    pairs = splat8(np.float32(0.0))
    for group in range(lanes.first[lane], lanes.last[lane]):
        total = load8(q, base + 8 * group)
        pairs = pairs + (total * total - load8(s, 8 * group))
    return lanes.bias[0, lane] + q[base + 8 * groups + lane] + np.float32(0.5) * sum8(pairs)


@njit(cache=True, nogil=True)
def score(arena, more, lanes, indptr, indices, values, out):  # type: ignore[no-untyped-def]
    """Write raw scores of rows into ``out`` (float32, (lanes, rows)).

    ``more`` columns a lane hold its state; None do without, known when the kernel is compiled: it scores 5 % faster.
    """
    n_lanes, columns, flat, stride = len(lanes.first), arena.shape[2], arena.ravel(), arena.shape[1] * arena.shape[2]
    if more is not None:
        columns -= more * n_lanes
    groups = (columns - n_lanes) // 8
    q, s = np.empty(columns, np.float32), np.empty(columns, np.float32)
    at = np.empty(_longest(indptr, 0, len(indptr) - 1), np.int64)
    for b in range(len(indptr) - 1):
        lo, m = indptr[b], indptr[b + 1] - indptr[b]
        _places(arena, indices, lo, m, stride, at)
        _forward(flat, values, lo, m, groups, columns, at, q, 0, s)
        for lane in range(n_lanes):
            out[lane, b] = _score(lanes, lane, groups, q, 0, s)


@njit(inline="always")
def _places(arena, indices, lo, m, stride, at):  # type: ignore[no-untyped-def]
    """Write where the rows of ``m`` entries begin into ``at``, and ask for the parameters of later entries."""
    stop = 4 * arena.shape[2]
    for e in range(m):
        if lo + e + _ENTRIES_AHEAD < len(indices):
            _ask_for(arena, indices[lo + e + _ENTRIES_AHEAD], stop)
        at[e] = np.int64(indices[lo + e]) * stride


@njit(inline="always")
def _longest(indptr, first, last):  # type: ignore[no-untyped-def]
    """Return the largest difference between neighbours of ``indptr[first:last + 1]``."""
    longest = 0
    for b in range(first, last):
        longest = max(longest, indptr[b + 1] - indptr[b])
    return longest


@njit(inline="always")
def _linear(rule, flat, planes, away, column, at, m, lines, wide, rate, own):  # type: ignore[no-untyped-def]
    """Move a lane's linear weight of the ``m`` features at ``at``, eight features at a time.

    Its states lie ``away`` floats further on each.  ``lines`` (float32, ((planes + 1) * wide,)) is where they are put
    side by side; its last line holds the gradients.  Alone, each of them waits for a root and a division of its own.
    """
    for plane in range(planes):
        for e in range(m):
            lines[plane * wide + e] = flat[at[e] + plane * away + column]
    for e in range(0, m, 8):
        step8(rule, lines, e, wide, load8(lines, planes * wide + e), rate, own)
    for plane in range(planes):
        for e in range(m):
            flat[at[e] + plane * away + column] = lines[plane * wide + e]


@njit(inline="always")
def _factors(rule, share, flat, place, r, columns, lanes, lo, hi, row, value, q, e, rate, eight, slot, moves, squares):  # type: ignore[no-untyped-def]
    """Move feature ``r``'s factors by a mini-batch's entries ``lo`` to ``hi``; its linear gradients go to ``eight``.

    Where factors share their state, their gradients are left in ``moves`` and ``squares``.
    """
    n_lanes, knobs = len(lanes.first), lanes.knobs
    for lane in range(n_lanes):
        weight = linear = np.float32(0.0)
        for t in range(lo, hi):
            x = value[t]
            weight += (x * x) * e[row[t], lane]
            linear += x * e[row[t], lane]
        weight = pulled(weight, np.float32(-1.0), lanes.decays, r, knobs[lane, 2, 1], knobs[lane, 2, 2])
        theta = flat[place + columns - n_lanes + lane]
        linear = pulled(linear, theta, lanes.decays, r, knobs[lane, 1, 1], knobs[lane, 1, 2])
        eight[8 * lane + slot] = linear
        if share is None:
            for group in range(lanes.first[lane], lanes.last[lane]):
                c = 8 * group
                g = splat8(np.float32(0.0))
                for t in range(lo, hi):
                    g = g + spread8(value, t) * load8(q, np.int64(row[t]) * columns + c)
                g = g - load8(flat, place + c) * weight
                step8(rule, flat, place + c, columns, g, rate[lane, 2], settings(knobs, lane, 2))
        else:
            slopes_of_feature(flat, place, lanes, lane, columns, lo, hi, row, value, q, weight, slot, moves, squares)


@njit(inline="always")
def _linears(rule, share, flat, planes, columns, away, lanes, at, m, eight, lines, rate, moves, squares):  # type: ignore[no-untyped-def]
    """Move all lanes' linear weights of ``m`` features, at most eight, by the gradients in ``eight``.

    And their factors, where these share their state.
    """
    n_lanes = len(lanes.first)
    for lane in range(n_lanes):
        if share is not None:
            move(flat, lanes, lane, share, columns, at, m, 8, moves, squares, 64 * lane, lines, rate[lane, 2])
        store8(lines, 8 * planes, load8(eight, 8 * lane))
        column = columns - n_lanes + lane
        _linear(rule, flat, planes, away, column, at, m, lines, 8, rate[lane, 1], settings(lanes.knobs, lane, 1))


@njit(cache=True, nogil=True)
def learn(rule, loss, lazy, share, arena, lanes, batches, first, last, scores):  # type: ignore[no-untyped-def]
    """Train all lanes on mini-batches ``first`` to ``last`` (exclusive).

    Parameters
    ----------
    rule, loss : int
        Codes of ``RULES`` and ``losses.CODES``.
    lazy : bool
        Whether features that a mini-batch does not touch stay as they are.
    share : float32 (lanes,) or None
        One over the number of a lane's factors, 0 where it has none, where they share their state; None where each has
        its own, which is known when the kernel is compiled.
    arena : float32 (feature_dim, planes, columns)
    lanes : Lanes
    batches : sparse_batches.Batches
    scores : float32 (lanes, rows of the batches or 0)
        Receives each row's score before its mini-batch's update, unless it is empty.
    """
    n_lanes, planes, columns, flat = len(lanes.first), arena.shape[1], arena.shape[2], arena.ravel()
    stride, away = planes * columns, columns
    if share is not None:
        planes, columns, away = len(lanes.bias), columns - 2 * n_lanes, n_lanes
    groups = (columns - n_lanes) // 8
    begin, longest = batches.rows[first], _longest(batches.rows, first, last)
    q, e = np.empty(longest * columns, np.float32), np.empty((longest, n_lanes), np.float32)
    s, rate = np.empty(columns, np.float32), np.empty((n_lanes, 3), np.float32)
    at = np.empty(max(8, _longest(batches.indptr, begin, batches.rows[last])), np.int64)
    eight, lines = np.zeros(8 * n_lanes, np.float32), np.zeros(8 * (planes + 1), np.float32)
    mark = np.full(0 if lazy else len(arena), -1, np.int64)
    moves = squares = lines
    if share is not None:
        moves, squares = np.empty(8 * columns, np.float32), np.zeros(64 * n_lanes, np.float32)
    bias, weighted = lanes.bias.ravel(), len(batches.weights) > 0
    row, value, steps, knobs = batches.row, batches.value, lanes.steps, lanes.knobs
    for k in range(first, last):
        r0 = batches.rows[k]
        n = batches.rows[k + 1] - r0
        for b in range(n):
            lo, base = batches.indptr[r0 + b], b * columns
            m = batches.indptr[r0 + b + 1] - lo
            _places(arena, batches.indices, lo, m, stride, at)
            _forward(flat, batches.values, lo, m, groups, columns, at, q, base, s)
            for lane in range(n_lanes):
                z = _score(lanes, lane, groups, q, base, s)
                error = slope(loss, z, batches.labels[r0 + b])
                if weighted:
                    error *= batches.weights[r0 + b]
                e[b, lane] = error
                if scores.shape[1] > 0:
                    scores[lane, r0 + b - begin] = z
                for group in range(lanes.first[lane], lanes.last[lane]):
                    store8(q, base + 8 * group, load8(q, base + 8 * group) * error)
        for lane in range(n_lanes):
            steps[lane] += 1
            factor = correction(rule, steps[lane])
            for array in range(3):
                rate[lane, array] = knobs[lane, array, 0] * factor
        slot, touched, end = 0, batches.touched[k], batches.touched[k + 1]
        # Behind the touched features come all others, if they move as well.
        for u in range(touched, end if lazy else end + len(mark)):
            if u < end:
                if u + _FEATURES_AHEAD < len(batches.feature):
                    _ask_for(arena, batches.feature[u + _FEATURES_AHEAD], 4 * stride)
                r, lo, hi, due = np.int64(batches.feature[u]), batches.entries[u], batches.entries[u + 1], True
                if not lazy:
                    mark[r] = k
            else:
                r, lo, hi = u - end, np.int64(0), np.int64(0)
                due = mark[r] != k
            if due:
                at[slot] = r * stride
                _factors(
                    rule, share, flat, at[slot], r, columns, lanes, lo, hi, row, value, q, e, rate, eight, slot, moves,
                    squares,
                )  # fmt: skip
                slot += 1
            if slot == 8 or u + 1 == end + len(mark):
                _linears(rule, share, flat, planes, columns, away, lanes, at, slot, eight, lines, rate, moves, squares)
                slot = 0
        for lane in range(n_lanes):
            total = 0.0
            for b in range(n):
                total += e[b, lane]
            step1(rule, bias, lane, n_lanes, np.float32(total), rate[lane, 0], settings(lanes.knobs, lane, 0))


@njit(cache=True, nogil=True)
def learn_each(rule, loss, share, arena, lanes, batches, first, last, scores):  # type: ignore[no-untyped-def]
    """Train all lanes with an update after every row: mini-batches of one row, ``first`` to ``last``, always lazy.

    Same rule and same bits as :func:`learn`; a row's features are its own transpose, and its parameters are still
    at hand when they are updated.  Parameters as in :func:`learn`.
    """
    n_lanes, planes, columns, flat = len(lanes.first), arena.shape[1], arena.shape[2], arena.ravel()
    stride, away = planes * columns, columns
    if share is not None:
        planes, columns, away = len(lanes.bias), columns - 2 * n_lanes, n_lanes
    groups = (columns - n_lanes) // 8
    q, s = np.empty(columns, np.float32), np.empty(columns, np.float32)
    rate, error = np.empty((n_lanes, 3), np.float32), np.empty(n_lanes, np.float32)
    bias, weighted = lanes.bias.ravel(), len(batches.weights) > 0
    steps, knobs, decays = lanes.steps, lanes.knobs, lanes.decays
    indices, less = batches.indices, splat8(np.float32(-1.0))
    at = np.empty(_longest(batches.indptr, first, last), np.int64)
    wide = len(at) + -len(at) % 8
    lines, values = np.zeros((planes + 1) * wide, np.float32), batches.values
    moves, squares, ahead = lines, lines, 4 * stride
    if share is not None:
        moves, squares = np.empty(wide * columns, np.float32), np.zeros(8 * wide, np.float32)
        ahead += 60  # a row of so odd a length often ends in one more cache line
    for b in range(first, last):
        if b + _ROWS_AHEAD < last:
            for e in range(batches.indptr[b + _ROWS_AHEAD], batches.indptr[b + _ROWS_AHEAD + 1]):
                _ask_for(arena, batches.indices[e], ahead)
        lo = batches.indptr[b]
        m = batches.indptr[b + 1] - lo
        for e in range(m):
            at[e] = np.int64(batches.indices[lo + e]) * stride
        _forward(flat, values, lo, m, groups, columns, at, q, 0, s)
        for lane in range(n_lanes):
            steps[lane] += 1
            factor = correction(rule, steps[lane])
            for array in range(3):
                rate[lane, array] = knobs[lane, array, 0] * factor
        for lane in range(n_lanes):
            z = _score(lanes, lane, groups, q, 0, s)
            error[lane] = slope(loss, z, batches.labels[b])
            if weighted:
                error[lane] *= batches.weights[b]
            if scores.shape[1] > 0:
                scores[lane, b - first] = z
            for group in range(lanes.first[lane], lanes.last[lane]):
                store8(q, 8 * group, load8(q, 8 * group) * error[lane])
        for lane in range(n_lanes):
            own, speed, slip, column = settings(lanes.knobs, lane, 2), rate[lane, 2], error[lane], 8 * groups + lane
            if share is None:
                begin, end = lanes.first[lane], lanes.last[lane]
                for e in range(m):
                    x, p, r = spread8(values, lo + e), at[e], indices[lo + e]
                    weight = pulled((x * x) * slip, less, decays, r, knobs[lane, 2, 1], knobs[lane, 2, 2])
                    for group in range(begin, end):
                        c = 8 * group
                        step8(rule, flat, p + c, columns, x * load8(q, c) - load8(flat, p + c) * weight, speed, own)
            else:
                slopes_of_row(flat, lanes, lane, lo, m, wide, indices, values, q, slip, at, moves, squares)
                move(flat, lanes, lane, share, columns, at, m, wide, moves, squares, 0, lines, speed)
            own, speed = settings(knobs, lane, 1), rate[lane, 1]
            for e in range(m):
                slip, theta = values[lo + e] * error[lane], flat[at[e] + column]
                slip = pulled(slip, theta, decays, indices[lo + e], knobs[lane, 1, 1], knobs[lane, 1, 2])
                if m < _SEVERAL:
                    step1(rule, flat, at[e] + column, away, slip, speed, own)
                else:
                    lines[planes * wide + e] = slip
            if m >= _SEVERAL:
                _linear(rule, flat, planes, away, column, at, m, lines, wide, speed, own)
            step1(rule, bias, lane, n_lanes, error[lane], rate[lane, 0], settings(knobs, lane, 0))
