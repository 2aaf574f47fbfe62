"""Other faces of the same result: Markdown and CSV."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from report_fixtures import not_run, of_state, study

from fmtune.report.markdown import markdown, text
from fmtune.report.table import csv, frame
from fmtune.tune.result import CellResult, StudyResult, TrialResult


def test_markdown_has_the_verdict_the_matrix_and_the_winner() -> None:
    """What a reviewer needs is there, and a cell that was not run says why."""
    page = markdown(study(64, cells=(*study(64).cells, not_run())))
    assert "**Trial 33 wins: test cross-entropy 0.05770, the best of 64 trials.**" in page
    assert "| cpu-dense | " in page and "not run: no CUDA device" in page and "### Winner: trial 33" in page


@pytest.mark.parametrize("result", [of_state("FAIL"), of_state("PRUNED"), study(0, cells=(), importance={}), study(1)])
def test_markdown_is_made_for_every_study(result: StudyResult) -> None:
    """Without a winner there is a heading and a sentence."""
    assert markdown(result).startswith("## digits\n\n**")


@pytest.mark.parametrize(
    "bad",
    ["<script>alert(1)</script>", "[x](javascript:alert(1))", "![x](//e.example)", "a|b\nc", "`x`", "@team #1", "- x"],
)
def test_free_text_is_escaped_in_markdown(bad: str) -> None:
    """Nothing in a name makes an element, a link, a mention, a cell or a line."""
    line = text(bad)
    assert "\n" not in line and not line.startswith("-")
    for special in "<>[]|`@#":
        assert special not in line.replace(f"\\{special}", "")


def test_csv_has_a_line_for_each_trial_of_each_cell() -> None:
    """64 trials in two cells are 128 lines, read back with the exact values."""
    result = study(64)
    table = pd.read_csv(io.StringIO(csv(result)))
    assert len(table) == 128 and list(table["cell"].unique()) == ["cpu-sparse", "cpu-dense"]
    top = result.best
    assert top is not None
    row = table[(table["cell"] == "cpu-sparse") & (table["number"] == top.number)].iloc[0]
    assert row["value"] == top.value and row["param_factors_lr"] == top.params["factors_lr"]


def test_csv_runs_no_formula() -> None:
    """Text that a spreadsheet would run gets an apostrophe; negative numbers stay numbers."""
    trial = TrialResult(0, "FAIL", {"=cmd": "@SUM(1)", "x": -1.5}, None, reason="=HYPERLINK(1)")
    lines = csv(study(1, cells=(CellResult("cpu", "sparse", (trial,)),))).splitlines()
    assert "'=HYPERLINK(1)" in lines[1] and "'@SUM(1)" in lines[1] and ",-1.5" in lines[1]


def test_an_empty_study_is_an_empty_table() -> None:
    """The columns are there, no rows are."""
    table = frame(study(0, cells=(), importance={}))
    assert len(table) == 0 and "value" in table.columns
