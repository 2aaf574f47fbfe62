"""The verb of benchmarks: bench."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click

from fmtune.cli.common import FILE


@click.command()
@click.option("--suite", default="quick", show_default=True, help="quick, full, gpu, or a suite file.")
@click.option("--case", "cases", multiple=True, metavar="NAME", help="Only this case; may be repeated.")
@click.option("--against", metavar="REF|PATH", help="Measure a git ref or a checkout in turns with this version.")
@click.option("--check", type=FILE, help="Compare with an accepted result.")
@click.option("--accept", is_flag=True, help="Make this run the result that --check names.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--out", type=FILE, help="Write the JSON to a file.")
@click.option("--junit", type=FILE, help="Write JUnit XML.")
@click.option("--summary", type=FILE, help="Append a GitHub step summary in Markdown.")
@click.option("--smaller", type=FILE, help="Write customSmallerIsBetter JSON.")
@click.option("--peer", "peers", multiple=True, metavar="NAME", help="Another trainer beside ours; see docs/bench.md.")
@click.option("--peer-python", metavar="PATH", help="The interpreter that has the peers.")
@click.option("--tolerance", type=float, metavar="SHARE", help="How much slower is nobody's business.")
@click.option("--budget", default=60.0, show_default=True, help="Seconds for a case that is not decided.")
@click.option("--within", default=math.inf, metavar="SECONDS", help="Limit of all cases compared, or of suite gpu.")
@click.option("--ci", is_flag=True, help="Against the last accepted version; fails only for what two runs find.")
@click.option("--strict", is_flag=True, help="Exit with 3 when a case cannot be told.")
@click.option("--least", default=0, metavar="N", help="Exit with 3 when fewer than N cases are told.")
@click.pass_context
def bench(
    context: click.Context, suite: str, cases: tuple[str, ...], against: str | None, check: Path | None, accept: bool,
    as_json: bool, out: Path | None, junit: Path | None, summary: Path | None, smaller: Path | None,
    peers: tuple[str, ...], peer_python: str | None, tolerance: float | None, budget: float,
    within: float, ci: bool, strict: bool, least: int,
) -> None:  # fmt: skip
    """Measure, and say slower, faster and worse, no change, or cannot tell; docs/bench.md says how."""
    from fmtune.bench import verb

    options = verb.Options(
        suite, cases, against, check, accept, as_json, out, junit, summary, smaller, peers, peer_python, tolerance,
        budget, within, ci, strict, least,
    )  # fmt: skip

    def say(text: str) -> None:
        # With --json standard output is the result's alone.
        print(text, file=sys.stderr if as_json else sys.stdout, flush=True)

    context.exit(verb.bench(options, say=say, put=click.echo))
