"""Importance: which parameters decided how good the trials were."""

from __future__ import annotations

import warnings

import optuna

# Below this many complete trials an importance says more of chance than of the parameters.
ENOUGH = 16


def importance(study: optuna.Study) -> dict[str, float]:
    """Return each parameter's share by PED-ANOVA (Watanabe, Bansal and Hutter, 2023), if there are trials enough."""
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
