"""Index: the SHA-256 of a file's blocks, in a hidden file beside it, and checked whenever that file is read.

RecordIO has no checksum, nor has text: a flipped bit often gives other numbers that are as good.  ``train.pbr`` has
its index in ``.train.pbr.index``.
"""

from __future__ import annotations

from pathlib import Path

from fmtune import digests
from fmtune.errors import DataError
from fmtune.files import atomic_write

VERSION = 1
BLOCK = 1 << 20
"""Bytes of a block."""

_AGAIN = "restore the file; or, if the change is meant, run fmtune data index again"


def index_of(path: Path) -> Path:
    """Return where the index of a file lies."""
    return path.with_name(f".{path.name}.index")


def write_index(path: Path) -> Path:
    """Write the index of a file as it stands; return where.

    Raises
    ------
    ResourceError
        The folder cannot be written.
    """
    about = {"version": VERSION, "bytes": path.stat().st_size, "block": BLOCK, "blocks": digests.of_file(path, BLOCK)}
    atomic_write(index_of(path), digests.sealed(about))
    return index_of(path)


def check_index(path: Path) -> bool:
    """Say whether a file has an index; the file is then what it was when that was written.

    Raises
    ------
    DataError
        The file is not what its index says, or the index is damaged.
    """
    place = index_of(path)
    if not place.is_file():
        return False
    about = digests.unsealed(place)
    if about is None or about.get("version") != VERSION:
        raise DataError("the index is damaged, or of another version", where=str(place),
                        hint="check the file, then run fmtune data index again")  # fmt: skip
    size = path.stat().st_size
    if size != about["bytes"]:
        raise DataError(f"the file has {size} bytes, and had {about['bytes']} when it was indexed", where=str(path),
                        hint=_AGAIN)  # fmt: skip
    for k, (now, then) in enumerate(zip(digests.of_file(path, about["block"]), about["blocks"], strict=True)):
        if now != then:
            last = min(size, (k + 1) * about["block"]) - 1
            raise DataError("the data changed since they were indexed",
                            where=f"{path}: bytes {k * about['block']} to {last}", hint=_AGAIN)  # fmt: skip
    return True
