"""Other faces of the same result: Markdown, CSV, Parquet and PNG."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from report_fixtures import confirmed, not_run, of_state, study

from fmtune.errors import ResourceError, UsageError
from fmtune.extras import install
from fmtune.report.charts import pictures
from fmtune.report.compare import verdict
from fmtune.report.markdown import comparison_markdown, markdown, text
from fmtune.report.table import csv, frame, parquet
from fmtune.tune.result import CellResult, StudyResult, TrialResult


def test_markdown_has_the_verdict_the_matrix_and_the_winner() -> None:
    """What a reviewer needs is there, and a cell that was not run says why."""
    page = markdown(study(64, cells=(*study(64).cells, not_run())))
    assert "**Trial 33 wins: test cross-entropy 0.05770, the best of 64 trials.**" in page
    assert "| cpu-dense | " in page and "not run: no CUDA device" in page and "### Winner: trial 33" in page


def test_several_studies_are_compared_in_markdown() -> None:
    """The verdict and a line for each cell of each study, every line as wide as the head; one study is refused."""
    studies = [study(30), study(12, study_name="o|ther", cells=(*study(12).cells, not_run()))]
    page = comparison_markdown(studies)
    assert f"**{text(verdict(studies))}**" in page and "o\\|ther" in page
    table = [line.replace("\\|", "") for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 5 and {line.count("|") for line in table} == {10}
    with pytest.raises(UsageError):
        comparison_markdown(studies[:1])


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


def test_markdown_says_what_the_score_is_worth() -> None:
    """All forms of the score, what was decided, and the finalists in a table."""
    page = markdown(confirmed(study(64), "undecided", "better"))
    assert "as selected; about " in page and "on the sealed holdout, opened twice." in page
    assert "it is not decided whether it beats trial" in page and "| trial | over 10 seeds |" in page
    assert page.count("| undecided |") == 1 and page.count("| better |") == 1


def test_parquet_has_typed_columns() -> None:
    """Numbers come back as numbers, exactly; choices as text; a column of mixed kinds as text."""
    odd = TrialResult(0, "COMPLETE", {"k": 1, "lr": 0.1, "mixed": 1, "flag": True}, 0.25)
    more = TrialResult(1, "FAIL", {"k": 2, "lr": None, "mixed": "a"}, None, reason="=SUM(1)")
    table = pd.read_parquet(io.BytesIO(parquet(study(1, cells=(CellResult("cpu", "sparse", (odd, more)),)))))
    assert list(table["param_k"]) == [1, 2] and table["param_lr"][0] == 0.1 and table["value"][0] == 0.25
    assert list(table["param_mixed"]) == ["1", "a"] and table["param_flag"][0] and table["reason"][1] == "=SUM(1)"
    assert len(pd.read_parquet(io.BytesIO(parquet(study(64))))) == 128
    assert len(pd.read_parquet(io.BytesIO(parquet(study(0, cells=(), importance={}))))) == 0


def test_parquet_names_what_is_missing() -> None:
    """Without pyarrow the error says what to install."""
    with pytest.raises(ResourceError) as caught:
        parquet(study(1), pyarrow=False)
    assert caught.value.hint == install("parquet")


def test_every_chart_is_also_a_picture() -> None:
    """The same figures as PNG, by name; a study with nothing to draw has none."""
    drawn = pictures(study(24))
    assert list(drawn) == ["curves", "speed", "overtuning", "history", "importance", "slices"]
    assert all(png.startswith(b"\x89PNG") and len(png) > 5000 for png in drawn.values())
    assert pictures(study(0, cells=(), importance={})) == {}
