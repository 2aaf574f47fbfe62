"""Paired: two versions measured in turns, each case until it is decided or its budget is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fmtune.bench import gate
from fmtune.bench.case import Case
from fmtune.bench.faces import sentence
from fmtune.bench.gate import Verdict
from fmtune.bench.run import SECONDS, Measured, Say, envelope, measure, record
from fmtune.bench.stock import Stock
from fmtune.bench.worker import PATIENCE, Side

CONTINUE = 2

Clock = Callable[[], float]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes
    ----------
    tolerance : float
        How much slower is nobody's business.
    budget : float
        Seconds of one case after which no further rounds of it are begun.
    within : float
        Seconds of all cases together after which no round is begun and no answer waited for.
    rounds, blocks : int
        Pairs of fresh processes before the first look, and A B B A turns in each.
    seconds : float
        What the turns of a round may take.
    twice : bool
        Whether a failure counts only when a second run, from the start, finds it too.
    """

    tolerance: float = gate.TOLERANCES["paired"]
    budget: float = 60.0
    within: float = math.inf
    rounds: int = 4
    blocks: int = 24
    seconds: float = SECONDS
    twice: bool = False


@dataclass
class Duel:
    """One case of two versions: ``go_on`` while it is ``open``; ``verdict`` is what the rounds so far say.

    Attributes
    ----------
    case, files
        The case and its files.
    base, new
        The two versions.
    effort
        How much is measured.
    end
        When the time is up, by ``clock``.
    found
        What was measured, by side.
    """

    case: Case
    files: Mapping[str, str]
    base: Side
    new: Side
    effort: Effort = field(default_factory=Effort)
    end: float = math.inf
    clock: Clock = time.monotonic
    found: dict[str, Measured] = field(init=False)
    verdict: Verdict = field(init=False)
    rounds: int = field(init=False, default=0)
    spent: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.found = {side.name: Measured() for side in (self.base, self.new)}
        self.verdict = _unasked(self.case)

    @property
    def open(self) -> bool:
        """Whether more rounds could decide it, and time and budget allow them."""
        undecided = self.verdict.verdict == "cannot tell" and not any(m.disturbed for m in self.found.values())
        return undecided and self.clock() < self.end and (self.rounds == 0 or self.spent <= self.effort.budget)

    def go_on(self) -> None:
        """Measure some rounds, and judge."""
        began = self.clock()
        for _ in range(CONTINUE if self.rounds else self.effort.rounds):
            left = self.end - self.clock()
            if left <= 0:
                break
            # Each other round begins with the other version.
            sides = (self.base, self.new) if self.rounds % 2 == 0 else (self.new, self.base)
            measure(self.case, self.files, sides, self.found, rounds=(self.rounds,), blocks=self.effort.blocks,
                    seconds=self.effort.seconds, patience=min(PATIENCE, left))  # fmt: skip
            self.rounds += 1
        self.spent += self.clock() - began
        if self.rounds:
            base, new = (vars(self.found[side.name]) for side in (self.base, self.new))
            self.verdict = gate.paired(self.case.name, base, new, tolerance=self.effort.tolerance)
        if self.clock() >= self.end and self.verdict.ratio is None:
            self.verdict = _unasked(self.case)


def _unasked(case: Case) -> Verdict:
    return Verdict(case.name, "cannot tell", notes=("the time was up",))


def duel(
    case: Case, files: Mapping[str, str], base: Side, new: Side, effort: Effort = Effort()
) -> tuple[Verdict, dict[str, Measured]]:
    """Measure one case of two versions until it is decided; return the verdict, and what was measured by side."""
    one = Duel(case, files, base, new, effort)
    while one.open:
        one.go_on()
    return one.verdict, one.found


def run_paired(
    cases: Sequence[Case], folder: Path, base: Side, new: Side, effort: Effort = Effort(), *, suite: str = "quick",
    say: Say = lambda line: None, clock: Clock = time.monotonic,
) -> tuple[dict[str, Any], list[Verdict]]:  # fmt: skip
    """Compare two versions over cases; return the result object of the new one, with the base's samples in it.

    Every case has its first look before any has a second one, so that a limit of time leaves none out.  Nothing is
    calibrated: the other version stands beside this one.
    """
    end = clock() + effort.within
    # First looks must fit: a third of the time is for turns; starting processes takes about as much.
    effort = replace(effort, seconds=min(effort.seconds, effort.within / (3 * len(cases) * effort.rounds)))
    stock = Stock(folder)
    duels = [Duel(case, stock.files(case), base, new, effort, end, clock) for case in cases]
    again: dict[str, Duel] = {}
    while still := [one for one in (*duels, *again.values()) if one.open]:
        for one in still:
            one.go_on()
            if not one.open:
                say(sentence(one.verdict))
            if effort.twice and one.verdict.verdict in gate.FAILS and one.case.name not in again:
                say(f"{one.case.name}: once more, from the start")
                again[one.case.name] = Duel(one.case, one.files, base, new, effort, end, clock)
    entries, verdicts = [], []
    for one in duels:
        verdicts.append(confirmed(one.verdict, again[one.case.name].verdict) if one.case.name in again else one.verdict)
        entries.append({**record(one.case, one.found[new.name]), "base": vars(one.found[base.name])})
    return {**envelope(suite, entries), "mode": "paired"}, verdicts


def confirmed(first: Verdict, second: Verdict) -> Verdict:
    """Return a failure that a second run has found too; otherwise it is ``cannot tell``."""
    if second.verdict in gate.FAILS:
        return replace(first, notes=(*first.notes, "found again in a second run"))
    notes = (*first.notes, f"{first.verdict} in one run, in a second one: {'; '.join((second.verdict, *second.notes))}")
    return replace(first, verdict="cannot tell", notes=notes)
