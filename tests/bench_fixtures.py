"""Results of the bench room made by hand, with noise that is drawn from a seed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fmtune.bench.case import Case

# Kernels that other tests have compiled are found again.
CACHE = Path(os.environ.get("FMTUNE_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

LOSSES = [0.50, 0.51, 0.505]


def samples(level: float, *, rounds: int = 6, each: int = 16, luck: float = 0.003, noise: float = 0.05, seed: int = 0):
    """Return samples as a noisy machine gives them: each process has luck, and neighbours only ever slow one down."""
    rng = np.random.default_rng(seed)
    return [
        {"round": r, "block": k // 2, "cpu": float(level * np.exp(own + abs(rng.normal(0, noise)))), "wall": level}
        for r in range(rounds)
        for own in [rng.normal(0, luck)]
        for k in range(each)
    ]


def entry(
    name: str = "a", level: float = 0.01, *, seed: int = 0, loss=LOSSES, error=None, kernel: float = 0.001,
    kernels: tuple[float, ...] = (1.0, 1.02, 1.01, 0.99),
):  # fmt: skip
    """Return a case of a result; ``kernels`` are the calibration kernels' times before its rounds, over ``kernel``."""
    case = Case(name, "fit", calibrate="gather").plain()
    return {
        "name": name, "kind": "fit", "case": case, "error": error, "starts": [], "about": {},
        "samples": [] if error else samples(level, seed=seed),
        "companions": {} if error else {"loss": list(loss), "curve": "c" + str(loss[0]), "passes": 9},
        "calibrations": [dict.fromkeys(("copy", "gather", "fma"), kernel * times) for times in kernels],
        "calibration": {"copy": kernel, "gather": kernel, "fma": kernel},
        **({} if error else {"summary": {"cpu": level, "wall": level, "wall_p95": level, "rows_per_s": 1e6}}),
    }  # fmt: skip


def result(*entries, fingerprint: str = "here"):
    """Return a result object."""
    machine = {"fingerprint": fingerprint, "processor": "a processor", "cores": "2", "fmtune": "0.1.0"}
    return {"schema": "fmtune.bench/1", "suite": "quick", "date": "2026-01-02T03:04:05+00:00", "commit": "abc",
            "machine": machine, "calibration": {"kernels": 2}, "cases": list(entries)}  # fmt: skip
