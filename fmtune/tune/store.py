"""Store: a study's rows in Optuna's own tables, written in few transactions, by one process or by many.

A trial costs two: one when a worker claims it (a RUNNING row with its parameters), one when it ends (curve,
value, attributes and state together).  Optuna's own calls would take one for each score.  What any reader
sees is an ordinary Optuna study; optuna-dashboard opens it while it runs.

Claims are made under a lock of the study's row, so that numbers are handed out one by one and in order.  A trial
belongs to the worker that claimed it last: what another one tells of it is not taken.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from fmtune.errors import ResourceError, StorageError
from fmtune.fm.metrics import Direction
from fmtune.tune.places import redacted
from fmtune.tune.storage import PATIENCE, quiet
from fmtune.tune.workers import GRACE, Owner, gone, name_of, owner

_STUDIES = models.StudyModel.__table__
_STUDY_ATTRS = models.StudyUserAttributeModel.__table__
_STUDY_SYSTEM = models.StudySystemAttributeModel.__table__
_TRIALS = models.TrialModel.__table__
_PARAMS = models.TrialParamModel.__table__
_VALUES = models.TrialValueModel.__table__
_SCORES = models.TrialIntermediateValueModel.__table__
_ATTRS = models.TrialUserAttributeModel.__table__
_SYSTEM = models.TrialSystemAttributeModel.__table__

# A trial whose worker died is queued again so often; then it may be the trial that kills its workers.  All trials of
# a worker die with it, so the last try is one alone: whoever dies then has killed it, and whoever does not goes on.
RETRIES = 2

# The same where one process runs a study, and is run again: deaths in a row, with nothing finished in between.
ATTEMPTS = 5

_OPEN = (TrialState.RUNNING, TrialState.WAITING)

_BEAT = "fmtune:worker:"

# InternalError: PostgreSQL has ended a transaction that was silent for too long, as of a process that slept.
_FAULTS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)

# PostgreSQL's word for a lock that was waited for too long: the server is there, and somebody else is at it.
_BUSY = "55P03"

T = TypeVar("T")


class Away(StorageError):
    """The database's server cannot be reached now; it may be back later."""


class New(NamedTuple):
    """A trial to be made: its parameters, and what the sampler keeps with the trial and with the study."""

    number: int
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    system: Mapping[str, Any]
    study_system: Mapping[str, Any]


class Claim(NamedTuple):
    """A trial that is now this worker's.

    ``spent`` says why it is not to be tried once more; ``alone`` that this is its last try, with nothing beside it.
    """

    number: int
    attempts: int = 1
    spent: str | None = None
    alone: bool = False


class _Row(NamedTuple):
    trial_id: int
    state: TrialState


class Store:
    """One Optuna study in a database, as fmtune writes it.

    Parameters
    ----------
    storage
        An open database.
    study_name
        The study; it is created when there is none.
    direction
        ``minimize`` or ``maximize``.
    me
        Who writes; left out, this process.
    grace
        Seconds without a beat after which a worker is dead.
    home
        The study that holds the workers' beats; left out, this one.
    clock
        Tells the seconds that beats are measured in; left out, the database does.

    Attributes
    ----------
    begun, ended : set of int
        Trials that have not ended, and those that have, as :meth:`trials` or the last claim found them.
    tally : Counter
        How many have ended in which state.
    """

    def __init__(
        self, storage: RDBStorage, study_name: str, direction: Direction, *, me: Owner | None = None,
        grace: float = GRACE, home: int | None = None, clock: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self.storage = storage
        self.study_name = study_name
        self._sqlite = storage.engine.dialect.name == "sqlite"
        self._failed = -float("inf")
        self.study_id = self._surely(lambda: self._begin(direction))
        self.me, self.grace, self.home = me or owner(), grace, home or self.study_id
        self._clock = _clock if clock is None else lambda c: clock()
        self.begun: set[int] = set()
        self.ended: set[int] = set()
        self.tally: Counter[str] = Counter()
        self._rows: dict[int, _Row] = {}
        self._newest = -1
        self._orphaned: dict[str, bool] = {}

    def _begin(self, direction: Direction) -> int:
        """Return the study's row; one that is there is only read."""
        try:
            return int(self.storage.get_study_id_from_name(self.study_name))
        except KeyError:
            with quiet():
                made = optuna.create_study(
                    storage=self.storage, study_name=self.study_name, direction=direction, load_if_exists=True
                )  # fmt: skip
            return int(made._study_id)

    def _run(self, work: Callable[[sa.Connection], T], patience: float = PATIENCE) -> T:
        """Run one transaction; a busy or absent database is asked again for ``patience`` seconds."""

        def transaction() -> T:
            with self.storage.engine.begin() as connection:
                return work(connection)

        return self._surely(transaction, patience)

    def _surely(self, work: Callable[[], T], patience: float = PATIENCE) -> T:
        """Do something with the database, again while it is busy or absent; its errors become ours."""
        deadline, pause = time.monotonic() + patience, 0.1
        while True:
            try:
                return work()
            except (*_FAULTS, StorageInternalError) as error:
                failure, passes = self._failure(error)
                if not passes or time.monotonic() > deadline:
                    raise failure from error
                time.sleep(random.uniform(pause / 10, pause))
                pause = pause if self._sqlite else min(5.0, 2 * pause)

    def _once(self, work: Callable[[sa.Connection], T]) -> T:
        """Run one transaction; raises :class:`Away` at once when a server cannot be reached."""
        return self._run(work, PATIENCE if self._sqlite else 0.0)

    def _failure(self, error: Exception) -> tuple[ResourceError | StorageError, bool]:
        """Return an error in our words, and whether it may pass."""
        # Optuna wraps the driver's error twice, SQLAlchemy once.
        inner = (error.__cause__ if isinstance(error, StorageInternalError) else None) or error
        orig = getattr(inner, "orig", None)
        text = redacted(str(orig or inner.__cause__ or inner))[:200]
        if "disk is full" in text:
            return ResourceError(
                "no space left on the disk for the study's database", where=self.study_name,
                hint="free some space and run the same command again: finished trials are kept",
            ), False  # fmt: skip
        if "readonly" in text:
            return ResourceError(
                f"the study's database cannot be written: {text}", where=self.study_name,
                hint="check the permissions of its file and its folder",
            ), False  # fmt: skip
        if self._sqlite:
            return StorageError(
                f"the study's database cannot be written: {text}", where=self.study_name,
                hint="free the disk or the lock, then run the same command again: it continues",
            ), "locked" in text  # fmt: skip
        if getattr(orig, "sqlstate", None) != _BUSY:
            self._failed = time.monotonic()
        return Away(
            f"the study's database does not answer: {text.splitlines()[0]}", where=self.study_name,
            hint="see that its server runs, then start the same command again: it continues",
        ), True  # fmt: skip

    def _lock(self, c: sa.Connection) -> None:
        """Hold the study's row until the transaction ends; a write, so that sqlite begins with its lock too."""
        mine = _STUDIES.c.study_id == self.study_id
        c.execute(_STUDIES.update().where(mine).values(study_name=_STUDIES.c.study_name))

    def __len__(self) -> int:
        """Return how many trials there are, as :meth:`trials` or the last claim found them."""
        return len(self._rows)

    def _see(self, number: int, row: _Row) -> None:
        self._rows[number] = row
        self._newest = max(self._newest, row.trial_id)
        if not row.state.is_finished():
            self.begun.add(number)
        elif number not in self.ended:
            self.begun.discard(number)
            self.ended.add(number)
            self.tally[row.state.name] += 1

    def _look(self, c: sa.Connection) -> None:
        """See what has changed: trials that were open, that are open, and new ones."""
        columns = _TRIALS.c.number, _TRIALS.c.trial_id, _TRIALS.c.state
        were = [self._rows[n].trial_id for n in self.begun]
        changed = _TRIALS.c.state.in_(_OPEN) | (_TRIALS.c.trial_id > self._newest) | _TRIALS.c.trial_id.in_(were)
        for number, trial_id, state in c.execute(
            sa.select(*columns).where(_TRIALS.c.study_id == self.study_id, changed)
        ):
            self._see(number, _Row(trial_id, state))

    def trials(self, patience: float = PATIENCE) -> list[FrozenTrial]:
        """Return all trials in number order."""
        trials = self._run(lambda c: self.storage.get_all_trials(self.study_id, deepcopy=False), patience)
        for trial in trials:
            self._see(trial.number, _Row(trial._trial_id, trial.state))
        return sorted(trials, key=lambda t: t.number)

    def fetch(self, numbers: Iterable[int]) -> list[FrozenTrial]:
        """Return some trials in number order; they were seen by a claim."""
        ids = {self._rows[n].trial_id for n in numbers}
        if not ids:
            return []
        found = self.storage._get_trials(self.study_id, None, ids, max(ids))
        return sorted((t for t in found if t._trial_id in ids), key=lambda t: t.number)

    def attrs(self) -> dict[str, Any]:
        """Return what is stored with the study."""
        return self._run(lambda c: _values(c, _STUDY_ATTRS, "study_id", self.study_id))

    def study_system(self) -> dict[str, Any]:
        """Return what the sampler keeps with the study."""
        return self._once(lambda c: _values(c, _STUDY_SYSTEM, "study_id", self.study_id))

    def set_attrs(self, values: Mapping[str, Any]) -> None:
        """Store values with the study, in one transaction."""
        self.change(lambda attrs: values)

    def name_metric(self, name: str) -> None:
        """Store what the values are, where Optuna's own tools look for it."""
        row = {"study:metric_names": [name]}
        self._run(lambda c: _upsert(c, _STUDY_SYSTEM, "study_id", self.study_id, row))

    def change(self, work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> dict[str, Any]:
        """Change what is stored with the study, and nobody else meanwhile; returns what was there before."""

        def locked(c: sa.Connection) -> dict[str, Any]:
            self._lock(c)
            before = _values(c, _STUDY_ATTRS, "study_id", self.study_id)
            _upsert(c, _STUDY_ATTRS, "study_id", self.study_id, work(before))
            return before

        return self._run(locked)

    def beat(self, facts: Mapping[str, Any]) -> None:
        """Say that this worker lives, with facts for ``fmtune status``."""

        def work(c: sa.Connection) -> None:
            row = {_BEAT + name_of(self.me): {**self.me, **facts, "beat": self._clock(c)}}
            _upsert(c, _STUDY_ATTRS, "study_id", self.home, row)

        self._once(work)

    def leave(self) -> None:
        """Take this worker's beat away: whatever it still holds is anybody's."""
        key = _STUDY_ATTRS.c.key == _BEAT + name_of(self.me)
        self._once(lambda c: c.execute(_STUDY_ATTRS.delete().where(_STUDY_ATTRS.c.study_id == self.home, key)))

    def workers(self) -> list[dict[str, Any]]:
        """Return all workers with a beat: who, ``age`` of the beat in seconds, ``lives``."""

        def work(c: sa.Connection) -> list[dict[str, Any]]:
            now = self._clock(c)
            each = [{**w, "age": max(0.0, now - w["beat"])} for w in _beats(c, self.home)]
            return [{**w, "lives": w["age"] < self.grace and not gone(w)} for w in each]

        return self._run(work)

    def orphan(self, trials: Sequence[FrozenTrial], alone: float) -> None:
        """Take it that nobody else ran the study at a time: whoever held a trial before is dead."""
        owners = [(t.state, t.user_attrs.get("owner") or {}) for t in trials]
        finished = {_text(who) for state, who in owners if state.is_finished()}
        running = [who for state, who in owners if state == TrialState.RUNNING and who.get("since", 0.0) < alone]
        self._orphaned = {_text(who): _text(who) in finished for who in running}

    def claim(self, mine: set[int], make: Callable[[int], New | None]) -> Claim | None:
        """Make a trial this worker's: one that nobody holds any more, else the next in number order.

        Parameters
        ----------
        mine
            Trials that this worker is at.
        make
            Given how many workers live, returns the next trial, or None while there is none; called under the study's
            lock.

        Returns
        -------
        Claim or None
            None while there is nothing to do.

        Raises
        ------
        Away
            The server cannot be reached.
        """

        def work(c: sa.Connection) -> Claim | None:
            self._lock(c)
            self._look(c)
            living = self._living(c)
            again = self._abandoned(c, mine, living)
            if again is not None and again.alone and mine:
                return None
            if again is not None:
                self._take(c, self._rows[again.number].trial_id, again.attempts)
                return again
            new = make(len(living))
            return None if new is None else self._insert(c, new)

        return self._once(work)

    def _living(self, c: sa.Connection) -> set[str]:
        """Return the workers that live, this one among them."""
        now = self._clock(c)
        # Whoever was cut off itself cannot tell: the others may have been so too.
        trusting = time.monotonic() - self._failed < self.grace
        beats = [w for w in _beats(c, self.home) if trusting or (now - w["beat"] < self.grace and not gone(w))]
        return {name_of(self.me), *(name_of(w) for w in beats)}

    def _abandoned(self, c: sa.Connection, mine: set[int], living: set[str]) -> Claim | None:
        """Return the first trial that is begun and that nobody holds."""
        begun = {n: self._rows[n] for n in sorted(self.begun - mine)}
        attrs = self._attrs_of(c, [row.trial_id for row in begun.values()])
        for number, row in begun.items():
            who, attempts = (attrs.get(row.trial_id, {}).get(key) for key in ("owner", "attempts"))
            # One of ours that we do not know of: the answer to that claim was lost on its way.
            if row.state == TrialState.WAITING or who == self.me:
                return Claim(number, int(attempts or 1))
            if _text(who) in self._orphaned:
                # Others' progress speaks for a trial, but not against what its last try, alone, came to.
                forgiven = self._orphaned[_text(who)] and int(attempts or 1) < ATTEMPTS
                died = 1 if forgiven else int(attempts or 1) + 1
                return _claim(number, died, ATTEMPTS, f"its process died {ATTEMPTS} times in a row")
            if not isinstance(who, dict) or "run" not in who or name_of(who) not in living:
                died = int(attempts or 1) + 1
                return _claim(number, died, RETRIES + 1, f"its worker died, {died - 1} times")
        return None

    def _attrs_of(self, c: sa.Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return owner and attempts of trials by row."""
        if not ids:
            return {}
        wanted = _ATTRS.c.trial_id.in_(ids) & _ATTRS.c.key.in_(["owner", "attempts"])
        found: dict[int, dict[str, Any]] = {}
        for trial_id, key, value in c.execute(
            sa.select(_ATTRS.c.trial_id, _ATTRS.c.key, _ATTRS.c.value_json).where(wanted)
        ):
            found.setdefault(trial_id, {})[key] = json.loads(value)
        return found

    def _take(self, c: sa.Connection, trial_id: int, attempts: int) -> None:
        """Start a trial over, as this worker's."""
        c.execute(_TRIALS.update().where(_TRIALS.c.trial_id == trial_id).values(state=TrialState.RUNNING))
        c.execute(_SCORES.delete().where(_SCORES.c.trial_id == trial_id))
        _upsert(c, _ATTRS, "trial_id", trial_id, {"attempts": attempts, "owner": self.me})

    def _insert(self, c: sa.Connection, new: New) -> Claim:
        row = {
            "number": new.number, "study_id": self.study_id, "state": TrialState.RUNNING, "datetime_start": _now(),
        }  # fmt: skip
        made = c.execute(_TRIALS.insert(), row).inserted_primary_key
        assert made is not None
        trial_id = int(made[0])
        rows = [
            {"trial_id": trial_id, "param_name": k, "param_value": new.distributions[k].to_internal_repr(v),
             "distribution_json": distribution_to_json(new.distributions[k])} for k, v in new.params.items()
        ]  # fmt: skip
        if rows:
            c.execute(_PARAMS.insert(), rows)
        _upsert(c, _SYSTEM, "trial_id", trial_id, new.system)
        _upsert(c, _ATTRS, "trial_id", trial_id, {"attempts": 1, "owner": self.me})
        _upsert(c, _STUDY_SYSTEM, "study_id", self.study_id, new.study_system)
        self._see(new.number, _Row(trial_id, TrialState.RUNNING))
        return Claim(new.number)

    def progress(self, scores: Mapping[int, Mapping[int, float]]) -> None:
        """Write scores of running trials, number to {epoch: score}; those that are another's by now are left out."""

        def work(c: sa.Connection) -> None:
            held = self._hold(c, scores)
            rows = [r for number in held for r in self._score_rows(number, scores[number].items())]
            if rows:
                c.execute(_SCORES.insert(), rows)

        if scores:
            self._once(work)

    def finish(
        self, number: int, state: str, value: float | None, curve: Sequence[float], attrs: Mapping[str, Any],
        system: Mapping[str, Any],
    ) -> bool:  # fmt: skip
        """Write the end of a trial: curve, value, attributes and state in one transaction.

        Returns
        -------
        bool
            False when the trial is another worker's by now; nothing is written then.  A trial that this worker has
            ended already stays as it is: an answer may get lost, and the same be told twice.
        """
        trial_id = self._rows[number].trial_id

        def work(c: sa.Connection) -> bool:
            if not self._hold(c, [number]):
                return bool(self._attrs_of(c, [trial_id])[trial_id]["owner"] == self.me)
            c.execute(_SCORES.delete().where(_SCORES.c.trial_id == trial_id))
            rows = self._score_rows(number, enumerate(curve, 1))
            if rows:
                c.execute(_SCORES.insert(), rows)
            if value is not None:
                stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                c.execute(_VALUES.insert(), {"trial_id": trial_id, "objective": 0, "value": stored, "value_type": kind})
            _upsert(c, _ATTRS, "trial_id", trial_id, attrs)
            _upsert(c, _SYSTEM, "trial_id", trial_id, system)
            ended = {"state": TrialState[state], "datetime_complete": _now()}
            c.execute(_TRIALS.update().where(_TRIALS.c.trial_id == trial_id).values(ended))
            return True

        return self._once(work)

    def wait(self, numbers: Iterable[int]) -> None:
        """Put running trials back: WAITING, without scores; one that has ended, or is another's, stays as it is."""
        wanted = list(numbers)

        def work(c: sa.Connection) -> None:
            rows = [self._rows[n].trial_id for n in self._hold(c, wanted)]
            c.execute(_SCORES.delete().where(_SCORES.c.trial_id.in_(rows)))
            c.execute(_TRIALS.update().where(_TRIALS.c.trial_id.in_(rows)).values(state=TrialState.WAITING))

        if wanted:
            self._once(work)

    def _hold(self, c: sa.Connection, numbers: Iterable[int]) -> list[int]:
        """Lock trials, and return those of them that are this worker's and not ended.

        Locking and looking are two statements: the look must see what others did while the lock was waited for.
        """
        ids = {self._rows[n].trial_id: n for n in numbers}
        wanted = _TRIALS.c.trial_id.in_(ids)
        c.execute(_TRIALS.update().where(wanted).values(number=_TRIALS.c.number))
        open_ = wanted & _TRIALS.c.state.in_(_OPEN)
        found = list(c.execute(sa.select(_TRIALS.c.trial_id).where(open_)).scalars())
        attrs = self._attrs_of(c, found)
        return [ids[i] for i in found if attrs.get(i, {}).get("owner") == self.me]

    def _score_rows(self, number: int, curve: Iterable[tuple[int, float]]) -> list[dict[str, Any]]:
        rows = []
        for epoch, score in curve:
            stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(score)
            rows.append({"trial_id": self._rows[number].trial_id, "step": epoch, "intermediate_value": stored,
                         "intermediate_value_type": kind})  # fmt: skip
        return rows


def _claim(number: int, attempts: int, most: int, spent: str) -> Claim:
    """Return the claim of a trial whose worker died; after ``most`` attempts it is not tried again."""
    return Claim(number, attempts, spent if attempts > most else None, attempts == most)


def _now() -> datetime:
    """Return the time as Optuna stores it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _clock(c: sa.Connection) -> float:
    """Return the database's time in seconds; sqlite's is this machine's."""
    if c.dialect.name == "sqlite":
        return time.time()
    now: datetime = c.execute(sa.select(sa.func.current_timestamp())).scalar_one()
    return now.timestamp()


def _text(who: Any) -> str:
    return json.dumps(who, sort_keys=True)


def _beats(c: sa.Connection, home: int) -> list[dict[str, Any]]:
    rows = sa.select(_STUDY_ATTRS.c.value_json).where(
        _STUDY_ATTRS.c.study_id == home, _STUDY_ATTRS.c.key.startswith(_BEAT)
    )
    return [json.loads(value) for value in c.execute(rows).scalars()]


def _values(c: sa.Connection, table: Any, owner_column: str, owner_id: int) -> dict[str, Any]:
    """Return key-value rows of one owner."""
    rows = c.execute(sa.select(table.c.key, table.c.value_json).where(table.c[owner_column] == owner_id))
    return {key: json.loads(value) for key, value in rows}


def _upsert(c: sa.Connection, table: Any, owner_column: str, owner_id: int, values: Mapping[str, Any]) -> None:
    """Write key-value rows of one owner, over older ones of the same key."""
    if not values:
        return
    c.execute(table.delete().where(table.c[owner_column] == owner_id, table.c.key.in_(list(values))))
    c.execute(
        table.insert(), [{owner_column: owner_id, "key": k, "value_json": json.dumps(v)} for k, v in values.items()]
    )
