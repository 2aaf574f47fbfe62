"""Columns: which columns of a table are what, as named, or as a look at its first rows suggests."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from fmtune.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

MOST_BITS = 28
_LABELS = ("label", "rating", "target", "y", "click", "clicked", "score", "stars", "class")
_TIME = re.compile(r"(.*_)?(time|timestamp|date|datetime)(_.*)?|.*_at", re.I)
_ISO = re.compile(r"\d{4}-\d\d-\d\d")
# userId and user_id, but neither paid nor bid.
_NAMED = re.compile(r"(?i:(.*[\W_])?((user|item|movie|product|ad)?ids?|user|item|code|zip|zipcode))|.*[a-z](Id|ID)")
# Whole numbers that come back so often on average are names of something; fewer are quantities.
_OFTEN = 5
# Of so many cells a larger share of distinct ones says that a value is its own row's: it tells nothing of another row.
_MANY, _OWN = 100, 0.99


@dataclass(frozen=True)
class Columns:
    """The columns that a table's rows are made of.

    Attributes
    ----------
    label : str or None
        The label's column.
    categorical, multivalued : tuple of str
        Names of things; a cell of ``multivalued`` holds several, between ``separator``.  Lists need no separator
        and may stand in either.
    numeric, bucketed : tuple of str
        Numbers, scaled or cut into ``buckets`` ranges.
    min_count : int
        Values seen fewer times share one feature, which unseen ones take too.
    hash_bits : int or None
        Values are hashed into ``2**hash_bits`` features, and no vocabulary is kept.
    """

    label: str | None = None
    categorical: tuple[str, ...] = ()
    multivalued: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    bucketed: tuple[str, ...] = ()
    separator: str = "|"
    buckets: int = 16
    min_count: int = 1
    hash_bits: int | None = None

    def __post_init__(self) -> None:
        names = [*self.features, *([] if self.label is None else [self.label])]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"the column {twice!r} is named twice", hint="a column is label, categorical or numeric")
        if not self.separator:
            raise UsageError("the separator is empty", hint="such as '|'")
        for name, low, high in (("buckets", 2, 65536), ("min_count", 1, 10**9), ("hash_bits", 1, MOST_BITS)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} is {value}", hint=f"a whole number from {low} to {high}")
        if self.hash_bits is not None and self.min_count > 1:
            raise UsageError("hashed values are not counted", hint="give min_count or hash_bits, not both")

    @classmethod
    def of(cls, label: str, named: Mapping[str, Any]) -> Columns:
        """Return columns named as in a study file, by lists; raise UsageError for a key that is none."""
        if strangers := sorted(set(named) - {field.name for field in fields(cls)}):
            raise UsageError(f"unknown keys {strangers}", where="columns", hint="categorical, numeric and so on")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in named.items()}
        return cls(**{**values, "label": label})

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns whose cells name something."""
        return (*self.categorical, *self.multivalued)

    @property
    def features(self) -> tuple[str, ...]:
        """All columns but the label's."""
        return (*self.texts, *self.bucketed, *self.numeric)

    def separator_of(self, name: str) -> str | None:
        """Return what separates the values of a cell, None where it holds one."""
        return self.separator if name in self.multivalued else None


def near(name: str, known: Iterable[str]) -> str:
    """Return a guess at what a misspelt name was meant to be, in words; empty where there is none."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def with_point(cell: Any) -> str | None:
    """Return a number that is written with a decimal comma, such as 1.234,50, with a point; None for anything else."""
    found = _COMMA.fullmatch(cell.strip()) if isinstance(cell, str) else None
    return None if found is None else f"{found[1].replace('.', '')}.{found[2]}"


_COMMA = re.compile(r"([-+]?(?:\d{1,3}(?:\.\d{3})+|\d+)),(\d+)")


def likely_label(names: Iterable[str]) -> str | None:
    """Return the column that is called as labels are, or None."""
    return next((name for name in names if name.lower() in _LABELS), None)


def is_id(name: str, cells: pd.Series[Any]) -> bool:
    """Whether a column of numbers is called as an id is, and holds whole ones."""
    return _NAMED.fullmatch(name) is not None and bool((cells.dropna() % 1 == 0).all())


def times(frame: pd.DataFrame) -> list[str]:
    """Return the columns that hold times, by which train and test can be divided."""
    return [str(name) for name in frame.columns if _is_time(str(name), frame[name].dropna().infer_objects())]


def checked(columns: Columns, frame: pd.DataFrame, where: str, label: bool = True) -> Columns:
    """Return the columns if the table can have them; ``label`` says whether one is needed.

    Raises
    ------
    DataError
        No label is named, or a name is no column of the table.
    """
    known = [str(name) for name in frame.columns]
    listed = f"the columns are {', '.join(known[:50])}"
    if label and columns.label is None:
        guess = likely_label(known)
        named = f"name it, perhaps label {guess!r}; " if guess else "name it; "
        raise DataError("no column is named as the label", where=where, hint=named + listed)
    for name in (*columns.features, *([columns.label] if label and columns.label else [])):
        if name not in known:
            raise DataError(f"the table has no column {name!r}{near(name, known)}", where=where, hint=listed)
    return columns


def inferred(columns: Columns, frame: pd.DataFrame, where: str, apart: Iterable[str] = ()) -> tuple[Columns, list[str]]:
    """Return the columns, with kinds for all of them where no features are named, and what was decided, in words.

    Text is categorical, or multivalued where ``separator`` divides it; numbers with a fraction are numeric; whole
    numbers are categorical where they are called an id or come back often, else numeric.  Times are left out, and
    so are text and ids that almost never come back.

    Parameters
    ----------
    frame
        The table's first rows.
    apart
        Columns with another purpose, that are not to become features.

    Raises
    ------
    DataError
        No column is left.
    """
    if columns.features:
        return columns, []
    kinds: dict[str, list[str]] = {"categorical": [], "multivalued": [], "numeric": []}
    said, left = [], {columns.label, *apart}
    for name in map(str, frame.columns):
        if name in left:
            continue
        kind, why = _kind(name, frame[name], columns.separator)
        said.append(f"{name}: {kind} ({why})")
        if kind in kinds:
            kinds[kind].append(name)
    chosen: dict[str, Any] = {kind: tuple(names) for kind, names in kinds.items()}
    found = replace(columns, **chosen)
    if not found.features:
        raise DataError("no column is left for the features", where=where, hint="name some as categorical or numeric")
    return found, said


def _kind(name: str, cells: pd.Series[Any], separator: str) -> tuple[str, str]:
    """Return the kind of a column, or ``left out``, and why."""
    from pandas.api import types

    there = cells.dropna().infer_objects()
    if not len(there):
        return "left out", "its first cells are empty"
    if _is_time(name, there):
        return "left out", "a time; it can divide train from test"
    if types.is_bool_dtype(there.dtype):
        return "categorical", "true or false"
    if types.is_numeric_dtype(there.dtype):
        return _number_kind(name, there)
    if isinstance(there.iloc[0], list | tuple) or hasattr(there.iloc[0], "tolist"):
        return "multivalued", "lists"
    texts = there.astype(str)
    distinct = texts.nunique()
    if texts.map(with_point).notna().all():
        return _named_kind("numbers with a decimal comma; with a point they would be numeric", distinct, len(texts))
    if texts.str.contains(separator, regex=False).any() and texts.str.split(separator).explode().nunique() < distinct:
        return "multivalued", f"text divided by {separator!r}"
    return _named_kind("text", distinct, len(texts))


def _named_kind(what: str, distinct: int, cells: int) -> tuple[str, str]:
    """Return the kind of a column that names something; ``what`` it is, in words."""
    if cells < _MANY or 2 * distinct <= cells:
        return "categorical", what
    if distinct <= _OWN * cells:
        return "categorical", f"{what}; its values seldom come back"
    return "left out", f"{what}; its values almost never come back"


def _is_time(name: str, there: pd.Series[Any]) -> bool:
    from pandas.api import types

    if types.is_datetime64_any_dtype(there.dtype) or (_TIME.fullmatch(name) and _spread(there)):
        return True
    # A csv's times are text, and the same times as those of the same table as Parquet.
    return len(there) > 0 and not types.is_numeric_dtype(there.dtype) and bool(there.map(_is_iso).all())


def _is_iso(cell: Any) -> bool:
    """Whether a cell is a date or a time as ISO 8601 has it: ``2024-05-17``, ``2024-05-17 09:30``."""
    if not isinstance(cell, str) or not _ISO.match(cell):
        return isinstance(cell, date)
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        return False
    return True


def _number_kind(name: str, there: pd.Series[Any]) -> tuple[str, str]:
    if not (there == there.round()).all():
        return "numeric", "numbers with a fraction"
    distinct = int(there.nunique())
    if _NAMED.fullmatch(name):
        return _named_kind("whole numbers, named as an id", distinct, len(there))
    if distinct * _OFTEN <= len(there):
        return "categorical", f"whole numbers, {distinct} of them"
    return "numeric", "whole numbers that seldom come back"


def _spread(there: pd.Series[Any]) -> bool:
    """Whether the cells of a column called a time take many values: an hour of the day does not."""
    return int(there.nunique()) > 100
