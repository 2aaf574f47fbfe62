"""Worker: trains one part's rows of one round on its own copies of the touched features, and pushes the changes."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.cluster.engine import Engine
from fmtune.cluster.shard import Block, Changes
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.pack import Pack
from fmtune.rows import SparseRows

Float32 = NDArray[np.float32]
Ids = NDArray[np.int64]


_PLAIN = {"factors_init_method": "constant", "linear_init_method": "constant", "bias_init_method": "constant"}


class Done(NamedTuple):
    """What a part did in a round: its bias row (planes,) and steps after it, and where the time went."""

    bias: Float32
    steps: int
    rows: int
    train_seconds: float
    exchange_seconds: float
    bytes: int


class _Piece(NamedTuple):
    """One part's rows of one round, with features numbered by place in ``ids``."""

    feed: Feed
    ids: Ids


class Worker:
    """Runs rounds of parts; it keeps their rows and nothing that matters: any worker can run any part's round.

    Parameters
    ----------
    engine
        Reaches the shards.
    edges
        Where shards begin, and the end.
    half
        Whether changes are sent as float16.
    """

    def __init__(self, engine: Engine, edges: Ids, half: bool) -> None:
        self._engine, self._edges, self._half = engine, edges, half
        self._parts: dict[int, list[_Piece]] = {}

    def take(self, part: int, rows: list[SparseRows]) -> None:
        """Take a part's rows, a block a round."""
        self._parts[part] = [_piece(block) for block in rows]

    def train(self, h: Hyperparameters, block: Block, shards: list[Any], bias: Float32, steps: int) -> Done:
        """Pull, train one pass over a block, push.

        Parameters
        ----------
        h
            The configuration; ``mini_batch_size`` is a part's own.
        block
            Which rows.
        shards
            Handles of the model's shards.
        bias, steps
            The bias row (planes,), and how many mini-batches the part did before.
        """
        began = time.perf_counter()
        feed, ids = self._parts[block[0]][block[1]]
        cuts = np.searchsorted(ids, self._edges)
        each = [ids[a:b] for a, b in itertools.pairwise(cuts)]
        spans = [slice(a, b) for a, b in itertools.pairwise(cuts)]
        before = self._pull(block, shards, each)
        # First values come from the shards, and the order of rows from the driver.
        plain = h.replace(shuffle="none", **_PLAIN)
        pack = Pack(feed, Recipe.of(plain, "sparse"))
        pack.change(enter=[plain])
        state = pack.state()
        state.bias[:, 0], state.steps[0] = bias, steps
        for span, own in zip(spans, before, strict=True):
            state.rows[span] = own
        pack.epoch()
        for span, own in zip(spans, before, strict=True):
            np.subtract(state.rows[span], own, out=state.rows[span])
        sent = sum(self._engine.wait([
            self._engine.call(s, "push", block, Changes.of(state.rows[span], self._half))
            for s, span in zip(shards, spans, strict=True)
        ]))  # fmt: skip
        moved = sent + sum(own.nbytes for own in before)
        # All that one process would not do: moving parameters, and making room for them.
        exchange = time.perf_counter() - began - pack.seconds
        return Done(state.bias[:, 0].copy(), int(state.steps[0]), feed.n, pack.seconds, exchange, moved)

    def _pull(self, block: Block, shards: list[Any], each: list[Ids]) -> list[Float32]:
        """Return a block's rows from all shards; those that are new to it learn its features."""
        found = self._engine.wait([self._engine.call(shard, "pull", block) for shard in shards])
        new = [i for i, rows in enumerate(found) if rows is None]
        taught = self._engine.wait([self._engine.call(shards[i], "pull", block, each[i]) for i in new])
        for i, rows in zip(new, taught, strict=True):
            found[i] = rows
        return found


def _piece(rows: SparseRows) -> _Piece:
    ids, places = np.unique(rows.indices, return_inverse=True)
    own = replace(rows, indices=places.astype(rows.indices.dtype), feature_dim=len(ids))
    return _Piece(Feed(own), ids.astype(np.int64))
