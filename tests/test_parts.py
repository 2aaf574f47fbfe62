"""Parts: files read in blocks by several threads give what they give read at one go, and name the same faults."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_recordio import BAD, BAD_DENSE, DENSE, GOOD, records
from test_wire import field, varint

from fmtune.data import libsvm, parts, recordio
from fmtune.data.canonical import DataWarning
from fmtune.data.source import read_channel, write
from fmtune.errors import DataError
from fmtune.rows import SparseRows, concatenate

READERS = {"recordio": recordio, "libsvm": libsvm}


def rows(n: int) -> SparseRows:
    random = np.random.default_rng(n)
    lengths = random.integers(0, 9, n)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    keys = np.concatenate([np.sort(random.choice(5000, k, replace=False)) for k in lengths]).astype(np.int32)
    return SparseRows(indptr, keys, random.random(len(keys), np.float32), random.random(n, np.float32), 5000)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("size", [1, 100, 7919, 1 << 20])
def test_blocks_of_any_size_give_the_same_rows(name: str, size: int, tmp_path: Path) -> None:
    """Down to blocks smaller than a record."""
    path, known = tmp_path / "x", rows(400)
    write(known, path, name)
    assert parts.whole(path, READERS[name].jobs(path, 5000, size=size)).digest() == known.digest()
    if name == "libsvm":
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert parts.whole(path, libsvm.jobs(path, 5000, size=size)).digest() == known.digest()


@pytest.mark.parametrize("name", BAD)
def test_bad_records_are_named_alike_in_blocks(name: str, tmp_path: Path) -> None:
    """Each bad file behind 50 sound records, in blocks of a record each: the place moves on, nothing else changes."""
    content, place, what, hint = BAD[name]
    path = tmp_path / "x.pbr"
    path.write_bytes(GOOD * 50 + content)
    if not content:
        assert parts.whole(path, recordio.jobs(path, 10, size=16)).n == 50
        return
    record, byte = (int("".join(filter(str.isdigit, word))) for word in place.split(","))
    where = f"{path}: record {record + 50}, byte {byte + 50 * len(GOOD)}"
    with pytest.raises(DataError) as error:
        parts.whole(path, recordio.jobs(path, 10, size=16))
    if name == "a label too many":  # behind labelled records it is the bare ones that are at fault
        where, what = f"{path}: record 51, byte {50 * len(GOOD)}", BAD["a label missing"][2]
    assert str(error.value) == f"{where}: {what}\n  hint: {hint}"


def test_dense_records_of_two_widths_are_named_in_blocks(tmp_path: Path) -> None:
    """Also where they fall into different blocks."""
    path = tmp_path / "x.pbr"
    path.write_bytes(DENSE * 9 + records([1.0]))
    with pytest.raises(DataError) as error:
        parts.whole(path, recordio.jobs(path, size=16))
    place = f"{path}: record 10, byte {9 * len(DENSE)}"
    assert str(error.value) == f"{place}: {BAD_DENSE['uneven'][2]}\n  hint: {BAD_DENSE['uneven'][3]}"


def test_what_was_put_right_is_said_once_a_file(tmp_path: Path) -> None:
    """However many blocks it fell into."""
    path = tmp_path / "x.pbr"
    path.write_bytes(records([1.0, 2.0], keys=[5, 3]) * 20 + records([1.0, 2.0], keys=[3, 3]) * 10)
    with pytest.warns(DataWarning) as said:
        found = parts.whole(path, recordio.jobs(path, size=16))
    assert found.n == 30 and len(said) == 1
    assert "30 rows have keys out of order or repeated; 10 repeated entries were summed" in str(said[0].message)
    path.write_bytes(DENSE * 3 + GOOD * 4)
    with pytest.warns(DataWarning, match="3 dense and 4 sparse records are mixed; all were read as sparse") as said:
        assert parts.whole(path, recordio.jobs(path, size=16)).layout == "sparse"
    assert len(said) == 1


def test_lines_keep_their_numbers_in_blocks(tmp_path: Path) -> None:
    """Faults of a line, and of labels, behind many lines, comments and blank ones."""
    path = tmp_path / "x.svm"
    head = "1 1:1\n# note\n\n" * 30
    for line, what in {
        "1 2:x\n": "'2:x' is not an index:value pair",
        "3:1\n": "the line has no label, though lines before it have one",
        "1 9:1\n": "key 9 is not below feature_dim 5",
    }.items():
        path.write_text(head + line)
        with pytest.raises(DataError) as error:
            parts.whole(path, libsvm.jobs(path, 4, size=16))
        assert str(error.value).startswith(f"{path}: line 91: {what}\n")


def test_numbers_are_those_of_python(tmp_path: Path) -> None:
    """Halves between two float32, long mantissas, far exponents: float(text) and then float32, bit for bit."""
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**31, 2000, dtype=np.uint32).view(np.float32)
    near = bits[np.isfinite(bits) & (bits > 1e-30)].astype(np.float64)
    half = near + np.spacing(near.astype(np.float32)) / 2
    texts = [repr(float(x)) for x in (*near, *half, *np.nextafter(half, 0), *np.nextafter(half, np.inf))]
    texts += [f"{x:.9g}" for x in near]
    texts += ["1e-60", "1e-300", "0e999", "-0", "1.", ".5", "+2", "1" * 25, "1" * 30 + "e-9",
              "16777217", "16777219", "9007199254740993", "1E5", "00012"]  # fmt: skip
    texts = [text for text in texts if abs(float(text)) < 3e38]
    path = tmp_path / "x.svm"
    path.write_text("".join(f"{text} 1:{text}\n" for text in texts))
    found = libsvm.read(path)
    assert isinstance(found, SparseRows) and found.labels is not None
    known = np.array([float(text) for text in texts]).astype(np.float32)
    assert found.values.view(np.uint32).tolist() == known.view(np.uint32).tolist() == (
        found.labels.view(np.uint32).tolist())  # fmt: skip


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    """Many at a time, and always the same rows."""
    many = [rows(n) for n in range(1, 12)]
    for n, one in enumerate(many):
        write(one, tmp_path / f"part-{n:02}.{'pbr' if n % 2 else 'svm'}")
    assert read_channel(tmp_path, feature_dim=5000).digest() == concatenate(many).digest()


def test_jobs_end_in_order_and_the_first_fault_is_raised() -> None:
    """A slow first job does not let the second one's fault go before its own."""
    behind = threading.Event()

    def slow() -> int:
        behind.wait(10)
        raise DataError("first")

    def quick() -> int:
        behind.set()
        raise DataError("second")

    jobs: list[Callable[[], int]] = [lambda: 1, slow, quick]
    taken = parts.in_order(jobs)
    assert next(taken) == 1
    with pytest.raises(DataError, match="first"):
        next(taken)
    assert list(parts.in_order([partial(int, n) for n in "31415926535"])) == [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    assert list(parts.in_order([])) == []


def test_a_record_with_keys_that_are_plain_but_overlong_is_read_all_the_same(tmp_path: Path) -> None:
    """protobuf allows needless bytes in a varint; such a record takes the long way."""
    keys = field(2, 2, varint(3, pad=6) + varint(300, pad=4))
    tensor = field(1, 2, np.array([1, 2], np.float32).tobytes()) + keys + field(3, 2, varint(999))
    entry = field(1, 2, b"values") + field(2, 2, field(2, 2, tensor))
    found = recordio.parse(recordio.frame(field(1, 2, entry)))
    assert isinstance(found, SparseRows)
    assert (found.indices.tolist(), found.values.tolist(), found.feature_dim) == ([3, 300], [1, 2], 999)
