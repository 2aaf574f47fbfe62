"""Channels: files, folders, globs and shards; formats by content; foreign files by name."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmtune.data import source
from fmtune.data.foreign import describe_bytes
from fmtune.data.source import FORMATS, DataWarning, read_channel, read_channels, write
from fmtune.errors import DataError, UsageError
from fmtune.rows import DenseRows, Rows, SparseRows

DENSE = DenseRows(np.array([[0, 1.5], [2, 0], [0, 0]], np.float32), np.array([0, 1, 1], np.float32), 2)
SPARSE = DENSE.to_sparse()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder with two shards, of two formats, and what tools leave behind."""
    folder = tmp_path / "train"
    write(SPARSE, folder / "part-0.pbr")
    write(SPARSE.slice(0, 2), folder / "part-1.libsvm")
    (folder / "_SUCCESS").touch()
    (folder / ".hidden").write_text("x")
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_known_by_its_content(name: str, tmp_path: Path) -> None:
    """Under a foreign suffix each format is found, and comes back as it was; none knows another's bytes."""
    for rows in (SPARSE, DENSE):
        path = tmp_path / "x.dat"
        write(rows, path, name)
        assert source.format_of(path) == name
        assert read_channel(path, feature_dim=2).to_dense().digest() == DENSE.digest()
        head = path.read_bytes()
        assert [other for other, kind in FORMATS.items() if kind.sniff(head)] == [name]


def test_a_channel_is_a_file_a_folder_a_glob_or_a_list(shards: Path) -> None:
    """All name the same rows, in the order of the names."""
    for paths in (shards, str(shards), f"{shards}/part-*", [shards / "part-0.pbr", str(shards / "part-1.libsvm")]):
        rows = read_channel(paths)
        assert rows.labels is not None
        assert (rows.n, rows.feature_dim, rows.labels.tolist()) == (5, 2, [0, 1, 1, 0, 1])
    with pytest.raises(DataError, match="train: no files are named"):
        read_channel([])


@pytest.mark.parametrize(("content", "name", "format"), [
    (b"station\t08:00\nA\t3\n", "t.txt", "csv"), (b"\t08:00\t09:00\n1\t3\t4\n", "t.tsv", "csv"),
    (b"\t08:00\t09:00\n1\t3\t4\n", "T.TSV.gz", "csv"), (b"0\t08:00\n1\t3\n", "t.csv", "csv"),
    (b"1\t3:1\n", "t.svm", "libsvm"), (b"1 3:1 4:1\n", "t.csv", "libsvm"), (b'{"a": 1, "b": 2}\n', "t.csv", "jsonl"),
])  # fmt: skip
def test_a_table_of_times_is_no_libsvm(content: bytes, name: str, format: str, tmp_path: Path) -> None:
    """A time of day looks like an entry: what is called csv or tsv is no libsvm, if it may be a table at all."""
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert source.format_of(tmp_path / name) == format


def test_a_folder_is_all_that_lies_below_it(shards: Path) -> None:
    """Partitions of Spark and keys below an S3 prefix are read; what begins with a dot or ``_`` is not, nor is a link
    that leads back; a linked folder is read once.
    """
    write(SPARSE, shards / "day=2" / "hour=1" / "part-2.pbr")
    write(SPARSE, shards / "_temporary" / "part-3.pbr")
    write(SPARSE, shards / ".cache" / "part-4.pbr")
    (shards / "day=2" / "back").symlink_to(shards)
    write(SPARSE, shards.parent / "elsewhere" / "part-5.pbr")
    (shards / "linked").symlink_to(shards.parent / "elsewhere")
    (shards / "again").symlink_to(shards.parent / "elsewhere")
    files = [str(file.relative_to(shards)) for file in source.files_of(shards)]
    assert files == ["again/part-5.pbr", "day=2/hour=1/part-2.pbr", "part-0.pbr", "part-1.libsvm"]
    assert read_channel(shards).n == 11


def test_gzip_is_unpacked_for_libsvm_only(tmp_path: Path) -> None:
    """Another format inside gzip is named."""
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"1 1:1\n" * 40_000))
    assert read_channel(path).n == 40_000
    write(SPARSE, tmp_path / "x.pbr")
    path.write_bytes(gzip.compress((tmp_path / "x.pbr").read_bytes()))
    with pytest.raises(DataError, match="it looks like a gzip file with RecordIO inside; unpack it first"):
        read_channel(path)


def test_labels_of_plus_and_minus_one_become_zero_and_one(tmp_path: Path) -> None:
    """For the whole channel, with a note, and only if there are no others; a regression can keep them."""
    a, b = tmp_path / "a.svm", tmp_path / "b.svm"
    a.write_text("-1 1:1\n+1 1:1\n")
    b.write_text("+1 1:1\n")
    with pytest.warns(DataWarning, match="test: all labels are -1 or \\+1; read as 0 and 1"):
        assert list(read_channel([a, b], name="test").labels) == [0, 1, 1]  # type: ignore[arg-type]
    assert list(read_channel([a, b], map_labels=False).labels) == [-1, 1, 1]  # type: ignore[arg-type]
    assert list(read_channel(b).labels) == [1]  # type: ignore[arg-type]
    b.write_text("0.5 1:1\n")
    assert list(read_channel([a, b]).labels) == [-1, 1, 0.5]  # type: ignore[arg-type]


def test_the_channels_of_a_study_share_one_numbering(tmp_path: Path) -> None:
    """An index 0 in the train file makes the test file count from 0 too; feature_dim is the train channel's."""
    a, b = tmp_path / "a.svm", tmp_path / "b.svm"
    a.write_text("1 0:1 4:1\n")
    b.write_text("0 3:1\n")
    rows = read_channels({"train": a, "test": b})
    assert rows["test"].feature_dim == 5
    assert rows["test"].to_dense().matrix.tolist() == [[0, 0, 0, 1, 0]]
    b.write_text("0 1:1\n1 7:1\n")
    with pytest.raises(DataError, match=r"b\.svm: line 2: key 7 is not below feature_dim 5"):
        read_channels({"train": a, "test": b})
    assert read_channels({"train": a, "test": b}, feature_dim=8)["train"].feature_dim == 8


def test_shards_of_both_layouts_are_read_as_sparse(tmp_path: Path) -> None:
    """The warning says so; dense shards must be equally wide."""
    write(DENSE, tmp_path / "a.npz")
    write(SPARSE, tmp_path / "b.npz")
    with pytest.warns(DataWarning, match="train: 1 dense and 1 sparse shards are mixed; all were read as sparse"):
        assert isinstance(read_channel(tmp_path), SparseRows)
    write(DENSE.widen(3), tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"b\.npz\): a dense shard has 3 values a row, a\.npz has 2"):
        read_channel(tmp_path)


def test_labels_must_be_there_for_all_shards_or_none(tmp_path: Path) -> None:
    """Rows that are only to be scored may have none."""
    bare = SparseRows(SPARSE.indptr, SPARSE.indices, SPARSE.values, None, 2)
    write(bare, tmp_path / "a.npz")
    assert read_channel(tmp_path, labelled=False).labels is None
    with pytest.raises(DataError, match=r"test \(.*a\.npz\): the labels are missing"):
        read_channel(tmp_path, name="test")
    write(SPARSE, tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"train \(.*a\.npz\): the shard has no labels, but others have"):
        read_channel(tmp_path)


@pytest.mark.parametrize(
    ("labels", "binary", "fault"),
    [([0, 1, 1], True, None), ([0, 3], False, None), ([0, 1, 3], True, "label 3 of record 3"),
     ([-1, 1], True, "label -1 of record 1"), (None, False, "the labels are missing")],
)  # fmt: skip
def test_a_binary_task_wants_labels_zero_and_one(labels: Any, binary: bool, fault: str | None) -> None:
    """Label 3 in a binary task is named with its record; a regression takes any."""
    array = None if labels is None else np.array(labels, np.float32)
    if fault is None:
        source.check_labels(array, binary, "train")
        return
    with pytest.raises(DataError, match=f"^train: {fault}"):
        source.check_labels(array, binary, "train")


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.txt", "x")
    return stream.getvalue()


FOREIGN = {
    b"\n<!DOCTYPE html><html>": "an HTML page",
    b'<?xml version="1.0"?><Error>': "XML",
    b"[1, 2]": "JSON",
    gzip.compress(b"<a>", mtime=0): "a gzip file with XML inside; unpack it first",
    b"\x1f\x8bxxxxxxxxxx": "a damaged gzip file",
    gzip.compress(b"PAR1", mtime=0): "a gzip file with a parquet file inside; unpack it first",
    zipped(): "a zip file",
    b"\x80\x04\x95\x10": "a pickle, which is never loaded",
    b"\x93NUMPY\x01\x00": "a numpy array (.npy); save rows with np.savez(file, x=x, y=y)",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"SQLite format 3\0": "a sqlite database",
    b"a/b" + bytes(254) + b"ustar\x0000": "a tar file",
    b"version https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer; fetch the file itself with git lfs pull",
    b"\xff\xfe1\0 \0": "UTF-16 text",
    b"1 2 3\n4 5 6\n": "plain numbers without index:value pairs",
    b"hello\n": "plain text",
    b"\x00\x01\x02\x03\x04": "binary data (it begins with 00 01 02 03)",
}


@pytest.mark.parametrize("head", FOREIGN)
def test_foreign_files_are_named(head: bytes, tmp_path: Path) -> None:
    """The one line says what the file looks like, and which formats are read."""
    path = tmp_path / "x"
    path.write_bytes(head)
    with pytest.raises(DataError) as error:
        read_channel(path)
    assert str(error.value) == (
        f"{path}: not a data file that can be read: it looks like {FOREIGN[head]}\n"
        "  hint: the formats are recordio, libsvm, npz, parquet, arrow, jsonl, csv; convert it, or name another file"
    )


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    """With the name that was perhaps meant."""
    (tmp_path / "train.svm").touch()
    (tmp_path / "folder").mkdir()
    cases = {
        "trian.svm": "no such file or folder (did you mean 'train.svm'?)",
        "nowhere/x": "no such file or folder",
        "*.npz": "no file matches",
        "folder": "the folder holds no files",
        "train.svm": "the file is empty",
    }
    for name, what in cases.items():
        with pytest.raises(DataError) as error:
            read_channel(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {what}\n  hint: ")
    with pytest.raises(DataError, match="/dev/null: not a regular file"):
        read_channel("/dev/null")


def test_an_unknown_suffix_is_no_format(tmp_path: Path) -> None:
    """The formats and their suffixes are listed; nothing is written."""
    with pytest.raises(UsageError, match=r"no format to write: '\.xyz'\n.*libsvm \(\.libsvm, "):
        write(SPARSE, tmp_path / "x.xyz")
    assert not list(tmp_path.iterdir())


def test_rows_of_both_layouts_stay_the_same_type_under_mapping(tmp_path: Path) -> None:
    """Mapping labels touches nothing else."""
    rows: Rows
    for rows in (SPARSE, DENSE):
        minus = rows.take(np.arange(3))
        assert minus.labels is not None
        minus.labels[:] = minus.labels * 2 - 1
        write(minus, tmp_path / "x.npz")
        with pytest.warns(DataWarning):
            assert read_channel(tmp_path / "x.npz").digest() == rows.digest()


def test_nothing_is_an_empty_file() -> None:
    """Also inside gzip, whose own bytes are then as good as damaged."""
    assert describe_bytes(b"") == "an empty file"
    assert describe_bytes(gzip.compress(b"")) == "a damaged gzip file"


@pytest.mark.parametrize(("name", "what"), [("a.pbr", "record"), ("a.svm", "line")])
def test_no_row_is_written_that_is_too_long_to_be_read(name: str, what: str, tmp_path: Path) -> None:
    """The file that stood there before stays."""
    n = 3_000_000
    row = SparseRows(np.array([0, n]), np.arange(n, dtype=np.int32), np.ones(n, np.float32), np.ones(1, np.float32), n)
    path = tmp_path / name
    path.write_bytes(b"before")
    with pytest.raises(DataError) as error:
        source.write(row, path)
    assert str(error.value) == (
        f"{path}: a row of 3000000 entries makes a {what} longer than 16 MiB\n  hint: write such rows as npz"
    )
    assert path.read_bytes() == b"before"
