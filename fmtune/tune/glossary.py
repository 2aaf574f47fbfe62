"""Glossary: the keys of a study file with their meanings, as its JSON Schema has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from fmtune.tune.spec import schema


class Key(NamedTuple):
    """A key: its meaning, its default in words (None without one), and where in the file it stands."""

    meaning: str
    default: str | None
    place: str


def keys() -> dict[str, Key]:
    """Return the keys of a study file: of the top level, then those below ``data``, ``matrix`` and ``cluster``."""
    made = schema()
    top = made["properties"]
    forms = {form["title"]: form for form in top["data"]["anyOf"]}
    (cluster,) = (form for form in top["cluster"]["anyOf"] if "properties" in form)
    sections = [
        ("at the top level", top), *(("below data", forms[title]["properties"]) for title in ("table", "channels")),
        ("below matrix", made["$defs"]["Matrix"]["properties"]), ("below cluster", cluster["properties"]),
    ]  # fmt: skip
    found: dict[str, Key] = {}
    for name, key in _listed(sections):
        found.setdefault(name, key)
    return found


def _listed(sections: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, Key]]:
    for place, properties in sections:
        for name, row in properties.items():
            default = row.get("default")
            words = [f"{one:g}" if isinstance(one, float) else str(one) for one in _list(default)]
            yield name, Key(row["description"], ", ".join(words) or None, place)


def _list(default: Any) -> list[Any]:
    return default if isinstance(default, list) else [] if default is None else [default]
