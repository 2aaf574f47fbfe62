"""Versions: which commit is the last accepted one, and when there is nothing to compare with."""

from __future__ import annotations

import subprocess

import pytest

from fmtune.bench.versions import Unchanged, accepted
from fmtune.errors import UsageError


def git(folder, *words: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def commit(folder, **files: str) -> str:
    """Commit files, named by the first part of their path, and return the commit."""
    places = {"baseline": "reports/baseline.json", "code": "fmtune/a.py", "bench": "fmtune/bench/a.py", "doc": "a.md"}
    for name, text in files.items():
        path = folder / places[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, code="1")
    commit(folder, baseline="1", code="2")
    return folder


def test_the_last_accepted_version(repository):
    """It is the commit that last changed the baseline, however many came after it, edits not committed included."""
    base = git(repository, "rev-parse", "HEAD")
    commit(repository, code="3")
    commit(repository, doc="1")
    assert accepted(repository) == base
    git(repository, "reset", "-q", "--hard", base)
    (repository / "fmtune" / "new.py").write_text("")
    assert accepted(repository) == base


@pytest.mark.parametrize("files", [{"doc": "1"}, {"bench": "1"}, {"baseline": "2", "code": "3"}], ids=str)
def test_nothing_to_compare(repository, files):
    """Prose, the measuring code itself, and a baseline that was accepted with the change."""
    commit(repository, **files)
    with pytest.raises(Unchanged, match="nothing that is measured has changed"):
        accepted(repository)


def test_a_baseline_that_is_not_yet_committed(repository):
    """Accepting counts before the commit too."""
    (repository / "reports" / "baseline.json").write_text("2")
    with pytest.raises(Unchanged, match="accepted with this change"):
        accepted(repository)


def test_a_history_that_does_not_say(repository, tmp_path):
    """A shallow clone that begins after the baseline, and a folder without git, are told apart."""
    commit(repository, code="3")
    git(tmp_path, "clone", "-q", "--depth", "1", repository.as_uri(), "shallow")
    with pytest.raises(UsageError, match="history does not say"):
        accepted(tmp_path / "shallow")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match="not a git repository"):
        accepted(tmp_path / "bare")
