"""The shape of a tuning job: each part that is no object, or no list, is named by its path."""

from __future__ import annotations

from typing import Any

import pytest

from fmtune.errors import UsageError
from fmtune.sagemaker.job_shape import check_shape

CONFIG, DEFINITION = "HyperParameterTuningJobConfig", "TrainingJobDefinition"
RANGES = ["ContinuousParameterRanges[]", "ContinuousParameterRanges[].", "IntegerParameterRanges[]",
          "IntegerParameterRanges[].", "CategoricalParameterRanges[]", "CategoricalParameterRanges[].",
          "CategoricalParameterRanges[].Values[]", "AutoParameters[]", "AutoParameters[]."]  # fmt: skip
INNER = ["StaticHyperParameters", "TuningObjective", "ResourceConfig", "InputDataConfig[]", "InputDataConfig[].",
         "InputDataConfig[].DataSource", "InputDataConfig[].DataSource.S3DataSource", "HyperParameterRanges",
         *(f"HyperParameterRanges.{name}" for name in RANGES)]  # fmt: skip
PATHS = [
    CONFIG, *(f"{CONFIG}.{name}" for name in (
        "HyperParameterTuningJobObjective", "ResourceLimits", "StrategyConfig",
        "StrategyConfig.HyperbandStrategyConfig",
        "TuningJobCompletionCriteria", "ParameterRanges", *(f"ParameterRanges.{name}" for name in RANGES))),
    DEFINITION, *(f"{DEFINITION}.{name}" for name in INNER),
    f"{DEFINITION}s[]", f"{DEFINITION}s[].", *(f"{DEFINITION}s[].{name}" for name in INNER),
    "WarmStartConfig", "WarmStartConfig.ParentHyperParameterTuningJobs[]",
    "WarmStartConfig.ParentHyperParameterTuningJobs[].",
]  # fmt: skip
"""Paths of parts; ``[]`` behind the last name is a list itself, ``[].`` at the end one of its objects."""


def nested(path: str, value: Any) -> tuple[Any, str]:
    """Return a job in which the part at a path has a value, and the path as messages write it."""
    place = path.removesuffix("[]").removesuffix(".")
    made, names = value, place.replace("[]", ".[]").split(".")
    for name in reversed(names):
        made = [{}, made] if name == "[]" else {name: made}
    return made, place.replace("[]", "[1]")


@pytest.mark.parametrize("path", PATHS)
def test_a_part_of_another_kind_is_named(path: str) -> None:
    """What is left out, or null, is not there; an empty one is fine."""
    lists = path.endswith("[]")
    for wrong in ("x", 7, {} if lists else []):
        job, place = nested(path, wrong)
        with pytest.raises(UsageError) as error:
            check_shape(job)
        assert str(error.value) == (
            f"{place} is not {'a list' if lists else 'an object'}\n"
            "  hint: give the JSON of CreateHyperParameterTuningJob"
        )
    for right in ([] if lists else {}, *([] if path.endswith("[].") else [None])):
        check_shape(nested(path, right)[0])


def test_a_job_is_an_object_itself() -> None:
    """Whatever else it may hold."""
    with pytest.raises(UsageError) as error:
        check_shape([])
    assert error.value.what == "the tuning job is not an object"
    check_shape({"Other": 7, CONFIG: {"Strategy": []}})
