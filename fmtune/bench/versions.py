"""Versions: another version of fmtune, made ready to be measured beside this one.

The measuring code is this version's on both sides: a folder is put together whose ``fmtune`` is the other's, file by
file, but whose ``bench`` room is ours.  Each side has its own environment: the same interpreter when the locks are
equal, a virtual environment of its own, made from its lock, when they are not.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from fmtune.bench.worker import OURS, Side
from fmtune.errors import ResourceError, UsageError

_LOCK = "requirements.lock"
BASELINE = "reports/baseline.json"
# What a measurement depends on; the bench room is ours on both sides.
_MEASURED = ("fmtune", "datasets", _LOCK, ":(exclude)fmtune/bench")


class Unchanged(UsageError):
    """There is nothing to compare: the accepted version measures the same, or was accepted with this change."""


def side_of(against: str, folder: Path, envs: Path, patience: float | None = None) -> Side:
    """Return the side of a git ref or a path.

    Parameters
    ----------
    against
        A path of a checkout, or a ref of this one's repository (``main~1``).
    folder
        Scratch.
    envs
        Where virtual environments are kept from run to run.
    patience
        Seconds that making an environment may take.

    Raises
    ------
    UsageError
        Neither a checkout nor a ref.
    ResourceError
        Its environment cannot be made.
    """
    given = Path(against).expanduser()
    if (given / "fmtune" / "__init__.py").is_file():
        tree = given.resolve()
    else:
        tree, archive = folder / "base-tree", folder / "base.zip"
        _git("archive", "--format=zip", f"--output={archive}", _commit(against))
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(tree)
    return Side("base", folder / "cache-base", overlay(tree, folder / "base"), python=_python(tree, envs, patience))


def accepted(repository: Path = OURS) -> str:
    """Return the commit that last changed ``reports/baseline.json``.

    Whoever changes what a model comes to or costs, and means it, accepts a baseline in the same commit; small losses
    add up against the same commit until somebody does.

    Raises
    ------
    Unchanged
        Nothing that is measured has changed since.
    UsageError
        The history does not say, or there is no repository here.
    """
    if _git("status", "--porcelain", "--", BASELINE, at=repository):
        raise Unchanged(f"{BASELINE} was accepted with this change")
    commit = _git("log", "-1", "--format=%H", "--", BASELINE, at=repository)
    # Where a shallow clone begins, every file seems to be new.
    if not commit or commit in _shallow(repository):
        raise UsageError(f"the history does not say when {BASELINE} was accepted", hint="fetch the whole history")
    changed = _git("diff", "--name-only", commit, "--", *_MEASURED, at=repository)
    if not changed and not _git("ls-files", "--others", "--exclude-standard", "--", *_MEASURED, at=repository):
        raise Unchanged(f"nothing that is measured has changed since {BASELINE} was accepted, in {commit[:12]}")
    return commit


def overlay(tree: Path, folder: Path) -> Path:
    """Return a folder whose ``fmtune`` is that of ``tree`` with our ``bench`` room, by symbolic links."""
    (folder / "fmtune").mkdir(parents=True)
    for path in (tree / "fmtune").iterdir():
        if path.name not in ("bench", "__pycache__"):
            (folder / "fmtune" / path.name).symlink_to(path)
    (folder / "fmtune" / "bench").symlink_to(OURS / "fmtune" / "bench")
    for name in ("datasets", "studies"):
        if (tree / name).is_dir():
            (folder / name).symlink_to(tree / name)
    return folder


def _python(tree: Path, envs: Path, patience: float | None) -> str:
    """Return the interpreter of a version: ours if its lock is ours, or has none."""
    lock, ours = tree / _LOCK, OURS / _LOCK
    if not lock.is_file() or not ours.is_file() or lock.read_bytes() == ours.read_bytes():
        return sys.executable
    env = envs / f"env-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    python = env / "bin" / "python"
    if not (env / "ready").exists():
        words = (
            [sys.executable, "-m", "venv", "--clear", str(env)],
            [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", "--require-hashes",
             "-r", str(lock)],
        )  # fmt: skip
        for command in words:
            _make(command, lock, patience)
        (env / "ready").touch()
    return str(python)


def _make(command: list[str], lock: Path, patience: float | None) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
        said = done.stderr.strip().splitlines() if done.returncode else None
    except subprocess.TimeoutExpired:
        said = [f"not ready within {patience:g} s"]
    if said is not None:
        last = (said or ["no reason given"])[-1]
        raise ResourceError(f"the other version's environment cannot be made: {last}", where=str(lock),
                            hint="its lock differs from ours, so it needs one")  # fmt: skip


def _commit(ref: str) -> str:
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except UsageError as error:
        raise UsageError(
            f"neither a checkout of fmtune nor a git ref: {ref!r}", where="--against",
            hint="name a folder that holds fmtune/, or a ref such as main~1 (a shallow clone has few)",
        ) from error  # fmt: skip


def _shallow(repository: Path) -> list[str]:
    place = repository / _git("rev-parse", "--git-path", "shallow", at=repository)
    return place.read_text().split() if place.is_file() else []


def _git(*words: str, at: Path = OURS) -> str:
    if shutil.which("git") is None:
        raise UsageError("there is no git here")
    done = subprocess.run(["git", "-C", str(at), *words], capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"git {words[0]} failed: {done.stderr.strip()[:500]}")
    return done.stdout.strip()
