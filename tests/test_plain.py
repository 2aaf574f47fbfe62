"""Plain records: which the quick kernel reads, and that it reads them as protobuf does; others read alike elsewhere."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from fmtune.data import recordio
from fmtune.data.schema import Record
from fmtune.errors import DataError
from fmtune.kernels import plain, wire

FREE = 1 << 31


def payload(keys: Any, values: Any, shape: Any = (), label: Any = (1.0,)) -> bytes:
    """Return a record as SageMaker's writers make it; several sizes of shape, or several labels, are not plain."""
    record = Record()
    tensor = record.features["values"].float32_tensor
    tensor.values.extend(values)
    tensor.keys.extend(keys)
    tensor.shape.extend(shape)
    if label is not None:
        record.label["values"].float32_tensor.values.extend(label)
    return record.SerializeToString(deterministic=True)


def numbers(content: bytes, end: int | None = None, below: int = FREE) -> Any:
    """Return (shape, label bits, keys, value bits, disorder, wild, beyond) by the quick kernels, None if not plain."""
    buf, work = np.frombuffer(bytearray(b"\xff\xff" + content + b"\xff"), np.uint8), wire.work()
    if not plain.plain(buf, 2, 2 + (len(content) if end is None else end), work):
        return None
    held, room = 3, 3 + int(work[plain.COUNT])
    keys, values = np.full(room, -7, np.int32), np.full(room, 7, np.uint32)
    disorder, wild, beyond = plain.copy(buf, work, held, keys, values, below)
    if beyond < 0:
        return None
    assert (keys[:held] == -7).all() and (values[:held] == 7).all()
    at = int(work[plain.LABEL_AT])
    label = None if at < 0 else int(wire.word(buf, at))
    shape = None if work[plain.SHAPED] < 0 else int(work[plain.SHAPED])
    return shape, label, keys[held:].tolist(), values[held:].tolist(), bool(disorder), bool(wild), int(beyond)


def bits(values: Any) -> list[int]:
    return np.array(values, np.float32).view(np.uint32).tolist()  # type: ignore[no-any-return]


def expected(keys: Any, values: Any, shape: Any = (), label: Any = (1.0,)) -> Any:
    disorder = any(b <= a for a, b in itertools.pairwise(keys))
    return (
        *(shape or [None]), None if label is None else bits(label)[0], list(keys), bits(values),
        disorder, not np.isfinite(values).all(), max(keys) + 1,
    )  # fmt: skip


TOP = float(np.finfo(np.float32).max)
MANY, LONG = range(0, 900, 9), range(0, 2 * 10**6, 400)

SIMPLE: dict[str, dict[str, Any]] = {
    "one": {"keys": [0], "values": [1.0]},
    "no label": {"keys": [3], "values": [0.0], "label": None},
    "shaped": {"keys": [0, 127, 128], "values": [1.0, -2.5, 1e-45], "shape": [129], "label": [-3.0]},
    "shape 0": {"keys": [0], "values": [0.5], "shape": [0]},
    "widest shape": {"keys": [1], "values": [0.5], "shape": [2**31 - 1], "label": None},
    "keys of every length": {"keys": [127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**28 - 1, 2**28, 2**31 - 1],
                             "values": range(9)},
    "down": {"keys": [9, 3], "values": [1.0, 2.0]},
    "twice": {"keys": [3, 3, 9], "values": [1.0, 2.0, 3.0]},
    "finite": {"keys": [1, 2], "values": [TOP, -TOP]},
    "inf": {"keys": [1, 2], "values": [float("-inf"), 0.0]},
    "nan": {"keys": [1, 2], "values": [0.0, float("nan")]},
    "a hundred": {"keys": list(MANY), "values": [0.25] * len(MANY), "shape": [10**6]},
    "five thousand": {"keys": list(LONG), "values": [0.25] * len(LONG), "label": None},
}  # fmt: skip


@pytest.mark.parametrize("name", SIMPLE)
def test_what_writers_make_is_plain_and_every_number_is_found(name: str) -> None:
    """Sizes of one, two and three bytes; with keys in any order, and numbers of any kind, which others judge."""
    below = FREE if name != "keys of every length" else 2**31
    assert numbers(payload(**SIMPLE[name]), below=below) == expected(**SIMPLE[name])


OTHERS: dict[str, bytes] = {
    "no keys": payload([], [1.0, 2.0]),
    "no numbers": payload([], [], [5]),
    "nothing": b"",
    "fewer keys": payload([1, 2], [1.0, 2.0, 3.0]),
    "fewer keys of many bytes": payload([300, 2], [1.0, 2.0, 3.0]),
    "more keys": payload([1, 2, 3], [1.0, 2.0]),
    "a matrix": payload([1], [1.0], [3, 4]),
    "a shape too wide": payload([1], [1.0], [2**31]),
    "several labels": payload([1], [1.0], label=(1.0, 2.0)),
    "an empty label": payload([1], [1.0], label=()),
    "a key of 33 bits": payload([2**33], [1.0]),
    "a key of 35 bits": payload([2**35], [1.0]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_record_is_not_plain(name: str) -> None:
    """Sound or not: it is read, or refused, by the parser of all of protobuf."""
    assert numbers(OTHERS[name]) is None


@pytest.mark.parametrize(("below", "plainly"), [(128, False), (129, True)])
def test_a_key_stands_below_what_is_asked(below: int, plainly: bool) -> None:
    """The largest of them does."""
    assert (numbers(payload(**SIMPLE["shaped"]), below=below) is not None) is plainly


def sound(content: bytes) -> Any:
    """Return what ``numbers`` should of bytes that it takes for plain, by way of protobuf."""
    record = Record.FromString(content)
    tensor = record.features["values"].float32_tensor
    label = list(record.label["values"].float32_tensor.values) if "values" in record.label else None
    assert len(record.features) == 1 and len(record.label) <= 1 and len(label or [0]) == 1 and len(tensor.shape) <= 1
    return expected(list(tensor.keys), list(tensor.values), list(tensor.shape), label)


@pytest.mark.parametrize("name", ["one", "no label", "shaped", "keys of every length", "a hundred"])
def test_a_damaged_record_is_never_taken_for_another(name: str) -> None:
    """Cut anywhere, or with any byte changed, it is not plain, or holds just what protobuf finds in it."""
    content = payload(**SIMPLE[name])
    step = 1 if len(content) < 100 else 7
    for end in range(0, len(content), step):
        found = numbers(content, end)
        assert found is None or found == sound(content[:end])
    for at in range(0, len(content), step):
        for changed in {content[at] ^ 1, content[at] ^ 128, (content[at] + 1) % 256, (content[at] - 1) % 256, 0}:
            damaged = content[:at] + bytes([changed]) + content[at + 1 :]
            found = numbers(damaged)
            if found is None:
                continue
            try:
                wanted = sound(damaged)
            except DecodeError:
                raise AssertionError(f"byte {at} as {changed}: protobuf refuses it") from None
            assert repr(found) == repr(wanted), (at, changed)


def read(content: bytes, dim: int | None) -> Any:
    """Return what a file's reader says of records: rows or a fault, and warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            rows = recordio.parse(content, dim)
        except DataError as error:
            place = str(error.where).partition(",")[0]
            return place, error.what, error.hint, [str(one.message) for one in said]
    return rows.digest(), rows.feature_dim, [str(one.message) for one in said]


BARE, LABELLED = payload([1], [1.0], label=None), payload([2], [2.0])
EXTRA = b"\x1a\x01u"  # the field uid, which nobody reads
FILES: dict[str, list[bytes]] = {
    **{name: [payload(**made)] for name, made in SIMPLE.items() if name != "five thousand"},
    "several": [payload([1, 5], [1.0, 2.0]), payload([0], [3.0]), payload([7, 2, 2], [4.0, 5.0, 6.0])],
    "shapes": [payload([1], [1.0], [9]), payload([0], [3.0], [4]), payload([8], [4.0])],
    "bare": [BARE, payload([2], [2.0], label=None)],
    "bare, labelled, bare": [BARE, LABELLED, BARE],
    "labelled, bare, labelled": [LABELLED, BARE, LABELLED],
    "a key beyond its shape": [payload([1], [1.0]), payload([9], [1.0], [9])],
    "out of order twice": [payload([5, 3], [1.0, 2.0]), payload([5, 3, 4], [1.0, 2.0, 3.0])],
}


@pytest.mark.parametrize("dim", [None, 10])
@pytest.mark.parametrize("name", FILES)
def test_records_that_are_not_plain_are_read_as_those_that_are(name: str, dim: int | None) -> None:
    """A field more, which nobody reads, leads round the quick kernel: rows, warnings and faults stay the same."""
    quick = [recordio.frame(made) for made in FILES[name]]
    slow = [recordio.frame(made + EXTRA) for made in FILES[name]]
    said = read(b"".join(quick), dim)
    assert read(b"".join(slow), dim) == said
    for mixed in (slow[:1] + quick[1:], quick[:1] + slow[1:], quick[:2] + slow[2:]):
        assert read(b"".join(mixed), dim) == said
