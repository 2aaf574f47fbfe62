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
the record's number with ``spare.fault = (code, byte, detail)``; words are made of it in ``data/recordio.py``.
(Protocol Buffers' encoding guide; upb's decoder for the limits.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Int64 = NDArray[np.int64]

MAGIC = 0xCED7230A
LONGEST = 16 << 20
LEVELS = 100

# Faults of framing, of the wire format, and of what a record says.
HEADER, NOT_MAGIC, TOO_LONG, BODY, PADDING, DIRTY, PARTS = 1, 2, 3, 4, 5, 6, 7
GARBAGE = 10
NO_FEATURES, RAW_FEATURES, UNEQUAL, SHAPE, WIDE_SHAPE, WIDTH, RAW_LABEL, KEY, KEY_SHAPE, NO_VALUES = (
    20, 21, 22, 23, 24, 25, 26, 27, 28, 29)  # fmt: skip

# The state of a tensor: its kind (the field's number in Value), how much it holds, the product of its shape,
# and the most it ever held while the record was read.
CASE, VALUES, KEYS, DIMS, SIZE, MOST = 0, 1, 2, 3, 4, 5
FLOAT32, FLOAT64, INT32, RAW = 2, 3, 7, 9

# What measuring and filling sum up over all records.
DENSE, SPARSE, EMPTY, LABELLED, ENTRIES, LARGEST, COLUMNS, UNLABELLED_AT, LABELLED_AT, DISORDER, NOT_FINITE = range(11)
TOTALS = 11

_LARGEST_DIM = (1 << 31) - 1
_HUGE = 1 << 62
_SEVEN = np.uint64(7)
_LOW = np.uint64(127)
_EXPONENT = np.uint32(0x7F800000)
_SIGNLESS = np.uint32(0x7FFFFFFF)


class Scratch(NamedTuple):
    """One tensor while it is read: its state, values (float32 and the same memory as words), keys."""

    state: Int64
    floats: NDArray[np.float32]
    bits: NDArray[np.uint32]
    keys: NDArray[np.uint64]


class Spare(NamedTuple):
    """Working memory: a state nobody looks at, open groups, a double and its bits, the fault found."""

    state: Int64
    stack: Int64
    word: NDArray[np.uint64]
    double: NDArray[np.float64]
    fault: Int64


def scratch(size: int) -> Scratch:
    """Return room for a tensor of ``size`` values and keys."""
    floats = np.zeros(size, np.float32)
    return Scratch(np.zeros(6, np.int64), floats, floats.view(np.uint32), np.zeros(size, np.uint64))


def spare() -> Spare:
    """Return working memory for the passes over one file."""
    word = np.zeros(1, np.uint64)
    return Spare(np.zeros(6, np.int64), np.zeros(LEVELS + 1, np.int64), word, word.view(np.float64), np.zeros(3, np.int64))


@njit(cache=True, nogil=True)
def _word(buf: Bytes, at: int) -> Any:
    """Return the four bytes at ``at``, little endian."""
    return (np.uint32(buf[at]) | (np.uint32(buf[at + 1]) << np.uint32(8)) | (np.uint32(buf[at + 2]) << np.uint32(16))
            | (np.uint32(buf[at + 3]) << np.uint32(24)))  # fmt: skip


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _short(buf: Bytes, at: int, end: int) -> Any:
    """Return (value as int64, next byte) of a tag or a size: at most five bytes and 32 bits."""
    value, after = _varint(buf, at, end)
    if after < 0 or after - at > 5 or value > np.uint64(0xFFFFFFFF):
        return 0, -1
    return np.int64(value), after


@njit(cache=True, nogil=True)
def _plain(buf: Bytes, at: int, end: int, wire: int) -> Any:
    """Return (first byte, byte after) of a field's content, groups apart; the byte after is -1 for a fault."""
    stop = -1
    if wire == 2:
        size, at = _short(buf, at, end)
        if at >= 0:
            stop = at + size
    elif wire == 0:
        value, stop = _varint(buf, at, end)
    elif wire == 5:
        stop = at + 4
    elif wire == 1:
        stop = at + 8
    return at, (stop if stop <= end else -1)


@njit(cache=True, nogil=True)
def _group(buf: Bytes, at: int, end: int, tag: int, level: int, stack: Int64) -> int:
    """Return the byte after the unknown group that ``tag`` opens, or -1."""
    deep = 0
    stack[0] = tag >> 3
    while level + deep < LEVELS:
        tag, at = _short(buf, at, end)
        if at < 0 or tag >> 3 == 0:
            return -1
        if tag & 7 == 4:
            if stack[deep] != tag >> 3:
                return -1
            deep -= 1
            if deep < 0:
                return at
        elif tag & 7 == 3:
            deep += 1
            stack[deep] = tag >> 3
        else:
            begin, at = _plain(buf, at, end, tag & 7)
            if at < 0:
                return -1
    return -1


@njit(cache=True, nogil=True)
def _field(buf: Bytes, at: int, end: int, level: int, spare: Spare) -> Any:
    """Return (tag, first byte of the content, byte after it); the last is -1, and the fault set, for garbage."""
    stop = -1
    tag, begin = _short(buf, at, end)
    if begin >= 0 and tag >> 3 != 0:
        if tag & 7 == 3:
            stop = _group(buf, begin, end, tag, level, spare.stack)
        else:
            begin, stop = _plain(buf, begin, end, tag & 7)
    if stop < 0:
        _fail(spare, GARBAGE, at, 0)
    return tag, begin, stop


@njit(cache=True, nogil=True)
def _fail(spare: Spare, code: int, byte: int, detail: int) -> bool:
    spare.fault[0] = code
    spare.fault[1] = byte
    spare.fault[2] = detail
    return False


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _values(buf: Bytes, at: int, stop: int, fill: bool, room: Scratch, spare: Spare) -> bool:
    """Read a chunk of values, of the kind that the state names."""
    case = room.state[CASE]
    held = room.state[VALUES]
    if case == FLOAT32:
        n = (stop - at) >> 2
        if at + 4 * n != stop:
            return False
        if fill:
            for k in range(n):
                room.bits[held + k] = _word(buf, at + 4 * k)
    elif case == FLOAT64:
        n = (stop - at) >> 3
        if at + 8 * n != stop:
            return False
        if fill:
            for k in range(n):
                low, high = np.uint64(_word(buf, at + 8 * k)), np.uint64(_word(buf, at + 8 * k + 4))
                spare.word[0] = low | (high << np.uint64(32))
                room.floats[held + k] = np.float32(spare.double[0])
    else:
        n = _count(buf, at, stop)
        if n < 0:
            return False
        if fill:
            for k in range(n):
                value, at = _varint(buf, at, stop)
                room.floats[held + k] = np.float32(np.int32(value & np.uint64(0xFFFFFFFF)))
    room.state[VALUES] = held + n
    room.state[MOST] = max(room.state[MOST], held + n)
    return True


@njit(cache=True, nogil=True)
def _keys(buf: Bytes, at: int, stop: int, fill: bool, room: Scratch) -> bool:
    held = room.state[KEYS]
    if not fill:
        n = _count(buf, at, stop)
        if n < 0:
            return False
    else:  # the first pass has seen that all is well
        n = 0
        while at < stop:
            value, at = _varint(buf, at, stop)
            room.keys[held + n] = value
            n += 1
    room.state[KEYS] = held + n
    room.state[MOST] = max(room.state[MOST], held + n)
    return True


@njit(cache=True, nogil=True)
def _shape(buf: Bytes, at: int, stop: int, room: Scratch) -> bool:
    while at < stop:
        value, at = _varint(buf, at, stop)
        if at < 0:
            return False
        size = room.state[SIZE] if room.state[DIMS] > 0 else 1
        if value > np.uint64(_HUGE) or float(size) * float(value) > float(_HUGE):
            room.state[SIZE] = _HUGE
        else:
            room.state[SIZE] = size * np.int64(value)
        room.state[DIMS] += 1
    return True


@njit(cache=True, nogil=True)
def _tensor(buf: Bytes, at: int, end: int, fill: bool, room: Scratch, spare: Spare) -> bool:
    """Read a Float32Tensor, Float64Tensor or Int32Tensor, or a further piece of it."""
    case = room.state[CASE]
    scalar = 5 if case == FLOAT32 else (1 if case == FLOAT64 else 0)
    while at < end:
        start = at
        tag, at, stop = _field(buf, at, end, 3, spare)
        if stop < 0:
            return False
        field, wire = tag >> 3, tag & 7
        good = True
        if case == RAW:
            pass
        elif field == 1 and (wire == 2 or wire == scalar):
            good = _values(buf, at, stop, fill, room, spare)
        elif field == 2 and (wire == 2 or wire == 0):
            good = _keys(buf, at, stop, fill, room)
        elif field == 3 and (wire == 2 or wire == 0):
            good = _shape(buf, at, stop, room)
        if not good:
            return _fail(spare, GARBAGE, start, 0)
        at = stop
    return True


@njit(cache=True, nogil=True)
def _value(buf: Bytes, at: int, end: int, fill: bool, room: Scratch, spare: Spare) -> bool:
    while at < end:
        tag, at, stop = _field(buf, at, end, 2, spare)
        if stop < 0:
            return False
        case = tag >> 3
        if tag & 7 == 2 and (case == FLOAT32 or case == FLOAT64 or case == INT32 or case == RAW):
            if room.state[CASE] != case:
                room.state[:MOST] = 0
                room.state[CASE] = case
            if not _tensor(buf, at, stop, fill, room, spare):
                return False
        at = stop
    return True


@njit(cache=True, nogil=True)
def _is_values(buf: Bytes, at: int, end: int) -> bool:
    """Say whether the bytes are the map key ``values``, the one that SageMaker writes and reads."""
    return (end - at == 6 and buf[at] == 118 and buf[at + 1] == 97 and buf[at + 2] == 108 and buf[at + 3] == 117
            and buf[at + 4] == 101 and buf[at + 5] == 115)  # fmt: skip


@njit(cache=True, nogil=True)
def _entry(buf: Bytes, at: int, end: int, fill: bool, room: Scratch, spare: Spare) -> bool:
    """Read one map entry; entries with other keys are validated and left out."""
    named = False
    seek = at
    while seek < end:  # the key may stand behind the value, and the last one counts
        tag, begin, stop = _field(buf, seek, end, 1, spare)
        if stop < 0:
            return False
        if tag == 10:
            named = _is_values(buf, begin, stop)
        seek = stop
    if named:
        room.state[:MOST] = 0
    else:
        room = Scratch(spare.state, room.floats, room.bits, room.keys)
        room.state[:] = 0
    while at < end:
        tag, at, stop = _field(buf, at, end, 1, spare)
        if tag == 18 and not _value(buf, at, stop, fill and named, room, spare):
            return False
        at = stop
    return True


@njit(cache=True, nogil=True)
def _record(buf: Bytes, at: int, end: int, fill: bool, features: Scratch, label: Scratch, spare: Spare) -> bool:
    """Read one record into the states (and, filling, the values and keys) of features and label."""
    features.state[:] = 0
    label.state[:] = 0
    while at < end:
        tag, at, stop = _field(buf, at, end, 0, spare)
        if stop < 0:
            return False
        if tag == 10:
            if not _entry(buf, at, stop, fill, features, spare):
                return False
        elif tag == 18 and not _entry(buf, at, stop, fill, label, spare):
            return False
        at = stop
    return True


@njit(cache=True, nogil=True)
def count_frames(buf: Bytes, spare: Spare) -> Any:
    """Return (records, bytes of all payloads joined, or 0 if no record has parts); records < 0 is a fault.

    A fault in record ``r`` (from 0) gives ``-1 - r``.
    """
    at, end = 0, len(buf)
    records, joined, size = 0, 0, 0
    parts, within = False, False
    while at < end:
        bad = 0
        length, flag = 0, 0
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
            _fail(spare, bad, at, length)
            return -1 - records, 0
        for i in range(at + 8 + length, at + 8 + length + -length % 4):
            if buf[i] != 0:
                _fail(spare, DIRTY, i, 0)
                return -1 - records, 0
        parts |= flag != 0
        within = flag == 1 or flag == 2
        if not within:
            records += 1
            joined += size
        at += 8 + length + -length % 4
    if within:
        _fail(spare, PARTS, end, 0)
        return -1 - records, 0
    return records, (joined if parts else 0)


@njit(cache=True, nogil=True)
def list_frames(buf: Bytes, joined: Bytes, frames: Int64, starts: Int64, stops: Int64) -> None:
    """Fill each record's first byte in the file, and its payload's range in ``joined`` (or, that empty, ``buf``)."""
    at, record, into = 0, 0, 0
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
            joined[into : into + length] = buf[at + 8 : at + 8 + length]
            into += length
        within = flag == 1 or flag == 2
        if not within:
            stops[record] = into if copy else at + 8 + length
            record += 1
        at += 8 + length + -length % 4


@njit(cache=True, nogil=True)
def _kind(state: Int64, at: int, spare: Spare) -> int:
    """Return DENSE, SPARSE or EMPTY (nothing said at all) for a record's features, or -1."""
    code = 0
    if state[CASE] == 0:
        code = NO_FEATURES
    elif state[CASE] == RAW:
        code = RAW_FEATURES
    elif state[KEYS] > 0 and state[KEYS] != state[VALUES]:
        code = UNEQUAL
    elif state[KEYS] == 0 and state[VALUES] > 0 and state[DIMS] > 0 and state[SIZE] != state[VALUES]:
        code = SHAPE
    elif state[DIMS] > 0 and state[SIZE] > _LARGEST_DIM:
        code = WIDE_SHAPE
    if code:
        _fail(spare, code, at, state[SIZE])
        return -1
    if state[KEYS] > 0:
        return SPARSE
    if state[VALUES] > 0:
        return DENSE
    return SPARSE if state[DIMS] > 0 else EMPTY


@njit(cache=True, nogil=True)
def measure(buf: Bytes, starts: Int64, stops: Int64, features: Scratch, label: Scratch, spare: Spare,
            kinds: NDArray[np.int8], totals: Int64) -> Any:  # fmt: skip
    """Validate every record and count what it holds.

    Returns (record at fault or -1, most entries in a record's features, most in a label).
    """
    most, most_label = 0, 0
    totals[UNLABELLED_AT] = totals[LABELLED_AT] = -1
    for r in range(len(starts)):
        if not _record(buf, starts[r], stops[r], False, features, label, spare):
            return r, 0, 0
        state = features.state
        kind = _kind(state, starts[r], spare)
        if kind < 0:
            return r, 0, 0
        if label.state[CASE] == RAW:
            _fail(spare, RAW_LABEL, starts[r], 0)
            return r, 0, 0
        if kind == DENSE:
            if totals[DENSE] > 0 and totals[COLUMNS] != state[VALUES]:
                _fail(spare, WIDTH, starts[r], state[VALUES])
                return r, 0, 0
            totals[COLUMNS] = state[VALUES]
        elif kind == SPARSE and state[DIMS] > 0:
            totals[LARGEST] = max(totals[LARGEST], state[SIZE])
        kinds[r] = kind
        totals[kind] += 1
        totals[ENTRIES] += state[VALUES]
        if label.state[VALUES] > 0:
            totals[LABELLED] += 1
            if totals[LABELLED_AT] < 0:
                totals[LABELLED_AT] = r
        elif totals[UNLABELLED_AT] < 0:
            totals[UNLABELLED_AT] = r
        most = max(most, state[MOST])
        most_label = max(most_label, label.state[MOST])
    return -1, most, most_label


@njit(cache=True, nogil=True)
def fill_sparse(buf: Bytes, starts: Int64, stops: Int64, limit: int, features: Scratch, label: Scratch, spare: Spare,
                indptr: Int64, indices: NDArray[np.int32], bits: NDArray[np.uint32], labels: NDArray[np.float32],
                totals: Int64) -> int:  # fmt: skip
    """Write CSR arrays; a dense record gives its entries that are not zero.  Returns the record at fault or -1.

    ``bits`` is the memory of the float32 values.  A key must be below ``limit`` and below its record's own shape.
    """
    held = 0
    for r in range(len(starts)):
        _record(buf, starts[r], stops[r], True, features, label, spare)
        state = features.state
        sparse = state[KEYS] > 0
        own = state[SIZE] if state[DIMS] > 0 else _LARGEST_DIM
        before = -1
        disorder = False
        for k in range(state[VALUES]):
            word = features.bits[k]
            key = features.keys[k] if sparse else np.uint64(k)
            if not sparse and word & _SIGNLESS == 0:
                continue
            if key >= np.uint64(limit):
                _fail(spare, KEY, starts[r], np.int64(key))
                return r
            if key >= np.uint64(own):
                _fail(spare, KEY_SHAPE, starts[r], np.int64(key))
                return r
            at = np.int64(key)
            disorder |= at <= before
            before = at
            totals[NOT_FINITE] += word & _EXPONENT == _EXPONENT
            indices[held] = at
            bits[held] = word
            held += 1
        totals[DISORDER] += disorder
        indptr[r + 1] = held
        if len(labels) > 0:
            labels[r] = label.floats[0]
    return -1


@njit(cache=True, nogil=True)
def fill_dense(buf: Bytes, starts: Int64, stops: Int64, features: Scratch, label: Scratch, spare: Spare,
               bits: NDArray[np.uint32], labels: NDArray[np.float32], totals: Int64) -> None:  # fmt: skip
    """Write the matrix; ``bits`` (uint32, (n, columns)) is the memory of its float32 values."""
    columns = bits.shape[1]
    for r in range(len(starts)):
        _record(buf, starts[r], stops[r], True, features, label, spare)
        for k in range(columns):
            word = features.bits[k]
            totals[NOT_FINITE] += word & _EXPONENT == _EXPONENT
            bits[r, k] = word
        if len(labels) > 0:
            labels[r] = label.floats[0]
