"""A block of simulated CUDA threads that run in turns: one at a time, from barrier to barrier."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
from numba.cuda.simulator.kernel import BlockManager, BlockThread

# Seconds that a thread may take from one barrier to the next: one that loops for ever must not hold the tests.
_PATIENCE = 60.0


class Turn(BlockThread):
    """A thread that runs when it is told to, until it waits at a barrier or ends."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._told, self._stopped = threading.Lock(), threading.Lock()
        self._told.acquire()
        self._stopped.acquire()

    def go(self) -> bool:
        """Let it run; returns whether it now waits at a barrier, and raises what it raised."""
        if self.ident is None:
            self.start()
        else:
            self._told.release()
        if not self._stopped.acquire(timeout=_PATIENCE):
            raise RuntimeError(f"{self} does not come to a barrier")
        if self.exception:
            raise self.exception[0].with_traceback(self.exception[1])
        return self.syncthreads_blocked

    def run(self) -> None:
        """Run the kernel to its end."""
        super().run()
        self._stopped.release()

    def syncthreads(self) -> None:
        """Wait for the next turn."""
        self.syncthreads_blocked = True
        self._stopped.release()
        self._told.acquire()
        self.syncthreads_blocked = False


class Turns(BlockManager):
    """Runs a block: after each barrier in an order drawn anew, which finds what a barrier is missing for."""

    def run(self, grid_point: tuple[int, ...], *args: Any) -> None:
        """Run all threads of the block to their end."""
        threads = [
            Turn(lambda: self._f(*args), self, grid_point, place, self._debug) for place in np.ndindex(*self._block_dim)
        ]
        order = random.Random(0)
        while threads:
            order.shuffle(threads)
            threads = [thread for thread in threads if thread.go()]
