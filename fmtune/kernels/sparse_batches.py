"""Mini-batches of sparse rows, for the CPU and for a card: rows in training order, and each mini-batch's transpose."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Batches(NamedTuple):
    """Rows in training order with the transpose of each mini-batch.

    ``rows`` (int64, (batches + 1,)): first row of each; ``touched`` (int64, (batches + 1,)): its range in
    ``feature`` (int32), the features it touches; ``entries`` (int64, (touched + 1,)): each one's range in
    ``row`` (int32, counted from the batch's first) and ``value`` (float32), in row order.  ``weights``
    (float32, (n,) or (0,)): factors of the rows' slopes; none is 1.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    labels: NDArray[np.float32]
    rows: NDArray[np.int64]
    touched: NDArray[np.int64]
    feature: NDArray[np.int32]
    entries: NDArray[np.int64]
    row: NDArray[np.int32]
    value: NDArray[np.float32]
    weights: NDArray[np.float32]


@njit(cache=True, nogil=True)
def gather(indptr, indices, values, order, place, to_indptr, to_indices, to_values):  # type: ignore[no-untyped-def]
    """Copy rows in the given order (int64) into CSR arrays, whose ``to_indptr`` is filled already.

    ``place`` (int32, (features,) or None): the features' numbers in the copy; None is their own.
    """
    for b in range(len(order)):
        at, to = indptr[order[b]], to_indptr[b]
        for e in range(to_indptr[b + 1] - to):
            to_indices[to + e] = indices[at + e] if place is None else place[indices[at + e]]
            to_values[to + e] = values[at + e]


@njit(cache=True, nogil=True)
def transpose(indptr, indices, values, rows, slot, touched, feature, entries, row, value):  # type: ignore[no-untyped-def]
    """Fill the transpose of each mini-batch; time is linear in the entries.

    ``slot`` is scratch, int64 of shape (feature_dim,), filled with -1 and left so.  ``feature`` and
    ``entries`` are as long as there are entries; returns how many features were touched in all.
    """
    count = 0
    for k in range(len(rows) - 1):
        lo, hi = indptr[rows[k]], indptr[rows[k + 1]]
        begin = count
        for e in range(lo, hi):
            i = indices[e]
            if slot[i] < 0:
                slot[i] = count
                feature[count] = i
                entries[count] = 0
                count += 1
            entries[slot[i]] += 1
        at = lo
        for u in range(begin, count):
            entries[u], at = at, at + entries[u]
        for b in range(rows[k], rows[k + 1]):
            for e in range(indptr[b], indptr[b + 1]):
                u = slot[indices[e]]
                row[entries[u]] = b - rows[k]
                value[entries[u]] = values[e]
                entries[u] += 1
        # Each range now ends where it should begin the next: shift back by one.
        at = lo
        for u in range(begin, count):
            entries[u], at = at, entries[u]
            slot[feature[u]] = -1
        touched[k + 1] = count
    return count


def make_batches(
    indptr: Any, indices: Any, values: Any, labels: Any, weights: Any, feature_dim: int, rows: Any,
    transposed: bool = True, slot: Any = None,
) -> Batches:  # fmt: skip
    """Return mini-batches for rows that are already in training order, with their transposes or without.

    ``slot`` is the scratch of :func:`transpose`; without one it is made.
    """
    none, whole, zeros = np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.float32)
    weights = zeros if weights is None else weights
    if not transposed:
        return Batches(indptr, indices, values, labels, rows, whole, none, whole, none, zeros, weights)
    nnz = int(indptr[-1])
    touched = np.zeros(len(rows), np.int64)
    feature, entries = np.empty(nnz, np.int32), np.empty(nnz + 1, np.int64)
    row, value = np.empty(nnz, np.int32), np.empty(nnz, np.float32)
    slot = np.full(feature_dim, -1, np.int64) if slot is None else slot
    count = transpose(indptr, indices, values, rows, slot, touched, feature, entries, row, value)
    entries[count] = nnz
    feature, entries = feature[:count].copy(), entries[: count + 1].copy()
    return Batches(indptr, indices, values, labels, rows, touched, feature, entries, row, value, weights)
