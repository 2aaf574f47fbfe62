"""Silence: how long a pack's training has made no step, so that one that hangs is told from one that is slow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

# Seconds that one look counts at most.  Whoever looks does so several times a second, unless the process was stopped,
# the machine slept, or a reader of its output made it wait: then training had no time either, or it was not looked at.
_LOOK = 1.0


class Silence:
    """One pack's: its own thread gives signs, another one looks.

    Parameters
    ----------
    limit
        Seconds without a sign after which it hangs; None is for ever.
    now
        The clock.
    """

    def __init__(self, limit: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._now = math.inf if limit is None else limit, now
        self._signs = self._seen = 0
        self._lasted, self._looked = 0.0, now()

    def sign(self) -> None:
        """Say that a step was made."""
        self._signs += 1

    def hangs(self) -> bool:
        """Look: whether there was no sign for too long."""
        before, self._looked = self._looked, self._now()
        if self._signs != self._seen:
            self._seen, self._lasted = self._signs, 0.0
        else:
            self._lasted += min(self._looked - before, _LOOK)
        return self._lasted > self._limit
