"""fmtune.tune.yamlfile: YAML 1.2 with places, and everything that is refused before it can do harm."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmtune.errors import StudyFileError
from fmtune.tune import yamlfile
from fmtune.tune.yamlfile import MAX_BYTES, MAX_NODES, load, number_in, read


def refusal(text: str) -> StudyFileError:
    with pytest.raises(StudyFileError) as caught:
        load(text, "study.yaml")
    return caught.value


def test_scalars_follow_the_core_schema_of_yaml_1_2() -> None:
    """1e-3 is a float, yes is text, 010 is ten, a date is text, quotes make text."""
    text = "[1e-3, yes, 010, 0x1f, 0o17, 2024-01-01, '3', ~, true, .5, -.inf, 1_000, 12:30, on]"
    assert load(text, "s").value == [
        0.001, "yes", 10, 31, 15, "2024-01-01", "3", None, True, 0.5, float("-inf"), "1_000", "12:30", "on",
    ]  # fmt: skip


def test_every_key_and_value_has_its_place() -> None:
    """Lines and columns count from 1, in block and in flow style."""
    document = load("a:\n  b: [10, {c: deep}]\n'd': \"x\"\n", "s")
    assert document.keys[("a", "b")] == (2, 3, 1)
    assert document.values[("a", "b", 0)] == (2, 7, 2)
    assert document.values[("a", "b", 1, "c")] == (2, 15, 4)
    assert document.keys[("d",)] == (3, 1, 3)
    assert document.quoted == {("d",)}
    assert document.place(("a", "b", 7, "nowhere")) == document.values[("a", "b")]


def test_keys_are_text() -> None:
    """A key that looks like a number or a flag is the name that was written."""
    assert load("1: a\ntrue: b\n~: c", "s").value == {"1": "a", "true": "b", "~": "c"}


def test_a_repeated_key_is_a_fault_and_the_first_value_stays() -> None:
    """Both keys are named by line; the rest of the file is still read."""
    document = load("a: 1\nb: 2\na: {x: [3]}\nc: 4", "study.yaml")
    assert document.value == {"a": 1, "b": 2, "c": 4}
    assert [str(f) for f in document.faults] == [
        "study.yaml:3:1: the key 'a' is here a second time; the first is in line 1\n   3 | a: {x: [3]}\n     | ^\n"
        "  hint: take one of them out"
    ]
    assert ("a", "x") not in document.values


BROKEN = {
    "a:\n\t- b": "study.yaml:2:1: a tab stands where YAML wants spaces",
    "a: 1\n\tb: 2": "study.yaml:2:1: a tab stands where YAML wants spaces",
    "a: [1, 2\nb: 3": "study.yaml:1:4: the bracket '[' is never closed",
    "a: {b: 1": "study.yaml:1:4: the bracket '{' is never closed",
    "{a: 1 b: 2}": "study.yaml:1:8: a ',' or '}' is missing here",
    "a: b: c": "study.yaml:1:5: a ':' is not allowed here",
    'a: "x': "study.yaml:1:4: the quote is never closed",
    "a: 1\nfoo\nb: 2": "study.yaml:2:1: a ':' is missing after this key",
    "a:\n  b: 1\n c: 2": "study.yaml:3:2: the indentation does not fit the lines above",
    "a: @x": "study.yaml:1:4: a value cannot start with '@'",
    "a: ]": "study.yaml:1:4: ']' is not expected here",
    "a: 1\n---\nb: 2": "study.yaml:2:1: a second document starts here; a study file holds one",
    "a: &x 1": "study.yaml:1:4: anchors (&) and aliases (*) are not used in a study file",
    "a: *x": "study.yaml:1:4: anchors (&) and aliases (*) are not used in a study file",
    "a: !!python/object/apply:os.system [ls]":
        "study.yaml:1:4: tags (tag:yaml.org,2002:python/object/apply:os.system) are not used in a study file",
    "? [a]\n: b": "study.yaml:1:3: a key must be a plain name",
    "a\0b": "study.yaml:1:2: a NUL character is in the text",
    "a: \x1b[31m": "study.yaml:1:4: the control character U+001B is in the text",
    'a: "\\ud800"': "study.yaml:1:4: an escape makes a character that text cannot hold",
    'a: "\\U00110000"': "study.yaml:1:1: not YAML, here or below: chr() arg not in range(0x110000)",
    f"a: {'9' * 5000}": "study.yaml:1:4: a number of 5000 digits",
    "a: 1e999": "study.yaml:1:4: the number 1e999 is too large",
    "%YAML 9.9\n---\na": "study.yaml:1:1: found incompatible YAML document (version 1.* is required)",
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: repr(text[:20]))
def test_broken_text_is_refused_in_one_line_with_its_place(text: str) -> None:
    """path:line:column and what is wrong, with the line and a caret below."""
    error = refusal(text)
    first, _, rest = str(error).partition("\n")
    assert first == BROKEN[text]
    assert rest.splitlines()[1].lstrip(" |").startswith("^")


DEEP = {
    "flow": "a: " + "[" * 100_000,
    "flow over lines": "[\n" * 5_000,
    "maps": "{a: " * 30 + "}" * 30,
    "block": "".join(" " * i + "a:\n" for i in range(300)),
    "dashes": "- " * 3_000,
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP.keys())
def test_deep_nesting_is_refused(text: str) -> None:
    """No recursion error, whatever the style."""
    assert refusal(text).what == "nested more than 20 levels deep"


def test_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    """Nothing is expanded."""
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert refusal(bomb).where == "study.yaml:1:4"


def test_too_many_values_are_refused() -> None:
    """A study file is small; a megabyte of list items is not read to its end."""
    assert "more than 10000 values" in refusal("[" + "1," * (MAX_NODES + 5) + "]").what


def test_many_brackets_that_close_again_are_no_depth() -> None:
    """Siblings are not nested."""
    assert load("[" + "[1]," * 500 + "]", "s").value == [[1]] * 500


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """Missing (with the nearest name), a folder, a pipe, 50 MB, UTF-16, Latin-1, a name with NUL."""
    (tmp_path / "digits.yaml").write_text("a: 1")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(50_000_000)
    (tmp_path / "wide").write_bytes("a: 1".encode("utf-16"))
    (tmp_path / "wide2").write_bytes("a: 1".encode("utf-16-le"))
    (tmp_path / "latin").write_bytes(b"a: 1\nb: caf\xe9")
    (tmp_path / "nul").write_bytes(b"a: 1\n\0")
    cases = {
        "digit.yaml": "no such file (did you mean 'digits.yaml'?)",
        ".": "is a folder, not a file",
        "pipe": "is a pipe or a device, not a file",
        "large": "is 50.0 MB; a study file has at most 1 MB",
        "wide": "is UTF-16 text, or not text at all",
        "wide2": "is UTF-16 text, or not text at all",
        "latin": "byte 0xe9 is not UTF-8 text",
        "nul": "a NUL character is in the text",
        "a\0b": "cannot be read: its name holds a NUL",
        "x" * 300: "cannot be read: File name too long",
    }
    for name, what in cases.items():
        with pytest.raises(StudyFileError) as caught:
            read(tmp_path / name)
        assert caught.value.what == what
        assert caught.value.exit_code == 2
    with pytest.raises(StudyFileError) as caught:
        read(tmp_path / "latin")
    assert str(caught.value.where).endswith("latin:2:7")


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    """Editors add them; places do not move."""
    (tmp_path / "s.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    document = read(tmp_path / "s.yaml")
    assert document.value == {"a": 1, "b": "x"}
    assert document.values[("b",)] == (2, 4, 1)


def test_a_text_above_the_limit_is_refused_unread() -> None:
    """The same limit holds for text as for files."""
    assert "at most 1 MB" in refusal("#" * (MAX_BYTES + 1)).what


def test_numbers_in_quotes_are_told_from_text() -> None:
    """What to remove the quotes from."""
    assert number_in("1e-3") == 0.001
    assert number_in("12") == 12
    assert number_in("adam") is None
    assert number_in("true") is None
    assert number_in("9" * 5000) is None
    assert yamlfile.unquoted("64") == "remove the quotes"
    assert yamlfile.unquoted(64) is None


@given(st.text(alphabet="ab01-:[]{},#&*!|>'\"%@`?~ \n\t\\xU.é\0", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but StudyFileError comes out of the parser."""
    try:
        load(text, "s")
    except StudyFileError as error:
        assert str(error)


def test_a_file_of_a_folder_that_is_not_there_is_not_there(tmp_path: Path) -> None:
    """There is nothing to be meant instead."""
    with pytest.raises(StudyFileError) as caught:
        read(tmp_path / "nowhere" / "study.yaml")
    assert caught.value.what == "no such file"


@pytest.mark.skipif(not Path("/proc/kallsyms").exists(), reason="reads a file of Linux that does not tell its size")
def test_a_file_is_no_longer_than_it_says() -> None:
    """What is read counts, not what the folder tells."""
    with pytest.raises(StudyFileError) as caught:
        read(Path("/proc/kallsyms"))
    assert caught.value.what == "is 1.0 MB; a study file has at most 1 MB"
