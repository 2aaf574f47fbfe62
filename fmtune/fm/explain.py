"""Explain: which features and which pairs of features a model's scores come from.

A raw score is ``w0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j``: it is a sum already, and its terms are its
explanation.  They are of the raw score; a binary model's probability is its sigmoid.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import UsageError
from fmtune.fm.model import Model

Float64 = NDArray[np.float64]

_BLOCK = 1024


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


def interactions(model: Model, top: int = 20) -> list[Pair]:
    """Return the pairs of features with the largest absolute weights, the largest first; exact.

    Features are taken by the length of their factor vectors.  Since ``|<v_i, v_j>| <= |v_i| |v_j|``, the search ends
    where no later pair can be among the ``top`` any more: of a million features few are looked at.
    """
    factors = model.factors.astype(np.float64)
    lengths = np.linalg.norm(factors, axis=1)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        least = found[0][0] if len(found) == top else 0.0
        if len(found) == top and lengths[block[0]] * lengths[order[0]] < least:
            break
        # Each pair once: a block against itself and against what came before it.
        others = order[: start + len(block)]
        products = factors[block] @ factors[others].T
        products[np.arange(len(block))[:, None] + start <= np.arange(len(others))] = 0.0
        flat = np.abs(products).ravel()
        best = np.argpartition(flat, -min(top, len(flat)))[-min(top, len(flat)) :]
        for at in best[flat[best] > 0]:
            i, j = int(block[at // len(others)]), int(others[at % len(others)])
            entry = (float(flat[at]), -min(i, j), -max(i, j))
            heapq.heappush(found, entry) if len(found) < top else heapq.heappushpop(found, entry)
    pairs = [(-i, -j, size) for size, i, j in sorted(found, reverse=True)]
    return [Pair(i, j, float(factors[i] @ factors[j])) for i, j, _ in pairs]


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
