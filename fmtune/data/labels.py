"""Labels: the label's column of a table as numbers; of two words the later one, in alphabetical order, is 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fmtune.data.cells import LARGEST, Float64, coded, missing_column, numbers_of, place, shown, text_of
from fmtune.data.tables import is_number
from fmtune.errors import DataError
from fmtune.rows import Float32, Int64

if TYPE_CHECKING:
    import pandas as pd

Classes = tuple[str, ...]
"""The words for 0 and 1; empty where labels are numbers."""

_HINT = "a label is a number, or one of two words in all: correct it, or drop such rows"


class Words:
    """The words that a label's column holds, met a block at a time.

    Parameters
    ----------
    name
        The column.
    """

    def __init__(self, name: str) -> None:
        self._name, self._met, self._rows, self._numbers = name, dict[str, None](), 0, False

    def add(self, cells: pd.Series[Any], where: str, rows: Int64) -> None:
        """Meet the cells of a block, which are of these ``rows`` of ``where``.

        Raises
        ------
        DataError
            A third value beside two words, the first that comes; a cell that is no value.
        """
        from pandas.api import types

        self._rows += len(cells)
        if types.is_numeric_dtype(cells.dtype):
            self._numbers = self._numbers or len(cells) > 0
        if self._numbers or len(self._met) > 2:
            return
        codes, uniques = coded(cells, where, int(rows[0]) if len(rows) else 0)
        for code, cell in enumerate(uniques):
            if not (text := text_of(cell)) or text in self._met:
                continue
            if len(self._met) == 2 and not any(map(is_number, self._met)):
                first, second = self._met
                what = f"the label {self._name!r} is {shown(cell)}, a third value beside {first!r} and {second!r}"
                raise DataError(what, where=place(where, int(rows[np.argmax(codes == code)])), hint=_HINT)
            self._met[text] = None

    def classes(self, where: str) -> Classes:
        """Return two words in order; nothing where labels are numbers.

        Raises
        ------
        DataError
            All labels are one word.
        """
        words = [] if self._numbers or any(map(is_number, self._met)) else sorted(self._met)
        if len(words) == 1:
            raise one_class(repr(words[0]), self._rows, where, self._name)
        return tuple(words)


def told_apart(labels: Float32, where: str, column: str | None = None) -> None:
    """Raise DataError where labels (rows,) are all the same number."""
    if len(labels) and (labels == labels[0]).all():
        raise one_class(f"{labels[0]:g}", len(labels), where, column)


def one_class(value: str, rows: int, where: str, column: str | None = None) -> DataError:
    """Return the error for labels that are all the same; ``value`` is how they are shown."""
    of = "" if column is None else f" in the column {column!r}"
    what = f"all {rows:,} labels{of} are {value}: there is nothing to tell apart, and no score means anything"
    return DataError(what, where=where, hint="take rows with other labels too, or name another label")


def labels_of(frame: pd.DataFrame, name: str, classes: Classes, first: int, where: str) -> Float64:
    """Return a frame's labels, float64 (rows,); ``first`` is the number of its first row in ``where``.

    Raises
    ------
    DataError
        No such column; a label is missing, or neither a number nor one of the classes.
    """
    if name not in frame.columns:
        raise missing_column(name, frame.columns, where, "the label's column")
    cells = frame[name]
    numbers = _numbered(cells, classes) if classes else numbers_of(cells, name, first, where, _HINT)
    bad = np.flatnonzero(np.isnan(numbers))
    if not len(bad):
        return numbers
    cell, at = cells.iloc[bad[0]], place(where, first + int(bad[0]))
    if not text_of(cell):
        hint = "drop such rows before reading the table"
        raise DataError(f"the label {name!r} is missing", where=at, hint=hint)
    raise DataError(f"the label {name!r} is {shown(cell)}, neither {classes[0]!r} nor {classes[1]!r}", where=at,
                    hint=_HINT)  # fmt: skip


def known_labels(frame: pd.DataFrame, name: str | None, classes: Classes) -> Float64:
    """Return the labels that a table to be scored may have, NaN where it has none that is understood."""
    import pandas as pd

    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    if classes:
        return _numbered(frame[name], classes)
    numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return np.where(np.abs(numbers) <= LARGEST, numbers, np.nan)


def not_binary(what: str, where: str) -> DataError:
    """Return the error for a label that a classifier cannot take; ``what`` it is."""
    hint = "map the labels to 0 and 1, or learn the numbers: predictor_type regressor, in a study also test:rmse"
    return DataError(f"{what}: binary_classifier wants 0 or 1", where=where, hint=hint)


def are_binary(labels: Float32 | None) -> bool:
    """Whether the labels are 0 and 1, both of them, as a classifier's are."""
    return labels is not None and bool(((labels == 0) | (labels == 1)).all()) and 0 < float(labels.mean()) < 1


def _numbered(cells: pd.Series[Any], classes: Classes) -> Float64:
    codes, uniques = coded(cells, "the label")
    places = {word: float(at) for at, word in enumerate(classes)}
    return np.array([*(places.get(text_of(cell), np.nan) for cell in uniques), np.nan])[codes]
