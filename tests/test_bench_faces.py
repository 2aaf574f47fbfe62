"""Faces: each is read the way its own consumer reads it, hostile names included."""

from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree as ET

import pytest
from bench_fixtures import entry, result

from fmtune.bench import baseline, faces
from fmtune.bench.gate import Verdict

HOSTILE = ["<script>&\"'", "a|b\n# c", "\x00\x1b[31m]]>", "名前 🔑", "`x` ![y](http://z)"]

# Jenkins' junit-10.xsd: the attributes and children that an element may have.
JUNIT = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id", "package",
         "file", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": ({"name", "time", "classname", "group"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
}  # fmt: skip
TIME = r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]{0,3})?"


def judged():
    entries = [entry(name) for name in HOSTILE] + [entry("broken", error="it <broke>"), entry("slow"), entry("unsure")]
    verdicts = [Verdict(name, "ok", 1.0, 0.99, 1.01, "equal") for name in HOSTILE] + [
        Verdict("broken", "failed", notes=("it <broke>",)),
        Verdict("slow", "regressed", 1.1, 1.05, 1.15, "within", ("a | note",)),
        Verdict("unsure", "cannot tell", 1.02, 0.9, 1.2),
        Verdict("gone", "missing", notes=("not in this run",)),
    ]
    return result(*entries), verdicts


@pytest.mark.parametrize("with_verdicts", [True, False])
def test_junit_is_what_the_schema_allows(with_verdicts):
    """Elements, attributes and counts are those of Jenkins' JUnit schema; times are numbers."""
    found, verdicts = judged()
    root = ET.fromstring(faces.junit(found, verdicts if with_verdicts else ()).encode())
    for node in root.iter():
        attributes, children = JUNIT[node.tag]
        assert set(node.attrib) <= attributes
        assert {child.tag for child in node} <= children
    (suite,) = root
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    for tag, count in (("testcase", "tests"), ("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert len(list(suite.iter(tag))) == int(suite.get(count))
    assert re.fullmatch(TIME, suite.get("time"))
    assert all({"tests", "failures", "errors", "name"} <= set(node.attrib) for node in root.iter("testsuite"))
    expected = ["1", "2", "1"] if with_verdicts else ["0", "1", "0"]
    assert [suite.get(key) for key in ("failures", "errors", "skipped")] == expected


def test_summary_is_a_table_that_names_cannot_break():
    """Every row has seven cells, whatever a case is called, and the verdict comes first."""
    text = faces.markdown(*judged())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}
    assert len(rows) == 2 + 9
    assert "**3 of 9 cases fail: " in text
    assert "<script>" not in text


def test_the_lead_says_how_many_were_told():
    """Cases that were not compared, or not decided, are no part of what has no regression."""

    def lead(*words):
        return faces.lead(result(), [Verdict(word, word) for word in words])

    assert lead("ok", "cannot tell", "new") == (
        "No regression found in the 1 of 3 cases that were told; 1 cannot be told; 1 new"
    )
    assert lead("new") == "Nothing is known of a regression: none of 1 case was told; 1 new"
    assert lead("worse", "cannot tell") == "1 of 2 cases fail: worse worse; 1 cannot be told"


def test_summary_is_cut_to_what_github_takes():
    """Thousands of cases stay below 1 MiB, and the rest is counted."""
    many = [entry(f"case-{i}-" + "x" * 80) for i in range(40)] * 200
    text = faces.markdown(result(*many))
    assert len(text.encode()) <= 1 << 20
    assert re.search(r"and \d+ lines more$", text)


def test_smaller_is_better_has_the_fields_of_github_action_benchmark():
    """A list of objects with name, unit and a finite value; range and extra are text; names are unique."""
    items = json.loads(json.dumps(faces.smaller_is_better(*judged()), allow_nan=False))
    for item in items:
        assert set(item) <= {"name", "unit", "value", "range", "extra"}
        assert isinstance(item["value"], float) and math.isfinite(item["value"])
        assert all(isinstance(item[key], str) for key in set(item) - {"value"})
    assert len({item["name"] for item in items}) == len(items)


def test_the_result_fits_its_own_schema():
    """The JSON Schema names every required field, and a result is read back unchanged."""
    schema = baseline.schema()
    assert {"schema", "suite", "date", "commit", "machine", "cases"} == set(schema["required"])
    found, _ = judged()
    baseline.Result.model_validate(json.loads(json.dumps(found)))
