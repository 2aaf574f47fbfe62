"""Whose a trial is: the rules of a second try, without a database."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState

from fmtune.tune.claims import ATTEMPTS, RETRIES, Claim, Held, abandoned
from fmtune.tune.workers import name_of, owner, text_of

ME, OTHER = ({**owner(), "run": run} for run in ("me", "other"))
LIVING = {name_of(ME), name_of(OTHER)}


def _claim(who: Any, attempts: int = 1, state: TrialState = TrialState.RUNNING, **more: Any) -> Claim | None:
    return abandoned(Held(7, state, who, attempts), ME, more.get("living", LIVING), more.get("orphaned", {}))


def test_what_another_worker_holds_stays_its_own() -> None:
    """While it lives."""
    assert _claim(OTHER) is None


def test_what_waits_or_is_ours_is_no_new_attempt() -> None:
    """Given back, or claimed with an answer that was lost."""
    assert _claim(OTHER, 2, TrialState.WAITING) == _claim(ME, 2) == Claim(7, 2)


@pytest.mark.parametrize("who", [OTHER, None, "somebody", {"host": "old"}])
def test_a_dead_workers_trial_is_tried_again_then_alone_then_given_up(who: Any) -> None:
    """Also of an owner that no version of ours writes."""
    claims = [_claim(who, attempts, living={name_of(ME)}) for attempts in range(1, RETRIES + 2)]
    again = [Claim(7, attempts, alone=attempts == RETRIES + 1) for attempts in range(2, RETRIES + 2)]
    assert claims == [*again, Claim(7, RETRIES + 2, "its worker died, 3 times")]


def test_a_process_that_finished_something_is_forgiven_all_but_its_last_try() -> None:
    """One that finished nothing is counted; the last try was one alone."""
    for finished in (True, False):
        orphaned = {text_of(OTHER): finished}
        second = _claim(OTHER, 2, orphaned=orphaned)
        assert second == Claim(7, 1 if finished else 3)
        last = _claim(OTHER, ATTEMPTS, orphaned=orphaned)
        assert last == Claim(7, ATTEMPTS + 1, "its process died 5 times in a row")
    assert _claim(OTHER, ATTEMPTS - 1, orphaned=orphaned) == Claim(7, ATTEMPTS, alone=True)
