"""What the verbs share: arguments, groups, and ways to print."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fmtune.errors import UsageError

FILE = click.Path(path_type=Path)


STUDY = click.argument("study", type=FILE)


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Verbs(click.Group):
    """A group that knows what a misspelt verb was meant to be."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the verb of the words, as click does."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.commands, 1)
            hint = f"the verbs are {', '.join(sorted(self.commands))}"
            raise UsageError(f"unknown verb {args[0]!r}" + (f" (did you mean {near[0]!r}?)" if near else ""), hint=hint)
        return super().resolve_command(ctx, args)


def print_json(value: Any) -> None:
    from fmtune.screen import as_json

    click.echo(as_json(value))


def table(values: Mapping[str, Any]) -> None:
    """Print names and values in two columns; a list of mappings takes a line each."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        for i, line in enumerate(_worded(value)):
            click.echo(f"{'' if i else name.replace('_', ' '):{width}}  {line}")


def _worded(value: Any) -> Sequence[str]:
    if isinstance(value, Mapping):
        return [", ".join(f"{k} {_short(v)}" for k, v in value.items())]
    if isinstance(value, list):
        return ["; ".join(_worded(v)) for v in value] or ["none"]
    return [_short(value)]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
