"""Budget: what a study's lanes and kept mini-batches may take of this machine's memory.

Without ``memory`` in the study file it follows from what is free: half of that for lanes, a third for mini-batches.
With it, packs are counted with the second place that lanes are copied to when one of them enters or leaves.  They may
take two thirds, more where mini-batches leave more or a single trial needs it, and never more than all lanes would;
mini-batches are kept in the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import PARAMETERS, Hyperparameters
from fmtune.fm.pack import bytes_of
from fmtune.fm.solvers import solver_of
from fmtune.kernels.rules import RULES
from fmtune.machine import free_memory
from fmtune.tune.spec import Spec

# Places of a lane at most: its own, and the one that it is copied to.
PLACES = 2


class Budget(NamedTuple):
    """Bytes that may be taken.

    Attributes
    ----------
    lanes : float
        By lanes that train, as :func:`fmtune.fm.solvers.memory_of` counts them.
    batches : float
        By mini-batches that are kept.
    lane : int
        What the largest lane of the study takes.
    """

    lanes: float
    batches: float
    lane: int

    def at_once(self, lanes: int, seeds: int) -> int:
        """Return how many of a study's lanes train at once where all are the largest: whole trials, none at the least.

        Parameters
        ----------
        lanes, seeds
            How many train at once at most, and how many a trial has.
        """
        return min(lanes, int(self.lanes // (self.lane * seeds)) * seeds)


def budget(spec: Spec, feed: Feed, lanes: int) -> Budget:
    """Return what a study of so many lanes may take here, which is never more than a share of what is free.

    Parameters
    ----------
    feed
        The train channel; ``feed.memory`` is what it may keep by default.
    lanes
        How many train at once at most.
    """
    h, free = largest(spec), free_memory()
    lane = max(solver_of(solver).memory(h, feed.feature_dim, feed.n) for solver in spec.solvers)
    if spec.memory is None:
        return Budget(free / 2, feed.memory, lane)
    kept = max(feed.need(Recipe.of(h, cell.layout)) for cell in spec.matrix.cells)
    most, least = (PLACES * lane * many for many in (lanes, spec.seeds))
    packs = min(spec.memory, max(least, min(most, max(spec.memory * 2 / 3, spec.memory - kept))))
    return Budget(min(packs / PLACES, free / 2), min(spec.memory - packs, feed.memory), lane)


def largest(spec: Spec) -> Hyperparameters:
    """Return the configuration of a study that needs the most memory."""
    values: dict[str, Any] = dict(spec.hyperparameters)
    dimension = spec.search_space.get("num_factors")
    if dimension is not None:
        values["num_factors"] = max(int(v) for v in dimension.choices or (dimension.high,))  # type: ignore[arg-type]
    rules = [rule for rule in _optimizers(spec) if rule in RULES]
    return max((Hyperparameters.of({**values, "optimizer": rule}) for rule in rules), key=lambda h: bytes_of(h, 1))


def _optimizers(spec: Spec) -> list[str]:
    dimension = spec.search_space.get("optimizer")
    if dimension is not None:
        return [str(choice) for choice in dimension.choices or ()]
    return [str(spec.hyperparameters.get("optimizer", PARAMETERS["optimizer"].default))]
