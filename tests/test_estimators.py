"""Estimators: scikit-learn's own checks, frames, weights, warm starts, and a model that needs no estimator."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fmtune
from fmtune import FMClassifier, FMRegressor
from fmtune.data.canonical import DataWarning
from fmtune.data.encoding import Encoder
from fmtune.estimators.defaults import batch_of, decay_of
from fmtune.estimators.merging import merged
from fmtune.estimators.scaling import Scaling
from fmtune.fm.hyperparameters import PARAMETERS
from fmtune.fm.model import Model
from fmtune.rows import DenseRows, SparseRows
from tests.processes import Limited


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([FMRegressor(), FMClassifier()])
def test_scikit_learn_finds_nothing(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn's passes; none is expected to fail."""
    check(estimator)


def test_every_hyperparameter_is_a_parameter() -> None:
    """But for the seeds, which are random_state, and the predictor type, which is the class."""
    known = {"categorical_features", "min_count", "random_state"}
    for kind in (FMRegressor, FMClassifier):
        assert set(kind().get_params()) - known == set(PARAMETERS) - {"predictor_type", "seed", "shuffle_seed"}
    with pytest.raises(ValueError, match="num_factors must be at least 0"):
        FMRegressor(num_factors=-1).fit([[0.0], [1.0]], [0, 1])


def ratings(n: int = 2000) -> pd.DataFrame:
    random = np.random.default_rng(0)
    user, item = random.integers(0, 30, n), random.integers(0, 20, n)
    taste, kind = random.normal(size=30), random.normal(size=20)
    rating = 3 + taste[user] * kind[item] + random.normal(0, 0.1, n)
    return pd.DataFrame({"user": user.astype(str), "item": pd.Categorical(item.astype(str)), "rating": rating})


FRAMES = {
    "pandas": lambda frame: frame,
    "polars": polars.from_pandas,
    "pyarrow": lambda frame: pyarrow.Table.from_pandas(frame, preserve_index=False),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_are_encoded(kind: str) -> None:
    """Columns that name something are one-hot, whoever made the frame; the model holds the encoding."""
    frame = ratings()
    made = FRAMES[kind](frame[["user", "item"]])
    model = FMRegressor(epochs=40, random_state=0).fit(made, frame["rating"])
    assert model.score(made, frame["rating"]) > 0.9
    assert model.feature_names_in_.tolist() == ["user", "item"]
    encoder = Encoder.of(model.model_.facts)
    assert encoder is not None and len(encoder.names()) == model.model_.feature_dim == 50
    again = FMRegressor(epochs=40, random_state=0).fit(frame[["user", "item"]], frame["rating"])
    assert again.predict(frame[["user", "item"]]).tobytes() == model.predict(made).tobytes()
    with pytest.raises(ValueError, match="Feature names"):
        model.predict(frame[["item"]])
    with pytest.raises(ValueError, match="fitted on a frame"):
        model.predict(np.zeros((1, 2)))


def test_whole_numbers_can_be_named_categorical() -> None:
    """A frame of numbers is a matrix, unless columns of it are said to name something."""
    frame = ratings().astype({"user": int, "item": int})
    with pytest.warns(DataWarning, match=r"quantities: user, item; categorical_features=\['user', 'item'\] makes"):
        FMRegressor(random_state=0, epochs=1).fit(frame[["user", "item"]], frame["rating"])
    plain = FMRegressor(random_state=0, categorical_features=[]).fit(frame[["user", "item"]], frame["rating"])
    assert plain.encoder_ is None and plain.model_.feature_dim == 2
    named = FMRegressor(random_state=0, categorical_features=["user", "item"])
    named.fit(frame[["user", "item"]], frame["rating"])
    assert named.model_.feature_dim == 50
    for wrong in (["usr"], "all"):
        with pytest.raises(ValueError, match="categorical_features"):
            FMRegressor(categorical_features=wrong).fit(frame[["user"]], frame["rating"])


def test_named_columns_are_added_to_those_of_text() -> None:
    """What is text is one-hot whether it is listed or not; numbers that are called as ids are told of one by one."""
    frame = ratings().assign(hour=np.arange(2000) % 24, item_id=np.arange(2000) % 7, place_id=0.5)
    model = FMRegressor(epochs=1, categorical_features=["hour"]).fit(frame.drop(columns="rating"), frame["rating"])
    assert model.encoder_ is not None and [column.name for column in model.encoder_.columns] == [
        "user", "item", "hour", "item_id", "place_id"
    ]  # fmt: skip
    assert model.model_.feature_dim == 30 + 20 + 24 + 2
    with pytest.warns(DataWarning) as caught:
        FMRegressor(epochs=1).fit(frame.drop(columns="rating"), frame["rating"])
    assert [str(one.message) for one in caught] == [
        "named as ids, but scaled as quantities: item_id; categorical_features=['item_id'] makes names of them, "
        "[] keeps them so"
    ]


@pytest.mark.parametrize("listed", [["user", "item"], [0, 1], np.array([0, 1]), [True, True, False]], ids=str)
def test_columns_are_listed_by_names_positions_or_a_mask(listed: Any) -> None:
    """As scikit-learn's trees take them; the columns of an array are x0, x1 and so on."""
    frame = ratings().astype({"user": int, "item": int}).assign(hour=np.arange(2000) % 24)[["user", "item", "hour"]]
    y = ratings()["rating"]
    wanted = FMRegressor(epochs=2, categorical_features=["user", "item"]).fit(frame, y)
    model = FMRegressor(epochs=2, categorical_features=listed)
    assert model.fit(frame, y).predict(frame).tobytes() == wanted.predict(frame).tobytes()
    array = frame.to_numpy()
    if isinstance(listed[0], str):
        with pytest.raises(ValueError, match="the columns of an array have none: give positions or a mask"):
            model.fit(array, y)
        return
    assert model.fit(array, y).predict(array).tobytes() == wanted.predict(frame).tobytes()
    assert model.fit(array.tolist(), y).predict(array).tobytes() == wanted.predict(frame).tobytes()
    assert [column.name for column in model.encoder_.columns] == ["x0", "x1", "x2"]
    assert model.partial_fit(array, y).n_features_in_ == 3
    with pytest.raises(ValueError, match="2 features"):
        model.predict(array[:, :2])
    with pytest.raises(ValueError, match="of a sparse matrix the columns are features"):
        model.fit(scipy.sparse.csr_matrix(array), y)
    with pytest.raises(ValueError, match="dimensions"):
        model.fit(array[0], y[:3])


def test_what_picks_no_column_is_refused() -> None:
    """A position that is none, a mask too short, a mixture; and nothing listed picks nothing."""
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10.0)
    wrong = {"positions .2.": [0, 2], "positions .-1.": [-1], "mask of 1": [True], "not a mixture": [0, "x1"]}
    for words, listed in wrong.items():
        with pytest.raises(ValueError, match=words):
            FMRegressor(categorical_features=listed).fit(x, y)
    for nothing in (None, [], [False, False]):
        assert FMRegressor(categorical_features=nothing, epochs=1).fit(x, y).encoder_ is None


def test_columns_that_tell_nothing_are_told_of() -> None:
    """Times and values that never come back make thousands of features; two columns of one name are refused."""
    frame = ratings(300)
    x = frame[["user"]].assign(when=pd.date_range("2026-01-01", periods=300, freq="h"), row=np.arange(300).astype(str))
    with pytest.warns(DataWarning) as caught:
        FMRegressor(epochs=1).fit(x, frame["rating"])
    said = [str(one.message) for one in caught]
    assert said[0].startswith("times, of which each becomes a feature: when;")
    assert said[1].startswith("values that almost never come back") and "new rows: row; leave" in said[1]
    for twice in (frame[["user", "user"]], pd.DataFrame(np.eye(3), columns=["a", "a", "b"])):
        with pytest.raises(ValueError, match=r"more than one column named (user|a): rename or drop"):
            FMRegressor().fit(twice, frame["rating"][: len(twice)])


def test_patience_without_an_eval_set_is_told_of() -> None:
    """All epochs are made then."""
    with pytest.warns(DataWarning, match="patience=3 has no eval_set to go by: all epochs are made"):
        assert FMRegressor(patience=3, epochs=5).fit(np.eye(5), np.arange(5.0)).n_iter_ == 5


SERVE = """\
import sys
from fmtune.sagemaker.server import serve
serve(sys.argv[1], port=0, ready=lambda address: print(address, flush=True))
"""


def test_from_a_file_to_a_served_prediction_in_six_lines(tmp_path: Path) -> None:
    """A polars frame with two categorical columns: read, fitted, saved, served, and asked by name."""
    polars.from_pandas(ratings()).write_csv(tmp_path / "ratings.csv")
    # The six lines, of which the fourth is `fmtune serve ratings.fm` and the last two `curl`.
    frame = polars.read_csv(tmp_path / "ratings.csv", schema_overrides={"item": polars.String, "user": polars.String})
    model = fmtune.FMRegressor(random_state=0).fit(frame[["user", "item"]], frame["rating"])
    model.model_.save(tmp_path / "ratings.fm")
    words = [sys.executable, "-c", SERVE, str(tmp_path / "ratings.fm")]
    server = Limited(words, stdout=subprocess.PIPE, env=os.environ)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        body = json.dumps({"instances": [{"user": "3", "item": "7"}, {"user": 3, "item": 7}]}).encode()
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        answer = json.loads(until_ready(request))
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
    wanted = model.predict(polars.DataFrame({"user": ["3"], "item": ["7"]}))[0]
    assert [one["score"] for one in answer["predictions"]] == [wanted, wanted]


def until_ready(request: urllib.request.Request) -> bytes:
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            assert error.code == 503
            signal.sigtimedwait([], 0.05)
    raise AssertionError("the server did not come up")


def test_a_csr_matrix_is_not_copied() -> None:
    """Its arrays go into training as they are, where they have the right types and need no scaling."""
    x = scipy.sparse.random_array((50, 9), density=0.3, format="csr", rng=np.random.default_rng(0), dtype=np.float32)
    x.indices = x.indices.astype(np.int32)
    scaling = Scaling.of(x, np.ones(50))
    rows = scaling.rows(*merged(x, np.arange(50.0), None)).to_sparse()
    assert np.shares_memory(rows.values, x.data) and np.shares_memory(rows.indices, x.indices)


def test_a_model_of_scaled_columns_is_one_of_the_columns() -> None:
    """Whatever the units: what is learned of scaled rows is said of the rows themselves."""
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 5)) * [1, 10, 0.1, 1, 3] + [0, 100, 0, 5, 0]
    x[:, 4] = x[:, 4] > 0
    scaling = Scaling.of(x, np.ones(40)).of_labels(random.normal(50, 9, 40), np.ones(40))
    assert scaling.scale[4] == 1 and scaling.shift[4] == 0
    arrays = random.normal(size=5).astype("f4"), random.normal(size=(5, 3)).astype("f4")
    small = Model("regressor", 0.3, *arrays)
    wanted = fmtune.predict(small, scaling.rows(x, None, None)) * scaling.spread + scaling.centre
    assert np.allclose(fmtune.predict(scaling.unscaled(small), x), wanted, rtol=1e-3)


@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
@pytest.mark.parametrize("solver", ["sgd", "als", "mcmc"])
def test_columns_far_from_0_are_as_good_as_near_ones(solver: str, kind: Any) -> None:
    """Times in seconds beside numbers: predictions go by scaled columns, and a warning tells of the model's."""
    random = np.random.default_rng(0)
    near = random.normal(size=(400, 3))
    y = near[:, 0] + near[:, 1] * near[:, 2]
    y = y > 0 if kind is FMClassifier else y * 1000 + 50_000
    far = pd.DataFrame(near * [1e5, 1, 1] + [1.7e9, 0, 1e4], columns=["when", "size", "metres"])
    one = kind(solver=solver, random_state=0, epochs=30).fit(near, y)
    with pytest.warns(DataWarning, match="far from 0 for their deviation: when, metres; predict is exact, but model_"):
        other = kind(solver=solver, random_state=0, epochs=30).fit(far, y)
    assert other.score(far, y) == pytest.approx(one.score(near, y), abs=0.02)
    if solver == "mcmc":
        for here, there in zip(one.predict_interval(near[:9]), other.predict_interval(far[:9]), strict=True):
            assert np.allclose(here, there, rtol=0.01, atol=0.05)


def test_a_constant_column_says_nothing() -> None:
    """Nor does another value of it, later."""
    random = np.random.default_rng(0)
    x = np.column_stack([random.normal(size=300), np.full(300, 1e6)])
    model = FMRegressor(random_state=0).fit(x, x[:, 0])
    assert model.predict(x).tobytes() == model.predict(x + np.array([0, 5])).tobytes()
    assert model.model_.linear[1] == 0 and np.allclose(fmtune.predict(model.model_, x), model.predict(x), atol=1e-4)


@pytest.mark.parametrize("solver", ["sgd", "als", "mcmc"])
def test_every_solver_learns(solver: str) -> None:
    """On labels far from 0 and in other units; a classifier's probabilities are better than chance."""
    frame = ratings()
    wide = frame["rating"] * 1000 + 50_000
    model = FMRegressor(solver=solver, epochs=25, random_state=0).fit(frame[["user", "item"]], wide)
    assert model.score(frame[["user", "item"]], wide) > 0.9
    label = np.where(frame["rating"] > 3, "high", "low")
    classes = FMClassifier(solver=solver, epochs=25, random_state=0).fit(frame[["user", "item"]], label)
    assert classes.score(frame[["user", "item"]], label) > 0.85 and classes.classes_.tolist() == ["high", "low"]
    if solver == "mcmc":
        with pytest.raises(ValueError, match="solver mcmc takes no weights for a classifier"):
            classes.fit(frame[["user", "item"]], label, sample_weight=np.full(2000, 2.0))


def test_defaults_learn() -> None:
    """Without a parameter set, as well as a linear model, about, on data that it fits."""
    x, y = load_breast_cancer(return_X_y=True)
    assert cross_val_score(FMClassifier(random_state=0), x, y, cv=3).mean() > 0.93
    x, y = load_diabetes(return_X_y=True)
    assert cross_val_score(FMRegressor(random_state=0), x, y, cv=3).mean() > 0.4


def test_decays_go_by_how_often_a_feature_comes_back() -> None:
    """Over an epoch each set of rows is pulled to 0 as by ridge with alpha 7; what is set stays as it is."""
    random = np.random.default_rng(0)
    dense = DenseRows(np.zeros((5000, 3), np.float32), None, 3, None)
    assert batch_of(100) == 64 and batch_of(3000) == 150 and batch_of(10**6) == 200
    assert decay_of(dense, 200) == pytest.approx(7 / 5000)
    rare = SparseRows(np.arange(5001), np.arange(5000, dtype=np.int32), np.ones(5000, np.float32), None, 9000)
    assert decay_of(rare, 200) == pytest.approx(7 / 200, rel=0.03)
    assert decay_of(rare, 200, lazy=False) == pytest.approx(7 / 5000)
    x = pd.DataFrame({"user": random.integers(100, size=3000).astype(str)})
    one = FMRegressor(epochs=1, linear_wd=0.5).fit(x, random.normal(size=3000))
    used = one.model_.facts["hyperparameters"]
    assert used["linear_wd"] == 0.5 and 7 / 3000 < used["factors_wd"] < 7 / 150
    assert one.get_params()["factors_wd"] is None


def test_rare_features_keep_their_factors() -> None:
    """A user of 50 ratings and an item of 125 are in few mini-batches, and their product is learned all the same."""
    random = np.random.default_rng(0)
    user, item = random.integers(1000, size=50_000), random.integers(400, size=50_000)
    taste, kind = random.normal(size=1000), random.normal(size=400)
    x = pd.DataFrame({"user": user.astype(str), "item": item.astype(str)})
    y = taste[user] * kind[item] + random.normal(0, 0.5, 50_000)
    assert FMRegressor(random_state=0).fit(x[:40_000], y[:40_000]).score(x[40_000:], y[40_000:]) > 0.7


@pytest.mark.parametrize(("solver", "epochs"), [("sgd", 30), ("als", 100), ("mcmc", 100)])
def test_epochs_go_by_the_solver(solver: str, epochs: int) -> None:
    """Where none are given; a clone has none given either."""
    model = FMRegressor(solver=solver, num_factors=2).fit(np.eye(5), np.arange(5.0))
    assert model.n_iter_ == epochs and clone(model).epochs is None
    assert FMRegressor(solver=solver, epochs=3, num_factors=2).fit(np.eye(5), np.arange(5.0)).n_iter_ == 3


def test_patience_goes_by_the_eval_set() -> None:
    """The curve is in the labels' own units, and the model is that of its best epoch."""
    frame = ratings()
    train, test = frame[:1500], frame[1500:]
    columns = ["user", "item"]
    model = FMRegressor(epochs=200, patience=3, factors_lr=0.1, random_state=0)
    model.fit(train[columns], train["rating"] * 100, eval_set=[(test[columns], test["rating"] * 100)])
    rmse = np.sqrt(np.mean((model.predict(test[columns]) - test["rating"] * 100) ** 2))
    assert model.n_iter_ < 197 and model.curve_.min() == pytest.approx(rmse, rel=1e-3)
    assert np.argmin(model.curve_) + 1 == model.n_iter_


def test_partial_fit_goes_on() -> None:
    """Batch after batch, also after a fit and from a copy; unseen categories are nothing to it, and told of."""
    frame = ratings(4000)
    x, y = frame[["user", "item"]], frame["rating"]
    model = FMRegressor(random_state=0, factors_lr=0.03)
    for _ in range(15):
        for at in range(0, 4000, 1000):
            model = copy.deepcopy(model).partial_fit(x[at : at + 1000], y[at : at + 1000])
    assert model.score(x, y) > 0.9
    fitted = FMRegressor(random_state=0, epochs=1).fit(x, y)
    before = fitted.score(x, y)
    assert before < fitted.partial_fit(x, y).score(x, y)
    classes = FMClassifier(random_state=0).partial_fit(x[:9], np.ones(9), classes=[0, 1])
    with pytest.warns(DataWarning, match="unknown to the model, and nothing to it: user "):
        assert classes.partial_fit(x, y > 3).classes_.tolist() == [0, 1]
    for solver in ("als", "mcmc"):
        assert not hasattr(FMRegressor(solver=solver), "partial_fit")
    assert hasattr(FMClassifier(), "partial_fit")


def test_it_stands_in_pipelines_and_searches() -> None:
    """As any other estimator."""
    x, y = load_breast_cancer(return_X_y=True)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), FMClassifier(random_state=0, epochs=5)),
        {"fmclassifier__num_factors": [0, 4]}, cv=2,
    ).fit(x, y)  # fmt: skip
    assert search.best_score_ > 0.9


@pytest.mark.filterwarnings("ignore")  # Optuna's own: its search is experimental
def test_optuna_searches_it() -> None:
    """OptunaSearchCV of optuna-integration, where that is installed."""
    integration = pytest.importorskip("optuna_integration")
    optuna = pytest.importorskip("optuna")
    x, y = load_breast_cancer(return_X_y=True)
    space = {"factors_lr": optuna.distributions.FloatDistribution(1e-3, 0.1, log=True)}
    search = integration.OptunaSearchCV(FMClassifier(random_state=0, epochs=5), space, n_trials=2, cv=2).fit(x, y)
    assert search.best_score_ > 0.9


def test_a_random_state_decides() -> None:
    """The same gives the same bits; an instance gives another model each time."""
    x, y = load_diabetes(return_X_y=True)
    one, same, other = (FMRegressor(random_state=seed, epochs=3).fit(x, y).predict(x) for seed in (1, 1, 2))
    assert one.tobytes() == same.tobytes() != other.tobytes()
    source = np.random.RandomState(0)
    first, second = (FMRegressor(random_state=source, epochs=3).fit(x, y).predict(x) for _ in range(2))
    assert first.tobytes() != second.tobytes()


def test_intervals_hold_what_they_say_and_need_draws() -> None:
    """Of mcmc, nine of ten new labels lie between the ends, in their own unit; other solvers have none."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(600, 3)) * 20
    y = 1000 + 5 * X[:, 0] + draw.normal(size=600) * 30
    machine = FMRegressor(solver="mcmc", num_factors=2, epochs=30).fit(X[:400], y[:400])
    low, high = machine.predict_interval(X[400:], 0.9)
    inside = (low < y[400:]) & (y[400:] < high)
    assert 0.82 < inside.mean() < 0.97
    assert ((low < machine.predict(X[400:])) & (machine.predict(X[400:]) < high)).all()
    likely = FMClassifier(solver="mcmc", num_factors=2, epochs=20).fit(X[:400], y[:400] > 1000)
    low, high = likely.predict_interval(X[400:], 0.5)
    assert ((low >= 0) & (low <= high) & (high <= 1)).all()
    with pytest.raises(ValueError, match="no draws"):
        FMRegressor(num_factors=2, epochs=1).fit(X, y).predict_interval(X)
