"""What every solver of the table keeps, whatever it does inside."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from fmtune.errors import DataError, UsageError
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Channels, Diverged, train
from fmtune.fm.hyperparameters import PARAMETERS, SOLVERS, Hyperparameters
from fmtune.fm.metrics import METRICS
from fmtune.fm.model import Model
from fmtune.fm.pack import Stopped, score
from fmtune.fm.solvers import compile_kernels, memory_of, model_bytes, trainer
from fmtune.fm.sweeps import Sweeps
from fmtune.kernels import cpu_dense
from fmtune.rows import DenseRows, SparseRows
from fmtune.tune.objective import Objective, optimize
from tests import fm_reference as reference

KINDS = ("regressor", "binary_classifier")
SWEEPS = [name for name in SOLVERS if name != "sgd"]


def _h(solver: str, kind: str = "regressor", **values: object) -> Hyperparameters:
    rates = {"linear_lr": 0.05, "factors_lr": 0.05, "factors_init_sigma": 0.1, "mini_batch_size": 50}
    return Hyperparameters.of(
        {"solver": solver, "predictor_type": kind, "num_factors": 3, "epochs": 12, **rates, **values}
    )


def _data(kind: str, n: int = 600) -> SparseRows:
    return reference.rows(n, 20, 4, seed=3, binary=kind == "binary_classifier")


def test_every_solver_can_be_chosen() -> None:
    """The table's names are the choices; gradients are the default, and sweeps have epochs of their own."""
    assert PARAMETERS["solver"].choices == tuple(SOLVERS)
    assert Hyperparameters().solver == "sgd"
    assert all(Hyperparameters.of({"solver": name}).epochs == (1 if name == "sgd" else 100) for name in SOLVERS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_a_solver_learns(layout: str, solver: str, kind: str, tmp_path: Path) -> None:
    """On rows of either layout its model is far better than a constant, scores alike saved, and is finite."""
    data = _data(kind)
    channels = Channels(data.slice(0, 450), data.slice(450, 600))
    fit = train(channels, _h(solver, kind), layout=layout)
    name = "rmse" if kind == "regressor" else "binary_classification_cross_entropy"
    labels = channels.test_labels
    mean = float(labels.mean())
    constant = np.full(len(labels), mean if kind == "regressor" else np.log(mean / (1 - mean)), np.float32)
    assert fit.curve[-1] < 0.7 * METRICS[name].compute(constant, labels)
    assert fit.metrics[name] == pytest.approx(fit.curve[-1], rel=1e-5)
    fit.model.save(tmp_path / "m.fm")
    rows = data.slice(450, 600)
    np.testing.assert_array_equal(score(Model.load(tmp_path / "m.fm"), rows), score(fit.model, rows))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_lane_is_the_same_in_any_company(solver: str, kind: str) -> None:
    """Alone, beside others, or entering later: the same bytes, and the same scores."""
    data = _data(kind, 200)
    feed, h = Feed(data), _h(solver, kind, seed=4)
    others = [_h(solver, kind, num_factors=9), _h(solver, kind, seed=1, factors_wd=0.1)]
    alone = trainer(feed, Recipe.of(h, "sparse"))
    (lane,) = alone.change(enter=[h])
    for _ in range(7):
        alone.epoch()
    shared = trainer(feed, Recipe.of(h, "sparse"))
    first, _ = shared.change(enter=others)
    shared.epoch()
    (later,) = shared.change(leave=[first], enter=[h])
    for _ in range(7):
        shared.epoch()
        shared.score(data)
    assert shared.model(later).to_bytes() == alone.model(lane).to_bytes()
    np.testing.assert_allclose(shared.score(data)[1], alone.score(data)[0], rtol=1e-6)
    assert (lane.epochs, later.epochs) == (7, 7)


def test_kernels_are_there_before_anything_is_timed() -> None:
    """Those of ``exact: false`` and of a rule whose factors share their state too: no epoch compiles one."""
    rules, data = ("adam", "rowwise_adagrad"), _data("regressor", 40).to_dense()
    compile_kernels("dense", optimizers=rules, exact=False)
    known = list(cpu_dense.learn.signatures)
    for rule, exact in itertools.product(rules, (True, False)):
        train(Channels(data), _h("sgd", optimizer=rule, exact=exact, epochs=1), layout="dense")
    assert cpu_dense.learn.signatures == known


def test_auc_wants_both_labels() -> None:
    """A test channel of one class is refused as what it is, not as a training that diverged."""
    data = _data("binary_classifier", 60)
    ones = replace(data, labels=np.ones(60, np.float32))
    with pytest.raises(DataError, match=r"test: every label is 1, and auc compares two\n  hint: take a test channel"):
        train(Channels(data, ones), _h("sgd", "binary_classifier"), objective="auc")
    assert train(Channels(data), _h("sgd", "binary_classifier"), objective="auc").curve == ()


def test_a_seed_is_another_chain_and_the_same_one_repeats() -> None:
    """A sampled model is a function of its seed."""
    channels = Channels(_data("regressor", 100))
    one, again, other = (
        train(channels, _h("mcmc", seed=seed, epochs=3)).model.to_bytes() for seed in (0, 0, 1)
    )
    assert one == again != other


@pytest.mark.parametrize("solver", SWEEPS)
def test_threads_change_nothing(solver: str) -> None:
    """Columns without a common row are shared among threads, and the model keeps its bytes."""
    rng, n = np.random.default_rng(0), 60_000
    indices = np.stack([rng.integers(0, 40, n), 40 + rng.integers(0, 60, n)], 1).astype(np.int32).ravel()
    labels = rng.normal(size=n).astype(np.float32)
    data = SparseRows(np.arange(n + 1, dtype=np.int64) * 2, indices, np.ones(2 * n, np.float32), labels, 100)
    channels = Channels(data)
    one, two, three = (train(channels, _h(solver, epochs=2), threads=t).model.to_bytes() for t in (1, 2, 3))
    assert one == two == three


@pytest.mark.parametrize("power", [-20, 11])
@pytest.mark.parametrize("solver", SWEEPS)
def test_the_unit_of_a_column_changes_no_bit(solver: str, power: int) -> None:
    """A column in other units, a power of two, gives the same model in those; columns near 1 stay as they are."""
    data, factor = _data("regressor", 200).to_dense(), np.float32(2.0**power)
    matrix = data.matrix.copy()
    matrix[:, 3] *= factor
    one = train(Channels(data), _h(solver)).model
    other = train(Channels(replace(data, matrix=matrix)), _h(solver)).model
    linear, factors = other.linear.copy(), other.factors.copy()
    linear[3], factors[3] = linear[3] * factor, factors[3] * factor
    assert one.bias == other.bias
    np.testing.assert_array_equal(linear, one.linear)
    np.testing.assert_array_equal(factors, one.factors)
    assert Feed(data).by_column().scales is None


@pytest.mark.parametrize("solver", SWEEPS)
@pytest.mark.parametrize(("low", "high"), [(1990, 2025), (0, 1000)])
def test_a_year_and_a_price_are_columns_like_others(solver: str, low: int, high: int) -> None:
    """As they are in a table, beside columns near 1; factors that nothing asks for cost no accuracy."""
    for seed in range(3):
        random = np.random.default_rng(seed)
        matrix = np.stack([random.normal(size=2000), random.uniform(low, high, 2000), random.normal(size=2000)], 1)
        labels = (matrix[:, 0] + 0.3 * random.normal(size=2000)).astype(np.float32)
        rows = DenseRows(matrix.astype(np.float32), labels, 3)
        assert train(Channels(rows, rows), _h(solver, num_factors=4, epochs=60)).metrics["rmse"] < 0.31


@pytest.mark.parametrize(("solver", "kind"), [("als", "regressor"), ("als", "binary_classifier")])
def test_a_weight_is_a_repetition(solver: str, kind: str) -> None:
    """A row of weight 2 counts as two rows do, where the decay is the same in all."""
    data = _data(kind, 120)
    weights = np.tile(np.array([1.0, 2.0], np.float32), 60)
    twice = data.take(np.repeat(np.arange(120), weights.astype(int)))
    h = _h(solver, kind, epochs=5, linear_wd=0.02, factors_wd=0.02)
    fewer = h.replace(linear_wd=0.02 * 120 / 180, factors_wd=0.02 * 120 / 180, bias_wd=h.bias_wd * 120 / 180)
    weighted = train(Channels(replace(data, weights=weights)), h).model
    repeated = train(Channels(twice), fewer).model
    np.testing.assert_allclose(score(weighted, data), score(repeated, data), atol=2e-4)


def test_a_sampled_regressor_knows_weights() -> None:
    """Rows of weight 0 teach nothing; a sampled classifier takes no weights and says so."""
    data = _data("regressor", 300)
    assert data.labels is not None
    labels = np.where(np.arange(300) < 150, data.labels, 100.0).astype(np.float32)
    weights = (np.arange(300) < 150).astype(np.float32)
    weighted = replace(data, labels=labels, weights=weights)
    fit = train(Channels(weighted, data), _h("mcmc", epochs=20))
    assert fit.metrics["rmse"] < 0.7 * float(data.labels.std())
    with pytest.raises(UsageError, match="weights"):
        train(Channels(replace(_data("binary_classifier", 300), weights=weights)), _h("mcmc", "binary_classifier"))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sweep_can_be_stopped(solver: str) -> None:
    """Asked to stop, an epoch is given up."""
    pack = trainer(Feed(_data("regressor", 50)), Recipe.of(_h(solver), "sparse"))
    pack.change(enter=[_h(solver)])
    with pytest.raises(Stopped):
        pack.epoch(lambda: True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SWEEPS)
def test_a_lost_lane_is_told_of_and_costs_no_other(solver: str, kind: str) -> None:
    """Where scores leave the numbers a fit says so, without a test channel too; another lane of the pack trains on."""
    data, h = _data(kind, 50), _h(solver, kind, epochs=3)
    alone, pack = (trainer(Feed(data), Recipe.of(h, "sparse")) for _ in range(2))
    assert isinstance(pack, Sweeps)
    (one,), (lost, lane) = alone.change(enter=[h]), pack.change(enter=[h, h])
    for _ in range(3):
        alone.epoch()
        pack.epoch()
        pack._chains[0].target.residual[7] = np.nan
    assert (lost.epochs, lane.epochs) == (1, 3) and pack.model(lane).to_bytes() == alone.model(one).to_bytes()
    scores = pack.score(data)
    assert np.isnan(scores[0]).all() and np.isfinite(scores[1]).all() and np.isnan(pack.model(lost).bias)
    values = data.values.copy()
    values[3] = np.nan
    for channels in (Channels(replace(data, values=values)), Channels(replace(data, values=values), data)):
        with pytest.raises(Diverged, match=r"diverged at epoch 1\n  hint: look for columns or labels"):
            train(channels, h)


@pytest.mark.parametrize("metric", [name for name in METRICS if METRICS[name].predictor_type == KINDS[1]])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_fit_that_diverges_says_so_whatever_it_goes_by(solver: str, metric: str) -> None:
    """At the epoch in which it did; a trial of a study ends there too."""
    data = _data(KINDS[1], 50)
    values = data.values.copy()
    values[3] = np.nan
    bad, h = replace(data, values=values), _h(solver, KINDS[1], epochs=3)
    with np.errstate(invalid="ignore"), pytest.raises(Diverged, match="diverged at epoch 1"):
        train(Channels(bad, data), h, objective=metric)
    fixed = {name: value for name, value in h.changed().items() if name != "num_factors"}
    space = {"num_factors": "1..4"}
    objective = Objective(bad, data, search_space=space, objective=f"test:{metric}", hyperparameters=fixed)
    study = optuna.create_study(direction=objective.direction)
    optimize(study, objective, 2)
    assert {(t.state.name, t.user_attrs["reason"]) for t in study.trials} == {("FAIL", "diverged at epoch 1")}


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_a_lane_takes_is_known_before(solver: str) -> None:
    """Memory and size of the model grow with features and factors."""
    small, large = _h(solver, num_factors=8), _h(solver, num_factors=64)
    feed = Feed(_data("regressor", 50))
    assert 0 < memory_of(small, feed) < memory_of(large, feed)
    fit = train(Channels(_data("regressor", 50)), small)
    assert fit.model.nbytes <= model_bytes(small, 20)


@pytest.mark.parametrize("solver", SWEEPS)
def test_a_linear_model_is_one_without_factors(solver: str) -> None:
    """num_factors 0 and both switches are respected."""
    channels = Channels(_data("regressor", 100))
    model = train(channels, _h(solver, num_factors=0, epochs=3)).model
    assert model.num_factors == 0 and model.linear.any()
    model = train(channels, _h(solver, use_linear=False, use_bias=False, epochs=3)).model
    assert not model.linear.any()
