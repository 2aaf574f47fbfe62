"""Metrics against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn import metrics as sk

from fmtune.fm import metrics
from fmtune.fm.metrics import METRICS, evaluate, row_losses


def _sample(n: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores with ties, and labels 0 and 1."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(0, 3, n), 1).astype(np.float32)
    return scores, (rng.random(n) < 1 / (1 + np.exp(-scores))).astype(np.float32)


def test_the_binary_metrics_are_scikit_learns() -> None:
    """Log loss, accuracy, F1 at 0.5 and AUC, with ties among the scores."""
    scores, labels = _sample()
    chances = 1 / (1 + np.exp(-scores.astype(np.float64)))
    said = scores >= 0
    assert evaluate(scores, labels, "binary_classifier") == pytest.approx({
        "binary_classification_cross_entropy": sk.log_loss(labels, chances),
        "binary_classification_accuracy": sk.accuracy_score(labels, said),
        "binary_f_beta": sk.f1_score(labels, said),
        "auc": sk.roc_auc_score(labels, scores),
    }, rel=1e-12)  # fmt: skip


def test_the_regression_metrics_are_scikit_learns() -> None:
    """RMSE over all rows, MSE, mean absolute error."""
    scores, _ = _sample()
    labels = scores[::-1].copy()
    assert evaluate(scores, labels, "regressor") == pytest.approx({
        "rmse": math.sqrt(sk.mean_squared_error(labels, scores)),
        "mse": sk.mean_squared_error(labels, scores),
        "absolute_loss": sk.mean_absolute_error(labels, scores),
    }, rel=1e-6)  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_auc_shares_the_ranks_of_ties(seed: int) -> None:
    """AUC is the rank sum with SciPy's mean ranks, all scores equal included."""
    scores, labels = _sample(60, seed)
    for s in (scores, np.sign(scores), np.zeros_like(scores)):
        positives = int(labels.sum())
        expected = (rankdata(s)[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (60 - positives))
        assert METRICS["auc"].compute(s, labels) == pytest.approx(expected, rel=1e-12)


def test_log_loss_neither_clips_nor_overflows() -> None:
    """A raw score of 1000 on the wrong side costs 1000 nats, on the right side nothing."""
    scores, labels = np.array([1000, -1000, 1000], np.float32), np.array([0, 1, 1], np.float32)
    assert row_losses(scores, labels, "binary_classifier").tolist() == [1000, 1000, 0]


def test_the_corner_cases() -> None:
    """AUC of one label is not a number, F1 without a positive is 0, row losses sum to the metric."""
    ones = np.ones(3, np.float32)
    assert math.isnan(METRICS["auc"].compute(ones, ones))
    assert METRICS["binary_f_beta"].compute(-ones, 0 * ones) == 0.0
    scores, labels = _sample()
    assert row_losses(scores, labels, "regressor").mean() == pytest.approx(METRICS["mse"].compute(scores, labels))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("name", METRICS)
def test_no_metric_of_a_diverged_model_is_finite(name: str, label: float, bad: float) -> None:
    """One score that is NaN or infinite is enough, whichever label it has."""
    scores, labels = _sample()
    scores[7], labels[7] = bad, label
    with np.errstate(invalid="ignore"):
        assert not math.isfinite(METRICS[name].compute(scores, labels))


def test_the_direction_of_each_metric() -> None:
    """Losses are minimised, scores maximised."""
    up = {name for name, metric in METRICS.items() if metric.direction == "maximize"}
    assert up == {"binary_classification_accuracy", "binary_f_beta", "auc"}


def test_a_model_that_learned_nothing_is_told_from_one_that_did() -> None:
    """The mean's own score, and anything hardly better, is said; a better score is not."""
    train, labels = np.array([1, 3, 5], np.float32), np.array([2, 4], np.float32)
    assert metrics.constant("rmse", train, labels) == pytest.approx(1.0)
    for value, side in ((0.999, "hardly better"), (1.0, "no better"), (1.7, "worse")):
        assert f"{side} than predicting the train labels' mean" in str(metrics.unlearned("rmse", value, 1.0))
    assert metrics.unlearned("rmse", 0.9, 1.0) is None
    binary = np.array([0, 0, 1, 0], np.float32)
    entropy = metrics.constant("binary_classification_cross_entropy", binary, binary)
    assert entropy == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    assert metrics.constant("auc", binary, binary) == 0.5
    assert metrics.unlearned("auc", 0.5, 0.5) is not None and metrics.unlearned("auc", 0.7, 0.5) is None
