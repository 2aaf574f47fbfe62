"""A study's database asked again while it is busy or absent, and what is said of its errors."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError

from fmtune.errors import FmtuneError, ResourceError, StorageError
from fmtune.tune.database import Away, Database, time_of
from fmtune.tune.storage import open_storage


class Faulty:
    """An engine whose transactions fail with the given errors first; ``server`` makes it one of PostgreSQL."""

    def __init__(self, engine: sa.Engine, errors: list[Exception], server: bool = False) -> None:
        self.engine, self._errors, self._server = engine, errors, server

    @property
    def dialect(self) -> object:
        return SimpleNamespace(name="postgresql") if self._server else self.engine.dialect

    def begin(self) -> Any:
        if self._errors:
            raise self._errors.pop(0)
        return self.engine.begin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def fault(text: str, state: str | None = None) -> Exception:
    """Return what SQLAlchemy raises for a driver's error of this text."""

    class Original(Exception):
        sqlstate = state

    return sa.exc.OperationalError("SELECT 1", {}, Original(text))


def _failing(folder: Path, *errors: Exception, server: bool = False) -> Database:
    storage = open_storage(f"sqlite:///{folder / 'study.db'}")
    storage.engine = Faulty(storage.engine, list(errors), server)  # type: ignore[assignment]
    return Database(storage, "s")


def _one(connection: sa.Connection) -> int:
    return int(connection.execute(sa.text("SELECT 1")).scalar_one())


def test_a_busy_sqlite_file_is_asked_again(tmp_path: Path) -> None:
    """As often as it takes; also where Optuna has wrapped the fault."""
    wrapped = StorageInternalError("An exception is raised during the commit.")
    wrapped.__cause__ = fault("database is locked")
    assert _failing(tmp_path, fault("database is locked"), wrapped).run(_one) == 1
    assert _failing(tmp_path, fault("database is locked")).once(_one) == 1


def test_patience_ends(tmp_path: Path) -> None:
    """A lock that stays is an error in the end; the next step is said."""
    with pytest.raises(StorageError) as error:
        _failing(tmp_path, *[fault("database is locked")] * 99).run(_one, patience=0.05)
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
    database = _failing(tmp_path, fault(text))
    with pytest.raises(kind) as error:
        database.run(_one)
    assert str(error.value) == f"s: the study's database cannot be written: {text}\n  hint: {hint}"
    assert database.run(_one) == 1


def test_a_full_disk_is_a_lack_of_resources(tmp_path: Path) -> None:
    """Exit code 5; what was finished is kept."""
    with pytest.raises(ResourceError) as error:
        _failing(tmp_path, fault("database or disk is full")).run(_one)
    assert str(error.value) == (
        "s: no space left on the disk for the study's database\n"
        "  hint: free some space and run the same command again: finished trials are kept"
    )
    assert error.value.exit_code == 5


def test_a_server_that_is_away_is_said_without_its_password(tmp_path: Path) -> None:
    """At once where it is asked once, and when that was is kept."""
    lost = "connection to postgresql://u:secret@host/db failed\nIs the server running?"
    database = _failing(tmp_path, fault(lost), server=True)
    before = database.failed
    with pytest.raises(Away) as error:
        database.once(_one)
    assert str(error.value) == (
        "s: the study's database does not answer: connection to postgresql://u:***@host/db failed\n"
        "  hint: see that its server runs, then start the same command again: it continues"
    )
    assert before == -float("inf") < database.failed and database.once(_one) == 1


def test_a_lock_of_a_server_is_no_absence(tmp_path: Path) -> None:
    """Somebody else is at it: asked again, and the server has answered."""
    database = _failing(tmp_path, *[fault("canceling statement due to lock timeout", "55P03")] * 2, server=True)
    assert database.run(_one) == 1 and database.failed == -float("inf")


def test_a_servers_clock_is_its_own() -> None:
    """Whatever the time is here."""
    now = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    result = SimpleNamespace(scalar_one=lambda: now)
    server = SimpleNamespace(dialect=SimpleNamespace(name="postgresql"), execute=lambda query: result)
    assert time_of(server) == now.timestamp()  # type: ignore[arg-type]
