"""Claims, ends and beats in a study's database: who may run a trial, and whose word counts."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from fmtune.errors import FmtuneError, ResourceError, StorageError
from fmtune.tune import store as store_module
from fmtune.tune.storage import open_storage
from fmtune.tune.store import ATTEMPTS, RETRIES, Away, Claim, New, Store
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


class _Faulty:
    """An engine whose transactions fail with the given errors first; ``server`` makes it one of PostgreSQL."""

    def __init__(self, engine: sa.Engine, errors: list[Exception], server: bool) -> None:
        self._engine, self._errors, self._server = engine, errors, server

    @property
    def dialect(self) -> object:
        return SimpleNamespace(name="postgresql") if self._server else self._engine.dialect

    def begin(self) -> Any:
        if self._errors:
            raise self._errors.pop(0)
        return self._engine.begin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _failing(folder: Path, *errors: Exception, server: bool = False) -> Store:
    """Return a store of a database that fails once it is open."""
    storage, pending = open_storage(f"sqlite:///{folder / 'study.db'}"), []
    storage.engine = _Faulty(storage.engine, pending, server)  # type: ignore[assignment]
    store = Store(storage, "s", "minimize", grace=GRACE)
    pending += errors
    return store


def _error(text: str, state: str | None = None) -> Exception:
    class Original(Exception):
        sqlstate = state

    return sa.exc.OperationalError("SELECT 1", {}, Original(text))


def test_a_busy_sqlite_file_is_asked_again(tmp_path: Path) -> None:
    """As often as it takes; also where Optuna has wrapped the fault."""
    wrapped = StorageInternalError("An exception is raised during the commit.")
    wrapped.__cause__ = _error("database is locked")
    store = _failing(tmp_path, _error("database is locked"), wrapped)
    assert store.trials() == []


def test_patience_ends(tmp_path: Path) -> None:
    """A lock that stays is an error in the end; the next step is said."""
    store = _failing(tmp_path, *[_error("database is locked")] * 99)
    with pytest.raises(StorageError) as error:
        store.trials(patience=0.05)
    assert str(error.value) == (
        "s: the study's database cannot be written: database is locked\n"
        "  hint: free the disk or the lock, then run the same command again: it continues"
    )
    assert error.value.exit_code == 4


@pytest.mark.parametrize(("text", "kind", "hint"), [
    ("disk I/O error", StorageError, "free the disk or the lock, then run the same command again: it continues"),
    ("attempt to write a readonly database", ResourceError, "check the permissions of its file and its folder"),
])  # fmt: skip
def test_another_fault_of_a_sqlite_file_is_said_at_once(
    text: str, kind: type[FmtuneError], hint: str, tmp_path: Path
) -> None:
    """No second try: it would not help."""
    store = _failing(tmp_path, _error(text))
    with pytest.raises(kind) as error:
        store.trials()
    assert str(error.value) == f"s: the study's database cannot be written: {text}\n  hint: {hint}"
    assert store.trials() == []


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


def test_a_full_disk_is_a_lack_of_resources(tmp_path: Path) -> None:
    """Exit code 5; what was finished is kept."""
    store = _failing(tmp_path, _error("database or disk is full"))
    with pytest.raises(ResourceError) as error:
        store.set_attrs({"a": 1})
    assert str(error.value) == (
        "s: no space left on the disk for the study's database\n"
        "  hint: free some space and run the same command again: finished trials are kept"
    )
    assert error.value.exit_code == 5 and store.attrs() == {}


def test_a_server_that_is_away_is_said_without_its_password(tmp_path: Path) -> None:
    """At once where trials are asked for, and it is taken that other workers may have been cut off too."""
    lost = "connection to postgresql://u:secret@host/db failed\nIs the server running?"
    other = _store(tmp_path)
    other.beat({})
    assert _claim(other) == Claim(0)
    _dead(other)
    store = _failing(tmp_path, _error(lost), server=True)
    with pytest.raises(Away) as error:
        store.study_system()
    assert str(error.value) == (
        "s: the study's database does not answer: connection to postgresql://u:***@host/db failed\n"
        "  hint: see that its server runs, then start the same command again: it continues"
    )
    store._sqlite = True  # its clock is sqlite's
    store.storage.engine = store.storage.engine._engine  # type: ignore[attr-defined]
    assert _claim(store, budget=1) is None


def test_a_lock_of_a_server_is_no_absence(tmp_path: Path) -> None:
    """Somebody else is at it: asked again, and the others' beats are believed."""
    other = _store(tmp_path)
    other.beat({})
    assert _claim(other) == Claim(0)
    _dead(other)
    store = _failing(tmp_path, *[_error("canceling statement due to lock timeout", "55P03")] * 2, server=True)
    assert [t.number for t in store.trials()] == [0]
    store.storage.engine = store.storage.engine._engine  # type: ignore[attr-defined]
    assert _claim(store, budget=1) == Claim(0, attempts=2)


def test_a_servers_clock_is_its_own() -> None:
    """Whatever the time is here."""
    now = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    result = SimpleNamespace(scalar_one=lambda: now)
    server = SimpleNamespace(dialect=SimpleNamespace(name="postgresql"), execute=lambda query: result)
    assert store_module._clock(server) == now.timestamp()  # type: ignore[arg-type]


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
