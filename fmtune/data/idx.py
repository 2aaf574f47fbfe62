"""IDX: the format of MNIST and its kin: a short header, then the bytes of an array; gzipped or not."""

from __future__ import annotations

import gzip
import io
import zlib

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import DataError

LARGEST = 1 << 30
"""Bytes that an unpacked file may have."""

_UINT8 = 8  # the header's code of the only type that pictures and labels use


def read(content: bytes, name: str, most: int = LARGEST) -> NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes.

    Parameters
    ----------
    content
        The file, gzipped or not.
    name
        What messages call it.
    most
        Bytes that it may have when unpacked.

    Raises
    ------
    DataError
        No IDX file, of another type, damaged, or too large.
    """
    raw = _unpacked(content, name, most)
    if len(raw) < 4 or raw[:3] != bytes([0, 0, _UINT8]) or len(raw) < 4 + 4 * raw[3]:
        raise DataError("not an IDX file of unsigned bytes", where=name, hint="get the file again")
    start = 4 + 4 * raw[3]
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", raw[3], 4))
    wanted = start + int(np.prod(shape, dtype=object))
    if len(raw) != wanted:
        what = f"{len(raw):,} bytes, and its header promises {wanted:,}"
        raise DataError(what, where=name, hint="get the file again")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _unpacked(content: bytes, name: str, most: int) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        raw = gzip.GzipFile(fileobj=io.BytesIO(content)).read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"damaged gzip: {error}", where=name, hint="get the file again") from error
    if len(raw) > most:
        raise DataError(f"more than {most:,} bytes when unpacked", where=name, hint="get the file again")
    return raw
