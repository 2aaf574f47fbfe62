"""Samplers and pruners: Optuna's, by short name, with the options that a study file may give them.

The tables are literal so that a study file is checked and its JSON Schema written without importing Optuna;
a test holds them against the installed Optuna's own signatures.  An option that takes a Python object
(a crossover, a callable) has no form in a file and is not listed; nor is the seed, which is the study's.
"""

from __future__ import annotations

from typing import NamedTuple

from fmtune.data.catalog import Key


class Option(NamedTuple):
    """One option: its type, lowest and highest value, other words it takes, and what it does."""

    type: type
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()
    help: str = ""


class Algorithm(NamedTuple):
    """One row: Optuna's class, its options, those that must be given, and the package it needs."""

    optuna: str
    help: str
    options: dict[str, Option]
    required: tuple[str, ...] = ()
    package: str | None = None


_FLAG = Option(bool)
_COUNT = Option(int, 0)
_STARTUP = Option(int, 0, help="random trials before the model is asked")
_STEPS = Option(int, 1, help="epochs between two looks")
_WARMUP = Option(int, 0, help="epochs at the start that are never pruned")
_SHARE = Option(float, 0.0, 1.0)
_GENETIC = {
    "population_size": Option(int, 2, help="trials of a generation"),
    "mutation_prob": _SHARE,
    "crossover_prob": _SHARE,
    "swapping_prob": _SHARE,
}
_RESOURCE = Option(int, 1, help="epochs")

SAMPLERS: dict[str, Algorithm] = {
    "tpe": Algorithm(
        "TPESampler", "tree-structured Parzen estimator; learns which ranges are good",
        {
            "n_startup_trials": _STARTUP,
            "n_ei_candidates": Option(int, 1, help="candidates weighed for one suggestion"),
            "multivariate": Option(bool, help="model the parameters together"),
            "group": Option(bool, help="model groups of parameters that occur together"),
            "constant_liar": Option(bool, help="count running trials as bad, so that lanes spread out"),
        },
    ),
    "random": Algorithm("RandomSampler", "independent draws", {}),
    "grid": Algorithm("GridSampler", "every combination, in a shuffled order", {}),
    "brute_force": Algorithm("BruteForceSampler", "every combination, in a shuffled order", {}),
    "qmc": Algorithm(
        "QMCSampler", "a low-discrepancy sequence: covers the space evenly",
        {"qmc_type": Option(str, words=("sobol", "halton")), "scramble": _FLAG},
    ),
    "gp": Algorithm(
        "GPSampler", "Gaussian process; few, expensive trials",
        {"n_startup_trials": _STARTUP, "deterministic_objective": _FLAG}, package="torch",
    ),
    "cmaes": Algorithm(
        "CmaEsSampler", "covariance matrix adaptation; many trials over numbers",
        {
            "sigma0": Option(float, 1e-12, help="first step width"),
            "n_startup_trials": _STARTUP,
            "popsize": Option(int, 2),
            "consider_pruned_trials": _FLAG,
            "use_separable_cma": _FLAG,
            "with_margin": _FLAG,
            "lr_adapt": _FLAG,
        },
        package="cmaes",
    ),
    "nsgaii": Algorithm("NSGAIISampler", "genetic algorithm", _GENETIC),
    "nsgaiii": Algorithm("NSGAIIISampler", "genetic algorithm with reference points",
                         {**_GENETIC, "dividing_parameter": Option(int, 1)}),
}

PRUNERS: dict[str, Algorithm] = {
    "none": Algorithm("NopPruner", "every trial runs to its end", {}),
    "median": Algorithm(
        "MedianPruner", "stop a trial that is worse than the median at the same epoch",
        {"n_startup_trials": _COUNT, "n_warmup_steps": _WARMUP, "interval_steps": _STEPS,
         "n_min_trials": Option(int, 1)},
    ),
    "percentile": Algorithm(
        "PercentilePruner", "keep this per cent of the trials at the same epoch",
        {"percentile": Option(float, 0.0, 100.0), "n_startup_trials": _COUNT, "n_warmup_steps": _WARMUP,
         "interval_steps": _STEPS, "n_min_trials": Option(int, 1)},
        required=("percentile",),
    ),
    "successive_halving": Algorithm(
        "SuccessiveHalvingPruner", "asynchronous successive halving",
        {"min_resource": _RESOURCE._replace(words=("auto",)), "reduction_factor": Option(int, 2),
         "min_early_stopping_rate": _COUNT, "bootstrap_count": _COUNT},
    ),
    "hyperband": Algorithm(
        "HyperbandPruner", "several successive halvings side by side",
        {"min_resource": _RESOURCE, "max_resource": _RESOURCE._replace(words=("auto",)),
         "reduction_factor": Option(int, 2), "bootstrap_count": _COUNT},
    ),
    "threshold": Algorithm(
        "ThresholdPruner", "stop a trial whose score leaves the bounds",
        {"lower": Option(float), "upper": Option(float), "n_warmup_steps": _WARMUP, "interval_steps": _STEPS},
    ),
    "patient": Algorithm(
        "PatientPruner", "stop a trial that has not improved for so many epochs",
        {"patience": Option(int, 0, help="epochs without improvement"), "min_delta": Option(float, 0.0)},
        required=("patience",),
    ),
    "wilcoxon": Algorithm(
        "WilcoxonPruner", "stop a trial that a signed-rank test finds worse than the best",
        {"p_threshold": _SHARE, "n_startup_steps": _COUNT},
    ),
    "running_median": Algorithm(
        "RunningMedianPruner", "SageMaker's rule: worse than the median of the other trials' running averages",
        {"n_startup_trials": _COUNT, "n_warmup_steps": _WARMUP},
    ),
}

# Optuna's classes that a study file has no use for, and what to write instead.
ELSEWHERE: dict[str, str] = {
    "BaseSampler": "an abstract class",
    "BaseGASampler": "an abstract class",
    "BasePruner": "an abstract class",
    "PartialFixedSampler": "fixed values stand under hyperparameters",
}


def card_option(key: Key) -> Option:
    """Return a dataset card's key as an option, so that one check and one schema serve both."""
    kind = {"int": int, "float": float, "str": str, "bool": bool}[key.type]
    return Option(kind, key.low, key.high, key.choices, key.help)


def short_name(table: dict[str, Algorithm], name: str) -> str | None:
    """Return the table's own name for a short name or a class name of Optuna, or None."""
    if name in table:
        return name
    return next((short for short, row in table.items() if row.optuna == name), None)


def names(table: dict[str, Algorithm]) -> list[str]:
    """Return every name that a file may use: the short ones first."""
    return [*table, *(row.optuna for row in table.values())]
