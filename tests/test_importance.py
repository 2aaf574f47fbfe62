"""Importance: what it says of a parameter, and what it does not."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
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
    found, clear = importance(study)
    steps = [10.0 * (trial.params["step"] < 0.33) for trial in study.trials]
    assert np.var(steps) / np.var([trial.value for trial in study.trials]) > 0.99
    assert found["step"] < 0.1 < 0.9 < found["slope"] and np.isclose(sum(found.values()), 1.0)
    assert sorted(clear) == ["slope", "step"]  # the best tenth has none of the third that is ruined


def test_few_trials_have_no_importance() -> None:
    """Below that many complete trials nothing is said."""
    assert importance(_study(ENOUGH - 1)) == ({}, []) and set(importance(_study(ENOUGH)).shares) == {"step", "slope"}


@pytest.mark.parametrize("trials", [16, 24])
def test_of_noise_nothing_is_clear(trials: int) -> None:
    """Six parameters that move nothing: the largest share is large by chance, and clear in about 5 of 100 studies."""
    largest, alarms = [], 0
    for seed in range(20):
        study, draw = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)), np.random.default_rng(seed)
        study.optimize(
            lambda trial, draw=draw: 0 * sum(trial.suggest_float(f"x{i}", 0, 1) for i in range(6)) + draw.normal(),
            n_trials=trials,
        )
        found = importance(study)
        largest.append(max(found.shares.values()))
        alarms += bool(found.clear)
    assert np.median(largest) > 0.35 and alarms <= 3


def test_a_maximum_is_looked_for_where_the_study_looks() -> None:
    """Scores of a study that maximizes are turned over, or the worst tenth would count."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: -abs(trial.suggest_float("x", 0, 1) - 0.2) + 0 * trial.suggest_float("y", 0, 1), 60)
    down = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    down.optimize(lambda trial: abs(trial.suggest_float("x", 0, 1) - 0.2) + 0 * trial.suggest_float("y", 0, 1), 60)
    assert importance(study) == importance(down) and importance(study).clear == ["x"]


def test_the_chart_says_what_is_clear_and_what_is_not() -> None:
    """Named where some are; said where none is; nothing of a study of before it was asked."""
    some, none, old = (report_study(64, clear=clear) for clear in (["factors_lr"], [], None))
    captions = [(charts.importance(result) or old).caption for result in (some, none, old)]  # type: ignore[union-attr]
    assert "More than chance would give: factors_lr." in captions[0] and "No parameter clearly" in captions[1]
    assert "chance" not in captions[2]


def test_no_word_calls_it_variance() -> None:
    """Caption and label say the best tenth."""
    labels: list[str] = []
    chart = charts.importance(report_study(64), lambda figure, name, label, tips=None: labels.append(label) or "")
    assert chart is not None and "best tenth" in chart.caption and "best tenth" in labels[0]
    assert "variance" not in chart.caption + labels[0] + str(importance.__doc__)
