"""planted-clicks: what is drawn is one-hot and Zipf, its best log loss is known, and a linear model stays far above."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from fmtune.data import catalog, planted
from fmtune.errors import UsageError
from fmtune.rows import SparseRows


@pytest.fixture(scope="module")
def default() -> catalog.Channels:
    return catalog.load("planted-clicks")


def test_the_defaults_are_200_000_rows_in_three_channels(default: catalog.Channels) -> None:
    """160,000 to learn from, 20,000 each to test on and to hold out; 1,000 features, one of every field in a row."""
    assert default.test is not None and default.holdout is not None
    assert [rows.n for rows in (default.train, default.test, default.holdout)] == [160_000, 20_000, 20_000]
    assert isinstance(default.train, SparseRows) and default.train.feature_dim == 1000
    indices = default.train.indices.reshape(-1, 10)
    assert (np.diff(indices, axis=1) > 0).all() and (default.train.values == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_planted_log_loss_is_about_a_half(seed: int) -> None:
    """Between 0.45 and 0.55 in the test and holdout channels for seeds 0 to 4."""
    facts = catalog.load({"card": "planted-clicks", "seed": seed}).facts
    assert 0.45 < facts["planted_log_loss"] < 0.55
    assert 0.45 < facts["planted_log_loss_holdout"] < 0.55


def test_a_linear_model_stays_far_above_the_planted_one(default: catalog.Channels) -> None:
    """Logistic regression on 30,000 rows, tested on 20,000: at least 0.05 more."""
    part, test = default.train.slice(0, 30_000), default.test
    assert test is not None and test.labels is not None and part.labels is not None
    linear = LogisticRegression(C=0.3, max_iter=200).fit(csr(part), part.labels)
    assert log_loss(test.labels, linear.predict_proba(csr(test))[:, 1]) > default.facts["planted_log_loss"] + 0.05


def csr(rows: object) -> scipy.sparse.csr_matrix:
    assert isinstance(rows, SparseRows)
    return scipy.sparse.csr_matrix((rows.values, rows.indices, rows.indptr), (rows.n, rows.feature_dim))


def test_the_same_arguments_give_the_same_rows() -> None:
    """And another seed other ones."""
    small = {"card": "planted-clicks", "rows": 500, "features": 40}
    first, again, other = (catalog.load(small | {"seed": seed}).train.digest() for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(
    ("fields", "features"), [(1, 2), (1, 50), (10, 10), (10, 11), (7, 100), (10, 1000), (3, 100_000)]
)
def test_every_field_has_features_and_no_feature_two_fields(fields: int, features: int) -> None:
    """Sizes are positive, grow, and sum up to the number of features."""
    sizes = planted._sizes(features, fields)
    assert sizes.min() >= 1 and sizes.sum() == features and len(sizes) == fields
    assert (np.diff(sizes[:-1]) >= 0).all()


def test_zipf_zero_makes_features_equally_frequent() -> None:
    """And a large exponent leaves mostly the first of each field."""
    even, steep = (
        planted.draw(rows=20_000, fields=1, features=10, factors=2, zipf=zipf, noise=0.0, seed=0).rows.indices
        for zipf in (0.0, 4.0)
    )
    assert np.bincount(even, minlength=10).min() > 1800
    assert np.bincount(steep, minlength=10).max() > 18_000


def test_the_stated_probability_is_that_of_the_labels() -> None:
    """With much noise too: rows that are said to click with p do so in a share p of the cases."""
    drawn = planted.draw(rows=200_000, fields=5, features=50, factors=3, zipf=1.0, noise=3.0, seed=1)
    bins = np.digitize(drawn.probability, np.linspace(0, 1, 11))
    for one in np.unique(bins):
        inside = bins == one
        assert drawn.rows.labels is not None
        error = abs(drawn.rows.labels[inside].mean() - drawn.probability[inside].mean())
        assert error < 4 * 0.5 / np.sqrt(inside.sum())


def test_planted_ratings_are_like_real_ones() -> None:
    """100,000 ratings about 3.5 of 943 users and 1,682 items; the best RMSE is the noise, and groups are named."""
    found = catalog.load("planted-ratings")
    assert found.test is not None and found.train.labels is not None
    assert (found.train.n, found.test.n, found.train.feature_dim) == (90_000, 10_000, 2625)
    assert found.groups == {"user": 0, "item": 943}
    assert abs(found.train.labels.mean() - 3.5) < 0.3 and 1.0 < found.train.labels.std() < 1.4
    assert found.facts["planted_rmse"] == pytest.approx(0.9, rel=0.02)
    again = catalog.load({"card": "planted-ratings", "seed": 1})
    assert again.train.digest() != found.train.digest() == catalog.load("planted-ratings").train.digest()
    with pytest.raises(UsageError, match="all rows, or none"):
        catalog.load({"card": "planted-ratings", "test": 0.0})


def test_fields_of_clicks_are_groups(default: catalog.Channels) -> None:
    """A field's features lie between its group's first and the next's, in each row."""
    firsts = list(default.groups.values())
    assert len(firsts) == 10 and firsts[0] == 0
    assert isinstance(default.train, SparseRows)
    indices = default.train.indices.reshape(-1, 10)
    assert (indices >= firsts).all() and (indices[:, :-1] < firsts[1:]).all()
