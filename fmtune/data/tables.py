"""Tables: files with named columns (csv, JSON lines, Parquet, Arrow), read as pandas frames a block at a time.

Cells of columns that name something are read as the text that stands in the file: ``007`` stays ``007``.  csv and
JSON lines may be gzipped; Parquet and Arrow need pyarrow (extra ``parquet``).
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import itertools
import json
import re
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from fmtune.data.foreign import unzipped
from fmtune.errors import DataError, ResourceError
from fmtune.extras import install

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.parsers import TextFileReader

BLOCK = 1 << 16
"""Rows of a block."""

_PYARROW = importlib.util.find_spec("pyarrow") is not None
_INDEX = re.compile(r"__index_level_\d+__")
_DELIMITERS = (",", "\t", ";")
_QUOTED = re.compile(rb'(^|[,\t;\r\n])"(?:[^"]|"")*(?:"|$)')
# What an empty number may look like; a name may be NA, which is Namibia.
_EMPTY = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]

Blocks = Iterator["pd.DataFrame"]


@dataclass(frozen=True)
class Table:
    """A file format of tables: how it is known, and read.

    ``read(path, names, texts)`` yields blocks with the columns ``names`` (None: all of them), those of ``texts`` as
    text.
    """

    suffixes: tuple[str, ...]
    sniff: Callable[[bytes], bool]
    read: Callable[[Path, Sequence[str] | None, Collection[str]], Blocks]


def blocks(path: Path, kind: str, names: Sequence[str] | None = None, texts: Collection[str] = ()) -> Blocks:
    """Yield a table's rows in frames of ``BLOCK`` rows or so.

    Parameters
    ----------
    path, kind
        A file, and its format in ``TABLES``.
    names
        Columns that are wanted, None for all; those that the file has not are left out.
    texts
        Columns to be read as text.

    Raises
    ------
    DataError
        The file is damaged, or no such table.
    ResourceError
        pyarrow is needed and not installed.
    """
    try:
        yield from TABLES[kind].read(path, names, texts)
    except UnicodeDecodeError as error:
        raise DataError(f"the text is not UTF-8 ({error.reason})", where=str(path), hint="write it as UTF-8") from error
    except (ValueError, EOFError, OSError, zlib.error) as error:
        hint = "correct or write the file again"
        raise DataError(f"the table cannot be read: {_first_line(error)}", where=str(path), hint=hint) from error


def head(path: Path, kind: str) -> pd.DataFrame:
    """Return the first rows of a table, with all columns, to see what it holds; errors as in ``blocks``."""
    for frame in blocks(path, kind):
        if len(frame):
            return frame
    raise DataError("the table holds no rows", where=str(path), hint="a channel needs at least one row")


# ---- csv ----


def _sniff_csv(start: bytes) -> bool:
    line = _first_record(unzipped(start))
    marked = any(mark.encode() in line for mark in _DELIMITERS)
    return marked and min(line) >= 9 and line.lstrip()[:1] not in (b"<", b"[")


def _read_csv(path: Path, names: Sequence[str] | None, texts: Collection[str]) -> Blocks:
    import pandas as pd

    with _opened(path) as stream:
        sep = _separator(stream.read(1 << 16))
        stream.seek(0)
        # Read as the rest is, lest the two disagree on where a name ends.
        found = pd.read_csv(stream, sep=sep, header=None, nrows=1, dtype=str, na_filter=False, encoding="utf-8-sig")
        # What has no name is the index that pandas writes: the row's number, and no column.
        known: list[str | int] = [name or at for at, name in enumerate(found.iloc[0])]
        named = [name for name in known if isinstance(name, str)]
        if all(map(is_number, named)):
            hint = f"put a first line with {len(known)} names before it"
            raise DataError("the first line holds numbers and no names", where=str(path), hint=hint)
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise DataError(f"two columns are called {twice!r}", where=str(path), hint="give each a name of its own")
        stream.seek(0)
        # All columns are read: with `usecols` pandas takes lines that are too long without a word.
        reader = pd.read_csv(
            stream, sep=sep, header=0, names=known, chunksize=BLOCK, encoding="utf-8-sig", index_col=False,
            low_memory=False, dtype=dict.fromkeys(set(named) & set(texts), "str"), keep_default_na=False,
            na_values={name: [""] if name in texts else _EMPTY for name in named},
        )  # fmt: skip
        chosen = [name for name in named if names is None or name in names]
        while (frame := _next(reader)) is not None:
            yield frame[chosen]


def _separator(start: bytes) -> str:
    """Return what stands between cells, by the first record."""
    first = _first_record(start)
    return max(_DELIMITERS, key=lambda mark: first.count(mark.encode()))


def _next(reader: TextFileReader) -> pd.DataFrame | None:
    from pandas.errors import ParserWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)
        try:
            return next(reader, None)
        except ParserWarning as error:
            raise ValueError("lines have more fields than the first one names") from error


def _first_record(start: bytes) -> bytes:
    """Return the first record as far as it goes, without its quoted names, which may hold delimiters and line ends."""
    bare = _QUOTED.sub(rb"\1", start.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n"))
    return next(iter(bare.splitlines()), b"")


def line_of(path: Path, row: int) -> int | None:
    """Return the line, from 1, in which a row, from 0, of a csv file or of JSON lines begins; None where none is known.

    Blank lines are no rows, and a quoted cell may hold line ends: so the file is read up to there.
    """
    with suppress(OSError, EOFError, ValueError, csv.Error, zlib.error), _opened(path) as stream:
        start = stream.read(1 << 16)
        stream.seek(0)
        kind = next((name for name, table in TABLES.items() if table.sniff(start)), None)
        if kind == "jsonl":
            lines = (number for number, line in enumerate(stream, 1) if line.strip())
            return next(itertools.islice(lines, row, None), None)
        if kind == "csv":
            text = io.TextIOWrapper(cast(BinaryIO, stream), "utf-8-sig", newline="")
            # The first record holds the names.
            return next(itertools.islice(_begins(text, _separator(start)), row + 1, None), None)
    return None


def _begins(text: io.TextIOWrapper, separator: str) -> Iterator[int]:
    """Yield the line in which each record begins, as pandas tells records from blank lines."""
    reader, begins = csv.reader(text, delimiter=separator), 1
    for record in reader:
        if len(record) > 1 or "".join(record).strip():
            yield begins
        begins = reader.line_num + 1


def is_number(text: str) -> bool:
    """Whether a cell's text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


# ---- JSON lines ----


def _sniff_lines(start: bytes) -> bool:
    return unzipped(start).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _read_lines(path: Path, names: Sequence[str] | None, texts: Collection[str]) -> Blocks:
    import pandas as pd

    with _opened(path) as stream:
        lines = enumerate(stream, 1)
        while several := [_record(line, number, path) for number, line in itertools.islice(lines, BLOCK)]:
            # As objects: numbers that are whole stay so where some are missing.
            frame = pd.DataFrame([one for one in several if one is not None], dtype=object)
            yield frame if names is None else frame.reindex(columns=list(names))


def _record(line: bytes, number: int, path: Path) -> dict[str, Any] | None:
    """Return the object of a line, None for a blank one."""
    if not line.strip():
        return None
    try:
        made = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the line is no JSON: {error}", where=f"{path}: line {number}", hint=_LINE) from error
    if not isinstance(made, dict):
        raise DataError("the line is no object of names and values", where=f"{path}: line {number}", hint=_LINE)
    # Only JSON can say half a character; no vocabulary could be written of it.
    if b"\\u" in line or b"\xed" in line:
        try:
            json.dumps(made, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            what = f"{error.object[error.start]!a} is half a character"
            raise DataError(what, where=f"{path}: line {number}", hint="write both halves, or the character") from error
    return made


_LINE = 'each line is a row, such as {"user": "42", "rating": 4.5}'


# ---- Parquet and Arrow ----


def _read_parquet(path: Path, names: Sequence[str] | None, texts: Collection[str]) -> Blocks:
    with _pyarrow(path):
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            wanted = None if names is None else [name for name in file.schema_arrow.names if name in names]
            for batch in file.iter_batches(BLOCK, columns=wanted):
                yield _frame(batch)


def _read_arrow(path: Path, names: Sequence[str] | None, texts: Collection[str]) -> Blocks:
    with _pyarrow(path):
        import pyarrow.ipc

        with pyarrow.memory_map(str(path)) as stream:
            file = pyarrow.ipc.open_file(stream)
            for at in range(file.num_record_batches):
                batch = file.get_batch(at)
                for first in range(0, batch.num_rows, BLOCK):
                    frame = _frame(batch.slice(first, BLOCK))
                    yield frame if names is None else frame[[name for name in frame.columns if name in names]]


def _frame(batch: Any) -> pd.DataFrame:
    """Return Arrow's columns as pandas has them; whole numbers stay whole where some are missing.

    A damaged file may point to places outside its columns, so those are looked at first.  What pandas noted about
    itself in the file says nothing of the data; the index that it may have left there is no column.
    """
    batch.validate(full=True)
    frame: pd.DataFrame = batch.to_pandas(integer_object_nulls=True, split_blocks=True, ignore_metadata=True)
    return frame[[name for name in frame.columns if not _INDEX.fullmatch(str(name))]]


@contextmanager
def _pyarrow(path: Path) -> Iterator[None]:
    if not _PYARROW:  # pragma: no cover - pyarrow is there wherever the tests run
        raise ResourceError("Parquet and Arrow need pyarrow", where=str(path), hint=install("parquet"))
    from pyarrow.lib import ArrowException

    try:
        yield
    except ArrowException as error:
        raise ValueError(_first_line(error)) from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, behind gzip where it is packed."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[misc]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


TABLES: dict[str, Table] = {
    "parquet": Table((".parquet", ".pq"), lambda start: start.startswith(b"PAR1"), _read_parquet),
    "arrow": Table((".arrow", ".feather", ".ipc"), lambda start: start.startswith(b"ARROW1"), _read_arrow),
    "jsonl": Table((".jsonl", ".ndjson", ".json"), _sniff_lines, _read_lines),
    "csv": Table((".csv", ".tsv"), _sniff_csv, _read_csv),
}
"""Formats of tables; the first that knows a file's beginning reads it."""
