"""A study played through on made-up workers: the store's bookkeeping holds, and the numbers mean what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fmtune.tune.rehearsal import Scene, _Play, play

CALM = Scene(4, 24, trial=60.0, lag=8)


def test_without_failures_nothing_is_lost() -> None:
    """Every trial is claimed and ended once; time and work are those of the trials."""
    found = play(CALM)
    assert (found.done, found.failed, found.lost, found.late) == (24, 0, 0.0, 0)
    assert found.operations["claim"] == found.operations["end"] == 24
    assert 24 * 60 / 4 < found.seconds < 24 * 60
    assert found.worked == pytest.approx(24 * 60, rel=0.3)
    assert found.rate == pytest.approx(found.operations.total() / found.seconds)


def test_the_same_scene_is_the_same_play() -> None:
    """And another seed is another."""
    short = replace(CALM, n_trials=8)
    assert play(short) == play(short)
    assert play(short).seconds != play(replace(short, seed=1)).seconds


def test_failures_cost_work_and_no_trial() -> None:
    """Workers die and are cut off: all trials end, what is told late is lost, and it takes longer."""
    found = play(replace(CALM, failures=120.0))
    assert found.done == 24 and found.killed and found.cut
    assert 0 < found.lost < found.worked and found.seconds > play(CALM).seconds
    assert found.operations["claim"] >= 24


def test_a_trial_that_loses_too_many_workers_fails() -> None:
    """Where workers live shorter than a trial takes, trials are given up after the store's retries."""
    found = play(replace(CALM, workers=2, n_trials=4, lag=4, trial=600.0, spread=0.1, failures=60.0, restart=1.0))
    assert found.done == 4 and found.failed


def test_a_longer_lag_leaves_fewer_workers_idle() -> None:
    """With a lag of as many trials as there are workers, all wait for the slowest."""
    tight, loose = (play(replace(CALM, lag=lag)) for lag in (4, 16))
    assert loose.idle < tight.idle and loose.seconds < tight.seconds


def test_a_slow_database_is_queued_for() -> None:
    """Operations take turns."""
    assert play(replace(CALM, service=5.0)).queue > play(CALM).queue


def test_what_is_not_asked_would_be_none() -> None:
    """The store is not asked where it could only say no; asking it always comes to the same."""
    scene = replace(CALM, n_trials=12, failures=200.0)
    assert _Play(scene).go() == _Play(scene, shortcut=False).go()
