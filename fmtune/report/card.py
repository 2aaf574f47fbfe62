"""Card: a result of the suite ``gpu`` as one page: what the card does beside its machine's CPU and torch."""

from __future__ import annotations

import json

from markupsafe import Markup

from fmtune.bench.cuda_suite import Ceiling, Rate, Result
from fmtune.report import words
from fmtune.report.charts import Chart
from fmtune.report.page import assembled
from fmtune.report.render import render
from fmtune.report.sections import Section
from fmtune.report.style import MARKERS, SERIES, Save, figure_of, legend, log_numbers, to_svg

_LAYOUTS = ("sparse", "dense")
_MACHINE = ("processor", "cores", "memory", "system", "python", "numpy", "numba", "fmtune")


def build_card(result: Result) -> str:
    """Return a result of ``fmtune bench --suite gpu --json`` as one self-contained page, as HTML.

    Every string in it is treated as hostile text.  Where there was no card the page says so.
    """
    charts = [chart for layout in _LAYOUTS if (chart := rates(result, layout)) is not None]
    drawn = [Section(c.name, c.title, render("chart", chart=c, drawing=Markup(c.svg))) for c in charts]
    targets = [Section("targets", "What it is held to", render("targets", rows=_targets(result)))]
    parts = [_verdict(result), *(targets if result.targets or result.failures else []), *drawn,
             *([_checks(result)] if result.checks else [])]  # fmt: skip
    version = str(result.machine.get("fmtune", ""))
    return assembled(parts, json.loads(result.model_dump_json()), won=False, version=version)


def _verdict(result: Result) -> Section:
    machine, card = result.machine, result.card
    facts = [f"commit {result.commit or 'unknown'}", result.date[:16].replace("T", " ") + " UTC",
             *(f"{name} {machine[name]}" for name in _MACHINE if name in machine)]  # fmt: skip
    if card is None:
        lead = f"Not run: {result.not_run}."
    else:
        wrong = sum(not check.fine for check in result.checks)
        said = f"{words.count(wrong, 'check')} found it wrong" if wrong else "all checks found it right"
        lead = f"{card.name}: {said}."
        facts.insert(0, f"{words.count(card.cards, 'card')} with {words.size(card.memory)} each")
    sure = [sentence for layout in _LAYOUTS for sentence in _compared(result, layout)]
    return Section("verdict", "Benchmark: gpu", render("verdict", lead=lead, sure=sure, compared=[], facts=facts))


def _compared(result: Result, layout: str) -> list[str]:
    """Return the best rate of a layout in words, and how many times those of a lone lane, the CPU and torch it is."""
    own = _of(result, layout)
    ours = [part for part in own if part.device == "gpu" and part.way != "torch"]
    if not ours:
        return []
    best = max(ours, key=lambda part: part.row_lanes_s)
    same = [part for part in own if part.mini_batch_size == best.mini_batch_size]
    beside = {
        "a lone lane": [p for p in same if p.lanes == 1 and p.way == best.way and p.device == "gpu"],
        "the CPU": [p for p in same if p.device == "cpu"],
        "torch": [p for p in same if p.way == "torch"],
    }
    rate = best.row_lanes_s
    ratios = [
        f"{rate / max(p.row_lanes_s for p in parts):.1f} times {name}" for name, parts in beside.items() if parts
    ]
    where = f"{layout.capitalize()}, {best.lanes} lanes, mini-batches of {best.mini_batch_size}, {best.way}"
    return [f"{where}: {words.rate(rate, 'row-lanes/s')}, {words.listing(ratios)}."]


def rates(result: Result, layout: str, save: Save = to_svg) -> Chart | None:
    """Return row-lanes a second against the mini-batch's size, by device and way; None where nothing was measured."""
    own = _of(result, layout)
    if not own:
        return None
    most = max(part.lanes for part in own)
    lines: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for part in own:
        if part.lanes in (1, most):
            points = lines.setdefault((f"{part.device}, {part.way}", part.lanes), [])
            points.append((part.mini_batch_size, part.row_lanes_s))
    names = list(dict.fromkeys(name for name, _ in lines))
    with figure_of(760, 380) as (figure, axes):
        for (name, lanes), points in lines.items():
            n, alone = names.index(name), lanes == 1
            axes.plot(*zip(*points, strict=True), color=SERIES[n % len(SERIES)], marker=MARKERS[n % len(MARKERS)], ms=6,
                      lw=1.8, ls=(0, (4, 3)) if alone and most > 1 else "-",
                      label=None if alone and most > 1 and (name, most) in lines else name)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sizes := sorted({p.mini_batch_size for p in own}), labels=[f"{size:,}" for size in sizes])
        axes.minorticks_off()
        log_numbers(axes.yaxis, min(p.row_lanes_s for p in own), max(p.row_lanes_s for p in own))
        axes.set(xlabel="mini_batch_size", ylabel="row-lanes/s")
        legend(figure)
        drawing = save(figure, layout, f"row-lanes a second of {layout} rows against the mini-batch's size")
    caption = f"{layout.capitalize()} rows. Solid: {words.count(most, 'lane')} in one pass; broken: one."
    header = ("device", "way", "mini_batch_size", "lanes", "rate")
    rows = tuple(
        (p.device, p.way, str(p.mini_batch_size), str(p.lanes), words.rate(p.row_lanes_s, ""))
        for p in own
    )
    return Chart(layout, f"{layout.capitalize()} rows", drawing, caption, header, rows)


def _of(result: Result, layout: str) -> list[Rate]:
    return [part for part in result.rates if part.layout == layout]


def _targets(result: Result) -> list[tuple[str, str, str, str]]:
    """Return what, wanted, found and whether it was held; what was not measured comes last, with why."""
    said = {True: "held", False: "not held", None: "not measured"}
    return [
        *((part.target, f"{part.wanted:.4g}", "" if part.found is None else f"{part.found:.4g}", said[part.held])
          for part in result.targets),
        *((part.name, "", "", f"failed: {part.failed}") for part in result.failures),
    ]  # fmt: skip


def _checks(result: Result) -> Section:
    ceilings = [
        (part.ceiling if part.table_mb is None else f"{part.ceiling}, table of {part.table_mb:.3g} MB", _reached(part))
        for part in result.ceilings
    ]
    return Section("checks", "Checks and ceilings", render("card", checks=result.checks, ceilings=ceilings))


def _reached(part: Ceiling) -> str:
    """Return how fast a ceiling is; of products also how many row-lanes a second they alone would allow."""
    if part.gb_s is not None:
        return f"{part.gb_s:.4g} GB/s"
    allowed = f", {words.rate(part.row_lanes_s, 'row-lanes/s')}" if part.row_lanes_s is not None else ""
    return f"{part.tflop_s or 0.0:.4g} TFLOP/s{allowed}"
