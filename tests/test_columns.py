"""Columns of a table: what they may be, and what a look at the first rows makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fmtune.data.columns import Columns, checked, inferred, is_id, times
from fmtune.errors import DataError, UsageError

N = 200
FRAME = pd.DataFrame({
    "user_id": np.arange(N) % 90 * 10**9,
    "stars": np.arange(N) % 5,
    "hour": np.arange(N) % 24,
    "price": np.arange(N) + 0.5,
    "clicks": np.arange(N) ** 2,
    "genre": ["Action|War", "War", "Action", "Drama|War"] * (N // 4),
    "colour": ["red", "blue"] * (N // 2),
    "title": [f"about {i}" for i in range(N)],
    "member": [True, False] * (N // 2),
    "timestamp": 10**9 + np.arange(N),
    "when": pd.date_range("2024-01-01", periods=N),
    "empty": [None] * N,
    "both": [["a", "b"], ["c"]] * (N // 2),
})  # fmt: skip


@pytest.mark.parametrize(("cell", "is_time"), [
    ("2024-05-17", True), ("2024-05-17T09:30:00Z", True), ("2024-05-17 09:30:00+02:00", True), (None, False),
    ("2024-13-17", False), ("17.5.2024", False), ("2024-05-17 to 2024-05-18", False), ("2024", False),
])  # fmt: skip
def test_times_of_a_csv_are_times(cell: str | None, is_time: bool) -> None:
    """Text of ISO 8601 divides train from test as the same times of a Parquet file do."""
    frame = pd.DataFrame({"seen": ["2024-05-16", cell] if cell else [None, None]})
    assert times(frame) == (["seen"] if is_time else [])
    assert times(pd.DataFrame({"seen": pd.to_datetime(["2024-05-16", "2024-05-17"])})) == ["seen"]


def test_columns_are_chosen_by_what_they_hold() -> None:
    """Names, lists and numbers that come back are categorical; times, unique text and empty columns stay out."""
    found, said = inferred(Columns("stars"), FRAME, "t.csv", ["colour"])
    assert found.categorical == ("user_id", "hour", "member")
    assert found.multivalued == ("genre", "both")
    assert found.numeric == ("price", "clicks")
    assert [line for line in said if "left out" in line] == [
        "title: left out (text; its values almost never come back)",
        "timestamp: left out (a time; it can divide train from test)",
        "when: left out (a time; it can divide train from test)",
        "empty: left out (its first cells are empty)",
    ]
    assert len(said) == len(FRAME.columns) - 2


@pytest.mark.parametrize("name", ["id", "ID", "user_id", "user id", "userId", "adID", "USERID", "Item", "zip"])
def test_a_column_is_named_as_an_id(name: str) -> None:
    """Whole numbers in it are names; in one whose name only ends so they are quantities, and so are fractions."""
    assert is_id(name, pd.Series([1.0, np.nan, 70.0])) and not is_id(name, pd.Series([1.5, 2.0]))
    assert not any(is_id(other, pd.Series([1, 2])) for other in ("bid", "paid", "Grid", "users", "encode", "idea"))


@pytest.mark.parametrize(
    ("values", "rows", "said"),
    [
        (300, 300, "left out (whole numbers, named as an id; its values almost never come back)"),
        (298, 300, "left out (whole numbers, named as an id; its values almost never come back)"),
        (297, 300, "categorical (whole numbers, named as an id; its values seldom come back)"),
        (151, 300, "categorical (whole numbers, named as an id; its values seldom come back)"),
        (150, 300, "categorical (whole numbers, named as an id)"),
        (99, 99, "categorical (whole numbers, named as an id)"),
    ],
)
def test_an_id_that_is_a_rows_own_stays_out(values: int, rows: int, said: str) -> None:
    """A row's number says nothing of another row; of a short table nobody can tell."""
    frame = pd.DataFrame({"id": np.arange(rows) % values, "sex": ["f", "m", "f"] * (rows // 3), "y": 1.5})
    found, notes = inferred(Columns("y"), frame, "t.csv")
    assert notes == [f"id: {said}", "sex: categorical (text)"]
    assert found.categorical == (("id", "sex") if said.startswith("categorical") else ("sex",))


def test_named_columns_are_all_that_is_taken() -> None:
    """Where one feature is named, nothing is added to it."""
    named = Columns("stars", numeric=("price",))
    assert inferred(named, FRAME, "t.csv") == (named, [])
    with pytest.raises(DataError, match="no column is left for the features"):
        inferred(Columns("stars"), FRAME[["stars", "title"]], "t.csv")


def test_missing_columns_are_named() -> None:
    """With a guess at the label, at what was meant, and the columns that there are."""
    with pytest.raises(DataError, match=r"no column is named as the label\n  hint: name it, perhaps label 'stars'"):
        checked(Columns(), FRAME, "t.csv")
    with pytest.raises(DataError, match=r"t.csv: the table has no column 'prise' \(did you mean 'price'\?\)"):
        checked(Columns("stars", numeric=("prise",)), FRAME, "t.csv")
    with pytest.raises(DataError, match="the table has no column 'star'"):
        checked(Columns("star"), FRAME, "t.csv")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"label": "a", "categorical": ("a",)}, "the column 'a' is named twice"),
        ({"separator": ""}, "the separator is empty"),
        ({"buckets": 1}, "buckets is 1"),
        ({"min_count": 0}, "min_count is 0"),
        ({"hash_bits": 40}, "hash_bits is 40"),
        ({"hash_bits": 4, "min_count": 2}, "hashed values are not counted"),
    ],
)
def test_impossible_columns_are_refused(values: dict[str, Any], fault: str) -> None:
    """Before any table is read."""
    with pytest.raises(UsageError, match=fault):
        Columns(**values)
