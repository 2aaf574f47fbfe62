"""fmtune.tune.pruners: SageMaker's median of running averages."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from fmtune.tune.pruners import RunningMedianPruner

CURVES = [[9.0, 5.0, 1.0], [8.0, 6.0, 4.0], [7.0, 1.0]]


def study_of(direction: str, sign: float = 1.0, curves: list[list[float]] = CURVES) -> optuna.Study:
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))
    for curve in curves:
        scores = {epoch: sign * score for epoch, score in enumerate(curve, 1)}
        study.add_trial(create_trial(value=sign * curve[-1], intermediate_values=scores))
    return study


def verdict(study: optuna.Study, epoch: int, score: float, pruner: RunningMedianPruner | None = None) -> bool:
    trial = study.ask()
    for at in range(1, epoch):
        trial.report(0.0, at)
    trial.report(score, epoch)
    frozen = study.get_trials(deepcopy=False)[trial.number]
    return (pruner or RunningMedianPruner()).prune(study, frozen)


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_the_rule(direction, sign):
    """Worse than the median of the others' averages up to an epoch: 8, 7, and 5.5 of the two that came there."""
    study = study_of(direction, sign)
    for epoch, median in ((1, 8.0), (2, 7.0), (3, 5.5)):
        assert verdict(study, epoch, sign * (median + 0.1))
        assert not verdict(study, epoch, sign * median)


def test_nobody_before_is_nobody_to_be_worse_than():
    """The first trial, and an epoch that none has reached, go on; so do the first epochs and trials if asked."""
    assert not verdict(study_of("minimize", curves=[]), 1, 1e9)
    assert not verdict(study_of("minimize"), 4, 1e9)
    assert not verdict(study_of("minimize"), 2, 1e9, RunningMedianPruner(n_warmup_steps=2))
    assert not verdict(study_of("minimize"), 3, 1e9, RunningMedianPruner(n_startup_trials=3))
    assert verdict(study_of("minimize"), 2, 1e9, RunningMedianPruner(n_startup_trials=3))


def test_pruned_trials_count_and_failed_ones_do_not():
    """All earlier trials that came so far; what is no number ends the trial, and does not move the median."""
    study = study_of("minimize", curves=[])
    for state, score in ((TrialState.PRUNED, 1.0), (TrialState.FAIL, 100.0), (TrialState.PRUNED, float("nan"))):
        study.add_trial(create_trial(state=state, intermediate_values={1: score}))
    assert verdict(study, 1, 1.1)
    assert not verdict(study, 1, 0.9)
    assert verdict(study, 1, float("nan"))
