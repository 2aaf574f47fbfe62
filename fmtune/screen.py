"""Screen: what a run or a download shows: live in a terminal, a line a trial or file elsewhere, or JSON lines."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fmtune.notebook import table
from fmtune.tune.result import surplus

Event = dict[str, Any]


class Listener:
    """Takes a run's events; ``finished`` counts the trials that ended."""

    def __init__(self) -> None:
        self.finished = 0

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self.finished += event["event"] == "trial"
        self.show(event)

    def show(self, event: Event) -> None:
        """Show what an event changes."""


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
    if style == "live":
        table = Screen()
        with Live(console=Console(file=stream), get_renderable=table.render, refresh_per_second=4) as live:
            try:
                yield table
            finally:
                table.ended = True
                live.refresh()
    else:
        yield Json(stream) if style == "json" else Lines(stream)


@contextmanager
def downloads(out: TextIO | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Give what shows downloads (a file's name, bytes so far, its size): a bar in a terminal, else a line at the end.

    Parameters
    ----------
    out
        Where to; by default standard error, so that a verb's own output stays clean.
    """
    stream = out or sys.stderr
    if not stream.isatty():
        yield lambda name, done, size: print(_downloaded(name, size), file=stream) if done == size else None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream)) as bars:
        tasks: dict[str, Any] = {}

        def show(name: str, done: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=size)
            bars.update(tasks[name], completed=done)

        yield show


def _downloaded(name: str, size: int) -> str:
    return f"downloaded {name}, {size / 1e6:.1f} MB"


def as_json(value: Any) -> str:
    """Return JSON on one line; what is not finite has no place in JSON and becomes null."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rate(value: float | None) -> str:
    """Return a number a second in three digits and a unit: ``1.2 M``."""
    if not value:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def span(seconds: float) -> str:
    """Return a time in words: ``45 s``, ``3 min``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def params(values: dict[str, Any]) -> str:
    """Return parameters as ``name=value`` words."""
    return " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())


class Json(Listener):
    """One JSON object an event, one event a line."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    def show(self, event: Event) -> None:
        """Print the event."""
        print(as_json(event), file=self._out, flush=True)


class Lines(Listener):
    """One line a finished trial, for logs and pipes; a star marks the best so far."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out, self._best = out, Best()

    def show(self, event: Event) -> None:
        """Print the event's line, if it has one."""
        self._best(event)
        line = self._line(event)
        if line:
            print(line, file=self._out, flush=True)

    def _line(self, event: Event) -> str | None:
        if event["event"] == "study":
            most, asked = max([event["n_trials"], *map(_all_ended, event["done"].values())]), event["n_trials"]
            head = (
                f"{event['study_name']}: {most} trials in each of {', '.join(event['cells'])}{surplus(most, asked)}; "
                f"{counted(event['lanes'], 'lane')}, {counted(event['threads'], 'thread')}; {whereabouts(event)}"
            )
            return "\n".join([head, *event["notes"]])
        if event["event"] == "download":
            return _downloaded(event["file"], event["size"]) if event["bytes"] == event["size"] else None
        if event["event"] in _NEWS:
            return _NEWS[event["event"]].format(**event)
        if event["event"] != "trial":
            return None
        value = "-" if event["value"] is None else f"{event['value']:.6g}"
        mark = " *" if self._best.just_now else ""
        reason = f"  ({event['reason']})" if event["reason"] else ""
        words = f"{event['cell']} trial {event['number']} {event['state']} {value}{mark}"
        return f"{words}  {params(event['params'])}{reason}"


_NEWS = {
    "away": "{cell}: {reason}; training goes on, and what ends is told when it is back",
    "back": "{cell}: the database is back",
    "doing": "{what} ...",
    "late": "{cell} trial {number}: told too late, another worker had taken it over; ignored",
}


def _all_ended(states: Mapping[str, int]) -> int:
    return sum(states.get(state, 0) for state in ("COMPLETE", "PRUNED", "FAIL"))


def counted(number: int, noun: str) -> str:
    """Return ``1 lane`` or ``2 lanes``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def whereabouts(study: Event) -> str:
    """Return ``begins`` or ``goes on with``, and the address of the study's database."""
    begun = any(sum(states.values()) for states in study["done"].values())
    return f"{'goes on with' if begun else 'begins'} {study['storage']}"


def first_epochs(progress: Event) -> str | None:
    """Return how far the furthest running trial is, in words; None before its first epoch has ended."""
    if progress["epoch"] is None:
        return None
    return "no trial has ended yet; the furthest is at epoch {} of {}".format(*progress["epoch"])


class Best:
    """The best finished trial of each cell."""

    def __init__(self) -> None:
        self.of: dict[str, Event] = {}
        self.just_now = False
        self._sign = 1.0

    def __call__(self, event: Event) -> None:
        """Take one event; ``just_now`` says whether it brought a new best."""
        self.just_now = False
        if event["event"] == "study":
            self._sign = 1.0 if event["direction"] == "minimize" else -1.0
            self.of = {cell: {"state": "COMPLETE", "reason": None, **t} for cell, t in event["best"].items()}
        if event["event"] != "trial" or event["state"] != "COMPLETE":
            return
        best = self.of.get(event["cell"])
        if best is None or self._sign * event["value"] < self._sign * best["value"]:
            self.of[event["cell"]], self.just_now = event, True

    def overall(self) -> list[Event]:
        """Return the best trial of all cells, if any is finished."""
        return sorted(self.of.values(), key=lambda event: self._sign * float(event["value"]))[:1]


class Notebook(Listener):
    """A small table below a notebook's cell, renewed as trials end and twice a second between.

    Parameters
    ----------
    display
        ``IPython.display.display``, or what works as it does.
    """

    def __init__(self, display: Callable[..., Any]) -> None:
        super().__init__()
        self._display, self._best = display, Best()
        self._handle: Any = None
        self._study: Event = {}
        self._done: dict[str, int] = {}
        self._now: str | None = None
        self._drawn = -math.inf

    def show(self, event: Event) -> None:
        """Take an event into the table."""
        self._best(event)
        if event["event"] == "study":
            self._study = event
            self._done = {c: _all_ended(event["done"].get(c, {})) for c in event["cells"]}
        elif event["event"] == "doing":
            self._now = f"{event['what']} ..."
        elif event["event"] == "concluded":
            self._now = None
        elif event["event"] == "progress":
            self._now = first_epochs(event) if not any(self._done.values()) else None
        elif event["event"] == "trial":
            self._done[event["cell"]] = self._done.get(event["cell"], 0) + 1
        at_once = event["event"] in ("study", "cell", "doing", "winner", "concluded")
        if self._study and (at_once or time.monotonic() - self._drawn > 0.5):
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        best = [{f"#{t['number']}": t["value"], "with": params(t["params"])} for t in self._best.overall()]
        total = self._study["n_trials"]
        trials = {c: f"{n}{surplus(n, total) or f' of {total}'}" for c, n in self._done.items()}
        facts = {"trials": trials, "best": best or None, "now": self._now}
        made = Html(table(f"{self._study['study_name']}: {self._study['objective']}", facts))
        if self._handle is None:
            self._handle = self._display(made, display_id=True)
        else:
            self._handle.update(made)


class Html(str):
    """Text that a notebook shows as HTML."""

    def _repr_html_(self) -> str:
        return self


def progress() -> Listener:
    """Return a listener for :func:`fmtune.run`: a table in a notebook, elsewhere a line a trial."""
    shell = sys.modules.get("IPython.display") if "ipykernel" in sys.modules else None
    return Notebook(shell.display) if shell else Lines(sys.stdout)


class Screen(Listener):
    """A table of cells, a bar each, and the last trials, redrawn as events come."""

    COLUMNS = ("pruned", "failed", "best", "trial", "lanes", "rows/s", "left")

    def __init__(self) -> None:
        super().__init__()
        self.ended = False
        self._study: Event | None = None
        self._download: Event | None = None
        self._count: dict[str, dict[str, int]] = {}
        self._pace: dict[str, Event] = {}
        self._now = ""
        self._began: dict[str, float] = {}
        self._best = Best()
        self._last: list[Event] = []
        self._searched: str | None = None

    def show(self, event: Event) -> None:
        """Take an event into the table."""
        self._best(event)
        kind = event["event"]
        if kind == "study":
            self._study, self._download = event, None
            self._count = {cell: dict(event["done"].get(cell, {})) for cell in event["cells"]}
            self._searched = None
        elif kind == "download":
            self._download = event
        elif kind == "count":
            self._count[event["cell"]].update(event["done"])
        elif kind == "start":
            self._began.setdefault(event["cell"], time.monotonic())
        elif kind == "progress":
            self._pace[event["cell"]] = event
        elif kind == "doing":
            self._now = f"{event['what']} ..."
        elif kind == "cell":
            self._pace.pop(event["cell"], None)
            self._searched = self._searched or event["cell"]
        elif kind == "trial":
            states = self._count.setdefault(event["cell"], {})
            states[event["state"]] = states.get(event["state"], 0) + 1
            states["now"] = states.get("now", 0) + 1
            self._last = [event, *self._last][:4]

    def render(self) -> RenderableType:
        """Return the table as it stands."""
        study = self._study
        if self._download is not None and not self.ended:
            got, size = self._download["bytes"], self._download["size"]
            bar = ProgressBar(total=size, completed=got, width=24)
            return Columns([self._download["file"], bar, f"{got / 1e6:.1f} of {size / 1e6:.1f} MB"])
        if study is None:
            return Text("" if self.ended else "reading the study and its data ...", style="dim")
        head = Text.assemble((study["study_name"], "bold"), f"  {study['objective']}  ")
        more = surplus(max(map(self._ended, study["cells"])), study["n_trials"])
        head.append(f"{counted(study['lanes'], 'lane')}, {counted(study['threads'], 'thread')}{more}", style="dim")
        place = Text(whereabouts(study), style="dim", no_wrap=True, overflow="ellipsis")
        for note in study["notes"]:
            head.append(f"\n{note}", style="dim")
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
        table.add_column("cell", no_wrap=True)
        table.add_column("trials", justify="right", no_wrap=True)
        table.add_column("", min_width=4)
        for name in self.COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        for cell in study["cells"]:
            # Cells after the first replay what it has ended, which its timeout may have made fewer.
            whole = self._searched in (None, cell)
            table.add_row(*self._row(cell, study["n_trials"] if whole else self._ended(str(self._searched))))
        if self.ended:
            return Group(head, place, table)
        best = [Text(f"best {_trial(t)}", no_wrap=True, overflow="ellipsis") for t in self._best.overall()]
        last = [Text(f"     {_trial(t)}", style="dim", no_wrap=True, overflow="ellipsis") for t in self._last]
        if now := self._now or self._begun():
            last.append(Text(now, style="dim"))
        # The cursor waits on a line of its own, where a terminal's ^C does not wrap and shift the table.
        return Group(head, place, table, *best, *last, Text(""))

    def _begun(self) -> str | None:
        """Say how far the first trials are, while none has ended."""
        return None if self._last else next(filter(None, map(first_epochs, self._pace.values())), None)

    def _ended(self, cell: str) -> int:
        return _all_ended(self._count.get(cell, {}))

    def _row(self, cell: str, total: int) -> list[RenderableType]:
        states = self._count.get(cell, {})
        done = self._ended(cell)
        best, pace = self._best.of.get(cell), self._pace.get(cell)
        part = pace["part"] if pace else 0.0
        bar = ProgressBar(total=max(1, total), completed=done + part, width=12)
        return [
            cell, str(done) if done > total else f"{done}/{total}", bar,
            str(states.get("PRUNED", 0)), str(states.get("FAIL", 0)),
            f"{best['value']:.5g}" if best else "-", f"#{best['number']}" if best else "-",
            str(pace["lanes"]) if pace else "-", rate(pace["rows_per_s"]) if pace else "-",
            self._left(cell, part, total - done) if pace else "-",
        ]  # fmt: skip

    def _left(self, cell: str, part: float, rest: int) -> str:
        """Return the time left: what is done now, trials and parts of them, has taken so long."""
        now = self._count.get(cell, {}).get("now", 0) + part
        if not now or cell not in self._began:
            return "-"
        return span((time.monotonic() - self._began[cell]) / now * max(0.0, rest - part))


def _trial(event: Event) -> str:
    value = event["reason"] if event["value"] is None else f"{event['value']:.5g}"
    return f"#{event['number']} {event['state'].lower():8} {value}  {params(event['params'])}"
