"""The objective by itself, as any Optuna script uses it; and ``fit``."""

from __future__ import annotations

import copy
import logging
import pickle
import re
import warnings
from ast import literal_eval
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import scipy.sparse
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

import fmtune
from fmtune.data import catalog, source
from fmtune.errors import DataError, UsageError
from fmtune.fm.metrics import METRICS, constant
from tests import fm_reference as reference

SPACE = {"num_factors": "1..8", "factors_lr": "1e-2..0.3 log", "optimizer": ["adam", "adagrad"]}
FIXED = {"predictor_type": "binary_classifier", "epochs": 3, "mini_batch_size": 50, "factors_init_sigma": 0.1}
WHOLE = reference.rows(500, 30, 5)
TRAIN, TEST = WHOLE.slice(0, 400), WHOLE.slice(400, 500)

OF_CLASSES = [name for name, metric in METRICS.items() if metric.predictor_type == "binary_classifier"]

optuna.logging.set_verbosity(optuna.logging.WARNING)


def _objective(**more: object) -> fmtune.Objective:
    given = {"search_space": SPACE, "hyperparameters": FIXED, **more}
    return fmtune.Objective(TRAIN, TEST, **given)  # type: ignore[arg-type]


def _study(objective: fmtune.Objective, pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(
        direction=objective.direction, sampler=sampler, pruner=pruner or optuna.pruners.NopPruner()
    )


def _told(study: optuna.Study) -> list[tuple[object, ...]]:
    return [(t.number, t.state, t.params, t.value, t.intermediate_values) for t in study.trials]


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_full_packs_give_what_packs_of_one_give(layout: str) -> None:
    """``fmtune.optimize`` and ``study.optimize`` agree to the last bit for the same configurations."""
    objective = _objective(layout=layout)
    alone, packed = _study(objective), _study(objective)
    alone.optimize(objective, n_trials=12)
    fmtune.optimize(packed, objective, 12, lanes=5, threads=2)
    assert _told(packed) == _told(alone)
    assert {t.state for t in packed.trials} == {TrialState.COMPLETE}


def test_each_epoch_is_reported_with_its_test_score() -> None:
    """A trial has a score an epoch, its value is the last one's; its metrics and best epoch are kept with it."""
    objective = _objective()
    study = _study(objective)
    study.optimize(objective, n_trials=2)
    trial = study.trials[0]
    assert list(trial.intermediate_values) == [1, 2, 3] and trial.value == trial.intermediate_values[3]
    assert trial.user_attrs["metrics"]["binary_classification_cross_entropy"] == pytest.approx(trial.value)
    curve = list(trial.intermediate_values.values())
    assert (trial.user_attrs["epochs"], trial.user_attrs["best_epoch"]) == (3, curve.index(min(curve)) + 1)


@pytest.mark.parametrize("packed", [False, True])
def test_the_pruner_ends_trials(packed: bool) -> None:
    """A pruner that ends everything at epoch 2 leaves PRUNED trials with two scores."""
    objective = _objective()
    study = _study(objective, optuna.pruners.ThresholdPruner(upper=0.0, n_warmup_steps=2))
    fmtune.optimize(study, objective, 4) if packed else study.optimize(objective, n_trials=4)
    assert [t.state for t in study.trials] == [TrialState.PRUNED] * 4
    assert all(list(t.intermediate_values) == [1, 2] for t in study.trials)


@pytest.mark.parametrize("layout", ["sparse", "dense"])
@pytest.mark.parametrize("metric", OF_CLASSES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_diverged_trial_fails_and_the_study_goes_on(packed: bool, metric: str, layout: str) -> None:
    """With a learning rate of 1e30 a trial FAILs, in a pack and alone, whatever is scored; the next one is tried."""
    objective = _objective(search_space={"factors_lr": [1e30, 0.1]}, objective=f"test:{metric}", layout=layout)
    study = _study(objective)
    for rate in (1e30, 0.1):
        study.enqueue_trial({"factors_lr": rate})
    fmtune.optimize(study, objective, 2) if packed else study.optimize(objective, n_trials=2)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[0].user_attrs["reason"] == "diverged at epoch 1"


class _Breaks(optuna.pruners.BasePruner):
    """A pruner with a fault, at the second epoch of trial 2."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        if trial.number == 2 and trial.last_step == 2:
            raise KeyError("a fault")
        return False


@pytest.mark.parametrize("threads", [1, 2])
def test_whatever_ends_the_search_no_trial_is_left_running(threads: int) -> None:
    """A fault of the pruner, of an enqueued value, of a callback, and Ctrl-C are raised; what ran is FAIL."""

    def stops(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        raise KeyboardInterrupt

    objective = _objective()
    for error, pruner, value, callbacks in (
        (KeyError, _Breaks(), "adam", ()), (ValueError, None, "nosuch", ()), (KeyboardInterrupt, None, "adam", [stops]),
    ):  # fmt: skip
        study = _study(objective, pruner)
        for optimizer in ("adam", "adam", "adam", value):
            study.enqueue_trial({"optimizer": optimizer})
        with pytest.raises(error):
            fmtune.optimize(study, objective, 8, lanes=4, threads=threads, callbacks=callbacks)
        states = {t.state for t in study.trials}
        assert TrialState.FAIL in states and states <= {TrialState.FAIL, TrialState.COMPLETE, TrialState.WAITING}
        fmtune.optimize(study, _objective(), 1, lanes=1, threads=1)


def test_a_sampler_that_breaks_as_trials_end_leaves_none_running() -> None:
    """The sampler is told of each trial that is failed; that it raises again hides nothing."""

    class Sampler(optuna.samplers.RandomSampler):
        def after_trial(self, *args: object) -> None:
            raise KeyError("a fault")

    objective = _objective()
    study = optuna.create_study(sampler=Sampler(seed=0))
    with pytest.raises(KeyError, match="a fault"):
        fmtune.optimize(study, objective, 4, lanes=2)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE, TrialState.FAIL}


def test_a_grid_is_tried_once_and_ends_the_search() -> None:
    """Of a grid of six points six trials are made, however many lanes wait; a second call finds nothing to try."""
    objective = _objective(search_space={"num_factors": "1..8", "optimizer": ["adam", "adagrad"]})
    grid = {"num_factors": [2, 4, 8], "optimizer": ["adam", "adagrad"]}
    study = optuna.create_study(
        sampler=optuna.samplers.GridSampler(grid, seed=0), pruner=optuna.pruners.NopPruner()
    )  # fmt: skip
    for _ in range(2):
        fmtune.optimize(study, objective, lanes=4)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    points = [tuple(t.params.values()) for t in study.trials]
    assert len(points) == 6 == len(set(points))


def test_callbacks_see_each_trial_and_may_stop_the_study() -> None:
    """A callback gets the study and the finished trial, pruned ones too; after ``study.stop()`` no trial begins."""
    seen: list[tuple[int, TrialState]] = []

    def callback(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        seen.append((trial.number, trial.state))
        if len(seen) == 3:
            study.stop()

    objective = _objective()
    study = _study(objective, optuna.pruners.ThresholdPruner(upper=0.0, n_warmup_steps=2))
    fmtune.optimize(study, objective, lanes=2, callbacks=[callback])
    assert 3 <= len(study.trials) <= 4 and {t.state for t in study.trials} == {TrialState.PRUNED}
    assert sorted(seen) == [(t.number, t.state) for t in study.trials]
    with pytest.raises(RuntimeError, match="inside an objective function or a callback"):
        study.stop()


def test_a_fixed_trial_needs_no_study() -> None:
    """An objective can be called with Optuna's ``FixedTrial``, and gives the score that a study would."""
    objective = _objective()
    study = _study(objective)
    study.optimize(objective, 1)
    assert objective(optuna.trial.FixedTrial(study.best_params)) == study.best_value


def test_optuna_s_own_callback_bounds_the_trials() -> None:
    """``MaxTrialsCallback`` ends a search without ``n_trials``, as it ends ``study.optimize``."""
    objective = _objective()
    study = _study(objective)
    fmtune.optimize(study, objective, lanes=1, callbacks=[optuna.study.MaxTrialsCallback(3)])
    assert len(study.trials) == 3


def test_after_the_timeout_no_trial_begins() -> None:
    """A search without ``n_trials`` ends by its timeout, with whole trials; one of 0 seconds tries nothing."""
    objective = _objective()
    study = _study(objective)
    fmtune.optimize(study, objective, timeout=0)
    assert not study.trials
    fmtune.optimize(study, objective, timeout=0.3)
    assert study.trials and {t.state for t in study.trials} == {TrialState.COMPLETE}


def test_a_search_in_a_search_is_refused() -> None:
    """``fmtune.optimize`` inside a callback of its own study is told off, as Optuna does."""
    objective = _objective()
    study = _study(objective)
    with pytest.raises(UsageError, match="being optimized already"):
        study.optimize(objective, 1, callbacks=[lambda study, trial: fmtune.optimize(study, objective, 1)])


def test_each_trial_is_logged_as_optuna_does() -> None:
    """A line a trial by Optuna's logger: complete, failed, pruned."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    objective = _objective(search_space={"factors_lr": [1e30, 0.1]})
    study = _study(objective)
    for rate in (0.1, 1e30, 0.1):
        study.enqueue_trial({"factors_lr": rate})
    optuna.logging.set_verbosity(optuna.logging.INFO)
    logging.getLogger("optuna").addHandler(handler)
    try:
        fmtune.optimize(study, objective, 2, lanes=1)
        study.pruner = optuna.pruners.ThresholdPruner(upper=0.0)
        fmtune.optimize(study, objective, 1)
    finally:
        logging.getLogger("optuna").removeHandler(handler)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    assert said[0].startswith(f"Trial 0 finished with value: {study.trials[0].value} and parameters: ")
    assert said[1:] == [
        "Trial 1 failed with parameters: {'factors_lr': 1e+30} because of: diverged at epoch 1.",
        "Trial 2 pruned. pruned at epoch 1",
    ]


def test_few_trials_are_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four train side by side at least, 16 at most, an eighth of the trials between; eight without a number."""
    wide: list[int] = []

    class Idle:
        def __init__(self, *args: object, lanes: int, **more: object) -> None:
            wide.append(lanes)

        def run(self) -> bool:
            return True

    monkeypatch.setattr("fmtune.tune.objective.Driver", Idle)
    objective = _objective(seeds=2)
    for n in (8, 64, 1000, None):
        fmtune.optimize(_study(objective), objective, n)
    assert wide == [8, 16, 32, 16]


@pytest.mark.parametrize("packed", [False, True])
def test_a_study_of_another_direction_is_refused(packed: bool) -> None:
    """A study that minimizes cannot take an auc, one of two objectives takes nothing; both are named."""
    objective = _objective(objective="test:auc")
    for study, message in (
        (optuna.create_study(), "study: its direction is minimize, but test:auc is one value to maximize"),
        (optuna.create_study(directions=["maximize", "minimize"]), "study: it has 2 objectives, but test:auc"),
    ):
        with pytest.raises(UsageError, match=message):
            fmtune.optimize(study, objective, 2) if packed else study.optimize(objective, n_trials=2)
        assert len(study.trials) == (not packed) and all(t.state == TrialState.FAIL for t in study.trials)


def test_seeds_are_averaged() -> None:
    """With three seeds a trial's value is the mean of three trainings."""
    objective = _objective(seeds=3)
    study = _study(objective)
    fmtune.optimize(study, objective, 1)
    h = {**FIXED, **study.best_params}
    values = [fmtune.fit(TRAIN, TEST, **h, seed=s).curve[-1] for s in range(3)]
    assert study.best_value == pytest.approx(float(np.mean(values)), rel=1e-12)


def test_data_come_as_arrays_matrices_rows_or_files(tmp_path: Path) -> None:
    """The same rows give the same model from (X, y) with SciPy, from rows and from a file; numpy arrays are dense."""
    dense = TRAIN.to_dense()
    csr = scipy.sparse.csr_matrix((TRAIN.values, TRAIN.indices, TRAIN.indptr), (TRAIN.n, TRAIN.feature_dim))
    source.write(TRAIN, tmp_path / "train.npz")
    path = tmp_path / "train.npz"
    forms = [TRAIN, (csr, TRAIN.labels), (csr.tocoo(), TRAIN.labels), path, [str(path)]]
    models = {fmtune.fit(data, TEST, **FIXED).model.to_bytes() for data in forms}
    assert len(models) == 1
    arrays = fmtune.fit((dense.matrix, dense.labels), TEST, **FIXED).model
    assert arrays.to_bytes() == fmtune.fit(dense, TEST, **FIXED).model.to_bytes()
    sparse = fmtune.fit(TRAIN, TEST, **FIXED).model
    assert fmtune.predict(arrays, TEST) == pytest.approx(fmtune.predict(sparse, TEST), abs=1e-4)


def test_unsorted_and_repeated_entries_are_summed() -> None:
    """A SciPy matrix with an entry twice is as one with their sum; the caller's matrix stays as it is."""
    twice = scipy.sparse.csr_matrix((np.array([1.0, 2, 3]), np.array([2, 0, 2]), np.array([0, 3, 3])), (2, 3))
    summed = scipy.sparse.csr_matrix(np.array([[2.0, 0, 4], [0, 0, 0]]))
    y = np.array([1.0, 0.0])
    regressor = {"predictor_type": "regressor"}
    models = [fmtune.fit((x, y), **regressor).model.to_bytes() for x in (twice, summed)]
    assert models[0] == models[1]
    assert twice.nnz == 3


def test_patience_keeps_the_best_epoch() -> None:
    """With patience the model is the one of the best epoch, and training ends soon after it."""
    h = {**FIXED, "num_factors": 8, "factors_lr": 0.3, "epochs": 40}
    whole = fmtune.fit(TRAIN, TEST, **h).curve
    fit = fmtune.fit(TRAIN, TEST, **h, patience=3)
    best = min(range(40), key=lambda i: whole[i]) + 1
    assert (fit.best_epoch, fit.epochs, len(fit.curve)) == (best, best, best + 3) and best < 30
    short = fmtune.fit(TRAIN, TEST, **{**h, "epochs": best})
    assert fit.model.to_bytes() == short.model.to_bytes() and fit.metrics == short.metrics


def test_without_patience_the_best_epoch_is_the_curve_s() -> None:
    """The model is the last epoch's, and ``best_epoch`` says which would have been better."""
    h = {**FIXED, "num_factors": 8, "factors_lr": 0.3, "epochs": 40}
    fit = fmtune.fit(TRAIN, TEST, **h)
    assert fit.best_epoch == fit.curve.index(min(fit.curve)) + 1 < 30 and fit.epochs == 40
    assert fit.metrics["binary_classification_cross_entropy"] == pytest.approx(fit.curve[-1])


def test_without_a_test_channel_there_is_a_model_and_no_score() -> None:
    """``fit`` needs no test channel."""
    fit = fmtune.fit(TRAIN, **FIXED)
    assert (fit.curve, fit.metrics, fit.best_epoch, fit.epochs) == ((), {}, 3, 3)


@pytest.mark.parametrize(("given", "message"), [
    ({"search_space": {"num_factros": "1..8"}}, "did you mean 'num_factors'"),
    ({"search_space": {"num_factors": "8..1"}}, "num_factors"),
    ({"search_space": {"epochs": "1..3"}}, "epochs"),
    ({"objective": "test:rsme"}, "unknown objective 'test:rsme'"),
    ({"objective": "test:rmse"}, "not a metric of predictor_type binary_classifier"),
    ({"hyperparameters": {"num_factors": -1}}, "num_factors"),
    ({"search_space": {"num_factors": (2, 8)}}, 'tuple .2, 8.\n  hint: write "2..8" or "2..8 log" for a range'),
    ({"search_space": {"optimizer": ("adam", "sgd")}}, "hint: write .'adam', 'sgd'. for choices"),
    ({"search_space": {"num_factors": FloatDistribution(2, 8)}}, "hint: give IntDistribution.2, 8."),
    ({"search_space": {"nosuch": FloatDistribution(2, 8)}}, "nosuch"),
])  # fmt: skip
def test_what_is_asked_wrongly_is_a_usage_error(given: dict[str, object], message: str) -> None:
    """Unknown names, impossible ranges, what is both fixed and searched, and misfit metrics are named."""
    with pytest.raises(UsageError, match=message):
        _objective(**given)


def test_ranges_may_be_optuna_s_distributions() -> None:
    """Distributions and shorthands come to the same space."""
    ours = {"num_factors": "2..8 step 2", "mini_batch_size": "1..64 log", "factors_lr": "1e-3..1 log",
            "linear_lr": "0..1 step 0.25", "bias_lr": "0..1", "optimizer": ["adam", "adagrad"]}  # fmt: skip
    theirs = {
        "num_factors": IntDistribution(2, 8, step=2), "mini_batch_size": IntDistribution(1, 64, log=True),
        "factors_lr": FloatDistribution(1e-3, 1, log=True), "linear_lr": FloatDistribution(0, 1, step=0.25),
        "bias_lr": FloatDistribution(0, 1), "optimizer": CategoricalDistribution(["adam", "adagrad"]),
    }  # fmt: skip
    fixed = {"predictor_type": "binary_classifier"}
    one, other = (_objective(search_space=space, hyperparameters=fixed) for space in (ours, theirs))
    studies = [_study(one), _study(other)]
    for study, objective in zip(studies, (one, other), strict=True):
        fmtune.optimize(study, objective, 2, lanes=2)
    assert [t.distributions for t in studies[0].trials] == [t.distributions for t in studies[1].trials]
    assert _told(studies[0]) == _told(studies[1])


def test_labels_of_two_classes_are_told_of() -> None:
    """Who names neither metric nor predictor type gets a regressor, and a warning where the labels are 0 and 1."""
    classes = (X, np.array([0, 1, 1])), (X, np.array([-1, 1, 1]))
    for data, lowest in zip(classes, ("0", "-1"), strict=True):
        with pytest.warns(source.DataWarning, match=f"all labels are {lowest} or 1 and a regressor is trained"):
            assert fmtune.Objective(data, data, search_space={"num_factors": "1..8"}).metric == "rmse"
        fmtune.Objective(data, data, search_space={"num_factors": "1..8"}, objective="test:rmse")


def test_labels_of_arrays_may_be_signs() -> None:
    """Labels -1 and +1 of (X, y) and of rows are read as 0 and 1 for a classifier, as those of files are."""
    plain = fmtune.fit(TRAIN, TEST, **FIXED)
    signed = [replace(rows, labels=2 * rows.labels - 1) for rows in (TRAIN, TEST)]
    with pytest.warns(source.DataWarning, match="all labels are -1 or \\+1; read as 0 and 1"):
        assert fmtune.fit(*signed, **FIXED).model.to_bytes() == plain.model.to_bytes()
    with pytest.warns(source.DataWarning, match="read as 0 and 1"):
        objective = fmtune.Objective(
            (X, np.array([-1, 1, 1])), (X, Y), search_space={"num_factors": "1..8"}, objective="test:auc"
        )  # fmt: skip
    assert objective.channels.train.labels is not None and objective.channels.train.labels.tolist() == [0, 1, 1]


def test_who_learns_nothing_is_told() -> None:
    """Tiny rates learn nothing, which ``fit`` and ``optimize`` say; a study whose trials all fail has no best score."""
    tiny = {**FIXED, "factors_lr": 1e-9, "linear_lr": 1e-9, "bias_lr": 1e-9}
    with pytest.warns(UserWarning, match="than predicting the train labels' mean"):
        fmtune.fit(TRAIN, TEST, **{**tiny, "num_factors": 2})
    objective = _objective(search_space={"num_factors": "1..8"}, hyperparameters=tiny)
    study = _study(objective)
    with pytest.warns(UserWarning, match="than predicting the train labels' mean"):
        fmtune.optimize(study, objective, 2)
    good = {**FIXED, "factors_lr": 0.1, "linear_lr": 0.1, "epochs": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fmtune.fit(TRAIN, TEST, **good, optimizer="adagrad")


def test_patience_without_test_rows_is_told_of() -> None:
    """The hyperparameters of a winner, trained on all rows at last, would run to the last epoch without a word."""
    with pytest.warns(UserWarning, match="patience has no test rows to watch, so all 7 epochs are trained"):
        fmtune.fit(TRAIN, epochs=7, patience=2, predictor_type="binary_classifier")


def test_the_readme_s_fit_learns() -> None:
    """With the rates of README.md's example ratings are learnt, an eighth better than their mean."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    found = re.search(r'fit = fmtune.fit\(\s*"train.pbr", "test.pbr", (.*?)\s*\)\n', text, re.DOTALL)
    assert found is not None
    rows = catalog.load("planted-ratings", {})
    words = [word.partition("=") for word in found[1].split(", ")]
    fit = fmtune.fit(rows.train, rows.test, **{name: literal_eval(value) for name, _, value in words})
    assert min(fit.curve) < 7 / 8 * constant("rmse", rows.train.labels, rows.test.labels)


def test_an_objective_can_be_copied_and_sent() -> None:
    """A copy, and one from another process, tries the same trials; mini-batches that were made stay behind."""
    objective = _objective(groups={"users": 0, "items": 10})
    first = _study(objective)
    fmtune.optimize(first, objective, 3)
    for other in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):  # noqa: S301
        study = _study(other)
        study.optimize(other, 3)
        assert _told(study) == _told(first)


FRAME = pd.DataFrame({"who": ["ann", "bob", "cid"], "n": [1, 2, 3]})


@pytest.mark.parametrize(("data", "message"), [
    ((FRAME, [0, 1, 1]), "train: features cannot be taken from a DataFrame\n  hint: FMClassifier"),
    (FRAME, "train: features cannot be taken from a DataFrame\n  hint: FMClassifier"),
    (np.ones((3, 2)), "train: features cannot be taken from a ndarray\n  hint: give \\(X, y\\)"),
    ([np.ones((3, 2)), [0, 1, 1]], "train: features cannot be taken from a list"),
])  # fmt: skip
def test_what_is_no_rows_is_a_usage_error(data: object, message: str) -> None:
    """A frame is told where frames are taken; an array without labels, what is wanted."""
    with pytest.raises(UsageError, match=message):
        fmtune.Objective(data, TEST, search_space=SPACE)  # type: ignore[arg-type]


X, Y = np.ones((3, 2), np.float32), np.array([0, 1, 1], np.float32)


@pytest.mark.parametrize(("data", "message"), [
    ((X, Y[:2]), "labels have shape"),
    ((X[0], Y), "shape"),
    ((X * np.nan, Y), "NaN"),
    ((scipy.sparse.csr_matrix(X) * np.inf, Y), "NaN or infinity"),
    ((X, Y * 3), "label 3"),
    ((X, ["a", "b", "b"]), "labels are not all numbers: .could not convert string to float: 'a'"),
    ((X.astype(str) + "x", Y), "features are not all numbers"),
    ((X, None), "labels are missing"),
    ((X[:0], Y[:0]), "no rows"),
    ("nosuch.npz", "no such file"),
])  # fmt: skip
def test_bad_data_are_a_data_error(data: object, message: str) -> None:
    """Misfit shapes, values that are not finite, labels that are no classes, missing files."""
    with pytest.raises(DataError, match=message):
        fmtune.fit(data, **FIXED)  # type: ignore[arg-type]


def test_test_rows_must_fit_the_train_rows() -> None:
    """A test channel with more features than train is refused, one with fewer is widened."""
    wide, narrow = (X, Y), (X[:, :1], Y)
    with pytest.raises(DataError, match="2 features, train 1"):
        fmtune.fit(narrow, wide, **FIXED)
    assert len(fmtune.fit(wide, narrow, **FIXED).curve) == 3
