"""Feed: the train channel in the order and the mini-batches that a pack wants, made once and shared.

``shuffle: once`` fixes one permutation for all epochs, so mini-batches and their transposes are made once
and it does not matter at which epoch a lane enters.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fmtune.errors import DataError, ResourceError
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.kernels import columns, cpu_dense, cpu_sparse
from fmtune.rows import DenseRows, Rows, SparseRows, concatenate

Float32 = NDArray[np.float32]
Batches = cpu_sparse.Batches | cpu_dense.Batches


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

    @classmethod
    def of(cls, hyperparameters: Hyperparameters, layout: str, device: str = "cpu") -> Recipe:
        """Return the recipe of one configuration on ``sparse`` or ``dense`` rows, on ``cpu`` or ``gpu``."""
        h = hyperparameters
        if h.solver != "sgd":  # sweeps have no mini-batches and no order
            return cls(layout, h.predictor_type, 0, "", False, "none", 0, False, h.solver)
        order = (h.shuffle, h.shuffle_seed, h.pad_last_batch)
        return cls(layout, h.predictor_type, h.mini_batch_size, h.optimizer, h.lazy, *order, device=device)


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
    """

    columns: columns.Columns
    labels: Float32
    weights: Float32
    groups: Groups
    group: NDArray[np.int32]

    @property
    def feature_dim(self) -> int:
        """Number of features."""
        return len(self.group)

    def runs(self) -> NDArray[np.int64]:
        """Return where runs of columns without a common row end, int64 (runs,)."""
        ends: NDArray[np.int64] = columns.runs(self.columns, len(self.labels))
        return ends


class Feed:
    """Mini-batches of a train channel, kept for the recipes used last.

    Parameters
    ----------
    rows
        The train channel, with labels.
    keep
        How many orders are kept in memory.
    groups
        Which features belong together.
    """

    def __init__(self, rows: Rows, keep: int = 4, groups: Groups | None = None) -> None:
        if rows.labels is None:
            raise DataError("the train channel has no labels", where="train")
        if rows.n == 0:
            raise DataError("the train channel has no rows", where="train")
        weights = rows.weights
        if weights is not None and (len(weights) != rows.n or not (np.isfinite(weights) & (weights >= 0)).all()):
            raise DataError("there must be a weight for each row, finite and at least 0", where="train")
        self._layouts: dict[str, Rows] = {rows.layout: rows}
        self._rows = rows
        self._kept: OrderedDict[tuple[object, ...], Batches] = OrderedDict()
        self._keep = keep
        self._lock = threading.Lock()
        self.n = rows.n
        self.feature_dim = rows.feature_dim
        self._groups = groups or Groups()
        self._group = self._groups.features(rows.feature_dim)
        self._by_column: ByColumn | None = None

    def by_column(self) -> ByColumn:
        """Return the train channel by columns."""
        with self._lock:
            if self._by_column is None:
                rows = _neighbours(as_layout(self._rows, "sparse", self._layouts))
                assert rows.labels is not None
                turned = csr_array((rows.values, rows.indices, rows.indptr), (rows.n, rows.feature_dim)).tocsc()
                found = columns.Columns(turned.indptr.astype(np.int64), turned.indices.astype(np.int32), turned.data)
                weights = np.zeros(0, np.float32) if rows.weights is None else rows.weights
                self._by_column = ByColumn(found, rows.labels, weights, self._groups, self._group)
            return self._by_column

    def batches(self, recipe: Recipe, epoch: int) -> Batches:
        """Return the mini-batches of one epoch (0-based; it matters only with ``shuffle: epoch``)."""
        turn = epoch if recipe.shuffle == "epoch" else 0
        seed = None if recipe.shuffle == "none" else (recipe.shuffle_seed, turn)
        # Mini-batches of one row are their own transpose; a rule that is not lazy, or a card, wants it all the same.
        transposed = recipe.mini_batch_size > 1 or not recipe.lazy or recipe.device == "gpu"
        key = (recipe.layout, recipe.mini_batch_size, seed, recipe.pad, transposed)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._make(*key)
                while len(self._kept) > self._keep:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _make(self, layout: str, size: int, seed: tuple[int, int] | None, pad: bool, transposed: bool) -> Batches:
        rows = as_layout(self._rows, layout, self._layouts)
        if seed is not None:
            rows = rows.take(np.random.default_rng(seed).permutation(rows.n))
        if pad and rows.n % size:
            rows = concatenate([rows, _empty_rows(-rows.n % size, rows)])
        starts = np.append(np.arange(0, rows.n, size), rows.n).astype(np.int64)
        assert rows.labels is not None
        if isinstance(rows, SparseRows):
            return cpu_sparse.make_batches(
                rows.indptr, rows.indices, rows.values, rows.labels, rows.weights, rows.feature_dim, starts, transposed
            )
        touched = np.stack([(rows.matrix[a:b] != 0).any(axis=0) for a, b in itertools.pairwise(starts)])
        weights = np.zeros(0, np.float32) if rows.weights is None else rows.weights
        return cpu_dense.Batches(np.ascontiguousarray(rows.matrix), rows.labels, starts, touched, weights)


def _neighbours(rows: Rows) -> SparseRows:
    """Return the rows by their first feature, so that a column's rows lie near each other in memory."""
    assert isinstance(rows, SparseRows)
    first = np.full(rows.n, -1, np.int64)
    filled = np.diff(rows.indptr) > 0
    first[filled] = rows.indices[rows.indptr[:-1][filled]]
    return rows.take(np.argsort(first, kind="stable"))


def _empty_rows(n: int, like: Rows) -> Rows:
    """Return ``n`` rows of zeros with label 0 and weight 1, in the layout of ``like``."""
    labels, weights = np.zeros(n, np.float32), None if like.weights is None else np.ones(n, np.float32)
    if isinstance(like, SparseRows):
        none = np.zeros(0, np.int32)
        indptr = np.zeros(n + 1, np.int64)
        return SparseRows(indptr, none, none.astype(np.float32), labels, like.feature_dim, weights)
    return DenseRows(np.zeros((n, like.feature_dim), np.float32), labels, like.feature_dim, weights)


def as_layout(rows: Rows, layout: str, made: dict[str, Rows]) -> Rows:
    """Return ``rows`` as ``sparse`` or ``dense``, converted at most once (``made`` remembers).

    Raises
    ------
    ResourceError
        The matrix does not fit into the memory that is free.
    """
    if layout not in made:
        need, free = 4.0 * rows.n * rows.feature_dim, psutil.virtual_memory().available
        if layout == "dense" and need > free:
            raise ResourceError(
                f"{rows.n} rows of {rows.feature_dim} features take {need / 2**30:.1f} GiB as a matrix, and "
                f"{free / 2**30:.1f} GiB are free", hint="use the sparse layout",
            )  # fmt: skip
        made[layout] = rows.to_dense() if layout == "dense" else rows.to_sparse()
    return made[layout]
