"""Numbering: features numbered by how often they occur, so that the frequent ones' parameters lie together in memory.

Only an arena and the mini-batches made for it know these numbers: what goes in or comes out has the features' own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fmtune.rows import SparseRows

# From about this many features on it was seen to pay; the fewer there are, the more of them lie in the caches anyway.
MANY = 1 << 17
# Entries that are counted, and in how many places: the frequent features are found in a part of the rows.
_COUNTED, _BLOCKS = 1 << 22, 16


class Numbering:
    """Where each feature's row is in an arena.

    Parameters
    ----------
    place
        int32 (feature_dim,), each number once.
    """

    def __init__(self, place: NDArray[np.int32]) -> None:
        self.place = place
        self._last: tuple[SparseRows, SparseRows] | None = None

    @classmethod
    def of(cls, rows: SparseRows) -> Numbering:
        """Return the numbering by the features' frequency in rows; what occurs equally often keeps its order."""
        blocks = 1 if rows.nnz <= _COUNTED else _BLOCKS
        size = min(rows.nnz, _COUNTED) // blocks
        starts = np.linspace(0, rows.nnz - size, blocks).astype(np.int64)
        counts = np.zeros(rows.feature_dim, np.int64)
        for start in starts:
            counts += np.bincount(rows.indices[start : start + size], minlength=rows.feature_dim)
        place = np.empty(rows.feature_dim, np.int32)
        place[np.argsort(-counts, kind="stable")] = np.arange(rows.feature_dim, dtype=np.int32)
        return cls(place)

    def rows(self, rows: SparseRows) -> SparseRows:
        """Return the rows with these numbers; the last are kept, as a test channel comes again and again."""
        last = self._last
        if last is None or last[0] is not rows:
            self._last = last = (rows, replace(rows, indices=self.place[rows.indices]))
        return last[1]
