"""Dataset cards: what they say is complete, and what they load is what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fmtune.data import catalog
from fmtune.errors import DataError, UsageError
from fmtune.rows import SparseRows


def test_every_card_is_complete() -> None:
    """Origin, licence, task, a maker that exists, keys with defaults inside their ranges, a file with its digest."""
    cards = catalog.cards()
    assert set(cards) == {"digits", "planted-clicks"}
    for name, card in cards.items():
        assert card.name == name and card.title and card.description and card.origin and card.licence
        assert card.task == "binary_classifier" and card.maker in catalog.MAKERS
        assert (card.file is None) == (card.sha256 is None)
        assert catalog.check_keys(card, {}) == {key: value.default for key, value in card.keys.items()}


def test_digits_are_split_60_20_20_with_equal_shares_of_every_digit() -> None:
    """1,797 rows, each in one channel; a split is the same every time, another split another."""
    data = catalog.load("digits")
    assert data.test is not None and data.holdout is not None
    channels = (data.train, data.test, data.holdout)
    assert [rows.n for rows in channels] == [1078, 360, 359]
    assert all(isinstance(rows, SparseRows) and rows.feature_dim == 64 for rows in channels)
    for wanted in range(10):
        parts = catalog.load({"card": "digits", "class": wanted})
        positive = [float(rows.labels.sum()) for rows in (parts.train, parts.test, parts.holdout)]  # type: ignore[union-attr]
        assert np.allclose(np.array(positive) / parts.facts["positive"], [0.6, 0.2, 0.2], atol=0.006)
    assert len({row.tobytes() for rows in channels for row in rows.to_dense().matrix}) == 1797
    assert catalog.load("digits").train.digest() == data.train.digest()
    assert catalog.load("digits", {"split": 1}).train.digest() != data.train.digest()


def test_the_pixels_lie_between_zero_and_one() -> None:
    """Grey level 16 is 1; a pixel of 0 is not stored."""
    rows = catalog.load("digits").train
    assert isinstance(rows, SparseRows)
    assert sorted(set((rows.values * 16).tolist())) == list(range(1, 17))


def test_the_split_never_changes() -> None:
    """Anybody's numbers for split 0 are about these rows."""
    assert catalog.load("digits").train.digest()[:16] == "93288f43bd2b0933"


def test_a_changed_or_missing_file_is_refused(tmp_path: Path) -> None:
    """The card's SHA-256 is checked at every load."""
    shutil.copy(catalog.folder() / "digits.yaml", tmp_path)
    with pytest.raises(
        DataError, match=r"digits\.csv\.gz: the card's file is missing\n  hint: get it from https://archive"
    ):
        catalog.load("digits", where=tmp_path)
    (tmp_path / "digits.csv.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"digits\.csv\.gz: the file's SHA-256 is not the card's"):
        catalog.load("digits", where=tmp_path)


BAD = {
    "a near name": ({"card": "digit"}, "unknown dataset card 'digit' (did you mean 'digits'?)\n"
                    "  hint: the cards are digits, planted-clicks"),
    "a near key": ({"card": "digits", "clas": 3}, "card digits: unknown key 'clas' (did you mean 'class'?)\n"
                   "  hint: the keys of digits are class, split"),
    "out of range": ({"card": "digits", "class": 10}, "card digits: class is 10, not a whole number from 0 to 9\n"
                     "  hint: class: the digit to be told from the others (label 1)"),
    "a truth value": ({"card": "digits", "class": True}, "card digits: class is True, not a whole number from 0 to 9\n"
                      "  hint: class: the digit to be told from the others (label 1)"),
    "no training rows": ({"card": "planted-clicks", "rows": 10, "test": 0.6, "holdout": 0.4},
                         "card planted-clicks: test and holdout leave no rows to learn from\n"
                         "  hint: give them less than 1 together"),
    "too few features": ({"card": "planted-clicks", "features": 5},
                         "card planted-clicks: features is less than fields\n  hint: every field needs a feature"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_wrong_cards_and_keys_are_usage_errors(name: str) -> None:
    """The text stands here word for word."""
    card, text = BAD[name]
    with pytest.raises(UsageError) as error:
        catalog.load(card)
    assert str(error.value) == text
