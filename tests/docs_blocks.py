"""Code blocks of the docs and the README, and what runs them.

A comment right before a block says what its reader does not see::

    <!-- not run: why -->          the block is only checked
    <!-- given: python ... -->     runs before the block, or instead of nothing

A block of YAML with ``title="name.yaml"`` is written to that file.  The blocks of a page run in order, in one folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from fmtune import cli

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_PIECE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```\s*$"
    r"|^<!-- given: (?P<kind>\w+)\n(?P<given>.*?)^-->"
    r"|^ *<!-- not run: (?P<reason>.*?) -->",
    re.MULTILINE | re.DOTALL,
)
_ENDS = {"|", "||", "&", "&&", ";", "(", ")"}


class Block(NamedTuple):
    """One piece of code: its language, file name if it has one, and why it is not run."""

    page: Path
    line: int
    language: str
    code: str
    file: str | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, text: str | None = None) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    whole = page.read_text() if text is None else text
    reason = None
    for match in _PIECE.finditer(whole):
        line = whole.count("\n", 0, match.start()) + 1
        if match["reason"]:
            reason = match["reason"]
        elif match["kind"]:
            yield Block(page, line, match["kind"], match["given"])
        else:
            language, _, rest = match["info"].strip().partition(" ")
            title = re.search(r'title="([^"]+)"', rest)
            yield Block(page, line, language, textwrap.dedent(match["code"]), title and title[1], reason)
            reason = None


def commands(code: str) -> list[list[str]]:
    """Return the words of each ``fmtune`` command of a shell block."""
    found: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] | None = None
        for word in lexer:
            if word in _ENDS:
                words = None
            elif set(word) <= {"<", ">"}:
                words = []  # what follows names a file
            elif words is not None:
                words.append(word)
            elif Path(word).name == "fmtune":
                words = []
                found.append(words)
            elif "=" not in word:
                words = []
    return found


def parsed(words: list[str]) -> None:
    """Read a command line down to its verb, and run nothing; raises click's error for what it does not know."""
    command: click.Command | None = cli.fmtune
    context, rest = None, words
    with contextlib.suppress(click.exceptions.Exit):  # --help
        while command is not None:
            context = command.make_context(command.name, list(rest), parent=context)
            if not isinstance(command, click.Group):
                return
            _, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


class Runner:
    """Runs the blocks of one page in a folder; Python blocks share their names."""

    def __init__(self, folder: Path, shell: Callable[[list[str]], int], path: str) -> None:
        self.folder, self._shell, self._path = folder, shell, path
        self._names: dict[str, Any] = {"__name__": "__docs__"}

    def run(self, block: Block) -> None:
        """Run one block; raises whatever it raises, AssertionError where a command fails."""
        with contextlib.chdir(self.folder):
            if block.language == "python":
                exec(compile(block.code, block.name, "exec"), self._names)
            elif block.language in ("sh", "bash", "shell"):
                self._lines(block)
            elif block.file is not None:
                (self.folder / block.file).write_text(block.code)

    def _lines(self, block: Block) -> None:
        """Run shell code: plain ``fmtune`` lines in this process, which has imported all, others by bash."""
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            if words[0] == "fmtune" and not re.search(r"[|&;<>$*]", line.partition(" #")[0].replace("#trial", "")):
                code = self._shell(words[1:])
            else:
                env = {**os.environ, "PATH": self._path}
                code = subprocess.run(["bash", "-ec", line], env=env, check=False).returncode
            assert code == 0, f"{block.name}: exit code {code}: {line}"
