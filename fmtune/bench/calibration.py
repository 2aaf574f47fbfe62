"""Calibration: small fixed work that a case is divided by on another machine, and how far its times can be trusted.

copy, gather and fma do what the kernels of ``fmtune.bench.ceilings`` do, on buffers that are made once and lie in a
core's own second-level cache.  Larger ones do not measure the machine: in a cache that is shared with neighbours, or in
memory, reading the same rows took from 5 to 23 ns each, while the cases beside it took the same time throughout.
They are timed before each round of each case; a run's times are pooled, and their spread is stated.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fmtune.bench import ceilings

NAMES = ("copy", "gather", "fma")
KERNELS = 2
"""Which definition of the kernels this is; results that name none have the first one."""

# The definition since which a kernel is what it is: before, gather and copy reached into shared caches and memory.
_SINCE = {"copy": 2, "gather": 2, "fma": 1}
_TIMES = 25


class Calibrator:
    """The kernels, compiled and with their buffers."""

    def __init__(self) -> None:
        source, target, table = _lines(1 << 15), _lines(1 << 15), _lines(1 << 16).reshape(-1, 16)
        total, sums = _lines(16), _lines(ceilings.LANES)
        places = np.random.default_rng(0).integers(0, len(table), 1 << 18)

        def copy() -> None:
            for _ in range(512):
                ceilings.copy(source, target)

        self._runs: dict[str, Callable[[], None]] = {
            "copy": copy,
            "gather": lambda: ceilings.gather(table, places, total),
            "fma": lambda: ceilings.fma(ceilings.FMA_STEPS, np.float32(0.999), np.float32(0.001), sums),
        }

    def measure(self) -> dict[str, float]:
        """Return each kernel's CPU seconds now: the lower quartile of some runs, as neighbours only slow one down."""
        return {name: _quartile(run) for name, run in self._runs.items()}


def _lines(count: int) -> Any:
    """Return ones, float32 (count,), that begin with a cache line: where rows lie across two, reading takes longer."""
    room = np.ones(count + 16, np.float32)
    return room[-room.ctypes.data % 64 // 4 :][:count]


def _quartile(run: Callable[[], None]) -> float:
    run()
    found = []
    for _ in range(_TIMES):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return statistics.quantiles(found, n=4)[0]


@dataclass(frozen=True)
class Pool:
    """A kernel's times over a whole run.

    Attributes
    ----------
    seconds : float
        Their median.
    spread : float
        How far apart the tenth and the ninetieth percentile are, as a share; infinite with fewer than two times.
    count : int
        How many there are.
    """

    seconds: float
    spread: float
    count: int

    def __str__(self) -> str:
        spread = f"a spread of {100 * self.spread:.0f} % over" if self.count > 1 else "of"
        return f"{1000 * self.seconds:.3g} ms, {spread} {self.count} time{'s' * (self.count != 1)}"


def pool(result: Mapping[str, Any], kernel: str) -> Pool | None:
    """Return a kernel's times over a result, older ones included; None where it was not timed."""
    values = [one[kernel] for case in result["cases"] for one in _times(case) if one.get(kernel, 0.0) > 0.0]
    if len(values) < 2:
        return Pool(values[0], float("inf"), 1) if values else None
    low, high = np.quantile(values, [0.1, 0.9])
    return Pool(statistics.median(values), float(high / low) - 1.0, len(values))


def _times(case: Mapping[str, Any]) -> list[Mapping[str, float]]:
    # One a case, before they were timed in each round.
    return case.get("calibrations") or [case["calibration"]]


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a result states of its calibration: the kernels' definition, and each one's pool."""
    pools = {name: pool({"cases": cases}, name) for name in NAMES}
    return {"kernels": KERNELS, **{name: asdict(found) for name, found in pools.items() if found and found.count > 1}}


def kernels(result: Mapping[str, Any]) -> int:
    """Return which definition of the kernels a result or a line of the history was calibrated by."""
    return int(result.get("calibration", {}).get("kernels", 1))


def doubt(base: Mapping[str, Any], new: Mapping[str, Any], kernel: str, tolerance: float) -> str | None:
    """Return why times of two machines cannot be compared by a kernel, or None when they can."""
    sides = {"the baseline": base, "this run": new}
    for who, side in sides.items():
        found = pool(side, kernel)
        if found is None:
            return f"{who} has no time of the {kernel} kernel"
        if found.spread > tolerance:
            return f"the {kernel} kernel of {who} is too uncertain ({found}; {100 * tolerance:.0f} % is tolerated)"
    if min(kernels(base), kernels(new)) < _SINCE[kernel]:
        return f"the {kernel} kernel of the baseline is an older one: accept a new baseline"
    return None
