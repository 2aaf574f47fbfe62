"""The linear model beside a winner: what it is, how it is compared, and that a report shows it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fmtune.data import catalog
from fmtune.fm.fit import Channels, train
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS, calibration
from fmtune.fm.model import Model
from fmtune.fm.pack import score
from fmtune.fm.solvers import memory_of
from fmtune.report import charts
from fmtune.report.page import build
from fmtune.report.sections import baseline as section
from fmtune.report.sections import reliability
from fmtune.tune import spec as specs
from fmtune.tune import study as studies
from fmtune.tune.baseline import DECAYS, FACTORS, RATES, baseline, settings
from fmtune.tune.collect import collect
from fmtune.tune.result import StudyResult
from tests import fm_reference as reference
from tests.study_fixtures import STUDY, write_study


@pytest.mark.parametrize("solver", ["sgd", "als", "mcmc"])
def test_it_is_the_best_of_a_few_linear_models(solver: str) -> None:
    """Trained again by itself, its settings give its value; the gap is paired and has an interval."""
    data = reference.rows(400, 12, 4, seed=5, binary=False)
    channels = Channels(data.slice(0, 250), data.slice(250, 400))
    rates = {"linear_lr": 0.02, "linear_wd": 0.01, "factors_lr": 0.02, "mini_batch_size": 20}
    h = Hyperparameters.of({"solver": solver, "num_factors": 3, "epochs": 6, **rates})
    test = data.slice(250, 400)
    scores = score(train(channels, h).model, test)
    found = baseline(channels, h, "cpu", "sparse", "rmse", scores)
    again = train(channels, h.replace(**found["params"]), epochs=found["epoch"])
    assert again.curve[-1] == pytest.approx(found["value"], rel=1e-6)
    tried = {"sgd": len(RATES) * len(DECAYS), "als": len(FACTORS), "mcmc": 1}[solver]
    assert found["tried"] == tried == len(settings(h, 500)) and found["params"]["num_factors"] == 0
    assert found["low"] < found["difference"] < found["high"]
    own = METRICS["rmse"].compute(scores, channels.test_labels)
    assert found["difference"] == pytest.approx(found["value"] - own)


def test_a_small_room_makes_several_packs() -> None:
    """What does not fit into the memory at once is trained one after the other, with the same outcome."""
    data = reference.rows(300, 10, 3)
    channels = Channels(data.slice(0, 200), data.slice(200, 300))
    h = Hyperparameters(predictor_type="binary_classifier", num_factors=2, mini_batch_size=50, epochs=2)
    scores = score(train(channels, h).model, data.slice(200, 300))
    asked = (channels, h, "cpu", "sparse", "binary_classification_cross_entropy", scores)
    assert baseline(*asked, room=0.0) == baseline(*asked)


@pytest.mark.parametrize("lanes", [0, 1, 3, 7, 100])
def test_packs_that_train_at_once_share_the_room(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """As many threads at most as settings fit, and all of their packs together fit."""
    data = reference.rows(300, 10, 3)
    channels = Channels(data.slice(0, 200), data.slice(200, 300))
    h = Hyperparameters(predictor_type="binary_classifier", num_factors=2, mini_batch_size=50, epochs=1)
    scores = score(train(channels, h).model, data.slice(200, 300))
    threads, widths = [], []

    class Pool(ThreadPoolExecutor):
        def __init__(self, count: int) -> None:
            threads.append(count)
            super().__init__(count)

    def one(channels: Channels, pack: list[Hyperparameters], *asked: object) -> None:
        widths.append(len(pack))

    monkeypatch.setattr("fmtune.tune.baseline.ThreadPoolExecutor", Pool)
    monkeypatch.setattr("fmtune.tune.baseline._best", one)
    room = float(lanes * memory_of(settings(h, channels.feed.n)[0], channels.feed))
    baseline(channels, h, "cpu", "sparse", "binary_classification_cross_entropy", scores, room=room, threads=3)
    assert sum(widths) == len(RATES) * len(DECAYS) and threads[0] <= 3
    assert threads[0] * max(widths) <= max(1, lanes)


def test_a_study_s_memory_holds_the_linear_models_beside_the_winner_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the winner's model takes is not theirs; without a memory it is a share of what is free."""
    rooms: list[float | None] = []

    def asked(*given: object, room: float | None, threads: int) -> dict[str, object]:
        rooms.append(room)
        return {"value": None, "tried": 0, "params": {}}

    monkeypatch.setattr("fmtune.tune.winner.baseline", asked)
    text = STUDY.replace("n_trials: 24", "n_trials: 2").replace("1..12", "4..5")
    for name, memory in (("a", 1_000_000), ("b", None)):
        spec = specs.read(write_study(tmp_path, text)).model_copy(update={"memory": memory, "study_name": name})
        studies.run(spec, root=tmp_path)
    size = Model.load(tmp_path / "runs/a/model.fm").nbytes
    assert rooms[0] is not None and 0 < rooms[0] <= 1_000_000 - size and rooms[1] is None


def test_the_linear_model_is_as_good_as_another_library_s() -> None:
    """On the digits, beside a winner whose own rate and decay suit no linear model, it is within 2 % of the best of
    scikit-learn's logistic regressions."""
    digits = catalog.load("digits", {})
    assert digits.test is not None
    channels = Channels(digits.train, digits.test)
    winner = Hyperparameters.of({
        "predictor_type": "binary_classifier", "epochs": 30, "mini_batch_size": 100, "bias_lr": 0.01, "bias_wd": 0.0,
        "linear_lr": 0.00157, "linear_wd": 1e-5, "num_factors": 18, "factors_lr": 0.0085, "factors_init_sigma": 0.07,
    })  # fmt: skip
    metric = "binary_classification_cross_entropy"
    scores = score(train(channels, winner).model, digits.test)
    found = baseline(channels, winner, "cpu", "sparse", metric, scores)
    matrix, held = digits.train.to_dense().matrix, digits.test.to_dense().matrix
    others = [
        METRICS[metric].compute(
            LogisticRegression(C=c, max_iter=3000).fit(matrix, digits.train.labels).decision_function(held),
            channels.test_labels,
        ) for c in (0.1, 1.0, 10.0)
    ]  # fmt: skip
    assert found["value"] < 1.02 * min(others)


def test_a_metric_of_ranks_has_an_interval() -> None:
    """Higher is better for auc, and the sign of the gap knows it."""
    data = reference.rows(300, 10, 3)
    channels = Channels(data.slice(0, 200), data.slice(200, 300))
    h = Hyperparameters(predictor_type="binary_classifier", num_factors=2, linear_lr=0.1, mini_batch_size=50, epochs=2)
    perfect = (channels.test_labels * 2 - 1).astype(np.float32)
    found = baseline(channels, h, "cpu", "sparse", "auc", perfect)
    assert found["difference"] == pytest.approx(1 - found["value"])
    assert 0 <= found["low"] <= found["difference"] <= found["high"] < 1


def test_calibration_compares_what_was_said_with_what_was() -> None:
    """Probabilities that are right have an error near 0; the same scores times three have not; bins hold all rows."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=20_000).astype(np.float32)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-z))).astype(np.float32)
    right, sure = calibration(z, labels), calibration(3 * z, labels)
    assert right["error"] < 0.015 < 0.1 < sure["error"]
    assert len(right["said"]) == 10 and sum(right["rows"]) == 20_000
    assert (np.diff(right["said"]) > 0).all()
    constant = calibration(np.zeros(50, np.float32), np.ones(50, np.float32))
    assert constant == {"said": [0.5], "was": [1.0], "rows": [50], "error": 0.5}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """A small binary study that has run."""
    folder = tmp_path_factory.mktemp("baseline")
    spec = specs.read(write_study(folder, STUDY.replace("n_trials: 24", "n_trials: 6")))
    studies.run(spec, root=folder)
    return collect(spec, folder)


def test_every_study_has_both_and_its_page_shows_them(result: StudyResult, tmp_path: Path) -> None:
    """The page has the linear model beside the winner, the reliability curve and its error."""
    assert result.best is not None and result.baseline is not None and result.calibration is not None
    assert result.baseline["trial"] == result.calibration["trial"] == result.best.number
    page = build(result)
    assert "Beside a linear model" in page and "expected calibration error" in page
    chart = charts.reliability(result)
    assert chart is not None and len(chart.rows) == len(result.calibration["said"])


def test_sentences_follow_the_interval(result: StudyResult) -> None:
    """Worse, better or not decided; nothing for another winner's, or for none."""
    assert result.baseline is not None
    sides = (
        (0.1, 0.3, "is worse by 0.20 (95 %: 0.100 to 0.300)"), (-0.3, -0.1, "is better by 0.20 (95 %: 0.100 to 0.300)"),
        (-0.1, 0.3, "not decided: it is worse by 0.10 (95 %: better by 0.10 to worse by 0.30)"),
        (-0.3, 0.1, "not decided: it is better by 0.10 (95 %: better by 0.30 to worse by 0.10)"),
    )  # fmt: skip
    for low, high, said in sides:
        found = {**result.baseline, "low": low, "high": high, "difference": (low + high) / 2}
        shown = section(replace(result, baseline=found))
        assert shown is not None and said in shown.body
    unknown = section(replace(result, baseline={**result.baseline, "low": None, "high": None}))
    assert unknown is not None and "The linear model is" in unknown.body
    for other in (None, {**result.baseline, "trial": -1}, {**result.baseline, "value": None}):
        assert section(replace(result, baseline=other)) is None
    assert reliability(replace(result, calibration=None)) is None


def test_a_handful_of_rows_decides_nothing(result: StudyResult) -> None:
    """Below 30 test rows no verdict is given, whatever the interval that was stored."""
    found = {**(result.baseline or {}), "low": -0.2, "high": -0.2, "difference": -0.2}
    some = ((1, "by 0.20, and 1 test row is too few"), (29, "29 test rows are too few"), (30, "is better by"))
    for rows, said in some:
        channels = {**result.channels, "test": {**result.channels["test"], "rows": rows}}
        shown = section(replace(result, baseline=found, channels=channels))
        assert shown is not None and said in shown.body
