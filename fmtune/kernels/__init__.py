"""Kernels: compiled functions over arrays, and nothing else.

numba looks for a compiled kernel by the time stamp of the kernel's own file; after an edit in another
file it would load the old result.  So the cache folder carries a digest of every file in this room.
numba's own setting is put back afterwards: a user's kernels stay where they were.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numba
from numba.core import config


def _digest() -> str:
    """Return the SHA-256 of numba's version and every file of this room."""
    digest = hashlib.sha256(numba.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


DIGEST = _digest()


def user_cache(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the user's cache folder; None for a user without a home, such as a container's bare number."""
    named = environment.get("FMTUNE_CACHE_DIR") or environment.get("XDG_CACHE_HOME")
    try:
        return Path(named) if named else Path.home() / ".cache"
    except RuntimeError:
        return None


def _cache_folder() -> str | None:
    """Return a folder that only this user can write (numba's index files are pickles), or None."""
    base, shared = user_cache(), Path(tempfile.gettempdir()) / f"fmtune-{os.getuid()}"
    for root in (shared,) if base is None else (base / "fmtune", shared):
        folder = root / f"kernels-{DIGEST[:16]}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = folder.stat()
        except OSError:
            continue
        if state.st_uid == os.getuid() and not state.st_mode & 0o022 and os.access(folder, os.W_OK):
            return str(folder)
    return None


CACHE = _cache_folder()
_before = config.CACHE_DIR
config.CACHE_DIR = CACHE or _before
try:
    from fmtune.kernels import (
        columns,
        cpu_dense,
        cpu_halves,
        cpu_product,
        cpu_sparse,
        exchange,
        frames,
        losses,
        plain,
        prefetch,
        random,
        records,
        rules,
        simd,
        sparse_batches,
        steps,
        text,
        tiles,
        wire,
    )
finally:
    config.CACHE_DIR = _before

__all__ = [
    "CACHE", "DIGEST", "columns", "cpu_dense", "cpu_halves", "cpu_product", "cpu_sparse", "exchange", "frames",
    "losses", "plain", "prefetch", "random", "records", "rules", "simd", "sparse_batches", "steps",
    "text", "tiles", "user_cache", "wire",
]  # fmt: skip
