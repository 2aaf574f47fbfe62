"""Wire: one protobuf record, from bytes into working memory.

The first of three files: ``wire`` reads a record, ``frames`` finds the records in a file, ``records`` makes arrays
of them.  What protobuf accepts is accepted and what it rejects is rejected, down to overlong varints and the
nesting of unknown groups (at most 100 levels), because its rules are followed:

* a field may come in any order, packed or not, and again: repeated fields grow, a map entry with the same key
  replaces the older one, a ``Value`` of another kind clears the one before;
* an unknown field, or a known one with another wire type, is stepped over.

No length from the file is used before it was compared with the bytes that are left.  A fault leaves
``work[:3] = (code, byte, detail)``; words are made of it in ``data/recordio.py``.
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

LEVELS = 100
GARBAGE = 10
"""The fault of bytes that are no protobuf record; codes below are faults of framing, above of what a record says."""

# The state of a tensor: its kind (the field's number in Value), how much it holds, the product of its shape,
# the most it ever held while the record was read, and where its values and keys go.
CASE, VALUES, KEYS, DIMS, SIZE, MOST, FROM = 0, 1, 2, 3, 4, 5, 6
# Three states lie in the working memory: of the features, of the label, and one that nobody looks at.
FEATURES, LABEL, OTHER = 8, 16, 24
_STACK = 32
FLOAT32, FLOAT64, INT32, RAW = 2, 3, 7, 9

# How deep each message lies; of a type of its own, or numba would compile a version for every level.
_RECORD, _ENTRY, _VALUE, _TENSOR = np.int64(0), np.int64(1), np.int64(2), np.int64(3)
HUGE = 1 << 62
"""Stands for every larger product of a shape."""
_NAME = np.frombuffer(b"values", np.uint8)
_SEVEN = np.uint64(7)
_LOW = np.uint64(127)


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
def word(buf: Bytes, at: int) -> Any:
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
        fail(work, GARBAGE, at, 0)
    return tag, begin, stop


@compiled
def fail(work: Int64, code: int, byte: int, detail: int) -> bool:
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
                bits[into + k] = word(buf, at + 4 * k)
    elif case == FLOAT64:
        n = (stop - at) >> 3
        if at + 8 * n != stop:
            return False
        if fill:
            for k in range(n):
                low, high = np.uint64(word(buf, at + 8 * k)), np.uint64(word(buf, at + 8 * k + 4))
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
        if float(size) * float(value) > float(HUGE):
            work[s + SIZE] = HUGE
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
            fail(work, GARBAGE, start, 0)
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
def record(buf: Bytes, at: int, end: int, fill: Any, bits: Words, keys: Keys, work: Int64) -> bool:
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
