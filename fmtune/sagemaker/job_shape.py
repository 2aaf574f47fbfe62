"""Job shape: which parts of a tuning job's JSON are objects and which are lists, checked before any is looked into."""

from __future__ import annotations

from typing import Any

from fmtune.errors import UsageError

_RANGES: dict[str, Any] = {
    f"{kind}ParameterRanges": [{}] for kind in ("Continuous", "Integer")
}  # fmt: skip
_RANGES |= {"CategoricalParameterRanges": [{"Values": []}], "AutoParameters": [{}]}
_DEFINITION: dict[str, Any] = {
    "StaticHyperParameters": {}, "HyperParameterRanges": _RANGES, "TuningObjective": {}, "ResourceConfig": {},
    "InputDataConfig": [{"DataSource": {"S3DataSource": {}}}],
}  # fmt: skip
SHAPE: dict[str, Any] = {
    "HyperParameterTuningJobConfig": {
        "HyperParameterTuningJobObjective": {}, "ResourceLimits": {}, "ParameterRanges": _RANGES,
        "StrategyConfig": {"HyperbandStrategyConfig": {}}, "TuningJobCompletionCriteria": {},
    },
    "TrainingJobDefinition": _DEFINITION,
    "TrainingJobDefinitions": [_DEFINITION],
    "BestTrainingJob": {"TunedHyperParameters": {}},
    "OverallBestTrainingJob": {"TunedHyperParameters": {}},
    "WarmStartConfig": {"ParentHyperParameterTuningJobs": [{}]},
}  # fmt: skip
"""An object's parts by name, or a list of parts; what is not named may be anything."""


def check_shape(value: Any, shape: Any = SHAPE, path: str = "") -> None:
    """Raise UsageError, with the part's path, for one that is no object, or no list, where one belongs.

    A part that is left out, or null, is one that is not there.
    """
    if not isinstance(value, type(shape)):
        kind = "an object" if isinstance(shape, dict) else "a list"
        hint = "give the JSON of CreateHyperParameterTuningJob"
        raise UsageError(f"{path or 'the tuning job'} is not {kind}", hint=hint)
    if isinstance(shape, list):
        for at, one in enumerate(value if shape else ()):
            check_shape(one, shape[0], f"{path}[{at}]")
        return
    for name, inner in shape.items():
        if value.get(name) is not None:
            check_shape(value[name], inner, f"{path}.{name}" if path else name)
