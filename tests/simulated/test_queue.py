"""What is queued, recorded and replayed, with a driver that only notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import cuda

from fmtune.fm.cuda_queue import Queue, addresses


class Noting:
    """A driver whose streams are words, and whose recordings are what was queued on its recorder."""

    def __init__(self, fault: str | None = None) -> None:
        self.fault = fault
        self.launched: list[Any] = []

    def stream(self) -> str:
        """Return the one stream."""
        return "own"

    def recorded(self, work: Callable[[Any], None]) -> str:
        """Let ``work`` queue on the recorder, or fail."""
        if self.fault:
            raise RuntimeError(self.fault)
        work("recorder")
        return "recording"

    def launch(self, recording: Any, stream: Any) -> None:
        """Note it."""
        self.launched.append((recording, stream))


def test_what_comes_again_is_recorded_once_and_replayed() -> None:
    """First it is queued as it is, then recorded and launched, then launched; another key begins anew."""
    driver, queued = Noting(), []
    queue = Queue(driver)
    for key in ("a", "a", "a", "b"):
        queue.run(key, 3, queued.append)
    assert queued == ["own", "recorder", "own"]
    assert driver.launched == [("recording", "own")] * 2 and queue.replays == 2
    queue.forget()
    queue.run("a", 3, queued.append)
    assert queued[3:] == ["own"]


@pytest.mark.parametrize("launches", [0, 5])
def test_what_is_one_launch_or_too_many_is_not_recorded(launches: int) -> None:
    """Work without launches, and work that would be more than may be kept, is queued as it is each time."""
    driver, queued = Noting(), []
    queue = Queue(driver, most=4)
    for _ in range(3):
        queue.run("a", launches, queued.append)
    assert queued == ["own"] * 3 and not driver.launched


def test_a_card_that_cannot_record_is_not_asked_again() -> None:
    """It is said once, and everything is queued as it is."""
    queue, queued = Queue(Noting("no graphs here")), []
    queue.run("a", 3, queued.append)
    with pytest.warns(RuntimeWarning, match="no graphs here"):
        queue.run("a", 3, queued.append)
    for key in ("a", "b", "b"):
        queue.run(key, 3, queued.append)
    assert queued == ["own"] * 5


def test_without_a_driver_there_is_no_stream() -> None:
    """As in the simulator: work is queued on the default one."""
    queue, queued = Queue(None), []
    for _ in range(3):
        queue.run((), 3, queued.append)
    assert queued == [0, 0, 0]


def test_addresses_are_numbers_and_places() -> None:
    """Arrays that lie nowhere are left out, whole numbers and tuples are kept."""
    assert addresses(1, (2, [3]), np.zeros(2), cuda.to_device(np.zeros(2))) == (1, (2, (3,)))
