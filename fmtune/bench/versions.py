"""Versions: another version of fmtune, made ready to be measured beside this one.

The measuring code is this version's on both sides: a folder is put together whose ``fmtune`` is the other's, file by
file, but whose ``bench`` room is ours.  Each side has its own environment: the same interpreter when the locks are
equal, a virtual environment of its own, made from its lock, when they are not.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmtune.bench.worker import OURS, Side
from fmtune.errors import ResourceError, UsageError

_LOCK = "requirements.lock"


@contextmanager
def side_of(against: str, folder: Path, envs: Path) -> Iterator[Side]:
    """Yield the side of a git ref or a path; a work tree that is made for it is removed at the end.

    Parameters
    ----------
    against
        A path of a checkout, or a ref of this one's repository (``main~1``).
    folder
        Scratch.
    envs
        Where virtual environments are kept from run to run.

    Raises
    ------
    UsageError
        Neither a checkout nor a ref.
    ResourceError
        Its environment cannot be made.
    """
    given = Path(against).expanduser()
    if (given / "fmtune" / "__init__.py").is_file():
        yield _side(given.resolve(), folder, envs)
        return
    tree = folder / "base-tree"
    commit = _commit(against)
    _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
    try:
        yield _side(tree, folder, envs)
    finally:
        _git("worktree", "remove", "--force", str(tree))


def _side(tree: Path, folder: Path, envs: Path) -> Side:
    return Side("base", folder / "cache-base", overlay(tree, folder / "base"), python=_python(tree, envs))


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


def _python(tree: Path, envs: Path) -> str:
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
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise ResourceError(f"the other version's environment cannot be made: {last}", where=str(lock),
                                    hint="its lock differs from ours, so it needs one")  # fmt: skip
        (env / "ready").touch()
    return str(python)


def _commit(ref: str) -> str:
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except (UsageError, OSError) as error:
        raise UsageError(
            f"neither a checkout of fmtune nor a git ref: {ref!r}", where="--against",
            hint="name a folder that holds fmtune/, or a ref such as main~1 (a shallow clone has few)",
        ) from error  # fmt: skip


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(OURS), *words], capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"git {words[0]} failed: {done.stderr.strip()[:500]}", where="--against")
    return done.stdout.strip()
