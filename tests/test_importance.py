"""Importance: what it says of a parameter, and what it does not."""

from __future__ import annotations

import numpy as np
import optuna
from report_fixtures import study as report_study

from fmtune.report import charts
from fmtune.tune.importance import ENOUGH, importance


def _study(trials: int) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: 10.0 * (trial.suggest_float("step", 0, 1) < 0.33) + 0.1 * trial.suggest_float("slope", 0, 1),
        n_trials=trials,
    )
    return study


def test_importance_is_what_sets_the_best_apart() -> None:
    """A step that makes nearly all of the variance, but leaves the best tenth two thirds of its range, has little."""
    study = _study(300)
    found = importance(study)
    steps = [10.0 * (trial.params["step"] < 0.33) for trial in study.trials]
    assert np.var(steps) / np.var([trial.value for trial in study.trials]) > 0.99
    assert found["step"] < 0.1 < 0.9 < found["slope"] and np.isclose(sum(found.values()), 1.0)


def test_few_trials_have_no_importance() -> None:
    """Below that many complete trials nothing is said."""
    assert importance(_study(ENOUGH - 1)) == {} and set(importance(_study(ENOUGH))) == {"step", "slope"}


def test_no_word_calls_it_variance() -> None:
    """Caption and label say the best tenth."""
    labels: list[str] = []
    chart = charts.importance(report_study(64), lambda figure, name, label, tips=None: labels.append(label) or "")
    assert chart is not None and "best tenth" in chart.caption and "best tenth" in labels[0]
    assert "variance" not in chart.caption + labels[0] + str(importance.__doc__)
