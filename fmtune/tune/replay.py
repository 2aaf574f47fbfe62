"""Replay: one trial of a study run again, from what its result says, compared epoch by epoch, and its model kept.

The result may come from the study's storage or out of a report's page, on this machine or another.  The data are
read first and their digests compared: on other rows a score says nothing.  Then the trial is trained as it was,
with the same parameters, seeds and number of epochs, and the verdict is one of three:

* ``identical``: every epoch's score is the same number (a page keeps six digits of them, and all of the value);
* ``within tolerance``: no epoch differs by more than ``TOLERANCE`` of its score, which is what another processor,
  library or layout may do to sums of float32;
* ``different``: some epoch differs by more, or the trial ended in another state.

A model that is asked for is that of the very training that was compared; one that came out different is not written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fmtune.errors import DataError, ResourceError, UsageError
from fmtune.files import foresee
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Progress
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import evaluate
from fmtune.fm.model import Model
from fmtune.fm.pack import score as scores_of
from fmtune.fm.solvers import Trainer, trainer
from fmtune.tune import devices, environment, modelfile
from fmtune.tune.budget import budget
from fmtune.tune.channels import StudyData, bring
from fmtune.tune.driver import Driver, Job, Outcome, seeds_of
from fmtune.tune.result import CellResult, StudyResult, TrialResult
from fmtune.tune.spec import Cell, Spec, parse

# Share of a score by which an epoch may differ.
TOLERANCE = 1e-3

_KEPT = 6  # digits of a curve in a page
_ADDRESS = re.compile(r"(?P<page>.+)#trial=(?P<trial>\d{1,9})(?:&cell=(?P<cell>[a-z]+-[a-z]+))?")


@dataclass(frozen=True)
class Replay:
    """What came of a trial that was run again.

    Attributes
    ----------
    trial, cell
        Which.
    verdict : str
        ``identical``, ``within tolerance`` or ``different``.
    then, now : float or None
        The trial's score; of one that has none, its last epoch's; None where it diverged before its first.
    epochs : int
        How many were trained.
    largest : float
        The largest difference of an epoch, as a share of its score; infinite when the ends differ.
    why : str
        What differs, in words; empty when nothing does.
    environment : dict
        Entry to what it was and what it is, for each that differs; None stands for not known.
    model : str or None
        The file of its model, where one was asked for and written.
    """

    trial: int
    cell: str
    verdict: str
    then: float | None
    now: float | None
    epochs: int
    largest: float
    why: str
    environment: dict[str, tuple[str | None, str | None]]
    model: str | None = None

    @property
    def lines(self) -> list[str]:
        """What to tell a user: the verdict, the scores, what differs in the environment, and the model's file."""
        scores = f"{_shown(self.now)}, {self.epochs} epochs"
        if self.verdict != "identical":
            scores = f"{_shown(self.then)} then, {_shown(self.now)} now; {self.why}"
        said = [f"trial {self.trial} in {self.cell}: {self.verdict} ({scores})"]
        differ = [f"  {name}: {a or '-'} then, {b or '-'} now" for name, (a, b) in self.environment.items()]
        model = [] if self.model is None else [f"model: {self.model}"]
        return [*said, *(differ or ["the environment is the same"]), *model]


def address(words: str) -> tuple[Path, int, str | None]:
    """Return page, trial and cell of ``page.html#trial=42`` or ``page.html#trial=42&cell=cpu-dense``.

    Raises
    ------
    UsageError
        The words name no trial.
    """
    found = _ADDRESS.fullmatch(words)
    if found is None:
        hint = "write page.html#trial=42, or study.yaml --trial 42"
        raise UsageError(f"{words[:200]!r} names no trial", hint=hint)
    return Path(found["page"]), int(found["trial"]), found["cell"]


def replay(
    result: StudyResult, trial: int, cell: str | None = None, root: Path | None = None,
    now: Mapping[str, str] | None = None, out: Path | None = None,
) -> Replay:  # fmt: skip
    """Train one trial again and say whether it is the same.

    Parameters
    ----------
    result
        The study, as ``collect`` or a page's record gives it.
    trial
        Its number.
    cell
        ``cpu-dense`` and so on; by default the cell that searched.
    root
        The folder that the result's ``spec_path`` is relative to, by default the current one; relative paths of
        data files start at the study file's own folder.
    now
        This environment; by default as it is found.
    out
        Where its model goes, as a study's winner is kept: of the epoch that the score is of and, where a trial trains
        several, of the first seed.  None is written if the trial is ``different``.

    Raises
    ------
    UsageError
        There is no such cell or trial, or it was never trained; or a model is asked for, and it is not complete.
    DataError
        The data are not those of the study.
    ResourceError
        The cell's device is not here, or the model cannot be written.
    """
    where = _cell(result, cell)
    old = _trial(where, trial)
    if out is not None:
        if old.state != "COMPLETE":
            raise UsageError(f"trial {trial} is not complete, so it has no model: {old.reason or old.state.lower()}",
                             hint="a complete one has; the report lists them all")  # fmt: skip
        foresee(out)
    if not result.spec_text:
        raise UsageError("the result holds no study file", hint="make the report again with this version")
    whole = parse(result.spec_text, (root or Path()) / result.spec_path)
    # A study of a sweep keeps the sweep's file.
    spec = next((member for member in whole.members() if member.study_name == result.study_name), whole)
    if spec.cluster is not None:
        raise UsageError("the study's trials train on a cluster, and a replay trains in one process",
                         hint="run the study file again under another study_name")  # fmt: skip
    data = bring(spec)
    _same_data(result, data)
    h = Hyperparameters.of({**spec.fixed, **old.params})
    once = _trained(spec, data, old, h, where, result.seeds, keeps=out is not None)
    assert once.outcome is not None
    verdict, largest, why = compare(old, once.outcome)
    known = environment.describe() if now is None else now
    names = [*result.environment, *(n for n in known if n not in result.environment)]
    differ = {n: (a, b) for n in names if (a := result.environment.get(n)) != (b := known.get(n))}
    written = None
    if out is not None and once.model is not None and verdict != "different":
        _save(once.model, out, spec, data, h, old, once.outcome, where.layout)
        written = str(out)
    return Replay(
        trial, where.name, verdict, _score(old), _score(once.outcome), len(once.outcome.curve), largest, why, differ,
        written,
    )  # fmt: skip


def compare(old: TrialResult, new: Outcome) -> tuple[str, float, str]:
    """Return the verdict on a trial run again, the largest difference of an epoch, and why in words."""
    if (old.state == "FAIL") != (new.state == "FAIL") or len(old.curve) != len(new.curve):
        return "different", math.inf, f"{_end(old.state, len(old.curve))} then, {_end(new.state, len(new.curve))} now"
    gaps = [_gap(a, b) for a, b in zip(old.curve, new.curve, strict=True)]
    exact = old.state != "COMPLETE" or old.value == new.value
    if exact and not any(gaps):
        return "identical", 0.0, ""
    if old.value is not None and new.value is not None and old.state == "COMPLETE":
        gaps.append(abs(old.value - new.value) / max(abs(old.value), 1e-300))
    largest = max(gaps)
    at = "within" if largest <= TOLERANCE else "beyond"
    why = f"up to {largest:.2g} of the score apart, {at} {TOLERANCE:g}"
    return ("within tolerance" if largest <= TOLERANCE else "different"), largest, why


def _score(trial: TrialResult | Outcome) -> float | None:
    """Return a trial's score as reports have it, or its last epoch's."""
    if trial.state == "COMPLETE":
        return trial.value
    return trial.curve[-1] if trial.curve else None


def _gap(then: float, now: float) -> float:
    """Return how far two scores are apart, as a share; 0 for a number and the same one kept to six digits."""
    if then == now or then == float(f"{now:.{_KEPT}g}"):
        return 0.0
    return abs(now - then) / max(abs(then), 1e-300)


def _cell(result: StudyResult, name: str | None) -> CellResult:
    ran = [c for c in result.cells if c.trials]
    found = next((c for c in ran if name in (None, c.name)), None)
    if found is None:
        hint = f"there are {', '.join(c.name for c in ran)}" if ran else "no cell has trials"
        raise UsageError(f"no cell {name!r} with trials" if name else "the study has no trials", hint=hint)
    why = devices.missing(Cell(found.device, found.layout))
    if why:
        raise ResourceError(f"{why} here", where=found.name)
    return found


def _trial(cell: CellResult, number: int) -> TrialResult:
    found = next((t for t in cell.trials if t.number == number), None)
    if found is None:
        last = max(t.number for t in cell.trials)
        raise UsageError(f"no trial {number} in {cell.name}", hint=f"the last one is {last}")
    diverged = found.state == "FAIL" and (found.reason or "").startswith("diverged")
    if found.state not in ("COMPLETE", "PRUNED") and not diverged:
        raise UsageError(
            f"trial {number} was not trained to an end in {cell.name}: {found.reason or found.state.lower()}"
        )
    return found


def _same_data(result: StudyResult, data: StudyData) -> None:
    names = sorted({*result.channels, *data.stats})
    differ = [n for n in names if result.channels.get(n, {}).get("digest") != data.stats.get(n, {}).get("digest")]
    if differ:
        raise DataError(
            f"not the study's data: {', '.join(differ)} differ{'s' if len(differ) == 1 else ''}",
            where=result.spec_path, hint="replay where the study's data lie; on other rows a score says nothing",
        )  # fmt: skip


def _trained(
    spec: Spec, data: StudyData, old: TrialResult, h: Hyperparameters, where: CellResult, seeds: int, keeps: bool
) -> _Once:  # fmt: skip
    epochs = len(old.curve) + (old.state == "FAIL")
    job = Job(old.number, seeds_of(h, seeds), Progress(spec.direction, h.patience), epochs, replay=True)
    once, memory = _Once(job, keeps), None
    if spec.memory is not None and where.device == "cpu":
        memory, data.channels.feed.memory, _ = budget(spec, data.channels.feed, seeds)
    Driver(
        once, data.channels, where.layout, spec.metric, lanes=seeds, threads=1, memory=memory, device=where.device,
        make=once.make,
    ).run()  # fmt: skip
    return once


def _save(
    model: Model, out: Path, spec: Spec, data: StudyData, h: Hyperparameters, old: TrialResult, new: Outcome,
    layout: str,
) -> None:  # fmt: skip
    test = data.channels.test(layout)
    assert test is not None
    assert old.value is not None
    assert new.epochs is not None
    metrics = evaluate(scores_of(model, test), data.channels.test_labels, h.predictor_type)
    modelfile.save(model, out, spec, data, h, trial=old.number, value=old.value, epochs=new.epochs, metrics=metrics)


class _Once:
    """A source of one job that nothing prunes; ``keeps`` says whether its model is wanted, of its first seed."""

    def __init__(self, job: Job, keeps: bool) -> None:
        self._job: Job | None = job
        self._keeps = keeps
        self._pack: Trainer | None = None
        self.outcome: Outcome | None = None
        self.model: Model | None = None

    def make(self, feed: Feed, recipe: Recipe, threads: int) -> Trainer:
        """Make what trains, and remember it: it holds the model."""
        self._pack = trainer(feed, recipe, threads)
        return self._pack

    def next(self) -> Job | None:
        job, self._job = self._job, None
        return job

    def report(self, job: Job, epoch: int, score: float) -> bool:
        # The driver asks between two epochs: the pack holds the model of this one.
        if self._keeps and job.progress.epochs == epoch and (epoch == job.epochs or job.progress.patience):
            assert self._pack is not None
            self.model = self._pack.model(job.lanes[0])
        return False

    def pause(self) -> None: ...

    def finish(self, job: Job, outcome: Outcome) -> None:
        self.outcome, self._pack = outcome, None

    def give_back(self, job: Job) -> None: ...

    def tick(self, row_lanes: float, seconds: float) -> None: ...


def _end(state: str, epochs: int) -> str:
    return f"diverged after {epochs} epochs" if state == "FAIL" else f"{epochs} epochs"


def _shown(score: float | None) -> str:
    return "no score" if score is None else f"{score:.7g}"
