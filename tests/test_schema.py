"""fmtune.tune.schema: the JSON Schema accepts what the reader accepts, and an editor completes from it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fmtune.errors import StudyFileError
from fmtune.fm.hyperparameters import PARAMETERS
from fmtune.fm.metrics import METRICS
from fmtune.tune import spec, yamlfile
from fmtune.tune.algorithms import PRUNERS, SAMPLERS
from fmtune.tune.dimension import SEARCHABLE

STUDIES = Path(__file__).parent.parent / "studies"
SHIPPED = sorted(STUDIES.glob("*.yaml"))
SCHEMA = spec.schema()
TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Return whether a value is valid, by the keywords that our schema uses (a test fails on any other)."""
    if "$ref" in schema:
        return accepts(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    flag = isinstance(value, bool)
    return all((
        not kinds or any(isinstance(value, TYPES[kind]) and flag is (kind == "boolean") for kind in kinds),
        "enum" not in schema or value in schema["enum"],
        "const" not in schema or value == schema["const"],
        "anyOf" not in schema or any(accepts(form, value) for form in schema["anyOf"]),
        not number or value >= schema.get("minimum", value),
        not number or value <= schema.get("maximum", value),
        not number or value > schema.get("exclusiveMinimum", value - 1),
        not isinstance(value, str) or re.search(schema.get("pattern", ""), value) is not None,
        not isinstance(value, list) or _list_accepts(schema, value),
        not isinstance(value, dict) or _object_accepts(schema, value),
    ))  # fmt: skip


def _list_accepts(schema: dict[str, Any], value: list[Any]) -> bool:
    unique = len({json.dumps(item) for item in value}) == len(value) or not schema.get("uniqueItems")
    enough = len(value) >= schema.get("minItems", 0)
    return unique and enough and all(accepts(schema.get("items", {}), item) for item in value)


def _object_accepts(schema: dict[str, Any], value: dict[str, Any]) -> bool:
    known = schema.get("properties", {})
    closed = schema.get("additionalProperties", True) is False
    return (
        all(key in value for key in schema.get("required", ()))
        and len(value) >= schema.get("minProperties", 0)
        and all(accepts(known[key], item) if key in known else not closed for key, item in value.items())
    )


def keywords(schema: Any) -> set[str]:
    """Return every keyword that occurs where a schema is expected."""
    found = set(schema)
    for key in ("properties", "$defs"):
        for part in schema.get(key, {}).values():
            found |= keywords(part)
    for part in schema.get("anyOf", []):
        found |= keywords(part)
    return found | (keywords(schema["items"]) if "items" in schema else set())


def test_the_shipped_schema_is_up_to_date() -> None:
    """studies/schema.json is what the code says; `fmtune schema > studies/schema.json` renews it."""
    assert json.loads((STUDIES / "schema.json").read_text()) == SCHEMA


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_is_sound_and_names_the_schema(path: Path) -> None:
    """Read by our own reader, accepted by the schema, found by an editor."""
    made = spec.read(path)
    assert made.study_name == path.stem
    assert accepts(SCHEMA, yamlfile.read(path).value)
    assert path.read_text().splitlines()[0] == "# yaml-language-server: $schema=schema.json"


GOOD = """study_name: s
data: {train: a, test: [b]}
objective: test:auc
search_space: {num_factors: 2..32 log}
"""

LINES = {
    "matrix: {device: cpu, layout: [sparse, dense]}": True,
    "matrix: {device: tpu}": False,
    "sampler: tpe": True,
    "sampler: {name: TPESampler, n_startup_trials: 4}": True,
    "sampler: {name: tpe, n_startup: 4}": False,
    "sampler: tpee": False,
    "pruner: {name: patient, patience: 3, wrapped_pruner: median}": True,
    "pruner: percentile": False,
    "pruner: {name: hyperband, max_resource: auto}": True,
    "timeout: 1h30m": True,
    "timeout: 90": True,
    "timeout: soon": False,
    "pack: auto": True,
    "pack: 0": False,
    "memory: 1.5 GiB": True,
    "memory: 4000000000": True,
    "memory:": True,
    "memory: 4G": False,
    "memory: 4096": False,
    "seeds: 3": True,
    "seeds: '3'": False,
    "hyperparameters: {epochs: 3, clip_gradient: null}": True,
    "hyperparameters: {epochs: 0}": False,
    "hyperparameters: {epoch: 3}": False,
    "hyperparameters: {seed: 3}": False,
    "enqueue: [{num_factors: 4}]": True,
    "enqueue: [{}]": False,
    "extra: 1": False,
}


@pytest.mark.parametrize("line", LINES)
def test_schema_and_reader_agree(line: str) -> None:
    """What the schema can know, it knows as the reader does."""
    assert accepts(SCHEMA, yamlfile.load(GOOD + line, "s").value) is LINES[line]
    try:
        spec.parse(GOOD + line)
        sound = True
    except StudyFileError:
        sound = False
    assert sound is LINES[line]


SPACES = {
    "2..32": True, "2..32 log": True, "2..64 step 2": True, "[4, 8]": True, "{low: 2, high: 9, log: true}": True,
    "{type: int, low: 2, high: 9}": True, "{choices: [4, 8]}": True, "{type: float, low: 2, high: 9}": False,
    "2-32": False, "[4]": False, "[adam, adagrad]": False, "{low: 2, hihg: 9}": False, "5": False,
}  # fmt: skip


@pytest.mark.parametrize("text", SPACES)
def test_every_form_of_a_dimension_is_in_the_schema(text: str) -> None:
    """Shorthand, list and long form, per parameter."""
    value = yamlfile.load(GOOD.replace("2..32 log", text), "s").value
    assert accepts(SCHEMA, value) is SPACES[text]


def test_every_name_is_there_for_an_editor_to_complete() -> None:
    """Objectives, parameters, samplers and pruners; each with a description."""
    properties = SCHEMA["properties"]
    assert properties["objective"]["enum"] == [f"test:{name}" for name in METRICS]
    assert list(properties["search_space"]["properties"]) == list(SEARCHABLE)
    assert set(properties["hyperparameters"]["properties"]) == set(PARAMETERS) - {"seed"}
    for key, table in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        names = [name for form in properties[key]["anyOf"][1:] for name in form["properties"]["name"]["enum"]]
        assert names == [name for short, row in table.items() for name in (short, row.optuna)]
    assert all("description" in part for part in properties.values())
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["additionalProperties"] is False


def test_only_keywords_that_this_test_knows_are_used() -> None:
    """A new keyword would be passed over by the small validator above."""
    assert keywords(SCHEMA) <= {
        "$schema", "$defs", "$ref", "title", "description", "default", "examples", "type", "enum", "const", "anyOf",
        "properties", "required", "additionalProperties", "minProperties", "items", "minItems", "uniqueItems",
        "minimum", "maximum", "exclusiveMinimum", "pattern",
    }  # fmt: skip
