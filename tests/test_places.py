"""fmtune.tune.places: what a fault looks like, whatever the file holds."""

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
