"""Importance: which parameters set the best tenth of the trials apart from all.

It is not how much a parameter changes the score: one that ruins the trials in a third of its range, and changes
nothing in the rest, sets few apart.
"""

from __future__ import annotations

import warnings

import optuna

# Below this many complete trials an importance says more of chance than of the parameters.
ENOUGH = 16


def importance(study: optuna.Study) -> dict[str, float]:
    """Return each parameter's share by PED-ANOVA (Watanabe, Bansal and Hutter, 2023), if there are trials enough.

    It compares where in a parameter's range the best tenth lies with where all trials lie; the shares add up to 1.
    """
    if sum(t.state.name == "COMPLETE" for t in study.get_trials(deepcopy=False)) < ENOUGH:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Optuna loads this module at its first use: with scikit-learn at its side that takes a second.
            module = optuna.importance
            return dict(module.get_param_importances(study, evaluator=module.PedAnovaImportanceEvaluator()))
        except (ValueError, RuntimeError):
            return {}
