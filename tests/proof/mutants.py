"""Mutants: ``python -m tests.proof.mutants`` says how many small faults in a module its own tests see.

A mutant is a module with one of the changes that ``tests.proof.changes`` knows.  Each runs in a forked process that
has everything else imported, without numba's compiler; a test that fails, or that takes much longer, has seen it.
Only the tests that run the changed line are tried, the quickest first; those of more than ``SLOW`` seconds not where
there are others.  So a mutant may count as missed that some other test would see, never the other way round.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["NUMBA_DISABLE_JIT"] = "1"

from tests.proof.changes import changed, lines, places
from tests.proof.modules import MODULES, OPTIONS, files_of

ROOT = Path(__file__).parents[2]
WANTED = 0.85
SLOW = 5.0
_FAIL_FAST = ("-x", "--tb=no", "--assert=plain")

# Imported once for all mutants.
SHARED = (
    "pytest", "hypothesis", "coverage", "numba", "optuna", "optuna.storages", "pandas", "pyarrow.parquet",
    "pyarrow.feather", "scipy.sparse", "pydantic", "sqlalchemy", "ruamel.yaml", "google.protobuf.message", "psutil",
    "msgspec", "httptools", "uvicorn",
)  # fmt: skip


class _Loader:
    """Gives one module's name a changed source, before anything has imported it."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        return importlib.util.spec_from_loader(name, self, origin=str(self._path)) if name == self._name else None

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


class _Watch:
    """A plugin of pytest that notes which lines of one file each test runs, and for how long it runs."""

    def __init__(self, path: Path) -> None:
        import coverage

        self._path = str(path)
        self._coverage = coverage.Coverage(data_file=None, config_file=False, include=[self._path])
        self._coverage.start()
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def runners(self) -> dict[int, list[str]]:
        """Return the tests that ran each line; "" is for what ran before any test."""
        self._coverage.stop()
        return self._coverage.get_data().contexts_by_lineno(self._path)


class _Order:
    """A plugin of pytest that runs certain tests only, in their order; one that loops for long ends the process."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._rank = {test: n for n, test in enumerate(seconds)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self._rank), key=lambda i: self._rank[i.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        signal.setitimer(signal.ITIMER_PROF, 3 + 5 * self._seconds[nodeid])


@dataclass(frozen=True)
class Tests:
    """A module's tests: how many seconds each takes, the quickest first, and which of them run a line."""

    seconds: dict[str, float]
    runners: dict[int, set[str]]

    def of(self, numbers: range) -> dict[str, float]:
        """Return the tests that run these lines, or all for lines that run at import; slow ones only where alone."""
        ran = set().union(*(self.runners.get(number, set()) for number in numbers))
        found = {test: s for test, s in self.seconds.items() if test in ran or "" in ran}
        return {test: s for test, s in found.items() if s <= SLOW} or found


def _forked(work: Callable[[], int], limit: float) -> int:
    """Run ``work`` in a forked process of its own, silently; returns what it did, -1 where it took too long."""
    pid = os.fork()
    if not pid:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        code = 3
        with contextlib.suppress(BaseException):
            code = work()
        os._exit(code)
    end = time.monotonic() + limit
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -1
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def _pytest(module: str, tree: ast.Module, files: Iterable[str], plugin: object) -> int:
    """Run test files with this source of a module."""
    import pytest

    loader = _Loader(f"fmtune.{module.replace('/', '.')}", ROOT / f"fmtune/{module}.py", tree)
    sys.meta_path.insert(0, loader)  # type: ignore[arg-type]
    return int(pytest.main([*OPTIONS, *_FAIL_FAST, *files], plugins=[plugin]))


def known(module: str, tree: ast.Module) -> Tests:
    """Run a module's tests as it is, and return what they are."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "tests.json"

        def work() -> int:
            watch = _Watch(ROOT / f"fmtune/{module}.py")
            code = _pytest(module, tree, files_of(MODULES[module]), watch)
            found.write_text(json.dumps([watch.seconds, watch.runners()]))
            return code

        if _forked(work, 600):
            raise SystemExit(f"error: the tests of {module} fail as it is")
        seconds, runners = json.loads(found.read_text())
    return Tests(
        dict(sorted(seconds.items(), key=lambda item: item[1])), {int(line): set(ran) for line, ran in runners.items()}
    )


def seen(module: str, tree: ast.Module, tests: Tests, numbers: range) -> bool:
    """Whether a test fails, or takes far too long, with this source, which differs in these lines."""
    chosen = tests.of(numbers)
    files = dict.fromkeys(test.partition("::")[0] for test in chosen)
    limit = 20 + 10 * sum(chosen.values())
    return bool(chosen) and _forked(lambda: _pytest(module, tree, files, _Order(chosen)), limit) != 0


def tried(module: str, count: int, seed: int) -> tuple[int, int]:
    """Mutate a module ``count`` times; returns how many mutants were seen, and how many there were."""
    tree = ast.parse((ROOT / f"fmtune/{module}.py").read_text())
    tests, every = known(module, tree), places(tree)
    drawn = random.Random(f"{seed}/{module}").sample(every, min(count, len(every)))
    found = 0
    for at, n in sorted(drawn):
        mutant, words = changed(tree, at, n)
        if seen(module, mutant, tests, lines(tree, at)):
            found += 1
        else:
            print(f"  {module} {words}", flush=True)
    print(f"{module}: {found} of {len(drawn)} seen, of {len(every)} that there are", flush=True)
    return found, len(drawn)


def main() -> int:
    """Mutate the modules; 1 where fewer than 85 % are seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("modules", nargs="*", default=list(MODULES))
    given = parser.parse_args()
    os.chdir(ROOT)
    for name in SHARED:
        importlib.import_module(name)
    gc.freeze()
    found = [tried(module, given.count, given.seed) for module in given.modules]
    total, count = sum(s for s, _ in found), sum(c for _, c in found)
    print(f"{total} of {count} mutants seen: {total / count:.1%}")
    return int(total < WANTED * count)


if __name__ == "__main__":
    sys.exit(main())
