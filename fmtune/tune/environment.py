"""Environment: versions and machine, as a report states them."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import sys
from pathlib import Path

import optuna
import psutil

from fmtune import __version__, kernels
from fmtune.machine import cores

_PACKAGES = ("optuna", "numpy", "scipy", "numba", "llvmlite", "sqlalchemy")


def describe() -> dict[str, str]:
    """Return versions, processor, cores, memory and operating system, as text."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "fmtune": __version__,
        "python": platform.python_version(),
        **versions,
        # Two checkouts of one version may compute differently; their kernels' digests then differ.
        "kernels": kernels.DIGEST[:12],
        "processor": _processor(),
        "cores": str(cores()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
    }


def build() -> dict[str, str]:
    """Return what must be equal in all workers of a study, so that a trial is the same wherever it is run."""
    return {"fmtune": __version__, "kernels": kernels.DIGEST[:12], "optuna": optuna.__version__}


def peak_mb() -> float:
    """Return the most memory that this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
