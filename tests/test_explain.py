"""A model's explanation is its own sum, and the strongest pairs are the strongest."""

from __future__ import annotations

import numpy as np
import pytest

from fmtune.errors import UsageError
from fmtune.fm import explain
from fmtune.fm.model import Model
from fmtune.fm.pack import score
from tests import fm_reference as reference


def model(features: int, factors: int, seed: int = 0) -> Model:
    """Return a model of random parameters, with feature vectors of very different lengths."""
    draw = np.random.default_rng(seed)
    scale = draw.pareto(1.5, (features, 1))
    linear, vectors = draw.normal(size=features), draw.normal(size=(features, factors)) * scale
    return Model("regressor", 0.25, linear.astype(np.float32), vectors.astype(np.float32))


def test_the_terms_of_a_row_sum_to_its_score() -> None:
    """Bias, features and pairs, when all are listed, are the raw score."""
    rows, machine = reference.rows(20, 40, 6), model(40, 4)
    for n, raw in enumerate(score(machine, rows)):
        a, b = rows.indptr[n], rows.indptr[n + 1]
        terms = explain.contributions(machine, rows.indices[a:b], rows.values[a:b], top=100)
        total = terms.bias + sum(t for _, t in terms.features) + sum(t for *_, t in terms.pairs)
        assert total == pytest.approx(terms.score, rel=1e-9)
        assert total == pytest.approx(float(raw), rel=1e-4, abs=1e-4)
        assert [abs(t) for *_, t in terms.pairs] == sorted((abs(t) for *_, t in terms.pairs), reverse=True)


@pytest.mark.parametrize(("features", "top"), [(5, 3), (5, 100), (3000, 25), (2500, 1)])
def test_the_strongest_pairs_are_those_of_all_pairs(features: int, top: int) -> None:
    """The search that ends early finds what the whole matrix of products holds."""
    machine = model(features, 3, seed=features)
    vectors = machine.factors.astype(np.float64)
    products = np.triu(vectors @ vectors.T, 1)
    wanted = np.sort(np.abs(products[products != 0]))[::-1][:top]
    found = explain.interactions(machine, top)
    assert [abs(pair.weight) for pair in found] == pytest.approx(wanted.tolist(), rel=1e-12)
    for pair in found:
        assert pair.first < pair.second and pair.weight == pytest.approx(products[pair.first, pair.second])


@pytest.mark.parametrize("alone", [[(0, 9)], [(0, 700), (700, 1900)], [(0, 2000), (2000, 2400)], [(0, 2500)]], ids=str)
def test_features_that_are_never_together_make_no_pairs(alone: list[tuple[int, int]]) -> None:
    """The strongest of the others are found, wherever the longest vectors lie; a model of one column has none."""
    machine = model(2500, 3)
    runs = np.arange(2500) + len(alone)
    for number, (first, end) in enumerate(alone):
        runs[first:end] = number
    vectors = machine.factors.astype(np.float64)
    products = np.triu(vectors @ vectors.T, 1) * (runs[:, None] != runs)
    found = explain.interactions(machine, 20, alone)
    wanted = np.sort(np.abs(products[products != 0]))[::-1][:20]
    assert [abs(pair.weight) for pair in found] == pytest.approx(wanted.tolist(), rel=1e-12)


def test_weights_are_in_order_and_linear_models_have_no_pairs() -> None:
    """The largest linear weights come first; a model without factors has no interactions."""
    machine = model(50, 0)
    found = explain.weights(machine, 7)
    assert [abs(w.linear) for w in found] == np.sort(np.abs(machine.linear))[::-1][:7].tolist()
    assert explain.interactions(machine) == [] and found[0].strength == 0


def test_the_nearest_features_have_the_largest_cosines() -> None:
    """A copy of a feature's vector, scaled, is its nearest neighbour."""
    machine = model(30, 4)
    machine.factors[17] = 3 * machine.factors[4]
    (first, cosine), *rest = explain.nearest(machine, 4, 3)
    assert first == 17 and cosine == pytest.approx(1.0, abs=1e-6) and len(rest) == 2


def test_what_a_model_has_not_is_refused() -> None:
    """Features beyond the model's, or without factors, are named."""
    with pytest.raises(UsageError, match="no feature 30"):
        explain.nearest(model(30, 4), 30)
    with pytest.raises(UsageError, match="never seen"):
        explain.nearest(model(30, 0), 3)
    with pytest.raises(UsageError, match="feature 40, the model 30"):
        explain.contributions(model(30, 2), np.array([40], np.int32), np.ones(1, np.float32))
