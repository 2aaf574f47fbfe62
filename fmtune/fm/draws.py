"""Draws: what models drawn from a posterior say together: their mean score, and intervals.

A regressor predicts the mean of its draws' scores.  That is itself a factorization machine, whose factors are all
draws' factors side by side over the root of their number, so everything that takes a model takes it.  A
classifier's draws are probit models: it predicts the mean of their probabilities, given back as a logit, so that
metrics and links are those of every other model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit, ndtr

from fmtune.errors import UsageError
from fmtune.fm.arena import ARENAS, Arena
from fmtune.fm.model import Model
from fmtune.rows import Rows

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# A probability this near to 0 or 1 is not told apart from it.
_EDGE = 1e-9
_HALVINGS = 40
_BLOCK = 4096


def each(models: Sequence[Model], rows: Rows) -> Float32:
    """Return the raw scores of several models of one size in one pass: float32 (models, rows)."""
    first = models[0]
    arena: Arena = ARENAS[rows.layout](first.feature_dim, None, first.predictor_type)
    arena.place([], list(models))
    return arena.score(rows)


def shares(predictor_type: str, raw: Float32) -> Float64:
    """Return what is averaged over draws: the score, or the probability of label 1."""
    return np.asarray(ndtr(raw.astype(np.float64)) if predictor_type == "binary_classifier" else raw, np.float64)


def joined(predictor_type: str, mean: Float64) -> Float32:
    """Return the raw score of a mean of :func:`shares`, float32 of its shape."""
    if predictor_type == "binary_classifier":
        return logit(np.clip(mean, _EDGE, 1.0 - _EDGE)).astype(np.float32)
    return mean.astype(np.float32)


def scored(model: Model) -> list[Model]:
    """Return the models whose scores are needed to score a model: itself, or its draws."""
    return [model] if model.exact else model.drawn()


def together(model: Model, raw: Float32) -> Float32:
    """Return a model's raw scores, float32 (rows,), of those of :func:`scored`, float32 (models, rows)."""
    return raw[0] if model.exact else joined(model.predictor_type, shares(model.predictor_type, raw).mean(0))


def interval(model: Model, rows: Rows, level: float) -> tuple[Float32, Float32]:
    """Return the ends of each row's central interval, float32 (n,) each.

    Of a regressor: where a new label lies with probability ``level``, noise included (a mixture of one normal a
    draw).  Of a classifier: where the probability of label 1 lies (quantiles over draws).

    Raises
    ------
    UsageError
        The model has no draws, ``level`` is not between 0 and 1, or the rows have features that the model has not.
    """
    if model.draws is None:
        raise UsageError("the model has no draws to take an interval from", hint="train it with solver=mcmc")
    if not 0.0 < level < 1.0:
        raise UsageError(f"an interval's level lies between 0 and 1, not {level!r}", hint="--interval 0.9")
    if rows.feature_dim > model.feature_dim:
        raise UsageError(f"the rows have {rows.feature_dim} features, the model {model.feature_dim}")
    ends = np.array([(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    out = np.empty((2, rows.n), np.float32)
    models = model.drawn()
    for a in range(0, rows.n, _BLOCK):
        part = rows.slice(a, min(rows.n, a + _BLOCK)).widen(model.feature_dim)
        raw = each(models, part)
        if model.predictor_type == "binary_classifier":
            out[:, a : a + _BLOCK] = np.quantile(shares(model.predictor_type, raw), ends, axis=0)
        else:
            out[:, a : a + _BLOCK] = [_quantile(raw.astype(np.float64), model.draws.noise, p) for p in ends]
    return out[0], out[1]


def _quantile(centres: Float64, spreads: Float64, share: float) -> Float64:
    """Return where mixtures of normals, (draws, rows) and (draws,), have a share below them; by halving."""
    reach = 10.0 * spreads.max()
    low, high = centres.min(0) - reach, centres.max(0) + reach
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        below = ndtr((middle - centres) / spreads[:, None]).mean(0) < share
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2.0)
