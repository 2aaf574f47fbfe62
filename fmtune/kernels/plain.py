"""Plain: the sparse record that SageMaker's own writers make, read in one stroke.

Such a record is one map entry of features, then one of a label (or none), each with one Float32Tensor: packed
values, packed keys, and perhaps one number of shape, in this order and nothing else::

    0a .. 0a 06 "values" 12 .. 12 .. 0a .. <float32> 12 .. <varints> [1a .. <varint>]
    12 .. 0a 06 "values" 12 08 12 06 0a 04 <float32>

What looks otherwise, or is wrong in any way, is left to ``wire``, which knows all of protobuf and names faults.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.kernels.wire import Bytes, Int64, Words, _is_values, _short, _varint, compiled, word

# Where things are, behind the states of the tensors in ``wire.work()``.
VALUES_AT, COUNT, KEYS_AT, KEYS_STOP, SHAPED, LABEL_AT = 3, 4, 5, 6, 7, 15


@compiled
def _open(buf: Bytes, at: int, end: int, tag: int) -> Any:
    """Return (first byte, byte after) of the content of a field with this tag; -1 and -1 if it is not there."""
    if at + 2 > end or buf[at] != tag:
        return np.int64(-1), np.int64(-1)
    size, begin = np.int64(buf[at + 1]), np.int64(at + 2)
    if size > 127:
        size, begin = _short(buf, at + 1, end)
    if begin < 0 or size > end - begin:
        return np.int64(-1), np.int64(-1)
    return begin, begin + size


@compiled
def _tensor(buf: Bytes, at: int, end: int, tag: int) -> Any:
    """Return (first byte, byte after) of the Float32Tensor under ``values`` in a map entry; -1 and -1 if not plain."""
    entry, stop = _open(buf, at, end, tag)
    if entry < 0 or stop - entry < 12 or buf[entry] != 10 or buf[entry + 1] != 6:
        return np.int64(-1), np.int64(-1)
    if not _is_values(buf, entry + 2, entry + 8):
        return np.int64(-1), np.int64(-1)
    value, value_stop = _open(buf, entry + 8, stop, 18)
    if value < 0 or value_stop != stop:
        return np.int64(-1), np.int64(-1)
    tensor, tensor_stop = _open(buf, value, stop, 18)
    if tensor < 0 or tensor_stop != stop:
        return np.int64(-1), np.int64(-1)
    return tensor, stop


@compiled
def plain(buf: Bytes, at: int, end: int, work: Int64) -> bool:
    """Say whether a record is plain, and leave in ``work`` where its numbers stand; its keys are not looked at."""
    tensor, stop = _tensor(buf, at, end, 10)
    if tensor < 0:
        return False
    values, values_stop = _open(buf, tensor, stop, 10)
    if values < 0:
        return False
    keys, keys_stop = _open(buf, values_stop, stop, 18)
    count = (values_stop - values) >> 2
    if keys < 0 or count == 0 or values + 4 * count != values_stop or keys_stop - keys < count:
        return False
    work[SHAPED] = -1
    if keys_stop < stop:
        shape, shape_stop = _open(buf, keys_stop, stop, 26)
        if shape < 0 or shape_stop != stop:
            return False
        size, after = _varint(buf, shape, stop)
        if after != stop or size > np.uint64(0x7FFFFFFF):
            return False
        work[SHAPED] = np.int64(size)
    work[LABEL_AT] = -1
    if stop < end:
        label, label_stop = _tensor(buf, stop, end, 18)
        if label < 0 or label_stop != end or end - label != 6 or buf[label] != 10 or buf[label + 1] != 4:
            return False
        work[LABEL_AT] = label + 2
    work[VALUES_AT], work[COUNT], work[KEYS_AT], work[KEYS_STOP] = values, count, keys, keys_stop
    return True


@compiled
def copy(buf: Bytes, work: Int64, held: int, indices: NDArray[np.int32], values: Words, below: int) -> Any:
    """Write the plain record that ``work`` tells of; return (keys out of order, a value not finite, largest key + 1).

    A key must be below ``below``; where one is not, or keys and values differ in number, the last is -1.
    """
    at, stop, count = work[KEYS_AT], work[KEYS_STOP], work[COUNT]
    before = np.int64(-1)
    disorder: Any = np.bool_(False)
    beyond = np.int64(0)
    k = 0
    while at < stop:
        key = np.int64(buf[at])
        at += 1
        if key > 127:
            key &= 127
            shift = np.int64(7)
            while True:
                if at >= stop or shift > 28:
                    return disorder, disorder, np.int64(-1)
                byte = np.int64(buf[at])
                at += 1
                key |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        if key >= below or k == count:
            return disorder, disorder, np.int64(-1)
        disorder |= key <= before
        before = key
        beyond = max(beyond, key + 1)
        indices[held + k] = key
        k += 1
    if k != count:
        return disorder, disorder, np.int64(-1)
    first = work[VALUES_AT]
    largest = np.uint32(0)
    for j in range(count):
        bits = word(buf, first + 4 * j)
        values[held + j] = bits
        largest = max(largest, bits & np.uint32(0x7FFFFFFF))
    return disorder, largest >= np.uint32(0x7F800000), beyond
