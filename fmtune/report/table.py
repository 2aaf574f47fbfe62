"""Table: every trial of every cell as a pandas frame, as CSV, and as Parquet (extra ``parquet``)."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import pandas as pd

from fmtune.errors import ResourceError
from fmtune.extras import install
from fmtune.report.record import masked
from fmtune.tune.result import StudyResult

_COLUMNS = ("number", "state", "value", "best_epoch", "seconds", "rows_per_s", "model_bytes", "attempts", "reason")
_PYARROW = importlib.util.find_spec("pyarrow") is not None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def frame(result: StudyResult) -> pd.DataFrame:
    """Return one row for each trial of each cell: cell, results, then ``param_<name>`` columns.

    Parameters
    ----------
    result : StudyResult

    Returns
    -------
    DataFrame
        Cells in the study's order, trials as stored; a parameter that a trial has not is missing (None).
    """
    names = list(dict.fromkeys(n for cell in result.cells for t in cell.trials for n in t.params))
    rows = [
        {"cell": cell.name}
        | {column: getattr(t, column) for column in _COLUMNS}
        | {f"param_{name}": t.params.get(name) for name in names}
        for cell in result.cells
        for t in cell.trials
    ]
    table = pd.DataFrame(rows, columns=["cell", *_COLUMNS, *(f"param_{n}" for n in names)], dtype=object)
    whole = {"number": "int64", "best_epoch": "Int64", "model_bytes": "Int64", "attempts": "int64"}
    return table.astype(whole | dict.fromkeys(("value", "seconds", "rows_per_s"), "float64"))


def csv(result: StudyResult) -> str:
    """Return the frame as CSV; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    table = frame(masked(result)).map(_inert)
    return table.rename(columns=_inert).to_csv(index=False, lineterminator="\n")


def parquet(result: StudyResult, pyarrow: bool = _PYARROW) -> bytes:
    """Return the frame as Parquet; a parameter's column is of its values' own type, text where they are mixed.

    Raises
    ------
    ResourceError
        pyarrow is not installed (``pyarrow``).
    """
    if not pyarrow:
        raise ResourceError("Parquet needs pyarrow", hint=install("parquet"))
    table = frame(masked(result))
    for name in table.columns:
        if table[name].dtype == object:
            table[name] = _typed(table[name])
    stream = io.BytesIO()
    table.to_parquet(stream, engine="pyarrow", index=False)
    return stream.getvalue()


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    kinds = {type(value) for value in column if value is not None}
    for kind, dtype in ((bool, "boolean"), (int, "Int64"), (float, "Float64")):
        if kinds == {kind} or (kind is float and kinds == {int, float}):
            return column.astype(dtype)  # type: ignore[call-overload,no-any-return]
    return column.map(lambda value: None if value is None else str(value))


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
