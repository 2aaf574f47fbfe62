"""The kernel for libsvm text: which lines it reads itself, and with which bits, and which it leaves to its caller."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest

from fmtune.kernels import text

FREE = 1 << 62


class Read(NamedTuple):
    """Where a pass over some text stopped, what it counted on the way, and the rows up to there."""

    at: int
    state: list[int]
    labels: list[float]
    rows: list[list[tuple[int, float]]]
    lines: list[int]


def parsed(content: bytes, base: int = 1, limit: int = FREE, labelled: int = -1) -> Read:
    buf = np.frombuffer(bytearray(content), np.uint8)
    state = np.array([0, 0, 1, labelled, 0, 0])
    indptr, lines, labels = np.zeros(9, np.int64), np.zeros(9, np.int64), np.zeros(9, np.float32)
    keys, values = np.zeros(9, np.int32), np.zeros(9, np.float32)
    at = text.parse(buf, 0, base, limit, indptr, keys, values, labels, lines, state)
    rows = int(state[text.ROWS])
    ends = indptr[: rows + 1].tolist()
    pairs = list(zip(keys.tolist(), values.tolist(), strict=True))
    cut = [pairs[a:b] for a, b in itertools.pairwise(ends)]
    return Read(at, state.tolist(), labels[:rows].tolist(), cut, lines[:rows].tolist())


PLAIN = [
    "0", "9", "10", "5.5", "-5.5", "+7", ".5", "5.", "-.25", "1e5", "1E5", "1e+5", "1e-5", "12e09", "-0", "0.1",
    "3.4028234e38", "1e-63", "1e38", "0e1000", "0e-99", "99999999999999999", "0.99999999999999999",
    "1.0000000000000000", "16777217", "16777219", "9007199254740993", "90071992547409931", "12345678901234567e22",
    "12345678901234567e-40", "1e22", "1e23", "7e-22", "7e-23", "1e-45",
]  # fmt: skip
"""Numbers that the kernel reads itself; each has the float32 that Python gives it."""

LEFT = [
    "1e39", "-1e39", "1e63", "1e64", "1e-64", "1e1000", "1e1001", "0e1001", "100000000000000000",
    "1.00000000000000000", "0.100000000000000000", "16777217.000000001", "e5", "1e", "1e+", "1e-", "+", "-", ".", "-.",
    "+e1", "1x", "1.2.3", "1e5.5", "--1", "1_0", "nan", "inf", "0x1", "1,2", "/1", "1/", ":1", "1e:", "1e/",
]  # fmt: skip
"""Numbers that it leaves: too long or too large, near a border between two float32, or none."""


@pytest.mark.parametrize("number", PLAIN)
def test_plain_numbers_are_read_here_with_pythons_bits(number: str) -> None:
    """As a value and as a label, at the end of the text and before a comment."""
    expected = np.float32(float(number)).tobytes()
    for content, rows in ((f"1:{number}", 1), (f"3:{number}#", 1), (f"1:2\n4:{number} 5:1\n", 2)):
        found = parsed(content.encode())
        assert (found.at, found.state[text.ROWS]) == (len(content), rows)
        assert np.float32(found.rows[-1][0][1]).tobytes() == expected
    for content in (number, f"{number} 1:1\n"):
        found = parsed(content.encode())
        assert (found.at, found.state[text.LABELLED]) == (len(content), 1)
        assert np.float32(found.labels[0]).tobytes() == expected


@pytest.mark.parametrize("number", LEFT)
def test_other_numbers_are_left_with_their_whole_line(number: str) -> None:
    """The pass stands at the begin of that line; nothing of it is counted."""
    for line in (f"1:1 2:{number}", f"1:{number} 7:1", number):
        found = parsed(f"1:1\n{line}\n".encode())
        assert found == Read(4, [1, 1, 2, 0, 0, 1], [0.0], [[(0, 1.0)]], [1])


# Text, and what a pass leaves: where it stops, (rows, entries, line, labelled, disorder, beyond), labels, rows, lines.
LINES: dict[str, tuple[bytes, Read]] = {
    "nothing": (b"", Read(0, [0, 0, 1, -1, 0, 0], [], [], [])),
    "blank lines and comments": (b"\n \t\n# 1 1:1\n\r\n", Read(14, [0, 0, 5, -1, 0, 0], [], [], [])),
    "every blank": (b"\x0b1\t2:3\x0c 4:5\r\n", Read(13, [1, 2, 2, 1, 0, 4], [1], [[(1, 3), (3, 5)]], [1])),
    "a comment behind": (b"1 2:3#4:5\n0 # x\n", Read(16, [2, 1, 3, 1, 0, 2], [1, 0], [[(1, 3)], []], [1, 2])),
    "no last line end": (b"\n1:2\n\n9:4", Read(9, [2, 2, 5, 0, 0, 9], [0, 0], [[(0, 2)], [(8, 4)]], [2, 4])),
    "keys down": (b"1 3:1 2:1\n0 5:1\n", Read(16, [2, 3, 3, 1, 1, 5], [1, 0], [[(2, 1), (1, 1)], [(4, 1)]], [1, 2])),
    "keys twice": (b"1 2:1 2:1\n", Read(10, [1, 2, 2, 1, 1, 2], [1], [[(1, 1), (1, 1)]], [1])),
    "a large key first": (b"9:1 1:1", Read(7, [1, 2, 2, 0, 1, 9], [0], [[(8, 1), (0, 1)]], [1])),
    "twelve digits": (b"000000000012:1", Read(14, [1, 1, 2, 0, 0, 12], [0], [[(11, 1)]], [1])),
    "thirteen digits": (b"0000000000012:1", Read(0, [0, 0, 1, -1, 0, 0], [], [], [])),
    "two labels": (b"1 2", Read(0, [0, 0, 1, -1, 0, 0], [], [], [])),
    "a label behind": (b"1:1 2", Read(0, [0, 0, 1, -1, 0, 0], [], [], [])),
    "a label is missing": (b"1 1:1\n1:1\n", Read(6, [1, 1, 2, 1, 0, 1], [1], [[(0, 1)]], [1])),
    "a label too many": (b"1:1\n1 1:1\n", Read(4, [1, 1, 2, 0, 0, 1], [0], [[(0, 1)]], [1])),
    "no colon before the end": (b"1:1 22", Read(0, [0, 0, 1, -1, 0, 0], [], [], [])),
    "a word": (b"x:1", Read(0, [0, 0, 1, -1, 0, 0], [], [], [])),
    "glued": (b"1:1\x0e", Read(0, [0, 0, 1, -1, 0, 0], [], [], [])),
    "glued to a label": (b"1\x08", Read(0, [0, 0, 1, -1, 0, 0], [], [], [])),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_pass_reads_plain_lines_and_stops_at_others(name: str) -> None:
    """Counted from 1, with the state that stands beside each."""
    content, expected = LINES[name]
    assert parsed(content) == expected


@pytest.mark.parametrize(("index", "base", "limit", "key"), [
    (0, 0, 1, 0), (0, 1, 9, None), (1, 1, 1, 0), (2, 1, 1, None), (10, 1, 10, 9), (11, 1, 10, None), (9, 0, 10, 9),
    (10, 0, 10, None),
])  # fmt: skip
def test_a_key_is_an_index_less_the_base_and_below_the_limit(index: int, base: int, limit: int, key: Any) -> None:
    """Any other leaves the line."""
    found = parsed(b"1 %d:5" % index, base, limit)
    assert found.rows == ([] if key is None else [[(key, 5.0)]])


@pytest.mark.parametrize(("labelled", "rows"), [(-1, 2), (0, 0), (1, 2)])
def test_a_pass_goes_on_with_what_lines_before_it_had(labelled: int, rows: int) -> None:
    """Labels, or none."""
    assert parsed(b"1 1:1\n0\n", labelled=labelled).state[text.ROWS] == rows


@pytest.mark.parametrize(("content", "found"), [
    (b"", False), (b":", False), (b"0", False), (b"0:1", True), (b"1 0:1", True), (b"1 00:1", True), (b"000:1", True),
    (b"1 10:1", False), (b"1 100:1", False), (b"1.0:1", False), (b"1 1:0", False), (b"#0:1", False),
    (b"# 0:1\n1 0:1", True), (b"1 1:1 # 0:1\n", False), (b"1 1:1 # 0:1\n0 2:0\n1\t0:1", True), (b"1\n0:1", True),
    (b"\x080:1", False), (b"\x0e0:1", False), (b"1\r0:1", True), (b"-0:1", False), (b"1:1 2:1", False),
])  # fmt: skip
def test_an_index_zero_is_seen(content: bytes, found: bool) -> None:
    """Of any number of zeros, outside of comments."""
    assert bool(text.holds_zero(np.frombuffer(bytearray(content), np.uint8))) is found


def test_line_ends_and_colons_are_counted() -> None:
    """Room is made by them."""
    assert text.count(np.frombuffer(bytearray(b"\n1:2 3:4\n:"), np.uint8)) == (2, 3)
    assert text.count(np.zeros(0, np.uint8)) == (0, 0)
