"""Study: a whole small study, from its text to the winner's model; companions are every trial's score."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmtune.bench.kinds import stored
from fmtune.bench.serve import Job, Line, serve
from fmtune.tune.spec import parse
from fmtune.tune.study import run


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample is the whole study, each time in a new folder."""
    case = request["case"]
    text = json.dumps({"study_name": "bench", **case["study"]})
    folder = Path(tempfile.mkdtemp(prefix="study-", dir=request["files"]["folder"]))
    last: list[Any] = []

    def arm() -> Line:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        spec = parse(text, folder / "bench.yaml")

        def line() -> None:
            last[:] = [run(spec, root=folder)]

        return line

    def companions() -> dict[str, Any]:
        trials = last[0].trials
        values = [value for trial in trials for value in trial.intermediate_values.values()]
        return {"loss": [last[0].best_value], "curve": stored.digest(values), "trials": len(trials),
                "passes": len(values)}  # fmt: skip

    return Job(arm, companions, {"trials": case["study"]["n_trials"]})


if __name__ == "__main__":
    serve(prepare)
