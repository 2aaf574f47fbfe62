"""Foreign: what a file that is none of our formats looks like, from its first bytes."""

from __future__ import annotations

import re
import zlib

# The first bytes, and what they mean; the first that fits is said.
_MAGIC: tuple[tuple[bytes, str], ...] = (
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
)


def unzipped(head: bytes) -> bytes:
    """Return the first bytes behind gzip, at most as many as it is given times eight; other bytes as they are."""
    if head[:2] != b"\x1f\x8b":
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 8 * len(head))
    except zlib.error:
        return b""


def describe_bytes(head: bytes) -> str:
    """Say in a few words what a file that begins with these bytes is."""
    if not head:
        return "an empty file"
    if head[:2] == b"\x1f\x8b":
        inside = unzipped(head)
        return f"a gzip file with {describe_bytes(inside)} inside; unpack it first" if inside else "a damaged gzip file"
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "a zip file"
    if head[257:262] == b"ustar":
        return "a tar file"
    if head[:1] == b"\x80" and 2 <= head[1:2][0] <= 5 if len(head) > 1 else False:
        return "a pickle, which is never loaded"
    return _text(head)


def _text(head: bytes) -> str:
    """Describe text by its first line."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"\0" in head or sum(byte < 9 for byte in head[:1000]) > 0:
        return f"binary data (it begins with {head[:4].hex(' ')})"
    lowered = start[:200].lower()
    if lowered.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start[:1] == b"<":
        return "XML"
    if start[:1] in b"{[" and start:
        return "JSON"
    line = start.splitlines()[0] if start else b""
    if re.fullmatch(rb"[-+\d.eE \t]*", line):
        return "plain numbers without index:value pairs"
    return "plain text"
