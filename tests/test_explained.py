"""A winner's strongest features and pairs: by their effect, by name, and only pairs that some row has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fmtune.data.encoding import Encoder
from fmtune.data.kinds import OneHot, Scaled
from fmtune.fm.fit import Channels
from fmtune.fm.groups import Groups
from fmtune.fm.model import Model
from fmtune.fm.pack import score
from fmtune.report.markdown import markdown
from fmtune.report.page import build
from fmtune.report.sections import explained as section
from fmtune.rows import DenseRows, SparseRows
from fmtune.tune import spec as specs
from fmtune.tune import study as studies
from fmtune.tune.channels import StudyData
from fmtune.tune.collect import collect
from fmtune.tune.explained import PAIRS, WIDE, centred, explained, meeting, together
from tests.report_fixtures import study
from tests.study_fixtures import write_study


def rows(n: int = 400, users: int = 30, items: int = 20, seed: int = 0) -> SparseRows:
    """Return rows of a user, an item, and a number; some numbers are zero."""
    draw = np.random.default_rng(seed)
    user, item = draw.integers(users, size=n), users + draw.integers(items, size=n)
    indices = np.stack([user, item, np.full(n, users + items)], 1).astype(np.int32).ravel()
    number = np.where(draw.random(n) < 0.3, 0, draw.normal(size=n))
    values = np.stack([np.ones(n), np.ones(n), number], 1).astype(np.float32).ravel()
    labels = draw.normal(size=n).astype(np.float32)
    return SparseRows(np.arange(n + 1) * 3, indices, values, labels, users + items + 1)


def model(features: int, factors: int = 4, seed: int = 1) -> Model:
    """Return a model of random parameters."""
    draw = np.random.default_rng(seed)
    return Model("regressor", 0.5, draw.normal(size=features).astype(np.float32),
                 draw.normal(size=(features, factors)).astype(np.float32))  # fmt: skip


def data_of(train: SparseRows, groups: Groups | None = None, **more: object) -> StudyData:
    """Return a study's data with one channel."""
    return StudyData(Channels(train, train, groups), None, "drawn", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_effects_are_of_the_rows(layout: str) -> None:
    """An effect is the root mean square of what a term adds to a row's score; rows are those that have it."""
    train, machine = rows(), model(51)
    matrix = train.to_dense().matrix.astype(np.float64)
    data = data_of(train if layout == "sparse" else train.to_dense())  # type: ignore[arg-type]
    found = explained(machine, data, top=51)
    assert found["bias"] == 0.5 and len(found["features"]) == 51
    effects = [f["effect"] for f in found["features"]]
    assert effects == sorted(effects, reverse=True)
    for one in found["features"]:
        at = int(one["name"].removeprefix("feature "))
        assert one["weight"] == machine.linear[at] and one["rows"] == np.count_nonzero(matrix[:, at])
        terms = machine.linear[at] * matrix[:, at]
        assert one["effect"] == pytest.approx(np.sqrt(np.mean(terms**2)), rel=1e-5)
    for one in found["pairs"]:
        i, j = (int(name.removeprefix("feature ")) for name in one["names"])
        products = matrix[:, i] * matrix[:, j]
        assert one["weight"] == pytest.approx(float(machine.factors[i].astype(float) @ machine.factors[j]), rel=1e-5)
        assert one["effect"] == pytest.approx(abs(one["weight"]) * np.sqrt(np.mean(products**2)), rel=1e-5)
        assert one["rows"] == np.count_nonzero(products) > 0


def table(n: int = 3000, users: int = 4, items: int = 3, seed: int = 0) -> tuple[SparseRows, Encoder]:
    """Return rows of a table of a user, an item, a number and a constant, whose common values are common."""
    draw = np.random.default_rng(seed)
    user, item = (draw.choice(k, n, p=np.arange(1, k + 1) / (k * (k + 1) / 2)) for k in (users, items))
    numbers = np.stack([user, users + item, np.full(n, users + items), np.full(n, users + items + 1)], 1)
    values = np.stack([np.ones(n), np.ones(n), draw.normal(0.5, 2, n), np.full(n, 3.0)], 1).astype(np.float32)
    rows = SparseRows(np.arange(n + 1) * 4, numbers.astype(np.int32).ravel(), values.ravel(),
                      np.zeros(n, np.float32), users + items + 2)  # fmt: skip
    columns = [OneHot("user", tuple("abcdefgh"[:users])), OneHot("item", tuple("stuvwxyz"[:items])),
               Scaled("age", 0.0, 1.0), Scaled("constant", 0.0, 1.0)]  # fmt: skip
    return rows, Encoder(columns)


def test_a_table_s_parts_are_beside_the_mean_of_each_column() -> None:
    """They add up to the score, features and pairs of a column are 0 in the mean, a constant column has no part."""
    train, encoder = table()
    machine = model(9)
    parts, matrix = centred(machine, train, encoder), train.to_dense().matrix.astype(np.float64)
    beside = matrix.copy()
    beside[:, 7:] -= matrix[:, 7:].mean(axis=0)
    factors = beside @ parts.factors.astype(np.float64)
    # Of one feature alone there is no pair with itself.
    pairs = (factors**2 - beside**2 @ parts.factors.astype(np.float64) ** 2).sum(axis=1) / 2
    expected = score(machine, train)
    assert np.allclose(parts.bias + beside @ parts.weights + pairs, expected, atol=1e-4)
    mean = matrix.mean(axis=0)
    for column in (slice(0, 4), slice(4, 7)):
        assert mean[column] @ parts.weights[column] == pytest.approx(0, abs=1e-5)
        assert np.abs(mean[column] @ parts.factors[column]).max() < 1e-5
    found = explained(machine, data_of(train, encoder=encoder), top=20)
    named = {name for one in found["features"] + found["pairs"] for name in one.get("names", [one.get("name")])}
    assert found["centred"] and "constant" not in named and {"user=a", "item=s", "age"} <= named
    shown = {one["name"]: one["effect"] for one in found["features"]}
    assert shown["age"] == pytest.approx(np.abs(parts.weights[7]) * matrix[:, 7].std(), rel=1e-4)


def test_an_effect_of_one_column_alone_is_no_pair() -> None:
    """A user's effect that the model keeps in its products with every item is the user's; a real pair stays one."""
    train, encoder = table()
    factors = np.zeros((9, 2), np.float32)
    factors[:4, 0], factors[4:7, 0] = (2, -1, 0.5, 1), 1  # whatever the item
    factors[1, 1], factors[5, 1] = 0.4, 0.4  # b and t
    machine = Model("regressor", 0.5, np.zeros(9, np.float32), factors)
    plain, found = (explained(machine, data_of(train, **more)) for more in ({}, {"encoder": encoder}))
    assert plain["pairs"][0]["weight"] != pytest.approx(0.16) and not plain["centred"]
    assert found["pairs"][0]["names"] == ["user=b", "item=t"] and found["pairs"][0]["effect"] < 0.1
    assert {one["name"] for one in found["features"][:4]} == {"user=a", "user=b", "user=c", "user=d"}


def test_features_that_no_row_has_together_are_no_pair() -> None:
    """Two users are no pair, however long their vectors; names tell the groups where only those are known."""
    machine = model(51)
    machine.factors[:30] *= 100
    found = explained(machine, data_of(rows(), Groups.of({"user": 0, "item": 30, "number": 50})))["pairs"]
    assert len(found) == 10
    for one in found:
        kinds = {name.partition(":")[0] for name in one["names"]}
        assert len(kinds) == 2 and "user" in kinds and one["rows"] > 0
    assert explained(model(51, 0), data_of(rows()))["pairs"] == []


def test_of_wide_and_of_many_rows_some_are_looked_at() -> None:
    """Of 300 features in a row the 256 with the longest factors; of two million pairs those of every third row."""
    draw, n = np.random.default_rng(3), 60
    wide = DenseRows(draw.normal(size=(n, 300)).astype(np.float32), None, 300)
    lengths = np.arange(300.0)
    first, second, _ = meeting(wide, lengths)
    assert first.min() == 300 - WIDE and len(first) == WIDE * (WIDE - 1) // 2 and (first < second).all()
    _, _, power = meeting(wide, lengths)
    matrix = wide.matrix[:: -(-n * WIDE * WIDE // 2 // PAIRS)].astype(np.float64)
    assert power[-1] == pytest.approx(float(((matrix[:, 298] * matrix[:, 299]) ** 2).sum()))


def test_counts_are_over_all_blocks() -> None:
    """Rows without an entry between others change nothing; a pair that no row has counts none."""
    indptr = np.array([0, 2, 2, 4, 4, 5])
    made = SparseRows(indptr, np.array([0, 1, 0, 2, 1], np.int32), np.array([2, 3, 1, 1, 5], np.float32), None, 3)
    counts, powers = together(made, np.array([0, 0, 1]), np.array([1, 2, 2]))
    assert counts.tolist() == [1, 1, 0] and powers.tolist() == [36, 1, 0]


def test_names_are_the_tables_or_the_cards() -> None:
    """Values of columns by the encoder; a card's own names; hashed features by number; long ones are cut."""
    encoder = Encoder([OneHot("user", tuple("abcdefghijklmnopqrstuvwxyz1234")),
                       OneHot("item", tuple(f"{'i' * 200}{n}" for n in range(20))), Scaled("age", 0.0, 1.0)])
    found = explained(model(51), data_of(rows(), encoder=encoder), top=51)
    names = [f["name"] for f in found["features"]]
    assert {"user=a", "age"} < set(names) and max(map(len, names)) == 120
    assert sorted(encoder.name(n) for n in range(51)) == sorted(encoder.names())
    card = tuple(f"name {n}" for n in range(51))
    assert explained(model(51), data_of(rows(), names=card))["features"][0]["name"].startswith("name ")


def test_a_study_keeps_it_and_its_report_shows_it(tmp_path: Path) -> None:
    """After a run the page and the Markdown name the pixels of the digits that count."""
    spec = specs.read(write_study(tmp_path, "study_name: two\ndata: digits\nobjective: test:auc\nsearch_space: "
                                            "{num_factors: 2..4}\nhyperparameters: {epochs: 2}\nn_trials: 2\n"))
    studies.run(spec, root=tmp_path)
    result = collect(spec, tmp_path)
    assert result.best is not None and result.explained is not None
    assert result.explained["trial"] == result.best.number and len(result.explained["pairs"]) == 10
    first = result.explained["features"][0]["name"]
    assert first.startswith("row ")
    for text in (build(result), markdown(result)):
        assert "What the winner" in text and first in text
    assert Model.load(tmp_path / "runs" / "two" / "model.fm").facts["names"][9] == "row 2, column 2"


def test_what_is_another_winners_is_not_shown() -> None:
    """Nor is what was not found; a linear model has features alone."""
    result = study(20)
    assert result.explained is not None and section(result) is not None
    for other in (None, {**result.explained, "trial": -1}, {**result.explained, "features": []}):
        assert section(replace(result, explained=other)) is None
        assert "scores come from" not in markdown(replace(result, explained=other))
    linear = section(replace(result, explained={**result.explained, "pairs": []}))
    assert linear is not None and "pair of features" not in linear.body
    assert "log-odds of label 1" in linear.body
    ratings = section(replace(result, fixed={"predictor_type": "regressor"}))
    assert ratings is not None and "adds to the prediction" in ratings.body
