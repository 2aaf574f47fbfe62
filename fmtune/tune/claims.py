"""Claims: whose a trial is, and when one whose worker died is tried again, alone, or given up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from fmtune.tune.workers import Owner, name_of, text_of

# A trial whose worker died is queued again so often; then it may be the trial that kills its workers.  All trials of
# a worker die with it, so the last try is one alone: whoever dies then has killed it, and whoever does not goes on.
RETRIES = 2

# The same where one process runs a study, and is run again: deaths in a row, with nothing finished in between.
ATTEMPTS = 5


class New(NamedTuple):
    """A trial to be made: its parameters, and what the sampler keeps with the trial and with the study."""

    number: int
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    system: Mapping[str, Any]
    study_system: Mapping[str, Any]


class Claim(NamedTuple):
    """A trial that is now this worker's.

    ``spent`` says why it is not to be tried once more; ``alone`` that this is its last try, with nothing beside it.
    """

    number: int
    attempts: int = 1
    spent: str | None = None
    alone: bool = False


class Held(NamedTuple):
    """A trial that has begun and not ended: its owner as the database has it, and its tries so far."""

    number: int
    state: TrialState
    owner: Any
    attempts: int


def abandoned(held: Held, me: Owner, living: Collection[str], orphaned: Mapping[str, bool]) -> Claim | None:
    """Return the claim of a trial that nobody holds any more, None where somebody does.

    Parameters
    ----------
    held
        The trial; not one that this worker is at.
    me
        Who asks.
    living
        The names of the workers that live.
    orphaned
        Owners that are known to be dead, as text, and whether each has finished a trial.
    """
    number, state, who, attempts = held
    # One of ours that we do not know of: the answer to that claim was lost on its way.
    if state == TrialState.WAITING or who == me:
        return Claim(number, attempts)
    if text_of(who) in orphaned:
        # Others' progress speaks for a trial, but not against what its last try, alone, came to.
        forgiven = orphaned[text_of(who)] and attempts < ATTEMPTS
        died = 1 if forgiven else attempts + 1
        return _again(number, died, ATTEMPTS, f"its process died {ATTEMPTS} times in a row")
    if not isinstance(who, dict) or "run" not in who or name_of(who) not in living:
        return _again(number, attempts + 1, RETRIES + 1, f"its worker died, {attempts} times")
    return None


def _again(number: int, attempts: int, most: int, spent: str) -> Claim:
    """Return the claim of a trial whose worker died; after ``most`` attempts it is not tried again."""
    return Claim(number, attempts, spent if attempts > most else None, attempts == most)
