"""Startup: how long a command takes that has nothing to do; each sample is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmtune.bench.serve import Job, serve

_STUDY = {
    "study_name": "finished", "data": "digits", "objective": "test:binary_classification_cross_entropy",
    "search_space": {"linear_lr": "1e-3..1e-1 log"}, "n_trials": 1,
}  # fmt: skip

# python: the floor under all others; resume: a study that is complete is run again.
COMMANDS = {
    "python": ["-c", "pass"],
    "help": ["-m", "fmtune", "--help"],
    "import": ["-c", "import fmtune.tune.study"],
    "resume": ["-m", "fmtune", "run", "finished.yaml", "--no-report"],
}


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample runs the command ``inner`` times."""
    case = request["case"]
    folder = Path(tempfile.mkdtemp(prefix="startup-", dir=request["files"]["folder"]))
    (folder / "finished.yaml").write_text(json.dumps(_STUDY))
    words = [sys.executable, *COMMANDS[case["command"]]]

    def line() -> None:
        for _ in range(case["inner"]):
            subprocess.run(words, cwd=folder, check=True, capture_output=True)

    line()  # writes what later runs find: byte code, and the finished study
    return Job(lambda: line, lambda: {}, {"processes": case["inner"]})


if __name__ == "__main__":
    serve(prepare)
