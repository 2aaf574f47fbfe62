"""Encoders: what cells become, alone and in frames, and that they outlive their file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fmtune.data import source
from fmtune.data.canonical import LARGEST_DIM, DataWarning
from fmtune.data.cells import coded, text_of, values_of
from fmtune.data.columns import Columns, inferred
from fmtune.data.encoding import Encoder, names_of
from fmtune.data.fitting import Fitter, Sample
from fmtune.data.kinds import KINDS, Bucketed, Hashed, OneHot, Scaled
from fmtune.errors import DataError, ModelError

FRAME = pd.DataFrame({
    "user": ["7", "42", "7", None, "9"],
    "tags": ["a|b", "b", None, "a | c", "b"],
    "age": [20.0, 30.0, np.nan, 40.0, 30.0],
    "hour": [1, 5, 9, 13, 17],
    "rating": [1, 2, 3, 4, 5],
})  # fmt: skip
COLUMNS = Columns("rating", ("user",), ("tags",), ("age",), ("hour",), buckets=2)


def fitted(frame: pd.DataFrame = FRAME, columns: Columns = COLUMNS, block: int = 2) -> Encoder:
    fitter = Fitter(columns)
    for at in range(0, len(frame), block):
        fitter.add(frame.iloc[at : at + block])
    return fitter.encoder()


def test_each_kind_of_column_has_its_features() -> None:
    """One-hot by frequency, values of a cell share their mass, ranges, then scaled numbers; missing cells nothing."""
    encoder = fitted()
    assert encoder.names() == [
        "user=7", "user=42", "user=9", "tags=b", "tags=a", "tags=c", "hour ..9", "hour 9..", "age"
    ]  # fmt: skip
    assert encoder.groups() == {"user": 0, "tags": 3, "hour": 6, "age": 8}
    rows = encoder.rows(FRAME)
    deviation = np.sqrt(50)
    expected = [
        [1, 0, 0, 0.5, 0.5, 0, 1, 0, -10 / deviation],
        [0, 1, 0, 1, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0.5, 0.5, 0, 1, 10 / deviation],
        [0, 0, 1, 1, 0, 0, 0, 1, 0],
    ]
    assert np.allclose(rows.to_dense().matrix, expected) and rows.labels is not None
    assert rows.labels.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("hash_bits", [None, 3])
def test_a_request_has_the_entries_of_the_table(hash_bits: int | None) -> None:
    """Cell by cell and frame by frame give the same bits, also where hashed values fall together."""
    encoder = fitted(columns=replace(COLUMNS, hash_bits=hash_bits))
    rows = encoder.rows(FRAME)
    for r, record in enumerate(FRAME.astype(object).where(FRAME.notna(), None).to_dict("records")):
        keys, values = encoder.entries({str(name): cell for name, cell in record.items()})
        one = rows.slice(r, r + 1)
        assert keys.tolist() == one.indices.tolist() and values.tobytes() == one.values.tobytes()


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**18), st.floats(-9, 9), st.text("aA|é ", max_size=4),
    st.lists(st.text("ab", max_size=2), max_size=3),
)  # fmt: skip


@example([True, 1, [True], [1], []], 1)
@given(st.lists(CELLS, min_size=1, max_size=8), st.integers(1, 3))
def test_any_cell_can_name_something(cells: list[Any], min_count: int) -> None:
    """Whatever stands in a column, its values are found again, alone and in a frame; no row weighs more than 1."""
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object)})
    encoder = fitted(frame, Columns(multivalued=("x",), min_count=min_count))
    rows = encoder.rows(frame, labels=False)
    for r, cell in enumerate(cells):
        keys, values = encoder.entries({"x": cell})
        one = rows.slice(r, r + 1)
        assert keys.tolist() == one.indices.tolist() and values.tobytes() == one.values.tobytes()
        assert values.sum() == pytest.approx(1) or len(values) == 0


def test_numbers_and_texts_name_the_same_thing() -> None:
    """42, 42.0, "42" and "42.0" are one user, true and "True" one answer: csv, Parquet and JSON differ there."""
    encoder = Encoder([OneHot("user", ("42", "true", "007", "1.50"))])
    for cell in (42, 42.0, "42", "42.0", "42.00", np.int32(42), np.float32(42), Decimal("42.0")):
        assert encoder.entries({"user": cell})[0].tolist() == [0]
    for cell in (True, "True", "true", np.True_):
        assert encoder.entries({"user": cell})[0].tolist() == [1]
    for cell in ("7", 7, "1.5", 1.5, "42.", "4.20", "٤٢.0", "042.0", "42.0 ", "-42.0"):
        assert encoder.entries({"user": cell})[0].tolist() == []
    assert values_of("42.0|7.0 |True|x", "|") == ["42", "7", "true", "x"]


@given(st.floats(allow_nan=False) | st.integers().map(float))
def test_a_number_has_one_name_however_it_is_written(number: float) -> None:
    """As a float and as the text that Python, pandas and JSON write; a name is the name of itself."""
    assert text_of(str(number)) == text_of(number) == text_of(text_of(number))


def test_models_of_before_know_their_names() -> None:
    """A vocabulary with 31.0 answers to 31 too; of both, the commoner counts; hashes stay as they were."""
    old = {"version": 1, "label": "y", "feature_dim": 9, "columns": [
        {"kind": "one-hot", "name": "age", "values": ["31.0", "41", "41.0", "9"], "others": True, "separator": None},
        {"kind": "hashed", "name": "user", "bits": 2, "separator": None},
    ]}  # fmt: skip
    encoder = Encoder.from_json(old)
    assert encoder.names()[:4] == ["age=31", "age=41", "age=41", "age=9"]
    for cell, at in (("31.0", 0), ("31", 0), (31, 0), (31.0, 0), ("41.0", 1), (41, 1), ("9.0", 3), ("8", 4)):
        assert encoder.entries({"age": cell})[0].tolist() == [at]
    digest = hashlib.blake2b(b"user=31.0", digest_size=8).digest()
    assert encoder.entries({"user": "31.0"})[0].tolist() == [5 + digest[0] % 4]
    new = fitted(columns=Columns("rating", ("user",), hash_bits=20))
    assert Encoder.from_json(new.to_json()).entries({"user": "7.0"})[0] == new.entries({"user": 7})[0]


def test_rare_values_share_a_feature_with_unseen_ones() -> None:
    """With min_count; without, an unseen value is nothing."""
    encoder = fitted(columns=Columns(categorical=("user",), min_count=2))
    assert encoder.names() == ["user=7", "user=(others)"]
    assert encoder.entries({"user": "new"})[0].tolist() == [1] == encoder.entries({"user": "42"})[0].tolist()
    assert encoder.entries({"user": None})[0].tolist() == []
    assert fitted(columns=Columns(categorical=("user",))).entries({"user": "new"})[0].tolist() == []


def test_the_blocks_do_not_matter() -> None:
    """An encoder learned in blocks of one row is that of the whole table."""
    small, whole = (json.dumps(fitted(block=block).to_json()) for block in (1, 5))
    assert small == whole


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_outlives_its_file(kind: str) -> None:
    """Its JSON gives the same encoder; JSON that is none is refused."""
    column = {"one-hot": OneHot("x", ("é", "b"), True, "|"), "hashed": Hashed("x", 4), "scaled": Scaled("x", 1.5, 0.1),
              "bucketed": Bucketed("x", (0.5, 2.0))}[kind]  # fmt: skip
    encoder = Encoder([column], "y")
    again = Encoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert again.columns == encoder.columns and again.label == "y" and again.names() == encoder.names()
    for broken in ({"version": 2}, {"feature_dim": 99}, {"columns": [{"kind": kind}]}, {"columns": 7}, {"label": 7}):
        with pytest.raises(ModelError, match="the encoding is not understood"):
            Encoder.from_json({**encoder.to_json(), **broken})


def test_arrow_and_polars_frames_are_read_as_pandas_has_them() -> None:
    """Categories, strings and whole numbers with gaps, whoever made the frame, become the same rows."""
    encoder = fitted()
    cells = FRAME.astype(object).where(FRAME.notna(), None)
    made = polars.DataFrame({name: cells[name].tolist() for name in FRAME})
    converted = made.with_columns(polars.col("user").cast(polars.Categorical)).to_pandas()
    assert encoder.rows(converted).digest() == encoder.rows(FRAME).digest()


FAULTS = [
    ({"usr": "1"}, "usr: the model has no column 'usr' (did you mean 'user'?): it has user, tags, hour, age"),
    ({"age": "old"}, "age: wants a finite number, not 'old'"),
    ({"age": True}, "age: wants a finite number, not True"),
    ({"hour": "inf"}, "hour: wants a finite number, not 'inf'"),
]


@pytest.mark.parametrize(("record", "fault"), FAULTS, ids=str)
def test_a_bad_cell_is_named(record: dict[str, Any], fault: str) -> None:
    """A request that names no column of the model, or gives a number that is none."""
    with pytest.raises(DataError) as error:
        fitted().entries(record)
    assert str(error.value) == fault


@pytest.mark.parametrize("cell", [{}, [{}], [[1]]], ids=str)
def test_a_cell_that_is_no_value_is_named(cell: Any) -> None:
    """An object, or a list that holds an object or a list, is no value of a column, learned from or read."""
    frame = pd.DataFrame({"who": ["a", cell]}, dtype=object)
    said = f"table: row 2: 'who' is {cell}, no value and no list of values\n  hint: give its parts columns of their own"
    fitter = Fitter(Columns(categorical=("who",)), "table")
    for read in (lambda: coded(frame["who"], "table"), lambda: fitter.add(frame)):
        with pytest.raises(DataError) as error:
            read()
        assert str(error.value) == said


def test_a_bad_table_is_named() -> None:
    """A column that is missing, a number that is none, a label that is missing: with the row."""
    encoder = fitted()
    with pytest.raises(DataError, match=r"data: the column 'age' is not in the table"):
        encoder.rows(FRAME.drop(columns="age"))
    with pytest.raises(DataError, match=r"t.csv: row 12: 'age' is 'old', not a finite number"):
        encoder.rows(FRAME.assign(age=[1, "old", 2, 3, 4]), first=10, where="t.csv")
    with pytest.raises(DataError, match=r"row 2: the label 'rating' is missing"):
        encoder.rows(FRAME.assign(rating=[1, None, 2, 3, 4]))


def test_a_column_that_is_missing_is_missing_cells_where_rows_are_scored() -> None:
    """A table without a column gives what a request without it gives, and says so; without any it is refused."""
    encoder = fitted()
    with pytest.warns(DataWarning, match="t.csv: age not in the table: those cells count as missing"):
        rows = encoder.rows(FRAME.drop(columns="age"), labels=False, where="t.csv")
    record = {name: FRAME[name].iloc[0] for name in encoder._by_name if name != "age"}
    keys, values = encoder.entries(record)
    assert rows.indices[: rows.indptr[1]].tolist() == keys.tolist()
    np.testing.assert_allclose(rows.values[: rows.indptr[1]], values)
    with pytest.raises(DataError, match="is not in the table"):
        encoder.rows(FRAME[["rating"]], labels=False)


def test_a_table_of_strangers_is_told_of(tmp_path: Path) -> None:
    """Where more than half of a column is unknown, once a file; missing cells and rare ones are no such."""
    encoder = Encoder([OneHot("site", ("a", "b")), OneHot("user", ("1",), others=True), OneHot("tag", ("x",))])
    frame = pd.DataFrame({"site": ["a", "B", "C", None, ""], "user": ["7"] * 5, "tag": ["x", None, "y", "z", "z"]})
    said = "unknown to the model, and nothing to it: site (2 of 3 values), tag (3 of 4 values)"
    with pytest.warns(DataWarning) as caught:
        encoder.rows(frame, labels=False, where="t.csv")
    assert [str(one.message) for one in caught] == [f"t.csv: {said}"]
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.warns(DataWarning) as caught:
        source.read_channel([tmp_path / "t.csv"] * 2, labelled=False, encoder=encoder)
    assert [str(one.message) for one in caught] == [f"{tmp_path / 't.csv'}: {said}"] * 2
    encoder.rows(frame.assign(site="a", tag=["x", "y", "", None, None]), labels=False)


def test_a_sample_is_as_good_as_the_stream() -> None:
    """It holds no more than its size, and its median is the stream's, about; the same stream gives the same."""
    numbers = np.random.default_rng(1).normal(size=20_000)
    samples = [Sample(1000), Sample(1000)]
    for sample in samples:
        for part in np.split(numbers, 20):
            sample.add(part)
    (median,) = samples[0].quantiles([0.5])
    assert abs(median) < 0.15 and median == samples[1].quantiles([0.5])[0]
    assert Sample(5).edges(4) == ()


@pytest.mark.parametrize("cell", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, ""], ids=repr)
def test_a_missing_value_names_nothing(cell: Any) -> None:
    """However it is written; a list leaves it out."""
    assert text_of(cell) == "" and values_of(["a", cell], None) == ["a"]


def test_numbers_that_32_bits_cannot_hold_are_refused() -> None:
    """In a table and in a request, as numbers and as whole ones of any length; the largest that they can is taken."""
    encoder = fitted()
    largest = float(np.finfo(np.float32).max)
    for cell, said in ((1e39, "1e+39"), (-1e200, "-1e+200"), (10**400, "1" + 59 * "0")):
        frame = pd.DataFrame({name: [cell if name == "age" else 1] for name in FRAME}, dtype=object)
        with pytest.raises(DataError) as error:
            encoder.rows(frame, where="t.csv")
        assert str(error.value) == (
            f"t.csv: row 1: 'age' is {said}, not a finite number of 32 bits\n"
            "  hint: correct it, or name 'age' among the categorical columns"
        )
        with pytest.raises(DataError) as error:
            encoder.entries({"age": cell})
        assert str(error.value) == f"age: wants a finite number, not {said}"
    assert len(encoder.entries({"age": largest})[0]) == 1


@pytest.mark.parametrize(("cell", "number"), [("6,80", "6.80"), ("-7,5", "-7.5"), ("1.234,50", "1234.50")])
def test_a_decimal_comma_is_called_one(cell: str, number: str) -> None:
    """In a table, in a request, and where columns are chosen; the number is given as it has to be written."""
    encoder = fitted()
    frame = pd.DataFrame({name: [cell if name == "age" else 1] for name in FRAME}, dtype=object)
    with pytest.raises(DataError) as error:
        encoder.rows(frame, where="t.csv")
    assert str(error.value) == (
        f"t.csv: row 1: 'age' is {cell!r}, with a decimal comma: numbers have a point\n"
        f"  hint: write {number} there, and a point in every other row of the column"
    )
    with pytest.raises(DataError, match=f"a number has a decimal point: {number}"):
        encoder.entries({"age": cell})
    prices = pd.DataFrame({"price": [cell, "2,5"] * 50, "code": ["1,2,3", "a"] * 50, "y": [0, 1] * 50})
    _, said = inferred(Columns("y"), prices, "t.csv")
    assert said == [
        "price: categorical (numbers with a decimal comma; with a point they would be numeric)",
        "code: categorical (text)",
    ]


def test_columns_make_no_more_features_than_can_be_numbered() -> None:
    """The hint says what makes fewer."""
    with pytest.raises(DataError) as error:
        Encoder((Hashed("user", 40),))
    assert str(error.value) == (
        f"the columns make {1 << 40:,} features; {LARGEST_DIM:,} is the most\n"
        "  hint: raise min_count, or set hash_bits"
    )


def test_what_a_model_knows_of_its_columns() -> None:
    """Which are read as text; the encoder of its facts, None where it has none; a label that is not in the table."""
    encoder = fitted()
    assert encoder.texts == ("user", "tags")
    again = Encoder.of({"encoding": encoder.to_json()})
    assert again is not None and again.to_json() == encoder.to_json() and Encoder.of({}) is None
    with pytest.raises(DataError) as error:
        encoder.rows(FRAME.drop(columns="rating"), where="t.csv")
    assert str(error.value) == (
        "t.csv: the label's column 'rating' is not in the table\n  hint: the columns are user, tags, age, hour"
    )


@pytest.mark.parametrize("hash_bits", [None, 3])
def test_a_feature_has_one_name(hash_bits: int | None) -> None:
    """Alone as among all; hashed ones have their numbers for names."""
    encoder = fitted(columns=replace(COLUMNS, hash_bits=hash_bits))
    assert [encoder.name(feature) for feature in range(encoder.feature_dim)] == encoder.names()
    if hash_bits:
        assert encoder.names() == ["hour ..9", "hour 9..", "age", *(f"#{n}" for n in range(8))]
        assert encoder.groups() == {"hour": 0, "age": 2, "user": 3} and Hashed("x", 3).named(0) == ""


def test_columns_of_one_value_a_row_are_known() -> None:
    """Those of names without a separator, and of ranges; several features of a list, or of numbers, meet."""
    encoder = fitted()
    assert encoder.alone() == [(0, 3), (6, 8)] and encoder.groups() == {"user": 0, "tags": 3, "hour": 6, "age": 8}


def test_names_are_an_encoders_or_a_cards() -> None:
    """Among a model's facts; a list that is none of names is none."""
    encoder = fitted()
    assert names_of({"encoding": encoder.to_json(), "names": ["a"]}) == encoder.names()
    assert names_of({"names": ["a", "b"]}) == ["a", "b"]
    assert [names_of(facts) for facts in ({}, {"names": "ab"}, {"names": ["a", 1]})] == [None] * 3


AGAIN = "  hint: convert the table again, or train the model again"
BROKEN = {
    "version 2, label 'y'": {"version": 2},
    "version 1, label 7": {"label": 7},
    "the columns do not make its feature_dim": {"feature_dim": 4},
    "x cannot be scaled by these numbers": {"columns": [{"kind": "scaled", "name": "x", "mean": 0, "deviation": -1}]},
    "y cannot be scaled by these numbers": {"columns": [{"kind": "scaled", "name": "y", "mean": 1e39, "deviation": 1}]},
    "z cannot be scaled by these numbers": {"columns": [{"kind": "scaled", "name": "z", "mean": 0, "deviation": 1e39}]},
    "'kinds'": {"columns": [{"kind": "kinds"}]},
}


@pytest.mark.parametrize("said", BROKEN)
def test_an_encoding_that_is_none_says_why(said: str) -> None:
    """With the place and the next step."""
    whole = Encoder([Scaled("x", 1.0, 2.0), Hashed("u", 1)], "y").to_json()
    assert Encoder.from_json(whole).feature_dim == 3
    with pytest.raises(ModelError) as error:
        Encoder.of({"encoding": {**whole, **BROKEN[said]}})
    assert str(error.value) == f"the model's encoding: the encoding is not understood: {said}\n{AGAIN}"


def test_the_largest_numbers_that_scale() -> None:
    """Those that 32 bits hold."""
    largest = float(np.finfo(np.float32).max)
    encoder = Encoder([Scaled("x", -largest, largest)])
    assert Encoder.from_json(encoder.to_json()).columns == encoder.columns
    assert encoder.entries({"x": largest})[1].tolist() == [2.0]
    frame = pd.DataFrame({"x": [largest, "old"]}, dtype=object)
    with pytest.raises(DataError, match=r"data: row 2: 'x' is 'old'"):
        encoder.rows(frame, labels=False)


@pytest.mark.parametrize("deviation", [1e-3, 1e-300])
def test_a_number_too_far_from_those_that_trained_is_refused(deviation: float) -> None:
    """Scaled it would be infinite, and so would every score; in a table and in a request."""
    encoder = Encoder([Scaled("x", 0.0, deviation)])
    said = "too far from the numbers that trained for 32 bits"
    with pytest.raises(DataError) as error:
        encoder.rows(pd.DataFrame({"x": [0.0, None, -1e37]}), labels=False, first=4, where="t.csv")
    hint = "correct it, or cut the column into buckets"
    assert str(error.value) == f"t.csv: row 7: 'x' is -1e+37, {said}\n  hint: {hint}"
    with pytest.raises(DataError, match=f"x: 1e\\+37 is {said}"):
        encoder.entries({"x": 1e37})


def test_half_a_character_is_no_name() -> None:
    """A vocabulary that holds it could not be written."""
    cells = pd.Series(["a", None, "b\ud800"], name="who", dtype=object)
    with pytest.raises(DataError) as error:
        coded(cells, "t", 10)
    assert str(error.value) == "t: row 13: 'who' is 'b\\ud800', which holds half a character\n  hint: correct the text"


def test_hashed_values_have_the_features_that_they_always_had() -> None:
    """A model outlives the program that made it: BLAKE2b, eight bytes, the lowest bits, of ``column=value``."""
    encoder = Encoder([Hashed("user", 20, "|")])
    keys, values = encoder.entries({"user": "7|é|\ud800"})
    digests = [hashlib.blake2b(f"user={value}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
               for value in ("7", "é", "\ud800")]  # fmt: skip
    assert keys.tolist() == sorted(int.from_bytes(digest[:3], "little") % (1 << 20) for digest in digests)
    assert values.tolist() == [np.float32(1 / 3)] * 3


def test_a_column_that_no_table_has_is_named() -> None:
    """With those that there are, or where to look; a label that is missing has its row and its next step."""
    with pytest.raises(DataError) as error:
        fitted().rows(pd.DataFrame({"aged": [1]}), labels=True, where="t.csv")
    assert str(error.value).endswith("  hint: the columns are aged")
    with pytest.raises(DataError) as error:
        fitted().rows(pd.DataFrame(index=[0]), where="t.csv")
    assert str(error.value).endswith("is not in the table\n  hint: compare it with the table's first line")
    with pytest.raises(DataError) as error:
        fitted().rows(FRAME.assign(rating=[1, None, 2, 3, 4]), where="t.csv")
    assert str(error.value) == (
        "t.csv: row 2: the label 'rating' is missing\n  hint: drop such rows before reading the table"
    )
