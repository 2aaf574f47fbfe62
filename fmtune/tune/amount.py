"""Amount: memory as people write it, ``4GiB`` or ``500MB``, and as messages say it."""

from __future__ import annotations

import re
from typing import Any

from fmtune.errors import UsageError
from fmtune.tune.places import shown
from fmtune.tune.yamlfile import unquoted

PATTERN = r"(\d+(?:\.\d+)?) ?([kKMGT])(i?)B"
LEAST, MOST = 2**20, 2**63
"""What is less is a slip of the unit, what is more does not exist."""

_HINT = "write 4GiB, 500MB, or a number of bytes"


def amount(value: Any) -> int:
    """Return an amount of memory in bytes, given as ``4GiB``, ``500MB``, or a number of bytes.

    Raises
    ------
    UsageError
        It is no amount, or less than a mebibyte.
    """
    number = value
    if isinstance(value, str) and (match := re.fullmatch(PATTERN, value)):
        number = float(match[1]) * (1024 if match[3] else 1000) ** ("KMGT".index(match[2].upper()) + 1)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UsageError(f"memory must be an amount, not {shown(value)}", hint=unquoted(value) or _HINT)
    if not LEAST <= number < MOST:
        raise UsageError(f"memory must be at least 1MiB and below 8EiB, not {shown(value)}", hint=_HINT)
    return int(number)


def size(number: float) -> str:
    """Return bytes as ``1.5 GiB``, or as MiB where they are fewer than a GiB."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
