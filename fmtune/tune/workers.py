"""Workers: the processes that run a study's trials: who each one is, that it lives, and when it is dead.

A worker writes one row every few seconds, its beat, in the time of the database's own clock.  The beat speaks for
all trials that the worker holds.  Optuna's own heartbeat does not cover trials that were asked for one by one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from fmtune.errors import FmtuneError

# Without a beat for so many seconds a worker is dead; a study file's ``grace`` says otherwise.
GRACE = 30.0

# Beats in a grace: some may be lost on the way.
BEATS = 6

_CLOCK = 5.0

Owner = dict[str, Any]


def owner() -> Owner:
    """Return who this process is, so that a dead one is known from a new one of its number.

    ``host`` is the machine's name, ``pid`` and ``started`` the process, ``space`` what the number counts in: the
    start of the machine and the container; ``run`` and ``since`` tell runs of one process apart.
    """
    return {
        "pid": os.getpid(), "started": psutil.Process().create_time(), "host": os.uname().nodename, "space": _space(),
        "run": secrets.token_hex(4), "since": time.time(),
    }  # fmt: skip


def gone(who: Any) -> bool:
    """Whether a process of this machine is known to have ended; False for another machine's."""
    if not isinstance(who, dict) or (who.get("host"), who.get("space")) != (os.uname().nodename, _space()):
        return False
    try:
        # The start is told by the clock, which may have been set in between.
        return bool(abs(psutil.Process(who["pid"]).create_time() - who["started"]) > _CLOCK)
    except (psutil.Error, KeyError, ValueError, TypeError):
        return True


def name_of(who: Owner) -> str:
    """Return a worker's name, for people and as a key."""
    return f"{who['host']}:{who['pid']}:{who['run']}"


def text_of(who: Any) -> str:
    """Return an owner as one text, to be compared and counted by."""
    return json.dumps(who, sort_keys=True)


def _space() -> str:
    """Return what process numbers are counted in: this start of the machine, and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{psutil.boot_time():.0f}"


@contextlib.contextmanager
def beating(beat: Callable[[], None], grace: float) -> Iterator[None]:
    """Call ``beat`` now and some times a grace, in a thread; a database that is away, or a full disk, misses some."""
    ended = threading.Event()

    def go() -> None:
        while not ended.wait(grace / BEATS):
            with contextlib.suppress(FmtuneError):
                beat()

    beat()
    thread = threading.Thread(target=go, name="heart", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=1.0)
