"""Storage: a study's database, opened with care: a sqlite file, or a server that may go away for a while."""

from __future__ import annotations

import contextlib
import importlib
import random
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models

from fmtune.errors import StorageError
from fmtune.tune.workers import GRACE

# Seconds for which a busy sqlite file is asked again.
PATIENCE = 60.0

# Processes that make the tables of a new database at the same time stumble over each other; the next try finds them.
_TRIES = 20
_STUMBLES = ("already exists", "locked", "duplicate key", "UNIQUE constraint")

# A server that does not answer is known within seconds, and a worker that was cut off in mid-transaction holds its
# locks no longer than its trials.  Three connections at once are the most that a worker needs (its trials, a read
# among them, its heart), and one stays open.
_SERVER = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 4}
_POSTGRES = {
    "connect_timeout": 5, "tcp_user_timeout": 10_000, "keepalives_idle": 10, "keepalives_interval": 3,
    "keepalives_count": 3, "application_name": "fmtune",
}  # fmt: skip
_SESSION = {
    "lock_timeout": 5_000, "tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3,
}  # fmt: skip


Connect = Callable[..., RDBStorage]

_AUTHORITY = re.compile(r"(://[^:/@\s]*:)\S*@")
_QUERY = re.compile(r"([?&](?:password|passwd|pwd|sslpassword)=)[^&\s\"']*", re.IGNORECASE)


def redacted(url: str) -> str:
    """Return a storage URL, or a text that holds one, with passwords replaced by ``***``."""
    return _QUERY.sub(r"\1***", _AUTHORITY.sub(r"\1***@", url))


def warm() -> None:
    """Begin to import what Optuna imports when a database is opened, while others read the data."""
    threading.Thread(target=importlib.import_module, args=("alembic.command",), daemon=True).start()


def open_storage(url: str, grace: float = GRACE, connect: Connect = RDBStorage) -> RDBStorage:
    """Open a database by its SQLAlchemy URL; sqlite in WAL mode, every commit synced to the disk.

    ``grace`` is how many seconds a server lets a silent transaction live; ``connect`` makes Optuna's storage.

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
        storage = _opened(url, sqlite, grace, connect)
    except Exception as error:  # a driver's errors have no common base
        hint = _DAMAGED if sqlite else "check the address, the user and the password, and that the server runs"
        for cause in (error, error.__cause__):
            if isinstance(cause, ModuleNotFoundError):
                package = "'fmtune[postgres]'" if cause.name == "psycopg" else cause.name
                hint = f"the database's driver is not installed: pip install {package}"
        raise StorageError(_first_line(error, url), where=redacted(url), hint=hint) from error
    return storage


def _opened(url: str, sqlite: bool, grace: float, connect: Connect) -> RDBStorage:
    left = _TRIES
    while True:
        try:
            storage = connect(url, engine_kwargs=_engine(url, sqlite, grace))
            if sqlite:
                storage.engine.dispose()
                sa.event.listen(storage.engine, "connect", _careful)
                storage.engine.connect().close()
            return storage
        except (sa.exc.DBAPIError, StorageInternalError) as error:
            left -= 1
            if not left or not any(word in f"{error} {error.__cause__}" for word in _STUMBLES):
                raise
            time.sleep(random.uniform(0.05, 0.3))


def _engine(url: str, sqlite: bool, grace: float) -> dict[str, Any]:
    if sqlite:
        return {"connect_args": {"timeout": PATIENCE}}
    asked = sa.make_url(url)
    if asked.get_backend_name() != "postgresql":
        return _SERVER
    session = {**_SESSION, "idle_in_transaction_session_timeout": round(1000 * grace)}
    given = {**_POSTGRES, "options": " ".join(f"-c {name}={value}" for name, value in session.items())}
    return {**_SERVER, "connect_args": {k: v for k, v in given.items() if k not in asked.query}}


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
    with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
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
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={int(PATIENCE * 1000)}"):
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


def sqlite_url(folder: Path) -> str:
    """Return the default storage's URL: one sqlite file in the study's own folder."""
    return f"sqlite:///{folder / 'study.db'}"
