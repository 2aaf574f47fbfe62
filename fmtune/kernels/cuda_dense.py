r"""Learn and score on a CUDA card over dense rows: two matrix products a mini-batch, and three small kernels.

The same pass as ``cpu_dense``.  The arena is float32 of shape (planes, feature_dim, columns), so that plane 0 is one
matrix of all lanes: a lane's factors, then its linear weights, then zeros up to a multiple of eight.  With ``T`` for
what is multiplied::

    S = X T                                            a product
    rows     row x lane         z, e, then S becomes E = [e S_f ..., e]
    weigh    piece x feature    sum_b e x^2 over pieces of the rows
    G = X' E                                           a product
    update   feature x lane     g_if = G_if - t_if sum_b e x^2, the rule, and |t_i|^2 for the next mini-batch

The products are handed in (:class:`Product`), so that a test can use NumPy.  With tf32, ``X`` and ``T`` are rounded
before they are multiplied and ``|t_i|^2`` is that of the rounded ``T``: a tensor core then multiplies them exactly,
and ``|S|^2 - X^2 q`` does not subtract two numbers that mean different parameters.  Parameters themselves, their
states and all scores of a test channel stay float32.

No atomics; every sum runs in an order that depends on shapes only, so two runs give the same bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from fmtune.kernels.cuda_parts import SIMULATED, THREADS, Lanes, blocks, move_bias, moved, rounded
from fmtune.kernels.losses import slope
from fmtune.kernels.rules import apart

GROUP = 8

# Threads that share one row or feature of a lane, and rows of a piece at least; both small in the simulator.
TEAM = 2 if SIMULATED else 32
PIECE = 8 if SIMULATED else 32

# Pieces of a mini-batch at most: the update sums them.
_PIECES = 64

_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)


class Part(NamedTuple):
    """Some rows and columns of a row-major matrix on the card; it begins at (``row``, ``column``)."""

    matrix: Any
    row: int
    rows: int
    column: int
    columns: int


class Product(Protocol):
    """``out = a b``, or ``a' b``; it is queued, not waited for."""

    def __call__(self, a: Part, b: Part, out: Part, transposed: bool) -> None: ...


class Batches(NamedTuple):
    """Rows in training order on the card: ``matrix`` (float32, (n, feature_dim)), ``labels``, ``weights`` (float32,
    (n,) or (0,)) and ``touched`` (uint8, (batches, feature_dim)): columns not all zero in the batch."""

    matrix: Any
    labels: Any
    weights: Any
    touched: Any


class Work(NamedTuple):
    """Scratch: ``s`` (rows, columns), ``e`` (rows, lanes), ``g`` (feature_dim, columns), ``w`` (pieces,
    feature_dim + 1, lanes; the last is the bias's), ``theta`` (feature_dim, columns): what is multiplied, plane 0
    or that rounded; ``q`` (lanes, feature_dim): sums of its squares."""

    s: Any
    e: Any
    g: Any
    w: Any
    theta: Any
    q: Any


@cuda.jit(device=True)
def _together(shared, x):  # type: ignore[no-untyped-def]
    """Return the sum of ``x`` over the threads of a team, as a tree; every thread of the block takes part."""
    me = cuda.threadIdx.x
    member, half = me % TEAM, TEAM // 2
    shared[me] = x
    cuda.syncthreads()
    while half > 0:
        if member < half:
            shared[me] += shared[me + half]
        cuda.syncthreads()
        half //= 2
    total = shared[me - member]
    cuda.syncthreads()
    return total


@cuda.jit
def squares(theta, lanes, use_tf32, q, out):  # type: ignore[no-untyped-def]
    """Write ``theta`` (feature_dim, columns), rounded where asked, into ``out``, and its sums of squares into ``q``.

    In the order of :func:`update`, so that it does not matter where a pass is interrupted.
    """
    shared = cuda.shared.array(THREADS, np.float32)
    count, teams = len(lanes.first), cuda.gridsize(1) // TEAM
    item, member = cuda.grid(1) // TEAM, cuda.threadIdx.x % TEAM
    for _ in range((theta.shape[0] * count + teams - 1) // teams):
        i, lane = item // count, item % count
        part = _ZERO
        if i < theta.shape[0]:
            for c in range(lanes.first[lane] + member, lanes.linear[lane] + 1, TEAM):
                x = rounded(theta[i, c]) if use_tf32 else theta[i, c]
                out[i, c] = x
                if c < lanes.last[lane]:
                    part += x * x
        total = _together(shared, part)
        if i < theta.shape[0] and member == 0:
            q[lane, i] = total
        item += teams


@cuda.jit
def rows(loss, learning, use_tf32, lanes, matrix, labels, weights, s, q, e, scores, r0, n, at):  # type: ignore[no-untyped-def]
    """Turn ``s = X T`` into raw scores, in columns ``at`` on of ``scores`` if it has any; learning, ``s`` becomes E."""
    shared = cuda.shared.array(THREADS, np.float32)
    count, teams = len(lanes.first), cuda.gridsize(1) // TEAM
    item, member = cuda.grid(1) // TEAM, cuda.threadIdx.x % TEAM
    # As many turns for every thread of a block: they wait for each other.
    for _ in range((n * count + teams - 1) // teams):
        part = linear = _ZERO
        b, lane = item // count, item % count
        if item < n * count:
            for c in range(lanes.first[lane] + member, lanes.last[lane], TEAM):
                part += s[b, c] * s[b, c]
            for i in range(member, matrix.shape[1], TEAM):
                x = matrix[r0 + b, i]
                part -= (x * x) * q[lane, i]
            linear = s[b, lanes.linear[lane]]
        pairs = _together(shared, part)
        if item < n * count:
            z = lanes.bias[0, lane] + linear + _HALF * pairs
            if member == 0 and scores.shape[1] > 0:
                scores[lane, at + b] = z
            if learning:
                error = slope(loss, z, labels[r0 + b])
                if len(weights) > 0:
                    error = error * weights[r0 + b]
                if member == 0:
                    e[b, lane] = error
                for c in range(lanes.first[lane] + member, lanes.linear[lane] + 1, TEAM):
                    x = error * s[b, c] if c < lanes.last[lane] else error
                    s[b, c] = rounded(x) if use_tf32 else x
        item += teams


@cuda.jit
def weigh(matrix, e, w, r0, n, length):  # type: ignore[no-untyped-def]
    """Sum ``e x^2`` over pieces of ``length`` rows; past the last feature, ``e`` itself."""
    dim, count = matrix.shape[1], e.shape[1]
    i, step = cuda.grid(1), cuda.gridsize(1)
    while i < ((n + length - 1) // length) * (dim + 1) * count:
        rest, lane = i // count, i % count
        piece, feature = rest // (dim + 1), rest % (dim + 1)
        total = _ZERO
        for b in range(piece * length, min(n, (piece + 1) * length)):
            x = matrix[r0 + b, feature] if feature < dim else _ONE
            total += e[b, lane] * (x * x)
        w[piece, feature, lane] = total
        i += step


@cuda.jit(device=True)
def _move(rule, arena, lanes, i, c, lane, array, gradient, k):  # type: ignore[no-untyped-def]
    """Apply the rule to one parameter of the arena and return it."""
    planes = arena.shape[0]
    second, third = min(1, planes - 1), min(2, planes - 1)
    if len(lanes.decays) > 0:
        knobs = lanes.knobs
        gradient += apart(lanes.decays[i], knobs[lane, array, 1], knobs[lane, array, 2]) * arena[0, i, c]
    theta, a, b = moved(
        rule, arena[0, i, c], arena[second, i, c], arena[third, i, c], gradient, lanes, lane, array, k
    )  # fmt: skip
    arena[third, i, c] = b
    arena[second, i, c] = a
    arena[0, i, c] = theta
    return theta


@cuda.jit
def update(rule, lazy, use_tf32, arena, lanes, touched, work, k, pieces):  # type: ignore[no-untyped-def]
    """Move all parameters of mini-batch ``k``, given ``work.g`` and ``pieces`` sums in ``work.w``."""
    shared = cuda.shared.array(THREADS, np.float32)
    dim, count, teams = arena.shape[1], len(lanes.first), cuda.gridsize(1) // TEAM
    item, member = cuda.grid(1) // TEAM, cuda.threadIdx.x % TEAM
    for _ in range(((dim + 1) * count + teams - 1) // teams):
        i, lane = item // count, item % count
        part = _ZERO
        if i <= dim:
            for piece in range(member, pieces, TEAM):
                part += work.w[piece, i, lane]
        weight = _together(shared, part)
        part, moves = _ZERO, i < dim and (not lazy or touched[k, min(i, dim - 1)] != 0)
        if moves:
            for c in range(lanes.first[lane] + member, lanes.linear[lane] + 1, TEAM):
                g, array = work.g[i, c], 1
                if c < lanes.last[lane]:
                    g, array = g - work.theta[i, c] * weight, 2
                x = _move(rule, arena, lanes, i, c, lane, array, g, k)
                if use_tf32:
                    x = rounded(x)
                work.theta[i, c] = x
                if array == 2:
                    part += x * x
        elif i == dim and member == 0:
            move_bias(rule, lanes, lane, weight, k)
        total = _together(shared, part)
        if moves and member == 0:
            work.q[lane, i] = total
        item += teams


def learn(
    codes: tuple[int, int, bool], product: Product, spans: list[tuple[int, int]], tf32: bool, arena: Any,
    lanes: Lanes, batches: Batches, work: Work, scores: Any, starts: NDArray[np.int64], first: int, last: int,
) -> None:  # fmt: skip
    """Train all lanes on mini-batches ``first`` to ``last`` (exclusive); returns before the card is done.

    Parameters
    ----------
    codes
        Rule, loss and whether columns that are all zero in a mini-batch stay as they are.
    product
        Does the two products.
    spans
        (first column, columns) of each product: one a lane, whose bits then depend on nothing else, or one of all.
    tf32
        Whether what is multiplied is rounded to tf32; then ``batches.matrix`` must be, too.
    arena, lanes, batches, work, scores
        On the card; ``scores`` float32 (lanes, rows of the batches or 0).
    starts
        First row of each mini-batch, on the host.
    """
    rule, loss, lazy = codes
    dim, count = arena.shape[1], len(lanes.first)
    squares[blocks(dim * count * TEAM), THREADS](arena[0], lanes, tf32, work.q, work.theta)
    length = max(PIECE, -(-len(work.s) // _PIECES))
    for k in range(first, last):
        r0, n = int(starts[k]), int(starts[k + 1] - starts[k])
        x = Part(batches.matrix, r0, n, 0, dim)
        for at, width in spans:
            product(x, Part(work.theta, 0, dim, at, width), Part(work.s, 0, n, at, width), False)
        rows[blocks(n * count * TEAM), THREADS](
            loss, True, tf32, lanes, batches.matrix, batches.labels, batches.weights, work.s, work.q, work.e, scores,
            r0, n, r0 - int(starts[first]),
        )  # fmt: skip
        pieces = -(-n // length)
        weigh[blocks(pieces * (dim + 1) * count), THREADS](batches.matrix, work.e, work.w, r0, n, length)
        for at, width in spans:
            product(x, Part(work.s, 0, n, at, width), Part(work.g, 0, dim, at, width), True)
        update[blocks((dim + 1) * count * TEAM), THREADS](
            rule, lazy, tf32, arena, lanes, batches.touched, work, k, pieces
        )  # fmt: skip


def score(
    product: Product, spans: list[tuple[int, int]], arena: Any, lanes: Lanes, matrix: Any, s: Any, theta: Any,
    q: Any, out: Any,
) -> None:  # fmt: skip
    """Write raw scores of the rows of ``matrix`` into ``out`` (float32, (lanes, rows)), ``len(s)`` rows at a time.

    Always float32, of the parameters as they are; ``theta`` and ``q`` are scratch as in :class:`Work`.
    """
    dim, count = arena.shape[1], len(lanes.first)
    squares[blocks(dim * count * TEAM), THREADS](arena[0], lanes, False, q, theta)
    for at in range(0, matrix.shape[0], len(s)):
        n = min(len(s), matrix.shape[0] - at)
        for begin, width in spans:
            product(
                Part(matrix, at, n, 0, dim), Part(theta, 0, dim, begin, width), Part(s, 0, n, begin, width), False
            )  # fmt: skip
        # Labels and slopes are not looked at: the score itself takes their place.
        rows[blocks(n * count * TEAM), THREADS](
            0, False, False, lanes, matrix, lanes.corrections, lanes.corrections, s, q, out, out, at, n, at
        )  # fmt: skip


def pieces_of(longest: int) -> int:
    """Return the pieces of the longest mini-batch: how many ``Work.w`` must hold."""
    return -(-longest // max(PIECE, -(-longest // _PIECES)))


def tf32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a float32 array rounded as :func:`~fmtune.kernels.cuda_parts.rounded` does, on the host."""
    return ((np.ascontiguousarray(x).view(np.int32) + np.int32(0x1000)) & np.int32(-0x2000)).view(np.float32)
