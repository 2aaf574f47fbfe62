"""Optuna's samplers and pruners, made from a study file.

A sampler is made anew for each trial, with a seed that follows from (study's seed, trial's number); it takes
what it knows from the study's earlier trials.  The samplers that walk a fixed sequence (grid, brute force,
quasi-random) therefore take their place in it from the trial's number, and their order from the study's seed.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna import pruners, samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from fmtune.errors import ResourceError
from fmtune.fm.hyperparameters import Hyperparameters, Value
from fmtune.tune.algorithms import PRUNERS, SAMPLERS
from fmtune.tune.checks import EXHAUSTIVE
from fmtune.tune.dimension import Dimension
from fmtune.tune.pruners import RunningMedianPruner
from fmtune.tune.space import distributions
from fmtune.tune.spec import Spec

# What a study file leaves out; Optuna's own defaults where a name is not listed.
#
# tpe: tried on response surfaces like those of a factorization machine (six mixed parameters, two update rules
# with different best rates, 64 trials, 24 surfaces; mean best value in units of 0.001, standard error 4):
#
#     lag    random   one by one   multivariate   96 candidates   6 / 16 start-up trials   no constant liar
#     0      198      137          126            124             126 / 125                126
#     8      198      148          134            133             136 / 136                136
#     16     198      159          150            155             145 / 160                148
#
# Modelling the parameters together is what pays; the rest is within the noise and stays Optuna's.  Both are
# Optuna 5's defaults for one objective; they are written out so that a later version changes no study.
# constant_liar makes a trial keep away from those that still run in other lanes.
#
# qmc: without scrambling the first point of the sequence is every range's lower end.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "tpe": {"multivariate": True, "constant_liar": True, "n_startup_trials": 10},
    "qmc": {"scramble": True, "warn_asynchronous_seeding": False, "warn_independent_sampling": False},
    "gp": {"warn_independent_sampling": False},
    "cmaes": {"warn_independent_sampling": False},
}


class Walk(BaseSampler):
    """Goes through every combination of a space in one shuffled order; trial n takes the n-th.

    After the last combination it starts over, so that trials whose numbers were taken by enqueued
    configurations leave no combination out.

    Parameters
    ----------
    space
        Dimensions that can be listed (choices, int, or float with a step).
    seed
        Of the order.
    """

    def __init__(self, space: Mapping[str, Dimension], seed: int) -> None:
        self._space = dict(sorted(space.items()))
        self._sizes = [dimension.size or 1 for dimension in self._space.values()]
        self._order = np.random.default_rng(seed).permutation(math.prod(self._sizes))

    def point(self, number: int) -> dict[str, Value]:
        """Return the combination of a trial's number."""
        place = np.unravel_index(self._order[number % len(self._order)], self._sizes)
        return {name: d.nth(int(i)) for (name, d), i in zip(self._space.items(), place, strict=True)}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is sampled relative to other trials."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is sampled relative to other trials."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the parameter's value in the combination of the trial's number."""
        return self.point(trial.number)[param_name]


class ByNumber(samplers.QMCSampler):
    """Optuna's quasi-random sampler, with the trial's number as its place in the sequence.

    Optuna counts in the study's attributes instead, and draws the first trial at random.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self._space = dict(space)
        self._number = 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the study's whole space."""
        return {name: space for name, space in sorted(self._space.items()) if not space.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the point of the trial's number."""
        self._number = trial.number
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number


def make_sampler(spec: Spec, seed: int) -> BaseSampler:
    """Return the sampler of a study for one trial.

    Parameters
    ----------
    spec
        The study.
    seed
        Follows from (study's seed, trial's number); the samplers that walk a sequence use the study's own.

    Raises
    ------
    ResourceError
        The sampler needs a package that is not installed.
    """
    name = spec.sampler.name
    row = SAMPLERS[name]
    require(row.package, f"the sampler {name}")
    if name in EXHAUSTIVE:
        return Walk(spec.search_space, spec.seed)
    options = {**_DEFAULTS.get(name, {}), **spec.sampler.options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna's, to us: the user chose a name
        if name == "qmc":
            return ByNumber(distributions(spec.search_space), seed=spec.seed % 2**32, **options)
        made: BaseSampler = getattr(samplers, row.optuna)(seed=seed, **options)
        return made


def make_pruner(spec: Spec) -> BasePruner:
    """Return the pruner of a study; what it has as ``auto`` follows from the file's largest number of epochs."""
    return _pruner(spec.pruner.name, spec.pruner.options, _most_epochs(spec))


def require(package: str | None, what: str) -> None:
    """Check that a package which is not among our own requirements is installed.

    Raises
    ------
    ResourceError
        It is not; the hint says how to install it.
    """
    if package is not None and importlib.util.find_spec(package) is None:
        raise ResourceError(f"{what} needs the package {package}", hint=f"pip install {package}")


# Pruners that Optuna has not.
_OURS: dict[str, type[BasePruner]] = {"running_median": RunningMedianPruner}


def _pruner(name: str, options: Mapping[str, Any], epochs: int) -> BasePruner:
    # Optuna would take auto from the first whole trial that it sees, which depends on the clock and on stops.
    auto = {"successive_halving": {"min_resource": max(1, epochs // 100)}, "hyperband": {"max_resource": epochs}}
    options = {**auto.get(name, {}), **{key: value for key, value in options.items() if value != "auto"}}
    if "n_warmup_steps" in PRUNERS[name].options and name not in _OURS:
        # Optuna's first step is 0, and the first epoch is 1.
        options["n_warmup_steps"] = options.get("n_warmup_steps", 0) + 1
    if name == "patient":
        inner = dict(options.pop("wrapped_pruner", {"name": "none"}))
        # Optuna's own "no wrapped pruner" prunes on patience alone; NopPruner would never prune.
        wrapped = None if inner["name"] == "none" else _pruner(inner.pop("name"), inner, epochs)
        options["wrapped_pruner"] = wrapped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        made: BasePruner = (_OURS.get(name) or getattr(pruners, PRUNERS[name].optuna))(**options)
        return made


def _most_epochs(spec: Spec) -> int:
    searched = spec.search_space.get("epochs")
    if searched is None:
        return max(Hyperparameters.of({**spec.hyperparameters, "solver": solver}).epochs for solver in spec.solvers)
    return int(max(int(value or 1) for value in searched.choices) if searched.choices else searched.high or 1)
