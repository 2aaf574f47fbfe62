"""Coverage: ``python -m tests.proof.coverage`` says which branches of parsers, storage and atomic writes no test takes.

Exits 1 below 100 %.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.proof.modules import MODULES, OPTIONS, files_of

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the modules' tests without numba's compiler, and report what they do not reach."""
    tests = files_of(tuple(name for names in MODULES.values() for name in names))
    sources = ",".join(f"fmtune/{module}.py" for module in MODULES)
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "COVERAGE_FILE": str(ROOT / "build" / ".coverage")}
    (ROOT / "build").mkdir(exist_ok=True)

    def run(*words: str) -> int:
        return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=environment, check=False).returncode

    settings = ("--rcfile=tests/proof/coverage.ini",)
    if run("coverage", "run", *settings, "-m", "pytest", *OPTIONS, *tests):
        return 1
    return run("coverage", "report", *settings, f"--include={sources}", "--fail-under=100", "--skip-covered", "-m")


if __name__ == "__main__":
    sys.exit(main())
