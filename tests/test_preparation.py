"""From tables to rows: in memory for a study, block by block to files; and what predicts on tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fmtune
from fmtune.data import preparation, source, tables
from fmtune.data.canonical import DataWarning
from fmtune.data.columns import Columns
from fmtune.data.encoding import Encoder
from fmtune.data.labels import are_binary
from fmtune.data.sidecar import read_vocabulary, sidecar_of
from fmtune.data.source import FORMATS
from fmtune.data.split import Divider, Split
from fmtune.errors import DataError, ModelError, UsageError
from fmtune.sagemaker import inference
from fmtune.tune import spec as specs
from fmtune.tune.channels import bring
from fmtune.tune.scoring import predict_file
from tests.study_fixtures import fmtune as real
from tests.study_fixtures import said as cli
from tests.test_tables import WRITERS

COLUMNS = Columns("rating", ("user",), ("genre",), ("age",))
STUDY = """\
study_name: ratings
data: {train: ratings.csv, label: rating, test: 0.2, holdout: 0.1, by: time}
objective: test:rmse
hyperparameters: {epochs: 2, num_factors: 2}
search_space: {factors_lr: 1e-3..0.1 log}
n_trials: 1
"""


def ratings(n: int = 300) -> pd.DataFrame:
    random = np.random.default_rng(0)
    user, age = random.integers(0, 20, n), random.integers(150, 700, n) / 10
    genre = np.array(["a", "b", "a|b", "c"])[random.integers(0, 4, n)]
    rating = 3 + user % 3 + (genre == "c") + random.normal(0, 0.1, n)
    return pd.DataFrame({"user": user, "genre": genre, "age": age, "time": np.arange(n), "rating": rating.round(2)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ratings().to_csv(tmp_path / "ratings.csv", index=False)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


@pytest.mark.parametrize("kind", tables.TABLES)
def test_every_table_gives_the_same_rows(kind: str, folder: Path) -> None:
    """csv, JSON lines, Parquet and Arrow; the encoder knows of the rows that train, and of no others."""
    frame = ratings()
    frame["user"] = frame["user"].astype(str).where(frame["time"] < 240, "new")
    WRITERS[kind](frame, folder / "t")
    made = preparation.prepare({"train": folder / "t"}, COLUMNS, Split(0.2, by="time"))
    assert made.encoder is not None and made.encoder.entries({"user": "new"})[0].tolist() == []
    assert {name: rows.n for name, rows in made.rows.items()} == {"train": 240, "test": 60}
    assert all(name.partition("=")[0] in ("user", "genre", "age") for name in made.encoder.names())
    test = made.rows["test"].to_sparse()
    assert np.diff(test.indptr).tolist() == [1 + len(g.split("|")) for g in ratings()["genre"][240:]]


@pytest.mark.parametrize("kind", tables.TABLES)
def test_whole_numbers_with_gaps_have_the_same_names_in_every_file(kind: str, folder: Path) -> None:
    """pandas writes them as 20.0 where one is missing: one name in all files, frames and requests."""
    ages = [20, 31, 31, 45, 20, 64]
    gaps = pd.DataFrame({"age": pd.Series([20, 31, None, 45, 31, 64]), "y": [1, 0, 1, 0, 1, 1]})
    WRITERS[kind](gaps, folder / "gaps")
    encoder = preparation.prepare({"train": folder / "gaps"}, Columns("y", ("age",))).encoder
    assert encoder is not None and encoder.names() == ["age=31", "age=20", "age=45", "age=64"]
    wanted = encoder.rows(pd.DataFrame({"age": ages}), labels=False).indices.tolist()
    assert wanted == [encoder.entries({"age": float(age)})[0][0] for age in ages] == [1, 0, 0, 2, 1, 3]
    WRITERS[kind](pd.DataFrame({"age": ages, "y": ages}), folder / "whole")
    for file, count in (("whole", 6), ("gaps", 5)):
        rows = source.read_channel(folder / file, labelled=False, encoder=encoder).to_sparse()
        assert rows.nnz == count


def test_a_bad_cell_has_a_place_in_its_own_file(tmp_path: Path) -> None:
    """Whether it is of a feature or the label, in a second file and in rows that a split has thinned out."""
    ratings(90).to_csv(tmp_path / "a.csv", index=False)
    for column, said in (("age", "'age' is 'old', not"), ("rating", "'rating' is 'old', not")):
        frame = ratings(90).astype({column: object})
        frame.loc[60, column] = "old"
        frame.to_csv(tmp_path / "b.csv", index=False)
        with pytest.raises(DataError) as error:
            preparation.prepare({"train": [tmp_path / "a.csv", tmp_path / "b.csv"]}, COLUMNS, Split(0.4))
        assert str(error.value).startswith(f"{tmp_path / 'b.csv'}: row 61 (line 62): {said}")


@pytest.mark.parametrize(("bad", "place"), [
    ("train", "a.csv: row 203 (line 204)"), ("test", "t.csv: row 13 (line 14)"),
])
def test_a_label_that_is_none_of_two_has_a_place(bad: str, place: str, tmp_path: Path) -> None:
    """The file, the row and the column, whatever channel it fell to; -1 and 1 are labels too."""
    for name in ("a", "b", "t"):
        frame = ratings(400).assign(click=np.arange(400) % 2 * 2 - 1)
        if (name, bad) in (("a", "train"), ("t", "test")):
            frame["click"] = frame["click"].astype(float)
            frame.loc[202 if name == "a" else 12, "click"] = 3.8
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    columns = Columns("click", ("user",), numeric=("age",))
    paths = {"train": [tmp_path / "b.csv", tmp_path / "a.csv"], "test": [tmp_path / "t.csv"]}
    with pytest.raises(DataError) as error:
        preparation.prepare(paths, columns, Split(holdout=0.2), map_labels=False, binary=True)
    assert str(error.value) == (
        f"{tmp_path / place}: 'click' is 3.8: binary_classifier wants 0 or 1\n  hint: map the labels to 0 and 1, or "
        "learn the numbers: predictor_type regressor, in a study also test:rmse"
    )
    with pytest.warns(DataWarning, match="all labels are -1 or"):
        whole = preparation.prepare({"train": tmp_path / "b.csv"}, columns, binary=True).rows["train"]
    assert are_binary(whole.labels)


@pytest.mark.parametrize("format", FORMATS)
def test_converted_rows_are_those_of_memory(format: str, folder: Path) -> None:
    """Every format of rows, split into its channels, with the vocabulary beside, which the next reading finds."""
    split = Split(0.2, 0.1, seed=3)
    made = preparation.prepare({"train": folder / "ratings.csv"}, COLUMNS, split)
    out = folder / f"train{FORMATS[format].suffixes[0]}"
    said = preparation.convert_tables(folder / "ratings.csv", out, COLUMNS, split)
    assert said["rows"] == {name: rows.n for name, rows in made.rows.items()}
    again = preparation.prepare({name: Path(path) for name, path in said["out"].items()})
    assert {name: rows.digest() for name, rows in again.rows.items()} == {
        name: rows.digest() for name, rows in made.rows.items()
    }
    assert again.encoder is not None and made.encoder is not None
    assert again.encoder.to_json() == made.encoder.to_json() == read_vocabulary(sidecar_of(out)).to_json()


def test_a_vocabulary_can_be_used_again(folder: Path) -> None:
    """More rows of the same kind take the features of the first ones."""
    preparation.convert_tables(folder / "ratings.csv", folder / "train.npz", COLUMNS)
    ratings().assign(user=99).to_csv(folder / "more.csv", index=False)
    sidecar = sidecar_of(folder / "train.npz")
    said = preparation.convert_tables(folder / "more.csv", folder / "more.npz", Columns(), vocabulary=sidecar)
    rows = source.read_channel(folder / "more.npz").to_sparse()
    assert said["feature_dim"] == rows.feature_dim == source.read_channel(folder / "train.npz").feature_dim
    assert rows.indices.min() >= 20


def test_a_vocabulary_reads_each_kind_of_column_as_it_was_learned(folder: Path) -> None:
    """An empty number may be NA, which is a name elsewhere; and the newest rows are tested as they are without it."""
    columns = Columns("rating", ("user",), ("genre",), ("age",), ("hour",))
    split = Split(test=0.2, by="time")
    frame = ratings().assign(hour=np.arange(300) % 24, genre=["NA"] * 30 + ["a|NA"] * 270)
    frame = frame.astype({"age": object, "hour": object})
    frame.loc[0, ["age", "hour"]] = "NA"
    frame.to_csv(folder / "more.csv", index=False)
    said = preparation.convert_tables(folder / "more.csv", folder / "train.pbr", columns, split)
    sidecar = sidecar_of(folder / "train.pbr")
    again = preparation.convert_tables(folder / "more.csv", folder / "more.pbr", Columns(), split, vocabulary=sidecar)
    assert again["rows"] == said["rows"] == {"train": 240, "test": 60}
    for name, path in again["out"].items():
        assert source.read_channel(path).digest() == source.read_channel(said["out"][name]).digest()


@pytest.mark.parametrize(("columns", "said"), [
    (Columns("genre"), "the vocabulary was made with the label 'rating', and 'genre' is named"),
    (Columns("user"), "the vocabulary was made with the label 'rating', and 'user' is named"),
    (Columns("rating", numeric=("user",)), "'user' is named as numeric, and is not in the vocabulary"),
])  # fmt: skip
def test_a_vocabulary_has_its_own_label_and_columns(columns: Columns, said: str, folder: Path) -> None:
    """Others that are named beside it are refused, whether they are in the vocabulary or not; its own may be."""
    table, sidecar = folder / "ratings.csv", sidecar_of(folder / "train.pbr")
    own = Columns("rating", ("user",))
    preparation.convert_tables(table, folder / "train.pbr", own)
    with pytest.raises(UsageError, match=f"{sidecar}: {said}"):
        preparation.convert_tables(table, folder / "more.pbr", columns, vocabulary=sidecar)
    assert not (folder / "more.pbr").exists()
    assert preparation.convert_tables(table, folder / "more.pbr", own, vocabulary=sidecar)["rows"] == {"train": 300}


def test_a_folder_of_rows_may_hold_its_vocabulary(folder: Path) -> None:
    """It is no shard."""
    preparation.convert_tables(folder / "ratings.csv", folder / "rows" / "train.pbr", COLUMNS)
    assert source.files_of(folder / "rows") == [folder / "rows" / "train.pbr"]


def test_a_study_reads_tables(folder: Path) -> None:
    """What was chosen is said; its winner scores tables and requests by name, as it scored its own channels."""
    done = real(folder, "run", "study.yaml", "--no-report")
    assert done.returncode == 0 and "warning: no features are named, so: user: categorical" in done.stderr
    model = fmtune.Model.load(folder / "runs" / "ratings" / "model.fm")
    scores = fmtune.predict(model, folder / "ratings.csv")
    with pytest.warns(DataWarning, match="user: categorical .* genre: multivalued .* age: numeric"):
        data = bring(specs.read(folder / "study.yaml"))
    assert data.channels.train.n == 210 and data.encoder is not None
    assert scores[:210].tobytes() == fmtune.predict(model, data.channels.train).tobytes()
    unlabelled = ratings().drop(columns=["rating", "time"])
    unlabelled.to_json(folder / "new.jsonl", orient="records", lines=True)
    assert predict_file(folder / "runs" / "ratings" / "model.fm", [folder / "new.jsonl"], folder / "s.csv").rows == 300
    assert np.allclose(pd.read_csv(folder / "s.csv")["score"], scores)
    body = json.dumps({"instances": unlabelled.head(5).to_dict("records")}).encode()
    rows = inference.read_json(body, model.feature_dim, Encoder.of(model.facts))
    assert np.allclose(fmtune.predict(model, rows), scores[:5])


def test_python_names_a_label(folder: Path) -> None:
    """``fmtune.fit`` reads tables as the command line does, with a share to test on; its model scores the table."""
    named = {"categorical": ["user"], "multivalued": ["genre"], "numeric": ["age"]}
    fit = fmtune.fit(folder / "ratings.csv", 0.2, label="rating", columns=named, by="time", epochs=3)
    made = preparation.prepare({"train": folder / "ratings.csv"}, COLUMNS, Split(0.2, by="time"))
    assert made.encoder is not None and fit.model.facts["encoding"] == made.encoder.to_json()
    plain = fmtune.fit(made.rows["train"], made.rows["test"], groups=made.encoder.groups(), epochs=3)
    assert fit.metrics == plain.metrics and len(fmtune.predict(fit.model, folder / "ratings.csv")) == 300
    other = fmtune.fit(folder / "ratings.csv", folder / "ratings.csv", label="rating", columns=named, epochs=1)
    assert other.metrics
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (0.2, {"by": "time"}, "columns and shares are of tables"),
        (0.2, {"label": "rating", "columns": {"categoric": []}}, r"unknown keys \['categoric'\]"),
        (1.5, {"label": "rating"}, "test is 1.5"),
    ]
    for test, words, said in wrong:
        with pytest.raises(UsageError, match=said):
            fmtune.fit(folder / "ratings.csv", test, **words)
    with pytest.raises(UsageError, match="it names a column of files"):
        fmtune.fit(made.rows["train"], label="rating")


def test_groups_of_a_split_are_known(folder: Path) -> None:
    """Rows that a split kept together have one unit, others have others; a split by chance has none."""
    split, frame = Split(0.4, group="user"), ratings()
    units = preparation.prepare({"train": folder / "ratings.csv"}, COLUMNS, split).units["test"]
    users = frame["user"][Divider(split, "ratings").divide(frame, 0)[0] == 1]
    pairs = set(zip(users.tolist(), units.tolist(), strict=True))
    assert len(pairs) == users.nunique() == units.max() + 1 > 1
    assert preparation.prepare({"train": folder / "ratings.csv"}, COLUMNS, Split(0.4)).units == {}


def test_fit_divides_by_time_or_group(folder: Path) -> None:
    """As ``data convert`` does; without a share there is nothing to divide."""
    words = ["--label", "rating", "--numeric", "age", "-o", "m"]
    by_time = cli(folder, "fit", "ratings.csv", *words, "--test", "0.2", "--by", "time")
    by_chance = cli(folder, "fit", "ratings.csv", *words, "--test", "0.2")
    assert (by_time.code, by_chance.code) == (0, 0) and by_time.out != by_chance.out
    assert cli(folder, "fit", "ratings.csv", *words, "--test", "0.2", "--group", "user").code == 0
    refused = cli(folder, "fit", "ratings.csv", *words, "--by", "time")
    assert refused.code == 2 and "--by: nothing is divided\n  hint: add --test SHARE" in refused.err


def test_a_regression_on_two_labels_is_told_of(folder: Path) -> None:
    """By the objective, where all labels are 0 or 1; not where they are stars."""
    ratings().assign(rating=np.arange(300) % 2).to_csv(folder / "ratings.csv", index=False)
    with pytest.warns(DataWarning, match="all labels are 0 or 1, and test:rmse trains a regressor"):
        bring(specs.parse(STUDY.replace("label: rating", "label: rating, numeric: [age]"), folder / "study.yaml"))


def test_a_converted_table_gives_its_model_the_names(folder: Path) -> None:
    """``convert`` and ``fit`` from the command line; the model scores the table itself."""
    words = ["--label", "rating", "--categorical", "user", "--multivalued", "genre", "--numeric", "age"]
    assert cli(folder, "data", "convert", "ratings.csv", "train.pbr", *words, "--test", "0.2").code == 0
    assert cli(folder, "fit", "train.pbr", "--test", "test.pbr", "-o", "m").code == 0
    assert cli(folder, "predict", "m", "ratings.csv", "-o", "s.csv").code == 0
    assert len((folder / "s.csv").read_text().splitlines()) == 301
    assert cli(folder, "fit", "ratings.csv", *words, "-o", "m2").code == 0
    assert Encoder.of(fmtune.Model.load(folder / "m2").facts) is not None
    said = json.loads(cli(folder, "data", "stats", "ratings.csv", *words, "--json").out)
    assert (said["rows"], said["features_used"], said["labels"]) == (300, 24, "real")
    refused = cli(folder, "data", "convert", "ratings.csv", "train.pbr", *words)
    assert refused.code == 2 and "hint: -o train.pbr writes over it" in refused.err
    refused = cli(folder, "data", "convert", "train.pbr", "a.npz", "--label", "rating")
    assert refused.code == 2 and "these are rows, whose columns have no names" in refused.err


def test_a_table_without_columns_is_told_how(folder: Path) -> None:
    """By a reader that was told of no label; and rows are told that they have no columns."""
    with pytest.raises(DataError, match="the columns are user, genre, age, time, rating"):
        source.read_channel(folder / "ratings.csv")
    preparation.convert_tables(folder / "ratings.csv", folder / "t.npz", COLUMNS)
    with pytest.raises(DataError, match=r"no table but rows \(npz\)"):
        preparation.prepare({"train": folder / "t.npz"}, COLUMNS)
    with pytest.raises(DataError, match="no rows are left for test"):
        preparation.prepare({"train": folder / "ratings.csv"}, COLUMNS, Split(1e-9))


def test_a_bad_vocabulary_is_refused(folder: Path) -> None:
    """Missing, no JSON, or JSON of another kind."""
    path = folder / "train.vocabulary.json"
    for content, error in ((None, DataError), (b"{", DataError), (b"[]", ModelError), (b"{}", ModelError)):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(error):
            read_vocabulary(path)
    with pytest.raises(UsageError, match="no format to write"):
        preparation.convert_tables(folder / "ratings.csv", folder / "t.docx", COLUMNS)


def test_rows_of_another_vocabulary_are_refused(folder: Path) -> None:
    """A file of rows whose vocabulary is not the model's is no input of that model; frames are, by their names."""
    words = ["--label", "rating", "--categorical", "user", "--multivalued", "genre", "--numeric", "age"]
    assert cli(folder, "fit", "ratings.csv", *words, "-o", "m").code == 0
    frame = ratings()
    model = fmtune.Model.load(folder / "m")
    assert fmtune.predict(model, frame).tolist() == fmtune.predict(model, folder / "ratings.csv").tolist()
    frame.head(40).to_csv(folder / "few.csv", index=False)
    preparation.convert_tables(folder / "few.csv", folder / "few.npz", COLUMNS)
    with pytest.raises(DataError, match="its vocabulary is not the model's"):
        predict_file(folder / "m", [folder / "few.npz"], folder / "s.csv")
