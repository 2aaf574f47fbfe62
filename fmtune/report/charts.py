"""Charts: a study's numbers as SVG by matplotlib, in one style, each with the table behind it.

Colours are Okabe and Ito's, told apart by the colour-blind, and never the only sign: markers and labels say the
same.  The figures are made without pyplot, so nothing global is touched but matplotlib's settings, which are
put back.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import quantiles
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from fmtune.report import svg, words
from fmtune.report.summary import (
    best,
    complete,
    improvements,
    pace,
    ranked,
    sign,
    target,
    time_to_target,
    value_of,
)
from fmtune.tune.result import CellResult, StudyResult, TrialResult

INK, MUTED, GRID, FAINT, PAPER = "#1b1f24", "#5c6672", "#e4e7eb", "#aab4bf", "#ffffff"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
PALETTE = {INK: "ink", MUTED: "muted", GRID: "grid", FAINT: "faint", PAPER: "paper"} | {
    colour: f"c{i}" for i, colour in enumerate(SERIES, 1)
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fmtune",
    "svg.image_inline": True,
    "text.parse_math": False,
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 1,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 1,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 12,
}


class Chart(NamedTuple):
    """One drawing, a line under it, and the table behind it."""

    name: str
    title: str
    svg: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def curves(result: StudyResult, leaders: int = 5) -> Chart | None:
    """Return quality against epochs: the best trials in colour, all others faint; None without curves."""
    cell = result.cells[0]
    drawn = [t for t in cell.trials if len(t.curve) > 1]
    top = [t for t in ranked(result, cell) if len(t.curve) > 1][:leaders]
    if not drawn:
        return None
    name = _metric(result)
    with _figure(530, 310) as (figure, axes):
        low, high = _curve_window(result, drawn, top)
        others = [t for t in drawn if t not in top]
        for start in range(0, len(others), 25):  # lines over each other darken from one bundle to the next
            faint = 0.85 if len(others) < 100 else 0.4
            axes.plot(*_broken(others[start : start + 25]), color=FAINT, lw=0.7, alpha=faint)
        for trial, colour, marker in reversed(list(zip(top, SERIES, MARKERS, strict=False))):
            epochs = range(1, len(trial.curve) + 1)
            at = [min(max((trial.best_epoch or 1) - 1, 0), len(trial.curve) - 1)]
            axes.plot(epochs, trial.curve, color=colour, lw=1.8, marker=marker, markevery=at, ms=7,
                      label=f"trial {trial.number}")  # fmt: skip
        axes.set(xlabel="epoch", ylabel=name, ylim=(low, high))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        _plain_numbers(axes.yaxis)
        if top:
            handles, labels = axes.get_legend_handles_labels()
            _legend(figure, handles[::-1], labels[::-1])
        label = f"{name} after each epoch, {words.count(len(drawn), 'trial')}"
        drawing = _svg(figure, "curves", label)
    caption = "The best trials in colour, with a mark at their best epoch; all others faint."
    longest = max((len(t.curve) for t in top), default=0)
    rows = tuple(
        (str(e + 1), *(words.score(t.curve[e], 5) if e < len(t.curve) else "" for t in top))
        for e in range(0, longest, max(1, math.ceil(longest / 40)))
    )
    header = ("epoch", *(f"trial {t.number}" for t in top))
    return Chart("curves", "Quality against epochs", drawing, caption, header, rows)


def history(result: StudyResult) -> Chart | None:
    """Return each trial's score in number order and the best so far; None when no trial has a score."""
    cell, top = result.cells[0], best(result)
    done = complete(cell)
    if top is None:
        return None
    pruned = [t for t in cell.trials if t.state == "PRUNED" and t.curve and math.isfinite(t.curve[-1])]
    failed = [t for t in cell.trials if t.state == "FAIL"]
    name, steps, tips = _metric(result), improvements(result, cell), {}
    with _figure(530, 310) as (figure, axes):
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
        _star(axes, top.number, top.value or 0.0)
        axes.set(xlabel="trial", ylabel=name, ylim=(low, high))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        _plain_numbers(axes.yaxis)
        _legend(figure)
        label = f"{name} of each trial; the best, {words.score(top.value)}, is trial {top.number}"
        drawing = _svg(figure, "history", label, tips)
    caption = "Pruned trials stand at their last score. The star is the winner."
    rows = tuple((str(t.number), words.score(t.value, 5)) for t in steps)
    return Chart("history", "History", drawing, caption, ("trial", "best so far"), rows)


def speed(result: StudyResult) -> Chart | None:
    """Return best so far against the seconds spent, a line for each cell; None without seconds."""
    courses = [(c, p) for c in result.cells if (p := pace(result, c)).values and p.total > 0]
    if not courses:
        return None
    name, goal = _metric(result), target(result)
    with _figure(530, 310) as (figure, axes):
        for (cell, course), colour, marker in zip(courses, SERIES, MARKERS, strict=False):
            axes.step([*course.seconds, course.total], [*course.values, course.values[-1]], where="post",
                      color=colour, lw=1.8, marker=marker, ms=5, label=_label(cell.name, 40))  # fmt: skip
        if goal is not None:
            axes.axhline(goal, color=MUTED, lw=1, ls=(0, (4, 3)), label="target: within 1 % of the best")
        starts, ends = [p.seconds[0] for _, p in courses], [p.total for _, p in courses]
        if min(starts) > 0 and max(ends) / min(starts) > 30:
            axes.set_xscale("log")
            _log_numbers(axes.xaxis, min(starts), max(ends))
        else:
            axes.set_xlim(left=0)
        axes.set(xlabel="seconds in trials", ylabel=f"best {name} so far",
                 ylim=_window(result, [v for _, p in courses for v in p.values]))  # fmt: skip
        _plain_numbers(axes.yaxis)
        _legend(figure)
        drawing = _svg(figure, "speed", f"best {name} against seconds spent, {words.count(len(courses), 'cell')}")
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


def importance(result: StudyResult) -> Chart | None:
    """Return each parameter's share of the variance of the score; None with too few trials."""
    shares = sorted(result.importance.items(), key=lambda item: (-item[1], item[0]))[:12]
    if not shares:
        return None
    with _figure(530, 60 + 32 * len(shares)) as (figure, axes):
        places = range(len(shares))
        axes.barh(places, [s for _, s in shares], height=0.55, color=SERIES[0])
        for place, (_, portion) in zip(places, shares, strict=True):
            axes.text(portion, place, f" {words.share(portion)}", va="center", color=INK)
        axes.set_yticks(places, [_label(name, 28) for name, _ in shares], color=INK)
        axes.invert_yaxis()
        axes.set_xlim(0, max(0.01, max(s for _, s in shares)) * 1.15)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: words.share(x)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(False, axis="y")
        drawing = _svg(figure, "importance", "share of the score's variance for each searched parameter")
    caption = "Share of the score's variance that a parameter explains by itself (PED-ANOVA)."
    rows = tuple((name, words.share(portion)) for name, portion in shares)
    return Chart("importance", "Importance", drawing, caption, ("parameter", "share"), rows)


def slices(result: StudyResult, columns: int = 4) -> Chart | None:
    """Return the score against each searched parameter, a small panel each; None when no trial has a score."""
    cell, top = result.cells[0], best(result)
    names = list(dict.fromkeys([*result.search_space, *(n for t in complete(cell) for n in t.params)]))[:24]
    if top is None or not names:
        return None
    names.sort(key=lambda name: -result.importance.get(name, 0.0))
    columns = min(columns, len(names))
    lines = math.ceil(len(names) / columns)
    with _figure(1080 * columns / 4 if columns > 1 else 400, 215 * lines, (lines, columns)) as (figure, grid):
        low, high = _window(result, [t.value or 0.0 for t in complete(cell)])
        for place, name in enumerate(names):
            panel = grid[place // columns, place % columns]
            panel.set_ylim(low, high)
            _slice(panel, result, cell, top, name)
            if place % columns:
                panel.tick_params(labelleft=False)
        for place in range(len(names), lines * columns):
            grid[place // columns, place % columns].set_axis_off()
        drawing = _svg(figure, "slices", f"{_metric(result)} against each searched parameter")
    caption = "Complete trials, the most important parameter first; the star is the winner."
    leaders = ranked(result, cell)[:10]
    rows = tuple((str(t.number), words.score(t.value, 5), *(_chosen(t, n) for n in names)) for t in leaders)
    return Chart("slices", "Slices", drawing, caption, ("trial", "score", *names), rows)


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
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _label(labels[round(x)], 12)))
        panel.set_xlim(-0.5, len(labels) - 0.5)
    else:
        places = [float(v) for v in raw]
        ends = [v for v in (span.get("low"), span.get("high"), *places) if isinstance(v, (int, float))]
        if span.get("log") and ends and min(ends) > 0:
            panel.set_xscale("log")
            panel.set_xlim(min(ends), max(ends) * 1.0001)
            _log_numbers(panel.xaxis, min(ends), max(ends))
        else:
            panel.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=all(isinstance(v, int) for v in raw)))
            _plain_numbers(panel.xaxis)
    panel.plot(places, [t.value or 0.0 for t in shown], ls="none", marker="o", ms=4, mew=0, alpha=0.6,
               color=SERIES[0], gid="dots:4.5", clip_on=False, in_layout=False)  # fmt: skip
    if top in shown:
        _star(panel, places[shown.index(top)], top.value or 0.0)
    _plain_numbers(panel.yaxis)
    panel.yaxis.set_major_locator(MaxNLocator(nbins=4))
    panel.set_title(_label(name, 28), loc="left", color=INK)


@contextmanager
def _figure(width: float, height: float, grid: tuple[int, int] | None = None) -> Iterator[tuple[Figure, Any]]:
    """Give an empty figure of so many pixels in the project's style, whatever the user's settings are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A letter that the measuring font lacks is drawn by the reader's own font all the same.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)  # type: ignore[arg-type]
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure)
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr,call-arg]
        axes = figure.subplots(*grid, squeeze=False) if grid else figure.subplots()
        for one in figure.axes:
            one.patch.set_visible(False)
        yield figure, axes


def _svg(figure: Figure, name: str, label: str, tips: dict[str, list[str]] | None = None) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return svg.clean(stream.getvalue(), prefix=name[:2], palette=PALETTE, label=label, tips=tips)


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
    """Return limits for the ends of all curves and the last three quarters of the best ones."""
    if not top:
        return _window(result, [v for t in drawn for v in t.curve])
    ends = _window(result, [t.curve[-1] for t in drawn])
    course = _window(result, [v for t in top for v in t.curve[len(t.curve) // 4 :]])
    return min(ends[0], course[0]), max(ends[1], course[1])


def _broken(trials: Sequence[TrialResult]) -> tuple[list[float], list[float]]:
    """Return all curves as one line with gaps: one element in the SVG instead of hundreds."""
    across: list[float] = []
    up: list[float] = []
    for trial in trials:
        across += [*map(float, range(1, len(trial.curve) + 1)), math.nan]
        up += [*(v if math.isfinite(v) else math.nan for v in trial.curve), math.nan]
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


def _legend(figure: Figure, *entries: list[Any]) -> None:
    look = {"handletextpad": 0.4, "columnspacing": 1.2, "handlelength": 1.4}
    figure.legend(*entries, loc="outside upper left", ncols=5, **look)


def _star(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], ls="none", marker="*", ms=14, color=SERIES[1], mec=PAPER, mew=1, zorder=5, clip_on=False,
              in_layout=False)  # fmt: skip


def _chosen(trial: TrialResult, name: str) -> str:
    return words.setting(trial.params[name]) if name in trial.params else words.NONE


def _metric(result: StudyResult) -> str:
    return _label(words.metric(result.objective), 60)


def _label(text: str, length: int) -> str:
    """Return free text that XML can hold, on one line."""
    return words.short("".join(c if c.isprintable() else "\ufffd" for c in text), length)


def _power(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if not 1e-3 < value < 1e5 else f"{value:.4g}"


def _plain_numbers(axis: Any) -> None:
    axis.set_major_formatter(ScalarFormatter(useOffset=False))
    axis.get_major_formatter().set_scientific(False)


def _log_numbers(axis: Any, low: float, high: float) -> None:
    axis.set_major_locator(LogLocator(base=10 if high >= 100 * low else 2, numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda x, _: _power(x)))
    axis.set_minor_locator(NullLocator())
