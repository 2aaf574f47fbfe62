"""Defaults: mini-batches and decays that fit the rows they are given; ``docs/sklearn.md`` says how they were chosen."""

from __future__ import annotations

import math

import numpy as np

from fmtune.rows import Rows, SparseRows

DECAYS = ("linear_wd", "factors_wd")
_PENALTY = 7.0
_FEWEST, _MOST = 64, 200


def batch_of(n: int) -> int:
    """Return how many of ``n`` rows make a mini-batch."""
    # Twenty updates an epoch or more; with large mini-batches a rare feature has too few updates to learn from.
    return min(max(n // 20, _FEWEST), _MOST)


def decay_of(rows: Rows, batch: int, lazy: bool = True) -> float:
    """Return the weight decay whose penalty, over an epoch, is the same for all data: that of ridge with alpha 7.

    An update takes the mean loss of ``batch`` rows, but the whole decay.  A feature that stands in ``m`` mini-batches
    of an epoch is therefore pulled to 0 as by ``m * batch * decay / 2`` times its square beside the summed loss.
    """
    batches = math.ceil(rows.n / batch)
    met = float(batches)
    if lazy and isinstance(rows, SparseRows):
        seen = np.bincount(rows.indices)
        seen = seen[seen > 0]
        if len(seen):
            # Of rows in random order; a feature in many rows is in all mini-batches, one in few rows in as many.
            met = float(np.mean(batches * -np.expm1(-seen / batches)))
    return _PENALTY / (batch * met)
