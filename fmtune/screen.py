"""Screen: what a run shows: a live table in a terminal, one line a trial elsewhere, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Event = dict[str, Any]
Listener = Callable[[Event], None]


@contextmanager
def screen(style: str, out: TextIO | None = None) -> Iterator[Listener]:
    """Give a listener for a run's events.

    Parameters
    ----------
    style
        ``live``, ``lines`` or ``json``.
    out
        Where to; by default standard output.
    """
    stream = out or sys.stdout
    if style == "json":
        yield lambda event: print(json.dumps(event), file=stream, flush=True)
    elif style == "lines":
        yield Lines(stream)
    else:
        table = Screen()
        with Live(console=Console(file=stream), get_renderable=table.render, refresh_per_second=4) as live:
            yield table
            live.refresh()


def rows(value: float | None) -> str:
    """Return a rate in words: ``1.2 M rows/s``."""
    if not value:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit} rows/s"
    return f"{value:.3g} rows/s"


def params(values: dict[str, Any]) -> str:
    """Return parameters as ``name=value`` words."""
    return " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())


class Lines:
    """One line a finished trial, for logs and pipes."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._best = out, Best()

    def __call__(self, event: Event) -> None:
        self._best(event)
        line = self._line(event)
        if line:
            print(line, file=self._out, flush=True)

    def _line(self, event: Event) -> str | None:
        kind = event["event"]
        if kind == "study":
            return (
                f"{event['study_name']}: {event['n_trials']} trials in each of {', '.join(event['cells'])}; "
                f"{event['lanes']} lanes, {event['threads']} threads; {event['storage']}"
            )
        if kind == "trial":
            value = "" if event["value"] is None else f"{event['value']:.6g}"
            mark = " *" if self._best.just_now else ""
            reason = f" ({event['reason']})" if event["reason"] else ""
            words = f"{event['cell']} trial {event['number']} {event['state']} {value}{mark}"
            return f"{words} {params(event['params'])}{reason}"
        return None


class Best:
    """The best finished trial of each cell."""

    def __init__(self) -> None:
        self.of: dict[str, Event] = {}
        self.just_now = False
        self._sign = 1.0

    def __call__(self, event: Event) -> None:
        self.just_now = False
        if event["event"] == "study":
            self._sign = 1.0 if event["direction"] == "minimize" else -1.0
        if event["event"] != "trial" or event["state"] != "COMPLETE":
            return
        best = self.of.get(event["cell"])
        if best is None or self._sign * event["value"] < self._sign * best["value"]:
            self.of[event["cell"]], self.just_now = event, True


class Screen:
    """A table of cells, a bar, and the last trials, redrawn as events come."""

    def __init__(self) -> None:
        self._study: Event = {"study_name": "", "objective": "", "cells": [], "n_trials": 0, "lanes": 0, "threads": 0}
        self._count: dict[str, dict[str, int]] = {}
        self._pace: dict[str, Event] = {}
        self._began: dict[str, float] = {}
        self._best = Best()
        self._last: list[Event] = []

    def __call__(self, event: Event) -> None:
        self._best(event)
        kind = event["event"]
        if kind == "study":
            self._study = event
            self._count = {cell: dict(event["done"].get(cell, {})) for cell in event["cells"]}
        elif kind == "start":
            self._began.setdefault(event["cell"], time.monotonic())
        elif kind == "progress":
            self._pace[event["cell"]] = event
            self._began.setdefault(event["cell"], time.monotonic())
        elif kind == "cell":
            self._pace.pop(event["cell"], None)
        elif kind == "trial":
            states = self._count.setdefault(event["cell"], {})
            states[event["state"]] = states.get(event["state"], 0) + 1
            states["now"] = states.get("now", 0) + 1
            self._last = [event, *self._last][:4]

    def render(self) -> Group:
        """Return the table as it stands."""
        study = self._study
        head = Text.assemble((study["study_name"], "bold"), f"  {study['objective']}  ", style="default")
        head.append(f"{study['lanes']} lanes, {study['threads']} threads", style="dim")
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("cell")
        table.add_column("trials", justify="right")
        table.add_column("")
        for name in ("pruned", "failed", "best", "lanes", "speed", "left"):
            table.add_column(name, justify="right")
        for cell in study["cells"]:
            table.add_row(*self._row(cell))
        last = [Text(f"  {_trial(event)}", style="dim", no_wrap=True, overflow="ellipsis") for event in self._last]
        return Group(head, table, *last)

    def _row(self, cell: str) -> list[Any]:
        states, total = self._count.get(cell, {}), self._study["n_trials"]
        done = sum(states.get(s, 0) for s in ("COMPLETE", "PRUNED", "FAIL"))
        best, pace = self._best.of.get(cell), self._pace.get(cell)
        bar = ProgressBar(total=max(1, total), completed=done, width=16)
        return [
            cell, f"{done}/{total}", bar, str(states.get("PRUNED", 0)), str(states.get("FAIL", 0)),
            f"{best['value']:.5g} (#{best['number']})" if best else "-", str(pace["lanes"]) if pace else "-",
            rows(pace["rows_per_s"]) if pace else "-", self._left(cell, done, total) if pace else "-",
        ]  # fmt: skip

    def _left(self, cell: str, done: int, total: int) -> str:
        now = self._count.get(cell, {}).get("now", 0)
        if not now or cell not in self._began:
            return "-"
        seconds = (time.monotonic() - self._began[cell]) / now * (total - done)
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _trial(event: Event) -> str:
    value = event["reason"] if event["value"] is None else f"{event['value']:.5g}"
    return f"#{event['number']} {event['state'].lower():8} {value}  {params(event['params'])}"
