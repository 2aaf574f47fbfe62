"""Explained: what a winner's scores come from: its strongest features and pairs, by name, for its report.

A weight alone says little: a pixel that is seldom lit may have the largest.  What counts is its effect, the root mean
square of what it adds to a train row's score.  And the largest ``|<v_i, v_j>|`` belong mostly to two users or two
movies, which no row has together: only pairs that some row has are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

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

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def explained(model: Model, data: StudyData, top: int = TOP) -> dict[str, Any]:
    """Return a model's strongest features and pairs, as a study keeps them.

    Returns
    -------
    dict
        ``bias``; ``features``, each with ``name``, ``weight`` (linear), ``effect`` and ``rows``, the train rows that
        have it; ``pairs``, each with ``names`` (two), ``weight``, ``effect`` and ``rows``.
    """
    train, name = data.channels.train, naming(data)
    linear = np.abs(model.linear) * np.sqrt(squares(train) / train.n)
    strongest = np.argsort(-linear, kind="stable")[:top]
    there, _ = together(train, strongest, strongest)
    features = [
        {"name": name(int(f)), "weight": float(model.linear[f]), "effect": float(linear[f]), "rows": int(rows)}
        for f, rows in zip(strongest, there, strict=True)
        if linear[f] > 0
    ]
    first, second, power = meeting(train, np.sqrt(np.einsum("ij,ij->i", model.factors, model.factors)))
    likely = np.argsort(-(products(model, first, second) ** 2) * power, kind="stable")[:CANDIDATES]
    first, second = first[likely], second[likely]
    weight, (there, power) = products(model, first, second), together(train, first, second)
    effect = np.abs(weight) * np.sqrt(power / train.n)
    pairs = [
        {"names": [name(int(first[p])), name(int(second[p]))], "weight": float(weight[p]), "effect": float(effect[p]),
         "rows": int(there[p])}
        for p in np.argsort(-effect, kind="stable")[:top]
        if effect[p] > 0
    ]  # fmt: skip
    return {"bias": float(model.bias), "features": features, "pairs": pairs}


def products(model: Model, first: Int64, second: Int64) -> Float64:
    """Return ``<v_i, v_j>`` of each pair, (pairs,)."""
    found = [
        np.einsum("ij,ij->i", model.factors[first[at : at + _BLOCK]], model.factors[second[at : at + _BLOCK]],
                  dtype=np.float64)
        for at in range(0, len(first), _BLOCK)
    ]  # fmt: skip
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


def squares(rows: Rows) -> Float64:
    """Return the sum of each feature's squared values, (feature_dim,)."""
    found = np.zeros(rows.feature_dim)
    for block in _blocks(rows):
        if isinstance(block, DenseRows):
            found += np.einsum("ij,ij->j", block.matrix, block.matrix, dtype=np.float64)
        else:
            found += np.bincount(block.indices, block.values.astype(np.float64) ** 2, rows.feature_dim)
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
