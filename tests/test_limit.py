"""The limit of a study's time."""

from __future__ import annotations

from fmtune.tune.limit import Limit


def test_only_what_is_counted_is_used_up() -> None:
    """Time before the trials and between two trainings takes none of it; without a limit it is never over."""
    clock = [0.0]
    limit, none = Limit(10.0, lambda: clock[0]), Limit(None, lambda: clock[0])
    clock[0] = 100.0  # a download
    assert not limit.over()
    with limit.counting(), none.counting():
        clock[0] += 6.0
        assert not limit.over()
    clock[0] += 100.0  # the next cell's kernels are compiled
    assert not limit.over()
    with limit.counting(), none.counting():
        assert not limit.over()
        clock[0] += 5.0
        assert limit.over() and not none.over()
    assert limit.over() and not none.over()
