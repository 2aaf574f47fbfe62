"""Sources of jobs while the database is away, and while other processes run the same study."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmtune.tune.database import Away, Database
from fmtune.tune.driver import Job, Outcome
from fmtune.tune.sources import ReplaySource, Terms, epochs_of
from fmtune.tune.storage import open_storage
from fmtune.tune.store import Store

ENDED = Outcome("COMPLETE", 0.5, (0.7, 0.5), 2, {}, 1.0, 1.0, 8)


class Cut(Database):
    """A database whose server is away when told so."""

    away = False

    def once(self, work: Any) -> Any:
        if self.away:
            raise Away("the study's database cannot be reached: connection refused")
        return super().once(work)


def _searched(numbers: int) -> list[FrozenTrial]:
    trials = []
    for n in range(numbers):
        state = TrialState.FAIL if n == 1 else TrialState.COMPLETE
        trial = create_trial(
            state=state, value=None if n == 1 else 0.5, params={"linear_lr": 0.1 + n},
            distributions={"linear_lr": FloatDistribution(0.0, 10.0)}, intermediate_values={1: 0.7, 2: 0.5},
        )  # fmt: skip
        trial.number = n
        trials.append(trial)
    return trials


class _Bench:
    """A replaying cell with its events."""

    def __init__(self, folder: Path, trials: int) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        storage = open_storage(f"sqlite:///{folder / 'study.db'}")
        self.database = Cut(storage, "s")
        self.store = Store(storage, "s", "minimize", database=self.database)
        self.store.beat({})
        terms = Terms("cpu-sparse", {}, 1, "minimize", lambda event, **values: self.events.append((event, values)))
        self.source = ReplaySource(self.store, terms, _searched(trials), self.store.trials())

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def next(self) -> Job:
        """The next job, however often it has to be asked for."""
        deadline = time.monotonic() + 20
        while (job := self.source.next()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return job


@pytest.fixture
def bench(tmp_path: Path) -> _Bench:
    return _Bench(tmp_path, 3)


def test_an_end_waits_for_the_server(bench: _Bench) -> None:
    """What ends while the server is away is kept, told once it is back, and only then said to be finished."""
    job = bench.next()
    bench.database.away = True
    bench.source.finish(job, ENDED)
    assert bench.source.next() is None and bench.source.pause() is not None
    assert bench.names() == ["start", "away"]
    bench.database.away = False
    assert bench.next().number == 2
    # Trial 1 failed in the searching cell: it is not trained again.
    assert bench.names() == ["start", "away", "trial", "back", "trial", "start"]
    assert bench.store.trials()[0].value == 0.5 and bench.store.trials()[1].state == TrialState.FAIL


def test_a_job_is_given_back_without_the_server(bench: _Bench) -> None:
    """SIGTERM while the server is away: nothing is waited for, the worker's silence says it later."""
    job = bench.next()
    bench.database.away = True
    bench.source.give_back(job)
    bench.database.away = False
    assert bench.store.trials()[0].state == TrialState.RUNNING


def test_two_cells_share_the_trials(tmp_path: Path) -> None:
    """Two processes at one cell: each trial once; both know when all have ended, and who ended how many."""
    first, second = _Bench(tmp_path, 4), _Bench(tmp_path, 4)
    jobs = first.next(), second.next(), first.next()
    assert [job.number for job in jobs] == [0, 2, 3]
    for bench, job in zip((first, second, first), jobs, strict=True):
        assert bench.source.pause() is not None
        bench.source.finish(job, ENDED)
    for bench in (first, second):
        assert bench.source.next() is None and bench.source.pause() is None
        assert bench.events[-1] == ("count", {"cell": "cpu-sparse", "done": {"COMPLETE": 3, "FAIL": 1}})


@pytest.mark.parametrize(("attrs", "epochs"), [({"epochs": 2, "best_epoch": 1}, 2), ({"best_epoch": 1}, 1), ({}, 2)])
def test_a_trial_is_trained_again_as_far_as_its_value_was(attrs: dict[str, int], epochs: int) -> None:
    """Its ``epochs`` count, not its best one; studies of before have them as ``best_epoch``, others' as their curve."""
    (trial,) = _searched(1)
    trial.user_attrs = dict(attrs)
    assert epochs_of(trial) == epochs


def test_a_late_end_is_said_to_be_late(tmp_path: Path) -> None:
    """A trial that another worker took over meanwhile: the end is no trial's end."""
    first, second = _Bench(tmp_path, 1), _Bench(tmp_path, 1)
    job = first.next()
    first.store.leave()
    again = second.next()
    assert again.number == job.number == 0
    first.source.finish(job, ENDED)
    assert first.names() == ["start", "late"]
    second.source.finish(again, ENDED)
    assert second.names() == ["start", "trial"]
