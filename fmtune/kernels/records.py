"""Records: all records of a file, from bytes straight into CSR arrays or a matrix.

Everything is read twice.  ``measure`` validates and counts; arrays are made from the counts, which are bounded by
bytes that are really there; ``fill_sparse`` or ``fill_dense`` fills them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.kernels.plain import COUNT, KEYS_AT, KEYS_STOP, LABEL_AT, SHAPED, copy, plain
from fmtune.kernels.wire import (
    CASE,
    DIMS,
    FEATURES,
    FROM,
    KEYS,
    LABEL,
    MOST,
    RAW,
    SIZE,
    VALUES,
    Bytes,
    Int64,
    Keys,
    Words,
    compiled,
    fail,
    record,
    word,
)

# What a record may say that cannot be used: codes above those of wire.
NO_FEATURES, RAW_FEATURES, UNEQUAL, SHAPE, WIDE_SHAPE = 20, 21, 22, 23, 24
WIDTH, RAW_LABEL, KEY, KEY_SHAPE, NO_VALUES = 25, 26, 27, 28, 29

# What measuring and filling sum up over all records.
DENSE, SPARSE, EMPTY, LABELLED, ENTRIES, LARGEST, COLUMNS, UNLABELLED_AT, LABELLED_AT = range(9)
# Records with keys out of order, records with a number that is not finite, and the largest key + 1.
DISORDER, WILD, BEYOND = 9, 10, 11
TOTALS = 12

_LARGEST_DIM = (1 << 31) - 1
_SIGNLESS = np.uint32(0x7FFFFFFF)
_INFINITE = np.uint32(0x7F800000)


@compiled
def _kind(work: Int64, at: int) -> int:
    """Return DENSE, SPARSE or EMPTY (nothing said at all) for a record's features, or -1."""
    case, values, keys = work[FEATURES], work[FEATURES + VALUES], work[FEATURES + KEYS]
    dims, size = work[FEATURES + DIMS], work[FEATURES + SIZE]
    code = 0
    if case == 0:
        code = NO_FEATURES
    elif case == RAW:
        code = RAW_FEATURES
    elif keys > 0 and keys != values:
        code = UNEQUAL
    elif keys == 0 and values > 0 and dims > 0 and size != values:
        code = SHAPE
    elif dims > 0 and size > _LARGEST_DIM:
        code = WIDE_SHAPE
    elif work[LABEL + CASE] == RAW:
        code = RAW_LABEL
    if code:
        fail(work, code, at, size)
        return -1
    if keys > 0:
        return SPARSE
    if values > 0:
        return DENSE
    return SPARSE if dims > 0 else EMPTY


@compiled
def measure(
    buf: Bytes,
    starts: Int64,
    stops: Int64,
    bits: Words,
    keys: Keys,
    work: Int64,
    kinds: NDArray[np.int8],
    totals: Int64,
) -> Any:
    """Validate every record and count what it holds; ``bits`` and ``keys`` are not touched.

    The keys of plain records are left to the filling, which would read them again.
    Returns (record at fault or -1, most entries in a record's features, most in a label).
    """
    most: Any = 0
    most_label: Any = 0
    totals[UNLABELLED_AT] = totals[LABELLED_AT] = -1
    for r in range(len(starts)):
        if plain(buf, starts[r], stops[r], work):
            kinds[r] = SPARSE
            totals[SPARSE] += 1
            totals[ENTRIES] += work[COUNT]
            totals[LARGEST] = max(totals[LARGEST], work[SHAPED])
            totals[LABELLED] += work[LABEL_AT] >= 0
            if totals[LABELLED_AT] < 0 and work[LABEL_AT] >= 0:
                totals[LABELLED_AT] = r
            if totals[UNLABELLED_AT] < 0 and work[LABEL_AT] < 0:
                totals[UNLABELLED_AT] = r
            most = max(most, work[KEYS_STOP] - work[KEYS_AT])
            most_label = max(most_label, np.int64(work[LABEL_AT] >= 0))
            continue
        if not record(buf, starts[r], stops[r], np.bool_(False), bits, keys, work):
            return r, 0, 0
        kind = _kind(work, starts[r])
        if kind < 0:
            return r, 0, 0
        if kind == DENSE:
            if totals[DENSE] > 0 and totals[COLUMNS] != work[FEATURES + VALUES]:
                fail(work, WIDTH, starts[r], work[FEATURES + VALUES])
                return r, 0, 0
            totals[COLUMNS] = work[FEATURES + VALUES]
        elif kind == SPARSE and work[FEATURES + DIMS] > 0:
            totals[LARGEST] = max(totals[LARGEST], work[FEATURES + SIZE])
        kinds[r] = kind
        totals[kind] += 1
        totals[ENTRIES] += work[FEATURES + VALUES]
        if work[LABEL + VALUES] > 0:
            totals[LABELLED] += 1
            if totals[LABELLED_AT] < 0:
                totals[LABELLED_AT] = r
        elif totals[UNLABELLED_AT] < 0:
            totals[UNLABELLED_AT] = r
        most = max(most, work[FEATURES + MOST])
        most_label = max(most_label, work[LABEL + MOST])
    return -1, most, most_label


@compiled
def fill_sparse(
    buf: Bytes,
    starts: Int64,
    stops: Int64,
    limit: int,
    bits: Words,
    keys: Keys,
    work: Int64,
    indptr: Int64,
    indices: NDArray[np.int32],
    values: Words,
    labels: Words,
    totals: Int64,
) -> int:
    """Write CSR arrays; a dense record gives its entries that are not zero.  Returns the record at fault or -1.

    ``bits`` and ``keys`` have room for the largest record (its label behind its features, from
    ``work[LABEL + FROM]``).  ``values`` and ``labels`` are the memory of float32 numbers; ``labels`` may be empty.
    A key must be below ``limit`` and below its record's own shape.
    """
    held: Any = np.int64(0)
    for r in range(len(starts)):
        if plain(buf, starts[r], stops[r], work):
            most = min(limit, work[SHAPED]) if work[SHAPED] >= 0 else limit
            mixed, wild, beyond = copy(buf, work, held, indices, values, most)
            if beyond >= 0:
                totals[BEYOND] = max(totals[BEYOND], beyond)
                held += work[COUNT]
                indptr[r + 1] = held
                totals[DISORDER] += mixed
                totals[WILD] += wild
                if len(labels) > 0:
                    labels[r] = word(buf, work[LABEL_AT])
                continue
            # What is wrong, or merely unusual, is found out at leisure.
            if not record(buf, starts[r], stops[r], np.bool_(False), bits, keys, work) or _kind(work, starts[r]) < 0:
                return r
        record(buf, starts[r], stops[r], np.bool_(True), bits, keys, work)
        sparse = work[FEATURES + KEYS] > 0
        own = work[FEATURES + SIZE] if work[FEATURES + DIMS] > 0 else _LARGEST_DIM
        below = np.uint64(min(limit, own))
        before = np.int64(-1)
        disorder: Any = np.bool_(False)
        wild = np.bool_(False)
        for k in range(work[FEATURES + VALUES]):
            number: Any = bits[k]
            if not sparse and number & _SIGNLESS == 0:
                continue
            key = keys[k] if sparse else np.uint64(k)
            if key >= below:
                fail(work, KEY if key >= np.uint64(limit) else KEY_SHAPE, starts[r], np.int64(key))
                return r
            disorder |= np.int64(key) <= before
            wild |= number & _SIGNLESS >= _INFINITE
            before = np.int64(key)
            totals[BEYOND] = max(totals[BEYOND], before + 1)
            indices[held] = before
            values[held] = number
            held += 1
        totals[DISORDER] += disorder
        totals[WILD] += wild
        indptr[r + 1] = held
        if len(labels) > 0:
            labels[r] = bits[work[LABEL + FROM]]
    return -1


@compiled
def fill_dense(
    buf: Bytes, starts: Int64, stops: Int64, bits: Words, keys: Keys, work: Int64, matrix: Words, labels: Words
) -> None:
    """Write a matrix; ``matrix`` (uint32, (n, columns)) and ``labels`` are the memory of float32 numbers."""
    for r in range(len(starts)):
        record(buf, starts[r], stops[r], np.bool_(True), bits, keys, work)
        for k in range(matrix.shape[1]):
            matrix[r, k] = bits[k]
        if len(labels) > 0:
            labels[r] = bits[work[LABEL + FROM]]
