"""Cells: what stands in the columns of a pandas frame, as text or as numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmtune.data.columns import near, with_point
from fmtune.data.tables import line_of
from fmtune.errors import DataError
from fmtune.rows import Int64

if TYPE_CHECKING:
    import pandas as pd

Float64 = NDArray[np.float64]

# Rows are of float32.
LARGEST = float(np.finfo(np.float32).max)


def text_of(value: Any) -> str:
    """Return what a value is called, whatever its origin: the one place where a cell becomes a name.

    42, 42.0, ``"42"`` and ``"42.0"`` are ``42``, true is ``true``, missing ones are empty.  A whole number of a csv
    file is written as 42.0 where others of its column are missing, and as 1e+16 where it is long; ``007`` and ``1.50``
    are as they stand.
    """
    if not isinstance(value, str):
        return spelled(value) if isinstance(value, float | int) else _whole(spelled(value))
    if value.endswith("0") or "e+" in value:
        return _whole(value)
    return _BOOLEANS.get(value, value)


def _whole(text: str) -> str:
    """Return a text that says a whole number as a float does, as the number itself; any other as it is."""
    if text.endswith(".0") and (head := text[:-2]).isdecimal() and head[0] != "0":
        return head  # as nearly all of them are, and quicker than by a pattern
    if text.endswith("0") and (found := _POINT.fullmatch(text)):
        return "0" if found[1] == "-0" else found[1]
    return spelled(float(text)) if "e+" in text and _POWER.fullmatch(text) else text


_POINT = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_POWER = re.compile(r"-?[1-9](?:\.[0-9]+)?e\+[0-9]{2,3}")


def spelled(value: Any) -> str:
    """Return a value as text, a text as it stands; as ``text_of`` where it is none."""
    if isinstance(value, str):
        return _BOOLEANS.get(value, value)
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return ""
        return str(int(value)) if value == np.floor(value) and math.isfinite(value) else str(float(value))
    text = str(value)
    return "" if text in _MISSING else text


_MISSING = ("<NA>", "NaT")
_BOOLEANS = {"True": "true", "False": "false"}
_LISTS = (list, tuple, np.ndarray)


def values_of(cell: Any, separator: str | None, name: Callable[[Any], str] = text_of) -> list[str]:
    """Return the values of a cell: one, or those of a list or between separators; missing ones are left out."""
    if isinstance(cell, _LISTS):
        return [text for one in cell if (text := name(one))]
    if separator and separator in (text := spelled(cell)):
        return [value for part in text.split(separator) if (value := name(part.strip()))]
    value = name(cell)
    return [value] if value else []


def coded(cells: pd.Series[Any], where: str, first: int = 0) -> tuple[Int64, list[Any]]:
    """Return each cell's number (-1 for a missing one) and the distinct cells; lists become tuples.

    Raises DataError for a cell that is an object of names and values, or holds one or a list, or half a character;
    ``first`` is the number of the first cell.
    """
    plain = cells
    try:
        if cells.dtype == object:
            plain = cells.map(_told_apart)
        codes, uniques = plain.factorize()
    except TypeError as error:
        bad = next(at for at, cell in enumerate(plain) if not _is_plain(cell))
        what = f"{cells.name!r} is {shown(cells.iloc[bad])}, no value and no list of values"
        hint = "give its parts columns of their own"
        raise DataError(what, where=place(where, first + bad), hint=hint) from error
    except UnicodeEncodeError as error:
        bad = next(at for at, cell in enumerate(cells) if isinstance(cell, str) and cell == error.object)
        what = f"{cells.name!r} is {shown(cells.iloc[bad])}, which holds half a character"
        raise DataError(what, where=place(where, first + bad), hint="correct the text") from error
    return codes.astype(np.int64), list(uniques.tolist())


def _told_apart(cell: Any) -> Any:
    """Return a cell that equals those of its name alone: a list as a tuple, true, which is 1 to Python, as text."""
    return tuple(map(_bare, cell)) if isinstance(cell, _LISTS) else _bare(cell)


def _bare(value: Any) -> Any:
    return spelled(value) if isinstance(value, bool | np.bool_) else value


def _is_plain(cell: Any) -> bool:
    """Whether a cell can be told from others: no mapping, and no list inside of it."""
    try:
        hash(cell)
    except TypeError:
        return False
    return True


def numbers_of(cells: pd.Series[Any], name: str, first: int, where: str, hint: str | None = None) -> Float64:
    """Return a column's numbers, NaN for missing ones; raise DataError for what is no finite number of float32."""
    try:
        numbers = cells.to_numpy(np.float64, na_value=np.nan)
        bad = np.flatnonzero(np.abs(numbers) > LARGEST)
    except (ValueError, TypeError, OverflowError):
        numbers, bad = np.empty(0), np.flatnonzero([not _is_number(cell) for cell in cells])
    if len(bad):
        cell, at = cells.iloc[bad[0]], place(where, first + int(bad[0]))
        if pointed := with_point(cell):
            hint = f"write {pointed} there, and a point in every other row of the column"
            what = f"{name!r} is {shown(cell)}, with a decimal comma: numbers have a point"
            raise DataError(what, where=at, hint=hint)
        hint = hint or f"correct it, or name {name!r} among the categorical columns"
        raise DataError(f"{name!r} is {shown(cell)}, not a finite number of 32 bits", where=at, hint=hint)
    return numbers


def _is_number(cell: Any) -> bool:
    try:
        return not text_of(cell) or abs(float(cell)) <= LARGEST
    except (ValueError, TypeError, OverflowError):
        return False


def missing_column(name: str, columns: Iterable[Any], where: str, what: str = "the column") -> DataError:
    """Return the error for a column that a table has not."""
    known = [str(column) for column in columns]
    hint = f"the columns are {', '.join(known[:50])}" if known else "compare it with the table's first line"
    return DataError(f"{what} {name!r} is not in the table{near(name, known)}", where=where, hint=hint)


def place(where: str, row: int) -> str:
    """Return where a row, counted from 0, stands; of a file of text with its line, as an editor counts."""
    line = line_of(Path(where), row)
    return f"{where}: row {row + 1}" + ("" if line is None else f" (line {line})")


def shown(value: Any) -> str:
    """Return a cell for a message."""
    return repr(value.item() if isinstance(value, np.generic) else value)[:60]
