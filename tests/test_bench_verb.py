"""The verb: modes, faces as files, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from fmtune.bench.verb import Options, bench
from fmtune.bench.worker import OURS
from fmtune.errors import DataError, UsageError

SUITE = """\
cases:
  - {name: nothing, kind: startup, command: python}
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    return str(tmp_path / "suite.yaml")


def run(**options):
    """Return exit code, lines and JSON texts."""
    lines, texts = [], []
    return bench(Options(**options), say=lines.append, put=texts.append), lines, texts


def test_accept_then_check(suite, tmp_path):
    """A baseline is written with its history; a check against it says what machine, case and verdict there are."""
    baseline = tmp_path / "reports" / "baseline.json"
    code, lines, texts = run(suite=suite, accept=True, check=baseline, as_json=True)
    assert code == 0
    assert json.loads(texts[0])["schema"] == "fmtune.bench/1"
    assert f"accepted: {baseline}; history: {baseline.parent / 'history.jsonl'}" in lines

    stored = json.loads(baseline.read_text())
    stored["machine"]["fingerprint"] = "another"
    stored["cases"] = [{**stored["cases"][0], "name": "gone"}]
    baseline.write_text(json.dumps(stored))
    summary = tmp_path / "summary.md"
    summary.write_text("earlier\n")
    names = {"junit": "j.xml", "smaller": "s.json", "out": "o.json"}
    faces = {"summary": summary, **{face: tmp_path / name for face, name in names.items()}}
    code, lines, _ = run(suite=suite, check=baseline, **faces)
    assert code == 1
    assert any("gone: missing" in line for line in lines) and any("nothing: new" in line for line in lines)
    assert ET.parse(faces["junit"]).getroot()[0].get("errors") == "1"
    assert summary.read_text().startswith("earlier\n## fmtune bench")
    assert [item["name"] for item in json.loads(faces["smaller"].read_text())] == ["nothing"]
    assert json.loads(faces["out"].read_text())["mode"] == "stored"


def test_a_failing_case_is_not_accepted(tmp_path):
    """A suite with a case that cannot run exits with 1 and leaves no baseline."""
    path = tmp_path / "suite.yaml"
    path.write_text("cases:\n  - {name: bad, kind: study, study: {data: digits}}\n")
    code, lines, _ = run(suite=str(path), accept=True, check=tmp_path / "baseline.json")
    assert code == 1
    assert lines[0].startswith("bad: failed") and lines[-1] == "not accepted: a case failed"
    assert not (tmp_path / "baseline.json").exists()


CONFLICTS = [
    {"against": "main", "check": Path("b.json")},
    {"accept": True},
    {"accept": True, "check": Path("b.json"), "cases": ("startup-help",)},
    {"peers": ("torch",), "against": "main"},
    {"tolerance": 5.0},
    {"least": 1},
    {"least": 1, "accept": True, "check": Path("b.json")},
    {"least": 100, "ci": True},
    {"ci": True, "check": Path("b.json")},
    {"peers": ("torhc",)},
    {"cases": ("no-such",)},
    {"suite": "no-such"},
    {"against": "no-such-ref-or-path"},
    {"against": "--upload-pack=x"},
    {"against": "no-such-ref", "ci": True},
]


@pytest.mark.parametrize("options", CONFLICTS, ids=str)
def test_what_does_not_go_together_is_refused(options):
    """A slip in the command line is a UsageError before anything is measured."""
    with pytest.raises(UsageError):
        run(**options)


def test_ci_says_what_hinders_it(suite):
    """With --ci what cannot be compared is said and passes, and no time at all is no failure either."""
    code, lines, _ = run(suite=suite, ci=True, within=0.0)
    assert code == 0
    assert lines[-1].startswith("not compared: ") or lines[-1].startswith("Nothing is known of a regression: none of 1")


def test_too_few_told_cases_fail_on_demand(suite, tmp_path, monkeypatch):
    """Without time nothing is told: with --least that is code 3, and so is a comparison that cannot be made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where an environment is begun
    code, lines, _ = run(suite=suite, ci=True, against=str(OURS), within=0.0, least=1)
    assert code == 3
    assert "none of 1 case was told; 1 cannot be told" in lines[-2] and lines[-1].startswith("--least 1: only 0 told")
    other = tmp_path / "other"
    (other / "fmtune").mkdir(parents=True)
    (other / "fmtune" / "__init__.py").touch()
    (other / "requirements.lock").write_text("no such lock")
    code, lines, _ = run(suite=suite, ci=True, against=str(other), within=0.0, least=1)
    assert code == 3 and lines[0].startswith("not compared: ") and lines[-1].startswith("--least 1")
    code, lines, _ = run(suite=suite, ci=True, against=str(other), within=0.0)
    assert code == 0


def test_ci_takes_turns_with_another_tree(suite):
    """Against a path every case is measured, and the result carries the verdicts."""
    code, _, texts = run(suite=suite, ci=True, against=str(OURS), budget=-1.0, as_json=True)
    found = json.loads(texts[0])
    assert code == 0
    assert found["mode"] == "paired" and found["verdicts"][0]["name"] == "nothing"
    assert len(found["cases"][0]["base"]["samples"]) == len(found["cases"][0]["samples"]) > 0


def test_a_missing_baseline_is_seen_first(suite, tmp_path):
    """Nothing is measured when there is nothing to compare with."""
    with pytest.raises(DataError, match="no such baseline"):
        run(suite=suite, check=tmp_path / "none.json")
