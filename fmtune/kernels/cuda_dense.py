r"""Learn and score on a CUDA card over dense rows: matrix products of a mini-batch, and a few small kernels.

The same pass as ``cpu_dense``.  The arena is float32 of shape (planes, feature_dim, columns), so that plane 0 is one
matrix of all lanes: a lane's factors, then its linear weights, then zeros up to a multiple of eight.  With ``T`` for
what is multiplied and ``q_i`` for ``|t_i|^2``::

    S = X T                                            a product
    rows     piece of rows x lane    z = S_w + (|S|^2 - X^2 q) / 2, e, then S becomes E = [e S_f ..., e]
                                     and sum_b e x^2 over the piece
    G = X' E                                           a product
    update   feature x lane          g_if = G_if - t_if sum_b e x^2, the rule, and q_i for the next mini-batch

For a few lanes ``rows`` computes ``X^2 q`` and ``(X^2)' e`` itself.  For many it would read each row once a lane: then
they are two products too, of ``X^2``, which ``square`` writes for the mini-batch.  They keep few of the card's threads
busy, so they are queued aside (:class:`Aside`), each while one of the large products runs.

The products are handed in (:class:`Product`), so that a test can use NumPy.  With tf32, ``X`` and ``T`` are rounded
before they are multiplied and ``q`` is that of the rounded ``T``: a tensor core then multiplies them exactly,
and ``|S|^2 - X^2 q`` does not subtract two numbers that mean different parameters.  Parameters themselves, their
states and all scores of a test channel stay float32, and so do products with ``X^2``.

No atomics; every sum runs in an order that depends on shapes only, so two runs give the same bytes.  In kernels all
arrays of more than one dimension but ``scores``, ``bias`` and ``knobs`` are laid out flat.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from fmtune.kernels.cuda_parts import THREADS, Lanes, blocks, flat, move1, move4, move_bias, rounded
from fmtune.kernels.cuda_quads import SIMULATED, load1, load4, store4
from fmtune.kernels.losses import slope

GROUP = 8

# Threads that share a row or feature of a lane, where there are few lanes and where many.
FEW, MANY = (4, 2) if SIMULATED else (32, 8)

# Rows of a piece at least: one for each team of a block.
PIECE = THREADS // FEW

# Pieces of a mini-batch at most: the update sums them.
_PIECES = 512

_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)


class Part(NamedTuple):
    """Some rows and columns of a row-major matrix on the card; it begins at (``row``, ``column``)."""

    matrix: Any
    row: int
    rows: int
    column: int
    columns: int


class Product(Protocol):
    """``out = a b``, each of the two transposed first where that is said; it is queued, not waited for."""

    def __call__(
        self, a: Part, b: Part, out: Part, turn_a: bool = False, turn_b: bool = False, tf32: bool = False
    ) -> None: ...


class Aside(Protocol):
    """A second stream, with a product queued on it, for what need not wait for the first stream's next work."""

    stream: Any
    product: Product

    def part(self, stream: Any) -> None:
        """Let what is queued here from now on wait for what is queued on a stream so far."""

    def meet(self, stream: Any) -> None:
        """Let what is queued on a stream from now on wait for what is queued here so far."""


class Way(NamedTuple):
    """How mini-batches are multiplied.

    ``product``; ``spans``: (first column, columns) of each product: one a lane, whose bits then depend on nothing
    else, or one of all; ``tf32``: whether what is multiplied is rounded to tf32, then ``Batches.matrix`` must be, too;
    ``aside``: where ``X^2`` is multiplied by products, if it is; ``stream``: where all else is queued.
    """

    product: Product
    spans: list[tuple[int, int]]
    tf32: bool
    aside: Aside | None
    stream: Any

    @property
    def thin(self) -> bool:
        """Whether ``X^2`` is multiplied by products."""
        return self.aside is not None

    @property
    def launches(self) -> int:
        """Launches of a mini-batch."""
        return 2 * len(self.spans) + (5 if self.thin else 2)


class Batches(NamedTuple):
    """Rows in training order on the card: ``matrix`` (float32, (n, feature_dim)), ``labels``, ``weights`` (float32,
    (n,) or (0,)) and ``touched`` (uint8, (batches, feature_dim)): columns not all zero in the batch."""

    matrix: Any
    labels: Any
    weights: Any
    touched: Any


class Work(NamedTuple):
    """Scratch: ``s`` (rows, columns), ``e`` (rows, lanes), ``g`` (feature_dim, columns), ``w`` (pieces * lanes,
    feature_dim + 1; the last is the bias's), ``theta`` (feature_dim, columns): what is multiplied, plane 0 or that
    rounded; ``q`` (lanes, feature_dim): sums of its squares.  ``p`` (rows, lanes) and ``x2`` (rows, feature_dim + 1
    at least), the products with ``X^2`` and that, are (0, 0) where there are none."""

    s: Any
    e: Any
    g: Any
    w: Any
    theta: Any
    q: Any
    p: Any
    x2: Any


@cuda.jit(device=True)
def _together(shared, x, team):  # type: ignore[no-untyped-def]
    """Return the sum of ``x`` over the threads of a team, as a tree; every thread of the block takes part."""
    me = cuda.threadIdx.x
    member, half = me % team, team // 2
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


@cuda.jit(device=True)
def _factors(total, a, b, c, d, column, last):  # type: ignore[no-untyped-def]
    """Add the squares of those of a quad's four numbers that are factors: before column ``last``."""
    if column + 4 <= last:
        return (((total + a * a) + b * b) + c * c) + d * d
    if column < last:
        total += a * a
    if column + 1 < last:
        total += b * b
    if column + 2 < last:
        total += c * c
    return total


@cuda.jit(device=True)
def _rounded4(use_tf32, a, b, c, d):  # type: ignore[no-untyped-def]
    if use_tf32:
        return rounded(a), rounded(b), rounded(c), rounded(d)
    return a, b, c, d


@cuda.jit
def square(matrix, dim, width, r0, n, out):  # type: ignore[no-untyped-def]
    """Write the squares of a mini-batch's rows into ``out`` (n, ``width``), and a one after each: the bias's."""
    i, step = cuda.grid(1), cuda.gridsize(1)
    while i < n * width:
        b, feature = i // width, i % width
        x = _ONE
        if feature < dim:
            x = matrix[(r0 + b) * dim + feature]
        out[i] = x * x
        i += step


@cuda.jit(device=True)
def _length(s, at, first, last, member, team):  # type: ignore[no-untyped-def]
    """Return a thread's part of a row's ``|S|^2``."""
    part = _ZERO
    for c in range(first + 4 * member, last, 4 * team):
        s0, s1, s2, s3 = load4(s, at + c)
        part = _factors(part, s0, s1, s2, s3, c, last)
    return part


@cuda.jit(device=True)
def _sloped(use_tf32, error, at, first, last, s, member, team):  # type: ignore[no-untyped-def]
    """Turn a row of S into one of E."""
    for c in range(first + 4 * member, last + 1, 4 * team):
        s0, s1, s2, s3 = load4(s, at + c)
        s0 = error * s0 if c != last else error
        s1 = error * s1 if c + 1 != last else error
        s2 = error * s2 if c + 2 != last else error
        s3 = error * s3 if c + 3 != last else error
        s0, s1, s2, s3 = _rounded4(use_tf32, s0, s1, s2, s3)
        store4(s, at + c, s0, s1, s2, s3)


class Kernels(NamedTuple):
    """The kernels that teams of threads run: for a few lanes, or for many (``thin``)."""

    squares: Any
    rows: Any
    update: Any


def _kernels(team: int, thin: bool) -> Kernels:
    # Known to the compiler, and so is that what is thin is in tf32.
    @cuda.jit
    def squares(theta, dim, columns, lanes, use_tf32, q, out):  # type: ignore[no-untyped-def]
        """Write ``theta``, rounded where asked, into ``out``, and its sums of squares into ``q``.

        In the order of :func:`update`, so that it does not matter where a pass is interrupted.
        """
        shared = cuda.shared.array(THREADS, np.float32)
        count, teams = len(lanes.first), cuda.gridsize(1) // team
        item, member = cuda.grid(1) // team, cuda.threadIdx.x % team
        # As many turns for every thread of a block: they wait for each other.
        for _ in range((dim * count + teams - 1) // teams):
            i, lane = item // count, item % count
            part = _ZERO
            if i < dim:
                for c in range(lanes.first[lane] + 4 * member, lanes.linear[lane] + 1, 4 * team):
                    t0, t1, t2, t3 = load4(theta, i * columns + c)
                    t0, t1, t2, t3 = _rounded4(thin or use_tf32, t0, t1, t2, t3)
                    store4(out, i * columns + c, t0, t1, t2, t3)
                    part = _factors(part, t0, t1, t2, t3, c, lanes.last[lane])
            total = _together(shared, part, team)
            if i < dim and member == 0:
                q[lane * dim + i] = total
            item += teams

    @cuda.jit
    def rows(  # type: ignore[no-untyped-def]
        loss, learning, use_tf32, lanes, matrix, dim, columns, labels, weights, s, q, p, e, w, scores, r0, n, length,
        at,
    ):  # fmt: skip
        """Turn ``s = X T`` into raw scores, in columns ``at`` on of ``scores`` if it has any, and then into E.

        A block takes pieces of ``length`` rows of a lane and, unless ``thin``, leaves their sums of ``e x^2`` in ``w``,
        and of ``e`` after the last feature.  Not learning, there are only scores.
        """
        shared = cuda.shared.array(THREADS, np.float32)
        count, teams = len(lanes.first), THREADS // team
        own, member = cuda.threadIdx.x // team, cuda.threadIdx.x % team
        item, pieces = cuda.blockIdx.x, (n + length - 1) // length
        while item < pieces * count:
            lane, begin = item % count, item // count * length
            first, last, end = lanes.first[lane], lanes.last[lane], min(n, begin + length)
            for turn in range((end - begin + teams - 1) // teams):
                b = begin + turn * teams + own
                part = linear = _ZERO
                if b < end:
                    part = _length(s, b * columns, first, last, member, team)
                    if not thin:
                        for i in range(member, dim, team):
                            x = load1(matrix, (r0 + b) * dim + i)
                            part -= (x * x) * load1(q, lane * dim + i)
                    linear = load1(s, b * columns + last)
                pairs = _together(shared, part, team)
                if b < end:
                    if thin:
                        pairs -= load1(p, b * count + lane)
                    z = lanes.bias[0, lane] + linear + _HALF * pairs
                    if member == 0 and scores.shape[1] > 0:
                        scores[lane, at + b] = z
                    if learning:
                        error = slope(loss, z, labels[r0 + b])
                        if len(weights) > 0:
                            error = error * weights[r0 + b]
                        if member == 0:
                            e[b * count + lane] = error
                        _sloped(thin or use_tf32, error, b * columns, first, last, s, member, team)
            if learning and not thin:
                cuda.syncthreads()
                for i in range(cuda.threadIdx.x, dim, THREADS):
                    total = _ZERO
                    for b in range(begin, end):
                        x = load1(matrix, (r0 + b) * dim + i)
                        total += load1(e, b * count + lane) * (x * x)
                    w[item * (dim + 1) + i] = total
                if cuda.threadIdx.x == 0:
                    total = _ZERO
                    for b in range(begin, end):
                        total += load1(e, b * count + lane)
                    w[item * (dim + 1) + dim] = total
            item += cuda.gridDim.x

    @cuda.jit
    def update(  # type: ignore[no-untyped-def]
        rule, lazy, use_tf32, arena, planes, dim, columns, lanes, touched, g, w, theta, q, k, pieces
    ):  # fmt: skip
        """Move all parameters of mini-batch ``k``, given ``g`` and ``pieces`` sums in ``w``."""
        shared = cuda.shared.array(THREADS, np.float32)
        count, teams, stride = len(lanes.first), cuda.gridsize(1) // team, dim * columns
        item, member = cuda.grid(1) // team, cuda.threadIdx.x % team
        for _ in range(((dim + 1) * count + teams - 1) // teams):
            i, lane = item // count, item % count
            weight = _ZERO
            if i <= dim:
                for piece in range(member, pieces, team):
                    weight += load1(w, (piece * count + lane) * (dim + 1) + i)
            weight = _together(shared, weight, team)
            part, moves = _ZERO, i < dim and (not lazy or touched[k * dim + min(i, dim - 1)] != 0)
            if moves:
                last = lanes.last[lane]
                for c in range(lanes.first[lane] + 4 * member, last + 1, 4 * team):
                    at = i * columns + c
                    t0, t1, t2, t3 = load4(theta, at)
                    if c + 4 <= last:
                        g0, g1, g2, g3 = load4(g, at)
                        g0, g1, g2, g3 = g0 - t0 * weight, g1 - t1 * weight, g2 - t2 * weight, g3 - t3 * weight
                        t0, t1, t2, t3 = move4(rule, arena, at, stride, planes, g0, g1, g2, g3, lanes, i, lane, k)
                    else:
                        # The last factors, and the linear weight after them.
                        for j in range(last + 1 - c):
                            t = t0 if j == 0 else (t1 if j == 1 else (t2 if j == 2 else t3))
                            gradient, array = g[at + j], 1
                            if c + j < last:
                                gradient, array = gradient - t * weight, 2
                            t = move1(rule, arena, at + j, stride, planes, gradient, lanes, i, lane, array, k)
                            t0 = t if j == 0 else t0
                            t1 = t if j == 1 else t1
                            t2 = t if j == 2 else t2
                            t3 = t if j == 3 else t3
                    t0, t1, t2, t3 = _rounded4(thin or use_tf32, t0, t1, t2, t3)
                    store4(theta, at, t0, t1, t2, t3)
                    part = _factors(part, t0, t1, t2, t3, c, last)
            elif i == dim and member == 0:
                move_bias(rule, lanes, lane, weight, k)
            total = _together(shared, part, team)
            if moves and member == 0:
                q[lane * dim + i] = total
            item += teams

    return Kernels(squares, rows, update)


KERNELS = {False: _kernels(FEW, False), True: _kernels(MANY, True)}
"""Of passes that are not thin, and that are."""


def learn(
    codes: tuple[int, int, bool], way: Way, arena: Any, lanes: Lanes, batches: Batches, work: Work, scores: Any,
    starts: NDArray[np.int64], first: int, last: int, origin: int,
) -> None:  # fmt: skip
    """Train all lanes on mini-batches ``first`` to ``last`` (exclusive); returns before the card is done.

    Parameters
    ----------
    codes
        Rule, loss and whether columns that are all zero in a mini-batch stay as they are.
    way
        How it is multiplied, and where it is queued.
    arena, lanes, batches, work, scores
        On the card; ``scores`` float32 (lanes, rows from ``origin`` on, or 0).
    starts
        First row of each mini-batch, on the host.
    """
    rule, loss, lazy = codes
    (planes, dim, columns), count = arena.shape, len(lanes.first)
    product, stream, aside = way.product, way.stream, way.aside
    kernels, team = KERNELS[way.thin], MANY if way.thin else FEW
    length = THREADS // team if way.thin else length_of(len(work.s))
    own, at = Work(*map(flat, work)), flat(arena)
    matrix, touched = flat(batches.matrix), flat(batches.touched)
    kernels.squares[blocks(dim * count * team), THREADS, stream](at, dim, columns, lanes, way.tf32, own.q, own.theta)
    for k in range(first, last):
        r0, n = int(starts[k]), int(starts[k + 1] - starts[k])
        x, e, pieces = Part(batches.matrix, r0, n, 0, dim), Part(work.e, 0, n, 0, count), -(-n // length)
        if aside is not None:
            aside.part(stream)
            wide = work.x2.shape[1]
            square[blocks(n * wide), THREADS, aside.stream](matrix, dim, wide, r0, n, own.x2)
            aside.product(Part(work.x2, 0, n, 0, dim), Part(work.q, 0, count, 0, dim), Part(work.p, 0, n, 0, count),
                          turn_b=True)  # fmt: skip
        for c, width in way.spans:
            product(x, Part(work.theta, 0, dim, c, width), Part(work.s, 0, n, c, width), tf32=way.tf32)
        if aside is not None:
            aside.meet(stream)
        kernels.rows[blocks(pieces * count, 1), THREADS, stream](
            loss, True, way.tf32, lanes, matrix, dim, columns, batches.labels, batches.weights, own.s, own.q,
            own.p, own.e, own.w, scores, r0, n, length, r0 - origin,
        )  # fmt: skip
        if aside is not None:
            aside.part(stream)
            aside.product(e, Part(work.x2, 0, n, 0, dim + 1), Part(work.w, 0, count, 0, dim + 1), turn_a=True)
        for c, width in way.spans:
            product(x, Part(work.s, 0, n, c, width), Part(work.g, 0, dim, c, width), turn_a=True, tf32=way.tf32)
        if aside is not None:
            aside.meet(stream)
        kernels.update[blocks((dim + 1) * count * team), THREADS, stream](
            rule, lazy, way.tf32, at, planes, dim, columns, lanes, touched, own.g, own.w, own.theta, own.q, k,
            1 if way.thin else pieces,
        )  # fmt: skip


def score(way: Way, arena: Any, lanes: Lanes, matrix: Any, s: Any, theta: Any, q: Any, out: Any) -> None:
    """Write raw scores of the rows of ``matrix`` into ``out`` (float32, (lanes, rows)), ``len(s)`` rows at a time.

    Always float32, of the parameters as they are; ``theta`` and ``q`` are scratch as in :class:`Work`.
    """
    (_, dim, columns), count, stream, most = arena.shape, len(lanes.first), way.stream, len(s)
    flat_q, flat_s, flat_x = flat(q), flat(s), flat(matrix)
    kernels = KERNELS[False]
    kernels.squares[blocks(dim * count * FEW), THREADS, stream](
        flat(arena), dim, columns, lanes, False, flat_q, flat(theta)
    )  # fmt: skip
    for at in range(0, matrix.shape[0], most):
        n = min(most, matrix.shape[0] - at)
        for c, width in way.spans:
            way.product(Part(matrix, at, n, 0, dim), Part(theta, 0, dim, c, width), Part(s, 0, n, c, width))
        # Labels, weights, slopes and sums of them are not looked at: other arrays of their kind take their place.
        kernels.rows[blocks(-(-n // PIECE) * count, 1), THREADS, stream](
            0, False, False, lanes, flat_x, dim, columns, lanes.corrections, lanes.corrections, flat_s, flat_q,
            flat_q, flat_q, flat_q, out, at, n, PIECE, at,
        )  # fmt: skip


def length_of(longest: int) -> int:
    """Return the rows of a piece, where the longest mini-batch is so long."""
    return max(PIECE, -(-longest // _PIECES))


def pieces_of(longest: int) -> int:
    """Return the pieces of the longest mini-batch: how many ``Work.w`` must hold."""
    return -(-longest // length_of(longest))


def tf32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a float32 array rounded as :func:`~fmtune.kernels.cuda_parts.rounded` does, on the host."""
    return ((np.ascontiguousarray(x).view(np.int32) + np.int32(0x1000)) & np.int32(-0x2000)).view(np.float32)
