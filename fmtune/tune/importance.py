"""Importance: which parameters set the best tenth of the trials apart from all, and which do it more than chance would.

It is not how much a parameter changes the score: one that ruins the trials in a third of its range, and changes
nothing in the rest, sets few apart.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from fmtune.tune.storage import quiet

# Below this many complete trials an importance says more of chance than of the parameters.
ENOUGH = 16

# So often are the scores dealt out anew among the trials; clear is what no more than 5 % of these reach.
DEALS = 39


class Importance(NamedTuple):
    """Each parameter's share, adding up to 1, and the parameters whose share is more than chance would give."""

    shares: dict[str, float]
    clear: list[str]


def importance(study: optuna.Study, deals: int = DEALS) -> Importance:
    """Return each parameter's share by PED-ANOVA (Watanabe, Bansal and Hutter, 2023), if there are trials enough.

    It compares where in a parameter's range the best tenth lies with where all trials lie.  Among few trials chance
    alone sets the best apart.  So the scores are dealt out among the trials at random, ``deals`` times over; clear is a
    parameter that beats the largest of all parameters in 95 of 100 deals, before the shares are made to add up.
    """
    done = [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE" and t.value is not None]
    if len(done) < ENOUGH:
        return Importance({}, [])
    # Trials in memory: each look at a database would read all of them.
    with quiet():
        known = optuna.create_study(direction=study.direction, storage=optuna.storages.InMemoryStorage())
    known.add_trials(done)
    sign = 1.0 if study.direction.name == "MINIMIZE" else -1.0
    scores, draw = np.array([sign * (t.value or 0.0) for t in done]), np.random.default_rng(0)
    found = _weights(known, scores)
    total = sum(found.values())
    if not total:
        return Importance({}, [])
    chance = sorted(max(_weights(known, draw.permutation(scores)).values()) for _ in range(deals))
    limit = chance[int(0.95 * (deals + 1)) - 1]
    return Importance({name: w / total for name, w in found.items()}, [n for n, w in found.items() if w > limit])


def _weights(study: optuna.Study, scores: NDArray[np.float64]) -> dict[str, float]:
    """Return how far the best tenth lies from all trials, by parameter, under these scores; lower ones are better."""

    def value(trial: FrozenTrial) -> float:
        return float(scores[trial.number])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Optuna loads this module at its first use: with scikit-learn at its side that takes a second.
            module = optuna.importance
            judge = module.PedAnovaImportanceEvaluator()
            return dict(module.get_param_importances(study, evaluator=judge, target=value, normalize=False))
        except (ValueError, RuntimeError):
            return {}
