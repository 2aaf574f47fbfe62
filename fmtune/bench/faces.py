"""Faces: one result, told to different readers: JUnit XML, a GitHub step summary, customSmallerIsBetter JSON.

The result itself is JSON already.  Each face is a function of the result and of the gate's verdicts, if any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from fmtune.bench.gate import FAILS, Verdict, told

# GitHub refuses a step summary above 1 MiB.
SUMMARY_BYTES = 1 << 20

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(result: Mapping[str, Any], verdicts: Sequence[Verdict] = ()) -> str:
    """Return JUnit XML: a test case a case; regressed and worse are failures, failed is an error, missing both.

    ``cannot tell`` is skipped, with its words.
    """
    entries = {entry["name"]: entry for entry in result["cases"]}
    judged = {verdict.name: verdict for verdict in verdicts}
    names = [*entries, *(name for name in judged if name not in entries)]
    suite = ET.Element("testsuite", name=f"fmtune bench {_xml(str(result['suite']))}", timestamp=_stamp(result["date"]),
                       hostname="localhost")  # fmt: skip
    counts, total = dict.fromkeys(("failures", "errors", "skipped"), 0), 0.0
    for name in names:
        entry, verdict = entries.get(name), judged.get(name)
        seconds = (entry or {}).get("summary", {}).get("cpu", 0.0)
        total += seconds
        test = ET.SubElement(suite, "testcase", name=_xml(name), classname=f"bench.{(entry or {}).get('kind', 'case')}",
                             time=f"{seconds:.3f}")  # fmt: skip
        kind, text = _outcome(entry, verdict)
        if kind:
            counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[kind]] += 1
            word = ET.SubElement(test, kind, message=_xml(text))
            if kind != "skipped":
                word.set("type", verdict.verdict if verdict else "failed")
    for key, value in {"tests": len(names), **counts}.items():
        suite.set(key, str(value))
    suite.set("time", f"{total:.3f}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _outcome(entry: Mapping[str, Any] | None, verdict: Verdict | None) -> tuple[str, str]:
    if verdict is None:
        return ("error", str(entry["error"])) if entry and entry["error"] else ("", "")
    text = sentence(verdict)
    if verdict.verdict in ("failed", "missing"):
        return "error", text
    if verdict.verdict in FAILS:
        return "failure", text
    return ("skipped", text) if verdict.verdict == "cannot tell" else ("", "")


def sentence(verdict: Verdict) -> str:
    """Return one line about a verdict."""
    line = f"{verdict.name}: {verdict.verdict}"
    if verdict.ratio is not None:
        line += f", {change(verdict)}"
    if verdict.quality not in ("none", "equal"):
        line += f", quality {verdict.quality}"
    return "; ".join((line, *verdict.notes))


def change(verdict: Verdict) -> str:
    """Return a verdict's change of time and its interval; its ratio is known."""
    ends = [f"{100 * (x - 1):+.1f} %" for x in (verdict.ratio, verdict.low, verdict.high) if x is not None]
    return f"{ends[0]} ({ends[1]} to {ends[2]})" if len(ends) == 3 else ends[0]


def markdown(result: Mapping[str, Any], verdicts: Sequence[Verdict] = ()) -> str:
    """Return a GitHub step summary: a verdict sentence, then a table; cut to what GitHub takes."""
    judged = {verdict.name: verdict for verdict in verdicts}
    machine = result["machine"]
    lines = [
        f"## fmtune bench: {_cell(result['suite'])}", "", f"**{_cell(lead(result, verdicts))}**", "",
        "| case | verdict | change of CPU time | quality | CPU time | rows/s | of the ceiling |",
        "| --- | --- | --- | --- | --: | --: | --: |",
    ]  # fmt: skip
    rows = [_row(entry, judged.get(entry["name"])) for entry in result["cases"]]
    known = {entry["name"] for entry in result["cases"]}
    rows += [f"| {_cell(v.name)} | **{v.verdict}** | | | | | |" for v in verdicts if v.name not in known]
    notes = [f"- {_cell(v.name)}: {_cell(note)}" for v in verdicts for note in v.notes]
    tail = ["", *notes, "" * bool(notes), f"{_cell(machine['processor'])}, {machine['cores']} cores; "
            f"commit {result['commit'] or 'unknown'}; {result['date']}", ""]  # fmt: skip
    return _cut(lines, rows, tail)


def lead(result: Mapping[str, Any], verdicts: Sequence[Verdict] = ()) -> str:
    """Return the verdict over all cases in a sentence."""
    if not verdicts:
        failed = sum(entry["error"] is not None for entry in result["cases"])
        count = len(result["cases"])
        return f"{count} case{'s' * (count != 1)} measured" + (f", {failed} failed" if failed else "")
    words = [verdict.verdict for verdict in verdicts]
    bad = [v for v in verdicts if v.verdict in FAILS]
    count = told(verdicts)
    if bad:
        text = f"{len(bad)} of {len(words)} cases fail: " + ", ".join(f"{v.name} {v.verdict}" for v in bad)
    elif count:
        text = f"No regression found in the {count} of {len(words)} cases that were told"
    else:
        text = f"Nothing is known of a regression: none of {len(words)} case{'s' * (len(words) != 1)} was told"
    unsure, fresh = words.count("cannot tell"), words.count("new")
    return text + f"; {unsure} cannot be told" * bool(unsure) + f"; {fresh} new" * bool(fresh)


def _row(entry: Mapping[str, Any], verdict: Verdict | None) -> str:
    s, share = entry.get("summary", {}), (entry.get("ceiling") or {}).get("share")
    word = verdict.verdict if verdict else "failed" if entry["error"] else "measured"
    cells = (
        _cell(entry["name"]), f"**{word}**" if word in FAILS else word,
        change(verdict) if verdict and verdict.ratio is not None else "",
        verdict.quality if verdict else "", f"{1000 * s['cpu']:.2f} ms" if s else "",
        f"{s['rows_per_s']:,.0f}" if "rows_per_s" in s else "", f"{100 * share:.0f} %" if share is not None else "",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _cut(lines: list[str], rows: list[str], tail: list[str]) -> str:
    room = SUMMARY_BYTES - 200 - len("\n".join(lines).encode())
    kept: list[str] = []
    for line in [*rows, *tail]:
        room -= len(line.encode()) + 1
        if room < 0:
            return "\n".join([*lines, *kept, "", f"and {len(rows) + len(tail) - len(kept)} lines more"])
        kept.append(line)
    return "\n".join([*lines, *kept])


def smaller_is_better(result: Mapping[str, Any], verdicts: Sequence[Verdict] = ()) -> list[dict[str, Any]]:
    """Return what github-action-benchmark reads under ``tool: customSmallerIsBetter``: CPU time a case, final loss."""
    found: list[dict[str, Any]] = []
    judged = {verdict.name: verdict for verdict in verdicts}
    for entry in result["cases"]:
        if "summary" not in entry:
            continue
        cpu = sorted(1000 * sample["cpu"] for sample in entry["samples"])
        spread = (cpu[(3 * len(cpu)) // 4] - cpu[len(cpu) // 4]) / 2
        value = 1000 * entry["summary"]["cpu"]
        item = {"name": entry["name"], "unit": "ms", "value": value, "range": f"± {spread:.3g}"}
        if entry["name"] in judged:
            item["extra"] = sentence(judged[entry["name"]])
        found.append(item)
        if losses := entry["companions"].get("loss"):
            found.append({"name": f"{entry['name']} loss", "unit": "loss", "value": sum(losses) / len(losses)})
    return found


def _cell(text: object) -> str:
    """Return text that neither ends a table's cell nor begins anything of its own."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(str(text)[:500].split()))


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)


def _stamp(date: str) -> str:
    """Return an ISO date without its zone, as JUnit's schema wants it (UTC)."""
    return date.removesuffix("Z").partition("+")[0]
