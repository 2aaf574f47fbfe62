"""Mutants: ``python -m tests.proof.mutants`` says how many small faults in a module its own tests see.

A mutant is a module with one place changed: an operator, a constant, a condition, a statement left out.  Each runs in
a forked process that has everything else imported, without numba's compiler; a test that fails, or that takes much
longer, has seen it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["NUMBA_DISABLE_JIT"] = "1"

from tests.proof.modules import MODULES, OPTIONS, files_of

ROOT = Path(__file__).parents[2]
WANTED = 0.85

# Imported once for all mutants.
SHARED = (
    "numba", "optuna", "optuna.storages", "pandas", "pyarrow.parquet", "pyarrow.feather", "scipy.sparse", "pydantic",
    "sqlalchemy", "ruamel.yaml", "google.protobuf.message", "psutil",
)  # fmt: skip

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Mod: ast.Mult,
}  # fmt: skip


def changes(node: ast.AST) -> list[tuple[str, Any]]:
    """Return what may be changed of a node, as (field, new value)."""
    match node:
        case ast.Compare(ops=[op, *rest]) if type(op) in _COMPARED:
            return [("ops", [_COMPARED[type(op)](), *rest])]
        case ast.BoolOp(op=op):
            return [("op", ast.Or() if isinstance(op, ast.And) else ast.And())]
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _COMPUTED:
            return [("op", _COMPUTED[type(op)]())]
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            return [("test", ast.UnaryOp(ast.Not(), test))]
        case ast.Constant(value=bool() as value):
            return [("value", not value)]
        case ast.Constant(value=int() | float() as value):
            return [("value", value + 1)]
        case ast.Constant(value=str() | bytes() as value) if value:
            return [("value", value + value[:1])]
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            return [("value", ast.Constant(None))]
        case ast.Break():
            return [("", ast.Continue())]
        case ast.Continue():
            return [("", ast.Break())]
        case ast.Expr(value=ast.Call()) | ast.Raise():
            return [("", ast.Pass())]
    return []


def _silent(node: ast.AST) -> bool:
    """Whether nothing in a node decides anything at run time: annotations, docstrings, type checking."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def places(tree: ast.AST) -> list[tuple[int, int]]:
    """Return what can be mutated, as (number of the node in walking order, number of the change)."""
    skipped = {id(inner) for node in ast.walk(tree) for part in _types(node) for inner in ast.walk(part)}
    nodes = ((at, node) for at, node in enumerate(ast.walk(tree)) if id(node) not in skipped)
    return [(at, n) for at, node in nodes for n, _ in enumerate(changes(node))]


def _types(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        if isinstance(part := getattr(node, name, None), ast.AST):
            yield part
    if _silent(node) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        yield node


def mutant(tree: ast.Module, at: int, n: int) -> tuple[ast.Module, str]:
    """Return the tree with one change, and that change in words."""
    made = copy.deepcopy(tree)
    node = list(ast.walk(made))[at]
    before = ast.unparse(node).splitlines()[0]
    name, value = changes(node)[n]
    if name:
        setattr(node, name, value)
        after = ast.unparse(node).splitlines()[0]
    else:
        _replace(made, node, value)
        after = ast.unparse(value)
    line = getattr(node, "lineno", 0)
    return ast.fix_missing_locations(made), f"line {line}: {before[:70]}  ->  {after[:70]}"


def _replace(tree: ast.Module, old: ast.AST, new: Any) -> None:
    for parent in ast.walk(tree):
        for _, value in ast.iter_fields(parent):
            if isinstance(value, list) and any(one is old for one in value):
                value[:] = [ast.copy_location(new, old) if one is old else one for one in value]


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


def tested(module: str, tree: ast.Module, limit: float) -> int:
    """Run a module's tests with this source, forked; returns pytest's exit code, -1 for one that took too long."""
    pid = os.fork()
    if not pid:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        code = 3
        with contextlib.suppress(BaseException):
            import pytest

            loader = _Loader(f"fmtune.{module.replace('/', '.')}", ROOT / f"fmtune/{module}.py", tree)
            sys.meta_path.insert(0, loader)  # type: ignore[arg-type]
            code = int(pytest.main([*OPTIONS, "-x", *files_of(MODULES[module])]))
        os._exit(code)
    end = time.monotonic() + limit
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -1
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1])


def tried(module: str, count: int, seed: int) -> tuple[int, int]:
    """Mutate a module ``count`` times; returns how many mutants were seen, and how many there were."""
    tree = ast.parse((ROOT / f"fmtune/{module}.py").read_text())
    began = time.monotonic()
    if tested(module, tree, 600):
        raise SystemExit(f"error: the tests of {module} fail as it is")
    limit = 10 + 4 * (time.monotonic() - began)
    all_ = places(tree)
    drawn = random.Random(f"{seed}/{module}").sample(all_, min(count, len(all_)))
    seen = 0
    for at, n in sorted(drawn):
        changed, words = mutant(tree, at, n)
        if tested(module, changed, limit):
            seen += 1
        else:
            print(f"  {module} {words}", flush=True)
    print(f"{module}: {seen} of {len(drawn)} seen, of {len(all_)} that there are", flush=True)
    return seen, len(drawn)


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
    found = [tried(module, given.count, given.seed) for module in given.modules]
    seen, count = sum(s for s, _ in found), sum(c for _, c in found)
    print(f"{seen} of {count} mutants seen: {seen / count:.1%}")
    return int(seen < WANTED * count)


if __name__ == "__main__":
    sys.exit(main())
