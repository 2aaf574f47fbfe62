"""Foreign files: what each is said to be, from its first bytes."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from fmtune.data.foreign import describe_bytes, unzipped


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        made.addfile(tarfile.TarInfo("a/b"))
    return stream.getvalue()


BEGINS = [
    (b"\x0a\x23\xd7\xce", "RecordIO"),
    (b"PAR1", "a parquet file"),
    (b"\x93NUMPY", "a numpy array (.npy); save rows with np.savez(file, x=x, y=y)"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"SQLite format 3", "a sqlite database"),
    (b"ARROW1", "an Arrow or Feather file"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"BZh", "a bzip2 file; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with git lfs pull"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"PK\x03\x04", "a zip file"),
    (b"PK\x05\x06", "a zip file"),
    (b"\x80\x02", "a pickle, which is never loaded"),
    (b"\x80\x05", "a pickle, which is never loaded"),
    (b"<html", "an HTML page"),
    (b"\xef\xbb\xbf \t\r\n<!DOCTYPE HTML>", "an HTML page"),
    (b"<", "XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
]


@pytest.mark.parametrize(("head", "words"), BEGINS)
def test_a_file_is_known_by_how_it_begins(head: bytes, words: str) -> None:
    """By all of those bytes, whatever follows; without the last of them it is something else."""
    assert describe_bytes(head) == describe_bytes(head + b"\n") == describe_bytes(head + b"\x7f\xfe") == words
    assert words == "an HTML page" or describe_bytes(head[:-1]) != words
    assert describe_bytes(b"x" + head) != words


OTHERS = [
    (b"", "an empty file"),
    (tar(), "a tar file"),
    (tar()[:262], "a tar file"),
    (tar()[:261], "binary data (it begins with 61 2f 62 00)"),
    (b"\x80", "plain text"),
    (b"\x80\x01", "binary data (it begins with 80 01)"),
    (b"\x80\x06", "binary data (it begins with 80 06)"),
    (b"\x00\x01\x02\x03\x04", "binary data (it begins with 00 01 02 03)"),
    (b"a\x08", "binary data (it begins with 61 08)"),
    (b"x" * 999 + b"\x08", "binary data (it begins with 78 78 78 78)"),
    (b"x" * 1000 + b"\x08", "plain text"),
    (b"x" * 1000 + b"\0", "binary data (it begins with 78 78 78 78)"),
    (b"a\tb", "plain text"),
    (b" \n", "plain numbers without index:value pairs"),
    (b"-1.5e3 +2E4\nwords", "plain numbers without index:value pairs"),
    (b"1,2", "plain text"),
    (gzip.compress(b"<a>", mtime=0), "a gzip file with XML inside; unpack it first"),
    (gzip.compress(b"", mtime=0), "a damaged gzip file"),
    (b"\x1f\x8bxxxx", "a damaged gzip file"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "words"), OTHERS)
def test_other_files_are_described(head: bytes, words: str) -> None:
    """Archives, text and binary data."""
    assert describe_bytes(head) == words


def test_no_more_is_unzipped_than_eight_times_what_there_is() -> None:
    """A bomb stays small; other bytes are left as they are; half a stream gives its half."""
    packed = gzip.compress(bytes(1 << 20))
    assert unzipped(packed) == bytes(8 * len(packed))
    assert unzipped(b"\x1f") == b"\x1f" and unzipped(b"\x1f\x8b\x00") == b""
    text = b"".join(b"%d " % n for n in range(5000))
    half = unzipped(gzip.compress(text)[:1000])
    assert half and text.startswith(half)
