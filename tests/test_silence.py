"""Training that hangs, told from training that is slow."""

from __future__ import annotations

from fmtune.tune.silence import Silence


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _looks(silence: Silence, clock: _Clock, count: int, apart: float = 0.25) -> list[bool]:
    found = []
    for _ in range(count):
        clock.now += apart
        found.append(silence.hangs())
    return found


def test_no_sign_for_too_long_is_a_hang() -> None:
    """Looks add up until a sign comes; one sign begins anew, and without a limit nothing hangs."""
    clock = _Clock()
    silence, patient = Silence(10.0, clock), Silence(None, clock)
    assert not any(_looks(silence, clock, 40))
    silence.sign()
    assert not any(_looks(silence, clock, 41))
    assert _looks(silence, clock, 1) == [True]
    assert not any(_looks(patient, clock, 100))


def test_time_in_which_nobody_looked_does_not_count() -> None:
    """A machine that slept for a day, or a process that was stopped, has a second of it."""
    clock = _Clock()
    silence = Silence(10.0, clock)
    assert not any(_looks(silence, clock, 9, apart=86400.0))
    silence.sign()
    assert not any(_looks(silence, clock, 1, apart=86400.0))
