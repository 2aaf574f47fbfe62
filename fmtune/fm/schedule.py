"""Schedule: what learning rates are multiplied by, epoch by epoch.

A rate rises over ``lr_warmup`` epochs, and then falls as ``SCHEDULES`` says, with the share ``t`` of the other epochs
that are done.  It goes by ``epochs``, however early a training ends, so that one cut short is the beginning of the
whole.  To add a schedule: give it a row, and name it among the choices of ``PARAMETERS["lr_schedule"]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fmtune.fm.hyperparameters import Hyperparameters

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: (1.0 + math.cos(math.pi * t)) / 2.0,
}


def moves(h: Hyperparameters) -> bool:
    """Return whether rates change at all; ftrl's must not: its parameters are a function of sums that hold the rate."""
    return h.optimizer != "ftrl" and (h.lr_schedule != "constant" or h.lr_warmup > 0)


def factor(h: Hyperparameters, epoch: int) -> float:
    """Return the factor of all rates in an epoch, 0-based; above 0 in each."""
    if epoch < h.lr_warmup:
        return (epoch + 1) / (h.lr_warmup + 1)
    return SCHEDULES[h.lr_schedule]((epoch - h.lr_warmup) / max(1, h.epochs - h.lr_warmup))
