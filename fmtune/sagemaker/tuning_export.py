"""Tuning export: a study file as SageMaker's CreateHyperParameterTuningJob.

What a tuning job cannot have is said with a ``DialectWarning``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from fmtune.errors import UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Value
from fmtune.sagemaker.dialect import DialectWarning, plain
from fmtune.sagemaker.hyperparameters import SCHEMA
from fmtune.sagemaker.logs import NAMES
from fmtune.sagemaker.tuning_job import OBJECTIVES
from fmtune.sagemaker.tuning_ranges import TUNABLE
from fmtune.tune.dimension import Dimension
from fmtune.tune.spec import Spec

_STRATEGY_OF = {"random": "Random", "qmc": "Random", "grid": "Grid", "brute_force": "Grid"}


def job_of(spec: Spec, image: str | None = None) -> dict[str, Any]:
    """Return CreateHyperParameterTuningJob for a study; what AWS alone knows stands in angle brackets.

    Issues ``DialectWarning`` for what a tuning job cannot have.

    Parameters
    ----------
    spec
    image
        URI of an image made of fmtune's Dockerfile, which takes and tunes what SageMaker's own does not; None is
        SageMaker's own.

    Raises
    ------
    UsageError
        The objective is not one that SageMaker tunes for, or nothing that is searched can be searched there.
    """
    if spec.objective not in OBJECTIVES:
        same = " (test:rmse ranks as test:mse does)" if spec.objective == "test:mse" else ""
        raise UsageError(f"SageMaker does not tune for {spec.objective}{same}", where=str(spec.path),
                         hint=f"it tunes for {', '.join(OBJECTIVES)}")  # fmt: skip
    fixed: dict[str, str] = {}
    ranges = _ranges(spec, image is not None, fixed)
    strategy = "Hyperband" if spec.pruner.name == "hyperband" else _STRATEGY_OF.get(spec.sampler.name, "Bayesian")
    if strategy == "Grid" and set(ranges) != {"CategoricalParameterRanges"}:
        raise UsageError("SageMaker's Grid takes lists of choices only", where=str(spec.path),
                         hint="write the searched parameters as lists of up to 30 values")  # fmt: skip
    config: dict[str, Any] = {
        "Strategy": strategy,
        "HyperParameterTuningJobObjective": {"Type": spec.direction.capitalize(), "MetricName": spec.objective},
        "ResourceLimits": _resource_limits(spec),
        "ParameterRanges": ranges,
        "TrainingJobEarlyStoppingType": "Off" if spec.pruner.name in ("none", "hyperband") else "Auto",
        "RandomSeed": spec.seed % 2**31,
    }
    if strategy == "Hyperband":
        given = {"MinResource": "min_resource", "MaxResource": "max_resource"}
        options = {key: spec.pruner.options.get(name) for key, name in given.items()}
        whole = {key: value for key, value in options.items() if isinstance(value, int)}
        config["StrategyConfig"] = {"HyperbandStrategyConfig": whole}
    if spec.enqueue:
        _lost(f"{len(spec.enqueue)} enqueued configurations: a tuning job tries none of its own")
    if spec.seeds > 1:
        _lost(f"seeds: {spec.seeds}; a training job trains once")
    name = re.sub(r"[^A-Za-z0-9]+", "-", spec.study_name).strip("-")[:32].rstrip("-")
    return {
        "HyperParameterTuningJobName": name or "x",
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": _definition(spec, image, fixed),
    }


def _lost(text: str) -> None:
    warnings.warn(plain(text), DialectWarning, stacklevel=3)


def _resource_limits(spec: Spec) -> dict[str, int]:
    limits = {
        "MaxNumberOfTrainingJobs": spec.n_trials,
        "MaxParallelTrainingJobs": min(100, spec.pack) if isinstance(spec.pack, int) else min(10, spec.n_trials),
    }
    if spec.timeout is not None:
        limits["MaxRuntimeInSeconds"] = int(min(max(spec.timeout, 120), 15_768_000))
    return limits


def _ranges(spec: Spec, ours: bool, fixed: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Return what is searched; what SageMaker's own image does not tune is put into ``fixed``."""
    made: dict[str, list[dict[str, Any]]] = {}
    for name, dimension in spec.search_space.items():
        if name not in SCHEMA or (SCHEMA[name].ours and not ours):
            _lost(f"{name}: SageMaker has no such hyperparameter; it is not searched ({dimension})")
        elif name not in TUNABLE and not ours:
            fixed[name] = _worded(_one(name, dimension))
            _lost(f"{name}: SageMaker does not tune it ({dimension}); it is fixed at {fixed[name]}: write what you "
                  "want below StaticHyperParameters, or tune with an image of fmtune's (--image)")  # fmt: skip
        else:
            kind, entry = _entry(name, dimension)
            made.setdefault(kind, []).append(entry)
            if not ours:
                _bounded(name, dimension)
    if not made:
        raise UsageError("nothing that is searched is a hyperparameter that SageMaker tunes", where=str(spec.path),
                         hint=f"it tunes {', '.join(TUNABLE)}; an image of fmtune's (--image) tunes more")  # fmt: skip
    return made


def _one(name: str, dimension: Dimension) -> Value:
    """Return the default, where it is among what is searched, else the first value that is."""
    default = PARAMETERS[name].default
    if dimension.holds(default):
        return default
    return dimension.low if dimension.choices is None else dimension.choices[0]


def _bounded(name: str, dimension: Dimension) -> None:
    """Say which values lie outside of what SageMaker's page has."""
    low, high = map(float, TUNABLE[name].removesuffix(" log").split(".."))
    values = [dimension.low, dimension.high] if dimension.choices is None else [*dimension.choices]
    if any(isinstance(value, (int, float)) and value and not low <= value <= high for value in values):
        _lost(f"{name}: {dimension} goes beyond what SageMaker's page has, {low:g} to {high:g}")


def _entry(name: str, dimension: Dimension) -> tuple[str, dict[str, Any]]:
    size = dimension.size
    listed = dimension.choices is not None or (dimension.step not in (None, 1) and size is not None and size <= 30)
    if listed and size is not None:
        return "CategoricalParameterRanges", {"Name": name, "Values": [_worded(dimension.nth(i)) for i in range(size)]}
    if dimension.step not in (None, 1):
        _lost(f"{name}: a range of SageMaker's has no step ({dimension})")
    kind = "IntegerParameterRanges" if dimension.type == "int" else "ContinuousParameterRanges"
    scaling = "Logarithmic" if dimension.log else "Linear"
    return kind, {"Name": name, "MinValue": _worded(dimension.low), "MaxValue": _worded(dimension.high),
                  "ScalingType": scaling}  # fmt: skip


def _worded(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# What SageMaker does always, and what to do about it where a study does otherwise.
_ALWAYS: dict[str, tuple[Value, str]] = {
    "shuffle": ("none", "SageMaker takes rows in the file's order: shuffle the file"),
    "pad_last_batch": (True, "SageMaker fills the last mini-batch up with rows of zeros"),
    "lazy": (True, "SageMaker's Adam is lazy for sparse data"),
    "optimizer": ("adam", "SageMaker has Adam"),
}


def static_of(
    values: Mapping[str, Value], predictor_type: str, feature_dim: int | str, ours: bool, searched: Collection[str] = ()
) -> dict[str, str]:  # fmt: skip
    """Return the hyperparameters of a job as SageMaker has them, texts; issues ``DialectWarning``.

    Parameters
    ----------
    values
        The study's, without those that are searched.
    predictor_type, feature_dim
        SageMaker requires both.
    ours
        Whether an image of fmtune's is to train.
    searched
        Names of those that are.
    """
    static = {"feature_dim": str(feature_dim), "predictor_type": predictor_type}
    if ours:
        static["sagemaker_compat"] = "false"
    for name, value in values.items():
        if name in SCHEMA and (ours or not SCHEMA[name].ours):
            static |= {} if value is None else {name: _worded(value)}
        elif name not in _ALWAYS:
            _lost(f"{name}: {value}; SageMaker has no such hyperparameter")
    for name, (value, words) in ({} if ours else _ALWAYS).items():
        mine = values.get(name, PARAMETERS[name].default)
        if mine != value and name not in searched:
            _lost(f"{name}: {_worded(mine)}; {words}")
    if "num_factors" not in {*static, *searched}:
        static["num_factors"] = str(PARAMETERS["num_factors"].default)
    return static


def _definition(spec: Spec, image: str | None, fixed: dict[str, str]) -> dict[str, Any]:
    if spec.data.feature_dim is None:
        _lost("feature_dim: SageMaker requires it, and the study leaves it open: write it below StaticHyperParameters")
    static = static_of(spec.hyperparameters, spec.predictor_type, spec.data.feature_dim or "<feature_dim>",
                       image is not None, spec.search_space)  # fmt: skip
    algorithm = {"TrainingImage": image or "<account>.dkr.ecr.<region>.amazonaws.com/factorization-machines:1",
                 "TrainingInputMode": "File"}  # fmt: skip
    # SageMaker knows what its own image prints.
    metrics = {} if image is None else {"MetricDefinitions": [metric_definition(spec.objective)]}
    return {
        "StaticHyperParameters": static | fixed,
        "AlgorithmSpecification": algorithm | metrics,
        "InputDataConfig": [_channel(name) for name in ("train", "test")],
        "OutputDataConfig": {"S3OutputPath": "s3://<bucket>/<prefix>/output"},
        "ResourceConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "RoleArn": "arn:aws:iam::<account>:role/<role>",
        "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    }  # fmt: skip


def metric_definition(objective: str) -> dict[str, str]:
    """Return how a score on the test channel is found in the log of a container."""
    name, kind = NAMES[objective.removeprefix("test:")]
    return {"Name": objective, "Regex": rf"#quality_metric: host=\S+, test {name} <{kind}>=(\S+)"}


def _channel(name: str) -> dict[str, Any]:
    place = {
        "S3DataType": "S3Prefix", "S3Uri": f"s3://<bucket>/<prefix>/{name}",
        "S3DataDistributionType": "FullyReplicated",
    }  # fmt: skip
    content = "application/x-recordio-protobuf"
    return {"ChannelName": name, "ContentType": content, "DataSource": {"S3DataSource": place}}
