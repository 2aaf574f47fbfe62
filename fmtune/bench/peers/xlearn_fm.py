"""xLearn 0.44, the program built from source: ``XLEARN_TRAIN`` names it; one thread, AdaGrad after every row.

It reads libsvm files and keeps its own form of them beside them.  A sample is ``epochs`` passes: the processor time of
a run with one more of them, less that of a run with one, so that reading and drawing first values are not in it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmtune.bench.peers.common import channel
from fmtune.bench.serve import Job, Line, serve
from fmtune.bench.timing import clocked

DEFAULTS = {"num_factors": 16, "factors_lr": 0.1, "factors_wd": 2e-5}

# The scale of first values (of xLearn's own, 0.66, other trainers are far from); a line of its table; its colours.
_SCALE = "0.1"
_EPOCH = re.compile(r"%\s*\]\s+\d+\s+(.+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Program:
    """The program with a case's rows, written as libsvm files that end with the process.

    Parameters
    ----------
    files
        The case's files.
    binary
        Log loss, or squared error.
    """

    def __init__(self, files: Mapping[str, str], binary: bool) -> None:
        found = os.environ.get("XLEARN_TRAIN") or shutil.which("xlearn_train")
        if not found:
            raise ModuleNotFoundError("XLEARN_TRAIN names no xlearn_train")
        self._folder = tempfile.TemporaryDirectory(prefix="xlearn-", dir=files["folder"])
        train, test = (self._write(name, *channel(files["rows"], name)) for name in ("train", "test"))
        kind = ["-s", "1"] if binary else ["-s", "4", "-x", "rmse"]
        self._words = [found, str(train), "-v", str(test), *kind, "-p", "adagrad", "-u", _SCALE, "-nthread", "1",
                       "--no-norm", "-m", "none", "-l", str(Path(self._folder.name) / "log")]  # fmt: skip
        self.run(DEFAULTS, 1)  # leaves its own form of the files beside them

    def run(self, h: Mapping[str, Any], epochs: int, *, early: bool = False) -> list[float]:
        """Train once; return the test score (log loss or RMSE) after each epoch."""
        words = [*self._words, "-k", str(h["num_factors"]), "-r", str(h["factors_lr"]), "-b", str(h["factors_wd"]),
                 "-e", str(epochs), *([] if early else ["--dis-es"])]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, check=True, env={"USER": "bench", **os.environ})
        lines = _EPOCH.findall(_COLOUR.sub("", done.stdout))
        # Its columns: the loss on train and test, the metric if any, and the seconds.
        return [float(line.split()[-2]) for line in lines]

    def _write(self, name: str, x: Any, y: Any) -> Path:
        path = Path(self._folder.name) / f"{name}.txt"
        starts, places, values = x.indptr, x.indices, x.data
        with path.open("w") as out:
            for r, label in enumerate(y):
                at = slice(starts[r], starts[r + 1])
                entries = (f"{i}:{v:.7g}" for i, v in zip(places[at].tolist(), values[at].tolist(), strict=True))
                out.write(f"{label:.7g} {' '.join(entries)}\n")
        return path


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample is ``epochs`` passes over the train channel."""
    case = request["case"]
    h = {**DEFAULTS, **case["hyperparameters"]}
    program = Program(request["files"], binary=h.get("predictor_type") == "binary_classifier")
    rows = len(channel(request["files"]["rows"], "train")[1]) * case["epochs"]
    last: list[float] = []
    first: dict[str, float] = {}

    def arm() -> Line:
        first.update(clocked(lambda: program.run(h, 1)))

        def line() -> None:
            last[:] = program.run(h, 1 + case["epochs"])

        return line

    def companions() -> dict[str, Any]:
        return {"loss": [last[-1]], "note": f"after {1 + case['epochs']} passes"}

    return Job(arm, companions, {"rows": rows, "examples": rows}, less=lambda: first)


if __name__ == "__main__":
    serve(prepare)
