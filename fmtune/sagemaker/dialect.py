"""Dialect: what SageMaker says and a study cannot, in words; it is never dropped in silence.

It becomes a comment in the study file and a ``DialectWarning``.
"""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

from fmtune.errors import UsageError

_LONG = 4000  # a command that names a key of S3 twice is long, and of no use when it is cut


class DialectWarning(UserWarning):
    """Something was not taken over as it was; the text says what became of it."""


class Notes:
    """Comments of the study file, by the key that they stand above; each is a warning too, unless it is harmless."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[str]] = {}

    def add(self, key: str, text: str, harmless: bool = False) -> None:
        """Put a comment above a key of the file, or above the first where the key is empty."""
        words = plain(text, _LONG)
        self.by_key.setdefault(key, []).append(words)
        if not harmless:
            warnings.warn(words, DialectWarning, stacklevel=2)


def plain(text: str, most: int = 300) -> str:
    """Return a text as one printable line of bounded length."""
    return "".join(c if c.isprintable() else " " for c in text)[:most]


def brief(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else f"{text[:200]}..."


def scalar(value: Any) -> str:
    """Return a value as the study file has it."""
    return json.dumps(value)


def number(name: str, value: Any) -> float:
    """Return the number that a text stands for.

    Raises
    ------
    UsageError
        It is none, or not finite.
    """
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"{name}: {plain(repr(value))} is not a number")
    return found
