"""Training job: SageMaker's CreateTrainingJob as a study around its own values, and a study's best as such a job's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmtune.errors import NoTrialError, UsageError
from fmtune.fm.hyperparameters import Value
from fmtune.sagemaker.hyperparameters import job_of
from fmtune.sagemaker.job_shape import check_shape
from fmtune.sagemaker.tuning_export import static_of
from fmtune.sagemaker.tuning_job import study_of
from fmtune.tune import collect
from fmtune.tune.places import command
from fmtune.tune.spec import Spec

_OBJECTIVES = {"regressor": "test:rmse", "binary_classifier": "test:binary_classification_cross_entropy"}
_SEARCHED = tuple(f"{array}_{what}" for what in ("lr", "wd") for array in ("bias", "linear", "factors"))
_AROUND = 100.0  # a range begins at this part of the job's own value, and ends at so many times it
_TRIALS = 100
_SHAPE: dict[str, Any] = {"HyperParameters": {}, "InputDataConfig": [{"DataSource": {"S3DataSource": {}}}],
                          "ResourceConfig": {}}  # fmt: skip


def study_around(job: Mapping[str, Any], data: str = "data") -> str:
    """Return the text of a study that searches rates and decays around a training job's own, which it tries first.

    Parameters
    ----------
    job
        JSON of CreateTrainingJob, or of its description.
    data
        As in ``tuning_job.study_of``.

    Raises
    ------
    UsageError
        It is none, or its hyperparameters are not those of a factorization machine.
    """
    check_shape(job, _SHAPE)
    if not job.get("HyperParameters"):
        raise UsageError("HyperParameters is missing", hint="give the JSON of CreateTrainingJob")
    final = job_of(job["HyperParameters"], "HyperParameters").final
    own = {name: final[name] for name in _SEARCHED if float(final[name]) > 0}
    ranges = [{"Name": name, "MinValue": f"{float(text) / _AROUND:.6g}", "MaxValue": f"{float(text) * _AROUND:.6g}",
               "ScalingType": "Logarithmic"} for name, text in own.items()]  # fmt: skip
    parts = {key: job[key] for key in ("InputDataConfig", "ResourceConfig") if job.get(key)}
    name = str(job.get("TrainingJobName") or "training-job")
    tuning = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "HyperParameterTuningJobObjective": {"MetricName": _OBJECTIVES[final["predictor_type"]]},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": _TRIALS},
            "ParameterRanges": {"ContinuousParameterRanges": ranges},
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": {key: text for key, text in job["HyperParameters"].items() if key not in own},
            **parts,
        },
    }
    return study_of(tuning, data=data, results={name: [(0.0, own)]})


def best_of(spec: Spec, trial: int | None = None, ours: bool = False, root: Path | None = None) -> dict[str, str]:
    """Return the HyperParameters of a training job that trains as a study's best trial, or another one, did.

    Issues ``DialectWarning`` for what SageMaker cannot do.

    Parameters
    ----------
    spec
    trial
        Its number; None is the best.
    ours
        Whether an image of fmtune's trains, which can do it.
    root
        Folder below which ``runs`` lies; None is the current one.

    Raises
    ------
    NoTrialError
        No trial is complete.
    UsageError
        That trial is not.
    """
    result = collect.collect(spec, root)
    complete = {one.number: one for one in result.cells[0].trials if one.state == "COMPLETE"} if result.cells else {}
    if result.best is None:
        raise NoTrialError("no trial is complete yet", where=str(spec.path), hint=command("run", spec.path))
    if trial is not None and trial not in complete:
        raise UsageError(f"trial {trial} is not complete", where=str(spec.path), hint="the report lists them all")
    chosen = result.best if trial is None else complete[trial]
    # As the study was begun: its file may have been changed since.
    values: dict[str, Value] = {**result.fixed, **chosen.params}
    if not values.get("seed"):
        values.pop("seed", None)  # 0 is nobody's wish
    if values.pop("patience", None) and chosen.best_epoch:
        values["epochs"] = chosen.best_epoch  # the model is that epoch's
    predictor_type = str(values.get("predictor_type", spec.predictor_type))
    return static_of(values, predictor_type, result.channels["train"]["feature_dim"], ours)
