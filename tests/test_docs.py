"""The docs: their code is checked whole, and run; the reference's tables name all that there is.

``make test`` runs the pages of ``QUICK``; ``make test-docs`` runs them all.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

import click
import pytest

from fmtune import cli
from fmtune.__main__ import _code
from fmtune.data.source import FORMATS
from fmtune.fm.hyperparameters import PARAMETERS, SOLVERS
from fmtune.fm.metrics import METRICS
from fmtune.kernels.rules import RULES
from fmtune.tune import spec as specs
from fmtune.tune.algorithms import PRUNERS, SAMPLERS
from fmtune.tune.studyfile import StudyFile
from tests.docs_blocks import PAGES, ROOT, Block, Runner, blocks, commands, parsed

QUICK = ("tutorial-table.md",)
ALL = [block for page in PAGES for block in blocks(page)]
SHELL = ("sh", "bash", "shell")
TABLES = runpy.run_path(str(ROOT / "docs" / "hooks.py"))["TABLES"]


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.name)
def test_a_block_is_sound(block: Block) -> None:
    """It names its language, its ``fmtune`` commands exist, its Python compiles, its study file is sound."""
    assert block.language
    if block.language in SHELL:
        for words in commands(block.code):
            if words:
                parsed(words)
    elif block.language == "python":
        compile(block.code, block.name, "exec")
    elif block.language == "yaml" and block.code.startswith("study_name"):
        specs.parse(block.code)


def test_an_unsound_block_is_seen() -> None:
    """A misspelt verb, an option that there is not, and commands behind pipes are seen."""
    page = '<!-- not run: why -->\n```sh\nA=1 fmtune run a.yaml | tee b && fmtune fit \\\n  c -o d  # fmtune no\n```\n'
    (block,) = blocks(ROOT / "x.md", page)
    assert (block.reason, block.line) == ("why", 2)
    assert commands(block.code) == [["run", "a.yaml"], ["fit", "c", "-o", "d"]]
    with pytest.raises(click.ClickException):
        parsed(["run", "a.yaml", "--fast"])
    with pytest.raises(Exception, match="did you mean 'report'"):
        parsed(["reprot", "a.yaml"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order, from an empty folder on."""
    found = list(blocks(page))
    if not any(block.reason is None and block.language in (*SHELL, "python") for block in found):
        return
    if page.name not in QUICK and "FMTUNE_TEST_DOCS" not in os.environ:
        pytest.skip("make test-docs runs it")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "fmtune"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fmtune "$@"\n')
    command.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    runner = Runner(work, _code, f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    for block in found:
        if block.reason is None:
            runner.run(block)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("parameters", PARAMETERS), ("study-file", StudyFile.model_fields), ("metrics", METRICS), ("rules", RULES),
        ("solvers", SOLVERS), ("formats", FORMATS), ("samplers", SAMPLERS), ("pruners", PRUNERS),
        ("verbs", [verb.name for verb in cli.VERBS]),
    ],
)  # fmt: skip
def test_the_reference_names_all(table: str, names: list[str]) -> None:
    """Each entry of a table stands in the reference."""
    made = TABLES[table]()
    missing = [name for name in names if not re.search(rf"[` :]{re.escape(name)}\b", made)]
    assert missing == []


def test_every_table_is_shown() -> None:
    """Each table of the reference stands on one page, and a page asks for none that there is not."""
    texts = [page.read_text() for page in (ROOT / "docs").rglob("*.md")]
    asked = [name for text in texts for name in re.findall(r"^<!-- table: (\S+) -->$", text, re.MULTILINE)]
    assert sorted(asked) == sorted(TABLES)


def test_links_of_the_site_lead_to_files_of_the_site() -> None:
    """A link of a page below docs/ names a file below docs/: the site has no other."""
    docs = ROOT / "docs"
    for page in docs.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            file = (page.parent / link).resolve()
            assert file.is_file() and file.is_relative_to(docs), f"{page.name}: {link}"


def test_the_readme_names_every_verb_and_room() -> None:
    """The README's list of verbs and its map of folders are whole."""
    text = (ROOT / "README.md").read_text()
    words = set(re.findall(r"`(?:fmtune )?([a-z]+)", text))
    assert {verb.name for verb in cli.VERBS} - words == set()
    rooms = {path.parent.name for path in (ROOT / "fmtune").glob("*/__init__.py")}
    assert {room for room in rooms if f"`fmtune/{room}/`" not in text} == set()
