"""Shelf: the folder of this machine where downloaded files of dataset cards lie; what is missing is fetched.

``FMTUNE_DATA_DIR`` names it; otherwise it is ``datasets`` in fmtune's folder of the user's cache.  A file is
checked against its card each time it is read: a damaged one is fetched again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import filelock
import platformdirs

from fmtune.data.download import File, Progress, download
from fmtune.errors import DataError, FmtuneError, ResourceError
from fmtune.files import atomic_write, make_folder


def folder() -> Path:
    """Return the shelf's folder."""
    named = os.environ.get("FMTUNE_DATA_DIR")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("fmtune") / "datasets"


def bring(card: str, files: Sequence[File], home: Path, progress: Progress, *, pause: float = 1.0) -> dict[str, bytes]:
    """Return the content of a card's files by name; what is not on the shelf ``home / card`` is downloaded.

    Raises
    ------
    DataError, ResourceError
        A file cannot be had; the text says what to download by hand and where to name it.
    """
    place = home / card
    found = {file.name: _right(place / file.name, file) for file in files}
    missing = [file for file in files if found[file.name] is None]
    if missing:
        make_folder(place)
        # Another process may be at it: wait for it, and look again.
        with filelock.FileLock(place / ".lock"):
            for file in missing:
                target = place / file.name
                if _right(target, file) is None:
                    try:
                        download(file, target, progress, pause=pause)
                    except FmtuneError as error:
                        error.hint = _by_hand(card, file)
                        raise
                found[file.name] = target.read_bytes()
    return {name: content for name, content in found.items() if content is not None}


def take(card: str, files: Sequence[File], home: Path, source: Path) -> dict[str, str]:
    """Copy a card's files to the shelf from a file, or from a folder that holds some of them.

    Returns
    -------
    dict
        ``copied``, ``there`` or ``missing`` for each of the card's files.

    Raises
    ------
    DataError
        Nothing there is a file of the card, or one has its name and another content.
    """
    if not source.exists():
        raise DataError("no such file or folder", where=str(source), hint="check the path")
    given = [source / file.name for file in files] if source.is_dir() else [source]
    taken = {}
    for path in given:
        content = _read(path) if path.exists() else None
        file = next((file for file in files if content is not None and file.is_right(content)), None)
        if file is not None and content is not None:
            atomic_write(home / card / file.name, content)
            taken[file.name] = "copied"
        elif content is not None:
            raise DataError(
                f"it is not the file of the card {card}: its SHA-256 is another one", where=str(path),
                hint=_by_hand(card, next((file for file in files if file.name == path.name), files[0])),
            )  # fmt: skip
    if not taken:
        names = ", ".join(file.name for file in files)
        raise DataError(f"it holds no file of the card {card}", where=str(source), hint=f"the files are {names}")
    there = {file.name: "missing" if _right(home / card / file.name, file) is None else "there" for file in files}
    return {**there, **taken}


def _right(path: Path, file: File) -> bytes | None:
    """Return a file's content if it is there and is the one that the card describes."""
    if not path.is_file() or path.stat().st_size != file.size:
        return None
    content = _read(path)
    return content if file.is_right(content) else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResourceError(
            f"the file cannot be read: {error.strerror}", where=str(path), hint="check the path and its permissions"
        ) from error


def _by_hand(card: str, file: File) -> str:
    return f"download {file.urls[0]} by hand, then: fmtune data get {card} --from {file.name}"
