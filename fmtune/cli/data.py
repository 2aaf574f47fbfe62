"""Verbs of data: list, get, convert, check, stats."""

from __future__ import annotations

from pathlib import Path

import click

from fmtune.cli.common import FILE, JSON, Verbs, print_json, table


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


@data.command("get")
@click.argument("card")
@click.option("--from", "source", type=FILE, metavar="PATH", help="Take a copy that you have: a file, or their folder.")
def data_get(card: str, source: Path | None) -> None:
    """Download the files of CARD, or go on with a download; a study does so by itself."""
    from fmtune.data import verbs
    from fmtune.screen import downloads

    with downloads() as progress:
        found = verbs.get(card, source, progress=progress)
    table(found)


@data.command("convert")
@click.argument("sources", nargs=-1, type=FILE, required=True)
@click.option("-o", "--out", type=FILE, required=True, help="By suffix: .pbr (RecordIO), .libsvm, .npz.")
@click.option("--feature-dim", type=int, help="Number of features; by default what the data show.")
@click.option("--layout", type=click.Choice(["sparse", "dense"]), help="By default the data's own.")
def data_convert(sources: tuple[Path, ...], out: Path, feature_dim: int | None, layout: str | None) -> None:
    """Convert SOURCES to another format."""
    from fmtune.data import verbs

    table(verbs.convert(list(sources), out, feature_dim=feature_dim, layout=layout))


@data.command("check")
@click.argument("sources", nargs=-1, type=FILE, required=True)
@JSON
def data_check(sources: tuple[Path, ...], as_json: bool) -> None:
    """Read SOURCES whole and say whether they are sound."""
    from fmtune.data import verbs

    found = verbs.check(list(sources))
    print_json(found) if as_json else table(found)


@data.command("stats")
@click.argument("sources", nargs=-1, type=FILE, required=True)
@JSON
def data_stats(sources: tuple[Path, ...], as_json: bool) -> None:
    """Say what SOURCES hold: rows, features, density, labels."""
    from fmtune.data import verbs

    found = verbs.stats(list(sources))
    print_json(found) if as_json else table(found)
