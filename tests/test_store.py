"""Claims, ends and beats in a study's database: who may run a trial, and whose word counts."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from fmtune.errors import ResourceError
from fmtune.tune.claims import ATTEMPTS, RETRIES, Claim, New
from fmtune.tune.database import Away
from fmtune.tune.storage import open_storage
from fmtune.tune.store import Store
from fmtune.tune.workers import gone, name_of, owner
from tests.test_database import Faulty, fault

SPACE = {"x": FloatDistribution(0.0, 1.0)}
GRACE = 10.0


def _store(folder: Path) -> Store:
    return Store(open_storage(f"sqlite:///{folder / 'study.db'}"), "s", "minimize", grace=GRACE)


def _claim(store: Store, mine: Collection[int] = (), budget: int = 100) -> Claim | None:
    def make(workers: int) -> New | None:
        n = len(store)
        return New(n, {"x": n / 1000}, SPACE, {}, {}) if n < budget else None

    return store.claim(set(mine), make)


def _end(store: Store, number: int, value: float = 0.5) -> bool:
    return store.finish(number, "COMPLETE", value, [0.7, value], {"seconds": 1.0}, {})


def _dead(store: Store) -> None:
    """Let a worker have ended without a word: its last beat lies beyond the grace."""
    store.set_attrs({f"fmtune:worker:{name_of(store.me)}": {**store.me, "beat": 0.0}})


def test_claims_are_in_order_and_nobody_gets_anothers(tmp_path: Path) -> None:
    """Eight workers at once: each number once, none above the budget, every end is stored."""
    def work(store: Store) -> list[int]:
        store.beat({})
        mine = []
        while (claim := _claim(store, budget=40)) is not None:
            mine.append(claim.number)
            assert _end(store, claim.number)
        return mine

    stores = [_store(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        each = list(pool.map(work, stores))
    assert sorted(n for mine in each for n in mine) == list(range(40))
    trials = _store(tmp_path).trials()
    assert [(t.number, t.params["x"]) for t in trials] == [(n, n / 1000) for n in range(40)]
    assert {t.state for t in trials} == {TrialState.COMPLETE}


def test_the_first_tell_stands(tmp_path: Path) -> None:
    """A second tell of the same worker changes nothing and is no error."""
    store = _store(tmp_path)
    store.beat({})
    assert _claim(store) == Claim(0)
    assert _end(store, 0, 0.5) and _end(store, 0, 0.1)
    (trial,) = store.trials()
    assert (trial.value, trial.intermediate_values) == (0.5, {1: 0.7, 2: 0.5})


def test_a_dead_workers_trial_is_queued_again_and_its_late_word_is_ignored(tmp_path: Path) -> None:
    """Beyond the grace the trial is another's: the first worker's scores, end and return of it are not taken."""
    late, other = _store(tmp_path), _store(tmp_path)
    late.beat({})
    other.beat({})
    assert _claim(late) == Claim(0)
    assert _claim(other) == Claim(1)
    _dead(late)
    assert _claim(other, {1}) == Claim(0, attempts=2)
    late.progress({0: {1: 9.9}})
    late.wait([0])
    assert not _end(late, 0, 0.1)
    other.progress({0: {1: 0.6}, 1: {1: 0.4}})
    assert _end(other, 0, 0.5)
    assert not _end(late, 0, 0.1)
    assert [t.value for t in other.trials()] == [0.5, None]
    assert other.trials()[1].intermediate_values == {1: 0.4}


def test_a_worker_that_comes_back_in_time_keeps_its_trial(tmp_path: Path) -> None:
    """Declared dead, but nobody took the trial over: its end counts."""
    slow, other = _store(tmp_path), _store(tmp_path)
    slow.beat({})
    assert _claim(slow) == Claim(0)
    _dead(slow)
    assert _end(slow, 0)
    other.beat({})
    assert _claim(other) == Claim(1)


def test_a_trial_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    """It is queued again twice; then the claim says why it is not tried once more."""
    for attempt in range(1, RETRIES + 2):
        store = _store(tmp_path)
        store.beat({})
        assert _claim(store) == Claim(0, attempts=attempt, alone=attempt == RETRIES + 1)
        _dead(store)
    last = _store(tmp_path)
    assert _claim(last) == Claim(0, attempts=RETRIES + 2, spent="its worker died, 3 times")


def test_a_returned_trial_is_claimed_first_and_is_no_attempt(tmp_path: Path) -> None:
    """What SIGTERM gives back waits, without scores, for whoever asks next."""
    first, second = _store(tmp_path), _store(tmp_path)
    first.beat({})
    assert _claim(first) == Claim(0)
    first.progress({0: {1: 0.3}})
    first.wait([0])
    (trial,) = first.trials()
    assert (trial.state, trial.intermediate_values) == (TrialState.WAITING, {})
    assert _claim(second) == Claim(0)


def test_a_claim_whose_answer_was_lost_is_found_again(tmp_path: Path) -> None:
    """A trial that is this worker's in the database, and that it does not know of, is its next one."""
    store = _store(tmp_path)
    store.beat({})
    assert _claim(store) == Claim(0)
    assert _claim(store, mine=set()) == Claim(0)
    assert _claim(store, mine={0}) == Claim(1)


def test_who_is_alone_takes_everything_over(tmp_path: Path) -> None:
    """Trials held before a process was alone are nobody's, beat or not; those claimed since are not touched."""
    before = _store(tmp_path)
    before.beat({})
    assert _claim(before) == Claim(0)
    now = _store(tmp_path)
    joined = _store(tmp_path)
    joined.beat({})
    now.orphan(now.trials(), alone=now.me["since"])
    assert _claim(joined) == Claim(1)
    assert _claim(now) == Claim(0, attempts=2)
    assert _claim(now, {0}) == Claim(2)


def test_workers_are_listed_with_their_age(tmp_path: Path) -> None:
    """A beat shows who lives; one that left is not listed, one that fell silent is dead."""
    store, silent, left = _store(tmp_path), _store(tmp_path), _store(tmp_path)
    for one in (store, silent, left):
        one.beat({"lanes": 3})
    _dead(silent)
    left.leave()
    found = {w["run"]: (w["lives"], w.get("lanes")) for w in store.workers()}
    assert found == {store.me["run"]: (True, 3), silent.me["run"]: (False, None)}


@pytest.mark.parametrize(("change", "dead"), [
    ({}, False), ({"host": "elsewhere", "pid": 1}, False), ({"pid": 2**22 - 1}, True), ({"started": 1.0}, True),
    ({"space": "another container"}, False),
])  # fmt: skip
def test_only_this_machines_processes_are_known_to_be_dead(change: dict[str, object], dead: bool) -> None:
    """A process number says something only where it was given, and with the process's start."""
    assert gone({**owner(), **change}) is dead


def test_a_study_that_cannot_be_begun_is_a_fault_of_the_database(tmp_path: Path) -> None:
    """Also where Optuna makes its row, and where the metric's name is written: found by a disk that failed there."""
    store = _store(tmp_path)
    store.name_metric("test:rmse")
    assert store.study_system() == {"study:metric_names": ["test:rmse"]}
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    storage.engine.dispose()
    sa.event.listen(storage.engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=ON"))
    said = "the study's database cannot be written: attempt to write a readonly database"
    with pytest.raises(ResourceError, match=said):
        Store(storage, "another", "minimize")
    with pytest.raises(ResourceError, match=said):
        Store(storage, "s", "minimize").name_metric("test:auc")


def _cut_off(folder: Path, error: Exception) -> Store:
    """Return a store whose server failed once."""
    storage, errors = open_storage(f"sqlite:///{folder / 'study.db'}"), []
    engine = storage.engine
    storage.engine = Faulty(engine, errors, server=True)  # type: ignore[assignment]
    store = Store(storage, "s", "minimize", grace=GRACE)
    errors.append(error)
    with suppress(Away):
        store.study_system()
    storage.engine = engine
    return store


@pytest.mark.parametrize(("error", "claim"), [
    (fault("connection failed"), None),
    (fault("canceling statement due to lock timeout", "55P03"), Claim(0, attempts=2)),
])  # fmt: skip
def test_who_was_cut_off_does_not_take_others_for_dead(error: Exception, claim: Claim | None, tmp_path: Path) -> None:
    """They may have been so too; a lock of a server that answers is no such sign, and their beats are believed."""
    other = _store(tmp_path)
    other.beat({})
    assert _claim(other) == Claim(0)
    _dead(other)
    assert _claim(_cut_off(tmp_path, error), budget=1) == claim


def test_what_a_sampler_keeps_lies_with_the_trial_and_with_the_study(tmp_path: Path) -> None:
    """It reads back; a trial without parameters is one too; nothing asked for is nothing found."""
    store = _store(tmp_path)
    store.beat({})
    assert store.claim(set(), lambda workers: New(0, {}, {}, {"a": [1]}, {"b": 2})) == Claim(0)
    assert store.study_system() == {"b": 2} and store.fetch([]) == []
    assert [(t.number, t.params, t.system_attrs) for t in store.fetch([0])] == [(0, {}, {"a": [1]})]


def test_an_end_without_value_or_curve_is_stored(tmp_path: Path) -> None:
    """A trial that failed before its first score."""
    store = _store(tmp_path)
    store.beat({})
    _claim(store)
    store.progress({0: {}})
    store.progress({})
    assert store.finish(0, "FAIL", None, [], {"reason": "diverged at epoch 1"}, {})
    (trial,) = store.trials()
    assert (trial.state, trial.value, trial.user_attrs["reason"]) == (TrialState.FAIL, None, "diverged at epoch 1")
    store.wait([])
    assert store.tally == {"FAIL": 1} and not store.begun


def test_a_process_that_died_five_times_in_a_row_over_a_trial_gives_it_up(tmp_path: Path) -> None:
    """Counted from its last finished trial; one that finished something has nothing to answer for."""
    for died in range(1, ATTEMPTS + 2):
        store = _store(tmp_path)
        store.orphan(store.trials(), alone=store.me["since"])
        spent = f"its process died {ATTEMPTS} times in a row" if died > ATTEMPTS else None
        assert _claim(store) == Claim(0, attempts=died, spent=spent, alone=died == ATTEMPTS)
        time.sleep(0.01)  # runs differ in their beginning


def test_the_last_try_is_one_alone(tmp_path: Path) -> None:
    """Trials that died together are told apart: a worker that is at others leaves them to one that is not."""
    for attempt in range(1, RETRIES + 2):
        store = _store(tmp_path)
        store.beat({})
        last = attempt == RETRIES + 1
        assert _claim(store, budget=2) == Claim(0, attempt, alone=last)
        other = _claim(store, {0}, budget=2)
        assert other == (None if last else Claim(1, attempt))
        _dead(store)
    store = _store(tmp_path)
    store.beat({})
    assert _claim(store, budget=2) == Claim(0, attempts=4, spent="its worker died, 3 times")
    assert _end(store, 0)
    assert _claim(store, budget=2) == Claim(1, RETRIES + 1, alone=True)
