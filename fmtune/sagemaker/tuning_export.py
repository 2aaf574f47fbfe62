"""Tuning export: a study file as SageMaker's CreateHyperParameterTuningJob.

What a tuning job cannot have is said with a ``DialectWarning``.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

from fmtune.errors import UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Value
from fmtune.sagemaker.hyperparameters import SCHEMA
from fmtune.sagemaker.tuning_job import OBJECTIVES, DialectWarning, plain
from fmtune.tune.dimension import Dimension
from fmtune.tune.spec import Spec

_STRATEGY_OF = {"random": "Random", "qmc": "Random", "grid": "Grid", "brute_force": "Grid"}


def job_of(spec: Spec) -> dict[str, Any]:
    """Return CreateHyperParameterTuningJob for a study; what AWS alone knows stands in angle brackets.

    Issues ``DialectWarning`` for what a tuning job cannot have.

    Raises
    ------
    UsageError
        The objective is not one that SageMaker tunes for, or nothing searched is a hyperparameter of SageMaker's.
    """
    if spec.objective not in OBJECTIVES:
        same = " (test:rmse ranks as test:mse does)" if spec.objective == "test:mse" else ""
        raise UsageError(f"SageMaker does not tune for {spec.objective}{same}", where=str(spec.path),
                         hint=f"it tunes for {', '.join(OBJECTIVES)}")  # fmt: skip
    ranges = _ranges(spec)
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
        "TrainingJobDefinition": _definition(spec),
    }


def _lost(text: str) -> None:
    warnings.warn(plain(text), DialectWarning, stacklevel=3)


def _resource_limits(spec: Spec) -> dict[str, int]:
    limits = {
        "MaxNumberOfTrainingJobs": spec.n_trials,
        "MaxParallelTrainingJobs": spec.pack if isinstance(spec.pack, int) else min(10, spec.n_trials),
    }
    if spec.timeout is not None:
        limits["MaxRuntimeInSeconds"] = int(min(max(spec.timeout, 120), 15_768_000))
    return limits


def _ranges(spec: Spec) -> dict[str, list[dict[str, Any]]]:
    made: dict[str, list[dict[str, Any]]] = {}
    for name, dimension in spec.search_space.items():
        if name not in SCHEMA or SCHEMA[name].ours:
            _lost(f"{name}: SageMaker has no such hyperparameter; it is not searched ({dimension})")
            continue
        kind, entry = _entry(name, dimension)
        made.setdefault(kind, []).append(entry)
    if not made:
        raise UsageError("nothing that is searched is a hyperparameter of SageMaker's", where=str(spec.path))
    return made


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


_SAGEMAKERS = (("shuffle", "none"), ("pad_last_batch", True), ("lazy", True), ("optimizer", "adam"))


def _definition(spec: Spec) -> dict[str, Any]:
    static: dict[str, str] = {"feature_dim": str(spec.data.feature_dim or "<feature_dim>")}
    for name, value in spec.hyperparameters.items():
        if name not in SCHEMA or SCHEMA[name].ours:
            if (name, value) not in _SAGEMAKERS:
                _lost(f"{name}: {value}; SageMaker has no such hyperparameter")
        elif value is not None:
            static[name] = _worded(value)
    if "num_factors" not in {*static, *spec.search_space}:
        static["num_factors"] = str(PARAMETERS["num_factors"].default)
    return {
        "StaticHyperParameters": static,
        "AlgorithmSpecification": {
            "TrainingImage": "<account>.dkr.ecr.<region>.amazonaws.com/factorization-machines:1",
            "TrainingInputMode": "File",
        },
        "InputDataConfig": [_channel(name) for name in ("train", "test")],
        "OutputDataConfig": {"S3OutputPath": "s3://<bucket>/<prefix>/output"},
        "ResourceConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "RoleArn": "arn:aws:iam::<account>:role/<role>",
        "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    }  # fmt: skip


def _channel(name: str) -> dict[str, Any]:
    place = {
        "S3DataType": "S3Prefix", "S3Uri": f"s3://<bucket>/<prefix>/{name}",
        "S3DataDistributionType": "FullyReplicated",
    }  # fmt: skip
    content = "application/x-recordio-protobuf"
    return {"ChannelName": name, "ContentType": content, "DataSource": {"S3DataSource": place}}
