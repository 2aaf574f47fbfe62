"""Frames: what an estimator is given, as a matrix or as a table with columns that name something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas.api import types

from fmtune.data.canonical import warn
from fmtune.data.columns import Columns, is_id
from fmtune.data.encoding import Encoder
from fmtune.data.fitting import Fitter


def pandas_of(x: Any) -> Any:
    """Return a polars or pyarrow frame as pandas has it; anything else as it is."""
    return x.to_pandas() if not isinstance(x, pd.DataFrame) and hasattr(x, "to_pandas") else x


def columns_of(frame: pd.DataFrame, categorical: Sequence[str] | str, min_count: int) -> Columns | None:
    """Return a frame's columns; None where all are numbers, so that it is a matrix.

    Columns of text, categories and objects name something; ``categorical`` lists others that do.  Where it is
    ``from_dtype``, a warning tells of numbers that are called as ids are.
    """
    known = [str(name) for name in frame.columns]
    named = {name for name in known if not _is_number(frame[name])}
    if not isinstance(categorical, str):
        named |= set(categorical)
        if strangers := named - set(known):
            raise ValueError(f"categorical_features names {sorted(strangers)}, the columns are {known[:50]}")
    elif categorical == "from_dtype":
        _warn_of_ids([name for name in known if name not in named and is_id(name, frame[name])])
    else:
        raise ValueError(f"categorical_features is {categorical!r}: give 'from_dtype' or a list of columns")
    if not named:
        return None
    texts, numbers = ([name for name in known if (name in named) == wanted] for wanted in (True, False))
    return Columns(categorical=tuple(texts), numeric=tuple(numbers), min_count=min_count)


def _warn_of_ids(names: list[str]) -> None:
    if names:
        warn(f"named as ids, but scaled as quantities: {', '.join(names)}; categorical_features={names} makes names of "
             "them, [] keeps them so")  # fmt: skip


def fitted(frame: pd.DataFrame, columns: Columns) -> Encoder:
    """Return the encoder of a whole frame."""
    fitter = Fitter(columns)
    fitter.add(frame)
    return fitter.encoder()


def _is_number(cells: pd.Series[Any]) -> bool:
    return types.is_numeric_dtype(cells.dtype) and not isinstance(cells.dtype, pd.CategoricalDtype)
