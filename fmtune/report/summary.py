"""Summary: what the numbers of a study come to: states, the best, pace, and cells compared in pairs.

A difference between two cells is judged on pairs (the same trial in both), never on the two best scores; and
the best of many noisy scores is called what it is, optimistic (Cawley & Talbot 2010, JMLR 11:2079).
"""

from __future__ import annotations

import math
from collections import Counter
from statistics import NormalDist, fmean, stdev
from typing import Any, NamedTuple

from fmtune.fm.fit import best_epoch
from fmtune.report import words
from fmtune.tune.result import CellResult, StudyResult, TrialResult

EQUAL = 0.005  # cells whose paired difference is surely below this share of the score are practically equal
TARGET = 0.01  # "time to target": within this share of the best score of any cell
EDGE = 0.05  # a winner in this outermost share of a range sits at its edge


class Paired(NamedTuple):
    """Scores of one cell minus those of the first, over the trials complete in both."""

    trials: int
    mean: float
    half: float  # half width of the 95 % interval of the mean
    largest: float
    verdict: str  # better, worse, equal, undecided


class Pace(NamedTuple):
    """Best score so far against the seconds spent in a cell, one step for each improvement."""

    seconds: tuple[float, ...]
    values: tuple[float, ...]
    total: float


def sign(result: StudyResult) -> float:
    """Return 1 where lower is better and -1 where higher is."""
    return -1.0 if result.direction == "maximize" else 1.0


def value_of(trial: TrialResult) -> float | None:
    """Return the trial's finite value, or None."""
    return trial.value if trial.value is not None and math.isfinite(trial.value) else None


def complete(cell: CellResult) -> list[TrialResult]:
    """Return the cell's trials that ended with a value."""
    return [t for t in cell.trials if t.state == "COMPLETE" and value_of(t) is not None]


def best(result: StudyResult, cell: CellResult | None = None) -> TrialResult | None:
    """Return the best trial of a cell, by default the first: the winner."""
    cells = result.cells[:1] if cell is None else (cell,)
    scores = [(sign(result) * (t.value or 0.0), t.number, t) for c in cells for t in complete(c)]
    return min(scores, key=lambda s: s[:2])[2] if scores else None


def ranked(result: StudyResult, cell: CellResult) -> list[TrialResult]:
    """Return the cell's complete trials, best first."""
    return sorted(complete(cell), key=lambda t: (sign(result) * (t.value or 0.0), t.number))


def peak(result: StudyResult, trial: TrialResult) -> int:
    """Return the first epoch (1-based) of a trial's best score; 0 without a curve."""
    return best_epoch(trial.curve, result.direction)


def close(result: StudyResult, top: TrialResult) -> list[TrialResult]:
    """Return the other trials within 1 % of the winner."""
    limit = TARGET * abs(top.value or 0.0)
    return [t for t in ranked(result, result.cells[0])[1:] if abs((t.value or 0.0) - (top.value or 0.0)) <= limit]


def states(cell: CellResult) -> Counter[str]:
    """Return how many trials of the cell are in each state."""
    return Counter(t.state for t in cell.trials)


def in_states(cell: CellResult) -> str:
    """Return ``58 complete, 4 pruned and 2 failed``."""
    names = {
        "COMPLETE": "complete",
        "PRUNED": "pruned",
        "FAIL": "failed",
        "RUNNING": "running",
        "WAITING": "waiting",
    }
    counts = states(cell)
    return words.listing(
        [f"{counts[s]:,} {names.get(s, s.lower())}" for s in [*names, *(counts.keys() - names)] if counts[s]]
    )


def situation(result: StudyResult) -> str:
    """Return ``empty``, ``failed``, ``pruned``, ``nothing``, ``unfinished`` or ``finished``; the page says which."""
    trials = result.cells[0].trials if result.cells else ()
    if not trials:
        return "empty"
    going = result.finished is None or any(t.state in ("RUNNING", "WAITING") for t in trials)
    if best(result) is not None:
        return "unfinished" if going else "finished"
    kinds = {t.state for t in trials}
    return "failed" if kinds == {"FAIL"} else "pruned" if kinds == {"PRUNED"} else "unfinished" if going else "nothing"


def improvements(result: StudyResult, cell: CellResult) -> list[TrialResult]:
    """Return the trials that were the best so far when they came, in number order."""
    steps: list[TrialResult] = []
    for trial in sorted(complete(cell), key=lambda t: t.number):
        if not steps or sign(result) * (trial.value or 0.0) < sign(result) * (steps[-1].value or 0.0):
            steps.append(trial)
    return steps


def pace(result: StudyResult, cell: CellResult) -> Pace:
    """Return best so far against seconds; trials count in number order, each with its share of the passes."""
    spent, clock, leaders = 0.0, [], {t.number for t in improvements(result, cell)}
    for trial in sorted(cell.trials, key=lambda t: t.number):
        spent += trial.seconds or 0.0
        if trial.number in leaders:
            clock.append((spent, float(trial.value or 0.0)))
    return Pace(tuple(s for s, _ in clock), tuple(v for _, v in clock), spent)


def target(result: StudyResult) -> float | None:
    """Return the score that counts as reached: within 1 % of the best of any cell."""
    tops = [t.value for cell in result.cells if (t := best(result, cell)) is not None and t.value is not None]
    if not tops:
        return None
    top = min(tops, key=lambda v: sign(result) * v)
    return top + sign(result) * TARGET * abs(top)


def time_to_target(result: StudyResult, cell: CellResult, goal: float | None = None) -> float | None:
    """Return the seconds after which the cell reached the goal, by default the target; None if it never did."""
    goal, course = target(result) if goal is None else goal, pace(result, cell)
    if goal is None or not course.total:
        return None
    reached = (s for s, v in zip(course.seconds, course.values, strict=True) if sign(result) * (v - goal) <= 0)
    return next(reached, None)


def time_spent(cell: CellResult) -> float:
    """Return the seconds in all trials of the cell: a target not reached by then is known to take longer."""
    return sum(t.seconds or 0.0 for t in cell.trials)


def paired(result: StudyResult, cell: CellResult) -> Paired | None:
    """Compare a cell with the first on the trials that both completed; None with fewer than two such."""
    first = {t.number: value_of(t) for t in complete(result.cells[0])}
    ours = [(t.value or 0.0, first[t.number]) for t in complete(cell) if t.number in first]
    gaps = [a - b for a, b in ours if b is not None]
    if len(gaps) < 2:
        return None
    mean, half = fmean(gaps), 1.96 * stdev(gaps) / math.sqrt(len(gaps))
    top = best(result)
    limit = EQUAL * abs(top.value or 0.0) if top else 0.0
    if abs(mean) + half <= limit:
        verdict = "equal"
    elif abs(mean) > half:
        verdict = "better" if sign(result) * mean < 0 else "worse"
    else:
        verdict = "undecided"
    return Paired(len(gaps), mean, half, max(map(abs, gaps)), verdict)


def speed(result: StudyResult, cell: CellResult) -> float | None:
    """Return how many times as many rows a second the cell learns as the first."""
    base = result.cells[0].rows_per_s
    return cell.rows_per_s / base if base and cell.rows_per_s else None


def optimism(trials: int) -> float:
    """Return the expected best of so many independent noisy scores, in standard errors (Blom 1958)."""
    return NormalDist().inv_cdf((trials - 0.375) / (trials + 0.25)) if trials > 1 else 0.0


def edge(name: str, value: Any, space: dict[str, dict[str, Any]]) -> str | None:
    """Return ``upper`` or ``lower`` when the value sits in the outermost part of its range, else None."""
    span = space.get(name, {})
    low, high = span.get("low"), span.get("high")
    numbers = (value, low, high)
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in numbers) or not low < high:  # type: ignore[operator]
        return None
    if span.get("log") and low > 0 and value > 0:  # type: ignore[operator]
        place = math.log(value / low) / math.log(high / low)  # type: ignore[operator]
    else:
        place = (value - low) / (high - low)  # type: ignore[operator]
    return "upper" if place >= 1 - EDGE else "lower" if place <= EDGE else None
