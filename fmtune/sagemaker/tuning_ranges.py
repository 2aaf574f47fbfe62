"""Tuning ranges: a job's static hyperparameters and ranges as a study's hyperparameters and search space."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fmtune.errors import UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Value
from fmtune.sagemaker.dialect import Notes, number, scalar
from fmtune.sagemaker.hyperparameters import SCHEMA, typed, unsaid
from fmtune.tune import dimension, effect, yamlfile
from fmtune.tune.dimension import SEARCHABLE, Dimension

_POSITIVE = "1e-8..512 log"
_NUMBERS = tuple(
    f"{group}_{what}" for group in ("bias", "linear", "factors")
    for what in ("lr", "wd", "init_scale", "init_sigma", "init_value")
)  # fmt: skip
TUNABLE: dict[str, str] = {
    **dict.fromkeys(_NUMBERS, _POSITIVE), "epochs": "1..1000 log", "mini_batch_size": "100..10000 log",
}  # fmt: skip
"""What SageMaker documents as tunable, with the ranges that it recommends."""

_WIDE = 100.0  # from this ratio of its ends on a range of ScalingType Auto is searched on a log scale
_LEAST = 1e-8


def parameters(
    static: Mapping[str, Any], ranges: Mapping[str, Any], notes: Notes
) -> tuple[dict[str, Value], dict[str, str]]:
    """Return fixed values and the search space in the file's own form.

    Raises
    ------
    UsageError
        A range that is none, two for one parameter, or nothing to search.
    """
    fixed: dict[str, Value] = {"shuffle": "none", "pad_last_batch": True}
    notes.add("hyperparameters", "shuffle and pad_last_batch are set so that training is SageMaker's; for dense data "
              "add 'lazy: false' and 'matrix: {layout: [dense]}'", harmless=True)  # fmt: skip
    space: dict[str, str] = {}
    ranged: set[str] = set()

    def entries(key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for entry in ranges.get(key) or ():
            name = _name(entry, notes)
            if name in ranged:
                raise UsageError(f"{name} has two ranges", hint="a tuning job has one range for each hyperparameter")
            if name is not None:
                ranged.add(name)
                yield name, entry

    for kind, key in (("continuous", "ContinuousParameterRanges"), ("integer", "IntegerParameterRanges")):
        for name, entry in entries(key):
            _range(name, kind, entry, fixed, space, notes)
    for name, entry in entries("CategoricalParameterRanges"):
        _choices(name, [str(v) for v in entry.get("Values") or ()], fixed, space)
    for name, entry in entries("AutoParameters"):
        if name in TUNABLE:
            space[name] = TUNABLE[name]
            hint = entry.get("ValueHint")
            notes.add("search_space", f"{name}: its range is left to SageMaker (hint {hint!r}); "
                      "the recommended one is taken")  # fmt: skip
        else:
            notes.add("search_space", f"{name}: SageMaker was to choose its range; write one here to search it")
    for name, value in static.items():
        name = "epochs" if name == "epoch" else name
        if name in ranged and name in fixed:
            notes.add("hyperparameters", f"{name}: static ({value}) and in a range of one value, which counts")
        else:
            _static(name, str(value), fixed, space, notes)
    vain = [*effect.idle(_dimensions(space), fixed)]
    for fault in vain:
        notes.add("search_space", f"{fault.what}; it is left out")
        del space[str(fault.at[0])]
    if not space:
        why = "; ".join(fault.what for fault in vain) or "no range is for a hyperparameter that is searched here"
        raise UsageError(f"the job leaves nothing to search: {why}", hint="give the job a range that has an effect")
    for text in unsaid({**dict.fromkeys(space), **fixed}):
        notes.add("hyperparameters", text)
    if "num_factors" not in {*fixed, *space}:
        default = PARAMETERS["num_factors"].default
        notes.add("hyperparameters", f"num_factors is required by SageMaker, and the job has none: it is {default}")
    return fixed, space


def _dimensions(space: Mapping[str, str]) -> dict[str, Dimension]:
    """Return those of a search space in the file's form that are sound."""
    made = {name: dimension.parse(name, yamlfile.load(form, "").value)[0] for name, form in space.items()}
    return {name: found for name, found in made.items() if found is not None}


def _name(entry: Mapping[str, Any], notes: Notes) -> str | None:
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
    name: str, kind: str, entry: Mapping[str, Any], fixed: dict[str, Value], space: dict[str, str], notes: Notes
) -> None:
    low, high = (number(name, entry.get(key)) for key in ("MinValue", "MaxValue"))
    scaling = str(entry.get("ScalingType") or "Auto")
    if PARAMETERS[name].open_low and low <= 0 < high:
        notes.add("search_space", f"{name}: begins at {_LEAST:g} instead of {low:g}, which is off")
        low = _LEAST
    if kind == "integer":
        low, high = math.ceil(low), math.floor(high)
    if low == high:
        fixed[name] = low
        notes.add("hyperparameters", f"{name}: its range has one value, {_digits(low)}", harmless=True)
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


def _choices(name: str, values: Sequence[str], fixed: dict[str, Value], space: dict[str, str]) -> None:
    made = list(dict.fromkeys(typed(name, value) for value in values))
    if len(made) == 1:
        fixed[name] = made[0]
    else:
        space[name] = "[" + ", ".join(map(scalar, made)) + "]"


def _static(name: str, text: str, fixed: dict[str, Value], space: Mapping[str, str], notes: Notes) -> None:
    if name in space:
        notes.add("hyperparameters", f"{name}: static ({text}) and searched; it is searched")
    elif name == "clip_gradient" and number(name, text) <= 0:
        notes.add("hyperparameters", "clip_gradient: 0 is off", harmless=True)
    elif name in PARAMETERS and name != "seed":
        fixed[name] = typed(name, text)
    elif name == "sagemaker_compat":
        if text.lower() == "false":
            fixed.pop("shuffle"), fixed.pop("pad_last_batch")
    elif name in SCHEMA and SCHEMA[name].default == text:
        notes.add("hyperparameters", f"{name}: {text} is left out", harmless=True)
    elif name in ("_learning_rate", "_wd"):
        what = "learning rates (bias_lr, linear_lr, factors_lr)" if name == "_learning_rate" else "decays (*_wd)"
        notes.add("hyperparameters", f"{name}: {text} multiplies all {what}, which is not done here: multiply them and "
                  "their ranges in this file")  # fmt: skip
    elif name not in ("feature_dim", "_tuning_objective_metric", "batch_metrics_publish_interval"):
        near = difflib.get_close_matches(name, SCHEMA, 1) if name not in SCHEMA else []
        meant = f"; did you mean {near[0]!r}?" if near else ""
        notes.add("hyperparameters", f"{name}: {text} has no counterpart and is left out{meant}")
