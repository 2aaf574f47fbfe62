"""Store: a study's rows in Optuna's own tables, written in few transactions, by one process or by many.

A trial costs two: one when a worker claims it (a RUNNING row with its parameters), one when it ends (curve,
value, attributes and state together).  Optuna's own calls would take one for each score.  What any reader
sees is an ordinary Optuna study; optuna-dashboard opens it while it runs.

Claims are made under a lock of the study's row, so that numbers are handed out one by one and in order.  A trial
belongs to the worker that claimed it last: what another one tells of it is not taken.  A trial that somebody put there
by Optuna's own ``enqueue_trial`` is one without an owner: it is made when its number's turn comes.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from fmtune.fm.metrics import Direction
from fmtune.tune.claims import Claim, Held, New, abandoned
from fmtune.tune.database import Database, time_of
from fmtune.tune.storage import PATIENCE, quiet
from fmtune.tune.tables import (
    ATTRS,
    PARAMS,
    SCORES,
    STUDIES,
    STUDY_ATTRS,
    STUDY_SYSTEM,
    SYSTEM,
    TRIALS,
    VALUES,
    now,
    pairs_of,
    upsert,
)
from fmtune.tune.workers import GRACE, Owner, gone, name_of, owner, text_of

_OPEN = (TrialState.RUNNING, TrialState.WAITING)

_BEAT = "fmtune:worker:"


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
    database
        Runs the transactions; left out, one of ``storage``.

    Attributes
    ----------
    begun, ended : set of int
        Trials that have not ended, and those that have, as :meth:`trials` or the last claim found them.
    queued : set of int
        Trials that were enqueued by Optuna's own means, and not begun yet.
    tally : Counter
        How many have ended in which state.
    """

    def __init__(
        self, storage: RDBStorage, study_name: str, direction: Direction, *, me: Owner | None = None,
        grace: float = GRACE, home: int | None = None, clock: Callable[[], float] | None = None,
        database: Database | None = None,
    ) -> None:  # fmt: skip
        self.storage = storage
        self.study_name = study_name
        self._database = database or Database(storage, study_name)
        self.study_id = self._database.surely(lambda: self._begin(direction))
        self.me, self.grace, self.home = me or owner(), grace, home or self.study_id
        self._clock = time_of if clock is None else lambda c: clock()
        self.begun: set[int] = set()
        self.ended: set[int] = set()
        self.queued: set[int] = set()
        self.tally: Counter[str] = Counter()
        self._rows: dict[int, _Row] = {}
        self._newest = -1
        self._orphaned: dict[str, bool] = {}
        self._beating = threading.Lock()

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

    def _lock(self, c: sa.Connection) -> None:
        """Hold the study's row until the transaction ends; a write, so that sqlite begins with its lock too."""
        mine = STUDIES.c.study_id == self.study_id
        c.execute(STUDIES.update().where(mine).values(study_name=STUDIES.c.study_name))

    def __len__(self) -> int:
        """Return how many trials there are, as :meth:`trials` or the last claim found them."""
        return len(self._rows)

    @property
    def next(self) -> int:
        """The number of the next trial that is to be made."""
        return min(self.queued, default=len(self))

    def _see(self, number: int, row: _Row, *, owned: bool = True) -> None:
        self._rows[number] = row
        self._newest = max(self._newest, row.trial_id)
        self.queued.discard(number)
        self.begun.discard(number)
        if row.state == TrialState.WAITING and not owned:
            self.queued.add(number)
        elif not row.state.is_finished():
            self.begun.add(number)
        elif number not in self.ended:
            self.ended.add(number)
            self.tally[row.state.name] += 1

    def _look(self, c: sa.Connection) -> None:
        """See what has changed: trials that were open, that are open, and new ones."""
        columns = TRIALS.c.number, TRIALS.c.trial_id, TRIALS.c.state
        were = [self._rows[n].trial_id for n in self.begun | self.queued]
        changed = TRIALS.c.state.in_(_OPEN) | (TRIALS.c.trial_id > self._newest) | TRIALS.c.trial_id.in_(were)
        found = c.execute(sa.select(*columns).where(TRIALS.c.study_id == self.study_id, changed)).all()
        owned = self._attrs_of(c, [trial_id for _, trial_id, state in found if state == TrialState.WAITING])
        for number, trial_id, state in found:
            self._see(number, _Row(trial_id, state), owned=trial_id in owned)

    def trials(self, patience: float = PATIENCE) -> list[FrozenTrial]:
        """Return all trials in number order."""
        trials = self._database.run(lambda c: self.storage.get_all_trials(self.study_id, deepcopy=False), patience)
        for trial in trials:
            self._see(trial.number, _Row(trial._trial_id, trial.state), owned="owner" in trial.user_attrs)
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
        return self._database.run(lambda c: pairs_of(c, STUDY_ATTRS, "study_id", self.study_id))

    def study_system(self) -> dict[str, Any]:
        """Return what the sampler keeps with the study."""
        return self._database.once(lambda c: pairs_of(c, STUDY_SYSTEM, "study_id", self.study_id))

    def set_attrs(self, values: Mapping[str, Any]) -> None:
        """Store values with the study, in one transaction."""
        self.change(lambda attrs: values)

    def name_metric(self, name: str) -> None:
        """Store what the values are, where Optuna's own tools look for it."""
        row = {"study:metric_names": [name]}
        self._database.run(lambda c: upsert(c, STUDY_SYSTEM, "study_id", self.study_id, row))

    def change(self, work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> dict[str, Any]:
        """Change what is stored with the study, and nobody else meanwhile; returns what was there before."""

        def locked(c: sa.Connection) -> dict[str, Any]:
            self._lock(c)
            before = pairs_of(c, STUDY_ATTRS, "study_id", self.study_id)
            upsert(c, STUDY_ATTRS, "study_id", self.study_id, work(before))
            return before

        return self._database.run(locked)

    def beat(self, facts: Mapping[str, Any], patience: float | None = None) -> None:
        """Say that this worker lives, with facts for the others; a server that is away is asked again so long."""

        def work(c: sa.Connection) -> None:
            row = {_BEAT + name_of(self.me): {**self.me, **facts, "beat": self._clock(c)}}
            upsert(c, STUDY_ATTRS, "study_id", self.home, row)

        # One after the other: of two threads, what the later one says stays.
        with self._beating:
            self._database.once(work) if patience is None else self._database.run(work, patience)

    def leave(self) -> None:
        """Take this worker's beat away: whatever it still holds is anybody's."""
        key = STUDY_ATTRS.c.key == _BEAT + name_of(self.me)
        self._database.once(lambda c: c.execute(STUDY_ATTRS.delete().where(STUDY_ATTRS.c.study_id == self.home, key)))

    def workers(self) -> list[dict[str, Any]]:
        """Return all workers with a beat: who, ``age`` of the beat in seconds, ``lives``."""

        def work(c: sa.Connection) -> list[dict[str, Any]]:
            now = self._clock(c)
            each = [{**w, "age": max(0.0, now - w["beat"])} for w in _beats(c, self.home)]
            return [{**w, "lives": w["age"] < self.grace and not gone(w)} for w in each]

        return self._database.run(work)

    def orphan(self, trials: Sequence[FrozenTrial], alone: float) -> None:
        """Take it that nobody else ran the study at a time: whoever held a trial before is dead."""
        owners = [(t.state, t.user_attrs.get("owner") or {}) for t in trials]
        finished = {text_of(who) for state, who in owners if state.is_finished()}
        running = [who for state, who in owners if state == TrialState.RUNNING and who.get("since", 0.0) < alone]
        self._orphaned = {text_of(who): text_of(who) in finished for who in running}

    def claim(self, mine: set[int], make: Callable[[int], New | None]) -> Claim | None:
        """Make a trial this worker's: one that nobody holds any more, else the next in number order.

        Parameters
        ----------
        mine
            Trials that this worker is at.
        make
            Given how many workers live, returns the trial of number :attr:`next`, or None while there is none; called
            under the study's lock.

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

        return self._database.once(work)

    def _living(self, c: sa.Connection) -> set[str]:
        """Return the workers that live, this one among them."""
        now = self._clock(c)
        # Whoever was cut off itself cannot tell: the others may have been so too.
        trusting = time.monotonic() - self._database.failed < self.grace
        beats = [w for w in _beats(c, self.home) if trusting or (now - w["beat"] < self.grace and not gone(w))]
        return {name_of(self.me), *(name_of(w) for w in beats)}

    def _abandoned(self, c: sa.Connection, mine: set[int], living: set[str]) -> Claim | None:
        """Return the first trial that is begun and that nobody holds."""
        begun = {n: self._rows[n] for n in sorted(self.begun - mine)}
        attrs = self._attrs_of(c, [row.trial_id for row in begun.values()])
        for number, row in begun.items():
            own = attrs.get(row.trial_id, {})
            held = Held(number, row.state, own.get("owner"), int(own.get("attempts") or 1))
            if (claim := abandoned(held, self.me, living, self._orphaned)) is not None:
                return claim
        return None

    def _attrs_of(self, c: sa.Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return owner and attempts of trials by row."""
        if not ids:
            return {}
        wanted = ATTRS.c.trial_id.in_(ids) & ATTRS.c.key.in_(["owner", "attempts"])
        found: dict[int, dict[str, Any]] = {}
        for trial_id, key, value in c.execute(
            sa.select(ATTRS.c.trial_id, ATTRS.c.key, ATTRS.c.value_json).where(wanted)
        ):
            found.setdefault(trial_id, {})[key] = json.loads(value)
        return found

    def _take(self, c: sa.Connection, trial_id: int, attempts: int) -> None:
        """Start a trial over, as this worker's."""
        c.execute(TRIALS.update().where(TRIALS.c.trial_id == trial_id).values(state=TrialState.RUNNING))
        c.execute(SCORES.delete().where(SCORES.c.trial_id == trial_id))
        upsert(c, ATTRS, "trial_id", trial_id, {"attempts": attempts, "owner": self.me})

    def _insert(self, c: sa.Connection, new: New) -> Claim:
        row = {
            "number": new.number, "study_id": self.study_id, "state": TrialState.RUNNING, "datetime_start": now(),
        }  # fmt: skip
        if new.number in self.queued:
            trial_id = self._rows[new.number].trial_id
            c.execute(TRIALS.update().where(TRIALS.c.trial_id == trial_id).values(row))
            c.execute(PARAMS.delete().where(PARAMS.c.trial_id == trial_id))
        else:
            made = c.execute(TRIALS.insert(), row).inserted_primary_key
            assert made is not None
            trial_id = int(made[0])
        rows = [
            {"trial_id": trial_id, "param_name": k, "param_value": new.distributions[k].to_internal_repr(v),
             "distribution_json": distribution_to_json(new.distributions[k])} for k, v in new.params.items()
        ]  # fmt: skip
        if rows:
            c.execute(PARAMS.insert(), rows)
        upsert(c, SYSTEM, "trial_id", trial_id, new.system)
        upsert(c, ATTRS, "trial_id", trial_id, {"attempts": 1, "owner": self.me})
        upsert(c, STUDY_SYSTEM, "study_id", self.study_id, new.study_system)
        self._see(new.number, _Row(trial_id, TrialState.RUNNING))
        return Claim(new.number)

    def progress(self, scores: Mapping[int, Mapping[int, float]]) -> None:
        """Write scores of running trials, number to {epoch: score}; those that are another's by now are left out."""

        def work(c: sa.Connection) -> None:
            held = self._hold(c, scores)
            rows = [r for number in held for r in self._score_rows(number, scores[number].items())]
            if rows:
                c.execute(SCORES.insert(), rows)

        if scores:
            self._database.once(work)

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
            c.execute(SCORES.delete().where(SCORES.c.trial_id == trial_id))
            rows = self._score_rows(number, enumerate(curve, 1))
            if rows:
                c.execute(SCORES.insert(), rows)
            if value is not None:
                stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                c.execute(VALUES.insert(), {"trial_id": trial_id, "objective": 0, "value": stored, "value_type": kind})
            upsert(c, ATTRS, "trial_id", trial_id, attrs)
            upsert(c, SYSTEM, "trial_id", trial_id, system)
            ended = {"state": TrialState[state], "datetime_complete": now()}
            c.execute(TRIALS.update().where(TRIALS.c.trial_id == trial_id).values(ended))
            return True

        return self._database.once(work)

    def wait(self, numbers: Iterable[int]) -> None:
        """Put running trials back: WAITING, without scores; one that has ended, or is another's, stays as it is."""
        wanted = list(numbers)

        def work(c: sa.Connection) -> None:
            rows = [self._rows[n].trial_id for n in self._hold(c, wanted)]
            c.execute(SCORES.delete().where(SCORES.c.trial_id.in_(rows)))
            c.execute(TRIALS.update().where(TRIALS.c.trial_id.in_(rows)).values(state=TrialState.WAITING))

        if wanted:
            self._database.once(work)

    def _hold(self, c: sa.Connection, numbers: Iterable[int]) -> list[int]:
        """Lock trials, and return those of them that are this worker's and not ended.

        Locking and looking are two statements: the look must see what others did while the lock was waited for.
        """
        ids = {self._rows[n].trial_id: n for n in numbers}
        wanted = TRIALS.c.trial_id.in_(ids)
        c.execute(TRIALS.update().where(wanted).values(number=TRIALS.c.number))
        open_ = wanted & TRIALS.c.state.in_(_OPEN)
        found = list(c.execute(sa.select(TRIALS.c.trial_id).where(open_)).scalars())
        attrs = self._attrs_of(c, found)
        return [ids[i] for i in found if attrs.get(i, {}).get("owner") == self.me]

    def _score_rows(self, number: int, curve: Iterable[tuple[int, float]]) -> list[dict[str, Any]]:
        rows = []
        for epoch, score in curve:
            stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(score)
            rows.append({"trial_id": self._rows[number].trial_id, "step": epoch, "intermediate_value": stored,
                         "intermediate_value_type": kind})  # fmt: skip
        return rows


def _beats(c: sa.Connection, home: int) -> list[dict[str, Any]]:
    rows = sa.select(STUDY_ATTRS.c.value_json).where(
        STUDY_ATTRS.c.study_id == home, STUDY_ATTRS.c.key.startswith(_BEAT)
    )
    return [json.loads(value) for value in c.execute(rows).scalars()]
