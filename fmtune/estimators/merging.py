"""Merging: equal rows counted once, in an order of their own, so that a weight of 3 is the same as three equal rows.

Sums in float32 would tell the two apart in their last bits.  Rows are known by a 64-bit hash of their entries: among
ten million different rows two share one with a probability of a few in a million.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from fmtune.estimators.scaling import Float64
from fmtune.rows import SparseRows

UInt64 = NDArray[np.uint64]


def merged(x: Any, labels: Float64, weights: Float64 | None) -> tuple[Any, Float64, Float64 | None]:
    """Return features, labels and weights with equal rows made one; as they are where no two rows are equal.

    ``x`` is an array, a CSR matrix or rows; ``weights`` None is 1 for every row.
    """
    hashes = _mixed(_hashes(x) + _bits(labels))
    distinct, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    if weights is None and len(distinct) == len(hashes):
        return x, labels, None
    totals = np.bincount(which, weights)
    return (x.take(first) if isinstance(x, SparseRows) else x[first]), labels[first], totals.astype(np.float64)


def _hashes(x: Any) -> UInt64:
    if isinstance(x, SparseRows):
        return _row_sums(x.indptr, x.indices, x.values)
    if scipy.sparse.issparse(x):
        csr: Any = x
        return _row_sums(csr.indptr, csr.indices, csr.data)
    total = np.zeros(len(x), np.uint64)
    for column in range(x.shape[1]):
        total += _mixed(_bits(x[:, column]) + np.uint64(column))
    return total


def _row_sums(indptr: Any, indices: Any, values: Any) -> UInt64:
    sums = np.zeros(len(indices) + 1, np.uint64)
    np.cumsum(_mixed(_bits(values) + indices.astype(np.uint64)), out=sums[1:])
    return np.asarray(sums[indptr[1:]] - sums[indptr[:-1]])


def _bits(values: Any) -> UInt64:
    return _mixed(np.ascontiguousarray(values, np.float64).view(np.uint64))


def _mixed(words: UInt64) -> UInt64:
    """Return each word with its bits spread over all others (splitmix64, Steele, Lea and Flood, 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
