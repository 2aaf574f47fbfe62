"""Hooks of the site: tables of the reference are made from fmtune's own, so that they cannot go stale.

A page says ``<!-- table: NAME -->`` where a table of ``TABLES`` goes.  Pages that mkdocs.yml does not name are added
under "More".
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from fmtune import cli
from fmtune.cli.tools import CODES
from fmtune.data.source import FORMATS
from fmtune.fm.hyperparameters import PARAMETERS, SOLVERS, Parameter
from fmtune.fm.metrics import ALIASES, METRICS
from fmtune.kernels.rules import RULES
from fmtune.tune.algorithms import PRUNERS, SAMPLERS, Algorithm
from fmtune.tune.studyfile import Cluster, Matrix, StudyFile

_DOCS = Path(__file__).parent
_MARK = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Add the pages that the navigation does not name."""
    named = set(_leaves(config["nav"]))
    rest = sorted(str(path.relative_to(_DOCS)) for path in _DOCS.rglob("*.md"))
    more = [path for path in rest if path not in named]
    config["nav"] += [{"More": more}] if more else []
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables in."""
    return _MARK.sub(lambda match: TABLES[match[1]](), markdown)


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _leaves(entry)


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table of Markdown; a cell holds no bar and no line break."""
    lines = [list(head), ["---"] * len(list(head)), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _code(value: Any) -> str:
    words = {None: "none", True: "true", False: "false"}
    return f"`{words[value] if value is None or isinstance(value, bool) else value}`"


def _range(row: Parameter) -> str:
    if row.choices or row.type is bool:
        return ", ".join(map(_code, row.values.split(", ")))
    return row.values


def _parameters() -> str:
    rows = ((_code(name), _range(row), _code(row.default), row.help) for name, row in PARAMETERS.items())
    return _table(("name", "value", "default", "meaning"), rows)


def _keys(model: Any) -> str:
    def default(field: Any) -> str:
        if field.is_required():
            return "needed"
        value = field.get_default(call_default_factory=True)
        plain = isinstance(value, str | int | float | None)
        return _code(value) if plain else ", ".join(map(_code, value)) if isinstance(value, tuple) else ""

    rows = ((_code(name), default(field), field.description) for name, field in model.model_fields.items())
    return _table(("key", "default", "meaning"), rows)


def _metrics() -> str:
    rows = (
        (_code(f"test:{name}"), row.predictor_type, row.direction, _first(row.compute), ", ".join(ALIASES[name]))
        for name, row in METRICS.items()
    )
    return _table(("objective", "predictor_type", "direction", "meaning", "elsewhere called"), rows)


def _rules() -> str:
    states = {name: "two numbers a feature" if row.rowwise else row.states for name, row in RULES.items()}
    rows = ((_code(name), states[name], f"{row.eps:g}") for name, row in RULES.items())
    return _table(("optimizer", "arrays of state", "default eps"), rows)


def _solvers() -> str:
    return _table(("solver",), ([_code(name)] for name in SOLVERS))


def _formats() -> str:
    rows = ((_code(name), " ".join(map(_code, row.suffixes))) for name, row in FORMATS.items())
    return _table(("format", "suffixes that choose it for writing"), rows)


def _algorithms(table: Mapping[str, Algorithm]) -> str:
    def options(row: Algorithm) -> str:
        helped = {key: f" ({option.help})" if option.help else "" for key, option in row.options.items()}
        return ", ".join(f"`{key}`{text}" for key, text in helped.items())

    rows = ((_code(name), _code(row.optuna), row.help, options(row)) for name, row in table.items())
    return _table(("name", "Optuna's class", "what it does", "options"), rows)


def _exit_codes() -> str:
    return _table(("exit code", "name", "meaning"), ((code, *words) for code, words in CODES.items()))


def _first(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _verbs() -> str:
    return "\n\n".join(part for verb in sorted(cli.VERBS, key=lambda v: v.name or "") for part in _verb(verb, "fmtune"))


def _verb(verb: click.Command, parent: str) -> Iterator[str]:
    """Yield the text of a verb and of the verbs below it."""
    path = f"{parent} {verb.name}"
    context = click.Context(verb, info_name=path)
    words = " ".join(verb.collect_usage_pieces(context))
    yield f"## {path}\n\n`{path} {words}`\n\n{inspect.cleandoc(verb.help or '')}"
    options = [p for p in verb.params if isinstance(p, click.Option) and not p.hidden and p.name != "help"]
    if options:
        rows = (record for option in options if (record := option.get_help_record(context)))
        yield _table(("option", "meaning"), ((_code(names), text) for names, text in rows))
    if isinstance(verb, click.Group):
        for below in verb.commands.values():
            yield from _verb(below, path)


TABLES: dict[str, Callable[[], str]] = {
    "parameters": _parameters,
    "study-file": lambda: _keys(StudyFile),
    "matrix": lambda: _keys(Matrix),
    "cluster": lambda: _keys(Cluster),
    "metrics": _metrics,
    "rules": _rules,
    "solvers": _solvers,
    "formats": _formats,
    "samplers": lambda: _algorithms(SAMPLERS),
    "pruners": lambda: _algorithms(PRUNERS),
    "exit-codes": _exit_codes,
    "verbs": _verbs,
}
