"""Machine: the processors, the memory and the disks that this process may use."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

# Of a control group: its limit and what is taken of it, in the second version and in the first.
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))

NETWORK = frozenset((
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "afpfs", "webdav", "ceph", "lustre", "gpfs", "beegfs", "glusterfs",
    "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "fuse.mount-s3",
))  # fmt: skip
"""File systems of other machines, as the system names them."""


class Mount(NamedTuple):
    """A folder that a file system is mounted at, and the system's name."""

    place: str
    kind: str


Mounts = Callable[[], Iterable[Mount]]


def mounted() -> Iterable[Mount]:
    """Return what is mounted here."""
    return [Mount(one.mountpoint, one.fstype) for one in psutil.disk_partitions(all=True)]


def file_system(path: Path, mounts: Mounts = mounted) -> str:
    """Return the name of the file system that holds a path, which need not be there; empty where it is not known."""
    place = path.resolve()
    holding = [mount for mount in mounts() if place.is_relative_to(mount.place)]
    # Of several at one place the last one is seen.
    return sorted(holding, key=lambda mount: len(mount.place))[-1].kind if holding else ""


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(count: int, name: str = "") -> Iterator[ThreadPoolExecutor]:
    """Lend a pool of threads and do not wait for it at the end: what runs ends by itself, what waits is dropped.

    Generators need one that does so.  One that is left halfway is closed by the garbage collector, on any line of any
    thread, also one of the pool's own or one that holds the interpreter's lock of threads: waiting there never ends.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


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
