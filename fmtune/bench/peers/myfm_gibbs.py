"""myFM: a factorization machine by Gibbs sampling; a sample is one sweep's share of a fit of ten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import scipy.sparse
from myfm import MyFMClassifier  # type: ignore[import-not-found, unused-ignore]

from fmtune.bench.peers.common import channel, job, log_loss
from fmtune.bench.serve import Job, serve

_SWEEPS = 10


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample is a fit of ten sweeps, counted as ten passes."""
    path = request["files"]["rows"]
    (x, y), (x_test, y_test) = channel(path, "train"), channel(path, "test")
    x, x_test = scipy.sparse.csr_matrix(x).astype("float64"), scipy.sparse.csr_matrix(x_test).astype("float64")
    rank = max(1, request["case"]["hyperparameters"].get("num_factors", 16))
    fitted: list[Any] = []

    def learn() -> None:
        fitted[:] = [MyFMClassifier(rank=rank, random_seed=0).fit(x, y > 0, n_iter=_SWEEPS)]

    return job(request, _SWEEPS * len(y), learn, lambda: log_loss(fitted[0].predict_proba(x_test), y_test))


if __name__ == "__main__":
    serve(prepare)
