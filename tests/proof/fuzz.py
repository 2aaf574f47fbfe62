"""Fuzzing: R4 and R5, damaged inputs on every surface where bytes from outside come in.

A surface is a function of bytes that returns, or raises an error of ours.  Anything else (another exception, a hang)
is a finding; findings are kept in ``tests/proof/found``, ``<surface>-<n>``, and tried by the tests.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import struct
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather

from fmtune.data import libsvm, npz, recordio
from fmtune.data.columns import Columns
from fmtune.data.index import write_index
from fmtune.data.preparation import Tables, prepare
from fmtune.data.sidecar import read_vocabulary, write_vocabulary
from fmtune.data.source import read_channel
from fmtune.errors import FmtuneError
from fmtune.fm.model import Model
from fmtune.sagemaker import artifact, inference, ndarray, verbs
from fmtune.tune import spec as specs
from tests import fm_reference as reference
from tests.study_fixtures import STUDY
from tests.test_sagemaker_tuning_job import JOB

# A parser that takes longer for some kB hangs, for its user.
SECONDS = 5.0

_NUMBERS = (0, 1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_WORDS = (
    b"NaN", b"1e999", b"-1", b"-0", b"1e-400", b"null", b"true", b"{}", b"[]", b'"', b"\\u0000", b"\xff", b"\xc3\x28",
    b"0x10", b"9" * 400, b"[" * 200, b"{" * 200, b"&a", b"*a", b"!!python/object", b"\t", b"\x00", b"\r\n", b": ",
    b"1..2", b"1..0 log", b"%", b"\xef\xbb\xbf", b"../../x", b"1:1", b"0:", b"5:inf", b"- ",
)  # fmt: skip


# What stands in JSON where something else belongs.
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**64, 1e308, -0.5, float("nan"), float("inf"), "", "x", "1", "-1e999", "\ud800", "\0",
    "9" * 400, [], {}, [[]], [1, "a", None], {"x": 1},
)  # fmt: skip


class Surface(NamedTuple):
    """Where bytes come in: the parser, and valid specimens to damage; ``json`` says that they are JSON as a whole."""

    parse: Callable[[bytes], object]
    specimens: tuple[bytes, ...]
    text: bool = False
    json: bool = False


def rearranged(draw: random.Random, value: Any) -> Any:
    """Return JSON values with a node replaced, left out, doubled or exchanged for a part of itself."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(_VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, made = draw.choice(keys), value.copy()
    match draw.randrange(8):
        case 0:
            del made[key]
        case 1 if isinstance(made, list):
            made.append(made[key])
        case 1:
            made[draw.choice(("x", "", f"{key} ", str(draw.choice(_VALUES))))] = made.pop(key)
        case 2:
            made[key] = draw.choice(list(value.values()) if isinstance(value, dict) else value)
        case _:
            made[key] = rearranged(draw, made[key])
    return made


def mutated(draw: random.Random, whole: tuple[bytes, ...], text: bool) -> bytes:
    """Return a specimen with one to four damages: bits, slices moved, cut or doubled, lengths and words of ill fame."""
    body = bytearray(draw.choice(whole))
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, size = draw.randrange(len(body) + 1), draw.choice((1, 2, 4, 8, 32))
        match draw.randrange(8):
            case 0 if body:
                body[at % len(body)] ^= 1 << draw.randrange(8)
            case 1:
                del body[at : at + size]
            case 2:
                body[at:at] = body[at : at + size] * draw.choice((1, 3))
            case 3:
                other = draw.choice(whole)
                start = draw.randrange(len(other) + 1)
                body[at : at + size] = other[start : start + size]
            case 4 if not text:
                code = draw.choice(("<I", ">I", "<Q", "B", "<H"))
                most = 2 ** (8 * struct.calcsize(code)) - 1
                body[at : at + struct.calcsize(code)] = struct.pack(code, draw.choice(_NUMBERS) & most)
            case 4 | 5:
                body[at : at + draw.choice((0, size))] = draw.choice(_WORDS)
            case 6:
                del body[at:]
            case 7 if not text:
                body[at:at] = draw.randbytes(size)
    return bytes(body)


def damaged(draw: random.Random, surface: Surface) -> bytes:
    """Return a damaged specimen of a surface: half of JSON's damages leave it JSON."""
    if surface.json and draw.random() < 0.5:
        value = json.loads(draw.choice(surface.specimens))
        for _ in range(draw.choice((1, 1, 2, 4))):
            value = rearranged(draw, value)
        return json.dumps(value).encode()
    return mutated(draw, surface.specimens, surface.text)


def fuzz(surface: Surface, count: int, seed: int = 0) -> tuple[int, list[str]]:
    """Give a surface ``count`` damaged inputs; returns how many it accepted, and the findings."""
    draw, accepted, found = random.Random(seed), 0, []
    for _ in range(count):
        body = damaged(draw, surface)
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                surface.parse(body)
            accepted += 1
        except FmtuneError:
            pass
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}: {body.hex()}")
        if time.process_time() - began > SECONDS:
            found.append(f"{time.process_time() - began:.0f} s: {body.hex()}")
    return accepted, found


def flips(parse: Callable[[bytes], object], whole: bytes) -> tuple[int, int]:
    """Return how many flips of a bit and cuts at a byte there are, and how many of them are refused."""
    damaged = [whole[:n] for n in range(len(whole))]
    for bit in range(8 * len(whole)):
        body = bytearray(whole)
        body[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(body))
    refused = 0
    for body in damaged:
        try:
            parse(body)
        except FmtuneError:
            refused += 1
    return len(damaged), refused


def model() -> Model:
    """Return a small model."""
    draw = np.random.default_rng(3)
    linear, factors = draw.normal(size=6).astype(np.float32), draw.normal(size=(6, 3)).astype(np.float32)
    return Model("binary_classifier", 0.5, linear, factors, {"study_name": "small"})


def _file(read: Callable[[Path], object], suffix: str = "") -> Callable[[bytes], object]:
    """Return a function of bytes from one of a path."""
    path = Path(tempfile.mkdtemp()) / f"input{suffix}"

    def parse(body: bytes) -> object:
        path.write_bytes(body)
        return read(path)

    return parse


def indexed(path: Path, body: bytes) -> Callable[[bytes], object]:
    """Return a reader of bytes in the place of a data file that was indexed when it was ``body``."""
    path.write_bytes(body)
    write_index(path)

    def parse(body: bytes) -> object:
        path.write_bytes(body)
        return read_channel(path)

    return parse


def _tables() -> dict[str, Surface]:
    """Return the formats of tables, and the vocabulary that is made of one."""
    frame = pd.DataFrame({
        "user": ["a", "b", "007", "a", "c", "b"], "tags": ["x|y", "y", "", "x", "z|x", "y"],
        "age": [31.5, 40.0, None, 22.25, 31.0, 60.5], "y": [1, 0, 0, 1, 0, 1],
    })  # fmt: skip
    folder = Path(tempfile.mkdtemp())
    frame.to_parquet(folder / "parquet")
    pyarrow.feather.write_feather(pa.Table.from_pandas(frame), folder / "arrow", compression="uncompressed")
    columns = Columns("y", categorical=("user",), multivalued=("tags",), numeric=("age",))
    write_vocabulary(Tables(_with(folder / "t.csv", frame.to_csv(index=False).encode()), columns).fit(), folder / "v")

    def table(suffix: str) -> Callable[[bytes], object]:
        return _file(lambda path: prepare({"train": path}, columns), suffix)

    return {
        "csv": Surface(table(".csv"), ((folder / "t.csv").read_bytes(),), True),
        "JSON lines of a table": Surface(
            table(".jsonl"), (frame.to_json(orient="records", lines=True).encode(),), True
        ),
        "Parquet": Surface(table(".parquet"), ((folder / "parquet").read_bytes(),)),
        "Arrow": Surface(table(".arrow"), ((folder / "arrow").read_bytes(),)),
        "vocabulary": Surface(_file(read_vocabulary, ".json"), ((folder / "v").read_bytes(),), True, True),
    }


def _with(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    return path


def _written(write: Callable[[io.BytesIO, object], object], value: object) -> bytes:
    stream = io.BytesIO()
    write(stream, value)
    return stream.getvalue()


def surfaces() -> dict[str, Surface]:
    """Return every surface by its name."""
    sparse = reference.rows(6, 9, 3)
    dense = sparse.to_dense()
    folder, tarred = Path(tempfile.mkdtemp()), _file(artifact.import_artifact)
    artifact.export_artifact(model(), folder / "sparse.tar.gz")
    artifact.export_artifact(model(), folder / "dense.tar.gz", dense=True)
    packed = tuple(path.read_bytes() for path in sorted(folder.iterdir()))
    arrays = {"w1": np.ones((4, 1), np.float32), "v": np.ones((4, 2), np.float32)}
    one = b'{"instances": [{"data": {"features": {"keys": [0, 5], "shape": [6], "values": [1.5, -2]}}}]}'
    two = b'{"instances": [{"features": [1, 2, 3, 4, 5, 6.5]}, {"features": [0, 0, 0, 0, 0, 0]}]}'
    lines = (one[15:-2] + b"\n") * 2
    records = tuple(_written(recordio.write, rows) for rows in (sparse, dense))
    return {
        "RecordIO and protobuf": Surface(recordio.parse, records),
        "RecordIO requests": Surface(lambda body: inference.read_records(body, 9), records),
        "libsvm": Surface(_file(libsvm.read), (_written(libsvm.write, sparse), b"1 1:0.5 3:2 # x\n-1 2:1\n"), True),
        "npz": Surface(_file(npz.read, ".npz"), tuple(_written(npz.write, rows) for rows in (sparse, dense))),
        "JSON": Surface(lambda body: inference.read_json(body, 6), (one, two), True, True),
        "JSON lines": Surface(lambda body: inference.read_lines(body, 6), (lines, two[15:-2] + b"\n"), True),
        "study file": Surface(_file(specs.read, ".yaml"), (STUDY.encode(),), True),
        # The digest would see every damage: it is put right, so that what lies behind it is reached.
        "model": Surface(lambda it: Model.from_bytes(it + hashlib.sha256(it).digest()), (model().to_bytes()[:-32],)),
        "SageMaker's arrays": Surface(
            ndarray.read_arrays, (ndarray.write_arrays(arrays), ndarray.write_arrays(arrays, frozenset(arrays)))
        ),
        "model.tar.gz": Surface(tarred, packed),
        "tuning job": Surface(_file(verbs.import_tuning_job, ".json"), (json.dumps(JOB).encode(),), True, True),
        **_tables(),
        # Gzip's checksum would see every damage: it is made after it.
        "model.tar": Surface(lambda it: tarred(gzip.compress(it, 1)), tuple(map(gzip.decompress, packed))),
    }  # fmt: skip
