"""Again: finished trials as jobs for the driver once more, for scores that lie on another machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from fmtune.fm.fit import Progress
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.tune.driver import Job, Outcome, seeds_of
from fmtune.tune.selection import Finalists
from fmtune.tune.sources import epochs_of


class AgainSource:
    """Trains finished trials again, as far as gave their values, for their scores on the test rows.

    Parameters
    ----------
    trials
        Complete trials.
    fixed, seeds
        As the study has them.
    finalists
        Takes the scores.
    """

    def __init__(
        self, trials: Sequence[FrozenTrial], fixed: Mapping[str, Any], seeds: int, finalists: Finalists
    ) -> None:  # fmt: skip
        self._trials, self._fixed, self._seeds, self._finalists = list(trials), fixed, seeds, finalists

    def next(self) -> Job | None:
        """Return the next trial."""
        if not self._trials:
            return None
        trial = self._trials.pop(0)
        h = Hyperparameters.of({**self._fixed, **trial.params})
        progress = Progress("minimize", 0)
        return Job(trial.number, seeds_of(h, self._seeds), progress, epochs_of(trial), trial.value, replay=True)

    def pause(self) -> None:
        """Nothing is waited for."""

    def report(self, job: Job, epoch: int, score: float) -> bool:
        """Let every trial run to its end; what was best before is known."""
        return False

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Keep the scores of the last epoch."""
        if job.scores is not None:
            self._finalists.put(job.number, job.token, job.scores)

    def give_back(self, job: Job) -> None:
        """Nothing is written of it."""

    def tick(self, row_lanes: float, seconds: float) -> None:
        """Nothing is counted."""
