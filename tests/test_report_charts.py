"""Charts: SVG without style attributes, small, the same each time, and nothing global touched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure
from report_fixtures import study

from fmtune.report import charts
from fmtune.report.style import log_numbers
from fmtune.tune.result import CellResult, TrialResult

ALL = (charts.curves, charts.history, charts.speed, charts.overtuning, charts.importance, charts.slices)


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_a_chart_is_clean_svg_with_a_table(draw) -> None:  # type: ignore[no-untyped-def]
    """It parses, colours by classes only, says what it shows, and has its numbers as a table."""
    chart = draw(study(40))
    root = ElementTree.fromstring(chart.svg)
    assert root.get("role") == "img" and root.get("aria-label")
    assert not any("style" in e.attrib or e.tag in ("style", "metadata") for e in root.iter())
    assert not re.search(r'(?:fill|stroke)="#', chart.svg)
    assert chart.rows and all(len(row) == len(chart.header) for row in chart.rows)


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_settings_of_the_user_neither_matter_nor_change(draw) -> None:  # type: ignore[no-untyped-def]
    """With another font size and colours set outside, the chart is the same, and they stay set."""
    plain = draw(study(12))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        assert draw(study(12)) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_a_thousand_curves_cost_little() -> None:
    """1,000 trials of 20 epochs: the curves take under 250 kB, the slices under 150 kB."""
    result = study(1000)
    drawn = [draw(result) for draw in (charts.curves, charts.slices)]
    assert drawn[0] and len(drawn[0].svg) < 250_000
    assert drawn[1] and len(drawn[1].svg) < 150_000


def test_points_carry_their_trial_as_a_tooltip() -> None:
    """Each complete trial inside the axes has a title with its number and score."""
    chart = charts.history(study(40))
    assert chart is not None
    titles = [e.text or "" for e in ElementTree.fromstring(chart.svg).iter("title")]
    assert len(titles) >= 30 and all(re.match(r"trial \d+: ", t) for t in titles)


def test_a_leader_far_beyond_the_others_takes_no_room() -> None:
    """A first trial a thousand times as bad as the next is not drawn beside the axes, which would leave them none."""
    result = study(40)
    assert result.selection is not None
    first, *others = result.selection["curve"]
    far = {**first, "naive": 1000 * first["naive"], "corrected": 1000 * first["corrected"]}
    curve = [far, *[{**lead, "trial": lead["trial"] + n} for n, lead in enumerate(4 * others)]]
    chart = charts.overtuning(replace(result, selection={**result.selection, "curve": curve}))
    assert chart is not None and len(chart.rows) == len(curve)


def axes_of(*curves: tuple[float, ...], direction: str = "minimize") -> tuple[str, tuple[float, float]]:
    """Return the scale of the axis of epochs and the limits of the other, for trials of these curves."""
    seen: list[tuple[str, tuple[float, float]]] = []

    def keep(figure: Figure, name: str, label: str, tips: Mapping[str, Sequence[str]] | None = None) -> str:
        seen.append((figure.axes[0].get_xscale(), figure.axes[0].get_ylim()))
        return ""

    best = min if direction == "minimize" else max
    trials = tuple(TrialResult(n, "COMPLETE", {}, best(c), c, c.index(best(c)) + 1) for n, c in enumerate(curves))
    charts.curves(study(40, cells=(CellResult("cpu", "sparse", trials),), direction=direction), keep)
    return seen[0]


def test_the_best_epochs_of_the_best_trials_are_inside_the_axes() -> None:
    """Trials that are best after one epoch and worse ever after do not leave through the bottom of the picture."""
    scale, (low, high) = axes_of(*(tuple(0.537 + 0.001 * n + 0.02 * e for e in range(6)) for n in range(40)))
    assert low < 0.537 < 0.541 < high and scale == "linear"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("count", [6, 90])
def test_slow_trials_do_not_squeeze_the_best_ones(direction: str, count: int) -> None:
    """Where they take many times as many epochs the axis is logarithmic, and the best has room beside the edge."""
    up = -1.0 if direction == "minimize" else 1.0
    fast = [tuple(0.5 + up * (0.05 - 0.0001 * n - 0.003 * (e - 1) ** 2) for e in range(6)) for n in range(5)]
    slow = [tuple(0.5 + up * (0.045 - 0.04 * 0.99**e - 0.0001 * n) for e in range(100)) for n in range(count)]
    scale, (low, high) = axes_of(*fast, *slow, direction=direction)
    edge = 0.45 - low if direction == "minimize" else high - 0.55
    assert scale == "log" and edge > 0.05 * (high - low)
    assert axes_of(*fast, direction=direction)[0] == "linear"


@pytest.mark.parametrize(("low", "high", "whole", "numbers"), [
    (0.003, 0.1, False, [0.003, 0.01, 0.03, 0.1]), (1e-4, 0.3, False, [1e-4, 1e-3, 1e-2, 1e-1]),
    (2, 32, True, [2, 4, 8, 16, 32]), (1, 1000, True, [1, 10, 100, 1000]), (0.2, 1.5, False, [0.2, 0.5, 1.0]),
    (3, 3, True, [3, 3]),
])  # fmt: skip
def test_a_logarithmic_axis_has_a_handful_of_round_numbers(
    low: float, high: float, whole: bool, numbers: list[float]
) -> None:
    """Decades, or thirds of them where those are few, of a rate; powers of two of whole numbers."""
    axis = Figure().subplots().xaxis
    log_numbers(axis, low, high, whole=whole)
    assert axis.get_major_locator()() == pytest.approx(numbers)


def test_nothing_to_draw_is_none() -> None:
    """Without scores there are no charts of scores."""
    empty = study(1, cells=(CellResult("cpu", "sparse", (TrialResult(0, "WAITING", {}),)),), importance={})
    assert [draw(empty) for draw in ALL] == [None] * len(ALL)


@pytest.mark.parametrize("name", ["漢字", "🎲", "a$b$c", "_hidden", "x" * 300, "tab\tline\n"])
def test_any_name_can_be_drawn(name: str) -> None:
    """Letters that the measuring font lacks, mathematics, long and unprintable names: no error and no warning."""
    trials = tuple(TrialResult(n, "COMPLETE", {name: n + 1, "c": name}, 1.0 / (n + 1), (1.0, 0.5)) for n in range(4))
    result = study(4, cells=(CellResult("cpu", "sparse", trials),), importance={name: 1.0}, search_space={})
    assert all(ElementTree.fromstring(chart.svg) is not None for draw in ALL if (chart := draw(result)))
