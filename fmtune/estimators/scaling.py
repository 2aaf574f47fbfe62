"""Scaling: columns and labels brought to one scale for training, and the model brought back to their own units.

Learning rates fit columns of one scale.  A factorization machine of shifted and scaled columns is a factorization
machine of the columns themselves, so that nothing of the scaling is left in the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from fmtune.fm.model import Draws, Model
from fmtune.rows import DenseRows, Float32, Rows, SparseRows

Float64 = NDArray[np.float64]

# The square of this many deviations is what the model's terms cancel to; float32 has seven digits.
_FAR = 1000.0


@dataclass(frozen=True, eq=False)
class Scaling:
    """Columns less ``shift``, over ``scale``; labels less ``centre``, over ``spread``.

    Attributes
    ----------
    shift, scale : float64 (features,)
    centre, spread : float
    """

    shift: Float64
    scale: Float64
    centre: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, x: Any, weights: Float64) -> Scaling:
        """Return the scaling of a matrix (n, features), dense or CSR, whose rows count as ``weights`` (n,).

        Dense columns get mean 0 and deviation 1, but those that hold 0 and one other value get that value as 1:
        an indicator stays one.  Sparse columns are divided by their largest absolute value where that is above 1.
        """
        is_sparse: bool = scipy.sparse.issparse(x)  # not narrowed: its stubs know no common matrix
        if is_sparse:
            largest = np.asarray(abs(x).max(axis=0).todense(), np.float64).reshape(-1)
            return cls(np.zeros(x.shape[1]), np.maximum(largest, 1.0))
        share = weights / weights.sum()
        mean = share @ x
        deviation = np.sqrt(np.maximum(share @ (x - mean) ** 2, 0.0))
        low, high = x.min(axis=0), x.max(axis=0)
        other = np.where(low == 0, high, low)
        indicator = ((x == 0) | (x == other)).all(axis=0) & (other != 0) & ((low == 0) | (high == 0))
        shift = np.where(indicator, 0.0, mean)
        scale = np.where(indicator, other, deviation)
        # A constant column, or one whose deviation is only rounding, says nothing, whatever it holds later.
        return cls(shift, np.where(abs(scale) > 1e-9 * np.maximum(abs(shift), 1e-30), scale, np.inf))

    @classmethod
    def none(cls, features: int) -> Scaling:
        """Return the scaling that leaves everything as it is."""
        return cls(np.zeros(features), np.ones(features))

    @property
    def far(self) -> NDArray[np.int64]:
        """Columns so far from 0, beside their deviation, that a model of float32 in their units is imprecise."""
        return np.flatnonzero(abs(self.shift) > _FAR * abs(self.scale))

    def of_labels(self, y: Float64, weights: Float64) -> Scaling:
        """Return the same scaling of columns, and labels of mean 0 and deviation 1."""
        centre = float(weights @ y / weights.sum())
        spread = math.sqrt(float(weights @ (y - centre) ** 2 / weights.sum()))
        return replace(self, centre=centre, spread=spread if spread > 1e-9 * max(abs(centre), 1e-30) else 1.0)

    def rows(self, x: Any, y: Float64 | None, weights: Float32 | None) -> Rows:
        """Return scaled rows; a CSR matrix whose columns need no scaling is not copied."""
        labels = None if y is None else ((y - self.centre) / self.spread).astype(np.float32)
        is_sparse: bool = scipy.sparse.issparse(x)
        if not is_sparse:
            return DenseRows(((x - self.shift) / self.scale).astype(np.float32), labels, x.shape[1], weights)
        values = x.data if (self.scale == 1).all() else x.data / self.scale[x.indices]
        return SparseRows(
            x.indptr.astype(np.int64, copy=False), x.indices.astype(np.int32, copy=False),
            values.astype(np.float32, copy=False), labels, x.shape[1], weights,
        )  # fmt: skip

    def labels(self, scores: Float32) -> Float32:
        """Return a scaled model's scores in the labels' own units."""
        return np.asarray(scores.astype(np.float64) * self.spread + self.centre, np.float32)

    def unscaled(self, model: Model) -> Model:
        """Return the model of columns and labels in their own units that scores as ``model`` does of scaled ones."""
        if model.draws is None:
            return replace(model, **self._parameters(model.bias, model.linear, model.factors))
        several = [self._parameters(one.bias, one.linear, one.factors) for one in model.drawn()]
        draws = Draws(
            np.array([one["bias"] for one in several]), np.stack([one["linear"] for one in several]),
            np.stack([one["factors"] for one in several]), model.draws.noise * self.spread,
        )  # fmt: skip
        return Model.of_draws(model.predictor_type, draws, model.facts)

    def _parameters(self, bias: float, linear: Float32, factors: Float32) -> dict[str, Any]:
        w = linear.astype(np.float64) / self.scale
        v = factors.astype(np.float64) / self.scale[:, None]
        squares, sums = (v**2).sum(axis=1), self.shift @ v
        pairs = 0.5 * (sums @ sums - squares @ self.shift**2)
        bias = bias - float(w @ self.shift) + float(pairs)
        w = w - v @ sums + squares * self.shift
        return {
            "bias": bias * self.spread + self.centre,
            "linear": (w * self.spread).astype(np.float32),
            "factors": (v * math.sqrt(self.spread)).astype(np.float32),
        }
