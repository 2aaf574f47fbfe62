"""Given: what a caller from Python gives as data, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from fmtune.data import preparation, source
from fmtune.data.cache import Cache
from fmtune.data.columns import Columns
from fmtune.data.encoding import Encoder
from fmtune.data.split import Split
from fmtune.errors import DataError, UsageError
from fmtune.fm.fit import Channels
from fmtune.fm.groups import Groups
from fmtune.fm.metrics import Array
from fmtune.fm.model import Model
from fmtune.rows import DenseRows, Rows, SparseRows
from fmtune.tune.places import shown

Data = Rows | tuple[Any, Any] | str | Path | Sequence[str | Path]


def as_channels(
    train_data: Data, test: Data | None, binary: bool, groups: Mapping[str, Any] | Sequence[int] | None = None
) -> Channels:  # fmt: skip
    """Return channels from rows, from ``(X, y)`` with a SciPy matrix or an array, or from files.

    Raises
    ------
    DataError
        Shapes do not fit, values are not finite, labels do not fit the task, or a file cannot be read.
    UsageError
        What is given is something else, such as a frame.
    """
    given = {"train": train_data} if test is None else {"train": train_data, "test": test}
    rows: dict[str, Rows] = {}
    files: dict[str, Any] = {}
    for name, data in given.items():
        if isinstance(data, SparseRows | DenseRows):
            rows[name] = data
        elif isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], str | Path):
            rows[name] = _from_arrays(data[0], data[1], name)
        elif _are_files(data):
            files[name] = data
        else:
            raise _no_rows(data, name)
        if binary and name in rows and rows[name].labels is not None:
            rows[name] = source.map_signs(rows[name], name)
    # Files are read together: they share the numbering of features.
    dim = rows["train"].feature_dim if "train" in rows else None
    rows.update(source.read_channels(files, feature_dim=dim, map_labels=binary, cache=Cache()) if files else {})
    for name, found in rows.items():
        source.check_labels(found.labels, binary, name)
    return Channels(rows["train"], rows.get("test"), Groups.of(groups) if groups else None)


def _are_files(data: Any) -> bool:
    several = isinstance(data, Sequence) and all(isinstance(path, str | Path) for path in data)
    return isinstance(data, str | Path) or several


def _no_rows(data: Any, name: str) -> UsageError:
    """Return the error for what is neither rows, nor ``(X, y)`` of numbers, nor files."""
    hint = "give (X, y) with a SciPy matrix or an array of numbers, files, or rows"
    if hasattr(data, "columns"):
        hint = "FMClassifier and FMRegressor take frames, and fmtune.fit(FILE, label=COLUMN) tables"
    return UsageError(f"features cannot be taken from a {type(data).__name__}", where=name, hint=hint)


def _from_arrays(x: Any, y: Any, name: str) -> Rows:
    labels = None if y is None else _numbers(y, "labels", name)
    # Not narrowed by issparse: its stubs know no common conversion.
    is_sparse: bool = scipy.sparse.issparse(x)
    if is_sparse:
        csr = x.tocsr()
        if not csr.has_canonical_format:
            csr = csr.copy()
            csr.sum_duplicates()
        values = csr.data.astype(np.float32, copy=False)
        rows: Rows = SparseRows(
            csr.indptr.astype(np.int64), csr.indices.astype(np.int32, copy=False), values, labels, csr.shape[1]
        )  # fmt: skip
    else:
        matrix = _numbers(x, "features", name)
        if matrix.ndim != 2:
            raise DataError(f"features must be a matrix, not of shape {matrix.shape}", where=name)
        values, rows = matrix, DenseRows(matrix, labels, matrix.shape[1])
    if labels is not None and labels.shape != (rows.n,):
        raise DataError(f"labels have shape {labels.shape}, features {(rows.n, rows.feature_dim)}", where=name)
    if not np.isfinite(values).all() or (labels is not None and not np.isfinite(labels).all()):
        raise DataError("features or labels hold NaN or infinity", where=name, hint="clean the values first")
    return rows


def _numbers(values: Any, what: str, name: str) -> Array:
    try:
        return np.ascontiguousarray(values, np.float32)
    except (TypeError, ValueError) as error:
        if hasattr(values, "columns"):
            raise _no_rows(values, name) from error
        raise DataError(f"{what} are not all numbers: {shown(str(error))}", where=name,
                        hint="FMClassifier and FMRegressor take words too") from error  # fmt: skip


def tables(train: Any, test: Any, columns: Columns, split: Split, binary: bool) -> tuple[Rows, Rows | None, Encoder]:
    """Return the rows of tables, and what made them."""
    if isinstance(train, SparseRows | DenseRows | tuple) or hasattr(train, "columns"):
        hint = "FMClassifier and FMRegressor take frames and arrays"
        raise UsageError("it names a column of files", where="label", hint=hint)
    files = {"train": train} if test is None or split.test else {"train": train, "test": test}
    made = preparation.prepare(files, columns, split, map_labels=binary, binary=binary)
    assert made.encoder is not None
    return made.rows["train"], made.rows.get("test"), made.encoder


def rows_for(model: Model, data: Any) -> Rows:
    """Return what a model is to score, as rows."""
    if isinstance(data, SparseRows | DenseRows):
        return data
    if isinstance(data, str | Path) or (isinstance(data, Sequence) and data and isinstance(data[0], str | Path)):
        return source.read_channel(
            data, feature_dim=model.feature_dim, labelled=False, name="data", map_labels=False,
            base=model.facts.get("index_base"), encoder=Encoder.of(model.facts),
        )  # fmt: skip
    encoder = Encoder.of(model.facts)
    if encoder is not None and hasattr(data, "columns"):
        # Frames of polars and pyarrow know how to become one of pandas.
        return encoder.rows(data.to_pandas() if hasattr(data, "to_pandas") else data, labels=False)
    matrix = data if scipy.sparse.issparse(data) else np.asarray(data)
    return _from_arrays(matrix, None, "data")
