"""Verb: the body of ``fmtune bench``, without a terminal around it."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from fmtune.bench import baseline, case, cuda_suite, faces, gate, machine, peer, versions
from fmtune.bench.case import Case
from fmtune.bench.gate import Verdict
from fmtune.bench.paired import Effort, run_paired
from fmtune.bench.run import Say, run_suite
from fmtune.bench.worker import Side
from fmtune.errors import FmtuneError, UsageError
from fmtune.files import atomic_write


@dataclass(frozen=True)
class Options:
    """The command line of ``fmtune bench``; ``docs/bench.md`` says what each does."""

    suite: str = "quick"
    cases: tuple[str, ...] = ()
    against: str | None = None
    check: Path | None = None
    accept: bool = False
    as_json: bool = False
    out: Path | None = None
    junit: Path | None = None
    summary: Path | None = None
    smaller: Path | None = None
    peers: tuple[str, ...] = ()
    peer_python: str | None = None
    tolerance: float | None = None
    budget: float = 60.0
    within: float = math.inf
    ci: bool = False
    strict: bool = False
    least: int = 0


def bench(options: Options, *, say: Say, put: Callable[[str], None]) -> int:
    """Measure, judge and show; return the exit code.

    Parameters
    ----------
    options
        The command line.
    say
        Told a line a case, and the verdict.
    put
        Given the result as JSON, with ``as_json``.

    Raises
    ------
    UsageError
        Options that do not go together, an unknown suite, case, peer or version.
    DataError
        The baseline cannot be read.
    """
    _together(options)
    if options.suite == "gpu":
        return _cards(options, say, put)
    suite = case.read(options.suite)
    cases = case.choose(suite.cases, options.cases)
    if not 0 <= options.least <= len(cases):
        count = f"{len(cases)} case{'s' * (len(cases) != 1)}"
        raise UsageError(f"there are {count}, not {options.least}", where="--least", hint="ask for no more than those")
    # Read before anything is measured: a slip must not cost two minutes.
    old = None if options.check is None or options.accept else baseline.read(options.check)
    with tempfile.TemporaryDirectory(prefix="fmtune-bench-") as scratch:
        folder = Path(scratch)
        peers = peer.sides(options.peers, folder / "cache", options.peer_python)
        verdicts: list[Verdict] = []
        if options.ci or options.against is not None:
            try:
                result, verdicts = _compare(options, suite.name, cases, folder, say)
            except (FmtuneError, OSError) as error:
                slip = options.against is not None and isinstance(error, UsageError)
                if slip or not options.ci:
                    raise
                say(f"not compared: {error}")
                return 0 if isinstance(error, versions.Unchanged) else _short([], options.least, say)
        else:
            result = run_suite(cases, folder, suite=suite.name, cache=folder / "cache", peers=peers, say=say)
    if old is not None:
        verdicts = gate.check(old, result, tolerance=options.tolerance, only=options.cases)
        result = {**result, "mode": "stored"}
        for verdict in verdicts:
            say(faces.sentence(verdict))
    if verdicts:
        result = {**result, "verdicts": [verdict.plain() for verdict in verdicts]}
    _show(options, result, verdicts, say, put)
    if verdicts:
        _short(verdicts, options.least, say)
        return gate.exit_code(verdicts, strict=options.strict, least=options.least)
    failed = any(entry["error"] for entry in result["cases"])
    if options.accept and options.check is not None:
        if failed:
            say("not accepted: a case failed")
        else:
            baseline.accept(result, options.check)
            say(f"accepted: {options.check}; history: {options.check.parent / baseline.HISTORY}")
    return int(failed)


def _short(verdicts: Sequence[Verdict], least: int, say: Say) -> int:
    """Say so where fewer cases were told than ``--least`` asks for; return the exit code that this comes to."""
    count = gate.told(verdicts)
    if count < least:
        say(f"--least {least}: only {count} told; give it more time (--within, --budget) or a calmer machine")
    return gate.STRICT_EXIT if count < least else 0


def _cards(options: Options, say: Say, put: Callable[[str], None]) -> int:
    """Run the suite of a CUDA card; 1 when something failed, 0 also where there is no card."""

    def save(result: dict[str, Any]) -> None:
        if options.out is not None:
            atomic_write(options.out, json.dumps(result).encode() + b"\n")

    result = cuda_suite.run(say, within=options.within, save=save)
    if options.as_json:
        put(json.dumps(result))
    save(result)
    return int(cuda_suite.failed(result))


def _compare(
    options: Options, suite: str, cases: tuple[Case, ...], folder: Path, say: Say
) -> tuple[dict[str, Any], list[Verdict]]:  # fmt: skip
    """Measure this version and another one in turns."""
    began = time.monotonic()
    against = options.against or versions.accepted()
    patience = options.within / 2 if math.isfinite(options.within) else None
    base = versions.side_of(against, folder, Path(platformdirs.user_cache_dir("fmtune")), patience)
    say(f"against {against}")
    if options.ci:
        # A limit of time leaves out other cases at another commit.
        first = int((machine.commit() or "0").rstrip("+"), 16) % len(cases)
        cases = (*cases[first:], *cases[:first])
    effort = Effort(
        tolerance=gate.TOLERANCES["paired"] if options.tolerance is None else options.tolerance, budget=options.budget,
        within=options.within - (time.monotonic() - began), rounds=3 if options.ci else 4, twice=options.ci,
    )  # fmt: skip
    found = run_paired(cases, folder, base, Side("new", folder / "cache-new"), effort, suite=suite, say=say)
    if options.ci and gate.exit_code(found[1]):
        say(f"if this is meant: fmtune bench --accept --check {versions.BASELINE}, in the same commit")
    return found


def _together(options: Options) -> None:
    if options.ci and (options.check is not None or options.peers):
        raise UsageError("--ci compares two versions in turns", hint="leave --check and --peer away")
    if options.against is not None and options.check is not None:
        raise UsageError("--against and --check are two modes and never mixed", hint="run one after the other")
    if options.accept and options.check is None:
        raise UsageError("--accept needs the file to write", hint="--accept --check reports/baseline.json")
    if options.accept and options.cases:
        raise UsageError("--accept takes the whole suite", hint="leave --case away")
    if options.least and not (options.ci or options.against is not None or (options.check and not options.accept)):
        raise UsageError("--least is for a comparison", hint="compare by --check, --against or --ci")
    if options.peers and options.against is not None:
        raise UsageError("--peer and --against do not go together", hint="run one after the other")
    if options.tolerance is not None and not 0 < options.tolerance < 1:
        raise UsageError(f"the tolerance is a share between 0 and 1, not {options.tolerance!r}", where="--tolerance")


def _show(
    options: Options, result: dict[str, Any], verdicts: Sequence[Verdict], say: Say, put: Callable[[str], None]
) -> None:
    text = json.dumps(result)
    if options.as_json:
        put(text)
    items = json.dumps(faces.smaller_is_better(result, verdicts), indent=1) + "\n"
    for path, content in (
        (options.out, text + "\n"), (options.junit, faces.junit(result, verdicts)), (options.smaller, items),
    ):  # fmt: skip
        if path is not None:
            atomic_write(path, content.encode())
    if options.summary is not None:
        # GitHub's file already holds the summaries of earlier steps.
        with options.summary.open("a", encoding="utf-8") as stream:
            stream.write(faces.markdown(result, verdicts))
    if verdicts:
        say(faces.lead(result, verdicts))
