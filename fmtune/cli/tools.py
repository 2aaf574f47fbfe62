"""Verbs of help: doctor, explain, completion, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fmtune.cli.common import FILE, JSON, print_json, table
from fmtune.errors import UsageError

CODES = {
    0: ("ok", "It did what it was asked."),
    1: ("finding", "A check found something: bench a slower or worse version, doctor something that does not work."),
    2: ("usage", "The command line or the study file is wrong. The message names the place, and often the word meant."),
    3: ("data or model", "A data or model file cannot be used, or changed since the study's first trial. "
        "`fmtune data check FILE` reads a file whole."),
    4: ("storage", "The study's database is damaged, unreachable, in use by another run, or holds another study. "
        "`fmtune run STUDY --fresh` starts anew and keeps the old one aside."),
    5: ("resources", "Disk, memory, a port, a permission or an optional package is missing. `fmtune doctor` looks."),
    6: ("no trial succeeded", "Every trial failed, mostly because rates are too high: lower their ranges, or set "
        "clip_gradient."),
    70: ("a fault of fmtune", "Run again with --debug, and report what it prints with `fmtune doctor --json`. Training "
         "that hangs ends so too: the same command goes on."),
    129: ("stopped by SIGHUP", "The terminal closed. Finished trials are kept; the same command goes on."),
    130: ("stopped by Ctrl-C", "Finished trials are kept; the same command goes on."),
    141: ("the reader left", "Whoever read the output (head, less) had enough."),
    143: ("stopped by SIGTERM", "Finished trials are kept; the same command goes on."),
}  # fmt: skip


def _explainable(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    from fmtune.fm.hyperparameters import PARAMETERS
    from fmtune.tune.glossary import keys

    return [word for word in dict.fromkeys((*PARAMETERS, *keys(), *map(str, CODES))) if word.startswith(begun)]


@click.command()
@click.argument("word", required=False, metavar="[NAME|CODE]", shell_complete=_explainable)
def explain(word: str | None) -> None:
    """Say what the hyperparameter or study file's key NAME is, or what an exit CODE means; without a word, all."""
    from fmtune.fm.hyperparameters import PARAMETERS, meant
    from fmtune.tune.glossary import keys

    if word is None:
        click.echo("hyperparameters: name, default, meaning")
        for name, row in PARAMETERS.items():
            click.echo(f"  {name:19}  {_word(row.default):>10}  {row.help}")
        click.echo("keys of a study file: name, default, meaning")
        for name, key in keys().items():
            click.echo(f"  {name:19}  {key.default or '':>10}  {key.meaning}")
        click.echo("exit codes")
        for number in CODES:
            click.echo(f"  {_code(number)}")
    elif word.isdecimal():
        if int(word) not in CODES:
            raise UsageError(f"no exit code {int(word)}", hint=f"there are {', '.join(map(str, CODES))}")
        click.echo(_code(int(word)))
    elif word in keys() and word not in PARAMETERS:
        key = keys()[word]
        default = {} if key.default is None else {"default": key.default}
        table({"name": word, "meaning": key.meaning, **default, "stands": f"in the study file, {key.place}"})
    elif word not in PARAMETERS:
        near = meant(word, (*PARAMETERS, *keys()))
        raise UsageError(f"no hyperparameter and no key of a study file {word[:100]!r}{near}",
                         hint="`fmtune explain` lists them")  # fmt: skip
    else:
        row = PARAMETERS[word]
        table({"name": word, "meaning": row.help, "default": _word(row.default), "values": row.values})


def _code(number: int) -> str:
    name, text = CODES[number]
    return f"{number:3}  {name}: {text}"


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


@click.command()
@JSON
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Try what fmtune needs: kernels, memory, disk, database; with --json, to paste into an issue."""
    from fmtune.tune import doctor as doctors

    found = doctors.examine()
    if as_json:
        print_json({"schema": "fmtune.doctor/1", "findings": doctors.redacted(found)})
    for finding in () if as_json else found:
        mark = {True: "ok  ", False: "FAIL", None: "    "}[finding.ok]
        click.echo(f"{mark} {finding.name:10} {finding.text}")
        if finding.hint:
            click.echo(f"     {'':10} hint: {finding.hint}")
    context.exit(int(any(finding.ok is False for finding in found)))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL; for bash: eval "$(fmtune completion bash)"."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    script = made(context.find_root().command, {}, "fmtune", "_FMTUNE_COMPLETE").source()
    # After NAME= comes its value, not a space.
    tight = "    [[ ${COMPREPLY[*]} == *= ]] && compopt -o nospace\n"
    click.echo(script.replace("    return 0\n", f"{tight}    return 0\n"))


@click.command()
@click.argument("model", type=FILE)
@click.option("--top", default=10, show_default=True, type=click.IntRange(1, 10_000), help="Lines of each list.")
@click.option("--near", type=int, metavar="FEATURE", help="The features most like this one, by their factors.")
@JSON
def inspect(model: Path, top: int, near: int | None, as_json: bool) -> None:
    """Say what MODEL is, and which features and pairs of features weigh most in its scores.

    Weights are as the model has them, however rare a feature: a pair's may hold what one of its features does by
    itself.  A study's report has its table's pairs without that.
    """
    from fmtune.data.encoding import Encoder, names_of
    from fmtune.fm import explain as explains
    from fmtune.fm.model import Model

    loaded = Model.load(model)
    names = names_of(loaded.facts)

    def name(feature: int) -> str:
        return names[feature] if names is not None and feature < len(names) else f"feature {feature}"

    facts = {
        "predictor_type": loaded.predictor_type, "feature_dim": loaded.feature_dim, "num_factors": loaded.num_factors,
        "bytes": loaded.nbytes, "bias": loaded.bias,
    }  # fmt: skip
    encoder = Encoder.of(loaded.facts)
    # Two values of one column never stand in one row.
    alone = [] if encoder is None else encoder.alone()
    weights, pairs = explains.weights(loaded, top), explains.interactions(loaded, top, alone)
    close = [] if near is None else explains.nearest(loaded, near, top)
    if as_json:
        print_json({
            **facts, "facts": loaded.facts, "names": names, "weights": [w._asdict() for w in weights],
            "interactions": [p._asdict() for p in pairs],
            "nearest": [{"feature": i, "cosine": c} for i, c in close],
        })  # fmt: skip
        return
    table({
        **facts,
        "weights": [f"{name(w.feature)}: {w.linear:+.4g}" for w in weights],
        "interactions": [f"{name(p.first)} and {name(p.second)}: {p.weight:+.4g}" for p in pairs],
        **({} if near is None else {f"nearest to {near}": [f"{name(i)}: {c:.3f}" for i, c in close]}),
    })  # fmt: skip
