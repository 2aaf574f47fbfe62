"""Explained: what a winner's scores come from: its strongest features and pairs, by name, for its report.

A weight alone says little: a pixel that is seldom lit may have the largest.  What counts is its effect, the root mean
square of what it adds to a train row's score.  And the largest ``|<v_i, v_j>|`` belong mostly to two users or two
movies, which no row has together: only pairs that some row has are looked at.

A pair's weight as the model has it is no interaction yet: ``<v_ad, v_mobile>`` that is the same for a mobile row and
for any other is the ad's own effect.  So where columns are known, of a table, the factors are centred over each.  With
``m`` the mean of ``x v`` over the train rows, ``<v_a, v_b>`` is ``<m_A, m_B>``, which goes to the bias, the parts
``<v_a - m_A, m_B>`` and ``<m_A, v_b - m_B>``, which go to the features, and ``<v_a - m_A, v_b - m_B>``, the pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fmtune.data.encoding import Encoder
from fmtune.fm.model import Model
from fmtune.rows import DenseRows, Rows, SparseRows
from fmtune.tune.channels import StudyData

TOP = 10
CANDIDATES = 200
PAIRS = 1_000_000
"""Pairs, row by row, that are looked at; of more, those of evenly spaced rows."""
WIDE = 256
"""Features of which a row's pairs are looked at; of more, those with the longest factors."""
_BLOCK = 1 << 16
_FEW = 1 << 12  # rows that some hundred columns are taken of at a time
_NAME = 120
_NONE = 1e-6  # a smaller spread is of rounding

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def explained(model: Model, data: StudyData, top: int = TOP) -> dict[str, Any]:
    """Return a model's strongest features and pairs, as a study keeps them.

    Returns
    -------
    dict
        ``centred``, whether all is beside the mean of each column; ``bias``; ``features``, each with ``name``,
        ``weight``, ``effect`` and ``rows``, the train rows that have it; ``pairs``, each with ``names`` (two),
        ``weight``, ``effect`` and ``rows``.
    """
    train, name = data.channels.train, naming(data)
    parts = centred(model, train, data.encoder)
    linear = np.abs(parts.weights) * parts.spread * np.sqrt(moments(train)[1] / train.n)
    strongest = np.argsort(-linear, kind="stable")[:top]
    there, _ = together(train, strongest, strongest)
    features = [
        {"name": name(int(f)), "weight": float(parts.weights[f]), "effect": float(linear[f]), "rows": int(rows)}
        for f, rows in zip(strongest, there, strict=True)
        if linear[f] > 0
    ]
    # Features without spread, as of a constant column, make no pairs.
    first, second, power = meeting(train, np.sqrt(np.einsum("ij,ij->i", parts.factors, parts.factors)) * parts.spread)
    power = power * (parts.spread[first] * parts.spread[second]) ** 2
    likely = np.argsort(-(products(parts.factors, first, second) ** 2) * power, kind="stable")[:CANDIDATES]
    first, second = first[likely], second[likely]
    weight, (there, power) = products(parts.factors, first, second), together(train, first, second)
    effect = np.abs(weight) * parts.spread[first] * parts.spread[second] * np.sqrt(power / train.n)
    pairs = [
        {"names": [name(int(first[p])), name(int(second[p]))], "weight": float(weight[p]), "effect": float(effect[p]),
         "rows": int(there[p])}
        for p in np.argsort(-effect, kind="stable")[:top]
        if effect[p] > 0
    ]  # fmt: skip
    return {"centred": data.encoder is not None, "bias": parts.bias, "features": features, "pairs": pairs}


class Parts(NamedTuple):
    """A score in parts: a bias, a weight a feature, and factors whose products are the pairs' weights.

    ``spread`` is, of each feature, the share of its root mean square that varies: an effect is of what varies.
    """

    bias: float
    weights: Float64
    factors: NDArray[np.float32]
    spread: Float64


def centred(model: Model, rows: Rows, encoder: Encoder | None) -> Parts:
    """Return a model's score in parts that are centred over each column; as the model has it without columns.

    A column is a run of features of which a row has one at most, or else a single feature.
    """
    linear = model.linear.astype(np.float64)
    if encoder is None:
        return Parts(float(model.bias), linear, model.factors, np.ones(len(linear)))
    total, square = moments(rows)
    mean, factors = total / rows.n, model.factors.copy()
    whole = np.einsum("i,ij->j", mean, model.factors, dtype=np.float64)
    own = np.einsum("ij,ij->i", model.factors, model.factors, dtype=np.float64)
    weights = linear + np.einsum("ij,j->i", model.factors, whole, dtype=np.float64) - mean * own
    spread = np.sqrt(np.maximum(0.0, 1 - mean**2 * rows.n / np.where(square > 0, square, 1.0)))
    spread[spread < _NONE] = 0.0
    within = mean**2 * own
    for start, end in encoder.alone():
        part = slice(start, end)
        middle = np.einsum("i,ij->j", mean[part], model.factors[part], dtype=np.float64)
        factors[part] -= middle.astype(np.float32)
        other = np.einsum("ij,j->i", factors[part], whole - middle, dtype=np.float64)
        weights[part] = linear[part] - mean[part] @ linear[part] + other
        # Where all rows have the value it sets none apart; else a row has it or not, and its weight is beside the mean.
        spread[part] = np.where(spread[part] > 0, 1.0, 0.0)
        within[start:end] = 0.0
        within[start] = middle @ middle
    bias = float(model.bias + mean @ linear + (whole @ whole - within.sum()) / 2)
    return Parts(bias, weights, factors, spread)


def products(factors: NDArray[np.float32], first: Int64, second: Int64) -> Float64:
    """Return ``<v_i, v_j>`` of each pair, (pairs,)."""
    found = [
        np.einsum("ij,ij->i", factors[first[at : at + _BLOCK]], factors[second[at : at + _BLOCK]], dtype=np.float64)
        for at in range(0, len(first), _BLOCK)
    ]
    return np.concatenate([np.zeros(0), *found])


def naming(data: StudyData) -> Callable[[int], str]:
    """Return what gives a feature's name: its column and value, its card's word for it, or its group and number."""
    groups = data.channels.groups

    def name(feature: int) -> str:
        if data.encoder is not None:
            text = data.encoder.name(feature)
        elif data.names:
            text = data.names[feature]
        else:
            place = -1 if groups is None else int(np.searchsorted(groups.firsts, feature, "right")) - 1
            text = f"feature {feature}" if groups is None else f"{groups.names[place]}: feature {feature}"
        return text if len(text) <= _NAME else text[: _NAME - 1] + "…"

    return name


def meeting(rows: Rows, lengths: NDArray[np.floating[Any]]) -> tuple[Int64, Int64, Float64]:
    """Return the pairs of features that rows have together, the lesser first, and the sums of squared products.

    Parameters
    ----------
    rows
        Of all of them, or of evenly spaced ones where ``PAIRS`` would be exceeded.
    lengths
        Of the features' factors (feature_dim,).
    """
    many = np.diff(rows.indptr) if isinstance(rows, SparseRows) else np.full(rows.n, rows.feature_dim)
    total = np.minimum(many, WIDE).astype(np.float64) ** 2 / 2
    looked = rows.take(np.arange(0, rows.n, int(np.ceil(max(1.0, total.sum() / PAIRS))))).to_sparse()
    wanted = lengths > 0
    if many.max(initial=0) > WIDE:
        wanted &= lengths >= np.partition(lengths, -WIDE)[-WIDE]
    kept = np.where(wanted[looked.indices], looked.values, 0.0).astype(np.float64)
    # Of the features that are there: a product over all of them has arrays of many times a model's size.
    known, place = np.unique(looked.indices, return_inverse=True)
    there = sparse.csr_array((kept**2, place, looked.indptr), shape=(looked.n, len(known)))
    there.eliminate_zeros()
    pairs = sparse.coo_array(sparse.triu(sparse.csr_array(there.T @ there), 1))
    order = np.lexsort((pairs.col, pairs.row))
    first, second = (known[side[order]].astype(np.int64) for side in (pairs.row, pairs.col))
    return first, second, np.asarray(pairs.data[order], np.float64)


def moments(rows: Rows) -> Float64:
    """Return the sums of each feature's values and of their squares, (2, feature_dim)."""
    found = np.zeros((2, rows.feature_dim))
    for block in _blocks(rows):
        if isinstance(block, DenseRows):
            found[0] += block.matrix.sum(axis=0, dtype=np.float64)
            found[1] += np.einsum("ij,ij->j", block.matrix, block.matrix, dtype=np.float64)
        else:
            values = block.values.astype(np.float64)
            found += np.stack([np.bincount(block.indices, v, rows.feature_dim) for v in (values, values**2)])
    return found


def together(rows: Rows, first: Int64, second: Int64) -> Float64:
    """Return of each pair of features how many rows have both, and the sum of their squared products, (2, pairs).

    A feature paired with itself: the rows that have it, and the sum of its fourth powers.
    """
    known = np.unique(np.concatenate([first, second]))
    place = np.full(rows.feature_dim, -1, np.int32)
    place[known] = np.arange(len(known), dtype=np.int32)
    found = np.zeros((2, len(first)))
    for block in _blocks(rows, _FEW):
        if isinstance(block, DenseRows):
            there = block.matrix[:, known].T.astype(np.float64)
        else:
            column = place[block.indices]
            kept = np.flatnonzero(column >= 0)
            there = np.zeros((len(known), block.n))
            there[column[kept], np.searchsorted(block.indptr, kept, "right") - 1] = block.values[kept]
        both = there[place[first]] * there[place[second]]
        found += np.stack([np.count_nonzero(both, axis=1), np.einsum("ij,ij->i", both, both)])
    return found


def _blocks(rows: Rows, size: int = _BLOCK) -> Iterator[Rows]:
    for start in range(0, rows.n, size):
        yield rows.slice(start, min(start + size, rows.n))
