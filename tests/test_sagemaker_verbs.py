"""fmtune.sagemaker.verbs: models in and out as files, and the container's two commands."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from click.testing import CliRunner

from fmtune.cli import fmtune as cli
from fmtune.data import source
from fmtune.errors import ModelError
from fmtune.fm.model import Model
from fmtune.fm.pack import predict
from fmtune.rows import SparseRows
from fmtune.sagemaker.artifact import export_artifact, import_artifact
from fmtune.sagemaker.verbs import export_model, import_model, train
from fmtune.tune import scoring
from tests import fm_reference as reference
from tests.processes import Limited

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
    assert scoring.predict_file(tmp_path / "model.fm", [tmp_path / "rows.pbr"], tmp_path / "out.csv").rows == 30
    found = np.loadtxt(tmp_path / "out.csv", delimiter=",", skiprows=1)[:, 0]
    np.testing.assert_allclose(found, predict(model, rows), rtol=1e-6)
    export_model(tmp_path / "model.fm", tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == (tmp_path / "model.tar.gz").read_bytes()
    with pytest.raises(ModelError, match="not a fmtune model"):
        export_model(tmp_path / "model.tar.gz", tmp_path / "x.tar.gz")


def test_a_file_that_is_sagemakers_is_told_from_one_that_is_nothing(tmp_path):
    """predict and serve name the verb that takes it in."""
    (tmp_path / "model.tar.gz").write_bytes(artifact_of(tmp_path))
    with pytest.raises(ModelError) as error:
        Model.load(tmp_path / "model.tar.gz")
    assert error.value.hint == "`fmtune sagemaker import` makes one of SageMaker's model.tar.gz"


def test_a_folder_with_the_archive_is_a_model_too(tmp_path):
    """As one with what was in it: `sagemaker serve --root` finds either."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.tar.gz").write_bytes(artifact_of(tmp_path))
    assert import_artifact(tmp_path / "model").feature_dim == 20


def artifact_of(folder: Path) -> bytes:
    model = Model("regressor", 0.5, np.zeros(20, "f"), np.zeros((20, 4), "f"))
    export_artifact(model, folder / "made.tar.gz")
    return (folder / "made.tar.gz").read_bytes()


def test_transform_is_a_verb(tmp_path):
    """Records and JSON of one folder, by what they are; of SageMaker's artifact as it is."""
    (tmp_path / "model.tar.gz").write_bytes(artifact_of(tmp_path))
    source.write(reference.rows(3, 20, 2), tmp_path / "in/a.pbr")
    (tmp_path / "in/b.json").write_text('{"instances": [{"data": {"features": {"keys": [1], "values": [1]}}}]}')
    (tmp_path / "in/c.jsonl").write_text('{"data": {"features": {"keys": [1], "values": [1]}}}\n' * 2)
    out = tmp_path / "out"
    words = ["sagemaker", "transform", f"{tmp_path}/model.tar.gz", f"{tmp_path}/in", "-o", str(out)]
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, result.exception) == (0, None)
    assert result.output.split() == [f"{out}/a.pbr.out", f"{out}/b.json.out", f"{out}/c.jsonl.out"]
    assert (out / "a.pbr.out").read_text() == '{"score":0.5}\n' * 3
    assert (out / "b.json.out").read_text() == '{"predictions":[{"score":0.5}]}'
    assert (out / "c.jsonl.out").read_text() == '{"score":0.5}\n' * 2


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


def test_the_image_is_made_of_what_is_there():
    """Every file that is copied exists, the lock has what training and serving need, and the tiny jobs run."""
    text = (ROOT / "Dockerfile").read_text()
    for words in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in words.split()[:-1])
    (lock,) = re.findall(r"--require-hashes -r (\S+)", text)
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    assert {re.findall(r"[a-z0-9.-]+", one)[0].replace(".", "-") for one in needed} <= locked
    words = [sys.executable, "-W", "error", ROOT / "docker/warm.py"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=300)


def test_a_container_that_trained_can_serve(tmp_path):
    """The folder that `train` leaves is what a hosting container finds: /ping and /invocations on its port."""
    rows = reference.rows(40, 10, 2)
    (tmp_path / "input/config").mkdir(parents=True)
    settings = {"feature_dim": "10", "num_factors": "2", "predictor_type": "regressor"}
    (tmp_path / "input/config/hyperparameters.json").write_text(json.dumps(settings))
    (tmp_path / "input/data/train").mkdir(parents=True)
    source.write(rows, tmp_path / "input/data/train/part.pbr")
    assert train(tmp_path, write=lambda line: None) == 0
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "fmtune", "sagemaker", "serve", "--root", tmp_path]
    with Limited(words, env={**os.environ, "SAGEMAKER_BIND_TO_PORT": str(port)}) as server:
        try:
            end = time.monotonic() + 60
            while not answers(port) and time.monotonic() < end:
                time.sleep(0.1)
            instance = {"data": {"features": {"keys": [1], "shape": [10], "values": [1]}}}
            request = Request(
                f"http://127.0.0.1:{port}/invocations", json.dumps({"instances": [instance]}).encode(),
                {"Content-Type": "application/json"},
            )  # fmt: skip
            found = json.loads(urlopen(request, timeout=20).read())["predictions"][0]["score"]
        finally:
            server.terminate()
    one = SparseRows(np.array([0, 1]), np.array([1], np.int32), np.ones(1, np.float32), None, 10)
    assert found == pytest.approx(float(predict(import_artifact(tmp_path / "model"), one)[0]), rel=1e-6)


def answers(port: int) -> bool:
    """Whether /ping says 200."""
    try:
        return urlopen(f"http://127.0.0.1:{port}/ping", timeout=20).status == 200
    except OSError:
        return False
