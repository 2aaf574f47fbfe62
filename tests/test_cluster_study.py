"""A study whose trials train on a cluster: its file, and a run on an engine in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

import fmtune
import fmtune.errors
import fmtune.tune.collect
from fmtune.cluster.engine import Inline
from fmtune.cluster.fit import fit
from fmtune.cluster.layout import Layout
from fmtune.data import source
from fmtune.errors import NoTrialError, StorageError, StudyFileError, UsageError
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.tune import plan, spec
from fmtune.tune.confirm import confirm
from fmtune.tune.spec import parse
from tests.study_fixtures import write_study

TEXT = """\
study_name: spread
data: {train: train.npz, test: test.npz, holdout: holdout.npz}
objective: test:binary_classification_cross_entropy
hyperparameters: {epochs: 3, mini_batch_size: 20, optimizer: adagrad, bias_lr: 0.05, factors_init_sigma: 0.1}
search_space: {num_factors: 1..8, linear_lr: 1e-2..0.5 log, factors_lr: 1e-2..0.5 log}
pruner: none
n_trials: 4
cluster: {address: auto, workers: 3, shards: 2, parts: 4, block: 50}
"""
LAYOUT = Layout(parts=4, block=50)


def _run(folder: Path, text: str = TEXT, **options: Any) -> Any:
    return fmtune.run(write_study(folder, text), root=folder, engine=lambda address: Inline(), **options)


def test_each_trial_is_trained_as_a_cluster_trains_it(tmp_path: Path) -> None:
    """Values and curve are those of `fit` on a cluster; so is the winner's model; checkpoints are gone at the end."""
    study = _run(tmp_path)
    train, test = (source.read_channel(tmp_path / f"{name}.npz") for name in ("train", "test"))
    for trial in study.trials:
        h = Hyperparameters.of({**parse(TEXT).hyperparameters, **trial.params})
        found = fit(Inline(), train, test, h, LAYOUT, tmp_path)
        assert trial.value == found.curve[-1]
        assert tuple(trial.intermediate_values.values()) == found.curve
        if trial.number == study.best_trial.number:
            model = Model.load(tmp_path / "runs/spread/model.fm")
            assert (model.factors == found.model.factors).all() and model.bias == found.model.bias
    assert not list((tmp_path / "runs/spread").rglob("*.shard"))


def test_trials_that_diverge_fail(tmp_path: Path) -> None:
    """With accuracy for the objective too, which scores that are no numbers have as well."""
    text = TEXT.replace("binary_classification_cross_entropy", "binary_classification_accuracy")
    text = text.replace("linear_lr: 1e-2..0.5 log", "linear_lr: 1e30..1e37 log").replace("n_trials: 4", "n_trials: 2")
    with pytest.raises(NoTrialError, match="2 diverged with linear_lr"):
        _run(tmp_path, text)


def test_trials_are_pruned_and_have_seeds(tmp_path: Path) -> None:
    """A trial of two seeds is two models, one after the other; a pruned trial ends between epochs."""
    text = TEXT.replace("pruner: none", "pruner: {name: threshold, upper: 0.0}\nseeds: 2")
    text = text.replace("n_trials: 4", "n_trials: 1").replace("factors_lr: 1e-2..0.5 log", "shuffle: [once, none]")
    with pytest.raises(fmtune.errors.NoTrialError):
        _run(tmp_path, text)
    study = fmtune.tune.collect.collect(parse(text, tmp_path / "study.yaml"), tmp_path)
    assert [(t.state, len(t.curve)) for t in study.cells[0].trials] == [(TrialState.PRUNED.name, 1)]


def test_where_it_trains_may_change_and_what_it_trains_may_not(tmp_path: Path) -> None:
    """More workers or shards go on with a study; other parts are another study."""
    first = _run(tmp_path).best_value
    assert _run(tmp_path, TEXT.replace("workers: 3, shards: 2", "workers: 1, shards: 1")).best_value == first
    with pytest.raises(StorageError, match=r"cluster\.parts: 4 -> 2"):
        _run(tmp_path, TEXT.replace("parts: 4", "parts: 2"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("matrix: {layout: dense}", "a cluster trains on CPUs and on sparse rows"),
        ("matrix: {device: [cpu, gpu]}", "a cluster trains on CPUs and on sparse rows"),
        ("pack: 4", "a cluster trains one model at a time, and no packs"),
        ("groups: [0, 20]", "a cluster knows no groups"),
    ],
)
def test_what_a_cluster_cannot_do_is_said(line: str, said: str) -> None:
    """Packs, cards, dense rows and groups belong to one process."""
    with pytest.raises(StudyFileError, match=said):
        parse(f"{TEXT}{line}\n")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("solver: als", "solver sgd, not als"), ("lazy: false", "lazy updates"), ("shuffle: epoch", "shuffles once"),
        ("lr_schedule: cosine", "no schedule"), ("lr_warmup: 2", "no schedule"), ("average_last: 2", "no average"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:search_space")  # als has no rates, which is told beside it
@pytest.mark.parametrize("searched", [False, True])
def test_settings_that_a_cluster_has_not(setting: str, said: str, searched: bool) -> None:
    """Whether fixed or searched."""
    name, value = setting.split(": ")
    usual = {"solver": "sgd", "lazy": "true", "shuffle": "once", "lr_schedule": "constant"}.get(name, "1")
    fixed = TEXT.replace("{epochs: 3", f"{{{setting}, epochs: 3")
    text = TEXT.replace("{num_factors", f"{{{name}: [{usual}, {value}], num_factors") if searched else fixed
    with pytest.raises(StudyFileError, match=said):
        parse(text)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{address: auto, worker: 2}", "unknown key 'worker'"), ("{exchange: fp8}", "cluster.exchange must be"),
        ("{parts: 0}", "cluster.parts must be at least 1"), ("7", "cluster"),
    ],
)  # fmt: skip
def test_a_cluster_is_checked(value: str, said: str) -> None:
    """Keys and values of the section, with the place."""
    with pytest.raises(StudyFileError, match=said):
        parse(TEXT[: TEXT.index("cluster:")] + f"cluster: {value}\n")


def test_an_address_alone_will_do() -> None:
    """The rest has defaults."""
    found = parse(TEXT[: TEXT.index("cluster:")] + "cluster: head:6379\n").cluster
    assert found is not None and (found.address, found.workers, found.parts) == ("head:6379", 2, 6)


def test_the_plan_names_it_and_confirm_leaves_it(tmp_path: Path) -> None:
    """Verbs that train in one process say so."""
    read = spec.read(write_study(tmp_path, TEXT))
    assert any("3 workers and 2 shards; 4 parts exchange" in line for line in plan.lines(read))
    with pytest.raises(UsageError, match="confirm trains in one process"):
        confirm(read, tmp_path)
