"""Dimension: one searched parameter, from its shorthand or long form to one frozen value.

``1e-4..1 log``, ``2..32``, ``2..64 step 2``, ``[adam, adagrad]``, and ``{low: 2, high: 32, log: true}`` all
become the same thing; what is left out follows from the parameter's own row in ``PARAMETERS``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fmtune.errors import UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Parameter, Value, check
from fmtune.tune.places import Wrong, shown, suggestion
from fmtune.tune.yamlfile import number_in, unquoted

FIXED = {
    "predictor_type": "predictor_type follows from the objective and is not searched",
    "seed": "seed is not searched; 'seeds: 3' trains every trial with three seeds",
}
SEARCHABLE = tuple(name for name in PARAMETERS if name not in FIXED)
KEYS = ("type", "low", "high", "step", "log", "choices")

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_TAIL = rf"(?:\s+log|\s+step\s+{_NUMBER})*"
RANGE_PATTERN = rf"^\s*{_NUMBER}\s*\.\.\s*{_NUMBER}{_TAIL}\s*$"  # for the JSON Schema
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})({_TAIL})\s*")
FORMS = "1e-4..1 log, 2..32, 2..64 step 2, or a list of choices"


@dataclass(frozen=True)
class Dimension:
    """One searched parameter.

    Attributes
    ----------
    type : str
        ``int``, ``float`` or ``categorical``.
    low, high : number or None
        Both ends, included; None for categorical.
    step : number or None
        Distance of the values from low on; None is every value (every whole one for int).
    log : bool
        Searched on a logarithmic scale.
    choices : tuple or None
        The values of categorical.
    """

    type: str
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    choices: tuple[Value, ...] | None = None

    def __str__(self) -> str:
        """The shorthand that reads as this dimension."""
        if self.choices is not None:
            return "[" + ", ".join("null" if c is None else str(c) for c in self.choices) + "]"
        tail = " log" if self.log else f" step {self.step:g}" if self.step is not None else ""
        return f"{self.low:.15g}..{self.high:.15g}{tail}"

    @property
    def size(self) -> int | None:
        """How many values there are, or None where they are not to be listed (a float without step)."""
        if self.choices is not None:
            return len(self.choices)
        if self.low is None or self.high is None or (self.type == "float" and self.step is None):
            return None
        return int((_exact(self.high) - _exact(self.low)) / _exact(self.step or 1)) + 1

    def nth(self, index: int) -> Value:
        """Return the value at an index from 0 to size - 1; only where there is a size."""
        if self.choices is not None:
            return self.choices[index]
        kind = int if self.type == "int" else float
        return kind(_exact(self.low or 0) + index * _exact(self.step or 1))

    def holds(self, value: Value) -> bool:
        """Return whether a checked value lies inside: in the range and on the step, or among the choices."""
        if self.choices is not None:
            return any(type(c) is type(value) and c == value for c in self.choices)
        if not isinstance(value, (int, float)) or self.low is None or self.high is None:
            return False
        on_step = self.step is None or (_exact(value) - _exact(self.low)) % _exact(self.step) == 0
        return self.low <= value <= self.high and on_step


def parse(name: str, raw: Any) -> tuple[Dimension | None, list[Wrong]]:
    """Return the dimension that a study file gives for one of ``SEARCHABLE``, or all that is wrong."""
    row = PARAMETERS[name]
    long, wrong = _long_form(name, row, raw)
    if wrong and not isinstance(raw, dict):
        return None, wrong
    typed = list(_type_faults(name, row, long))
    wrong += typed
    if not typed:
        at = () if isinstance(raw, list) else ("choices",)
        chosen = "choices" in long
        faults = _choice_faults(name, row, long["choices"], at) if chosen else _range_faults(name, long)
        wrong += faults
    if wrong:
        return None, wrong
    if "choices" in long:
        return Dimension("categorical", choices=tuple(check(name, c) for c in long["choices"])), []
    kind = int if row.type is int else float
    step = long.get("step")
    return Dimension("int" if row.type is int else "float", kind(long["low"]), kind(long["high"]),
                     None if step is None else kind(step), bool(long.get("log", False))), []


def _long_form(name: str, row: Parameter, raw: Any) -> tuple[dict[str, Any], list[Wrong]]:
    if isinstance(raw, list):
        return {"choices": raw}, []
    if isinstance(raw, dict):
        hint = f"a dimension has {', '.join(KEYS)}"
        wrong = [Wrong((key,), f"unknown key {shown(key)}{suggestion(key, KEYS)}", hint, key=True)
                 for key in raw if key not in KEYS]
        return {key: value for key, value in raw.items() if key in KEYS and value is not None}, wrong
    match = _RANGE.fullmatch(raw) if isinstance(raw, str) and len(raw) < 200 else None
    if match is None:
        hint = f"write {FORMS}"
        if not isinstance(raw, str) and raw is not None:
            hint = f"to fix it at {raw!r}, put it under hyperparameters; to search, write {FORMS}"
        elif isinstance(raw, str) and ".." not in raw and row.choices:
            hint = f"write [{', '.join(row.choices)}]"
        return {}, [Wrong((), f"{name} must be a range or a list of choices, not {shown(raw)}", hint)]
    low, high, words = match.groups()
    steps = re.findall(rf"step\s+({_NUMBER})", words)
    long: dict[str, Any] = {"low": number_in(low), "high": number_in(high)}
    if "log" in words:
        long["log"] = True
    if steps:
        long["step"] = number_in(steps[-1])
    if None in long.values():
        return {}, [Wrong((), f"the range {raw!r} holds a number that is too large")]
    return long, []


def _type_faults(name: str, row: Parameter, long: dict[str, Any]) -> Iterator[Wrong]:
    kinds = {int: "int", float: "float"}
    own = "categorical" if "choices" in long else kinds.get(row.type, "categorical")
    given = long.get("type", own)
    if given not in ("int", "float", "categorical"):
        nearest = suggestion(str(given), ("int", "float", "categorical"))
        yield Wrong(("type",), f"type must be int, float or categorical, not {shown(given)}{nearest}")
    elif given != own:
        hint = "leave type out; it follows from the parameter"
        yield Wrong(("type",), f"{name} is of type {own}, not {given}", hint)
    if "choices" in long:
        for key in ("low", "high", "step", "log"):
            if key in long:
                yield Wrong((key,), f"{key} and choices exclude each other")
        if not isinstance(long["choices"], list):
            yield Wrong(("choices",), f"choices must be a list, not {shown(long['choices'])}")
    elif row.type not in kinds:
        words = ", ".join(row.choices) or "true, false"
        yield Wrong((), f"{name} takes choices, not a range", f"write [{words}]")
    else:
        for key in ("low", "high"):
            if key not in long:
                yield Wrong((), f"{name} has no {key}", f"write {FORMS}")
        if not isinstance(long.get("log", False), bool):
            what = f"log must be true or false, not {shown(long['log'])}"
            yield Wrong(("log",), what, unquoted(long["log"]))
        yield from _number_faults(name, row, long)


def _number_faults(name: str, row: Parameter, long: dict[str, Any]) -> Iterator[Wrong]:
    for key in ("low", "high", "step"):
        value = long.get(key)
        if key not in long:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            yield Wrong((key,), f"{key} must be a number, not {shown(value)}", unquoted(value))
        elif row.type is int and value != int(value):
            yield Wrong((key,), f"{key} of {name} must be a whole number, not {shown(value)}")
        elif key == "step" and value <= 0:
            yield Wrong((key,), f"step must be above 0, not {shown(value)}")


def _range_faults(name: str, long: dict[str, Any]) -> Iterator[Wrong]:
    low, high, step, log = long["low"], long["high"], long.get("step"), long.get("log", False)
    for key in ("low", "high"):
        try:
            check(name, long[key])
        except UsageError as error:
            yield Wrong((key,), error.what, error.hint)
    if low >= high:
        hint = f"to fix {name} at {low!r}, put it under hyperparameters" if low == high else "swap the two"
        yield Wrong(("low",), f"low {low!r} of {name} is not below high {high!r}", hint)
    if log and low <= 0:
        hint = "give a small low, such as 1e-6"
        yield Wrong(("low",), f"a log range starts above 0; low of {name} is {low!r}", hint)
    if log and step is not None:
        yield Wrong(("step",), "step and log exclude each other", "leave one of them out")
    elif step is not None and low < high and (span := _exact(high) - _exact(low)) % _exact(step) != 0:
        last = float(_exact(low) + span // _exact(step) * _exact(step))
        what = f"steps of {step!r} from {low!r} do not reach {high!r}"
        yield Wrong(("step",), what, f"the last value is {last:g}; write that as high, or change step")


def _choice_faults(name: str, row: Parameter, choices: list[Any], at: tuple[str, ...]) -> Iterator[Wrong]:
    seen: list[Value] = []
    for i, raw in enumerate(choices):
        try:
            value = check(name, raw)
        except UsageError as error:
            near = suggestion(raw, row.choices) if isinstance(raw, str) else ""
            yield Wrong((*at, i), error.what + near, None if row.choices else error.hint or unquoted(raw))
            continue
        if any(type(other) is type(value) and other == value for other in seen):
            yield Wrong((*at, i), f"{name} has the choice {shown(value)} twice")
        seen.append(value)
    if len(choices) < 2:
        hint = f"to fix {name}, put it under hyperparameters" if choices else None
        yield Wrong(at, f"{name} needs two choices or more", hint)


def _exact(value: int | float) -> Decimal:
    """Return the number as written, so that 0.1 steps meet 0.3 (as Optuna does)."""
    return Decimal(str(value))
