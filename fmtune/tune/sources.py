"""Sources of jobs for the driver: a cell that searches, and cells that replay its trials by number."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from fmtune.fm.fit import Progress
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.tune import environment
from fmtune.tune.driver import Job, Outcome, seeds_of
from fmtune.tune.history import History
from fmtune.tune.selection import Finalists
from fmtune.tune.storage import Store, owner

# A trial whose process died is started again under its number.  It is given up when that happened so often in
# a row without any trial being finished in between: then it may be the trial that kills the process.
ATTEMPTS = 5

# Seconds between two writes of the scores of running trials.
PROGRESS = 2.0

Emit = Callable[..., None]


class Terms(NamedTuple):
    """What holds for all trials of a cell: its name, fixed hyperparameters, seeds a trial, direction, listener."""

    cell: str
    fixed: Mapping[str, Any]
    seeds: int
    direction: str
    emit: Emit


class _Cell:
    """What both sources share: rows in the study's database, and events."""

    def __init__(self, store: Store, terms: Terms) -> None:
        self.store = store
        self.cell, self._fixed, self._seeds, self._direction, self._emit = terms
        self.unfinished: set[int] = set()
        self._scores: dict[int, dict[int, float]] = {}
        self._written = time.monotonic()
        self._owner = owner()
        self.row_lanes, self.pass_seconds, self._since = 0.0, 0.0, time.monotonic()

    def _job(self, number: int, params: Mapping[str, Any], epochs: int | None = None) -> Job:
        h = Hyperparameters.of({**self._fixed, **params})
        progress = Progress(self._direction, h.patience)
        self.unfinished.add(number)
        return Job(
            number, seeds_of(h, self._seeds), progress, epochs or h.epochs, dict(params), replay=epochs is not None
        )

    def _note(self, job: Job, epoch: int, score: float) -> None:
        """Keep a running trial's score for the next write, at most one every two seconds."""
        self._scores.setdefault(job.number, {})[epoch] = score
        if time.monotonic() - self._written > PROGRESS:
            self.store.progress(self._scores)
            self._scores.clear()
            self._written = time.monotonic()

    def _end(self, job: Job, state: str, outcome: Outcome, system: Mapping[str, Any]) -> None:
        """Write the end of a trial; only then is it said to be finished."""
        device, layout = self.cell.split("-", 1)
        attrs = {
            "seconds": outcome.seconds, "rows_per_s": outcome.rows_per_s, "metrics": outcome.metrics,
            "best_epoch": outcome.best_epoch, "model_bytes": outcome.model_bytes, "device": device, "layout": layout,
            "peak_mb": environment.peak_mb(),
        }  # fmt: skip
        if outcome.reason:
            attrs["reason"] = outcome.reason
        self.store.finish(job.number, state, outcome.value, outcome.curve, attrs, system)
        self._scores.pop(job.number, None)
        self.unfinished.discard(job.number)
        self._emit(
            "trial", cell=self.cell, number=job.number, state=state, value=outcome.value, epochs=len(outcome.curve),
            seconds=outcome.seconds, rows_per_s=outcome.rows_per_s, reason=outcome.reason, params=job.token,
        )  # fmt: skip

    def give_back(self, job: Job) -> None:
        """Put a stopped trial back: the next run starts it again under its number."""
        self._scores.pop(job.number, None)
        self.store.wait([job.number])

    def tick(self, row_lanes: float, seconds: float) -> None:
        """Count the work done and tell the listener."""
        self.row_lanes += row_lanes
        self.pass_seconds += seconds
        wall = time.monotonic() - self._since
        self._emit("progress", cell=self.cell, lanes=len(self.unfinished), rows_per_s=self.row_lanes / wall)


class SearchSource(_Cell):
    """The cell that searches: Optuna's sampler and pruner by :class:`History`.

    Parameters
    ----------
    store, history
        The study on disk and the study that sampler and pruner see.
    stored
        Its trials so far, in number order.
    n_trials
        Numbers below this are run.
    lag, distributions
        As the history has them.
    enqueue
        Values for the first trials.
    finalists
        Keeps the best trials' scores.
    """

    def __init__(
        self, store: Store, terms: Terms, history: History, stored: Sequence[FrozenTrial], *, n_trials: int, lag: int,
        distributions: Mapping[str, BaseDistribution], enqueue: Sequence[Mapping[str, Any]], finalists: Finalists,
    ) -> None:  # fmt: skip
        super().__init__(store, terms)
        self._history, self._n_trials, self._lag = history, n_trials, lag
        self._distributions, self._enqueue, self._finalists = distributions, enqueue, finalists
        finalists.know({t.number: t.value for t in stored if t.state == TrialState.COMPLETE and t.value is not None})
        self._next = len(stored)
        self._again: deque[FrozenTrial] = deque()
        self._productive = [t.user_attrs.get("owner") for t in stored if t.state.is_finished()]
        for trial in stored:
            history.restore(trial)
            if not trial.state.is_finished():
                self.unfinished.add(trial.number)
                self._again.append(trial)

    @property
    def left(self) -> int:
        """How many trials are still to be run."""
        return len(self._again) + max(0, self._n_trials - self._next)

    def next(self) -> Job | None:
        """Return the next trial in number order, once everything that it may know of has ended."""
        while self._again:
            trial = self._again.popleft()
            attempts = self._attempts(trial)
            job = self._job(trial.number, trial.params)
            if attempts <= ATTEMPTS:
                self._begin(job, attempts)
                return job
            reason = f"its process died {ATTEMPTS} times in a row"
            self.finish(job, Outcome("FAIL", None, (), None, {}, 0.0, 0.0, 0, reason))
        n = self._next
        if n >= self._n_trials or any(m < n - self._lag for m in self.unfinished):
            return None
        asked = self._history.ask(self._enqueue[n] if n < len(self._enqueue) else None)
        self._next += 1
        job = self._job(n, asked.params)
        self._begin(job, 1, asked.system_attrs)
        return job

    def _attempts(self, trial: FrozenTrial) -> int:
        """Return which attempt at an unfinished trial this is, counting deaths since any trial was finished."""
        before = int(trial.user_attrs.get("attempts", 1))
        if trial.state != TrialState.RUNNING:
            return before
        return 1 if trial.user_attrs.get("owner") in self._productive else before + 1

    def _begin(self, job: Job, attempts: int, system: Mapping[str, Any] | None = None) -> None:
        attrs = {"attempts": attempts, "owner": self._owner}
        self.store.begin(
            job.number, job.token, self._distributions, system or {}, attrs, self._history.study_attrs
        )  # fmt: skip
        self._emit("start", cell=self.cell, number=job.number, params=job.token)

    def report(self, job: Job, epoch: int, score: float) -> bool:
        """Take a score; whether the pruner ends the trial."""
        self._note(job, epoch, score)
        return self._history.report(job.number, epoch, score)

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Write the end of a trial and let sampler and pruner know, when their turn comes."""
        ended = self._history.tell(job.number, outcome.state, outcome.value)
        if outcome.state == "COMPLETE" and outcome.value is not None and outcome.scores is not None:
            self._finalists.offer(job.number, outcome.value, outcome.scores)
        self._end(job, outcome.state, outcome, ended.system_attrs)


class ReplaySource(_Cell):
    """A cell that trains what the searching cell trained: same parameters, same seeds, as many epochs.

    Parameters
    ----------
    searched
        The searching cell's finished trials.
    stored
        This cell's trials so far.
    """

    def __init__(
        self, store: Store, terms: Terms, searched: Sequence[FrozenTrial], stored: Sequence[FrozenTrial]
    ) -> None:  # fmt: skip
        super().__init__(store, terms)
        done = {t.number for t in stored if t.state.is_finished()}
        self._todo = deque(t for t in searched if t.state.is_finished() and t.number not in done)
        self._states = {t.number: t.state.name for t in searched}

    @property
    def left(self) -> int:
        """How many trials are still to be run."""
        return len(self._todo)

    def next(self) -> Job | None:
        """Return the next trial that the searching cell finished and this one has not."""
        while self._todo:
            trial = self._todo.popleft()
            job = self._job(trial.number, trial.params, max(1, len(trial.intermediate_values)))
            attrs = {"attempts": 1, "owner": self._owner}
            self.store.begin(job.number, job.token, trial.distributions, {}, attrs, {})
            if trial.state != TrialState.FAIL:
                return job
            reason = (
                f"not replayed: it failed in the searching cell ({trial.user_attrs.get('reason', 'no reason given')})"
            )
            self.finish(job, Outcome("FAIL", None, (), None, {}, 0.0, 0.0, 0, reason))
        return None

    def report(self, job: Job, epoch: int, score: float) -> bool:
        """Take a score; a replay is never pruned, it ends where the trial ended."""
        self._note(job, epoch, score)
        return False

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Write the end of a trial, in the state that it had in the searching cell."""
        self._end(job, "FAIL" if outcome.state == "FAIL" else self._states[job.number], outcome, {})
