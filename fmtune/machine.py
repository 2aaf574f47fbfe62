"""Machine: the processors and the memory that this process may use."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil

_GROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that are free to this process: of the machine, of its container, and of its own limits.

    Pages of files do not count as taken: the system drops them when memory is wanted.
    """
    free = [psutil.virtual_memory().available]
    for limit, used in _GROUPS:
        try:
            most, now = int((groups / limit).read_text()), int((groups / used).read_text())
            lines = (groups / used).parent.joinpath("memory.stat").read_text().splitlines()
            stat = dict(line.split() for line in lines)
        except (OSError, ValueError):  # no such group, or "max"
            continue
        pages = (stat.get(f"total_{kind}_file", stat.get(f"{kind}_file", "0")) for kind in ("active", "inactive"))
        free.append(most - now + sum(map(int, pages)))
    mine = psutil.Process().memory_info()
    for kind, taken in ((resource.RLIMIT_AS, mine.vms), (resource.RLIMIT_DATA, getattr(mine, "data", mine.rss))):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            free.append(most - taken)
    return max(0, min(free))
