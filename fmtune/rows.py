"""Rows: a block of examples with their labels, sparse (CSR) or dense (a matrix).

The only thing that passes from ``data`` to ``fm``.  Arrays are C-contiguous and are not copied when
they already have the right type; nobody writes into them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune import digests
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
    weights : float32 (n,) or None
        What each row counts in training, at least 0; None is 1 for every row.
    """

    indptr: Int64
    indices: Int32
    values: Float32
    labels: Float32 | None
    feature_dim: int
    weights: Float32 | None = None

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
        arrays = (self.indptr, self.indices, self.values, self.labels, self.weights)
        return sum(array.nbytes for array in arrays if array is not None)

    def take(self, order: NDArray[np.integer[Any]]) -> SparseRows:
        """Return the rows in the given order (int, shape (m,)), as a copy."""
        lengths = np.diff(self.indptr)[order]
        indptr = np.zeros(len(order) + 1, np.int64)
        np.cumsum(lengths, out=indptr[1:])
        pick = np.repeat(self.indptr[:-1][order] - indptr[:-1], lengths) + np.arange(indptr[-1])
        labels, weights = _part(self.labels, order), _part(self.weights, order)
        return SparseRows(indptr, self.indices[pick], self.values[pick], labels, self.feature_dim, weights)

    def slice(self, start: int, stop: int) -> SparseRows:
        """Return rows ``start`` to ``stop`` without copying entries."""
        lo, hi = self.indptr[start], self.indptr[stop]
        labels, weights = _part(self.labels, slice(start, stop)), _part(self.weights, slice(start, stop))
        indptr = self.indptr[start : stop + 1] - lo
        return SparseRows(indptr, self.indices[lo:hi], self.values[lo:hi], labels, self.feature_dim, weights)

    @property
    def mapped(self) -> bool:
        """Whether the arrays may not be written, as those of a file mapped into memory."""
        return not self.values.flags.writeable

    def owned(self) -> SparseRows:
        """Return the rows in arrays of their own where they are mapped, else self; kernels take no others."""
        if not self.mapped:
            return self
        return replace(self, indptr=self.indptr.copy(), indices=self.indices.copy(), values=self.values.copy())

    def to_sparse(self) -> SparseRows:
        """Return self."""
        return self

    def to_dense(self) -> DenseRows:
        """Return the same rows as a matrix (n, feature_dim)."""
        matrix = np.zeros((self.n, self.feature_dim), np.float32)
        matrix[np.repeat(np.arange(self.n), np.diff(self.indptr)), self.indices] = self.values
        return DenseRows(matrix, self.labels, self.feature_dim, self.weights)

    def widen(self, feature_dim: int) -> SparseRows:
        """Return the same rows seen as having ``feature_dim`` features (at least as many as now)."""
        return replace(self, feature_dim=feature_dim)

    def digest(self) -> str:
        """Return the SHA-256 of shape and content, in hex; equal for equal rows of either layout's arrays."""
        return _digest((self.indptr, self.indices, self.values, self.labels), self.weights, self.feature_dim)


@dataclass(frozen=True, eq=False)
class DenseRows:
    """``n`` examples as a matrix.

    Attributes
    ----------
    matrix : float32 (n, feature_dim)
    labels : float32 (n,) or None
    feature_dim : int
    weights : float32 (n,) or None
        As in :class:`SparseRows`.
    """

    matrix: Float32
    labels: Float32 | None
    feature_dim: int
    weights: Float32 | None = None

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
        arrays = (self.matrix, self.labels, self.weights)
        return sum(array.nbytes for array in arrays if array is not None)

    def take(self, order: NDArray[np.integer[Any]]) -> DenseRows:
        """Return the rows in the given order (int, shape (m,)), as a copy."""
        labels, weights = _part(self.labels, order), _part(self.weights, order)
        return DenseRows(self.matrix[order], labels, self.feature_dim, weights)

    def slice(self, start: int, stop: int) -> DenseRows:
        """Return rows ``start`` to ``stop`` without a copy."""
        labels, weights = _part(self.labels, slice(start, stop)), _part(self.weights, slice(start, stop))
        return DenseRows(self.matrix[start:stop], labels, self.feature_dim, weights)

    @property
    def mapped(self) -> bool:
        """Whether the matrix may not be written, as that of a file mapped into memory."""
        return not self.matrix.flags.writeable

    def owned(self) -> DenseRows:
        """Return the rows in a matrix of their own where it is mapped, else self; kernels take no others."""
        return replace(self, matrix=self.matrix.copy()) if self.mapped else self

    def to_sparse(self) -> SparseRows:
        """Return the entries that are not zero, in CSR form."""
        rows, columns = np.nonzero(self.matrix)
        indptr = np.zeros(self.n + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=self.n), out=indptr[1:])
        values = self.matrix[rows, columns]
        return SparseRows(indptr, columns.astype(np.int32), values, self.labels, self.feature_dim, self.weights)

    def to_dense(self) -> DenseRows:
        """Return self."""
        return self

    def widen(self, feature_dim: int) -> DenseRows:
        """Return the same rows with zero columns added up to ``feature_dim``."""
        if feature_dim == self.feature_dim:
            return self
        matrix = np.zeros((self.n, feature_dim), np.float32)
        matrix[:, : self.feature_dim] = self.matrix
        return replace(self, matrix=matrix, feature_dim=feature_dim)

    def digest(self) -> str:
        """Return the SHA-256 of shape and content, in hex."""
        return _digest((self.matrix, self.labels), self.weights, self.feature_dim)


Rows = SparseRows | DenseRows


def concatenate(blocks: Sequence[Rows]) -> Rows:
    """Join blocks of the same layout into one; ``feature_dim`` is the largest among them.

    Raises
    ------
    DataError
        No block, sparse beside dense, or labels or weights in some blocks only.
    """
    if not blocks:
        raise DataError("no rows")
    dim = max(block.feature_dim for block in blocks)
    labels = _joined("labels", [block.labels for block in blocks])
    weights = _joined("weights", [block.weights for block in blocks])
    sparse = [block for block in blocks if isinstance(block, SparseRows)]
    dense = [block for block in blocks if isinstance(block, DenseRows)]
    if sparse and dense:
        raise DataError("sparse and dense rows are mixed", hint="convert the shards of a channel to one layout")
    if dense:
        return DenseRows(np.concatenate([block.widen(dim).matrix for block in dense]), labels, dim, weights)
    starts = np.cumsum([0] + [block.nnz for block in sparse])
    ends = [block.indptr[1:] - block.indptr[0] + start for block, start in zip(sparse, starts, strict=False)]
    indptr = np.concatenate([[0], *ends])
    indices = np.concatenate([block.indices for block in sparse])
    values = np.concatenate([block.values for block in sparse])
    return SparseRows(indptr.astype(np.int64), indices, values, labels, dim, weights)


def _part(array: Float32 | None, pick: Any) -> Float32 | None:
    return None if array is None else array[pick]


def _joined(what: str, arrays: Sequence[Float32 | None]) -> Float32 | None:
    there = [array for array in arrays if array is not None]
    if there and len(there) != len(arrays):
        raise DataError(
            f"some of the data have {what} and some have none", hint=f"give every shard of a channel {what}"
        )
    return np.concatenate(there) if there else None


def _digest(arrays: Sequence[NDArray[Any] | None], weights: Float32 | None, feature_dim: int) -> str:
    """Return the digest; weights enter it only where there are any, so that others keep the digest they had."""
    state = hashlib.sha256(f"feature_dim={feature_dim}".encode())
    for array in (*arrays, *([] if weights is None else [weights])):
        if array is None:
            state.update(b"none")
        else:
            state.update(f"{array.dtype.str}{array.shape}".encode())
            whole = np.ascontiguousarray(array)
            # A large array enters by the digests of its blocks, which all cores can make.
            state.update("".join(digests.of_array(whole)).encode() if whole.nbytes > digests.BLOCK else whole.data)
    return state.hexdigest()
