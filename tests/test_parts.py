"""Parts: files read in blocks by several threads give what they give read at one go, and name the same faults."""

from __future__ import annotations

import gzip
import io
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
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
from fmtune.rows import DenseRows, SparseRows, concatenate

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


def test_jobs_that_are_left_halfway_may_be_closed_by_one_of_them() -> None:
    """So the garbage collector does, which may come in any thread."""
    left: Future[None] = Future()
    closed: Future[None] = Future()

    def close() -> int:
        left.result(10)
        try:
            closed.set_result(taken.close())
        except RuntimeError as error:  # one cannot wait for oneself
            closed.set_exception(error)
        return 0

    taken = parts.in_order([lambda: 1, close, lambda: 2])
    assert next(taken) == 1
    left.set_result(None)
    closed.result(10)
    assert list(taken) == []


def test_a_record_with_keys_that_are_plain_but_overlong_is_read_all_the_same(tmp_path: Path) -> None:
    """protobuf allows needless bytes in a varint; such a record takes the long way."""
    keys = field(2, 2, varint(3, pad=6) + varint(300, pad=4))
    tensor = field(1, 2, np.array([1, 2], np.float32).tobytes()) + keys + field(3, 2, varint(999))
    entry = field(1, 2, b"values") + field(2, 2, field(2, 2, tensor))
    found = recordio.parse(recordio.frame(field(1, 2, entry)))
    assert isinstance(found, SparseRows)
    assert (found.indices.tolist(), found.values.tolist(), found.feature_dim) == ([3, 300], [1, 2], 999)


def part(layout: str = "sparse", n: int = 2, width: int = 3, labelled: bool = True, dense: int = 0) -> parts.Part:
    """Return a part; of a sparse one ``dense`` rows were dense."""
    made = DenseRows(np.ones((n, width), np.float32), np.ones(n, np.float32) if labelled else None, width)
    if layout == "dense":
        return parts.Part(made, "here", "record", n)
    return parts.Part(made.to_sparse(), "here", "record", dense)


FILES = [Path("a"), Path("b"), Path("c")]
LABELS = "the shard has no labels, but others have\n  hint: give every shard labels, or none"
SEAMS: dict[str, tuple[list[tuple[int, parts.Part]], str]] = {
    "a bare shard behind": ([(0, part()), (1, part(labelled=False))], f"train (b): {LABELS}"),
    "a bare shard before": ([(0, part(labelled=False)), (1, part())], f"train (a): {LABELS}"),
    "a bare part": ([(0, part()), (0, part(labelled=False))],
        "here: the record has no label, though records before it have one\n  hint: give every record a label, or none"),
    "a labelled part": ([(0, part(labelled=False)), (0, part())],
        "here: the record has a label, though records before it have none\n  hint: give every record a label, or none"),
    "a wider part": ([(0, part("dense")), (0, part("dense", width=4))],
        "here: a dense record of 4 values follows dense records of another length\n"
        "  hint: give every dense record all features"),
    "a wider shard": ([(0, part("dense")), (1, part("dense", width=4))],
        "train (b): a dense shard has 4 values a row, a has 3\n"
        "  hint: dense shards of a channel need the same columns"),
    "no rows": ([(0, part()), (1, part(n=0)), (2, part())],
        "b: the file holds no rows\n  hint: a channel needs at least one row"),
    "no rows at the end": ([(0, part()), (1, part(n=0))],
        "b: the file holds no rows\n  hint: a channel needs at least one row"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEAMS)
def test_parts_that_do_not_fit_are_named(name: str) -> None:
    """Place, cause and next step."""
    taken, said = SEAMS[name]
    seam = parts.Seam("train", FILES)
    with pytest.raises(DataError) as error:
        for which, one in taken:
            seam.take(which, one)
        seam.close()
    assert str(error.value) == said


MIXED: list[tuple[list[tuple[int, parts.Part]], list[str]]] = [
    ([(0, part()), (0, part(n=0)), (1, part(n=0)), (1, part())], []),
    ([(0, part("dense")), (1, part("dense"))], []),
    ([(0, part("dense")), (0, part())], ["a: 2 dense and 2 sparse records are mixed; all were read as sparse"]),
    ([(0, part(dense=1))], ["a: 1 dense and 1 sparse records are mixed; all were read as sparse"]),
    ([(0, part("dense")), (1, part()), (2, part())],
     ["train: 1 dense and 2 sparse shards are mixed; all were read as sparse"]),
]


@pytest.mark.parametrize(("taken", "said"), MIXED)
def test_layouts_that_are_mixed_are_said(taken: list[tuple[int, parts.Part]], said: list[str]) -> None:
    """Within a file, and between files; the rows themselves are given on as they are."""
    seam = parts.Seam("train", FILES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for which, one in taken:
            assert seam.take(which, one) is one.rows
        seam.close()
    assert [str(one.message) for one in caught] == said


def test_blocks_are_of_their_size() -> None:
    """A reader that gives a few bytes at a time makes the same blocks; an empty file is one empty block."""

    class Slow(io.BytesIO):
        def readinto(self, room: memoryview) -> int:  # type: ignore[override]
            return super().readinto(room[:3])

    def cut(buf: np.ndarray) -> tuple[int, int]:
        return len(buf) // 4 * 4, len(buf) // 4

    for kind in (io.BytesIO, Slow):
        found = [(bytes(one.buf), one.record, one.byte) for one in parts.blocks(kind(b"aaaabbbbccccdd"), cut, 6)]
        assert found == [(b"aaaa", 0, 0), (b"bbbbcccc", 1, 4), (b"dd", 3, 12)]
        assert [(bytes(one.buf), one.record, one.byte) for one in parts.blocks(kind(b""), cut, 6)] == [(b"", 0, 0)]
        assert len(list(parts.blocks(kind(b"aaaa"), cut, 4))) == 1
