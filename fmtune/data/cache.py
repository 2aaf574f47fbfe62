"""Cache: a channel's rows as they were read, kept on disk, and opened by memory map the next time.

Only channels of ``WORTH`` bytes and more are kept.  The cache lies in ``.fmtune-cache`` beside the first file, or where
that folder cannot be written, below the user's cache folder (``FMTUNE_CACHE_DIR``, ``XDG_CACHE_HOME``, ``~/.cache``).
``FMTUNE_DATA_CACHE=off`` does without.  The folder may be deleted at any time.

An entry is a folder: one file an array, and ``about.json``, whose first line is the SHA-256 of the rest.  It names
the source files with their sizes and times of change, and holds the SHA-256 of each block of each array.  An entry of
another version, of files that changed since, or with a bit flipped is made again.  It is written under another name
and then renamed, one process at a time; what a killed process leaves behind is never read, and goes with the next one.
Nothing waits for the disk: what a power cut tears is seen by its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np
from numpy.typing import NDArray

from fmtune import digests
from fmtune.data.canonical import DataWarning, warn
from fmtune.errors import ResourceError
from fmtune.files import atomic_write
from fmtune.kernels import user_cache
from fmtune.rows import DenseRows, Rows, SparseRows

VERSION = 1
WORTH = 64 << 20
"""Bytes of source files from which on a cache is kept."""
FOLDER = ".fmtune-cache"

_TYPES = {"indptr": np.int64, "indices": np.int32, "values": np.float32, "matrix": np.float32, "labels": np.float32,
          "weights": np.float32}  # fmt: skip


class _Mixed(Exception):
    """Dense rows stand beside sparse ones: everything is to be written as sparse."""


class Cache:
    """Where the rows of channels are kept.

    Parameters
    ----------
    environment
        The variables that say where, and whether at all.
    worth
        Bytes of source files from which on a channel is kept.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ, worth: int = WORTH) -> None:
        self._environment, self._worth = environment, worth

    def rows(self, files: Sequence[Path], key: Mapping[str, Any], read: Callable[[], Iterable[Rows]]) -> Rows | None:
        """Return a channel's rows mapped from the disk, written there first if need be; None where none are kept.

        Parameters
        ----------
        files
            The channel's files.
        key
            What else decides how they are read.
        read
            Gives the rows, block by block, and warns of what it puts right; called again where layouts are mixed.
        """
        place = self._place(files, key)
        if place is None:
            return None
        try:
            with filelock.FileLock(place.with_name(f"{place.name}.lock")):
                found = _opened(place, files)
                if found is None:
                    _write(place, files, read)
                    found = _opened(place, files)
        except (OSError, ResourceError) as error:
            what = error.what if isinstance(error, ResourceError) else error.strerror or str(error)
            warn(f"{files[0]}: no cache beside it ({what}); the data are read into memory")
            return None
        if found is None:
            warn(f"{files[0]}: it changes while it is read, or its cache does; the data are read into memory")
        return found

    def remembered(self, files: Sequence[Path], name: str, find: Callable[[], bool]) -> bool:
        """Return a fact about files, found at most once while they do not change."""
        place = self._place(files, {"fact": name})
        if place is None:
            return find()
        stamp, path = _stamp(files), place.with_suffix(".json")
        known = digests.unsealed(path)
        if known is None or known.get("files") != stamp:
            known = {"files": stamp, "fact": find()}
            with suppress(ResourceError):
                atomic_write(path, digests.sealed(known))
        return bool(known["fact"])

    def _place(self, files: Sequence[Path], key: Mapping[str, Any]) -> Path | None:
        """Return the entry's folder, in a folder that can be written, or None."""
        if self._environment.get("FMTUNE_DATA_CACHE", "").lower() in ("off", "0", "no", "false"):
            return None
        if sum(file.stat().st_size for file in files) < self._worth:
            return None
        home = files[0].absolute().parent
        names = [os.path.relpath(file.absolute(), home) for file in files]
        digest = hashlib.sha256(json.dumps([names, dict(key)]).encode()).hexdigest()[:16]
        places, user = [home / FOLDER], user_cache(self._environment)
        if user is not None:
            places.append(user / "fmtune" / "data" / hashlib.sha256(os.fsencode(home)).hexdigest()[:16])
        for folder in places:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError:
                continue
            if os.access(folder, os.W_OK):
                return folder / f"{files[0].name[:80]}.{digest}"
        return None


def _stamp(files: Sequence[Path]) -> list[list[int]]:
    """Return size and time of change of each file."""
    return [[state.st_size, state.st_mtime_ns] for state in (file.stat() for file in files)]


def _opened(place: Path, files: Sequence[Path]) -> Rows | None:
    """Return an entry's rows if it is whole and of these files as they are now, and warn as the reading did."""
    about = digests.unsealed(place / "about.json")
    if about is None or about.get("version") != VERSION or about["files"] != _stamp(files):
        return None
    arrays: dict[str, NDArray[Any]] = {}
    for name, (shape, blocks) in about["arrays"].items():
        path = place / name
        kind = np.dtype(_TYPES[name])
        if not path.is_file() or path.stat().st_size != kind.itemsize * int(np.prod(shape)):
            return None
        array = np.asarray(np.memmap(path, kind, "r", shape=tuple(shape))) if np.prod(shape) else np.zeros(shape, kind)
        if digests.of_array(array) != blocks:
            return None
        # Short beside the rest, and wanted by code that knows nothing of maps.
        arrays[name] = array.copy() if name in ("labels", "weights") else array
    for note in about["notes"]:
        warn(note)
    make: Callable[..., Rows] = DenseRows if about["layout"] == "dense" else SparseRows
    return make(**{"labels": None, "feature_dim": about["feature_dim"], **arrays})


def _write(place: Path, files: Sequence[Path], read: Callable[[], Iterable[Rows]]) -> None:
    """Make an entry anew."""
    part = place.with_name(f"{place.name}.part")
    stamp = _stamp(files)
    try:
        try:
            about, caught = _noted(part, read(), sparse=False)
        except _Mixed:
            about, caught = _noted(part, read(), sparse=True)
        notes = [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
        atomic_write(part / "about.json", digests.sealed({**about, "version": VERSION, "files": stamp, "notes": notes}))
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _noted(folder: Path, blocks: Iterable[Rows], *, sparse: bool) -> tuple[dict[str, Any], list[Any]]:
    """Write the arrays into a folder made anew; return what ``_written`` does, and the warnings on the way."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        return _written(folder, blocks, sparse), caught


def _written(folder: Path, blocks: Iterable[Rows], sparse: bool) -> dict[str, Any]:
    """Write the arrays of blocks one after the other; return what ``about.json`` says of them."""
    layout: str | None = None
    n, nnz, dim = 0, 0, 0
    with ExitStack() as opened:
        files: dict[str, _Growing] = {}

        def put(name: str, array: NDArray[Any]) -> None:
            if name not in files:
                files[name] = _Growing(opened.enter_context((folder / name).open("wb")))
            files[name].add(np.ascontiguousarray(array, _TYPES[name]))

        for block in blocks:
            if not block.n:
                continue
            rows = block.to_sparse() if sparse else block
            if layout not in (None, rows.layout):
                raise _Mixed
            layout = rows.layout
            if isinstance(rows, SparseRows):
                ends = rows.indptr - rows.indptr[0] + nnz
                put("indptr", ends if n == 0 else ends[1:])
                put("indices", rows.indices)
                put("values", rows.values)
                nnz += rows.nnz
            else:
                put("matrix", rows.matrix)
            for name in ("labels", "weights"):
                if (array := getattr(rows, name)) is not None:
                    put(name, array)
            n, dim = n + rows.n, max(dim, rows.feature_dim)
    shapes = {"indptr": [n + 1], "indices": [nnz], "values": [nnz], "matrix": [n, dim], "labels": [n], "weights": [n]}
    arrays = {name: [shapes[name], file.running.blocks()] for name, file in files.items()}
    return {"layout": layout, "feature_dim": dim, "arrays": arrays}


class _Growing:
    """A file that an array is appended to, with its digests."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.running = stream, digests.Running()

    def add(self, array: NDArray[Any]) -> None:
        content = memoryview(array.reshape(-1).view(np.uint8).data)
        self.stream.write(content)
        self.running.add(content)
