"""Study file: the shape of study.yaml, key by key; the JSON Schema is made from it.

What the values must be to each other stands in ``fmtune.tune.checks``.  Pydantic finds the faults of shape,
``worded`` says them in our words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from fmtune.errors import UsageError
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import PARAMETERS
from fmtune.fm.metrics import METRICS, meant
from fmtune.tune import schema as schemas
from fmtune.tune.amount import amount
from fmtune.tune.places import Wrong, shown, suggestion
from fmtune.tune.yamlfile import unquoted

DEVICES = ("cpu", "gpu", "auto")
LAYOUTS = ("sparse", "dense")
MAX_NAME = 100


def _refuse(what: str, hint: str | None = None) -> PydanticCustomError:
    return PydanticCustomError("ours", "{what}", {"what": what, "hint": hint})


def _study_name(value: Any) -> Any:
    if not isinstance(value, str):
        return value  # the type check has words for it
    if len(value) > MAX_NAME:
        raise _refuse(f"study_name has {len(value)} characters; {MAX_NAME} is the most", "choose a shorter one")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", value):
        hint = "the name is a folder's: letters, digits, '.', '_' and '-', with a letter or digit first"
        raise _refuse(f"study_name cannot be {shown(value)}", hint)
    return value


def _objective(value: Any) -> Any:
    known = [f"test:{name}" for name in METRICS]
    if isinstance(value, str) and value not in known:
        name = meant(value.removeprefix("test:"))
        near = f" (did you mean 'test:{name}'?)" if name else suggestion(value, known)
        raise _refuse(f"unknown objective {shown(value)}{near}", f"there are {', '.join(known)}")
    return value


def _timeout(value: Any) -> Any:
    return None if value is None else _seconds("timeout", value)


def _stall(value: Any) -> Any:
    return None if value is None else _seconds("stall", value)


def _grace(value: Any) -> Any:
    value = _seconds("grace", value)
    if value < 1:
        raise _refuse("grace must be a second at least", "a worker writes its beat six times in that time")
    return value


def _seconds(name: str, value: Any) -> float:
    hint = "write 20m, 1h30m, 45s, or a number of seconds"
    if isinstance(value, str):
        match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", value.strip())
        if match is None or not value.strip():
            raise _refuse(f"{name} must be a time, not {shown(value)}", unquoted(value) or hint)
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        value = 3600 * hours + 60 * minutes + seconds
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refuse(f"{name} must be a time, not {shown(value)}", hint)
    if not 0 < value < 1e9:
        raise _refuse(f"{name} must be above 0 and below 30 years", hint)
    return float(value)


def _pack(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value != "auto" and not (whole and 1 <= value <= 256):
        raise _refuse(f"pack must be auto or a whole number from 1 to 256, not {shown(value)}", unquoted(value))
    return value


def _memory(value: Any) -> Any:
    if value is None:
        return None
    try:
        return amount(value)
    except UsageError as error:
        raise _refuse(error.what, error.hint) from error


def _storage(value: Any) -> Any:
    if isinstance(value, str) and not re.match(r"[A-Za-z][A-Za-z0-9+]*://", value):  # never shown: passwords
        hint = "such as sqlite:///study.db; left out, it is runs/<study_name>/study.db"
        raise _refuse("storage must be a database URL", hint)
    return value


def _axis(name: str, allowed: tuple[str, ...]) -> Callable[[Any], Any]:
    def read_axis(value: Any) -> Any:
        items = value if isinstance(value, list) else [value]
        if not items:
            raise _refuse(f"{name} is an empty list", f"there are {', '.join(allowed)}")
        for item in items:
            if item not in allowed:
                near = suggestion(item, allowed) if isinstance(item, str) else ""
                raise _refuse(f"unknown {name} {shown(item)}{near}", f"there are {', '.join(allowed)}")
        if len(set(items)) < len(items):
            raise _refuse(f"{name} has a value twice: {', '.join(items)}")
        return tuple(items)

    return read_axis


def _groups(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict | list):
        raise _refuse(f"groups must be a mapping or a list, not {shown(value)}", "such as {user: 0, item: 943}")
    try:
        Groups.of(value)
    except UsageError as error:
        raise _refuse(error.what, error.hint) from error
    return value


def _section(value: Any) -> Any:
    return {} if value is None else value  # all its lines may be commented out


class Model(BaseModel):
    """Base of every part of a study: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Cell(NamedTuple):
    """One entry of the matrix."""

    device: str
    layout: str

    @property
    def name(self) -> str:
        """``cpu-sparse`` and so on."""
        return f"{self.device}-{self.layout}"


_Device = Annotated[
    tuple[str, ...], BeforeValidator(_axis("device", DEVICES)), WithJsonSchema(schemas.axis(DEVICES))
]
_Layout = Annotated[
    tuple[str, ...], BeforeValidator(_axis("layout", LAYOUTS)), WithJsonSchema(schemas.axis(LAYOUTS))
]


class Matrix(Model):
    """On which devices and in which layouts the study runs."""

    device: _Device = Field(default=("cpu",), description="where the passes run; auto takes a card if there is one")
    layout: _Layout = Field(default=("sparse",), description="how the rows lie in memory")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every device with every layout, device by device."""
        return tuple(Cell(device, layout) for device in self.device for layout in self.layout)


class Cluster(Model):
    """A Ray cluster that trains each trial, and how a training is spread over it."""

    address: str = Field(default="auto", description="HOST:6379, or auto: this machine's cluster, else one of its own")
    workers: int = Field(default=2, ge=1, description="processes that train; trials do not depend on it")
    shards: int = Field(default=1, ge=1, description="processes that hold the parameters; trials do not depend on it")
    parts: int = Field(default=6, ge=1, description="pieces of the rows that train side by side")
    block: int = Field(default=6000, ge=1, description="rows that a part trains on between two exchanges")
    exchange: Literal["fp32", "fp16"] = Field(default="fp32", description="the numbers in which changes travel")
    checkpoints: str | None = Field(
        default=None, description="a folder that all machines share; left out, one in runs/<study_name>/"
    )


def _cluster(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$"}
_Name = Annotated[str, BeforeValidator(_study_name), WithJsonSchema(_NAME)]
_Objective = Annotated[str, BeforeValidator(_objective), WithJsonSchema(schemas.OBJECTIVE)]
_Fixed = Annotated[dict[str, Any], BeforeValidator(_section), WithJsonSchema(schemas.HYPERPARAMETERS)]
_Space = Annotated[dict[str, Any], BeforeValidator(_section), WithJsonSchema(schemas.SEARCH_SPACE)]
_Sweep = Annotated[
    dict[str, list[Any]], BeforeValidator(_section),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "array", "minItems": 1}}),
]  # fmt: skip
_Sampler = Annotated[Any, WithJsonSchema(schemas.SAMPLER)]
_Pruner = Annotated[Any, WithJsonSchema(schemas.PRUNER)]
_Timeout = Annotated[float | None, BeforeValidator(_timeout), WithJsonSchema(schemas.TIMEOUT)]
_Stall = Annotated[float | None, BeforeValidator(_stall), WithJsonSchema(schemas.TIMEOUT)]
_Grace = Annotated[float, BeforeValidator(_grace), WithJsonSchema(schemas.GRACE)]
_Memory = Annotated[int | None, BeforeValidator(_memory), WithJsonSchema(schemas.MEMORY)]
_Storage = Annotated[str | None, BeforeValidator(_storage)]
_Matrix = Annotated[Matrix, BeforeValidator(_section)]
_Cluster = Annotated[
    Cluster | None, BeforeValidator(_cluster),
    WithJsonSchema({"anyOf": [{"type": "string"}, Cluster.model_json_schema(), {"type": "null"}]}),
]  # fmt: skip
_Queue = Annotated[list[Any], BeforeValidator(lambda raw: raw or []), WithJsonSchema(schemas.ENQUEUE)]
_Pack = Annotated[int | str, BeforeValidator(_pack), WithJsonSchema(schemas.PACK)]

_Groups = Annotated[dict[str, Any] | list[int] | None, BeforeValidator(_groups), WithJsonSchema(schemas.GROUPS)]


class StudyFile(Model):
    """One study: data, objective, search space and budget; fmtune run takes it to a tuned model and a report."""

    study_name: _Name = Field(description="names the folder in runs/ and the report")
    data: Any = Field(description="a dataset card, or paths by channel")
    objective: _Objective = Field(
        description="the test metric to tune; it implies direction and predictor_type"
    )
    hyperparameters: _Fixed = Field(default_factory=dict, description="fixed for every trial")
    search_space: _Space = Field(description="what the sampler chooses for each trial")
    sampler: _Sampler = Field(default="tpe", description="Optuna's sampler, by name or with options")
    pruner: _Pruner = Field(default="median", description="Optuna's pruner, by name or with options")
    n_trials: int = Field(
        default=100, ge=1, le=1_000_000, description="total number of trials: complete, pruned and failed"
    )
    timeout: _Timeout = Field(
        default=None,
        description="20m, 1h30m, 45s or seconds, of a run's search; n_trials or timeout ends it, what is first",
    )
    storage: _Storage = Field(
        default=None, repr=False, description="database URL; left out, a sqlite file in runs/<study_name>/"
    )
    matrix: _Matrix = Field(
        default_factory=Matrix, description="device x layout; every cell runs the same study"
    )
    cluster: _Cluster = Field(
        default=None, description="a Ray cluster that trains each trial, by its address or with options"
    )
    sweep: _Sweep = Field(
        default_factory=dict, description="keys of the dataset card, each with a list of values: a study for each"
    )
    enqueue: _Queue = Field(default_factory=list, description="configurations to try first")
    seeds: int = Field(
        default=1, ge=1, le=100, description="models a trial trains, each with its own seed; the mean counts"
    )
    seed: int = Field(
        default=0, ge=0, le=2**63 - 1,
        description="seed of the sampler and of initial values; the shuffle has its own, shuffle_seed",
    )  # fmt: skip
    lag: int | None = Field(
        default=None, ge=0, le=100_000,
        description="how many earlier trials a trial may not know the results of; left out, the number of lanes",
    )  # fmt: skip
    pack: _Pack = Field(default="auto", description="lanes trained in one pass")
    memory: _Memory = Field(
        default=None,
        description="4GiB, 500MB or bytes that packs and kept mini-batches may take; left out, a share of what is free",
    )
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="threads of a pass; left out, one per core"
    )
    groups: _Groups = Field(
        default=None, description="runs of features with priors of their own: name to first feature, counted from 0"
    )
    grace: _Grace = Field(
        default=30.0, description="30s, 2m or seconds without a sign of life after which a worker's trials go to others"
    )
    stall: _Stall = Field(
        default=1800.0, description="30m, 1h or seconds in which training makes no step: it hangs then, and is ended"
    )


_WANTED = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "string_type": "text", "bool_type": "true or false", "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys", "list_type": "a list",
}  # fmt: skip


def worded(detail: ErrorDetails) -> Wrong:
    """Return one of pydantic's findings in our words."""
    at = detail["loc"]
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    name = ".".join(map(str, at))
    if kind == "ours":
        return Wrong(at, context["what"], context["hint"])
    if kind == "missing":
        return Wrong(at, f"the key {name!r} is missing", StudyFile.model_fields[str(at[0])].description)
    if kind == "extra_forbidden":
        inner = Cluster.model_fields if at[0] == "cluster" else Matrix.model_fields
        known = StudyFile.model_fields if len(at) == 1 else inner
        hint = None
        if at[-1] in PARAMETERS and len(at) == 1:
            hint = f"{name} belongs under hyperparameters or search_space"
        if at[-1] in Matrix.model_fields and len(at) == 1:
            words = value if isinstance(value, list) else [value]
            plain = all(isinstance(word, str) and word.isalnum() for word in words)
            hint = f"write matrix: {{{name}: [{', '.join(words)}]}}" if plain else f"{name} belongs under matrix"
        return Wrong(at, f"unknown key {shown(at[-1])}{suggestion(str(at[-1]), list(known))}", hint, key=True)
    if kind == "literal_error":
        return Wrong(at, f"{name} must be {context['expected']}, not {shown(value)}")
    if kind in _WANTED:
        return Wrong(at, f"{name} must be {_WANTED[kind]}, not {shown(value)}", unquoted(value))
    if kind in ("greater_than_equal", "less_than_equal"):
        side, bound = ("least", context.get("ge")) if kind[0] == "g" else ("most", context.get("le"))
        return Wrong(at, f"{name} must be at {side} {bound}, not {shown(value)}")
    return Wrong(at, f"{name}: {detail['msg']}")
