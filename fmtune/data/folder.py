"""Folder: the files below it, however deep, as Amazon S3 and Spark know what is below a prefix."""

from __future__ import annotations

import os
from pathlib import Path

from fmtune.errors import ResourceError


def files_below(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted; what begins with ``.`` or ``_``, as Spark's own files, is left out.

    Linked folders are read too, each folder once.  Pipes are files here.

    Raises
    ------
    ResourceError
        A folder may not be read.
    """
    found: list[Path] = []
    seen = {folder.resolve()}
    for above, names, files in os.walk(folder, onerror=_refuse, followlinks=True):
        inner = {Path(above, name).resolve(): name for name in sorted(names, reverse=True) if name[0] not in "._"}
        names[:] = [name for place, name in inner.items() if place not in seen]
        seen |= inner.keys()
        found += [Path(above, name) for name in files if name[0] not in "._"]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise ResourceError(
        f"the folder may not be read: {error.strerror}", where=str(error.filename), hint="check its permissions"
    ) from error
