"""Features numbered by frequency."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fmtune.fm.numbering import Numbering
from tests import fm_reference as reference


def test_the_most_frequent_feature_comes_first() -> None:
    """Places are each taken once, by falling frequency, and features that occur equally often keep their order."""
    data = reference.rows(200, 30, 4)
    skewed = replace(data, indices=(data.indices // 3).astype(np.int32))
    place = Numbering.of(skewed).place
    counts = np.bincount(skewed.indices, minlength=30)
    assert sorted(place) == list(range(30)) and (np.diff(counts[np.argsort(place)]) <= 0).all()
    assert (np.diff(place[counts == 0]) > 0).all()


def test_rows_that_come_again_are_numbered_once() -> None:
    """A test channel's rows are kept with their numbers; other rows take their place."""
    first, other = reference.rows(20, 30, 4), reference.rows(20, 30, 4, seed=1)
    numbering = Numbering.of(first)
    made = numbering.rows(first)
    np.testing.assert_array_equal(made.indices, numbering.place[first.indices])
    assert numbering.rows(first) is made
    np.testing.assert_array_equal(numbering.rows(other).indices, numbering.place[other.indices])
