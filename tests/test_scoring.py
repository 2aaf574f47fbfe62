"""Predictions for files: the columns, the formats by suffix, and what is refused."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

import fmtune
from fmtune.__main__ import _code
from fmtune.data import source
from fmtune.data.encoding import Encoder
from fmtune.data.kinds import OneHot
from fmtune.errors import DataError, ModelError, ResourceError, UsageError
from fmtune.extras import install
from fmtune.fm.metrics import evaluate
from fmtune.fm.model import Model
from fmtune.fm.pack import score
from fmtune.tune.scoring import STDOUT, predict_file
from tests import fm_reference as reference

ROWS = reference.rows(50, 12, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a binary model and a regression model."""
    where = tmp_path_factory.mktemp("scoring")
    source.write(ROWS, where / "data.npz")
    for name in ("binary_classifier", "regressor"):
        fmtune.fit(ROWS, predictor_type=name, num_factors=3, factors_lr=0.1).model.save(where / f"{name}.fm")
    return where


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", ["binary_classifier", "regressor"])
def test_every_format_holds_the_scores(folder: Path, kind: str, suffix: str) -> None:
    """Each format gives back the very float32 scores; a binary model's label is 1 from 0.5 on."""
    out = folder / f"{kind}{suffix}"
    assert predict_file(folder / f"{kind}.fm", [folder / "data.npz"], out).rows == 50
    readers = {".csv": pd.read_csv, ".jsonl": lambda p: pd.read_json(p, lines=True), ".parquet": pd.read_parquet}
    frame = readers[suffix](out)
    scores = fmtune.predict(Model.load(folder / f"{kind}.fm"), ROWS)
    assert list(frame) == ["score", "predicted_label"][: 1 + (kind == "binary_classifier")]
    assert np.array_equal(frame["score"].to_numpy(np.float32), scores)
    if kind == "binary_classifier":
        assert np.array_equal(frame["predicted_label"], scores >= 0.5)


def test_the_text_is_plain(folder: Path) -> None:
    """csv has its header and a line a row; what is not finite is null in JSON lines."""
    predict_file(folder / "regressor.fm", [folder / "data.npz"], folder / "plain.csv")
    lines = (folder / "plain.csv").read_text().splitlines()
    assert lines[0] == "score" and len(lines) == 51
    Model("regressor", 3e38, np.full(12, 3e38, np.float32), np.zeros((12, 0), np.float32)).save(folder / "huge.fm")
    predict_file(folder / "huge.fm", [folder / "data.npz"], folder / "huge.jsonl")
    values = [json.loads(line)["score"] for line in (folder / "huge.jsonl").read_text().splitlines()]
    assert None in values and len(values) == 50


def test_what_cannot_be_scored_is_said(folder: Path) -> None:
    """A suffix without a format, a model that is none, wider data, no data, no pyarrow; no file is made."""
    model, data = folder / "regressor.fm", [folder / "data.npz"]
    source.write(reference.rows(5, 40, 3), folder / "wide.npz")
    with pytest.raises(UsageError, match=r"no format for the suffix '.xlsx'"):
        predict_file(model, data, folder / "out.xlsx")
    with pytest.raises(ModelError, match="not a fmtune model"):
        predict_file(data[0], data, folder / "out.csv")
    with pytest.raises(DataError, match="feature"):
        predict_file(model, [folder / "wide.npz"], folder / "out.csv")
    with pytest.raises(DataError, match="no such file"):
        predict_file(model, [folder / "none.npz"], folder / "out.csv")
    with pytest.raises(ResourceError, match=re.escape(f"Parquet needs pyarrow\n  hint: {install('parquet')}")):
        predict_file(model, data, folder / "out.parquet", parquet=False)
    assert not list(folder.glob("out.*"))


def test_columns_are_kept_beside_the_scores(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Ids come first and as they were written, in every format; csv may go to standard output."""
    table = tmp_path / "t.csv"
    table.write_text('id,user,y\n007,a,1\n"x, y",b,2\n,a,3\n')
    encoder = Encoder([OneHot("user", ("a", "b"))], "y")
    Model("regressor", 0.5, np.array([1, 2], np.float32), np.zeros((2, 0), np.float32),
          {"encoding": encoder.to_json()}).save(tmp_path / "m.fm")  # fmt: skip
    assert predict_file(tmp_path / "m.fm", [table], STDOUT, keep=["id", "y"]).rows == 3
    assert capfdbinary.readouterr().out == b'id,y,score\n007,1,1.5\n"x, y",2,2.5\n,3,1.5\n'
    predict_file(tmp_path / "m.fm", [table], tmp_path / "o.jsonl", keep=["id"])
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert lines == [{"id": "007", "score": 1.5}, {"id": "x, y", "score": 2.5}, {"id": None, "score": 1.5}]
    predict_file(tmp_path / "m.fm", [table], tmp_path / "o.parquet", keep=["id"])
    assert pd.read_parquet(tmp_path / "o.parquet")["id"].fillna("?").tolist() == ["007", "x, y", "?"]


def test_kept_columns_keep_their_types(tmp_path: Path) -> None:
    """A Parquet table's ids join with the table again: numbers, times, gaps and lists are what they were."""
    frame = pd.DataFrame({
        "user": ["a", "b", "a"], "id": [3, 2**60, 5], "at": pd.to_datetime(["2024-05-17", None, "2024-05-18"]),
        "size": np.array([0.1, np.nan, 2], np.float32), "tags": [["x", "y"], [], None], "ok": [True, False, None],
    })  # fmt: skip
    frame.to_parquet(tmp_path / "t.parquet")
    facts = {"encoding": Encoder([OneHot("user", ("a", "b"))]).to_json()}
    Model("regressor", 0.5, np.array([1, 2], np.float32), np.zeros((2, 0), np.float32), facts).save(tmp_path / "m.fm")
    keep = [name for name in frame if name != "user"]
    for out in ("o.parquet", "o.jsonl", "o.csv"):
        predict_file(tmp_path / "m.fm", [tmp_path / "t.parquet"], tmp_path / out, keep=keep)
    types = pyarrow.parquet.read_schema(tmp_path / "o.parquet").types
    assert types[:5] == pyarrow.parquet.read_schema(tmp_path / "t.parquet").types[1:]
    first, second, _ = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert first == {"id": 3, "at": "2024-05-17 00:00:00", "size": 0.1, "tags": ["x", "y"], "ok": True, "score": 1.5}
    assert second == {"id": 2**60, "at": None, "size": None, "tags": [], "ok": False, "score": 2.5}
    lines = (tmp_path / "o.csv").read_text().splitlines()
    assert lines[1] == '3,2024-05-17 00:00:00,0.1,"[""x"", ""y""]",True,1.5' and lines[2] == f"{2**60},,,[],False,2.5"


def test_ids_of_several_types_are_kept_as_text(tmp_path: Path) -> None:
    """Where one shard has numbers and another words, Parquet has one type for both."""
    (tmp_path / "t.jsonl").write_text('{"user": "a", "id": 7}\n{"user": "b", "id": "x"}\n{"user": "b", "id": null}\n')
    facts = {"encoding": Encoder([OneHot("user", ("a", "b"))]).to_json()}
    Model("regressor", 0.5, np.array([1, 2], np.float32), np.zeros((2, 0), np.float32), facts).save(tmp_path / "m.fm")
    predict_file(tmp_path / "m.fm", [tmp_path / "t.jsonl"], tmp_path / "o.parquet", keep=["id"])
    assert pyarrow.parquet.read_table(tmp_path / "o.parquet")["id"].to_pylist() == ["7", "x", None]


def test_what_cannot_be_kept_is_said(folder: Path, tmp_path: Path) -> None:
    """Columns of rows that have none, columns that are not there, and one that is called as the predictions are."""
    table = tmp_path / "t.csv"
    table.write_text("user,score\na,1\n")
    encoder = Encoder([OneHot("user", ("a", "b"))])
    facts = {"encoding": encoder.to_json()}
    Model("regressor", 0.0, np.zeros(2, np.float32), np.zeros((2, 0), np.float32), facts).save(tmp_path / "m.fm")
    with pytest.raises(UsageError, match=r"rows \(npz\) have no columns to keep"):
        predict_file(folder / "regressor.fm", [folder / "data.npz"], tmp_path / "o.csv", keep=["id"])
    with pytest.raises(DataError, match="the column 'id' is not in the table"):
        predict_file(tmp_path / "m.fm", [table], tmp_path / "o.csv", keep=["id"])
    with pytest.raises(UsageError, match="'score' is a column of the predictions"):
        predict_file(tmp_path / "m.fm", [table], tmp_path / "o.csv", keep=["score"])
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("kind", ["binary_classifier", "regressor"])
def test_labels_give_metrics(folder: Path, kind: str, tmp_path: Path) -> None:
    """Those of the rows themselves; -1 is 0 to a classifier, and labels that are all equal say nothing."""
    model = Model.load(folder / f"{kind}.fm")
    assert ROWS.labels is not None
    wanted = evaluate(score(model, ROWS), ROWS.labels, kind)
    found = predict_file(folder / f"{kind}.fm", [folder / "data.npz"], tmp_path / "o.csv")
    assert found == (50, 50, wanted) and len(wanted) > 2
    if kind == "binary_classifier":
        source.write(replace(ROWS, labels=2 * ROWS.labels - 1), tmp_path / "signs.npz")
        assert predict_file(folder / f"{kind}.fm", [tmp_path / "signs.npz"], tmp_path / "o.csv") == found
    source.write(replace(ROWS, labels=0 * ROWS.labels), tmp_path / "zeros.npz")
    assert predict_file(folder / f"{kind}.fm", [tmp_path / "zeros.npz"], tmp_path / "o.csv") == (50, 50, {})


def test_a_table_may_have_labels_in_some_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The metrics are of those, and the command line says so; beside scores on standard output, on the other one."""
    encoder = Encoder([OneHot("u", ("a", "b"))], "y", ("no", "yes"))
    facts = {"encoding": encoder.to_json()}
    Model("binary_classifier", 0.0, np.array([2, -2], np.float32), np.zeros((2, 0), np.float32), facts).save(
        tmp_path / "m.fm"
    )
    (tmp_path / "t.csv").write_text("u,y\na,yes\nb,no\nb,\na,?\n")
    with contextlib.chdir(tmp_path):
        assert _code(["predict", "m.fm", "t.csv", "-o", "o.csv"]) == 0
        said = capsys.readouterr().out
        assert "binary_classification_accuracy: 1 (on the 2 of 4 rows with a label)\n" in said
        assert said.endswith("4 rows: o.csv\n") and len((tmp_path / "o.csv").read_text().splitlines()) == 5
        assert _code(["predict", "m.fm", "t.csv", "-o", "-"]) == 0
        assert "auc: 1 (on the 2 of 4" in capsys.readouterr().err
        (tmp_path / "t.csv").write_text("u,z\na,1\nb,1\n")
        assert _code(["predict", "m.fm", "t.csv", "-o", "o.csv"]) == 0
        assert capsys.readouterr().out == "2 rows: o.csv\n"
