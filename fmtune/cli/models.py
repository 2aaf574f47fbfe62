"""Verbs of models: fit, predict, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fmtune import __version__
from fmtune.cli.common import FILE, named_columns, share_of, table_options
from fmtune.errors import UsageError


def _assignments(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    from fmtune.fm.hyperparameters import PARAMETERS

    name, equals, value = begun.partition("=")
    if not equals:
        return [f"{one}=" for one in PARAMETERS if one.startswith(name)]
    row = PARAMETERS.get(name)
    words = () if row is None else ("true", "false") if row.type is bool else row.choices
    return [f"{name}={word}" for word in words if word.startswith(value)]


@click.command()
@click.argument("train", nargs=-1, type=FILE, required=True)
@click.option("--test", metavar="PATH|SHARE", multiple=True,
              help="A file, a folder, a glob; may be repeated. Of a table also a share of its rows.")  # fmt: skip
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", shell_complete=_assignments,
              help="A hyperparameter; may be repeated.")  # fmt: skip
@click.option("--layout", type=click.Choice(["sparse", "dense"]), help="By default the data's own.")
@click.option("--device", type=click.Choice(["cpu", "gpu", "auto"]), default="cpu", show_default=True,
              help="auto takes a card if there is one.")  # fmt: skip
@click.option("--solver", help="sgd, als or mcmc; short for -p solver=NAME.")
@click.option("--groups", metavar="FIRST,...", help="First feature of each group, counted from 0, as in 0,943.")
@click.option("--cluster", metavar="ADDRESS", help="Train on Ray: HOST:6379, ray://HOST:10001 or auto.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Of a cluster.")
@click.option("--shards", default=1, show_default=True, type=click.IntRange(1), help="Of a cluster's parameters.")
@click.option("--parts", default=6, show_default=True, type=click.IntRange(1), help="Of the rows; the model's own.")
@click.option("--exchange", default="fp32", show_default=True, type=click.Choice(["fp16", "fp32"]), help="Its numbers.")
@click.option("--checkpoints", type=FILE, help="A folder that all machines share; by default beside the model.")
@table_options
@click.option("--by", metavar="COLUMN", help="With --test SHARE: the newest rows are tested.")
@click.option("--group", metavar="COLUMN", help="With --test SHARE: rows with the same cell stay together.")
@click.option("-o", "--out", type=FILE, required=True, help="Where the model goes.")
def fit(
    train: tuple[Path, ...], test: tuple[str, ...], params: tuple[str, ...], layout: str | None, device: str,
    solver: str | None, groups: str | None, cluster: str | None, workers: int, shards: int, parts: int, exchange: str,
    checkpoints: Path | None, by: str | None, group: str | None, out: Path, **named: Any,
) -> None:  # fmt: skip
    """Train one model on TRAIN; --label and the like say what a table's columns are."""
    from dataclasses import replace

    from fmtune.data import preparation, source
    from fmtune.data.cache import Cache
    from fmtune.data.split import Split
    from fmtune.files import foresee
    from fmtune.tune import fit as fitting

    foresee(out)
    words = (*params, *([f"solver={solver}"] if solver else []))
    values: dict[str, Any] = dict(_assignment(word) for word in words)
    columns, share = named_columns(named), share_of(test)
    if share is not None and columns is None:
        raise UsageError("a share is taken from a table", where=f"--test {test[0]}", hint="name its --label")
    if share is None and (by or group):
        raise UsageError("nothing is divided", where="--by" if by else "--group", hint="add --test SHARE, as in 0.1")
    given = {"train": list(train), **({"test": [Path(name) for name in test]} if test and share is None else {})}
    binary = values.get("predictor_type") == "binary_classifier"
    split = None if share is None else Split(test=share, by=by, group=group)
    read = preparation.prepare(given, columns, split, map_labels=binary, binary=binary, cache=Cache())
    for note in read.notes:
        click.echo(note)
    runs: Any = read.encoder and read.encoder.groups()
    if groups is not None:
        runs = [_number(word) for word in groups.split(",")]
    if cluster is not None:
        if layout == "dense" or device == "gpu" or groups is not None:
            raise UsageError("a cluster trains on sparse rows, on CPUs, without groups")
        spread = {"workers": workers, "shards": shards, "parts": parts, "half": exchange == "fp16"}
        done: Any = _on_cluster(cluster, read.rows, values, spread, checkpoints or out.with_name(f"{out.name}.rounds"))
    else:
        done = fitting.fit(
            read.rows["train"], read.rows.get("test"), layout=layout, groups=runs, device=device, **values
        )  # fmt: skip
    facts = {"hyperparameters": values, "metrics": done.metrics, "epochs": done.epochs, "version": __version__,
             "index_base": source.index_base(list(given.values()))}  # fmt: skip
    if read.encoder is not None:
        facts["encoding"] = read.encoder.to_json()
    replace(done.model, facts=facts).save(out)
    for name, value in done.metrics.items():
        click.echo(f"test:{name}: {value:.6g}")
    if cluster is not None:
        _warn_unlearned(done.metrics, done.model.predictor_type, read.rows)
    click.echo(f"model: {out}")


@click.command()
@click.argument("model", type=FILE)
@click.argument("data", nargs=-1, type=FILE, required=True)
@click.option("-o", "--out", type=FILE, required=True, help="By suffix: .csv, .jsonl, .parquet; - prints csv.")
@click.option("--interval", type=float, metavar="LEVEL", help="Add columns low and high, as in 0.9; needs solver mcmc.")
@click.option("--keep", metavar="COLUMN,...", default="", help="Columns of a table to write beside the scores.")
def predict(model: Path, data: tuple[Path, ...], out: Path, interval: float | None, keep: str) -> None:
    """Score DATA with MODEL.

    Columns: score and, for a binary model, predicted_label. A column that a table lacks counts as missing cells.
    Where DATA has labels, the metrics on them are printed.
    """
    from fmtune.tune import scoring

    kept = [name.strip() for name in keep.split(",") if name.strip()]
    scored = scoring.predict_file(model, list(data), out, interval, keep=kept)
    # Standard output may hold the scores.
    aside = out == scoring.STDOUT
    for name, value in scored.metrics.items():
        part = f" (on the {scored.labelled} of {scored.rows} rows with a label)"
        click.echo(f"{name}: {value:.6g}{part if scored.labelled < scored.rows else ''}", err=aside)
    if not aside:
        click.echo(f"{scored.rows} rows: {out}")


@click.command()
@click.argument("model", type=FILE)
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


def _on_cluster(address: str, rows: Any, values: dict[str, Any], spread: dict[str, Any], folder: Path) -> Any:
    """Train on Ray and say what the exchange took."""
    from fmtune.cluster.engine import OnRay
    from fmtune.cluster.fit import fit as train
    from fmtune.cluster.layout import Layout
    from fmtune.fm.hyperparameters import Hyperparameters

    def say(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            click.echo(f"epoch {event['epoch']}: {event['value']:.6g}")
        elif event["event"] == "mended":
            click.echo(f"a process died in round {event['round']}; it is replaced")

    engine = OnRay(address)
    try:
        done = train(engine, rows["train"], rows.get("test"), Hyperparameters.of(values), Layout(**spread), folder, say)
    finally:
        engine.close()
    busy = done.train_seconds + done.exchange_seconds
    click.echo(f"exchange: {done.exchange_seconds / busy:.0%} of the workers' time, {done.bytes / 1e6:.0f} MB")
    return done


def _warn_unlearned(metrics: dict[str, float], predictor_type: str, rows: Any) -> None:
    """Say so where a model is hardly better than a constant."""
    import warnings

    from fmtune.fm.fit import default_objective
    from fmtune.fm.metrics import constant, unlearned

    name = default_objective(predictor_type)
    if name in metrics:
        said = unlearned(name, metrics[name], constant(name, rows["train"].labels, rows["test"].labels))
        if said is not None:
            warnings.warn(said, stacklevel=2)


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
