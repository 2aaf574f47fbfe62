"""Epoch: the mini-batches of one pass, made a stretch at a time, and kept where there is room."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from fmtune.fm.numbering import Numbering
from fmtune.fm.order import Order
from fmtune.kernels import cpu_dense, cpu_halves, sparse_batches
from fmtune.kernels.cpu_product import ROWS
from fmtune.rows import DenseRows, Rows, SparseRows, concatenate

Batches = sparse_batches.Batches | cpu_dense.Batches


class Key(NamedTuple):
    """What the mini-batches of an epoch depend on."""

    layout: str
    size: int
    seed: tuple[int, int] | None
    pad: bool
    transposed: bool
    whole: bool
    numbered: bool
    rounded: bool


class Slots:
    """Scratch of transposes, a number a feature: shared by all orders, as many as threads ever took at once."""

    def __init__(self, feature_dim: int) -> None:
        self._free: deque[NDArray[np.int64]] = deque()
        self._lock, self._dim, self.bytes = threading.Lock(), feature_dim, 0

    @contextmanager
    def one(self) -> Iterator[NDArray[np.int64]]:
        """Give one to a transpose, which leaves it clean unless it fails."""
        try:
            slot = self._free.pop()
        except IndexError:
            slot = np.full(self._dim, -1, np.int64)
            with self._lock:
                self.bytes += slot.nbytes
        yield slot
        self._free.append(slot)


class User:
    """Who trains on an order: it is in use as long as there is one, and nobody has to say when it ends."""


class Epoch:
    """The mini-batches of one epoch, made a stretch at a time and kept where ``admit`` allows."""

    def __init__(
        self, rows: Rows, nnz: int, key: Key, entries: int, admit: Callable[[Epoch, int], bool],
        slots: Slots, numbering: Numbering | None,
    ) -> None:  # fmt: skip
        self.rows, self._key, self._admit, self._slots, self._numbering = rows, key, admit, slots, numbering
        self._order = Order(rows.n, nnz, key.seed)
        self.batches = -(-rows.n // key.size)
        wide = rows.feature_dim if isinstance(rows, DenseRows) else nnz / rows.n
        per_batch = max(1.0, wide) * key.size
        self._step = self.batches if key.whole else max(1, int(entries / per_batch))
        self.count = -(-self.batches // self._step)
        self.bytes = self._order.bytes
        self._made: list[Batches | None] = [None] * self.count
        self._locks = [threading.Lock() for _ in range(self.count)]
        self.users = WeakSet[User]()

    def stretch(self, i: int) -> Batches:
        """Return stretch ``i``, made at most once if it may be kept."""
        with self._locks[i]:
            made = self._made[i]
            if made is None:
                made = self.make(i * self._step, min(self.batches, (i + 1) * self._step))
                if self._admit(self, sum(array.nbytes for array in made)):
                    self._made[i] = made
            return made

    @property
    def whole(self) -> bool:
        """Whether all stretches are made and kept."""
        return all(made is not None for made in self._made)

    def labels(self) -> NDArray[np.float32]:
        """Return all labels, in order."""
        labels, n = self.rows.labels, self.rows.n
        assert labels is not None
        padding = np.zeros(-n % self._key.size if self._key.pad else 0, np.float32)
        return np.concatenate([labels[self._order.rows(0, n)], padding])

    def make(self, first: int, last: int) -> Batches:
        """Return mini-batches ``first`` to ``last`` (exclusive)."""
        size, n = self._key.size, self.rows.n
        begin, end = first * size, min(n, last * size)
        rows = _taken(self.rows, self._order.rows(begin, end), self._numbering)
        if self._key.pad and end == n and n % size:
            rows = concatenate([rows, _empty_rows(-n % size, rows)])
        starts = np.append(np.arange(0, rows.n, size), rows.n).astype(np.int64)
        assert rows.labels is not None
        if isinstance(rows, SparseRows):
            return self._transposed(rows, starts)
        touched = np.stack([(rows.matrix[a:b] != 0).any(axis=0) for a, b in itertools.pairwise(starts)])
        weights = np.zeros(0, np.float32) if rows.weights is None else rows.weights
        matrix = np.ascontiguousarray(rows.matrix)
        if self._key.rounded:
            return cpu_dense.Batches(cpu_halves.blocks_of(matrix, starts), rows.labels, starts, touched, weights)
        return cpu_dense.Batches(matrix, rows.labels, starts, touched, weights)

    def _transposed(self, rows: SparseRows, starts: NDArray[np.int64]) -> Batches:
        """Return the mini-batches of rows that are in training order; scratch memory is used again."""
        arrays = (rows.indptr, rows.indices, rows.values, rows.labels, rows.weights, rows.feature_dim, starts)
        if not self._key.transposed:
            return sparse_batches.make_batches(*arrays, False)
        with self._slots.one() as slot:
            return sparse_batches.make_batches(*arrays, True, slot)


def _taken(rows: Rows, order: NDArray[np.int64], numbering: Numbering | None) -> Rows:
    """Return ``rows.take(order)`` with features numbered so, made without holding up other threads."""
    if isinstance(rows, DenseRows):
        return rows.take(order)
    indptr = np.zeros(len(order) + 1, np.int64)
    np.cumsum(rows.indptr[order + 1] - rows.indptr[order], out=indptr[1:])
    indices, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    place = None if numbering is None else numbering.place
    sparse_batches.gather(rows.indptr, rows.indices, rows.values, order, place, indptr, indices, values)
    labels, weights = (None if array is None else array[order] for array in (rows.labels, rows.weights))
    return SparseRows(indptr, indices, values, labels, rows.feature_dim, weights)


def _empty_rows(n: int, like: Rows) -> Rows:
    """Return ``n`` rows of zeros with label 0 and weight 1, in the layout of ``like``."""
    labels, weights = np.zeros(n, np.float32), None if like.weights is None else np.ones(n, np.float32)
    if isinstance(like, SparseRows):
        none = np.zeros(0, np.int32)
        indptr = np.zeros(n + 1, np.int64)
        return SparseRows(indptr, none, none.astype(np.float32), labels, like.feature_dim, weights)
    return DenseRows(np.zeros((n, like.feature_dim), np.float32), labels, like.feature_dim, weights)


def pairs_of(n: int, d: int) -> int:
    """Return how many pairs a rounded mini-batch of ``n`` rows has, in both forms."""
    blocks, rest = divmod(n, ROWS)
    return int(blocks * sum(cpu_halves.sizes_of(ROWS, d)) + sum(cpu_halves.sizes_of(rest, d)))
