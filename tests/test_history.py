"""What trial n gets depends on its number and on results below n - lag, never on the clock."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from fmtune.tune.history import History
from fmtune.tune.samplers import make_pruner
from fmtune.tune.spec import parse

SPACE = {
    "x": FloatDistribution(1e-3, 1.0, log=True),
    "k": IntDistribution(1, 9),
    "c": CategoricalDistribution(["a", "b"]),
}
SAMPLERS = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=4),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "grid": lambda seed: optuna.samplers.GridSampler({"x": [0.01, 0.1], "k": [1, 5, 9], "c": ["a", "b"]}, seed=0),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=0, scramble=True),
}
PRUNERS = {
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=2),
    "successive_halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=4),
    "successive_halving auto": lambda: _made("successive_halving"),
    "hyperband auto": lambda: _made("{name: hyperband, max_resource: auto}"),
    "patient auto": lambda: _made("{name: patient, patience: 0, wrapped_pruner: successive_halving}"),
}
LAG, TRIALS, EPOCHS = 4, 24, 4


def _made(pruner: str) -> BasePruner:
    """Return the pruner of a study file."""
    return make_pruner(parse(f"""study_name: s
data: digits
objective: test:binary_classification_cross_entropy
hyperparameters: {{epochs: {EPOCHS}}}
search_space: {{linear_lr: 1e-3..1 log}}
pruner: {pruner}
"""))


def _score(trial: FrozenTrial, epoch: int) -> float:
    return abs(trial.params["x"] - 0.1) + 0.1 * trial.params["k"] / epoch + (trial.params["c"] == "b")


class _Study:
    """A study driven in some order of completion, that can be stopped and restored."""

    def __init__(self, sampler: str, pruner: str) -> None:
        self.names = sampler, pruner
        self.ended: dict[int, FrozenTrial] = {}
        self.asked: dict[int, FrozenTrial] = {}
        self.history = self._history()

    def _history(self) -> History:
        sampler, pruner = self.names
        make: dict[str, BaseSampler] = SAMPLERS  # type: ignore[assignment]
        return History("s", "minimize", SPACE, make[sampler], PRUNERS[pruner](), LAG, seed=7)  # type: ignore[arg-type]

    def restart(self) -> None:
        attrs = self.history.study_attrs
        self.history = self._history()
        self.history.restore_study(attrs)
        for n in sorted(self.asked):
            self.history.restore(self.ended.get(n, self.asked[n]))
            if n not in self.ended:
                self.history.forget_curve(n)

    def ask(self) -> None:
        n = len(self.asked)
        # All of them: Optuna's grid sampler takes no partly fixed trial.
        self.asked[n] = self.history.ask({"x": 0.5, "k": 5, "c": "a"} if n == 0 else None)

    def end(self, n: int) -> None:
        for epoch in range(1, EPOCHS + 1):
            value = _score(self.asked[n], epoch)
            if self.history.report(n, epoch, value):
                self.ended[n] = self.history.tell(n, "PRUNED", value)
                return
        self.ended[n] = self.history.tell(n, "COMPLETE", value)

    def run(self, rng: random.Random, restarts: bool) -> list[tuple[object, ...]]:
        while len(self.ended) < TRIALS:
            open_ = [n for n in self.asked if n not in self.ended]
            n = len(self.asked)
            may_ask = n < TRIALS and all(m >= n - LAG for m in open_)
            if may_ask and (not open_ or rng.random() < 0.6):
                self.ask()
            elif open_:
                self.end(rng.choice(open_))
            if restarts and rng.random() < 0.1:
                self.restart()
        return [(t.state.name, t.params, t.value, t.intermediate_values) for _, t in sorted(self.ended.items())]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_order_and_restarts_change_nothing(sampler: str, pruner: str) -> None:
    """Trials ended in any order, with the study restored at random moments, are the same trials."""
    straight = _Study(sampler, pruner).run(random.Random(0), restarts=False)
    for seed in range(1, 5):
        assert _Study(sampler, pruner).run(random.Random(seed), restarts=True) == straight


def test_the_first_trials_take_what_is_enqueued() -> None:
    """Fixed values are taken as they are, and the rest is sampled."""
    history = History("s", "minimize", SPACE, SAMPLERS["random"], PRUNERS["median"](), LAG, seed=1)
    asked = history.ask({"x": 0.5})
    assert asked.params["x"] == 0.5
    assert set(asked.params) == set(SPACE)


def test_results_within_the_lag_are_not_seen() -> None:
    """Two studies that differ only in results inside the lag suggest the same next trial."""
    asked = []
    for value in (0.0, 9.0):
        history = History("s", "minimize", SPACE, SAMPLERS["tpe"], PRUNERS["median"](), LAG, seed=1)
        for n in range(12):
            history.ask()
            history.tell(n, "COMPLETE", float(n) if n < 8 else value)
        asked.append(history.ask().params)
    assert asked[0] == asked[1]


def test_a_trial_that_starts_over_climbs_every_rung_again() -> None:
    """What it had reached before its process was stopped does not carry its second try over the first rungs."""
    history = History("s", "minimize", SPACE, SAMPLERS["random"], PRUNERS["successive_halving"](), 0, seed=1)
    for score in range(4):
        number = history.ask().number
        history.report(number, 1, float(score))
        history.tell(number, "COMPLETE", float(score))
    number = history.ask().number
    assert not history.report(number, 1, -1.0)
    history.forget_curve(number)
    assert history.report(number, 1, 9.0)
