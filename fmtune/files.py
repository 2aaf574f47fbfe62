"""Files that are never half written: a temporary name in the same folder, synced, then renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fmtune.errors import ResourceError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def atomic_write(path: Path, content: bytes, sync: bool = True) -> None:
    """Write ``content`` to ``path``; as in ``atomic_stream``."""
    with atomic_stream(path, len(content), sync) as stream:
        stream.write(content)


@contextmanager
def atomic_stream(path: Path, size: int | None = None, sync: bool = True) -> Iterator[BinaryIO]:
    """Give a stream whose bytes are at ``path`` when it ends well, whole or not at all; folders on the way are made.

    ``size`` is how many bytes are to be written, where that is known.  Without ``sync`` it takes a hundredth of the
    time, and what the machine had not yet put on its disk when its power went is lost.

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
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), 0o666 & ~_umask())
            if sync:
                os.fsync(stream.fileno())
        Path(temporary).replace(path)
        temporary = None
        if sync:
            _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(error, path, size) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def appear(
    path: Path, make: Callable[[Path], object], link: Callable[[Path, Path], object] = os.link
) -> None:  # fmt: skip
    """Have a file appear at ``path`` whole, unless there is one by then: ``make`` writes it elsewhere in the folder.

    ``link`` gives a file a second name, and fails where the file system has no such thing: there it is renamed.

    Raises
    ------
    ResourceError
        The disk is full, or the place cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent) as folder:
            made = Path(folder) / path.name
            make(made)
            try:
                link(made, path)
            except FileExistsError:
                return
            except OSError:
                made.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(error, path, None) from error


def foresee(path: Path, access: Callable[..., bool] = os.access) -> None:
    """Refuse a place that cannot be written, before the work whose end is written there; ``access`` says who may.

    Raises
    ------
    ResourceError
        A folder is there, a file stands in the way, or its folder may not be written.
    """
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    code = 0
    if path.is_dir():
        code = errno.EISDIR
    elif not nearest.is_dir():
        code = errno.ENOTDIR
    elif not access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        code = errno.EACCES
    if code:
        raise unwritable(OSError(code, os.strerror(code)), path, None)


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


def unwritable(error: OSError, path: Path, size: int | None) -> ResourceError:
    """Return the error that says why ``path``, a file of ``size`` bytes if that is known, could not be written."""
    if error.errno in _FULL:
        needed = "" if size is None else f"; {size / 1e6:.3g} MB are needed"
        what = f"no space left on the disk ({error.strerror}){needed}"
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
