"""fmtune.sagemaker.verbs: models in and out as files, and the container's two commands."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest

from fmtune.data import source
from fmtune.errors import ModelError
from fmtune.fm.model import Model
from fmtune.fm.pack import predict
from fmtune.sagemaker.artifact import export_artifact
from fmtune.sagemaker.verbs import export_model, import_model, train
from fmtune.tune import scoring
from tests import fm_reference as reference

ROOT = Path(__file__).parents[1]


def test_an_imported_model_predicts_like_any_other(tmp_path):
    """import, then fmtune predict; and the export of the import is the same artifact but for what is known of it."""
    rng = np.random.default_rng(0)
    model = Model("binary_classifier", -0.5, rng.normal(size=20).astype("f"), rng.normal(size=(20, 4)).astype("f"))
    export_artifact(model, tmp_path / "model.tar.gz")
    facts = import_model(tmp_path / "model.tar.gz", tmp_path / "model.fm")
    assert facts == {"predictor_type": "binary_classifier", "feature_dim": 20, "num_factors": 4, "network": "sparse",
                     "model": str(tmp_path / "model.fm")}  # fmt: skip
    rows = reference.rows(30, 20, 3)
    source.write(rows, tmp_path / "rows.pbr")
    assert scoring.predict_file(tmp_path / "model.fm", [tmp_path / "rows.pbr"], tmp_path / "out.csv") == 30
    found = np.loadtxt(tmp_path / "out.csv", delimiter=",", skiprows=1)[:, 0]
    np.testing.assert_allclose(found, predict(model, rows), rtol=1e-6)
    export_model(tmp_path / "model.fm", tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == (tmp_path / "model.tar.gz").read_bytes()
    with pytest.raises(ModelError, match="not a fmtune model"):
        export_model(tmp_path / "model.tar.gz", tmp_path / "x.tar.gz")


def test_signals_are_given_back(tmp_path):
    """After a job the process heeds SIGTERM and SIGINT as before."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    lines: list[str] = []
    assert train(tmp_path, write=lines.append) == 2
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert "hyperparameters.json is missing" in lines[-1]


def test_the_image_has_both_commands():
    """`docker run IMAGE train` and `... serve` become fmtune's verbs and get SageMaker's signals (exec)."""
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^COPY docker/train docker/serve /usr/local/bin/$", text, re.MULTILINE)
    assert "ENTRYPOINT []" in text
    for verb in ("train", "serve"):
        script = ROOT / "docker" / verb
        assert script.stat().st_mode & 0o111
        assert script.read_text().endswith(f"\nexec fmtune sagemaker {verb} --root /opt/ml\n")
