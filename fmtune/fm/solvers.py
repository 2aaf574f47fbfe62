"""Solvers: how a model is trained, and what trains for all of them.

``fmtune.fm.hyperparameters.SOLVERS`` is the one table.  To add a solver: write a file with a class that has
:class:`Solver`'s few methods, and give it a row there; the contract test runs over the table.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import SOLVERS, Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import Float32, Lane
from fmtune.kernels import random, tiles
from fmtune.kernels.rules import RULES
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


class Solver(Trainer, Protocol):
    """What a row of ``SOLVERS`` names: a trainer that says beforehand what it takes."""

    @classmethod
    def of(cls, feed: Feed, recipe: Recipe, threads: int) -> Trainer:
        """Return a trainer on a train channel, a pass of which may take so many threads."""

    @staticmethod
    def memory(h: Hyperparameters, feature_dim: int, rows: int) -> int:
        """Return the bytes that a lane takes while it trains."""

    @staticmethod
    def models(h: Hyperparameters, feature_dim: int) -> int:
        """Return how many models' parameters a trained one holds, at most."""


def solver_of(name: str) -> type[Solver]:
    """Return a solver's class."""
    module, _, kind = SOLVERS[name].partition(":")
    found: type[Solver] = getattr(importlib.import_module(module), kind)
    return found


Make = Callable[[Feed, Recipe, int], Trainer]
"""What makes a trainer: of the train channel, the recipe, and how many threads one pass may take."""


def trainer(feed: Feed, recipe: Recipe, threads: int = 1) -> Trainer:
    """Return what trains lanes of a recipe."""
    return solver_of(recipe.solver).of(feed, recipe, threads)


def memory_of(h: Hyperparameters, feed: Feed) -> int:
    """Return the bytes that a lane takes while it trains."""
    return solver_of(h.solver).memory(h, feed.feature_dim, feed.n)


def model_bytes(h: Hyperparameters, feature_dim: int) -> int:
    """Return the bytes of a trained model's parameters, at most."""
    return 4 * ((h.num_factors + 1) * feature_dim + 1) * solver_of(h.solver).models(h, feature_dim)


def wake() -> None:
    """Have numba build its tables, which its first kernel of a process pays for."""
    random.fill(np.empty((1, 1), np.float32), random.CONSTANT, 0.0, 0.0, 0, 0)


def compile_kernels(
    layout: str, solver: str = "sgd", device: str = "cpu", optimizers: Iterable[str] = (), exact: bool = True
) -> float:  # fmt: skip
    """Load a layout's and a solver's kernels, or compile them where that was never done; returns the seconds it took.

    Called before anything is timed, so that a rate never holds a compilation.

    Parameters
    ----------
    layout, solver, device
        Whose kernels.
    optimizers
        Those that will be asked for: rules whose factors share their state have kernels of their own.
    exact
        False if ``exact: false`` will be asked for, which has others too.
    """
    began = time.perf_counter()
    rows = DenseRows(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), 2)
    # Of rules that share kernels one is enough; a mini-batch of fewer rows than a vector has is always exact.
    rules = {RULES[name].rowwise: name for name in (*optimizers, Hyperparameters().optimizer)}.values()
    for kind, rule, whole in itertools.product(("regressor", "binary_classifier"), rules, {True, exact}):
        h = Hyperparameters(predictor_type=kind, solver=solver, num_factors=1, mini_batch_size=2, optimizer=rule)
        if not whole:
            h = h.replace(exact=False, mini_batch_size=tiles.WIDTH)
        made = trainer(Feed(rows), Recipe.of(h, layout, device))
        made.change(enter=[h])
        made.epoch()
        made.score(rows if layout == "dense" else rows.to_sparse())
    return time.perf_counter() - began
