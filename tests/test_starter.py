"""``fmtune init``: what it finds out by itself, and that the file it writes runs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from fmtune.__main__ import _code
from fmtune.cli.start import _asked
from fmtune.data.canonical import DataWarning
from fmtune.errors import UsageError
from fmtune.tune import spec as specs
from fmtune.tune import starter
from fmtune.tune.starter import Answers
from fmtune.tune.study import run
from tests.study_fixtures import write_data
from tests.test_tables import WRITERS


def ratings(n: int = 400) -> pd.DataFrame:
    """A table of ratings with a column of each kind."""
    draw = np.random.default_rng(0)
    return pd.DataFrame({
        "user id": draw.integers(30, size=n), "item": draw.integers(20, size=n), "age": draw.normal(40, 9, n),
        "genre": draw.choice(["War", "Drama", "War|Drama"], n), "rating": draw.integers(1, 6, n).astype(float),
        "timestamp": 1_700_000_000 + np.arange(n),
    })  # fmt: skip


def written(folder: Path, data: str, *words: str) -> specs.Spec:
    """Return what ``fmtune init`` writes in a folder."""
    with contextlib.chdir(folder):
        assert _code(["init", data, *words]) == 0
        return specs.read(folder / "study.yaml")


def runs(spec: specs.Spec, folder: Path) -> None:
    """Run a few trials of a study, and see that it comes to a winner."""
    short = {"hyperparameters": {**spec.hyperparameters, "epochs": 2}, "n_trials": 2}
    study = run(spec.model_copy(update=short), root=folder)
    assert np.isfinite(study.best_value)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_study_of_a_table_runs(kind: str, tmp_path: Path) -> None:
    """Of each format of tables: columns by kind, the label by its name, the newest rows to test on."""
    WRITERS[kind](ratings(), tmp_path / f"my ratings.{kind}")
    spec = written(tmp_path, f"my ratings.{kind}")
    assert (spec.study_name, spec.objective, spec.data.columns["label"]) == ("my-ratings", "test:rmse", "rating")
    assert set(spec.data.columns["categorical"]) == {"user id", "item"} and spec.data.split["by"] == "timestamp"
    assert spec.data.columns["multivalued"] == ("genre",) and spec.data.columns["numeric"] == ("age",)
    if kind == "csv":
        runs(spec, tmp_path)


def test_a_log_is_divided_alike_in_every_format(tmp_path: Path) -> None:
    """Times are text in csv and JSON lines: kinds, split and study file are those of Parquet."""
    seen = pd.date_range("2026-03-01", periods=400, freq="h", tz="UTC")
    frame = ratings().drop(columns="timestamp").assign(seen=seen)
    found = []
    for kind, write in WRITERS.items():
        (tmp_path / kind).mkdir()
        write(frame, tmp_path / kind / "log")
        spec = written(tmp_path / kind, "log")
        found.append((spec.data.split, spec.data.columns))
    assert found[0][0]["by"] == "seen" and all(one == found[0] for one in found)


def test_by_names_a_column_of_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a run would refuse is refused at once: times of another style, and a column that is not there."""
    frame = ratings().assign(day="21.11.2025")
    frame.to_csv(tmp_path / "t.csv", index=False)
    with contextlib.chdir(tmp_path):
        for column, fault in (("day", "'day' is '21.11.2025', no time"), ("when", "'when' is not in the table")):
            assert _code(["init", "t.csv", "--by", column]) == 3
            assert fault in capsys.readouterr().err
        assert not (tmp_path / "study.yaml").exists()


def test_it_says_what_it_decided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Label, task, objective, how rows are divided, and each column; the file seals a tenth of the rows away."""
    ratings().assign(id=np.arange(400)).to_csv(tmp_path / "r.csv", index=False)
    spec = written(tmp_path, "r.csv")
    assert capsys.readouterr().out.splitlines() == [
        "label: rating", "task: regressor, objective test:rmse",
        "rows: 0.1 for test and 0.1 for holdout, the newest by timestamp, which is no feature",
        "user id: categorical (whole numbers, named as an id)", "item: categorical (whole numbers, named as an id)",
        "age: numeric (numbers with a fraction)", "genre: multivalued (text divided by '|')",
        "id: left out (whole numbers, named as an id; its values almost never come back)",
        "study file: study.yaml", "next: fmtune run study.yaml",
    ]  # fmt: skip
    assert spec.data.split == {"test": 0.1, "holdout": 0.1, "by": "timestamp"}
    written(tmp_path, "digits", "--force")
    assert capsys.readouterr().out.startswith("task: binary_classifier, objective test:binary_classification_cross")
    chosen = starter.look(Answers(str(tmp_path / "r.csv"), test="0.6")).with_test()
    assert chosen.holdout is None and "rows: 0.6 for test, the newest by timestamp" in "\n".join(chosen.said())


@pytest.mark.parametrize("label", [1, 0, "yes"])
def test_labels_of_one_class_are_no_study(label: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a table and of rows, all of them: two classes that lie one behind the other are a study."""
    one = ratings().assign(click=label).drop(columns="rating")
    one.to_csv(tmp_path / "one.csv", index=False)
    with contextlib.chdir(tmp_path):
        assert _code(["init", "one.csv"]) == 3
    said = f"one.csv: all 400 labels in the column 'click' are {label!r}: there is nothing to tell apart"
    assert said in capsys.readouterr().err and not (tmp_path / "study.yaml").exists()
    (tmp_path / "many").mkdir()
    for name, frame in (("a", one), ("b", one.assign(click={1: 0, 0: 1, "yes": "no"}[label]))):  # type: ignore[index]
        frame.to_csv(tmp_path / "many" / f"{name}.csv", index=False)
    assert written(tmp_path, "many").predictor_type == "binary_classifier"
    (tmp_path / "one.libsvm").write_text("1 1:1\n1 2:1\n")
    with contextlib.chdir(tmp_path):
        assert _code(["init", "one.libsvm", "--test", "one.libsvm", "--force"]) == 3
    assert "one.libsvm: all 2 labels are 1: there is nothing to tell apart" in capsys.readouterr().err


def test_two_words_are_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They make a classifier, init and run say which is 1; three words are refused before a file is written."""
    words = ratings().assign(click=["no", "yes", "no", "yes"] * 100).drop(columns="rating")
    words.to_csv(tmp_path / "c.csv", index=False)
    spec = written(tmp_path, "c.csv")
    assert "label: click ('yes' is 1, 'no' is 0)" in capsys.readouterr().out
    assert spec.predictor_type == "binary_classifier"
    with pytest.warns(DataWarning, match="c.csv: of the labels 'yes' is read as 1, 'no' as 0"):
        runs(spec, tmp_path)
    words.assign(click=["no", "yes", "no", "maybe"] * 100).to_csv(tmp_path / "m.csv", index=False)
    with contextlib.chdir(tmp_path):
        assert _code(["init", "m.csv", "-o", "new.yaml"]) == 3
    assert capsys.readouterr().err.endswith(
        "m.csv: row 4 (line 5): the label 'click' is 'maybe', a third value beside 'no' and 'yes'\n"
        "  hint: a label is a number, or one of two words in all: correct it, or drop such rows\n"
    )
    assert not (tmp_path / "new.yaml").exists()


def test_a_study_of_rows_runs(tmp_path: Path) -> None:
    """Labels 0 and 1 make a classifier; rows need a test channel."""
    write_data(tmp_path)
    with pytest.raises(UsageError, match="need a test channel"):
        Answers(str(tmp_path / "train.npz")).with_test()
    spec = written(tmp_path, "train.npz", "--test", "test.npz", "--holdout", "holdout.npz")
    assert spec.predictor_type == "binary_classifier"
    runs(spec, tmp_path)


def test_a_study_of_a_card_runs(tmp_path: Path) -> None:
    """A card says its task."""
    spec = written(tmp_path, "digits")
    assert spec.data.card == "digits" and spec.predictor_type == "binary_classifier"
    runs(spec, tmp_path)


def test_the_schema_lies_beside_it(tmp_path: Path) -> None:
    """The file's first line names a schema that is there and is today's."""
    written(tmp_path, "digits")
    assert (tmp_path / "study.yaml").read_text().startswith("# yaml-language-server: $schema=schema.json\n")
    assert json.loads((tmp_path / "schema.json").read_text()) == specs.schema()


def test_it_writes_over_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there stays, unless --force says otherwise."""
    (tmp_path / "study.yaml").write_text("mine")
    with contextlib.chdir(tmp_path):
        assert _code(["init", "digits"]) == 2 and (tmp_path / "study.yaml").read_text() == "mine"
        assert "add --force" in capsys.readouterr().err
        assert _code(["init", "digits", "--force"]) == 0


def test_without_data_or_label_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody can be asked, the message names the option."""
    ratings(20).rename(columns={"rating": "outcome"}).to_csv(tmp_path / "a.csv", index=False)
    with contextlib.chdir(tmp_path):
        assert _code(["init"]) == 2 and "fmtune init DATA" in capsys.readouterr().err
        assert _code(["init", "a.csv"]) == 2 and "--label COLUMN" in capsys.readouterr().err
        assert _code(["init", "a.csv", "--label", "outcom"]) == 2 and "outcome" in capsys.readouterr().err


def test_in_a_terminal_it_asks(tmp_path: Path) -> None:
    """It asks for label, task and test; an empty answer takes the guess, and what was given is not asked."""
    file = tmp_path / "ratings.csv"
    ratings().to_csv(file, index=False)

    @click.command()
    @click.option("--task")
    def ask(task: str | None) -> None:
        found = _asked(Answers(str(file), task=task))
        click.echo(f"{found.label} {found.task} {found.test}")

    said = CliRunner().invoke(ask, input="age\nregressor\n0.2\n", catch_exceptions=False).output
    assert said.endswith("age regressor 0.2\n") and "[rating]" in said and "[regressor]" in said
    assert CliRunner().invoke(ask, ["--task", "regressor"], input="\n\n").output.endswith("rating regressor 0.1\n")


@pytest.mark.parametrize("name", ["the item", "true", "a: b", "Ä", "1", "x#y", "plain", "-"])
def test_any_name_of_a_column_is_written_so_that_it_is_read(name: str, tmp_path: Path) -> None:
    """Names that YAML would read otherwise are quoted."""
    frame = ratings().rename(columns={"item": name})
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    looked = starter.look(Answers(str(tmp_path / "ratings.csv"))).with_test()
    spec = specs.parse(starter.text(looked, tmp_path / "study.yaml"))
    columns = [*spec.data.columns["categorical"], *spec.data.columns.get("numeric", ())]
    assert name in columns
