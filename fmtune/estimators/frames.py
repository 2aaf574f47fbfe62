"""Frames: what an estimator is given, as a matrix or as a table with columns that name something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from pandas.api import types

from fmtune.data.canonical import warn
from fmtune.data.columns import Columns, is_id
from fmtune.data.encoding import Encoder
from fmtune.data.fitting import Fitter
from fmtune.data.kinds import OneHot

# Of so many cells a larger share of distinct ones says that a value is its own row's, as in fmtune.data.columns.
_MANY, _OWN = 100, 0.99


def pandas_of(x: Any) -> Any:
    """Return a polars or pyarrow frame as pandas has it; anything else as it is."""
    return x.to_pandas() if not isinstance(x, pd.DataFrame) and hasattr(x, "to_pandas") else x


def numbered(x: Any) -> pd.DataFrame:
    """Return an array as a frame with columns ``x0``, ``x1`` and so on."""
    if scipy.sparse.issparse(x):
        raise ValueError("categorical_features is for frames and arrays; of a sparse matrix the columns are features")
    table = np.asarray(x)
    if table.ndim != 2:
        raise ValueError(f"X has {table.ndim} dimensions, not 2: rows and columns")
    return pd.DataFrame(table, columns=[f"x{at}" for at in range(table.shape[1])]).infer_objects()


def chosen(categorical: Any) -> bool:
    """Whether ``categorical_features`` picks any column."""
    return categorical is not None and not isinstance(categorical, str) and len(categorical) > 0


def columns_of(frame: pd.DataFrame, categorical: Any, min_count: int, is_numbered: bool = False) -> Columns | None:
    """Return a frame's columns; None where all are numbers, so that it is a matrix.

    Columns of text, categories and objects name something; ``categorical`` lists others that do, by name, position
    or mask.  Where it is ``from_dtype``, a warning tells of numbers that are called as ids are.  The columns of a
    frame that ``is_numbered`` have no names of their own.
    """
    known = [str(name) for name in frame.columns]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise ValueError(f"X has more than one column named {', '.join(twice)}: rename or drop all but one")
    named = {name for name in known if not _is_number(frame[name])}
    if not isinstance(categorical, str):
        named |= _listed(categorical, known, is_numbered)
    elif categorical == "from_dtype":
        _warn_of_ids([name for name in known if name not in named and is_id(name, frame[name])])
    else:
        raise ValueError(f"categorical_features is {categorical!r}: give 'from_dtype' or a list of columns")
    if not named:
        return None
    _warn_of_times([name for name in known if name in named and _is_time(frame[name])])
    texts, numbers = ([name for name in known if (name in named) == wanted] for wanted in (True, False))
    return Columns(categorical=tuple(texts), numeric=tuple(numbers), min_count=min_count)


def _listed(categorical: Any, known: list[str], is_numbered: bool) -> set[str]:
    """Return the names of columns that are listed by names, positions or a mask, as scikit-learn's trees take them."""
    if not chosen(categorical):
        return set()
    given = list(categorical)
    if all(isinstance(one, bool | np.bool_) for one in given):
        if len(given) != len(known):
            raise ValueError(f"categorical_features is a mask of {len(given)} columns, X has {len(known)}")
        return {name for name, one in zip(known, given, strict=True) if one}
    if all(isinstance(one, int | np.integer) for one in given):
        if strangers := [int(one) for one in given if not 0 <= one < len(known)]:
            raise ValueError(f"categorical_features has positions {strangers}, X has columns 0 to {len(known) - 1}")
        return {known[one] for one in given}
    if not all(isinstance(one, str) for one in given):
        raise ValueError("categorical_features lists names, positions or a mask of columns, not a mixture of them")
    if is_numbered:
        raise ValueError("categorical_features lists names, but the columns of an array have none: give positions or a "
                         "mask, or X as a frame")  # fmt: skip
    if unknown := set(given) - set(known):
        raise ValueError(f"categorical_features names {sorted(unknown)}, the columns are {known[:50]}")
    return set(given)


def _warn_of_ids(names: list[str]) -> None:
    if names:
        warn(f"named as ids, but scaled as quantities: {', '.join(names)}; categorical_features={names} makes names of "
             "them, [] keeps them so")  # fmt: skip


def _warn_of_times(names: list[str]) -> None:
    if names:
        warn(f"times, of which each becomes a feature: {', '.join(names)}; leave them out, or make numbers or names "
             "such as the hour of them")  # fmt: skip


def fitted(frame: pd.DataFrame, columns: Columns) -> Encoder:
    """Return the encoder of a whole frame; a warning tells of columns whose values almost never come back."""
    fitter = Fitter(columns)
    fitter.add(frame)
    encoder, most = fitter.encoder(), _OWN * max(len(frame), _MANY)
    own = [column.name for column in encoder.columns if isinstance(column, OneHot) and column.width > most]
    if own := [name for name in own if not _is_time(frame[name])]:
        warn(f"values that almost never come back, each a feature that tells nothing of new rows: {', '.join(own)}; "
             "leave them out, or give min_count=2")  # fmt: skip
    return encoder


def _is_number(cells: pd.Series[Any]) -> bool:
    return types.is_numeric_dtype(cells.dtype) and not isinstance(cells.dtype, pd.CategoricalDtype)


def _is_time(cells: pd.Series[Any]) -> bool:
    return types.is_datetime64_any_dtype(cells.dtype)
