"""Words: numbers as a person reads them, with the digits that mean something and with their units."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_WORDS = {"true", "false", "null", "none", "yes", "no", "on", "off", "y", "n"}

NONE = "–"

METRICS = {
    "rmse": "RMSE",
    "mse": "MSE",
    "absolute_loss": "absolute loss",
    "binary_classification_cross_entropy": "cross-entropy",
    "binary_classification_accuracy": "accuracy",
    "binary_f_beta": "F1",
    "auc": "AUC",
}


def metric(name: str) -> str:
    """Return ``test cross-entropy`` for ``test:binary_classification_cross_entropy``."""
    channel, colon, bare = name.partition(":")
    if not colon:
        return METRICS.get(name, name.replace("_", " "))
    return f"{channel} {METRICS.get(bare, bare.replace('_', ' '))}"


def score(value: Any, digits: int = 4) -> str:
    """Return a score with so many significant digits, and no exponent where a person would write none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return NONE if value is None else str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if value == 0:
        return "0"
    if abs(value) >= 10.0 ** (digits - 1):
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:#.{digits}g}" if abs(value) >= 1e-4 else f"{value:.{digits - 1}e}"


def near(value: float, other: float) -> str:
    """Return ``value`` with enough digits to tell it from ``other``: 4 to 7."""
    for digits in range(4, 8):
        if score(value, digits) != score(other, digits):
            return score(value, digits)
    return score(value)


def spread(mean: float, sd: float) -> str:
    """Return ``0.0571 ± 0.0055``: two significant digits of the spread, and as many decimals of the mean."""
    if not (math.isfinite(mean) and math.isfinite(sd)) or sd <= 0:
        return f"{score(mean)} ± {score(sd)}"
    places = max(0, 1 - math.floor(math.log10(sd)))
    return f"{mean:,.{places}f} ± {sd:.{places}f}" if places <= 7 else f"{score(mean)} ± {sd:.1e}"


def signed(value: float) -> str:
    """Return a small difference with its sign and two significant digits: ``+0.00031``."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else score(value)
    places = max(0, 1 - math.floor(math.log10(abs(value))))
    text = f"{value:+.{places}f}" if places <= 6 else f"{value:+.1e}".replace("e-0", "e-")
    return text.replace("-", "−", 1) if value < 0 else text


def rate(value: float | None, unit: str = "rows/s") -> str:
    """Return ``1.2 M rows/s``."""
    if value is None or not math.isfinite(value):
        return NONE
    for factor, prefix in ((1e9, "G "), (1e6, "M "), (1e3, "k ")):
        if value >= factor * 0.9995:
            return f"{_three(value / factor)} {prefix}{unit}"
    return f"{_three(value)} {unit}"


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """Return ``42 ms``, ``3.1 s``, ``2 min 05 s`` or ``1 h 12 min``."""
    if value is None or not math.isfinite(value):
        return NONE
    if value < 0.9995:
        return f"{value * 1e3:.2g} ms" if value < 0.0995 else f"{value * 1e3:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: float | None) -> str:
    """Return bytes as ``512 B``, ``84 kB`` or ``1.3 MB``."""
    if value is None or not math.isfinite(value):
        return NONE
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{_three(value / factor)} {unit}"
    return f"{value:.0f} B"


def times(value: float | None) -> str:
    """Return a ratio as ``1.8 ×``."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.2f} ×" if value < 10 else f"{value:,.0f} ×"


def setting(value: Any) -> str:
    """Return a hyperparameter's value: four significant digits of a float, everything else as it is."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 trial`` or ``1,000 trials``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share(value: float) -> str:
    """Return a share as ``34 %``; below one per cent ``< 1 %``."""
    return "< 1 %" if 0 < value < 0.01 else f"{value * 100:.0f} %"


def listing(items: list[str]) -> str:
    """Return ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def short(text: str, length: int = 120) -> str:
    """Return the text cut to so many characters, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def yaml(value: Any) -> str:
    """Return a scalar that YAML 1.1 and 1.2 readers take alike, exactly."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text
    if isinstance(value, int):
        return str(value)
    text = str(value)
    return text if _PLAIN.match(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
