"""Verbs of export: models and studies in other people's formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fmtune.cli.common import FILE, STUDY, Verbs
from fmtune.errors import ResourceError

if TYPE_CHECKING:
    from fmtune.fm.model import Model

MODEL = click.argument("model", type=FILE)
OUT = click.option("-o", "--out", type=FILE, required=True, help="Where it goes.")


@click.group(cls=Verbs, invoke_without_command=True)
@click.pass_context
def export(context: click.Context) -> None:
    """Write models and studies in other people's formats."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@export.command("onnx")
@MODEL
@OUT
def export_onnx(model: Path, out: Path) -> None:
    """Write MODEL as an ONNX graph: float32 features in, scores out."""
    from fmtune.files import atomic_write

    loaded = _loaded(model)
    try:
        from fmtune.export import onnx
    except ModuleNotFoundError as error:
        raise _missing("onnx", error) from error
    atomic_write(out, onnx.content(loaded))
    click.echo(f"model: {out}")


@export.command("numpy")
@MODEL
@OUT
def export_numpy(model: Path, out: Path) -> None:
    """Write MODEL as one Python file that needs numpy alone."""
    from fmtune.export import standalone
    from fmtune.files import atomic_write

    atomic_write(out, standalone.content(_loaded(model)))
    click.echo(f"model: {out}")


@export.command("mlflow")
@MODEL
@OUT
def export_mlflow(model: Path, out: Path) -> None:
    """Write MODEL as an MLflow model, a folder with its signature."""
    loaded = _loaded(model)
    try:
        from fmtune.export import mlflow
    except ModuleNotFoundError as error:
        raise _missing("mlflow", error) from error
    mlflow.save(loaded, out)
    click.echo(f"model: {out}")


@export.command("mlflow-study")
@STUDY
@click.option("--to", "uri", required=True, help="MLflow's address: sqlite:///mlflow.db, or a server's.")
def export_mlflow_study(study: Path, uri: str) -> None:
    """Write a finished STUDY to MLflow: a parent run, a child run a trial, the winner's model.

    A sweep's studies have a parent run each.
    """
    from fmtune.tune import spec as specs
    from fmtune.tune.collect import collect

    try:
        from fmtune.export import mlflow
    except ModuleNotFoundError as error:
        raise _missing("mlflow", error) from error
    for member in specs.read(study).members():
        result = collect(member)
        run = mlflow.log(result, uri, Path(result.model_path) if result.model_path else None)
        click.echo(f"run: {run}")


def _loaded(path: Path) -> Model:
    from fmtune.fm.model import Model

    return Model.load(path)


def _missing(extra: str, error: ModuleNotFoundError) -> ResourceError:
    from fmtune.extras import install

    return ResourceError(f"{error.name} is not installed", hint=install(extra))
