"""Table: every trial of every cell as a pandas frame, and as CSV."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fmtune.report.record import masked
from fmtune.tune.result import StudyResult

_COLUMNS = ("number", "state", "value", "best_epoch", "seconds", "rows_per_s", "model_bytes", "attempts", "reason")
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


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
