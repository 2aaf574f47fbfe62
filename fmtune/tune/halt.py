"""Halt: the signals that ask a run to stop: the first at a safe point, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Halt:
    """What has come so far.

    Attributes
    ----------
    signal : int or None
        The first that came.
    """

    signal: int | None = None

    def asked(self) -> bool:
        """Whether one came."""
        return self.signal is not None

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Heed SIGINT, SIGTERM and SIGHUP meanwhile, where this is the main thread: others are not told of signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _: Any) -> None:
            if self.asked():
                os._exit(128 + number)
            self.signal = number

        # One that is ignored stays so: nohup asks for that.
        wanted = (s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN)
        before = {s: signal.signal(s, note) for s in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
