"""Deaths and full disks: R1 to R3, and the part of R8 that is about them.

A study is run again and again; its process dies, or its disk fails, at some point; what is left is looked at, and it
is run to its end, which must be the end of a run without any stop.
"""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.child import Child, End, Facts, acknowledged, blamed, facts, faults, prepare

# The calls by which sqlite and atomic writes reach the disk; what Python prints goes through none of them.
WRITES = "pwrite64,fdatasync,fsync,ftruncate,rename,renameat,renameat2,unlink"


@dataclass
class Tally:
    """What was tried and seen; ``faults`` is empty where the promise held.

    ``given_up`` are studies with a trial whose process died so many times in a row that it was taken for the cause, as
    is said; their other trials may then differ.
    """

    tried: int = 0
    told: int = 0
    completed: int = 0
    given_up: int = 0
    slowest_reopening: float = 0.0
    faults: list[str] = field(default_factory=list)


class Trial:
    """One study in a folder of its own, run until it is complete, whatever happens on the way."""

    def __init__(self, folder: Path, whole: Facts, tally: Tally) -> None:
        self.folder, self._whole, self.tally = prepare(folder), whole, tally
        self._told: Facts = {}

    def ended(self, end: End, where: str) -> bool:
        """Look at what a process left; returns whether the study is complete."""
        told = acknowledged(end)
        self.tally.tried += 1
        self.tally.told += len(told)
        again = sorted(set(told) & set(self._told))
        self._told |= told
        wrong = faults(self.folder, self._told) + [f"trial {n} was told twice" for n in again]
        if end.code == 70 or "Traceback" in end.said:
            wrong.append(f"exit {end.code}: {end.said.strip()[-300:]}")
        self.tally.faults += [f"{where}: {fault}" for fault in wrong]
        return end.code == 0

    def finish(self, where: str) -> None:
        """Run it to its end, compare with a run that nothing stopped, and remove it."""
        end = Child(self.folder).wait()
        if self.ended(end, where):
            self.compare(where)
        else:
            self.tally.faults.append(f"{where}: the same command ends with {end.code}: {end.said.strip()[-300:]}")
        shutil.rmtree(self.folder)

    def compare(self, where: str) -> None:
        """Note what differs from a run that nothing stopped."""
        found = facts(self.folder)
        differ = [n for n in sorted({*found, *self._whole}) if found.get(n) != self._whole.get(n)]
        if differ and blamed(self.folder):
            self.tally.given_up += 1
            return
        self.tally.faults += [f"{where}: trials {differ} differ from a straight run"] if differ else []
        self.tally.completed += 1


def straight(folder: Path) -> tuple[Facts, float]:
    """Run the study without a stop; returns its trials and the seconds it took."""
    end = Child(prepare(folder)).wait()
    assert end.code == 0, end.said
    return facts(folder), end.seconds


def kills(root: Path, count: int, whole: Facts, seconds: float, seed: int = 0) -> Tally:
    """R1: kill at random times, ``count`` times in all; a study that came to its end begins anew.

    Every other kill waits for a number of printed lines: on a busy machine most of a run's time is its beginning, and
    a kill by the clock alone would seldom find a trial that was told.
    """
    draw, tally = random.Random(seed), Tally()
    trial = Trial(root / "kills-0", whole, tally)
    for n in range(count):
        child, began = Child(trial.folder), time.monotonic()
        moment, wanted, opened = began + draw.uniform(0, 0.7 * seconds), draw.randrange(3, 16), None
        while time.monotonic() < moment if n % 2 else child.lines() < wanted and child.alive():
            time.sleep(0.002)
            if opened is None and child.lines():
                opened = time.monotonic() - began
                tally.slowest_reopening = max(tally.slowest_reopening, opened)
        child.kill()
        if trial.ended(child.wait(), f"kill {n}"):
            trial.compare(f"kill {n}")
            shutil.rmtree(trial.folder)
            trial = Trial(root / f"kills-{n + 1}", whole, tally)
    trial.finish("after the last kill")
    return tally


def writes(folder: Path) -> int:
    """Return how many calls of ``WRITES`` one whole run makes."""
    log = prepare(folder) / "calls"
    Child(folder, traced=("-e", f"trace={WRITES}", "-o", str(log))).wait()
    return sum("resumed>" not in line and "+++" not in line for line in log.read_text().splitlines())


def at_writes(root: Path, what: str, total: int, step: int, whole: Facts, seed: int = 0) -> Tally:
    """R2 and R3: every ``step``-th write of a run meets ``what``, then the same command runs to its end.

    Parameters
    ----------
    what
        ``signal=SIGKILL``, where the recovery is killed once more at a random write; or ``error=ENOSPC`` and the like;
        with a ``+`` at its end every later write fails too.
    """
    draw, tally = random.Random(seed), Tally()
    effect, later = what.rstrip("+"), "+" if what.endswith("+") else ""
    for k in range(1 + draw.randrange(step), total + 1, step):
        where = f"{what} at write {k}"
        trial = Trial(root / f"write-{k}", whole, tally)
        points = [k, draw.randrange(1, max(2, total // 2))] if "signal" in what else [k]
        for point in points:
            inject = f"inject={WRITES}:{effect}:when={point}{later}"
            if trial.ended(Child(trial.folder, traced=("-e", inject, "-o", "/dev/null")).wait(), where):
                break
        trial.finish(where)
    return tally
