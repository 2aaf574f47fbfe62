"""Parts: files cut into blocks of whole records, parsed by a thread each, and joined in the order of the files.

A format gives its file as jobs; a job returns one :class:`Part`.  What comes out does not depend on the number of
threads: parts are taken in order, and of several faults the first in that order is raised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fmtune.data.canonical import Disorder, warn
from fmtune.data.unseen import Unseen
from fmtune.errors import DataError
from fmtune.machine import cores, threads
from fmtune.rows import DenseRows, Rows, concatenate

BLOCK = 16 << 20
"""Bytes that are parsed at a time."""

T = TypeVar("T")


class Part(NamedTuple):
    """Rows of a stretch of a file.

    ``place`` says where the first stands; ``noun`` what a row is there (``record``, ``line``); ``dense`` is how many
    stand there as dense ones; ``disorder`` what was put right, ``unseen`` what a model does not know.
    """

    rows: Rows
    place: str
    noun: str = "row"
    dense: int = 0
    disorder: Disorder = Disorder()
    unseen: Unseen | None = None


Job = Callable[[], Part]


class Block(NamedTuple):
    """Bytes of whole records; ``record`` and ``byte`` (from 0) are those of the first in its file."""

    buf: NDArray[np.uint8]
    record: int
    byte: int


def blocks(stream: BinaryIO, cut: Callable[[NDArray[np.uint8]], tuple[int, int]], size: int = BLOCK) -> Iterator[Block]:
    """Yield a file in blocks of about ``size`` bytes; an empty file is one empty block.

    ``cut`` returns how many bytes of a buffer are whole records, and how many these are.  The end of the file comes
    as it is, and so does what ``cut`` finds no end of within a block: the parser says what is wrong with it.
    """
    held, record, byte = np.empty(0, np.uint8), 0, 0
    while True:
        buf = np.empty(len(held) + size, np.uint8)
        buf[: len(held)] = held
        got = len(held) + _fill(stream, memoryview(buf.data)[len(held) :])
        last, buf = got < len(buf), buf[:got]
        end, count = (got, 0) if last else cut(buf)
        if end or (last and not byte):
            yield Block(buf[:end], record, byte)
        if last:
            return
        held, record, byte = buf[end:], record + count, byte + end


def _fill(stream: BinaryIO, room: memoryview) -> int:
    got = 0
    while got < len(room) and (more := stream.readinto(room[got:])):  # type: ignore[attr-defined]
        got += more
    return got


def in_order(jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yield what the jobs return, in their order; several run at a time, a single one in this thread."""
    jobs = iter(jobs)
    first, second = next(jobs, None), next(jobs, None)
    if first is None:
        return
    if second is None:
        yield first()
        return
    with threads(cores(), "fmtune-parts") as pool:
        running: deque[Future[T]] = deque(map(pool.submit, (first, second)))
        for job in jobs:
            running.append(pool.submit(job))
            if len(running) > 2 * cores():
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


class Seam:
    """What the parts of a channel must have in common, looked at one by one.

    Parameters
    ----------
    name
        The channel, for messages.
    files
        Its files, in order.
    """

    def __init__(self, name: str, files: list[Path]) -> None:
        self.name, self.files = name, files
        self._which = -1
        self._dense_files: list[int] = []  # of which every row so far is dense
        self._sparse_files = 0
        self._first: Part | None = None
        self._labelled = True
        self._dense: tuple[int, Path] | None = None

    def take(self, which: int, part: Part) -> Rows:
        """Return the rows of a part of file ``which``; parts come in order, and may be empty.

        Raises
        ------
        DataError
            Labels in some rows only, or dense rows of different widths.
        """
        if which != self._which:
            self._close()
            self._which, self._first = which, None
        if part.rows.n == 0:
            return part.rows
        if self._first is None:
            self._begin(part)
        assert self._first is not None
        if (part.rows.labels is None) != (self._first.rows.labels is None):
            says = "has no label, though {}s before it have one" if part.rows.labels is None else (
                "has a label, though {}s before it have none")  # fmt: skip
            raise DataError(f"the {part.noun} {says.format(part.noun)}", where=part.place,
                            hint=f"give every {part.noun} a label, or none")  # fmt: skip
        if isinstance(part.rows, DenseRows):
            self._widths(part)
        self._rows += part.rows.n
        self._dense_rows += part.dense
        self._disorder += part.disorder
        if part.unseen is not None:
            self._unseen.add(part.unseen)
        return part.rows

    def _begin(self, part: Part) -> None:
        bare, which = part.rows.labels is None, self._which
        if which and bare == self._labelled:
            file = self.files[which] if bare else self.files[0]
            raise DataError("the shard has no labels, but others have", where=f"{self.name} ({file})",
                            hint="give every shard labels, or none")  # fmt: skip
        self._labelled = not bare
        self._first = part
        self._rows = self._dense_rows = 0
        self._width: int | None = None
        self._disorder, self._unseen = Disorder(), Unseen()

    def _widths(self, part: Part) -> None:
        width, file = part.rows.feature_dim, self.files[self._which]
        if self._width not in (None, width):
            raise DataError(f"a dense {part.noun} of {width} values follows dense {part.noun}s of another length",
                            where=part.place, hint=f"give every dense {part.noun} all features")  # fmt: skip
        self._width = width
        if self._dense is None:
            self._dense = width, file
        if width != self._dense[0]:
            what = f"a dense shard has {width} values a row, {self._dense[1].name} has {self._dense[0]}"
            raise DataError(what, where=f"{self.name} ({file})",
                            hint="dense shards of a channel need the same columns")  # fmt: skip

    def _close(self) -> None:
        """Say of the file that ends what was done to it."""
        if self._which < 0:
            return
        path = self.files[self._which]
        if self._first is None:
            raise DataError("the file holds no rows", where=str(path), hint="a channel needs at least one row")
        if 0 < self._dense_rows < self._rows:
            sparse = self._rows - self._dense_rows
            warn(f"{path}: {self._dense_rows} dense and {sparse} sparse {self._first.noun}s are mixed; "
                 "all were read as sparse")  # fmt: skip
        if self._dense_rows == self._rows and self._rows:
            self._dense_files.append(self._which)
        else:
            self._sparse_files += 1
        self._disorder.say(str(path))
        self._unseen.say(str(path))

    def close(self) -> None:
        """Say what was done to the last file, and to the channel."""
        self._close()
        if self._dense_files and self._sparse_files:
            warn(f"{self.name}: {len(self._dense_files)} dense and {self._sparse_files} sparse shards are mixed; "
                 "all were read as sparse")  # fmt: skip


def joined(rows: list[Rows]) -> Rows:
    """Join blocks of rows; empty ones are left out, and sparse beside dense ones make all of them sparse."""
    rows = [block for block in rows if block.n]
    if len({block.layout for block in rows}) > 1:
        rows = [block.to_sparse() for block in rows]
    return rows[0] if len(rows) == 1 else concatenate(rows)


def whole(path: Path, jobs: Iterable[Job]) -> Rows:
    """Return the rows of one file from its jobs."""
    seam = Seam(str(path), [path])
    rows = [seam.take(0, part) for part in in_order(jobs)]
    seam.close()
    return joined(rows)
