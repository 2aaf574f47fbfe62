"""Sweeps: what coordinate descent and Gibbs sampling share: lanes with a pack's interface, and one chain's state.

An epoch is a sweep: every parameter is moved once, given all others.  Lanes share the columns of the train
channel; each is a :class:`Chain` of its own.  Rows of either layout are taken; the sweeps go over sparse columns.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import UsageError
from fmtune.fm.blas import one_thread
from fmtune.fm.feed import ByColumn, Feed, Recipe, weighed
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import Lane, Stopped
from fmtune.kernels import columns as kernels
from fmtune.kernels import random
from fmtune.rows import Rows

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Stop = Callable[[], bool] | None

EIGHT = kernels.EIGHT
# Standard deviation of the first factors, libFM's; sgd's smaller one would begin at a saddle point.
_SPREAD = 0.1
# Non-zeros between two looks at the stop flag, and below which a second thread does not pay.
_CHUNK, _SHARE = 4_000_000, 200_000


class Step(NamedTuple):
    """How one sweep moves parameters: a label's precision, and the key of its draws (None: take the minimum)."""

    precision: float
    key: int | None


class Chain:
    """The state of one lane, in float64: parameters, of columns as they are divided, and residuals.

    Parameters
    ----------
    hyperparameters
        The configuration.
    data
        The train channel by columns.
    logistic
        Whether the loss is log loss; else labels are fitted by least squares.
    centre, scale
        Labels are taken less ``centre`` and over ``scale``; a model is given in their own units.
    """

    def __init__(
        self, hyperparameters: Hyperparameters, data: ByColumn, *, logistic: bool = False, centre: float = 0.0,
        scale: float = 1.0,
    ) -> None:  # fmt: skip
        h = self.hyperparameters = hyperparameters
        d, n = data.feature_dim, len(data.labels)
        self.data, self.centre, self.scale, self.sweeps = data, centre, scale, 0
        self.bias, self.linear = 0.0, np.zeros(d)
        first = np.empty((d, h.num_factors), np.float32)
        random.fill(first, random.NORMAL, _SPREAD, 0.0, h.seed, random.FACTORS)
        eights = -(-h.num_factors // EIGHT)
        self.factors = np.zeros((eights, d, EIGHT))
        for f in range(h.num_factors):
            self.factors[f // EIGHT, :, f % EIGHT] = first[:, f]
        self._sums = np.empty((n, EIGHT), np.float32)
        labels = np.zeros(n) if logistic else (data.labels - centre) / scale
        self.target = kernels.Target(labels.astype(np.float64), data.labels, data.weights, logistic)
        self.reset()

    def reset(self) -> None:
        """Take the score of the parameters as they stand away from residuals that hold none."""
        self.target.residual[:] -= self.bias
        kernels.add_linear(self.data.columns, -self.linear, self.target.residual)
        for theta in self.factors:
            kernels.gather(self.data.columns, theta, self._sums)
            kernels.pairs(self.data.columns, theta, self._sums, self.target.residual)

    def sizes(self) -> list[int]:
        """Return how many factors each run of eight has."""
        k = self.hyperparameters.num_factors
        return [min(EIGHT, k - EIGHT * i) for i in range(len(self.factors))]

    @property
    def lost(self) -> bool:
        """Whether its scores are no longer finite, from which no sweep finds back."""
        return not np.isfinite(self.target.residual).all()

    def sweep(self, move: Move) -> None:
        """Move every parameter once."""
        raise NotImplementedError

    def move_linear(self, move: Move, step: Step, mean: Float64, precision: Float64) -> None:
        """Move the linear weights; the prior's ``mean`` and ``precision`` are float64 (groups, 1)."""
        prior = kernels.Prior(self.data.group, mean, precision)
        key = np.uint64(step.key or 0)
        move(lambda first, last: kernels.linear(
            self.data.columns, self.target, self.linear, step.precision, prior, step.key is not None, key, first, last
        ))  # fmt: skip

    def move_factors(self, move: Move, eight: int, step: Step, mean: Float64, precision: Float64) -> None:
        """Move a run of eight factors; the prior's ``mean`` and ``precision`` are float64 (groups, 8)."""
        theta, prior = self.factors[eight], kernels.Prior(self.data.group, mean, precision)
        size, key = self.sizes()[eight], np.uint64(step.key or 0)
        kernels.gather(self.data.columns, theta, self._sums)
        move(lambda first, last: kernels.factors(
            self.data.columns, self.target, theta, self._sums, size, step.precision, prior, step.key is not None, key,
            first, last,
        ))  # fmt: skip

    def parameters(self) -> tuple[float, Float32, Float32]:
        """Return bias, linear weights (d,) and factors (d, k) in the labels' and columns' own units, as copies."""
        d, k = self.data.feature_dim, self.hyperparameters.num_factors
        scales = np.ones(1) if self.data.scales is None else self.data.scales
        wide = self.factors.transpose(1, 0, 2).reshape(d, -1)[:, :k] * np.sqrt(self.scale) / scales[:, None]
        bias = self.centre + self.scale * self.bias
        return bias, (self.linear * self.scale / scales).astype(np.float32), wide.astype(np.float32)

    def score(self, rows: Rows) -> Float32:
        """Return raw scores, float32 (n,)."""
        raise NotImplementedError

    def model(self, facts: dict[str, Any]) -> Model:
        """Return the model as it stands."""
        raise NotImplementedError


class Move:
    """Calls a kernel over all columns, in parts: so that it can be stopped, and by several threads where that pays.

    Parameters
    ----------
    data
        The train channel by columns.
    stop
        Asked between parts.
    pool, threads
        Columns of a run without a common row are shared among so many threads.
    """

    def __init__(self, data: ByColumn, stop: Stop, pool: ThreadPoolExecutor | None = None, threads: int = 1) -> None:
        self._parts = parts(data, threads if pool else 1)
        self._stop, self._pool = stop, pool

    def __call__(self, kernel: Callable[[int, int], None]) -> None:
        """Call ``kernel(first, last)``; raises ``Stopped`` when the caller asked to stop."""
        for together in self._parts:
            if self._stop is not None and self._stop():
                raise Stopped
            if len(together) == 1 or self._pool is None:
                for first, last in together:
                    kernel(first, last)
            else:
                list(self._pool.map(lambda span: kernel(*span), together))


def parts(data: ByColumn, threads: int) -> list[list[tuple[int, int]]]:
    """Return spans of columns, in order; those in one list have no row in common."""
    before, found, first = data.columns.indptr, [], 0
    runs = data.runs() if threads > 1 else np.array([data.feature_dim])
    for last in map(int, runs):
        work = int(before[last] - before[first])
        if work >= _SHARE and threads > 1:
            found.append(_even(before, first, last, threads))
        elif found and len(found[-1]) == 1 and before[last] - before[found[-1][0][0]] <= _CHUNK:
            found[-1] = [(found[-1][0][0], last)]
        else:
            found += [[span] for span in _even(before, first, last, max(1, work // _CHUNK))]
        first = last
    return found


def _even(before: NDArray[np.int64], first: int, last: int, count: int) -> list[tuple[int, int]]:
    """Cut a span of columns into some of about as many non-zeros."""
    ends = np.linspace(before[first], before[last], count + 1)[1:-1]
    cuts = [first, *np.searchsorted(before[first:last], ends).tolist(), last]
    cuts[1:-1] = [first + c for c in cuts[1:-1]]
    return [(a, b) for a, b in itertools.pairwise(cuts) if b > a]


class Sweeps:
    """Lanes of one recipe over the same columns; what :class:`~fmtune.fm.pack.Pack` is to gradients.

    Parameters
    ----------
    feed
        The train channel.
    recipe
        What the lanes share.
    threads
        How many threads a sweep may take; the result does not depend on it.
    """

    chain: ClassVar[type[Chain]]

    def __init__(self, feed: Feed, recipe: Recipe, threads: int = 1) -> None:
        data = feed.by_column()
        if recipe.positive_weight != 1.0:
            data = data._replace(weights=weighed(data.labels, data.weights, recipe.positive_weight))
        self._data, self.recipe, self._threads = data, recipe, threads
        self._chains: list[Chain] = []
        self.lanes: list[Lane] = []
        self.seconds = 0.0

    @classmethod
    def of(cls, feed: Feed, recipe: Recipe, threads: int) -> Self:
        """Return lanes whose sweeps may take so many threads."""
        return cls(feed, recipe, threads)

    @staticmethod
    def memory(h: Hyperparameters, feature_dim: int, rows: int) -> int:
        """Return the bytes that a lane takes while it trains: parameters in float64, residuals and sums."""
        return 8 * feature_dim * (1 + -(-h.num_factors // EIGHT) * EIGHT) + (8 + 4 * EIGHT) * rows

    @staticmethod
    def models(h: Hyperparameters, feature_dim: int) -> int:
        """Return how many models' parameters a trained one holds, at most."""
        return 1

    def change(self, leave: Sequence[Lane] = (), enter: Sequence[Hyperparameters] = ()) -> list[Lane]:
        """Take lanes out and put new ones in, between sweeps; returns the new ones.

        Raises
        ------
        UsageError
            A new lane does not share the recipe.
        """
        for h in enter:
            if Recipe.of(h, self.recipe.layout) != self.recipe:
                raise UsageError(f"a lane of {Recipe.of(h, self.recipe.layout)} cannot share a pack of {self.recipe}")
        keep = [i for i, lane in enumerate(self.lanes) if lane not in leave]
        new = [Lane(h) for h in enter]
        self._chains = [self._chains[i] for i in keep] + [self.chain(h, self._data) for h in enter]
        self.lanes = [self.lanes[i] for i in keep] + new
        return new

    def epoch(self, stop: Stop = None) -> None:
        """Sweep once over every lane that is not lost; raises ``Stopped`` when ``stop`` said so.

        A lost lane ends no other's training: its scores and its model are not finite, as a diverged one's of sgd are.
        """
        began = time.perf_counter()
        finite = np.errstate(over="ignore", invalid="ignore")
        with finite, one_thread(), ThreadPoolExecutor(self._threads) as pool:
            move = Move(self._data, stop, pool if self._threads > 1 else None, self._threads)
            for lane, chain in zip(self.lanes, self._chains, strict=True):
                if lane.epochs == 0 or not chain.lost:  # of no sweep at all there is no model
                    chain.sweep(move)
                    lane.epochs += 1
        self.seconds = time.perf_counter() - began

    def score(self, rows: Rows) -> Float32:
        """Return every lane's raw scores: float32 (lanes, rows)."""
        none = np.full(rows.n, np.nan, np.float32)
        return np.stack([none if chain.lost else chain.score(rows) for chain in self._chains])

    def model(self, lane: Lane, **facts: object) -> Model:
        """Return a lane's model as it stands, as a copy."""
        chain = self._chains[self.lanes.index(lane)]
        found = chain.model(dict(facts))
        return replace(found, bias=np.nan) if chain.lost else found
