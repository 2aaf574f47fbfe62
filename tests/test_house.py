"""The import law and two bans, read from the source by ast; each rule is also tried on a planted violation.

Every checker takes the folder that holds ``fmtune`` and returns its faults, one line each.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A room imports from floors below its own: never sideways, never back up.
FLOORS = (
    {"errors"},
    {"extras", "files", "machine", "notebook"},
    {"digests"},
    {"rows"},
    {"kernels"},
    {"data", "fm"},
    {"estimators", "cluster"},
    {"tune"},
    {"sagemaker", "bench", "export"},
    {"report", "dashboard"},
    {"cli"},
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
TOP = {"fmtune", "__main__", "cli", "screen"}  # one room: the package's face, the verbs and the terminal

LAZY = {"fmtune", "fmtune.cli", "fmtune.__main__", "fmtune.fm.solvers"}  # may import inside functions
# What only `pip install fmtune[...]` brings, and a peer of the benchmarks.
EXTRAS = {"cuda", "mlflow", "onnx", "optuna_dashboard", "pyarrow", "ray", "torch"}
SLOW = {"pandas"}  # half a second to import, and needed only where a table is read
# llvmlite is what numba's own intrinsics are written in.
KERNELS_MAY_IMPORT = {"__future__", "math", "operator", "typing", "numpy", "numba", "llvmlite"}
VERSION = "fmtune.__version__"  # a constant of the package, which is loaded before its rooms: no import
LOADS_CODE = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle"}
RUNS_TEXT = {"eval", "exec"}


class Import(NamedTuple):
    """``module`` imports ``target``: the full name of a module, ``?`` when only known at run time."""

    place: str
    module: str
    target: str
    nested: bool  # inside a function

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]


def room(module: str) -> str:
    name = module.removeprefix("fmtune.").partition(".")[0]
    return "cli" if name in TOP else name


def modules(root: Path) -> dict[str, Path]:
    found = {}
    for path in sorted((root / "fmtune").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def nodes(tree: ast.AST, nested: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node below ``tree``, and whether it stands inside a function."""
    for child in ast.iter_child_nodes(tree):
        inside = nested or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield child, inside
        yield from nodes(child, inside)


@cache
def imports(root: Path) -> list[Import]:
    known = modules(root)
    return [
        Import(f"{path.relative_to(root).as_posix()}:{node.lineno}", module, target, nested)
        for module, path in known.items()
        for node, nested in nodes(ast.parse(path.read_bytes()))
        for target in targets(node, module, path, known)
    ]


def targets(node: ast.AST, module: str, path: Path, known: dict[str, Path]) -> list[str]:
    """Return the modules that a statement, or a call of ``import_module`` or ``__import__``, imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            kept = package[: len(package) - node.level + 1]
            base = ".".join([*kept, node.module] if node.module else kept)
        full = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in known else base for name in full if name != VERSION]
    if not isinstance(node, ast.Call) or name_of(node.func) not in {"__import__", "import_module"}:
        return []
    first = node.args[0] if node.args else None
    return [first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else "?"]


def name_of(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def sideways_or_up(root: Path) -> list[str]:
    """Return imports of a room of ours that does not lie on a floor below."""
    strangers = [module for module in modules(root) if room(module) not in FLOOR]
    faults = [f"{module}: no floor is given to {room(module)!r}" for module in strangers]
    for one in imports(root):
        if one.top != "fmtune":
            continue
        here, there = room(one.module), room(one.target)
        if here != there and FLOOR.get(there, 99) >= FLOOR.get(here, -1):
            faults.append(f"{one.place}: {here} imports {there}")
    return faults


def heavy_kernels(root: Path) -> list[str]:
    """Return what a kernel imports beside numpy, numba, math, typing and its own room.

    The room's ``__init__`` may use the standard library: it names numba's cache folder.
    """
    return [
        f"{one.place}: a kernel imports {one.target}"
        for one in imports(root)
        if room(one.module) == "kernels"
        and not (room(one.target) == "kernels" if one.top == "fmtune" else one.top in KERNELS_MAY_IMPORT)
        and not (one.module == "fmtune.kernels" and one.top in sys.stdlib_module_names)
    ]


def hidden(root: Path) -> list[str]:
    """Return imports inside a function, and unreadable ones, unless lazy by design or of an extra."""
    return [
        f"{one.place}: {one.target} is imported inside a function"
        for one in imports(root)
        if (one.nested or one.target == "?")
        and one.module not in LAZY
        and not one.module.startswith("fmtune.cli.")
        and one.top not in EXTRAS | SLOW
        and not any(name.rpartition(".")[2].startswith("cuda_") for name in (one.module, one.target))
    ]


def cycle(root: Path) -> list[str]:
    """Return the modules of a cycle of imports, or nothing."""
    graph: dict[str, set[str]] = {module: set() for module in modules(root)}
    for one in imports(root):
        if one.top == "fmtune" and one.target != one.module:
            graph[one.module].add(one.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def runs_what_it_reads(node: ast.AST) -> str:
    """Return the name of what runs its input: eval, exec, pandas' read_pickle, numpy's allow_pickle."""
    name = name_of(node)
    owner = name_of(node.value) if isinstance(node, ast.Attribute) else "builtins"
    if (name in RUNS_TEXT and owner == "builtins") or name in {"read_pickle", "to_pickle"}:
        return name
    if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
        return "allow_pickle"
    return ""


def loaders(root: Path) -> list[str]:
    """Return every import or use of something that runs what it reads: pickle and its kin, eval, exec."""
    faults = [f"{one.place}: imports {one.target}" for one in imports(root) if one.top in LOADS_CODE]
    for path in modules(root).values():
        for node, _ in nodes(ast.parse(path.read_bytes())):
            if use := runs_what_it_reads(node):
                faults.append(f"{path.relative_to(root).as_posix()}:{node.lineno}: uses {use}")
    return faults


CHECKERS = (sideways_or_up, heavy_kernels, hidden, cycle, loaders)


@pytest.mark.parametrize("checker", CHECKERS, ids=lambda checker: checker.__name__)
def test_house(checker):
    """Imports go down only, kernels are bare, nothing is hidden, in a cycle, or runs what it reads."""
    assert checker(ROOT) == []


def test_house_is_seen():
    """The checkers see the real tree: its ground floor is there and imports of it are found."""
    assert {"fmtune.errors", "fmtune.rows"} <= modules(ROOT).keys()
    assert any(one.module == "fmtune.rows" and one.target == "fmtune.errors" for one in imports(ROOT))


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "fmtune" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return root


VIOLATIONS = [
    (sideways_or_up, {"fm/fit.py": "from fmtune.data import rows", "data/rows.py": ""}, "fm imports data"),
    (sideways_or_up, {"data/source.py": "import fmtune.fm.model"}, "data imports fm"),
    (sideways_or_up, {"rows.py": "from fmtune.tune.study import ask"}, "rows imports tune"),
    (sideways_or_up, {"rows.py": "from .tune import study", "tune/study.py": ""}, "rows imports tune"),
    (
        sideways_or_up,
        {"tune/study.py": "from ..report import page", "report/page.py": ""},
        "tune imports report",
    ),
    (sideways_or_up, {"tune/study.py": "from fmtune import run"}, "tune imports cli"),
    (sideways_or_up, {"report/page.py": "from fmtune import screen", "screen.py": ""}, "report imports cli"),
    (sideways_or_up, {"tune/a.py": "def f():\n    import fmtune.cli"}, "tune imports cli"),
    (sideways_or_up, {"tune/a.py": "import importlib as m\nm.import_module('fmtune.cli')"}, "imports cli"),
    (sideways_or_up, {"attic/old.py": ""}, "no floor is given to 'attic'"),
    (heavy_kernels, {"kernels/rules.py": "from fmtune.errors import DataError"}, "imports fmtune.errors"),
    (heavy_kernels, {"kernels/rules.py": "import scipy.sparse"}, "imports scipy.sparse"),
    (heavy_kernels, {"kernels/rules.py": "import os"}, "imports os"),
    (hidden, {"tune/a.py": "def f():\n    import json"}, "tune/a.py:2: json"),
    (hidden, {"tune/a.py": "class A:\n    def f(self):\n        from fmtune import rows"}, "tune/a.py:3"),
    (hidden, {"tune/a.py": "import importlib\nimportlib.import_module(input())"}, "tune/a.py:2: ?"),
    (cycle, {"tune/a.py": "from fmtune.tune import b", "tune/b.py": "from .a import c"}, "fmtune.tune.b"),
    (loaders, {"fm/model.py": "import pickle"}, "imports pickle"),
    (loaders, {"fm/model.py": "def f():\n    from marshal import loads"}, "imports marshal"),
    (loaders, {"fm/model.py": "f = eval"}, "uses eval"),
    (loaders, {"fm/model.py": "import builtins\nbuiltins.exec('')"}, "uses exec"),
    (loaders, {"fm/model.py": "import numpy\nnumpy.load('a', allow_pickle=True)"}, "uses allow_pickle"),
    (loaders, {"fm/model.py": "import builtins\nbuiltins.eval('')"}, "uses eval"),
    (loaders, {"fm/model.py": "import pandas\npandas.read_pickle('a')"}, "uses read_pickle"),
]


@pytest.mark.parametrize(
    ("checker", "files", "fault"), VIOLATIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_violation_is_found(checker, files, fault, tmp_path):
    """A planted violation is named with its place."""
    assert fault in "\n".join(checker(plant(tmp_path, files)))


def test_lawful_tree_passes(tmp_path):
    """Lazy verbs, the lazy package, extras, cuda kernels and harmless namesakes are no faults."""
    files = {
        "__init__.py": "def __getattr__(name):\n    import json\n    return json.__import__(name)",
        "cli.py": "from fmtune import __version__, screen\ndef run():\n    from fmtune.tune import study",
        "screen.py": "import rich",
        "tune/study.py": "from fmtune.data import source\nfrom fmtune.fm import fit\nfrom . import space",
        "tune/space.py": "from fmtune import __version__\nfrom fmtune.rows import Rows",
        "data/source.py": "def read():\n    import pyarrow.parquet\nimport re\nre.compile('')",
        "fm/fit.py": "def f(table):\n    from fmtune.kernels import cuda_sparse\n    table.eval('a')",
        "kernels/__init__.py": "import hashlib\nfrom fmtune.kernels import rules",
        "kernels/rules.py": "import numba.cuda\nimport numpy as np",
        "kernels/cuda_sparse.py": "def learn():\n    from numba import cuda",
        "rows.py": "import fmtune.errors\nimport numpy\nnumpy.load('a', allow_pickle=False)",
        "errors.py": "",
    }
    root = plant(tmp_path, files)
    assert [fault for checker in CHECKERS for fault in checker(root)] == []
