"""Layout: how a cluster spreads a training, and which configurations it can train at all."""

from __future__ import annotations

from dataclasses import dataclass

from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.schedule import moves


@dataclass(frozen=True)
class Layout:
    """How a training is spread.

    Attributes
    ----------
    workers, shards : int
        Processes; the model does not depend on them.
    parts : int
        Pieces of the train channel that train side by side; the model depends on it.
    block : int
        Rows that a part trains on between two exchanges.
    half : bool
        Whether changes travel as float16.
    """

    workers: int = 2
    shards: int = 1
    parts: int = 6
    block: int = 6000
    half: bool = False


# What decides whether a configuration can be trained.
BOUND = ("solver", "lazy", "shuffle", "lr_schedule", "lr_warmup", "average_last")


def unfit(h: Hyperparameters) -> str | None:
    """Return why a cluster does not train a configuration, or None."""
    if h.solver != "sgd":
        return f"a cluster trains with solver sgd, not {h.solver}"
    if not h.lazy:
        return "a cluster trains with lazy updates"
    if h.shuffle == "epoch":
        return "a cluster shuffles once, or not at all"
    if moves(h):
        return "a cluster knows no schedule of learning rates"
    return "a cluster knows no average of epochs" if h.average_last > 1 else None
