"""Verbs of studies: run, worker, status, best, report, dashboard, plan, schema."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fmtune.cli.common import FILE, JSON, MEMORY, STUDY, print_json, study_of
from fmtune.errors import DataError, NoTrialError, UsageError

if TYPE_CHECKING:
    from fmtune.tune.result import CellResult, StudyResult
    from fmtune.tune.spec import Spec


@click.command()
@STUDY
@click.option("--fresh", is_flag=True, help="Start anew; the old study's folder is kept as <folder>.old.")
@MEMORY
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
@click.option("--report/--no-report", default=True, help="Write reports/<study_name>.html at the end.")
def run(study: Path, fresh: bool, memory: str | None, as_json: bool, report: bool) -> None:
    """Run a study, or go on with it.

    It goes to runs/<study_name>/, with its winner's model, and its report to reports/<study_name>.html, both below the
    current folder: elsewhere it begins anew.
    """
    from fmtune.screen import screen

    failure: NoTrialError | None = None
    with screen("json" if as_json else "live" if sys.stdout.isatty() else "lines") as listener:
        from fmtune.tune import study as studies

        gc.freeze()  # what is imported stays, and each collection would look through it
        spec = study_of(study, memory)
        try:
            for member in spec.members():
                studies.run(member, fresh=fresh, listener=listener)
        except NoTrialError as error:
            failure = error
    if spec.sweep:
        if failure is not None:
            raise failure
        path = _comparison([result_of(member) for member in spec.members()], spec.study_name) if report else None
        print_json({"event": "end", "report": str(path)}) if as_json else click.echo(f"report: {path}")
        return
    result = result_of(spec)
    path = write_report(result, keep=not listener.finished) if report else None
    if as_json:
        print_json({"event": "end", "report": path and str(path), "best": result.best and result.best.value})
    elif failure is None:
        _verdict(result, bool(listener.finished))
    if path and not as_json:
        click.echo(f"report: {path}", err=failure is not None)
    if failure is not None:
        raise failure
    if not as_json:
        assert result.best is not None
        click.echo(f"best {result.objective}: {result.best.value:.6g}")


@click.command()
@STUDY
@MEMORY
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
def worker(study: Path, memory: str | None, as_json: bool) -> None:
    """Join a study on this machine, or begin it, and run its trials until there are none left.

    Start one on each machine; all of them need the study's data and its `storage`, a database that they can reach.
    SIGTERM gives running trials back.
    """
    from fmtune.screen import screen

    with screen("json" if as_json else "lines") as listener:
        from fmtune.tune import study as studies

        for member in study_of(study, memory).members():
            studies.run(member, listener=listener, worker=True)


@click.command()
@STUDY
@JSON
def status(study: Path, as_json: bool) -> None:
    """Say how far a study is, also while it runs; of a sweep, how far each of its studies is."""
    for member in study_of(study).members():
        _status(member, as_json)


def _status(spec: Spec, as_json: bool) -> None:
    from fmtune.tune.collect import standing
    from fmtune.tune.result import surplus

    found = standing(spec)
    cells = [_progress(*cell, found.n_trials) for cell in found.cells]
    best = found.best
    if as_json:
        print_json({"study_name": found.study_name, "objective": found.objective, "n_trials": found.n_trials,
                "cells": cells, "best": best and {"number": best.number, "value": best.value, "params": best.params},
                "holdout": found.holdout, "model": found.model_path, "workers": found.workers,
                "storage": found.storage})  # fmt: skip
        return
    click.echo(f"{found.study_name}: {found.storage}")
    for cell in cells:
        counts = ", ".join(f"{count} {state}" for state, count in cell["states"].items())
        more = surplus(cell["done"], found.n_trials)
        done = f"{cell['done']} trials done" if more else f"{cell['done']} of {found.n_trials} trials done"
        click.echo(f"{cell['cell']}: {cell['note'] or done + (f' ({counts})' if counts else '') + more}")
    for one in found.workers:
        said = f"{one['trials']} trials" if one["lives"] else "died; its trials go to others"
        click.echo(f"worker {one['host']}:{one['pid']}: {said}, seen {one['age']:.0f} s ago")
    words = f"best {found.objective}: {best.value:.6g} (trial {best.number})" if best else "no trial is complete yet"
    click.echo(words)


@click.command()
@STUDY
@click.option("--trial", type=int, metavar="N", help="Another trial: one that confirm found better, say.")
def best(study: Path, trial: int | None) -> None:
    """Print the winner's hyperparameters as YAML for a study file; of a sweep, a document for each of its studies."""
    for i, member in enumerate(study_of(study).members()):
        if i:
            click.echo("---")
        _best(result_of(member), study, trial)


def _best(result: StudyResult, study: Path, trial: int | None) -> None:
    from fmtune.fm.hyperparameters import PARAMETERS
    from fmtune.tune.places import command

    if result.best is None:
        raise NoTrialError("no trial is complete yet", where=str(study), hint=command("run", study))
    complete = {t.number: t for t in result.cells[0].trials if t.state == "COMPLETE"}
    if trial is not None and trial not in complete:
        raise UsageError(f"trial {trial} is not complete", where=str(study), hint="the report lists them all")
    chosen = result.best if trial is None else complete[trial]
    click.echo(f"# {result.study_name}, trial {chosen.number}: {result.objective} {chosen.value:.6g}")
    values = {**result.fixed, **chosen.params}
    if values.get("patience") and chosen.best_epoch:
        click.echo(f"# its model is that of epoch {chosen.best_epoch}; train so many where there are no test rows")
    if seed := values.pop("seed", 0):
        click.echo(f"seed: {seed}")
    click.echo("hyperparameters:")
    for name in PARAMETERS:
        if name in values:
            click.echo(f"  {name}: {_scalar(values[name])}")


@click.command()
@click.argument("studies", nargs=-1, type=FILE, required=True)
@click.option("-o", "--out", type=FILE, help="The file; by default reports/<study_name>.html.")
@click.option("--md", "face", flag_value="md", help="Print Markdown, for a pull request.")
@click.option("--csv", "face", flag_value="csv", help="Print every trial as CSV.")
@click.option("--parquet", "face", flag_value="parquet", help="Write every trial as Parquet; needs --out.")
@click.option("--extract", "face", flag_value="extract", help="Print the JSON inside a page: STUDIES is page.html.")
@click.option("--png", type=FILE, metavar="DIR", help="Write each chart as a picture into DIR.")
def report(studies: tuple[Path, ...], out: Path | None, face: str | None, png: Path | None) -> None:
    """Write a study's report: one HTML file; of several studies, their comparison.

    A result of `fmtune bench` (baseline.json) gives its page, with the history that lies beside it.
    """
    from fmtune.bench import baseline, cuda_suite
    from fmtune.files import atomic_write
    from fmtune.report import benchmark, card, charts, markdown, page, table
    from fmtune.tune import spec as specs
    from fmtune.tune.gap import gaps

    if face == "extract":
        _emit(json.dumps(page.extract(page_of(studies[0])), indent=1), out)
        return
    if studies[0].suffix == ".json":
        if (found := cuda_suite.read(studies[0])) is not None:
            whole = card.build_card(found)
        else:
            whole = benchmark.build_benchmark(baseline.read(studies[0]), baseline.history(studies[0].parent))
        place = out or studies[0].with_suffix(".html")
        atomic_write(place, whole.encode())
        click.echo(place)
        return
    read = [specs.read(study) for study in studies]
    results = [result_of(member) for spec in read for member in spec.members()]
    if len(results) > 1:
        if face == "md":
            _emit(markdown.comparison_markdown(results, gaps(results)), out)
            return
        if face or png:
            raise UsageError(f"--{face or 'png'} is of one study", hint="name one study file")
        click.echo(_comparison(results, "-".join(spec.study_name for spec in read)[:100], out))
        return
    result = results[0]
    if png is not None:
        for name, picture in charts.pictures(result).items():
            atomic_write(png / f"{name}.png", picture)
            click.echo(png / f"{name}.png")
    elif face == "parquet":
        if out is None:
            raise UsageError("Parquet is no text", hint="add --out trials.parquet")
        atomic_write(out, table.parquet(result))
        click.echo(out)
    elif face is not None:
        _emit(markdown.markdown(result) if face == "md" else table.csv(result), out)
    else:
        click.echo(write_report(result, out))


@click.command()
@STUDY
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free one.")
@click.option("--writable", is_flag=True, help="Let the dashboard change the study, even delete it.")
@click.option("--browser/--no-browser", default=True, help="Open the address in a browser; it is printed in any case.")
@click.option("--beyond-loopback", is_flag=True, help="Allow a --host that other machines can reach.")
def dashboard(study: Path, host: str, port: int, writable: bool, browser: bool, beyond_loopback: bool) -> None:
    """Show a study, running or not, in optuna-dashboard until Ctrl-C; read-only unless asked."""
    from fmtune.dashboard.serve import serve
    from fmtune.report.markdown import markdown

    spec = study_of(study)
    if spec.sweep:
        raise UsageError("a dashboard shows one study, and a sweep is several", where=str(study),
                         hint="`fmtune status` says where each lies; `optuna-dashboard sqlite:///...` shows it, "
                         "and can change it")  # fmt: skip
    serve(spec, host, port, writable, browser, beyond_loopback=beyond_loopback, verdict=markdown)


@click.command()
@STUDY
@click.option("--workers", type=click.IntRange(1, 10_000), multiple=True, metavar="N",
              help="Also play the study through on N workers like this machine; may be repeated.")  # fmt: skip
@click.option("--failures", type=click.FloatRange(0), default=24.0, show_default=True, metavar="HOURS",
              help="Between two failures of one worker, on the average; 0 is never.")  # fmt: skip
@MEMORY
def plan(study: Path, workers: tuple[int, ...], failures: float, memory: str | None) -> None:
    """Say what a run would do, how long it takes and in how much memory; nothing is written.

    A sweep's studies have their plans one after the other.
    """
    from fmtune.screen import downloads
    from fmtune.tune import plan as plans

    if failures and not failures >= 0.01:  # what is not a number is no more than one
        raise UsageError("a hundredth of an hour at least", where="--failures", hint="0 is never")
    with downloads() as progress:
        each = [plans.lines(one, progress, workers, failures) for one in study_of(study, memory).members()]
    click.echo("\n\n".join(map("\n".join, each)))


@click.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    from fmtune.tune import spec as specs

    click.echo(json.dumps(specs.schema(), indent=2))


def result_of(spec: Spec) -> StudyResult:
    from fmtune.tune.collect import collect

    return collect(spec)


def write_report(result: StudyResult, out: Path | None = None, keep: bool = False) -> Path:
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
    from fmtune.report.worth import learned_nothing
    from fmtune.screen import rate
    from fmtune.tune.result import surplus

    best = result.best
    assert best is not None
    cells = [cell for cell in result.cells if cell.note is None]
    counts = [sum(_ended(cell).values()) for cell in cells]
    if min(counts) < result.n_trials:
        click.echo(f"ended by its timeout: {min(counts)} of {result.n_trials} trials are done in every cell")
    elif not ran:
        named, more = ", ".join(c.name for c in cells), surplus(min(counts), result.n_trials)
        click.echo(f"the study is complete: {min(counts)} trials in each of {named}{more}")
    click.echo(f"winner: trial {best.number}")
    if said := learned_nothing(result):
        click.echo(said)
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
        click.echo(f"sealed holdout: {result.holdout['score']:.6g}{over_rows(result.holdout)} (opened {times})")
    click.echo(f"model: {result.model_path}")


def over_rows(held: Mapping[str, Any]) -> str:
    """Return the interval of a score on the holdout, where it has one."""
    low, high = held.get("low"), held.get("high")
    over = "groups of rows" if held.get("groups") else "rows"
    return "" if low is None or high is None else f", 95 % over {over} {low:.3g} to {high:.3g}"


def _ended(cell: CellResult) -> dict[str, int]:
    """Return how many trials are complete, pruned and failed."""
    states = [trial.state for trial in cell.trials]
    return {word: states.count(state) for word, state in _ENDS.items() if state in states}


_ENDS = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


def _progress(name: str, note: str | None, states: Mapping[str, int], n_trials: int) -> dict[str, Any]:
    """Return how far a cell is, as ``status`` prints it; ``states`` counts its trials."""
    ended = {word: states[state] for word, state in _ENDS.items() if state in states}
    begun = {word: states[word.upper()] for word in ("running", "waiting") if word.upper() in states}
    return {"cell": name, "note": note, "done": sum(ended.values()), "of": n_trials, "states": {**ended, **begun}}


def _scalar(value: Any) -> str:
    """Return a hyperparameter as YAML: JSON, whose numbers and words YAML reads alike; plain words without quotes."""
    from fmtune.screen import as_json

    return value if isinstance(value, str) else as_json(value)


def page_of(path: Path) -> str:
    """Return a page's text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"the page cannot be read: {reason}", where=str(path)) from error


def _emit(text: str, out: Path | None) -> None:
    """Print a text, or write it to a file and say which."""
    from fmtune.files import atomic_write

    if out is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    atomic_write(out, text.encode("utf-8"))
    click.echo(out)


def _comparison(results: list[StudyResult], name: str, out: Path | None = None) -> Path:
    """Write the page that compares several studies."""
    from fmtune.files import atomic_write
    from fmtune.report import compare
    from fmtune.tune.gap import gaps

    path = out or Path("reports") / f"{name}.html"
    atomic_write(path, compare.build_comparison(results, gaps(results)).encode("utf-8"))
    return path
