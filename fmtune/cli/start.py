"""Verb of a beginning: init."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fmtune.cli.common import FILE
from fmtune.errors import UsageError

if TYPE_CHECKING:
    from fmtune.tune.starter import Answers


@click.command()
@click.argument("data", required=False)
@click.option("--label", metavar="COLUMN", help="A table's label; guessed where a column is called as labels are.")
@click.option("--task", type=click.Choice(["regressor", "binary_classifier"]), help="By default what the labels show.")
@click.option("--test", metavar="PATH|SHARE", help="A file or, of a table, a share of its rows; 0.1 if not given.")
@click.option("--holdout", metavar="PATH|SHARE", help="Rows that the search never sees; 0.1 of a table's if not given.")
@click.option("--by", metavar="COLUMN", help="A table's column of times: the newest rows are tested.")
@click.option("-o", "--out", type=FILE, default=Path("study.yaml"), show_default=True, help="The study file.")
@click.option("--force", is_flag=True, help="Write over a study file that is there.")
def init(data: str | None, out: Path, force: bool, **given: Any) -> None:
    """Write a study file for DATA: a table, a file of rows, or a dataset card.

    In a terminal it asks for what is not given. The file's JSON Schema goes beside it, for editors.
    """
    from fmtune.files import atomic_write
    from fmtune.tune import spec as specs
    from fmtune.tune import starter
    from fmtune.tune.places import command

    asks = sys.stdin.isatty() and sys.stdout.isatty()
    if out.exists() and not force:
        raise UsageError("the file is there already", where=str(out), hint="name another with -o, or add --force")
    if data is None:
        if not asks:
            raise UsageError("no data are named", hint="fmtune init DATA, such as ratings.csv or digits")
        data = click.prompt("data (a file or a dataset card)", type=str)
    answers = starter.Answers(data, **given)
    answers = (_asked(answers) if asks else starter.look(answers)).with_test()
    atomic_write(out, starter.text(answers, out).encode())
    schema = out.with_name("schema.json")
    if not schema.exists():
        atomic_write(schema, (json.dumps(specs.schema(), indent=2) + "\n").encode())
    for line in answers.said():
        click.echo(line)
    click.echo(f"study file: {out}\nnext: {command('run', out)}")


def _asked(answers: Answers) -> Answers:
    """Return the answers with what the user says; a guess stands where there is one."""
    from dataclasses import replace

    from fmtune.tune import starter

    if answers.is_table and answers.label is None:
        names, guess = starter.guessed_label(answers)
        answers = replace(answers, label=click.prompt("label", type=click.Choice(names), default=guess))
    looked = starter.look(answers)
    if looked.is_card:
        return looked
    if answers.task is None:
        looked = replace(looked, task=click.prompt("task", type=click.Choice(starter.TASKS), default=looked.task))
    if looked.test is None:
        default = "0.1" if looked.is_table else None
        looked = replace(looked, test=click.prompt("test (a file, or a share of the rows)", type=str, default=default))
    return looked
