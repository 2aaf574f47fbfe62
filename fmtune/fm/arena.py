"""Arenas: where the parameters of a pack's lanes lie, and the two passes over them (learn, score).

``ARENAS`` is the table of backends: one class a layout, each with the same few methods.  Lanes are placed
anew whenever one leaves or enters, at an epoch's end: survivors are copied to their new columns, so columns
are always compact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.numbering import Numbering
from fmtune.kernels import cpu_dense, cpu_sparse, random, sparse_batches
from fmtune.kernels.losses import CODES
from fmtune.kernels.rules import RULES
from fmtune.rows import DenseRows, Rows, SparseRows

GROUP = cpu_sparse.GROUP
# Features whose first values are drawn at a time where they do not lie in a row.
_DRAWN = 4096
Float32 = NDArray[np.float32]


class Arena(Protocol):
    """What a backend offers to a pack; ``keep`` are numbers of present lanes, ``enter`` new configurations."""

    def place(self, keep: Sequence[int], enter: Sequence[Hyperparameters | Model]) -> None: ...
    def load(self, lane: int, model: Model) -> None: ...
    def learn(self, batches: object, first: int, last: int, scores: Float32) -> None: ...
    def score(self, rows: Rows) -> Float32: ...
    def parameters(self, lane: int) -> tuple[float, Float32, Float32]: ...
    def work(self, batches: object) -> float: ...
    def rescale(self, lane: int, rates: Float32) -> None: ...


class State(NamedTuple):
    """What a lone lane holds: parameters in plane 0, the rule's state in the others.

    Attributes
    ----------
    rows : float32 (features, planes, columns)
        The factors first, the linear weight last; where factors share their state, two states after it.
    bias : float32 (1 + states, 1)
    steps : int64 (1,)
        Mini-batches so far.
    """

    rows: Float32
    bias: Float32
    steps: NDArray[np.int64]


def columns_of(num_factors: int) -> int:
    """Columns that a lane takes of a pack's width: its factors, up to a multiple of eight, and its linear weight."""
    return -(-num_factors // GROUP) * GROUP + 1


def planes_of(optimizer: str | None) -> tuple[int, int]:
    """Return how an arena holds a rule's state: its planes, and the further columns that a lane has.

    A lane whose factors share one number of state has that number and its linear weight's in plane 0.
    """
    if optimizer is None:
        return 1, 0
    rule = RULES[optimizer]
    return (1, 2) if rule.rowwise else (1 + rule.states, 0)


def shape_of(h: Hyperparameters) -> tuple[int, int]:
    """Return planes and columns of what a lone lane holds of a feature, its state included; see :class:`State`."""
    planes, more = planes_of(h.optimizer)
    return planes, columns_of(h.num_factors) + more


def share_of(optimizer: str | None, factors: Sequence[int]) -> Float32 | None:
    """Return one over each lane's number of factors, float32 (lanes,), 0 where it has none; None if none is needed."""
    if optimizer is None or not RULES[optimizer].rowwise:
        return None
    return np.array([1.0 / k if k else 0.0 for k in factors], np.float32)


def knobs_of(h: Hyperparameters) -> Float32:
    """Return rate, decay, rescale, clip, eps and l1 for bias, linear and factors: float32 (3, 6)."""
    rescale = 1.0 / h.mini_batch_size if h.rescale_grad is None else h.rescale_grad
    clip = np.inf if h.clip_gradient is None else h.clip_gradient
    eps = RULES[h.optimizer].eps if h.eps is None else h.eps
    rates = (h.bias_lr * h.use_bias, h.linear_lr * h.use_linear, h.factors_lr)
    decays = (h.bias_wd, h.linear_wd, h.factors_wd)
    of = zip(rates, decays, (0.0, h.linear_l1, h.factors_l1), strict=True)
    return np.array([[rate, wd, rescale, clip, eps, l1] for rate, wd, l1 in of], np.float32)


def initial(h: Hyperparameters, array: str, out: Float32, first: int = 0) -> None:
    """Fill ``out`` (float32, (features, factors)) with the first values of ``bias``, ``linear`` or ``factors``.

    ``first`` is the number of its first feature.
    """
    code = {"bias": random.BIAS, "linear": random.LINEAR, "factors": random.FACTORS}[array]
    if (array == "bias" and not h.use_bias) or (array == "linear" and not h.use_linear):
        out[:] = 0.0
        return
    method = getattr(h, f"{array}_init_method")
    spread = getattr(h, f"{array}_init_{'scale' if method == 'uniform' else 'sigma'}")
    random.fill(out, random.METHODS[method], spread, getattr(h, f"{array}_init_value"), h.seed, code, first)


class SparseArena:
    """All lanes' parameters of a feature in one row; see ``kernels.cpu_sparse``.

    Parameters
    ----------
    feature_dim
        Number of features.
    optimizer
        A name of ``RULES``, or None for lanes that are only scored.
    predictor_type
        Which loss.
    lazy
        Whether untouched features stay as they are.
    decays
        Factors of the features' decay, float32 (feature_dim,); None where all are 1.
    numbering
        Where features have their rows, and their numbers in mini-batches; None is their own numbers.
    """

    def __init__(
        self, feature_dim: int, optimizer: str | None, predictor_type: str, lazy: bool = True,
        decays: Float32 | None = None, numbering: Numbering | None = None,
    ) -> None:  # fmt: skip
        rule = RULES[optimizer] if optimizer else None
        self._codes = (rule.code if rule else 0, CODES[predictor_type], lazy)
        self._states, self._decays, self._optimizer = rule.states if rule else 0, decays, optimizer
        planes, self._more = planes_of(optimizer)
        self._numbering = numbering
        self._place: slice | NDArray[np.int32] = slice(None) if numbering is None else numbering.place
        if numbering is not None and decays is not None:
            self._decays = np.empty_like(decays)
            self._decays[self._place] = decays
        self._factors: list[int] = []
        self._arena = np.zeros((feature_dim, planes, 0), np.float32)
        # Where the arena lies, and where it lay before: lanes move from one to the other, and no page is cleared anew.
        self._memory = [np.zeros(0, np.float32), np.zeros(0, np.float32)]
        self._lanes = self._empty([])

    def _empty(self, factors: Sequence[int]) -> cpu_sparse.Lanes:
        groups = np.array([-(-k // GROUP) for k in factors], np.int64)
        last, n = np.cumsum(groups), len(factors)
        bias = np.zeros((1 + self._states, n), np.float32)
        steps, knobs = np.zeros(n, np.int64), np.zeros((n, 3, 6), np.float32)
        return cpu_sparse.Lanes(last - groups, last, bias, steps, knobs, self._decays)

    def _columns(self, lanes: cpu_sparse.Lanes, lane: int) -> tuple[slice, int]:
        """Return a lane's factor columns and its linear column."""
        groups = int(lanes.last[-1])
        return slice(lanes.first[lane] * GROUP, lanes.last[lane] * GROUP), GROUP * groups + lane

    def place(self, keep: Sequence[int], enter: Sequence[Hyperparameters | Model]) -> None:
        """Keep some lanes, in the given order, and add new ones after them."""
        factors = [self._factors[lane] for lane in keep] + [x.num_factors for x in enter]
        lanes, old = self._empty(factors), self._lanes
        arena = self._room(sum(map(columns_of, factors)) + self._more * len(factors))
        groups = np.full(int(lanes.last[-1]) if factors else 0, -1, np.int64)
        # Linear weights, and where factors share their state that of all linear weights, then that of factors.
        others = np.full((1 + self._more, len(factors)), -1, np.int64)
        for new, lane in enumerate(keep):
            at, linear = self._columns(old, lane)
            others[:, new] = linear + len(self._factors) * np.arange(1 + self._more)
            groups[lanes.first[new] : lanes.last[new]] = np.arange(at.start, at.stop, GROUP)
            lanes.bias[:, new], lanes.knobs[new], lanes.steps[new] = old.bias[:, lane], old.knobs[lane], old.steps[lane]
        cpu_sparse.rearrange(self._arena, arena, groups, others.ravel())
        self._arena, self._lanes, self._factors = arena, lanes, factors
        for lane, start in enumerate(enter, len(keep)):
            self._begin(lane, start)

    def _room(self, columns: int) -> Float32:
        """Return an arena of so many columns beside the present one; what it holds is left from before."""
        shape = (*self._arena.shape[:2], columns)
        size = math.prod(shape)
        self._memory.reverse()
        if len(self._memory[0]) < size:
            self._memory[0] = np.empty(size, np.float32)
        return self._memory[0][:size].reshape(shape)

    def _begin(self, lane: int, start: Hyperparameters | Model) -> None:
        columns, linear = self._columns(self._lanes, lane)
        factors = self._arena[:, 0, columns][:, : start.num_factors]
        weights, bias = self._arena[:, 0, linear : linear + 1], self._lanes.bias[:1, lane : lane + 1]
        if isinstance(start, Model):
            factors[self._place], weights[self._place, 0], bias[0, 0] = start.factors, start.linear, start.bias
            return
        self._draw(start, "factors", factors)
        self._draw(start, "linear", weights)
        initial(start, "bias", bias)
        self._lanes.knobs[lane] = knobs_of(start)

    def _draw(self, h: Hyperparameters, array: str, out: Float32) -> None:
        """Fill ``out`` with first values, which go by the features' own numbers."""
        if isinstance(self._place, slice):
            initial(h, array, out)
            return
        for first in range(0, len(out), _DRAWN):
            place = self._place[first : first + _DRAWN]
            part = np.empty((len(place), out.shape[1]), np.float32)
            initial(h, array, part, first)
            out[place] = part

    def load(self, lane: int, model: Model) -> None:
        """Give a lane the parameters of a model of its size."""
        self._begin(lane, model)

    def learn(self, batches: object, first: int, last: int, scores: Float32) -> None:
        """Train all lanes on some mini-batches; see ``kernels.cpu_sparse.learn``."""
        assert isinstance(batches, sparse_batches.Batches)
        share = share_of(self._optimizer, self._factors)
        rest = (share, self._arena, self._lanes, batches, first, last, scores)
        if len(batches.touched) == len(batches.rows):
            cpu_sparse.learn(*self._codes, *rest)
        else:
            cpu_sparse.learn_each(*self._codes[:2], *rest)

    def score(self, rows: Rows) -> Float32:
        """Return raw scores, float32 (lanes, rows)."""
        assert isinstance(rows, SparseRows)
        rows = rows if self._numbering is None else self._numbering.rows(rows)
        out = np.empty((len(self._factors), rows.n), np.float32)
        more = self._more or None
        cpu_sparse.score(self._arena, more, self._lanes, rows.indptr, rows.indices, rows.values, out)
        return out

    def parameters(self, lane: int) -> tuple[float, Float32, Float32]:
        """Return a lane's bias, linear weights (feature_dim,) and factors (feature_dim, num_factors), as copies."""
        columns, linear = self._columns(self._lanes, lane)
        theta = self._arena[:, 0]
        weights, factors = theta[:, linear], theta[:, columns][:, : self._factors[lane]]
        bias = float(self._lanes.bias[0, lane])
        if isinstance(self._place, slice):
            return bias, weights.copy(), factors.copy()
        return bias, weights[self._place], factors[self._place]

    def rescale(self, lane: int, rates: Float32) -> None:
        """Set a lane's learning rates, float32 (3,): bias, linear, factors."""
        self._lanes.knobs[lane, :, 0] = rates

    def state(self) -> State:
        """Return what a lone lane holds, as views; features have their own numbers."""
        assert self._numbering is None
        return State(self._arena, self._lanes.bias, self._lanes.steps)

    def work(self, batches: object) -> float:
        """Return multiply-adds of one mini-batch, about."""
        assert isinstance(batches, sparse_batches.Batches)
        return 3.0 * len(batches.values) * self._arena.shape[2] / max(1, len(batches.rows) - 1)


class DenseArena:
    """Features along rows, columns one under the other; see ``kernels.cpu_dense``.

    Parameters as in ``SparseArena``; ``exact`` is off only on a CPU that multiplies bfloat16.
    """

    def __init__(
        self, feature_dim: int, optimizer: str | None, predictor_type: str, lazy: bool = True,
        decays: Float32 | None = None, exact: bool = True,
    ) -> None:  # fmt: skip
        rule = RULES[optimizer] if optimizer else None
        self._codes = (rule.code if rule else 0, CODES[predictor_type], lazy)
        self._rounded = None if exact else True
        self._states, self._optimizer = rule.states if rule else 0, optimizer
        self._planes, self._more = planes_of(optimizer)
        self._dim, self._ld = feature_dim, cpu_dense.padded(feature_dim)
        self._decays = decays
        if decays is not None:
            self._decays = np.ones(self._ld, np.float32)
            self._decays[:feature_dim] = decays
        self._arena = np.zeros((0, self._ld), np.float32)
        self._lanes = self._empty([])

    def _empty(self, factors: Sequence[int]) -> cpu_dense.Lanes:
        k = np.array(factors, np.int64)
        return cpu_dense.Lanes(
            np.cumsum(k + 1) - (k + 1), k, np.zeros((len(k), 1 + self._states), np.float32),
            np.zeros(len(k), np.int64), np.zeros((len(k), 3, 6), np.float32), self._decays,
        )  # fmt: skip

    def _theta(self, lane: int) -> Float32:
        """Return a view of a lane's factors and linear weights, (feature_dim, num_factors + 1)."""
        first = int(self._lanes.first[lane])
        return self._arena[first : first + int(self._lanes.factors[lane]) + 1, : self._dim].T

    def _rows(self, lane: int) -> NDArray[np.int64]:
        """Return the numbers of a lane's rows of the arena: parameters, then states."""
        factors = self._lanes.factors
        columns, own = int(factors.sum()) + len(factors), np.arange(factors[lane] + 1) + self._lanes.first[lane]
        planes = (own + columns * np.arange(self._planes)[:, None]).ravel()
        return np.append(planes, columns + self._more * lane + np.arange(self._more))

    def place(self, keep: Sequence[int], enter: Sequence[Hyperparameters | Model]) -> None:
        """Keep some lanes, in the given order, and add new ones after them."""
        old, arena, rows = self._lanes, self._arena, [self._rows(lane) for lane in keep]
        factors = [int(old.factors[lane]) for lane in keep] + [x.num_factors for x in enter]
        self._lanes = self._empty(factors)
        columns = sum(factors) + len(factors)
        self._arena = np.zeros((columns * self._planes + self._more * len(factors), self._ld), np.float32)
        for new, lane in enumerate(keep):
            self._arena[self._rows(new)] = arena[rows[new]]
            self._lanes.bias[new], self._lanes.steps[new] = old.bias[lane], old.steps[lane]
            self._lanes.knobs[new] = old.knobs[lane]
        for lane, start in enumerate(enter, len(keep)):
            self._begin(lane, start)

    def _begin(self, lane: int, start: Hyperparameters | Model) -> None:
        k = start.num_factors
        theta = self._theta(lane)
        if isinstance(start, Model):
            theta[:, :k], theta[:, k], self._lanes.bias[lane, 0] = start.factors, start.linear, start.bias
            return
        initial(start, "factors", theta[:, :k])
        initial(start, "linear", theta[:, k : k + 1])
        initial(start, "bias", self._lanes.bias[lane : lane + 1, :1])
        self._lanes.knobs[lane] = knobs_of(start)

    def load(self, lane: int, model: Model) -> None:
        """Give a lane the parameters of a model of its size."""
        self._begin(lane, model)

    def learn(self, batches: object, first: int, last: int, scores: Float32) -> None:
        """Train all lanes on some mini-batches; see ``kernels.cpu_dense.learn``."""
        share = share_of(self._optimizer, self._lanes.factors.tolist())
        rest = (self._lanes, batches, first, last, scores)
        cpu_dense.learn(*self._codes, share, self._rounded, self._arena.ravel(), self._planes, self._ld, *rest)

    def score(self, rows: Rows) -> Float32:
        """Return raw scores, float32 (lanes, rows)."""
        assert isinstance(rows, DenseRows)
        out = np.empty((len(self._lanes.factors), rows.n), np.float32)
        cpu_dense.score(self._arena.ravel(), self._ld, self._lanes, np.ascontiguousarray(rows.matrix), out)
        return out

    def parameters(self, lane: int) -> tuple[float, Float32, Float32]:
        """Return a lane's bias, linear weights (feature_dim,) and factors (feature_dim, num_factors), as copies."""
        theta, k = self._theta(lane), int(self._lanes.factors[lane])
        return float(self._lanes.bias[lane, 0]), theta[:, k].copy(), np.array(theta[:, :k], order="C")

    def rescale(self, lane: int, rates: Float32) -> None:
        """Set a lane's learning rates, float32 (3,): bias, linear, factors."""
        self._lanes.knobs[lane, :, 0] = rates

    def state(self) -> State:
        """Return what a lone lane holds, as views, in which features lie side by side."""
        planes = self._arena[:, : self._dim].reshape(self._planes, -1, self._dim)
        return State(planes.transpose(2, 0, 1), self._lanes.bias.T, self._lanes.steps)

    def work(self, batches: object) -> float:
        """Return multiply-adds of one mini-batch, about; a product does several times as many a second as a loop."""
        assert isinstance(batches, cpu_dense.Batches)
        numbers = batches.labels.size * self._dim / max(1, len(batches.rows) - 1)
        return 0.25 * numbers * int((self._lanes.factors + 1).sum())


ARENAS: dict[str, type[SparseArena] | type[DenseArena]] = {"sparse": SparseArena, "dense": DenseArena}
