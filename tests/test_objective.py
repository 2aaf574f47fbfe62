"""The objective by itself, as any Optuna script uses it; and ``fit``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
import scipy.sparse
from optuna.trial import TrialState

import fmtune
from fmtune.data import source
from fmtune.errors import DataError, FmtuneError, UsageError
from tests import fm_reference as reference

SPACE = {"num_factors": "1..8", "factors_lr": "1e-2..0.3 log", "optimizer": ["adam", "adagrad"]}
FIXED = {"predictor_type": "binary_classifier", "epochs": 3, "mini_batch_size": 50, "factors_init_sigma": 0.1}
WHOLE = reference.rows(500, 30, 5)
TRAIN, TEST = WHOLE.slice(0, 400), WHOLE.slice(400, 500)

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


def test_a_diverged_trial_fails() -> None:
    """With a learning rate of 1e30 a trial FAILs in a pack, and raises an error of ours when alone."""
    objective = _objective(search_space={"factors_lr": [1e30, 2e30]})
    packed, alone = _study(objective), _study(objective)
    fmtune.optimize(packed, objective, 2)
    assert [t.state for t in packed.trials] == [TrialState.FAIL] * 2
    assert "diverged at epoch 1" in packed.trials[0].user_attrs["reason"]
    with pytest.raises(FmtuneError, match="diverged at epoch 1"):
        alone.optimize(objective, n_trials=1)


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
])  # fmt: skip
def test_what_is_asked_wrongly_is_a_usage_error(given: dict[str, object], message: str) -> None:
    """Unknown names, impossible ranges, what is both fixed and searched, and misfit metrics are named."""
    with pytest.raises(UsageError, match=message):
        _objective(**given)


X, Y = np.ones((3, 2), np.float32), np.array([0, 1, 1], np.float32)


@pytest.mark.parametrize(("data", "message"), [
    ((X, Y[:2]), "labels have shape"),
    ((X[0], Y), "shape"),
    ((X * np.nan, Y), "NaN"),
    ((scipy.sparse.csr_matrix(X) * np.inf, Y), "NaN or infinity"),
    ((X, Y * 3), "label 3"),
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
