"""Gibbs sampling draws from its posterior, keeps what it needs, and its intervals hold what they say."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy.stats import chisquare, truncnorm

from fmtune.errors import UsageError
from fmtune.fm import draws
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Channels, train
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.mcmc import KEPT, Gibbs, kept_at_most
from fmtune.fm.model import Model
from fmtune.fm.pack import score
from fmtune.fm.solvers import trainer
from fmtune.fm.sweeps import Move
from fmtune.kernels import columns
from fmtune.rows import SparseRows
from tests import fm_reference as reference

GROUPS = Groups.of([0, 3])


def _prior(chance: np.random.Generator, kind: str) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Draw precision, bias, weights (5,) and factors (5, 2) from the model's own prior."""
    precision = 1.0 if kind == "binary_classifier" else float(chance.gamma(0.5) / 0.5)
    theta = np.empty((5, 3))
    for part in (slice(0, 3), slice(3, 5)):
        tau = chance.gamma(0.5, size=3) / 0.5
        mean = chance.normal(size=3) / np.sqrt(tau)
        theta[part] = mean + chance.normal(size=theta[part].shape) / np.sqrt(tau)
    return precision, float(chance.normal()), theta[:, 0], theta[:, 1:]


def _simulated(kind: str, count: int, kept: int, thin: int) -> np.ndarray:
    """Ranks of true values among posterior draws, int (count, quantities): simulation-based calibration.

    A truth is drawn from the prior and labels from the truth; the chain begins at the truth, a draw from the
    posterior itself, so that no burn-in can hide in the ranks.  (Talts et al., 2018)
    """
    chance, ranks = np.random.default_rng(0), []
    for at in range(count):
        rows = reference.rows(24, 5, 3, seed=at)
        precision, bias, linear, v = _prior(chance, kind)
        x = rows.to_dense().matrix.astype(np.float64)
        z = bias + x @ linear + 0.5 * ((x @ v) ** 2 - x**2 @ v**2).sum(1)
        y = z + chance.normal(size=24) / np.sqrt(precision)
        labels = (y > 0 if kind == "binary_classifier" else y).astype(np.float32)
        data = Feed(SparseRows(rows.indptr, rows.indices, rows.values, labels, 5), groups=GROUPS).by_column()
        h = Hyperparameters(solver="mcmc", predictor_type=kind, num_factors=2, seed=at)
        chain = Gibbs(h, data, standard=False)
        chain.target.residual[:] = data.labels
        chain.bias, chain.linear[:], chain.factors[0, :, :2], chain.precision = bias, linear, v, precision
        chain.reset()
        move = Move(data, None)

        def seen(chain: Gibbs, x: np.ndarray) -> list[float]:
            v = chain.factors[0, :, :2]
            pairs = (x[:2] @ v) ** 2 - x[:2] ** 2 @ v**2
            spread = np.log(np.abs(v).sum() + 1e-9)
            return [chain.bias, *chain.linear[[0, 4]], *pairs.sum(1), spread, chain.precision]

        truth = seen(chain, x)
        drawn = []
        for _ in range(kept):
            for _ in range(thin):
                chain.sweep(move)
            drawn.append(seen(chain, x))
        ranks.append((np.array(drawn) < truth).sum(0))
    return np.array(ranks)


def _uniform(ranks: np.ndarray, places: int) -> list[float]:
    """p values of each quantity's ranks against the uniform distribution, in five bins."""
    return [chisquare(np.bincount(column * 5 // places, minlength=5)).pvalue for column in ranks.T]


@pytest.mark.parametrize("kind", ["regressor", "binary_classifier"])
def test_draws_are_from_the_posterior(kind: str) -> None:
    """Among draws, true values take every rank equally often: means and intervals are right at every level."""
    ranks = _simulated(kind, 80, 9, 12)
    values = _uniform(ranks[:, : 7 if kind == "regressor" else 6], 10)
    assert min(values) > 1e-3, values


@pytest.mark.parametrize("level", [-6.0, -1.0, 0.3, 2.0, 8.0])
def test_hidden_targets_are_truncated_normals(level: float) -> None:
    """Both sides, however unlikely, have the mean and spread of a normal that is cut at 0."""
    n = 20_000
    for label, low, high in ((1.0, -level, np.inf), (0.0, -np.inf, -level)):
        out = np.empty(n)
        columns.latent(np.full(n, label, np.float32), np.full(n, level), np.uint64(5), out)
        wanted = truncnorm(low, high, loc=level)
        assert ((out > 0) == (label == 1)).all()
        assert out.mean() == pytest.approx(wanted.mean(), abs=5 * wanted.std() / np.sqrt(n))
        assert out.std() == pytest.approx(wanted.std(), rel=0.05)


def test_a_score_that_is_no_number_ends_no_thread() -> None:
    """A target of it is drawn at once, for either label; it hung."""
    scores = np.array([np.nan, np.inf, -np.inf, 1e200, -1e200, 0.0])
    columns.latent(np.zeros(1, np.float32), np.zeros(1), np.uint64(5), np.empty(1))
    for label in (0.0, 1.0):
        out = np.empty(6)
        arguments = (np.full(6, label, np.float32), scores, np.uint64(5), out)
        drawing = threading.Thread(target=columns.latent, args=arguments, daemon=True)
        drawing.start()
        drawing.join(10)
        assert not drawing.is_alive() and np.isnan(out[0]) and np.isfinite(out[3:]).all()


def test_draws_kept_are_the_later_ones_evenly() -> None:
    """The first fifth goes, no more than ``KEPT`` stay, and what is scored is their mean, seen before or not."""
    data = reference.rows(60, 8, 3, binary=False)
    h = Hyperparameters.of({"solver": "mcmc", "num_factors": 2})
    pack = trainer(Feed(data), Recipe.of(h, "sparse"))
    (lane,) = pack.change(enter=[h])
    counts = []
    for _ in range(200):
        pack.epoch()
        running = pack.score(data)[0]
        model = pack.model(lane)
        assert model.draws is not None
        counts.append(len(model.draws.bias))
    assert counts[:6] == [1, 2, 3, 4, 4, 5] and max(counts) <= KEPT and min(counts[100:]) > KEPT // 4
    np.testing.assert_allclose(score(model, data), running, rtol=1e-4, atol=1e-4)
    assert kept_at_most(8, 10**9) == 8


@pytest.mark.parametrize("kind", ["regressor", "binary_classifier"])
def test_a_model_is_the_mean_of_its_draws(kind: str) -> None:
    """A regressor's own parameters score as its draws do on average; a classifier's probabilities are averaged."""
    data = reference.rows(200, 15, 4, binary=kind != "regressor")
    h = Hyperparameters.of({"solver": "mcmc", "predictor_type": kind, "num_factors": 3, "epochs": 15})
    model = train(Channels(data), h).model
    raw = np.stack([score(one, data) for one in model.drawn()]).astype(np.float64)
    assert len(raw) == 12 and model.exact == (kind == "regressor")
    plain = Model(kind, model.bias, model.linear, model.factors)
    np.testing.assert_allclose(score(plain, data), raw.mean(0), atol=1e-4)
    together = draws.joined(kind, draws.shares(kind, raw.astype(np.float32)).mean(0))
    np.testing.assert_allclose(score(model, data), together, atol=1e-4)


def test_labels_of_any_scale_are_learned_alike() -> None:
    """Labels in thousands and far from 0 give the same model in their own units."""
    data = reference.rows(150, 10, 3, binary=False)
    assert data.labels is not None
    far = SparseRows(data.indptr, data.indices, data.values, data.labels * 1000 + 50_000, 10)
    h = Hyperparameters.of({"solver": "mcmc", "num_factors": 2, "epochs": 20})
    near, there = (score(train(Channels(rows), h).model, data) for rows in (data, far))
    np.testing.assert_allclose((there - 50_000) / 1000, near, atol=0.02)


def test_intervals_hold_what_they_say() -> None:
    """Of new labels of a planted regression about 90 % lie in the 90 % interval; wider levels are wider."""
    chance, n = np.random.default_rng(1), 3000
    indices = np.stack([chance.integers(0, 25, n), 25 + chance.integers(0, 25, n)], 1).astype(np.int32)
    v, w = chance.normal(size=(50, 2)) * 0.6, chance.normal(size=50) * 0.5
    z = w[indices].sum(1) + (v[indices[:, 0]] * v[indices[:, 1]]).sum(1)
    labels = (3 + z + 0.7 * chance.normal(size=n)).astype(np.float32)
    rows = SparseRows(np.arange(n + 1, dtype=np.int64) * 2, indices.ravel(), np.ones(2 * n, np.float32), labels, 50)
    h = Hyperparameters.of({"solver": "mcmc", "num_factors": 2, "epochs": 80})
    model = train(Channels(rows.slice(0, 2000)), h).model
    new = rows.slice(2000, 3000)
    low, high = draws.interval(model, new, 0.9)
    assert 0.87 < np.mean((labels[2000:] > low) & (labels[2000:] < high)) < 0.93
    wider = draws.interval(model, new, 0.99)
    assert (wider[0] < low).all() and (wider[1] > high).all()


def test_a_probability_has_an_interval_too() -> None:
    """A classifier's interval is one of probabilities around its prediction."""
    data = reference.rows(300, 10, 3)
    h = Hyperparameters.of({"solver": "mcmc", "predictor_type": "binary_classifier", "num_factors": 2, "epochs": 30})
    model = train(Channels(data), h).model
    low, high = draws.interval(model, data, 0.8)
    p = 1 / (1 + np.exp(-score(model, data).astype(np.float64)))
    assert (low >= 0).all() and (high <= 1).all() and np.mean((low < p) & (p < high)) > 0.95


def test_an_interval_needs_draws_and_a_level() -> None:
    """A model of another solver has none, and a level lies between 0 and 1."""
    data = reference.rows(30, 5, 2, binary=False)
    plain = train(Channels(data), Hyperparameters()).model
    with pytest.raises(UsageError, match="no draws"):
        draws.interval(plain, data, 0.9)
    sampled = train(Channels(data), Hyperparameters(solver="mcmc")).model
    with pytest.raises(UsageError, match="between 0 and 1"):
        draws.interval(sampled, data, 90)
    with pytest.raises(UsageError, match="features"):
        draws.interval(sampled, data.widen(9), 0.9)
