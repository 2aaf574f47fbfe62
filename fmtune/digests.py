"""Digests: SHA-256 of large arrays and files, by blocks, on all cores."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.machine import cores

BLOCK = 8 << 20
"""Bytes of a block."""


_known: dict[int, list[str]] = {}


def of_array(array: NDArray[Any]) -> list[str]:
    """Return the digests of a C-contiguous array's blocks, in hex; none for an empty array.

    Those of an array that cannot be written, as of a memory map, are remembered while it lives.
    """
    if id(array) in _known:
        return _known[id(array)]
    found = _of_array(array)
    if not array.flags.writeable:
        _known[id(array)] = found
        weakref.finalize(array, _known.pop, id(array), None)
    return found


def _of_array(array: NDArray[Any], size: int = BLOCK) -> list[str]:
    flat = array.reshape(-1).view(np.uint8)

    def one(at: int) -> str:
        return hashlib.sha256(flat[at : at + size].data).hexdigest()

    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(one, range(0, len(flat), size)))


def of_file(path: Path, size: int = BLOCK) -> list[str]:
    """Return the digests of a file's blocks of ``size`` bytes, in hex; none for an empty file."""

    def one(at: int) -> str:
        with path.open("rb") as stream:
            stream.seek(at)
            return hashlib.sha256(stream.read(size)).hexdigest()

    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(one, range(0, path.stat().st_size, size)))


def sealed(about: Mapping[str, Any]) -> bytes:
    """Return plain values as JSON, behind a line with its digest."""
    text = json.dumps(about).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def unsealed(path: Path) -> dict[str, Any] | None:
    """Return what ``sealed`` was given from a file, or None if that is not there or not whole."""
    try:
        seal, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    whole = hashlib.sha256(text).hexdigest().encode() == seal
    found: dict[str, Any] | None = json.loads(text) if whole else None
    return found


class Running:
    """Digests of the blocks of what comes in pieces; the same as those of it all at once."""

    def __init__(self, size: int = BLOCK) -> None:
        self._size, self._held, self._state = size, 0, hashlib.sha256()
        self._done: list[str] = []

    def add(self, content: memoryview) -> None:
        """Take the next bytes."""
        for piece in self._pieces(content):
            self._state.update(piece)
            self._held += len(piece)
            if self._held == self._size:
                self._close()

    def _pieces(self, content: memoryview) -> Iterator[memoryview]:
        at = 0
        while at < len(content):
            end = at + self._size - self._held
            yield content[at:end]
            at = end

    def _close(self) -> None:
        self._done.append(self._state.hexdigest())
        self._state, self._held = hashlib.sha256(), 0

    def blocks(self) -> list[str]:
        """Return the digests of all that was taken."""
        return [*self._done, self._state.hexdigest()] if self._held else list(self._done)
