"""Record: a study's result as plain JSON and back; what the page carries, and all that the page is made from.

Trials are stored by column, and a replayed cell does not repeat the parameters of the first.  Parameters and
values are exact; curves, metrics, seconds and rates keep six significant digits, and so does the page.
Numbers that JSON has no word for are the strings ``NaN``, ``Infinity`` and ``-Infinity``.  Passwords in
addresses (``postgresql://me:secret@host``) are masked on the way in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from fmtune.errors import DataError
from fmtune.tune.result import CellResult, StudyResult, TrialResult

FORMAT = "fmtune-report/1"
_DIGITS = 6
_ABSENT: list[Any] = []  # parameters are scalars, so an empty list can stand for "not sampled"
_PASSWORD = re.compile(r"(://[^\s:/@]*):[^\s\"']{0,300}@")
_EXACT = ("number", "state", "value", "best_epoch", "reason", "model_bytes", "attempts")
_ROUNDED = ("seconds", "rows_per_s")
_CELL = ("device", "layout", "note", "seconds", "rows_per_s", "peak_mb")


def to_json(result: StudyResult) -> dict[str, Any]:
    """Return the result as a value that ``json.dumps(..., allow_nan=False)`` takes.

    Parameters
    ----------
    result : StudyResult

    Returns
    -------
    dict
        ``format``, ``study`` (every field but the cells) and ``cells``, whose ``trials`` are columns.
    """
    study = {f.name: _plain(getattr(result, f.name)) for f in fields(result) if f.name != "cells"}
    first = {t.number: t.params for t in result.cells[0].trials} if result.cells else {}
    cells = [_cell(cell, None if i == 0 else first) for i, cell in enumerate(result.cells)]
    return {"format": FORMAT, "study": study, "cells": cells}


def from_json(record: dict[str, Any]) -> StudyResult:
    """Return the result that ``to_json`` was given, to the digits it keeps.

    Raises
    ------
    DataError
        The record is of another format.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(f"not a record of the format {FORMAT!r}", hint="make the report again with this version")
    try:
        cells: list[CellResult] = []
        for cell in record["cells"]:
            cells.append(_read_cell(cell, cells[0].trials if cells else ()))
        return StudyResult(**{**record["study"], "cells": tuple(cells)})
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"a damaged record: {error!r}", hint="make the report again from its study") from error


def masked(result: StudyResult) -> StudyResult:
    """Return the result as its record gives it back: passwords masked, numbers rounded as stored."""
    return from_json(to_json(result))


def _cell(cell: CellResult, first: dict[int, dict[str, Any]] | None) -> dict[str, Any]:
    repeats = first is not None and all(first.get(t.number) == t.params for t in cell.trials)
    trials: dict[str, Any] = {name: [_plain(getattr(t, name)) for t in cell.trials] for name in _EXACT}
    trials |= {name: [_round(getattr(t, name)) for t in cell.trials] for name in _ROUNDED}
    trials["curve"] = [[_round(v) for v in t.curve] for t in cell.trials]
    trials["params"] = None if repeats else _columns([t.params for t in cell.trials], _plain)
    trials["metrics"] = _columns([t.metrics for t in cell.trials], _round)
    return {name: _plain(getattr(cell, name)) for name in _CELL} | {"trials": trials}


def _columns(rows: Sequence[dict[str, Any]], convert: Any) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {_plain(n): [convert(row[n]) if n in row else _ABSENT for row in rows] for n in names}


def _read_cell(cell: dict[str, Any], first: tuple[TrialResult, ...]) -> CellResult:
    columns = cell["trials"]
    known = {t.number: t.params for t in first}
    trials = []
    for i, number in enumerate(columns["number"]):
        one: dict[str, Any] = {name: columns[name][i] for name in _EXACT}
        one |= {name: _number(columns[name][i]) for name in _ROUNDED}
        one["value"] = _number(one["value"])
        one["curve"] = tuple(_number(v) for v in columns["curve"][i])
        one["params"] = known[number] if columns["params"] is None else _row(columns["params"], i)
        one["metrics"] = {name: _number(v) for name, v in _row(columns["metrics"], i).items()}
        trials.append(TrialResult(**one))
    head = {name: cell[name] for name in _CELL}
    head |= {name: _number(head[name]) for name in ("seconds", "rows_per_s", "peak_mb")}
    return CellResult(**head, trials=tuple(trials))


def _row(columns: dict[str, list[Any]], i: int) -> dict[str, Any]:
    return {name: column[i] for name, column in columns.items() if column[i] != _ABSENT}


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _round(value: Any) -> Any:
    value = _plain(value)
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1:***@", value) if "://" in value else value
    if isinstance(value, float):
        return _finite(float(value))
    if isinstance(value, dict):
        return {str(_plain(str(k))): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return _plain(value.item()) if hasattr(value, "item") else _plain(str(value))


def _finite(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
