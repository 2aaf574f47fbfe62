"""Sources of jobs while the database is away, and while other processes run the same study."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmtune.tune.database import Away, Database
from fmtune.tune.driver import Job, Outcome
from fmtune.tune.history import History
from fmtune.tune.selection import Finalists
from fmtune.tune.sources import ReplaySource, SearchSource, Terms, epochs_of
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


SPACE = {
    "linear_lr": FloatDistribution(1e-3, 1.0, log=True), "num_factors": IntDistribution(1, 9),
    "optimizer": CategoricalDistribution(["adam", "adagrad"]),
}  # fmt: skip


def _history() -> History:
    return History("s", "minimize", SPACE, lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=2),
                   optuna.pruners.NopPruner(), 2, seed=3)  # fmt: skip


class _Search:
    """One process that searches, with a budget of six trials of which two may be open."""

    def __init__(self, folder: Path) -> None:
        self.storage = open_storage(f"sqlite:///{folder / 'study.db'}")
        self.store = Store(self.storage, "s", "minimize")
        self.store.beat({})
        self.source = SearchSource(
            self.store, Terms("cpu-sparse", {}, 1, "minimize", lambda event, **values: None), _history(),
            self.store.trials(), n_trials=6, lag=2, distributions=SPACE, enqueue=(),
            finalists=Finalists(folder, "minimize"),
        )  # fmt: skip

    def enqueue(self, *each: dict[str, Any]) -> None:
        """Enqueue as any Optuna user would."""
        for values in each:
            optuna.load_study(study_name="s", storage=self.storage).enqueue_trial(values)

    def next(self) -> Job | None:
        self.source._ask_at = 0.0
        return self.source.next()

    def end(self, job: Job) -> None:
        value = float(job.token["linear_lr"] + job.token["num_factors"])
        self.source.finish(job, replace(ENDED, value=value))

    def run(self) -> list[FrozenTrial]:
        """Train until nothing is left, two at a time, the later one ended first."""
        while self.source.left:
            jobs = [job for job in (self.next(), self.next()) if job is not None]
            for job in reversed(jobs):
                self.end(job)
        return self.store.trials()

    def left(self) -> None:
        """End as a process does that is stopped."""
        self.store.leave()


def test_what_optuna_enqueued_is_tried(tmp_path: Path) -> None:
    """In its turn, with its values, the rest sampled as of one in the study file; beyond the budget too."""
    search = _Search(tmp_path)
    search.enqueue({"num_factors": 4}, {})
    trials = search.run()
    assert [t.state.name for t in trials] == ["COMPLETE"] * 6
    assert trials[0].params["num_factors"] == 4 and set(trials[0].params) == set(SPACE)
    mirror = _history()
    assert [mirror.ask({"num_factors": 4}).params, mirror.ask().params] == [t.params for t in trials[:2]]
    assert not search.source.left
    search.enqueue({"num_factors": 5, "linear_lr": 0.5, "optimizer": "adagrad"})
    again = _Search(tmp_path)
    assert again.source.left
    assert again.run()[6].params == {"num_factors": 5, "linear_lr": 0.5, "optimizer": "adagrad"}


def test_what_optuna_enqueued_depends_on_no_stop(tmp_path: Path) -> None:
    """A study that is stopped at any moment, and gone on with, has the same trials."""
    found = []
    for stop in (None, 0, 1, 2):
        (folder := tmp_path / str(stop)).mkdir()
        search = _Search(folder)
        search.enqueue({"num_factors": 2}, {"num_factors": 99}, {"linear_lr": 0.01}, {"optimizer": "adam"})
        for _ in range(stop or 0):
            search.next()
        if stop is not None:
            search.left()
            search = _Search(folder)
        found.append([(t.state, t.params, t.value, t.user_attrs.get("reason")) for t in search.run()])
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize(("values", "reason"), [
    ({"num_factors": 99}, "enqueued with num_factors 99, which is not in its search space"),
    ({"linear_lr": "fast"}, "enqueued with linear_lr 'fast', which is not in its search space"),
    ({"optimizer": "adamw"}, "enqueued with optimizer 'adamw', which is not in its search space"),
    ({"num_factors": 4, "epochs": 3}, "enqueued with epochs, which is not searched"),
])  # fmt: skip
def test_what_optuna_enqueued_and_cannot_be_tried_fails(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """It says why, and the study goes on; a value is never dropped."""
    search = _Search(tmp_path)
    search.enqueue(values)
    trials = search.run()
    assert (trials[0].state, trials[0].params, trials[0].user_attrs["reason"]) == (TrialState.FAIL, {}, reason)
    assert [t.state.name for t in trials[1:]] == ["COMPLETE"] * 5


def test_what_is_enqueued_while_a_study_runs_waits_for_its_turn(tmp_path: Path) -> None:
    """It begins once all trials have ended that it may know of, and finished ones above it are learnt after it."""
    search = _Search(tmp_path)
    first = search.next(), search.next()
    search.enqueue({"num_factors": 4}, {"num_factors": 5})
    optuna.load_study(study_name="s", storage=search.storage).add_trial(create_trial(value=0.5))
    assert search.next() is None
    search.end(first[1])
    second = search.next()
    assert second.number == 2 and search.next() is None
    search.end(first[0])
    search.end(second)
    assert [t.params.get("num_factors") for t in search.run()[2:5]] == [4, 5, None]
    assert len(search.store.trials()) == 6
