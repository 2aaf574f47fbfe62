"""Advice: the verdict in sentences and what to do next; each sentence follows from ``summary``'s numbers."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from fmtune.report import words
from fmtune.report.summary import (
    EQUAL,
    TARGET,
    best,
    close,
    complete,
    edge,
    in_states,
    paired,
    peak,
    ranked,
    sign,
    situation,
    speed,
)
from fmtune.report.worth import more_seeds, worth
from fmtune.tune.result import CellResult, StudyResult, TrialResult

MATTERS = 0.05  # below this share of importance the best trials lie as all do, and an edge is likely chance
LEADERS = 10  # so many of the best trials are asked whether they overfit at once

# A study goes on only as it was begun: what changes its file in more than the budget is another study.
_ANEW = "under a new study_name"


class Advice(NamedTuple):
    """One next step: a sentence, and the command or the line of a study file that does it where there is one."""

    text: str
    command: str | None = None


def command(result: StudyResult, verb: str = "run", *rest: str) -> str:
    """Return ``fmtune run studies/digits.yaml``, quoted for a shell."""
    return shlex.join(["fmtune", verb, result.spec_path or "study.yaml", *rest])


def lead(result: StudyResult) -> str:
    """Return the first sentence of the page: who won with what, or why nobody did."""
    top = best(result)
    if top is None:
        return _nobody(result)
    first = result.cells[0]
    only = len(complete(first)) == 1
    place = "the only complete trial" if only else f"the best of {words.count(len(first.trials), 'trial')}"
    so_far = " so far" if situation(result) == "unfinished" else ""
    name = words.short(words.metric(result.objective), 80)
    return f"Trial {top.number} {_standing(result)}{so_far}: {name} {words.score(top.value)}, {place}."


def _standing(result: StudyResult) -> str:
    """Return ``wins``, or less where the confirmation could not tell the winner from others."""
    found = worth(result)
    if found is None or found.ahead is None:
        return "wins"
    if found.ahead.trial != found.trial:
        return "was selected"
    return "wins" if all(f.verdict in ("best", "better", "diverged") for f in found.finalists) else "leads"


def _nobody(result: StudyResult) -> str:
    case = situation(result)
    if case == "empty":
        return "This study has no trials yet."
    first = result.cells[0]
    if case in ("failed", "pruned"):
        if len(first.trials) == 1:
            return f"The only trial {'failed' if case == 'failed' else 'was pruned'}: there is no winner."
        end = "failed" if case == "failed" else "were pruned"
        return f"All {len(first.trials):,} trials {end}: there is no winner."
    yet = " yet" if case == "unfinished" else ""
    return f"No trial has ended with a score{yet}: {in_states(first)}."


def comparison(result: StudyResult, cell: CellResult) -> str | None:
    """Return a sentence on a cell against the first: quality in pairs, then speed; None if it cannot say."""
    pair, ratio = paired(result, cell), speed(result, cell)
    name, base = words.short(cell.name, 40), words.short(result.cells[0].name, 40)
    if pair is None:
        return None
    gap = f"{words.signed(pair.mean)} ± {words.signed(pair.half).lstrip('+')}"
    gap = f"{gap} over {words.count(pair.trials, 'paired trial')}"
    level = f"within {100 * EQUAL:g} % over {words.count(pair.trials, 'paired trial')}"
    quality = {
        "equal": f"{name} and {base} score practically equal ({level})",
        "better": f"{name} scores better than {base} ({gap})",
        "worse": f"{name} scores worse than {base} ({gap})",
        "undecided": f"whether {name} or {base} scores better is not decided ({gap})",
    }[pair.verdict]
    return f"{quality}; {name} {faster(ratio)}." if ratio else f"{quality}."


def faster(ratio: float) -> str:
    """Return ``learns 1.8 × as many rows/s`` or ``learns 9.1 × more slowly``; within 5 % the two are level."""
    if abs(ratio - 1) < 0.05:
        return "learns as many rows/s"
    if ratio > 1:
        return f"learns {words.times(ratio)} as many rows/s"
    return f"learns {words.times(1 / ratio)} more slowly"


def advice(result: StudyResult) -> list[Advice]:
    """Return what to do next, most urgent first; at most five."""
    top, case = best(result), situation(result)
    if case == "empty":
        return [Advice("Start it:", command(result))]
    found = [*_unfinished(result, case), *_failures(result)]
    if top is not None:
        found += [*_edges(result, top), *_at_once(result), *_past_best(result, top), *_still_improving(result, top)]
        found += [*_confirm(result, case), *_late(result, top), *_sealed(result), *_close(result, top)]
        found += [*_cell(result), *_use(result)]
    elif case == "pruned":
        found.append(Advice(f"Prune later {_ANEW}: raise the pruner's n_warmup_steps or n_startup_trials."))
    return _carried(found[:5], top)


def _carried(steps: list[Advice], top: TrialResult | None) -> list[Advice]:
    """Return the steps; the first that makes another study says how the winner comes along."""
    first = next((i for i, step in enumerate(steps) if _ANEW in step.text and step.command is None), None)
    if top is None or not top.params or first is None:
        return steps
    values = ", ".join(f"{words.yaml(k)}: {words.yaml(v)}" for k, v in top.params.items())
    step = Advice(f"{steps[first].text} This line has the winner tried there first:", f"enqueue: [{{{values}}}]")
    return [*steps[:first], step, *steps[first + 1 :]]


def _unfinished(result: StudyResult, case: str) -> list[Advice]:
    if case != "unfinished":
        return []
    ended = sum(t.state in ("COMPLETE", "PRUNED", "FAIL") for t in result.cells[0].trials)
    total = words.count(max(result.n_trials, ended), "trial")
    return [Advice(f"Continue it; {ended:,} of {total} have ended:", command(result))]


def _failures(result: StudyResult) -> list[Advice]:
    trials = result.cells[0].trials
    lost = [t for t in trials if t.state == "FAIL"]
    if len(lost) * 20 < len(trials) or not lost:
        return []
    diverged = sum("diverged" in (t.reason or "") for t in lost)
    rates = [name for name, span in result.search_space.items() if name.endswith("_lr") and "high" in span]
    total = words.count(len(trials), "trial")
    if diverged * 2 >= len(lost) and rates:
        return [Advice(f"Lower the upper end of {words.listing(rates)} {_ANEW}: {diverged:,} of {total} diverged.")]
    return [Advice(f"Look at the reasons under “Failed trials”: {len(lost):,} of {total} failed.")]


def _edges(result: StudyResult, top: TrialResult) -> list[Advice]:
    share = {} if result.clear == [] else result.importance
    matter = [name for name in top.params if not share or share.get(name, 0.0) >= MATTERS]
    found = []
    for name in matter:
        side = edge(name, top.params[name], result.search_space)
        if side:
            span = result.search_space[name]
            ends = f"{words.setting(span['low'])} to {words.setting(span['high'])}"
            value = words.setting(top.params[name])
            found.append(Advice(f"Try a wider {name} {_ANEW}: the winner's {value} sits at the {side} edge of {ends}."))
    return found[:2]


def _still_improving(result: StudyResult, top: TrialResult) -> list[Advice]:
    if len(top.curve) < 2 or peak(result, top) < len(top.curve):
        return []
    return [Advice(f"Raise epochs {_ANEW}: the winner was still improving at its last one, {len(top.curve)}.")]


def _at_once(result: StudyResult) -> list[Advice]:
    """Say so where most of the best trials only got worse after their first epoch."""
    leaders = [t for t in ranked(result, result.cells[0]) if len(t.curve) > 1][:LEADERS]
    first = sum(peak(result, t) == 1 for t in leaders)
    if first * 2 <= len(leaders):
        return []
    return [Advice(
        f"Lower the rates or raise the decays {_ANEW}: {first} of the best {words.count(len(leaders), 'trial')} "
        "scored best after the first epoch, and then overfitted. A column whose values hardly come back does it too."
    )]  # fmt: skip


def _past_best(result: StudyResult, top: TrialResult) -> list[Advice]:
    """Advise patience where trials scored at least as well as the winner, and then got worse by more than 1 %."""
    if result.fixed.get("patience") or "patience" in top.params:
        return []
    way, value = sign(result), top.value or 0.0
    peaks = [(t.curve[peak(result, t) - 1], t) for t in complete(result.cells[0]) if t.curve]
    lost = [
        (score, t) for score, t in peaks
        if way * score <= way * value and way * (t.curve[-1] - score) > TARGET * abs(score)
    ]  # fmt: skip
    lost.sort(key=lambda one: (way * one[0], one[1].number))
    said = [
        f"trial {t.number} scored {words.score(score)} at epoch {peak(result, t)} and {words.score(t.curve[-1])} at "
        f"its last, {len(t.curve)}" for score, t in lost[:2]
    ]  # fmt: skip
    more = f"; so did {words.count(len(lost) - 2, 'other')}" if len(lost) > 2 else ""
    return [Advice(f"Set patience {_ANEW}, for example 5: {'; '.join(said)}{more}.")] if said else []


def _late(result: StudyResult, top: TrialResult) -> list[Advice]:
    """Advise more trials where the last quarter of them still improved the corrected score.

    The score as found improves with every lucky trial; that the winner came late says nothing by itself.
    """
    found, total = worth(result), len(result.cells[0].trials)
    if found is None or total < 20 or any(f.verdict == "equal" for f in found.finalists):
        return []
    before = [sign(result) * lead.corrected for lead in found.curve if lead.trial < 0.75 * total]
    gain = min(before) - sign(result) * found.curve[-1].corrected if before else 0.0
    if gain <= EQUAL * abs(top.value or 0.0):
        return []
    most = max(result.n_trials, total)  # n_trials may have been lowered
    return [Advice(f"Raise n_trials above {most:,}: the last quarter of the trials still improved the "
                   f"corrected score by {words.score(gain, 2)}.")]  # fmt: skip


def _sealed(result: StudyResult) -> list[Advice]:
    if result.holdout is not None:
        return []
    return [Advice(f"Add a sealed holdout channel {_ANEW}: this score was selected on test, so it is optimistic.")]


def _confirm(result: StudyResult, case: str) -> list[Advice]:
    """Confirm the finalists, or what to do where that could not decide."""
    found = worth(result)
    if found is None or found.among < 2 or case == "unfinished":
        return []
    if not found.finalists:
        why = "The winner has changed since the confirmation; confirm it again" if found.outdated else (
            "Train the finalists under more seeds" + (" and open the holdout" if result.holdout else "")
        )  # fmt: skip
        return [Advice(f"{why}:", command(result, "confirm"))]
    open_ = [f.trial for f in found.finalists if f.verdict == "undecided"]
    if not open_ or found.ahead is None:
        return []
    others = words.listing([str(n) for n in sorted([*open_, found.ahead.trial])])
    more = more_seeds(found)
    if more is None:
        why = "more seeds would hardly tell them apart" if found.looks == 1 else (
            "looking until they differ would find a difference where there is none"
        )  # fmt: skip
        return [Advice(f"Take any of trials {others}, or test on more rows: {why}.")]
    total = str(found.seeds + more)
    added = words.count(more, "more seed")
    return [Advice(f"Take any of trials {others}, or look a second time, with about {added}, which their "
                   "intervals do not allow for:", command(result, "confirm", "--seeds", total))]  # fmt: skip


def _close(result: StudyResult, top: TrialResult) -> list[Advice]:
    near = len(close(result, top))
    if not near or result.seeds > 1 or result.confirmation is not None or situation(result) != "unfinished":
        return []
    return [
        Advice(f"Give each trial three seeds (seeds: 3) {_ANEW}: {words.count(near, 'other')} within 1 % of it may be "
               "as good.")
    ]


def _cell(result: StudyResult) -> list[Advice]:
    if not result.cells[0].rows_per_s:
        return []
    fastest = max(result.cells, key=lambda cell: cell.rows_per_s or 0.0)
    pair, ratio = paired(result, fastest), speed(result, fastest) or 1.0
    if pair is None or ratio < 1.2 or pair.verdict not in ("equal", "better"):
        return []
    return [Advice(f"Search on {words.short(fastest.name, 40)} {_ANEW}: it scores as well and {faster(ratio)}.")]


def _use(result: StudyResult) -> list[Advice]:
    if not result.model_path:
        return []
    line = ["fmtune", "predict", result.model_path, "DATA", "-o", "scores.csv"]
    return [Advice("Score new rows with the winner:", shlex.join(line))]
