"""Serve: the worker's side of the protocol: one JSON line in, one JSON line out.

A worker is a fresh process that prepares one case and then waits::

    in   {"case": {...}, "files": {...}, "plant": {...}}     out  {"import": s, "first": {...}, "about": {...}}
    in   "sample"                                            out  {"cpu": s, "wall": s}
    in   "companions"                                        out  {...}

and ends with its input.  ``first`` is all from the request to the end of the first sample: it reads the data, and
compiles kernels or loads them from the cache; it is never mixed with samples.  Standard library only.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fmtune.bench.timing import clocked, peak_mb

Line = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """A prepared case.

    Attributes
    ----------
    arm : callable
        Called before each sample, outside the clock; returns the line to be timed.
    companions : callable
        Returns what must come out the same each time: losses, digests, counts.
    about : dict
        What one sample does: rows, and what the ceilings need.
    less : callable
        Returns what to take off the last sample's clocks: what it did that is not of the case.
    """

    arm: Callable[[], Line]
    companions: Callable[[], dict[str, Any]]
    about: dict[str, Any] = field(default_factory=dict)
    less: Callable[[], Mapping[str, float]] = dict


def serve(prepare: Callable[[Mapping[str, Any]], Job]) -> None:
    """Answer on standard output until standard input ends; what others print goes to standard error."""
    imported = time.process_time()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: Mapping[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    request = json.loads(sys.stdin.readline())
    made: list[Job] = []
    first = clocked(lambda: made.append(_warm(prepare(request))))
    job = made[0]
    # What is there now stays; without this each sample would begin with a look at all of numba's objects.
    gc.collect()
    gc.freeze()
    answer({"import": imported, "first": first, "about": job.about})
    for line in sys.stdin:
        if json.loads(line) == "sample":
            took = clocked(job.arm())
            answer({clock: seconds - job.less().get(clock, 0.0) for clock, seconds in took.items()})
        else:
            answer({**job.companions(), "peak_mb": peak_mb()})


def _warm(job: Job) -> Job:
    job.arm()()
    return job
