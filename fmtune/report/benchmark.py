"""Benchmark: a result of ``fmtune bench`` as one page: what the gate said, every case, and the accepted results."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fmtune.bench import baseline, faces
from fmtune.bench.gate import FAILS, Verdict
from fmtune.report import words
from fmtune.report.charts import Chart
from fmtune.report.page import assembled
from fmtune.report.render import render
from fmtune.report.sections import Section
from fmtune.report.style import INK, MUTED, SERIES, Save, figure_of, label_of, to_svg

_COLUMNS = 3
_MOVED = (
    " Dotted: another machine, or other versions of Python, numba or numpy; what changed there is not known,"
    " and the line goes on at the level it had."
)
_MACHINE = ("processor", "cores", "memory", "system", "python", "numpy", "numba")


def build_benchmark(result: Mapping[str, Any], lines: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return a benchmark's result as one self-contained page, as HTML.

    Parameters
    ----------
    result
        As ``fmtune bench --json`` prints it; every string in it is treated as hostile text.
    lines
        The history of accepted results, oldest first (``bench.baseline.history``); those of other suites are left out.
    """
    verdicts = {v["name"]: Verdict(**{**v, "notes": tuple(v["notes"])}) for v in result.get("verdicts", ())}
    own = baseline.of_suite(lines, str(result["suite"]))
    parts = [_verdict(result, list(verdicts.values())), _cases(result, verdicts), _accepted(history_chart(own))]
    version = str(result["machine"].get("fmtune", ""))
    return assembled([p for p in parts if p is not None], json.loads(json.dumps(result)), won=False, version=version)


def _verdict(result: Mapping[str, Any], verdicts: Sequence[Verdict]) -> Section:
    machine = result["machine"]
    facts = [f"commit {result['commit'] or 'unknown'}", str(result["date"])[:16].replace("T", " ") + " UTC",
             *(f"{name} {machine[name]}" if name != "processor" else machine[name] for name in _MACHINE
               if name in machine)]  # fmt: skip
    body = render("verdict", lead=faces.lead(result, verdicts), sure=[], compared=[], facts=facts)
    return Section("verdict", f"Benchmark: {result['suite']}", body)


def _cases(result: Mapping[str, Any], verdicts: Mapping[str, Verdict]) -> Section:
    entries = {entry["name"]: entry for entry in result["cases"]}
    rows = [_row(name, entries.get(name), verdicts.get(name)) for name in [*entries, *(verdicts.keys() - entries)]]
    return Section("cases", "Cases", render("cases", rows=rows, judged=bool(verdicts)))


def _row(name: str, entry: Mapping[str, Any] | None, verdict: Verdict | None) -> dict[str, Any]:
    entry = entry or {}
    summary, share = entry.get("summary", {}), (entry.get("ceiling") or {}).get("share")
    notes = verdict.notes if verdict else tuple(filter(None, [entry.get("error")]))
    return {
        "name": name, "verdict": verdict.verdict if verdict else "failed" if entry.get("error") else "measured",
        "bad": (verdict.verdict in FAILS) if verdict else bool(entry.get("error")),
        "change": faces.change(verdict) if verdict and verdict.ratio is not None else words.NONE,
        "quality": verdict.quality if verdict and verdict.quality != "none" else words.NONE,
        "cpu": summary.get("cpu"), "rate": summary.get("rows_per_s"),
        "share": words.NONE if share is None else f"{100 * share:.0f} %", "notes": "; ".join(notes),
    }  # fmt: skip


def history_chart(lines: Sequence[Mapping[str, Any]], save: Save = to_svg) -> Chart | None:
    """Return each case's time over the accepted results, a panel each, with lasting steps marked.

    Times are as measured, over the first of them; where the machine changes, the line goes on at the level it had.
    Returns None without two accepted results of any case.
    """
    names = dict.fromkeys(name for line in lines for name in line["cases"])
    courses = {name: course for name in names if len((course := baseline.series(lines, name)).values) > 1}
    if not courses:
        return None
    columns, said = min(_COLUMNS, len(courses)), []
    deep = math.ceil(len(courses) / columns)
    with figure_of(360 * columns, 190 * deep, (deep, columns)) as (figure, grid):
        for panel in grid.flat[len(courses) :]:
            panel.set_axis_off()
        for panel, (name, course) in zip(grid.flat, courses.items(), strict=False):
            steps = baseline.steps(course.values)
            _course(panel, name, [value / course.values[0] for value in course.values], steps, course.moves)
            short = words.short(name, 60)
            said += [f"{short} {_percent(step.ratio)} at {course.dates[step.index][:10]}" for step in steps]
        drawing = save(figure, "accepted", f"times of {words.count(len(courses), 'case')} over the accepted results")
    count = words.count(max(len(course.values) for course in courses.values()), "accepted result")
    found = f"Lasting steps: {'; '.join(said)}." if said else "No lasting step found."
    moved = any(course.moves for course in courses.values())
    caption = f"CPU time of {count} over the first. {found}" + _MOVED * moved
    rows = tuple(
        (name, date[:16].replace("T", " "), f"{value / course.values[0]:.3f}")
        for name, course in courses.items()
        for date, value in zip(course.dates, course.values, strict=True)
    )
    return Chart("accepted", "Accepted results", drawing, caption, ("case", "accepted", "time over the first"), rows)


def _course(
    panel: Axes, name: str, ratios: Sequence[float], steps: Sequence[baseline.Step], moves: Sequence[int]
) -> None:
    """Draw one case: its points, the level between steps, each step with its size, and changes of machine."""
    panel.plot(range(1, len(ratios) + 1), ratios, ls="none", marker="o", ms=4, color=SERIES[0], clip_on=False)
    edges = [0, *(step.index for step in steps), len(ratios)]
    for low, high in itertools.pairwise(edges):
        panel.plot([low + 0.5, high + 0.5], [statistics.median(ratios[low:high])] * 2, color=MUTED, lw=1.2)
    room = 0.15 * max(max(ratios) - min(ratios), 0.1)
    panel.set(xlim=(0.5, len(ratios) + 0.5), ylim=(min(ratios) - room, max(ratios) + 2 * room))
    for index in moves:
        panel.axvline(index + 0.5, color=MUTED, lw=1.2, ls=":")
    for step in steps:
        panel.axvline(step.index + 0.5, color=SERIES[1], lw=1.2, ls=(0, (4, 3)))
        panel.annotate(_percent(step.ratio), (step.index + 0.5, 1), xycoords=("data", "axes fraction"), color=INK,
                       xytext=(4, -2), textcoords="offset points", va="top")  # fmt: skip
    panel.set_title(label_of(name, 40), loc="left")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    panel.yaxis.set_major_locator(MaxNLocator(nbins=4))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.2f}"))


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.0f} %".replace("-", "−")


def _accepted(chart: Chart | None) -> Section | None:
    if chart is None:
        return None
    return Section(chart.name, chart.title, render("chart", chart=chart, drawing=Markup(chart.svg)))
