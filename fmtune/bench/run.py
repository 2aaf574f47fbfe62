"""Run: cases measured in fresh processes that take turns; one plain result object.

A round starts one worker a side; within it the sides take turns, A B B A, so that whatever the machine does
meanwhile falls on all of them.  Only one worker runs at a time.  A process keeps its luck (addresses, pages)
as long as it lives, so there are several rounds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fmtune.bench import calibration, machine
from fmtune.bench.calibration import Calibrator
from fmtune.bench.case import Case
from fmtune.bench.ceilings import Ceilings, floor
from fmtune.bench.peer import sooner
from fmtune.bench.stock import Stock
from fmtune.bench.worker import PATIENCE, CaseFailed, Disturbed, Side, Worker

SCHEMA = "fmtune.bench/1"

SECONDS = 2.0

Say = Callable[[str], None]

# Seconds that a peer's search may take.
_SEARCH = 3600.0


@dataclass
class Measured:
    """What one side's workers gave for one case; ``error`` says why there is nothing.

    ``disturbed``: the error came from outside and says nothing about the case.
    """

    samples: list[dict[str, Any]] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    companions: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    disturbed: bool = False

    def fail(self, error: CaseFailed) -> None:
        """Note why there is nothing more."""
        self.error, self.disturbed = str(error), isinstance(error, Disturbed)


def measure(
    case: Case, files: Mapping[str, str], sides: Sequence[Side], found: Mapping[str, Measured],
    *, rounds: Iterable[int], blocks: int = 10, seconds: float = SECONDS, patience: float = PATIENCE,
) -> None:  # fmt: skip
    """Run rounds of a case and add what they give to ``found``, by side.

    Parameters
    ----------
    case, files
        The case and its files.
    sides
        Who takes turns; a side that fails is left out from then on.
    found
        One ``Measured`` a side, added to.
    rounds
        Numbers of the rounds.
    blocks
        A B B A turns in each round.
    seconds
        After these a round takes no more turns than the first two.
    patience
        Seconds after which a worker that has not answered is ended.
    """
    for number in rounds:
        with ExitStack() as stack:
            able = [side for side in sides if found[side.name].error is None]
            # Several get ready at the same time.
            begun = {side: stack.enter_context(Worker(side, case.plain(), files, patience)) for side in able}
            workers = {s.name: w for s, w in begun.items() if _ready(w, s, found[s.name])}
            turn = list(workers)
            began = time.monotonic()
            for block in range(blocks):
                if block >= 2 and time.monotonic() - began > seconds:
                    break
                for name in turn + turn[::-1]:
                    if found[name].error is None:
                        _sample(workers[name], found[name], number, block)
            for name in turn:
                if not found[name].companions and found[name].error is None:
                    _companions(workers[name], found[name])


def _ready(worker: Worker, side: Side, into: Measured) -> bool:
    cold = not any((side.cache / "fmtune").rglob("*.nbc"))
    try:
        start = worker.started()
    except CaseFailed as error:
        into.fail(error)
        return False
    into.about = start.pop("about")
    into.starts.append({**start, "cold": cold})
    return True


def _sample(worker: Worker, into: Measured, number: int, block: int) -> None:
    try:
        into.samples.append({"round": number, "block": block, **worker.sample()})
    except CaseFailed as error:
        into.fail(error)


def _companions(worker: Worker, into: Measured) -> None:
    try:
        into.companions = worker.companions()
    except CaseFailed as error:
        into.fail(error)


def run_suite(
    cases: Sequence[Case], folder: Path, *, suite: str = "quick", rounds: int = 4, blocks: int = 8,
    cache: Path | None = None, peers: Sequence[Side] = (), say: Say = lambda line: None,
) -> dict[str, Any]:  # fmt: skip
    """Measure cases, and peers beside those that they can run; return the result object.

    Parameters
    ----------
    cases
        What to measure.
    folder
        For data and scratch; whoever made it removes it.
    suite
        Its name, for the result.
    rounds, blocks
        Fresh processes a case, and turns in each.
    cache
        The folder of compiled kernels; one in ``folder`` unless given.
    peers
        Other trainers (``fmtune.bench.peer``), each for the cases that it can run.
    say
        Told a line now and then.

    Returns
    -------
    dict
        ``{"schema", "machine", "suite", "date", "commit", "cases": [...]}``, see ``docs/bench.md``.
    """
    ours = Side("fmtune", cache or folder / "cache")
    stock, ceilings, calibrator = Stock(folder), Ceilings(), Calibrator()
    done = []
    for case in cases:
        sides = [ours, *(peer for peer in peers if peer.kind == case.kind)]
        found = {side.name: Measured() for side in sides}
        times: list[dict[str, float]] = []
        if case.kind == "study" and len(sides) > 1:  # a peer's search takes minutes: few, and with patience
            files, turns = stock.files(case, apart=True), -(-case.seeds // 2)
            measure(case, files, sides, found, rounds=_calibrated(1, calibrator, times), blocks=turns,
                    seconds=math.inf, patience=_SEARCH)  # fmt: skip
        else:
            measure(case, stock.files(case), sides, found, rounds=_calibrated(rounds, calibrator, times), blocks=blocks)
        entry = record(case, found["fmtune"], times, ceilings)
        if (data := stock.digest(case)) is not None:
            entry["data"] = data
        if len(sides) > 1:
            entry["peers"] = {peer.name: _short(found[peer.name], found["fmtune"]) for peer in sides[1:]}
        done.append(entry)
        say(line_of(entry))
    return {**envelope(suite, done), "calibration": calibration.summary(done)}


def _calibrated(rounds: int, calibrator: Calibrator, times: list[dict[str, float]]) -> Iterator[int]:
    """Yield the numbers of rounds; before each one the kernels are timed."""
    for number in range(rounds):
        times.append(calibrator.measure())
        yield number


def envelope(suite: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the result object around measured cases."""
    return {
        "schema": SCHEMA, "suite": suite, "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(), "machine": machine.describe(), "cases": cases,
    }  # fmt: skip


def record(
    case: Case, measured: Measured, times: Sequence[Mapping[str, float]] = (), ceilings: Ceilings | None = None
) -> dict[str, Any]:
    """Return a case's part of the result: its definition, raw samples, warm-ups, companions, rate and share.

    ``times``: those of the calibration kernels, before each round.
    """
    entry: dict[str, Any] = {
        "name": case.name, "kind": case.kind, "case": case.plain(), "error": measured.error,
        "disturbed": measured.disturbed, "samples": measured.samples, "starts": measured.starts,
        "companions": measured.companions, "about": measured.about, "calibrations": [dict(one) for one in times],
        "calibration": {name: statistics.median(one[name] for one in times) for name in (times[0] if times else ())},
    }  # fmt: skip
    if measured.samples and measured.error is None:
        entry["summary"] = summary(measured.samples, measured.about)
        if ceilings is not None:
            entry["ceiling"] = floor(measured.about, entry["summary"]["cpu"], ceilings)
    return entry


def summary(samples: Sequence[Mapping[str, float]], about: Mapping[str, Any]) -> dict[str, float]:
    """Return medians of both clocks, the 95th percentile of the wall clock, and rows a CPU second."""
    cpu = statistics.median(sample["cpu"] for sample in samples)
    wall = sorted(sample["wall"] for sample in samples)
    found = {"cpu": cpu, "wall": statistics.median(wall), "wall_p95": wall[min(len(wall) - 1, int(0.95 * len(wall)))]}
    if about.get("rows") and cpu > 0:
        found["rows_per_s"] = about["rows"] / cpu
    return found


def _short(measured: Measured, ours: Measured) -> dict[str, Any]:
    error = measured.error
    if error and error.startswith("ModuleNotFoundError"):
        error = f"not installed ({error.partition(': ')[2]})"
    found: dict[str, Any] = {"error": error, "samples": measured.samples, "companions": measured.companions,
                             "about": measured.about}  # fmt: skip
    if measured.samples and measured.error is None:
        found["summary"] = summary(measured.samples, measured.about)
    if "searches" in measured.companions and "searches" in ours.companions:
        found["sooner"] = sooner(ours.companions["searches"], measured.companions["searches"])
    return found


def _rate(peer: Mapping[str, Any]) -> str:
    found = peer["summary"]
    if "rows_per_s" in found:
        return f"{found['rows_per_s'] / 1e6:.3f} M rows/s"
    words = f"{found['cpu']:.1f} s of CPU in {found['wall']:.1f} s"
    if "sooner" in peer:
        found = peer["sooner"]
        score, theirs, ours = (statistics.median(found[name]) for name in ("score", "theirs", "ours"))
        words += f", {score:.4f} after {theirs:.1f} s, ours after {ours:.2f} s: {found['times']:.1f} times as soon"
        words += f" ({found['times_whole']:.1f} by its end)"
    return words


def line_of(entry: Mapping[str, Any]) -> str:
    """Return one line about a measured case, for a terminal."""
    if entry["error"]:
        return f"{entry['name']}: failed: {entry['error']}"
    s = entry["summary"]
    words = f"{entry['name']}: {1000 * s['cpu']:.1f} ms"
    if "rows_per_s" in s:
        words += f", {s['rows_per_s'] / 1e6:.2f} M rows/s"
    if entry.get("ceiling"):
        words += f", {100 * entry['ceiling']['share']:.0f} % of what {entry['ceiling']['bound']} would allow"
    for name, peer in entry.get("peers", {}).items():
        words += f"; {name}: " + (peer["error"] or _rate(peer))
    return words
