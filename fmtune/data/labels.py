"""Labels: the label's column of a table as numbers; of two words the later one, in alphabetical order, is 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fmtune.data.cells import LARGEST, Float64, coded, missing_column, numbers_of, place, shown, text_of
from fmtune.data.tables import is_number
from fmtune.errors import DataError
from fmtune.rows import Float32

if TYPE_CHECKING:
    import pandas as pd

Classes = tuple[str, ...]
"""The words for 0 and 1; empty where labels are numbers."""

_HINT = "a label is a number, or one of two words in all: correct it, or drop such rows"


def words_of(cells: pd.Series[Any], where: str, first: int = 0) -> set[str]:
    """Return the distinct texts of a label's column; none where its type says that all of it are numbers."""
    from pandas.api import types

    if types.is_numeric_dtype(cells.dtype):
        return set()
    _, uniques = coded(cells, where, first)
    return {text for cell in uniques if (text := text_of(cell))}


def classes_of(words: set[str]) -> Classes:
    """Return two words in order; nothing where there are not two, or one is a number."""
    return tuple(sorted(words)) if len(words) == 2 and not any(map(is_number, words)) else ()


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
