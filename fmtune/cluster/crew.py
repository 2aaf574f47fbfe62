"""Crew: the workers of a cluster, with the rows of all parts; they train one model after the other.

The rows are cut into ``parts`` once.  What a part does in a round depends on the state before the round and on its
rows, not on the worker that does it; and changes are summed in the parts' order.  So a model depends on ``parts``
and ``block``, and not on how many workers there are, how fast they are, or which of them died.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fmtune.cluster.engine import Engine
from fmtune.cluster.layout import Layout, unfit
from fmtune.cluster.shard import Ids, bounds
from fmtune.cluster.worker import Worker
from fmtune.errors import UsageError
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.rows import SparseRows


class Crew:
    """Workers that hold the rows, and are replaced when they die.

    Parameters
    ----------
    engine
        Where they live.
    train
        The rows, with labels.
    h
        A configuration; its order of rows is that of all models.
    layout
        How a training is spread.

    Raises
    ------
    UsageError
        The configuration cannot be trained this way.
    """

    def __init__(self, engine: Engine, train: SparseRows, h: Hyperparameters, layout: Layout) -> None:
        if (why := unfit(h)) is not None:
            raise UsageError(why, hint="leave the cluster out, or that setting")
        self.engine, self.layout = engine, layout
        self.edges: Ids = bounds(train.feature_dim, layout.shards)
        self.blocks = _blocks(train, h, layout)
        self.rounds = max(len(blocks) for blocks in self.blocks)
        self.workers = [self._worker(i) for i in range(layout.workers)]

    def _worker(self, i: int) -> Any:
        made = self.engine.make(Worker, self.engine, self.edges, self.layout.half)
        mine = [part for part in range(self.layout.parts) if part % self.layout.workers == i]
        self.engine.wait([self.engine.call(made, "take", part, self.blocks[part]) for part in mine])
        return made

    def at(self, piece: int) -> dict[int, Any]:
        """Return the parts that have such a piece, each with the worker that trains it."""
        parts = (part for part, blocks in enumerate(self.blocks) if piece < len(blocks))
        return {part: self.workers[part % self.layout.workers] for part in parts}

    def mend(self) -> None:
        """Replace the workers that died."""
        self.workers = [w if self.engine.lives(w) else self._worker(i) for i, w in enumerate(self.workers)]

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            self.engine.end(worker)


def _blocks(train: SparseRows, h: Hyperparameters, layout: Layout) -> list[list[SparseRows]]:
    """Return each part's rows, cut into blocks; shuffled once unless the configuration says not to."""
    n = train.n
    order = np.arange(n) if h.shuffle == "none" else np.random.default_rng(h.shuffle_seed).permutation(n)
    parts = [order[part :: layout.parts] for part in range(layout.parts)]
    return [[train.take(own[a : a + layout.block]) for a in range(0, len(own), layout.block)] for own in parts]
