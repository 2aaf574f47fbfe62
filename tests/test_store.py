"""Claims, ends and beats in a study's database: who may run a trial, and whose word counts."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from fmtune.tune.storage import open_storage
from fmtune.tune.store import RETRIES, Claim, New, Store
from fmtune.tune.workers import gone, name_of, owner

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
        assert _claim(store) == Claim(0, attempts=attempt)
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
