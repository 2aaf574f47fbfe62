"""Conclusions: states, pairs, pace and advice follow from the numbers."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from report_fixtures import of_state, study
from ruamel.yaml import YAML

from fmtune.report import summary
from fmtune.report.advice import advice, comparison, faster, lead
from fmtune.tune.result import CellResult, StudyResult, TrialResult


def two_cells(gap: float, noise: float, trials: int = 40) -> StudyResult:
    """Return a study whose second cell scores ``gap`` higher than the first, give or take ``noise``."""
    rng = random.Random(1)
    first = tuple(TrialResult(n, "COMPLETE", {}, 0.5 + n / 1000) for n in range(trials))
    other = tuple(replace(t, value=(t.value or 0.0) + gap + rng.gauss(0, noise)) for t in first)
    cells = (CellResult("cpu", "sparse", first, rows_per_s=1e5), CellResult("cpu", "dense", other, rows_per_s=2e5))
    return study(trials, cells=cells)


@pytest.mark.parametrize(
    ("gap", "noise", "verdict"),
    [
        (0.0, 1e-6, "equal"),
        (0.001, 1e-6, "equal"),
        (0.05, 0.01, "worse"),
        (-0.05, 0.01, "better"),
        (0.0, 0.2, "undecided"),
    ],
)
def test_cells_are_judged_on_pairs(gap: float, noise: float, verdict: str) -> None:
    """Equal within half a per cent, better or worse beyond the interval, else not decided."""
    result = two_cells(gap, noise)
    pair = summary.paired(result, result.cells[1])
    assert pair is not None and pair.verdict == verdict and pair.trials == 40


def test_higher_is_better_turns_the_verdict() -> None:
    """For a maximised objective the cell with the higher scores is the better one."""
    result = replace(two_cells(0.05, 0.01), direction="maximize")
    pair = summary.paired(result, result.cells[1])
    assert pair is not None and pair.verdict == "better"


def test_the_comparison_says_quality_first_and_then_speed() -> None:
    """The sentence names the pairs it rests on and the ratio of rows/s."""
    sentence = comparison(result := two_cells(0.0, 1e-6), result.cells[1])
    assert sentence is not None and "practically equal" in sentence and "40 paired trials" in sentence
    assert sentence.endswith("cpu-dense learns 2.00 × as many rows/s.")


def test_a_slower_cell_is_said_to_be_so_many_times_slower() -> None:
    """A ratio below one is turned round."""
    assert faster(0.11) == "learns 9.09 × more slowly" and faster(0.98) == "learns as many rows/s"


def test_the_best_is_the_lowest_number_among_equals_and_finite() -> None:
    """An infinite value is no score; of two equal scores the earlier trial wins."""
    trials = (
        TrialResult(0, "COMPLETE", {}, -math.inf),
        TrialResult(2, "COMPLETE", {}, 0.5),
        TrialResult(1, "COMPLETE", {}, 0.5),
    )
    top = summary.best(study(3, cells=(CellResult("cpu", "sparse", trials),)))
    assert top is not None and top.number == 1


@pytest.mark.parametrize(("trials", "errors"), [(10, 1.5), (30, 2.0), (100, 2.5), (300, 2.9)])
def test_the_best_of_many_noisy_scores_is_too_good(trials: int, errors: float) -> None:
    """1.5, 2.0, 2.5 and 2.9 standard errors for 10, 30, 100 and 300 trials."""
    assert summary.optimism(trials) == pytest.approx(errors, abs=0.06)


def test_time_to_target_is_when_the_leader_came() -> None:
    """The clock adds the trials' seconds in number order and stops at the first one within 1 % of the best."""
    trials = tuple(TrialResult(n, "COMPLETE", {}, v, seconds=2.0) for n, v in enumerate((1.0, 0.5, 0.502, 0.5001)))
    slow = tuple(TrialResult(n, "COMPLETE", {}, 1.0, seconds=2.0) for n in range(4))
    result = study(4, cells=(CellResult("cpu", "sparse", trials), CellResult("cpu", "dense", slow)))
    assert summary.time_to_target(result, result.cells[0]) == 4.0
    assert summary.time_to_target(result, result.cells[1]) is None


@pytest.mark.parametrize(
    ("value", "side"), [(1e-4, "lower"), (1.1e-4, "lower"), (0.003, None), (0.1, "upper"), (True, None), ("adam", None)]
)
def test_edges_are_found_on_the_range_s_own_scale(value: object, side: str | None) -> None:
    """The outermost twentieth of a log range counts in logarithms; what is no number has no edge."""
    assert summary.edge("x", value, {"x": {"low": 1e-4, "high": 0.1, "log": True}}) == side


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (study(0, cells=(), importance={}), "Start it"),
        (of_state("FAIL"), "Lower the upper end of factors_lr and linear_lr"),
        (of_state("PRUNED"), "Prune later"),
        (of_state("RUNNING", finished=None), "Continue it; 0 of 5 trials have ended:"),
        (study(20, holdout=None), "Add a sealed holdout channel"),
        (study(20), "Search on cpu-dense"),
    ],
)
def test_advice_fits_the_situation(result: StudyResult, words: str) -> None:
    """Each situation has its next step, and there are never more than five."""
    steps = advice(result)
    assert any(words in step.text for step in steps) and len(steps) <= 5


def test_advice_sees_a_winner_at_the_edge_and_still_improving() -> None:
    """A winner at the end of its range, best at its last epoch, asks for a wider range and more epochs."""
    trial = TrialResult(0, "COMPLETE", {"num_factors": 32}, 0.1, (0.3, 0.2, 0.1), 3)
    result = study(1, cells=(CellResult("cpu", "sparse", (trial,)),), importance={})
    texts = [step.text for step in advice(result)]
    widen = "Try a wider num_factors under a new study_name: the winner's 32 sits at the upper edge of 2 to 32."
    assert any(text.startswith(widen) for text in texts)
    assert "Raise epochs under a new study_name: the winner was still improving at its last one, 3." in texts
    # A small share is a reason where one is clear, or was not asked for.
    for clear, said in ((["optimizer"], False), (None, False), ([], True)):
        small = replace(result, importance={"num_factors": 0.01, "optimizer": 0.99}, clear=clear)
        assert any(step.text.startswith(widen) for step in advice(small)) is said


def test_the_winner_comes_along_into_a_new_study() -> None:
    """The first step that makes another study has a line to enqueue the winner, exactly, as YAML; no other has one."""
    params = {"num_factors": 32, "factors_lr": 1e-05, "optimizer": "adam", "shuffle": "no"}
    trial = TrialResult(0, "COMPLETE", params, 0.1, (0.3, 0.2, 0.1), 3)
    steps = advice(study(1, cells=(CellResult("cpu", "sparse", (trial,)),), importance={}))
    lines = [step.command for step in steps if step.command and step.command.startswith("enqueue: ")]
    assert steps[0].command == lines[0] and len(lines) == 1
    assert YAML(typ="safe").load(lines[0]) == {"enqueue": [params]}


def of_curves(*curves: tuple[float, ...], **changes: object) -> StudyResult:
    """Return a study without patience whose trials have these curves, and their last scores."""
    trials = tuple(TrialResult(n, "COMPLETE", {}, curve[-1], curve, len(curve)) for n, curve in enumerate(curves))
    fixed = {"epochs": 4}
    return study(len(curves), cells=(CellResult("cpu", "sparse", trials),), importance={}, fixed=fixed, **changes)


def test_a_winner_that_was_better_before_is_not_still_improving() -> None:
    """Where the curve's best is not its last, more epochs are not advised, whatever ``best_epoch`` was stored."""
    texts = " ".join(step.text for step in advice(of_curves((0.5, 0.3, 0.299, 0.2995))))
    assert "Raise epochs" not in texts and "Set patience" not in texts


def test_patience_is_advised_where_trials_got_worse_after_their_best() -> None:
    """Trials that had been as good as the winner, and fell back by more than a per cent, are named with both scores."""
    result = of_curves((0.5, 0.4, 0.35, 0.34), (0.5, 0.3, 0.36, 0.39), (0.5, 0.45, 0.46, 0.47))
    texts = [step.text for step in advice(result)]
    wanted = "Set patience under a new study_name, for example 5: trial 1 scored 0.3000 at epoch 2 and 0.3900 at"
    assert sum(text.startswith(wanted) for text in texts) == 1
    patient = replace(result, fixed={"epochs": 4, "patience": 2})
    assert not any("Set patience" in step.text for step in advice(patient))


def test_patience_goes_by_the_best_where_higher_is_better() -> None:
    """For a maximised objective a curve's best is its highest."""
    higher = of_curves((0.6, 0.9, 0.8, 0.7), direction="maximize", objective="test:auc")
    assert any("0.9000 at epoch 2" in step.text for step in advice(higher))
    assert not any("Set patience" in step.text for step in advice(of_curves((0.6, 0.4, 0.39, 0.3))))


def test_overfitting_at_once_is_said() -> None:
    """Most of the best trials at their best after one epoch: the page says so; of as many as half it does not."""
    early, late = (0.5, 0.6, 0.7, 0.71), (0.7, 0.6, 0.55, 0.54)
    texts = [step.text for step in advice(of_curves(early, early, late))]
    assert any("2 of the best 3 trials scored best after the first epoch" in text for text in texts)
    assert not any("the first epoch" in step.text for step in advice(of_curves(early, late)))


def test_the_lead_counts_all_trials_of_the_first_cell() -> None:
    """The first sentence names the winner, the metric, the score and how many were tried."""
    assert lead(study(64)).startswith("Trial 33 wins: test cross-entropy 0.05770, the best of 64 trials.")
