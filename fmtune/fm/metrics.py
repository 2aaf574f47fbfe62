"""Metrics of the test channel, under SageMaker's names, from raw scores and labels.

Raw scores are the model's sums before the sigmoid, so that log loss neither clips nor overflows.  All sums
run in float64.  A model one of whose scores is NaN or infinite has diverged: no metric of them is finite.  ``METRICS``
is the one table: to add a metric, write a function and give it a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Array = NDArray[np.float32]
Direction = Literal["minimize", "maximize"]


class Metric(NamedTuple):
    """One row of ``METRICS``."""

    compute: Callable[[Array, Array], float]
    direction: Direction
    predictor_type: str


def mse(scores: Array, labels: Array) -> float:
    """Mean squared error."""
    error = scores.astype(np.float64) - labels
    return float(np.mean(error * error))


def rmse(scores: Array, labels: Array) -> float:
    """Root of the mean squared error over all rows."""
    return float(np.sqrt(mse(scores, labels)))


def absolute_loss(scores: Array, labels: Array) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(scores.astype(np.float64) - labels)))


def row_losses(scores: Array, labels: Array, predictor_type: str) -> NDArray[np.float64]:
    """Return each row's log loss (binary_classifier) or squared error (regressor), float64 of shape (n,)."""
    z = scores.astype(np.float64)
    if predictor_type == "regressor":
        return (z - labels) ** 2
    return np.maximum(z, 0.0) - z * labels + np.log1p(np.exp(-np.abs(z)))


def cross_entropy(scores: Array, labels: Array) -> float:
    """Mean log loss in nats."""
    return float(np.mean(row_losses(scores, labels, "binary_classifier")))


def _finite(scores: Array) -> bool:
    # A side of 0.5 has every score, NaN and infinity too.
    return bool(np.isfinite(scores).all())


def accuracy(scores: Array, labels: Array) -> float:
    """Share of rows whose side of 0.5 is the label's."""
    return float(np.mean((scores >= 0) == (labels >= 0.5))) if _finite(scores) else math.nan


def f1(scores: Array, labels: Array) -> float:
    """F1 of label 1 at threshold 0.5, from counts over all rows; 0 when nothing is positive."""
    if not _finite(scores):
        return math.nan
    said, true = scores >= 0, labels >= 0.5
    hits = float(np.sum(said & true))
    return 2 * hits / float(np.sum(said) + np.sum(true)) if hits else 0.0


def auc(scores: Array, labels: Array) -> float:
    """Area under the ROC curve by ranks, ties shared; NaN when only one label occurs."""
    true = labels >= 0.5
    positives, negatives = int(true.sum()), int((~true).sum())
    if not positives or not negatives or not _finite(scores):
        return math.nan
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[true].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def calibration(scores: Array, labels: Array, bins: int = 10) -> dict[str, Any]:
    """Return how far probabilities are what they say (Guo et al., 2017).

    Rows are sorted by probability and cut into bins of about as many rows; equal probabilities stay together.

    Returns
    -------
    dict
        ``said`` and ``was``: each bin's mean probability and share of label 1; ``rows``; ``error``, the expected
        calibration error: the mean over rows of their bin's distance between the two.
    """
    p = expit(scores.astype(np.float64))
    cuts = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(cuts, p, side="right")
    rows = np.bincount(place, minlength=len(cuts) + 1)
    filled = rows > 0
    rows_in = rows[filled]
    said, was = (np.bincount(place, weights=w, minlength=len(rows))[filled] / rows_in for w in (p, labels >= 0.5))
    error = float(rows_in @ np.abs(said - was) / len(p))
    return {"said": said.tolist(), "was": was.tolist(), "rows": rows_in.tolist(), "error": error}


METRICS = {
    "rmse": Metric(rmse, "minimize", "regressor"),
    "mse": Metric(mse, "minimize", "regressor"),
    "absolute_loss": Metric(absolute_loss, "minimize", "regressor"),
    "binary_classification_cross_entropy": Metric(cross_entropy, "minimize", "binary_classifier"),
    "binary_classification_accuracy": Metric(accuracy, "maximize", "binary_classifier"),
    "binary_f_beta": Metric(f1, "maximize", "binary_classifier"),
    "auc": Metric(auc, "maximize", "binary_classifier"),
}


def constant(name: str, train: Array, labels: Array) -> float:
    """Return what the train labels' mean, predicted for every row, would score on ``labels``."""
    mean = float(np.mean(train, dtype=np.float64))
    if METRICS[name].predictor_type == "binary_classifier":
        mean = float(logit(min(max(mean, 1e-6), 1 - 1e-6)))
    return METRICS[name].compute(np.full(len(labels), mean, np.float32), labels)


def unlearned(name: str, value: float, plain: float) -> str | None:
    """Return a sentence where a score is hardly better than ``plain``, that of a constant; else None."""
    gain = plain - value if METRICS[name].direction == "minimize" else value - plain
    if not np.isfinite(plain) or gain > 0.005 * abs(plain):
        return None
    side = "worse" if gain < 0 else "hardly better" if gain else "no better"
    return (
        f"test:{name} is {value:.6g}, {side} than predicting the train labels' mean for every row ({plain:.6g}): "
        "more epochs, or other rates, may learn something"
    )


# What else people call them.
ALIASES = {
    "rmse": ("root_mean_squared_error",), "mse": ("mean_squared_error",),
    "absolute_loss": ("mae", "mean_absolute_error"),
    "binary_classification_cross_entropy": ("log_loss", "logloss", "cross_entropy", "binary_crossentropy"),
    "binary_classification_accuracy": ("accuracy", "acc"), "binary_f_beta": ("f1", "f1_score", "f_beta"),
    "auc": ("roc_auc", "auroc", "roc_auc_score"),
}  # fmt: skip


def meant(word: str) -> str | None:
    """Return the metric that goes by another name elsewhere, or None."""
    plain = word.lower().replace("-", "_").replace(" ", "_")
    return next((name for name, others in ALIASES.items() if plain == name or plain in others), None)


def evaluate(scores: Array, labels: Array, predictor_type: str) -> dict[str, float]:
    """Return every metric of the predictor type, by name."""
    return {name: m.compute(scores, labels) for name, m in METRICS.items() if m.predictor_type == predictor_type}
