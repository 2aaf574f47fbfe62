"""Compiles what a job and an endpoint run, into the image's cache: a tiny job of each network, and a request to it."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fmtune.data import source
from fmtune.fm.scorer import Scorer
from fmtune.rows import DenseRows, Rows
from fmtune.sagemaker import inference, media
from fmtune.sagemaker.artifact import import_artifact
from fmtune.sagemaker.verbs import train

SETTINGS = {"feature_dim": "4", "num_factors": "2", "predictor_type": "binary_classifier", "mini_batch_size": "4"}


def warm(root: Path, rows: Rows) -> None:
    """Train on rows and score one, as the container does below ``root``."""
    (root / "input/config").mkdir(parents=True)
    (root / "input/config/hyperparameters.json").write_text(json.dumps(SETTINGS))
    for channel in ("train", "test"):
        (root / "input/data" / channel).mkdir(parents=True)
        source.write(rows, root / "input/data" / channel / "part.pbr")
    if code := train(root):
        sys.exit(code)
    scorer = Scorer(import_artifact(root / "model"))
    instance = {"data": {"features": {"keys": [1], "shape": [4], "values": [1.0]}}}
    for body in ({"instances": [instance]}, {"instances": [{"features": [0.0, 1.0, 0.0, 0.0]}]}):
        inference.answer(scorer, json.dumps(body).encode(), media.JSON, media.JSON)


if __name__ == "__main__":
    matrix = np.eye(4, dtype=np.float32)
    dense = DenseRows(matrix, np.array([0, 1, 0, 1], np.float32), 4)
    for layout in (dense, dense.to_sparse()):
        with TemporaryDirectory() as folder:
            warm(Path(folder), layout)
