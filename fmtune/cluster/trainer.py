"""Trainer on a cluster: what a study drives in a pack's place; each of its lanes is a training of its own."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmtune.cluster.crew import Crew
from fmtune.cluster.engine import Engine
from fmtune.cluster.fit import Training
from fmtune.cluster.layout import Layout
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import Lane, score
from fmtune.rows import Rows, SparseRows


class Trainers:
    """Makes trainers on one cluster; models that see the rows in the same order share its workers.

    Parameters
    ----------
    engine
        Where shards and workers live.
    train
        The rows.
    layout
        How a training is spread.
    folder
        Where checkpoints lie; all machines must reach it.
    """

    def __init__(self, engine: Engine, train: SparseRows, layout: Layout, folder: Path) -> None:
        self._engine, self._train, self._layout, self._folder = engine, train, layout, folder
        self._order: tuple[str, int] | None = None
        self._crew: Crew | None = None
        self._numbers = itertools.count()

    def __call__(self, feed: Feed, recipe: Recipe, threads: int = 1) -> OnCluster:
        """Return a trainer, as ``fmtune.fm.solvers.trainer`` does; its rows lie with the workers already."""
        return OnCluster(recipe, self._begin)

    def close(self) -> None:
        """End the workers, leave the cluster, and drop the folder."""
        if self._crew is not None:
            self._crew.close()
        self._engine.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, h: Hyperparameters) -> Training:
        order = (h.shuffle, h.shuffle_seed)
        if self._crew is None or order != self._order:
            if self._crew is not None:
                self._crew.close()
            self._crew, self._order = Crew(self._engine, self._train, h, self._layout), order
        folder = self._folder / str(next(self._numbers))
        folder.mkdir(parents=True, exist_ok=True)
        return Training(self._crew, h, folder)


class OnCluster:
    """Lanes that are trained one after the other, each by all workers; see ``fmtune.fm.solvers.Trainer``."""

    def __init__(self, recipe: Recipe, begin: Callable[[Hyperparameters], Training]) -> None:
        self.recipe, self._begin = recipe, begin
        self.lanes: list[Lane] = []
        self.seconds = 0.0
        self._trainings: dict[int, Training] = {}

    def change(self, leave: Sequence[Lane] = (), enter: Sequence[Hyperparameters] = ()) -> list[Lane]:
        """Take lanes out and put new ones in; returns the new ones."""
        for lane in leave:
            self._trainings.pop(id(lane)).close()
        new = [Lane(h) for h in enter]
        self._trainings.update((id(lane), self._begin(lane.hyperparameters)) for lane in new)
        self.lanes = [lane for lane in self.lanes if lane not in leave] + new
        return new

    def epoch(self, stop: Callable[[], bool] | None = None) -> None:
        """Train every lane on one pass."""
        began = time.perf_counter()
        for lane in self.lanes:
            self._trainings[id(lane)].epoch(stop)
            lane.epochs += 1
        self.seconds = time.perf_counter() - began

    def score(self, rows: Rows) -> NDArray[np.float32]:
        """Return raw scores, float32 (lanes, rows)."""
        return np.stack([score(self._trainings[id(lane)].model(), rows) for lane in self.lanes])

    def model(self, lane: Lane, **facts: object) -> Model:
        """Return a lane's model."""
        return replace(self._trainings[id(lane)].model(), facts=facts)
