"""Predict: scoring the test channel with a trained model; the companion is the digest of the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fmtune.bench.kinds import stored
from fmtune.bench.serve import Job, serve
from fmtune.fm.fit import Channels, train
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.pack import predict
from fmtune.rows import DenseRows, Rows


def prepare(request: Mapping[str, Any]) -> Job:
    """Train one model; a sample scores the test channel ``inner`` times."""
    case, path = request["case"], request["files"]["rows"]
    h = Hyperparameters.of(case["hyperparameters"])
    channels = Channels(stored.rows(path, "train"), stored.rows(path, "test"))
    fit = train(channels, h, layout=case["layout"])
    rows = channels.test(case["layout"])
    assert rows is not None
    count = rows.n * case["inner"]
    about = {"rows": count, "examples": count, "layout": case["layout"], "lanes": 1, "num_factors": h.num_factors,
             "feature_dim": rows.feature_dim, "features": _features(rows), "planes": 1,
             "nnz_per_row": rows.nnz / rows.n}  # fmt: skip

    def line() -> None:
        for _ in range(case["inner"]):
            predict(fit.model, rows)

    def companions() -> dict[str, Any]:
        return {"loss": [fit.curve[-1]], "curve": stored.digest(predict(fit.model, rows).tolist()), "rows": rows.n}

    return Job(lambda: line, companions, about)


def _features(rows: Rows) -> int:
    """Return how many features occur."""
    return rows.feature_dim if isinstance(rows, DenseRows) else len(np.unique(rows.indices))


if __name__ == "__main__":
    serve(prepare)
