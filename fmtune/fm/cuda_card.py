"""Card: a CUDA device, and what lies on it for longer than one pack.

The only door to CUDA: nothing behind it is imported before a card is asked for.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any


def cards() -> int:
    """Return how many CUDA devices can be used; 0 without a driver."""
    from numba import cuda

    return len(cuda.gpus) if cuda.is_available() else 0


def missing(layout: str) -> str | None:
    """Return why a layout cannot run on a card here, or None."""
    if not cards():
        return "no CUDA device"
    from fmtune.kernels.cuda_parts import SIMULATED

    if layout == "dense" and not SIMULATED and importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    return None


class Card:
    """One device: arrays that packs share, copied to it once.

    Parameters
    ----------
    keep
        How many sets of arrays stay on it.
    """

    def __init__(self, keep: int = 6) -> None:
        self._kept: OrderedDict[int, tuple[object, Any]] = OrderedDict()
        self._keep = keep
        self._lock = threading.Lock()

    def resident(self, host: object, make: Callable[[], Any]) -> Any:
        """Return what ``make`` gave for ``host`` (known by identity), making it at its first use."""
        with self._lock:
            # The host's object is kept too, so that its identity stays its own.
            if id(host) not in self._kept:
                self._kept[id(host)] = (host, make())
                while len(self._kept) > self._keep:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(id(host))
            return self._kept[id(host)][1]


def free() -> float:
    """Return the bytes of the card's memory that nobody uses."""
    from numba import cuda

    return float(cuda.current_context().get_memory_info()[0])


@cache
def card() -> Card:
    """Return the process's card."""
    return Card()
