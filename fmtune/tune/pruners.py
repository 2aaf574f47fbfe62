"""Pruners of our own, by name beside Optuna's: SageMaker's rule of early stopping."""

from __future__ import annotations

import math
import statistics

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState


class RunningMedianPruner(BasePruner):
    """Stops a trial whose score is worse than the median of the other trials' running averages.

    The rule of SageMaker's automatic model tuning (TrainingJobEarlyStoppingType Auto): for each earlier trial the
    average of its scores up to the same epoch is taken, and then the median of these averages.

    Parameters
    ----------
    n_startup_trials
        Earlier trials that must have come so far; SageMaker names no number.
    n_warmup_steps
        Epochs at the start that are never pruned.
    """

    def __init__(self, n_startup_trials: int = 1, n_warmup_steps: int = 0) -> None:
        self._startup, self._warmup = n_startup_trials, n_warmup_steps

    def prune(self, study: optuna.study.Study, trial: FrozenTrial) -> bool:
        """Return whether the trial ends here; a score that is not a number ends it."""
        step = trial.last_step
        if step is None or step <= self._warmup:
            return False
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        others = [t for t in study.get_trials(deepcopy=False, states=states) if t.number != trial.number]
        averages = [_average(t, step) for t in others if step in t.intermediate_values]
        known = [average for average in averages if not math.isnan(average)]
        if len(known) < max(1, self._startup):
            return False
        value, median = trial.intermediate_values[step], statistics.median(known)
        if math.isnan(value):
            return True
        worse = value > median if study.direction == optuna.study.StudyDirection.MINIMIZE else value < median
        return bool(worse)


def _average(trial: FrozenTrial, step: int) -> float:
    return statistics.fmean(value for at, value in trial.intermediate_values.items() if at <= step)
