"""Worker: the measuring side's handle of one fresh process; see ``fmtune.bench.serve`` for the protocol."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

# The folder that holds this fmtune.
OURS = Path(__file__).parents[2]


# Signals that a process does not send itself by a fault of its own.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# CPU seconds without an answer after which a worker hangs, and was not merely kept from working.
_HANGS = 120.0
PATIENCE = 300.0


class CaseFailed(Exception):
    """A worker died or did not answer; the text says why."""


class Disturbed(CaseFailed):
    """A worker was ended, stopped or starved from outside, which says nothing about the case."""


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
    kind : str
        Of a peer: the kind of cases that it can run.
    plant : dict
        Something that is done to it on purpose (``slowdown``, ``hyperparameters``), for proofs.
    """

    name: str
    cache: Path
    tree: Path = OURS
    python: str = sys.executable
    module: str | None = None
    kind: str = "fit"
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

    def __init__(
        self, side: Side, case: Mapping[str, Any], files: Mapping[str, str], patience: float = PATIENCE
    ) -> None:
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

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

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
            raise self._ended() from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        late: list[CaseFailed] = []
        before = self._busy()

        def give_up() -> None:
            late.append(self._late(self._busy() - before))
            self._process.kill()

        guard = threading.Timer(self._patience, give_up)
        guard.daemon = True
        guard.start()
        line = self._process.stdout.readline()
        guard.cancel()
        if not line:
            raise late[0] if late else self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _busy(self) -> float:
        """Return the CPU seconds of the worker so far."""
        try:
            return float(sum(psutil.Process(self.pid).cpu_times()[:4]))
        except psutil.Error:
            return 0.0

    def _late(self, busy: float) -> CaseFailed:
        """Return what it means that a worker has not answered, by the CPU seconds it had meanwhile."""
        waited = f"no answer within {self._patience:.3g} s"
        if busy > _HANGS:
            return CaseFailed(f"{waited}: it hangs")
        return Disturbed(f"{waited}, {busy:.1f} s of them on a processor: stopped, starved, or waiting for something")

    def _ended(self) -> CaseFailed:
        """Return why a worker is gone: its last words, unless it was ended from outside."""
        code = self._process.wait()
        if -code in _FROM_OUTSIDE:
            return Disturbed(f"the worker was ended from outside, by {signal.Signals(-code).name}")
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        said = "; ".join(lines[-2:] if lines and lines[-1].startswith("hint:") else lines[-1:])
        return CaseFailed(said[:500] or f"the worker ended with code {code}")


def environment(side: Side) -> dict[str, str]:
    """Return the environment of a side's processes: its tree first, its own cache, one thread for BLAS."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("FMTUNE_", "PYTHON"))}
    return {**keep, "PYTHONPATH": str(side.tree), "FMTUNE_CACHE_DIR": str(side.cache), "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # fmt: skip
