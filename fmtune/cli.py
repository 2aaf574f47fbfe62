"""The command line: one verb, one function; nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fmtune import __version__
from fmtune.errors import NoTrialError, UsageError

if TYPE_CHECKING:
    from fmtune.tune.result import CellResult, StudyResult
    from fmtune.tune.spec import Spec

_FILE = click.Path(path_type=Path)
_STUDY = click.argument("study", type=_FILE)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _Verbs(click.Group):
    """A group that knows what a misspelt verb was meant to be."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the verb of the words, as click does."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.commands, 1)
            hint = f"the verbs are {', '.join(sorted(self.commands))}"
            raise UsageError(
                f"unknown verb {args[0]!r}" + (f" (did you mean {near[0]!r}?)" if near else ""), hint=hint
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Verbs, invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip
@click.version_option(__version__, message="fmtune %(version)s")
@click.option("--debug", is_flag=True, help="Print the traceback of an error; goes with every verb.")
@click.pass_context
def fmtune(context: click.Context, debug: bool) -> None:
    """Tune and benchmark factorization machines: one study file in, a tuned model and one report out."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@fmtune.command()
@_STUDY
@click.option("--fresh", is_flag=True, help="Start anew; the old study's folder is kept as <folder>.old.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
@click.option("--report/--no-report", default=True, help="Write reports/<study_name>.html at the end.")
def run(study: Path, fresh: bool, as_json: bool, report: bool) -> None:
    """Run a study, or go on with it.

    Its winner's model goes to runs/<study_name>/, its report to reports/<study_name>.html.
    """
    from fmtune.screen import screen

    failure: NoTrialError | None = None
    with screen("json" if as_json else "live" if sys.stdout.isatty() else "lines") as listener:
        from fmtune.tune import spec as specs
        from fmtune.tune import study as studies

        spec = specs.read(study)
        try:
            studies.run(spec, fresh=fresh, listener=listener)
        except NoTrialError as error:
            failure = error
    result = _result(spec)
    path = _report(result, keep=not listener.finished) if report else None
    if as_json:
        _print({"event": "end", "report": path and str(path), "best": result.best and result.best.value})
    elif failure is None:
        _verdict(result, bool(listener.finished))
    if path and not as_json:
        click.echo(f"report: {path}", err=failure is not None)
    if failure is not None:
        raise failure
    if not as_json:
        assert result.best is not None
        click.echo(f"best {result.objective}: {result.best.value:.6g}")


@fmtune.command()
@_STUDY
@_JSON
def status(study: Path, as_json: bool) -> None:
    """Say how far a study is, also while it runs."""
    result = _collected(study)
    cells = [_progress(cell, result.n_trials) for cell in result.cells]
    best = result.best
    if as_json:
        _print({"study_name": result.study_name, "objective": result.objective, "n_trials": result.n_trials,
                "cells": cells, "best": best and {"number": best.number, "value": best.value, "params": best.params},
                "holdout": result.holdout, "model": result.model_path})  # fmt: skip
        return
    for cell in cells:
        counts = ", ".join(f"{count} {state}" for state, count in cell["states"].items())
        said = cell["note"] or f"{cell['done']} of {result.n_trials} trials done" + (f" ({counts})" if counts else "")
        click.echo(f"{cell['cell']}: {said}")
    words = f"best {result.objective}: {best.value:.6g} (trial {best.number})" if best else "no trial is complete yet"
    click.echo(words)


@fmtune.command()
@_STUDY
def best(study: Path) -> None:
    """Print the winner's hyperparameters as YAML for a study file."""
    from fmtune.fm.hyperparameters import PARAMETERS

    result = _collected(study)
    if result.best is None:
        raise NoTrialError("no trial is complete yet", where=str(study), hint=f"fmtune run {study}")
    click.echo(f"# {result.study_name}, trial {result.best.number}: {result.objective} {result.best.value:.6g}")
    values = {**result.fixed, **result.best.params}
    if seed := values.pop("seed", 0):
        click.echo(f"seed: {seed}")
    click.echo("hyperparameters:")
    for name in PARAMETERS:
        if name in values:
            click.echo(f"  {name}: {_scalar(values[name])}")


@fmtune.command()
@_STUDY
@click.option("-o", "--out", type=_FILE, help="The page; by default reports/<study_name>.html.")
def report(study: Path, out: Path | None) -> None:
    """Write a study's report: one HTML file."""
    click.echo(_report(_collected(study), out))


@fmtune.command()
@_STUDY
@click.option("--finalists", default=3, show_default=True, help="How many of the best trials.")
@click.option("--seeds", default=10, show_default=True, help="New seeds for each.")
@click.option("--again", is_flag=True, help="Open the holdout although this was asked before.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def confirm(study: Path, finalists: int, seeds: int, again: bool, as_json: bool) -> None:
    """Train the finalists again under more seeds, say whether they differ, and open the holdout once.

    The holdout's openings are counted, and the report shows them.
    """
    from fmtune.screen import as_json as encoded
    from fmtune.tune import confirm as confirming
    from fmtune.tune import spec as specs

    spec = specs.read(study)
    found = confirming.confirm(spec, finalists=finalists, seeds=seeds, again=again)
    path = _report(_result(spec))
    if as_json:
        click.echo(encoded(found))
        return
    for number, score in found["scores"].items():
        click.echo(f"trial {number}: {spec.objective} {score['mean']:.6g} +- {score['sd']:.2g} over {seeds} seeds")
    for sentence in found["sentences"]:
        click.echo(sentence)
    if found["holdout"]:
        held = found["holdout"]
        opened = "once" if held["opened"] == 1 else f"{held['opened']} times"
        click.echo(f"sealed holdout: {held['score']:.6g} +- {held['sd']:.2g} (opened {opened})")
    click.echo(f"report: {path}")


@fmtune.command()
@_STUDY
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free one.")
@click.option("--writable", is_flag=True, help="Let the dashboard change the study, even delete it.")
@click.option("--browser/--no-browser", default=True, help="Open the address in a browser; it is printed in any case.")
@click.option("--beyond-loopback", is_flag=True, help="Allow a --host that other machines can reach.")
def dashboard(study: Path, host: str, port: int, writable: bool, browser: bool, beyond_loopback: bool) -> None:
    """Show a study, running or not, in optuna-dashboard until Ctrl-C; read-only unless asked."""
    from fmtune.dashboard.serve import serve
    from fmtune.report.markdown import markdown
    from fmtune.tune import spec as specs

    serve(specs.read(study), host, port, writable, browser, beyond_loopback=beyond_loopback, verdict=markdown)


@fmtune.command()
@_STUDY
def plan(study: Path) -> None:
    """Say what a run would do, and do nothing of it."""
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

    values: dict[str, Any] = dict(_assignment(word) for word in params)
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
    """Score DATA with MODEL.

    Columns: score and, for a binary model, predicted_label.
    """
    from fmtune.tune import scoring

    count = scoring.predict_file(model, list(data), out)
    click.echo(f"{count} rows: {out}")


@fmtune.command()
@click.argument("model", type=_FILE)
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond loopback a token is needed.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free one.")
@click.option("--token", envvar="FMTUNE_TOKEN", help="What requests must bear; better given as FMTUNE_TOKEN.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
def serve(model: Path, host: str, port: int, token: str | None, workers: int) -> None:
    """Answer prediction requests over HTTP: POST /invocations with JSON, JSON lines or RecordIO."""
    from fmtune.sagemaker import server

    def ready(address: str) -> None:
        click.echo(f"serving {model} on {address}")

    server.serve(model, host, port, token=token, workers=workers, ready=ready)


@fmtune.group(cls=_Verbs, invoke_without_command=True)
@click.pass_context
def sagemaker(context: click.Context) -> None:
    """Train, serve and tune as Amazon SageMaker's factorization machines do; take models in and out."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@sagemaker.command("train")
@click.option("--root", type=_FILE, default=Path("/opt/ml"), show_default=True, help="The container's folder.")
@click.pass_context
def sagemaker_train(context: click.Context, root: Path) -> None:
    """Run the training job below ROOT, as a container does; the exit code says how it ended."""
    from fmtune.sagemaker import verbs

    context.exit(verbs.train(root))


@sagemaker.command("import")
@click.argument("artifact", type=_FILE)
@click.option("-o", "--out", type=_FILE, required=True, help="Where the model goes.")
def sagemaker_import(artifact: Path, out: Path) -> None:
    """Turn SageMaker's model.tar.gz into a model for `fmtune predict`."""
    from fmtune.sagemaker import verbs

    _table(verbs.import_model(artifact, out))


@sagemaker.command("export")
@click.argument("model", type=_FILE)
@click.option("-o", "--out", type=_FILE, required=True, help="model.tar.gz.")
@click.option("--dense/--sparse", default=None, help="SageMaker's dense or sparse network; by default the model's own.")
def sagemaker_export(model: Path, out: Path, dense: bool | None) -> None:
    """Write MODEL as SageMaker's model.tar.gz, which MXNet reads too."""
    from fmtune.sagemaker import verbs

    verbs.export_model(model, out, dense=dense)
    click.echo(f"artifact: {out}")


@sagemaker.command("vectors")
@click.argument("model", type=_FILE)
@click.option("-o", "--out", type=_FILE, required=True, help="By suffix: .npz, .parquet.")
@click.option("--items", metavar="A..B", help="Features that are items, both ends included.")
@click.option("--users", metavar="A..B", help="Features that are users.")
def sagemaker_vectors(model: Path, out: Path, items: str | None, users: str | None) -> None:
    """Write vectors whose inner product ranks a user's items, for nearest-neighbour search."""
    from fmtune.sagemaker import verbs

    counts = verbs.vectors(model, out, items, users)
    click.echo(f"{counts['items']} items, {counts['users']} users: {out}")


@sagemaker.command("import-tuning-job")
@click.argument("job", type=_FILE)
@click.option("--data", default="data", show_default=True, help="Folder with the files of train and test.")
def sagemaker_import_tuning_job(job: Path, data: str) -> None:
    """Print a study file for a CreateHyperParameterTuningJob JSON; what has no counterpart is said."""
    from fmtune.sagemaker import verbs

    text, notes = verbs.import_tuning_job(job, data=data)
    click.echo(text, nl=False)
    for note in notes:
        click.echo(f"warning: {note}", err=True)


@sagemaker.command("export-tuning-job")
@_STUDY
def sagemaker_export_tuning_job(study: Path) -> None:
    """Print CreateHyperParameterTuningJob JSON for a study; what SageMaker cannot do is said."""
    from fmtune.sagemaker import verbs

    click.echo(verbs.export_tuning_job(study))


@sagemaker.command("serve")
@click.option("--root", type=_FILE, default=Path("/opt/ml"), show_default=True, help="The container's folder.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
def sagemaker_serve(root: Path, workers: int) -> None:
    """Serve the model below ROOT as a hosting container does: port 8080, /ping, /invocations."""
    import functools
    import os

    from fmtune.sagemaker import artifact, server

    port = int(os.environ.get("SAGEMAKER_HTTP_PORT", "8080"))
    read = functools.partial(artifact.import_artifact, root / "model")
    server.serve(read, "0.0.0.0", port, container=True, workers=workers)


@fmtune.group(cls=_Verbs, invoke_without_command=True)
@click.pass_context
def data(context: click.Context) -> None:
    """Look at data, convert it, list dataset cards."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@data.command("list")
@_JSON
def data_list(as_json: bool) -> None:
    """List the dataset cards."""
    from fmtune.data import verbs

    cards = verbs.list_cards()
    if as_json:
        _print(cards)
        return
    for card in cards:
        click.echo(f"{card['name']}: {card['title']} (licence: {card['licence']})")
        for key in card["keys"]:
            click.echo(f"    {key['name']}: {key['default']}  # {key['help']}")


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
@_JSON
def data_check(sources: tuple[Path, ...], as_json: bool) -> None:
    """Read SOURCES whole and say whether they are sound."""
    from fmtune.data import verbs

    found = verbs.check(list(sources))
    _print(found) if as_json else _table(found)


@data.command("stats")
@click.argument("sources", nargs=-1, type=_FILE, required=True)
@_JSON
def data_stats(sources: tuple[Path, ...], as_json: bool) -> None:
    """Say what SOURCES hold: rows, features, density, labels."""
    from fmtune.data import verbs

    found = verbs.stats(list(sources))
    _print(found) if as_json else _table(found)


def _assignment(word: str) -> tuple[str, Any]:
    """Return a NAME=VALUE word as its name and its value, read and checked by the parameter's own row."""
    from fmtune.errors import FmtuneError
    from fmtune.fm.hyperparameters import check, known

    name, equals, text = word.partition("=")
    try:
        row = known(name)
        if not equals:
            raise UsageError(f"{name} has no value", hint=f"write -p {name}=VALUE")
        value: Any = text
        if text.lower() in ("none", "null") and row.optional:
            value = None
        elif row.type is bool:
            value = {"true": True, "false": False}.get(text.lower(), text)
        elif row.type is not str:
            value = _number(text)
        return name, check(name, value)
    except FmtuneError as error:
        raise UsageError(error.what, where=f"-p {word[:100]}", hint=error.hint) from error


def _number(text: str) -> float | str:
    """Return a word as a number if it is one."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _result(spec: Spec) -> StudyResult:
    from fmtune.tune.collect import collect

    return collect(spec)


def _collected(study: Path) -> StudyResult:
    from fmtune.tune import spec as specs

    return _result(specs.read(study))


def _report(result: StudyResult, out: Path | None = None, keep: bool = False) -> Path:
    """Write a study's page; with ``keep``, one that was written after the study's end stays."""
    path = out or Path("reports") / f"{result.study_name}.html"
    if keep and result.finished and path.exists() and path.stat().st_mtime > _seconds(result.finished):
        return path
    from fmtune.report import page

    page.write(result, path)
    return path


def _seconds(utc: str) -> float:
    return datetime.fromisoformat(utc).timestamp()


def _verdict(result: StudyResult, ran: bool) -> None:
    from fmtune.screen import rate

    best = result.best
    assert best is not None
    cells = [cell for cell in result.cells if cell.note is None]
    counts = [sum(_ended(cell).values()) for cell in cells]
    if min(counts) < result.n_trials:
        click.echo(f"ended by its timeout: {min(counts)} of {result.n_trials} trials are done in every cell")
    elif not ran:
        click.echo(f"the study is complete: {result.n_trials} trials in each of {', '.join(c.name for c in cells)}")
    click.echo(f"winner: trial {best.number}")
    for name, value in best.params.items():
        click.echo(f"  {name}: {_scalar(value)}")
    for cell in result.cells:
        own = cell.best(result.direction)
        score = f"{own.value:.6g}" if own else "-"
        facts = f"best {score}, {rate(cell.rows_per_s)} rows/s, {cell.seconds or 0:.1f} s"
        click.echo(f"{cell.name}: {cell.note or facts}")
    if result.holdout:
        opened = result.holdout["opened"]
        times = "once" if opened == 1 else f"{opened} times"
        click.echo(f"sealed holdout: {result.holdout['score']:.6g} (opened {times})")
    click.echo(f"model: {result.model_path}")


def _ended(cell: CellResult) -> dict[str, int]:
    """Return how many trials are complete, pruned and failed."""
    states = [trial.state for trial in cell.trials]
    return {word: states.count(state) for word, state in _ENDS.items() if state in states}


_ENDS = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


def _progress(cell: CellResult, n_trials: int) -> dict[str, Any]:
    """Return how far a cell is, as ``status`` prints it."""
    ended = _ended(cell)
    states = [trial.state for trial in cell.trials]
    begun = {word: states.count(word.upper()) for word in ("running", "waiting") if word.upper() in states}
    return {"cell": cell.name, "note": cell.note, "done": sum(ended.values()), "of": n_trials,
            "states": {**ended, **begun}}  # fmt: skip


def _scalar(value: Any) -> str:
    """Return a hyperparameter as YAML: JSON, whose numbers and words YAML reads alike; plain words without quotes."""
    from fmtune.screen import as_json

    return value if isinstance(value, str) else as_json(value)


def _print(value: Any) -> None:
    from fmtune.screen import as_json

    click.echo(as_json(value))


def _table(values: Mapping[str, Any]) -> None:
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
