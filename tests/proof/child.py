"""Children: a study run in forked processes that have everything imported, so that a thousand of them are affordable.

A child is what ``fmtune run study.yaml --json`` is, from the first line of ``main`` on; what it prints is its
acknowledgement.  Being forked it shares nothing with its parent but memory that is copied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from fmtune.__main__ import main
from fmtune.cli import fmtune
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.pack import Lane
from fmtune.fm.solvers import Trainer, compile_kernels, trainer
from fmtune.tune import spec as specs
from fmtune.tune import study as studies
from fmtune.tune.collect import collect
from tests.study_fixtures import STUDY, write_study

# Small enough to be run a thousand times; both optimizers, pruning, refilled lanes, a holdout, a winner.
SMALL = re.sub("n_trials: 24", "n_trials: 12", STUDY).replace("matrix: {layout: [sparse, dense]}\n", "")

Facts = dict[int, tuple[Any, ...]]


class End(NamedTuple):
    """How a child ended: its exit code (negative: the signal), what it printed and said, and its seconds."""

    code: int
    events: list[dict[str, Any]]
    said: str
    seconds: float


def warm() -> None:
    """Load what every child needs, before the first is forked."""
    for layout in ("sparse", "dense"):
        compile_kernels(layout)


def prepare(folder: Path, text: str = SMALL) -> Path:
    """Write the study and its data into a new folder."""
    folder.mkdir(parents=True)
    write_study(folder, text)
    return folder


class Child:
    """One ``fmtune`` in a folder, forked; with ``traced`` (strace's own words) it begins under strace.

    With a ``poison``, a trial's number and what it does, it is a worker, in which that trial's training does it.
    """

    def __init__(
        self, folder: Path, *words: str, traced: Sequence[str] = (),
        poison: tuple[int, Callable[[], object]] | None = None,
    ) -> None:  # fmt: skip
        self._out, self._err = folder / "child.out", folder / "child.err"
        self._began, self._tracer, self._poison = time.monotonic(), None, poison
        self._out.unlink(missing_ok=True)  # what an earlier one printed is not this one's
        self.pid = os.fork()
        if not self.pid:
            self._be(folder, words or ("run", "study.yaml", "--json"), bool(traced))
        if traced:
            os.waitpid(self.pid, os.WUNTRACED)
            self._trace(traced)

    def _be(self, folder: Path, words: tuple[str, ...], stopped: bool) -> None:
        """Be the child; never returns."""
        code = 70
        try:
            os.setsid()
            os.chdir(folder)
            for number, path in ((1, self._out), (2, self._err)):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(handle, number)
            if stopped:
                os.kill(os.getpid(), signal.SIGSTOP)
            self._work(words)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            os._exit(code)

    def _work(self, words: tuple[str, ...]) -> None:
        """Run the command; with a poison, a verb that is a worker of this study."""
        if self._poison is not None:
            words = ("poisoned",)
            fmtune.add_command(click.Command("poisoned", callback=_Poisoned(*self._poison).work))
        main(list(words))

    def _trace(self, words: Sequence[str]) -> None:
        self._tracer = subprocess.Popen(
            ["strace", "-f", "-q", *words, "-p", str(self.pid)], stderr=subprocess.DEVNULL
        )
        while _tracer_of(self.pid) == 0:
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL; nothing of the child gets to run after it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def alive(self) -> bool:
        """Whether it has not ended; its end is still there to be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def lines(self) -> int:
        """Return how many whole lines it has printed."""
        return self._out.read_bytes().count(b"\n") if self._out.exists() else 0

    def wait(self, limit: float = 120.0) -> End:
        """Wait for its end; one that does not come is a fault (code -9 after a kill)."""
        end = time.monotonic() + limit
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > end:
                self.kill()
            time.sleep(0.005)
        if self._tracer is not None:
            self._tracer.wait()
        whole = _text(self._out).rpartition("\n")[0].splitlines()
        seconds = time.monotonic() - self._began
        return End(os.waitstatus_to_exitcode(ended[1]), [json.loads(line) for line in whole], _text(self._err), seconds)


def _text(path: Path) -> str:
    """Return what a child wrote: nothing, where it was killed before it had opened the file."""
    return path.read_text() if path.exists() else ""


class _Poisoned:
    """A worker in which one trial is poison to what trains it."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self._number, self._act = number, act
        self._params: dict[str, Any] = {}

    def work(self) -> None:
        """Run the study as a worker."""
        studies.run(specs.read("study.yaml"), listener=self._listen, worker=True, make=self._make)

    def _listen(self, event: dict[str, Any]) -> None:
        if (event["event"], event.get("number")) == ("start", self._number):
            self._params = event["params"]

    def _make(self, feed: Feed, recipe: Recipe, threads: int) -> Any:
        return Spiked(trainer(feed, recipe, threads), self._taste)

    def _taste(self, lanes: Sequence[Lane]) -> None:
        """Act when the poisoned trial is among those that are trained."""
        wanted = self._params.items()
        if wanted and any(wanted <= dataclasses.asdict(lane.hyperparameters).items() for lane in lanes):
            self._act()


class Spiked:
    """What trains, with something to do before each epoch."""

    def __init__(self, trainer: Trainer, act: Callable[[Sequence[Lane]], object]) -> None:
        self._trainer, self._act = trainer, act

    def __getattr__(self, name: str) -> Any:
        """Be the trainer in everything else."""
        return getattr(self._trainer, name)

    def epoch(self, stop: Callable[[], bool] | None = None) -> None:
        """Train an epoch."""
        self._act(self._trainer.lanes)
        self._trainer.epoch(stop)


def _tracer_of(pid: int) -> int:
    match = re.search(r"TracerPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) if match else 0


def acknowledged(end: End) -> Facts:
    """Return what a child has told of its finished trials: number to state, value and parameters."""
    told = (e for e in end.events if e["event"] == "trial")
    return {e["number"]: (e["state"], e["value"], e["params"]) for e in told}


def facts(folder: Path) -> Facts:
    """Return state, value, parameters and curve of every trial of the study, from its database."""
    result = collect(specs.read(folder / "study.yaml"), folder)
    return {t.number: (t.state, t.value, t.params, tuple(t.curve)) for cell in result.cells for t in cell.trials}


def blamed(folder: Path) -> bool:
    """Whether a trial was given up because its process had died again and again."""
    result = collect(specs.read(folder / "study.yaml"), folder)
    return any("times in a row" in (trial.reason or "") for cell in result.cells for trial in cell.trials)


def faults(folder: Path, told: Facts) -> list[str]:
    """Return what is wrong with a study's database after its process died: lost or changed trials, damage."""
    path = folder / "runs/small/study.db"
    if not path.exists():
        return [f"{len(told)} acknowledged trials, and no database"] if told else []
    with contextlib.closing(sqlite3.connect(path)) as db:
        found = [f"integrity_check: {line}" for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
        states: dict[int, str] = {}
        values: dict[int, float] = {}
        # A process that died while it made the tables has told nothing.
        with contextlib.suppress(sqlite3.OperationalError):
            states = dict(db.execute("SELECT number, state FROM trials"))
            values = dict(db.execute("SELECT number, value FROM trial_values JOIN trials USING (trial_id)"))
    for number, (state, value, _) in told.items():
        if states.get(number) != state or (state == "COMPLETE" and values.get(number) != value):
            found.append(f"trial {number}: told {state} {value}, stored {states.get(number)} {values.get(number)}")
    return found
