"""Small studies on generated data, for tests that run them whole."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fmtune.__main__ import _code as run
from fmtune.data import source
from tests import fm_reference as reference

STUDY = """\
study_name: small
data: {train: train.npz, test: test.npz, holdout: holdout.npz}
objective: test:binary_classification_cross_entropy
hyperparameters: {epochs: 4, mini_batch_size: 50, bias_lr: 0.05}
search_space:
  num_factors: 1..12
  optimizer: [adam, adagrad]
  linear_lr: 1e-3..0.5 log
  factors_lr: 1e-3..0.5 log
  factors_init_sigma: 1e-2..0.3 log
sampler: {name: tpe, n_startup_trials: 6}
pruner: {name: median, n_startup_trials: 3}
n_trials: 24
pack: 4
threads: 2
matrix: {layout: [sparse, dense]}
"""


def write_data(folder: Path, rows: int = 600) -> None:
    """Write train, test and holdout of a small binary task."""
    whole = reference.rows(rows + 400, 40, 6)
    for name, start, stop in (("train", 400, rows + 400), ("test", 0, 200), ("holdout", 200, 400)):
        source.write(whole.slice(start, stop), folder / f"{name}.npz")


def write_study(folder: Path, text: str = STUDY, rows: int = 600) -> Path:
    """Write data and a study file; returns the study's path."""
    write_data(folder, rows)
    path = folder / "study.yaml"
    path.write_text(text)
    return path


class Said(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def said(folder: Path, *words: str | Path) -> Said:
    """Run the command in a folder, in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in "12")
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(word) for word in words])
    out.seek(0), err.seek(0)
    return Said(code, out.read(), err.read())


def fmtune(folder: Path, *words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, as a user would."""
    return subprocess.run(
        command(*words), cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})},
        check=False,
    )  # fmt: skip


def command(*words: str | Path) -> Sequence[str]:
    """Return the command's words."""
    return [sys.executable, "-m", "fmtune", *map(str, words)]
