r"""Learn and score on the CPU over sparse rows, all lanes of a pack in one pass.

The parameters of all lanes lie side by side in one arena, float32 of shape (features, planes, columns).
Plane 0 holds the parameters, the others the optimizer's state.  Columns 0 to ``8 * len(lanes.owner)`` hold
factors, in groups of eight, each group owned by one lane; then one column a lane holds its linear weight.
``home`` maps a feature to its row of the arena.

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

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fmtune.kernels.losses import slope
from fmtune.kernels.prefetch import prefetch
from fmtune.kernels.rules import ADAM, adagrad, adam, correction, decayed

GROUP = 8

# How far ahead parameters are asked for: entries in the forward pass (about one row of a click log), features in
# the update.  Without it both passes wait for memory at every feature; with it they ran 1.5 to 1.9 times as fast on
# a million features.
_ENTRIES_AHEAD = 40
_FEATURES_AHEAD = 4


class Lanes(NamedTuple):
    """The lanes of a pack, as arrays.

    ``first`` and ``last`` (int64, (lanes,)): the lane's groups of eight factor columns; ``owner`` (int64,
    (groups,)): the lane of each group; ``bias`` (float32, (1, planes, lanes), an arena of one row); ``steps``
    (int64, (lanes,)): updates done; ``knobs`` (float32, (5, columns)): rate, decay, rescale, clip, eps of each column;
    ``bias_knobs`` (float32, (5, lanes)).
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    owner: NDArray[np.int64]
    bias: NDArray[np.float32]
    steps: NDArray[np.int64]
    knobs: NDArray[np.float32]
    bias_knobs: NDArray[np.float32]


class Batches(NamedTuple):
    """Rows in training order with the transpose of each mini-batch.

    ``rows`` (int64, (batches + 1,)): first row of each; ``touched`` (int64, (batches + 1,)): its range in
    ``feature`` (int32), the features it touches; ``entries`` (int64, (touched + 1,)): each one's range in
    ``row`` (int32, counted from the batch's first) and ``value`` (float32), in row order.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    labels: NDArray[np.float32]
    rows: NDArray[np.int64]
    touched: NDArray[np.int64]
    feature: NDArray[np.int32]
    entries: NDArray[np.int64]
    row: NDArray[np.int32]
    value: NDArray[np.float32]


@njit(cache=True, nogil=True)
def transpose(indptr, indices, values, rows, slot, touched, feature, entries, row, value):  # type: ignore[no-untyped-def]
    """Fill the transpose of each mini-batch; time is linear in the entries.

    ``slot`` is scratch, int64 of shape (feature_dim,), filled with -1 and left so.  ``feature`` and
    ``entries`` are as long as there are entries; returns how many features were touched in all.
    """
    count = 0
    for k in range(len(rows) - 1):
        lo, hi = indptr[rows[k]], indptr[rows[k + 1]]
        begin = count
        for e in range(lo, hi):
            i = indices[e]
            if slot[i] < 0:
                slot[i] = count
                feature[count] = i
                entries[count] = 0
                count += 1
            entries[slot[i]] += 1
        at = lo
        for u in range(begin, count):
            entries[u], at = at, at + entries[u]
        for b in range(rows[k], rows[k + 1]):
            for e in range(indptr[b], indptr[b + 1]):
                u = slot[indices[e]]
                row[entries[u]] = b - rows[k]
                value[entries[u]] = values[e]
                entries[u] += 1
        # Each range now ends where it should begin the next: shift back by one.
        at = lo
        for u in range(begin, count):
            entries[u], at = at, entries[u]
            slot[feature[u]] = -1
        touched[k + 1] = count
    return count


@njit(inline="always")
def _forward(arena, home, indices, values, lo, hi, q, b, s):  # type: ignore[no-untyped-def]
    """Sum one row's entries into ``q[b]`` and ``s`` (float32, (columns,))."""
    columns = len(s)
    for c in range(columns):
        q[b, c] = np.float32(0.0)
        s[c] = np.float32(0.0)
    for e in range(lo, hi):
        if e + _ENTRIES_AHEAD < len(indices):
            ahead = home[indices[e + _ENTRIES_AHEAD]]
            for byte in range(0, 4 * columns, 64):
                prefetch(arena, ahead, byte)
        r = home[indices[e]]
        x = values[e]
        for c in range(columns):
            t = x * arena[r, 0, c]
            q[b, c] += t
            s[c] += t * t


@njit(inline="always")
def _score(lanes, lane, q, b, s):  # type: ignore[no-untyped-def]
    """Return one lane's score; eight running sums, joined as a tree, so that the order is the same everywhere."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = np.float32(0.0)
    for g in range(lanes.first[lane], lanes.last[lane]):
        c = g * 8
        a0 += q[b, c] * q[b, c] - s[c]
        a1 += q[b, c + 1] * q[b, c + 1] - s[c + 1]
        a2 += q[b, c + 2] * q[b, c + 2] - s[c + 2]
        a3 += q[b, c + 3] * q[b, c + 3] - s[c + 3]
        a4 += q[b, c + 4] * q[b, c + 4] - s[c + 4]
        a5 += q[b, c + 5] * q[b, c + 5] - s[c + 5]
        a6 += q[b, c + 6] * q[b, c + 6] - s[c + 6]
        a7 += q[b, c + 7] * q[b, c + 7] - s[c + 7]
    pairs = ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7))
    return lanes.bias[0, 0, lane] + q[b, 8 * len(lanes.owner) + lane] + np.float32(0.5) * pairs


@njit(cache=True, nogil=True)
def score(arena, home, lanes, indptr, indices, values, out):  # type: ignore[no-untyped-def]
    """Write raw scores of rows into ``out`` (float32, (lanes, rows))."""
    columns = arena.shape[2]
    q, s = np.empty((1, columns), np.float32), np.empty(columns, np.float32)
    for b in range(len(indptr) - 1):
        _forward(arena, home, indices, values, indptr[b], indptr[b + 1], q, 0, s)
        for lane in range(len(lanes.first)):
            out[lane, b] = _score(lanes, lane, q, 0, s)


@njit(inline="always")
def _step_row(rule, arena, r, g, rate, knobs):  # type: ignore[no-untyped-def]
    """Move the parameters in row ``r`` of an arena by their gradients ``g`` (float32, (columns,))."""
    if rule == ADAM:
        for c in range(len(g)):
            theta = arena[r, 0, c]
            step = decayed(g[c], theta, knobs[2, c], knobs[1, c], knobs[3, c])
            theta, a, b = adam(theta, arena[r, 1, c], arena[r, 2, c], step, rate[c], knobs[4, c])
            arena[r, 0, c] = theta
            arena[r, 1, c] = a
            arena[r, 2, c] = b
    else:
        for c in range(len(g)):
            theta = arena[r, 0, c]
            step = decayed(g[c], theta, knobs[2, c], knobs[1, c], knobs[3, c])
            theta, a, _ = adagrad(theta, arena[r, 1, c], theta, step, rate[c], knobs[4, c])
            arena[r, 0, c] = theta
            arena[r, 1, c] = a


@njit(cache=True, nogil=True)
def learn(rule, loss, lazy, arena, home, lanes, batches, first, last, scores):  # type: ignore[no-untyped-def]
    """Train all lanes on mini-batches ``first`` to ``last`` (exclusive).

    Parameters
    ----------
    rule, loss : int
        Codes of ``RULES`` and ``losses.CODES``.
    lazy : bool
        Whether features that a mini-batch does not touch stay as they are.
    arena : float32 (features, planes, columns)
    home : int32 (feature_dim,)
    lanes : Lanes
    batches : Batches
    scores : float32 (lanes, rows of the batches or 0)
        Receives each row's score before its mini-batch's update, unless it is empty.
    """
    n_lanes, columns, groups = len(lanes.first), arena.shape[2], len(lanes.owner)
    longest = 0
    for k in range(first, last):
        longest = max(longest, batches.rows[k + 1] - batches.rows[k])
    q = np.empty((longest, columns), np.float32)
    e = np.empty((longest, n_lanes), np.float32)
    s, g, rate = np.empty(columns, np.float32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    d, lane_rate = np.empty(n_lanes, np.float32), np.empty(n_lanes, np.float32)
    mark = np.full(0 if lazy else len(home), -1, np.int64)
    begin = batches.rows[first]
    for k in range(first, last):
        r0 = batches.rows[k]
        n = batches.rows[k + 1] - r0
        for b in range(n):
            lo, hi = batches.indptr[r0 + b], batches.indptr[r0 + b + 1]
            _forward(arena, home, batches.indices, batches.values, lo, hi, q, b, s)
            for lane in range(n_lanes):
                z = _score(lanes, lane, q, b, s)
                e[b, lane] = slope(loss, z, batches.labels[r0 + b])
                if scores.shape[1] > 0:
                    scores[lane, r0 + b - begin] = z
            for group in range(groups):
                error = e[b, lanes.owner[group]]
                for c in range(8 * group, 8 * group + 8):
                    q[b, c] *= error
            for lane in range(n_lanes):
                q[b, 8 * groups + lane] = e[b, lane]
        for lane in range(n_lanes):
            lanes.steps[lane] += 1
            lane_rate[lane] = correction(rule, lanes.steps[lane])
        for group in range(groups):
            for c in range(8 * group, 8 * group + 8):
                rate[c] = lanes.knobs[0, c] * lane_rate[lanes.owner[group]]
        for lane in range(n_lanes):
            rate[8 * groups + lane] = lanes.knobs[0, 8 * groups + lane] * lane_rate[lane]
        for u in range(batches.touched[k], batches.touched[k + 1]):
            if u + _FEATURES_AHEAD < len(batches.feature):
                ahead = home[batches.feature[u + _FEATURES_AHEAD]]
                for byte in range(0, 4 * arena.shape[1] * columns, 64):
                    prefetch(arena, ahead, byte)
            for c in range(columns):
                g[c] = np.float32(0.0)
            for lane in range(n_lanes):
                d[lane] = np.float32(0.0)
            for t in range(batches.entries[u], batches.entries[u + 1]):
                b, x = batches.row[t], batches.value[t]
                for c in range(columns):
                    g[c] += x * q[b, c]
                for lane in range(n_lanes):
                    d[lane] += (x * x) * e[b, lane]
            r = home[batches.feature[u]]
            for group in range(groups):
                own = d[lanes.owner[group]]
                for c in range(8 * group, 8 * group + 8):
                    g[c] -= arena[r, 0, c] * own
            _step_row(rule, arena, r, g, rate, lanes.knobs)
            if not lazy:
                mark[r] = k
        if not lazy:
            for c in range(columns):
                g[c] = np.float32(0.0)
            for r in range(len(mark)):
                if mark[r] != k:
                    _step_row(rule, arena, r, g, rate, lanes.knobs)
        for lane in range(n_lanes):
            total = 0.0
            for b in range(n):
                total += e[b, lane]
            d[lane] = total
            lane_rate[lane] *= lanes.bias_knobs[0, lane]
        _step_row(rule, lanes.bias, 0, d, lane_rate, lanes.bias_knobs)


def make_batches(indptr: Any, indices: Any, values: Any, labels: Any, feature_dim: int, rows: Any) -> Batches:
    """Return mini-batches with their transposes for rows that are already in training order."""
    nnz = int(indptr[-1])
    touched = np.zeros(len(rows), np.int64)
    feature, entries = np.empty(nnz, np.int32), np.empty(nnz + 1, np.int64)
    row, value = np.empty(nnz, np.int32), np.empty(nnz, np.float32)
    slot = np.full(feature_dim, -1, np.int64)
    count = transpose(indptr, indices, values, rows, slot, touched, feature, entries, row, value)
    entries[count] = nnz
    return Batches(indptr, indices, values, labels, rows, touched, feature[:count].copy(), entries[: count + 1].copy(),
                   row, value)
