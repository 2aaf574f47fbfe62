"""Folder: a study's own folder, held by those that run the study, and set aside to start anew."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fmtune.errors import StorageError


def folder_of(study_name: str, root: Path | None = None) -> Path:
    """Return the study's own folder, ``runs/<study_name>`` under the current one."""
    return (root or Path.cwd()) / "runs" / study_name


@contextmanager
def shared(folder: Path) -> Iterator[float | None]:
    """Hold the study's folder with those that run the study; yields when nobody else did, None if somebody does.

    Raises
    ------
    StorageError
        Somebody holds it for himself.
    """
    with _lock(folder) as lock:
        alone = time.time() if _flock(lock, fcntl.LOCK_EX) else None
        if not _flock(lock, fcntl.LOCK_SH):
            raise _held(folder)
        yield alone


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the study's folder while nobody runs the study.

    Raises
    ------
    StorageError
        Somebody does.
    """
    with _lock(folder) as lock:
        if not _flock(lock, fcntl.LOCK_EX):
            raise _held(folder)
        yield


def _lock(folder: Path) -> IO[str]:
    return (folder.parent / f".{folder.name}.lock").open("a")


def _held(folder: Path) -> StorageError:
    what = f"study {folder.name!r} is being run by another process"
    return StorageError(what, where=str(folder), hint="wait for it, or stop it")


def _flock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def set_aside(folder: Path) -> None:
    """Move a study's folder to ``<folder>.old``, over an older one, and leave an empty one."""
    if not any(folder.iterdir()):
        return
    old = folder.with_name(folder.name + ".old")
    if old.exists():
        for file in sorted(old.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        old.rmdir()
    folder.rename(old)
    folder.mkdir()
