"""The table of sections: what each of them must keep, whatever the study."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from markupsafe import Markup
from report_fixtures import not_run, of_state, study

from fmtune.report.record import masked
from fmtune.report.sections import SECTIONS, Section, winner
from fmtune.tune.result import CellResult, StudyResult, TrialResult

STUDIES = {
    "two cells": study(24), "one trial": study(1), "empty": study(0, cells=(), importance={}),
    "not run": study(0, cells=(not_run(),), importance={}), "failed": of_state("FAIL"), "pruned": of_state("PRUNED"),
    "waiting": of_state("WAITING", finished=None), "bare": StudyResult("", "rmse", "minimize", 0, (), {}, {}, {}, ""),
}  # fmt: skip
VOID = {"br", "hr", "img", "input", "link", "meta", "wbr"}


class Balance(HTMLParser):
    """Notes elements that are closed in the wrong order or not at all; ends that HTML lets out are allowed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        while (
            self.open and self.open[-1] in ("td", "th", "tr") and tag in ("td", "th", "tr") and self.open[-1] >= tag[:2]
        ):
            if self.open[-1] == "tr" and tag != "tr":
                break
            self.open.pop()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element of SVG that closes itself."""

    def handle_endtag(self, tag: str) -> None:
        while (
            self.open
            and self.open[-1] in ("td", "th", "tr")
            and tag in ("tr", "tbody", "thead")
            and self.open[-1] != tag
        ):
            self.open.pop()
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


@pytest.mark.parametrize("result", STUDIES.values(), ids=STUDIES.keys())
@pytest.mark.parametrize("make", SECTIONS, ids=lambda make: make.__name__)
def test_every_section_stands_for_every_study(make, result: StudyResult) -> None:  # type: ignore[no-untyped-def]
    """A section is named as its function, has a title and well-formed HTML, or is left out."""
    section = make(masked(result))
    if section is None:
        assert make is not SECTIONS[0]  # the verdict is always there
        return
    assert isinstance(section, Section) and isinstance(section.body, Markup)
    assert section.name == make.__name__ and section.title and section.body.strip()
    balance = Balance(section.body)
    assert not balance.faults and not balance.open
    assert "None" not in section.body and "Undefined" not in section.body


def test_names_are_unique_and_documented() -> None:
    """No two sections share an anchor, and each function says what it returns."""
    assert len({make.__name__ for make in SECTIONS}) == len(SECTIONS)
    assert all(make.__doc__ and make.__doc__.startswith("Return") for make in SECTIONS)


def test_the_winner_s_metrics_are_of_the_model_that_was_scored() -> None:
    """With patience that is the best epoch's and not the last one's: the table promises no epoch."""
    section = winner(study(24))
    assert section is not None and "of the model that was scored" in section.body
    assert "last epoch" not in section.body


def test_the_winner_s_yaml_gives_exact_values_back() -> None:
    """What is pasted is what won: floats to the last digit, in a form that YAML 1.1 reads as a number too."""
    params = {
        "factors_lr": 1e-05,
        "linear_lr": 0.1 + 0.2,
        "k": 3,
        "lazy": True,
        "optimizer": "adam",
        "odd": "on: #x",
        "clip": None,
    }
    cell = CellResult("cpu", "sparse", (TrialResult(0, "COMPLETE", params, 0.5),))
    section = winner(study(1, cells=(cell,), fixed={"epochs": 7, "lazy": False}))
    assert section is not None
    for line in ("factors_lr: 1.0e-05", "linear_lr: 0.30000000000000004", "k: 3", "lazy: true", "optimizer: adam",
                 "odd: &#34;on: #x&#34;", "clip: null", "epochs: 7"):  # fmt: skip
        assert f"\n  {line}\n" in section.body.replace("</code>", "\n")
