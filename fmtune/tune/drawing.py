"""Drawing: test rows with replacement, which tells how far a score would be another on other rows.

Rows of one user are alike, so where a split keeps groups together, whole groups are drawn: an interval over single rows
would be far too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Units = NDArray[np.int64]

# 95 % intervals of a log loss held it in 92 % of tries with 30 rows, in 89 % with 20, in 78 % with 5.
LEAST = 30
"""Rows, or groups of them, below which drawing says too little for an interval or a verdict."""


def groups_of(units: Units | None) -> int | None:
    """Return how many groups there are, None where each row is one of its own."""
    return None if units is None else int(units.max(initial=-1)) + 1


def enough(n: int, units: Units | None = None) -> bool:
    """Whether there are ``LEAST`` rows, or groups of them, to draw from."""
    groups = groups_of(units)
    return (n if groups is None else groups) >= LEAST


def shares(n: int, units: Units | None, draws: int, seed: int, block: int = 50) -> Iterator[Float64]:
    """Yield how much each row counts in each draw, float64 (at most ``block``, n), every draw's sum 1; 0 is not drawn.

    Parameters
    ----------
    n
        Rows.
    units
        The group of each row, 0 up to their count, int64 (n,); None where each row is one of its own.
    draws
        How many in all; the same seed draws the same.
    """
    rng = np.random.default_rng(seed)
    groups = groups_of(units)
    count = n if groups is None else groups
    for start in range(0, draws, block):
        picks = rng.integers(0, count, (min(block, draws - start), count))
        times = np.stack([np.bincount(one, minlength=count) for one in picks]).astype(np.float64)
        rows = times if units is None else times[:, units]
        yield rows / rows.sum(axis=1, keepdims=True)
