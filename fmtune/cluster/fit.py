"""Fit: local SGD over a cluster: parts train a block each from the same state, then every feature moves by their mean.

A :class:`Training` is one model under way on a crew; :func:`fit` takes one to its end, and
:class:`fmtune.cluster.trainer.OnCluster` lets a study drive them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fmtune.cluster.crew import Crew
from fmtune.cluster.engine import Engine, Lost
from fmtune.cluster.layout import Layout
from fmtune.cluster.shard import Shard
from fmtune.cluster.worker import Done
from fmtune.errors import ResourceError, UsageError
from fmtune.fm.arena import initial
from fmtune.fm.fit import Diverged, best_epoch, default_objective
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS, evaluate
from fmtune.fm.model import Model
from fmtune.fm.pack import Stopped, score
from fmtune.kernels.rules import RULES
from fmtune.rows import Rows

Float32 = NDArray[np.float32]
Listener = Callable[[dict[str, Any]], None]
T = TypeVar("T")

# Failures in a row, with no round done in between, after which it is not the machines.
_PATIENCE = 5


@dataclass(frozen=True, eq=False)
class ClusterFit:
    """What a training came to: as ``fmtune.fm.fit.Fit``, and what the exchange took of the workers' time and bytes."""

    model: Model
    curve: tuple[float, ...]
    best_epoch: int
    epochs: int
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
    if h.patience:
        raise UsageError("a cluster trains without patience", hint="leave it out; a study's trials may have it")
    crew = Crew(engine, train.to_sparse(), h, layout)
    training = Training(crew, h, folder, listener)
    try:
        return _fit(training, test, listener)
    finally:
        training.close()
        crew.close()


def _fit(training: Training, test: Rows | None, listener: Listener) -> ClusterFit:
    h = training.h
    metric, curve = METRICS[default_objective(h.predictor_type)], []
    for _ in range(h.epochs):
        training.epoch()
        if test is not None:
            curve.append(metric.compute(score(training.model(), test), _labels(test)))
            listener({"event": "epoch", "epoch": len(curve), "value": curve[-1]})
    model = training.model()
    if not (np.isfinite(model.factors).all() and np.isfinite(model.linear).all() and math.isfinite(model.bias)):
        raise Diverged(h.epochs)
    metrics = {} if test is None else evaluate(score(model, test), _labels(test), h.predictor_type)
    return ClusterFit(
        model, tuple(curve), best_epoch(curve, metric.direction) or h.epochs, h.epochs, metrics,
        sum(d.train_seconds for d in training.done), sum(d.exchange_seconds for d in training.done),
        sum(d.bytes for d in training.done),
    )  # fmt: skip


class Training:
    """One model under way on a crew: its shards, what the driver keeps of it, and how far it is.

    Parameters
    ----------
    crew
        Who trains.
    h
        The configuration.
    folder
        Where its checkpoints lie, and those of no other model.
    listener
        Called after each round.
    """

    def __init__(
        self, crew: Crew, h: Hyperparameters, folder: Path, listener: Listener = lambda event: None
    ) -> None:  # fmt: skip
        self.crew, self.engine, self.h, self.folder, self.listener = crew, crew.engine, h, folder, listener
        self.bias = np.zeros(1 + RULES[h.optimizer].states, np.float32)
        initial(h, "bias", self.bias[:1, None])
        self.steps = [0] * crew.layout.parts
        self.shards = [self._shard(i) for i in range(crew.layout.shards)]
        self.done: list[Done] = []
        self.round = self._failures = 0
        self.older = -1
        self.kept: tuple[int, Float32, list[int]] = (0, self.bias.copy(), list(self.steps))

    def _shard(self, i: int, round: int = 0) -> Any:
        edges = self.crew.edges
        return self.engine.make(Shard, self.h, int(edges[i]), int(edges[i + 1]), self.folder, round)

    def epoch(self, stop: Callable[[], bool] | None = None) -> None:
        """Train one pass over the rows, and keep a checkpoint.

        Raises
        ------
        Stopped
            ``stop``, asked between rounds, said so.
        """
        goal = self.kept[0] + self.crew.rounds
        self._surely(lambda: self._until(goal, stop))

    def model(self) -> Model:
        """Return the model as it stands after the last epoch."""
        return self._surely(self._model)

    def close(self) -> None:
        """End the shards, and drop the checkpoints."""
        for shard in self.shards:
            self.engine.end(shard)
        for file in self.folder.glob("*.shard"):
            file.unlink(missing_ok=True)

    def _surely(self, work: Callable[[], T]) -> T:
        """Do something, again after each death."""
        while True:
            try:
                return work()
            except Lost as error:
                self._failures += 1
                if self._failures > _PATIENCE:
                    raise ResourceError("processes of the cluster die again and again",
                                        hint="see Ray's logs: their machines may lack memory") from error  # fmt: skip
                self._mend()

    def _until(self, goal: int, stop: Callable[[], bool] | None) -> None:
        while self.round < goal:
            if stop is not None and stop():
                raise Stopped
            self._round(self.round % self.crew.rounds)
            self.round, self._failures = self.round + 1, 0
            self.listener({"event": "round", "round": self.round, "of": self.h.epochs * self.crew.rounds})
        self._checkpoint()

    def _round(self, piece: int) -> None:
        """Let every part that has rows left train its block, then merge."""
        call, wait = self.engine.call, self.engine.wait
        parts = self.crew.at(piece)
        done: list[Done] = wait([
            call(worker, "train", self.h, (part, piece), self.shards, self.bias, self.steps[part])
            for part, worker in parts.items()
        ])  # fmt: skip
        wait([call(shard, "merge") for shard in self.shards])
        self.bias = self.bias + np.mean([d.bias - self.bias for d in done], axis=0, dtype=np.float32)
        for part, one in zip(parts, done, strict=True):
            self.steps[part] = one.steps
        self.done += done

    def _checkpoint(self) -> None:
        # The last one goes when all have the next; a shard may die on the way.
        self.engine.wait([self.engine.call(shard, "save", self.round, self.older) for shard in self.shards])
        self.older = self.kept[0]
        self.kept = (self.round, self.bias.copy(), list(self.steps))

    def _mend(self) -> None:
        """Replace who died, and go back to the last checkpoint, or to the beginning."""
        self.crew.mend()
        lost = [i for i, shard in enumerate(self.shards) if not self.engine.lives(shard)]
        self.listener({"event": "mended", "round": self.round, "shards": len(lost)})
        # A merge may be half done: some shards have moved, others not.
        self.round, self.bias, self.steps = self.kept[0], self.kept[1].copy(), list(self.kept[2])
        for i in range(len(self.shards)):
            if i in lost or not self.round:
                self.shards[i] = self._shard(i, self.round)
        if self.round:
            self.engine.wait([self.engine.call(shard, "restore", self.round) for shard in self.shards])

    def _model(self) -> Model:
        rows = np.concatenate(self.engine.wait([self.engine.call(s, "parameters") for s in self.shards]))
        linear, factors = np.ascontiguousarray(rows[:, -1]), np.ascontiguousarray(rows[:, :-1])
        return Model(self.h.predictor_type, float(self.bias[0]), linear, factors)


def _labels(rows: Rows) -> Float32:
    assert rows.labels is not None
    return rows.labels
