"""The page of a benchmark: the gate's words, every case, the accepted results with their steps; no text is markup."""

from __future__ import annotations

import json
import math

import numpy as np
from bench_fixtures import entry, result

from fmtune.bench.gate import Verdict
from fmtune.report.benchmark import build_benchmark, history_chart
from fmtune.report.page import extract

HOSTILE = "<script>alert(1)</script>"


def lines(*levels: float, names=("a", HOSTILE), each: int = 8, suite: str = "quick", fingerprint: str = "here"):
    rng = np.random.default_rng(0)
    values = [level * math.exp(rng.normal(0, 0.01)) for level in levels for _ in range(each)]
    return [
        {"date": f"2026-01-{day + 1:02d}T00:00:00+00:00", "suite": suite, "fingerprint": fingerprint,
         "cases": {name: {"cpu": value} for name in names}}
        for day, value in enumerate(values)
    ]  # fmt: skip


def test_the_gates_words_lead_and_every_case_has_its_row():
    """The first sentence is the gate's; cases that are missing have a row too, and the result is in the page."""
    verdicts = [Verdict("a", "regressed", 1.1, 1.05, 1.15, "equal", ("a note",)), Verdict("gone", "missing")]
    found = {**result(entry("a"), entry("broken", error="it broke")), "verdicts": [v.plain() for v in verdicts]}
    page = build_benchmark(found)
    assert "2 of 2 cases fail: a regressed, gone missing" in page
    assert all(text in page for text in ("a note", "it broke", "gone", "+10.0 % (+5.0 % to +15.0 %)"))
    assert extract(page) == json.loads(json.dumps(found))


def test_a_run_without_a_comparison():
    """Without verdicts there are no columns for them, and without two accepted results no history."""
    page = build_benchmark(result(entry("a")), lines(1.0, each=1))
    assert "1 cases measured" not in page and "1 case measured" in page
    assert "change of CPU time" not in page and "Accepted results" not in page


def test_steps_are_marked_and_said():
    """A lasting change stands in the drawing and in the caption with its size and day; noise does not."""
    chart = history_chart(lines(1.0, 1.2))  # and noise
    assert chart is not None
    assert "a +19 % at 2026-01-09" in chart.caption
    assert chart.svg.count("+19 %") == 2
    assert len(chart.rows) == 32
    steady = history_chart(lines(1.0))
    assert steady is not None and "No lasting step found" in steady.caption


def test_only_the_results_own_suite_is_drawn():
    """The history beside a result may hold other suites with cases of the same names."""
    found = result(entry("a"))
    assert "Accepted results" in build_benchmark(found, lines(1.0))
    assert "Accepted results" not in build_benchmark(found, lines(1.0, suite="ours"))


def test_another_machine_is_no_step():
    """A machine that is twice as fast is marked and said, and is no lasting step."""
    chart = history_chart([*lines(1.0), *lines(0.5, fingerprint="there")])
    assert chart is not None
    assert "No lasting step found" in chart.caption and "another machine" in chart.caption


def test_names_are_text():
    """A hostile name of a case, a suite or a machine is not markup."""
    found = result(entry(HOSTILE))
    found |= {"suite": HOSTILE, "commit": HOSTILE, "machine": found["machine"] | {"processor": HOSTILE}}
    page = build_benchmark(found, lines(1.0, 1.3, suite=HOSTILE))
    assert "Accepted results" in page
    assert HOSTILE not in page and "alert(1)" in page
