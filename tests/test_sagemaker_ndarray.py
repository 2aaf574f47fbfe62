"""MXNet's file of arrays: every layout that is read, and every fault by its exact text and byte."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from fmtune.errors import ModelError
from fmtune.sagemaker.ndarray import V1, V2, V3, read_arrays, write_arrays

NAMES = struct.pack("<QQ5s", 1, 5, b"arg:v")


def file(array: bytes, names: bytes = NAMES, count: int = 1, magic: int = 0x112) -> bytes:
    return struct.pack("<QQQ", magic, 0, count) + array + names


def shape(*sides: int) -> bytes:
    return struct.pack(f"<I{len(sides)}q", len(sides), *sides)


def dense(sides: bytes = shape(2), kind: int = 0, body: bytes = bytes(8), storage: int = 0, version: int = V2) -> bytes:
    return struct.pack("<Ii", version, storage) + sides + struct.pack("<iii", 1, 0, kind) + body


def sparse(
    stored: bytes = shape(2), full: bytes = shape(3), index: int = 6, rows: Any = (0, 2), indices: bytes = shape(2),
    values: Any = (5.0, 7.0),
) -> bytes:  # fmt: skip
    head = struct.pack("<Ii", V2, 1) + stored + full + struct.pack("<iii", 1, 0, 0)
    numbers = np.array(rows, "<i8" if index == 6 else "<i4").tobytes()
    return head + struct.pack("<i", index) + indices + np.array(values, "<f4").tobytes() + numbers


READ: dict[str, tuple[bytes, list[float]]] = {
    "version 2": (dense(body=struct.pack("<2f", 1, -2)), [1, -2]),
    "version 3": (dense(body=struct.pack("<2f", 1, -2), version=V3), [1, -2]),
    "version 1": (struct.pack("<I", V1) + shape(2) + struct.pack("<iii2f", 1, 0, 0, 1, -2), [1, -2]),
    "before versions": (struct.pack("<IIiii2f", 1, 2, 1, 0, 0, 1, -2), [1, -2]),
    "doubles": (dense(kind=1, body=struct.pack("<2d", 1, 1e300)), [1, np.inf]),
    "halves": (dense(kind=2, body=struct.pack("<2e", 1, -0.5)), [1, -0.5]),
    "rows that are left out": (sparse(), [5, 0, 7]),
    "rows in any order": (sparse(rows=(2, 0)), [7, 0, 5]),
    "rows numbered in 32 bits": (sparse(index=4), [5, 0, 7]),
    "no rows": (sparse(shape(0), indices=shape(0), rows=(), values=()), [0, 0, 0]),
}


@pytest.mark.parametrize("name", READ)
def test_every_layout_is_read(name: str) -> None:
    """As float32, whatever it was written as."""
    content, values = READ[name]
    found = read_arrays(file(content))
    assert list(found) == ["v"] and found["v"].dtype == np.float32 and found["v"].tolist() == values


AT = 24  # where the first array begins
HINT = "it is damaged, or no MXNet weights"
TWICE = file(dense() + dense(), struct.pack("<QQ5sQ5s", 2, 5, b"arg:v", 5, b"aux:v"), 2)
HUGE = struct.pack("<IQ", 1, 2**63)
FAULTS: dict[str, tuple[bytes, int, str]] = {
    "another magic": (file(dense(), magic=0x113), AT, "the file of weights does not begin as MXNet's do"),
    "many arrays": (file(b"", count=65), AT, "65 arrays; a factorization machine has three"),
    "more names": (file(dense(), struct.pack("<Q", 2)), 72, "2 names for 1 arrays"),
    "a name twice": (TWICE, 138, "two arrays are named 'v'"),
    "bytes behind": (file(dense(), NAMES + b"xyz"), 85, "3 bytes follow the last name"),
    "a long name": (file(dense(), struct.pack("<QQ", 1, 257) + bytes(300)), 80, "a name of 257 bytes"),
    "a name cut": (file(dense(), struct.pack("<QQ", 1, 6) + b"arg:v"), 80, "a name of 6 bytes"),
    "nine dimensions": (file(dense(shape(*range(1, 10)))), 36, "an array of 9 dimensions"),
    "a side below 0": (file(dense(shape(-1))), 44, "an impossible shape (-1,)"),
    "an endless side": (file(dense(shape(2**40))), 44, f"an impossible shape ({2**40},)"),
    "another storage": (file(dense(storage=2)), 32,
                        "an array of storage 2; weights are dense (0) or row_sparse (1)"),
    "no shape": (file(dense(shape())), 36, "an array without a shape"),
    "whole numbers": (file(dense(kind=4)), 56, "an array of type 4; weights are floating-point numbers"),
    "more than there is": (file(dense(shape(100)), b""), 56, "an array of 400 bytes; 8 are left"),
    "indices of another type": (file(sparse(index=0)), 84, "a row_sparse array whose parts do not fit each other"),
    "rows of another width": (file(sparse(shape(1, 2), shape(3, 3))), 100,
                              "a row_sparse array whose parts do not fit each other"),
    "rows of another kind": (file(sparse(shape(1, 3), shape(3))), 92,
                             "a row_sparse array whose parts do not fit each other"),
    "rows and numbers": (file(sparse(indices=shape(3))), 84, "(3,) row numbers for 2 rows"),
    "a row below 0": (file(sparse(rows=(-1, 2))), 108, "row numbers outside 0 to 2, or twice the same"),
    "a row beyond": (file(sparse(rows=(0, 3))), 108, "row numbers outside 0 to 2, or twice the same"),
    "a row twice": (file(sparse(rows=(1, 1))), 108, "row numbers outside 0 to 2, or twice the same"),
    "a bomb": (file(sparse(full=shape(2**39))), 108, f"an array of shape ({2**39},) in a file of 129 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_byte(name: str) -> None:
    """Before anything of the claimed size is made."""
    content, byte, what = FAULTS[name]
    with pytest.raises(ModelError) as error:
        read_arrays(content, "m: params")
    assert str(error.value) == f"m: params: byte {byte}: {what}\n  hint: {HINT}"


def test_a_file_that_breaks_off_says_so() -> None:
    """Within any number; the default place is the member's name."""
    for content in (b"", file(dense())[:30], file(dense(), struct.pack("<I", 1))):
        with pytest.raises(ModelError) as error:
            read_arrays(content)
        assert str(error.value) == "params: the file of weights is cut short\n  hint: download it again"


def test_what_is_written_is_version_two_of_the_layout() -> None:
    """Dense, and row_sparse with all its rows."""
    made = write_arrays({"v": np.float32([5, 7])})
    assert made == file(dense(body=struct.pack("<2f", 5, 7)))
    made = write_arrays({"v": np.float32([5, 7])}, frozenset({"v"}))
    assert made == file(sparse(full=shape(2), rows=(0, 1)))
