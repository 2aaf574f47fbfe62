"""Processes that tests start, none of which holds a test for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import Any

SECONDS = 120.0
"""What a process may take."""


class Limited(subprocess.Popen[str]):
    """A process that is killed after two minutes: whatever reads from it or waits for it then goes on.

    Where it leads a session, all of that are.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._late, self._leads = threading.Timer(SECONDS, self._end), options.get("start_new_session", False)
        super().__init__(*args, text=True, **options)
        self._late.daemon = True
        self._late.start()

    def _end(self) -> None:
        if self.returncode is None:
            os.killpg(self.pid, signal.SIGKILL) if self._leads else self.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        code = super().wait(timeout)
        self._late.cancel()
        return code
