"""Style: the one look of all charts, and the figures they are drawn on.

Colours are Okabe and Ito's, told apart by the colour-blind, and never the only sign: markers and labels say the
same.  The figures are made without pyplot, so nothing global is touched but matplotlib's settings, which are
put back.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter

from fmtune.report import svg, words

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



class Save(Protocol):
    """What becomes of a finished figure: its name, its meaning in one sentence, and texts for its markers."""

    def __call__(self, figure: Figure, name: str, label: str, tips: Mapping[str, Sequence[str]] | None = None) -> str:
        """Return what stands for the drawing in the chart."""
        ...


@contextmanager
def figure_of(width: float, height: float, grid: tuple[int, int] | None = None) -> Iterator[tuple[Figure, Any]]:
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


def to_svg(figure: Figure, name: str, label: str, tips: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return a figure as the SVG element that a page holds."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return svg.clean(stream.getvalue(), prefix=name[:2], palette=PALETTE, label=label, tips=tips)


def to_png(figure: Figure) -> bytes:
    """Return a figure as a picture on white, two pixels a point."""
    figure.patch.set_visible(True)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=144, facecolor=PAPER, metadata={"Software": None})
    return stream.getvalue()


def legend(figure: Figure, *entries: list[Any]) -> None:
    """Put the legend above the axes, in a line."""
    look = {"handletextpad": 0.4, "columnspacing": 1.2, "handlelength": 1.4}
    figure.legend(*entries, loc="outside upper left", ncols=5, **look)


def star(axes: Axes, x: float, y: float) -> None:
    """Mark the winner."""
    axes.plot([x], [y], ls="none", marker="*", ms=14, color=SERIES[1], mec=PAPER, mew=1, zorder=5, clip_on=False,
              in_layout=False)  # fmt: skip


def label_of(text: str, length: int) -> str:
    """Return free text that XML can hold, on one line."""
    return words.short("".join(c if c.isprintable() else "\ufffd" for c in text), length)


def _power(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if not 1e-3 < value < 1e5 else f"{value:.4g}"


def plain_numbers(axis: Any) -> None:
    """Write an axis's numbers without offset and exponent."""
    axis.set_major_formatter(ScalarFormatter(useOffset=False))
    axis.get_major_formatter().set_scientific(False)


def log_numbers(axis: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Write at most a handful of round numbers on a logarithmic axis: powers of two where only whole ones stand."""
    axis.set_major_locator(FixedLocator(_round_numbers(low, high, whole)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: _power(x)))
    axis.set_minor_locator(NullLocator())


def _round_numbers(low: float, high: float, whole: bool) -> list[float]:
    if whole and high < 100 * low:
        powers = [2.0**e for e in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
        return powers[:: math.ceil(len(powers) / 5)] if len(powers) > 1 else [low, high]
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        # A bound such as 0.1 may have lost its last bit on the way.
        inside = [v for e in decades for s in steps if low * 0.9999 <= (v := s * 10.0**e) <= high * 1.0001]
        if len(inside) > 2:
            return inside[:: math.ceil(len(inside) / 5)]
    return [v for v in MaxNLocator(nbins=3).tick_values(low, high) if low <= v <= high]
