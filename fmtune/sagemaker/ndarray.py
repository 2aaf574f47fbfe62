"""NDArray lists: MXNet's parameter file, read into plain matrices and written.

All little endian::

    u64 0x112 | u64 0 | u64 arrays | each array | u64 names | each name: u64 length, bytes

An array (V2, magic 0xF993FAC9; V3, ...CA, differs in nothing that a weight uses)::

    u32 magic | i32 storage (0 dense, 1 row_sparse) | storage shape, if row_sparse | shape
    i32 device, i32 its number | i32 type | type and shape of the row numbers, if row_sparse | values | row numbers

with a shape as u32 dimensions, i64 each.  V1 (...C8) has no storage; before it the first word was the number
of dimensions, of 32 bits each.  Every length is checked against the file before memory is taken.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import ModelError

Float32 = NDArray[np.float32]

LIST = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DENSE, ROW_SPARSE = 0, 1
_TYPES: dict[int, str] = {0: "<f4", 1: "<f8", 2: "<f2"}
_INDEX_TYPES: dict[int, str] = {4: "<i4", 6: "<i8"}
MAX_ARRAYS = 64
_SPARE = 1 << 28
"""Bytes that rows left out of a row_sparse array may come to, whatever the file's size."""


def read_arrays(content: bytes, where: str = "params") -> dict[str, Float32]:
    """Return every array as a float32 matrix or vector, by name without ``arg:`` or ``aux:``.

    Rows that a row_sparse array does not store are zero.

    Raises
    ------
    ModelError
        Not such a file, cut off, longer than it says, or with shapes that do not fit its length.
    """
    try:
        return _Reader(content, where).arrays()
    except struct.error as error:
        raise ModelError("the file of weights is cut short", where=where, hint="download it again") from error


class _Reader:
    """One file, and how far it is read."""

    def __init__(self, content: bytes, where: str) -> None:
        self.content, self.where, self.at = content, where, 0

    def fault(self, what: str) -> ModelError:
        return ModelError(what, where=f"{self.where}: byte {self.at}", hint="it is damaged, or no MXNet weights")

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self.content, self.at)
        self.at += struct.calcsize(form)
        return values

    def arrays(self) -> dict[str, Float32]:
        magic, _, count = self.take("<QQQ")
        if magic != LIST:
            raise self.fault("the file of weights does not begin as MXNet's do")
        if count > MAX_ARRAYS:
            raise self.fault(f"{count} arrays; a factorization machine has three")
        found = [self.array() for _ in range(count)]
        (names,) = self.take("<Q")
        if names != count:
            raise self.fault(f"{names} names for {count} arrays")
        made: dict[str, Float32] = {}
        for array in found:
            name = self.name()
            if name in made:
                raise self.fault(f"two arrays are named {name!r}")
            made[name] = array
        if self.at != len(self.content):
            raise self.fault(f"{len(self.content) - self.at} bytes follow the last name")
        return made

    def name(self) -> str:
        (length,) = self.take("<Q")
        if length > 256 or length > len(self.content) - self.at:
            raise self.fault(f"a name of {length} bytes")
        raw = self.content[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", "backslashreplace").removeprefix("arg:").removeprefix("aux:")

    def shape(self, dimensions: int, size: str = "q") -> tuple[int, ...]:
        if dimensions > 8:
            raise self.fault(f"an array of {dimensions} dimensions")
        shape = self.take(f"<{dimensions}{size}")
        # Of no numbers at all, too, numpy wants the rest of the shape to be possible.
        if any(n < 0 or n >= 2**40 for n in shape) or math.prod(n or 1 for n in shape) >= 2**56:
            raise self.fault(f"an impossible shape {shape}")
        return shape

    def full_shape(self) -> tuple[int, ...]:
        return self.shape(self.take("<I")[0])

    def array(self) -> Float32:
        (magic,) = self.take("<I")
        storage = DENSE
        stored: tuple[int, ...] | None = None
        if magic in (V2, V3):
            (storage,) = self.take("<i")
            if storage not in (DENSE, ROW_SPARSE):
                raise self.fault(f"an array of storage {storage}; weights are dense (0) or row_sparse (1)")
            stored = self.full_shape() if storage == ROW_SPARSE else None
            shape = self.full_shape()
        elif magic == V1:
            shape = self.full_shape()
        else:
            shape = self.shape(magic, "I")
        if not shape:
            raise self.fault("an array without a shape")
        _, _, kind = self.take("<iii")
        if kind not in _TYPES:
            raise self.fault(f"an array of type {kind}; weights are floating-point numbers")
        if stored is None:
            values = self.numbers(_TYPES[kind], math.prod(shape)).reshape(shape)
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
                return values.astype(np.float32)
        return self.row_sparse(_TYPES[kind], stored, shape)

    def numbers(self, kind: str, count: int) -> NDArray[Any]:
        size = count * np.dtype(kind).itemsize
        if size > len(self.content) - self.at:
            raise self.fault(f"an array of {size} bytes; {len(self.content) - self.at} are left")
        found = np.frombuffer(self.content, kind, count, self.at)
        self.at += size
        return found

    def row_sparse(self, kind: str, stored: tuple[int, ...], shape: tuple[int, ...]) -> Float32:
        index_kind, dimensions = self.take("<iI")
        index_shape = self.shape(dimensions)
        if index_kind not in _INDEX_TYPES or len(stored) != len(shape) or stored[1:] != shape[1:]:
            raise self.fault("a row_sparse array whose parts do not fit each other")
        if index_shape != stored[:1]:
            raise self.fault(f"{index_shape} row numbers for {stored[0]} rows")
        values = self.numbers(kind, math.prod(stored)).reshape(stored)
        rows = self.numbers(_INDEX_TYPES[index_kind], stored[0])
        if len(rows) and (rows.min() < 0 or rows.max() >= shape[0] or len(np.unique(rows)) != len(rows)):
            raise self.fault(f"row numbers outside 0 to {shape[0] - 1}, or twice the same")
        if 4 * math.prod(shape) > _SPARE + 16 * len(self.content):
            raise self.fault(f"an array of shape {shape} in a file of {len(self.content)} bytes")
        full = np.zeros(shape, np.float32)
        with np.errstate(over="ignore"):
            full[rows] = values
        return full


def write_arrays(arrays: Mapping[str, Float32], row_sparse: frozenset[str] = frozenset()) -> bytes:
    """Return the content of a parameter file (V2), arrays in the given order, named ``arg:...``.

    Parameters
    ----------
    arrays
        Vectors and matrices by name.
    row_sparse
        Which are stored as row_sparse; all their rows are.
    """
    parts = [struct.pack("<QQQ", LIST, 0, len(arrays))]
    for name, array in arrays.items():
        sparse = name in row_sparse
        shape = struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
        parts += [struct.pack("<Ii", V2, ROW_SPARSE if sparse else DENSE), shape * (2 if sparse else 1)]
        parts.append(struct.pack("<iii", 1, 0, 0))
        if sparse:
            parts.append(struct.pack("<iIq", 6, 1, len(array)))
        parts.append(np.ascontiguousarray(array, "<f4").tobytes())
        if sparse:
            parts.append(np.arange(len(array), dtype="<i8").tobytes())
    parts.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        label = f"arg:{name}".encode()
        parts += [struct.pack("<Q", len(label)), label]
    return b"".join(parts)
