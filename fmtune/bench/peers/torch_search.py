"""PyTorch under Optuna: a case's whole study, as a script with the same sampler, pruner and epochs would run it.

Two trials at once, a thread each.  Both samplers search the same space; what PyTorch's sparse Adagrad has not (weight
decay, a rate of its own for the linear weights) is asked for and left aside.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import optuna
import torch  # type: ignore[import-not-found, unused-ignore]

from fmtune.bench.peers.common import channel
from fmtune.bench.peers.torch_fm import DEFAULTS, machine
from fmtune.bench.serve import Job, Line, serve


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample is the whole study."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, path = request["case"]["study"], request["files"]["rows"]
    train, test = channel(path, "train"), channel(path, "test")
    fixed, space = study["hyperparameters"], study["search_space"]
    found: dict[str, Any] = {}

    def objective(trial: optuna.Trial) -> float:
        h = {**DEFAULTS, **fixed, **{name: _asked(trial, name, text) for name, text in space.items()}}
        learn, loss = machine(train, test, h)
        value = float("nan")
        for epoch in range(1, h["epochs"] + 1):
            learn()
            value = loss()
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    def search(n_trials: int) -> None:
        began = time.perf_counter()
        sampler = optuna.samplers.TPESampler(seed=study.get("seed", 0))
        made = optuna.create_study(sampler=sampler, pruner=optuna.pruners.MedianPruner())
        made.optimize(objective, n_trials=n_trials, n_jobs=2)
        found.update(loss=[made.best_value], trials=len(made.trials), seconds=time.perf_counter() - began)

    search(1)  # what the first trial alone pays for, before the clock
    lines: list[Line] = [lambda: None]

    def arm() -> Line:
        # The first sample is thrown away as a warm-up, and a search takes minutes.
        return lines.pop() if lines else lambda: search(study["n_trials"])

    return Job(arm, lambda: dict(found), {"trials": study["n_trials"]})


def _asked(trial: optuna.Trial, name: str, text: str) -> float | int:
    """Return what the sampler chooses of a range written as ``low..high`` or ``low..high log``."""
    ends, _, log = text.partition(" ")
    low, high = ends.split("..")
    if name == "num_factors":
        return trial.suggest_int(name, int(low), int(high), log=bool(log))
    return trial.suggest_float(name, float(low), float(high), log=bool(log))


if __name__ == "__main__":
    serve(prepare)
