"""libsvm text: what is read, how it is written, and every bad line by its exact text."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from fmtune.data import libsvm
from fmtune.data.canonical import DataWarning
from fmtune.data.source import format_of
from fmtune.errors import DataError
from fmtune.rows import DenseRows, Rows, SparseRows


def read(folder: Path, text: str | bytes, dim: int | None = None, base: int | None = None) -> SparseRows:
    path = folder / "x.svm"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    rows = libsvm.read(path, dim, base=base)
    assert isinstance(rows, SparseRows)
    return rows


def test_indices_count_from_one_unless_a_zero_occurs(tmp_path: Path) -> None:
    """The convention, the exception, and a base that is given."""
    text = "1 1:0.5 3:2\n0 2:1e-3 # a comment\n\n# only a comment\n1\n"
    assert read(tmp_path, text).indices.tolist() == [0, 2, 1]
    assert read(tmp_path, text).indptr.tolist() == [0, 2, 3, 3]
    assert read(tmp_path, text, base=0).feature_dim == 4
    assert read(tmp_path, text + "1 0:1\n").indices.tolist() == [1, 3, 2, 0]


def test_labels_are_any_number_or_missing_throughout(tmp_path: Path) -> None:
    """Labels stay as they stand; without any, rows begin with their first pair."""
    labels = read(tmp_path, "-1 1:1\n+1 1:1\n3.5e0 1:1\n").labels
    assert labels is not None and labels.tolist() == [-1, 1, 3.5]
    assert read(tmp_path, "1:1 2:2\n0:4\n").labels is None


def test_gzip_reads_as_the_text_inside(tmp_path: Path) -> None:
    """Windows line ends and a missing last one do no harm either."""
    text = b"1 1:2\r\n0 2:3"
    assert read(tmp_path, gzip.compress(text)).digest() == read(tmp_path, text).digest()


def test_what_is_written_reads_back_bit_for_bit(tmp_path: Path) -> None:
    """Every float32 has a decimal that gives it back; labels may be missing."""
    random = np.random.default_rng(0)
    words = random.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    values = words[np.isfinite(words)][:3000]
    rows = SparseRows(np.arange(0, 3001, 3), np.tile([0, 4, 9], 1000).astype(np.int32), values, values[:1000], 10)
    for one in (rows, SparseRows(rows.indptr, rows.indices, rows.values, None, 10)):
        stream = io.BytesIO()
        libsvm.write(stream, one)
        assert read(tmp_path, stream.getvalue()).digest() == one.digest()


def test_dense_rows_are_written_without_their_zeros() -> None:
    """The format is sparse."""
    rows: Rows = SparseRows(
        np.array([0, 1]), np.array([2], np.int32), np.ones(1, np.float32), np.ones(1, np.float32), 4
    )
    stream = io.BytesIO()
    libsvm.write(stream, rows.to_dense())
    assert stream.getvalue() == b"1 3:1\n"


def test_an_unlabelled_row_of_zeros_stays_a_row(tmp_path: Path) -> None:
    """A blank line would be none, and later scores would stand at the wrong rows."""
    matrix = np.array([[0, 0], [1, 0], [0, 0], [0, 2]], np.float32)
    stream = io.BytesIO()
    libsvm.write(stream, DenseRows(matrix, None, 2))
    assert stream.getvalue() == b"1:0\n1:1\n1:0\n2:2\n"
    assert read(tmp_path, stream.getvalue()).to_dense().matrix.tolist() == matrix.tolist()


def test_keys_out_of_order_are_put_right_with_a_warning(tmp_path: Path) -> None:
    """As in every sparse format: sorted, and equal ones summed."""
    with pytest.warns(DataWarning, match="1 row has keys out of order or repeated; 1 repeated entry was summed"):
        rows = read(tmp_path, "1 3:1 1:2 3:4\n0 1:1\n")
    assert (rows.indices.tolist(), rows.values.tolist()) == ([0, 2, 0], [2, 5, 1])


LINE = "a line is 'label index:value index:value ...'"
FINITE = "values and labels must be finite float32 numbers: replace or drop such rows before writing the file"
SHARED = (
    "the channels of a study share one numbering, and data to score have their model's: "
    "check that file, or give a larger feature_dim (in a study, below data:)"
)
BAD: dict[str, tuple[str | bytes, str, str, str]] = {
    "no rows": ("# nothing\n\n", "", "the file holds no rows", "a channel needs at least one row"),
    "a word for a label": ("1 1:1\nyes 1:1\n", "line 2", "'yes' is not a label", LINE),
    "several labels": ("1,3 1:1\n", "line 1", "'1,3' is several labels", "a row has one label"),
    "no colon": ("1 1:1 2\n", "line 1", "'2' is not an index:value pair", LINE),
    "no value": ("1 1:1 2:\n", "line 1", "'2:' is not an index:value pair", LINE),
    "two colons": ("1 1:1:1\n", "line 1", "'1:1:1' is not an index:value pair", LINE),
    "a fraction for an index": ("1 1.5:1\n", "line 1", "'1.5:1' is not an index:value pair", LINE),
    "a negative index": ("1 -3:1\n", "line 1", "index -3 is below 1, where the numbering starts",
                         "one file counts features from 0 or from 1, not both"),
    "an underscore": ("1 1:1_0\n", "line 1", "'1:1_0' is not an index:value pair", LINE),
    "a query": ("1 qid:3 1:1\n", "line 1", "query groups (qid) are not supported", "remove the qid column"),
    "a label missing": ("1 1:1\n1:1\n", "line 2", "the line has no label, though lines before it have one",
                        "give every line a label, or none"),
    "a label too many": ("1:1\n1:1\n1 1:1\n", "line 3", "the line has a label, though lines before it have none",
                         "give every line a label, or none"),
    "NaN value": ("1 1:1\n0 1:1 7:nan\n", "line 2", "the value of feature 7 is nan", FINITE),
    "beyond float32": ("1 1:1e39\n", "line 1", "the value of feature 1 is inf", FINITE),
    "inf label": ("inf 1:1\n", "line 1", "the label is inf", FINITE),
    "index beyond feature_dim": ("1 10:1\n1 11:1\n", "line 2", "key 11 is not below feature_dim 11", SHARED),
    "gzip cut": (gzip.compress(b"1 1:1\n" * 99, mtime=0)[:-4], "line 100",
        "the gzip stream is damaged or cut short (Compressed file ended before the end-of-stream marker was reached)",
        "copy or download the file again"),
    "a line without end": (b"1 1:1\n" + b"1" * (16 << 20), "line 2", "the line is longer than 16 MiB", LINE),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_give_place_cause_and_next_step(name: str, tmp_path: Path) -> None:
    """Each fault is a DataError whose text stands here word for word; there are 10 features, counted from 1."""
    text, place, what, hint = BAD[name]
    with pytest.raises(DataError) as error:
        read(tmp_path, text, 10)
    assert str(error.value) == f"{tmp_path / 'x.svm'}{': ' * bool(place)}{place}: {what}\n  hint: {hint}"


def test_an_index_zero_in_a_file_that_counts_from_one_is_refused(tmp_path: Path) -> None:
    """When the channels were found, or said, to count from 1."""
    with pytest.raises(DataError, match="line 1: index 0 is below 1, where the numbering starts"):
        read(tmp_path, "1 0:1\n", base=1)


def test_an_index_too_large_to_number_is_refused(tmp_path: Path) -> None:
    """Also one that no machine integer holds."""
    with pytest.raises(DataError, match="line 1: key 4294967296 is beyond the 2147483647 features"):
        read(tmp_path, "1 4294967296:1\n")
    with pytest.raises(DataError, match="line 1: '1000000000000000000000:1' is not an index:value pair"):
        read(tmp_path, "1 1000000000000000000000:1\n")


@pytest.mark.parametrize(
    ("head", "known"),
    [(b"1 1:1\n", True), (b"# c\n\n-1 3:0.5 7:1e-3\n", True), (b"3:1\n", True), (b"x 1:1\n", True), (b"1 2 3\n", False),
     (b"a,b\n1:2,3\n", False), (b'{"a": 1}', False), (b"<p> 1:1 </p>", False), (b"", False), (b"1 1:1\0", False),
     (b"1,3 1:1\n", True), (b"1 qid:3 1:1\n", True), (b"1 1:1 # 12 o'clock\nx\n", True), (b"0\n\n1 3:1\n", True),
     (b"0\n1\n", False), (b"1 2:1 3:0.", True), (b"1 2:1 3", True), (b"1 2:1 3\n", True),
     (b"1 2:x\n", False), (b"1 2:", False), (b"1\t2:1\t3:4", True),
     (b"user,time\n1,2024-01-01 12:30\n", False), (b"user\ttime\n1\t12:30\n", False),
     (b"station\t08:00\nA\t3\n", False), (b"1,3\t1:1\n", True), (b"nan\t1:1\n", True), (b"5,1 12:30,x\n", False),
     (b"user;at 12:30\n1;2\n", False)],
)  # fmt: skip
def test_sniffing_looks_at_the_first_row(head: bytes, known: bool) -> None:
    """A pair behind its label makes libsvm, even where others are wrong: then the line is named.

    A time of day in a table makes none.
    """
    assert libsvm.sniff(head) is known


@pytest.mark.parametrize("mark", [",", "\t"])
def test_a_table_with_times_is_a_table(mark: str, tmp_path: Path) -> None:
    """A cell such as 12:30 is no index and its value."""
    path = tmp_path / "when"
    path.write_text(f"user{mark}rating{mark}time\n" + f"1{mark}5{mark}2024-01-01 12:30\n2{mark}4{mark}08:15\n")
    assert format_of(path) == "csv"


@pytest.mark.parametrize(
    ("content", "before"),
    [(b"12345678\n1\n", None), (b"123456789\n1", 0), (b"1\n2\n1234567890", 2), (b"1\n12345678901", 1),
     (b"1\n2345678\n9", None)],
)  # fmt: skip
def test_a_line_of_the_longest_length_is_found(content: bytes, before: int | None) -> None:
    """With how many lines lie before it; a line's end counts."""
    assert libsvm.lines_before(content, 10) == before


def test_numbers_that_are_not_plain_are_those_of_python(tmp_path: Path) -> None:
    """Too many digits, before and behind the point; exponents without end; also in lines without labels."""
    texts = ["123456789012345678901", "0.123456789012345678901", "1e-1001", "-0.5e-60", "16777217.0000000001", "1e+38"]
    (tmp_path / "x").write_text("".join(f"{n + 1}:{text}\n" for n, text in enumerate(texts)))
    rows = libsvm.read(tmp_path / "x")
    assert rows.labels is None
    assert rows.values.tolist() == [float(np.float32(float(text))) for text in texts]
    assert rows.indices.tolist() == list(range(len(texts)))


@pytest.mark.parametrize("text", ["1 1:1e", "1 1:e5", "1 1:.", "1 1:+", "1 1:1e+", "1 1:--1", "1 1:1.2.3"])
def test_half_a_number_is_none(text: str, tmp_path: Path) -> None:
    """The whole token is shown."""
    (tmp_path / "x").write_text(text + "\n")
    with pytest.raises(DataError) as error:
        libsvm.read(tmp_path / "x")
    assert str(error.value) == f"{tmp_path / 'x'}: line 1: {text[2:]!r} is not an index:value pair\n  hint: {LINE}"
