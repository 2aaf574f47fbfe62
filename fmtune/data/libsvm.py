"""libsvm text, plain or gzip: ``label index:value index:value ...``, one row a line, ``#`` begins a comment.

Indices count from 1, the format's convention, unless an index 0 occurs somewhere in the channels that are read
together; then all of them count from 0.  Labels stay as they stand (``source.read_channel`` maps -1/+1).
Blank lines are not rows.  Lines are counted from 1.  The format knows no feature_dim: trailing features that
are always zero get lost in it.
"""

from __future__ import annotations

import gzip
import re
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from fmtune.data.canonical import sparse_rows
from fmtune.errors import DataError
from fmtune.rows import Rows, SparseRows

LONGEST_LINE = 16 << 20
"""Bytes of a line; a longer one is no row of numbers."""

_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)"
_PAIR = re.compile(rb"(?:^|[ \t])\d+:(?:" + _NUMBER + rb")(?=\s|$)", re.M | re.I)
_ZERO = re.compile(rb"(?:^|[ \t])0+:")
_HINT = "a line is 'label index:value index:value ...'"


def sniff(head: bytes) -> bool:
    """Say whether the bytes (unzipped) are lines with ``index:value`` pairs."""
    return b"\0" not in head and head.lstrip()[:1] not in (b"{", b"[", b"<") and _PAIR.search(head) is not None


def counts_from_zero(path: Path) -> bool:
    """Say whether an index 0 occurs in the file."""
    return any(_ZERO.search(line) for _, line in _lines(path))


def read(path: Path, feature_dim: int | None = None, *, base: int | None = None) -> Rows:
    """Read a file; labels are None where no line has one.

    Parameters
    ----------
    path
        Text, or text packed by gzip.
    feature_dim
        Number of features; None takes the largest index.
    base
        The first index, 0 or 1; None finds out from the file alone.

    Raises
    ------
    DataError
        Anything that is not such a line, with its number.
    """
    base = (0 if counts_from_zero(path) else 1) if base is None else base
    indptr, keys, values, labels, numbers = array("q", [0]), array("q"), array("d"), array("d"), array("q")
    for number, line in _lines(path):
        tokens = line.partition(b"#")[0].split()
        if not tokens:
            continue
        try:
            if b"_" in line:  # Python's numbers may hold it, libsvm's may not
                raise ValueError
            if b":" not in tokens[0]:
                labels.append(float(tokens.pop(0)))
            for token in tokens:
                key, _, value = token.partition(b":")
                keys.append(int(key))
                values.append(float(value))
        except (ValueError, OverflowError):
            raise _fault(line.partition(b"#")[0].split(), f"{path}: line {number}") from None
        numbers.append(number)
        indptr.append(len(keys))
        if labels and len(labels) != len(numbers):
            bare = "has no label, though lines before it have one"
            what = bare if len(labels) == len(numbers) - 1 else "has a label, though lines before it have none"
            raise DataError(f"the line {what}", where=f"{path}: line {number}", hint="give every line a label, or none")
    if not numbers:
        raise DataError("the file holds no rows", where=str(path), hint=_HINT)
    return sparse_rows(
        np.array(indptr, np.int64),
        np.array(keys, np.int64) - base,
        np.array(values, np.float64),
        np.array(labels, np.float64) if labels else None,
        feature_dim,
        str(path),
        lambda row: f"{path}: line {numbers[row]}",
        base=base,
    )


def write(stream: BinaryIO, rows: Rows) -> None:
    """Write rows with indices from 1, labels where there are any; of dense rows the entries that are not zero."""
    sparse: SparseRows = rows.to_sparse()
    pairs = [f"{key}:{value}" for key, value in zip((sparse.indices + 1).tolist(), _texts(sparse.values), strict=True)]
    labels = None if sparse.labels is None else _texts(sparse.labels)
    for r in range(sparse.n):
        entries = pairs[sparse.indptr[r] : sparse.indptr[r + 1]]
        stream.write((" ".join(entries if labels is None else [labels[r], *entries]) + "\n").encode())


def _texts(numbers: np.ndarray[tuple[int], np.dtype[np.float32]]) -> list[str]:
    """Return the shortest decimal that reads back as the same float32, without ``.0``; each value is written once."""
    distinct, which = np.unique(numbers, return_inverse=True)
    texts = [str(value).removesuffix(".0") for value in distinct]
    return [texts[k] for k in which.tolist()]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line); a broken gzip file or a line without end is a DataError."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        number = 0
        try:
            while line := stream.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise DataError("the line is longer than 16 MiB", where=f"{path}: line {number}", hint=_HINT)
                yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"the gzip stream is damaged or cut short ({error})",
                where=f"{path}: line {number + 1}",
                hint="copy or download the file again",
            ) from error


def _fault(tokens: list[bytes], where: str) -> DataError:
    """Return the error for the first token that is no number or pair."""
    for at, token in enumerate(tokens):
        key, colon, value = token.partition(b":")
        shown = token[:40].decode("utf-8", "backslashreplace")
        if key == b"qid":
            return DataError("query groups (qid) are not supported", where=where, hint="remove the qid column")
        if at == 0 and not colon and b"," in token:
            return DataError(f"{shown!r} is several labels", where=where, hint="a row has one label")
        if not (re.fullmatch(rb"\d{1,18}", key) and colon and re.fullmatch(_NUMBER, value, re.I)) and (
            at or colon or not re.fullmatch(_NUMBER, token, re.I)
        ):
            wanted = "an index:value pair" if at or colon else "a label"
            return DataError(f"{shown!r} is not {wanted}", where=where, hint=_HINT)
    return DataError("the line holds a number that cannot be read", where=where, hint=_HINT)
