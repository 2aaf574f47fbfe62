"""The page: self-contained, safe against hostile text, and the machine-readable result itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_fixtures import heavy, not_run, of_state, study

from fmtune.errors import DataError
from fmtune.report.page import build, extract, write
from fmtune.report.record import from_json, to_json
from fmtune.report.sections import SECTIONS, Section
from fmtune.tune.result import CellResult, StudyResult, TrialResult

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</SCRIPT ><img src=x onerror=alert(1)>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)//",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "` onmouseover=`alert(1)",
    "javascript:alert(1)",
    "<a href=javascript:alert(1)>x</a>",
    '<a href="jav&#x09;ascript:alert(1)">x</a>',
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=javascript:alert(1)>",
    "<embed src=//evil.example>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css'</style>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</pre></code><script>alert(1)</script>",
    "</svg><script>alert(1)</script>",
    "</text></svg><script>alert(1)</script>",
    "<!--<script>alert(1)",
    "--><script>alert(1)</script>",
    "--!><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "]]><script>alert(1)</script>",
    "<?xml version='1.0'?><x/>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "&",
    "&amp;&",
    "{{ 7*7 }}",
    "{% include '/etc/passwd' %}",
    "{{ ''.__class__.__mro__ }}",
    "${7*7}",
    "#{7*7}",
    "<%= 7*7 %>",
    "$\\frac{1}{0}$",
    "$x_1$ and $y^2$",
    "\\u003cscript\\u003e",
    "\u2028alert(1)\u2029",
    "\x00<script>alert(1)</script>",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "\ud800<script>",
    "\u202etxt.exe",
    "line\nbreak\r\n<script>alert(1)</script>",
    "\t<b>bold</b>",
    "\x1b[31mred",
    "<form action=//evil.example><input name=q></form>",
    "<math><mi xlink:href=javascript:alert(1)>x</mi></math>",
    "<details open ontoggle=alert(1)>",
    "<body onload=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<x style=behavior:url(x)>",
    "expression(alert(1))",
    "'; DROP TABLE trials; --",
    "../../../../etc/passwd",
    '=HYPERLINK("//evil.example")',
    "漢字🎲 \u0430dmin",
    "A" * 10_000,
)


@cache
def plain(sections: tuple[Callable[[StudyResult], Section | None], ...]) -> Outline:
    """Return the outline of the page that has a plain word in every slot."""
    return Outline(build(hostile("plain"), sections))


@cache
def written(text: str) -> str:
    """Return the page with the text in every slot, without charts, built once."""
    return build(hostile(text), WRITTEN)


@cache
def page(trials: int = 30) -> str:
    """Return the page of the study of so many trials, built once."""
    return build(study(trials))


class Outline(HTMLParser):
    """Collects every element with its attributes' names, and the text of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[tuple[str, str, str]] = []
        self.code: dict[str, list[str]] = {"script": [], "style": []}
        self._in: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.values += [(tag, name, value or "") for name, value in attrs]
        self._in = tag if tag in self.code else None

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, data: str) -> None:
        if self._in:
            self.code[self._in].append(data)


def hostile(text: str) -> StudyResult:
    """Return a small study with ``text`` in every slot that takes free text."""

    def trial(number: int, state: str, value: float | None) -> TrialResult:
        params = {"n" + text: number + 1.0, "c" + text: text, "k": 2 + number}
        return TrialResult(number, state, params, value, (0.9, 0.8 - number / 50), 2, {"m" + text: 0.5}, 1.0, 1e4, text)

    some = (
        *(trial(n, "COMPLETE", 0.8 - n / 50) for n in range(3)),
        trial(3, "FAIL", None),
        trial(4, "PRUNED", None),
        trial(5, "S" + text, None),
    )
    cells = (
        CellResult("cpu", "sparse" + text, some, text, 6.0, 1e4, 50.0),
        CellResult(text, text, some, None, 3.0, 2e4),
        CellResult("gpu", "dense", (), text),
    )
    space = {
        "n" + text: {"type": "float", "low": 1.0, "high": 9.0, "log": False},
        "c" + text: {"type": "categorical", "choices": [text, "b"]},
    }
    return StudyResult(
        text, "test:" + text, "minimize", 6, cells, space, {"f" + text: text},
        {
            "train": {"rows": 5, "nnz": 9, "feature_dim": 3, "digest": text},
            "x" + text: {"rows": text, "nnz": text, "feature_dim": text, "digest": text},
        },
        text,
        holdout={"score": 0.8, "metrics": {"m" + text: 0.7}, "opened": 2, "trial": 2},
        selection={
            "trial": 2, "naive": 0.76, "corrected": 0.78, "low": 0.7, "high": 0.8, "draws": 1000, "rows": 5,
            "wins": {"2": 0.4, "0": 0.6, text: 0.1, "x" + text: text},
            "curve": [{"trial": 0, "naive": 0.8, "corrected": 0.8}, {"trial": 2, "naive": 0.76, "corrected": 0.78},
                      {"trial": text, "naive": text, "corrected": 0.1}, text],
        },
        confirmation={
            "seeds": 3, "rows": 5, "best": 2,
            "scores": {"2": {"mean": 0.77, "sd": 0.01}, "1": {"mean": 0.78, "sd": 0.02}, text: {"mean": text}},
            "pairs": [{"trial": 1, "difference": 0.01, "low": -0.01, "high": 0.02, "verdict": text, "sentence": text}],
            "sentences": [text], "holdout": {"trial": 2, "score": 0.8, "sd": 0.01, "opened": 2},
        },
        importance={"n" + text: 0.6, "c" + text: 0.4}, environment={"e" + text: text, "fmtune": text},
        spec_path=text, spec_text=text, sampler=text, pruner=text, started=text, finished=text, model_path=text,
    )  # fmt: skip


DRAWN = {"quality", "pace", "overtuning", "history", "importance", "slices"}
WRITTEN = tuple(make for make in SECTIONS if make.__name__ not in DRAWN)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_inert_in_every_slot(text: str) -> None:
    """No hostile string adds an element or an attribute: the outline is that of the same page with a plain word."""
    assert Outline(written(text)).elements == plain(WRITTEN).elements


@pytest.mark.parametrize("text", HOSTILE[::6], ids=range(len(HOSTILE[::6])))
def test_hostile_text_is_inert_in_charts(text: str) -> None:
    """Names and choices that go through matplotlib come out as text, on one line, without mathematics."""
    usual, got = plain(SECTIONS), Outline(build(hostile(text)))
    # Attributes differ with where a label ends up, so kinds are compared: no new element, no new attribute.
    assert {(tag, name) for tag, name, _ in got.values} <= {(tag, name) for tag, name, _ in usual.values}
    assert {tag for tag, _ in got.elements} <= {tag for tag, _ in usual.elements}
    assert sum(tag == "script" for tag, _ in got.elements) == 2


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_data_comes_back_whatever_the_text(text: str) -> None:
    """What ``extract`` gives is what ``to_json`` made, for hostile text too, and a file can hold the page."""
    html = written(text)
    assert extract(html) == json.loads(json.dumps(to_json(hostile(text))))
    assert html.encode("utf-8").count(b"<script") == 2


def test_the_policy_allows_exactly_our_style_and_script() -> None:
    """The hashes are those of the one style element and the one script; there is no unsafe-inline."""
    html = page()
    outline = Outline(html)
    policy = next(v for tag, name, v in outline.values if tag == "meta" and name == "content" and "default-src" in v)
    for kind, text in (("style", outline.code["style"][0]), ("script", outline.code["script"][-1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy


def test_nothing_is_requested_and_nothing_needs_an_exception() -> None:
    """No address points outside, and no style or event attribute is left, not even from matplotlib."""
    for tag, name, value in Outline(page()).values:
        assert name != "style" and not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("#") or value == "data:,", (tag, name, value)


def test_ids_are_unique() -> None:
    """Every id stands once, so links, labels and the charts' own references find what they mean."""
    ids = [value for _, name, value in Outline(page()).values if name == "id"]
    assert len(ids) == len(set(ids))


def test_references_inside_charts_resolve() -> None:
    """Each marker and clip path that a chart names is defined in the page."""
    outline = Outline(page())
    ids = {value for _, name, value in outline.values if name == "id"}
    used = {v[1:] for _, name, v in outline.values if name == "href" and v.startswith("#") and "trial=" not in v}
    used |= {m for _, name, v in outline.values if name == "clip-path" for m in re.findall(r"url\(#(.+?)\)", v)}
    assert used and used <= ids


def test_the_same_result_gives_the_same_bytes() -> None:
    """A page has no clock and no random ids."""
    assert build(study(30)) == page()


def test_the_page_is_the_result() -> None:
    """From the page alone the study's result is made again; a page made from that is the same page."""
    assert build(from_json(extract(page()))) == page()


@pytest.mark.parametrize(("trials", "limit"), [(200, 300_000), (1000, 2_000_000)])
def test_pages_stay_small(trials: int, limit: int) -> None:
    """Under 300 kB at 200 trials in each of two cells, under 2 MB at 1,000."""
    assert len(build(study(trials)).encode()) < limit


def test_the_heaviest_page_stays_small() -> None:
    """200 complete trials of 30 epochs, 7 parameters and 4 metrics in two cells, confirmed: under 300 kB."""
    assert len(build(heavy()).encode()) < 300_000


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (lambda: study(0, cells=(), importance={}), "This study has no trials yet."),
        (lambda: study(0, cells=(not_run(),), importance={}), "This study has no trials yet."),
        (lambda: study(1), "the only complete trial"),
        (lambda: of_state("FAIL"), "All 5 trials failed: there is no winner."),
        (lambda: of_state("FAIL", 1), "The only trial failed: there is no winner."),
        (lambda: of_state("PRUNED"), "All 5 trials were pruned: there is no winner."),
        (lambda: of_state("RUNNING", finished=None), "No trial has ended with a score yet: 5 running."),
        (lambda: study(30, finished=None, n_trials=64), "wins so far"),
        (lambda: study(30, cells=(*study(30).cells, not_run())), "not run: no CUDA device"),
        (lambda: study(30, direction="maximize"), "higher is better"),
    ],
    ids=["empty", "none ran", "one", "failed", "one failed", "pruned", "running", "unfinished", "not run", "maximize"],
)
def test_every_situation_gives_a_page_that_says_so(result: Callable[[], StudyResult], sentence: str) -> None:
    """Empty, one trial, all failed, all pruned, running, unfinished: each is a whole page with its sentence."""
    html = build(result())
    assert sentence in html and html.endswith("</html>") and extract(html)["study"]["study_name"] == "digits"


def test_values_that_are_not_finite_are_shown_and_kept() -> None:
    """A curve that ran to infinity, a metric that is not a number: the page is made and the data stays JSON."""
    odd = TrialResult(0, "FAIL", {"k": 1}, None, (1.0, float("inf"), float("nan")), metrics={"auc": float("nan")})
    good = TrialResult(1, "COMPLETE", {"k": 2}, 0.5, (0.6, 0.5), 2)
    cells = (CellResult("cpu", "sparse", (odd, good)),)
    record = extract(build(study(2, cells=cells, search_space={}, importance={})))
    assert record["cells"][0]["trials"]["curve"][0] == [1.0, "Infinity", "NaN"]


def test_passwords_in_addresses_are_masked_everywhere() -> None:
    """A storage address with a password shows it neither in the text nor in the data."""
    html = build(study(3, spec_text="storage: postgresql://me:s3cret@host/db\n"))
    assert "s3cret" not in html and "postgresql://me:***@host/db" in html


def test_write_leaves_one_file(tmp_path: Path) -> None:
    """The page is written whole, folders are made, and no temporary file stays."""
    write(study(3), tmp_path / "reports" / "digits.html")
    assert [p.name for p in (tmp_path / "reports").iterdir()] == ["digits.html"]


@pytest.mark.parametrize(
    "html", ["", "<p>hello</p>", '<script id="fmtune-data">[1]</script>', '<script id="fmtune-data">{</script>']
)
def test_extract_refuses_what_is_no_page_of_ours(html: str) -> None:
    """A foreign or damaged page is a DataError, not a traceback."""
    with pytest.raises(DataError):
        extract(html)


def test_importing_the_page_does_not_import_pyplot() -> None:
    """matplotlib's global state machine stays out."""
    code = "import sys, fmtune.report.page; sys.exit('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1], timeout=120)
    assert done.returncode == 0
