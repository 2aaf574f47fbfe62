"""Verbs of single trials, trained again: replay, confirm."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fmtune.cli.common import FILE, JSON, STUDY, print_json, study_of
from fmtune.cli.studies import over_rows, page_of, result_of, write_report
from fmtune.errors import UsageError

if TYPE_CHECKING:
    from fmtune.tune.result import StudyResult
    from fmtune.tune.spec import Spec


@click.command()
@click.argument("address", metavar="STUDY|PAGE#trial=N")
@click.option("--trial", type=int, metavar="N", help="Which trial of STUDY; a page's address names its own.")
@click.option("-o", "--out", type=FILE, help="Write the trial's model there, as the winner's is kept.")
@JSON
def replay(address: str, trial: int | None, out: Path | None, as_json: bool) -> None:
    """Train a trial again and say: identical, within tolerance, or different; exit code 1 for different.

    With -o its model is written too, for predict, serve and export, unless it came out different.
    """
    from dataclasses import asdict

    from fmtune.report import page, record
    from fmtune.tune import replay as replays

    cell = None
    if trial is not None and "#trial=" in address:
        raise UsageError("two trials are named", where=f"--trial {trial}", hint=f"{address} alone is enough")
    if trial is not None and not address.endswith(".html"):
        result = _of_file(Path(address))
    else:
        path, trial, cell = replays.address(address) if trial is None else (Path(address), trial, None)
        result = record.from_json(page.extract(page_of(path)))
    found = replays.replay(result, trial, cell, out=out)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo("\n".join(found.lines))
    sys.exit(int(found.verdict == "different"))


def _of_file(study: Path) -> StudyResult:
    """Return what a study file's study has come to; its data lie where the file is now."""
    from dataclasses import replace

    spec = study_of(study)
    if spec.sweep:
        hint = "name one by its page, which `fmtune confirm` writes: reports/NAME.html#trial=N"
        raise UsageError("a sweep is several studies, and each has such a trial", where=str(study), hint=hint)
    return replace(result_of(spec), spec_path=str(spec.path))


@click.command()
@STUDY
@click.option("--finalists", default=3, show_default=True, help="How many of the best trials.")
@click.option("--seeds", default=10, show_default=True, help="New seeds for each.")
@click.option("--again", is_flag=True, help="Open the holdout although it was opened for this trial.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def confirm(study: Path, finalists: int, seeds: int, again: bool, as_json: bool) -> None:
    """Train the finalists again under more seeds, say whether they differ, and open the holdout once.

    The holdout's openings are counted, and the report shows them.  Of a sweep, each study is confirmed.
    """
    from fmtune.tune import confirm as confirming

    spec = study_of(study)
    for member in spec.members():
        found = confirming.confirm(
            member, finalists=finalists, seeds=seeds, again=again, say=lambda text: click.echo(text, err=True)
        )
        if spec.sweep and not as_json:
            click.echo(f"{member.study_name}:")
        _confirmed(member, found, seeds, as_json, bool(spec.sweep))


def _confirmed(spec: Spec, found: Mapping[str, Any], seeds: int, as_json: bool, of_sweep: bool) -> None:
    """Write a confirmed study's report, and say what came of it."""
    from fmtune.report.worth import learned_nothing
    from fmtune.screen import as_json as encoded
    from fmtune.tune.places import command

    result = result_of(spec)
    path = write_report(result)
    if as_json:
        click.echo(encoded({"study_name": spec.study_name, **found}))
        return
    for number, score in found["scores"].items():
        if score["mean"] is None:
            continue  # its sentence follows
        click.echo(f"trial {number}: {spec.objective} {score['mean']:.6g} +- {score['sd']:.2g} over {seeds} seeds")
    for sentence in found["sentences"]:
        click.echo(sentence)
    if said := learned_nothing(result):
        click.echo(said)
    if found["holdout"]:
        held = found["holdout"]
        opened = "once" if held["opened"] == 1 else f"{held['opened']} times"
        trial = f"trial {found['best']} on the sealed holdout"
        over = f"over {held['seeds']} seeds" if "seeds" in held else "over seeds"
        click.echo(f"{trial}: {held['score']:.6g} +- {held['sd']:.2g} {over}{over_rows(held)} (opened {opened})")
    if result.best is not None and int(found["best"]) != result.best.number:
        number = str(found["best"])
        which = [f"{path}#trial={number}"] if of_sweep else [str(spec.path), "--trial", number]
        made = command("replay", *which, "-o", f"{spec.study_name}-{number}.fm")
        click.echo(f"the study's model is still trial {result.best.number}'s; `{made}` makes that of trial {number}")
    click.echo(f"report: {path}")
