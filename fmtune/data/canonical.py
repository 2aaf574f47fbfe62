"""Canonical: sparse rows with their keys checked, ascending and unique, and their numbers finite.

Every reader of sparse data ends here, so that the same fault has the same words in every format.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import DataError
from fmtune.rows import Float32, Int64, SparseRows

LARGEST_DIM = 2**31 - 1
"""The largest feature_dim: features are numbered with 31 bits."""

Place = Callable[[int], str]
"""Says where row ``r`` (from 0) stands: ``a.libsvm: line 17``."""


class DataWarning(UserWarning):
    """The data were read, but not quite as they stand; the text says what was done."""


def warn(text: str) -> None:
    """Issue a DataWarning that is not tied to a line of our own code."""
    warnings.warn(text, DataWarning, stacklevel=2)


class Disorder(NamedTuple):
    """Rows whose keys were out of order, and entries of them that were summed."""

    rows: int = 0
    repeats: int = 0

    def __add__(self, other: Disorder) -> Disorder:  # type: ignore[override]
        return Disorder(self.rows + other.rows, self.repeats + other.repeats)

    def say(self, name: str) -> None:
        """Warn of it, if there was any; ``name`` is the path."""
        count, repeats = self
        if not count:
            return
        what = f"{count} row{' has' if count == 1 else 's have'} keys out of order{' or repeated' if repeats else ''}"
        summed = f"{repeats} repeated entr{'y was' if repeats == 1 else 'ies were'} summed"
        warn(f"{name}: {what}; {summed if repeats else 'they were sorted'}")


def sparse_rows(
    indptr: Int64,
    keys: NDArray[Any],
    values: NDArray[Any],
    labels: NDArray[Any] | None,
    feature_dim: int | None,
    name: str,
    place: Place,
    *,
    base: int = 0,
    at_least: int = 0,
) -> SparseRows:
    """Return checked rows, and warn of keys that were out of order; ``name`` is what the warning is about, the path.

    Parameters as in :func:`put_right`.
    """
    rows, disorder = put_right(indptr, keys, values, labels, feature_dim, place, base=base, at_least=at_least)
    disorder.say(name)
    return rows


def put_right(
    indptr: Int64,
    keys: NDArray[Any],
    values: NDArray[Any],
    labels: NDArray[Any] | None,
    feature_dim: int | None,
    place: Place,
    *,
    base: int = 0,
    at_least: int = 0,
) -> tuple[SparseRows, Disorder]:
    """Return checked rows, each row's keys ascending and unique, and what was done for that.

    Parameters
    ----------
    indptr : int64 (n + 1,)
    keys : integer (nnz,), 0-based
    values : float (nnz,)
    labels : float (n,) or None
    feature_dim
        Every key must be below it; None takes the largest key + 1, but not less than ``at_least``.
    place
        Where row ``r`` stands.
    base
        Added to a key before it is shown, for formats that count from 1.

    Raises
    ------
    DataError
        A key outside the features, or a number that is not finite.
    """
    row_of = _row_of(indptr)
    _check_keys(keys, feature_dim, row_of, place, base)
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values, np.float32)
    _check_values(keys, values, row_of, place, base)
    labels = None if labels is None else checked_labels(labels, place)
    if feature_dim is None:
        feature_dim = max(at_least, int(keys.max()) + 1 if len(keys) else 0)
    within = np.ones(len(keys), bool)
    within[indptr[:-1][indptr[:-1] < len(keys)]] = False
    falls = np.flatnonzero(within[1:] & (np.diff(keys) <= 0)) + 1
    disorder = Disorder()
    if len(falls):
        before = len(keys)
        at_fault = np.unique(np.searchsorted(indptr, falls, "right"))
        indptr, keys, values = _ordered(indptr, keys, values)
        _check_values(keys, values, _row_of(indptr), place, base)
        disorder = Disorder(len(at_fault), before - len(keys))
    indptr, keys = np.ascontiguousarray(indptr, np.int64), np.ascontiguousarray(keys, np.int32)
    return SparseRows(indptr, keys, values, labels, feature_dim), disorder


def checked_labels(labels: NDArray[Any], place: Place) -> Float32:
    """Return the labels as float32; raise DataError for one that is not finite."""
    with np.errstate(over="ignore"):
        labels = np.ascontiguousarray(labels, np.float32)
    bad = np.flatnonzero(~np.isfinite(labels))
    if len(bad):
        raise DataError(f"the label is {labels[bad[0]]}", where=place(int(bad[0])), hint=_FINITE)
    return labels


def check_matrix(matrix: Float32, place: Place) -> None:
    """Raise DataError for an entry of a dense block that is not finite."""
    if np.isfinite(matrix).all():
        return
    row, column = np.argwhere(~np.isfinite(matrix))[0].tolist()
    raise DataError(f"the value of feature {column} is {matrix[row, column]}", where=place(row), hint=_FINITE)


def beyond(key: int, feature_dim: int | None, where: str) -> DataError:
    """Return the error for a key that is not one of the features; ``feature_dim`` is as the reader shows it."""
    if feature_dim is None:
        return DataError(
            f"key {key} is beyond the {LARGEST_DIM} features that can be numbered",
            where=where,
            hint="renumber the features from 0 before writing the file",
        )
    return DataError(
        f"key {key} is not below feature_dim {feature_dim}",
        where=where,
        hint="the channels of a study share one numbering, and data to score have their model's: "
        "check that file, or give a larger feature_dim (in a study, below data:)",
    )


_FINITE = "values and labels must be finite float32 numbers: replace or drop such rows before writing the file"


def _row_of(indptr: Int64) -> Callable[[int], int]:
    return lambda entry: int(np.searchsorted(indptr, entry, "right")) - 1


def _check_keys(
    keys: NDArray[Any], feature_dim: int | None, row_of: Callable[[int], int], place: Place, base: int
) -> None:
    bad = np.flatnonzero((keys < 0) | (keys >= (LARGEST_DIM if feature_dim is None else feature_dim)))
    if not len(bad):
        return
    key, where = int(keys[bad[0]]) + base, place(row_of(int(bad[0])))
    if key < base:
        raise DataError(
            f"index {key} is below {base}, where the numbering starts",
            where=where,
            hint="one file counts features from 0 or from 1, not both",
        )
    raise beyond(key, None if feature_dim is None else feature_dim + base, where)


def _check_values(keys: NDArray[Any], values: Float32, row_of: Callable[[int], int], place: Place, base: int) -> None:
    if np.isfinite(values).all():
        return
    bad = int(np.flatnonzero(~np.isfinite(values))[0])
    raise DataError(
        f"the value of feature {int(keys[bad]) + base} is {values[bad]}", where=place(row_of(bad)), hint=_FINITE
    )


def _ordered(
    indptr: Int64, keys: NDArray[Any], values: Float32
) -> tuple[Int64, NDArray[Any], Float32]:
    """Sort each row's keys and sum the values of equal ones, in file order and float64."""
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((keys, rows))
    keys, values, rows = keys[order], values[order], rows[order]
    first = np.ones(len(keys), bool)
    first[1:] = (np.diff(keys) != 0) | (np.diff(rows) != 0)
    if not first.all():
        with np.errstate(over="ignore"):
            values = np.add.reduceat(values.astype(np.float64), np.flatnonzero(first)).astype(np.float32)
        keys, rows = keys[first], rows[first]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(indptr) - 1))]).astype(np.int64)
    return indptr, keys, values
