"""Search: a case's whole study as a script would run it: Optuna, a peer that trains, two trials at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna

from fmtune.bench.serve import Job, Line

Curve = Callable[[Mapping[str, Any]], Iterable[float]]


def search(request: Mapping[str, Any], defaults: Mapping[str, Any], curve: Curve, *, prune: bool) -> Job:
    """Return the job of a peer whose sample is a case's whole study, two trials at once; sample n has the seed n.

    Parameters
    ----------
    defaults
        Hyperparameters that the case may leave out; those of its ``peers`` go before its study's.
    curve
        Given hyperparameters: gives the test score after each epoch.
    prune
        Whether the median pruner ends trials early; of no use where an epoch's score comes when all are done.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = request["case"]["study"]
    fixed = {**defaults, **study["hyperparameters"], **request["case"]["peers"]}
    searches: list[list[tuple[float, float]]] = []

    def asked(trial: optuna.Trial) -> dict[str, Any]:
        return {**fixed, **{name: _asked(trial, name, text) for name, text in study["search_space"].items()}}

    def run(seed: int, n_trials: int) -> None:
        reached: list[tuple[float, float]] = []
        began = time.perf_counter()

        def objective(trial: optuna.Trial) -> float:
            value = float("nan")
            for epoch, value in enumerate(curve(asked(trial)), 1):
                trial.report(value, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            reached.append((time.perf_counter() - began, value))
            return value

        sampler = optuna.samplers.TPESampler(seed=seed)
        pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
        optuna.create_study(sampler=sampler, pruner=pruner).optimize(objective, n_trials=n_trials, n_jobs=2)
        searches.append(reached)

    run(0, 1)  # what the first trial alone pays for, before the clock
    searches.clear()
    lines: list[Line] = [lambda: None]

    def arm() -> Line:
        # The first sample is thrown away as a warm-up, and a search takes minutes.
        return lines.pop() if lines else lambda: run(len(searches), study["n_trials"])

    def companions() -> dict[str, Any]:
        best = [min(value for _, value in reached) for reached in searches]
        return {"loss": best, "trials": study["n_trials"], "searches": searches}

    return Job(arm, companions, {"trials": study["n_trials"]})


def prunes(study: Mapping[str, Any]) -> bool:
    """Return whether a case's study stops bad trials early."""
    return bool(study.get("pruner", "median") != "none")


def _asked(trial: optuna.Trial, name: str, text: str) -> float | int:
    """Return what the sampler chooses of a range written as ``low..high`` or ``low..high log``."""
    ends, _, log = text.partition(" ")
    low, high = ends.split("..")
    if name == "num_factors":
        return trial.suggest_int(name, int(low), int(high), log=bool(log))
    return trial.suggest_float(name, float(low), float(high), log=bool(log))
