"""Comparison: several studies on one page, ranked only where they answer one question."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_fixtures import confirmed, heavy, not_run, of_state, study

from fmtune.errors import UsageError
from fmtune.report import words
from fmtune.report.compare import (
    Point,
    build_comparison,
    caveats,
    crossing,
    crossover,
    pace_chart,
    points,
    unranked,
    verdict,
)
from fmtune.report.markdown import comparison_markdown
from fmtune.report.page import extract
from fmtune.report.record import from_json, to_json
from fmtune.tune.result import CellResult, StudyResult, TrialResult


def measured(density: float, ratio: float, width: int = 256, name: str = "") -> StudyResult:
    """Return a study on rows of a density, whose dense cell learns ``ratio`` times as many rows a second."""
    cells = tuple(
        CellResult(
            "cpu", layout, tuple(TrialResult(n, "COMPLETE", {}, 0.5, rows_per_s=rate * (n + 1)) for n in range(3))
        )
        for layout, rate in (("sparse", 1e5), ("dense", ratio * 1e5))
    )
    channels = {"train": {"rows": 1000, "nnz": round(1000 * width * density), "feature_dim": width, "digest": name}}
    return study(3, cells=cells, study_name=name or f"d{density}", channels=channels, importance={}, holdout=None)


def test_the_same_question_is_ranked() -> None:
    """Same objective, same rows: the best score is named, and who lies inside its interval is not decided."""
    one, other = study(40, study_name="one"), study(40, seed=5, study_name="other")
    assert unranked([one, other]) is None
    first = verdict([one, other])
    best = min((one, other), key=lambda r: r.best.value)  # type: ignore[union-attr,return-value]
    assert first.startswith(f"{best.study_name} scores best: test cross-entropy ") and "not decided against" in first
    far = replace(one, selection=None)
    assert verdict([far, replace(other, selection=None)]) == (
        f"Which study is best is not decided: {best.study_name} reached test cross-entropy "
        f"{words.score(best.best.value)}, and no interval of that is known."  # type: ignore[union-attr]
    )
    assert "<td><b>" not in build_comparison([far, replace(other, selection=None)])


def test_the_same_rows_under_another_encoding_are_ranked() -> None:
    """Where both know which rows they had, encodings may differ; other rows, or rows not known, may not."""

    def encoded(digest: str, origin: str) -> StudyResult:
        rows = {name: {"digest": digest + name, "origin": origin + name} for name in ("train", "test")}
        return study(20, study_name=digest, channels=rows)

    one, other = encoded("a", "x"), encoded("b", "x")
    assert unranked([one, other]) is None and unranked([one, encoded("b", "y")]) == "their test rows differ"
    assert "the same rows, encoded differently" in build_comparison([one, other])
    old = replace(other, channels={"train": {"digest": "b"}, "test": {"digest": "b"}})
    assert unranked([one, old]) == "their encoded test rows differ"


def test_a_study_that_is_not_whole_says_so() -> None:
    """In its row, beside what it is said to have scored, and in Markdown; one without a trial does not count."""
    best, other = sorted((study(40), study(40, seed=5)), key=lambda r: r.best.value)  # type: ignore[union-attr,return-value]
    going = replace(best, study_name="going", n_trials=300, finished=None)
    whole = replace(other, study_name="whole")
    said = verdict([going, whole])
    ended = f"{sum(t.state in ('COMPLETE', 'PRUNED', 'FAIL') for t in going.cells[0].trials)} of 300 trials"
    assert said.startswith(f"going ({ended}) scores best: ") and "not decided against whole." in said
    assert f"<small>{ended}</small>" in build_comparison([going, whole])
    assert f"| going ({ended}) | cpu-sparse" in comparison_markdown([going, whole])
    empty = study(0, study_name="empty", cells=(), channels={}, environment={}, n_trials=300)
    assert verdict([empty, going, whole]) == said and caveats([empty, going, whole]) == caveats([going, whole])
    assert "empty (no trial yet)" in build_comparison([empty, going, whole])
    assert verdict([empty, whole]).startswith("Only whole has trials: test cross-entropy ")
    assert verdict([empty, empty]) == "None of the studies has a trial yet."


def test_a_gap_in_pairs_decides_before_the_intervals_of_each() -> None:
    """Where the same rows scored both winners, the sentence has the gap and its interval."""
    best, other = sorted((study(40), study(40, seed=5)), key=lambda r: r.best.value)  # type: ignore[union-attr,return-value]
    one, two = replace(best, study_name="one", selection=None), replace(other, study_name="two")
    clear = {"difference": 0.017, "low": 0.0124, "high": 0.0225}
    open_ = {"difference": 0.0002, "low": -0.001, "high": 0.0014}
    said = "; the winner of two is worse by 0.017 (95 %: 0.0124 to 0.0225)."
    assert verdict([two, one], [clear, None]).endswith(said)
    assert verdict([one, two], [None, open_]).endswith(
        "; not decided against two, behind by 0.00020 (95 %: -0.00100 to 0.00140)."
    )
    third = replace(two, study_name="three")
    assert "; the winner of the next, two, is worse by 0.017" in verdict([one, two, third], [None, clear, clear])
    assert "no interval of that is known" in verdict([one, two, third], [None, clear, None])
    html = build_comparison([two, one], [clear, None])
    assert "two is worse by 0.017" in html and extract(html)["gaps"] == [clear, None] and "<td><b>" in html
    assert "two is worse by 0.017" in comparison_markdown([two, one], [clear, None])


def test_a_gap_is_of_two_winners_and_not_of_two_searches() -> None:
    """Studies that differ in their seed alone mostly seem different: the page says what the interval leaves out."""
    studies = [study(40, study_name="one"), study(40, seed=5, study_name="two")]
    known = caveats(studies, [None, {"difference": 0.017, "low": 0.0124, "high": 0.0225}])
    assert any("leaves out the luck of a search" in said for said in known)
    assert not any("luck of a search" in said for said in caveats(studies))


def test_a_row_says_whose_each_score_is() -> None:
    """A confirmation may open the holdout for another trial than the one whose test score stands beside it."""
    result = confirmed(study(40), "undecided", ahead=1)
    assert result.best is not None and result.confirmation is not None
    own, other = result.best.number, result.confirmation["best"]
    assert own != other
    studies = [result, study(40, seed=5, study_name="two")]
    html, page = build_comparison(studies), comparison_markdown(studies)
    assert f"trial {own}</small>" in html and f"trial {other}, opened twice</small>" in html
    assert f"(trial {own})" in page and f"(trial {other}, opened twice)" in page


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"objective": "test:auc", "direction": "maximize"},
            "they have different objectives (test cross-entropy and test AUC)",
        ),
        ({"channels": {**study(2).channels, "test": {"digest": "other"}}}, "their encoded test rows differ"),
        ({"channels": {**study(2).channels, "train": {"digest": "other"}}}, "their encoded train rows differ"),
    ],
)  # fmt: skip
def test_different_questions_are_not_ranked(change: dict[str, object], why: str) -> None:
    """Another objective or other rows: the page says so, marks no best score, and draws no scores together."""
    studies = [study(20), replace(study(20), study_name="other", **change)]  # type: ignore[arg-type]
    assert verdict(studies) == f"2 studies side by side, not ranked: {why}."
    html = build_comparison(studies)
    assert f"not ranked: {why}" in html and pace_chart(studies) is None and "<td><b>" not in html


def test_rows_that_are_not_known_are_not_ranked() -> None:
    """Two studies without digests may have been scored on anything."""
    studies = [study(5, channels={}), study(5, channels={})]
    assert "it is not known whether their test rows are the same" in verdict(studies)


def test_the_page_holds_every_study() -> None:
    """Its data are the studies' own records, and each cell has a line, run or not."""
    studies = [confirmed(study(30), "better"), study(12, study_name="other", cells=(*study(12).cells, not_run()))]
    html = build_comparison(studies)
    record = extract(html)
    assert record["format"] == "fmtune-comparison/1"
    assert [to_json(from_json(one)) for one in record["studies"]] == [to_json(one) for one in studies]
    assert html.count('<td class="t">cpu-sparse</td>') == 2 and "not run: no CUDA device" in html


def test_other_machines_are_named() -> None:
    """Speeds measured elsewhere, or with other versions, compare those too: the page says which differ."""
    other = replace(study(10), environment={**study(10).environment, "processor": "Other", "numba": "0.1"})
    assert "different machines or versions (processor and numba differ)" in build_comparison([study(10), other])


@pytest.mark.parametrize("result", [of_state("FAIL"), study(0, cells=(), importance={}), study(1), heavy(5, 3)])
def test_every_study_can_be_compared(result: StudyResult) -> None:
    """Empty, failed, one trial: a page all the same."""
    assert build_comparison([result, study(8), result]).endswith("</html>")


def test_one_study_is_no_comparison() -> None:
    """The error shows the command."""
    with pytest.raises(UsageError):
        build_comparison([study(3)])


def test_density_and_ratio_come_from_the_passes() -> None:
    """The ratio is the median over trials that both cells trained; studies with one layout have none."""
    assert points([measured(0.25, 2.0)]) == [Point("d0.25", "cpu", 256, 0.25, pytest.approx(2.0))]
    single = measured(0.25, 2.0)
    assert points([replace(single, cells=single.cells[:1])]) == []


@pytest.mark.parametrize(
    ("ratios", "density"),
    [
        ([0.25, 0.5, 2.0, 4.0], 0.04 * math.sqrt(2)),  # halfway between 4 % and 8 %
        ([0.25, 2.0, 0.5, 4.0], 0.08 * math.cbrt(2)),  # a third of the way from 8 % to 16 %
        ([0.1, 0.2, 0.3, 0.4], None),
        ([2.0, 3.0, 4.0, 5.0], None),
        ([2.0, 3.0, 4.0, 0.5], None),
    ],
)
def test_the_crossing_lies_between_two_measurements(ratios: list[float], density: float | None) -> None:
    """On logarithmic scales, and only when dense stays ahead beyond it."""
    line = [Point("s", "cpu", 64, 0.02 * 2**i, r) for i, r in enumerate(ratios)]
    assert crossing(line) == (None if density is None else pytest.approx(density))


def test_the_chart_says_from_where_on_dense_is_faster() -> None:
    """A line a width, each with its sentence; one density alone makes no chart."""
    narrow = [measured(d, r, 256) for d, r in ((0.01, 0.2), (0.1, 0.5), (0.5, 2.0))]
    wide = [measured(d, r, 1024) for d, r in ((0.01, 0.1), (0.1, 0.3))]
    chart = crossover([*narrow, *wide])
    assert chart is not None and len(chart.rows) == 5
    assert "256 features: dense is faster from about 22 % on" in chart.caption
    assert "1,024 features: sparse is faster up to the highest measured, 10 %" in chart.caption
    assert crossover(narrow[:1]) is None and crossover([study(4), study(4)]) is None
    assert "Where dense overtakes sparse" in build_comparison(narrow)


class Names(HTMLParser):
    """Collects every element with the names of its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[str, ...]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(name for name, _ in attrs)))


def wicked(text: str) -> list[StudyResult]:
    """Return two studies with the text in every slot that the comparison shows."""
    one = measured(0.1, 0.5, name=text)
    one = replace(
        one, objective=f"test:{text}", data=text, spec_path=text, started=text,
        environment={"processor": text, "cores": text},
        cells=(*one.cells, CellResult(text, text, (), note=text)),
        channels={"train": one.channels["train"], "test": {"digest": text}},
    )  # fmt: skip
    return [one, replace(one, channels={**one.channels, "train": {**one.channels["train"], "nnz": 100_000}})]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</svg><img src=x onerror=alert(1)>",
        '" onload="alert(1)',
        "]]>",
        "\x00",
        "a" * 9999,
    ],
)
def test_hostile_text_is_inert_in_comparisons(text: str) -> None:
    """No string adds an element or an attribute."""
    assert set(Names(build_comparison(wicked(text))).seen) <= set(Names(build_comparison(wicked("plain"))).seen)
