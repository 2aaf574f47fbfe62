"""What the verbs share: arguments, groups, and ways to print."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fmtune.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from fmtune.data.columns import Columns
    from fmtune.tune.spec import Spec

FILE = click.Path(path_type=Path)


STUDY = click.argument("study", type=FILE)


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


MEMORY = click.option("--memory", metavar="AMOUNT", help="Goes before the study file's `memory`, such as 4GiB.")


def study_of(path: Path, memory: str | None = None) -> Spec:
    """Return the study of a file, with the memory that the command line gives it here."""
    from fmtune.tune import spec as specs

    spec = specs.read(path)
    try:
        return spec if memory is None else spec.within(int(memory) if memory.isdecimal() else memory)
    except UsageError as error:
        error.where = "--memory"
        raise


class Halted(BaseException):
    """An :class:`Interrupted` on its way past click, which answers every KeyboardInterrupt itself, and not as we do."""

    def __init__(self, error: Interrupted) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code


class Verbs(click.Group):
    """A group that knows what a misspelt verb was meant to be, and lets an interrupted run say so."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb, as click does."""
        try:
            return super().invoke(ctx)
        except Interrupted as error:
            raise Halted(error) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the verb of the words, as click does."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.commands, 1)
            hint = f"the verbs are {', '.join(sorted(self.commands))}"
            raise UsageError(f"unknown verb {args[0]!r}" + (f" (did you mean {near[0]!r}?)" if near else ""), hint=hint)
        return super().resolve_command(ctx, args)


_LIST = {"metavar": "COLUMN,...", "help": ""}
_TABLE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--label", {"metavar": "COLUMN", "help": "The label's column."}),
    ("--categorical", {**_LIST, "help": "Columns that name something."}),
    ("--multivalued", {**_LIST, "help": "Columns whose cells hold several names."}),
    ("--separator", {"help": "What stands between them.  [default: |]"}),
    ("--numeric", {**_LIST, "help": "Columns of numbers, scaled."}),
    ("--bucketed", {**_LIST, "help": "Columns of numbers, cut into ranges."}),
    ("--buckets", {"type": int, "help": "How many ranges.  [default: 16]"}),
    ("--min-count", {"type": int, "help": "Values seen fewer times share one feature."}),
    ("--hash-bits", {"type": int, "help": "Hash names into 2^N features; no vocabulary is kept."}),
)


def table_options(verb: Any) -> Any:
    """Give a verb the options that say what a table's columns are; ``columns_of`` takes their values."""
    for name, settings in reversed(_TABLE):
        verb = click.option(name, **settings)(verb)
    return verb


def columns_of(values: Mapping[str, Any]) -> Columns:
    """Return the columns that the options of ``table_options`` name."""
    from fmtune.data.columns import Columns

    listed = ("categorical", "multivalued", "numeric", "bucketed")
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    for name in given.keys() & set(listed):
        given[name] = tuple(filter(None, map(str.strip, given[name].split(","))))
    return Columns(**given)


def named_columns(values: Mapping[str, Any]) -> Columns | None:
    """Return the columns that the options name, None where none of them is given."""
    return columns_of(values) if any(value is not None for value in values.values()) else None


def share_of(words: Sequence[str]) -> float | None:
    """Return the one word as a share of the rows; None where it is a path, or there are several."""
    try:
        share = float(words[0]) if len(words) == 1 else None
    except ValueError:
        return None
    return None if share is None or Path(words[0]).exists() else share


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
