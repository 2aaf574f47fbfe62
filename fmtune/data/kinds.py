"""Kinds: what a column of a table becomes.

========== ================================ ============================================================
kind       a cell                           becomes
========== ================================ ============================================================
OneHot     text, a number, a list           1 at the value's own feature; n values of a cell share 1 / n each
Hashed     the same                         the same, at a feature that a hash of column and value picks
Scaled     a number                         (number - mean) / deviation, at one feature
Bucketed   a number                         1 at the feature of its range; ranges hold equally many numbers
========== ================================ ============================================================

A missing cell has no feature.  A value that was not seen has none either, unless ``min_count`` made a feature for
rare values: then it takes that one.  Both are zeros to the model, so that the other columns decide.

A table comes as a pandas frame, a block at a time; a request's row as a mapping.  Both give the same entries.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fmtune.data.cells import LARGEST, Float64, shown, spelled, text_of, values_of
from fmtune.data.columns import with_point
from fmtune.errors import DataError
from fmtune.rows import Int64

Entry = tuple[int, float]

TOO_FAR = "too far from the numbers that trained for 32 bits"
"""What is said of a number that is none any more once it is scaled."""


@dataclass(frozen=True)
class OneHot:
    """A feature for each value, as ``text_of`` names it; ``others`` adds one for rare and unseen values."""

    name: str
    values: tuple[str, ...]
    others: bool = False
    separator: str | None = None
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places = {value: at for at, value in reversed(list(enumerate(self.values)))}
        object.__setattr__(self, "_places", places)

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.values) + self.others

    def entries(self, cell: Any) -> list[Entry]:
        """Return the cell's features, counted from the column's first, and their values."""
        # Most cells of a table are names as they stand; these are found without a closer look.
        if self.separator is None and isinstance(cell, str) and (at := self._places.get(cell)) is not None:
            return [(at, 1.0)]
        values = values_of(cell, self.separator)
        places = [self._places.get(value, len(self.values) if self.others else -1) for value in values]
        return [(at, 1 / len(values)) for at in places if at >= 0]

    def named(self, at: int) -> str:
        """Return the name of the feature at a place of the column."""
        return f"{self.name}={self.values[at] if at < len(self.values) else '(others)'}"


@dataclass(frozen=True)
class Hashed:
    """Features that a hash picks; all hashed columns of an encoder share theirs.

    ``as_spelled`` keeps 42 and 42.0 apart, as older models did, whose hashes cannot be made again.
    """

    name: str
    bits: int
    separator: str | None = None
    as_spelled: bool = False

    width = 0

    def entries(self, cell: Any) -> list[Entry]:
        """Return the cell's features, counted from the first hashed one, and their values."""
        values = values_of(cell, self.separator, spelled if self.as_spelled else text_of)
        return [(_hash(f"{self.name}={value}") % (1 << self.bits), 1 / len(values)) for value in values]

    def named(self, at: int) -> str:
        """Return nothing: hashed features have no names of their own."""
        return ""


@dataclass(frozen=True)
class Scaled:
    """One feature: the number less ``mean``, divided by ``deviation``."""

    name: str
    mean: float
    deviation: float

    width = 1

    def entries(self, cell: Any) -> list[Entry]:
        """Return the feature and its value; of a missing number nothing."""
        number = _number(cell, self.name)
        if number is None:
            return []
        value = (number - self.mean) / self.deviation
        if abs(value) > LARGEST:
            raise DataError(f"{shown(cell)} is {TOO_FAR}", where=self.name)
        return [(0, value)]

    def block(self, numbers: Float64) -> tuple[Int64, Float64]:
        """Return features and values of numbers, none of them missing; a value may be beyond ``LARGEST``."""
        with np.errstate(over="ignore"):
            return np.zeros(len(numbers), np.int64), (numbers - self.mean) / self.deviation

    def named(self, at: int) -> str:
        """Return the feature's name."""
        return self.name


@dataclass(frozen=True)
class Bucketed:
    """A feature for each range of numbers; a range begins at an edge and ends before the next."""

    name: str
    edges: tuple[float, ...]

    @property
    def width(self) -> int:
        """Number of ranges."""
        return len(self.edges) + 1

    def entries(self, cell: Any) -> list[Entry]:
        """Return the feature of the number's range; of a missing number nothing."""
        number = _number(cell, self.name)
        return [] if number is None else [(bisect.bisect_right(self.edges, number), 1.0)]

    def block(self, numbers: Float64) -> tuple[Int64, Float64]:
        """Return features and values of numbers, none of them missing."""
        return np.searchsorted(self.edges, numbers, "right").astype(np.int64), np.ones(len(numbers))

    def named(self, at: int) -> str:
        """Return the range at a place of the column as a name."""
        ends = ["", *(f"{edge:g}" for edge in self.edges), ""]
        return f"{self.name} {ends[at]}..{ends[at + 1]}"


Column = OneHot | Hashed | Scaled | Bucketed

KINDS: dict[str, type[Column]] = {
    "one-hot": OneHot,
    "hashed": Hashed,
    "scaled": Scaled,
    "bucketed": Bucketed,
}


def column_of(entry: Mapping[str, Any]) -> Column:
    """Return a column from its JSON values; raise KeyError, TypeError or ValueError for what is none."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items() if key != "kind"
    }
    # Older models tell 42 from 42.0.  Of two names that are one now the commoner, which comes first, counts.
    if entry["kind"] == "one-hot":
        values["values"] = tuple(map(text_of, values["values"]))
    elif entry["kind"] == "hashed":
        values.setdefault("as_spelled", True)
    made = KINDS[entry["kind"]](**values)
    if isinstance(made, Scaled) and not (abs(made.mean) <= LARGEST and 0 < made.deviation <= LARGEST):
        raise ValueError(f"{made.name} cannot be scaled by these numbers")
    return made


def _number(cell: Any, name: str) -> float | None:
    if not text_of(cell):
        return None
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(cell, bool) or not abs(number) <= LARGEST:
        pointed = with_point(cell)
        hint = None if pointed is None else f"a number has a decimal point: {pointed}"
        raise DataError(f"wants a finite number, not {shown(cell)}", where=name, hint=hint)
    return number


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
