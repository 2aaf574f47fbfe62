"""Timing: the one timer.  Between its two readings of the clocks stands exactly one line.

The CPU clock counts what this process and its finished children were given; neighbours on a shared machine
move it far less than they move the clock on the wall.  Standard library only: peers use it as well.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable


def clocked(line: Callable[[], object]) -> dict[str, float]:
    """Run ``line`` once; return the seconds it took as ``{"cpu": ..., "wall": ...}``."""
    gc.collect()
    gc.disable()
    cpu, wall = cpu_seconds(), time.perf_counter()
    line()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    gc.enable()
    return {"cpu": cpu, "wall": wall}


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_mb() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
