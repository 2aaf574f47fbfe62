"""What a run shows: lines, JSON, and the live table as a terminal would hold it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from fmtune.screen import Notebook, Screen, as_json, downloads, params, rate, screen, span

STUDY = {
    "event": "study", "study_name": "clicks", "objective": "test:rmse", "direction": "minimize",
    "cells": ["cpu-sparse", "cpu-dense"], "done": {"cpu-sparse": {"COMPLETE": 2, "PRUNED": 1}}, "n_trials": 8,
    "best": {}, "lanes": 4, "threads": 1, "storage": "sqlite:///study.db", "notes": [],
}  # fmt: skip


def _trial(number: int, value: float | None, state: str = "COMPLETE", reason: str | None = None) -> dict[str, Any]:
    return {"event": "trial", "cell": "cpu-sparse", "number": number, "state": state, "value": value, "epochs": 3,
            "seconds": 0.1, "rows_per_s": 1e6, "reason": reason,
            "params": {"num_factors": 8, "factors_lr": 0.01234567}}  # fmt: skip


EVENTS = [
    STUDY, {"event": "start", "cell": "cpu-sparse", "number": 3, "params": {}}, _trial(3, 0.5), _trial(4, 0.25),
    _trial(5, 0.75, "PRUNED", "pruned at epoch 2"), _trial(6, None, "FAIL", "diverged at epoch 1"),
    {"event": "progress", "cell": "cpu-sparse", "lanes": 3, "rows_per_s": 1_234_567.0, "part": 0.5,
     "epoch": [1, 2]},
]  # fmt: skip


def _shown(style: str) -> list[str]:
    out = io.StringIO()
    with screen(style, out) as listener:
        for event in EVENTS:
            listener(event)
    assert listener.finished == 4
    return out.getvalue().splitlines()


def test_lines_are_one_a_trial() -> None:
    """The first line is the study's, then each trial has one; a star marks each new best."""
    assert _shown("lines") == [
        "clicks: 8 trials in each of cpu-sparse, cpu-dense; 4 lanes, 1 thread; goes on with sqlite:///study.db",
        "cpu-sparse trial 3 COMPLETE 0.5 *  num_factors=8 factors_lr=0.0123",
        "cpu-sparse trial 4 COMPLETE 0.25 *  num_factors=8 factors_lr=0.0123",
        "cpu-sparse trial 5 PRUNED 0.75  num_factors=8 factors_lr=0.0123  (pruned at epoch 2)",
        "cpu-sparse trial 6 FAIL -  num_factors=8 factors_lr=0.0123  (diverged at epoch 1)",
    ]


def test_json_is_one_object_a_line() -> None:
    """Every event is a line of JSON, and comes back as it was."""
    assert [json.loads(line) for line in _shown("json")] == EVENTS


def test_json_never_holds_what_is_not_json() -> None:
    """NaN and infinity become null, however deep."""
    text = as_json({"a": [float("nan"), (float("inf"), 1.5)], 3: {"b": -float("inf")}})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, [None, 1.5]], "3": {"b": None}}


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_a_terminal(width: int) -> None:
    """Head, a row a cell with counts, best, lanes, speed and time left, the best trial the last ones, none wrapped."""
    table = Screen()
    for event in EVENTS:
        table(event)
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(table.render())
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert len(lines) == 11 and lines[10] == "" and max(map(len, lines)) <= width
    assert lines.pop(1) == "goes on with sqlite:///study.db"
    assert lines[0].split() == ["clicks", "test:rmse", "4", "lanes,", "1", "thread"]
    assert lines[1].split() == ["cell", "trials", "pruned", "failed", "best", "trial", "lanes", "rows/s", "left"]
    row = lines[2].split()
    assert row[:2] == ["cpu-sparse", "7/8"] and row[3:] == ["2", "1", "0.25", "#4", "3", "1.23", "M", "0", "s"]
    assert lines[3].split()[:2] == ["cpu-dense", "0/8"]
    assert lines[4].startswith("best #4 complete 0.25")
    table({"event": "cell", "cell": "cpu-sparse"})  # by its timeout
    with console.capture() as capture:
        console.print(table.render())
    assert " 7/8 " in capture.get() and " 0/7 " in capture.get()
    assert lines[5].startswith("     #6 fail     diverged at epoch 1") and lines[8].startswith("     #3 complete 0.5")


def test_trials_beyond_those_asked_for_are_no_part_of_them() -> None:
    """Where ``n_trials`` was lowered after a run the table says how many there are and how many are asked for."""
    study = {**STUDY, "n_trials": 3, "done": {"cpu-sparse": {"COMPLETE": 5, "PRUNED": 1}, "cpu-dense": {"COMPLETE": 2}}}
    shown: list[str] = []
    for listener in (table := Screen(), Notebook(lambda made, display_id: shown.append(made))):
        listener(study)
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(table.render())
    head, _, _, first, second, *_ = capture.get().splitlines()
    assert head.endswith("; the file asks for 3 trials")
    assert (first.split()[:2], second.split()[:2]) == (["cpu-sparse", "6"], ["cpu-dense", "2/3"])
    assert "cpu-sparse 6; the file asks for 3 trials, cpu-dense 2 of 3" in shown[0]


def test_the_table_before_and_after() -> None:
    """Before the study is read the screen says so; afterwards the last trials go, or all where nothing began."""
    table = Screen()
    assert "reading" in str(table.render())
    table.ended = True
    assert str(table.render()) == ""
    out = io.StringIO()
    with screen("live", out) as listener:
        for event in EVENTS:
            listener(event)
    assert "cpu-sparse" in out.getvalue() and "diverged" not in out.getvalue()


def test_the_first_trials_and_the_end_are_shown_too() -> None:
    """Before a trial has ended the table says at which epoch they are; at the end, what is being done."""
    table, console = Screen(), Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)

    def shown() -> str:
        with console.capture() as capture:
            console.print(table.render())
        return capture.get()

    table(STUDY)
    table({"event": "start", "cell": "cpu-sparse", "number": 3, "params": {}})
    assert "epoch" not in shown()
    table(EVENTS[-1])
    assert "no trial has ended yet; the furthest is at epoch 1 of 2" in shown()
    assert "-" not in shown().splitlines()[2].split()[-1]  # half a trial is enough to know what is left
    table(_trial(3, 0.5))
    assert "no trial has ended" not in shown()
    table({"event": "doing", "what": "training trial 3 again, the winner"})
    assert "training trial 3 again, the winner ..." in shown()


def test_a_study_that_goes_on_shows_its_best() -> None:
    """The best trial of earlier runs stands in the table, and only what beats it gets a star."""
    study = {**STUDY, "best": {"cpu-sparse": {"number": 1, "value": 0.4, "params": {"num_factors": 2}}}}
    out = io.StringIO()
    with screen("lines", out) as listener:
        for event in (study, _trial(3, 0.5), _trial(4, 0.25)):
            listener(event)
    assert [" * " in line for line in out.getvalue().splitlines()] == [False, False, True]
    table, console = Screen(), Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    table(study)
    with console.capture() as capture:
        console.print(table.render())
    assert "best #1 complete 0.4" in capture.get()


DOWNLOAD = [{"event": "download", "file": "a.gz", "bytes": done, "size": 3_000_000} for done in (1_500_000, 3_000_000)]


def test_a_run_shows_its_downloads() -> None:
    """A line for each file that has come; the live table shows a bar until the study is known."""
    out = io.StringIO()
    with screen("lines", out) as listener:
        for event in DOWNLOAD:
            listener(event)
    assert out.getvalue() == "downloaded a.gz, 3.0 MB\n"
    table, console = Screen(), Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    table(DOWNLOAD[0])
    with console.capture() as capture:
        console.print(table.render())
    assert "a.gz" in capture.get() and "1.5 of 3.0 MB" in capture.get()
    table(STUDY)
    with console.capture() as capture:
        console.print(table.render())
    assert "a.gz" not in capture.get() and "cpu-dense" in capture.get()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_downloads_have_a_bar_each_in_a_terminal() -> None:
    """And one line at the end of each file elsewhere."""
    for out, shown in ((Terminal(), ["a.gz", "3.0/3.0 MB"]), (io.StringIO(), ["downloaded a.gz, 3.0 MB\n"])):
        with downloads(out) as progress:
            for event in DOWNLOAD:
                progress(event["file"], event["bytes"], event["size"])
        assert all(text in out.getvalue() for text in shown)


def test_numbers_are_short() -> None:
    """Rates in three digits, times in the unit that fits, parameters in three digits."""
    assert [rate(v) for v in (None, 950, 12_345, 1.5e6, 2e9)] == ["-", "950", "12.3 k", "1.5 M", "2 G"]
    assert [span(v) for v in (3.2, 600, 9000)] == ["3 s", "10 min", "2.5 h"]
    assert params({"optimizer": "adam", "lr": 1 / 3, "k": 8}) == "optimizer=adam lr=0.333 k=8"
