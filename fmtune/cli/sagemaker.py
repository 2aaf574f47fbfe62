"""Verbs that speak Amazon SageMaker's dialect."""

from __future__ import annotations

from pathlib import Path

import click

from fmtune.cli.common import FILE, STUDY, Verbs, table


@click.group(cls=Verbs, invoke_without_command=True)
@click.pass_context
def sagemaker(context: click.Context) -> None:
    """Train, serve and tune as Amazon SageMaker's factorization machines do; take models in and out."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@sagemaker.command("train")
@click.option("--root", type=FILE, default=Path("/opt/ml"), show_default=True, help="The container's folder.")
@click.pass_context
def sagemaker_train(context: click.Context, root: Path) -> None:
    """Run the training job below ROOT, as a container does; the exit code says how it ended."""
    from fmtune.sagemaker import verbs

    context.exit(verbs.train(root))


@sagemaker.command("import")
@click.argument("artifact", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="Where the model goes.")
def sagemaker_import(artifact: Path, out: Path) -> None:
    """Turn SageMaker's model.tar.gz into a model for `fmtune predict`."""
    from fmtune.sagemaker import verbs

    table(verbs.import_model(artifact, out))


@sagemaker.command("export")
@click.argument("model", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="model.tar.gz.")
@click.option("--dense/--sparse", default=None, help="SageMaker's dense or sparse network; by default the model's own.")
def sagemaker_export(model: Path, out: Path, dense: bool | None) -> None:
    """Write MODEL as SageMaker's model.tar.gz, which MXNet reads too."""
    from fmtune.sagemaker import verbs

    verbs.export_model(model, out, dense=dense)
    click.echo(f"artifact: {out}")


@sagemaker.command("transform")
@click.argument("model", type=FILE)
@click.argument("sources", type=FILE, nargs=-1, required=True)
@click.option("-o", "--out", type=FILE, required=True, help="The folder for the answers, FILE.out each.")
@click.option("--content-type", metavar="TYPE", help="Of the files; by default each is looked at.")
@click.option("--accept", metavar="TYPE", help="Of the answers; by default JSON lines, of a JSON document JSON.")
@click.option("--split-type", type=click.Choice(["None", "Line", "RecordIO"]), help="By default by content type.")
@click.option("--assemble-with", type=click.Choice(["None", "Line"]), help="By default by content type.")
@click.option("--max-payload", default=6, show_default=True, type=click.IntRange(1, 100), help="MiB of a request.")
def sagemaker_transform(
    model: Path, sources: tuple[Path, ...], out: Path, content_type: str | None, accept: str | None,
    split_type: str | None, assemble_with: str | None, max_payload: int,
) -> None:  # fmt: skip
    """Score SOURCES, files or folders, as a batch transform does; MODEL is fmtune's or SageMaker's."""
    from fmtune.sagemaker import transform, verbs

    written = transform.transform(
        verbs.any_model(model), sources, out, content_type=content_type, accept=accept, split=split_type,
        assemble=assemble_with, max_payload=max_payload << 20,
    )  # fmt: skip
    for path in written:
        click.echo(str(path))


@sagemaker.command("vectors")
@click.argument("model", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="By suffix: .npz, .parquet.")
@click.option("--items", metavar="A..B", help="Features that are items, both ends included.")
@click.option("--users", metavar="A..B", help="Features that are users.")
def sagemaker_vectors(model: Path, out: Path, items: str | None, users: str | None) -> None:
    """Write vectors whose inner product ranks a user's items, for nearest-neighbour search."""
    from fmtune.sagemaker import verbs

    counts = verbs.vectors(model, out, items, users)
    click.echo(f"{counts['items']} items, {counts['users']} users: {out}")


@sagemaker.command("import-tuning-job")
@click.argument("job", type=FILE)
@click.option("--data", default="data", show_default=True, help="Folder with the files of train and test.")
@click.option("--results", type=FILE, multiple=True, help="Jobs that AWS ran (JSON or csv); the best are tried first.")
def sagemaker_import_tuning_job(job: Path, data: str, results: tuple[Path, ...]) -> None:
    """Print a study file for a CreateHyperParameterTuningJob JSON; what has no counterpart is said."""
    from fmtune.sagemaker import verbs

    click.echo(verbs.import_tuning_job(job, data=data, results=results), nl=False)


@sagemaker.command("export-tuning-job")
@STUDY
@click.option("--image", metavar="URI", help="An image of fmtune's Dockerfile; by default SageMaker's own.")
def sagemaker_export_tuning_job(study: Path, image: str | None) -> None:
    """Print CreateHyperParameterTuningJob JSON for a study; what SageMaker cannot do is said."""
    from fmtune.sagemaker import verbs

    click.echo(verbs.export_tuning_job(study, image))


@sagemaker.command("import-training-job")
@click.argument("job", type=FILE)
@click.option("--data", default="data", show_default=True, help="Folder with the files of train and test.")
def sagemaker_import_training_job(job: Path, data: str) -> None:
    """Print a study file that searches around a CreateTrainingJob JSON, whose own values are tried first."""
    from fmtune.sagemaker import verbs

    click.echo(verbs.import_training_job(job, data=data), nl=False)


@sagemaker.command("hyperparameters")
@STUDY
@click.option("--trial", type=int, help="By default the best one.")
@click.option("--ours", is_flag=True, help="For an image of fmtune's Dockerfile, not SageMaker's own.")
def sagemaker_hyperparameters(study: Path, trial: int | None, ours: bool) -> None:
    """Print the best trial as the HyperParameters of a training job; what SageMaker cannot do is said."""
    from fmtune.sagemaker import verbs

    click.echo(verbs.hyperparameters(study, trial, ours))


@sagemaker.command("serve")
@click.option("--root", type=FILE, default=Path("/opt/ml"), show_default=True, help="The container's folder.")
@click.option("--workers", type=click.IntRange(1), help="Processes; by default what the environment asks for, or 1.")
def sagemaker_serve(root: Path, workers: int | None) -> None:
    """Serve the model below ROOT as a hosting container does, at port 8080 or the one that the environment names."""
    import functools
    import os

    from fmtune.sagemaker import artifact, hosting, server

    read = functools.partial(artifact.import_artifact, root / "model")
    several = workers or hosting.workers_of(os.environ)
    server.serve(read, "0.0.0.0", hosting.port_of(os.environ), container=True, workers=several)
