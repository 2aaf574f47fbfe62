"""Sources of jobs for the driver: a cell that searches, and cells that replay its trials by number.

Any number of processes may run one cell: each claims its trials in the study's database.  While that is away,
training goes on, and what has ended is told when it is back.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmtune.fm.fit import Progress
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.tune import environment
from fmtune.tune.claims import New
from fmtune.tune.database import Away
from fmtune.tune.driver import Job, Outcome, seeds_of
from fmtune.tune.history import History
from fmtune.tune.selection import Finalists
from fmtune.tune.space import misfit
from fmtune.tune.store import Store

# Seconds between two writes of the scores of running trials.
PROGRESS = 2.0

# Seconds between two questions for a trial: the first, and the most while nothing changes.
POLL = 0.1, 2.0

# Seconds between two tries to reach a server that is away, at most.
_AWAY = 15.0

Emit = Callable[..., None]


def may_begin(n: int, n_trials: int, begun: Collection[int], lag: int, workers: int, mine: int) -> bool:
    """Whether a worker may begin trial ``n``, the next in number order.

    Parameters
    ----------
    n, n_trials
        The trial, and how many there are to be.
    begun
        Trials that have begun and not ended.
    lag
        All trials below ``n - lag`` must have ended.  So the lag bounds how many are open at once.
    workers
        How many live; they share the lag evenly.
    mine
        Trials that this worker is at.
    """
    return n < n_trials and min(begun, default=n) >= n - lag and mine < math.ceil(max(1, lag) / workers)


class Terms(NamedTuple):
    """What holds for all trials of a cell: its name, fixed hyperparameters, seeds a trial, direction, listener."""

    cell: str
    fixed: Mapping[str, Any]
    seeds: int
    direction: str
    emit: Emit


class _End(NamedTuple):
    """The end of a trial, to be told."""

    job: Job
    state: str
    outcome: Outcome
    system: Mapping[str, Any]


class _Cell:
    """What both sources share: claims and ends in the study's database, and events."""

    def __init__(self, store: Store, terms: Terms, stored: Sequence[FrozenTrial]) -> None:
        self.store = store
        self.cell, self._fixed, self._seeds, self._direction, self._emit = terms
        self.mine: set[int] = set()
        self._alone: int | None = None
        self._untold: list[_End] = []
        self._scores: dict[int, dict[int, float]] = {}
        self._epochs: dict[int, tuple[int, int]] = {}
        self._written = time.monotonic()
        self._poll, self._ask_at, self._away = POLL[0], 0.0, 0.0
        self._counted = Counter(t.state.name for t in stored if t.state.is_finished())
        self.row_lanes, self.pass_seconds, self._since = 0.0, 0.0, time.monotonic()

    def next(self) -> Job | None:
        """Return the next trial, now this process's own; None while there is none for it."""
        if time.monotonic() < self._ask_at or not self._told() or self._alone in self.mine:
            return None
        with self._reached():
            while (claim := self.store.claim(self.mine, self._make)) is not None:
                self._poll = POLL[0]
                job = self._start(claim.number)
                self.mine.add(claim.number)
                if (unfit := claim.spent or self._unfit(claim.number)) is None:
                    self._alone = claim.number if claim.alone else None
                    self._emit("start", cell=self.cell, number=job.number, params=job.token)
                    return job
                self.finish(job, Outcome("FAIL", None, (), None, {}, 0.0, 0.0, 0, unfit))
            self._count()
            self._ask_at = time.monotonic() + self._poll
            self._poll = min(2 * self._poll, POLL[1])
        return None

    def pause(self) -> float | None:
        """Return after how many seconds to ask again; None when every trial has ended, whoever ran it."""
        return max(0.01, self._ask_at - time.monotonic()) if self._untold or self.left else None

    def give_back(self, job: Job) -> None:
        """Put a stopped trial back: whoever asks next starts it again under its number."""
        self._told()
        # A server that is away learns it by this worker's silence.
        with contextlib.suppress(Away):
            self.store.wait([job.number])

    def tick(self, row_lanes: float, seconds: float) -> None:
        """Count the work done and tell the listener."""
        self.row_lanes += row_lanes
        self.pass_seconds += seconds
        wall = time.monotonic() - self._since
        running = [self._epochs[number] for number in sorted(self.mine & self._epochs.keys())]
        self._emit(
            "progress", cell=self.cell, lanes=len(self.mine), rows_per_s=self.row_lanes / wall,
            part=sum(epoch / epochs for epoch, epochs in running), epoch=max(running, default=None),
        )  # fmt: skip

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Do something with the database; when its server is away, leave it and say after how long to try again."""
        try:
            yield
        except Away as error:
            if not self._away:
                self._emit("away", cell=self.cell, reason=error.what)
            self._away = min(_AWAY, max(0.5, 2 * self._away))
            self._ask_at = time.monotonic() + random.uniform(self._away / 2, self._away)
        else:
            if self._away:
                self._emit("back", cell=self.cell)
            self._away = 0.0

    def _job(self, number: int, params: Mapping[str, Any], epochs: int | None = None) -> Job:
        h = Hyperparameters.of({**self._fixed, **params})
        progress = Progress(self._direction, h.patience)
        return Job(
            number, seeds_of(h, self._seeds), progress, epochs or h.epochs, dict(params), replay=epochs is not None
        )

    def _note(self, job: Job, epoch: int, score: float) -> None:
        """Keep a running trial's score for the next write, at most one every two seconds."""
        self._epochs[job.number] = epoch, job.epochs
        self._scores.setdefault(job.number, {})[epoch] = score
        if time.monotonic() - self._written > PROGRESS and not self._away:
            with self._reached():
                self.store.progress(self._scores)
            self._scores.clear()
            self._written = time.monotonic()

    def _end(self, job: Job, state: str, outcome: Outcome, system: Mapping[str, Any]) -> None:
        """Tell the end of a trial, now or when the server is back."""
        self._scores.pop(job.number, None)
        self._untold.append(_End(job, state, outcome, system))
        if not self._away and self._told():
            self._ask_at = 0.0

    def _told(self) -> bool:
        """Tell what has ended; False while the server is away."""
        while self._untold:
            told = False
            with self._reached():
                self._tell(self._untold[0])
                told = True
            if not told:
                return False
            self._untold.pop(0)
        return True

    def _tell(self, end: _End) -> bool:
        """Write the end of a trial; only then is it said to be finished.  False when it was another's by then."""
        job, state, outcome, system = end
        device, layout = self.cell.split("-", 1)
        attrs = {
            "seconds": outcome.seconds, "rows_per_s": outcome.rows_per_s, "metrics": outcome.metrics,
            "best_epoch": outcome.best_epoch, "epochs": outcome.epochs, "model_bytes": outcome.model_bytes,
            "device": device, "layout": layout, "peak_mb": environment.peak_mb(),
        }  # fmt: skip
        if outcome.reason:
            attrs["reason"] = outcome.reason
        taken = self.store.finish(job.number, state, outcome.value, outcome.curve, attrs, system)
        self.mine.discard(job.number)
        self._epochs.pop(job.number, None)
        if not taken:
            self._emit("late", cell=self.cell, number=job.number, state=state, value=outcome.value)
            return False
        self._counted[state] += 1
        self._emit(
            "trial", cell=self.cell, number=job.number, state=state, value=outcome.value, epochs=len(outcome.curve),
            seconds=outcome.seconds, rows_per_s=outcome.rows_per_s, reason=outcome.reason, params=job.token,
        )  # fmt: skip
        return True

    def _count(self) -> None:
        """Say how many trials have ended, when other processes had a part in it."""
        if self.store.tally != self._counted:
            self._counted = self.store.tally.copy()
            self._emit("count", cell=self.cell, done=dict(self._counted))

    # What the two differ in.

    @property
    def left(self) -> bool:
        """Whether trials are still to be run, by whomever."""
        raise NotImplementedError

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Take the end of a job."""
        raise NotImplementedError

    def _make(self, workers: int) -> New | None:
        """Return the next trial to be made, under the study's lock and with so many workers at it."""
        raise NotImplementedError

    def _start(self, number: int) -> Job:
        """Return a claimed trial as work."""
        raise NotImplementedError

    def _unfit(self, number: int) -> str | None:
        """Return why a trial is not trained, None when it is."""
        return None


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
        super().__init__(store, terms, stored)
        self._history, self._n_trials, self._lag = history, n_trials, lag
        self._distributions, self._enqueue, self._finalists = distributions, enqueue, finalists
        finalists.know(values_of(stored))
        made = stored[: store.next]
        for trial in made:
            history.restore(trial)
        self._known = {t.number for t in made if t.state.is_finished()}

    @property
    def left(self) -> bool:
        """Whether trials are still to be run, by whomever."""
        return self.store.next < self._most or bool(self.store.begun)

    @property
    def _most(self) -> int:
        """How many trials there are to be; one that was enqueued by Optuna's own means is run beyond ``n_trials``."""
        return max(self._n_trials, len(self.store))

    def _make(self, workers: int) -> New | None:
        """Return the next trial in number order, once everything that it may know of has ended."""
        n = self.store.next
        if not may_begin(n, self._most, self.store.begun, self._lag, workers, len(self.mine)):
            return None
        self._learn()
        # One that could not be written down is asked for again.
        self._history.cut(n)
        self._history.restore_study(self.store.study_system())
        fixed = self._enqueue[n] if n < len(self._enqueue) else None
        if n in self.store.queued:
            (queued,) = self.store.fetch([n])
            fixed = enqueued(queued)
            if misfit(fixed, self._distributions) is not None:
                # Without parameters, so that it is told from one to be trained, whoever comes to it.
                bare = create_trial(state=TrialState.WAITING, system_attrs=queued.system_attrs)
                self._history.restore(bare)
                return New(n, {}, {}, bare.system_attrs, {})
        asked = self._history.ask(fixed)
        return New(n, asked.params, self._distributions, asked.system_attrs, self._history.study_attrs)

    def _unfit(self, number: int) -> str | None:
        """Return why a trial that was enqueued by Optuna's own means cannot be tried, None where it can."""
        trial = self._history.trial(number)
        return None if trial.params else misfit(enqueued(trial), self._distributions)

    def _start(self, number: int) -> Job:
        self._learn()
        self._history.forget_curve(number)
        return self._job(number, self._history.trial(number).params)

    def _learn(self) -> None:
        """Let the history know what other processes asked for and ended, up to the next trial that is to be made."""
        border = self.store.next
        ended = {number for number in self.store.ended - self._known if number < border}
        for trial in self.store.fetch({*ended, *range(len(self._history), border)}):
            self._history.learn(trial)
        self._known |= ended

    def _tell(self, end: _End) -> bool:
        taken = super()._tell(end)
        if taken:
            self._known.add(end.job.number)
        return taken

    def report(self, job: Job, epoch: int, score: float) -> bool:
        """Take a score; whether the pruner ends the trial, or another worker has ended it."""
        if job.number in self._known:
            return True
        self._note(job, epoch, score)
        return self._history.report(job.number, epoch, score)

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Write the end of a trial and let sampler and pruner know, when their turn comes."""
        if job.number in self._known:
            self._end(job, outcome.state, outcome, {})
            return
        ended = self._history.tell(job.number, outcome.state, outcome.value)
        if outcome.state == "COMPLETE" and outcome.value is not None and outcome.scores is not None:
            self._finalists.offer(job.number, outcome.value, outcome.scores)
        self._end(job, outcome.state, outcome, ended.system_attrs)


class ReplaySource(_Cell):
    """A cell that trains what the searching cell trained: same parameters, same seeds, as many epochs.

    Parameters
    ----------
    searched
        The searching cell's trials.
    stored
        This cell's trials so far.
    """

    def __init__(
        self, store: Store, terms: Terms, searched: Sequence[FrozenTrial], stored: Sequence[FrozenTrial]
    ) -> None:  # fmt: skip
        super().__init__(store, terms, stored)
        self._searched = {t.number: t for t in searched if t.state.is_finished()}

    @property
    def left(self) -> bool:
        """Whether trials are still to be run, by whomever."""
        return not self._searched.keys() <= self.store.ended

    def _make(self, workers: int) -> New | None:
        """Return the next trial that the searching cell finished and this one has not."""
        number = next((n for n in self._searched if n not in self.store.begun | self.store.ended), None)
        if number is None:
            return None
        trial = self._searched[number]
        return New(number, trial.params, trial.distributions, {}, {})

    def _start(self, number: int) -> Job:
        trial = self._searched[number]
        return self._job(number, trial.params, max(1, len(trial.intermediate_values)))

    def _unfit(self, number: int) -> str | None:
        trial = self._searched[number]
        if trial.state != TrialState.FAIL:
            return None
        return f"not replayed: it failed in the searching cell ({trial.user_attrs.get('reason', 'no reason given')})"

    def report(self, job: Job, epoch: int, score: float) -> bool:
        """Take a score; a replay is never pruned, it ends where the trial ended."""
        self._note(job, epoch, score)
        return False

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Write the end of a trial, in the state that it had in the searching cell."""
        state = "FAIL" if outcome.state == "FAIL" else self._searched[job.number].state.name
        self._end(job, state, outcome, {})


def epochs_of(trial: FrozenTrial) -> int:
    """Return after how many epochs a finished trial had its value.

    Trials of before ``epochs`` was kept have it under the name ``best_epoch``.
    """
    attrs = trial.user_attrs
    return int(attrs.get("epochs") or attrs.get("best_epoch") or len(trial.intermediate_values))


def enqueued(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a trial is to be that was enqueued by Optuna's own means."""
    return dict(trial.system_attrs.get("fixed_params", trial.params))


def values_of(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Return the values of complete trials by number."""
    return {t.number: t.value for t in trials if t.state == TrialState.COMPLETE and t.value is not None}
