"""Arenas on a CUDA card: the same methods as ``fm.arena``'s, over ``kernels.cuda_sparse`` and ``cuda_dense``.

Parameters, their states, mini-batches and test rows live on the card; in an epoch nothing crosses the bus but the
scores that are asked for.  Lanes are placed anew at an epoch's end, by copies on the card.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from fmtune.fm.arena import GROUP, Float32, initial, knobs_of
from fmtune.fm.cuda_card import Card, card
from fmtune.fm.cuda_memory import copy, empty, sent, zeros
from fmtune.fm.cuda_product import Aside, Cublas, Simulated, product
from fmtune.fm.cuda_queue import Graphs, Queue, addresses
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.kernels import cpu_dense, cuda_dense, cuda_sparse, sparse_batches
from fmtune.kernels.cuda_parts import Lanes
from fmtune.kernels.cuda_quads import SIMULATED
from fmtune.kernels.losses import CODES
from fmtune.kernels.rules import RULES, correction
from fmtune.rows import DenseRows, Rows, SparseRows

# Floats of scratch that scoring may take: it goes through the rows in blocks.
_SCRATCH = 2**27

# A card does about so many times the work of a processor in a second; the stop flag is looked at between chunks.
_FASTER = 500.0

_CORRECTIONS = 4096

# Launches that are recorded as one.
_STRETCH = 2**11


class _CardArena:
    """What both layouts share: lanes and their places.

    Parameters
    ----------
    feature_dim, optimizer, predictor_type, lazy, decays
        As for ``fm.arena.SparseArena``.
    exact
        Of dense rows: a product a lane in float32, so that a lane's bits depend on nothing else; without it one product
        for all lanes, with numbers rounded to tf32.
    on
        The card; by default the process's.
    """

    def __init__(
        self, feature_dim: int, optimizer: str | None, predictor_type: str, lazy: bool = True,
        decays: Float32 | None = None, exact: bool = True, on: Card | None = None,
    ) -> None:  # fmt: skip
        rule = RULES[optimizer] if optimizer else None
        self._codes = (rule.code if rule else 0, CODES[predictor_type], lazy)
        self._planes, self._dim = 1 + (rule.states if rule else 0), feature_dim
        self._card, self._exact = on or card(), exact
        self._decays = sent(np.zeros(0, np.float32) if decays is None else decays)
        self._factors: list[int] = []
        self._knobs = np.zeros((0, *_knobs_shape()), np.float32)
        self._steps = np.zeros(0, np.int64)
        self._began = np.zeros(0, np.int64)
        self._corrections = np.zeros(0, np.float32)
        self._scratch: tuple[tuple[int, ...], Any] = ((), None)
        # Where row weights and the scores of a pass lie: the same place each time, so that launches stay the same.
        self._weights: Any = empty(0)
        self._scored: Any = empty(0, 0)
        self._arena, self._lanes = self._room([])

    @cached_property
    def queue(self) -> Queue:
        """Where its kernels are queued, and recorded."""
        return Queue(None if SIMULATED else Graphs())

    def _room(self, factors: Sequence[int]) -> tuple[Any, Lanes]:
        """Return an arena of zeros for lanes of these widths, and where each has its columns."""
        columns, first, linear = self._columns(factors)
        last = first + np.array(factors, np.int64)
        owner = np.full(columns // 4, -1, np.int32)
        for lane in range(len(factors)):
            owner[first[lane] // 4 : -(-last[lane] // 8) * 2] = lane
        owner, first, last, linear = (sent(a.astype(np.int32)) for a in (owner, first, last, linear))
        lanes = Lanes(owner, first, last, linear, zeros(self._planes, len(factors)), None, None, None, self._decays)
        return zeros(*self._shape(columns)), lanes

    def _columns(self, factors: Sequence[int]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Return how many columns there are, and each lane's first factor column and linear column."""
        raise NotImplementedError

    def _shape(self, columns: int) -> tuple[int, int, int]:
        raise NotImplementedError

    def _plane(self, arena: Any, plane: int) -> tuple[Any, int]:
        """Return a plane of an arena as columns of a matrix with a row a feature: the matrix, and the first column."""
        raise NotImplementedError

    def place(self, keep: Sequence[int], enter: Sequence[Hyperparameters | Model]) -> None:
        """Keep some lanes, in the given order, and add new ones after them."""
        factors = [self._factors[lane] for lane in keep] + [x.num_factors for x in enter]
        old, old_lanes, old_factors = self._arena, self._lanes, self._factors
        arena, lanes = self._room(factors)
        _, first, linear = self._columns(factors)
        _, first_before, linear_before = self._columns(old_factors)
        for new, lane in enumerate(keep):
            for plane in range(self._planes):
                (source, at), (target, to) = self._plane(old, plane), self._plane(arena, plane)
                copy(source, at + int(first_before[lane]), target, to + int(first[new]), factors[new])
                copy(source, at + int(linear_before[lane]), target, to + int(linear[new]), 1)
            copy(old_lanes.bias, lane, lanes.bias, new, 1)
        # Columns that only fill up are never written: what is there must be zero anew.
        self._factors, self._arena, self._scratch = factors, arena, ((), None)
        self.queue.forget()
        knobs = [self._knobs[lane] for lane in keep] + [
            knobs_of(x) if isinstance(x, Hyperparameters) else np.zeros(_knobs_shape(), np.float32) for x in enter
        ]
        self._knobs = np.array(knobs, np.float32).reshape(len(factors), *_knobs_shape())
        self._steps = np.concatenate([self._steps[list(keep)], np.zeros(len(enter), np.int64)])
        self._lanes = lanes._replace(knobs=sent(self._knobs))
        self._count()
        for lane, start in enumerate(enter, len(keep)):
            self._begin(lane, start, int(first[lane]), int(linear[lane]))

    def _begin(self, lane: int, start: Hyperparameters | Model, first: int, linear: int) -> None:
        bias, weights = np.zeros((1, 1), np.float32), np.zeros((self._dim, 1), np.float32)
        factors = np.zeros((self._dim, start.num_factors), np.float32)
        if isinstance(start, Model):
            factors[:], weights[:, 0], bias[0, 0] = start.factors, start.linear, start.bias
        else:
            for name, array in (("factors", factors), ("linear", weights), ("bias", bias)):
                initial(start, name, array)
        plane, at = self._plane(self._arena, 0)
        copy(sent(factors), 0, plane, at + first, start.num_factors)
        copy(sent(weights), 0, plane, at + linear, 1)
        copy(sent(bias), 0, self._lanes.bias, lane, 1)

    def rescale(self, lane: int, rates: Float32) -> None:
        """Set a lane's learning rates, float32 (3,): bias, linear, factors."""
        self._knobs[lane, :, 0] = rates
        self._lanes.knobs.copy_to_device(self._knobs)

    def load(self, lane: int, model: Model) -> None:
        """Give a lane the parameters of a model of its size."""
        _, first, linear = self._columns(self._factors)
        self._begin(lane, model, int(first[lane]), int(linear[lane]))

    def _count(self, first: int = 0, last: int = 0) -> None:
        """Put the number of updates that each lane has done before mini-batch 0, and the rates' corrections."""
        began = self._steps - first
        need = int(began.max(initial=0)) + last
        if need > len(self._corrections) or not len(self._corrections):
            upto = max(_CORRECTIONS, 2 * need)
            self._corrections = np.array([correction(self._codes[0], t) for t in range(1, upto + 1)], np.float32)
            self._lanes = self._lanes._replace(corrections=None)
        if self._lanes.corrections is None:
            self._lanes = self._lanes._replace(corrections=sent(self._corrections))
        if self._lanes.began is None:
            self._lanes = self._lanes._replace(began=sent(began.astype(np.int32)))
        elif not np.array_equal(began, self._began):
            self._lanes.began.copy_to_device(began.astype(np.int32))
        self._began = began

    def parameters(self, lane: int) -> tuple[float, Float32, Float32]:
        """Return a lane's bias, linear weights (feature_dim,) and factors (feature_dim, num_factors), as copies."""
        _, first, linear = self._columns(self._factors)
        k = self._factors[lane]
        plane, at = self._plane(self._arena, 0)
        factors, weights, bias = empty(self._dim, k), empty(self._dim, 1), empty(self._planes, 1)
        copy(plane, at + int(first[lane]), factors, 0, k)
        copy(plane, at + int(linear[lane]), weights, 0, 1)
        copy(self._lanes.bias, lane, bias, 0, 1)
        return float(bias.copy_to_host()[0, 0]), weights.copy_to_host()[:, 0], factors.copy_to_host()

    def _weighed(self, weights: Float32) -> Any:
        """Return the weights of rows on the card; they may be new in each epoch."""
        if self._weights.shape == weights.shape:
            self._weights.copy_to_device(weights)
        else:
            self._weights = sent(weights)
        return self._weights

    def _learnt(
        self, scores: Float32, first: int, last: int, launches: int, args: tuple[Any, ...], learn: Callable[..., None]
    ) -> None:  # fmt: skip
        """Queue some mini-batches, wait for them, and bring the scores of the pass.

        ``learn`` queues them, given ``args``, a place for scores and its first mini-batch, the first, the last, and a
        stream; a mini-batch takes so many ``launches``, or 0 if nothing is to be recorded.
        """
        if self._scored.shape != scores.shape:
            self._scored = empty(*scores.shape)
        stretch = max(1, _STRETCH // launches) if launches else last - first
        for k in range(first, last, stretch):
            end = min(last, k + stretch)
            given = (*args, self._scored, first, k, end)
            key = addresses(self._arena, self._lanes, *given)
            self.queue.run(key, (end - k) * launches, partial(learn, *given))
        _bring(self._scored, scores)
        self._steps += last - first


def _bring(on: Any, scores: Float32) -> None:
    """Wait for the card, and bring scores."""
    cuda.synchronize()
    if scores.size:
        scores[:] = on.copy_to_host()


def _knobs_shape() -> tuple[int, ...]:
    return knobs_of(Hyperparameters()).shape


class CudaSparseArena(_CardArena):
    """All lanes' parameters of a feature in one row, on the card; see ``kernels.cuda_sparse``.

    A pass is one launch where a mini-batch has fewer than ``together`` numbers (rows times columns), and four launches
    a mini-batch where it has more: see ``kernels.cuda_sparse``.  Recorded, four cost no more than one.  A pass keeps to
    one of the two ways: a kernel that ran before is loaded, and what is being recorded must not wait for a compiler.
    """

    together = 2**18

    def _columns(self, factors: Sequence[int]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        width = np.array([-(-k // GROUP) * GROUP for k in factors], np.int64)
        linear, ends = int(width.sum()), np.cumsum(width)
        lanes = -(-len(factors) // GROUP) * GROUP
        return linear + lanes, ends - width, linear + np.arange(len(factors), dtype=np.int64)

    def _shape(self, columns: int) -> tuple[int, int, int]:
        return self._dim, self._planes, columns

    def _plane(self, arena: Any, plane: int) -> tuple[Any, int]:
        dim, planes, columns = arena.shape
        return arena.reshape(dim, planes * columns), plane * columns

    def learn(self, batches: object, first: int, last: int, scores: Float32) -> None:
        """Train all lanes on some mini-batches; see ``kernels.cuda_sparse.learn``."""
        assert isinstance(batches, sparse_batches.Batches)
        # Known by an array that stays the same where weights are new in each epoch; those go up by themselves.
        rows, cut, most = self._card.resident(batches.values, lambda: _sparse_batches(batches))
        cut = cut._replace(weights=self._weighed(batches.weights))
        self._count(first, last)
        longest = int(np.diff(batches.rows).max())
        work, numbers = self._work(longest, most), longest * self._arena.shape[2]
        together = numbers < self.together
        self._learnt(scores, first, last, 0 if together else 4, (together, rows, cut, work, batches.rows), self._queued)

    def _queued(
        self, together: bool, rows: cuda_sparse.Rows, cut: cuda_sparse.Batches, work: cuda_sparse.Work,
        starts: NDArray[np.int64], out: Any, origin: int, first: int, last: int, stream: Any,
    ) -> None:  # fmt: skip
        args = (self._codes, self._arena, self._lanes, rows, cut, work, out, starts, first, last, int(starts[origin]))
        if together:
            try:
                cuda_sparse.learn(*args, stream, True)
                return
            except Exception as error:  # whatever a compiler or driver says: nothing was queued
                warnings.warn(f"a pass is no single launch on this card: {error}", RuntimeWarning, stacklevel=2)
                type(self).together = 0
        cuda_sparse.learn(*args, stream, False)

    def _work(self, longest: int, most: int) -> cuda_sparse.Work:
        columns, lanes = self._arena.shape[2], len(self._factors)
        shape = (longest, most, columns, lanes)
        if self._scratch[0] != shape:
            self._scratch = (shape, cuda_sparse.Work(
                empty(longest, columns), empty(longest, columns), empty(longest, lanes), empty(most, columns),
                empty(most, lanes), empty(-(-longest // cuda_sparse.PIECE), lanes),
                empty(0 if self._codes[2] else self._dim, dtype=np.int32),
            ))  # fmt: skip
        work: cuda_sparse.Work = self._scratch[1]
        return work

    def score(self, rows: Rows) -> Float32:
        """Return raw scores, float32 (lanes, rows)."""
        assert isinstance(rows, SparseRows)
        on = self._card.resident(rows, lambda: cuda_sparse.Rows(
            *(sent(a) for a in (rows.indptr, rows.indices, rows.values))
        ))  # fmt: skip
        scores, to = np.empty((len(self._factors), rows.n), np.float32), empty(len(self._factors), rows.n)
        columns = self._arena.shape[2]
        block = max(1, min(rows.n, _SCRATCH // columns))
        q, p = empty(block, columns), empty(block, columns)
        cuda_sparse.score(self._arena, self._lanes, on, q, p, to, rows.n, self.queue.stream)
        _bring(to, scores)
        return scores

    def work(self, batches: object) -> float:
        """Return what ``SparseArena.work`` does, as a processor would have to be fast to keep up."""
        assert isinstance(batches, sparse_batches.Batches)
        return 3.0 * len(batches.values) * int(self._arena.shape[2]) / max(1, len(batches.rows) - 1) / _FASTER


def _sparse_batches(batches: sparse_batches.Batches) -> tuple[cuda_sparse.Rows, cuda_sparse.Batches, int]:
    """Put mini-batches on the card."""
    cut = cuda_sparse.pieces(batches, cuda_sparse.PIECE)
    rows = cuda_sparse.Rows(*(sent(a) for a in (batches.indptr, batches.indices, batches.values)))
    on = cuda_sparse.Batches(*(sent(a) for a in (
        batches.labels, batches.weights[:0], batches.rows, cut.pieces, cut.feature, cut.slot, cut.entries, batches.row,
        batches.value, cut.splits, cut.split, cut.slots,
    )))  # fmt: skip
    return rows, on, cut.most


class CudaDenseArena(_CardArena):
    """All lanes' parameters as one matrix, on the card; see ``kernels.cuda_dense``.

    With ``many`` lanes or more, if they need not be exact, products do what kernels do for a few.
    """

    many = 8

    def _columns(self, factors: Sequence[int]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        width = np.array([-(-(k + 1) // GROUP) * GROUP for k in factors], np.int64)
        first = np.cumsum(width) - width
        return int(width.sum()), first, first + np.array(factors, np.int64)

    def _shape(self, columns: int) -> tuple[int, int, int]:
        return self._planes, self._dim, columns

    def _plane(self, arena: Any, plane: int) -> tuple[Any, int]:
        return arena[plane], 0

    @cached_property
    def _product(self) -> Cublas | Simulated:
        return product()

    @cached_property
    def aside(self) -> Aside:
        """Where products that need not wait are queued."""
        return Aside()

    def product_on(self, stream: Any) -> Cublas | Simulated:
        """Return its product, queued on a stream from now on."""
        self._product.on(int(stream))
        return self._product

    def _way(self, stream: Any, scored: bool = False) -> cuda_dense.Way:
        """Return how a mini-batch is multiplied, by products that are queued on the stream from now on."""
        columns, first, _ = self._columns(self._factors)
        spans = [(0, columns)]
        if self._exact:
            spans = [(int(a), int(b - a)) for a, b in zip(first, [*first[1:], columns], strict=True)]
        tf32 = not self._exact and not scored
        # A lane's bits may then depend on its neighbours; and a few lanes are done sooner without.
        aside = self.aside if tf32 and len(self._factors) >= self.many else None
        return cuda_dense.Way(self.product_on(stream), spans, tf32, aside, stream)

    def learn(self, batches: object, first: int, last: int, scores: Float32) -> None:
        """Train all lanes on some mini-batches; see ``kernels.cuda_dense.learn``."""
        assert isinstance(batches, cpu_dense.Batches)
        tf32 = not self._exact
        # Known by an array that stays the same where weights are new in each epoch; those go up by themselves.  What is
        # rounded is known by another one: exact packs may have the same rows.
        on = self._card.resident(batches.labels if tf32 else batches.matrix, lambda: _dense_batches(batches, tf32))
        on = on._replace(weights=self._weighed(batches.weights))
        self._count(first, last)
        way = self._way(self.queue.stream)
        work = self._work(int(np.diff(batches.rows).max()), way.thin)
        self._learnt(scores, first, last, way.launches, (on, work, batches.rows), self._queued)

    def _queued(
        self, on: cuda_dense.Batches, work: cuda_dense.Work, starts: NDArray[np.int64], out: Any, origin: int,
        first: int, last: int, stream: Any,
    ) -> None:  # fmt: skip
        cuda_dense.learn(
            self._codes, self._way(stream), self._arena, self._lanes, on, work, out, starts, first, last,
            int(starts[origin]),
        )  # fmt: skip

    def _work(self, longest: int, thin: bool) -> cuda_dense.Work:
        columns, lanes, dim = self._arena.shape[2], len(self._factors), self._dim
        shape = (longest, columns, lanes, thin)
        if self._scratch[0] != shape:
            pieces = 1 if thin else cuda_dense.pieces_of(longest)
            wide = -(-(dim + 1) // GROUP) * GROUP
            self._scratch = (shape, cuda_dense.Work(
                empty(longest, columns), empty(longest, lanes), empty(dim, columns),
                empty(pieces * lanes, dim + 1), zeros(dim, columns), empty(lanes, dim),
                empty(*((longest, lanes) if thin else (0, 0))), empty(*((longest, wide) if thin else (0, 0))),
            ))  # fmt: skip
        work: cuda_dense.Work = self._scratch[1]
        return work

    def score(self, rows: Rows) -> Float32:
        """Return raw scores, float32 (lanes, rows)."""
        assert isinstance(rows, DenseRows)
        on = self._card.resident(rows, lambda: sent(rows.matrix))
        scores, to = np.empty((len(self._factors), rows.n), np.float32), empty(len(self._factors), rows.n)
        columns = self._arena.shape[2]
        s = empty(max(1, min(rows.n, _SCRATCH // columns)), columns)
        theta, q = zeros(self._dim, columns), empty(len(self._factors), self._dim)
        cuda_dense.score(self._way(self.queue.stream, scored=True), self._arena, self._lanes, on, s, theta, q, to)
        _bring(to, scores)
        return scores

    def work(self, batches: object) -> float:
        """Return what ``DenseArena.work`` does, as a processor would have to be fast to keep up."""
        assert isinstance(batches, cpu_dense.Batches)
        return 0.25 * batches.matrix.size * int(self._arena.shape[2]) / max(1, len(batches.rows) - 1) / _FASTER


def _dense_batches(batches: cpu_dense.Batches, tf32: bool) -> cuda_dense.Batches:
    """Put mini-batches on the card, rounded to tf32 where the products are."""
    matrix = cuda_dense.tf32(batches.matrix) if tf32 else batches.matrix
    arrays = (matrix, batches.labels, batches.weights[:0], batches.touched.view(np.uint8))
    return cuda_dense.Batches(*(sent(a) for a in arrays))


CUDA_ARENAS: dict[str, type[CudaSparseArena] | type[CudaDenseArena]] = {
    "sparse": CudaSparseArena, "dense": CudaDenseArena,
}  # fmt: skip
