"""Rows: a block of examples with their labels, sparse (CSR) or dense (a matrix).

The only thing that passes from ``data`` to ``fm``.  Arrays are C-contiguous and are not copied when
they already have the right type; nobody writes into them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import DataError

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SparseRows:
    """``n`` examples in compressed sparse row form.

    Attributes
    ----------
    indptr : int64 (n + 1,)
        Row ``b`` owns the entries ``indptr[b]`` to ``indptr[b + 1]``.
    indices : int32 (nnz,)
        Feature numbers, 0-based, ascending and unique within a row.
    values : float32 (nnz,)
    labels : float32 (n,) or None
        None for rows that are only to be scored.
    feature_dim : int
        Number of features; every index is below it.
    """

    indptr: Int64
    indices: Int32
    values: Float32
    labels: Float32 | None
    feature_dim: int

    layout = "sparse"

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return int(self.indptr[-1] - self.indptr[0])

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        arrays = (self.indptr, self.indices, self.values, self.labels)
        return sum(array.nbytes for array in arrays if array is not None)

    def take(self, order: NDArray[np.integer[Any]]) -> SparseRows:
        """Return the rows in the given order (int, shape (m,)), as a copy."""
        lengths = np.diff(self.indptr)[order]
        indptr = np.zeros(len(order) + 1, np.int64)
        np.cumsum(lengths, out=indptr[1:])
        pick = np.repeat(self.indptr[:-1][order] - indptr[:-1], lengths) + np.arange(indptr[-1])
        labels = None if self.labels is None else self.labels[order]
        return SparseRows(indptr, self.indices[pick], self.values[pick], labels, self.feature_dim)

    def slice(self, start: int, stop: int) -> SparseRows:
        """Return rows ``start`` to ``stop`` without copying entries."""
        lo, hi = self.indptr[start], self.indptr[stop]
        labels = None if self.labels is None else self.labels[start:stop]
        indptr = self.indptr[start : stop + 1] - lo
        return SparseRows(indptr, self.indices[lo:hi], self.values[lo:hi], labels, self.feature_dim)

    def to_sparse(self) -> SparseRows:
        """Return self."""
        return self

    def to_dense(self) -> DenseRows:
        """Return the same rows as a matrix (n, feature_dim)."""
        matrix = np.zeros((self.n, self.feature_dim), np.float32)
        matrix[np.repeat(np.arange(self.n), np.diff(self.indptr)), self.indices] = self.values
        return DenseRows(matrix, self.labels, self.feature_dim)

    def widen(self, feature_dim: int) -> SparseRows:
        """Return the same rows seen as having ``feature_dim`` features (at least as many as now)."""
        return SparseRows(self.indptr, self.indices, self.values, self.labels, feature_dim)

    def digest(self) -> str:
        """Return the SHA-256 of shape and content, in hex; equal for equal rows of either layout's arrays."""
        return _digest((self.indptr, self.indices, self.values, self.labels), self.feature_dim)


@dataclass(frozen=True, eq=False)
class DenseRows:
    """``n`` examples as a matrix.

    Attributes
    ----------
    matrix : float32 (n, feature_dim)
    labels : float32 (n,) or None
    feature_dim : int
    """

    matrix: Float32
    labels: Float32 | None
    feature_dim: int

    layout = "dense"

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.matrix)

    @property
    def nnz(self) -> int:
        """Number of entries that are not zero."""
        return int(np.count_nonzero(self.matrix))

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return self.matrix.nbytes + (0 if self.labels is None else self.labels.nbytes)

    def take(self, order: NDArray[np.integer[Any]]) -> DenseRows:
        """Return the rows in the given order (int, shape (m,)), as a copy."""
        labels = None if self.labels is None else self.labels[order]
        return DenseRows(self.matrix[order], labels, self.feature_dim)

    def slice(self, start: int, stop: int) -> DenseRows:
        """Return rows ``start`` to ``stop`` without a copy."""
        labels = None if self.labels is None else self.labels[start:stop]
        return DenseRows(self.matrix[start:stop], labels, self.feature_dim)

    def to_sparse(self) -> SparseRows:
        """Return the entries that are not zero, in CSR form."""
        rows, columns = np.nonzero(self.matrix)
        indptr = np.zeros(self.n + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=self.n), out=indptr[1:])
        values = self.matrix[rows, columns]
        return SparseRows(indptr, columns.astype(np.int32), values, self.labels, self.feature_dim)

    def to_dense(self) -> DenseRows:
        """Return self."""
        return self

    def widen(self, feature_dim: int) -> DenseRows:
        """Return the same rows with zero columns added up to ``feature_dim``."""
        if feature_dim == self.feature_dim:
            return self
        matrix = np.zeros((self.n, feature_dim), np.float32)
        matrix[:, : self.feature_dim] = self.matrix
        return DenseRows(matrix, self.labels, feature_dim)

    def digest(self) -> str:
        """Return the SHA-256 of shape and content, in hex."""
        return _digest((self.matrix, self.labels), self.feature_dim)


Rows = SparseRows | DenseRows


def concatenate(blocks: Sequence[Rows]) -> Rows:
    """Join blocks of the same layout into one; ``feature_dim`` is the largest among them.

    Raises
    ------
    DataError
        No block, sparse beside dense, or labels in some blocks only.
    """
    if not blocks:
        raise DataError("no rows")
    dim = max(block.feature_dim for block in blocks)
    labelled = [block.labels for block in blocks if block.labels is not None]
    if labelled and len(labelled) != len(blocks):
        raise DataError(
            "some of the data have labels and some have none", hint="give every shard of a channel labels"
        )
    labels = np.concatenate(labelled) if labelled else None
    sparse = [block for block in blocks if isinstance(block, SparseRows)]
    dense = [block for block in blocks if isinstance(block, DenseRows)]
    if sparse and dense:
        raise DataError(
            "sparse and dense rows are mixed", hint="convert the shards of a channel to one layout"
        )
    if dense:
        return DenseRows(np.concatenate([block.widen(dim).matrix for block in dense]), labels, dim)
    starts = np.cumsum([0] + [block.nnz for block in sparse])
    ends = [block.indptr[1:] - block.indptr[0] + start for block, start in zip(sparse, starts, strict=False)]
    indptr = np.concatenate([[0], *ends])
    indices = np.concatenate([block.indices for block in sparse])
    values = np.concatenate([block.values for block in sparse])
    return SparseRows(indptr.astype(np.int64), indices, values, labels, dim)


def _digest(arrays: Sequence[NDArray[Any] | None], feature_dim: int) -> str:
    state = hashlib.sha256(f"feature_dim={feature_dim}".encode())
    for array in arrays:
        if array is None:
            state.update(b"none")
        else:
            state.update(f"{array.dtype.str}{array.shape}".encode())
            state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()
