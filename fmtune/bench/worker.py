"""Worker: the measuring side's handle of one fresh process; see ``fmtune.bench.serve`` for the protocol."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# The folder that holds this fmtune.
OURS = Path(__file__).parents[2]


class CaseFailed(Exception):
    """A worker died or did not answer; the text says why."""


@dataclass(frozen=True, eq=False)
class Side:
    """One of those that take turns.

    Attributes
    ----------
    name : str
        What it is called in results.
    tree : Path
        The folder that holds its ``fmtune``.
    cache : Path
        Its own folder of compiled kernels.
    python : str
        Its interpreter.
    module : str or None
        The worker program; None is the one of the case's kind.
    plant : dict
        Something that is done to it on purpose (``slowdown``, ``hyperparameters``), for proofs.
    """

    name: str
    cache: Path
    tree: Path = OURS
    python: str = sys.executable
    module: str | None = None
    plant: Mapping[str, Any] = field(default_factory=dict)


class Worker:
    """A running worker; ends with the ``with`` block.

    Parameters
    ----------
    side
        Whose process it is.
    case, files
        The case as plain values, and its files.
    patience
        Seconds after which a worker that has not answered is ended.
    """

    def __init__(self, side: Side, case: Mapping[str, Any], files: Mapping[str, str], patience: float = 300.0) -> None:
        self._patience = patience
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        module = side.module or f"fmtune.bench.kinds.{case['kind']}"
        self._process = subprocess.Popen(
            [side.python, "-P", "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, env=environment(side),
        )  # fmt: skip
        given = {**case["hyperparameters"], **side.plant.get("hyperparameters", {})}
        request = {"case": {**case, "hyperparameters": given}, "files": files, "plant": side.plant}
        with contextlib.suppress(CaseFailed):  # started() will say it
            self._send(request)

    def started(self) -> dict[str, Any]:
        """Wait until the worker is warm; return what it said of its start."""
        return self._answer()

    def sample(self) -> dict[str, float]:
        """Return the seconds of one sample, on both clocks."""
        self._send("sample")
        return self._answer()

    def companions(self) -> dict[str, Any]:
        """Return what must not change from run to run."""
        self._send("companions")
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()
        self._errors.close()

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise CaseFailed(self._reason()) from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        guard = threading.Timer(self._patience, give_up)
        guard.daemon = True
        guard.start()
        line = self._process.stdout.readline()
        guard.cancel()
        if not line:
            waited = f"no answer within {self._patience:g} s: it hangs, or was stopped from outside"
            raise CaseFailed(waited if late.is_set() else self._reason())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _reason(self) -> str:
        """Return the last words of a worker that is gone."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1][:500] if lines else f"the worker ended with code {code}"


def environment(side: Side) -> dict[str, str]:
    """Return the environment of a side's processes: its tree first, its own cache, one thread for BLAS."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("FMTUNE_", "PYTHON"))}
    return {**keep, "PYTHONPATH": str(side.tree), "FMTUNE_CACHE_DIR": str(side.cache), "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # fmt: skip
