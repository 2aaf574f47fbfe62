"""Doctor: whether this machine can do what fmtune needs, each thing tried rather than looked up."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from fmtune.errors import FmtuneError
from fmtune.fm.solvers import compile_kernels
from fmtune.kernels import CACHE
from fmtune.machine import cores, free_memory
from fmtune.tune import environment
from fmtune.tune.storage import open_storage

EXTRAS = {
    "parquet": "pyarrow", "sklearn": "sklearn", "onnx": "onnx", "mlflow": "mlflow", "postgres": "psycopg",
    "cluster": "ray", "gpu": "numba_cuda", "dashboard": "optuna_dashboard", "serve": "uvicorn",
}  # fmt: skip
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_DISABLE_JIT")
_FAR = {"nfs", "nfs4", "cifs", "smbfs", "smb3", "9p", "afs", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph"}


class Finding(NamedTuple):
    """One thing that was tried: ``ok`` None is for your information; ``hint`` says what to do where it is not."""

    name: str
    ok: bool | None
    text: str
    hint: str | None = None


def examine(folder: Path | None = None) -> list[Finding]:
    """Try everything; ``folder`` is where studies would go, by default the current one."""
    place = folder or Path.cwd()
    return [_tried(name, check, place) for name, check in CHECKS.items()]


def _tried(name: str, check: Callable[[Path], Finding], place: Path) -> Finding:
    try:
        return check(place)
    except (OSError, FmtuneError, sqlite3.Error) as error:
        hint = error.hint if isinstance(error, FmtuneError) else "check the place, its permissions and the space on it"
        return Finding(name, False, str(error).splitlines()[0], hint)


def _versions(_: Path) -> Finding:
    facts = environment.describe()
    shown = ("fmtune", "python", "optuna", "numpy", "numba", "sqlalchemy", "system")
    return Finding("versions", None, ", ".join(f"{name} {facts[name]}" for name in shown))


def _processor(_: Path) -> Finding:
    limits = ", ".join(f"{name}={os.environ[name]}" for name in _LIMITS if name in os.environ)
    facts = environment.describe()
    off = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
    text = f"{facts['processor']}, {cores()} cores for this process" + (f"; {limits}" if limits else "")
    return Finding("processor", not off, text, "unset NUMBA_DISABLE_JIT: kernels run as Python" if off else None)


def _memory(_: Path) -> Finding:
    free, total = free_memory(), psutil.virtual_memory().total
    return Finding("memory", free > 2**29, f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free",
                   None if free > 2**29 else "less than half a GiB is free: stop something else")  # fmt: skip


def _kernels(_: Path) -> Finding:
    seconds = sum(compile_kernels(layout) for layout in ("sparse", "dense"))
    text = f"loaded or compiled in {seconds:.1f} s; kept in {CACHE or 'no folder'}"
    hint = None if CACHE else "no folder is this user's alone: set FMTUNE_CACHE_DIR, or each run compiles anew"
    return Finding("kernels", CACHE is not None, text, hint)


def _disk(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    kind = _filesystem(place)
    text = f"{free / 2**30:.1f} GiB free on {kind}"
    if kind in _FAR:
        return Finding("disk", False, text, "sqlite's log needs a local disk: set `storage:`, or run elsewhere")
    return Finding("disk", free > 2**28, text, None if free > 2**28 else "make room: a study needs some hundred MB")


def _filesystem(place: Path) -> str:
    mounts = [(Path(p.mountpoint), p.fstype) for p in psutil.disk_partitions(all=True)]
    above = [(len(at.parts), kind) for at, kind in mounts if place.resolve().is_relative_to(at)]
    return max(above, default=(0, "an unknown file system"))[1]


def _storage(place: Path) -> Finding:
    with tempfile.TemporaryDirectory(dir=place, prefix=".fmtune-doctor-") as folder:
        path = Path(folder) / "study.db"
        storage = open_storage(f"sqlite:///{path}")
        storage.remove_session()
        storage.engine.dispose()
        with contextlib.closing(sqlite3.connect(path)) as db:
            mode = db.execute("PRAGMA journal_mode").fetchone()[0]
            db.execute("PRAGMA synchronous=FULL")
            db.execute("CREATE TABLE tried (n INTEGER)")
            began = time.perf_counter()
            for n in range(20):
                db.execute("INSERT INTO tried VALUES (?)", (n,))
                db.commit()
            each = (time.perf_counter() - began) / 20 * 1e3
    return Finding("storage", mode == "wal", f"sqlite {sqlite3.sqlite_version} in {mode} mode, {each:.1f} ms a commit",
                   None if mode == "wal" else "the place takes no write-ahead log: run elsewhere")  # fmt: skip


def _extras(_: Path) -> Finding:
    there = [name for name, module in EXTRAS.items() if importlib.util.find_spec(module)]
    missing = [name for name in EXTRAS if name not in there]
    return Finding("extras", None, f"{', '.join(there) or 'none'}; not installed: {', '.join(missing) or 'none'}")


CHECKS: dict[str, Callable[[Path], Finding]] = {
    "versions": _versions, "processor": _processor, "memory": _memory, "kernels": _kernels, "disk": _disk,
    "storage": _storage, "extras": _extras,
}  # fmt: skip


def redacted(findings: list[Finding]) -> list[dict[str, Any]]:
    """Return findings for an issue: the home folder is ``~``, and no name of user or machine is left."""
    machine = re.compile(rf"\b{re.escape(os.uname().nodename)}\b")

    def clean(text: str | None) -> str | None:
        return text and machine.sub("this machine", text.replace(str(Path.home()), "~"))

    return [{**f._asdict(), "text": clean(f.text), "hint": clean(f.hint)} for f in findings]
