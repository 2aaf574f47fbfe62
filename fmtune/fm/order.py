"""Order: the sequence in which rows are trained.

So that rows mapped from a file are read almost in sequence, it is a permutation of all rows only up to ``BUFFER``
entries.  Beyond that, short blocks of neighbouring rows are permuted, and then the rows of each ``BLOCKS`` blocks that
follow each other.  The order depends on the rows and the seed, never on the memory there is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BUFFER = 1 << 23
"""Entries of the rows that are permuted among each other."""
BLOCKS = 256
"""Blocks of neighbouring rows that such a buffer holds."""


class Order:
    """One epoch's order.

    Parameters
    ----------
    n, nnz
        Rows, and entries of all of them together.
    seed
        ``shuffle_seed`` and the epoch; None leaves the rows as they stand.

    Attributes
    ----------
    bytes : int
        What it takes of the memory.
    """

    def __init__(self, n: int, nnz: int, seed: tuple[int, int] | None) -> None:
        self._n, self._seed = n, seed
        self._block = max(1, int(BUFFER * n / max(1, nnz)) // BLOCKS)
        self._buffer = self._block * BLOCKS
        self._few = n <= self._buffer
        self.bytes = 0
        if seed is None:
            return
        random = np.random.default_rng(seed)
        # The last block may be short: it stays the last, so that every other buffer is full.
        self._starts = random.permutation(n) if self._few else random.permutation(n // self._block) * self._block
        self.bytes = self._starts.nbytes

    def rows(self, begin: int, end: int) -> NDArray[np.int64]:
        """Return which rows stand at places ``begin`` to ``end`` (exclusive), int64."""
        if self._seed is None:
            return np.arange(begin, end)
        if self._few:
            return self._starts[begin:end]
        first, last = begin // self._buffer, -(-end // self._buffer)
        order = np.concatenate([self._shuffled(i) for i in range(first, last)])
        return order[begin - first * self._buffer : end - first * self._buffer]

    def _shuffled(self, i: int) -> NDArray[np.int64]:
        """Return the rows of buffer ``i``."""
        assert self._seed is not None
        starts = self._starts[i * BLOCKS : (i + 1) * BLOCKS]
        rows = (starts[:, None] + np.arange(self._block)).reshape(-1)
        whole = len(self._starts) * self._block
        if len(starts) < BLOCKS:
            rows = np.concatenate([rows, np.arange(whole, self._n)])
        np.random.default_rng((*self._seed, i)).shuffle(rows)
        return rows
