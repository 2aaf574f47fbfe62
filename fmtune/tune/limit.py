"""Limit: a study's ``timeout``, which counts while the search trains and at no other time.

Downloads and the compilation of kernels take none of it: how many trials fit does not depend on whether the
machine has run a study before.  Cells that replay the search take none either: what they are there for is the
comparison, which needs every trial that the search has ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Limit:
    """How long a search may train in one run.

    Parameters
    ----------
    seconds
        None is for ever.
    now
        The clock.
    """

    def __init__(self, seconds: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._left, self._now = math.inf if seconds is None else seconds, now
        self._began: float | None = None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the time inside."""
        self._began = self._now()
        try:
            yield
        finally:
            self._left -= self._now() - self._began
            self._began = None

    def over(self) -> bool:
        """Whether it is used up."""
        return self._left < (0.0 if self._began is None else self._now() - self._began)
