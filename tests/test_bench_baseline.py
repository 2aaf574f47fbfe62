"""Baseline: accepted results, their history, and the steps in it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bench_fixtures import entry, result

from fmtune.bench import baseline
from fmtune.bench.worker import OURS
from fmtune.errors import DataError


def test_accept_replaces_the_baseline_and_appends_to_the_history(tmp_path):
    """Two acceptances leave the second result and two lines."""
    path = tmp_path / "baseline.json"
    for level in (0.01, 0.02):
        baseline.accept(result(entry(level=level), entry("b", error="broke")), path)
    assert baseline.read(path)["cases"][0]["summary"]["cpu"] == 0.02
    course = baseline.series(baseline.history(tmp_path), "a")
    assert len(course.dates) == 2
    assert course.values[1] / course.values[0] == pytest.approx(2, rel=0.05)
    assert baseline.series(baseline.history(tmp_path), "b").values == []


def test_a_torn_line_costs_only_itself(tmp_path):
    """A line that a crash cut short is left out, and the next one starts anew."""
    (tmp_path / "history.jsonl").write_text('{"date": "2026')
    baseline.accept(result(entry()), tmp_path / "baseline.json")
    assert len(baseline.history(tmp_path)) == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "no such baseline"), ("{", "cannot be read"), ("[]", "not a result"), ('{"schema": "x/1"}', "schema")],
)
def test_foreign_baselines_are_refused(content, fault, tmp_path):
    """What is missing, torn or of another schema is a DataError that says which."""
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=fault):
        baseline.read(path)


def test_schema_version_is_checked(tmp_path):
    """A result of a later schema is refused, not half understood."""
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({**result(entry()), "schema": "fmtune.bench/2"}))
    with pytest.raises(DataError, match=r"fmtune\.bench/1"):
        baseline.read(path)


def line(cpu: float, fingerprint: str = "here", **more):
    return {"date": "2026-01-01", "fingerprint": fingerprint, "suite": "quick", "cases": {"a": {"cpu": cpu, **more}}}


def test_times_on_one_machine_are_as_measured():
    """What was calibrated beside them changes nothing: only raw times of the same fingerprint make the course."""
    course = baseline.series([line(0.03, calibrated=100.0), line(0.024, calibrated=20.0)], "a")
    assert (course.values, course.moves) == ([0.03, 0.024], [])


def test_a_change_of_machine_goes_on_at_the_level_before():
    """Of another machine nothing is known at first; its own later times, and the first one's, are compared again."""
    lines = [line(1.0), line(3.0, "there"), line(3.3, "there"), line(0.9)]
    course = baseline.series(lines, "a")
    assert course.values == pytest.approx([1.0, 1.0, 1.1, 0.9])
    assert course.moves == [1, 3]


def test_suites_in_one_folder_are_apart():
    """A case of the same name in another suite is another case; a line that has a path counts for its file's name."""
    lines = [{**line(1.0), "suite": suite} for suite in ("quick", "ours", "../w/ours.yaml", "/elsewhere/theirs.yml")]
    assert [one["suite"] for one in baseline.of_suite(lines, "ours")] == ["ours", "../w/ours.yaml"]


def test_the_shipped_history_is_as_measured():
    """Its lines, the oldest included, give raw times on one machine; three that took 26 ms stand at one level."""
    course = baseline.series(baseline.of_suite(baseline.history(OURS / "reports"), "quick"), "fit-clicks-sparse-1")
    assert course.moves == [] and len(course.values) >= 4
    assert max(course.values[1:4]) / min(course.values[1:4]) < 1.02


def noisy(*levels: tuple[float, int], noise: float = 0.02):
    rng = np.random.default_rng(0)
    return [float(level * np.exp(rng.normal(0, noise))) for level, count in levels for _ in range(count)]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (((1.0, 30),), []),
        (((1.0, 15), (1.2, 15)), [(15, 1.2)]),
        (((1.0, 12), (1.3, 12), (0.9, 12)), [(12, 1.3), (24, 0.69)]),
        (((1.0, 4),), []),
    ],
)
def test_steps(levels, expected):
    """Lasting changes are found at their place with their size; noise and short series give none."""
    found = baseline.steps(noisy(*levels))
    assert [step.index for step in found] == pytest.approx([index for index, _ in expected], abs=1)
    assert [step.ratio for step in found] == pytest.approx([ratio for _, ratio in expected], rel=0.03)


def test_one_outlier_is_no_step():
    """A single slow day is not lasting."""
    values = noisy((1.0, 20))
    values[10] *= 2
    assert baseline.steps(values) == []
