r"""Learn and score on a CUDA card over sparse rows, all lanes of a pack in one pass.

The same pass as ``cpu_sparse``, one thread a number.  The arena is float32 of shape (features, planes, columns):
factor columns in groups of eight, then a linear column a lane, filled up to eight, so that a row of it is read in
whole sectors.  A mini-batch is four phases, each over all threads of the card::

    forward   row x column      q, and q^2 - s
    slopes    row x lane        z, and the loss's slope e
    update    piece x column    the gradient from the transpose, the rule, one read and one write a parameter
    finish    feature x column  the same for what was left: features in several pieces, biases, untouched features

A piece is at most ``PIECE`` entries of a feature in the mini-batch, so that a feature of every row keeps no thread
busy alone.  No atomics: each number is written by one thread, and every sum runs in an order that depends on the rows
and on ``num_factors`` only.  So two runs give the same bytes, and a lane's bits do not depend on its neighbours.

Where the card can hold all blocks at once, mini-batches and phases are one launch (:func:`learn_together`), with the
grid's own barrier between phases; else four launches each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from fmtune.kernels import cpu_sparse
from fmtune.kernels.cuda_parts import SIMULATED, THREADS, Lanes, blocks, fill, move_bias, moved
from fmtune.kernels.losses import slope
from fmtune.kernels.rules import apart

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

    ``labels`` and ``weights`` as in ``cpu_sparse.Batches``; ``rows`` (int64, (batches + 1,)).  Pieces:
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
    (0,)): the last mini-batch that touched a feature."""

    q: Any
    p: Any
    e: Any
    g: Any
    w: Any
    t: Any
    mark: Any


@cuda.jit(device=True)
def _forward(arena, rows, q, p, r0, n, start, step):  # type: ignore[no-untyped-def]
    columns = arena.shape[2]
    b, c = start // columns, start % columns
    down, along = step // columns, step % columns
    while b < n:
        total = squares = _ZERO
        e, last = rows.indptr[r0 + b], rows.indptr[r0 + b + 1]
        # Four at a time: their loads are then under way together.
        while e + 4 <= last:
            t0 = rows.values[e] * arena[rows.indices[e], 0, c]
            t1 = rows.values[e + 1] * arena[rows.indices[e + 1], 0, c]
            t2 = rows.values[e + 2] * arena[rows.indices[e + 2], 0, c]
            t3 = rows.values[e + 3] * arena[rows.indices[e + 3], 0, c]
            total = (((total + t0) + t1) + t2) + t3
            squares = (((squares + t0 * t0) + t1 * t1) + t2 * t2) + t3 * t3
            e += 4
        while e < last:
            t0 = rows.values[e] * arena[rows.indices[e], 0, c]
            total += t0
            squares += t0 * t0
            e += 1
        q[b, c] = total
        p[b, c] = total * total - squares
        b, c = b + down, c + along
        if c >= columns:
            b, c = b + 1, c - columns


@cuda.jit(device=True)
def _score(lanes, q, p, b, lane):  # type: ignore[no-untyped-def]
    pairs = _ZERO
    for c in range(lanes.first[lane], lanes.last[lane]):
        pairs += p[b, c]
    return lanes.bias[0, lane] + q[b, lanes.linear[lane]] + _HALF * pairs


@cuda.jit(device=True)
def _slopes(loss, lanes, batches, work, scores, r0, n, at, start, step):  # type: ignore[no-untyped-def]
    count = len(lanes.first)
    i = start
    while i < n * count:
        b, lane = i // count, i % count
        z = _score(lanes, work.q, work.p, b, lane)
        error = slope(loss, z, batches.labels[r0 + b])
        if len(batches.weights) > 0:
            error = error * batches.weights[r0 + b]
        work.e[b, lane] = error
        if scores.shape[1] > 0:
            scores[lane, at + b] = z
        # The update multiplies every column by q: for a linear weight that is one.
        work.q[b, lanes.linear[lane]] = _ONE
        i += step


@cuda.jit(device=True)
def _gather(batches, work, piece, lane, c):  # type: ignore[no-untyped-def]
    """Return a piece's sums of ``x e q`` and ``x^2 e``."""
    g = w = _ZERO
    for t in range(batches.entries[piece], batches.entries[piece + 1]):
        x, b = batches.value[t], batches.row[t]
        e = work.e[b, lane]
        g += x * (e * work.q[b, c])
        w += (x * x) * e
    return g, w


@cuda.jit(device=True)
def _move(rule, arena, lanes, r, c, lane, g, w, k):  # type: ignore[no-untyped-def]
    """Apply the rule to one parameter of the arena, given its sums."""
    planes = arena.shape[1]
    second, third = min(1, planes - 1), min(2, planes - 1)
    theta, array = arena[r, 0, c], 1
    if c != lanes.linear[lane]:
        g, array = g - theta * w, 2
    if len(lanes.decays) > 0:
        knobs = lanes.knobs
        g += apart(lanes.decays[r], knobs[lane, array, 1], knobs[lane, array, 2]) * theta
    theta, a, b = moved(rule, theta, arena[r, second, c], arena[r, third, c], g, lanes, lane, array, k)
    arena[r, third, c] = b
    arena[r, second, c] = a
    arena[r, 0, c] = theta


@cuda.jit(device=True)
def _update(rule, lazy, arena, lanes, batches, work, k, n, start, step):  # type: ignore[no-untyped-def]
    columns, count = arena.shape[2], len(lanes.first)
    begin, end = batches.pieces[k], batches.pieces[k + 1]
    piece, c = begin + start // columns, start % columns
    down, along = step // columns, step % columns
    while piece < end:
        lane, feature, slot = lanes.owner[c], batches.feature[piece], batches.slot[piece]
        if lane >= 0:
            g, w = _gather(batches, work, piece, lane, c)
            if slot < 0:
                _move(rule, arena, lanes, feature, c, lane, g, w, k)
            else:
                work.g[slot, c] = g
                if c == lanes.first[lane]:
                    work.w[slot, lane] = w
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
            total += work.e[b, lane]
        work.t[part, lane] = total
        i += step


@cuda.jit(device=True)
def _finish(rule, lazy, arena, lanes, batches, work, k, n, start, step):  # type: ignore[no-untyped-def]
    columns, count = arena.shape[2], len(lanes.first)
    begin, end = batches.splits[k], batches.splits[k + 1]
    down, along = step // columns, step % columns
    u, c = begin + start // columns, start % columns
    while u < end:
        lane = lanes.owner[c]
        if lane >= 0:
            g = w = _ZERO
            linear = c == lanes.linear[lane]
            for slot in range(batches.slots[u, 0], batches.slots[u, 1]):
                g += work.g[slot, c]
                if not linear:
                    w += work.w[slot, lane]
            _move(rule, arena, lanes, batches.split[u], c, lane, g, w, k)
        u, c = u + down, c + along
        if c >= columns:
            u, c = u + 1, c - columns
    lane = start
    while lane < count:
        total = _ZERO
        for part in range((n + PIECE - 1) // PIECE):
            total += work.t[part, lane]
        move_bias(rule, lanes, lane, total, k)
        lane += step
    if lazy:
        return
    r, c = start // columns, start % columns
    while r < arena.shape[0]:
        lane = lanes.owner[c]
        if lane >= 0 and work.mark[r] != k:
            _move(rule, arena, lanes, r, c, lane, _ZERO, _ZERO, k)
        r, c = r + down, c + along
        if c >= columns:
            r, c = r + 1, c - columns


@cuda.jit
def learn_together(rule, loss, lazy, arena, lanes, rows, batches, work, scores, first, last):  # type: ignore[no-untyped-def]
    """Train on mini-batches ``first`` to ``last`` (exclusive) in one launch; all blocks must be resident at once."""
    grid = cuda.cg.this_grid()
    start, step = cuda.grid(1), cuda.gridsize(1)
    for k in range(first, last):
        r0 = batches.rows[k]
        n = batches.rows[k + 1] - r0
        _forward(arena, rows, work.q, work.p, r0, n, start, step)
        grid.sync()
        _slopes(loss, lanes, batches, work, scores, r0, n, r0 - batches.rows[first], start, step)
        grid.sync()
        _update(rule, lazy, arena, lanes, batches, work, k, n, start, step)
        grid.sync()
        _finish(rule, lazy, arena, lanes, batches, work, k, n, start, step)
        grid.sync()


@cuda.jit
def forward(arena, rows, q, p, r0, n):  # type: ignore[no-untyped-def]
    """Sum each row's entries: ``q`` and ``q^2 - s``, float32 (n, columns)."""
    _forward(arena, rows, q, p, r0, n, cuda.grid(1), cuda.gridsize(1))


@cuda.jit
def slopes(loss, lanes, batches, work, scores, r0, n, at):  # type: ignore[no-untyped-def]
    """Turn the sums of ``forward`` into slopes; ``scores`` from column ``at`` on receives raw scores, if it has any."""
    _slopes(loss, lanes, batches, work, scores, r0, n, at, cuda.grid(1), cuda.gridsize(1))


@cuda.jit
def update(rule, lazy, arena, lanes, batches, work, k, n):  # type: ignore[no-untyped-def]
    """Move every parameter whose feature is in one piece; sum the pieces of the others."""
    _update(rule, lazy, arena, lanes, batches, work, k, n, cuda.grid(1), cuda.gridsize(1))


@cuda.jit
def finish(rule, lazy, arena, lanes, batches, work, k, n):  # type: ignore[no-untyped-def]
    """Move what ``update`` left: features in several pieces, biases and, unless ``lazy``, untouched features."""
    _finish(rule, lazy, arena, lanes, batches, work, k, n, cuda.grid(1), cuda.gridsize(1))


@cuda.jit
def scored(lanes, q, p, out, at, n):  # type: ignore[no-untyped-def]
    """Write raw scores of the rows that ``forward`` summed into columns ``at`` on of ``out`` (lanes, rows)."""
    i, step, count = cuda.grid(1), cuda.gridsize(1), len(lanes.first)
    while i < n * count:
        b, lane = i // count, i % count
        out[lane, at + b] = _score(lanes, q, p, b, lane)
        i += step


def learn(
    codes: tuple[int, int, bool], arena: Any, lanes: Lanes, rows: Rows, batches: Batches, work: Work, scores: Any,
    starts: NDArray[np.int64], first: int, last: int, together: bool = True,
) -> None:  # fmt: skip
    """Train all lanes on mini-batches ``first`` to ``last`` (exclusive); returns before the card is done.

    Parameters
    ----------
    codes
        Rule, loss and whether untouched features stay as they are, as in ``cpu_sparse.learn``.
    arena, lanes, rows, batches, work, scores
        On the card; ``scores`` float32 (lanes, rows of the batches or 0).
    starts
        ``batches.rows``, on the host.
    together
        Whether to use one launch instead of four a mini-batch.
    """
    rule, loss, lazy = codes
    if not lazy:
        fill[blocks(len(work.mark)), THREADS](work.mark, -1)
    if together:
        args = (rule, loss, lazy, arena, lanes, rows, batches, work, scores, first, last)
        learn_together[_resident(args), THREADS](*args)
        return
    columns, count = arena.shape[2], len(lanes.first)
    for k in range(first, last):
        r0, n = int(starts[k]), int(starts[k + 1] - starts[k])
        grid = blocks(n * columns)
        forward[grid, THREADS](arena, rows, work.q, work.p, r0, n)
        slopes[blocks(n * count), THREADS](loss, lanes, batches, work, scores, r0, n, r0 - int(starts[first]))
        update[grid, THREADS](rule, lazy, arena, lanes, batches, work, k, n)
        finish[grid, THREADS](rule, lazy, arena, lanes, batches, work, k, n)


def score(arena: Any, lanes: Lanes, rows: Rows, q: Any, p: Any, out: Any, n: int) -> None:
    """Write raw scores of ``n`` rows into ``out`` (float32, (lanes, n)), as many rows at a time as ``q`` holds."""
    columns, count = arena.shape[2], len(lanes.first)
    for at in range(0, n, len(q)):
        m = min(len(q), n - at)
        forward[blocks(m * columns), THREADS](arena, rows, q, p, at, m)
        scored[blocks(m * count), THREADS](lanes, q, p, out, at, m)


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


def pieces(batches: cpu_sparse.Batches, size: int = PIECE) -> Pieces:
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
