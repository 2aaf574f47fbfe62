"""Verbs of data: list, get, convert, check, stats, index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fmtune.cli.common import FILE, JSON, Verbs, columns_of, named_columns, print_json, table, table_options
from fmtune.errors import UsageError


@click.group(cls=Verbs, invoke_without_command=True)
@click.pass_context
def data(context: click.Context) -> None:
    """Look at data, convert it, list dataset cards."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@data.command("list")
@JSON
def data_list(as_json: bool) -> None:
    """List the dataset cards."""
    from fmtune.data import verbs

    cards = verbs.list_cards()
    if as_json:
        print_json(cards)
        return
    for card in cards:
        weight = f"; {card['download'] / 1e6:.1f} MB to download" if card["download"] else ""
        click.echo(f"{card['name']}: {card['title']} (licence: {card['licence']}{weight})")
        for key in card["keys"]:
            click.echo(f"    {key['name']}: {key['default']}  # {key['help']}")


def _cards(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    from fmtune.data import catalog

    return [name for name in catalog.cards() if name.startswith(begun)]


@data.command("get")
@click.argument("card", shell_complete=_cards)
@click.option("--from", "source", type=FILE, metavar="PATH", help="Take a copy that you have: a file, or their folder.")
def data_get(card: str, source: Path | None) -> None:
    """Download the files of CARD, or go on with a download; a study does so by itself."""
    from fmtune.data import verbs
    from fmtune.screen import downloads

    with downloads() as progress:
        found = verbs.get(card, source, progress=progress)
    table(found)


@data.command("convert")
@click.argument("sources", nargs=-1, type=FILE, required=True, metavar="SOURCES... [OUT]")
@click.option("-o", "--out", type=FILE, help="By suffix: .pbr (RecordIO), .libsvm, .npz; or the last word.")
@click.option("--feature-dim", type=int, help="Number of features; by default what the data show.")
@click.option("--layout", type=click.Choice(["sparse", "dense"]), help="By default the data's own.")
@table_options
@click.option("--test", type=float, metavar="SHARE", help="Rows of a table to test on, such as 0.1.")
@click.option("--holdout", type=float, metavar="SHARE", help="Rows of a table to seal away.")
@click.option("--by", metavar="COLUMN", help="Divide by time: the newest rows are tested.")
@click.option("--group", metavar="COLUMN", help="Keep rows with the same cell together.")
@click.option("--seed", type=int, help="Of a division by chance or by group.")
@click.option("--vocabulary", type=FILE, help="Use this .vocabulary.json, and make none.")
def data_convert(
    sources: tuple[Path, ...], out: Path | None, feature_dim: int | None, layout: str | None,
    vocabulary: Path | None, **named: Any,
) -> None:  # fmt: skip
    """Convert SOURCES to another format; tables (csv, JSON lines, Parquet, Arrow) become rows of features.

    A table's vocabulary goes beside OUT, and into the models that are trained on it.
    """
    from fmtune.data import preparation, verbs
    from fmtune.data.split import Split

    if out is None:
        sources, out = sources[:-1], sources[-1]
        if not sources:
            raise UsageError("there is nothing to write to", hint=f"fmtune data convert {out} OUT.pbr")
        if out.exists():
            raise UsageError("the file is there already", where=str(out), hint=f"-o {out} writes over it")
    shares = {name: named.pop(name) for name in ("test", "holdout", "by", "group", "seed")}
    split = {name: value for name, value in shares.items() if value is not None}
    columns = columns_of(named)
    if preparation.are_tables(sources):
        if feature_dim or layout:
            raise UsageError("a table's features are its columns' own: leave --feature-dim and --layout out")
        table(preparation.convert_tables(list(sources), out, columns, Split(**split), vocabulary=vocabulary))
        return
    if split or vocabulary or any(value is not None for value in named.values()):
        hint = "such options are for tables: csv, JSON lines, Parquet and Arrow"
        raise UsageError("these are rows, whose columns have no names", where=str(sources[0]), hint=hint)
    table(verbs.convert(list(sources), out, feature_dim=feature_dim, layout=layout))


@data.command("check")
@click.argument("sources", nargs=-1, type=FILE, required=True)
@table_options
@JSON
def data_check(sources: tuple[Path, ...], as_json: bool, **named: Any) -> None:
    """Read SOURCES whole and say whether they are sound."""
    from fmtune.data import verbs

    found = verbs.check(list(sources), columns=named_columns(named))
    print_json(found) if as_json else table(found)


@data.command("stats")
@click.argument("sources", nargs=-1, type=FILE, required=True)
@table_options
@JSON
def data_stats(sources: tuple[Path, ...], as_json: bool, **named: Any) -> None:
    """Say what SOURCES hold: rows, features, density, labels."""
    from fmtune.data import verbs

    found = verbs.stats(list(sources), columns=named_columns(named))
    print_json(found) if as_json else table(found)


@data.command("index")
@click.argument("sources", nargs=-1, type=FILE, required=True)
@JSON
def data_index(sources: tuple[Path, ...], as_json: bool) -> None:
    """Write digests beside SOURCES, which are then checked each time that they are read."""
    from fmtune.data import verbs

    found = verbs.index(list(sources))
    if as_json:
        print_json(found)
        return
    for one in found:
        click.echo(f"{one['path']}: {one['bytes']} bytes, indexed in {one['index']}")
