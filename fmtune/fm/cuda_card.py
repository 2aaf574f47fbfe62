"""Card: a CUDA device, and what lies on it for longer than one pack.

The only door to CUDA: nothing behind it is imported before a card is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fmtune.errors import ResourceError

# numba-cuda takes the place of numba's own CUDA by a .pth file, which Python reads in its own folders only: not in one
# that PYTHONPATH names.
with contextlib.suppress(ImportError):
    importlib.import_module("_numba_cuda_redirector")

# Locks of the card that is this process's.
_held: list[FileLock] = []


def claim(
    nodes: Path = Path("/dev"), locks: Path | None = None, env: MutableMapping[str, str] = os.environ
) -> str | None:  # fmt: skip
    """Take one of several cards for this process, before CUDA is awake; returns its name.

    Processes that run one study divide its trials, so a process a card spreads the lanes over the cards.  A lock file
    a card, held until the process ends, says which is taken; where all are, one is shared.  ``CUDA_VISIBLE_DEVICES``
    is heeded and then names the one.
    """
    found = sorted(nodes.glob("nvidia[0-9]*"), key=lambda node: int(node.name[6:]))
    seen = [name.strip() for name in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = seen or [node.name[6:] for node in found]
    if len(names) < 2:
        return None
    mine = names[os.getpid() % len(names)]
    for name in names:
        safe = "".join(c if c.isalnum() else "-" for c in name)
        lock = FileLock((locks or Path(tempfile.gettempdir())) / f"fmtune-card-{os.getuid()}-{safe}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            _held.append(lock)
            mine = name
            break
    env["CUDA_VISIBLE_DEVICES"] = mine
    return mine


@cache
def cards() -> int:
    """Return how many CUDA devices this process can use; 0 without a driver.  Of several it takes one."""
    claim()
    from numba import cuda

    return len(cuda.gpus) if cuda.is_available() else 0


def absent() -> str | None:
    """Return why this process can use no CUDA device, or None."""
    if cards():
        return None
    from numba import cuda

    # A device without a compiler is not available either, and must not be looked for in vain.
    if cuda.cudadrv.driver.driver.is_available:
        return "no compiler for the CUDA device: CUDA_HOME must name a toolkit (nvvm), or numba-cuda[cu13] be installed"
    return "no CUDA device"


def missing(layout: str) -> str | None:
    """Return why a layout cannot run on a card here, or None."""
    if (why := absent()) is not None:
        return why
    from numba.core import config

    if config.ENABLE_CUDASIM:
        return None
    # numba's own CUDA is too old for a driver of today, and has the same name.
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed"
    if layout == "dense":
        from fmtune.fm.cuda_product import library

        try:
            library()
        except ResourceError as error:
            return error.what
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
