"""Files that are never half written: a temporary name in the same folder, synced, then renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from fmtune.errors import ResourceError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def atomic_write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all; folders on the way are made.

    Raises
    ------
    ResourceError
        The disk is full, or the place cannot be written; an old file of that name is still there.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), 0o666 & ~_umask())
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(error, path, len(content)) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises
    ------
    ResourceError
        The place cannot be written, or a file of that name is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"the folder cannot be made: {error.strerror or error}", where=str(error.filename or path),
            hint=_hint(error),
        ) from error  # fmt: skip


def unwritable(error: OSError, path: Path, size: int) -> ResourceError:
    """Return the error that says why ``path``, a file of ``size`` bytes, could not be written."""
    if error.errno in _FULL:
        what = f"no space left on the disk ({error.strerror}); {size / 1e6:.3g} MB are needed"
    else:
        what = f"cannot be written: {error.strerror or error}"
    return ResourceError(what, where=str(path), hint=_hint(error))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hint(error: OSError) -> str:
    if error.errno in _FULL:
        return "free some space and run the same command again; nothing was lost"
    return "check the folder and its permissions, or name another place"
