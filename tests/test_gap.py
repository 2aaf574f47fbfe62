"""The gap between two studies' winners: paired over the test rows that both were scored on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_fixtures import study

from fmtune.fm.metrics import METRICS, Array
from fmtune.tune.gap import gaps
from fmtune.tune.result import CellResult, StudyResult, TrialResult
from fmtune.tune.selection import Finalists
from tests.study_fixtures import STUDY, said, write_study

METRIC = "binary_classification_cross_entropy"
RNG = np.random.default_rng(0)
LABELS = (RNG.random(4000) < 0.3).astype(np.float32)
GOOD = ((2 * LABELS - 1) * 1.5 + RNG.normal(0, 2, 4000)).astype(np.float32)
# Hardly worse, but on the same rows: its own interval would hide that.
WORSE = (GOOD * np.float32(1.05)).astype(np.float32)


def made(root: Path, name: str, scores: Array, *, labels: bool = True, number: int = 3) -> StudyResult:
    """Return a study whose winner's scores are stored as a run stores them."""
    own = LABELS[: scores.shape[-1]]
    value = float(np.mean([METRICS[METRIC].compute(row, own) for row in scores]))
    finalists = Finalists(root / "runs" / name / "finalists", "minimize")
    finalists.put(number, value, scores)
    if labels:
        finalists.label(own)
    cell = CellResult("cpu", "sparse", (TrialResult(number, "COMPLETE", {}, value),))
    return study(1, study_name=name, cells=(cell,))


def test_it_is_paired_and_decides_what_the_scores_own_intervals_do_not(tmp_path: Path) -> None:
    """The gap is that of the scores; one study's labels do for both, and seeds are averaged."""
    one = made(tmp_path, "one", GOOD[None])
    two = made(tmp_path, "two", np.stack([WORSE, WORSE]), labels=False)
    none, found = gaps([one, two], tmp_path)
    assert none is None and found is not None
    assert found["difference"] == pytest.approx(two.best.value - one.best.value)  # type: ignore[union-attr,operator]
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert gaps([two, one], tmp_path) == [found, None]
    encoded = [replace(r, channels={"test": {"digest": r.study_name, "origin": "x"}}) for r in (one, two)]
    assert gaps(encoded, tmp_path) == [None, found]


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    """Other rows, another objective, no winner, scores of another study of the name, or none at all."""
    one, two = made(tmp_path, "one", GOOD[None]), made(tmp_path, "two", WORSE[None])
    for other in (
        replace(two, channels={}), replace(two, channels={"test": {"digest": "other"}}),
        replace(two, objective="test:auc", direction="maximize"), replace(two, cells=()),
        replace(two, study_name="elsewhere"),
        replace(two, cells=(replace(two.cells[0], trials=(TrialResult(3, "COMPLETE", {}, 0.9),)),)),
    ):  # fmt: skip
        assert gaps([one, other], tmp_path) == [None, None]
    assert gaps([one, two], tmp_path / "elsewhere") == [None, None]
    assert gaps([replace(one, cells=()), replace(two, cells=())], tmp_path) == [None, None]


def test_groups_of_other_rows_are_none_of_these(tmp_path: Path) -> None:
    """Groups that fit are drawn together, which changes the interval; those of a study that had other rows are not."""
    one, two = made(tmp_path, "one", GOOD[None]), made(tmp_path, "two", WORSE[None])
    single = gaps([one, two], tmp_path)
    for count, same in ((4000, False), (17, True)):
        np.save(tmp_path / "runs/one/finalists/units.npy", np.arange(count) % 40)
        assert (gaps([one, two], tmp_path) == single) is same


def test_a_handful_of_rows_has_no_gap(tmp_path: Path) -> None:
    """Below 30 test rows their draws say too little of other rows."""
    for rows, known in ((29, False), (30, True)):
        made_of = [made(tmp_path, name, s[None, :rows]) for name, s in (("one", GOOD), ("two", WORSE))]
        assert any(gap is not None for gap in gaps(made_of, tmp_path)) is known


def test_the_comparison_of_two_runs_has_their_gap(tmp_path: Path) -> None:
    """A run keeps what is needed, and `fmtune report A B` says it."""
    text = STUDY.replace("n_trials: 24", "n_trials: 4").replace("[sparse, dense]", "[sparse]")
    one = write_study(tmp_path, text)
    two = tmp_path / "two.yaml"
    two.write_text(text.replace("study_name: small", "study_name: other").replace("epochs: 4", "epochs: 1"))
    for path in (one, two):
        assert said(tmp_path, "run", path).code == 0
    page = said(tmp_path, "report", one, two, "--md")
    assert page.code == 0 and " scores best: " in page.out and "(95 %: " in page.out, page
