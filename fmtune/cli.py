"""The command line: one verb, one function; nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fmtune import __version__

if TYPE_CHECKING:
    from fmtune.tune.result import StudyResult

_FILE = click.Path(path_type=Path)
_STUDY = click.argument("study", type=_FILE)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="fmtune %(version)s")
@click.option("--debug", is_flag=True, help="Print the traceback of an error.")
def fmtune(debug: bool) -> None:
    """Tune and benchmark factorization machines: one study file in, a tuned model and one report out."""


@fmtune.command()
@_STUDY
@click.option("--fresh", is_flag=True, help="Start anew; the old study's folder is kept as <folder>.old.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
@click.option("--report/--no-report", default=True, help="Write reports/<study_name>.html at the end.")
def run(study: Path, fresh: bool, as_json: bool, report: bool) -> None:
    """Run a study, or go on with it; write its winner's model and its report."""
    from fmtune.errors import NoTrialError
    from fmtune.screen import screen
    from fmtune.tune import spec as specs
    from fmtune.tune import study as studies

    spec = specs.read(study)
    style = "json" if as_json else "live" if sys.stdout.isatty() else "lines"
    failure: NoTrialError | None = None
    with screen(style) as listener:
        try:
            studies.run(spec, fresh=fresh, listener=listener)
        except NoTrialError as error:
            failure = error
    result = _result(spec)
    path = _report(result) if report else None
    if failure is not None:
        if path:
            click.echo(f"report: {path}", err=True)
        raise failure
    if as_json:
        _print({"event": "end", "report": str(path) if path else None, "best": result.best and result.best.value})
        return
    _verdict(result)
    if path:
        click.echo(f"report: {path}")
    assert result.best is not None
    click.echo(f"best {result.objective}: {result.best.value:.6g}")


@fmtune.command()
@_STUDY
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(study: Path, as_json: bool) -> None:
    """Say how far a study is."""
    result = _collected(study)
    cells = [{"cell": c.name, "note": c.note, **_states(c.trials)} for c in result.cells]
    best = result.best
    if as_json:
        _print({"study_name": result.study_name, "n_trials": result.n_trials, "cells": cells,
                "best": best and {"number": best.number, "value": best.value, "params": best.params}})  # fmt: skip
        return
    for cell in cells:
        words = ", ".join(f"{count} {state.lower()}" for state, count in cell.items() if state not in ("cell", "note"))
        click.echo(f"{cell['cell']}: {cell['note'] or words or 'nothing yet'} of {result.n_trials}")
    click.echo(
        f"best {result.objective}: {best.value:.6g} (trial {best.number})" if best else "no trial is complete yet"
    )


@fmtune.command()
@_STUDY
def best(study: Path) -> None:
    """Print the winner's hyperparameters as YAML, ready for a study file."""
    from fmtune.errors import NoTrialError

    result = _collected(study)
    if result.best is None:
        raise NoTrialError("no trial is complete yet", where=str(study), hint=f"fmtune run {study}")
    click.echo(f"# {result.study_name}, trial {result.best.number}: {result.objective} {result.best.value:.6g}")
    click.echo("hyperparameters:")
    for name, value in {**result.fixed, **result.best.params}.items():
        click.echo(f"  {name}: {json.dumps(value)}")


@fmtune.command()
@_STUDY
@click.option("-o", "--out", type=_FILE, help="The page; by default reports/<study_name>.html.")
def report(study: Path, out: Path | None) -> None:
    """Write a study's report: one HTML file."""
    click.echo(_report(_collected(study), out))


@fmtune.command()
@_STUDY
def plan(study: Path) -> None:
    """Say what a run would do: cells, trials, packs, memory, what is new and what resumes."""
    from fmtune.tune import plan as plans
    from fmtune.tune import spec as specs

    click.echo("\n".join(plans.lines(specs.read(study))))


@fmtune.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    from fmtune.tune import spec as specs

    click.echo(json.dumps(specs.schema(), indent=2))


@fmtune.command()
@click.argument("train", nargs=-1, type=_FILE, required=True)
@click.option("--test", type=_FILE, multiple=True, help="The test channel: a file, a folder, a glob; may be repeated.")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="A hyperparameter; may be repeated.")
@click.option("--layout", type=click.Choice(["sparse", "dense"]), help="By default the data's own.")
@click.option("-o", "--out", type=_FILE, required=True, help="Where the model goes.")
def fit(
    train: tuple[Path, ...], test: tuple[Path, ...], params: tuple[str, ...], layout: str | None, out: Path
) -> None:
    """Train one model on TRAIN."""
    from dataclasses import replace

    from fmtune.tune import objective

    values = dict(_assignment(word) for word in params)
    done = objective.fit(list(train), list(test) or None, layout=layout, **values)
    facts = {"hyperparameters": values, "metrics": done.metrics, "epochs": done.best_epoch, "version": __version__}
    replace(done.model, facts=facts).save(out)
    for name, value in done.metrics.items():
        click.echo(f"test:{name}: {value:.6g}")
    click.echo(f"model: {out}")


@fmtune.command()
@click.argument("model", type=_FILE)
@click.argument("data", nargs=-1, type=_FILE, required=True)
@click.option("-o", "--out", type=_FILE, required=True, help="By suffix: .csv, .jsonl, .parquet.")
def predict(model: Path, data: tuple[Path, ...], out: Path) -> None:
    """Score DATA with MODEL; columns score and, for binary models, predicted_label."""
    from fmtune.tune import scoring

    count = scoring.predict_file(model, list(data), out)
    click.echo(f"{count} rows: {out}")


@fmtune.group()
def data() -> None:
    """Look at data, convert it, list dataset cards."""


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def data_list(as_json: bool) -> None:
    """List the dataset cards."""
    from fmtune.data import verbs

    cards = verbs.list_cards()
    if as_json:
        _print(cards)
        return
    for card in cards:
        click.echo(f"{card['name']:16} {card['title']} ({card['licence']})")


@data.command("convert")
@click.argument("sources", nargs=-1, type=_FILE, required=True)
@click.option("-o", "--out", type=_FILE, required=True, help="By suffix: .pbr (RecordIO), .libsvm, .npz.")
@click.option("--feature-dim", type=int, help="Number of features; by default what the data show.")
@click.option("--layout", type=click.Choice(["sparse", "dense"]), help="By default the data's own.")
def data_convert(sources: tuple[Path, ...], out: Path, feature_dim: int | None, layout: str | None) -> None:
    """Convert SOURCES to another format."""
    from fmtune.data import verbs

    _table(verbs.convert(list(sources), out, feature_dim=feature_dim, layout=layout))


@data.command("check")
@click.argument("sources", nargs=-1, type=_FILE, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def data_check(sources: tuple[Path, ...], as_json: bool) -> None:
    """Read SOURCES whole and say whether they are sound."""
    from fmtune.data import verbs

    found = verbs.check(list(sources))
    _print(found) if as_json else _table(found)


@data.command("stats")
@click.argument("sources", nargs=-1, type=_FILE, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def data_stats(sources: tuple[Path, ...], as_json: bool) -> None:
    """Say what SOURCES hold: rows, features, density, labels."""
    from fmtune.data import verbs

    found = verbs.stats(list(sources))
    _print(found) if as_json else _table(found)


def _assignment(word: str) -> tuple[str, Any]:
    """Return a NAME=VALUE word as its name and its value, read by the parameter's own type."""
    from fmtune.errors import UsageError
    from fmtune.fm.hyperparameters import known

    name, equals, text = word.partition("=")
    if not equals:
        raise UsageError(f"{word!r} is not NAME=VALUE", where="-p")
    kind = known(name).type
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise UsageError(
            f"{name} must be {'true or false' if kind is bool else f'{kind.__name__}'}, not {text!r}", where="-p"
        ) from None
    return name, value


def _result(spec: Any) -> StudyResult:
    from fmtune.tune.collect import collect

    return collect(spec)


def _collected(study: Path) -> StudyResult:
    from fmtune.tune import spec as specs

    return _result(specs.read(study))


def _report(result: StudyResult, out: Path | None = None) -> Path:
    from fmtune.report import page

    path = out or Path("reports") / f"{result.study_name}.html"
    page.write(result, path)
    return path


def _verdict(result: StudyResult) -> None:
    best = result.best
    assert best is not None
    click.echo("\nwinner: trial " + str(best.number))
    for name, value in best.params.items():
        click.echo(f"  {name}: {json.dumps(value)}")
    for cell in result.cells:
        own = cell.best(result.direction)
        from fmtune.screen import rows

        score = f"{own.value:.6g}" if own else "-"
        click.echo(f"{cell.name}: {cell.note or f'best {score}, {rows(cell.rows_per_s)}, {cell.seconds or 0:.1f} s'}")
    if result.holdout:
        click.echo(f"sealed holdout: {result.holdout['score']:.6g} (opened {result.holdout['opened']} times)")
    click.echo(f"model: {result.model_path}")


def _states(trials: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    return counts


def _print(value: Any) -> None:
    click.echo(json.dumps(value))


def _table(values: dict[str, Any]) -> None:
    width = max(map(len, values), default=0)
    for name, value in values.items():
        click.echo(f"{name:{width}}  {value}")
