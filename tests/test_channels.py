"""A study's channels: what may not be the same, and what a model remembers of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import fmtune
from fmtune.data import source
from fmtune.errors import DataError, StorageError
from fmtune.fm.model import Model
from fmtune.tune import spec as specs
from fmtune.tune.channels import bring
from fmtune.tune.collect import collect
from fmtune.tune.confirm import confirm
from tests.study_fixtures import STUDY, write_study
from tests.study_fixtures import fmtune as cli


def test_a_holdout_is_not_the_test_channel(tmp_path: Path) -> None:
    """A holdout with the rows of test or train is refused: its score would say nothing."""
    path = write_study(tmp_path, STUDY.replace("holdout: holdout.npz", "holdout: test.npz"))
    with pytest.raises(DataError, match="holdout: it holds the rows of test"):
        bring(specs.read(path))


def test_train_as_test_is_said(tmp_path: Path) -> None:
    """Selecting on the training rows is allowed, with a warning."""
    path = write_study(tmp_path, STUDY.replace("test: test.npz", "test: train.npz"))
    with pytest.warns(source.DataWarning, match="train and test hold the same rows"):
        bring(specs.read(path))


def test_rows_are_the_same_without_one_of_their_columns(tmp_path: Path) -> None:
    """A table without a column has other digests and the same origins; another split, or other labels, has others."""
    rows = "".join(f"{n % 2},{n % 7},{n % 3}\n" for n in range(200))
    (tmp_path / "t.csv").write_text(f"click,a,b\n{rows}")

    def stats(data: str) -> dict[str, dict[str, Any]]:
        text = STUDY[: STUDY.index("data:")] + f"data: {{train: t.csv, label: click, {data}}}\n"
        text += STUDY[STUDY.index("objective:") :]
        (tmp_path / "study.yaml").write_text(text)
        return bring(specs.read(tmp_path / "study.yaml")).stats

    both, one = stats("categorical: [a, b], test: 0.2"), stats("categorical: [a], test: 0.2")
    other = stats("categorical: [a], test: 0.2, split_seed: 1")
    for name in ("train", "test"):
        assert both[name]["origin"] == one[name]["origin"] and both[name]["digest"] != one[name]["digest"]
        assert other[name]["origin"] != one[name]["origin"]


@pytest.mark.parametrize("metric", ["auc", "binary_classification_cross_entropy"])
@pytest.mark.parametrize("channel", ["train", "test", "holdout"])
def test_a_classifier_wants_both_labels(metric: str, channel: str, tmp_path: Path) -> None:
    """A channel of one class is refused before anything trains, with its file and how many; the holdout's is said."""
    path = write_study(tmp_path, STUDY.replace("binary_classification_cross_entropy", metric))
    rows = source.read_channel(tmp_path / f"{channel}.npz")
    assert rows.labels is not None
    ones = np.flatnonzero(rows.labels == 1)
    source.write(rows.take(ones), tmp_path / f"{channel}.npz")
    said = rf"{channel} \({channel}.npz\): all {len(ones)} labels are 1: there is nothing to tell apart"
    if channel == "holdout":
        with pytest.warns(source.DataWarning, match=said):
            bring(specs.read(path))
        return
    with pytest.raises(DataError, match=said):
        bring(specs.read(path))


def test_confirm_waits_for_the_search(tmp_path: Path) -> None:
    """While a study runs, its holdout stays closed."""
    spec = specs.read(write_study(tmp_path)).model_copy(update={"n_trials": 4})
    refused: list[str] = []

    def listen(event: dict[str, object]) -> None:
        if event["event"] == "cell" and not refused:
            with pytest.raises(StorageError, match="being run by another process") as caught:
                confirm(spec, tmp_path)
            refused.append(str(caught.value))

    fmtune.run(spec, root=tmp_path, listener=listen)
    assert refused


def test_a_replay_that_does_not_fit_blocks_nothing(tmp_path: Path) -> None:
    """A dense cell that needs more memory than there is gets a note; the search's winner stands."""
    text = STUDY.replace("holdout: holdout.npz", "feature_dim: 2000000").replace("n_trials: 24", "n_trials: 1")
    text = text.replace("num_factors: 1..12", "num_factors: [0, 1]").replace("epochs: 4", "epochs: 1")
    path = write_study(tmp_path, text, rows=20_000)
    fmtune.run(path, root=tmp_path)
    result = collect(specs.read(path), tmp_path)
    notes = [cell.note for cell in result.cells]
    assert notes[0] is None and "as a matrix" in str(notes[1]) and result.model_path


@pytest.mark.parametrize("base", [0, 1])
def test_a_model_remembers_where_its_indices_begin(tmp_path: Path, base: int) -> None:
    """A few libsvm rows without index 0 score as they do among all rows, whichever base the training files had."""
    rng = np.random.default_rng(0)
    lines = [
        f"{rng.integers(2)} " + " ".join(f"{i + base}:1" for i in sorted(rng.choice(20, 4, replace=False)))
        for _ in range(300)
    ]
    (tmp_path / "train.libsvm").write_text("\n".join([f"1 {base}:1 {base + 19}:1", *lines]) + "\n")
    few = [line for line in lines if f" {base}:" not in line][:3]
    (tmp_path / "few.libsvm").write_text("\n".join(few) + "\n")
    (tmp_path / "all.libsvm").write_text("\n".join([*few, f"1 {base}:1"]) + "\n")
    words = ("-p", "predictor_type=binary_classifier", "-p", "epochs=3", "-p", "linear_lr=0.1")
    assert cli(tmp_path, "fit", "train.libsvm", *words, "-o", "m.fm").returncode == 0
    model = Model.load(tmp_path / "m.fm")
    assert model.facts["index_base"] == base
    scores = [fmtune.predict(model, tmp_path / f"{name}.libsvm") for name in ("few", "all")]
    np.testing.assert_array_equal(scores[0], scores[1][:3])


def test_predict_takes_what_people_have() -> None:
    """Arrays and SciPy matrices score alike, without labels."""
    rng = np.random.default_rng(0)
    model = Model("regressor", 0.1, rng.normal(size=9).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32))
    x = (rng.random((20, 9)) < 0.3).astype(np.float32)
    np.testing.assert_allclose(
        fmtune.predict(model, x), fmtune.predict(model, scipy.sparse.csr_array(x)), rtol=1e-5, atol=1e-6
    )  # fmt: skip


def test_a_regressor_of_zeros_and_ones_is_said() -> None:
    """Labels 0 and 1 without a predictor_type train a regressor, with a warning that says how to get a classifier."""
    x, y = np.eye(8, dtype=np.float32), np.array([0, 1] * 4, np.float32)
    with pytest.warns(source.DataWarning, match="predictor_type=binary_classifier"):
        fmtune.fit((x, y))
