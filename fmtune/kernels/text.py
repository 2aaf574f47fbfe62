"""Text: lines of ``label index:value index:value ...`` to CSR arrays.

A kernel reads the lines that are plain; at the first one that is not (a comment apart) it stops, and who called it
reads that line or says what is wrong with it.  Numbers are those that Python's ``float`` gives, as float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

# What a pass leaves in ``state``: rows and entries written, the line it stands in (from 1), whether rows have labels
# (-1: not known yet), rows with keys out of order, and the largest key + 1.
ROWS, ENTRIES, LINE, LABELLED, DISORDER, BEYOND = range(6)
STATE = 6

_NEWLINE, _SPACE, _HASH, _COLON, _ZERO, _NINE = 10, 32, 35, 58, 48, 57
_POWERS = np.array([float(f"1e{k}") for k in range(64)])
_EXACT = np.uint64(1 << 53)
_MOST = np.uint64(10**17)


@njit(cache=True, nogil=True)
def count(buf: Bytes) -> Any:
    """Return how many line ends and how many colons there are."""
    lines, colons = 0, 0
    for byte in buf:
        lines += byte == _NEWLINE
        colons += byte == _COLON
    return lines, colons


@njit(inline="always")
def _blank(byte: Any) -> Any:
    return byte == _SPACE or (byte >= 9 and byte <= 13)


@njit(cache=True, nogil=True)
def holds_zero(buf: Bytes) -> bool:
    """Say whether an index 0 occurs; the first byte begins a line."""
    comment = len(buf) > 0 and buf[0] == _HASH
    for i in range(1, len(buf)):
        byte = buf[i]
        if byte == _NEWLINE:
            comment = False
        elif byte == _HASH:
            comment = True
        elif byte == _COLON and buf[i - 1] == _ZERO and not comment:
            j = i - 2
            while j >= 0 and buf[j] == _ZERO:
                j -= 1
            if j < 0 or _blank(buf[j]):
                return True
    return False


@njit(cache=True, nogil=True)
def _number(buf: Bytes, at: int, end: int) -> Any:
    """Return (float32, next byte) of a decimal number; the next byte is -1 where it is none, or no plain one.

    Up to 17 digits.  A float64 that is off by some units in its last place still rounds to the right float32, unless
    a border between two float32 lies so near; then this is no plain number.
    """
    negative = at < end and buf[at] == 45
    if negative or (at < end and buf[at] == 43):
        at += 1
    digits, power, mantissa = 0, 0, np.uint64(0)
    while at < end and buf[at] >= _ZERO and buf[at] <= _NINE:
        mantissa = mantissa * np.uint64(10) + np.uint64(buf[at] - _ZERO)
        digits += 1
        at += 1
        if mantissa >= _MOST:
            return np.float32(0.0), -1
    if at < end and buf[at] == 46:
        at += 1
        while at < end and buf[at] >= _ZERO and buf[at] <= _NINE:
            mantissa = mantissa * np.uint64(10) + np.uint64(buf[at] - _ZERO)
            digits += 1
            power -= 1
            at += 1
            if mantissa >= _MOST:
                return np.float32(0.0), -1
    if digits == 0:
        return np.float32(0.0), -1
    if at < end and (buf[at] == 101 or buf[at] == 69):
        at += 1
        down = at < end and buf[at] == 45
        if down or (at < end and buf[at] == 43):
            at += 1
        first, exponent = at, 0
        while at < end and buf[at] >= _ZERO and buf[at] <= _NINE:
            exponent = 10 * exponent + int(buf[at] - _ZERO)
            at += 1
            if exponent > 1000:
                return np.float32(0.0), -1
        if at == first:
            return np.float32(0.0), -1
        power += -exponent if down else exponent
    if mantissa == 0:
        power = 0
    if power < -63 or power > 63:
        return np.float32(0.0), -1
    double = np.float64(mantissa)
    double = double / _POWERS[-power] if power < 0 else double * _POWERS[power]
    value = np.float32(double)
    if mantissa > _EXACT or power < -22 or power > 22:
        spread = double * 2.0**-50
        if np.float32(double - spread) != np.float32(double + spread):
            return np.float32(0.0), -1
    return (-value if negative else value), at


@njit(cache=True, nogil=True)
def parse(
    buf: Bytes,
    at: int,
    base: int,
    limit: int,
    indptr: Int64,
    keys: NDArray[np.int32],
    values: Float32,
    labels: Float32,
    lines: Int64,
    state: Int64,
) -> int:
    """Read lines from byte ``at`` on; return where the first line begins that is not plain, or the end.

    Parameters
    ----------
    base
        The first index; a key is an index less that.
    limit
        Keys must be below it.
    indptr, keys, values, labels, lines
        Receive the rows, and the line in which each stands.
    state
        Where the arrays are filled to; see above.
    """
    end = len(buf)
    while at < end:
        begin, entries = at, state[ENTRIES]
        beyond = state[BEYOND]
        labelled: Any = np.int64(-1)
        before: Any = np.int64(-1)
        mixed: Any = False
        while True:
            while at < end and buf[at] != _NEWLINE and _blank(buf[at]):
                at += 1
            if at < end and buf[at] == _HASH:
                while at < end and buf[at] != _NEWLINE:
                    at += 1
            if at >= end or buf[at] == _NEWLINE:
                break
            # A label, or the digits of an index.
            index: Any = np.int64(0)
            first = at
            while at < end and buf[at] >= _ZERO and buf[at] <= _NINE and at - first < 12:
                index = index * 10 + (buf[at] - _ZERO)
                at += 1
            if at < end and at > first and buf[at] == _COLON:
                key = index - base
                value, at = _number(buf, at + 1, end)
                if at < 0 or key < 0 or key >= limit or not np.isfinite(value):
                    return begin
                if labelled < 0:
                    labelled = 0
                mixed |= key <= before
                before = key
                beyond = max(beyond, key + 1)
                keys[entries] = key
                values[entries] = value
                entries += 1
            else:
                if labelled >= 0:
                    return begin
                value, at = _number(buf, first, end)
                if at < 0 or not np.isfinite(value):
                    return begin
                labelled = 1
                labels[state[ROWS]] = value
            if at < end and buf[at] != _HASH and not _blank(buf[at]):
                return begin
        if labelled >= 0:
            if state[LABELLED] >= 0 and state[LABELLED] != labelled:
                return begin
            state[LABELLED] = labelled
            lines[state[ROWS]] = state[LINE]
            state[ROWS] += 1
            state[ENTRIES] = entries
            state[DISORDER] += mixed
            state[BEYOND] = beyond
            indptr[state[ROWS]] = entries
        at += 1
        state[LINE] += 1
    return end
