"""Vowpal Wabbit: ``--lrq`` (a factorization machine over one namespace), one pass a sample over parsed examples."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import Any

import scipy.sparse
from vowpalwabbit import pyvw  # type: ignore[import-not-found, unused-ignore]

from fmtune.bench.peers.common import channel, job, log_loss
from fmtune.bench.serve import Job, serve


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample is one pass over examples that were parsed before."""
    path = request["files"]["rows"]
    (x, y), (x_test, y_test) = channel(path, "train"), channel(path, "test")
    rank = max(1, request["case"]["hyperparameters"].get("num_factors", 16))
    vw = pyvw.Workspace(f"--quiet --loss_function logistic --link logistic --lrq aa{rank} -b 22 --random_seed 0")
    train, test = ([vw.parse(line) for line in _lines(*rows)] for rows in ((x, y), (x_test, y_test)))

    def learn() -> None:
        for example in train:
            vw.learn(example)

    def close() -> None:
        for example in (*train, *test):
            vw.finish_example(example)
        vw.finish()

    atexit.register(close)
    return job(request, len(y), learn, lambda: log_loss([vw.predict(example) for example in test], y_test))


def _lines(x: Any, y: Any) -> list[str]:
    rows = scipy.sparse.csr_matrix(x)
    found = []
    for r, label in enumerate(y):
        at = slice(rows.indptr[r], rows.indptr[r + 1])
        entries = " ".join(f"{i}:{v:.6g}" for i, v in zip(rows.indices[at], rows.data[at], strict=True))
        found.append(f"{1 if label > 0 else -1} |a {entries}")
    return found


if __name__ == "__main__":
    serve(prepare)
