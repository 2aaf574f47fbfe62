"""Common: the rows of a case for peers, as numpy and scipy have them, their scores, and a search driven by Optuna.

A peer learns the train channel once a sample and states its log loss on the test channel after ``epochs`` passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse

from fmtune.bench.serve import Job, Line


def channel(path: str, name: str) -> tuple[Any, Any]:
    """Return features (CSR or a matrix) and labels of a stored channel."""
    with np.load(path, allow_pickle=False) as file:
        labels = file[f"{name}_labels"]
        if f"{name}_matrix" in file:
            return file[f"{name}_matrix"], labels
        parts = (file[f"{name}_values"], file[f"{name}_indices"], file[f"{name}_indptr"])
        return scipy.sparse.csr_matrix(parts, shape=(len(labels), int(file["feature_dim"]))), labels


def log_loss(probability: Any, labels: Any) -> float:
    """Return the mean log loss of probabilities of label 1."""
    p = np.clip(np.asarray(probability, np.float64), 1e-15, 1 - 1e-15)
    return float(-np.mean(np.where(labels > 0, np.log(p), np.log(1 - p))))


def rmse(prediction: Any, labels: Any) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(np.mean((np.asarray(prediction, np.float64) - labels) ** 2)))


def job(request: Mapping[str, Any], rows: int, learn: Callable[[], object], loss: Callable[[], float]) -> Job:
    """Return the job of a peer whose ``learn`` is one pass over the train channel."""
    passes = max(1, request["case"]["epochs"])

    def companions() -> dict[str, Any]:
        return {"loss": [loss()], "note": f"after the passes that were timed, at least {passes}"}

    def line() -> None:
        learn()

    return Job(lambda: line, companions, {"rows": rows, "examples": rows})


Curve = Callable[[Mapping[str, Any], int], Any]


def search(request: Mapping[str, Any], defaults: Mapping[str, Any], curve: Curve) -> Job:
    """Return the job of a peer whose sample is a case's whole study, two trials at once; sample n has the seed n.

    Parameters
    ----------
    defaults
        Hyperparameters that the case may leave out.
    curve
        Given hyperparameters and the trial's number: yields the test score after each epoch.
    """
    import optuna  # its interpreter may have none

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = request["case"]["study"]
    searches: list[list[tuple[float, float]]] = []

    def asked(trial: Any) -> dict[str, Any]:
        space = {name: _asked(trial, name, text) for name, text in study["search_space"].items()}
        return {**defaults, **study["hyperparameters"], **space}

    def run(seed: int, n_trials: int) -> None:
        reached: list[tuple[float, float]] = []
        began = time.perf_counter()

        def objective(trial: Any) -> float:
            value = float("nan")
            for epoch, value in enumerate(curve(asked(trial), trial.number), 1):
                trial.report(value, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            reached.append((time.perf_counter() - began, value))
            return value

        sampler = optuna.samplers.TPESampler(seed=seed)
        pruner = optuna.pruners.MedianPruner() if prunes(study) else optuna.pruners.NopPruner()
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


def _asked(trial: Any, name: str, text: str) -> float | int:
    """Return what the sampler chooses of a range written as ``low..high`` or ``low..high log``."""
    ends, _, log = text.partition(" ")
    low, high = ends.split("..")
    if name == "num_factors":
        return int(trial.suggest_int(name, int(low), int(high), log=bool(log)))
    return float(trial.suggest_float(name, float(low), float(high), log=bool(log)))
