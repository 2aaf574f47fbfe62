"""Storage: the study's rows in Optuna's own tables, written in few transactions.

A trial costs two: one when it enters a lane (a RUNNING row with its parameters), one when it ends (curve,
value, attributes and state together).  Optuna's own calls would take one for each score.  What any reader
sees is an ordinary Optuna study; optuna-dashboard opens it while it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import optuna
import psutil
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from fmtune.errors import ResourceError, StorageError
from fmtune.fm.metrics import Direction

_STUDY_ATTRS = models.StudyUserAttributeModel.__table__
_STUDY_SYSTEM = models.StudySystemAttributeModel.__table__
_TRIALS = models.TrialModel.__table__
_PARAMS = models.TrialParamModel.__table__
_VALUES = models.TrialValueModel.__table__
_SCORES = models.TrialIntermediateValueModel.__table__
_ATTRS = models.TrialUserAttributeModel.__table__
_SYSTEM = models.TrialSystemAttributeModel.__table__

_PATIENCE = 60.0

T = TypeVar("T")


_AUTHORITY = re.compile(r"(://[^:/@\s]*:)\S*@")
_QUERY = re.compile(r"([?&](?:password|passwd|pwd|sslpassword)=)[^&\s\"']*", re.IGNORECASE)


def redacted(url: str) -> str:
    """Return a storage URL, or a text that holds one, with passwords replaced by ``***``."""
    return _QUERY.sub(r"\1***", _AUTHORITY.sub(r"\1***@", url))


def owner() -> dict[str, Any]:
    """Return who this process is: number, start time and host, so that a dead one is known from a new one."""
    return {"pid": os.getpid(), "started": psutil.Process().create_time(), "host": os.uname().nodename}


def open_storage(url: str) -> RDBStorage:
    """Open a database by its SQLAlchemy URL; sqlite in WAL mode, every commit synced to the disk.

    Raises
    ------
    StorageError
        It cannot be opened, is damaged, or another version of Optuna wrote it.
    """
    sqlite = url.startswith("sqlite")
    try:
        # A driver would take the rest of the password for the host, and show it.
        if not sqlite and url.split("?")[0].count("@") > 1:
            raise ValueError("it has more than one @; in a user's name or password write it as %40")
        if sqlite:
            _inspect(sa.make_url(url).database)
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _PATIENCE}} if sqlite else None)
        if sqlite:
            storage.engine.dispose()
            sa.event.listen(storage.engine, "connect", _careful)
            storage.engine.connect().close()
    except Exception as error:  # a driver's errors have no common base
        hint = _DAMAGED if sqlite else "check the address, the user and the password, and that the server runs"
        for cause in (error, error.__cause__):
            if isinstance(cause, ModuleNotFoundError):
                hint = f"the database's driver is not installed: pip install {cause.name}"
        raise StorageError(_first_line(error, url), where=redacted(url), hint=hint) from error
    return storage


_DAMAGED = "check the file and the place; `--fresh` starts the study anew and keeps the old file aside"


def _inspect(database: str | None) -> None:
    """Raise ValueError for a sqlite file that is damaged, or lacks what it must have."""
    if not database or database == ":memory:":
        raise ValueError("a database in memory keeps nothing; name a file, or leave storage out")
    path = Path(database)
    if not path.exists():
        return
    if not path.stat().st_size and (path.parent / "model.fm").exists():
        raise ValueError("it is empty, though the study beside it has a model")
    with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE)) as connection:
        if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise ValueError(f"it is damaged: {found}")
        present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        # Tables without rows may be all that a killed process came to make.
        used = any(
            connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in {"studies", "trials"} & present
        )
        missing = sorted(set(models.BaseModel.metadata.tables) - present)
        if used and missing:
            raise ValueError(f"it is damaged, or of another version of Optuna: it has no table {missing[0]!r}")


def _first_line(error: Exception, url: str) -> str:
    text = str(error.__cause__ or error).strip().splitlines()[0] if str(error) else type(error).__name__
    return f"cannot be opened: {redacted(text.replace(url, redacted(url)))[:300]}"


def _careful(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={int(_PATIENCE * 1000)}"):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's own messages out of ours."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


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
    """

    def __init__(self, storage: RDBStorage, study_name: str, direction: Direction) -> None:
        self.storage = storage
        self.study_name = study_name
        with quiet():
            created = optuna.create_study(
                storage=storage, study_name=study_name, direction=direction, load_if_exists=True
            )  # fmt: skip
        self.study_id = created._study_id
        self._ids: dict[int, int] = {}

    def _write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run one transaction; a busy database is asked again for a minute."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with self.storage.engine.begin() as connection:
                    return work(connection)
            except sa.exc.OperationalError as error:
                if "disk is full" in str(error):
                    raise ResourceError(
                        "no space left on the disk for the study's database", where=self.study_name,
                        hint="free some space and run the same command again: finished trials are kept",
                    ) from error  # fmt: skip
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise StorageError(
                        f"the trial could not be written: {str(error.orig)[:200]}", where=self.study_name,
                        hint="free the disk or the lock, then run the same command again: it continues",
                    ) from error  # fmt: skip
                time.sleep(random.uniform(0.01, 0.1))

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in number order, and learn their rows."""
        trials = self.storage.get_all_trials(self.study_id, deepcopy=False)
        self._ids = {t.number: t._trial_id for t in trials}
        return sorted(trials, key=lambda t: t.number)

    def attrs(self) -> dict[str, Any]:
        """Return what is stored with the study."""
        return self.storage.get_study_user_attrs(self.study_id)

    def set_attrs(self, values: Mapping[str, Any]) -> None:
        """Store values with the study, in one transaction."""
        self._write(lambda c: _upsert(c, _STUDY_ATTRS, "study_id", self.study_id, values))

    def begin(
        self, number: int, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution],
        system: Mapping[str, Any], attrs: Mapping[str, Any], study_system: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Write trial ``number`` as RUNNING with its parameters; a row that is there already starts over."""

        def work(c: sa.Connection) -> int:
            trial_id = self._ids.get(number)
            if trial_id is None:
                row = {
                    "number": number,
                    "study_id": self.study_id,
                    "state": TrialState.RUNNING,
                    "datetime_start": _now(),
                }
                made = c.execute(_TRIALS.insert(), row).inserted_primary_key
                assert made is not None
                trial_id = int(made[0])
                rows = [
                    {"trial_id": trial_id, "param_name": k, "param_value": distributions[k].to_internal_repr(v),
                     "distribution_json": distribution_to_json(distributions[k])} for k, v in params.items()
                ]  # fmt: skip
                if rows:
                    c.execute(_PARAMS.insert(), rows)
                _upsert(c, _SYSTEM, "trial_id", trial_id, system)
            else:
                c.execute(_TRIALS.update().where(_TRIALS.c.trial_id == trial_id).values(state=TrialState.RUNNING))
                c.execute(_SCORES.delete().where(_SCORES.c.trial_id == trial_id))
            _upsert(c, _ATTRS, "trial_id", trial_id, attrs)
            if study_system:
                _upsert(c, _STUDY_SYSTEM, "study_id", self.study_id, study_system)
            return trial_id

        self._ids[number] = self._write(work)

    def progress(self, scores: Mapping[int, Mapping[int, float]]) -> None:
        """Write scores of running trials: number to {epoch: score}."""
        rows = [r for number, curve in scores.items() for r in self._score_rows(number, curve.items())]
        if rows:
            self._write(lambda c: c.execute(_SCORES.insert(), rows))

    def finish(
        self, number: int, state: str, value: float | None, curve: Sequence[float], attrs: Mapping[str, Any],
        system: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Write the end of a trial: curve, value, attributes and state in one transaction."""
        trial_id = self._ids[number]

        def work(c: sa.Connection) -> None:
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

        self._write(work)

    def wait(self, numbers: Iterable[int]) -> None:
        """Put running trials back: WAITING, without scores; one that has ended stays as it ended."""
        ids = [self._ids[n] for n in numbers]
        running = _TRIALS.c.trial_id.in_(ids) & (_TRIALS.c.state == TrialState.RUNNING)

        def work(c: sa.Connection) -> None:
            rows = list(c.execute(sa.select(_TRIALS.c.trial_id).where(running)).scalars())
            c.execute(_SCORES.delete().where(_SCORES.c.trial_id.in_(rows)))
            c.execute(_TRIALS.update().where(_TRIALS.c.trial_id.in_(rows)).values(state=TrialState.WAITING))

        if ids:
            self._write(work)

    def _score_rows(self, number: int, curve: Iterable[tuple[int, float]]) -> list[dict[str, Any]]:
        rows = []
        for epoch, score in curve:
            stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(score)
            rows.append({"trial_id": self._ids[number], "step": epoch, "intermediate_value": stored,
                         "intermediate_value_type": kind})  # fmt: skip
        return rows


def _now() -> datetime:
    """Return the time as Optuna stores it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _upsert(c: sa.Connection, table: Any, owner_column: str, owner_id: int, values: Mapping[str, Any]) -> None:
    """Write key-value rows of one owner, over older ones of the same key."""
    if not values:
        return
    c.execute(table.delete().where(table.c[owner_column] == owner_id, table.c.key.in_(list(values))))
    c.execute(
        table.insert(), [{owner_column: owner_id, "key": k, "value_json": json.dumps(v)} for k, v in values.items()]
    )


def sqlite_url(folder: Path) -> str:
    """Return the default storage's URL: one sqlite file in the study's own folder."""
    return f"sqlite:///{folder / 'study.db'}"
