"""Groups of features: what may be written, and that priors and decay follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fmtune.errors import UsageError
from fmtune.fm.fit import Channels, train
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import SOLVERS, Hyperparameters
from tests import fm_reference as reference


@pytest.mark.parametrize("raw", [[0, 3], [3, 0], {"b": 3, "a": 0}, {"a": {"first": 0}, "b": {"first": 3, "decay": 1}}])
def test_groups_are_written_in_many_ways(raw: Any) -> None:
    """A list, a mapping in any order, or mappings with a decay say the same."""
    groups = Groups.of(raw)
    assert (groups.firsts, groups.decays) == ((0, 3), (1.0, 1.0))
    assert groups.features(5).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("raw", [
    [], {}, [1, 3], [0, 3, 3], [0, -1], [0, 2.5], [0, True], {"a": "x"}, {"a": {"first": 0, "wd": 1}}, {"a": {}},
    {"a": {"first": 0, "decay": -1}}, {"a": {"first": 0, "decay": True}}, {"a": None},
])  # fmt: skip
def test_impossible_groups_are_refused(raw: Any) -> None:
    """No beginning at 0, two at one place, or a number that is none; the message shows how to write them."""
    with pytest.raises(UsageError) as caught:
        Groups.of(raw)
    assert caught.value.hint is not None and "943" in caught.value.hint


def test_a_group_lies_within_the_features() -> None:
    """A group that begins beyond the last feature is refused when the data are known."""
    with pytest.raises(UsageError, match="'b' begins at feature 5"):
        Channels(reference.rows(10, 5, 2), groups=Groups.of({"a": 0, "b": 5}))


@pytest.mark.parametrize("solver", SOLVERS)
def test_groups_reach_every_solver(solver: str) -> None:
    """Each gives another model with groups; in one with more decay, als and sgd give smaller factors."""
    data = reference.rows(80, 6, 3, binary=False)
    h = Hyperparameters.of({
        "solver": solver, "num_factors": 2, "epochs": 3, "factors_wd": 0.1, "factors_lr": 0.1,
        "factors_init_sigma": 0.1, "mini_batch_size": 8, "optimizer": "sgd",
    })  # fmt: skip
    groups = Groups.of({"a": 0, "b": {"first": 3, "decay": 20.0}})
    with_, without = (train(Channels(data, groups=g), h).model for g in (groups, None))
    assert with_.to_bytes() != without.to_bytes()
    if solver != "mcmc":
        assert np.abs(with_.factors[3:]).sum() < 0.5 * np.abs(without.factors[3:]).sum()
