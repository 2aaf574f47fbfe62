"""Plots: two small figures for the dashboard, as the JSON that plotly reads; plotly itself is not needed.

The dashboard keeps a figure in attributes of 2,045 characters each, so both are kept to a few thousand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fmtune.tune.result import CellResult, StudyResult, TrialResult

SHOWN = 5  # learning curves
POINTS = 40  # of a curve, at most
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")  # Okabe and Ito's, told apart by all eyes
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up")


@dataclass(frozen=True)
class Figure:
    """What ``optuna_dashboard.save_plotly_graph_object`` asks of a figure: that it can say itself in JSON."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]

    def to_json(self) -> str:
        """Return plotly's JSON; the same figure gives the same text."""
        return json.dumps({"data": self.data, "layout": self.layout}, separators=(",", ":"), allow_nan=False)


def figures(result: StudyResult) -> dict[str, Figure]:
    """Return the figures that a study's result is enough for, by name."""
    made = {"learning-curves": curves(result), "cells": cells(result)}
    return {name: figure for name, figure in made.items() if figure is not None}


def curves(result: StudyResult) -> Figure | None:
    """Return the learning curves of the best trials, or None while no trial is complete."""
    sign = 1.0 if result.direction == "minimize" else -1.0
    done = [t for t in (result.cells[0].trials if result.cells else ()) if t.state == "COMPLETE" and t.curve]
    best = sorted(done, key=lambda t: (sign * (t.value or 0.0), t.number))[:SHOWN]
    if not best:
        return None
    return Figure(
        [_curve(t, i) for i, t in enumerate(best)],
        _layout(f"Learning curves of the {len(best)} best trials" if len(best) > 1 else "Learning curve",
                "epoch", result.objective),
    )  # fmt: skip


def cells(result: StudyResult) -> Figure | None:
    """Return the speed of each cell as bars, or None when fewer than two ran."""
    ran = [c for c in result.cells if c.rows_per_s]
    if len(ran) < 2:
        return None
    bars = {
        "type": "bar", "x": [c.name for c in ran], "y": [_digits(c.rows_per_s or 0.0) for c in ran],
        "text": [_words(c, result) for c in ran], "marker": {"color": list(_COLOURS[: len(ran)])},
    }  # fmt: skip
    return Figure([bars], _layout("Speed of each cell", "", "training rows × models a second"))


def _curve(trial: TrialResult, place: int) -> dict[str, Any]:
    """Return one curve, thinned to POINTS; its best epoch stays."""
    step = -(-len(trial.curve) // POINTS)
    keep = {*range(1, len(trial.curve) + 1, step), trial.best_epoch or 1, len(trial.curve)}
    epochs = sorted(e for e in keep if 1 <= e <= len(trial.curve))
    return {
        "type": "scatter", "mode": "lines+markers", "name": f"trial {trial.number}", "x": epochs,
        "y": [_digits(trial.curve[e - 1]) for e in epochs], "line": {"color": _COLOURS[place], "width": 1.5},
        "marker": {"symbol": _SYMBOLS[place], "size": 5},
    }  # fmt: skip


def _words(cell: CellResult, result: StudyResult) -> str:
    best = cell.best(result.direction)
    memory = f", peak {cell.peak_mb:.0f} MB" if cell.peak_mb else ""
    return (f"best {best.value:.4g}" if best and best.value is not None else "no score") + memory


def _layout(title: str, x: str, y: str) -> dict[str, Any]:
    """Return a layout that is legible on white and on black: the dashboard has both, a stored figure only one."""
    lines = {"gridcolor": "rgba(128,128,128,0.3)", "zerolinecolor": "rgba(128,128,128,0.5)"}
    return {
        "title": {"text": title}, "xaxis": {"title": {"text": x}, **lines}, "yaxis": {"title": {"text": y}, **lines},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": "#808080"},
    }  # fmt: skip


def _digits(value: float) -> float | None:
    """Return a number with six digits; what is not finite has no place in JSON."""
    short = float(f"{value:.6g}")
    return short if abs(short) < float("inf") else None
