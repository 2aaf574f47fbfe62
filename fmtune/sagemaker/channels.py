"""Channels of a training job: files or pipes under ``input/data``, as blocks of rows in order.

A channel in File or FastFile mode is a folder, read whole when it fits in memory and as a stream when it does
not.  In Pipe mode epoch ``e`` is the FIFO ``<channel>_<e>``, read as it comes: only whole mini-batches are held.
"""

from __future__ import annotations

import os
import select
import stat
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from google.protobuf.message import DecodeError

from fmtune.data import canonical, recordio, source, tables
from fmtune.data.folder import files_below
from fmtune.data.schema import Record
from fmtune.errors import DataError
from fmtune.fm.pack import Stopped
from fmtune.rows import Float32, Rows, concatenate

BLOCK = 1 << 22
"""Bytes that are parsed at a time from a stream."""
WINDOW = 1 << 16
"""Rows that are trained at a time, unless a mini-batch is larger."""
_MAGIC = 0xCED7230A
_TWENTY_MINUTES = 1200.0

Stop = Callable[[], bool]


def never() -> bool:
    """Return False: nobody asks to stop."""
    return False


@dataclass(frozen=True)
class Channel:
    """One channel.

    Attributes
    ----------
    name : str
        ``train`` or ``test``.
    folder : Path
        ``input/data``.
    mode : str
        ``File``, ``FastFile`` or ``Pipe``.
    sharded : bool
        Whether this host has a part of the data only.
    feature_dim : int
    binary : bool
        Labels must be 0 or 1.
    stop : callable
        Asked while a pipe is waited for.
    patience : float
        Seconds that a pipe may take to appear.
    """

    name: str
    folder: Path
    mode: str
    sharded: bool
    feature_dim: int
    binary: bool
    stop: Stop = never
    patience: float = _TWENTY_MINUTES

    @property
    def path(self) -> Path:
        """The channel's folder, or what the names of its pipes begin with."""
        return self.folder / self.name

    def check(self, epochs: int) -> None:
        """Raise DataError where the channel cannot be read so often: a pipe in a folder's place is read once."""
        if self.mode != "Pipe" and epochs > 1 and any(_is_pipe(file) for file in self.files()):
            raise DataError("a pipe can be read once, and there are several epochs", where=f"{self.name} ({self.path})",
                            hint="set epochs to 1, or use TrainingInputMode Pipe or File")  # fmt: skip

    def files(self) -> list[Path]:
        """Return the channel's files in the order of their names, in folders below too; empty ones are left out."""
        if not self.path.is_dir():
            if self.path.exists():
                return [self.path]
            raise DataError("the channel's folder is not there", where=f"{self.name} ({self.path})",
                            hint="a channel of inputdataconfig.json has its files below input/data")  # fmt: skip
        full = [f for f in files_below(self.path) if _is_pipe(f) or f.stat().st_size]
        if not full:
            raise DataError("the channel holds no data", where=f"{self.name} ({self.path})",
                            hint="check the channel's S3Uri, and that its objects are not empty")  # fmt: skip
        return full

    def whole(self, memory: int | None = None) -> Rows | None:
        """Return all rows, or None where they are to be streamed: from pipes, or files too large for memory.

        Parameters
        ----------
        memory
            Bytes that may be used; None takes half of what is free.
        """
        if self.mode == "Pipe":
            return None
        files = self.files()
        if any(_is_pipe(file) for file in files):
            return None
        free = psutil.virtual_memory().available // 2 if memory is None else memory
        # Rows and the transposes of their mini-batches come to five times a RecordIO file, about.
        formats = [source.format_of(file) for file in files]
        if 5 * sum(file.stat().st_size for file in files) > free and set(formats) == {"recordio"}:
            return None
        for file, kind in zip(files, formats, strict=True):
            if kind in tables.TABLES:
                raise DataError(f"a table ({kind}), where a job wants RecordIO-wrapped protobuf", where=str(file),
                                hint=f"`fmtune data convert {file.name} train.pbr --label COLUMN` makes it, for the "
                                "other channel with --vocabulary, and says feature_dim")  # fmt: skip
            if kind != "recordio":
                _foreign(file, f"it holds {kind}")
            elif (tensor := _tensor(_first(file))) is not None:
                _foreign(file, f"its records hold {tensor}")
        with _in_a_job():
            rows = source.read_channel(files, feature_dim=self.feature_dim, name=self.name, map_labels=False)
            return self._checked(rows)

    def blocks(self, epoch: int) -> Iterator[Rows]:
        """Yield an epoch's rows as they come, in blocks of no fixed size.

        Raises
        ------
        DataError
            A pipe that does not appear, or records that cannot be used.
        Stopped
            ``stop`` said so.
        """
        if self.mode == "Pipe":
            path = self.path.with_name(f"{self.name}_{epoch}")
            yield from self._parsed(_pipe_bytes(path, self.stop, self.patience), str(path))
            return
        for file in self.files():
            stream = _pipe_bytes(file, self.stop, self.patience) if _is_pipe(file) else _file_bytes(file)
            yield from self._parsed(stream, str(file))

    def _parsed(self, stream: Iterator[bytes], where: str) -> Iterator[Rows]:
        for content, record in records(stream):
            if not record and (tensor := _tensor(content)) is not None:
                _foreign(where, f"its records hold {tensor}")
            name = f"{where} (from record {record + 1} on)" if record else where
            with _in_a_job():
                rows = self._checked(recordio.parse(content, self.feature_dim, name))
            yield rows

    def _checked(self, rows: Rows) -> Rows:
        source.check_labels(rows.labels, self.binary, f"{self.name} ({self.path})")
        return rows.widen(self.feature_dim)


@contextmanager
def _in_a_job() -> Iterator[None]:
    """Have faults say what is to be done in a job, where they say what is to be done in a study."""
    try:
        yield
    except DataError as error:
        if error.hint is None or "study" not in error.hint:
            raise
        raise DataError(error.what, where=error.where, hint="check the channel's files, and feature_dim and "
                        "predictor_type among the job's hyperparameters") from error  # fmt: skip


def windows(blocks: Iterator[Rows], size: int, layout: str | None = None) -> Iterator[Rows]:
    """Yield blocks joined and cut to ``size`` rows each, the last may be shorter.

    The first block's layout is that of all, unless ``layout`` names one; a change on the way is warned of.
    """
    held: list[Rows] = []
    count = 0
    for block in blocks:
        layout = layout or block.layout
        if block.layout != layout:
            warnings.warn(f"a {block.layout} part follows {layout} ones; it is read as {layout}",
                          source.DataWarning, stacklevel=2)  # fmt: skip
        held.append(block.to_dense() if layout == "dense" else block.to_sparse())
        count += block.n
        if count >= size:
            rows = concatenate(held)
            full = count - count % size
            for at in range(0, full, size):
                yield rows.slice(at, at + size)
            held, count = ([rows.slice(full, count)] if full < count else []), count - full
    if held:
        yield concatenate(held)


def records(stream: Iterator[bytes], size: int = BLOCK) -> Iterator[tuple[bytes, int]]:
    """Yield whole records of a RecordIO stream, some ``size`` bytes at a time, with the number of the first.

    What is no record, or cut short, comes last and as it is: the parser says what is wrong with it.
    """
    held = bytearray()
    begin = cut = at = 0  # first record of ``held``; end of its whole records; end of its whole parts
    count, inside, sound = 0, False, True
    for content in stream:
        held += content
        while sound and at + 8 <= len(held):
            magic, head = struct.unpack_from("<II", held, at)
            length = head & 0x1FFFFFFF
            sound = magic == _MAGIC and length <= 1 << 24
            end = at + 8 + length + (-length % 4)
            if not sound or end > len(held):
                break
            at, flag = end, head >> 29
            inside = flag in (1, 2)
            if not inside:
                cut, count = at, count + 1
        if not sound:
            break
        if cut >= size:
            yield bytes(held[:cut]), begin
            del held[:cut]
            at, cut, begin = at - cut, 0, count
    if held or not count:
        yield bytes(held), begin


def _foreign(where: Path | str, what: str) -> None:
    canonical.warn(f"{where}: {what}; SageMaker's own container takes RecordIO with float32 tensors alone")


def _first(path: Path) -> bytes:
    """Return a file's first record."""
    with path.open("rb") as stream:
        head = stream.read(8)
        return head + stream.read(struct.unpack("<II", head)[1] & 0x1FFFFFFF) if len(head) == 8 else head


def _tensor(content: bytes) -> str | None:
    """Return the kind of tensors that the first record of a stream holds, None for float32 or what is no record."""
    if len(content) < 8:
        return None
    length = struct.unpack_from("<I", content, 4)[0]  # of a record in several parts this is too long, and it is None
    try:
        record = Record.FromString(content[8 : 8 + length])
    except DecodeError:
        return None
    values = [entry["values"] for entry in (record.features, record.label) if "values" in entry]
    kinds = {one.WhichOneof("value") for one in values} - {"float32_tensor", None}
    return " and ".join(sorted(kinds)) or None


def _is_pipe(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _file_bytes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while content := stream.read(BLOCK):
            yield content


def _pipe_bytes(path: Path, stop: Stop, patience: float) -> Iterator[bytes]:
    """Yield what comes through a FIFO, which may not be there yet, until its writer has closed it."""
    deadline = time.monotonic() + patience
    while not path.exists():
        if stop():
            raise Stopped
        if time.monotonic() > deadline:
            raise DataError(f"the pipe has not appeared within {patience:g} s", where=str(path),
                            hint="Pipe mode gives each epoch a pipe of its own, <channel>_<epoch>")  # fmt: skip
        time.sleep(0.05)
    # Opened without waiting for the writer, so that a stop is heeded meanwhile; a pipe that nobody has opened
    # yet is silent, one that was closed hangs up.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while True:
            events = poll.poll(200)
            if stop():
                raise Stopped
            if not events:
                continue
            content = os.read(handle, 1 << 20)
            if not content:
                return
            yield content
    finally:
        os.close(handle)


def labels_of(rows: Rows) -> Float32:
    """Return the labels of checked rows."""
    return np.zeros(rows.n, np.float32) if rows.labels is None else rows.labels
