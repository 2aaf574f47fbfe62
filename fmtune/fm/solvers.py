"""Solvers: how a model is trained; one table, and what trains for all of them.

``SOLVERS`` is the one table.  To add a solver: write a file with a class that has :class:`Trainer`'s few methods,
give it a row here, and name it among the choices of ``PARAMETERS["solver"]``; the contract test runs over the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from fmtune.fm.als import Als
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.mcmc import Mcmc, kept_at_most
from fmtune.fm.model import Model
from fmtune.fm.pack import Float32, Lane, Pack, bytes_of
from fmtune.fm.sweeps import EIGHT
from fmtune.rows import DenseRows, Rows


class Trainer(Protocol):
    """Models of one recipe, trained side by side: what fits and studies know of a solver.

    An epoch is a pass or a sweep.  What a lane comes to depends on its own configuration and on the data alone.
    """

    recipe: Recipe
    lanes: list[Lane]
    seconds: float

    def change(self, leave: Sequence[Lane] = (), enter: Sequence[Hyperparameters] = ()) -> list[Lane]: ...
    def epoch(self, stop: Callable[[], bool] | None = None) -> Any: ...
    def score(self, rows: Rows) -> Float32: ...
    def model(self, lane: Lane, **facts: object) -> Model: ...


class Solver(NamedTuple):
    """One row of ``SOLVERS``.

    Attributes
    ----------
    make
        Returns a trainer of the train channel, the recipe and how many threads one pass may take.
    memory
        Bytes that a lane takes, of its configuration and the train channel's features and rows.
    models
        How many models' parameters a trained one holds, at most.
    """

    make: Callable[[Feed, Recipe, int], Trainer]
    memory: Callable[[Hyperparameters, int, int], int]
    models: Callable[[Hyperparameters, int], int]


def _one(h: Hyperparameters, feature_dim: int) -> int:
    return 1


def _kept(h: Hyperparameters, feature_dim: int) -> int:
    return kept_at_most(h.num_factors, feature_dim)


def _state(h: Hyperparameters, feature_dim: int, rows: int) -> int:
    """Return the bytes of parameters in float64, residuals and sums."""
    return 8 * feature_dim * (1 + -(-h.num_factors // EIGHT) * EIGHT) + (8 + 4 * EIGHT) * rows


def _sampled(h: Hyperparameters, feature_dim: int, rows: int) -> int:
    # Draws are kept once as they are, and once in the model that is made of them.
    return _state(h, feature_dim, rows) + 8 * rows + 8 * feature_dim * (h.num_factors + 1) * _kept(h, feature_dim)


SOLVERS = {
    "sgd": Solver(lambda feed, recipe, threads: Pack(feed, recipe), lambda h, d, n: bytes_of(h, d), _one),
    "als": Solver(Als, _state, _one),
    "mcmc": Solver(Mcmc, _sampled, _kept),
}


Make = Callable[[Feed, Recipe, int], Trainer]
"""What makes a trainer: of the train channel, the recipe, and how many threads one pass may take."""


def trainer(feed: Feed, recipe: Recipe, threads: int = 1) -> Trainer:
    """Return what trains lanes of a recipe."""
    return SOLVERS[recipe.solver].make(feed, recipe, threads)


def memory_of(h: Hyperparameters, feed: Feed) -> int:
    """Return the bytes that a lane takes while it trains."""
    return SOLVERS[h.solver].memory(h, feed.feature_dim, feed.n)


def model_bytes(h: Hyperparameters, feature_dim: int) -> int:
    """Return the bytes of a trained model's parameters, at most."""
    return 4 * ((h.num_factors + 1) * feature_dim + 1) * SOLVERS[h.solver].models(h, feature_dim)


def compile_kernels(layout: str, solver: str = "sgd", device: str = "cpu") -> float:
    """Load a layout's and a solver's kernels, or compile them where that was never done; returns the seconds it took.

    Called before anything is timed, so that a rate never holds a compilation.
    """
    began = time.perf_counter()
    rows = DenseRows(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), 2)
    for kind in ("regressor", "binary_classifier"):
        h = Hyperparameters(predictor_type=kind, solver=solver, num_factors=1, mini_batch_size=2)
        made = trainer(Feed(rows), Recipe.of(h, layout, device))
        made.change(enter=[h])
        made.epoch()
        made.score(rows if layout == "dense" else rows.to_sparse())
    return time.perf_counter() - began
