"""Storage: a study's database, opened with care: a sqlite file, or a server that may go away for a while."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models

from fmtune.errors import FmtuneError, ResourceError, StorageError
from fmtune.files import appear
from fmtune.machine import NETWORK, Mounts, file_system, mounted
from fmtune.tune.places import ambiguous, redacted
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


# Drivers whose package is called otherwise.
_PACKAGES = {"psycopg": "'fmtune[postgres]'", "MySQLdb": "mysqlclient"}
_KINDS = "use sqlite:////FOLDER/FILE.db or postgresql+psycopg://HOST/NAME; Optuna's journals and gRPC are not read"

Connect = Callable[..., RDBStorage]

# What a database need not be looked at for that was just made.
_WHOLE: dict[str, Any] = {"skip_compatibility_check": True, "skip_table_creation": True}


def warm(*also: Callable[[], object]) -> None:
    """Begin to import what Optuna imports when a database is opened, and do ``also``, while others read the data."""
    ahead: list[Callable[[], object]] = [*also, partial(importlib.import_module, "alembic.command")]

    def work() -> None:
        for one in ahead:
            one()

    threading.Thread(target=work, daemon=True).start()


def open_storage(
    url: str, grace: float = GRACE, connect: Connect = RDBStorage, mounts: Mounts = mounted
) -> RDBStorage:  # fmt: skip
    """Open a database by its SQLAlchemy URL; sqlite in WAL mode, every commit synced to the disk.

    ``grace`` is how many seconds a server lets a silent transaction live; ``connect`` makes Optuna's storage;
    ``mounts`` says what is mounted here.

    Raises
    ------
    StorageError
        It cannot be opened, is damaged, lies on a network file system, or another version of Optuna wrote it.
    ResourceError
        A sqlite file, or its folder, may not be read or written.
    """
    sqlite = url.startswith("sqlite")
    try:
        if not sqlite and (wrong := ambiguous(url)):
            raise ValueError(wrong)
        if sqlite:
            _inspect(url, mounts)
        made = sqlite and _made(sa.make_url(url), connect)
        storage = _opened(url, sqlite, grace, partial(connect, **_WHOLE) if made else connect)
    except FmtuneError:
        raise
    except Exception as error:  # a driver's errors have no common base
        hint = _DAMAGED if sqlite else "check the address, the user and the password, and that the server runs"
        if "disk is full" in f"{error} {error.__cause__}":
            hint = "free some space and run the same command again: finished trials are kept"
            raise _refused(url, "no space left on the disk", hint, ResourceError) from error
        if isinstance(error, sa.exc.NoSuchModuleError):
            what = f"{url.partition(':')[0]!r} is no kind of database that SQLAlchemy knows"
            raise _refused(url, what, _KINDS) from error
        for words, (age, step) in _AGES.items():
            if isinstance(error, RuntimeError) and words in str(error):
                raise _refused(url, f"{age} version of Optuna made its tables", step) from error
        for cause in (error, error.__cause__):
            if isinstance(cause, ModuleNotFoundError):
                package = _PACKAGES.get(str(cause.name), cause.name)
                hint = f"the database's driver is not installed: pip install {package}"
        raise StorageError(_first_line(error, url), where=redacted(url), hint=hint) from error
    return storage


def open_to_read(url: str) -> RDBStorage:
    """Open a database as :func:`open_storage` does; a sqlite file that may not be written only to be read.

    Raises
    ------
    StorageError, ResourceError
        As of :func:`open_storage`.
    """
    asked = sa.make_url(url)
    path = Path(asked.database or "") if asked.get_backend_name() == "sqlite" and not asked.query else None
    if path is None or not path.is_file() or _writable(path) or not _may(path, os.R_OK):
        return open_storage(url)
    if (rest := path.with_name(f"{path.name}-wal")).exists() and rest.stat().st_size:
        what = f"it may not be written, and {rest.name} beside it holds changes that have to be written into it"
        raise _refused(url, f"{what}: permission denied", "copy the whole folder to a place of your own", ResourceError)
    # Nobody writes there: without that word sqlite would make files beside it.
    query = {"mode": "ro", "immutable": "1", "uri": "true"}
    still = asked.set(database=f"file:{quote(str(path.resolve()))}", query=query)
    try:
        storage = RDBStorage(still.render_as_string(), **_WHOLE)
        storage.get_all_studies()
    except Exception as error:  # as above
        raise StorageError(_first_line(error, url), where=redacted(url), hint="check the file") from error
    return storage


def _writable(path: Path) -> bool:
    return _may(path, os.W_OK) and _may(path.parent, os.W_OK | os.X_OK)


def _made(url: sa.URL, connect: Connect) -> bool:
    """Have a new sqlite file appear with all it needs; whether there was none.

    Optuna makes its tables and indices one by one, and never mends what lacks an index: there a name may stand for
    several studies.
    """
    assert url.database is not None
    path = Path(url.database)
    if path.exists() or url.query:
        return False

    def tables(part: Path) -> None:
        connect(url.set(database=str(part)).render_as_string(hide_password=False)).engine.dispose()

    appear(path, tables)
    return True


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


# What Optuna advises about tables that it does not know, and what that means here.
_AGES = {
    "updating optuna": ("a newer", "update Optuna: pip install -U optuna"),
    "storage upgrade": ("an older", "copy the database, then: optuna storage upgrade --storage URL"),
}


def _refused(
    url: str, what: str, hint: str, kind: type[StorageError | ResourceError] = StorageError
) -> StorageError | ResourceError:
    return kind(f"cannot be opened: {what}", where=redacted(url), hint=hint)


def _inspect(url: str, mounts: Mounts) -> None:
    """Refuse a sqlite file that cannot be kept safe where it lies, is damaged, or lacks what it must have."""
    asked = sa.make_url(url)
    if asked.host:
        raise _refused(url, "a sqlite URL names no host", "write sqlite:////FOLDER/FILE.db")
    if not asked.database or asked.database == ":memory:":
        raise _refused(url, "a database in memory keeps nothing", "name a file, or leave storage out")
    path = Path(asked.database)
    _check_place(url, path, mounts)
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


def _check_place(url: str, path: Path, mounts: Mounts) -> None:
    """Refuse a place that cannot be used: absent, forbidden, or without locks and memory that processes share."""
    if not path.parent.is_dir():
        raise _refused(url, f"there is no folder {str(path.parent)!r}", "make the folder, or name another")
    if (kind := file_system(path, mounts)) in NETWORK:
        what = f"it lies on a network file system ({kind}), whose locks sqlite cannot trust"
        raise _refused(url, what, "name a local file, `storage: sqlite:////FOLDER/FILE.db`, or a server's database")
    what = ""
    if path.exists() and not _may(path, os.R_OK):
        what = "its file may not be read"
    # sqlite writes beside a file that it may write, even to read it.
    elif (not path.exists() or _may(path, os.W_OK)) and not _may(path.parent, os.W_OK | os.X_OK):
        what = "its folder may not be written"
    if what:
        hint = "check the permissions, or name another place"
        raise _refused(url, f"{what}: permission denied", hint, ResourceError)


def _may(path: Path, wanted: int) -> bool:
    return os.access(path, wanted, effective_ids=os.access in os.supports_effective_ids)


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
