"""Explain: which features and which pairs of features a model's scores come from.

A raw score is ``w0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j``: it is a sum already, and its terms are its
explanation.  They are of the raw score; a binary model's probability is its sigmoid.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import UsageError
from fmtune.fm.model import Model

Float64 = NDArray[np.float64]

# Features that are multiplied with others at a time: 64 MB of products.
_BLOCK, _WIDE = 1024, 8192


class Weight(NamedTuple):
    """One feature's linear weight, and the length of its factor vector."""

    feature: int
    linear: float
    strength: float


class Pair(NamedTuple):
    """Two features, ``first < second``, and the weight of their product, ``<v_i, v_j>``."""

    first: int
    second: int
    weight: float


class Terms(NamedTuple):
    """A row's score as a sum: ``bias``, a term a feature, and a term a pair, the largest first."""

    score: float
    bias: float
    features: tuple[tuple[int, float], ...]
    pairs: tuple[tuple[int, int, float], ...]


def weights(model: Model, top: int = 20) -> list[Weight]:
    """Return the features with the largest absolute linear weights, the largest first."""
    lengths = np.linalg.norm(model.factors.astype(np.float64), axis=1)
    order = np.argsort(-np.abs(model.linear), kind="stable")[:top]
    return [Weight(int(i), float(model.linear[i]), float(lengths[i])) for i in order]


def interactions(model: Model, top: int = 20, alone: Sequence[tuple[int, int]] = ()) -> list[Pair]:
    """Return the pairs of features with the largest absolute weights, the largest first; exact.

    Features are taken by the length of their factor vectors.  Since ``|<v_i, v_j>| <= |v_i| |v_j|``, the search ends
    where no later pair can be among the ``top`` any more: of a million features few are looked at.

    Parameters
    ----------
    alone
        Runs of features of which a row has one at most (first, and the one after the last), such as the values of a
        column: they make no pairs with each other.
    """
    factors = model.factors.astype(np.float64)
    lengths = np.linalg.norm(factors, axis=1)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    runs = np.zeros(len(lengths), np.int64)
    for number, (first, end) in enumerate(alone, 1):
        runs[first:end] = number
    within = runs[order]
    # The most that a feature's pairs with longer or equal ones can weigh, and those of all features after it.
    most = lengths[order] * _longest_elsewhere(lengths[order], within)
    most = np.maximum.accumulate(most[::-1])[::-1]
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(order), _BLOCK):
        if len(found) == top and most[start] < found[0][0]:
            break
        end = min(start + _BLOCK, len(order))
        for run in np.unique(within[start:end]).tolist():
            rows = start + np.flatnonzero(within[start:end] == run)
            others = np.arange(end) if run == 0 else np.flatnonzero(within[:end] != run)
            for part in np.split(others, range(_WIDE, len(others), _WIDE)):
                if not len(part) or (
                    len(found) == top and lengths[order[rows[0]]] * lengths[order[part[0]]] < found[0][0]
                ):
                    break
                products = factors[order[rows]] @ factors[order[part]].T
                # Each pair once: what is longer is the other.
                products[rows[:, None] <= part] = 0.0
                _offer(found, products, order[rows], order[part], top)
    pairs = [(-i, -j, size) for size, i, j in sorted(found, reverse=True)]
    return [Pair(i, j, float(factors[i] @ factors[j])) for i, j, _ in pairs]


def _longest_elsewhere(lengths: Float64, runs: NDArray[np.int64]) -> Float64:
    """Return, of features by falling length, the longest that each can meet: not of its own run, but for run 0."""
    if not len(lengths) or not runs[0]:
        return np.full(len(lengths), lengths.max(initial=0.0))
    second = float(lengths[runs != runs[0]].max(initial=0.0))
    return np.asarray(np.where(runs == runs[0], second, lengths[0]))


def _offer(found: list[tuple[float, int, int]], products: Float64, rows: Any, others: Any, top: int) -> None:
    """Keep the largest of products (rows, others) in the heap of the ``top`` pairs."""
    flat = np.abs(products).ravel()
    best = np.argpartition(flat, -min(top, len(flat)))[-min(top, len(flat)) :]
    for at in best[flat[best] > 0]:
        i, j = int(rows[at // len(others)]), int(others[at % len(others)])
        entry = (float(flat[at]), -min(i, j), -max(i, j))
        heapq.heappush(found, entry) if len(found) < top else heapq.heappushpop(found, entry)


def contributions(model: Model, indices: NDArray[np.int32], values: NDArray[np.float32], top: int = 20) -> Terms:
    """Return the terms of one row's raw score; ``top`` bounds the features and the pairs that are listed.

    Raises
    ------
    UsageError
        The row has a feature that the model has not.
    """
    if len(indices) and int(indices.max()) >= model.feature_dim:
        raise UsageError(f"the row has the feature {int(indices.max())}, the model {model.feature_dim} features")
    x = values.astype(np.float64)
    terms = x * model.linear[indices]
    vectors = x[:, None] * model.factors[indices].astype(np.float64)
    products = np.triu(vectors @ vectors.T, 1)
    rows, columns = np.nonzero(products)
    # The score is of all terms, listed or not.
    score = float(model.bias + terms.sum() + products.sum())
    pairs = sorted(
        ((int(indices[i]), int(indices[j]), float(products[i, j])) for i, j in zip(rows, columns, strict=True)),
        key=lambda pair: -abs(pair[2]),
    )
    features = sorted(zip(map(int, indices), map(float, terms), strict=True), key=lambda term: -abs(term[1]))
    return Terms(score, float(model.bias), tuple(features[:top]), tuple(pairs[:top]))


def nearest(model: Model, feature: int, top: int = 10) -> list[tuple[int, float]]:
    """Return the features whose factor vectors point most nearly the same way, with the cosine.

    Raises
    ------
    UsageError
        The model has no such feature, or it has no factors.
    """
    if not 0 <= feature < model.feature_dim:
        raise UsageError(f"the model has {model.feature_dim} features, no feature {feature}")
    factors: Float64 = model.factors.astype(np.float64)
    lengths = np.linalg.norm(factors, axis=1)
    if lengths[feature] == 0:
        raise UsageError(f"the feature {feature} has no factors: it was never seen, or num_factors is 0")
    cosines = factors @ factors[feature] / (np.where(lengths > 0, lengths, np.inf) * lengths[feature])
    cosines[feature] = -np.inf
    order = np.argsort(-cosines, kind="stable")[:top]
    return [(int(i), float(cosines[i])) for i in order if np.isfinite(cosines[i])]
