"""What a notebook shows: results, models, and a run's progress."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fmtune
from fmtune.fm.model import Model
from fmtune.notebook import table
from fmtune.screen import Lines, Notebook, progress
from fmtune.tune import spec as specs
from fmtune.tune.collect import collect
from tests.study_fixtures import STUDY, write_study


class Cell:
    """A notebook's output: one display, and how often it was renewed."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, thing: Any, *, display_id: bool) -> Cell:
        assert display_id and not self.shown
        self.update(thing)
        return self

    def update(self, thing: Any) -> None:
        self.shown.append(thing._repr_html_())


def test_a_run_shows_one_table_that_is_renewed(tmp_path: Path) -> None:
    """The last state names all trials and the best; the result and the model show themselves."""
    path = write_study(tmp_path, STUDY.replace("n_trials: 24", "n_trials: 4").replace("epochs: 4", "epochs: 1"))
    cell = Cell()
    study = fmtune.run(path, root=tmp_path, listener=Notebook(cell))
    assert "4 of 4" in cell.shown[-1] and f"#{study.best_trial.number} " in cell.shown[-1]
    result = collect(specs.read(path), tmp_path)
    said = result._repr_html_()
    for words in ("study small: test:binary", "cpu-dense", "COMPLETE", f"value {study.best_value:.6g}", "opened 1"):
        assert words in said
    assert "study_name" in Model.load(tmp_path / "runs" / "small" / "model.fm")._repr_html_()
    assert "now" not in cell.shown[-1] and any("training trial" in shown for shown in cell.shown)
    assert "cpu-sparse" in replace(result, holdout=None, selection=None, cells=result.cells[:1])._repr_html_()


def test_texts_are_escaped() -> None:
    """Names and values of a study file are no markup."""
    hostile = "<script>alert(1)</script>"
    said = table(hostile, {hostile: hostile, "a": {hostile: [hostile]}, "none": None})
    assert "<script" not in said and said.count("&lt;script") == 5 and "none" not in said
    model = Model("regressor", 0.0, np.zeros(1, np.float32), np.zeros((1, 0), np.float32), {"study_name": hostile})
    assert "<script" not in model._repr_html_()


def test_a_fit_and_a_model_show_no_arrays() -> None:
    """A fit shows its scores; a model its shape, as text too."""
    X = np.eye(6, dtype=np.float32)
    y = np.arange(6, dtype=np.float32)
    fit = fmtune.fit((X, y), (X, y), num_factors=2, epochs=2)
    assert "curve" in fit._repr_html_() and "rmse" in fit._repr_html_()
    assert repr(fit.model) == "<Model: regressor, 6 features, 2 factors>" and "array" not in repr(fit)
    assert "metrics" not in fit.model._repr_html_() and "factors" in fit.model._repr_html_()


def test_outside_a_notebook_progress_is_lines() -> None:
    """No kernel runs here."""
    assert isinstance(progress(), Lines)
