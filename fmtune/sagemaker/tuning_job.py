"""Tuning job: SageMaker's CreateHyperParameterTuningJob as a study file.

What has no counterpart is never dropped in silence: it becomes a comment in the study file and
a ``DialectWarning``.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmtune.errors import FmtuneError, UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Value
from fmtune.fm.metrics import METRICS
from fmtune.sagemaker.hyperparameters import SCHEMA, typed
from fmtune.sagemaker.job_shape import check_shape
from fmtune.tune import collect, dimension, effect, yamlfile
from fmtune.tune import spec as specs
from fmtune.tune.algorithms import PRUNERS
from fmtune.tune.dimension import SEARCHABLE, Dimension

OBJECTIVES = (
    "test:rmse", "test:binary_classification_accuracy", "test:binary_classification_cross_entropy",
    "test:binary_f_beta",
)  # fmt: skip
"""What SageMaker tunes a factorization machine for."""

# SageMaker's strategy -> sampler, pruner.
STRATEGIES = {"Bayesian": "tpe", "Random": "random", "Grid": "grid", "Hyperband": "random"}

_POSITIVE = "1e-8..512 log"
_NUMBERS = tuple(
    f"{group}_{what}" for group in ("bias", "linear", "factors")
    for what in ("lr", "wd", "init_scale", "init_sigma", "init_value")
)  # fmt: skip
TUNABLE: dict[str, str] = {
    **dict.fromkeys(_NUMBERS, _POSITIVE), "epochs": "1..1000 log", "mini_batch_size": "100..10000 log",
}  # fmt: skip
"""What SageMaker documents as tunable, with the ranges that it recommends."""

EARLY = "running_median" if "running_median" in PRUNERS else "median"
_WIDE = 100.0  # from this ratio of its ends on a range of ScalingType Auto is searched on a log scale
_LEAST = 1e-8
_QUEUED = 5  # configurations taken of each parent of a warm start

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


class DialectWarning(UserWarning):
    """Something was not taken over as it was; the text says what became of it."""


class _Notes:
    """Comments of the study file, by the key that they stand above; each is a warning too, unless it is harmless."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[str]] = {}

    def add(self, key: str, text: str, harmless: bool = False) -> None:
        self.by_key.setdefault(key, []).append(plain(text))
        if not harmless:
            warnings.warn(plain(text), DialectWarning, stacklevel=2)


def plain(text: str) -> str:
    """Return a text as one printable line of bounded length."""
    return "".join(c if c.isprintable() else " " for c in text)[:300]


def _scalar(value: Any) -> str:
    return json.dumps(value)


def study_of(
    job: Mapping[str, Any], *, data: str = "data", parents: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> str:
    """Return the text of a study file that does what the tuning job does.

    Parameters
    ----------
    job
        JSON of CreateHyperParameterTuningJob, or of its description.
    data
        Folder in which the channels' files are expected: ``<data>/train`` and ``<data>/test``.
    parents
        Of a warm start: configurations of the earlier jobs, the best first, by the job's name.

    Raises
    ------
    UsageError
        The job cannot be expressed as a study: no objective of a factorization machine, a range that is none.
    """
    check_shape(job)
    notes = _Notes()
    config, definition = _parts(job, notes)
    objective = _objective(config, definition)
    ranges = definition.get("HyperParameterRanges") or config.get("ParameterRanges") or {}
    static = dict(definition.get("StaticHyperParameters") or {})
    fixed, space = _parameters(static, ranges, notes)
    feature_dim = static.get("feature_dim")
    lines = [f"# From the tuning job {plain(repr(job.get('HyperParameterTuningJobName')))} of Amazon SageMaker."]
    body: list[tuple[str, list[str]]] = [
        ("study_name", [f"study_name: {_scalar(_study_name(job))}"]),
        ("data", _data(definition, feature_dim, data, notes)),
        ("objective", [f"objective: {objective}"]),
        ("hyperparameters", ["hyperparameters:", *(f"  {name}: {_scalar(value)}" for name, value in fixed.items())]),
        ("search_space", ["search_space:", *(f"  {name}: {form}" for name, form in space.items())]),
        ("sampler", _strategy(config, notes)),
        ("n_trials", _limits(config, space, notes)),
        ("enqueue", _warm_start(job, fixed, space, parents or {}, notes)),
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


def _parts(job: Mapping[str, Any], notes: _Notes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the job's configuration and its one training job's definition."""
    config = job.get("HyperParameterTuningJobConfig")
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


def _parameters(
    static: Mapping[str, Any], ranges: Mapping[str, Any], notes: _Notes
) -> tuple[dict[str, Value], dict[str, str]]:
    """Return fixed values and the search space in the file's own form."""
    fixed: dict[str, Value] = {"shuffle": "none", "pad_last_batch": True}
    notes.add("hyperparameters", "shuffle and pad_last_batch are set so that training is SageMaker's; for dense data "
              "add 'lazy: false' and 'matrix: {layout: [dense]}'", harmless=True)  # fmt: skip
    space: dict[str, str] = {}
    for kind, key in (("continuous", "ContinuousParameterRanges"), ("integer", "IntegerParameterRanges")):
        for entry in ranges.get(key) or ():
            name = _name(entry, notes)
            if name is not None:
                _range(name, kind, entry, fixed, space, notes)
    for entry in ranges.get("CategoricalParameterRanges") or ():
        name = _name(entry, notes)
        if name is not None:
            _choices(name, [str(v) for v in entry.get("Values") or ()], fixed, space)
    for entry in ranges.get("AutoParameters") or ():
        name = _name(entry, notes)
        if name is not None and name in TUNABLE:
            space[name] = TUNABLE[name]
            hint = entry.get("ValueHint")
            notes.add("search_space", f"{name}: its range is left to SageMaker (hint {hint!r}); "
                      "the recommended one is taken")  # fmt: skip
        elif name is not None:
            notes.add("search_space", f"{name}: SageMaker was to choose its range; write one here to search it")
    for name, value in static.items():
        _static("epochs" if name == "epoch" else name, str(value), fixed, space, notes)
    for fault in effect.idle(_dimensions(space), fixed):
        notes.add("search_space", f"{fault.what}; it is left out")
        del space[str(fault.at[0])]
    if "num_factors" not in {*fixed, *space}:
        default = PARAMETERS["num_factors"].default
        notes.add("hyperparameters", f"num_factors is required by SageMaker, and the job has none: it is {default}")
    return fixed, space


def _dimensions(space: Mapping[str, str]) -> dict[str, Dimension]:
    """Return those of a search space in the file's form that are sound."""
    made = {name: dimension.parse(name, yamlfile.load(form, "").value)[0] for name, form in space.items()}
    return {name: found for name, found in made.items() if found is not None}


def _name(entry: Mapping[str, Any], notes: _Notes) -> str | None:
    """Return the parameter that a range is for, or None where it cannot be searched here."""
    name = str(entry.get("Name"))
    if name == "epoch":
        notes.add("search_space", "epoch, as SageMaker's page calls it, is epochs", harmless=True)
        return "epochs"
    if name not in SEARCHABLE:
        notes.add("search_space", f"{name}: not searched, there is no such parameter here ({json.dumps(dict(entry))})")
        return None
    return name


def _range(
    name: str, kind: str, entry: Mapping[str, Any], fixed: dict[str, Value], space: dict[str, str], notes: _Notes
) -> None:
    low, high = (_number(name, entry.get(key)) for key in ("MinValue", "MaxValue"))
    scaling = str(entry.get("ScalingType") or "Auto")
    if PARAMETERS[name].open_low and low <= 0 < high:
        notes.add("search_space", f"{name}: begins at {_LEAST:g} instead of {low:g}, which is off")
        low = _LEAST
    if kind == "integer":
        low, high = math.ceil(low), math.floor(high)
    if low == high:
        fixed[name] = low
        notes.add("hyperparameters", f"{name}: its range has one value", harmless=True)
        return
    log = scaling == "Logarithmic"
    if scaling == "Auto":
        log = low > 0 and high / low >= _WIDE
        word = "Logarithmic" if log else "Linear"
        notes.add("search_space", f"{name}: ScalingType Auto is taken as {word}", harmless=True)
    elif scaling == "ReverseLogarithmic":
        notes.add("search_space", f"{name}: ScalingType ReverseLogarithmic has no counterpart; "
                  "it is searched evenly (Linear)")  # fmt: skip
    elif scaling not in ("Linear", "Logarithmic"):
        notes.add("search_space", f"{name}: unknown ScalingType {scaling!r}; it is searched evenly (Linear)")
    if log and low <= 0:
        notes.add("search_space", f"{name}: a log range starts above 0; it begins at {_LEAST:g} instead of {low:g}")
        low = _LEAST
    space[name] = f"{_digits(low)}..{_digits(high)}{' log' if log else ''}"


def _digits(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.15g}"


def _number(name: str, value: Any) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{name}: {plain(repr(value))} is not a number")
    return number


def _choices(name: str, values: Sequence[str], fixed: dict[str, Value], space: dict[str, str]) -> None:
    made = list(dict.fromkeys(typed(name, value) for value in values))
    if len(made) == 1:
        fixed[name] = made[0]
    else:
        space[name] = "[" + ", ".join(map(_scalar, made)) + "]"


def _static(name: str, text: str, fixed: dict[str, Value], space: Mapping[str, str], notes: _Notes) -> None:
    if name in space:
        notes.add("hyperparameters", f"{name}: static ({text}) and searched; it is searched")
    elif name == "clip_gradient" and _number(name, text) <= 0:
        notes.add("hyperparameters", "clip_gradient: 0 is off", harmless=True)
    elif name in PARAMETERS and name != "seed":
        fixed[name] = typed(name, text)
    elif name == "sagemaker_compat":
        if text.lower() == "false":
            fixed.pop("shuffle"), fixed.pop("pad_last_batch")
    elif name in SCHEMA and SCHEMA[name].default == text:
        notes.add("hyperparameters", f"{name}: {text} is left out", harmless=True)
    elif name not in ("feature_dim", "_tuning_objective_metric", "batch_metrics_publish_interval"):
        notes.add("hyperparameters", f"{name}: {text} has no counterpart and is left out")


def _data(definition: Mapping[str, Any], feature_dim: Any, folder: str, notes: _Notes) -> list[str]:
    channels: dict[str, str] = {}
    for entry in definition.get("InputDataConfig") or ():
        name = str(entry.get("ChannelName"))
        uri = ((entry.get("DataSource") or {}).get("S3DataSource") or {}).get("S3Uri")
        if name not in ("train", "test"):
            notes.add("data", f"the channel {name!r} ({uri}) is left out: there are train and test")
            continue
        channels[name] = f"{folder}/{name}"
        notes.add("data", f"{name}: aws s3 cp --recursive {uri} {folder}/{name}", harmless=True)
    for name in ("train", "test"):
        if name not in channels:
            channels[name] = f"{folder}/{name}"
            notes.add("data", f"the job names no {name} channel; put its files into {folder}/{name}")
    lines = ["data:", *(f"  {name}: {_scalar(channels[name])}" for name in ("train", "test"))]
    return lines if feature_dim is None else [*lines, f"  feature_dim: {int(_number('feature_dim', feature_dim))}"]


def _strategy(config: Mapping[str, Any], notes: _Notes) -> list[str]:
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
    if early != "Auto":
        return [*lines, "pruner: none"]
    rule = "its rule, the median of running averages" if EARLY == "running_median" else "the median at the same epoch"
    notes.add("sampler", f"TrainingJobEarlyStoppingType Auto: {rule}; SageMaker itself has no test score before a "
              "job's end, here it is there after each epoch", harmless=EARLY == "running_median")  # fmt: skip
    return [*lines, f"pruner: {EARLY}"]


def _limits(config: Mapping[str, Any], space: Mapping[str, str], notes: _Notes) -> list[str]:
    limits = config.get("ResourceLimits") or {}
    count = limits.get("MaxNumberOfTrainingJobs")
    if count is None and config.get("Strategy") == "Grid":
        count = math.prod(form.count(",") + 1 for form in space.values() if form.startswith("["))
    lines = [] if count is None else [f"n_trials: {int(_number('MaxNumberOfTrainingJobs', count))}"]
    if count is None:
        notes.add("n_trials", "the job has no MaxNumberOfTrainingJobs: n_trials is 100")
    seconds = limits.get("MaxRuntimeInSeconds")
    if seconds is not None:
        lines.append(f"timeout: {_number('MaxRuntimeInSeconds', seconds):g}")
    parallel = limits.get("MaxParallelTrainingJobs")
    if parallel is not None:
        lines.append(f"pack: {min(256, int(_number('MaxParallelTrainingJobs', parallel)))}")
        notes.add("n_trials", "pack: as many trials at a time as the job had training jobs in parallel", harmless=True)
    if config.get("RandomSeed") is not None:
        lines.append(f"seed: {int(_number('RandomSeed', config['RandomSeed']))}")
    for key, value in (config.get("TuningJobCompletionCriteria") or {}).items():
        if value not in ({"CompleteOnConvergence": "Disabled"}, None):
            notes.add("n_trials", f"{key} {json.dumps(value)}: a study ends by n_trials or timeout only")
    return lines


def _warm_start(
    job: Mapping[str, Any], fixed: Mapping[str, Value], space: Mapping[str, str],
    parents: Mapping[str, Sequence[Mapping[str, Any]]], notes: _Notes,
) -> list[str]:  # fmt: skip
    """Return the parents' best configurations as those to try first, no more than the job tries."""
    warm = job.get("WarmStartConfig") or {}
    if not warm:
        return []
    queue: list[dict[str, Any]] = []
    for name in _parent_names(job):
        found = [{key: value for key, value in c.items() if key in space} for c in parents.get(name, ())]
        inside = [c for c in found if c and _fits(c, fixed, space)][:_QUEUED]
        queue += [c for c in inside if c not in queue]
        if not inside:
            notes.add("enqueue", f"warm start from {name}: no finished trial of it fits; run its study here first")
    limits = (job.get("HyperParameterTuningJobConfig") or {}).get("ResourceLimits") or {}
    most = int(_number("MaxNumberOfTrainingJobs", limits.get("MaxNumberOfTrainingJobs", len(queue))))
    queue = queue[: max(0, most)]
    if queue:
        notes.add("enqueue", f"warm start ({warm.get('WarmStartType')}): the best configurations of "
                  f"{', '.join(_parent_names(job))} are tried first; their scores are not taken over")  # fmt: skip
    return ["enqueue:", *(f"  - {json.dumps(c)}" for c in queue)] if queue else []


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


def _leftovers(
    job: Mapping[str, Any], config: Mapping[str, Any], definition: Mapping[str, Any], notes: _Notes
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


def _note_unknown(part: Mapping[str, Any], known: set[str], notes: _Notes) -> None:
    for key, value in part.items():
        if key not in known:
            notes.add("", f"{key} {json.dumps(value, default=str)[:200]} has no counterpart and is left out")
