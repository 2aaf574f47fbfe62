"""Study: a whole small study, from its text to the winner's model; companions are every trial's score."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmtune.bench.kinds import stored
from fmtune.bench.serve import Job, Line, serve
from fmtune.tune.spec import parse
from fmtune.tune.study import run


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample is the whole study, each time in a new folder; beside peers sample n has the seed n, as theirs has."""
    case, paired = request["case"], "rows" in request["files"]
    folder = Path(tempfile.mkdtemp(prefix="study-", dir=request["files"]["folder"]))
    last: list[Any] = []
    searches: list[list[tuple[float, float]]] = []

    def arm() -> Line:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        # The first sample is thrown away as a warm-up.
        study = seeded(case["study"], max(0, len(searches) - 1)) if paired else case["study"]
        spec = parse(json.dumps({"study_name": "bench", **study}), Path.cwd() / "bench.yaml")

        def line() -> None:
            reached, began = [], [0.0]

            def listen(event: Mapping[str, Any]) -> None:
                if event["event"] == "study":  # the data are read
                    began[0] = time.perf_counter()
                if event["event"] == "trial" and event["state"] == "COMPLETE":
                    reached.append((time.perf_counter() - began[0], event["value"]))

            last[:] = [run(spec, root=folder, listener=listen)]
            searches.append(reached)

        return line

    def companions() -> dict[str, Any]:
        trials = last[0].trials
        values = [value for trial in trials for value in trial.intermediate_values.values()]
        found = {"loss": [last[0].best_value], "curve": stored.digest(values), "trials": len(trials),
                 "passes": len(values)}  # fmt: skip
        return {**found, "searches": searches[1:]} if paired else found

    return Job(arm, companions, {"trials": case["study"]["n_trials"]})


def seeded(study: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the study with a seed for its sampler and for the order of its rows.

    All trials of a study see the rows in one order, and some orders are luckier than others.
    """
    return {**study, "seed": seed, "hyperparameters": {**study.get("hyperparameters", {}), "shuffle_seed": seed}}


if __name__ == "__main__":
    serve(prepare)
