"""Suites: the shipped ones are sound, and a slip in one is shown where it stands."""

from __future__ import annotations

import pytest

from fmtune.bench import case
from fmtune.bench.peer import PEERS
from fmtune.errors import StudyFileError, UsageError


@pytest.mark.parametrize("suite", ["quick", "full"])
def test_shipped_suites(suite):
    """Both have at least eight cases, of every kind."""
    cases = case.read(suite).cases
    assert len(cases) >= 8
    assert {one.kind for one in cases} == set(case.KINDS)


def test_cases_for_peers_are_of_their_kinds():
    """The suite of comparisons has what a peer runs: fits and whole studies."""
    assert {one.kind for one in case.read("peers").cases} == {kind for *_, kind in PEERS.values()}


def test_full_holds_quick():
    """What quick measures, full measures under the same name and definition."""
    assert set(map(str, case.read("quick").cases)) <= set(map(str, case.read("full").cases))


SLIPS = [
    ("kind: fitt", "kind must be one of fit, predict"),
    ("kind: fit\n    lane: 2", "unknown field 'lane'"),
    ("kind: fit\n    lanes: 0", "lanes must be a whole number of at least 1"),
    ("kind: fit\n    lanes: true", "lanes must be"),
    ("kind: fit\n    data: {card: digitz}", "did you mean 'digits'"),
    ("kind: fit\n    data: {card: digits, clas: 1}", "did you mean 'class'"),
    ("kind: fit\n    data: {card: digits}\n    hyperparameters: {num_factor: 1}", "did you mean 'num_factors'"),
    ("kind: startup\n    command: halp", "command must be one of"),
    ("kind: study", "content of a study file"),
    ("kind: fit\n    data: {card: digits}\n  - name: a\n    kind: startup", "a second case is called 'a'"),
]


@pytest.mark.parametrize(("text", "fault"), SLIPS)
def test_slips_have_places(text, fault, tmp_path):
    """The message names file, line and what was wanted."""
    path = tmp_path / "suite.yaml"
    path.write_text(f"cases:\n  - name: a\n    {text}\n")
    with pytest.raises(StudyFileError) as caught:
        case.read(path)
    assert fault in str(caught.value)
    assert f"{path}:" in str(caught.value)


@pytest.mark.parametrize(("given", "name"), [("suite: ours\n", "ours"), ("", "file")])
def test_a_suite_goes_by_its_own_name(given, name, tmp_path):
    """It is the one in the file, or the file's; not the path as it was typed."""
    (tmp_path / "file.yaml").write_text(f"{given}cases:\n  - {{name: a, kind: startup}}\n")
    assert case.read(tmp_path / "file.yaml").name == name
    assert case.read("quick").name == "quick"


def test_a_suite_without_cases(tmp_path):
    """An empty file is refused."""
    (tmp_path / "suite.yaml").write_text("suite: none\n")
    with pytest.raises(StudyFileError, match="needs a list of cases"):
        case.read(tmp_path / "suite.yaml")


def test_unknown_names():
    """Suites and cases that there are not are answered with those that there are."""
    with pytest.raises(UsageError, match="unknown suite 'quik'"):
        case.read("quik")
    with pytest.raises(UsageError, match="did you mean 'startup-help'"):
        case.choose(case.read("quick").cases, ("startup-hepl",))
