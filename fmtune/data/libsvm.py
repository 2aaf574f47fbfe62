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
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from fmtune.data.canonical import LARGEST_DIM, Disorder, put_right
from fmtune.data.parts import BLOCK, Block, Job, Part, blocks, in_order, whole
from fmtune.errors import DataError
from fmtune.kernels import text
from fmtune.kernels.text import Bytes
from fmtune.rows import Rows, SparseRows

LONGEST_LINE = 16 << 20
"""Bytes of a line; a longer one is no row of numbers."""

_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)"
_PAIR = re.compile(rb"(?:\d+|qid):(?:" + _NUMBER + rb")", re.I)
# A word and several numbers are no labels either, but that the reader says, with the line.
_LABEL = re.compile(rb"[^,;:<{[]+|\d+(?:,\d+)+")
_NUMBERS = re.compile(_NUMBER + rb"|\d+(?:,\d+)+", re.I)
_HINT = "a line is 'label index:value index:value ...'"


def sniff(head: bytes) -> bool:
    """Say whether the bytes (unzipped) begin as rows do: the first line of more than a label has a pair behind it.

    A pair somewhere else would not do: the time 12:30 in a table looks like one.  Behind a word and a tab it is a
    column's name.  What follows is for the reader to judge, which names the line.
    """
    if b"\0" in head:
        return False
    for line in head.split(b"\n"):
        tokens = line.partition(b"#")[0].split(None, 2)
        if tokens and _PAIR.fullmatch(tokens[0]):
            return True
        if len(tokens) > 1:
            labelled = (_NUMBERS if b"\t" in line else _LABEL).fullmatch(tokens[0])
            return bool(labelled and _PAIR.fullmatch(tokens[1]))
        if tokens and not re.fullmatch(_NUMBER, tokens[0], re.I):
            return False
    return False


def counts_from_zero(path: Path) -> bool:
    """Say whether an index 0 occurs in the file."""
    return any(in_order(partial(text.holds_zero, block.buf) for block in _blocks(path)))


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
    return whole(path, jobs(path, feature_dim, base))


def jobs(path: Path, feature_dim: int | None = None, base: int = 1, size: int = BLOCK) -> Iterator[Job]:
    """Yield jobs that together read a file, ``size`` bytes each, about; parameters and errors as in :func:`read`."""
    for block in _blocks(path, size):
        yield partial(_part, block, path, feature_dim, base)


def write(stream: BinaryIO, rows: Rows) -> None:
    """Write rows with indices from 1, labels where there are any; of dense rows the entries that are not zero.

    Raises
    ------
    DataError
        A row makes a longer line than is read again.
    """
    sparse: SparseRows = rows.to_sparse()
    pairs = [f"{key}:{value}" for key, value in zip((sparse.indices + 1).tolist(), _texts(sparse.values), strict=True)]
    labels = None if sparse.labels is None else _texts(sparse.labels)
    for r in range(sparse.n):
        entries = pairs[sparse.indptr[r] : sparse.indptr[r + 1]]
        if labels is not None:
            entries = [labels[r], *entries]
        # A blank line would be no row.
        line = " ".join(entries or ["1:0"]).encode() + b"\n"
        if len(line) >= LONGEST_LINE:
            what = f"a row of {sparse.indptr[r + 1] - sparse.indptr[r]} entries makes a line longer than 16 MiB"
            raise DataError(what, hint="write such rows as npz")
        stream.write(line)


def _texts(numbers: np.ndarray[tuple[int], np.dtype[np.float32]]) -> list[str]:
    """Return the shortest decimal that reads back as the same float32, without ``.0``; each value is written once."""
    distinct, which = np.unique(numbers, return_inverse=True)
    texts = [str(value).removesuffix(".0") for value in distinct]
    return [texts[k] for k in which.tolist()]


def _blocks(path: Path, size: int = BLOCK) -> Iterator[Block]:
    """Yield the text in blocks of whole lines; a broken gzip file is a DataError."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        try:
            yield from blocks(stream, _cut, size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"the gzip stream is damaged or cut short ({error})",
                where=f"{path}: line {_torn(path)}",
                hint="copy or download the file again",
            ) from error


def _cut(buf: Bytes) -> tuple[int, int]:
    """Return the bytes of the whole lines that a buffer begins with, and their number; see ``parts.blocks``."""
    end = buf.tobytes().rfind(b"\n") + 1
    # A line as long as that has no end to wait for: the parser refuses it.
    return (end, int(text.count(buf[:end])[0])) if end or len(buf) < LONGEST_LINE else (len(buf), 0)


def _torn(path: Path) -> int:
    """Return the line in which a gzip stream breaks off."""
    number = 1
    with gzip.open(path) as stream, suppress(EOFError, gzip.BadGzipFile, zlib.error):
        while stream.readline(LONGEST_LINE):
            number += 1
    return number


def _part(block: Block, path: Path, feature_dim: int | None, base: int) -> Part:
    return _Reader(block, path, feature_dim, base).part()


class _Reader:
    """A block of lines: the plain ones read by a kernel, the others one by one."""

    def __init__(self, block: Block, path: Path, feature_dim: int | None, base: int) -> None:
        self.buf, self.path, self.feature_dim, self.base = block.buf, path, feature_dim, base
        ends, colons = text.count(self.buf)
        self.indptr, self.lines = np.zeros(ends + 2, np.int64), np.empty(ends + 1, np.int64)
        self.keys, self.values = np.empty(colons, np.int32), np.empty(colons, np.float32)
        self.labels = np.empty(ends + 1, np.float32)
        self.disorder = Disorder()
        self.state = np.zeros(text.STATE, np.int64)
        self.state[text.LINE], self.state[text.LABELLED] = block.record + 1, -1

    def place(self, row: int) -> str:
        return f"{self.path}: line {self.lines[row]}"

    @cached_property
    def content(self) -> bytes:
        """The block as bytes."""
        return self.buf.tobytes()

    def part(self) -> Part:
        self.refuse_long_line()
        limit = LARGEST_DIM if self.feature_dim is None else self.feature_dim
        arrays = (self.indptr, self.keys, self.values, self.labels, self.lines, self.state)
        at = 0
        while (at := text.parse(self.buf, at, self.base, limit, *arrays)) < len(self.buf):
            at = self.line(at)
        rows, entries = self.state[[text.ROWS, text.ENTRIES]].tolist()
        labels = self.labels[:rows] if self.state[text.LABELLED] == 1 else None
        indptr, keys, values = self.indptr[: rows + 1], self.keys[:entries], self.values[:entries]
        if self.state[text.DISORDER]:
            found, disorder = put_right(indptr, keys, values, labels, self.feature_dim, self.place, base=self.base)
            return Part(found, self.place(0), "line", 0, disorder + self.disorder)
        dim = int(self.state[text.BEYOND]) if self.feature_dim is None else self.feature_dim
        place = self.place(0) if rows else str(self.path)
        return Part(SparseRows(indptr, keys, values, labels, dim), place, "line", 0, self.disorder)

    def refuse_long_line(self) -> None:
        """Raise DataError for a line of 16 MiB."""
        before = lines_before(self.content) if len(self.buf) >= LONGEST_LINE else None
        if before is not None:
            number = int(self.state[text.LINE]) + before
            raise DataError("the line is longer than 16 MiB", where=f"{self.path}: line {number}", hint=_HINT)

    def line(self, at: int) -> int:
        """Read the line at byte ``at``, which the kernel has left; return where the next one begins."""
        state, end = self.state, self.content.find(b"\n", at)
        line = self.content[at : end if end >= 0 else None]
        row, first = state[[text.ROWS, text.ENTRIES]].tolist()
        self.lines[row] = state[text.LINE]
        where, tokens = self.place(row), line.partition(b"#")[0].split()
        label, keys, values = _numbers(tokens, where)
        labelled = int(label is not None)
        if state[text.LABELLED] not in (-1, labelled):
            bare = "has no label, though lines before it have one"
            what = "has a label, though lines before it have none" if labelled else bare
            raise DataError(f"the line {what}", where=where, hint="give every line a label, or none")
        ends, labels = np.array([0, len(keys)]), None if label is None else np.array([label])
        whole = (ends, np.array(keys, np.int64) - self.base, np.array(values, np.float64), labels)
        rows, disorder = put_right(*whole, self.feature_dim, lambda _: where, base=self.base)
        last = first + rows.nnz
        self.keys[first:last], self.values[first:last] = rows.indices, rows.values
        if rows.labels is not None:
            self.labels[row] = rows.labels[0]
        state[[text.ROWS, text.ENTRIES, text.LABELLED]] = row + 1, last, labelled
        state[text.LINE] += 1
        self.disorder += disorder
        state[text.BEYOND] = max(state[text.BEYOND], rows.feature_dim if self.feature_dim is None else 0)
        self.indptr[row + 1] = last
        return at + len(line) + 1


def lines_before(content: bytes, longest: int = LONGEST_LINE) -> int | None:
    """Return how many lines lie before one of ``longest`` bytes, None where there is none.

    In less than twice as many bytes such a line covers byte ``longest``.
    """
    begin = content.rfind(b"\n", 0, longest - 1) + 1
    end = content.find(b"\n", longest - 1)
    if (len(content) if end < 0 else end + 1) - begin < longest:
        return None
    return content.count(b"\n", 0, begin)


def _numbers(tokens: list[bytes], where: str) -> tuple[float | None, list[int], list[float]]:
    """Return label, indices and values of a line as Python reads them."""
    label: float | None = None
    keys, values = [], []
    try:
        if any(b"_" in token for token in tokens):  # Python's numbers may hold it, libsvm's may not
            raise ValueError
        for at, token in enumerate(tokens):
            key, colon, value = token.partition(b":")
            if at == 0 and not colon:
                label = float(token)
                continue
            keys.append(int(key))
            values.append(float(value))
        np.array(keys, np.int64)
    except (ValueError, OverflowError):
        raise _fault(tokens, where) from None
    return label, keys, values


def _fault(tokens: list[bytes], where: str) -> DataError:
    """Return the error for the first token that is no number or pair."""
    at, token = next((at, token) for at, token in enumerate(tokens) if not _fits(at, token))
    key, colon, _ = token.partition(b":")
    shown = token[:40].decode("utf-8", "backslashreplace")
    if key == b"qid":
        return DataError("query groups (qid) are not supported", where=where, hint="remove the qid column")
    if at == 0 and not colon and b"," in token:
        return DataError(f"{shown!r} is several labels", where=where, hint="a row has one label")
    wanted = "an index:value pair" if at or colon else "a label"
    return DataError(f"{shown!r} is not {wanted}", where=where, hint=_HINT)


def _fits(at: int, token: bytes) -> bool:
    """Whether a line's token, the first being ``at`` 0, is an index and its value, or a label."""
    key, colon, value = token.partition(b":")
    if at == 0 and not colon:
        return re.fullmatch(_NUMBER, token, re.I) is not None
    return bool(re.fullmatch(rb"\d{1,18}", key) and re.fullmatch(_NUMBER, value, re.I))
