"""fmtune.tune.places: what a fault looks like, whatever the file holds."""

from fmtune.errors import StudyFileError
from fmtune.tune.places import Place, Wrong, combined, fault, place_of, shortened, shown, suggestion


def test_a_fault_shows_its_line_and_a_caret_as_wide_as_the_thing() -> None:
    """The line number, the line, the caret."""
    error = fault("study.yaml", "a: 1\n  num_factros: 3\n", Place(2, 3, 11), "unknown", "look")
    assert str(error) == "study.yaml:2:3: unknown\n   2 |   num_factros: 3\n     |   ^^^^^^^^^^^\n  hint: look"


def test_a_long_line_is_cut_around_the_place() -> None:
    """The caret still stands under the first character meant."""
    text = "x" * 5000 + "HERE" + "y" * 5000
    line, caret = str(fault("s", text, Place(1, 5001, 4), "what")).splitlines()[1:]
    assert len(line) < 120
    assert line[caret.index("^") :][:4] == "HERE"


def test_a_password_in_a_url_is_hidden_and_the_caret_stays() -> None:
    """Before, inside and after the password."""
    text = "storage: mysql://me:s3cret@host/db, x"
    for column in (10, 22, text.index(",") + 1):
        shown_lines = str(fault("s", text, Place(1, column), "what"))
        assert "s3cret" not in shown_lines
        assert "me:***@host" in shown_lines
    line, caret = shown_lines.splitlines()[1:]
    assert line[caret.index("^")] == ","
    assert shortened("['mysql://me:p@ss/w@host']") == "['mysql://me:***@host']"


def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    """Escape, bell, right-to-left marks and tabs are replaced."""
    assert shortened("a\x1b[31m\x07\u202eb\tc\nd") == "a?[31m??b→c?d"


def test_long_values_are_cut() -> None:
    """Ten thousand characters become a line."""
    assert len(shown("x" * 10_000)) <= 130
    assert shown(None) == "nothing"
    assert shown(True) == "true"
    assert shown(1) == "1"
    assert shown({"a": 1}) == "a mapping of keys"


def test_faults_are_joined_in_the_order_of_the_file() -> None:
    """The first is the error's own; all are in faults; beyond fifty they are counted."""
    made = [fault("s", "a\nb", Place(line, 1), f"fault {line}") for line in (2, 1)]
    error = combined(made)
    assert str(error) == "s:1:1: fault 1\n   1 | a\n     | ^\ns:2:1: fault 2\n   2 | b\n     | ^"
    assert [f.where for f in error.faults] == ["s:1:1", "s:2:1"]
    assert str(combined([made[0]] * 60)).endswith("and 10 more")


def test_suggestions_are_near_or_not_given() -> None:
    """A did-you-mean is better left out than wild."""
    assert suggestion("num_factros", ["num_factors", "epochs"]) == " (did you mean 'num_factors'?)"
    assert suggestion("zzz", ["num_factors"]) == ""


def test_offsets_become_places() -> None:
    """Every line break of YAML counts, a Windows one once."""
    assert place_of("ab\r\ncd\ne", 5) == (2, 2, 1)
    assert Wrong(("b",), "x").under("a", 1).at == ("a", 1, "b")


def test_long_texts_lose_their_middle_and_nothing_else() -> None:
    """The longest text that is shown whole, and the shortest that is not."""
    assert shortened("x" * 240) == "x" * 240
    assert shortened("a" * 180 + "b" * 11 + "c" * 50) == "a" * 180 + " ... " + "c" * 50
    assert shown("x" * 118) == repr("x" * 118)
    assert shown("a" * 119) == "'" + "a" * 59 + " ... " + "a" * 49 + "'"
    assert shown(False) == "false" and shown([1, "a"]) == "[1, 'a']"


def test_fifty_faults_are_shown_and_the_others_counted() -> None:
    """The fiftieth is the last; a hint stands behind its own fault; those without a place come first."""
    made = [StudyFileError(f"fault {n}", where=f"s:{n}:1") for n in range(1, 52)]
    assert str(combined(made[:50])).endswith("\ns:50:1: fault 50")
    assert str(combined(made)).endswith("\ns:50:1: fault 50\nand 1 more")
    said = combined([fault("s", "ab", Place(1, 2), "late", "hint 1"), fault("s", "ab", Place(1, 1), "early", "hint 2"),
                     StudyFileError("whole")])  # fmt: skip
    assert str(said) == (
        "whole\ns:1:1: early\n   1 | ab\n     | ^\n  hint: hint 2\ns:1:2: late\n   1 | ab\n     |  ^\n  hint: hint 1"
    )
    assert str(combined(said.faults[1:])).startswith("s:1:1: early\n   1 | ab\n     | ^\n  hint: hint 2\ns:1:2: late")


def test_a_snippet_shows_a_hundred_characters() -> None:
    """Sixty before the place; the caret ends with them, and is sixty wide at most; a line that is not there is not."""
    text = "".join(chr(ord("a") + n % 26) for n in range(400))
    shown_lines = str(fault("s", text, Place(1, 201, 30), "w")).splitlines()[1:]
    assert shown_lines == ["   1 | " + text[140:240], "     | " + " " * 60 + "^" * 30]
    assert str(fault("s", text, Place(1, 61, 90), "w")).splitlines()[1:] == [
        "   1 | " + text[:100], "     | " + " " * 60 + "^" * 40]  # fmt: skip
    assert str(fault("s", text, Place(1, 62, 1), "w")).splitlines()[1] == "   1 | " + text[1:101]
    assert str(fault("s", text, Place(1, 1, 90), "w")).splitlines()[2] == "     | " + "^" * 60
    assert str(fault("s", "a\n", Place(2, 1), "w")) == "s:2:1: w"
    assert str(fault("s", "a\n" * 99999 + "b", Place(100000, 1, 0), "w")) == "s:100000:1: w\n100000 | b\n       | ^"
