"""JSON Schema of the parts of a study file that come from tables, so that an editor knows every name.

``fmtune.tune.spec.schema`` puts these into the schema of the whole file (draft 2020-12).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fmtune.data.catalog import Card
from fmtune.fm.hyperparameters import PARAMETERS, Parameter
from fmtune.fm.metrics import METRICS
from fmtune.tune import amount
from fmtune.tune.algorithms import PRUNERS, SAMPLERS, Algorithm, Option, card_option
from fmtune.tune.checks import LISTS, SHARED, TABLE
from fmtune.tune.dimension import RANGE_PATTERN, SEARCHABLE

Json = dict[str, Any]
_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}


_FIRST = {"type": "integer", "minimum": 0}
_GROUP = {
    "type": "object", "properties": {"first": _FIRST, "decay": {"type": "number", "minimum": 0}},
    "required": ["first"], "additionalProperties": False,
}  # fmt: skip
GROUPS: Json = {"anyOf": [
    {"type": "array", "items": _FIRST, "minItems": 1},
    {"type": "object", "additionalProperties": {"anyOf": [_FIRST, _GROUP]}, "minProperties": 1},
    {"type": "null"},
]}  # fmt: skip


def _object(properties: Json, required: tuple[str, ...] = (), **more: Any) -> Json:
    made: Json = {"type": "object", "properties": properties, "additionalProperties": False, **more}
    return {**made, "required": list(required)} if required else made


def _bounds(low: float | None, high: float | None, *, open_low: bool = False) -> Json:
    lowest = {} if low is None else {"exclusiveMinimum" if open_low else "minimum": low}
    return lowest if high is None else {**lowest, "maximum": high}


def _value(row: Parameter) -> Json:
    """Return the schema of one value of a parameter."""
    made: Json = {"type": _TYPES[row.type], **_bounds(row.low, row.high, open_low=row.open_low)}
    if row.choices:
        made["enum"] = list(row.choices)
    if row.optional:
        made["type"] = [made["type"], "null"]
    return made


def _values(names: tuple[str, ...], **more: Any) -> Json:
    rows = {name: PARAMETERS[name] for name in names}
    notes = {name: {"description": row.help, "default": row.default} for name, row in rows.items()}
    return _object({name: {**_value(row), **notes[name]} for name, row in rows.items()}, **more)


def _dimension(row: Parameter) -> Json:
    """Return the schema of one searched parameter: shorthand, list of choices, or long form."""
    choices = {"type": "array", "items": _value(row), "minItems": 2, "uniqueItems": True}
    forms: list[Json] = [{"title": "choices", **choices}]
    kinds = ["categorical"]
    properties: Json = {"choices": choices}
    if row.type in (int, float):
        number = {key: value for key, value in _value(row).items() if key != "type"}
        end = {"type": _TYPES[row.type], **number}
        kinds = [_TYPES[row.type].replace("integer", "int").replace("number", "float"), "categorical"]
        properties = {
            "low": {**end, "description": "the lowest value"},
            "high": {**end, "description": "the highest value, included"},
            "step": {"type": end["type"], "exclusiveMinimum": 0, "description": "distance of the values from low on"},
            "log": {"type": "boolean", "default": False, "description": "search on a logarithmic scale"},
            **properties,
        }
        examples = ["2..32", "2..64 step 2", "8..64 log"] if row.type is int else ["1e-4..1 log", "0..0.5 step 0.1"]
        forms.insert(0, {"title": "range", "type": "string", "pattern": RANGE_PATTERN, "examples": examples})
    properties = {"type": {"enum": kinds, "description": "follows from the parameter"}, **properties}
    forms.append({"title": "long form", **_object(properties)})
    return {"description": row.help, "anyOf": forms}


def _option(option: Option) -> Json:
    made: Json = {"type": _TYPES[option.type], **_bounds(option.low, option.high)}
    if option.help:
        made["description"] = option.help
    if option.words:
        words = {"enum": list(option.words)}
        return words if option.type is str else {"anyOf": [made, words]}
    return made


def _algorithm(table: Mapping[str, Algorithm], more: Mapping[str, Json]) -> Json:
    """Return the schema of a sampler or pruner: a name, or a mapping of name and options."""
    named: list[Json] = []
    for short, row in table.items():
        options = {key: _option(option) for key, option in row.options.items()}
        properties = {"name": {"enum": [short, row.optuna]}, **options, **more.get(short, {})}
        named.append({"title": short, "description": row.help, **_object(properties, ("name", *row.required))})
    plain = [short for short, row in table.items() if not row.required]
    names = [*plain, *(table[short].optuna for short in plain)]
    return {"anyOf": [{"title": "name", "enum": names}, *named]}


HYPERPARAMETERS = _values(tuple(name for name in PARAMETERS if name != "seed"))
SEARCH_SPACE = _object({name: _dimension(PARAMETERS[name]) for name in SEARCHABLE}, minProperties=1)
ENQUEUE: Json = {"type": "array", "items": _values(SEARCHABLE, minProperties=1)}
OBJECTIVE: Json = {"enum": [f"test:{name}" for name in METRICS]}
SAMPLER = _algorithm(SAMPLERS, {})
PRUNER = _algorithm(PRUNERS, {"patient": {"wrapped_pruner": {"type": ["string", "object"]}}})
TIMEOUT: Json = {
    "anyOf": [
        {"type": "string", "pattern": r"^(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s)?$", "examples": ["20m", "1h30m"]},
        {"type": "number", "exclusiveMinimum": 0, "description": "seconds"},
        {"type": "null"},
    ]
}
GRACE: Json = {"anyOf": [TIMEOUT["anyOf"][0], {"type": "number", "minimum": 1, "description": "seconds"}]}
MEMORY: Json = {
    "anyOf": [
        {"type": "string", "pattern": f"^{amount.PATTERN}$", "examples": ["4GiB", "500MB"]},
        {"type": "number", "minimum": amount.LEAST, "description": "bytes"},
        {"type": "null"},
    ]
}
PACK: Json = {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 256}]}
_PATHS: Json = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}


def axis(allowed: tuple[str, ...]) -> Json:
    """Return the schema of one axis of the matrix: a word or a list of words."""
    word = {"enum": list(allowed)}
    return {"anyOf": [word, {"type": "array", "items": word, "minItems": 1, "uniqueItems": True}]}


def data(cards: Mapping[str, Card]) -> Json:
    """Return the schema of the data section: a card's name, a card with its keys, or paths by channel."""
    forms: list[Json] = [{"title": "card", "enum": list(cards)}]
    for name, card in cards.items():
        keys = {key: {**_option(card_option(row)), "default": row.default} for key, row in card.keys.items()}
        entry = _object({"card": {"const": name}, **keys}, ("card",))
        forms.append({"title": f"card {name}", "description": card.title, **entry})
    channels = {
        "train": {**_PATHS, "description": "file, folder, pattern, or a list of them; relative to this file"},
        "test": {**_PATHS, "description": "what the objective is measured on after each epoch"},
        "holdout": {**_PATHS, "description": "sealed: opened once, for the winner"},
    }
    width: Json = {"type": "integer", "minimum": 1, "description": "number of features; inferred if not given"}
    forms.append({"title": "channels", **_object({**channels, "feature_dim": width}, ("train", "test"))})
    share: Json = {"type": "number", "exclusiveMinimum": 0, "maximum": 0.99}
    shared = {key: {"anyOf": [share, *_PATHS["anyOf"]], "description": f"{channels[key]['description']}; or a share"}
              for key in SHARED}  # fmt: skip
    keys = {key: {**_PATHS, "description": row.help} if key in LISTS else _option(row) for key, row in TABLE.items()}
    table = _object({"train": channels["train"], **shared, **keys}, ("train", "test", "label"))
    forms.append({"title": "table", "description": "csv, JSON lines, Parquet or Arrow", **table})
    return {"anyOf": forms}
