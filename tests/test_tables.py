"""Tables: every format gives the same frame, block by block, and says what is wrong with a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.feather
import pyarrow.parquet
import pytest

from fmtune.data import tables
from fmtune.data.columns import Columns
from fmtune.data.preparation import Tables
from fmtune.data.source import format_of
from fmtune.errors import DataError

FRAME = pd.DataFrame({"user": ["007", "NA", "é"], "n": [1, 2, 3], "x": [0.5, None, -1.0]})
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, date_format="iso"),
    "parquet": lambda frame, path: pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame), path),
    "arrow": lambda frame, path: pyarrow.feather.write_feather(frame, path, compression="uncompressed"),
}


@pytest.mark.parametrize("kind", tables.TABLES)
def test_every_format_gives_the_same_frame(kind: str, tmp_path: Path) -> None:
    """Known by content, whatever its name; text stays as it stands in the file; columns can be chosen."""
    WRITERS[kind](FRAME, tmp_path / "data")
    assert format_of(tmp_path / "data") == kind
    (read,) = tables.blocks(tmp_path / "data", kind, ["x", "user", "other"], ["user"])
    assert read["user"].tolist() == ["007", "NA", "é"]
    assert read["x"].fillna(9).tolist() == [0.5, 9, -1.0] and "n" not in read
    assert list(tables.head(tmp_path / "data", kind).columns) == ["user", "n", "x"]


@pytest.mark.parametrize("kind", tables.TABLES)
def test_large_tables_come_in_blocks(kind: str, tmp_path: Path) -> None:
    """No block has more than BLOCK rows, and all rows come, in their order."""
    WRITERS[kind](pd.DataFrame({"n": range(tables.BLOCK + 5), "m": 0}), tmp_path / "data")
    blocks = list(tables.blocks(tmp_path / "data", kind, ["n"]))
    assert [len(block) for block in blocks] == [tables.BLOCK, 5] and blocks[1]["n"].tolist()[-1] == tables.BLOCK + 4


LINES = [
    (b"a,b\n1,2\n3,4\n5,6\n", [2, 3, 4, None]),
    (b'\xef\xbb\xbfa;"b\nb"\r\n\r\n1;2\r\n"x\n\ny";4\r\n   \r\n5;6', [4, 5, 9, None]),
    (b'{"a": 1}\n\n{"a": 2}\n', [1, 3, None]),
    (b"1 1:1\n", [None]), (b"", [None]), (b"PAR1", [None]), (b"a,b\n" + b"x" * (1 << 18) + b",2\n", [None]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "lines"), LINES, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("packed", [False, True])
def test_a_row_has_a_line(content: bytes, lines: list[int | None], packed: bool, tmp_path: Path) -> None:
    """As an editor counts: names, blank lines and line ends in quotes are counted; what has no lines has none."""
    path = tmp_path / "data"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert [tables.line_of(path, row) for row in range(len(lines))] == lines
    if lines[0] is not None:
        assert sum(map(len, tables.blocks(path, format_of(path)))) == len(lines) - 1
    assert tables.line_of(tmp_path / "none", 0) is None is tables.line_of(tmp_path, 0)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_may_be_packed(kind: str, tmp_path: Path) -> None:
    """gzip is seen by content; a broken stream is an error of the file."""
    WRITERS[kind](FRAME, tmp_path / "plain")
    packed = gzip.compress((tmp_path / "plain").read_bytes())
    (tmp_path / "data").write_bytes(packed)
    assert format_of(tmp_path / "data") == kind
    assert len(tables.head(tmp_path / "data", kind)) == 3
    (tmp_path / "data").write_bytes(packed[:-9])
    with pytest.raises(DataError, match="the table cannot be read"):
        tables.head(tmp_path / "data", kind)


@pytest.mark.parametrize(("mark", "bom"), [(",", ""), ("\t", ""), (";", ""), (",", "\ufeff")])
def test_delimiters_of_csv_are_seen(mark: str, bom: str, tmp_path: Path) -> None:
    """Commas, tabs and semicolons; a byte order mark is no part of a name; quotes hide a delimiter."""
    path = tmp_path / "data"
    path.write_text(f'{bom}a{mark}b\n"1{mark}2"{mark}3\n', encoding="utf-8")
    assert format_of(path) == "csv"
    (read,) = tables.blocks(path, "csv", ["a", "b"], ["a"])
    assert read["a"].tolist() == [f"1{mark}2"] and read["b"].tolist() == [3]


UNREAD, AGAIN = "the table cannot be read", "correct or write the file again"
LINE = 'each line is a row, such as {"user": "42", "rating": 4.5}'
FAULTS = {
    b"1,2\n3,4\n": ("", "the first line holds numbers and no names", "put a first line with 2 names before it"),
    b"a,a\n3,4\n": ("", "two columns are called 'a'", "give each a name of its own"),
    b"a,b\n": ("", "the table holds no rows", "a channel needs at least one row"),
    b"a,b\n1,2,3\n4,5,6,7\n": (
        "", f"{UNREAD}: Error tokenizing data. C error: Expected 3 fields in line 3, saw 4", AGAIN),
    b"a,b\n\xff,1\n": ("", "the text is not UTF-8 (invalid start byte)", "write it as UTF-8"),
    b'{"a": 1}\n{"a": \n': (
        ": line 2", "the line is no JSON: Expecting value: line 2 column 1 (char 7)", LINE),
    b'{"a": 1}\n7\n': (": line 2", "the line is no object of names and values", LINE),
    b'{"a": "\\u00e9 \\ud83d\\ude00"}\n{"a": [1, "x\\ud800"]}\n': (
        ": line 2", "'\\ud800' is half a character", "write both halves, or the character"),
    b'{"a": 1}\n{"\xed\xa0\x80": 1}\n': (
        ": line 2", "'\\ud800' is half a character", "write both halves, or the character"),
    b"PAR1xxxxxxxxxxxxPAR1": (
        "", f"{UNREAD}: Parquet file size is 20 bytes, smaller than the size reported by footer's (2021161080bytes)",
        AGAIN),
    b"ARROW1xxxxxxxxxxxxx": ("", f"{UNREAD}: Not an Arrow file", AGAIN),
}  # fmt: skip


@pytest.mark.parametrize("content", FAULTS, ids=range(len(FAULTS)))
def test_a_bad_table_is_an_error_of_the_file(content: bytes, tmp_path: Path) -> None:
    """With place, cause and next step, and never an error of a library."""
    path = tmp_path / "data"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        tables.head(path, format_of(path))
    place, what, hint = FAULTS[content]
    assert str(error.value) == f"{path}{place}: {what}\n  hint: {hint}"


def test_a_suffix_chooses_a_format_of_tables() -> None:
    """Where one is written; whatever is read is known by its content."""
    assert {name: table.suffixes for name, table in tables.TABLES.items()} == {
        "parquet": (".parquet", ".pq"), "arrow": (".arrow", ".feather", ".ipc"),
        "jsonl": (".jsonl", ".ndjson", ".json"), "csv": (".csv", ".tsv"),
    }  # fmt: skip


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    """An id beyond 2**53 keeps its digits where others are missing."""
    big = 2**53 + 1
    path = tmp_path / "data"
    path.write_text(f'{json.dumps({"id": big})}\n{json.dumps({"id": None})}\n')
    assert tables.head(path, "jsonl")["id"].tolist()[0] == big
    pyarrow.parquet.write_table(pyarrow.table({"id": [big, None]}), path)
    assert tables.head(path, "parquet")["id"].tolist()[0] == big


def test_lines_that_are_longer_than_the_first_are_refused(tmp_path: Path) -> None:
    """Not one of them is cut in silence; blank lines of JSON are stepped over."""
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(DataError) as error:
        tables.head(path, "csv")
    assert str(error.value) == (
        f"{path}: the table cannot be read: lines have more fields than the first one names\n"
        "  hint: correct or write the file again"
    )
    path.write_text('{"a": 1}\n\n  \n{"a": 2}\n')
    assert tables.head(path, "jsonl")["a"].tolist() == [1, 2]


def test_notes_of_pandas_in_a_file_are_not_believed(tmp_path: Path) -> None:
    """An index that has a name is a column as any other; one without is none; damaged notes harm nobody."""
    path = tmp_path / "t"
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="user"))
    for index, names in ((frame.index, ["a", "user"]), (pd.Index([5, 7]), ["a"])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame.set_index(index)), path)
        assert sorted(tables.head(path, "parquet").columns) == names
    table = pyarrow.Table.from_pandas(frame).replace_schema_metadata({"pandas": "{}"})
    pyarrow.parquet.write_table(table, path)
    assert sorted(tables.head(path, "parquet").columns) == ["a", "user"]


HEADS = {
    "an index without a name": (",user,x\n7,a,1\n", ["user", "x"]),
    "a delimiter at the end": ("user,x,\na,1,\n", ["user", "x"]),
    "a name that holds a line end": ('"the\nuser",x\na,1\n', ["the\nuser", "x"]),
    "a name that holds delimiters": ('"a;b;c",x\na,1\n', ["a;b;c", "x"]),
    "a name that holds quotes": ('user,"a ""x"""\na,1\n', ["user", 'a "x"']),
    "blank lines before it": ("\n\r\nuser,x\na,1\n", ["user", "x"]),
    "a name that pandas gives": ("user,Unnamed: 0\na,1\n", ["user", "Unnamed: 0"]),
    "more names than a glance shows": (
        ",".join(f"column{n}" for n in range(9000)) + "\n" + ",".join("1" * 9000) + "\n",
        [f"column{n}" for n in range(9000)]),
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_the_names_of_csv_are_those_that_pandas_reads(head: str, tmp_path: Path) -> None:
    """The whole first record, however long or odd; a column without a name is no column."""
    content, names = HEADS[head]
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode())
    assert format_of(path) == "csv"
    assert list(tables.head(path, "csv").columns) == names
    (read,) = tables.blocks(path, "csv", names[-2:], names[-1:])
    assert list(read.columns) == names[-2:] and read[names[-1]].tolist() == ["1"]


def test_an_index_that_pandas_wrote_is_no_feature(tmp_path: Path) -> None:
    """It is the row's number, which tells nothing of another row."""
    frame = pd.DataFrame({"user": list("abcd"), "rating": [1, 2, 3, 4]})
    frame.to_csv(tmp_path / "index.csv")
    found = Tables(tmp_path / "index.csv", Columns("rating"))
    assert found.columns.features == ("user",) and found.fit().names() == [f"user={name}" for name in "abcd"]
