"""The wire-format parser against the protobuf package: what it accepts, what it rejects, and every bit it reads.

Where fmtune is stricter on purpose (``FAULTS`` above ``GARBAGE``: keys out of range, keys and values of different
length, no features ...), protobuf accepts; these cases are told apart by the fault's code.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from fmtune.data.recordio import frame
from fmtune.data.schema import Record
from fmtune.kernels import frames, records, wire

DIM = 2**31 - 1


def load(payload: bytes) -> tuple[int, Any]:
    """Return (0, (kind, keys, bits, label bits or None)) or (fault's code, None) for a file of one record."""
    buf = np.frombuffer(bytearray(frame(payload)), np.uint8)
    work, none = wire.work(), (np.zeros(0, np.uint32), np.zeros(0, np.uint64))
    assert frames.count_frames(buf, work) == (1, 0)
    at = [np.zeros(1, np.int64) for _ in range(3)]
    frames.list_frames(buf, np.zeros(0, np.uint8), *at)
    kinds, totals = np.zeros(1, np.int8), np.zeros(records.TOTALS, np.int64)
    record, most, most_label = records.measure(buf, at[1], at[2], *none, work, kinds, totals)
    if record >= 0:
        return int(work[0]), None
    work[wire.LABEL + wire.FROM] = most
    room = np.zeros(most + most_label, np.uint32), np.zeros(most + most_label, np.uint64)
    labels = np.zeros(min(totals[records.LABELLED], 1), np.uint32)
    size = int(totals[records.ENTRIES])
    indptr, keys, bits = np.zeros(2, np.int64), np.zeros(size, np.int32), np.zeros(size, np.uint32)
    if kinds[0] == records.DENSE:
        records.fill_dense(buf, at[1], at[2], *room, work, bits.reshape(1, -1), labels)
        return 0, ("dense", [], quiet(bits), quiet(labels))
    if records.fill_sparse(buf, at[1], at[2], DIM, *room, work, indptr, keys, bits, labels, totals) >= 0:
        return int(work[0]), None
    return 0, ("sparse", keys.tolist(), quiet(bits), quiet(labels))


def quiet(bits: Any) -> list[int]:
    """Return float32 bits with every NaN the same: Python's floats keep no signalling one, and all are refused."""
    return np.where(bits & 0x7FFFFFFF > 0x7F800000, 0x7FC00000, bits).tolist()  # type: ignore[no-any-return]


def numbers(value: Any) -> tuple[Any, list[int]]:
    """Return (tensor or None, bits of its values as float32) of a Value message."""
    kind = value.WhichOneof("value")
    if kind in (None, "bytes"):
        return None, []
    tensor = getattr(value, kind)
    exact = np.array(list(tensor.values), {"float32_tensor": "f4", "float64_tensor": "f8", "int32_tensor": "i4"}[kind])
    with np.errstate(over="ignore", invalid="ignore"):
        return tensor, quiet(exact.astype(np.float32).view(np.uint32))


def reference(payload: bytes) -> tuple[int, Any]:
    """Return what ``load`` should, by way of the protobuf package."""
    try:
        record = Record.FromString(payload)
    except DecodeError:
        return wire.GARBAGE, None
    features, label = (group.get("values") for group in (record.features, record.label))
    if features is None or features.WhichOneof("value") is None:
        return records.NO_FEATURES, None
    if features.WhichOneof("value") == "bytes":
        return records.RAW_FEATURES, None
    tensor, bits = numbers(features)
    keys, shape = list(tensor.keys), list(tensor.shape)
    size = 1
    for side in shape:
        size *= side
    if keys and len(keys) != len(bits):
        return records.UNEQUAL, None
    if not keys and bits and shape and size != len(bits):
        return records.SHAPE, None
    if shape and size > DIM:
        return records.WIDE_SHAPE, None
    if label is not None and label.WhichOneof("value") == "bytes":
        return records.RAW_LABEL, None
    for key in keys:
        if key >= DIM:
            return records.KEY, None
        if shape and key >= size:
            return records.KEY_SHAPE, None
    labels = numbers(label)[1][:1] if label is not None else []
    return 0, ("dense" if bits and not keys else "sparse", keys, bits, labels)


def varint(value: int, pad: int = 0) -> bytes:
    """Return a varint, with ``pad`` needless bytes behind it."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value]) if not pad else bytes([*parts, value | 128] + [128] * (pad - 1) + [0])


def field(number: int, kind: int, content: bytes, pad: int = 0) -> bytes:
    """Return a field: tag, size where the wire type has one, content."""
    size = varint(len(content), pad) if kind == 2 else b""
    return varint(number << 3 | kind) + size + content


def odd(draw: random.Random) -> bytes:
    """Return some field that the schema does not know, or knows with another wire type."""
    number = draw.choice([1, 2, 3, 4, 5, 7, 9, 15, 16, 1000, 2**29 - 1])
    kind = draw.choice([0, 1, 2, 3, 5])
    content = {
        0: varint(draw.getrandbits(draw.choice([3, 40, 64]))),
        1: bytes(8),
        2: draw.randbytes(draw.randrange(4)),
        5: bytes(4),
    }
    if kind == 3:
        depth = draw.choice([1, 2, 96, 97, 98, 99, 100, 101])
        return varint(number << 3 | 3) * depth + varint(number << 3 | 4) * depth
    return field(number, kind, content[kind])


def tensor(draw: random.Random, kind: int) -> bytes:
    """Return a tensor's bytes: chunks of values, keys and shape, packed or not, in any order."""
    n = draw.choice([0, 0, 1, 2, 3, 40])
    code = {2: "<f", 3: "<d", 7: None}[kind]
    wide = {2: 5, 3: 1, 7: 0}[kind]
    values = [
        struct.pack(code, draw.choice([0.0, -0.0, 1.5, 1e-40, 3e38, float("inf"), float("nan"), draw.gauss(0, 1)]))
        if code
        else varint(draw.choice([0, 1, 2**31 - 1, 2**64 - 5, 2**32 + 7, 2**24 + 1]))
        for _ in range(n)
    ]
    keys = [
        varint(draw.choice([0, 1, 5, 300, 70_000, 2**28, draw.randrange(2**31)]), draw.choice([0, 0, 0, 2]))
        for _ in range(n)
    ]
    chunks = []
    for number, items, scalar in ((1, values, wide), (2, keys if draw.random() < 0.7 else [], 0)):
        if draw.random() < 0.6:
            chunks.append(field(number, 2, b"".join(items), draw.choice([0, 0, 0, 1, 3])))
        else:
            chunks += [field(number, scalar, item) for item in items]
    if draw.random() < 0.6:
        chunks.append(field(3, 2, varint(draw.choice([n, 1000, 2**31 - 1, 2**31, 2**63]))))
    if draw.random() < 0.2:
        chunks.append(odd(draw))
    if draw.random() < 0.3:
        draw.shuffle(chunks)
    return b"".join(chunks)


def value(draw: random.Random) -> bytes:
    """Return a Value's bytes, mostly one Float32Tensor."""
    parts = []
    for _ in range(draw.choice([0, 1, 1, 1, 1, 1, 2, 3])):
        kind = draw.choice([2, 2, 2, 2, 3, 7, 9])
        parts.append(field(kind, 2, field(1, 2, b"abc") if kind == 9 else tensor(draw, kind)))
    if draw.random() < 0.1:
        parts.append(odd(draw))
    return b"".join(parts)


def record(draw: random.Random) -> bytes:
    """Return a valid record, often an odd one."""
    parts = []
    for number in [1, 2] if draw.random() < 0.6 else draw.choices([1, 2], k=draw.randrange(5)):
        name = draw.choice([b"values"] * 8 + [b"other", b"", b"\xff"])
        entry = [field(1, 2, name), field(2, 2, value(draw))]
        if draw.random() < 0.2:
            entry.append(draw.choice([field(1, 2, b"values"), field(2, 2, value(draw)), odd(draw)]))
        if draw.random() < 0.2:
            draw.shuffle(entry)
        parts.append(field(number, 2, b"".join(entry)))
    if draw.random() < 0.2:
        parts.append(draw.choice([field(3, 2, b"uid"), field(5, 2, b"{}"), odd(draw)]))
    return b"".join(parts)


def mutated(draw: random.Random, payload: bytes) -> bytes:
    """Return the record with a few bits flipped, bytes put in, taken out or doubled, or its end cut off."""
    body = bytearray(payload)
    for _ in range(draw.choice([1, 1, 2, 4])):
        at = draw.randrange(len(body) + 1)
        match draw.randrange(5):
            case 0 if at < len(body):
                body[at] ^= 1 << draw.randrange(8)
            case 1:
                body[at:at] = bytes([draw.choice([0, 1, 0x80, 0xFF, 0x0A, 0x12, 0x0B, 0x0C, draw.randrange(256)])])
            case 2:
                del body[at : at + draw.randrange(1, 4)]
            case 3:
                body[at:at] = body[at : at + draw.randrange(1, 20)]
            case 4 if draw.random() < 0.3:
                del body[at:]
    return bytes(body)


def test_valid_records_are_read_bit_for_bit() -> None:
    """Keys, values and labels of 2,000 odd but valid records equal protobuf's, down to the sign of a zero."""
    draw = random.Random(1)
    accepted = 0
    for _ in range(2000):
        payload = record(draw)
        assert load(payload) == reference(payload), payload.hex()
        accepted += load(payload)[0] == 0
    assert accepted > 300


def test_mutated_records_are_accepted_or_rejected_alike() -> None:
    """Of 3,000 damaged records protobuf rejects exactly those that we call garbage; the rest reads the same."""
    draw = random.Random(2)
    codes: dict[int, int] = {}
    for _ in range(3000):
        payload = mutated(draw, record(draw))
        ours = load(payload)
        assert ours == reference(payload), payload.hex()
        codes[ours[0]] = codes.get(ours[0], 0) + 1
    assert min(codes.get(code, 0) for code in (0, wire.GARBAGE, records.UNEQUAL, records.NO_FEATURES)) > 10


LONG = b"\x80" * 9
LIMITS = {
    "a varint of ten bytes": (b"\x50" + LONG + b"\x7f", records.NO_FEATURES),
    "a varint of eleven bytes": (b"\x50" + LONG + b"\x80\x00", wire.GARBAGE),
    "a size in five bytes": (b"\x1a" + b"\x80" * 4 + b"\x00", records.NO_FEATURES),
    "a size in six bytes": (b"\x1a" + b"\x80" * 5 + b"\x00", wire.GARBAGE),
    "a size of 2^31": (b"\x1a\x80\x80\x80\x80\x08", wire.GARBAGE),
    "the largest field number": (b"\xfd\xff\xff\xff\x0f" + bytes(4), records.NO_FEATURES),
    "a tag beyond 32 bits": (b"\xfd\xff\xff\xff\x1f" + bytes(4), wire.GARBAGE),
    "field number 0": (b"\x02\x00", wire.GARBAGE),
    "wire type 6": (b"\x56", wire.GARBAGE),
    "a group that ends before it begins": (b"\x54", wire.GARBAGE),
    "a group that ends as another": (b"\x53\x5c", wire.GARBAGE),
    "a group without end": (b"\x53", wire.GARBAGE),
    "100 groups in one another": (b"\x53" * 100 + b"\x54" * 100, records.NO_FEATURES),
    "field number 0 inside a group": (b"\x53\x00\x00\x54", records.NO_FEATURES),
    "101 groups in one another": (b"\x53" * 101 + b"\x54" * 101, wire.GARBAGE),
    "nothing at all": (b"", records.NO_FEATURES),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_protobufs(name: str) -> None:
    """Overlong varints, huge sizes and nested groups end where protobuf's own decoder ends them."""
    payload, code = LIMITS[name]
    assert load(payload)[0] == reference(payload)[0] == code


@pytest.mark.parametrize("level", range(4))
def test_groups_nest_as_deep_as_in_protobuf(level: int) -> None:
    """100 levels in all, counting map entry, value and tensor."""
    for depth in range(95, 103):
        payload = b"\x53" * depth + b"\x54" * depth
        for number in (2, 2, 1)[3 - level :]:
            payload = field(number, 2, payload)
        assert (load(payload)[0] == wire.GARBAGE) == (reference(payload)[0] == wire.GARBAGE) == (depth > 100 - level)


def test_frames_of_hostile_bytes_never_reach_beyond_the_file() -> None:
    """Frames cut, flipped or made of noise give records or a fault; a fault names a byte of the file."""
    draw = random.Random(3)
    whole = b"".join(frame(record(draw)) for _ in range(3))
    for _ in range(2000):
        buf = np.frombuffer(bytearray(mutated(draw, whole)), np.uint8)
        work = wire.work()
        count, joined = frames.count_frames(buf, work)
        if count >= 0:
            assert 8 * count <= len(buf) and joined <= 2 * len(buf)
        else:
            assert 0 < work[0] < wire.GARBAGE and 0 <= work[1] <= len(buf)
