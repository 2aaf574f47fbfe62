"""What this process may use: of a machine whose control groups are files here."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fmtune.machine import NETWORK, Mount, cores, file_system, free_memory, threads

MIB = 1 << 20


def group(folder: Path, limit: str, used: int, *, first: bool) -> None:
    """Write a group's files, 3 MiB of its memory being pages of files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if first else ("memory.max", "memory.current")
    prefix = "total_" if first else ""
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"rss 1\n{prefix}active_file {MIB}\n{prefix}inactive_file {2 * MIB}\n")


@pytest.mark.parametrize("first", [True, False])
def test_the_tightest_group_counts_and_its_file_pages_are_free(first: bool, tmp_path: Path) -> None:
    """In either version; the group of this process, or one that it lies in; 'max' is no limit."""
    own, top = tmp_path / "own", tmp_path / "memory" if first else tmp_path
    own.write_text("5:memory:/a/b\n3:cpu,cpuacct:/x\n" if first else "0::/a/b\n")
    group(top / "a" / "b", "max", 50 * MIB, first=first)
    free = free_memory(tmp_path, own)
    assert free > 10 * MIB
    group(top / "a", str(60 * MIB), 55 * MIB, first=first)
    assert free_memory(tmp_path, own) == 8 * MIB
    group(top / "a" / "b", str(51 * MIB), 50 * MIB, first=first)
    assert free_memory(tmp_path, own) == 4 * MIB
    group(top / "a" / "b", str(40 * MIB), 50 * MIB, first=first)
    assert free_memory(tmp_path, own) == 0
    assert free_memory(tmp_path, tmp_path / "none") > 10 * MIB


def test_the_nearest_mounted_file_system_holds_a_path(tmp_path: Path) -> None:
    """Of several mounted at one place the last; links are followed; where nothing is known, none is named."""
    (tmp_path / "link").symlink_to(tmp_path / "far")
    places = [Mount("/", "ext4"), Mount(str(tmp_path / "far"), "ext4"), Mount(str(tmp_path / "far"), "nfs4")]
    for path, kind in (("x", "ext4"), ("far/x", "nfs4"), ("farther", "ext4"), ("link/none/x", "nfs4")):
        assert file_system(tmp_path / path, lambda: places) == kind
    assert file_system(tmp_path, list) == "" and file_system(Path("/")) not in NETWORK | {""}


def test_cores_are_those_of_this_process() -> None:
    """Not those of the machine."""
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_threads_are_left_without_waiting() -> None:
    """What runs goes on, what waits is dropped."""
    began, end = threading.Event(), threading.Event()

    def work() -> bool:
        began.set()
        return end.wait(10)

    with threads(1) as pool:
        running, waiting = pool.submit(work), pool.submit(work)
        began.wait(10)
    assert (running.done(), waiting.cancelled()) == (False, True)
    end.set()
    assert running.result()
