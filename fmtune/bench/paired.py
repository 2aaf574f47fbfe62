"""Paired: two versions measured in turns, each case until it is decided or its budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmtune.bench import gate
from fmtune.bench.case import Case
from fmtune.bench.ceilings import Ceilings
from fmtune.bench.faces import sentence
from fmtune.bench.gate import Verdict
from fmtune.bench.run import Measured, Say, envelope, measure, record
from fmtune.bench.stock import Stock
from fmtune.bench.worker import Side

ROUNDS = 4
BLOCKS = 24
CONTINUE = 2


def duel(
    case: Case, files: Mapping[str, str], base: Side, new: Side, *, tolerance: float = gate.TOLERANCES["paired"],
    budget: float = 60.0, rounds: int = ROUNDS, blocks: int = BLOCKS, clock: Callable[[], float] = time.monotonic,
) -> tuple[Verdict, dict[str, Measured]]:  # fmt: skip
    """Measure one case of two versions until it is decided.

    Parameters
    ----------
    case, files
        The case and its files.
    base, new
        The two versions.
    tolerance
        How much slower is nobody's business.
    budget
        Seconds after which no further rounds are begun.
    rounds, blocks
        Pairs of fresh processes before the first look, and A B B A turns in each.
    clock
        What the budget is read from.

    Returns
    -------
    Verdict, and what was measured by side.
    """
    found = {base.name: Measured(), new.name: Measured()}
    began, done = clock(), 0
    while True:
        # Each other round begins with the other version.
        more = rounds if done == 0 else CONTINUE
        for number in range(done, done + more):
            sides = (base, new) if number % 2 == 0 else (new, base)
            measure(case, files, sides, found, rounds=(number,), blocks=blocks)
        done += more
        verdict = gate.paired(case.name, vars(found[base.name]), vars(found[new.name]), tolerance=tolerance)
        if verdict.verdict != "cannot tell" or clock() - began > budget:
            return verdict, found


def run_paired(
    cases: Sequence[Case], folder: Path, base: Side, new: Side, *, suite: str = "quick",
    tolerance: float | None = None, budget: float = 60.0, rounds: int = ROUNDS, blocks: int = BLOCKS,
    say: Say = lambda line: None,
) -> tuple[dict[str, Any], list[Verdict]]:  # fmt: skip
    """Compare two versions over cases; return the result object of the new one, with the base's samples in it."""
    stock, ceilings = Stock(folder), Ceilings()
    entries, verdicts = [], []
    for case in cases:
        calibration = ceilings.calibrate()
        limit = gate.TOLERANCES["paired"] if tolerance is None else tolerance
        verdict, found = duel(
            case, stock.files(case), base, new, tolerance=limit, budget=budget, rounds=rounds, blocks=blocks
        )
        entry = record(case, found[new.name], calibration, ceilings)
        entry["base"] = vars(found[base.name])
        entry["verdict"] = verdict.plain()
        entries.append(entry)
        verdicts.append(verdict)
        say(sentence(verdict))
    return {**envelope(suite, entries), "mode": "paired"}, verdicts

