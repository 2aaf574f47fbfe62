"""Requests in every shape become rows, scores become the documented responses, faults have paths."""

import contextlib
import io
import json
import math
import warnings

import numpy as np
import pytest
from fm_reference import compiled
from hypothesis import given
from hypothesis import strategies as st

from fmtune.data import recordio
from fmtune.data.canonical import DataWarning
from fmtune.data.encoding import Encoder
from fmtune.data.kinds import OneHot, Scaled
from fmtune.data.schema import Record
from fmtune.errors import DataError, UsageError
from fmtune.fm import pack
from fmtune.fm.model import Model
from fmtune.fm.scorer import Scorer
from fmtune.rows import DenseRows, SparseRows
from fmtune.sagemaker import inference
from fmtune.sagemaker.inference import answer
from fmtune.sagemaker.media import JSON, LINES, RECORDS, accepted, media_type
from fmtune.sagemaker.transform import transform

DIM = 12
EMPTY_ROW = "0a23d7ce260000000a100a0676616c756573120612041a02e80712120a0676616c756573120812060a040000803f0000"
BINARY_RECORD = (
    "0a23d7ce30000000121b0a0f7072656469637465645f6c6162656c120812060a040000000012110a0573636f7265120812060a04cdcccc3e"
)
SCORE_RECORD = "0a23d7ce1300000012110a0573636f7265120812060a04cdcccc3e00"


def model(predictor_type="regressor", dim=DIM, k=3):
    rng = np.random.default_rng(5)
    return Model(predictor_type, 0.25, rng.normal(size=dim).astype("f4"), rng.normal(size=(dim, k)).astype("f4"))


def sparse(keys, values, **more):
    return {"data": {"features": {"keys": keys, "values": values, **more}}}


def body(*instances):
    return json.dumps({"instances": instances}).encode()


def lines(*instances):
    return "".join(json.dumps(instance) + "\n" for instance in instances).encode()


def records(rows):
    stream = io.BytesIO()
    recordio.write(stream, rows)
    return stream.getvalue()


DENSE = [0.0, 1.5, 0.0, 0.0, -2.0, 0, 0, 0, 0, 0, 0, 1]
SPARSE = ([1, 4, 11], [1.5, -2, 1])
SHAPES = [
    {"features": DENSE},
    {"data": {"features": {"values": DENSE}}},
    {"data": {"features": {"values": DENSE}}, "configuration": {}},
    {"data": {"features": {"values": DENSE, "shape": [DIM]}}},
    sparse(*SPARSE),
    sparse(*SPARSE, shape=[DIM]),
    {"data": {"features": {"values": SPARSE[1], "shape": [DIM], "keys": SPARSE[0]}, "more": [1, {}]}, "else": {}},
]


@pytest.mark.parametrize("instance", SHAPES)
def test_shapes(instance):
    """Every shape of an instance gives the same row, as JSON and as a line."""
    for rows in (inference.read_json(body(instance), DIM), inference.read_lines(lines(instance), DIM)):
        assert isinstance(rows, SparseRows) and (rows.n, rows.feature_dim) == (1, DIM)
        assert rows.indices.tolist() == SPARSE[0] and rows.values.tolist() == SPARSE[1]
        assert (rows.indptr.dtype, rows.indices.dtype, rows.values.dtype) == ("i8", "i4", "f4")


def test_mixed_and_empty():
    """Dense and sparse instances mix; a sparse one may be empty; no instances are no rows."""
    several = body({"features": DENSE}, sparse([], [], shape=[DIM]), sparse([], []), sparse([3], [2]))
    rows = inference.read_json(several, DIM)
    assert rows.indptr.tolist() == [0, 3, 3, 3, 4]
    only_shape = inference.read_json(b'{"instances":[{"data":{"features":{"values":[],"shape":[12]}}}]}', DIM)
    assert only_shape.n == 1 and only_shape.nnz == 0
    assert inference.read_json(b'{"instances": []}', DIM).n == 0
    assert inference.read_lines(b"\n \r\n", DIM).n == 0
    assert inference.read_lines(b'\n{"features": [1]}\r\n\r\n{"features": [2]}', 1).n == 2


@compiled
def test_records():
    """Vector 3, an empty sparse row with a label, is a row of zeros; dense and sparse records score as JSON does."""
    rows = inference.read_records(bytes.fromhex(EMPTY_ROW), 1000)
    assert (rows.n, rows.nnz, rows.feature_dim) == (1, 0, 1000)
    scorer = Scorer(model())
    dense = DenseRows(np.array([DENSE], "f4"), None, DIM)
    expected = answer(scorer, body(sparse(*SPARSE)), JSON, JSON)
    assert answer(scorer, records(dense), RECORDS, JSON) == expected
    assert answer(scorer, records(dense.to_sparse()), RECORDS, JSON) == expected


def test_unordered_keys():
    """Keys out of order are sorted and repeated ones summed, with a warning, as in training data."""
    with pytest.warns(DataWarning, match="out of order or repeated"):
        rows = inference.read_json(body(sparse([4, 1, 4], [1, 2, 3])), DIM)
    assert rows.indices.tolist() == [1, 4] and rows.values.tolist() == [2, 4]


@pytest.mark.parametrize("copies", [1, 40])
def test_the_largest_number_is_where_float32_ends(copies):
    """What rounds to float32's largest number is taken, what rounds to infinity is refused; among few or many."""
    infinite = 2.0**128 - 2.0**103
    largest = np.nextafter(infinite, 0)
    for sign in (1, -1):
        values = [sign * largest] * copies
        rows = inference.read_json(body({"features": values}), copies)
        assert (rows.values == sign * np.finfo(np.float32).max).all()
        with pytest.raises(DataError, match="is not a finite float32 number"):
            inference.read_json(body({"features": [*values[1:], sign * infinite]}), copies)


F, WIDE = "data.features", "; sparse instances have keys"
SHAPE = "wants one number above 0, the number of features"
FAULTS = [
    ({"features": [1, 2]}, "features", "2 values, but the model has 12 features" + WIDE),
    ({"data": {"features": {"values": [1]}}}, f"{F}.values", "1 values, but the model has 12 features" + WIDE),
    ({"data": {"features": {"values": []}}}, f"{F}.values", "0 values, but the model has 12 features" + WIDE),
    (sparse([1, 2, 4000], [1, 1, 1]), f"{F}.keys[2]", "4000 is beyond the model's 12 features"),
    (sparse([12], [1]), f"{F}.keys[0]", "12 is beyond the model's 12 features"),
    (sparse([2**80], [1]), f"{F}.keys[0]", f"{2**80} is beyond the model's 12 features"),
    (sparse([3, -1], [1, 1]), f"{F}.keys[1]", "-1 is below 0, where features begin"),
    (sparse([5], [1], shape=[4]), f"{F}.keys[0]", "5 is beyond its own shape, [4]"),
    (sparse([5], [1], shape=[4, 4]), f"{F}.shape", SHAPE),
    (sparse([5], [1], shape=[]), f"{F}.shape", SHAPE),
    (sparse([5], [1], shape=[-1]), f"{F}.shape", SHAPE),
    (sparse([1, 2], [1]), F, "2 keys but 1 values"),
    (sparse([1], []), F, "1 keys but 0 values"),
    (sparse([1, 2], [1, 1e39]), f"{F}.values[1]", "1e+39 is not a finite float32 number"),
    ({"features": [*DENSE[:-1], 1e300]}, "features[11]", "1e+300 is not a finite float32 number"),
    ({"features": [*DENSE[:-1], "a"]}, "features[11]", "wants float, got str"),
    ({"features": [*DENSE[:-1], True]}, "features[11]", "wants float, got bool"),
    ({"features": [*DENSE[:-1], None]}, "features[11]", "wants float, got null"),
    (sparse([1.5], [1]), f"{F}.keys[0]", "wants int, got float"),
    ({"features": None}, "features", "wants array, got null"),
    ({"data": {}}, "data", "object missing required field features"),
    ({}, "", "has neither 'features' nor 'data'"),
    ({"features": DENSE, **sparse([1], [1])}, "", "has both 'features' and 'data': give one of them"),
    (7, "", "wants object, got int"),
]


@pytest.mark.parametrize(("instance", "path", "what"), FAULTS)
def test_faults_have_paths(instance, path, what):
    """A fault of an instance is named with its path in JSON, and with its line in JSON lines."""
    good = sparse([1], [1])
    with pytest.raises(DataError) as json_fault:
        inference.read_json(body(good, good, good, instance, good), DIM)
    with pytest.raises(DataError) as line_fault:
        inference.read_lines(b"\n" + lines(good, instance), DIM)
    assert json_fault.value.what == what == line_fault.value.what
    assert json_fault.value.where == ("instances[3]" + (f".{path}" if path else ""))
    assert line_fault.value.where == ("line 3" + (f": {path}" if path else ""))


MALFORMED = "JSON is malformed: invalid character"
BROKEN = [
    (b"{", "body", "input data was truncated"),
    (b"", "body", "input data was truncated"),
    (b"[]", "body", "wants object, got array"),
    (b"null", "body", "wants object, got null"),
    (b'{"a": 1}', "body", "object missing required field instances"),
    (b"\xff\xfe", "body", f"{MALFORMED} (byte 0)"),
    (b'{"instances": 1}', "instances", "wants array, got int"),
    (b'{"instances": [{"features": [NaN]}]}', "body", f"{MALFORMED} (byte 29)"),
    (b'{"instances": [{"features": [Infinity]}]}', "body", f"{MALFORMED} (byte 29)"),
    (b'{"instances": [{"features": [1e999]}]}', "instances[0].features[0]", "number out of range"),
    (b"[" * 100_000, "body", "wants object, got array"),
    (b'{"instances": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body", "the JSON is nested too deep"),
    (b'{"instances": []} x', "body", "JSON is malformed: trailing characters (byte 19)"),
    ('{"instances": []}'.encode("utf-16"), "body", f"{MALFORMED} (byte 0)"),
]


@pytest.mark.parametrize(("broken", "place", "what"), BROKEN, ids=range(len(BROKEN)))
def test_broken_json(broken, place, what):
    """What is no JSON of the form, NaN, and nesting too deep are faults in these words, also on a line."""
    with pytest.raises(DataError) as fault:
        inference.read_json(broken, 1)
    assert str(fault.value) == f"{place}: {what}"
    if place == "body" and broken and "instances" not in what:  # an empty line is none, and any object may be one
        with pytest.raises(DataError) as fault:
            inference.read_lines(b"\n\n" + broken, 1)
        assert str(fault.value) == f"line 3: {what}"


ENCODER = Encoder([OneHot("user", ("42", "7")), Scaled("age", 30.0, 10.0)], "bought")
PERSON = {"user": 7, "age": 40, "bought": True}


def test_instances_may_name_their_features():
    """Beside numbered ones of any shape; what a column does not know is nothing; labels are passed over."""
    given = [PERSON, {"age": 25.0}, {"features": [0, 0, 2]}, sparse([1], [3]), {"user": "new"}]
    for rows in (
        inference.read_json(body(*given), 3, ENCODER),
        inference.read_lines(lines(*given), 3, ENCODER),
    ):
        assert (rows.indptr.tolist(), rows.feature_dim) == ([0, 2, 3, 4, 5, 5], 3)
        assert rows.indices.tolist() == [1, 2, 2, 2, 1] and rows.values.tolist() == [1, 1, -0.5, 2, 3]


NAMED = [
    ({"usr": 1}, "usr", "the model has no column 'usr' (did you mean 'user'?): it has user, age"),
    ({"age": "old"}, "age", "wants a finite number, not 'old'"),
    ({"data": 1}, "data", "the model has no column 'data': it has user, age"),
    ({"features": 1}, "features", "the model has no column 'features': it has user, age"),
    ({}, "", "has neither 'features' nor 'data'"),
    ({"features": [1]}, "features", "1 values, but the model has 3 features" + WIDE),
    ({"features": [1, "a", 2]}, "features[1]", "wants float, got str"),
    ({"data": {"features": 3}}, "data.features", "wants object, got int"),
    (sparse([3], [1]), f"{F}.keys[0]", "3 is beyond the model's 3 features"),
]


@pytest.mark.parametrize(("instance", "path", "what"), NAMED)
def test_faults_of_named_features_have_paths(instance, path, what):
    """As those of numbered ones, behind instances of either kind."""
    with pytest.raises(DataError) as fault:
        inference.read_json(body(PERSON, {"features": [1, 2, 3]}, instance), 3, ENCODER)
    assert (fault.value.where, fault.value.what) == ("instances[2]" + (f".{path}" if path else ""), what)
    with pytest.raises(DataError) as fault:
        inference.read_lines(lines(PERSON, instance), 3, ENCODER)
    assert (fault.value.where, fault.value.what) == ("line 2" + (f": {path}" if path else ""), what)


class Sum:
    """Scores rows with their sums."""

    feature_dim, binary = DIM, False

    def predict(self, rows):
        return np.add.reduceat(rows.values, rows.indptr[:-1])


@pytest.mark.parametrize("before", [[], [sparse([1], [1])]])
def test_an_answer_has_the_scores_of_its_rows(before):
    """In the type that is asked for; a score that is not finite is a fault of its instance."""
    assert answer(Sum(), body(*before, sparse([1, 2], [3, 4])), JSON, LINES).endswith(b'{"score":7.0}\n')
    with pytest.raises(DataError) as fault, np.errstate(over="ignore"):
        answer(Sum(), body(*before, sparse([1, 2], [3e38, 3e38])), JSON, JSON)
    assert str(fault.value) == (
        f"instances[{len(before)}]: its score is not a finite number: the values are too large"
    )


@given(st.binary(max_size=60), st.sampled_from([b"", b'{"instances":[{"features":[1]}]}', bytes.fromhex(EMPTY_ROW)]))
def test_noise(noise, start):
    """Any bytes are rows or a DataError."""
    for reader in inference.READERS.values():
        for content in (noise, start[: len(start) // 2] + noise, start + noise):
            with contextlib.suppress(DataError, DataWarning):
                assert reader(content, 1000).feature_dim == 1000


def test_response_vectors():
    """Vector 5: a score of 0.4 as a record, binary and regression."""
    scores = np.array([0.4], "f4")
    assert inference.write_records(scores, True).hex() == BINARY_RECORD
    assert inference.write_records(scores, False).hex() == SCORE_RECORD


def test_responses():
    """JSON holds float32 scores widened, labels as observed (1.0 from a score of 0.5 on); lines the same, one each."""
    scores = np.array([0.4, 0.5], "f4")
    wide = 0.4000000059604645
    labelled = [{"score": wide, "predicted_label": 0.0}, {"score": 0.5, "predicted_label": 1.0}]
    assert json.loads(inference.write_json(scores, True)) == {"predictions": labelled}
    assert b'"predicted_label":0.0' in inference.write_json(scores, True)
    assert json.loads(inference.write_json(scores, False)) == {"predictions": [{"score": wide}, {"score": 0.5}]}
    assert [json.loads(line) for line in inference.write_lines(scores, True).splitlines()] == labelled
    assert inference.write_json(scores[:0], True) == b'{"predictions":[]}'
    assert inference.write_lines(scores[:0], True) == b""


def test_record_responses_parse():
    """Each record of a response holds its own row's numbers, read by protobuf itself."""
    scores = np.array([0.1, 0.9, -3.5], "f4")
    content = inference.write_records(scores, True)
    for i, score in enumerate(scores):
        record = Record.FromString(content[56 * i + 8 : 56 * i + 56])
        assert record.label["score"].float32_tensor.values[0] == score
        assert record.label["predicted_label"].float32_tensor.values[0] == (score >= 0.5)
        assert not record.features


@compiled
@pytest.mark.parametrize("predictor_type", ["regressor", "binary_classifier"])
def test_scores_are_those_of_predict(predictor_type):
    """A Scorer gives the bits of ``pack.predict`` on sparse rows, row by row and in a batch."""
    m, rng = model(predictor_type), np.random.default_rng(0)
    rows = DenseRows((rng.normal(size=(20, DIM)) * (rng.random((20, DIM)) < 0.4)).astype("f4"), None, DIM)
    scorer, expected = Scorer(m), pack.predict(m, rows.to_sparse())
    assert scorer.predict(rows).tobytes() == expected.tobytes()
    assert b"".join(scorer.predict(rows.slice(i, i + 1)).tobytes() for i in range(20)) == expected.tobytes()
    with pytest.raises(UsageError, match="13 features, the model 12"):
        scorer.score(rows.widen(13))


@compiled
def test_score_not_finite():
    """A score that overflows is a fault of the request, never a NaN in JSON."""
    with pytest.raises(DataError, match="not a finite number") as fault:
        answer(Scorer(model()), body(sparse([1], [1]), sparse([1, 2], [3e38, 3e38])), JSON, JSON)
    assert fault.value.where == "instances[1]"


MEDIA = [
    (None, None), ("", None), ("text/csv", None), (JSON, JSON), ("Application/JSON; Charset=UTF-8", JSON),
    ("application/json; charset=utf8", JSON), ("application/json; charset=ISO-8859-1", JSON),
    ("application/json; charset=utf-16", None), ("application/json; charset=x", None),
    (f"{RECORDS}; x=y", RECORDS), (LINES, LINES),
    ('application/json; x=latin-1; charset="utf-8"', JSON), ("application/json; charset=us-ascii", JSON),
    ("application/json; charset=utf-8; charset=utf-32", None),
]  # fmt: skip


@pytest.mark.parametrize(("header", "expected"), MEDIA)
def test_media_type(header, expected):
    """A Content-Type is read without its parameters; a charset that does not have ASCII's bytes is refused."""
    assert media_type(header) == expected


ACCEPTS = [
    (None, JSON, JSON), (None, LINES, LINES), (None, RECORDS, LINES), ("*/*", JSON, JSON), ("", JSON, JSON),
    (RECORDS, JSON, RECORDS), ("text/csv", JSON, None), ("application/*", RECORDS, LINES),
    (f"{LINES};q=0.5;x=1, {RECORDS};x=1;Q=0.25", JSON, LINES), (f" , {LINES} ,", JSON, LINES),
    (f"*/*, application/*;q=0, {RECORDS};q=0.1", LINES, RECORDS),
    (f"text/html, {LINES};q=0.5, {RECORDS};q=0.7", JSON, RECORDS), (f"{JSON};q=0, */*", JSON, LINES),
    ("application/json;q=x", JSON, None), ("*/*;q=0", JSON, None), (f"text/csv, {JSON}", RECORDS, JSON),
]  # fmt: skip


@pytest.mark.parametrize(("header", "content_type", "expected"), ACCEPTS)
def test_accept(header, content_type, expected):
    """Accept is honoured with its weights; without one JSON answers JSON, lines answer lines and records."""
    assert accepted(header, content_type) == expected


# ---- batch transform ----


def rows_of(n):
    rng = np.random.default_rng(1)
    return DenseRows(rng.normal(size=(n, DIM)).astype("f4"), None, DIM)


@compiled
def test_transform_records(tmp_path):
    """Records become lines of a file with the suffix .out, in order, however small the parts."""
    rows = rows_of(30)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.pbr").write_bytes(records(rows))
    (tmp_path / "in" / "deep" / "b.pbr").write_bytes(records(rows.to_sparse()))
    (tmp_path / "in" / "_SUCCESS").write_bytes(b"")
    m = model("binary_classifier")
    expected = Scorer(m).predict(rows).tolist()
    for payload in (10, 200, 10**6):
        written = transform(m, tmp_path / "in", tmp_path / "out", max_payload=payload)
        assert [path.relative_to(tmp_path).as_posix() for path in written] == ["out/a.pbr.out", "out/deep/b.pbr.out"]
        for path in written:
            assert [json.loads(line)["score"] for line in path.read_text().splitlines()] == expected


@compiled
def test_transform_lines_and_documents(tmp_path):
    """Lines are answered by lines; a JSON file is one document; documents on lines are requests of their own."""
    one, two = {"features": DENSE}, sparse([3], [2])
    (tmp_path / "a.jsonl").write_bytes(lines(one, two, one))
    (tmp_path / "b.json").write_bytes(body(one, two))
    (tmp_path / "c.json").write_bytes(body(one) + b"\n\n" + body(two, one))
    m, out = model(), tmp_path / "out"
    for payload in (1, 70, 10**6):
        (path,) = transform(m, tmp_path / "a.jsonl", out, content_type=LINES, max_payload=payload)
        scores = [json.loads(line)["score"] for line in path.read_text().splitlines()]
        assert len(scores) == 3 and scores[0] == scores[2] != scores[1]
    (path,) = transform(m, tmp_path / "b.json", out, content_type=JSON)
    assert json.loads(path.read_bytes()) == {"predictions": [{"score": scores[0]}, {"score": scores[1]}]}
    (path,) = transform(m, tmp_path / "c.json", out, content_type=JSON, split="Line", assemble="Line")
    assert [len(json.loads(line)["predictions"]) for line in path.read_text().splitlines()] == [1, 2]
    (path,) = transform(m, tmp_path / "a.jsonl", out, content_type=LINES, assemble="None", accept=RECORDS)
    assert len(path.read_bytes()) == 3 * 28


@compiled
def test_transform_multi_part_records(tmp_path):
    """A record that is written in parts, where its payload holds the magic, is never cut between them."""
    rows = rows_of(1)
    rows.matrix[0, 5] = np.array([0xCED7230A], "<u4").view("f4")[0]
    magic = (0xCED7230A).to_bytes(4, "little")
    content = records(rows)
    first, last = content[8:].split(magic)
    last = last[: int.from_bytes(content[4:8], "little") - len(first) - 4]
    parts = b"".join(
        magic + (len(part) | flag << 29).to_bytes(4, "little") + part + bytes(-len(part) % 4)
        for flag, part in ((1, first), (3, last))
    )
    (tmp_path / "a.pbr").write_bytes(parts * 3)
    (path,) = transform(model(), tmp_path / "a.pbr", tmp_path / "out", max_payload=1)
    scores = [json.loads(line)["score"] for line in path.read_text().splitlines()]
    assert scores == Scorer(model()).predict(rows).tolist() * 3


@compiled
def test_transform_faults(tmp_path):
    """A file with a fault is named with its place and gets no answer; the others get theirs."""
    good = records(rows_of(3))
    (tmp_path / "a.pbr").write_bytes(good + good[:6])
    (tmp_path / "b.pbr").write_bytes(good)
    (tmp_path / "c.pbr").write_bytes(b"")
    sources = [tmp_path / name for name in ("a.pbr", "b.pbr", "c.pbr")]
    with pytest.raises(DataError, match="ends in a record's header") as fault:
        transform(model(), sources, tmp_path / "out")
    assert "a.pbr: body: record 4" in str(fault.value) and "other files' answers" in str(fault.value)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.pbr.out", "c.pbr.out"]
    assert (tmp_path / "out" / "c.pbr.out").read_bytes() == b""


MISUSES = [
    ({"content_type": "text/csv"}, "content type"), ({"accept": "text/csv"}, "Accept"),
    ({"split": "TFRecord"}, "split"),
    ({"assemble": "Zip"}, "assemble"), ({"accept": RECORDS, "assemble": "Line"}, "assembled by line"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "what"), MISUSES)
def test_transform_misuse(options, what, tmp_path):
    """A rule that there is not is a usage error."""
    (tmp_path / "a.pbr").write_bytes(records(rows_of(1)))
    with pytest.raises(UsageError, match=what):
        transform(model(), tmp_path / "a.pbr", tmp_path / "out", **options)


@compiled
def test_transform_same_names(tmp_path):
    """Two sources that would write one file are refused, and an empty folder too."""
    for name in "xy":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.pbr").write_bytes(records(rows_of(1)))
    with pytest.raises(UsageError, match=r"two sources are named a\.pbr"):
        transform(model(), [tmp_path / "x", tmp_path / "y"], tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no files"):
        transform(model(), tmp_path / "none", tmp_path / "out")


def test_long_rows():
    """Many keys take numpy's way to the same checks."""
    keys = list(range(0, 3000, 3))
    rows = inference.read_json(body(sparse(keys, [1.0] * len(keys))), 3000)
    assert rows.indices.tolist() == keys and math.isclose(rows.values.sum(), 1000)
    with pytest.warns(DataWarning):
        swapped = inference.read_json(body(sparse(keys[::-1], [1.0] * len(keys))), 3000)
    assert swapped.indices.tolist() == keys
    with pytest.raises(DataError, match="3000 is beyond"):
        inference.read_json(body(sparse([*keys, 3000], [1.0] * (len(keys) + 1))), 3000)


@pytest.mark.parametrize("count", [3, 31, 32, 40])
def test_keys_in_any_order_are_held_against_the_dimension(count):
    """The first, the last and any between; few are looked at in Python, many by numpy."""
    keys = list(range(count))
    faults = [(count, count, f"is beyond the model's {count} features"), (-1, count + 1, "is below 0")]
    for order in (keys, keys[::-1], [*keys[1:], keys[0]], [*keys[:-2], keys[-1], keys[-2]]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            assert inference.read_json(body(sparse(order, [1.0] * count)), count).nnz == count
        for wrong, dim, said in faults:
            bad = [wrong if key == order[count // 2] else key for key in order]
            with pytest.raises(DataError) as fault:
                inference.read_json(body(sparse(bad, [1.0] * count)), dim)
            assert fault.value.where == f"instances[0].{F}.keys[{bad.index(wrong)}]"
            assert fault.value.what.startswith(f"{wrong} {said}")


def test_named_and_numbered_instances_keep_their_order():
    """Sparse rows out of order among named ones are sorted, all rows together."""
    with pytest.warns(DataWarning, match="1 row has keys out of order"):
        rows = inference.read_json(body(PERSON, sparse([2, 0], [5, 6])), 3, ENCODER)
    assert (rows.indptr.tolist(), rows.indices.tolist()) == ([0, 2, 4], [1, 2, 0, 2])
    assert rows.values.tolist() == [1, 1, 6, 5]
