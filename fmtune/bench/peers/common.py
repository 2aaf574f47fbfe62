"""Common: the rows of a case for peers, as numpy and scipy have them, and their scores.

A peer learns the train channel once a sample and states its log loss on the test channel after ``epochs`` passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse

from fmtune.bench.serve import Job


def channel(path: str, name: str) -> tuple[Any, Any]:
    """Return features (CSR or a matrix) and labels of a stored channel."""
    with np.load(path, allow_pickle=False) as file:
        labels = file[f"{name}_labels"]
        if f"{name}_matrix" in file:
            return file[f"{name}_matrix"], labels
        parts = (file[f"{name}_values"], file[f"{name}_indices"], file[f"{name}_indptr"])
        return scipy.sparse.csr_matrix(parts, shape=(len(labels), int(file["feature_dim"]))), labels


def log_loss(probability: Any, labels: Any) -> float:
    """Return the mean log loss of probabilities of label 1."""
    p = np.clip(np.asarray(probability, np.float64), 1e-15, 1 - 1e-15)
    return float(-np.mean(np.where(labels > 0, np.log(p), np.log(1 - p))))


def rmse(prediction: Any, labels: Any) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(np.mean((np.asarray(prediction, np.float64) - labels) ** 2)))


def job(request: Mapping[str, Any], rows: int, learn: Callable[[], object], loss: Callable[[], float]) -> Job:
    """Return the job of a peer whose ``learn`` is one pass over the train channel."""
    passes = max(1, request["case"]["epochs"])

    def companions() -> dict[str, Any]:
        return {"loss": [loss()], "note": f"after the passes that were timed, at least {passes}"}

    def line() -> None:
        learn()

    return Job(lambda: line, companions, {"rows": rows, "examples": rows})
