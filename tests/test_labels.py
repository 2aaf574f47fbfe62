"""Labels of tables: numbers, or two words; what is neither is named, and what a table to be scored may lack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fmtune.data.columns import Columns
from fmtune.data.encoding import Encoder
from fmtune.data.fitting import Fitter
from fmtune.data.kinds import OneHot
from fmtune.data.labels import Words, known_labels, labels_of
from fmtune.errors import DataError, ModelError

LABELS: list[tuple[list[Any], tuple[str, ...]]] = [
    (["yes", "no", "yes"], ("no", "yes")),
    (["b", "a", None], ("a", "b")),
    ([True, False, True], ()),
    ([1, 0, 1], ()),
    (["1", "0"], ()),
    (["1", "?"], ()),
    (["1", "a", "b"], ()),
]


@pytest.mark.parametrize(("cells", "classes"), LABELS, ids=str)
def test_two_words_are_classes(cells: list[Any], classes: tuple[str, ...]) -> None:
    """In alphabetical order; where numbers are among them there are none."""
    assert met(pd.Series(cells)).classes("t") == classes


def met(*blocks: pd.Series[Any]) -> Words:
    """Return the words of a column after so many blocks of ``t.csv``."""
    words, first = Words("y"), 0
    for cells in blocks:
        words.add(cells, "t.csv", np.arange(first, first + len(cells)))
        first += len(cells)
    return words


def test_a_third_word_is_named_where_it_first_stands() -> None:
    """In a later block too, and among the rows that train; the other two are said."""
    said = (
        "t.csv: row 5: the label 'y' is 'maybe', a third value beside 'yes' and 'no'\n"
        "  hint: a label is a number, or one of two words in all: correct it, or drop such rows"
    )
    blocks = [pd.Series(["yes", "no"]), pd.Series(["no", None, "maybe", "maybe"])]
    with pytest.raises(DataError) as error:
        met(*blocks)
    assert str(error.value) == said
    fitter, frame = Fitter(Columns("y", ("u",)), "t.csv"), pd.DataFrame({"u": "a", "y": pd.concat(blocks)})
    with pytest.raises(DataError) as error:
        fitter.add(frame, np.array([True, True, True, False, True, False]))
    assert str(error.value) == said


def test_labels_that_are_all_the_same_word_are_refused() -> None:
    """With the column and how many there are; numbers beside the word leave the fault to the cell itself."""
    with pytest.raises(DataError) as error:
        met(pd.Series(["yes"] * 3), pd.Series(["yes"])).classes("t.csv")
    assert str(error.value) == (
        "t.csv: all 4 labels in the column 'y' are 'yes': there is nothing to tell apart, and no score means anything\n"
        "  hint: take rows with other labels too, or name another label"
    )
    assert met(pd.Series(["yes"]), pd.Series([0, 1])).classes("t.csv") == ()


def test_an_encoder_keeps_its_words() -> None:
    """They are learned block by block and written with it; without words its JSON is what it was."""
    fitter = Fitter(Columns("y", ("u",)))
    for word in ("no", "yes", "no"):
        fitter.add(pd.DataFrame({"u": ["a"], "y": [word]}))
    encoder = Encoder.from_json(fitter.encoder().to_json())
    rows = encoder.rows(pd.DataFrame({"u": ["a", "a", "a"], "y": ["yes", "no", "yes"]}))
    assert encoder.classes == ("no", "yes") and rows.labels is not None and rows.labels.tolist() == [1, 0, 1]
    plain = Encoder([OneHot("u", ("a",))], "y").to_json()
    assert "classes" not in plain
    for wrong in (["a"], ["a", 1], "ab", 7):
        with pytest.raises(ModelError, match="the encoding is not understood"):
            Encoder.from_json({**plain, "classes": wrong})


FAULTS = [
    ("maybe", "t.csv: row 12: the label 'y' is 'maybe', neither 'no' nor 'yes'\n  hint: a label is a number, or one "
     "of two words in all: correct it, or drop such rows"),
    (None, "t.csv: row 12: the label 'y' is missing\n  hint: drop such rows before reading the table"),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "said"), FAULTS, ids=str)
def test_another_word_is_named(cell: str | None, said: str) -> None:
    """With the file and the row."""
    with pytest.raises(DataError) as error:
        labels_of(pd.DataFrame({"y": ["yes", cell]}), "y", ("no", "yes"), 10, "t.csv")
    assert str(error.value) == said


def test_what_is_to_be_scored_may_have_labels() -> None:
    """Those that are understood are taken; of no column, none."""
    frame = pd.DataFrame({"y": ["yes", "?", None, "no"], "n": ["1", "x", None, 1e39]})
    np.testing.assert_array_equal(known_labels(frame, "y", ("no", "yes")), [1, np.nan, np.nan, 0])
    np.testing.assert_array_equal(known_labels(frame, "n", ()), [1, np.nan, np.nan, np.nan])
    assert np.isnan(known_labels(frame, "z", ())).all() and np.isnan(known_labels(frame, None, ())).all()
