"""A study with cells on the card, from its file to its winner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna

import fmtune
from fmtune.tune import plan
from fmtune.tune import spec as specs
from fmtune.tune.collect import collect
from tests import fm_reference as reference
from tests.study_fixtures import write_data

STUDY = """\
study_name: cells
data: {train: train.npz, test: test.npz}
objective: test:binary_classification_cross_entropy
hyperparameters: {epochs: 2, mini_batch_size: 20}
search_space: {num_factors: 1..6}
n_trials: 3
pack: 2
matrix: {device: [auto, cpu]}
"""


def test_cells_on_the_card_and_on_the_cpu_agree(tmp_path: Path) -> None:
    """The card's cell searches, the CPU's replays: the same trials, scores equal to 1e-5, and a winner."""
    write_data(tmp_path, 40)
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    assert "cell gpu-sparse: 3 trials" in "\n".join(plan.lines(specs.read(path)))
    fmtune.run(path, root=tmp_path)
    result = collect(specs.read(path), tmp_path)
    gpu, cpu = result.cells
    assert (gpu.name, cpu.name, len(gpu.trials), len(cpu.trials)) == ("gpu-sparse", "cpu-sparse", 3, 3)
    for one, other in zip(gpu.trials, cpu.trials, strict=True):
        assert one.params == other.params
        np.testing.assert_allclose(one.curve, other.curve, atol=1e-5)
    assert (tmp_path / "runs" / "cells" / "model.fm").exists()


def test_what_diverges_on_the_card_fails() -> None:
    """Scores that are no numbers end a trial whose accuracy would be one."""
    data = reference.rows(30, 9, 3)
    bad = replace(data, values=data.values * np.float32(np.nan))
    objective = fmtune.Objective(
        bad, data, search_space={"num_factors": "1..3"}, objective="test:binary_classification_accuracy", device="gpu",
        hyperparameters={"epochs": 1, "mini_batch_size": 10},
    )  # fmt: skip
    study = optuna.create_study(direction="maximize")
    study.optimize(objective, 1)
    assert study.trials[0].user_attrs["reason"] == "diverged at epoch 1"


def test_fit_on_the_card() -> None:
    """``fmtune.fit(device="gpu")`` gives the CPU's model to 1e-5."""
    data = reference.rows(30, 9, 3)
    values = {"num_factors": 3, "epochs": 1, "mini_batch_size": 10, "predictor_type": "binary_classifier"}
    one, other = (fmtune.fit(data, device=device, **values) for device in ("gpu", "cpu"))
    np.testing.assert_allclose(one.model.factors, other.model.factors, atol=1e-5)
