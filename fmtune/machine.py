"""Machine: the processors and the memory that this process may use."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil

# Of a control group: its limit and what is taken of it, in the second version and in the first.
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the bytes that are free to this process: of the machine, of its control groups, and of its own limits.

    Pages of files do not count as taken: the system drops them when memory is wanted.

    Parameters
    ----------
    root
        Where control groups are mounted.
    own
        Names those of this process.
    """
    free = [psutil.virtual_memory().available]
    for group in _groups(root, own):
        for limit, used in _FILES:
            try:
                most, now = int((group / limit).read_text()), int((group / used).read_text())
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such file, or "max"
                continue
            pages = (stat.get(f"total_{kind}_file", stat.get(f"{kind}_file", "0")) for kind in ("active", "inactive"))
            free.append(most - now + sum(map(int, pages)))
    mine = psutil.Process().memory_info()
    for kind, taken in ((resource.RLIMIT_AS, mine.vms), (resource.RLIMIT_DATA, getattr(mine, "data", mine.rss))):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            free.append(most - taken)
    return max(0, min(free))


def _groups(root: Path, own: Path) -> list[Path]:
    """Return the folders of this process's memory groups, and of those that they lie in."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / controllers
            inner = top / path.lstrip("/")
            found += [group for group in (inner, *inner.parents) if group.is_relative_to(top)]
    return found
