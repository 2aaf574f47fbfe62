"""The promises about faults, each tried a few times; ``make proof`` tries them in earnest."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fmtune.errors import FmtuneError
from tests.proof import fuzz
from tests.proof.__main__ import table
from tests.proof.claims import Row

FOUND = sorted((Path(__file__).parent / "proof/found").iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, forks and traces")
def test_the_promises_hold_where_they_are_tried() -> None:
    """No kill, full disk or damaged input of a small number breaks a promise; without strace some are not tried."""
    claims = ["R1", "R4", "R5", "R6", "R8", "R11"] + (["R2", "R3"] if shutil.which("strace") else [])
    run = subprocess.run(
        [sys.executable, "-m", "tests.proof", "--size", "small", *claims], cwd=Path(__file__).parents[1],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("| yes |") == len(claims)
    assert " with 70)" in run.stdout  # what hung was ended by fmtune


def test_what_fuzzing_found_is_read_or_refused() -> None:
    """Inputs that once ended in a foreign exception, or in the death of the process."""
    surfaces = {name.replace(" ", "-"): surface for name, surface in fuzz.surfaces().items()}
    assert len(FOUND) > 10
    for path in FOUND:
        with contextlib.suppress(FmtuneError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            surfaces[path.name.rpartition("-")[0]].parse(path.read_bytes())


def test_pages_keep_the_rows_that_were_not_tried_again() -> None:
    """Each row has its own size; their order is that of the claims."""
    before = "| R10 | a | b | release, 2026-01-01, abc | yes |\n| R2 | c | d | small, 2026-01-01, abc | yes |\n"
    text = table([Row("R2", "kills", "3 runs", False)], "middle", before)
    assert [line.split(" | ")[0] for line in text.splitlines()[4:]] == ["| R2", "| R10"]
    assert "| R2 | kills | 3 runs | middle, " in text and text.splitlines()[4].endswith("| **no** |")
