"""RecordIO-wrapped protobuf: the specification's bytes, what is converted, and every bad file by its exact line."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmtune.data import recordio
from fmtune.data.canonical import DataWarning
from fmtune.data.schema import Record
from fmtune.errors import DataError
from fmtune.rows import DenseRows, Rows, SparseRows

VECTORS = {
    "dense": "0a23d7ce340000000a1e0a0676616c756573121412120a100000c03f000000c0000000000000803e"
    "12120a0676616c756573120812060a040000803f",
    "sparse": "0a23d7ce3a0000000a240a0676616c756573121a12180a0c0000803f0000803f0000003f12040003ac021a02e807"
    "12120a0676616c756573120812060a04000000000000",
    "empty": "0a23d7ce260000000a100a0676616c756573120612041a02e80712120a0676616c756573120812060a040000803f0000",
    "real": "0a23d7ce350000000a1f0a0676616c7565731215"
    "12130a080000803f0000803f120300b4071a02c11412120a0676616c756573120812060a040000a040000000",
}


def sparse(keys: list[int], values: list[float], dim: int, label: float) -> SparseRows:
    indptr, labels = np.array([0, len(keys)], np.int64), np.array([label], np.float32)
    return SparseRows(indptr, np.array(keys, np.int32), np.array(values, np.float32), labels, dim)


ROWS: dict[str, Rows] = {
    "dense": DenseRows(np.array([[1.5, -2.0, 0.0, 0.25]], np.float32), np.array([1.0], np.float32), 4),
    "sparse": sparse([0, 3, 300], [1.0, 1.0, 0.5], 1000, 0.0),
    "empty": sparse([], [], 1000, 1.0),
    "real": sparse([0, 948], [1.0, 1.0], 2625, 5.0),
}


def records(features: Any = (), label: float | None = 1.0, kind: str = "float32_tensor", **tensor: Any) -> bytes:
    """Return one framed record; ``tensor`` has keys and shape."""
    record = Record()
    getattr(record.features["values"], kind).values.extend(features)
    for name, content in tensor.items():
        getattr(getattr(record.features["values"], kind), name).extend(content)
    if label is not None:
        record.label["values"].float32_tensor.values.append(label)
    return recordio.frame(record.SerializeToString(deterministic=True))


def written(rows: Rows) -> bytes:
    stream = io.BytesIO()
    recordio.write(stream, rows)
    return stream.getvalue()


@pytest.mark.parametrize("name", VECTORS)
def test_the_specifications_vectors_are_read_and_written_byte_for_byte(name: str) -> None:
    """Vectors 1 to 4: the bytes give the rows, and the rows give the bytes."""
    assert recordio.parse(bytes.fromhex(VECTORS[name])).digest() == ROWS[name].digest()
    assert written(ROWS[name]).hex() == VECTORS[name]


def test_parts_of_a_record_are_joined_with_the_magic_between_them() -> None:
    """Vector 6's framing: a record split where the magic stands in its payload reads as the whole one."""
    magic = bytes.fromhex("0a23d7ce")
    value = float(np.frombuffer(magic, np.float32)[0])
    whole = records([1.0, value, value, 2.0, 3.0])
    payload = whole[8 : 8 + int.from_bytes(whole[4:8], "little")]
    parts = payload.split(magic)
    assert len(parts) == 3
    framed = b"".join(
        magic + (flag << 29 | len(part)).to_bytes(4, "little") + part + bytes(-len(part) % 4)
        for flag, part in zip((1, 2, 3), parts, strict=True)
    )
    plain = records([4.0, 5.0, 6.0, 7.0, 8.0])
    assert recordio.parse(framed).digest() == recordio.parse(whole).digest()
    assert recordio.parse(plain + framed + plain).digest() == recordio.parse(plain + whole + plain).digest()


def test_vector_six_is_a_whole_record_of_garbage() -> None:
    """The vector's payload is text, so it must be framed well and fail as protobuf."""
    with pytest.raises(DataError, match="record 1, byte 0: the bytes are not a protobuf record"):
        recordio.parse(bytes.fromhex("0a23d7ce04000020414243440a23d7ce0600006045464748494a0000"))


@pytest.mark.parametrize("dim", [None, 12])
def test_random_rows_survive_the_round_trip(dim: int | None) -> None:
    """Sparse rows with empty ones among them, and dense rows, come back bit for bit."""
    random = np.random.default_rng(0)
    matrix = (random.random((200, 12)) * (random.random((200, 12)) < 0.3)).astype(np.float32)
    matrix[[0, 7, 199]] = 0
    dense = DenseRows(matrix, random.standard_normal(200).astype(np.float32), 12)
    for rows in (dense, dense.to_sparse()):
        assert recordio.parse(written(rows), dim).digest() == rows.digest()


def test_other_types_become_float32_and_labels_may_be_missing() -> None:
    """Float64 and Int32 tensors are converted; without any label the rows have none."""
    doubles = recordio.parse(records([0.1, 2.0**-140], kind="float64_tensor"))
    assert isinstance(doubles, DenseRows)
    assert doubles.matrix.tolist() == np.array([[0.1, 2.0**-140]], np.float32).tolist()
    whole = recordio.parse(records([-7, 2**24 + 1], None, "int32_tensor", keys=[2, 5], shape=[9]))
    assert isinstance(whole, SparseRows)
    assert whole.values.tolist() == [-7, 2**24] and whole.labels is None and whole.feature_dim == 9


def test_unsorted_and_repeated_keys_are_put_right_with_a_warning() -> None:
    """Keys come back ascending, equal ones summed."""
    content = records([1, 2, 4, 8], keys=[5, 3, 5, 0], shape=[9]) + records([3], keys=[1], shape=[9])
    with pytest.warns(DataWarning, match="records: 1 row has keys out of order or repeated; 1 repeated entry was"):
        rows = recordio.parse(content)
    assert isinstance(rows, SparseRows)
    assert (rows.indptr.tolist(), rows.indices.tolist()) == ([0, 3, 4], [0, 3, 5, 1])
    assert rows.values.tolist() == [8, 2, 5, 3]
    with pytest.warns(DataWarning, match="records: 1 row has keys out of order; they were sorted"):
        recordio.parse(records([1, 2], keys=[5, 3]))


def test_dense_and_sparse_records_mixed_are_read_as_sparse() -> None:
    """The warning says so; a dense record gives its entries that are not zero."""
    content = records([1, 0, 2]) + records([3], keys=[4], shape=[6]) + records(shape=[6])
    with pytest.warns(DataWarning, match="records: 1 dense and 2 sparse records are mixed; all were read as sparse"):
        rows = recordio.parse(content)
    assert isinstance(rows, SparseRows)
    assert (rows.feature_dim, rows.indptr.tolist(), rows.indices.tolist()) == (6, [0, 2, 3, 3], [0, 2, 4])


def test_the_number_of_features_is_inferred_or_given() -> None:
    """The largest shape or key counts; a given feature_dim may be larger than both."""
    content = records([1], keys=[2], shape=[5]) + records([1], keys=[7])
    assert recordio.parse(content).feature_dim == 8
    assert recordio.parse(content, 100).feature_dim == 100


def raw(length: int, body: bytes = b"", flag: int = 0) -> bytes:
    return bytes.fromhex("0a23d7ce") + (flag << 29 | length).to_bytes(4, "little") + body


GOOD = records([1.0], keys=[2], shape=[9])
N = len(GOOD)
DENSE = records([1.0, 2.0])
D = len(DENSE)
TORN = "the file is cut short: copy or download it again"
DAMAGED = "the file is damaged or was not written as RecordIO: write it again"
REWRITE = "write the record again with the schema aialgs.data.Record"
FINITE = "values and labels must be finite float32 numbers: replace or drop such rows before writing the file"
SHARED = (
    "the channels of a study share one numbering, and data to score have their model's: "
    "check that file, or give a larger feature_dim (in a study, below data:)"
)

# What stands in the file, the place, what is wrong, the next step.
ALIKE = "give every record a label, or none"
ALL = "give every dense record all features"
BARE = records([1.0], None, keys=[1])

BAD: dict[str, tuple[bytes, str, str, str]] = {
    "empty": (b"", "", "the file is empty", "a channel needs at least one record"),
    "not RecordIO": (b"1,2,3\n4,5,6\n", "record 1, byte 0",
                     "no record starts here (the bytes 0a 23 d7 ce are missing)", DAMAGED),
    "header cut": (GOOD + GOOD[:6], f"record 2, byte {N}", "the file ends in a record's header", TORN),
    "body cut": (GOOD + GOOD[:20], f"record 2, byte {N}",
                 f"the record claims {N - 10} bytes, more than are left in the file", TORN),
    "padding cut": (GOOD + GOOD[:-1], f"record 2, byte {N}", "the file ends in a record's padding", TORN),
    "padding not zero": (GOOD[:-1] + b"\1", f"record 1, byte {N - 1}",
                         "the padding after the record is not zero", DAMAGED),
    "length beyond the file": (raw(1 << 24), "record 1, byte 0",
                               "the record claims 16777216 bytes, more than are left in the file", TORN),
    "length beyond 16 MiB": (raw((1 << 24) + 1), "record 1, byte 0",
                             "the record claims 16777217 bytes, more than the 16 MiB that one may have", DAMAGED),
    "parts beyond 16 MiB": (raw(4, b"abcd", 1) + raw((1 << 24) - 4, b"", 3), "record 1, byte 12",
                            "the record claims 16777220 bytes, more than the 16 MiB that one may have", DAMAGED),
    "last part missing": (GOOD + raw(4, b"abcd", 1), f"record 2, byte {N + 12}",
                          "the parts of a record do not follow each other as first, middle, last", DAMAGED),
    "first part missing": (raw(4, b"abcd", 3), "record 1, byte 0",
                           "the parts of a record do not follow each other as first, middle, last", DAMAGED),
    "garbage protobuf": (GOOD + raw(4, b"\x0a\x7fab"), f"record 2, byte {N + 8}",
                         "the bytes are not a protobuf record", DAMAGED),
    "no features": (raw(0), "record 1, byte 0", "the record has no features under the key 'values'", REWRITE),
    "keys and values of different length": (GOOD + records([1.0, 2.0], keys=[1]), f"record 2, byte {N}",
                                            "the features have keys and values of different length", REWRITE),
    "values without keys": (records([1.0], shape=[9]), "record 1, byte 0",
        "the features are 9 by their shape, but another number of values stands there without keys", REWRITE),
    "shape too large": (records([1.0], keys=[1], shape=[2**31]), "record 1, byte 0",
                        "the shape is 2147483648, beyond the 2147483647 features that can be numbered", REWRITE),
    "key beyond feature_dim": (GOOD + records([1.0], keys=[10]), f"record 2, byte {N}",
                               "key 10 is not below feature_dim 10", SHARED),
    "key of 64 bits": (records([1.0], keys=[2**64 - 1]), "record 1, byte 0",
                       "key 18446744073709551615 is not below feature_dim 10", SHARED),
    "key beyond its shape": (records([1.0], keys=[9], shape=[9]), "record 1, byte 0",
                             "key 9 is not below the record's own shape", REWRITE),
    "NaN feature": (GOOD + records([1.0, float("nan")], keys=[1, 4]), f"record 2, byte {N}",
                    "the value of feature 4 is nan", FINITE),
    "double beyond float32": (records([1e300], kind="float64_tensor", keys=[1]), "record 1, byte 0",
                              "the value of feature 1 is inf", FINITE),
    "inf label": (GOOD + records([1.0], float("-inf"), keys=[1]), f"record 2, byte {N}", "the label is -inf", FINITE),
    "a label missing": (GOOD + BARE, f"record 2, byte {N}",
                        "the record has no label, though records before it have one", ALIKE),
    "a label too many": (BARE * 2 + GOOD, f"record 3, byte {2 * len(BARE)}",
                         "the record has a label, though records before it have none", ALIKE),
}  # fmt: skip
BAD_DENSE: dict[str, tuple[bytes, str, str, str]] = {
    "uneven": (DENSE + records([1.0]), f"record 2, byte {D}",
               "a dense record of 1 values follows dense records of another length", ALL),
    "nothing said": (DENSE + records(), f"record 2, byte {D}",
                     "the record has neither values nor a shape, among dense records", REWRITE),
    "inf feature": (DENSE + records([1.0, float("inf")]), f"record 2, byte {D}",
                    "the value of feature 1 is inf", FINITE),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_records_give_place_cause_and_next_step(name: str, tmp_path: Path) -> None:
    """Each fault is a DataError (exit 3) whose text stands here word for word; feature_dim is 10."""
    content, place, what, hint = BAD[name]
    check(content, 10, place, what, hint, tmp_path)


@pytest.mark.parametrize("name", BAD_DENSE)
def test_bad_dense_records_give_place_cause_and_next_step(name: str, tmp_path: Path) -> None:
    """The same for dense files."""
    content, place, what, hint = BAD_DENSE[name]
    check(content, None, place, what, hint, tmp_path)


def check(content: bytes, dim: int | None, place: str, what: str, hint: str, folder: Path) -> None:
    path = folder / "x.pbr"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        recordio.read(path, dim)
    assert str(error.value) == f"{path}{': ' * bool(place)}{place}: {what}\n  hint: {hint}"
    assert error.value.exit_code == 3


def test_a_key_too_large_to_number_is_refused_without_a_feature_dim() -> None:
    """Features are numbered with 31 bits."""
    with pytest.raises(DataError, match="key 4294967296 is beyond the 2147483647 features that can be numbered"):
        recordio.parse(records([1.0], keys=[2**32]))


def test_a_dense_file_of_another_width_is_refused() -> None:
    """A channel's dense records must have the columns that the study has."""
    with pytest.raises(DataError, match="record 1, byte 0: a dense record has 2 values, but feature_dim is 3"):
        recordio.parse(DENSE, 3)


def test_what_is_not_needed_is_stepped_over() -> None:
    """Unknown fields, other map entries, uid and metadata are stepped over."""
    record = Record(uid="u", metadata="m", configuration="{}")
    record.features["other"].bytes.value.append(b"x")
    record.features["values"].float32_tensor.values.extend([1.0, 2.0])
    record.label["weight"].float32_tensor.values.append(3.0)
    record.label["values"].float32_tensor.values.extend([4.0, 5.0])
    rows = recordio.parse(recordio.frame(record.SerializeToString()))
    assert isinstance(rows, DenseRows) and rows.labels is not None
    assert (rows.matrix.tolist(), rows.labels.tolist()) == ([[1.0, 2.0]], [4.0])


def test_no_length_is_believed_before_it_was_checked() -> None:
    """A claim of 16 MiB, or of 2^60 values, allocates nothing of the kind."""
    recordio.parse(GOOD)
    tracemalloc.start()
    for content in (raw(1 << 24), raw(12, b"\x0a\xff\xff\xff\xff\x07" + bytes(6)), raw(1 << 24, bytes(100))):
        with pytest.raises(DataError):
            recordio.parse(content)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_sniffing_knows_the_magic() -> None:
    """A file is RecordIO by its first four bytes."""
    assert recordio.sniff(GOOD) and not recordio.sniff(b"0a23") and not recordio.sniff(b"")


def test_rows_without_labels_are_written_without_them() -> None:
    """In both layouts."""
    dense = DenseRows(np.eye(2, dtype=np.float32), None, 2)
    for rows in (dense, dense.to_sparse()):
        stream = io.BytesIO()
        recordio.write(stream, rows)
        back = recordio.parse(stream.getvalue())
        assert back.labels is None and back.digest() == rows.digest()


def test_a_key_that_breaks_off_in_a_plain_record_is_garbage() -> None:
    """Keys of plain records are read last of all; dense ones may have no label throughout."""
    stream = io.BytesIO()
    recordio.write(stream, DenseRows(np.eye(3, dtype=np.float32), np.ones(3, np.float32), 3).to_sparse())
    whole = stream.getvalue()
    at = whole.rindex(b"\x12\x01\x02")
    with pytest.raises(DataError, match="record 3, byte 140: the bytes are not a protobuf record"):
        recordio.parse(whole[: at + 2] + b"\xff" + whole[at + 3 :])


def test_a_plain_record_with_fewer_keys_than_values_is_refused() -> None:
    """As any other is: which value is whose would be a guess."""
    record = Record()
    record.features["values"].float32_tensor.values.extend([1.0, 2.0, 3.0])
    record.features["values"].float32_tensor.keys.extend([300, 2])  # three bytes
    record.features["values"].float32_tensor.shape.append(400)
    record.label["values"].float32_tensor.values.append(1.0)
    with pytest.raises(DataError, match="keys and values of different length"):
        recordio.parse(recordio.frame(record.SerializeToString(deterministic=True)))
