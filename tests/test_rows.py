"""Rows: what is carried along, and what a digest stands for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fmtune.errors import DataError
from fmtune.rows import Rows, concatenate
from tests import fm_reference as reference

WEIGHTS = np.arange(5, dtype=np.float32)
SPARSE = replace(reference.rows(5, 7, 3), weights=WEIGHTS)


@pytest.mark.parametrize("rows", [SPARSE, SPARSE.to_dense()], ids=["sparse", "dense"])
def test_weights_go_wherever_the_rows_go(rows: Rows) -> None:
    """Taken, cut, widened, converted or joined, each row keeps its weight."""
    for same in (rows, rows.widen(9), rows.to_dense(), rows.to_sparse(), rows.to_dense().to_sparse()):
        np.testing.assert_array_equal(np.asarray(same.weights), WEIGHTS)
    np.testing.assert_array_equal(np.asarray(rows.take(np.array([3, 0])).weights), [3, 0])
    np.testing.assert_array_equal(np.asarray(rows.slice(1, 3).weights), [1, 2])
    np.testing.assert_array_equal(np.asarray(concatenate([rows, rows.slice(0, 2)]).weights), [0, 1, 2, 3, 4, 0, 1])
    assert rows.nbytes == replace(rows, weights=None).nbytes + WEIGHTS.nbytes


@pytest.mark.parametrize("rows", [SPARSE, SPARSE.to_dense()], ids=["sparse", "dense"])
def test_a_digest_knows_the_weights(rows: Rows) -> None:
    """Rows that differ in weights alone have different digests."""
    digests = {replace(rows, weights=w).digest() for w in (None, WEIGHTS, WEIGHTS + 1)}
    assert len(digests) == 3


@pytest.mark.parametrize("what", ["labels", "weights"])
def test_some_blocks_with_and_some_without_are_refused(what: str) -> None:
    """Blocks of which only some have labels, or weights, cannot be joined."""
    without = {"labels": replace(SPARSE, labels=None), "weights": replace(SPARSE, weights=None)}[what]
    with pytest.raises(DataError, match=f"some of the data have {what}"):
        concatenate([SPARSE, without])
