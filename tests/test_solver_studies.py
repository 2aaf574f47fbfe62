"""Studies that search over the solver, from the file to confirm and replay, and the verbs that know it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest

from fmtune.cli import fmtune
from fmtune.data import source
from fmtune.errors import StorageError
from fmtune.fm.model import Model
from fmtune.sagemaker.artifact import member_of
from fmtune.tune import plan
from fmtune.tune import spec as specs
from fmtune.tune import study as studies
from fmtune.tune.collect import collect
from fmtune.tune.confirm import confirm
from fmtune.tune.fit import fit, predict_interval
from fmtune.tune.objective import Objective
from fmtune.tune.replay import replay
from fmtune.tune.result import StudyResult
from tests import fm_reference as reference
from tests.study_fixtures import write_study

STUDY = """\
study_name: solvers
data: {train: train.npz, test: test.npz, holdout: holdout.npz}
objective: test:binary_classification_cross_entropy
hyperparameters: {epochs: 6, mini_batch_size: 50, linear_lr: 0.1, factors_lr: 0.1, factors_init_sigma: 0.1}
search_space:
  solver: [sgd, als, mcmc]
  num_factors: 1..9
  factors_wd: 1e-4..0.1 log
sampler: {name: random}
pruner: {name: median, n_startup_trials: 2}
n_trials: 14
groups: {first: 0, second: {first: 20, decay: 2}}
pack: 4
threads: 2
matrix: {layout: [sparse, dense]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the study has run."""
    where = tmp_path_factory.mktemp("solvers")
    studies.run(specs.read(write_study(where, STUDY)), root=where)
    return where


@pytest.fixture(scope="module")
def done(folder: Path) -> StudyResult:
    """What the study came to."""
    return collect(specs.read(folder / "study.yaml"), folder)


def test_a_study_searches_over_solvers(done: StudyResult) -> None:
    """Trials of all solvers end, some pruned, and sweeps score alike in both cells."""
    first, second = (cell.trials for cell in done.cells)
    assert {t.params["solver"] for t in first} == {"sgd", "als", "mcmc"}
    assert {t.state for t in first} == {"COMPLETE", "PRUNED"} and len(second) == 14
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a.curve, b.curve, rtol=1e-3)


def test_a_stopped_study_goes_on_as_if_it_had_not(folder: Path, done: StudyResult, tmp_path: Path) -> None:
    """Half the trials, then the others: the same parameters, curves and states."""
    path = write_study(tmp_path, STUDY.replace("n_trials: 14", "n_trials: 6"))
    studies.run(specs.read(path), root=tmp_path)
    path.write_text(STUDY)
    studies.run(specs.read(path), root=tmp_path)
    again = collect(specs.read(path), tmp_path)
    for a, b in zip(again.cells[0].trials, done.cells[0].trials, strict=True):
        assert (a.params, a.curve, a.state) == (b.params, b.curve, b.state)
    path.write_text(STUDY.replace("decay: 2", "decay: 3"))
    with pytest.raises(StorageError, match="groups"):
        studies.run(specs.read(path), root=tmp_path)


def test_trials_of_every_solver_are_replayed_to_the_bit(folder: Path, done: StudyResult) -> None:
    """Alone, each gives the curve that it gave beside others."""
    found: dict[str, int] = {}
    for trial in done.cells[0].trials:
        found.setdefault(str(trial.params["solver"]), trial.number)
    for number in found.values():
        assert replay(done, number, root=folder).verdict == "identical"


def test_finalists_are_confirmed(folder: Path) -> None:
    """Finalists of any solver train again under more seeds."""
    result = confirm(specs.read(folder / "study.yaml"), folder, finalists=2, seeds=2)
    assert result["sentences"] and result["holdout"]["opened"] == 2


def test_a_plan_says_who_shares_a_pass(folder: Path) -> None:
    """Trials of different solvers do not."""
    said = "\n".join(plan.lines(specs.read(folder / "study.yaml")))
    assert "trials of the same solver share a pass" in said


def test_any_optuna_script_may_search_the_solver() -> None:
    """An objective takes the solver from its space, and sweeps a hundred times where epochs are not said."""
    data = reference.rows(120, 10, 3, binary=False)
    objective = Objective(data, data, search_space={"solver": ["als", "mcmc"]}, objective="test:rmse", groups=[0, 5])
    study = optuna.create_study()
    study.optimize(objective, n_trials=2)
    assert all(np.isfinite(t.value) and t.last_step == 100 for t in study.trials)


def _cells(path: Path) -> Iterator[dict[str, float]]:
    with path.open() as stream:
        for row in csv.DictReader(stream):
            yield {name: float(value) for name, value in row.items()}


def test_verbs_fit_and_predict_with_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """fit --solver mcmc needs nothing else; predict --interval adds low and high around the score."""
    data = reference.rows(300, 12, 3, binary=False)
    source.write(data.slice(0, 200), tmp_path / "train.npz")
    source.write(data.slice(200, 300), tmp_path / "new.npz")
    out, model = str(tmp_path / "scores.csv"), str(tmp_path / "m.fm")
    words = [str(tmp_path / "train.npz"), "--solver", "mcmc", "--groups", "0,6", "-p", "num_factors=2", "-o", model]
    fmtune.main(["fit", *words], standalone_mode=False)
    fmtune.main(["predict", model, str(tmp_path / "new.npz"), "-o", out, "--interval", "0.9"], standalone_mode=False)
    rows = list(_cells(Path(out)))
    assert len(rows) == 100 and all(row["low"] < row["score"] < row["high"] for row in rows)
    low, high = predict_interval(Model.load(model), data.slice(200, 300), 0.9)
    np.testing.assert_allclose([row["low"] for row in rows], low, rtol=1e-6)
    assert (high > low).all() and "model" in capsys.readouterr().out


def test_sagemaker_takes_a_sampled_regressor_only() -> None:
    """The mean of a regressor's draws is a factorization machine; a classifier's is refused with what to do."""
    sampled = fit(reference.rows(50, 6, 2, binary=False), solver="mcmc", num_factors=2, epochs=4)
    assert len(member_of(sampled.model)) > 100
    binary = fit(reference.rows(50, 6, 2), solver="mcmc", predictor_type="binary_classifier", epochs=4)
    with pytest.raises(Exception, match="mean of many models"):
        member_of(binary.model)
