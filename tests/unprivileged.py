"""Unprivileged: a folder, and for a while a user without rights to what is closed in it; root is one otherwise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder that anybody may enter, and remove it with all that was closed in it."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        try:
            yield Path(made)
        finally:
            Path(made).chmod(0o755)


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user with no rights of its own, where this process may choose."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)
