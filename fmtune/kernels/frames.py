"""Frames: where the records of a RecordIO file begin and end.

A file is frames: ``magic, length, payload, zeros up to a multiple of four``; the top three bits of the length
say whether the payload is whole (0) or the first, a middle or the last part of a record (1, 2, 3), in which
case the magic stood between the parts and was dropped (dmlc).  SageMaker's own writers never split a record.

The first pass checks and counts, so that what the second one fills is bounded by bytes that are really there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fmtune.kernels.wire import Bytes, Int64, compiled, fail, word

MAGIC = 0xCED7230A
LONGEST = 16 << 20
"""Bytes of a record, its parts joined."""

# Faults: codes below those of wire.
HEADER, NOT_MAGIC, TOO_LONG, BODY, PADDING, DIRTY, PARTS = 1, 2, 3, 4, 5, 6, 7
WHOLE = 3
"""Where ``work`` holds the byte after the last whole record, when a fault was found."""


@compiled
def count_frames(buf: Bytes, work: Int64) -> Any:
    """Return (records, bytes of all payloads joined, or 0 if no record has parts); records < 0 is a fault.

    A fault in record ``r`` (from 0) gives ``-1 - r``, and ``work[WHOLE]`` the byte where it begins.
    """
    at, end = np.int64(0), len(buf)
    records, joined, size = 0, np.int64(0), np.int64(0)
    parts, within = False, False
    work[WHOLE] = 0
    while at < end:
        bad = 0
        length, flag = np.int64(0), np.int64(0)
        if end - at < 8:
            # A torn header may still show that this is no frame at all.
            bad = HEADER
            if end - at >= 4 and word(buf, at) != np.uint32(MAGIC):
                bad = NOT_MAGIC
        elif word(buf, at) != np.uint32(MAGIC):
            bad = NOT_MAGIC
        else:
            head = np.int64(word(buf, at + 4))
            length, flag = head & ((1 << 29) - 1), head >> 29
            size = (size + 4 if within else 0) + length
            if flag > 3 or size > LONGEST:
                length, bad = head if flag > 3 else size, TOO_LONG
            elif length > end - at - 8:
                bad = BODY
            elif within != (flag > 1):
                bad = PARTS
            elif -length % 4 > end - at - 8 - length:
                bad = PADDING
        if bad:
            fail(work, bad, at, length)
            return -1 - records, 0
        for i in range(at + 8 + length, at + 8 + length + -length % 4):
            if buf[i] != 0:
                fail(work, DIRTY, i, 0)
                return -1 - records, 0
        parts |= flag != 0
        within = flag == 1 or flag == 2
        at += 8 + length + -length % 4
        if not within:
            records += 1
            joined += size
            work[WHOLE] = at
    if within:
        fail(work, PARTS, end, 0)
        return -1 - records, 0
    return records, (joined if parts else 0)


@compiled
def list_frames(buf: Bytes, joined: Bytes, frames: Int64, starts: Int64, stops: Int64) -> None:
    """Fill each record's first byte in the file, and its payload's range in ``joined`` (or, that empty, ``buf``)."""
    at, record, into = np.int64(0), 0, np.int64(0)
    within = False
    copy = len(joined) > 0
    while at < len(buf):
        head = np.int64(word(buf, at + 4))
        length, flag = head & ((1 << 29) - 1), head >> 29
        if not within:
            frames[record] = at
            starts[record] = into if copy else at + 8
        else:  # parts are always copied
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
