"""What the README says of the two shipped studies, run as a user would run them.

Printed with ``pytest -s tests/test_claims.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fmtune.data import catalog
from fmtune.fm.metrics import METRICS
from fmtune.tune import spec as specs
from fmtune.tune.collect import collect
from fmtune.tune.study import run

STUDIES = Path(__file__).parent.parent / "studies"
LOG_LOSS = METRICS["binary_classification_cross_entropy"].compute


def _run(name: str, tmp_path: Path, **keys: object) -> tuple[float, float]:
    """Run a shipped study with some keys of its card changed; returns the winner's test and holdout score."""
    spec = specs.read(STUDIES / f"{name}.yaml")
    spec = spec.model_copy(update={
        "study_name": f"{name}-{'-'.join(map(str, keys.values()))}",
        "data": spec.data.model_copy(update={"keys": {**spec.data.keys, **keys}}),
    })  # fmt: skip
    run(spec, root=tmp_path)
    result = collect(spec, tmp_path)
    assert result.best is not None and result.best.value is not None and result.holdout is not None
    return result.best.value, result.holdout["score"]


def _linear(split: int) -> tuple[float, float]:
    """The logistic regression whose C is best on the test channel: its test and holdout log loss."""
    channels = catalog.load("digits", {"split": split})
    assert channels.test is not None and channels.holdout is not None
    train, rows = channels.train.to_dense(), (channels.test.to_dense(), channels.holdout.to_dense())
    found = []
    for c in np.logspace(-2, 3, 11):
        model = LogisticRegression(C=c, max_iter=10_000).fit(train.matrix, train.labels)
        found.append(tuple(
            LOG_LOSS(model.decision_function(r.matrix).astype(np.float32), np.asarray(r.labels)) for r in rows
        ))  # fmt: skip
    return min(found)


def test_digits_beats_logistic_regression(tmp_path: Path) -> None:
    """Over splits 0-4 the winners' mean test log loss is 25 % or more below the best logistic regression's."""
    ours = np.array([_run("digits", tmp_path, split=s) for s in range(5)])
    linear = np.array([_linear(s) for s in range(5)])
    print(f"\ndigits, splits 0-4: test {ours[:, 0].mean():.4f}, holdout {ours[:, 1].mean():.4f}; "
          f"logistic regression: test {linear[:, 0].mean():.4f}, holdout {linear[:, 1].mean():.4f}")  # fmt: skip
    assert ours[:, 0].mean() < 0.75 * linear[:, 0].mean()
    assert ours[:, 1].mean() < 0.85 * linear[:, 1].mean()


def test_planted_clicks_comes_near_the_planted_model(tmp_path: Path) -> None:
    """The winner's test log loss is within 0.020 of the planted model's own, which lies between 0.45 and 0.55."""
    planted = catalog.load("planted-clicks").facts["planted_log_loss"]
    test, holdout = _run("planted-clicks", tmp_path)
    print(f"\nplanted-clicks: test {test:.4f}, holdout {holdout:.4f}; planted model: {planted:.4f}")
    assert 0.45 < planted < 0.55
    assert test == pytest.approx(planted, abs=0.020)
