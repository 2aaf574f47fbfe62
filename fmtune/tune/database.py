"""Database: a study's, asked again while it is busy or absent; its errors become ours.

A sqlite file may be locked for a while, a server may go away and come back.  How long that is waited for is the
caller's to say.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from fmtune.errors import ResourceError, StorageError
from fmtune.tune.places import redacted
from fmtune.tune.storage import PATIENCE

# InternalError: PostgreSQL has ended a transaction that was silent for too long, as of a process that slept.
_FAULTS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)

# PostgreSQL's word for a lock that was waited for too long: the server is there, and somebody else is at it.
_BUSY = "55P03"

T = TypeVar("T")


class Away(StorageError):
    """The database's server cannot be reached now; it may be back later."""


class Database:
    """Transactions on an open database.

    Parameters
    ----------
    storage
        An open database.
    name
        The study, for messages.

    Attributes
    ----------
    failed : float
        When its server did not answer the last time, on the monotonic clock; minus infinity if never.
    """

    def __init__(self, storage: RDBStorage, name: str) -> None:
        self._storage, self._name = storage, name
        self.failed = -float("inf")

    @property
    def _sqlite(self) -> bool:
        return self._storage.engine.dialect.name == "sqlite"

    def run(self, work: Callable[[sa.Connection], T], patience: float = PATIENCE) -> T:
        """Run one transaction; a busy or absent database is asked again for ``patience`` seconds."""

        def transaction() -> T:
            with self._storage.engine.begin() as connection:
                return work(connection)

        return self.surely(transaction, patience)

    def surely(self, work: Callable[[], T], patience: float = PATIENCE) -> T:
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

    def once(self, work: Callable[[sa.Connection], T]) -> T:
        """Run one transaction; raises :class:`Away` at once when a server cannot be reached."""
        return self.run(work, PATIENCE if self._sqlite else 0.0)

    def _failure(self, error: Exception) -> tuple[ResourceError | StorageError, bool]:
        """Return an error in our words, and whether it may pass."""
        # Optuna wraps the driver's error twice, SQLAlchemy once.
        inner = (error.__cause__ if isinstance(error, StorageInternalError) else None) or error
        orig = getattr(inner, "orig", None)
        text = redacted(str(orig or inner.__cause__ or inner))[:200]
        if "disk is full" in text:
            return ResourceError(
                "no space left on the disk for the study's database", where=self._name,
                hint="free some space and run the same command again: finished trials are kept",
            ), False  # fmt: skip
        if "readonly" in text:
            return ResourceError(
                f"the study's database cannot be written: {text}", where=self._name,
                hint="check the permissions of its file and its folder",
            ), False  # fmt: skip
        if self._sqlite:
            return StorageError(
                f"the study's database cannot be written: {text}", where=self._name,
                hint="free the disk or the lock, then run the same command again: it continues",
            ), "locked" in text  # fmt: skip
        if getattr(orig, "sqlstate", None) != _BUSY:
            self.failed = time.monotonic()
        return Away(
            f"the study's database does not answer: {text.splitlines()[0]}", where=self._name,
            hint="see that its server runs, then start the same command again: it continues",
        ), True  # fmt: skip


def time_of(c: sa.Connection) -> float:
    """Return the database's time in seconds; sqlite's is this machine's."""
    if c.dialect.name == "sqlite":
        return time.time()
    now: datetime = c.execute(sa.select(sa.func.current_timestamp())).scalar_one()
    return now.timestamp()
