"""Queue: a stream of the card; work that comes again and again on it is recorded and replayed as one launch.

A launch costs the host some ten microseconds, a mini-batch of a small model takes the card about thirty, and has half
a dozen launches.  So what is queued a second time is recorded (a CUDA graph), and from then on one launch starts all.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, Protocol

from numba import cuda

# Launches that are kept recorded: each holds its arguments, a kilobyte or two.
_MOST = 2**16


class Driver(Protocol):
    """What recording needs of CUDA: see :class:`Graphs`."""

    def stream(self) -> Any: ...
    def recorded(self, work: Callable[[Any], None]) -> Any: ...
    def launch(self, recording: Any, stream: Any) -> None: ...


class Graphs:
    """CUDA's graphs, by the driver's own calls.

    Work is recorded on a stream that waits for nobody: recording on another would forbid the default stream to the
    whole process meanwhile.
    """

    def __init__(self) -> None:
        from cuda.bindings import driver  # comes with numba-cuda

        self._driver = driver

    @cached_property
    def _recorder(self) -> Any:
        return self.unbound(self)

    def unbound(self, owner: object) -> Any:
        """Return a stream that waits for nobody, and ends with its owner."""
        cuda.current_context()
        handle = self._call("cuStreamCreate", int(self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        weakref.finalize(owner, self._driver.cuStreamDestroy, handle).atexit = False
        return cuda.external_stream(int(handle))

    def stream(self) -> Any:
        """Return a stream of its own that waits for the default stream, as that waits for it."""
        return cuda.stream()

    def recorded(self, work: Callable[[Any], None]) -> Any:
        """Return what ``work`` queues on the stream that it is given; nothing of it is done yet.

        Raises
        ------
        RuntimeError
            It cannot be recorded.
        """
        modes = self._driver.CUstreamCaptureMode
        self._call("cuStreamBeginCapture", self._handle(self._recorder), modes.CU_STREAM_CAPTURE_MODE_RELAXED)
        try:
            work(self._recorder)
        finally:
            graph = self._call("cuStreamEndCapture", self._handle(self._recorder))
        recording = self._call("cuGraphInstantiate", graph, 0)
        self._call("cuGraphDestroy", graph)
        return _Recording(recording, self._driver.cuGraphExecDestroy)

    def launch(self, recording: Any, stream: Any) -> None:
        """Queue what was recorded."""
        self._call("cuGraphLaunch", recording.graph, self._handle(stream))

    def _handle(self, stream: Any) -> Any:
        return self._driver.CUstream(int(stream.handle))

    def _call(self, name: str, *args: Any) -> Any:
        error, *found = getattr(self._driver, name)(*args)
        if int(error):
            raise RuntimeError(f"{name}: CUDA's error {int(error)}")
        return found[0] if found else None


class _Recording:
    """A graph that is destroyed with this object."""

    def __init__(self, graph: Any, destroy: Callable[[Any], Any]) -> None:
        self.graph = graph
        weakref.finalize(self, destroy, graph).atexit = False


class Queue:
    """A stream, and what was recorded of the work on it.

    Parameters
    ----------
    driver
        CUDA; None where it is simulated: nothing is recorded.
    most
        Launches that are kept recorded.

    Attributes
    ----------
    stream
        Where kernels are queued.
    replays : int
        How often a recording was launched.
    """

    def __init__(self, driver: Driver | None, most: int = _MOST) -> None:
        self.stream = driver.stream() if driver else 0
        self._driver, self._most, self._left = driver, most, most
        self._seen: set[Hashable] = set()
        self._kept: dict[Hashable, Any] = {}
        self.replays = 0

    def run(self, key: Hashable, launches: int, work: Callable[[Any], None]) -> None:
        """Queue work: as ``work`` does it on the stream it is given or, with a key that came before, as one launch.

        Equal keys mean that ``work`` would queue equal launches, with arrays at the same addresses.  Without
        ``launches`` there is nothing to gain.
        """
        again = key in self._seen and key not in self._kept
        if self._driver is not None and again and 0 < launches <= self._left:
            try:
                self._kept[key] = self._driver.recorded(work)
                self._left -= launches
            except Exception as error:  # whatever it is, what was not recorded can be queued
                warnings.warn(f"launches are not recorded on this card: {error}", RuntimeWarning, stacklevel=2)
                self._driver = None
        if self._driver is not None and key in self._kept:
            self._driver.launch(self._kept[key], self.stream)
            self.replays += 1
            return
        if len(self._seen) < self._most:
            self._seen.add(key)
        work(self.stream)

    def forget(self) -> None:
        """Drop all recordings: the arrays that they speak of are gone."""
        self._seen.clear()
        self._kept.clear()
        self._left = self._most


def addresses(*things: Any) -> tuple[Hashable, ...]:
    """Return where arrays on the card lie, those in tuples too, and their shapes; whole numbers as they are.

    Others, such as the simulator's, lie nowhere.
    """
    found: list[Hashable] = []
    for thing in things:
        if isinstance(thing, tuple | list):
            found.append(addresses(*thing))
        elif hasattr(thing, "device_ctypes_pointer"):
            found.append((thing.device_ctypes_pointer.value, thing.shape))
        elif isinstance(thing, int):
            found.append(thing)
    return tuple(found)
