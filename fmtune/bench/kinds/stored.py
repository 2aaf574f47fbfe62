"""Stored: rows as the measuring side wrote them, so that every version is given the very same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from fmtune.rows import DenseRows, Rows, SparseRows


def rows(path: str, channel: str) -> Rows:
    """Return a channel of a file that ``fmtune.bench.stock`` wrote."""
    with np.load(path, allow_pickle=False) as file:
        labels, dim = file[f"{channel}_labels"], int(file["feature_dim"])
        if f"{channel}_matrix" in file:
            return DenseRows(file[f"{channel}_matrix"], labels, dim)
        indptr, indices, values = (file[f"{channel}_{name}"] for name in ("indptr", "indices", "values"))
        return SparseRows(indptr, indices, values, labels, dim)


def digest(numbers: Iterable[float]) -> str:
    """Return a short digest of numbers, exact to the last bit."""
    text = " ".join(float(number).hex() for number in numbers)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
