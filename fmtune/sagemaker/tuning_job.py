"""Tuning job: SageMaker's CreateHyperParameterTuningJob as a study file.

What has no counterpart is said (``dialect.py``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from fmtune.errors import FmtuneError, UsageError
from fmtune.fm.metrics import METRICS
from fmtune.sagemaker.dialect import Notes, brief, number, plain, scalar
from fmtune.sagemaker.job_shape import check_shape
from fmtune.sagemaker.tuning_data import channels
from fmtune.sagemaker.tuning_ranges import parameters
from fmtune.sagemaker.warm_start import Configurations, Scored, first_tries
from fmtune.tune import spec as specs

OBJECTIVES = (
    "test:rmse", "test:binary_classification_accuracy", "test:binary_classification_cross_entropy",
    "test:binary_f_beta",
)  # fmt: skip
"""What SageMaker tunes a factorization machine for."""

# SageMaker's strategy -> sampler, pruner.
STRATEGIES = {"Bayesian": "tpe", "Random": "random", "Grid": "grid", "Hyperband": "random"}

# What means nothing outside AWS.
_ELSEWHERE = (
    "AlgorithmSpecification", "OutputDataConfig", "ResourceConfig", "HyperParameterTuningResourceConfig", "RoleArn",
    "StoppingCondition", "RetryStrategy", "EnableManagedSpotTraining", "EnableNetworkIsolation", "VpcConfig",
    "EnableInterContainerTrafficEncryption", "CheckpointConfig", "DefinitionName", "Environment", "Tags",
)  # fmt: skip
_DESCRIBED = (
    "HyperParameterTuningJobArn", "HyperParameterTuningJobStatus", "CreationTime", "HyperParameterTuningEndTime",
    "LastModifiedTime", "TrainingJobStatusCounters", "ObjectiveStatusCounters", "BestTrainingJob",
    "OverallBestTrainingJob", "FailureReason", "TuningJobCompletionDetails", "ConsumedResources", "ResponseMetadata",
)  # fmt: skip


def study_of(
    job: Mapping[str, Any], *, data: str = "data", parents: Mapping[str, Configurations] | None = None,
    results: Mapping[str, Scored] | None = None,
) -> str:  # fmt: skip
    """Return the text of a study file that does what the tuning job does.

    Parameters
    ----------
    job
        JSON of CreateHyperParameterTuningJob, or of its description.
    data
        Folder in which the channels' files are expected: ``<data>/train`` and ``<data>/test``.
    parents
        Of a warm start: configurations of the earlier jobs' studies, the best first, by the job's name.
    results
        Configurations that AWS tried, with their scores, by what they are called in notes.

    Raises
    ------
    UsageError
        The job cannot be expressed as a study: no objective of a factorization machine, a range that is none.
    """
    check_shape(job)
    notes = Notes()
    config, definition = _parts(job, notes)
    objective = _objective(config, definition)
    ranges = definition.get("HyperParameterRanges") or config.get("ParameterRanges") or {}
    static = dict(definition.get("StaticHyperParameters") or {})
    fixed, space = parameters(static, ranges, notes)
    feature_dim = static.get("feature_dim")
    down = METRICS[objective.removeprefix("test:")].direction == "maximize"
    tried = {name: [one for _, one in sorted(found, key=lambda pair: pair[0], reverse=down)]
             for name, found in (results or {}).items()}  # fmt: skip
    lines = [f"# From the job {plain(repr(job.get('HyperParameterTuningJobName')))} of Amazon SageMaker."]
    body: list[tuple[str, list[str]]] = [
        ("study_name", [f"study_name: {scalar(_study_name(job))}"]),
        ("data", channels(definition, feature_dim, data, notes)),
        ("objective", [f"objective: {objective}"]),
        ("hyperparameters", ["hyperparameters:", *(f"  {name}: {scalar(value)}" for name, value in fixed.items())]),
        ("search_space", ["search_space:", *(f"  {name}: {form}" for name, form in space.items())]),
        ("sampler", _strategy(config, notes)),
        ("n_trials", _limits(config, space, notes)),
        ("enqueue", first_tries(job, fixed, space, parents or {}, tried, notes)),
    ]
    _leftovers(job, config, definition, notes)
    lines += [f"# {text}" for text in notes.by_key.pop("", [])]
    for key, entry in body:
        lines += [f"# {text}" for text in notes.by_key.pop(key, [])] + entry
    text = "\n".join(lines) + "\n"
    try:
        specs.parse(text)
    except FmtuneError as error:
        faults = getattr(error, "faults", ()) or (error,)
        said = "; ".join(fault.what for fault in faults[:5])
        raise UsageError(f"the tuning job makes no sound study: {said}",
                         hint="correct the job's ranges or static hyperparameters") from error  # fmt: skip
    return text


def _parts(job: Mapping[str, Any], notes: Notes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the job's configuration and its one training job's definition."""
    config = job.get("HyperParameterTuningJobConfig")
    if config is None and "HyperParameters" in job:
        raise UsageError("this is a training job, which has nothing to search",
                         hint="`fmtune sagemaker import-training-job` makes a study around it")
    if config is None:
        hint = "give the JSON of CreateHyperParameterTuningJob"
        raise UsageError("HyperParameterTuningJobConfig is missing", hint=hint)
    several = job.get("TrainingJobDefinitions") or [job.get("TrainingJobDefinition") or {}]
    if len(several) > 1:
        others = ", ".join(str(d.get("DefinitionName")) for d in several[1:])
        notes.add("", f"only the first of {len(several)} training job definitions is taken; left out: {others}")
    return config, several[0]


def _objective(config: Mapping[str, Any], definition: Mapping[str, Any]) -> str:
    said = definition.get("TuningObjective") or config.get("HyperParameterTuningJobObjective") or {}
    name, kind = str(said.get("MetricName")), said.get("Type")
    metric = METRICS.get(name.removeprefix("test:")) if name.startswith("test:") else None
    if metric is None:
        what = f"no objective of a factorization machine: {plain(name)!r}"
        raise UsageError(what, hint=f"there are {', '.join(OBJECTIVES)}")
    if kind is not None and str(kind).lower() != metric.direction:
        said = plain(str(kind)).lower()
        raise UsageError(f"the objective is to {said} {name}, which is a thing to {metric.direction}")
    return name


def _study_name(job: Mapping[str, Any]) -> str:
    name = str(job.get("HyperParameterTuningJobName") or "tuning-job")
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:100].lstrip(".-") or "x"


def _strategy(config: Mapping[str, Any], notes: Notes) -> list[str]:
    strategy = str(config.get("Strategy", "Bayesian"))
    if strategy not in STRATEGIES:
        raise UsageError(f"unknown Strategy {plain(strategy)!r}", hint=f"there are {', '.join(STRATEGIES)}")
    lines = [f"sampler: {STRATEGIES[strategy]}"]
    early = config.get("TrainingJobEarlyStoppingType", "Off")
    if strategy == "Hyperband":
        given = (config.get("StrategyConfig") or {}).get("HyperbandStrategyConfig") or {}
        options = {"min_resource": given.get("MinResource"), "max_resource": given.get("MaxResource")}
        named = {"name": "hyperband", **{key: value for key, value in options.items() if value is not None}}
        notes.add("sampler", "Hyperband draws at random and ends trials early; a resource is an epoch", harmless=True)
        return [*lines, f"pruner: {json.dumps(named)}"]
    if early == "Auto":
        notes.add("sampler", "TrainingJobEarlyStoppingType Auto ends no job of factorization machines: their test "
                  "score comes at the end. Here it comes after each epoch; Auto's rule is `pruner: running_median`",
                  harmless=True)  # fmt: skip
    return [*lines, "pruner: none"]


def _limits(config: Mapping[str, Any], space: Mapping[str, str], notes: Notes) -> list[str]:
    limits = config.get("ResourceLimits") or {}
    count = limits.get("MaxNumberOfTrainingJobs")
    if count is None and config.get("Strategy") == "Grid":
        count = math.prod(form.count(",") + 1 for form in space.values() if form.startswith("["))
    lines = [] if count is None else [f"n_trials: {int(number('MaxNumberOfTrainingJobs', count))}"]
    if count is None:
        notes.add("n_trials", "the job has no MaxNumberOfTrainingJobs: n_trials is 100")
    seconds = limits.get("MaxRuntimeInSeconds")
    if seconds is not None:
        lines.append(f"timeout: {number('MaxRuntimeInSeconds', seconds):g}")
    parallel = limits.get("MaxParallelTrainingJobs")
    if parallel is not None:
        lines.append(f"pack: {min(256, int(number('MaxParallelTrainingJobs', parallel)))}")
        notes.add("n_trials", "pack: as many trials at a time as the job had training jobs in parallel", harmless=True)
    if config.get("RandomSeed") is not None:
        lines.append(f"seed: {int(number('RandomSeed', config['RandomSeed']))}")
    for key, value in (config.get("TuningJobCompletionCriteria") or {}).items():
        if value not in ({"CompleteOnConvergence": "Disabled"}, None):
            notes.add("n_trials", f"{key} {json.dumps(value)}: a study ends by n_trials or timeout only")
    return lines


def _leftovers(
    job: Mapping[str, Any], config: Mapping[str, Any], definition: Mapping[str, Any], notes: Notes
) -> None:
    """Note every key that nothing was made of."""
    aws = [key for key in (*job, *definition) if key in _ELSEWHERE]
    if aws:
        notes.add("", f"left out, as it means nothing outside AWS: {', '.join(aws)}", harmless=True)
    instances = (definition.get("ResourceConfig") or {}).get("InstanceCount", 1)
    if instances not in (1, "1"):
        notes.add("", f"each of its jobs trained on {instances} instances, asynchronously; here a trial trains on one")
    known = {
        "HyperParameterTuningJobName", "HyperParameterTuningJobConfig", "TrainingJobDefinition",
        "TrainingJobDefinitions", "WarmStartConfig", *_ELSEWHERE, *_DESCRIBED,
    }  # fmt: skip
    _note_unknown(job, known, notes)
    _note_unknown(config, {
        "Strategy", "StrategyConfig", "HyperParameterTuningJobObjective", "ResourceLimits", "ParameterRanges",
        "TrainingJobEarlyStoppingType", "TuningJobCompletionCriteria", "RandomSeed",
    }, notes)  # fmt: skip
    _note_unknown(definition, {
        "StaticHyperParameters", "InputDataConfig", "HyperParameterRanges", "TuningObjective", *_ELSEWHERE,
    }, notes)  # fmt: skip


def _note_unknown(part: Mapping[str, Any], known: set[str], notes: Notes) -> None:
    for key, value in part.items():
        if key not in known:
            notes.add("", f"{key} {brief(value)} has no counterpart and is left out")
