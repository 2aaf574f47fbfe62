"""Splits of tables: shares are kept, blocks do not matter, groups and times stay together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fmtune.data.split import Divider, Split
from fmtune.errors import DataError, UsageError

FRAME = pd.DataFrame({"time": np.random.default_rng(0).permutation(10_000), "user": np.arange(10_000) % 500})
SPLITS = [Split(0.2, 0.1), Split(0.2, 0.1, by="time"), Split(0.2, 0.1, group="user"), Split(holdout=0.3), Split()]


def divided(split: Split, frame: pd.DataFrame = FRAME, block: int = 1000) -> np.ndarray[Any, Any]:
    divider = Divider(split, "t.csv")
    parts = [(at, frame.iloc[at : at + block]) for at in range(0, len(frame), block)]
    for _, part in parts if split.by else []:
        divider.look(part)
    return np.concatenate([divider.divide(part, at)[0] for at, part in parts])


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_shares_are_kept_whatever_the_blocks(split: Split) -> None:
    """Each channel gets its share, about, and a row's channel does not depend on the block it came in."""
    places = divided(split)
    assert places.tolist() == divided(split, block=777).tolist()
    shares = {"train": 1 - split.test - split.holdout, "test": split.test, "holdout": split.holdout}
    for at, name in enumerate(split.channels):
        assert abs((places == at).mean() - shares[name]) < 0.05
    assert set(places.tolist()) == set(range(len(split.channels)))


def test_the_newest_rows_are_tested() -> None:
    """By time: every row of train is older than any of test, and those than any held out."""
    places = divided(Split(0.2, 0.1, by="time"))
    oldest, newest = (FRAME["time"].groupby(places).agg(how) for how in ("min", "max"))
    assert newest[0] < oldest[1] <= newest[1] < oldest[2]
    text = FRAME.assign(time=pd.to_datetime(FRAME["time"], unit="h").astype(str))
    assert divided(Split(0.2, 0.1, by="time"), text).tolist() == places.tolist()


def test_a_group_stays_together() -> None:
    """All rows of a user are in one channel; another seed chooses others."""
    places = divided(Split(0.3, group="user"))
    assert (pd.Series(places).groupby(FRAME["user"]).nunique() == 1).all()
    assert places.tolist() != divided(Split(0.3, group="user", seed=1)).tolist()


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"test": 1.0}, "test is 1"),
        ({"test": 0.5, "holdout": 0.5}, "leave nothing to train on"),
        ({"by": "a", "group": "b"}, "by time or by group"),
    ],
)
def test_impossible_splits_are_refused(values: dict[str, Any], fault: str) -> None:
    """With the next step."""
    with pytest.raises(UsageError, match=fault):
        Split(**values)


def test_times_that_are_none_are_named() -> None:
    """A column that is missing, words, and gaps."""
    for cells, fault in (
        ([None, "2024-05-17", "17.5.2024"], "'time' is '17.5.2024', no time as ISO 8601 has it"),
        ([None, 3.0], "is missing in some rows"),
    ):
        with pytest.raises(DataError, match=fault):
            divided(Split(0.1, by="time"), pd.DataFrame({"time": cells}))
    with pytest.raises(DataError, match="the column 'when' is not in the table"):
        divided(Split(0.1, by="when"))
