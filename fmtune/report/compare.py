"""Compare: one page of several studies, cell by cell; and from which density on dense rows are faster.

Scores are ranked only where they answer one question: the same objective on the same rows, however these are encoded,
by digest.  Otherwise they stand side by side and the page says why it does not rank them.  Speeds are compared
whatever the question, and the page says when they come from different machines.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from markupsafe import Markup

from fmtune.errors import UsageError
from fmtune.report import words
from fmtune.report.charts import Chart
from fmtune.report.packing import pack
from fmtune.report.page import assembled
from fmtune.report.record import from_json, to_json
from fmtune.report.render import render
from fmtune.report.sections import Section
from fmtune.report.style import (
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Save,
    figure_of,
    label_of,
    legend,
    log_numbers,
    plain_numbers,
    to_svg,
)
from fmtune.report.summary import TARGET, best, pace, sign, situation, time_spent, time_to_target
from fmtune.report.worth import Holdout, Worth, held_score, opened, worth
from fmtune.tune.result import CellResult, StudyResult, TrialResult

FORMAT = "fmtune-comparison/1"
Gaps = Sequence[Mapping[str, float] | None]
_MACHINE = ("processor", "cores", "fmtune", "numpy", "numba")


class Point(NamedTuple):
    """One study's measurement: how many times as many rows a second a trial learns on dense as on sparse rows.

    ``ratio`` is the median over the trials that both cells trained, from the time inside the passes alone.
    """

    study: str
    device: str
    width: int
    density: float
    ratio: float


class Standing(NamedTuple):
    """A study beside the best: its score, how much worse it is in pairs, and whether that is open; None unknown."""

    result: StudyResult
    score: float
    gap: Mapping[str, float] | None
    open: bool | None


def build_comparison(results: Sequence[StudyResult], gaps: Gaps | None = None) -> str:
    """Return one self-contained page for several studies, as HTML.

    Parameters
    ----------
    results
        Two or more; every string in them is treated as hostile text.
    gaps
        How much worse each study's winner is than the best on the same rows, as ``fmtune.tune.gap.gaps`` gives it.

    Raises
    ------
    UsageError
        There is only one study, or none.
    """
    several(results)
    records = [to_json(r) for r in results]
    shown = [from_json(r) for r in records]
    parts = [_verdict(shown, gaps), _studies(shown, gaps), _chart("pace", pace_chart(shown)),
             _chart("crossover", crossover(shown)), _sources(shown)]  # fmt: skip
    record = {"format": FORMAT, "studies": [pack(r) for r in records], "gaps": list(gaps or ())}
    version = shown[0].environment.get("fmtune", "")
    return assembled([p for p in parts if p is not None], record, won=False, version=version)


def several(results: Sequence[StudyResult]) -> None:
    """Refuse to compare less than two studies."""
    if len(results) < 2:
        raise UsageError("a comparison needs two studies", hint="fmtune report a.yaml b.yaml")


def unranked(results: Sequence[StudyResult]) -> str | None:
    """Return why the studies' scores are not to be ranked, or None when they are; those without trials do not count."""
    results = tried(results)
    objectives = list(dict.fromkeys(words.metric(r.objective) for r in results))
    if len({(r.objective, r.direction) for r in results}) > 1:
        return f"they have different objectives ({words.listing([words.short(o, 60) for o in objectives])})"
    for name in ("test", "train"):
        if _same(results, name, "digest") or _same(results, name, "origin"):
            continue
        if all(r.channels.get(name, {}).get("origin") for r in results):
            return f"their {name} rows differ"
        if all(r.channels.get(name, {}).get("digest") for r in results):
            return f"their encoded {name} rows differ"
        return f"it is not known whether their {name} rows are the same"
    return None


def tried(results: Sequence[StudyResult]) -> list[StudyResult]:
    """Return the studies that have a trial."""
    return [r for r in results if any(cell.trials for cell in r.cells)]


def part(result: StudyResult) -> str:
    """Return ``110 of 300 trials`` for a study that is not whole, else nothing."""
    if not tried([result]):
        return "no trial yet"
    ended = sum(t.state in ("COMPLETE", "PRUNED", "FAIL") for t in result.cells[0].trials)
    if ended < result.n_trials:
        return f"{ended:,} of {words.count(result.n_trials, 'trial')}"
    return "not finished" if situation(result) == "unfinished" else ""


def _named(result: StudyResult, length: int) -> str:
    missing = part(result)
    return words.short(result.study_name, length) + (f" ({missing})" if missing else "")


def _same(results: Sequence[StudyResult], channel: str, digest: str) -> bool:
    found = {str(r.channels.get(channel, {}).get(digest) or "") for r in results}
    return len(found) == 1 and found != {""}


def verdict(results: Sequence[StudyResult], gaps: Gaps | None = None) -> str:
    """Return the first sentence: who scores best and how surely, or why nobody is ranked."""
    shown = tried(results)
    if not shown:
        return "None of the studies has a trial yet."
    why = unranked(results)
    if len(shown) > 1 and why is not None:
        return f"{words.count(len(shown), 'study', 'studies')} side by side, not ranked: {why}."
    found = _standings(results, gaps)
    if found is None:
        return "None of the studies has a winner."
    top, score, others = found
    reached = f"{words.metric(top.objective)} {words.score(score.naive)}"
    if len(shown) == 1:
        return f"Only {_named(top, 60)} has trials: {reached}."
    if any(other.open is None for other in others):
        return (
            f"Which study is best is not decided: {_named(top, 60)} reached {reached}, and no interval of that is "
            "known."
        )
    name = f"{_named(top, 60)} scores best: {reached}"
    near = [f"{_named(o.result, 40)}{_behind(o.gap)}" for o in others if o.open]
    if near:
        return f"{name}; not decided against {words.listing(near[:3])}{' and others' if len(near) > 3 else ''}."
    if others and (gap := others[0].gap) is not None:
        place = "" if len(others) == 1 else "the next, "
        comma = "," if place else ""
        return f"{name}; the winner of {place}{_named(others[0].result, 40)}{comma} is worse by {_interval(gap)}."
    return f"{name}."


def _standings(
    results: Sequence[StudyResult], gaps: Gaps | None
) -> tuple[StudyResult, Worth, list[Standing]] | None:  # fmt: skip
    """Return the best study, its score and the others, best first; None without a winner."""
    each = zip(results, gaps or [None] * len(results), strict=True)
    done = sorted(((r, w, g) for r, g in each if (w := worth(r)) is not None), key=lambda d: sign(d[0]) * d[1].naive)
    if not done:
        return None
    top, score, _ = done[0]
    others = []
    for result, own, gap in done[1:]:
        open_: bool | None = None
        if gap is not None:
            open_ = gap["low"] <= 0
        elif score.low is not None and score.high is not None:
            open_ = own.naive == score.naive or score.low <= own.naive <= score.high
        others.append(Standing(result, own.naive, gap, open_))
    return top, score, others


def _behind(gap: Mapping[str, float] | None) -> str:
    return "" if gap is None else f", behind by {_interval(gap)}"


def _interval(gap: Mapping[str, float]) -> str:
    by = words.signed(abs(gap["difference"])).lstrip("+")
    return f"{by} (95 %: {words.score(gap['low'], 3)} to {words.score(gap['high'], 3)})"


def points(results: Sequence[StudyResult]) -> list[Point]:
    """Return dense against sparse for each study and device that ran both, by density."""
    found = []
    for result in results:
        train = result.channels.get("train", {})
        sizes = [train.get(k) for k in ("rows", "nnz", "feature_dim")]
        if not all(isinstance(s, int) and s > 0 for s in sizes):
            continue
        rows, nnz, width = (int(s) for s in sizes if s is not None)
        cells = {(c.device, c.layout): c for c in result.cells}
        for device in dict.fromkeys(d for d, _ in cells):
            sparse, dense = cells.get((device, "sparse")), cells.get((device, "dense"))
            if sparse and dense and (ratios := _ratios(sparse, dense)):
                found.append(Point(result.study_name, device, width, nnz / rows / width, median(ratios)))
    return sorted(found, key=lambda p: (p.device, p.width, p.density))


def _ratios(sparse: CellResult, dense: CellResult) -> list[float]:
    """Return dense against sparse for each trial that both trained."""
    slow = {t.number: t.rows_per_s for t in sparse.trials if t.rows_per_s}
    return [t.rows_per_s / base for t in dense.trials if t.rows_per_s and (base := slow.get(t.number))]


def crossing(line: Sequence[Point]) -> float | None:
    """Return the density from which on dense is faster, between two measurements on logarithmic scales; None without.

    Only the last crossing counts, and only when dense stays ahead beyond it.
    """
    if not line or line[-1].ratio <= 1 or all(p.ratio > 1 for p in line):
        return None
    low, high = next((a, b) for a, b in reversed(list(pairwise(line))) if a.ratio <= 1)
    if low.density == high.density:
        return low.density
    part = -math.log(low.ratio) / math.log(high.ratio / low.ratio)
    return math.exp(math.log(low.density) + part * math.log(high.density / low.density))


def crossover(results: Sequence[StudyResult], save: Save = to_svg) -> Chart | None:
    """Return dense against sparse by density, a line a width; None without two densities of one width."""
    lines: dict[tuple[str, int], list[Point]] = defaultdict(list)
    for point in points(results):
        lines[point.device, point.width].append(point)
    drawn = {key: line for key, line in lines.items() if len({p.density for p in line}) > 1}
    if not drawn:
        return None
    several = len({device for device, _ in drawn}) > 1
    names = {
        key: f"{f'{label_of(key[0], 12)}, ' if several else ''}{words.count(key[1], 'feature')}" for key in drawn
    }
    every = [p for line in drawn.values() for p in line]
    with figure_of(530, 310) as (figure, axes):
        tips: dict[str, list[str]] = {}
        for (key, line), colour, marker in zip(drawn.items(), SERIES, MARKERS, strict=False):
            axes.plot([100 * p.density for p in line], [p.ratio for p in line], color=colour, lw=1.8)
            axes.plot([100 * p.density for p in line], [p.ratio for p in line], color=colour, marker=marker, ms=6,
                      ls="none", label=names[key], clip_on=False, gid=f"line{len(tips)}")  # fmt: skip
            tips[f"line{len(tips)}"] = [f"{label_of(p.study, 40)}: {words.times(p.ratio)}" for p in line]
        axes.axhline(1, color=MUTED, lw=1, ls=(0, (4, 3)))
        axes.set_xscale("log")
        axes.set_yscale("log")
        log_numbers(axes.xaxis, 100 * min(p.density for p in every), 100 * max(p.density for p in every))
        log_numbers(axes.yaxis, min(p.ratio for p in every), max(p.ratio for p in every))
        axes.set(xlabel="non-zeros, % of a row", ylabel="rows/s, dense against sparse")
        legend(figure)
        drawing = save(figure, "xover", "rows a second of dense against sparse, by density", tips)
    said = [f"{names[key]}: {_from(line)}" for key, line in drawn.items()]
    rows = tuple(
        (p.device, f"{p.width:,}", f"{100 * p.density:.3g} %", words.times(p.ratio), words.short(p.study, 40))
        for p in every
    )
    header = ("device", "features", "density", "dense against sparse", "study")
    caption = f"Above the dashed line dense is faster. {'; '.join(said)}."
    return Chart("crossover", "Where dense overtakes sparse", drawing, caption, header, rows)


def pace_chart(results: Sequence[StudyResult], save: Save = to_svg) -> Chart | None:
    """Return best so far against seconds, a line for each cell of each study; None when they are not comparable."""
    if unranked(results) is not None:
        return None
    courses = [(r, c, p) for r in results for c in r.cells if (p := pace(r, c)).values and p.total > 0]
    if not courses:
        return None
    order = {id(r): i for i, r in enumerate(results)}
    layouts = list(dict.fromkeys(c.name for _, c, _ in courses))
    name, goal = label_of(words.metric(results[0].objective), 60), _goal(results)
    with figure_of(1080, 360) as (figure, axes):
        for result, cell, course in courses:
            axes.step([*course.seconds, course.total], [*course.values, course.values[-1]], where="post", lw=1.8,
                      color=SERIES[order[id(result)] % len(SERIES)], marker=MARKERS[order[id(result)] % len(MARKERS)],
                      ls="-" if cell.name == layouts[0] else (0, (5, 2)), ms=5,
                      label=label_of(f"{result.study_name} {cell.name}", 30))  # fmt: skip
        if goal is not None:
            axes.axhline(goal, color=INK, lw=1, ls=(0, (1, 2)))
        values = sorted(sign(results[0]) * v for *_, p in courses for v in p.values)
        third = values[3 * (len(values) - 1) // 4]
        ends = sorted((sign(results[0]) * values[0], sign(results[0]) * (third + 0.5 * (third - values[0]) or 1e-9)))
        room = 0.06 * (ends[1] - ends[0])
        axes.set(xlabel="seconds in trials", ylabel=f"best {name} so far", ylim=(ends[0] - room, ends[1] + room))
        starts, stops = [p.seconds[0] for *_, p in courses], [p.total for *_, p in courses]
        if min(starts) > 0 and max(stops) / min(starts) > 30:
            axes.set_xscale("log")
            log_numbers(axes.xaxis, min(starts), max(stops))
        plain_numbers(axes.yaxis)
        legend(figure)
        drawing = save(figure, "pace", f"best {name} against seconds spent, {words.count(len(courses), 'cell')}")
    rows = tuple(
        (r.study_name, c.name, words.seconds(s), words.score(v, 5))
        for r, c, p in courses
        for s, v in zip(p.seconds, p.values, strict=True)
    )
    caption = "A colour a study; the first cell's line is solid. Dotted: within 1 % of the best of all."
    return Chart("pace", "Quality against time", drawing, caption, ("study", "cell", "after", "best so far"), rows)


def _verdict(results: Sequence[StudyResult], gaps: Gaps | None) -> Section:
    facts = [_named(r, 60) for r in results[:12]]
    body = render("verdict", lead=verdict(results, gaps), sure=caveats(results, gaps), compared=[], facts=facts)
    return Section("verdict", "Comparison of studies", body)


def caveats(results: Sequence[StudyResult], gaps: Gaps | None = None) -> list[str]:
    """Return what to know of a comparison, in sentences."""
    found, results = _standings(results, gaps), tried(results)
    if len(results) < 2:
        return []
    why, machines = unranked(results), _machines(results)
    sure = [] if why is None else ["Each score answers its own question; speeds are compared all the same."]
    if why is None:
        paired = [other.gap is not None for other in found[2]] if found else []
        sure.append("These scores selected their winners.")
        if any(paired):
            sure.append("The interval of a gap draws test rows, the same for both studies, and takes both winners as "
                        "they are: it leaves out the luck of a search. Studies that differ in their seed alone often "
                        "seem to differ by it; search under several seeds before calling one better.")  # fmt: skip
        if not paired or not all(paired):
            where = "Where no gap is known and another" if any(paired) else "Where another"
            sure.append(f"{where} lies inside the best one's interval over test rows, this page does not decide.")
        if not all(_same(results, name, "digest") for name in ("test", "train")):
            sure.append("The studies have the same rows, encoded differently.")
    if machines:
        sure.append(f"Speeds come from different machines or versions ({words.listing(machines)} differ): "
                    "they compare those too.")  # fmt: skip
    return sure


def _studies(results: Sequence[StudyResult], gaps: Gaps | None) -> Section:
    ranked, rows = unranked(results) is None, lines(results, gaps)
    name = words.metric(results[0].objective) if ranked else "score"
    return Section("studies", "Studies and cells", render("studies", rows=rows, name=name, ranked=ranked))


def lines(results: Sequence[StudyResult], gaps: Gaps | None = None) -> list[dict[str, Any]]:
    """Return the comparison's table: a line for each cell of each study."""
    ranked, goal = unranked(results) is None, _goal(results)
    found = _standings(results, gaps) if ranked else None
    known = found is not None and all(other.open is not None for other in found[2])
    best_of = found[1].naive if found is not None and known else None
    return [
        _row(result, cell, goal if ranked else None, best_of, first=place == 0)
        for result in results
        for place, cell in enumerate(result.cells)
    ]


def _row(
    result: StudyResult, cell: CellResult, goal: float | None, top: float | None, *, first: bool
) -> dict[str, Any]:  # fmt: skip
    won, found = best(result, cell), worth(result) if first else None
    held = (found.confirmed or found.sealed) if found else None
    reached, spent = time_to_target(result, cell, goal), time_spent(cell)
    late = f"> {words.seconds(spent)}" if won and spent else words.NONE
    shown = words.listing([f"{words.score(found.low, 3)} to {words.score(found.high, 3)}"]) if (
        found and found.low is not None and found.high is not None
    ) else ""  # fmt: skip
    return {
        "study": result.study_name, "part": part(result), "first": first, "cell": cell, "ran": bool(cell.trials),
        "ends": shown,
        "objective": words.metric(result.objective), "score": words.score(won.value, 5) if won else words.NONE,
        "top": found is not None and top is not None and found.naive == top,
        "corrected": words.score(found.corrected) if found and found.corrected is not None else words.NONE,
        "holdout": held_score(held) if held else words.NONE, "opened": opened(held.opened) if held else "",
        "trial": f"trial {won.number}" if won else "", "held": _whose(held, won),
        "held_ends": f"{words.score(held.low, 3)} to {words.score(held.high, 3)}"
        if held and held.low is not None and held.high is not None else "",
        "reached": words.seconds(reached) if reached is not None else late,
        "bytes": words.size(won.model_bytes if won else None), "trials": len(cell.trials),
    }  # fmt: skip


def _whose(held: Holdout | None, won: TrialResult | None) -> str:
    """Return whose score on the holdout it is: a confirmation may have opened it for another trial than the winner."""
    trial = held.trial if held and held.trial is not None else won.number if won else None
    return f"trial {trial}" if held and trial is not None else ""


def _sources(results: Sequence[StudyResult]) -> Section:
    body = render("sources", rows=[_source(r) for r in results])
    return Section("sources", "Where the numbers come from", body)


def _source(result: StudyResult) -> dict[str, str]:
    train, test = (result.channels.get(name, {}) for name in ("train", "test"))
    sizes = {k: f"{train[k]:,}" if isinstance(train.get(k), int) else words.NONE for k in ("feature_dim", "rows")}
    processor, cores = (words.short(result.environment.get(k, ""), 60) for k in ("processor", "cores"))
    return {
        "study": result.study_name, "file": result.spec_path, "data": result.data, **sizes,
        "digest": str(test.get("digest") or words.NONE)[:12], "started": result.started or words.NONE,
        "machine": f"{processor}, {cores} cores" if cores else processor,
    }  # fmt: skip


def _chart(name: str, chart: Chart | None) -> Section | None:
    if chart is None:
        return None
    return Section(name, chart.title, render("chart", chart=chart, drawing=Markup(chart.svg)))


def _goal(results: Sequence[StudyResult]) -> float | None:
    """Return the score within 1 % of the best of all cells of all studies."""
    scores = [(sign(r), t.value) for r in results for c in r.cells if (t := best(r, c)) and t.value is not None]
    if not scores:
        return None
    way, top = min(scores, key=lambda s: s[0] * s[1])
    return top + way * TARGET * abs(top)


def _machines(results: Sequence[StudyResult]) -> list[str]:
    return [name for name in _MACHINE if len({r.environment.get(name) for r in results}) > 1]


def _from(line: Sequence[Point]) -> str:
    at = crossing(line)
    if at is not None:
        return f"dense is faster from about {100 * at:.2g} % on"
    if line[-1].ratio > 1:
        return f"dense is faster from the lowest measured on, {100 * line[0].density:.2g} %"
    return f"sparse is faster up to the highest measured, {100 * line[-1].density:.2g} %"
