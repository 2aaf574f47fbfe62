"""Hyperparameters of a job: SageMaker's JSON of strings, checked as its container checks it, and what they mean here.

``SCHEMA`` is the one table: SageMaker's names and defaults (the container's default-conf.json), its undocumented
knobs, and what only fmtune has.  Faults have the words of the container's, and all of them are found at once.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fmtune.data.canonical import LARGEST_DIM
from fmtune.errors import UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Hyperparameters, Value

_METHODS = ("normal", "uniform", "constant")
_INT = r"^([1-9][0-9]*)$"
_FLOAT = r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"


class Row(NamedTuple):
    """One hyperparameter: ``int``, ``float``, ``bool`` or ``text``; the container's default as text, if it has one.

    ``accepted`` are the only values that mean something here, of knobs that the container has and fmtune has not.
    """

    kind: str
    default: str | None = None
    low: float | None = None
    choices: tuple[str, ...] = ()
    ours: bool = False
    accepted: tuple[str, ...] = ()


_GROUPS = {
    "bias": ("0.1", "0.01", "0.01"), "linear": ("0.001", "0.001", "0.01"), "factors": ("0.0001", "0.00001", "0.001"),
}  # fmt: skip
"""Default rate, decay and sigma of each group of weights."""


def _init(name: str, sigma: str) -> dict[str, Row]:
    return {
        f"{name}_init_method": Row("text", "normal", choices=_METHODS),
        f"{name}_init_sigma": Row("float", sigma, 0.0),
        f"{name}_init_scale": Row("float", None, 0.0),
        f"{name}_init_value": Row("float"),
    }


# In the order of the container's default-conf.json, then of what users provide: an artifact's meta.json keeps it.
SCHEMA: dict[str, Row] = {
    "epochs": Row("int", "1", 1),
    "mini_batch_size": Row("int", "1000", 1),
    "use_bias": Row("bool", "true"),
    "use_linear": Row("bool", "true"),
    **{f"{name}_lr": Row("float", lr, 0.0) for name, (lr, _, _) in _GROUPS.items()},
    **{f"{name}_wd": Row("float", wd, 0.0) for name, (_, wd, _) in _GROUPS.items()},
    **{key: row for name, (_, _, sigma) in _GROUPS.items() for key, row in _init(name, sigma).items()},
    "batch_metrics_publish_interval": Row("int", "500", 1),
    "_data_format": Row("text", "record", accepted=("record",)),
    "_kvstore": Row("text", "auto"),
    "_learning_rate": Row("float", "1.0", 0.0),
    "_log_level": Row("text", "info"),
    "_num_gpus": Row("text", "auto"),
    "_num_kv_servers": Row("text", "auto"),
    "_optimizer": Row("text", "adam", accepted=("adam",)),
    "_tuning_objective_metric": Row("text", ""),
    "_use_full_symbolic": Row("text", "true"),
    "_wd": Row("float", "1.0", 0.0),
    "feature_dim": Row("int", low=1),
    "num_factors": Row("int", low=1),
    "predictor_type": Row("text", choices=("binary_classifier", "regressor")),
    "clip_gradient": Row("float"),
    "eps": Row("float"),
    "rescale_grad": Row("float"),
    "sagemaker_compat": Row("bool", ours=True),
    "optimizer": Row("text", choices=PARAMETERS["optimizer"].choices, ours=True),
    "linear_l1": Row("float", None, 0.0, ours=True),
    "factors_l1": Row("float", None, 0.0, ours=True),
    "lazy": Row("bool", ours=True),
    "shuffle": Row("text", choices=PARAMETERS["shuffle"].choices, ours=True),
    "pad_last_batch": Row("bool", ours=True),
    "seed": Row("text", ours=True),
    "shuffle_seed": Row("text", ours=True),
}

REQUIRED = ("feature_dim", "num_factors", "predictor_type")
DEFAULTS = {name: row.default for name, row in SCHEMA.items() if row.default is not None}


@dataclass(frozen=True)
class Job:
    """One job's configuration.

    Attributes
    ----------
    final : dict
        Every value as text, the container's defaults below the given ones.
    feature_dim, interval : int
        ``interval`` is ``batch_metrics_publish_interval``.
    """

    final: dict[str, str]
    feature_dim: int
    interval: int

    @property
    def compat(self) -> bool:
        """Whether the job is trained as SageMaker trains it (``sagemaker_compat``, on unless turned off)."""
        return _flag(self.final.get("sagemaker_compat", "true"))

    def doubts(self) -> Iterator[str]:
        """Yield what the job may not mean as it is taken here, in words."""
        yield from unsaid(self.final)
        if self.final["_num_gpus"] not in ("auto", "0"):
            yield f"_num_gpus is {self.final['_num_gpus']}, and training is on the processor"

    def model_settings(self, dense: bool) -> Hyperparameters:
        """Return what trains here.

        With ``sagemaker_compat`` the rows are taken in the file's order, the last mini-batch is padded, and a
        dense network's Adam is not lazy; what the job itself says of these counts more.

        Raises
        ------
        UsageError
            A value that the container would take and that means nothing: a rate of zero for ``eps``.
        """
        values: dict[str, Value] = {}
        if self.compat:
            values = {"shuffle": "none", "pad_last_batch": True, "lazy": not dense}
        for name, text in self.final.items():
            if name in PARAMETERS:
                values[name] = typed(name, text)
        if float(self.final.get("clip_gradient", 0.0)) <= 0.0:
            values["clip_gradient"] = None  # MXNet: none, 0 and less are off
        for group in ("bias", "linear", "factors"):
            for what, base in (("lr", "_learning_rate"), ("wd", "_wd")):
                values[f"{group}_{what}"] = float(self.final[f"{group}_{what}"]) * float(self.final[base])
        return Hyperparameters.of(values)


def unsaid(given: Mapping[str, object]) -> Iterator[str]:
    """Yield which initial values are asked for by a method whose number is not given.

    SageMaker has no default for them; fmtune has.
    """
    for array in ("bias", "linear", "factors"):
        method = given.get(f"{array}_init_method")
        name = f"{array}_init_{'value' if method == 'constant' else 'scale'}"
        if method not in ("constant", "uniform") or name in given:
            continue
        flat = "; factors that are all 0 stay so, and only the linear model is trained" if name[0] == "f" else ""
        yield (f"{array}_init_method is {method} and {name} is not given: it is {PARAMETERS[name].default}"
               + (flat if method == "constant" else ""))  # fmt: skip


def typed(name: str, text: str) -> Value:
    """Return a value of ``PARAMETERS`` from its text.

    Raises
    ------
    UsageError
        The text is no such value.
    """
    kind = PARAMETERS[name].type
    try:
        if kind is bool:
            return _flag(text)
        return text if kind is str else kind(text)
    except ValueError as error:
        raise UsageError(f"{name} cannot be {text!r}") from error


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def job_of(provided: Mapping[str, Any], where: str = "hyperparameters.json") -> Job:
    """Return the configuration of a job.

    Parameters
    ----------
    provided
        What hyperparameters.json holds: text, or numbers.
    where
        What messages call it.

    Raises
    ------
    UsageError
        One fault or more, in the container's words; the first is ``what``, the hint has the others.
    """
    given = {name: _text(value) for name, value in provided.items()}
    faults = list(_faults(given))
    if faults:
        raise UsageError("\n".join(fault for fault, _ in faults), where=where,
                         hint="; ".join(dict.fromkeys(hint for _, hint in faults if hint)) or None)  # fmt: skip
    final = {**DEFAULTS, **given}
    return Job(final, int(final["feature_dim"]), int(final["batch_metrics_publish_interval"]))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def _faults(given: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """Yield the faults and what to do about each."""
    unknown = [name for name in given if name not in SCHEMA]
    if unknown:
        verb = "was" if len(unknown) == 1 else "were"
        near = {name: difflib.get_close_matches(name, SCHEMA, 1) for name in unknown}
        hints = [f"did you mean {found[0]!r} instead of {name!r}?" for name, found in near.items() if found]
        names = ", ".join(map(repr, unknown))
        yield f"Additional properties are not allowed ({names} {verb} unexpected)", " ".join(hints) or None
    for name in REQUIRED:
        if name not in given:
            yield f"No value(s) were specified for {name!r} which are required hyperparameter(s)", f"set {name}"
    for name, text in given.items():
        if name in SCHEMA and (fault := _fault(name, SCHEMA[name], text)):
            yield fault


def _fault(name: str, row: Row, text: str) -> tuple[str, str | None] | None:
    if row.choices and text not in row.choices:
        near = difflib.get_close_matches(text, row.choices, 1)
        hint = f"{name}: did you mean {near[0]!r}?" if near else None
        return _said(f"{text!r} is not one of {list(row.choices)}", "enum", name,
                     {"enum": list(row.choices), "type": "string"}, text), hint  # fmt: skip
    if row.accepted and text not in row.accepted:
        return f"{text!r} is not supported for {name!r}; it must be {row.accepted[0]!r}", f"leave {name} out"
    if row.kind == "bool" and text.lower() not in ("true", "false"):
        return _said(f"{text!r} is not one of ['true', 'false']", "enum", name, {"enum": ["true", "false"]}, text), None
    if row.kind == "int" and not (re.fullmatch(_INT, text) and len(text) < 19):
        schema = {"oneOf": [{"pattern": _INT, "type": "string"}, {"minimum": 1, "type": "integer"}]}
        return _said(f"{text!r} is not valid under any of the given schemas", "oneOf", name, schema, text), None
    if row.kind == "float" and not _is_float(text, row.low):
        number = {"type": "number"} if row.low is None else {"minimum": row.low, "type": "number"}
        schema = {"oneOf": [{"pattern": _FLOAT, "type": "string"}, number]}
        return _said(f"{text!r} is not valid under any of the given schemas", "oneOf", name, schema, text), None
    if name == "feature_dim" and int(text) > LARGEST_DIM:
        return f"feature_dim {text} is beyond the {LARGEST_DIM} features that can be numbered", None
    if name in PARAMETERS:
        return _unusable(name, text)
    return None


def _unusable(name: str, text: str) -> tuple[str, str | None] | None:
    """Return why a value of the right form cannot be trained with."""
    if name == "clip_gradient":
        return None  # 0 and less mean off
    try:
        Hyperparameters.of({name: typed(name, text)})
    except UsageError as error:
        return error.what, None
    return None


def _is_float(text: str, low: float | None) -> bool:
    return bool(re.fullmatch(_FLOAT, text)) and math.isfinite(float(text)) and (low is None or float(text) >= low)


def _said(what: str, rule: str, name: str, schema: Mapping[str, Any], value: str) -> str:
    """Return a fault as the container's schema checker prints it."""
    return (
        f"{what}\n\nFailed validating {rule!r} in schema['properties'][{name!r}]:\n    {dict(schema)!r}\n\n"
        f"On instance[{name!r}]:\n    {value!r}"
    )
