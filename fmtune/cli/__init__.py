"""The command line: one verb, one function; nothing heavy is imported before a verb needs it.

``VERBS`` is the one list of them.
"""

from __future__ import annotations

import click

from fmtune import __version__
from fmtune.cli.bench import bench
from fmtune.cli.common import Verbs
from fmtune.cli.data import data
from fmtune.cli.exports import export
from fmtune.cli.models import fit, predict, serve
from fmtune.cli.sagemaker import sagemaker
from fmtune.cli.start import init
from fmtune.cli.studies import best, dashboard, plan, report, run, schema, status, worker
from fmtune.cli.tools import completion, doctor, explain, inspect
from fmtune.cli.trials import confirm, replay

VERBS: tuple[click.Command, ...] = (
    init, run, worker, status, best, report, confirm, dashboard, plan, replay, schema, fit, predict, serve, data,
    sagemaker, bench, export, inspect, doctor, explain, completion,
)  # fmt: skip


@click.group(
    cls=Verbs, invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip
@click.version_option(__version__, message="fmtune %(version)s")
@click.option("--debug", is_flag=True, help="Print the traceback of an error; goes with every verb.")
@click.pass_context
def fmtune(context: click.Context, debug: bool) -> None:
    """Tune and benchmark factorization machines: one study file in, a tuned model and one report out."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _verb in VERBS:
    fmtune.add_command(_verb)
