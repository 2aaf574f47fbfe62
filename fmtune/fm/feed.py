"""Feed: the train channel in the order and the mini-batches that a pack wants, made once and shared.

``shuffle: once`` fixes one order for all epochs, so mini-batches and their transposes are made once and it does not
matter at which epoch a lane enters.  They are made in stretches, the next one while a pack trains on this one.  What
does not fit in memory is not kept but made again in the next epoch, with the same bits: rows stay in the file that
they are mapped from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fmtune.errors import DataError, ResourceError
from fmtune.fm.epoch import Batches, Epoch, Key, Slots, User, pairs_of
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.numbering import Numbering
from fmtune.kernels import columns, tiles
from fmtune.kernels.rules import RULES
from fmtune.machine import free_memory, threads
from fmtune.rows import Rows, SparseRows

Float32 = NDArray[np.float32]


class Recipe(NamedTuple):
    """What the lanes of a pack must share, because it shapes the pass."""

    layout: str
    predictor_type: str
    mini_batch_size: int
    optimizer: str
    lazy: bool
    shuffle: str
    shuffle_seed: int
    pad: bool
    solver: str = "sgd"
    device: str = "cpu"
    positive_weight: float = 1.0
    exact: bool = True

    @classmethod
    def of(
        cls, hyperparameters: Hyperparameters, layout: str, device: str = "cpu", cpu: frozenset[str] | None = None
    ) -> Recipe:
        """Return the recipe of one configuration on ``sparse`` or ``dense`` rows, on ``cpu`` or ``gpu``.

        ``cpu`` are the features of a CPU, None those of this one: without bfloat16 every pass of a CPU is exact, and so
        are passes of mini-batches that would not fill its vectors.

        Raises
        ------
        ResourceError
            Solver or optimizer do not run on the device.
        """
        h = hyperparameters
        weight = h.positive_weight if h.predictor_type == "binary_classifier" else 1.0
        if h.solver != "sgd":  # sweeps have no mini-batches and no order
            if device != "cpu":
                raise ResourceError(f"solver {h.solver} sweeps on the CPU only", hint="use solver sgd on a GPU")
            return cls(layout, h.predictor_type, 0, "", False, "none", 0, False, h.solver, device, weight)
        if device != "cpu" and RULES[h.optimizer].rowwise:
            hint = "use optimizer adagrad on a GPU"
            raise ResourceError(f"optimizer {h.optimizer} runs on the CPU only", hint=hint)
        order = (h.shuffle, h.shuffle_seed, h.pad_last_batch)
        small = not tiles.halves(cpu) or h.mini_batch_size < tiles.WIDTH
        exact = h.exact or layout != "dense" or (device == "cpu" and small)
        shape = (layout, h.predictor_type, h.mini_batch_size, h.optimizer, h.lazy)
        return cls(*shape, *order, "sgd", device, weight, exact)


STRETCH = 1 << 21
"""Entries of the mini-batches that are made at a time."""


class ByColumn(NamedTuple):
    """The train channel by columns, for sweeps.

    Attributes
    ----------
    columns : kernels.columns.Columns
    labels : float32 (n,)
    weights : float32 (n,) or (0,)
    groups : Groups
    group : int32 (feature_dim,)
        Each feature's group.
    scales : float64 (feature_dim,) or None
        What columns were divided by; None where all are as they were.
    """

    columns: columns.Columns
    labels: Float32
    weights: Float32
    groups: Groups
    group: NDArray[np.int32]
    scales: NDArray[np.float64] | None = None

    @property
    def feature_dim(self) -> int:
        """Number of features."""
        return len(self.group)

    def runs(self) -> NDArray[np.int64]:
        """Return where runs of columns without a common row end, int64 (runs,)."""
        ends: NDArray[np.int64] = columns.runs(self.columns, len(self.labels))
        return ends


class Feed:
    """Mini-batches of a train channel, kept for the recipes used last as far as memory allows.

    Parameters
    ----------
    rows
        The train channel, with labels.
    keep
        How many orders are kept in memory.
    groups
        Which features belong together.
    memory
        Bytes that mini-batches may take; None is a third of what is free now.
    stretch
        Entries of the mini-batches that are made at a time.
    many
        From how many features on mini-batches number them by frequency; None is never.

    Attributes
    ----------
    decays : float32 (feature_dim,) or None
        What each feature's decay is multiplied by; None where all are 1.
    """

    decays: Float32 | None = None
    _many: int | None = None

    def __init__(
        self, rows: Rows, keep: int = 16, groups: Groups | None = None, memory: float | None = None,
        stretch: int = STRETCH, many: int | None = None,
    ) -> None:  # fmt: skip
        if rows.labels is None:
            raise DataError("the train channel has no labels", where="train")
        if rows.n == 0:
            raise DataError("the train channel has no rows", where="train")
        weights = rows.weights
        if weights is not None and (len(weights) != rows.n or not (np.isfinite(weights) & (weights >= 0)).all()):
            raise DataError("there must be a weight for each row, finite and at least 0", where="train")
        self._layouts: dict[str, Rows] = {rows.layout: rows}
        self.rows = rows
        self._kept: OrderedDict[Key, Epoch] = OrderedDict()
        self._keep, self._stretch = keep, stretch
        self.memory = free_memory() / 3 if memory is None else memory
        self._lock = threading.Lock()
        self._slots = Slots(rows.feature_dim)
        self.n, self._nnz = rows.n, rows.nnz
        self.feature_dim = rows.feature_dim
        self._groups = groups or Groups()
        self._groups.sizes(rows.feature_dim)  # a group beyond the last feature is refused now
        factors = np.array(self._groups.decays, np.float32)
        if (factors != 1.0).any():
            self.decays = factors[self._groups.features(rows.feature_dim)]
        self._by_column: ByColumn | None = None
        self._many = many
        self._numbering: Numbering | None = None

    def numbering(self, recipe: Recipe) -> Numbering | None:
        """Return the numbers that features have in a recipe's mini-batches; None is their own."""
        where = (recipe.layout, recipe.device, recipe.solver)
        if self._many is None or self.feature_dim < self._many or where != ("sparse", "cpu", "sgd"):
            return None
        with self._lock:
            if self._numbering is None:
                rows = as_layout(self.rows, "sparse", self._layouts)
                assert isinstance(rows, SparseRows)
                self._numbering = Numbering.of(rows)
            return self._numbering

    def by_column(self) -> ByColumn:
        """Return the train channel by columns, those of very large or very small numbers divided by their scale."""
        with self._lock:
            if self._by_column is None:
                rows = _neighbours(as_layout(self.rows, "sparse", self._layouts))
                assert rows.labels is not None
                turned = csr_array((rows.values, rows.indices, rows.indptr), (rows.n, rows.feature_dim)).tocsc()
                found = columns.Columns(turned.indptr.astype(np.int64), turned.indices.astype(np.int32), turned.data)
                weights = np.zeros(0, np.float32) if rows.weights is None else rows.weights
                group = self._groups.features(rows.feature_dim)
                by = columns.level(found)
                scales = by if (by != 1.0).any() else None
                self._by_column = ByColumn(found, rows.labels, weights, self._groups, group, scales)
            return self._by_column

    def stretches(self, recipe: Recipe, epoch: int) -> Iterator[Batches]:
        """Yield the mini-batches of one epoch (0-based; it matters only with ``shuffle: epoch``), many at a time."""
        user = User()
        order = self._order(recipe, epoch, user)
        if order.count == 1 or order.whole:
            yield from map(order.stretch, range(order.count))
            return
        with threads(1, "fmtune-feed") as ahead:
            coming = ahead.submit(order.stretch, 0)
            for i in range(order.count):
                now = coming.result()
                if i + 1 < order.count:
                    coming = ahead.submit(order.stretch, i + 1)
                yield now

    def batches(self, recipe: Recipe, epoch: int) -> Batches:
        """Return all mini-batches of one epoch as one stretch."""
        order = self._order(recipe, epoch)
        return order.stretch(0) if order.count == 1 else order.make(0, order.batches)

    def labels(self, recipe: Recipe, epoch: int) -> NDArray[np.float32]:
        """Return the labels of one epoch in training order, those of padding included: float32 (rows,)."""
        return self._order(recipe, epoch).labels()

    def need(self, recipe: Recipe) -> int:
        """Return about how many bytes the mini-batches of an epoch take when they are kept."""
        key, d = _key(recipe, 0), self.feature_dim
        n = self.n + (-self.n % key.size if key.pad else 0)
        if recipe.layout != "dense":
            return 16 * n + (24 * self._nnz + 8 * d if key.transposed else 8 * self._nnz)
        whole, last = divmod(n, key.size)
        sizes = [(whole, key.size), (1, last)] if last else [(whole, key.size)]
        numbers = sum(count * pairs_of(size, d) for count, size in sizes) if key.rounded else n * d
        return 16 * n + 4 * numbers + sum(count for count, _ in sizes) * d

    def _order(self, recipe: Recipe, epoch: int, user: User | None = None) -> Epoch:
        numbering = self.numbering(recipe)
        key = _key(recipe, epoch, numbering is not None)
        with self._lock:
            if key not in self._kept:
                rows = as_layout(self.rows, key.layout, self._layouts)
                self._kept[key] = Epoch(rows, self._nnz, key, self._stretch, self._admit, self._slots, numbering)
            order = self._kept[key]
            self._kept.move_to_end(key)
            if user is not None:
                order.users.add(user)
            while len(self._kept) > self._keep or self._bytes() > self.memory:
                if not self._drop(order):
                    break
            return order

    def _bytes(self) -> int:
        return self._slots.bytes + sum(order.bytes for order in self._kept.values())

    def _drop(self, asking: Epoch) -> bool:
        """Let go of the order that was used least lately; not of one that a pack holds, whose bytes would stay."""
        for key, order in self._kept.items():
            if order is not asking and not order.users:
                del self._kept[key]
                return True
        return False

    def _admit(self, asking: Epoch, size: int) -> bool:
        """Say whether ``size`` more bytes may be kept; orders that were not used lately make room."""
        with self._lock:
            if asking not in self._kept.values():
                return False
            while self._bytes() + size > self.memory:
                if not self._drop(asking):
                    return False
            asking.bytes += size
            return True


def _key(recipe: Recipe, epoch: int, numbered: bool = False) -> Key:
    """Return what the mini-batches of a recipe's epoch depend on."""
    turn = epoch if recipe.shuffle == "epoch" else 0
    seed = None if recipe.shuffle == "none" else (recipe.shuffle_seed, turn)
    # Mini-batches of one row are their own transpose; a rule that is not lazy, or a card, wants it all the same.
    transposed = recipe.mini_batch_size > 1 or not recipe.lazy or recipe.device == "gpu"
    # A card has its own memory: what lies there is sent once, in one piece.
    whole = recipe.device == "gpu"
    rounded = not (recipe.exact or whole)
    return Key(recipe.layout, recipe.mini_batch_size, seed, recipe.pad, transposed, whole, numbered, rounded)


def weighed(labels: Float32, weights: Float32, positive: float) -> Float32:
    """Return the rows' weights, float32 (n,), those of label 1 times ``positive``; no weights are all 1."""
    own = weights if len(weights) else np.float32(1.0)
    return np.where(labels > 0.5, np.float32(positive), np.float32(1.0)) * own


def _neighbours(rows: Rows) -> SparseRows:
    """Return the rows by their first feature, so that a column's rows lie near each other in memory."""
    assert isinstance(rows, SparseRows)
    first = np.full(rows.n, -1, np.int64)
    filled = np.diff(rows.indptr) > 0
    first[filled] = rows.indices[rows.indptr[:-1][filled]]
    return rows.take(np.argsort(first, kind="stable"))


def as_layout(rows: Rows, layout: str, made: dict[str, Rows]) -> Rows:
    """Return ``rows`` as ``sparse`` or ``dense``, converted at most once (``made`` remembers).

    Raises
    ------
    ResourceError
        The matrix does not fit into the memory that is free.
    """
    if layout not in made:
        need, free = 4.0 * rows.n * rows.feature_dim, free_memory()
        if layout == "dense" and need > free:
            raise ResourceError(
                f"{rows.n} rows of {rows.feature_dim} features take {need / 2**30:.1f} GiB as a matrix, and "
                f"{free / 2**30:.1f} GiB are free", hint="use the sparse layout",
            )  # fmt: skip
        made[layout] = rows.to_dense() if layout == "dense" else rows.to_sparse()
    return made[layout]
