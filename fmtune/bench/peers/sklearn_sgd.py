"""scikit-learn: SGDClassifier, one pass a sample; linear, so the floor of what a pass can cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import SGDClassifier

from fmtune.bench.peers.common import channel, job, log_loss
from fmtune.bench.serve import Job, serve


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample is one ``partial_fit`` over the train channel."""
    path = request["files"]["rows"]
    (x, y), (x_test, y_test) = channel(path, "train"), channel(path, "test")
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01, random_state=0)
    classes = np.array([0.0, 1.0])
    return job(request, len(y), lambda: model.partial_fit(x, y, classes),
               lambda: log_loss(model.predict_proba(x_test)[:, 1], y_test))  # fmt: skip


if __name__ == "__main__":
    serve(prepare)
