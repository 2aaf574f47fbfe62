"""Pack: models trained side by side in one pass over the data; the only gradient trainer (``solver: sgd``).

A pack lives in one thread.  Its lanes share a :class:`~fmtune.fm.feed.Recipe` and nothing else: a lane's
bits do not depend on who else is in the pack, so lanes may enter and leave at any epoch's end.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import UsageError
from fmtune.fm.arena import ARENAS, Arena, DenseArena, SparseArena, State, columns_of, knobs_of, shape_of
from fmtune.fm.draws import scored, together
from fmtune.fm.epoch import Batches
from fmtune.fm.feed import Feed, Recipe, weighed
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.schedule import factor, moves
from fmtune.kernels import losses
from fmtune.kernels.rules import RULES
from fmtune.rows import Rows

Float32 = NDArray[np.float32]

# Work between two looks at the stop flag: some tenths of a second.
_CHUNK = 4e8
# Rows that are scored at a time where they are mapped from a file.
_BLOCK = 65536


class Stopped(Exception):
    """The caller asked to stop in the middle of an epoch; the pack is not to be used any more."""


@dataclass(eq=False)
class Lane:
    """One model's place in a pack: its ``epochs`` so far, and the models of those that are averaged, if any."""

    hyperparameters: Hyperparameters
    epochs: int = 0
    tail: deque[Model] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.tail = deque(maxlen=self.hyperparameters.average_last)


class Pack:
    """Lanes of one recipe, trained together.

    Parameters
    ----------
    feed
        The train channel.
    recipe
        What the lanes share.
    """

    def __init__(self, feed: Feed, recipe: Recipe) -> None:
        self._feed, self.recipe = feed, recipe
        self._arena = _arena(feed, recipe)
        self.lanes: list[Lane] = []
        self.seconds = 0.0

    @classmethod
    def of(cls, feed: Feed, recipe: Recipe, threads: int) -> Pack:
        """Return a pack; a pass of gradients is one thread's."""
        return cls(feed, recipe)

    @staticmethod
    def memory(h: Hyperparameters, feature_dim: int, rows: int) -> int:
        """Return the bytes that a lane takes while it trains; see :func:`bytes_of`."""
        return bytes_of(h, feature_dim, rows)

    @staticmethod
    def models(h: Hyperparameters, feature_dim: int) -> int:
        """Return how many models' parameters a trained one holds, at most."""
        return 1

    @property
    def columns(self) -> int:
        """Columns that its lanes take."""
        return sum(columns_of(lane.hyperparameters.num_factors) for lane in self.lanes)

    def change(self, leave: Sequence[Lane] = (), enter: Sequence[Hyperparameters] = ()) -> list[Lane]:
        """Take lanes out and put new ones in, between epochs; returns the new ones.

        Raises
        ------
        UsageError
            A new lane does not share the recipe, or would enter a pack that shuffles by epoch and has begun.
        """
        keep = [i for i, lane in enumerate(self.lanes) if lane not in leave]
        for h in enter:
            own = Recipe.of(h, self.recipe.layout, self.recipe.device)
            if own != self.recipe:
                raise UsageError(f"a lane of {own} cannot share a pack of {self.recipe}")
            if self.recipe.shuffle == "epoch" and any(self.lanes[i].epochs for i in keep):
                raise UsageError("a pack that shuffles by epoch starts together")
        new = [Lane(h) for h in enter]
        self._arena.place(keep, list(enter))
        self.lanes = [self.lanes[i] for i in keep] + new
        return new

    def load(self, lane: Lane, model: Model) -> None:
        """Give a lane the parameters of a model of its size; the rule's state stays as it is."""
        self._arena.load(self.lanes.index(lane), model)

    def epoch(self, stop: Callable[[], bool] | None = None, record: bool = False) -> Float32:
        """Train every lane on one pass over the train channel.

        Parameters
        ----------
        stop
            Asked a few times a second; when it says True the epoch is given up.
        record
            Whether to return each row's raw score from before its mini-batch's update.

        Returns
        -------
        float32 (lanes, rows) in training order, or (lanes, 0)

        Raises
        ------
        Stopped
            ``stop`` said so.
        """
        began = time.perf_counter()
        for place, lane in enumerate(self.lanes):
            if moves(lane.hyperparameters):
                rates = knobs_of(lane.hyperparameters)[:, 0] * factor(lane.hyperparameters, lane.epochs)
                self._arena.rescale(place, rates.astype(np.float32))
        stretches = self._feed.stretches(self.recipe, self.lanes[0].epochs)
        scores = [self._learn(batches, stop, record) for batches in stretches]
        for place, lane in enumerate(self.lanes):
            lane.epochs += 1
            if lane.hyperparameters.average_last > 1:
                lane.tail.append(self._present(place))
        self.seconds = time.perf_counter() - began
        return scores[0] if len(scores) == 1 else np.concatenate(scores, axis=1)

    def _learn(self, batches: Batches, stop: Callable[[], bool] | None, record: bool) -> Float32:
        """Train every lane on a stretch of mini-batches."""
        if self.recipe.positive_weight != 1.0:
            weights = weighed(batches.labels, batches.weights, self.recipe.positive_weight)
            batches = batches._replace(weights=weights)
        last = len(batches.rows) - 1
        stride = max(1, int(_CHUNK / max(1.0, self._arena.work(batches))))
        scores = np.empty((len(self.lanes), int(batches.rows[-1]) if record else 0), np.float32)
        for k in range(0, last, stride):
            if stop is not None and stop():
                raise Stopped
            end = min(last, k + stride)
            part = scores[:, batches.rows[k] : batches.rows[end]] if record else scores
            self._arena.learn(batches, k, end, part)
        return scores

    def score(self, rows: Rows) -> Float32:
        """Return every lane's raw scores of rows of the pack's layout: float32 (lanes, rows)."""
        scores = _scores(self._arena, rows)
        averaged = [place for place, lane in enumerate(self.lanes) if lane.tail]
        if averaged:
            arena: Arena = ARENAS[rows.layout](self._feed.feature_dim, None, self.recipe.predictor_type)
            arena.place([], [_mean(self.lanes[place].tail) for place in averaged])
            scores[averaged] = _scores(arena, rows)
        return scores

    def model(self, lane: Lane, **facts: object) -> Model:
        """Return a lane's model as it stands, or the mean of its last epochs, as a copy."""
        found = _mean(lane.tail) if lane.tail else self._present(self.lanes.index(lane))
        return replace(found, facts=dict(facts))

    @property
    def replays(self) -> int:
        """How often a card was given a recorded stretch of mini-batches, instead of each launch."""
        queue = getattr(self._arena, "queue", None)
        return queue.replays if queue else 0

    def state(self) -> State:
        """Return what the lone lane of a pack on the CPU holds, as views to read and to write between epochs."""
        assert isinstance(self._arena, SparseArena | DenseArena)
        assert len(self.lanes) == 1
        return self._arena.state()

    def _present(self, place: int) -> Model:
        return Model(self.recipe.predictor_type, *self._arena.parameters(place))


def _scores(arena: Arena, rows: Rows) -> Float32:
    """Return raw scores, float32 (lanes, rows); rows that lie in a file are read a block at a time."""
    if not rows.mapped:
        return arena.score(rows)
    starts = range(0, rows.n, _BLOCK)
    return np.concatenate([arena.score(rows.slice(a, min(rows.n, a + _BLOCK)).owned()) for a in starts], axis=1)


def _mean(models: Collection[Model]) -> Model:
    """Return the model whose parameters are the mean of others'."""
    first = next(iter(models))
    linear, factors = (_mean_of([getattr(m, name) for m in models]) for name in ("linear", "factors"))
    return Model(first.predictor_type, float(np.mean([m.bias for m in models])), linear, factors)


def _mean_of(arrays: Sequence[Float32]) -> Float32:
    """Return the mean of arrays, summed in float64 one by one: side by side they would take as much again."""
    total = arrays[0].astype(np.float64)
    for array in arrays[1:]:
        total += array
    total /= len(arrays)
    return total.astype(np.float32)


def _arena(feed: Feed, recipe: Recipe) -> Arena:
    """Return the arena of a recipe's device and layout, for the features of a train channel."""
    arenas: dict[str, Any] = ARENAS
    if recipe.device == "gpu":
        from fmtune.fm.cuda_arena import CUDA_ARENAS  # numba's CUDA: half a second, paid only where it is asked for

        arenas = CUDA_ARENAS
    numbering = feed.numbering(recipe)
    own: dict[str, Any] = {} if recipe.exact else {"exact": False}
    if numbering is not None:
        own["numbering"] = numbering
    shape = (feed.feature_dim, recipe.optimizer, recipe.predictor_type, recipe.lazy, feed.decays)
    made: Arena = arenas[recipe.layout](*shape, **own)
    return made


def bytes_of(h: Hyperparameters, feature_dim: int, rows: int = 0) -> int:
    """Return the bytes that a lane takes while it trains.

    Parameters, the rule's state, what is averaged, and the sums of each row of a mini-batch, which has no more than the
    ``rows`` of the train channel unless it is padded; 0 leaves these sums out.
    """
    (planes, columns), averaged = shape_of(h), h.average_last if h.average_last > 1 else 0
    # A mean is a sum in float64, a model, and a lane that is scored: four more of float32.
    a_feature = planes * columns + (averaged and averaged + 4) * columns_of(h.num_factors)
    sums = (h.mini_batch_size if h.pad_last_batch and rows else min(h.mini_batch_size, rows)) * columns
    return 4 * (a_feature * feature_dim + sums + 1 + RULES[h.optimizer].states + averaged)


def score(model: Model, rows: Rows, block: int = _BLOCK) -> Float32:
    """Return a model's raw scores of rows of either layout, float32 (n,).

    Raises
    ------
    UsageError
        The rows have features that the model has not.
    """
    if rows.feature_dim > model.feature_dim:
        raise UsageError(f"the rows have {rows.feature_dim} features, the model {model.feature_dim}")
    arena: Arena = ARENAS[rows.layout](model.feature_dim, None, model.predictor_type)
    arena.place([], scored(model))
    parts = [
        together(model, arena.score(rows.slice(a, min(rows.n, a + block)).owned().widen(model.feature_dim)))
        for a in range(0, rows.n, block)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def predict(model: Model, rows: Rows) -> Float32:
    """Return predictions, float32 (n,): the value, or the probability of label 1."""
    raw = score(model, rows)
    out = np.empty_like(raw)
    losses.link(losses.CODES[model.predictor_type], raw, out)
    return out
