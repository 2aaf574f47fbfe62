"""Wire: RecordIO frames and protobuf records, from bytes straight into arrays.

A file is frames: ``magic, length, payload, zeros up to a multiple of four``; the top three bits of the length
say whether the payload is whole (0) or the first, a middle or the last part of a record (1, 2, 3), in which
case the magic stood between the parts and was dropped (dmlc).  A payload is a ``Record`` (``data/schema.py``).

Everything is read twice.  The first pass validates and counts; arrays are then made from the counts, which
are bounded by bytes that are really there; the second pass fills them.  What protobuf accepts is accepted
and what it rejects is rejected, down to overlong varints and the nesting of unknown groups (at most 100
levels), because its rules are followed:

* a field may come in any order, packed or not, and again: repeated fields grow, a map entry with the same key
  replaces the older one, a ``Value`` of another kind clears the one before;
* an unknown field, or a known one with another wire type, is stepped over.

No length from the file is used before it was compared with the bytes that are left.  A fault comes back as
the record's number with ``work[:3] = (code, byte, detail)``; words are made of it in ``data/recordio.py``.
(Protocol Buffers' encoding guide; upb's decoder for the limits.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Words = NDArray[np.uint32]
Keys = NDArray[np.uint64]

MAGIC = 0xCED7230A
LONGEST = 16 << 20
LEVELS = 100

# Faults of framing, of the wire format, and of what a record says.
HEADER, NOT_MAGIC, TOO_LONG, BODY, PADDING, DIRTY, PARTS = 1, 2, 3, 4, 5, 6, 7
GARBAGE = 10
NO_FEATURES, RAW_FEATURES, UNEQUAL, SHAPE, WIDE_SHAPE, WIDTH, RAW_LABEL, KEY, KEY_SHAPE, NO_VALUES = (
    20,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    29,
)

# The state of a tensor: its kind (the field's number in Value), how much it holds, the product of its shape,
# the most it ever held while the record was read, and where its values and keys go.
CASE, VALUES, KEYS, DIMS, SIZE, MOST, FROM = 0, 1, 2, 3, 4, 5, 6
# Three states lie in the working memory: of the features, of the label, and one that nobody looks at.
FEATURES, LABEL, OTHER = 8, 16, 24
_STACK = 32
FLOAT32, FLOAT64, INT32, RAW = 2, 3, 7, 9

# What measuring and filling sum up over all records.
DENSE, SPARSE, EMPTY, LABELLED, ENTRIES, LARGEST, COLUMNS, UNLABELLED_AT, LABELLED_AT, DISORDER = range(10)
TOTALS = 10

# How deep each message lies; of a type of its own, or numba would compile a version for every level.
_RECORD, _ENTRY, _VALUE, _TENSOR = np.int64(0), np.int64(1), np.int64(2), np.int64(3)
_LARGEST_DIM = (1 << 31) - 1
_HUGE = 1 << 62
_NAME = np.frombuffer(b"values", np.uint8)
_SEVEN = np.uint64(7)
_LOW = np.uint64(127)
_SIGNLESS = np.uint32(0x7FFFFFFF)


def work() -> Int64:
    """Return working memory for the passes over one file.

    The fault found (code, byte, detail), the states of the three tensors, then the groups that are open.
    """
    return np.zeros(_STACK + LEVELS + 1, np.int64)


# No kernel here makes an array, so numba need not count references: with counting, a record cost three times as
# much, all of it in calls between the small functions below.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}
compiled = njit(**_OPTIONS)


@compiled
def _word(buf: Bytes, at: int) -> Any:
    """Return the four bytes at ``at``, little endian."""
    return (
        np.uint32(buf[at])
        | (np.uint32(buf[at + 1]) << np.uint32(8))
        | (np.uint32(buf[at + 2]) << np.uint32(16))
        | (np.uint32(buf[at + 3]) << np.uint32(24))
    )


@compiled
def _varint(buf: Bytes, at: int, end: int) -> Any:
    """Return (value, next byte); the next byte is -1 where the varint runs past ``end`` or ten bytes."""
    if at >= end:
        return np.uint64(0), -1
    value = np.uint64(buf[at])
    at += 1
    if value < np.uint64(128):
        return value, at
    value &= _LOW
    shift = _SEVEN
    last = min(end, at + 9)
    while at < last:
        byte = np.uint64(buf[at])
        value |= (byte & _LOW) << shift
        at += 1
        if byte < np.uint64(128):
            return value, at
        shift += _SEVEN
    return value, -1


@compiled
def _short(buf: Bytes, at: int, end: int) -> Any:
    """Return (value as int64, next byte) of a tag or a size: at most five bytes and 32 bits."""
    value, after = _varint(buf, at, end)
    if after < 0 or after - at > 5 or value > np.uint64(0xFFFFFFFF):
        return 0, -1
    return np.int64(value), after


@compiled
def _plain(buf: Bytes, at: int, end: int, wire: int) -> Any:
    """Return (first byte, byte after) of a field's content, groups apart; the byte after is -1 for a fault."""
    stop = -1
    if wire == 2:
        size, at = _short(buf, at, end)
        if at >= 0:
            stop = at + size
    elif wire == 0:
        stop = _varint(buf, at, end)[1]
    elif wire == 5:
        stop = at + 4
    elif wire == 1:
        stop = at + 8
    return at, (stop if stop <= end else -1)


@compiled
def _group(buf: Bytes, at: int, end: int, tag: int, level: int, work: Int64) -> int:
    """Return the byte after the unknown group that ``tag`` opens, or -1; inside, as in upb, any field number goes."""
    deep = 0
    work[_STACK] = tag >> 3
    while level + deep < LEVELS:
        tag, at = _short(buf, at, end)
        if at < 0:
            return -1
        if tag & 7 == 4:
            if work[_STACK + deep] != tag >> 3:
                return -1
            deep -= 1
            if deep < 0:
                return at
        elif tag & 7 == 3:
            deep += 1
            work[_STACK + deep] = tag >> 3
        else:
            at = _plain(buf, at, end, tag & 7)[1]
            if at < 0:
                return -1
    return -1


@compiled
def _field(buf: Bytes, at: int, end: int, level: int, work: Int64) -> Any:
    """Return (tag, first byte of the content, byte after it); the last is -1, and the fault set, for garbage."""
    if end - at >= 2:  # most fields: a tag and a size of one byte each
        tag, begin = np.int64(buf[at]), at + 2
        stop = begin + np.int64(buf[at + 1])
        if tag & 0x87 == 2 and tag > 7 and buf[at + 1] < 128 and stop <= end:
            return tag, begin, stop
    stop = np.int64(-1)
    tag, begin = _short(buf, at, end)
    if begin >= 0 and tag >> 3 != 0:
        if tag & 7 == 3:
            stop = _group(buf, begin, end, tag, level, work)
        else:
            begin, stop = _plain(buf, begin, end, tag & 7)
    if stop < 0:
        _fail(work, GARBAGE, at, 0)
    return tag, begin, stop


@compiled
def _fail(work: Int64, code: int, byte: int, detail: int) -> bool:
    work[0] = code
    work[1] = byte
    work[2] = detail
    return False


@compiled
def _count(buf: Bytes, at: int, end: int) -> int:
    """Return how many varints fill the bytes exactly, or -1."""
    n = 0
    run = 0
    for i in range(at, end):
        if buf[i] < 128:
            n += 1
            run = 0
        else:
            run += 1
            if run == 10:
                return -1
    return n if run == 0 else -1


@compiled
def _clear(work: Int64, s: int) -> None:
    """Forget a tensor, but not the most it held nor where it lies."""
    work[s + CASE] = work[s + VALUES] = work[s + KEYS] = work[s + DIMS] = work[s + SIZE] = 0


@compiled
def _values(buf: Bytes, at: int, stop: int, fill: Any, s: int, bits: Words, work: Int64) -> bool:
    """Read a chunk of values, of the kind that the state names, as the bits of float32."""
    case = work[s + CASE]
    into = work[s + FROM] + work[s + VALUES]
    if case == FLOAT32:
        n = (stop - at) >> 2
        if at + 4 * n != stop:
            return False
        if fill:
            for k in range(n):
                bits[into + k] = _word(buf, at + 4 * k)
    elif case == FLOAT64:
        n = (stop - at) >> 3
        if at + 8 * n != stop:
            return False
        if fill:
            for k in range(n):
                low, high = np.uint64(_word(buf, at + 8 * k)), np.uint64(_word(buf, at + 8 * k + 4))
                double = np.uint64(low | (high << np.uint64(32))).view(np.float64)
                bits[into + k] = np.float32(double).view(np.uint32)
    else:
        n = _count(buf, at, stop)
        if n < 0:
            return False
        if fill:
            for k in range(n):
                value, at = _varint(buf, at, stop)
                bits[into + k] = np.float32(np.int32(value & np.uint64(0xFFFFFFFF))).view(np.uint32)
    work[s + VALUES] += n
    work[s + MOST] = max(work[s + MOST], work[s + VALUES])
    return True


@compiled
def _keys(buf: Bytes, at: int, stop: int, fill: Any, s: int, keys: Keys, work: Int64) -> bool:
    n = 0
    if not fill:
        n = _count(buf, at, stop)
        if n < 0:
            return False
    else:  # the first pass has seen that all is well
        into = work[s + FROM] + work[s + KEYS]
        while at < stop:
            value, at = _varint(buf, at, stop)
            keys[into + n] = value
            n += 1
    work[s + KEYS] += n
    work[s + MOST] = max(work[s + MOST], work[s + KEYS])
    return True


@compiled
def _shape(buf: Bytes, at: int, stop: int, s: int, work: Int64) -> bool:
    while at < stop:
        value, at = _varint(buf, at, stop)
        if at < 0:
            return False
        size = work[s + SIZE] if work[s + DIMS] > 0 else 1
        if float(size) * float(value) > float(_HUGE):
            work[s + SIZE] = _HUGE
        else:
            work[s + SIZE] = size * np.int64(value)
        work[s + DIMS] += 1
    return True


@compiled
def _tensor(buf: Bytes, at: int, end: int, fill: Any, s: int, bits: Words, keys: Keys, work: Int64) -> bool:
    """Read a Float32Tensor, Float64Tensor or Int32Tensor, or a further piece of it; Bytes are stepped over."""
    case = work[s + CASE]
    scalar = 5 if case == FLOAT32 else (1 if case == FLOAT64 else 0)
    while at < end:
        start = at
        tag, at, stop = _field(buf, at, end, _TENSOR, work)
        if stop < 0:
            return False
        field, wire = tag >> 3, tag & 7
        good: bool = True
        if case == RAW:
            pass
        elif field == 1 and (wire == 2 or wire == scalar):
            good = _values(buf, at, stop, fill, s, bits, work)
        elif field == 2 and (wire == 2 or wire == 0):
            good = _keys(buf, at, stop, fill, s, keys, work)
        elif field == 3 and (wire == 2 or wire == 0):
            good = _shape(buf, at, stop, s, work)
        if not good:
            _fail(work, GARBAGE, start, 0)
            return False
        at = stop
    return True


@compiled
def _value(buf: Bytes, at: int, end: int, fill: Any, s: int, bits: Words, keys: Keys, work: Int64) -> bool:
    while at < end:
        tag, at, stop = _field(buf, at, end, _VALUE, work)
        if stop < 0:
            return False
        case = tag >> 3
        if tag & 7 == 2 and case in (FLOAT32, FLOAT64, INT32, RAW):
            if work[s + CASE] != case:
                _clear(work, s)
                work[s + CASE] = case
            if not _tensor(buf, at, stop, fill, s, bits, keys, work):
                return False
        at = stop
    return True


@compiled
def _is_values(buf: Bytes, at: int, end: int) -> bool:
    """Say whether the bytes are the map key ``values``, the one that SageMaker writes and reads."""
    if end - at != 6:
        return False
    for k in range(6):  # noqa: SIM110 (numba compiles no generators)
        if buf[at + k] != _NAME[k]:
            return False
    return True


@compiled
def _entry(buf: Bytes, at: int, end: int, fill: Any, s: int, bits: Words, keys: Keys, work: Int64) -> bool:
    """Read one map entry; one with another key, or (as in upb) with a field of its own, is validated and left out."""
    named, strange = False, False
    seek = at
    while seek < end:  # the key may stand behind the value, and the last one counts
        tag, begin, stop = _field(buf, seek, end, _ENTRY, work)
        if stop < 0:
            return False
        if tag == 10:
            named = _is_values(buf, begin, stop)
        strange |= tag != 10 and tag != 18
        seek = stop
    if not named or strange:
        s, fill = OTHER, np.bool_(False)
    _clear(work, s)
    while at < end:
        tag, at, stop = _field(buf, at, end, _ENTRY, work)
        if tag == 18 and not _value(buf, at, stop, fill, s, bits, keys, work):
            return False
        at = stop
    return True


@compiled
def _record(buf: Bytes, at: int, end: int, fill: Any, bits: Words, keys: Keys, work: Int64) -> bool:
    """Read one record into the states (and, filling, the values and keys) of features and label."""
    for s in (FEATURES, LABEL):
        _clear(work, s)
        work[s + MOST] = 0
    while at < end:
        tag, at, stop = _field(buf, at, end, _RECORD, work)
        if stop < 0:
            return False
        if tag == 10 or tag == 18:
            s = FEATURES if tag == 10 else LABEL
            if not _entry(buf, at, stop, fill, s, bits, keys, work):
                return False
        at = stop
    return True


@compiled
def count_frames(buf: Bytes, work: Int64) -> Any:
    """Return (records, bytes of all payloads joined, or 0 if no record has parts); records < 0 is a fault.

    A fault in record ``r`` (from 0) gives ``-1 - r``.
    """
    at, end = np.int64(0), len(buf)
    records, joined, size = 0, np.int64(0), np.int64(0)
    parts, within = False, False
    while at < end:
        bad = 0
        length, flag = np.int64(0), np.int64(0)
        if end - at < 8:
            # A torn header may still show that this is no frame at all.
            bad = HEADER
            if end - at >= 4 and _word(buf, at) != np.uint32(MAGIC):
                bad = NOT_MAGIC
        elif _word(buf, at) != np.uint32(MAGIC):
            bad = NOT_MAGIC
        else:
            word = np.int64(_word(buf, at + 4))
            length, flag = word & ((1 << 29) - 1), word >> 29
            size = (size + 4 if within else 0) + length
            if flag > 3 or size > LONGEST:
                length, bad = word if flag > 3 else size, TOO_LONG
            elif length > end - at - 8:
                bad = BODY
            elif within != (flag > 1):
                bad = PARTS
            elif -length % 4 > end - at - 8 - length:
                bad = PADDING
        if bad:
            _fail(work, bad, at, length)
            return -1 - records, 0
        for i in range(at + 8 + length, at + 8 + length + -length % 4):
            if buf[i] != 0:
                _fail(work, DIRTY, i, 0)
                return -1 - records, 0
        parts |= flag != 0
        within = flag == 1 or flag == 2
        if not within:
            records += 1
            joined += size
        at += 8 + length + -length % 4
    if within:
        _fail(work, PARTS, end, 0)
        return -1 - records, 0
    return records, (joined if parts else 0)


@compiled
def list_frames(buf: Bytes, joined: Bytes, frames: Int64, starts: Int64, stops: Int64) -> None:
    """Fill each record's first byte in the file, and its payload's range in ``joined`` (or, that empty, ``buf``)."""
    at, record, into = np.int64(0), 0, np.int64(0)
    within = False
    copy = len(joined) > 0
    while at < len(buf):
        word = np.int64(_word(buf, at + 4))
        length, flag = word & ((1 << 29) - 1), word >> 29
        if not within:
            frames[record] = at
            starts[record] = into if copy else at + 8
        elif copy:
            for i in range(4):
                joined[into + i] = (MAGIC >> (8 * i)) & 255
            into += 4
        if copy:
            for i in range(length):
                joined[into + i] = buf[at + 8 + i]
            into += length
        within = flag == 1 or flag == 2
        if not within:
            stops[record] = into if copy else at + 8 + length
            record += 1
        at += 8 + length + -length % 4


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
        _fail(work, code, at, size)
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

    Returns (record at fault or -1, most entries in a record's features, most in a label).
    """
    most, most_label = 0, 0
    totals[UNLABELLED_AT] = totals[LABELLED_AT] = -1
    for r in range(len(starts)):
        if not _record(buf, starts[r], stops[r], np.bool_(False), bits, keys, work):
            return r, 0, 0
        kind = _kind(work, starts[r])
        if kind < 0:
            return r, 0, 0
        if kind == DENSE:
            if totals[DENSE] > 0 and totals[COLUMNS] != work[FEATURES + VALUES]:
                _fail(work, WIDTH, starts[r], work[FEATURES + VALUES])
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
    held = 0
    for r in range(len(starts)):
        _record(buf, starts[r], stops[r], np.bool_(True), bits, keys, work)
        sparse = work[FEATURES + KEYS] > 0
        own = work[FEATURES + SIZE] if work[FEATURES + DIMS] > 0 else _LARGEST_DIM
        below = np.uint64(min(limit, own))
        before = np.int64(-1)
        disorder: Any = np.bool_(False)
        for k in range(work[FEATURES + VALUES]):
            word = bits[k]
            if not sparse and word & _SIGNLESS == 0:
                continue
            key = keys[k] if sparse else np.uint64(k)
            if key >= below:
                _fail(work, KEY if key >= np.uint64(limit) else KEY_SHAPE, starts[r], np.int64(key))
                return r
            disorder |= np.int64(key) <= before
            before = np.int64(key)
            indices[held] = before
            values[held] = word
            held += 1
        totals[DISORDER] += disorder
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
        _record(buf, starts[r], stops[r], np.bool_(True), bits, keys, work)
        for k in range(matrix.shape[1]):
            matrix[r, k] = bits[k]
        if len(labels) > 0:
            labels[r] = bits[work[LABEL + FROM]]
