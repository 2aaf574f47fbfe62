"""Charts: a study's numbers as drawings in one style (``style``), each with the table behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from fmtune.report import words
from fmtune.report.style import (
    FAINT,
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
    star,
    to_png,
    to_svg,
)
from fmtune.report.summary import (
    best,
    complete,
    improvements,
    pace,
    peak,
    ranked,
    sign,
    target,
    time_to_target,
    value_of,
)
from fmtune.report.worth import worth
from fmtune.tune.result import CellResult, StudyResult, TrialResult


class Chart(NamedTuple):
    """One drawing, a line under it, and the table behind it."""

    name: str
    title: str
    svg: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def curves(result: StudyResult, save: Save = to_svg, leaders: int = 5) -> Chart | None:
    """Return quality against epochs: the best trials in colour, all others faint; None without curves."""
    cell = result.cells[0]
    drawn = [t for t in cell.trials if len(t.curve) > 1]
    top = [t for t in ranked(result, cell) if len(t.curve) > 1][:leaders]
    if not drawn:
        return None
    name = _metric(result)
    with figure_of(530, 310) as (figure, axes):
        low, high = _curve_window(result, drawn, top)
        others = [t for t in drawn if t not in top]
        # Slow trials of many epochs, on an even axis, would squeeze the best into a corner of the picture.
        longest = max(len(t.curve) for t in drawn)
        uneven = bool(top) and longest > 4 * median(len(t.curve) for t in top)
        # Many faint lines show where most go, each in some twelve points.
        shown = _spread(longest, uneven, 12) if len(others) > 60 else set(range(longest))
        for start in range(0, len(others), 25):  # lines over each other darken from one bundle to the next
            faint = 0.85 if len(others) < 100 else 0.4
            axes.plot(*_broken(others[start : start + 25], shown), color=FAINT, lw=0.7, alpha=faint)
        for trial, colour, marker in reversed(list(zip(top, SERIES, MARKERS, strict=False))):
            epochs = range(1, len(trial.curve) + 1)
            at = [peak(result, trial) - 1]
            axes.plot(epochs, trial.curve, color=colour, lw=1.8, marker=marker, markevery=at, ms=7,
                      label=f"trial {trial.number}")  # fmt: skip
        axes.set(xlabel="epoch", ylabel=name, ylim=(low, high))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if uneven:
            axes.set_xscale("log")
            log_numbers(axes.xaxis, 1, longest, whole=True)
        plain_numbers(axes.yaxis)
        if top:
            handles, labels = axes.get_legend_handles_labels()
            legend(figure, handles[::-1], labels[::-1])
        label = f"{name} after each epoch, {words.count(len(drawn), 'trial')}"
        drawing = save(figure, "curves", label)
    caption = "The best trials in colour, with a mark at their best epoch; all others faint."
    longest = max((len(t.curve) for t in top), default=0)
    rows = tuple(
        (str(e + 1), *(words.score(t.curve[e], 5) if e < len(t.curve) else "" for t in top))
        for e in range(0, longest, max(1, math.ceil(longest / 40)))
    )
    header = ("epoch", *(f"trial {t.number}" for t in top))
    return Chart("curves", "Quality against epochs", drawing, caption, header, rows)


def reliability(result: StudyResult, save: Save = to_svg) -> Chart | None:
    """Return the share of label 1 against the probability that was said; None where it is not known."""
    top, found = best(result), result.calibration or {}
    if top is None or found.get("trial") != top.number or not found.get("said"):
        return None
    said, was, rows = found["said"], found["was"], found["rows"]
    with figure_of(530, 310) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=FAINT, lw=1.2)
        axes.plot(said, was, color=SERIES[0], lw=1.8, marker=MARKERS[0], ms=6)
        axes.set(xlabel="probability that was said", ylabel="share of label 1", xlim=(0, 1), ylim=(0, 1))
        drawing = save(figure, "reliability", "share of label 1 against the probability that was said, in bins")
    caption = (
        f"Test rows in {len(said)} bins of about as many rows. On the line, probabilities are what they say; the "
        f"expected calibration error is {words.score(found['error'], 3)}."
    )
    table = tuple((words.score(s, 3), words.score(w, 3), f"{n:,}") for s, w, n in zip(said, was, rows, strict=True))
    return Chart("reliability", "Are its probabilities right?", drawing, caption, ("said", "was", "rows"), table)


def history(result: StudyResult, save: Save = to_svg) -> Chart | None:
    """Return each trial's score in number order and the best so far; None when no trial has a score."""
    cell, top = result.cells[0], best(result)
    done = complete(cell)
    if top is None:
        return None
    pruned = [t for t in cell.trials if t.state == "PRUNED" and t.curve and math.isfinite(t.curve[-1])]
    failed = [t for t in cell.trials if t.state == "FAIL"]
    name, steps, tips = _metric(result), improvements(result, cell), {}
    with figure_of(530, 310) as (figure, axes):
        low, high = _window(result, [t.value or 0.0 for t in done])
        for kind, some, look in (
            ("pruned", pruned, {"marker": "x", "color": MUTED, "ms": 5, "alpha": 0.7}),
            ("complete", done, {"marker": "o", "color": SERIES[0], "ms": 5.5, "alpha": 0.75, "mew": 0}),
        ):
            inside = [t for t in some if low <= _last(t) <= high]
            if not inside:
                continue
            axes.plot([t.number for t in inside], [_last(t) for t in inside], ls="none", gid=kind, label=kind,
                      clip_on=False, in_layout=False, **look)  # fmt: skip
            tips[kind] = [f"trial {t.number}: {words.score(_last(t), 5)}" for t in inside]
        beyond = [t for t in [*done, *pruned] if not low <= _last(t) <= high]
        far, arrow = (high, "^") if sign(result) > 0 else (low, "v")
        _marks(axes, beyond, far, arrow, MUTED, "beyond the axis", tips)
        _marks(axes, failed, high if sign(result) < 0 else low, "|", SERIES[1], "failed", tips)
        last = max(t.number for t in cell.trials)
        axes.step([*(t.number for t in steps), last], [*(t.value or 0.0 for t in steps), top.value or 0.0],
                  where="post", color=INK, lw=1.4, label="best so far")  # fmt: skip
        star(axes, top.number, top.value or 0.0)
        axes.set(xlabel="trial", ylabel=name, ylim=(low, high))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        plain_numbers(axes.yaxis)
        legend(figure)
        label = f"{name} of each trial; the best, {words.score(top.value)}, is trial {top.number}"
        drawing = save(figure, "history", label, tips)
    caption = "Pruned trials stand at their last score. The star is the winner."
    rows = tuple((str(t.number), words.score(t.value, 5)) for t in steps)
    return Chart("history", "History", drawing, caption, ("trial", "best so far"), rows)


def speed(result: StudyResult, save: Save = to_svg) -> Chart | None:
    """Return best so far against the seconds spent, a line for each cell; None without seconds."""
    courses = [(c, p) for c in result.cells if (p := pace(result, c)).values and p.total > 0]
    if not courses:
        return None
    name, goal = _metric(result), target(result)
    with figure_of(530, 310) as (figure, axes):
        for (cell, course), colour, marker in zip(courses, SERIES, MARKERS, strict=False):
            axes.step([*course.seconds, course.total], [*course.values, course.values[-1]], where="post",
                      color=colour, lw=1.8, marker=marker, ms=5, label=label_of(cell.name, 40))  # fmt: skip
        if goal is not None:
            axes.axhline(goal, color=MUTED, lw=1, ls=(0, (4, 3)), label="target: within 1 % of the best")
        starts, ends = [p.seconds[0] for _, p in courses], [p.total for _, p in courses]
        if min(starts) > 0 and max(ends) / min(starts) > 30:
            axes.set_xscale("log")
            log_numbers(axes.xaxis, min(starts), max(ends))
        else:
            axes.set_xlim(left=0)
        axes.set(xlabel="seconds in trials", ylabel=f"best {name} so far",
                 ylim=_window(result, [v for _, p in courses for v in p.values]))  # fmt: skip
        plain_numbers(axes.yaxis)
        legend(figure)
        drawing = save(figure, "speed", f"best {name} against seconds spent, {words.count(len(courses), 'cell')}")
    reached = [
        f"{cell.name} {words.seconds(t) if (t := time_to_target(result, cell)) is not None else 'never'}"
        for cell, _ in courses
    ]
    caption = f"Time to target: {', '.join(reached)}."
    rows = tuple(
        (cell.name, words.seconds(s), words.score(v, 5))
        for cell, p in courses
        for s, v in zip(p.seconds, p.values, strict=True)
    )
    return Chart("speed", "Quality against time", drawing, caption, ("cell", "after", "best so far"), rows)


def overtuning(result: StudyResult, save: Save = to_svg) -> Chart | None:
    """Return the score of each leader as found and corrected for the picking; None with fewer than two leaders."""
    found = worth(result)
    if found is None or len(found.curve) < 2:
        return None
    leads, name, cell = found.curve, _metric(result), result.cells[0]
    numbers = [lead.trial for lead in leads]
    last = max(t.number for t in cell.trials)
    low, high = _window(result, [v for lead in leads for v in (lead.naive, lead.corrected)])
    with figure_of(530, 310) as (figure, axes):
        for values, colour, marker, label in (
            ([lead.corrected for lead in leads], SERIES[1], "s", "corrected for the picking"),
            ([lead.naive for lead in leads], SERIES[0], "o", "as found"),
        ):
            axes.step([*numbers, last], [*values, values[-1]], where="post", color=colour, lw=1.8)
            # Markers at the edge are drawn whole, those beyond it not at all.
            seen = [(n, v) for n, v in zip(numbers, values, strict=True) if low <= v <= high]
            axes.plot(*zip(*seen, strict=True), ls="none", color=colour, marker=marker, ms=6, label=label,
                      clip_on=False)  # fmt: skip
        axes.set(xlabel="trial", ylabel=f"best {name} so far", ylim=(low, high))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        plain_numbers(axes.yaxis)
        legend(figure)
        drawing = save(figure, "overtuning", f"{name} of each leader, as found and corrected for the picking")
    until = "all" if found.known >= found.among else "those with kept scores"
    caption = (
        f"Each leader's score as found, and what picking the best of {until} until then is worth on rows that did not "
        "pick it. Where the two part, the search fits the test rows."
    )
    rows = tuple((str(e.trial), words.score(e.naive, 5), words.score(e.corrected, 5)) for e in leads)
    return Chart("overtuning", "Overtuning", drawing, caption, ("leader", "as found", "corrected"), rows)


def importance(result: StudyResult, save: Save = to_svg) -> Chart | None:
    """Return each parameter's share in what sets the best tenth of the trials apart; None with too few trials."""
    shares = sorted(result.importance.items(), key=lambda item: (-item[1], item[0]))[:12]
    if not shares:
        return None
    with figure_of(530, 60 + 32 * len(shares)) as (figure, axes):
        places = range(len(shares))
        sure = [result.clear is None or name in result.clear for name, _ in shares]
        axes.barh(places, [s for _, s in shares], height=0.55, color=[SERIES[0] if s else FAINT for s in sure])
        for place, (_, portion) in zip(places, shares, strict=True):
            axes.text(portion, place, f" {words.share(portion)}", va="center", color=INK)
        axes.set_yticks(places, [label_of(name, 28) for name, _ in shares], color=INK)
        axes.invert_yaxis()
        axes.set_xlim(0, max(0.01, max(s for _, s in shares)) * 1.15)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: words.share(x)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(False, axis="y")
        drawing = save(figure, "importance", "each parameter's share in what sets the best tenth of the trials apart")
    caption = (
        "Each parameter's share, by itself, in what sets the best tenth of the trials apart from all (PED-ANOVA). One "
        "that ruins trials in a part of its range may have a small share."
    )
    named = [label_of(name, 28) for (name, _), clear in zip(shares, sure, strict=True) if clear]
    if result.clear is not None and named:
        caption += f" More than chance would give: {words.listing(named)}. Grey may be chance."
    elif result.clear is not None:
        caption += (
            " No parameter clearly sets them apart: where the scores are dealt out among the trials at random, the "
            "largest share is often as large."
        )
    rows = tuple((name, words.share(portion)) for name, portion in shares)
    return Chart("importance", "Importance", drawing, caption, ("parameter", "share"), rows)


def slices(result: StudyResult, save: Save = to_svg, columns: int = 4) -> Chart | None:
    """Return the score against each searched parameter, a small panel each; None when no trial has a score."""
    cell, top = result.cells[0], best(result)
    names = list(dict.fromkeys([*result.search_space, *(n for t in complete(cell) for n in t.params)]))[:24]
    if top is None or not names:
        return None
    names.sort(key=lambda name: -result.importance.get(name, 0.0))
    columns = min(columns, len(names))
    lines = math.ceil(len(names) / columns)
    with figure_of(1080 * columns / 4 if columns > 1 else 400, 215 * lines, (lines, columns)) as (figure, grid):
        low, high = _window(result, [t.value or 0.0 for t in complete(cell)])
        for place, name in enumerate(names):
            panel = grid[place // columns, place % columns]
            panel.set_ylim(low, high)
            _slice(panel, result, cell, top, name)
            if place % columns:
                panel.tick_params(labelleft=False)
        for place in range(len(names), lines * columns):
            grid[place // columns, place % columns].set_axis_off()
        drawing = save(figure, "slices", f"{_metric(result)} against each searched parameter")
    caption = "Complete trials, first the parameter that sets the best apart most; the star is the winner."
    leaders = ranked(result, cell)[:10]
    rows = tuple((str(t.number), words.score(t.value, 5), *(_chosen(t, n) for n in names)) for t in leaders)
    return Chart("slices", "Slices", drawing, caption, ("trial", "score", *names), rows)


CHARTS: tuple[Callable[[StudyResult, Save], Chart | None], ...] = (
    curves, speed, overtuning, history, importance, slices,
)  # fmt: skip


def pictures(result: StudyResult) -> dict[str, bytes]:
    """Return every chart that the study has as a PNG, by its name."""
    drawn: dict[str, bytes] = {}

    def keep(figure: Figure, name: str, label: str, tips: Mapping[str, Sequence[str]] | None = None) -> str:
        drawn[name] = to_png(figure)
        return ""

    for draw in CHARTS if result.cells else ():
        draw(result, keep)
    return drawn


def _slice(panel: Axes, result: StudyResult, cell: CellResult, top: TrialResult, name: str) -> None:
    span = result.search_space.get(name, {})
    low, high = panel.get_ylim()
    shown = [t for t in complete(cell) if name in t.params and low <= (t.value or 0.0) <= high]
    raw = [t.params[name] for t in shown]
    categorical = "choices" in span or any(isinstance(v, (bool, str)) or v is None for v in raw)
    if categorical:
        labels = list(dict.fromkeys(words.setting(v) for v in [*(span.get("choices") or ()), *raw]))
        places = [float(labels.index(words.setting(v))) for v in raw]
        panel.xaxis.set_major_locator(FixedLocator(range(len(labels))))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: label_of(labels[round(x)], 12)))
        panel.set_xlim(-0.5, len(labels) - 0.5)
    else:
        places = [float(v) for v in raw]
        ends = [v for v in (span.get("low"), span.get("high"), *places) if isinstance(v, (int, float))]
        if span.get("log") and ends and min(ends) > 0:
            panel.set_xscale("log")
            panel.set_xlim(min(ends), max(ends) * 1.0001)
            log_numbers(panel.xaxis, min(ends), max(ends), whole=all(isinstance(v, int) for v in raw))
        else:
            panel.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=all(isinstance(v, int) for v in raw)))
            plain_numbers(panel.xaxis)
    panel.plot(places, [t.value or 0.0 for t in shown], ls="none", marker="o", ms=4, mew=0, alpha=0.6,
               color=SERIES[0], gid="dots:4.5", clip_on=False, in_layout=False)  # fmt: skip
    if top in shown:
        star(panel, places[shown.index(top)], top.value or 0.0)
    plain_numbers(panel.yaxis)
    panel.yaxis.set_major_locator(MaxNLocator(nbins=4))
    panel.set_title(label_of(name, 28), loc="left", color=INK)


def _window(result: StudyResult, values: Sequence[float]) -> tuple[float, float]:
    """Return limits that show the good trials well: bad ones may lie beyond, and the charts say so."""
    costs = sorted(sign(result) * v for v in values if math.isfinite(v))
    if not costs:
        return 0.0, 1.0
    third = quantiles(costs, n=4)[2] if len(costs) > 3 else costs[-1]
    worst = min(costs[-1], third + 1.5 * (third - costs[0]))
    gap = max(worst - costs[0], abs(worst) * 0.01) or 1.0
    ends = sorted((sign(result) * (costs[0] - 0.06 * gap), sign(result) * (worst + 0.06 * gap)))
    return ends[0], ends[1]


def _curve_window(result: StudyResult, drawn: list[TrialResult], top: list[TrialResult]) -> tuple[float, float]:
    """Return limits for the ends of all curves, and of the best ones for the last three quarters and the best epoch."""
    if not top:
        return _window(result, [v for t in drawn for v in t.curve])
    ends = _window(result, [t.curve[-1] for t in drawn])
    course = _window(
        result, [v for t in top for v in (*t.curve[len(t.curve) // 4 :], t.curve[peak(result, t) - 1])]
    )  # fmt: skip
    low, high = min(ends[0], course[0]), max(ends[1], course[1])
    # The mark of the best epoch is to be seen whole.
    room, peaks = 0.06 * (high - low), [t.curve[peak(result, t) - 1] for t in top]
    return (min(low, min(peaks) - room), high) if sign(result) > 0 else (low, max(high, max(peaks) + room))


def _spread(epochs: int, uneven: bool, points: int) -> set[int]:
    """Return so many epochs (0-based), as evenly as they lie on the axis."""
    if uneven:
        return {round(epochs ** (k / (points - 1))) - 1 for k in range(points)}
    return set(range(0, epochs, math.ceil(epochs / points)))


def _broken(trials: Sequence[TrialResult], epochs: set[int]) -> tuple[list[float], list[float]]:
    """Return all curves as one line with gaps: one element in the SVG instead of hundreds."""
    across: list[float] = []
    up: list[float] = []
    for trial in trials:
        last = len(trial.curve) - 1
        shown = [e for e in range(last + 1) if e in epochs or e == last]
        across += [*(e + 1.0 for e in shown), math.nan]
        up += [*(v if math.isfinite(v := trial.curve[e]) else math.nan for e in shown), math.nan]
    return across, up


def _last(trial: TrialResult) -> float:
    value = value_of(trial) if trial.state == "COMPLETE" else None
    return value if value is not None else trial.curve[-1]


def _marks(
    axes: Axes,
    trials: Sequence[TrialResult],
    at: float,
    marker: str,
    colour: str,
    name: str,
    tips: dict[str, list[str]],
) -> None:
    if not trials:
        return
    numbers = [t.number for t in trials]
    axes.plot(numbers, [at] * len(trials), ls="none", marker=marker, ms=7, mew=1.5, color=colour, alpha=0.8,
              clip_on=False, in_layout=False, gid=name, label=name)  # fmt: skip
    tips[name] = [f"trial {t.number}: {t.reason or words.score(t.value, 5)}"[:80] for t in trials]


def _chosen(trial: TrialResult, name: str) -> str:
    return words.setting(trial.params[name]) if name in trial.params else words.NONE


def _metric(result: StudyResult) -> str:
    return label_of(words.metric(result.objective), 60)


