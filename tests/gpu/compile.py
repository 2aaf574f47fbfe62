"""Compiles every CUDA kernel for sm_80 and sm_90a, with no card, and looks at what came out.

Run by ``make test-gpu-compile``.  The way is a card's: numba has nvJitLink optimise and link what NVVM leaves, so a
kernel's PTX is not what runs.  A kernel fails when it does not compile or link, when it spills or keeps an array in
local memory, or when a float64 instruction slipped in.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba.cuda.dispatcher
import numpy as np
import nvidia
from numba import cuda, typeof
from numba.cuda.cudadrv.driver import _Linker
from numba.cuda.cudadrv.libs import get_cudalib

from fmtune.kernels import cuda_dense, cuda_parts, cuda_probe, cuda_sparse

TOOLS = Path(next(iter(nvidia.__path__))) / "cu13"
# As numba-cuda asks for them: of a Hopper card, all of its own instructions.
CAPABILITIES: tuple[tuple[int | str, ...], ...] = ((8, 0), (9, 0, "a"))
_FLOAT64 = re.compile(r"\b(DADD|DMUL|DFMA|DSETP|F2F\.F64\S*|I2F\.F64\S*|F2I\S*\.F64\S*)\b")


class _StandIn:
    """What the compiler asks of a device: its compute capability."""

    compute_capability = CAPABILITIES[0][:2]


def kernels() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yield name, kernel and arguments of the types that the arenas launch it with."""
    f1, f2, f3 = (np.zeros((1,) * n, np.float32) for n in (1, 2, 3))
    i1, i2, l1, u1 = np.zeros(1, np.int32), np.zeros((1, 1), np.int32), np.zeros(1, np.int64), np.zeros(1, "u1")
    lanes = cuda_parts.Lanes(i1, i1, i1, i1, f2, f3, i1, f1, f1)
    rows = cuda_sparse.Rows(l1, i1, f1)
    cut = cuda_sparse.Batches(f1, f1, l1, l1, i1, i1, l1, i1, f1, l1, i1, i2)
    work = cuda_sparse.Work(f1, f1, f1, f1, f1, f1, i1)
    own = (f1, 2, 8, lanes)
    yield "fill", cuda_parts.fill, (f1, 0)
    yield "copy_columns", cuda_parts.copy_columns, (f2, 0, f2, 0, 1)
    yield "sparse learn_together", cuda_sparse.learn_together, (0, 1, True, *own, rows, cut, work, f2, 0, 1, 0)
    yield "sparse forward", cuda_sparse.forward, (f1, 2, 8, rows, f1, f1, 0, 1)
    yield "sparse slopes", cuda_sparse.slopes, (1, 8, lanes, cut, work, f2, 0, 1, 0)
    yield "sparse update", cuda_sparse.update, (0, True, *own, cut, work, 0, 1)
    yield "sparse finish", cuda_sparse.finish, (0, True, *own, cut, work, 0, 1)
    yield "sparse scored", cuda_sparse.scored, (lanes, 8, f1, f1, f2, 0, 1)
    yield "dense square", cuda_dense.square, (f1, 2, 8, 0, 1, f1)
    for thin, dense in cuda_dense.KERNELS.items():
        name = f"dense {'many' if thin else 'few'}"
        yield f"{name} squares", dense.squares, (f1, 2, 8, lanes, True, f1, f1)
        row = (lanes, f1, 2, 8, f1, f1, f1, f1, f1, f1, f1, f2, 0, 1, 8, 0)
        yield f"{name} rows", dense.rows, (1, True, True, *row)
        moved = (f1, 2, 2, 8, lanes, u1, f1, f1, f1, f1, 0, 1)
        yield f"{name} update", dense.update, (0, True, True, *moved)
    yield "probe copy", cuda_probe.copy, (f1, f1)
    yield "probe gather", cuda_probe.gather, (f1, 8, i1, f1)


def _tool(name: str, *args: object) -> str:
    done = subprocess.run([TOOLS / "bin" / name, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def check(kernel: Any, args: tuple[Any, ...], capability: tuple[int | str, ...], folder: Path) -> tuple[str, list[str]]:
    """Return what one kernel takes, in words, and what is wrong with it."""
    _StandIn.compute_capability = capability[:2]
    types = tuple(typeof(arg) for arg in args)
    made, _ = cuda.compile(kernel.py_func, types, device=False, abi="numba", cc=capability, output="ltoir")
    linker = _Linker(cc=capability, lto=True)
    linker.add_ltoir(made)
    if kernel is cuda_sparse.learn_together:  # the grid's barrier
        linker.add_file_guess_ext(get_cudalib("cudadevrt", static=True))
    (folder / "kernel.cubin").write_bytes(linker.complete().code)
    own = _tool("cuobjdump", "--dump-sass", "--dump-resource-usage", folder / "kernel.cubin")
    # The library of the grid's barrier has kernels too.
    code = "".join(part for part in own.split("Function : ")[1:] if part.startswith("_ZN6fmtune"))
    used = re.search(r"Function _ZN6fmtune\S+:\s+REG:(\d+)", own)
    double, local = sorted(set(_FLOAT64.findall(code))), re.findall(r"\b(?:LDL|STL)\b", code)
    wrong = [f"float64: {' '.join(double)}"] if double else []
    wrong += [f"{len(local)} accesses to local memory"] if local else []
    wrong += [] if code and used else ["it is not there"]
    found = len(re.findall(r"/[*][0-9a-f]{4,}[*]/", code))
    return f"{used.group(1) if used else '?'} registers, {found} instructions", wrong


def main() -> int:
    """Check all; returns how many failed."""
    numba.cuda.dispatcher.get_current_device = lambda: _StandIn
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, kernel, args in kernels():
            for capability in CAPABILITIES:
                words, wrong = check(kernel, args, capability, Path(folder))
                failed += bool(wrong)
                verdict = "FAILED: " + "; ".join(wrong) if wrong else "ok"
                arch = "sm_" + "".join(map(str, capability))
                print(f"{name:22} {arch:6} {words:36} {verdict}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
