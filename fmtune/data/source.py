"""Source: a channel, read from a file, a folder, a glob or a list of shards, whatever their format.

The format is known by content; a suffix says what to write, and decides where a file may be csv and libsvm both.
``FORMATS`` hold rows; ``fmtune.data.tables.TABLES`` hold named columns, which an encoder turns into rows.
"""

from __future__ import annotations

import difflib
import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fmtune.data import libsvm, npz, recordio, tables
from fmtune.data.cache import Cache
from fmtune.data.canonical import DataWarning, warn
from fmtune.data.encoding import Encoder
from fmtune.data.folder import files_below
from fmtune.data.foreign import describe_bytes, unzipped
from fmtune.data.index import check_index
from fmtune.data.labels import not_binary
from fmtune.data.parts import Job, Part, Seam, in_order, joined
from fmtune.errors import DataError, ResourceError, UsageError
from fmtune.files import atomic_stream
from fmtune.rows import DenseRows, Float32, Rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FORMATS",
    "DataWarning",
    "Format",
    "Paths",
    "check_labels",
    "describe_bytes",
    "files_of",
    "format_of",
    "map_signs",
    "read_channel",
    "read_channels",
    "write",
]

Paths = str | Path | Sequence[str | Path]
"""A file, a folder, a glob, or several of these."""

VOCABULARY = ".vocabulary.json"
"""How the names of vocabularies end; they lie beside rows and are none."""

HEAD = 1 << 16
"""Bytes of a file that are looked at to tell its format."""


@dataclass(frozen=True)
class Format:
    """A file format: how it is known, read and written, and the suffixes that choose it for writing.

    ``jobs`` reads a large file in parts, where the format allows it.  ``appends`` says whether blocks
    that are written one after the other make one file.
    """

    suffixes: tuple[str, ...]
    sniff: Callable[[bytes], bool]
    read: Callable[[Path, int | None], Rows]
    write: Callable[[BinaryIO, Rows], None]
    jobs: Callable[..., Iterator[Job]] | None = None
    appends: bool = True


FORMATS: dict[str, Format] = {
    "recordio": Format((".recordio", ".pbr", ".protobuf", ".rec"), recordio.sniff, recordio.read, recordio.write,
        recordio.jobs),
    "libsvm": Format((".libsvm", ".svm", ".svmlight", ".txt"), libsvm.sniff, libsvm.read, libsvm.write,
        libsvm.jobs),
    "npz": Format((".npz",), npz.sniff, npz.read, npz.write, appends=False),
}  # fmt: skip


def read_channel(
    paths: Paths,
    *,
    feature_dim: int | None = None,
    labelled: bool | None = True,
    name: str = "train",
    map_labels: bool = True,
    base: int | None = None,
    cache: Cache | None = None,
    encoder: Encoder | None = None,
) -> Rows:
    """Read one channel.

    Parameters
    ----------
    paths
        A file, a folder (all files below it, by name; what begins with ``.`` or ``_`` is left out), a glob, or a list
        of these.
    feature_dim
        Number of features; None infers it.  A key beyond it is an error that names the record.
    labelled
        Whether every row must have a label.  None takes a table's labels where they are there, NaN elsewhere.
    name
        The channel, for messages.
    map_labels
        Read labels that are all -1 or +1 as 0 and 1, and say so; False leaves them, for a regression on such labels.
    base
        First index of libsvm files; None finds out.
    cache
        Where rows are kept for the next time; None keeps none.
    encoder
        Makes rows of tables; without it they cannot be read.

    Returns
    -------
    Rows
        Sparse or dense as the files are; where the shards differ, sparse.

    Raises
    ------
    DataError
        No such file, a foreign or damaged one, one that is not what its index says, or values that cannot be used:
        with place and next step.
    ResourceError
        A file that may not be read.
    """
    files = files_of(paths, name)
    for file in files:
        with _readable(file):
            check_index(file)
    formats = [format_of(file) for file in files]
    base = _base([files], cache) if base is None else base

    def read() -> Iterator[Rows]:
        seam = Seam(name, files)
        for which, part in _parts(files, formats, feature_dim, base, encoder, labelled):
            yield seam.take(which, part)
        seam.close()

    key = {"base": base if "libsvm" in formats else None, "feature_dim": feature_dim}
    # A table's rows also depend on its encoder; converted ones can be kept.
    kept = cache is not None and not tables.TABLES.keys() & set(formats)
    rows = None if cache is None or not kept else cache.rows(files, key, read)
    if rows is None:
        rows = joined(list(read()))
    if rows.labels is None:
        if labelled:
            raise DataError(
                "the labels are missing",
                where=f"{name} ({files[0]})",
                hint="a channel to learn or test on needs one label a row",
            )
        return rows
    return map_signs(rows, name) if map_labels else rows


def read_channels(
    channels: Mapping[str, Paths],
    *,
    feature_dim: int | None = None,
    map_labels: bool = True,
    cache: Cache | None = None,
    encoder: Encoder | None = None,
) -> dict[str, Rows]:
    """Read the channels of one study, which share the numbering of features.

    ``feature_dim``, unless given, is that of the first channel (``train``); a key beyond it in another channel is
    an error.  ``encoder`` makes rows of tables.  libsvm indices count from 0 in all channels if index 0 occurs in
    any.  Labels are mapped, and rows kept, as in ``read_channel``.
    """
    files = {name: files_of(paths, name) for name, paths in channels.items()}
    base = _base(list(files.values()), cache)
    rows: dict[str, Rows] = {}
    for name, several in files.items():
        rows[name] = read_channel(
            several, feature_dim=feature_dim, name=name, map_labels=map_labels, base=base, cache=cache, encoder=encoder
        )
        feature_dim = rows[name].feature_dim if feature_dim is None else feature_dim
    return rows


def index_base(paths: Sequence[Paths], cache: Cache | None = None) -> int | None:
    """Return the first index (0 or 1) of the libsvm files among these channels, seen together; None without any.

    A model keeps it: a few rows to be scored later may hold no index 0 that would tell.
    """
    channels = [files_of(several) for several in paths]
    text = any(format_of(file) == "libsvm" for files in channels for file in files)
    return _base(channels, cache) if text else None


def check_labels(labels: Float32 | None, binary: bool, where: str) -> None:
    """Raise DataError unless there are labels and, for a binary task, each is 0 or 1."""
    if labels is None:
        raise DataError(
            "the labels are missing", where=where, hint="a channel to learn or test on needs one label a row"
        )
    bad = np.flatnonzero((labels != 0) & (labels != 1))
    if binary and len(bad):
        raise not_binary(f"label {labels[bad[0]]:g} of record {bad[0] + 1}", where)


def files_of(paths: Paths, name: str = "data") -> list[Path]:
    """Return the files that the paths stand for, in a fixed order; ``name`` is for messages."""
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [file for path in several for file in _expanded(Path(path))]
    if not files:
        raise DataError("no files are named", where=name, hint="name a file, a folder, a glob or a list of shards")
    return files


def format_of(path: Path) -> str:
    """Return the name of a file's format, by its content; times of day under ``.csv`` or ``.tsv`` are no libsvm.

    Raises
    ------
    DataError
        An empty file, or one of no format that can be read; the text says what it looks like.
    """
    with _opened(path) as stream:
        head = stream.read(HEAD)
    text, csv = unzipped(head), tables.TABLES["csv"]
    called = path.name.lower().removesuffix(".gz").endswith(csv.suffixes) and csv.sniff(head)
    for name, kind in FORMATS.items():
        if name == "libsvm" and called:
            continue
        if kind.sniff(text if name == "libsvm" else head):
            return name
    for name, table in tables.TABLES.items():
        if table.sniff(head):
            return name
    if not head:
        raise DataError("the file is empty", where=str(path), hint="a channel needs at least one record")
    raise DataError(
        f"not a data file that can be read: it looks like {describe_bytes(head)}",
        where=str(path),
        hint=f"the formats are {', '.join([*FORMATS, *tables.TABLES])}; convert it, or name another file",
    )


def write(rows: Rows, path: str | Path, format: str | None = None) -> None:
    """Write rows to a file, whole or not at all; the format is that of the suffix unless named.

    Raises
    ------
    DataError
        A row is too long for the format.
    """
    path = Path(path)
    format = format_to_write(path, format)
    with atomic_stream(path) as stream:
        put(rows, stream, path, format)


def put(rows: Rows, stream: BinaryIO, path: Path, format: str) -> None:
    """Write rows to the open stream of a file; errors as in ``write``."""
    try:
        FORMATS[format].write(stream, rows)
    except DataError as error:
        raise DataError(error.what, where=str(path), hint=error.hint) from error


def format_to_write(path: Path, format: str | None = None) -> str:
    """Return the name of the format that a suffix chooses, unless one is named.

    Raises
    ------
    UsageError
        None is, or not one that rows are written in.
    """
    if format is None:
        format = next((name for name, kind in FORMATS.items() if path.suffix.lower() in kind.suffixes), None)
    if format not in FORMATS:
        known = ", ".join(f"{name} ({', '.join(kind.suffixes)})" for name, kind in FORMATS.items())
        raise UsageError(
            f"no format to write: {path.suffix or path.name!r}", where=str(path), hint=f"the formats are {known}"
        )
    return format


def _expanded(path: Path) -> Iterable[Path]:
    """Return the file itself, a folder's files, or what a glob matches."""
    if path.is_dir():
        files = [file for file in files_below(path) if _holds_rows(file)]
        if not files:
            raise DataError("the folder holds no files", where=str(path), hint="name the folder that holds the shards")
        return files
    if path.exists():
        if not path.is_file():
            raise DataError("not a regular file", where=str(path), hint="name a file, a folder or a glob")
        return [path]
    if glob.has_magic(str(path)):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if _holds_rows(Path(match))]  # noqa: PTH207
        if not matches:
            raise DataError(
                "no file matches", where=str(path), hint="check the pattern; paths in a study are relative to its file"
            )
        return matches
    near = difflib.get_close_matches(
        path.name, [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else [], 1
    )
    raise DataError(
        "no such file or folder" + (f" (did you mean {near[0]!r}?)" if near else ""),
        where=str(path),
        hint="check the path; paths in a study are relative to its file",
    )


def _holds_rows(path: Path) -> bool:
    return path.is_file() and not path.name.endswith(VOCABULARY)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except PermissionError as error:
        raise ResourceError(
            "the file may not be read: permission denied", where=str(path), hint="check its permissions"
        ) from error
    except OSError as error:
        raise DataError(
            f"the file cannot be opened: {error.strerror}", where=str(path), hint="check the path"
        ) from error


def _base(channels: Sequence[Sequence[Path]], cache: Cache | None) -> int:
    """Return the first index of the libsvm files among those of these channels, seen together."""
    for files in channels:
        text = [file for file in files if format_of(file) == "libsvm"]
        find = partial(_counts_from_zero, text)
        if find() if cache is None or not text else cache.remembered(text, "counts from zero", find):
            return 0
    return 1


def _counts_from_zero(files: Sequence[Path]) -> bool:
    return any(libsvm.counts_from_zero(file) for file in files)


def _jobs(file: Path, kind: str, feature_dim: int | None, base: int) -> Iterator[Job]:
    """Yield the jobs that read a file; what the disk says against it is a DataError."""
    form = FORMATS[kind]
    with _readable(file):
        if form.jobs is None:
            yield partial(_read, file, form, feature_dim)
        elif kind == "libsvm":
            yield from form.jobs(file, feature_dim, base)
        else:
            yield from form.jobs(file, feature_dim)


def _read(file: Path, form: Format, feature_dim: int | None) -> Part:
    with _readable(file):
        rows = form.read(file, feature_dim)
        return Part(rows, str(file), dense=rows.n if isinstance(rows, DenseRows) else 0)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror}", where=str(file), hint="check the disk, or copy the file again"
        ) from error


def _parts(
    files: Sequence[Path], formats: Sequence[str], feature_dim: int | None, base: int, encoder: Encoder | None,
    labelled: bool | None,
) -> Iterator[tuple[int, Part]]:  # fmt: skip
    """Yield the parts of all files in order, each with the number of its file; several are read at a time."""
    return in_order(
        partial(_numbered, which, job)
        for which, (file, kind) in enumerate(zip(files, formats, strict=True))
        for job in (
            _table_jobs(file, kind, encoder, labelled) if kind in tables.TABLES
            else _jobs(file, kind, feature_dim, base)
        )
    )


def _numbered(which: int, job: Job) -> tuple[int, Part]:
    return which, job()


def _table_jobs(file: Path, kind: str, encoder: Encoder | None, labelled: bool | None) -> Iterator[Job]:
    """Yield the jobs that make a table's rows, with labels if they are asked for."""
    if encoder is None:
        columns = ", ".join(map(str, tables.head(file, kind).columns[:50]))
        raise DataError(
            f"a table ({kind}), and no columns are named as label and features",
            where=str(file),
            hint=f"say which is the label: `label: COLUMN` below data: in a study, --label COLUMN for a verb, "
            f"label= in Python; the columns are {columns}",
        )
    names = [column.name for column in encoder.columns]
    wanted = [*names, encoder.label] if labelled is not False and encoder.label else names
    first = 0
    for frame in tables.blocks(file, kind, wanted, encoder.texts):
        yield partial(_encoded, encoder, frame, labelled, first, file)
        first += len(frame)


def _encoded(encoder: Encoder, frame: pd.DataFrame, labelled: bool | None, first: int, file: Path) -> Part:
    rows, unseen = encoder.encoded(frame, labelled, first, str(file))
    return Part(rows, f"{file}: row {first + 1}", unseen=unseen)


def map_signs(rows: Rows, name: str) -> Rows:
    """Return the rows with labels -1 and +1 as 0 and 1, if there are no others and -1 occurs."""
    labels = rows.labels
    assert labels is not None
    if not (np.abs(labels) == 1).all() or (labels == 1).all():
        return rows
    warn(f"{name}: all labels are -1 or +1; read as 0 and 1")
    return replace(rows, labels=(labels > 0).astype(np.float32))
