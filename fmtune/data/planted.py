"""Planted: click-like rows drawn from a known factorization machine.

Each row has one feature of every field, value 1.  Fields differ in size, from a handful of features to hundreds.
Within a field the features' frequencies fall as ``1 / rank^zipf``.  A planted model gives the score, and noise
stands for what the features do not tell::

    z = b + sum_i w_i + sum_{i<j} <v_i, v_j>          P(y = 1) = E[sigmoid(z + noise * e)],   e ~ N(0, 1)

That expectation is the best score anybody can give these rows; its log loss on a channel is the planted log
loss.  Weights and factors are scaled on the drawn rows: the linear part of z has the standard deviation LINEAR,
the interactions INTERACTIONS, so that what is reachable hardly depends on the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmtune.rows import SparseRows

# With these the planted log loss is about 0.5, a linear model reaches 0.56 to 0.60, and a well tuned
# factorization machine comes within 0.012 of the planted one from 160,000 rows.
LINEAR = 0.8
INTERACTIONS = 1.5
MEAN = -0.5
LARGEST_FIELD = 60


@dataclass(frozen=True)
class Planted:
    """What was drawn: the rows, and the best probability of each label."""

    rows: SparseRows
    probability: NDArray[np.float64]

    def log_loss(self, start: int, stop: int) -> float:
        """Return the planted model's mean log loss on rows ``start`` to ``stop``."""
        labels = self.rows.labels
        assert labels is not None
        p, y = self.probability[start:stop], labels[start:stop]
        return float(-np.mean(np.log(np.where(y == 1, p, 1 - p)))) if stop > start else float("nan")


def draw(*, rows: int, fields: int, features: int, factors: int, zipf: float, noise: float, seed: int) -> Planted:
    """Draw rows and labels; the same arguments give the same rows.

    Parameters
    ----------
    rows, fields, features, factors
        Sizes; every field has at least one of the ``features``.
    zipf
        Exponent of the frequencies; 0 makes all features of a field equally frequent.
    noise
        Standard deviation of what is added to the score before the label is drawn.
    seed
        Of everything that is drawn.
    """
    random = np.random.default_rng(seed)
    indices = _indices(rows, fields, features, zipf, random)
    z = _scores(indices, features, factors, random)
    noisy = z if noise == 0 else z + noise * random.standard_normal(rows)
    labels = (random.random(rows) < _sigmoid(noisy)).astype(np.float32)
    indptr = np.arange(0, rows * fields + 1, fields, dtype=np.int64)
    values = np.ones(rows * fields, np.float32)
    return Planted(SparseRows(indptr, indices.ravel(), values, labels, features), _expected(z, noise))


def fields(features: int, count: int) -> dict[str, int]:
    """Return the first feature of each field, by name."""
    starts = np.concatenate([[0], np.cumsum(_sizes(features, count))[:-1]])
    return {f"field-{i}": int(start) for i, start in enumerate(starts)}


def ratings(
    *, rows: int, users: int, items: int, factors: int, zipf: float, noise: float, seed: int
) -> tuple[SparseRows, NDArray[np.float64]]:
    """Draw ratings of items by users: a user's and an item's level, their taste, and noise.

    Users and items are drawn with frequencies ``1 / rank^zipf``.  Levels have the standard deviation 0.45, tastes
    (products of vectors) 0.5, as in real ratings from 1 to 5, whose mean is 3.5.

    Returns
    -------
    SparseRows, float64 (rows,)
        The rows, and the planted score of each; labels are that and noise.
    """
    random = np.random.default_rng(seed)
    chosen = []
    for size, start in ((users, 0), (items, users)):
        shares = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -zipf)
        ranks = np.searchsorted(shares, random.random(rows) * shares[-1], side="right")
        chosen.append(start + random.permutation(size)[np.minimum(ranks, size - 1)])
    indices = np.stack(chosen, axis=1)
    level = 0.45 * random.standard_normal(users + items)
    taste = random.standard_normal((users + items, factors)) * (0.5**0.5 / max(1, factors) ** 0.25)
    score = 3.5 + level[indices].sum(1) + (taste[indices[:, 0]] * taste[indices[:, 1]]).sum(1)
    labels = (score + noise * random.standard_normal(rows)).astype(np.float32)
    indptr = np.arange(0, 2 * rows + 1, 2, dtype=np.int64)
    ones = np.ones(2 * rows, np.float32)
    return SparseRows(indptr, indices.ravel().astype(np.int32), ones, labels, users + items), score


def _indices(rows: int, fields: int, features: int, zipf: float, random: np.random.Generator) -> NDArray[np.int32]:
    """Return each row's feature in each field, int32 (rows, fields); rank and number are unrelated."""
    starts = np.concatenate([[0], np.cumsum(_sizes(features, fields))])
    indices = np.empty((rows, fields), np.int32)
    for field in range(fields):
        size = int(starts[field + 1] - starts[field])
        shares = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -zipf)
        ranks = np.searchsorted(shares, random.random(rows) * shares[-1], side="right")
        indices[:, field] = starts[field] + random.permutation(size)[np.minimum(ranks, size - 1)]
    return indices


def _sizes(features: int, fields: int) -> NDArray[np.int64]:
    """Return the fields' sizes: each larger than the last by one factor, LARGEST_FIELD in all."""
    shares = np.geomspace(1, LARGEST_FIELD, fields) if fields > 1 else np.ones(1)
    ends = np.cumsum(1 + np.floor(shares / shares.sum() * (features - fields))).astype(np.int64)
    ends[-1] = features
    return np.diff(ends, prepend=0)


def _scores(
    indices: NDArray[np.int32], features: int, factors: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return z of each row, under a model drawn and scaled to these rows."""
    linear = random.standard_normal(features)[indices].sum(1)
    pairs = np.zeros(len(indices))
    for _ in range(factors):
        v = random.standard_normal(features)[indices]
        pairs += (v.sum(1) ** 2 - (v**2).sum(1)) / 2
    return MEAN + _scaled(linear, LINEAR) + _scaled(pairs, INTERACTIONS)


def _scaled(part: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """Return the part of the score with mean 0 and the standard deviation ``spread`` (0 if it is constant)."""
    deviation = part.std()
    return np.asarray((part - part.mean()) * (spread / deviation if deviation > 0 else 0.0))


def _expected(z: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """Return E[sigmoid(z + noise * e)] by Gauss-Hermite quadrature."""
    if noise == 0:
        return _sigmoid(z)
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    total = np.zeros_like(z)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        total += weight * _sigmoid(z + noise * node)
    return total


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-z)), away from 0 and 1 by what float64 can still tell apart."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -36, 36))))
