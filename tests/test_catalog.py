"""Dataset cards: what they say is complete, and what they load is what they say."""

from __future__ import annotations

import gzip
import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fmtune.data import catalog, idx, movielens
from fmtune.errors import DataError, UsageError
from fmtune.fm.groups import Groups
from fmtune.rows import SparseRows
from tests.card_fixtures import card_file, pictures, ratings, serving, write_card


def test_every_card_is_complete() -> None:
    """Origin, licence, task, a maker that exists, keys with defaults that they allow, files with digests."""
    cards = catalog.cards()
    assert set(cards) == {"digits", "fashion-mnist", "mnist", "movielens-100k", "planted-clicks", "planted-ratings"}
    for name, card in cards.items():
        assert card.name == name and card.title and card.description and card.origin and card.licence
        assert card.task in ("binary_classifier", "regressor") and card.maker in catalog.MAKERS
        assert bool(card.files) != card.maker.startswith("planted")
        for file in card.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256) and file.size > 0
            assert all(url.endswith("/" + file.name) for url in file.urls)
        defaults = {key: value.default for key, value in card.keys.items()}
        assert catalog.check_keys(card, {}) == defaults == catalog.check_keys(card, defaults)


def test_only_what_may_be_given_on_lies_beside_the_cards() -> None:
    """MovieLens may not be redistributed, and pictures are large: they are downloaded, never shipped."""
    shipped = {path.name for path in catalog.folder().iterdir() if path.suffix != ".yaml"}
    assert shipped == {"digits.csv.gz"}


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


def _cards(folder: Path, name: str, maker: str, contents: dict[str, bytes], site: str) -> Path:
    files = [card_file(file, content, f"{site}/{file}") for file, content in contents.items()]
    write_card(folder, name, maker, files)
    return folder


def test_pictures_are_downloaded_when_they_are_first_used(tmp_path: Path) -> None:
    """The training file's last pictures are test, the test file is the holdout; a pixel of 255 is 1."""
    contents = pictures(train=60, test=20)
    home = tmp_path / "home"
    with serving() as site:
        site.files = {f"/{name}": content for name, content in contents.items()}
        cards = _cards(tmp_path / "cards", "small", "images", contents, site.url)
        data = catalog.load({"card": "small", "class": 3, "test": 10}, where=cards, home=home)
        again = catalog.load({"card": "small", "class": 4, "test": 20}, where=cards, home=home)
        assert len(site.asked) == 4
    assert data.test is not None and data.holdout is not None and again.holdout is not None
    assert [rows.n for rows in (data.train, data.test, data.holdout, again.train)] == [50, 10, 20, 40]
    for rows, first in ((data.train, 0), (data.test, 50), (data.holdout, 0)):
        numbers = np.arange(first, first + rows.n)
        dense = rows.to_dense()
        assert rows.labels is not None and rows.labels.tolist() == (numbers % 10 == 3).tolist()
        assert isinstance(rows, SparseRows) and rows.nnz == rows.n + np.count_nonzero(numbers % 3)
        assert (dense.matrix[np.arange(rows.n), numbers % 10] == 1).all()
        assert np.allclose(dense.matrix[:, 15], numbers % 3 / 255)
    assert data.facts == {"classes": 10, "positive": 6}


def test_ratings_are_one_hot_rows(tmp_path: Path) -> None:
    """User and movie; with attributes age, gender, occupation, zip, year and genres after each."""
    with serving() as site:
        site.files["/ml-100k.zip"] = ratings()
        cards = _cards(tmp_path / "cards", "ml", "movielens", {"ml-100k.zip": ratings()}, site.url)
        plain, full, other = (
            catalog.load("ml", keys, where=cards, home=tmp_path / "home")
            for keys in ({}, {"attributes": True}, {"split": "u1"})
        )
    assert plain.test is not None and plain.holdout is None and full.test is not None and other.test is not None
    assert plain.train.to_dense().matrix.tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1], [0, 0, 1, 0, 1, 0]]
    assert plain.train.labels is not None and plain.train.labels.tolist() == [5, 1, 4]
    assert (plain.train.n, plain.test.n, other.train.n, other.test.n) == (3, 1, 1, 3)
    widths = {"user": 3, "age": 2, "gender": 2, "occupation": 3, "zip": 3, "movie": 3, "year": 3, "genre": 5}
    firsts = dict(zip(widths, itertools.accumulate(widths.values(), initial=0), strict=False))
    assert full.groups == firsts and full.train.feature_dim == sum(widths.values()) == len(full.names)
    assert full.names[:4] == ("user=1", "user=2", "user=3", "age=20 to 24")
    assert full.names[13] == "movie=Toy Story (1995)"
    assert full.names[19:21] == ("genre=unknown", "genre=Action") and full.names[23] == "genre=Comedy"
    assert [Groups.of(card.groups).firsts[0] for card in (plain, full, other)] == [0, 0, 0]
    ages, genres = slice(3, 5), slice(19, 24)
    matrix = full.train.to_dense().matrix
    assert matrix[:, ages].tolist() == [[1, 0], [0, 1], [1, 0]]  # 24, 53 and 23: 20 to 24, 50 to 54
    assert matrix[:, genres].sum(1).tolist() == [3, 1, 1] and matrix.sum(1).tolist() == [10, 8, 8]


DAMAGED = {
    "no archive": (b"x", "File is not a zip file"),
    "an empty split": (ratings(ua_base=""), "no ratings"),
    "a user beyond": (ratings(ua_base="4\t1\t5\t1\n"), "index (3) out of range"),
    "a user 0": (ratings(ua_base="0\t1\t5\t1\n"), "ratings have a user, a movie, a rating and a time"),
    "a movie 0": (ratings(ua_base="1\t0\t5\t1\n"), "ratings have a user, a movie, a rating and a time"),
    "five columns": (ratings(ua_base="1\t1\t5\t1\t1\n"), "ratings have a user, a movie, a rating and a time"),
    "a gap in the users": (ratings(u_user="1|24|M|writer|1\n3|24|M|writer|1\n"),
                           "line 2 of a table of 5 columns is ['3', '24', 'M']"),
    "a column more": (ratings(u_user="1|24|M|writer|1|x\n"), "line 1 of a table of 5 columns is ['1', '24', 'M']"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_an_archive_that_is_not_movielens_is_refused(name: str) -> None:
    """Whatever it holds, it is a DataError that names the archive."""
    content, reason = DAMAGED[name]
    with pytest.raises(DataError) as error:
        movielens.read(content, "ua", attributes=True)
    assert str(error.value) == (
        f"ml-100k.zip: not the archive of MovieLens 100k: {reason}\n  hint: get the file again"
    )


def test_genres_have_movielens_own_names() -> None:
    """In the order of its file of them."""
    assert ", ".join(movielens.GENRES) == (
        "unknown, Action, Adventure, Animation, Children's, Comedy, Crime, Documentary, Drama, Fantasy, Film-Noir, "
        "Horror, Musical, Mystery, Romance, Sci-Fi, Thriller, War, Western"
    )


def test_an_idx_file_that_is_none_is_refused() -> None:
    """Another format, another type, a length that is not the header's, damaged gzip."""
    good = gzip.decompress(pictures()["train-images-idx3-ubyte.gz"])
    assert idx.read(good, "a").shape == (60, 4, 4)
    bad = {
        "not an IDX file of unsigned bytes": (b"", b"PK\3\4", good[:2] + b"\x0d" + good[3:], good[:9]),
        "976 bytes, and its header promises 960": (good[:7] + b"\x3b" + good[8:],),
        "bytes, and its header promises": (good[:-1], good + b"x", good[:4] + b"\xff" * 12 + good[16:]),
        "damaged gzip": (gzip.compress(good)[:-9], gzip.compress(good)[:40] + b"xxxxxxxx"),
    }
    for reason, contents in bad.items():
        for content in contents:
            with pytest.raises(DataError, match=f"a: .*{reason}"):
                idx.read(content, "a")


BAD = {
    "no such choice": ({"card": "movielens-100k", "split": "u9"},
                       "card movielens-100k: split is 'u9', not one of u1, u2, u3, u4, u5, ua, ub\n"
                       "  hint: split: which of the splits that come with it"),
    "no truth value": ({"card": "movielens-100k", "attributes": 1},
                       "card movielens-100k: attributes is 1, not true or false\n"
                       "  hint: attributes: add what is known of user and movie"),
    "a near name": ({"card": "digit"}, "unknown dataset card 'digit' (did you mean 'digits'?)\n"
                    "  hint: the cards are digits, fashion-mnist, mnist, movielens-100k, planted-clicks, "
                    "planted-ratings"),
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


def test_what_unpacks_to_more_than_it_may_is_refused() -> None:
    """Pictures and ratings alike."""
    good = gzip.decompress(pictures()["train-images-idx3-ubyte.gz"])
    assert idx.read(gzip.compress(good), "a", len(good)).shape == (60, 4, 4)
    with pytest.raises(DataError) as error:
        idx.read(gzip.compress(good), "a", len(good) - 1)
    assert str(error.value) == "a: more than 975 bytes when unpacked\n  hint: get the file again"
    with pytest.raises(DataError, match=r"not the archive of MovieLens 100k: u\.user has 16,777,217 bytes"):
        movielens.read(ratings(u_user="1" * (movielens.LARGEST + 1)), "ua", attributes=True)
