r"""Learn and score on a CUDA card over sparse rows, all lanes of a pack in one pass.

The same pass as ``cpu_sparse``, one thread a quad: four neighbouring columns, see ``cuda_quads``.  The arena is float32
of shape (features, planes, columns): factor columns in groups of eight, then a linear column a lane, filled up to
eight, so that a row of it is read in whole sectors.  A mini-batch is four phases, each over all threads of the card::

    forward   row x quad       q, and q^2 - s
    slopes    row x lane       z, and the loss's slope e
    update    piece x quad     the gradient from the transpose, the rule, one read and one write a parameter
    finish    feature x quad   the same for what was left: features in several pieces, biases, untouched features

A piece is at most ``PIECE`` entries of a feature in the mini-batch, so that a feature of every row keeps no thread
busy alone.  No atomics: each number is written by one thread, and every sum runs in an order that depends on the rows
and on ``num_factors`` only.  So two runs give the same bytes, and a lane's bits do not depend on its neighbours.

All phases of many mini-batches can be one launch (:func:`learn_together`), with the grid's own barrier between phases:
four launches each take the host longer than the card.  A kernel a phase keeps more of the card's threads busy.  In
kernels all arrays of more than one dimension but ``scores``, ``bias``, ``knobs`` and ``slots`` are laid out flat.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from fmtune.kernels import sparse_batches
from fmtune.kernels.cuda_parts import THREADS, Lanes, blocks, fill, flat, move1, move4, move_bias
from fmtune.kernels.cuda_quads import SIMULATED, load1, load4, store4
from fmtune.kernels.losses import slope

GROUP = 8
# In the simulator's small tests a few rows must be several pieces too.
PIECE = 8 if SIMULATED else 128

_ZERO, _ONE, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)


class Rows(NamedTuple):
    """Rows on the card: ``indptr`` (int64), ``indices`` (int32) and ``values`` (float32), as in ``SparseRows``."""

    indptr: Any
    indices: Any
    values: Any


class Batches(NamedTuple):
    """Rows in training order with the transpose of each mini-batch, cut in pieces; on the card.

    ``labels`` and ``weights`` as in ``sparse_batches.Batches``; ``rows`` (int64, (batches + 1,)).  Pieces:
    ``pieces`` (int64, (batches + 1,)): a mini-batch's range in ``feature`` (int32) and ``slot`` (int32: where
    its sum goes, -1 when the feature is whole); ``entries`` (int64, (pieces + 1,)): a piece's range in ``row``
    (int32, from the batch's first) and ``value`` (float32).  Features in several pieces: ``splits`` (int64,
    (batches + 1,)): a mini-batch's range in ``split`` (int32: the feature) and ``slots`` (int32, (n, 2)).
    """

    labels: Any
    weights: Any
    rows: Any
    pieces: Any
    feature: Any
    slot: Any
    entries: Any
    row: Any
    value: Any
    splits: Any
    split: Any
    slots: Any


class Work(NamedTuple):
    """Scratch for one mini-batch: ``q`` and ``p`` (rows, columns), ``e`` (rows, lanes), sums of pieces ``g``
    (slots, columns) and ``w`` (slots, lanes), the bias's ``t`` (pieces, lanes), and ``mark`` (int32, (features,) or
    (0,)): the last mini-batch that touched a feature.  A linear column of ``q`` is the slope in the end: what the
    update multiplies its entries by, as it does the product of ``q`` and the slope of a factor."""

    q: Any
    p: Any
    e: Any
    g: Any
    w: Any
    t: Any
    mark: Any


@cuda.jit(device=True)
def _forward(arena, planes, columns, rows, q, p, r0, n, start, step):  # type: ignore[no-untyped-def]
    quads, stride = columns // 4, planes * columns
    b, c = start // quads, start % quads * 4
    down, along = step // quads, step % quads * 4
    while b < n:
        q0 = q1 = q2 = q3 = s0 = s1 = s2 = s3 = _ZERO
        e, last = load1(rows.indptr, r0 + b), load1(rows.indptr, r0 + b + 1)
        # Four at a time: their loads are then under way together.
        while e + 4 <= last:
            x, y = load1(rows.values, e), load1(rows.values, e + 1)
            u, v = load1(rows.values, e + 2), load1(rows.values, e + 3)
            x0, x1, x2, x3 = load4(arena, load1(rows.indices, e) * stride + c)
            y0, y1, y2, y3 = load4(arena, load1(rows.indices, e + 1) * stride + c)
            u0, u1, u2, u3 = load4(arena, load1(rows.indices, e + 2) * stride + c)
            v0, v1, v2, v3 = load4(arena, load1(rows.indices, e + 3) * stride + c)
            q0, s0 = _four(q0, s0, x * x0, y * y0, u * u0, v * v0)
            q1, s1 = _four(q1, s1, x * x1, y * y1, u * u1, v * v1)
            q2, s2 = _four(q2, s2, x * x2, y * y2, u * u2, v * v2)
            q3, s3 = _four(q3, s3, x * x3, y * y3, u * u3, v * v3)
            e += 4
        while e < last:
            x = load1(rows.values, e)
            x0, x1, x2, x3 = load4(arena, load1(rows.indices, e) * stride + c)
            x0, x1, x2, x3 = x * x0, x * x1, x * x2, x * x3
            q0, q1, q2, q3 = q0 + x0, q1 + x1, q2 + x2, q3 + x3
            s0, s1, s2, s3 = s0 + x0 * x0, s1 + x1 * x1, s2 + x2 * x2, s3 + x3 * x3
            e += 1
        store4(q, b * columns + c, q0, q1, q2, q3)
        store4(p, b * columns + c, q0 * q0 - s0, q1 * q1 - s1, q2 * q2 - s2, q3 * q3 - s3)
        b, c = b + down, c + along
        if c >= columns:
            b, c = b + 1, c - columns


@cuda.jit(device=True)
def _four(total, squares, a, b, c, d):  # type: ignore[no-untyped-def]
    """Add four numbers to a sum and their squares to another, one after the other."""
    return (((total + a) + b) + c) + d, (((squares + a * a) + b * b) + c * c) + d * d


@cuda.jit(device=True)
def _score(lanes, columns, q, p, b, lane):  # type: ignore[no-untyped-def]
    pairs, row = _ZERO, b * columns
    # What fills up the last quad is zero.
    for c in range(lanes.first[lane], lanes.last[lane], 4):
        p0, p1, p2, p3 = load4(p, row + c)
        pairs = (((pairs + p0) + p1) + p2) + p3
    return lanes.bias[0, lane] + q[row + lanes.linear[lane]] + _HALF * pairs


@cuda.jit(device=True)
def _slopes(loss, columns, lanes, batches, work, scores, r0, n, at, start, step):  # type: ignore[no-untyped-def]
    count = len(lanes.first)
    i = start
    while i < n * count:
        b, lane = i // count, i % count
        z = _score(lanes, columns, work.q, work.p, b, lane)
        error = slope(loss, z, batches.labels[r0 + b])
        if len(batches.weights) > 0:
            error = error * batches.weights[r0 + b]
        work.e[i] = error
        if scores.shape[1] > 0:
            scores[lane, at + b] = z
        work.q[b * columns + lanes.linear[lane]] = error
        i += step


@cuda.jit(device=True)
def _gather(columns, count, batches, work, piece, lane, c):  # type: ignore[no-untyped-def]
    """Return a piece's sums of ``x e q`` of four columns and, of factors, of ``x^2 e``."""
    g0 = g1 = g2 = g3 = w = _ZERO
    t, last = load1(batches.entries, piece), load1(batches.entries, piece + 1)
    while t + 2 <= last:
        x, y = load1(batches.value, t), load1(batches.value, t + 1)
        b, d = load1(batches.row, t), load1(batches.row, t + 1)
        e = f = _ONE
        if lane >= 0:
            e, f = load1(work.e, b * count + lane), load1(work.e, d * count + lane)
        x0, x1, x2, x3 = load4(work.q, b * columns + c)
        y0, y1, y2, y3 = load4(work.q, d * columns + c)
        g0, g1 = (g0 + x * (e * x0)) + y * (f * y0), (g1 + x * (e * x1)) + y * (f * y1)
        g2, g3 = (g2 + x * (e * x2)) + y * (f * y2), (g3 + x * (e * x3)) + y * (f * y3)
        w = (w + (x * x) * e) + (y * y) * f
        t += 2
    if t < last:
        x, b = load1(batches.value, t), load1(batches.row, t)
        e = _ONE
        if lane >= 0:
            e = load1(work.e, b * count + lane)
        x0, x1, x2, x3 = load4(work.q, b * columns + c)
        g0, g1, g2, g3 = g0 + x * (e * x0), g1 + x * (e * x1), g2 + x * (e * x2), g3 + x * (e * x3)
        w += (x * x) * e
    return g0, g1, g2, g3, w


@cuda.jit(device=True)
def _move(rule, arena, planes, columns, lanes, r, c, lane, g0, g1, g2, g3, w, k):  # type: ignore[no-untyped-def]
    """Apply the rule to four parameters of the arena, given their sums."""
    at = r * planes * columns + c
    if lane >= 0:
        t0, t1, t2, t3 = load4(arena, at)
        g0, g1, g2, g3 = g0 - t0 * w, g1 - t1 * w, g2 - t2 * w, g3 - t3 * w
        move4(rule, arena, at, columns, planes, g0, g1, g2, g3, lanes, r, lane, k)
    else:
        own = c - lanes.linear[0]
        for j in range(min(4, len(lanes.first) - own)):
            g = g0 if j == 0 else (g1 if j == 1 else (g2 if j == 2 else g3))
            move1(rule, arena, at + j, columns, planes, g, lanes, r, own + j, 1, k)


@cuda.jit(device=True)
def _update(rule, lazy, arena, planes, columns, lanes, batches, work, k, n, start, step):  # type: ignore[no-untyped-def]
    quads, count = columns // 4, len(lanes.first)
    begin, end = batches.pieces[k], batches.pieces[k + 1]
    piece, c = begin + start // quads, start % quads * 4
    down, along = step // quads, step % quads * 4
    while piece < end:
        lane = load1(lanes.owner, c // 4)
        feature, slot = load1(batches.feature, piece), load1(batches.slot, piece)
        g0, g1, g2, g3, w = _gather(columns, count, batches, work, piece, lane, c)
        if slot < 0:
            _move(rule, arena, planes, columns, lanes, feature, c, lane, g0, g1, g2, g3, w, k)
        else:
            store4(work.g, slot * columns + c, g0, g1, g2, g3)
            if lane >= 0 and c == lanes.first[lane]:
                work.w[slot * count + lane] = w
        if not lazy and c == 0:
            work.mark[feature] = k
        piece, c = piece + down, c + along
        if c >= columns:
            piece, c = piece + 1, c - columns
    i, parts = start, (n + PIECE - 1) // PIECE
    while i < parts * count:
        part, lane = i // count, i % count
        total = _ZERO
        for b in range(part * PIECE, min(n, (part + 1) * PIECE)):
            total += work.e[b * count + lane]
        work.t[i] = total
        i += step


@cuda.jit(device=True)
def _finish(rule, lazy, arena, planes, columns, lanes, batches, work, k, n, start, step):  # type: ignore[no-untyped-def]
    quads, count = columns // 4, len(lanes.first)
    begin, end = batches.splits[k], batches.splits[k + 1]
    down, along = step // quads, step % quads * 4
    u, c = begin + start // quads, start % quads * 4
    while u < end:
        lane = lanes.owner[c // 4]
        g0 = g1 = g2 = g3 = w = _ZERO
        for slot in range(batches.slots[u, 0], batches.slots[u, 1]):
            x0, x1, x2, x3 = load4(work.g, slot * columns + c)
            g0, g1, g2, g3 = g0 + x0, g1 + x1, g2 + x2, g3 + x3
            if lane >= 0:
                w += work.w[slot * count + lane]
        _move(rule, arena, planes, columns, lanes, batches.split[u], c, lane, g0, g1, g2, g3, w, k)
        u, c = u + down, c + along
        if c >= columns:
            u, c = u + 1, c - columns
    lane = start
    while lane < count:
        total = _ZERO
        for part in range((n + PIECE - 1) // PIECE):
            total += work.t[part * count + lane]
        move_bias(rule, lanes, lane, total, k)
        lane += step
    if lazy:
        return
    r, c = start // quads, start % quads * 4
    while r * planes * columns < len(arena):
        if work.mark[r] != k:
            _move(
                rule, arena, planes, columns, lanes, r, c, lanes.owner[c // 4], _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, k
            )  # fmt: skip
        r, c = r + down, c + along
        if c >= columns:
            r, c = r + 1, c - columns


@cuda.jit
def learn_together(  # type: ignore[no-untyped-def]
    rule, loss, lazy, arena, planes, columns, lanes, rows, batches, work, scores, first, last, origin
):  # fmt: skip
    """Train on mini-batches ``first`` to ``last`` (exclusive) in one launch; all blocks must be resident at once."""
    grid = cuda.cg.this_grid()
    start, step = cuda.grid(1), cuda.gridsize(1)
    for k in range(first, last):
        r0 = batches.rows[k]
        n = batches.rows[k + 1] - r0
        _forward(arena, planes, columns, rows, work.q, work.p, r0, n, start, step)
        grid.sync()
        _slopes(loss, columns, lanes, batches, work, scores, r0, n, r0 - origin, start, step)
        grid.sync()
        _update(rule, lazy, arena, planes, columns, lanes, batches, work, k, n, start, step)
        grid.sync()
        _finish(rule, lazy, arena, planes, columns, lanes, batches, work, k, n, start, step)
        grid.sync()


@cuda.jit
def forward(arena, planes, columns, rows, q, p, r0, n):  # type: ignore[no-untyped-def]
    """Sum each row's entries: ``q`` and ``q^2 - s``, float32 (n, columns)."""
    _forward(arena, planes, columns, rows, q, p, r0, n, cuda.grid(1), cuda.gridsize(1))


@cuda.jit
def slopes(loss, columns, lanes, batches, work, scores, r0, n, at):  # type: ignore[no-untyped-def]
    """Turn the sums of ``forward`` into slopes; ``scores`` from column ``at`` on receives raw scores, if it has any."""
    _slopes(loss, columns, lanes, batches, work, scores, r0, n, at, cuda.grid(1), cuda.gridsize(1))


@cuda.jit
def update(rule, lazy, arena, planes, columns, lanes, batches, work, k, n):  # type: ignore[no-untyped-def]
    """Move every parameter whose feature is in one piece; sum the pieces of the others."""
    _update(rule, lazy, arena, planes, columns, lanes, batches, work, k, n, cuda.grid(1), cuda.gridsize(1))


@cuda.jit
def finish(rule, lazy, arena, planes, columns, lanes, batches, work, k, n):  # type: ignore[no-untyped-def]
    """Move what ``update`` left: features in several pieces, biases and, unless ``lazy``, untouched features."""
    _finish(rule, lazy, arena, planes, columns, lanes, batches, work, k, n, cuda.grid(1), cuda.gridsize(1))


@cuda.jit
def scored(lanes, columns, q, p, out, at, n):  # type: ignore[no-untyped-def]
    """Write raw scores of the rows that ``forward`` summed into columns ``at`` on of ``out`` (lanes, rows)."""
    i, step, count = cuda.grid(1), cuda.gridsize(1), len(lanes.first)
    while i < n * count:
        b, lane = i // count, i % count
        out[lane, at + b] = _score(lanes, columns, q, p, b, lane)
        i += step


def learn(
    codes: tuple[int, int, bool], arena: Any, lanes: Lanes, rows: Rows, batches: Batches, work: Work, scores: Any,
    starts: NDArray[np.int64], first: int, last: int, origin: int, stream: Any, together: bool,
) -> None:  # fmt: skip
    """Train all lanes on mini-batches ``first`` to ``last`` (exclusive); returns before the card is done.

    Parameters
    ----------
    codes
        Rule, loss and whether untouched features stay as they are, as in ``cpu_sparse.learn``.
    arena, lanes, rows, batches, work, scores
        On the card; ``scores`` float32 (lanes, rows from ``origin`` on, or 0).
    starts
        ``batches.rows``, on the host.
    stream
        Where it is queued.
    together
        Whether to use one launch instead of four a mini-batch.
    """
    rule, loss, lazy = codes
    if not lazy:
        fill[blocks(len(work.mark)), THREADS, stream](work.mark, -1)
    (_, planes, columns), count = arena.shape, len(lanes.first)
    arena, work = flat(arena), Work(*map(flat, work))
    if together:
        args = (rule, loss, lazy, arena, planes, columns, lanes, rows, batches, work, scores, first, last, origin)
        learn_together[_resident(args), THREADS, stream](*args)
        return
    for k in range(first, last):
        r0, n = int(starts[k]), int(starts[k + 1] - starts[k])
        grid, at = blocks(n * columns // 4), r0 - origin
        forward[grid, THREADS, stream](arena, planes, columns, rows, work.q, work.p, r0, n)
        slopes[blocks(n * count), THREADS, stream](loss, columns, lanes, batches, work, scores, r0, n, at)
        update[grid, THREADS, stream](rule, lazy, arena, planes, columns, lanes, batches, work, k, n)
        finish[grid, THREADS, stream](rule, lazy, arena, planes, columns, lanes, batches, work, k, n)


def score(arena: Any, lanes: Lanes, rows: Rows, q: Any, p: Any, out: Any, n: int, stream: Any) -> None:
    """Write raw scores of ``n`` rows into ``out`` (float32, (lanes, n)), as many rows at a time as ``q`` holds."""
    (_, planes, columns), count, most = arena.shape, len(lanes.first), len(q)
    arena, q, p = flat(arena), flat(q), flat(p)
    for at in range(0, n, most):
        m = min(most, n - at)
        forward[blocks(m * columns // 4), THREADS, stream](arena, planes, columns, rows, q, p, at, m)
        scored[blocks(m * count), THREADS, stream](lanes, columns, q, p, out, at, m)


def _resident(args: tuple[Any, ...]) -> int:
    """Return how many blocks of ``learn_together`` the card holds at once."""
    if SIMULATED:
        return 1
    kernel = learn_together.compile(tuple(learn_together.typeof_pyval(arg) for arg in args))
    return int(kernel.max_cooperative_grid_blocks(THREADS))


class Pieces(NamedTuple):
    """What :func:`pieces` makes, on the host; fields as in :class:`Batches`, and the most slots of a mini-batch."""

    pieces: NDArray[np.int64]
    feature: NDArray[np.int32]
    slot: NDArray[np.int32]
    entries: NDArray[np.int64]
    splits: NDArray[np.int64]
    split: NDArray[np.int32]
    slots: NDArray[np.int32]
    most: int


def pieces(batches: sparse_batches.Batches, size: int = PIECE) -> Pieces:
    """Cut the transposes of mini-batches into pieces of at most ``size`` entries."""
    lengths = np.diff(batches.entries)
    parts = -(-lengths // size)
    ends = np.concatenate([[0], np.cumsum(parts)])
    of = np.repeat(np.arange(len(parts)), parts)
    entries = np.append(batches.entries[:-1][of] + size * (np.arange(len(of)) - ends[of]), batches.entries[-1])
    many = parts > 1
    # Slots are counted from 0 in each mini-batch.
    before = np.concatenate([[0], np.cumsum(np.where(many, parts, 0))])
    batch = np.repeat(np.arange(len(batches.touched) - 1), np.diff(batches.touched))
    begin = before[:-1] - before[batches.touched[:-1]][batch]
    slot = np.where(many[of], begin[of] + np.arange(len(of)) - ends[of], -1)
    used = np.diff(before[batches.touched])
    return Pieces(
        ends[batches.touched], batches.feature[of], slot.astype(np.int32), entries,
        np.concatenate([[0], np.cumsum(many)])[batches.touched], batches.feature[many],
        np.stack([begin[many], (begin + parts)[many]], axis=1).astype(np.int32), int(used.max(initial=0)),
    )  # fmt: skip
