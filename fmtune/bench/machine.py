"""Machine: what a result was measured on, and a fingerprint that says whether two machines are alike."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from pathlib import Path

from fmtune.bench.worker import OURS
from fmtune.tune import environment

# What decides how fast a machine is; versions of libraries are stated, but are not the machine.
_MARKS = ("processor", "cores", "memory", "python", "numba", "numpy")


def describe() -> dict[str, str]:
    """Return versions and machine as text, with ``fingerprint``."""
    facts = {**environment.describe(), "architecture": platform.machine()}
    memory = round(float(facts["memory"].split()[0]))
    marks = "\n".join(str(memory) if name == "memory" else facts[name] for name in _MARKS)
    return {**facts, "fingerprint": hashlib.sha256(marks.encode()).hexdigest()[:16]}


def commit(tree: Path = OURS) -> str | None:
    """Return the commit of a checkout, with ``+`` when files differ from it, or None."""
    try:
        name = _git(tree, "rev-parse", "--short=12", "HEAD")
        return name + ("+" if _git(tree, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(tree: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(tree), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()
