"""The promises about faults, each tried a few times; ``make proof`` tries them in earnest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, forks and traces")
def test_the_promises_hold_where_they_are_tried() -> None:
    """No kill, full disk or damaged input of a small number breaks a promise; without strace some are not tried."""
    claims = ["R1", "R4", "R5", "R6", "R8"] + (["R2", "R3"] if shutil.which("strace") else [])
    run = subprocess.run(
        [sys.executable, "-m", "tests.proof", "--size", "small", *claims], cwd=Path(__file__).parents[1],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("| yes |") == len(claims)
