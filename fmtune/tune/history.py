"""History by number: what makes a stopped study resume exactly, and lanes refill freely.

Trial ``n`` is suggested and pruned from the final results of trials numbered below ``n - lag`` only, in an
in-memory Optuna study.  Trials between ``n - lag`` and ``n`` are seen as running, with their parameters and
nothing else; trials above ``n`` are not seen.  Asks are in number order, and the sampler is seeded from
(seed, n).  So what a trial gets depends on its number, not on the clock.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmtune.fm.metrics import Direction


class _Lagged(InMemoryStorage):
    """An in-memory storage that shows trials as trial ``current`` may see them."""

    def __init__(self, lag: int) -> None:
        super().__init__()
        self.lag, self.current = lag, 0

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, deepcopy=deepcopy, states=None)[: self.current + 1]
        border = max(0, self.current - self.lag)
        seen = trials[:border] + [self._running(t) for t in trials[border : self.current]] + trials[self.current :]
        return seen if states is None else [t for t in seen if t.state in states]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        done = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        if not done:
            raise ValueError("No trials are completed yet.")
        sign = 1 if self.get_study_directions(study_id)[0] == optuna.study.StudyDirection.MINIMIZE else -1
        return min(done, key=lambda t: sign * (t.value or 0.0))

    @staticmethod
    def _running(trial: FrozenTrial) -> FrozenTrial:
        return FrozenTrial(
            number=trial.number, state=TrialState.RUNNING, value=None, datetime_start=trial.datetime_start,
            datetime_complete=None, params=trial.params, distributions=trial.distributions, user_attrs={},
            system_attrs={}, intermediate_values={}, trial_id=trial._trial_id,
        )  # fmt: skip


class History:
    """The study that sampler and pruner see.

    Parameters
    ----------
    study_name, direction
        As in the study file.
    distributions
        The search space.
    sampler
        Makes a sampler from a seed; called once a trial.
    pruner
        The study's pruner.
    lag
        How many trials below a trial's number it may not know the results of.
    seed
        The study's seed.
    """

    def __init__(
        self, study_name: str, direction: Direction, distributions: Mapping[str, BaseDistribution],
        sampler: Callable[[int], BaseSampler], pruner: BasePruner, lag: int, seed: int,
    ) -> None:  # fmt: skip
        self._storage = _Lagged(lag)
        self._sampler, self._seed = sampler, seed
        self._distributions = dict(distributions)
        self._study = optuna.create_study(
            storage=self._storage, study_name=study_name, direction=direction, pruner=pruner, sampler=sampler(0)
        )

    @property
    def study_attrs(self) -> dict[str, Any]:
        """What the sampler keeps with the study (counters of quasi-random samplers, for example)."""
        return dict(self._storage.get_study_system_attrs(self._study._study_id))

    def restore_study(self, attrs: Mapping[str, Any]) -> None:
        """Put back what :attr:`study_attrs` gave."""
        for key, value in attrs.items():
            self._storage.set_study_system_attr(self._study._study_id, key, value)

    def restore(self, trial: FrozenTrial) -> None:
        """Take the next trial in number order from a stored study; unfinished ones as they were asked."""
        if trial.state.is_finished():
            self._study.add_trial(trial)
            return
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions,
                system_attrs=trial.system_attrs,
            )
        )  # fmt: skip

    def learn(self, trial: FrozenTrial) -> None:
        """Take the end of a trial that another process ran, or the next one in number order."""
        if trial.number >= len(self):
            self.restore(trial)
            return
        mine = self._storage.get_trial(self._id(trial.number))
        known = copy.copy(trial)
        known._trial_id = mine._trial_id
        self._storage._studies[self._study._study_id].trials[trial.number] = known
        self._study._thread_local.cached_all_trials = None

    def cut(self, length: int) -> None:
        """Forget trials from a number on: they were asked for, and could not be written down."""
        trials = self._storage._studies[self._study._study_id].trials
        for trial in trials[length:]:
            del self._storage._trial_id_to_study_id_and_number[trial._trial_id]
        del trials[length:]
        self._study._thread_local.cached_all_trials = None

    def __len__(self) -> int:
        """Return how many trials there are."""
        return len(self._storage._studies[self._study._study_id].trials)

    def trial(self, number: int) -> FrozenTrial:
        """Return a trial as it is known so far; its parameters are what it was asked to be."""
        return self._storage.get_trial(self._id(number))

    def ask(self, fixed: Mapping[str, Any] | None = None) -> FrozenTrial:
        """Return the next trial in number order; ``fixed`` values are taken as they are, the rest is sampled."""
        n = len(self)
        self._storage.current = n
        if fixed:
            self._study.enqueue_trial(dict(fixed))
        state = np.random.SeedSequence((self._seed, n)).generate_state(1)
        self._study.sampler = self._sampler(int(state[0]))
        trial = self._study.ask(self._distributions)
        return self._storage.get_trial(trial._trial_id)

    def report(self, number: int, epoch: int, score: float) -> bool:
        """Take a score and return whether the pruner ends the trial."""
        self._storage.current = number
        trial_id = self._id(number)
        self._storage.set_trial_intermediate_value(trial_id, epoch, score)
        self._study._thread_local.cached_all_trials = None
        return bool(self._study.pruner.prune(self._study, self._storage.get_trial(trial_id)))

    def tell(self, number: int, state: str, value: float | None) -> FrozenTrial:
        """Take the end of a trial and return it as Optuna has it."""
        trial_id = self._id(number)
        values = None if value is None else [value]
        self._storage.set_trial_state_values(trial_id, TrialState[state], values)
        return self._storage.get_trial(trial_id)

    def forget_curve(self, number: int) -> None:
        """Drop the scores of a trial that starts over, and the rungs of successive halving that it has climbed."""
        trial = self._storage._get_trial(self._id(number))
        trial.intermediate_values = {}
        trial.system_attrs = {k: v for k, v in trial.system_attrs.items() if not k.startswith("completed_rung_")}

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
