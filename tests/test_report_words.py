"""Words: numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from fmtune.report import words


@pytest.mark.parametrize(
    ("say", "value", "text"),
    [
        (words.score, 0.0640623, "0.06406"), (words.score, 0.5, "0.5000"), (words.score, 12345.6, "12,346"),
        (words.score, 3.2e-7, "3.200e-07"), (words.score, math.nan, "not a number"), (words.score, None, "–"),
        (words.score, 0.0, "0"), (words.rate, 1_234_567.0, "1.23 M rows/s"), (words.rate, 59_210.0, "59.2 k rows/s"),
        (words.rate, 999_999.0, "1.00 M rows/s"), (words.rate, None, "–"), (words.seconds, 0.0421, "42 ms"),
        (words.seconds, 0.5, "500 ms"), (words.seconds, 59.96, "1 min 00 s"), (words.seconds, 200.0, "3 min 20 s"),
        (words.seconds, 3900.0, "1 h 05 min"), (words.seconds, None, "–"), (words.size, 512, "512 B"),
        (words.size, 1_300_000, "1.30 MB"), (words.times, 2.371, "2.37 ×"), (words.times, 14.2, "14 ×"),
        (words.signed, 0.000312, "+0.00031"), (words.signed, -2.1e-8, "−2.1e-8"), (words.signed, 0.0, "0"),
        (words.setting, 0.0161096, "0.01611"), (words.setting, True, "true"), (words.setting, None, "none"),
        (words.setting, 16, "16"), (words.share, 0.004, "< 1 %"), (words.share, 0.471, "47 %"),
        (words.metric, "test:rmse", "test RMSE"), (words.metric, "holdout:my_metric", "holdout my metric"),
        (words.short, "abc", "abc"), (lambda v: words.short(v, 4), "abcdef", "abc…"),
        (words.listing, ["a", "b", "c"], "a, b and c"), (words.listing, [], ""),
    ],
)  # fmt: skip
def test_numbers_read_well(say: Callable[[Any], str], value: object, text: str) -> None:
    """Sensible digits, units with every time and rate, and a dash for what is not known."""
    assert say(value) == text


def test_counts_know_one_from_many() -> None:
    """One trial, two trials, a thousand with its comma."""
    assert [words.count(n, "trial") for n in (1, 2, 1000)] == ["1 trial", "2 trials", "1,000 trials"]
