"""Fit: local SGD over a cluster: parts train a block each from the same state, then every feature moves by their mean.

The rows are cut into ``parts`` once.  What a part does in a round depends on the state before the round and on its
rows, not on the worker that does it; and changes are summed in the parts' order.  So the model depends on ``parts``
and ``block``, and not on how many workers there are, how fast they are, or which of them died.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.cluster.engine import Engine, Lost
from fmtune.cluster.shard import Shard, bounds
from fmtune.cluster.worker import Done, Worker
from fmtune.errors import ResourceError, UsageError
from fmtune.fm.arena import initial
from fmtune.fm.fit import Diverged, default_objective
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS, evaluate
from fmtune.fm.model import Model
from fmtune.fm.pack import score
from fmtune.fm.schedule import moves
from fmtune.kernels.rules import RULES
from fmtune.rows import Rows, SparseRows

Float32 = NDArray[np.float32]
Listener = Callable[[dict[str, Any]], None]

# Failures in a row, with no round done in between, after which it is not the machines.
_PATIENCE = 5


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


@dataclass(frozen=True, eq=False)
class ClusterFit:
    """What a training came to: as ``fmtune.fm.fit.Fit``, and what the exchange took of the workers' time and bytes."""

    model: Model
    curve: tuple[float, ...]
    best_epoch: int
    metrics: dict[str, float]
    train_seconds: float
    exchange_seconds: float
    bytes: int


def fit(
    engine: Engine, train: Rows, test: Rows | None, h: Hyperparameters, layout: Layout, folder: Path,
    listener: Listener = lambda event: None,
) -> ClusterFit:  # fmt: skip
    """Train one model on a cluster.

    Parameters
    ----------
    engine
        Where shards and workers live.
    train, test
        Sparse rows with labels.
    h
        The configuration; ``mini_batch_size`` is each part's own.
    layout
        How it is spread.
    folder
        Where checkpoints lie, one an epoch; all machines must reach it.
    listener
        Called after each round and each epoch.

    Raises
    ------
    UsageError
        The configuration cannot be trained this way.
    ResourceError
        Processes die again and again.
    Diverged
        The parameters are no longer finite.
    """
    if h.solver != "sgd" or not h.lazy or h.shuffle == "epoch" or h.patience or moves(h) or h.average_last > 1:
        raise UsageError("a cluster trains with solver sgd, lazy updates, shuffle once or none, and without patience, "
                         "a schedule of rates or an average of epochs")  # fmt: skip
    return _Training(engine, train.to_sparse(), h, layout, folder, listener).run(test)


class _Training:
    """One call of :func:`fit`."""

    def __init__(
        self, engine: Engine, train: SparseRows, h: Hyperparameters, layout: Layout, folder: Path, listener: Listener
    ) -> None:  # fmt: skip
        self.engine, self.h, self.layout, self.folder, self.listener = engine, h, layout, folder, listener
        self.edges = bounds(train.feature_dim, layout.shards)
        self.blocks = _blocks(train, h, layout)
        self.rounds = max(len(blocks) for blocks in self.blocks)
        self.bias = np.zeros(1 + RULES[h.optimizer].states, np.float32)
        initial(h, "bias", self.bias[:1, None])
        self.steps = [0] * layout.parts
        self.shards = [self._shard(i) for i in range(layout.shards)]
        self.workers = [self._worker(i) for i in range(layout.workers)]
        self.done: list[Done] = []
        self.older = -1
        self.kept: tuple[int, Float32, list[int]] = (0, self.bias.copy(), list(self.steps))

    def _shard(self, i: int, round: int = 0) -> Any:
        return self.engine.make(Shard, self.h, int(self.edges[i]), int(self.edges[i + 1]), self.folder, round)

    def _worker(self, i: int) -> Any:
        made = self.engine.make(Worker, self.engine, self.h, self.edges, self.layout.half)
        mine = [part for part in range(self.layout.parts) if part % self.layout.workers == i]
        self.engine.wait([self.engine.call(made, "take", part, self.blocks[part]) for part in mine])
        return made

    def run(self, test: Rows | None) -> ClusterFit:
        curve: list[float] = []
        metric = METRICS[default_objective(self.h.predictor_type)]
        total, round, failures = self.h.epochs * self.rounds, 0, 0
        while round < total:
            try:
                self._round(round % self.rounds)
                round, failures = round + 1, 0
                self.listener({"event": "round", "round": round, "of": total})
                if round % self.rounds == 0:
                    self._checkpoint(round)
                    if test is not None and len(curve) < round // self.rounds:
                        curve.append(metric.compute(score(self.model(), test), _labels(test)))
                        self.listener({"event": "epoch", "epoch": len(curve), "value": curve[-1]})
            except Lost as error:
                failures += 1
                if failures > _PATIENCE:
                    raise ResourceError("processes of the cluster die again and again",
                                        hint="see Ray's logs: their machines may lack memory") from error  # fmt: skip
                round = self._mend(round)
        model = self.model()
        if not (np.isfinite(model.factors).all() and np.isfinite(model.linear).all() and math.isfinite(model.bias)):
            raise Diverged(self.h.epochs)
        metrics = {} if test is None else evaluate(score(model, test), _labels(test), self.h.predictor_type)
        return ClusterFit(
            model, tuple(curve), self.h.epochs, metrics, sum(d.train_seconds for d in self.done),
            sum(d.exchange_seconds for d in self.done), sum(d.bytes for d in self.done),
        )  # fmt: skip

    def _round(self, piece: int) -> None:
        """Let every part that has rows left train its block, then merge."""
        call, wait = self.engine.call, self.engine.wait
        parts = [part for part, blocks in enumerate(self.blocks) if piece < len(blocks)]
        workers = [self.workers[part % self.layout.workers] for part in parts]
        done: list[Done] = wait([
            call(worker, "train", part, piece, self.shards, self.bias, self.steps[part])
            for worker, part in zip(workers, parts, strict=True)
        ])  # fmt: skip
        wait([call(shard, "merge") for shard in self.shards])
        self.bias = self.bias + np.mean([d.bias - self.bias for d in done], axis=0, dtype=np.float32)
        for part, one in zip(parts, done, strict=True):
            self.steps[part] = one.steps
        self.done += done

    def _checkpoint(self, round: int) -> None:
        # The last one goes when all have the next; a shard may die on the way.
        self.engine.wait([self.engine.call(shard, "save", round, self.older) for shard in self.shards])
        self.older = self.kept[0]
        self.kept = (round, self.bias.copy(), list(self.steps))

    def _mend(self, round: int) -> int:
        """Replace who died and return the round to go on with: this one, or if a shard died the last checkpoint's."""
        self.workers = [w if self.engine.lives(w) else self._worker(i) for i, w in enumerate(self.workers)]
        lost = [i for i, shard in enumerate(self.shards) if not self.engine.lives(shard)]
        self.listener({"event": "mended", "round": round, "shards": len(lost)})
        # A merge may be half done: some shards have moved, others not.
        at, self.bias, self.steps = self.kept[0], self.kept[1].copy(), list(self.kept[2])
        for i in range(len(self.shards)):
            if i in lost or not at:
                self.shards[i] = self._shard(i, at)
        if at:
            self.engine.wait([self.engine.call(shard, "restore", at) for shard in self.shards])
        return at

    def model(self) -> Model:
        """Return the model as it stands."""
        rows = np.concatenate(self.engine.wait([self.engine.call(s, "parameters") for s in self.shards]))
        linear, factors = np.ascontiguousarray(rows[:, -1]), np.ascontiguousarray(rows[:, :-1])
        return Model(self.h.predictor_type, float(self.bias[0]), linear, factors)


def _blocks(train: SparseRows, h: Hyperparameters, layout: Layout) -> list[list[SparseRows]]:
    """Return each part's rows, cut into blocks; shuffled once unless the configuration says not to."""
    n = train.n
    order = np.arange(n) if h.shuffle == "none" else np.random.default_rng(h.shuffle_seed).permutation(n)
    parts = [order[part :: layout.parts] for part in range(layout.parts)]
    return [[train.take(own[a : a + layout.block]) for a in range(0, len(own), layout.block)] for own in parts]


def _labels(rows: Rows) -> Float32:
    assert rows.labels is not None
    return rows.labels
