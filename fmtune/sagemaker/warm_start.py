"""Warm start: configurations of earlier jobs that a study tries first."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmtune.errors import FmtuneError, UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Value
from fmtune.sagemaker.dialect import Notes, brief, number
from fmtune.sagemaker.hyperparameters import typed
from fmtune.sagemaker.job_shape import check_shape
from fmtune.tune import collect
from fmtune.tune import spec as specs

Configurations = Sequence[Mapping[str, Any]]
Scored = Sequence[tuple[float, Mapping[str, Any]]]

_QUEUED = 5  # configurations taken of each parent of a warm start


def first_tries(
    job: Mapping[str, Any], fixed: Mapping[str, Value], space: Mapping[str, str],
    parents: Mapping[str, Configurations], results: Mapping[str, Configurations], notes: Notes,
) -> list[str]:  # fmt: skip
    """Return the best configurations of what ran before as those to try first, no more than the job tries.

    These are a described job's own best, those of ``results`` from AWS, and those of the parents of a warm start.
    """
    queue: list[dict[str, Any]] = []

    def add(found: Configurations) -> bool:
        made = [_made(one, space) for one in found]
        inside = [one for one in made if one and _fits(one, fixed, space)][:_QUEUED]
        queue.extend(one for one in inside if one not in queue)
        return bool(inside)

    for key in ("BestTrainingJob", "OverallBestTrainingJob"):
        best = (job.get(key) or {}).get("TunedHyperParameters")
        if best and add([best]):
            notes.add("enqueue", f"{key}, {job[key].get('TrainingJobName')}, is tried first", harmless=True)
        elif best:
            notes.add("enqueue", f"{key} does not fit the search space, and is not tried first: {brief(best)}")
    for name, found in results.items():
        if add(found):
            notes.add("enqueue", f"the best configurations of {name} are tried first; their scores are not taken over",
                      harmless=True)  # fmt: skip
        else:
            notes.add("enqueue", f"{name}: no finished training job of it fits the search space")
    fit = []
    for name in _parent_names(job):
        if add(parents.get(name, ())):
            fit.append(name)
        elif not results:
            notes.add("enqueue", f"warm start from {name}: no finished trial of it fits; run its study here first, or "
                      "give its training jobs by --results")  # fmt: skip
    if fit:
        kind = (job.get("WarmStartConfig") or {}).get("WarmStartType")
        notes.add("enqueue", f"warm start ({kind}): the best configurations of {', '.join(fit)} are tried first; "
                  "their scores are not taken over")  # fmt: skip
    limits = (job.get("HyperParameterTuningJobConfig") or {}).get("ResourceLimits") or {}
    most = int(number("MaxNumberOfTrainingJobs", limits.get("MaxNumberOfTrainingJobs", len(queue))))
    queue = queue[: max(0, most)]
    return ["enqueue:", *(f"  - {json.dumps(c)}" for c in queue)] if queue else []


def _made(found: Mapping[str, Any], space: Mapping[str, str]) -> dict[str, Any]:
    """Return what a configuration, of texts where it is SageMaker's, says of the searched parameters; {} for none."""
    named = {"epochs" if name == "epoch" else name: value for name, value in found.items()}
    try:
        return {name: _typed(name, value) for name, value in named.items() if name in space}
    except (UsageError, ValueError, OverflowError):
        return {}


def _typed(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip().strip('"')
    # A table of results has whole numbers as 64.0.
    return int(float(text)) if PARAMETERS[name].type is int and float(text).is_integer() else typed(name, text)


def _parent_names(job: Mapping[str, Any]) -> list[str]:
    entries = (job.get("WarmStartConfig") or {}).get("ParentHyperParameterTuningJobs") or ()
    return [str(entry.get("HyperParameterTuningJobName")) for entry in entries]


def _fits(configuration: Mapping[str, Any], fixed: Mapping[str, Value], space: Mapping[str, str]) -> bool:
    inner = "\n".join(f"  {name}: {form}" for name, form in space.items())
    others = json.dumps({name: value for name, value in fixed.items() if name != "predictor_type"})
    text = (f"study_name: x\ndata: {{train: a, test: b}}\nobjective: test:rmse\nhyperparameters: {others}\n"
            f"search_space:\n{inner}\n")  # fmt: skip
    try:
        specs.parse(f"{text}enqueue: [{json.dumps(dict(configuration))}]\n")
    except FmtuneError:
        return False
    return True


def parents(job: Mapping[str, Any], root: Path | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the configurations of a warm start's earlier studies, best first, from ``runs/<name>`` below ``root``."""
    check_shape(job)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in _parent_names(job):
        # Not every job's name is one that a study, and its folder, may have.
        text = f"study_name: {json.dumps(name)}\ndata: digits\nobjective: test:rmse\nsearch_space: {{epochs: 1..2}}\n"
        try:
            result = collect.named(specs.parse(text).study_name, root)
        except FmtuneError:
            result = None
        if result is None:
            continue  # the study file says that it was not there
        trials = [t for t in (result.cells[0].trials if result.cells else ()) if t.state == "COMPLETE"]
        sign = -1.0 if result.direction == "maximize" else 1.0
        trials.sort(key=lambda t: math.inf if t.value is None else sign * t.value)
        found[name] = [dict(t.params) for t in trials]
    return found


def results_of(path: Path) -> Scored:
    """Return the scores and configurations of a tuning job that ran on AWS.

    Parameters
    ----------
    path
        JSON of list-training-jobs-for-hyper-parameter-tuning-job, or the table of the SDK's
        ``HyperparameterTuningJobAnalytics`` as csv.

    Raises
    ------
    UsageError
        It cannot be read, or is neither.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path), hint="check the path") from error
    try:
        rows = _summaries(text) if text.lstrip().startswith("{") else _table(text)
        scored = [(float(value), found) for value, found in rows if value not in (None, "")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        hint = ("give what `aws sagemaker list-training-jobs-for-hyper-parameter-tuning-job` prints, or the csv of "
                "HyperparameterTuningJobAnalytics(NAME).dataframe()")  # fmt: skip
        raise UsageError("these are no results of a tuning job", where=str(path), hint=hint) from error
    return [one for one in scored if math.isfinite(one[0])]


def _summaries(text: str) -> list[tuple[Any, dict[str, Any]]]:
    """Return the final objective and the tuned hyperparameters of each training job."""
    metric = "FinalHyperParameterTuningJobObjectiveMetric"
    return [
        ((one.get(metric) or {}).get("Value"), dict(one["TunedHyperParameters"]))
        for one in json.loads(text)["TrainingJobSummaries"]
    ]


def _table(text: str) -> list[tuple[Any, dict[str, Any]]]:
    """Return the same of a table; a column that is no hyperparameter is passed over where the space is known."""
    return [(row["FinalObjectiveValue"], row) for row in csv.DictReader(text.splitlines())]
