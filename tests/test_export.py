"""A model in another format predicts what it predicts here."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fmtune.data.encoding import Encoder
from fmtune.data.kinds import OneHot, Scaled
from fmtune.errors import StorageError, UsageError
from fmtune.export import mlflow as flavour
from fmtune.export import onnx, standalone
from fmtune.fm.model import Draws, Model
from fmtune.fm.pack import predict
from tests import fm_reference as reference
from tests import report_fixtures
from tests.test_explain import model

mlflow = pytest.importorskip("mlflow")
onnxruntime = pytest.importorskip("onnxruntime")


def trained(predictor_type: str, factors: int) -> Model:
    """Return a model with parameters of a trained one's size."""
    made = model(40, factors)
    small = np.clip(made.factors, -0.5, 0.5)
    return Model(predictor_type, made.bias, made.linear, small, {"study_name": "small", "value": 0.5, "data": "clicks"})


@pytest.mark.parametrize("factors", [0, 5])
@pytest.mark.parametrize("predictor_type", ["regressor", "binary_classifier"])
def test_onnx_predicts_alike(predictor_type: str, factors: int) -> None:
    """onnxruntime's predictions are ours to 1e-6, and its labels are the sides of 0.5."""
    machine, rows = trained(predictor_type, factors), reference.rows(50, 40, 6).to_dense()
    session = onnxruntime.InferenceSession(onnx.content(machine), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"features": rows.matrix}), strict=True))
    np.testing.assert_allclose(found["score"], predict(machine, rows), rtol=1e-6, atol=1e-6)
    if predictor_type == "binary_classifier":
        assert found["predicted_label"].tolist() == (predict(machine, rows) >= 0.5).astype(int).tolist()


@pytest.mark.parametrize("factors", [0, 5])
@pytest.mark.parametrize("predictor_type", ["regressor", "binary_classifier"])
def test_the_standalone_file_predicts_alike_and_needs_numpy_only(
    predictor_type: str, factors: int, tmp_path: Path
) -> None:
    """In a Python without fmtune the file scores matrices and sparse rows as we do, an empty row included."""
    machine, rows = trained(predictor_type, factors), reference.rows(50, 40, 6)
    (tmp_path / "machine.py").write_bytes(standalone.content(machine))
    np.savez(tmp_path / "rows.npz", indptr=np.append(rows.indptr, rows.indptr[-1]), indices=rows.indices,
             values=rows.values, x=rows.to_dense().matrix)  # fmt: skip
    script = (
        "import sys, numpy as np, machine; assert 'fmtune' not in sys.modules; r = np.load('rows.npz');"
        "np.savez('out.npz', a=machine.predict(r['x']), b=machine.predict((r['indptr'], r['indices'], r['values'])))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120)
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(out["a"], predict(machine, rows), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(out["b"][:-1], predict(machine, rows), rtol=1e-6, atol=1e-6)
    alone = machine.bias if predictor_type == "regressor" else 1 / (1 + np.exp(-machine.bias))
    assert out["b"][-1] == pytest.approx(alone)


@pytest.mark.parametrize("content", [onnx.content, standalone.content])
def test_a_mean_of_probabilities_has_no_place_in_one_models_form(content: Callable[[Model], bytes]) -> None:
    """A sampled classifier is refused: its own parameters predict otherwise. A regressor's draws are one model."""
    draws = Draws(np.zeros(2), np.zeros((2, 3), np.float32), np.zeros((2, 3, 1), np.float32), np.full(2, 0.5))
    with pytest.raises(UsageError, match="has no place for"):
        content(Model.of_draws("binary_classifier", draws, {}))
    assert content(Model.of_draws("regressor", draws, {}))


def test_exports_carry_the_features_names(tmp_path: Path) -> None:
    """ONNX in its metadata, the standalone file as NAMES, whichever they are; neither where none are known."""
    names = [f"user={word}{n}" for n, word in enumerate(['a, "b', "it's", 'é'] * 13)] + ["age"]
    machine = replace(trained("regressor", 5), facts={"names": names})
    props = onnxruntime.InferenceSession(onnx.content(machine), providers=["CPUExecutionProvider"]).get_modelmeta()
    assert json.loads(props.custom_metadata_map["feature_names"]) == names
    (tmp_path / "m.py").write_bytes(standalone.content(machine))
    assert runpy.run_path(str(tmp_path / "m.py"))["NAMES"] == names
    (tmp_path / "m.py").write_bytes(standalone.content(trained("regressor", 5)))
    assert runpy.run_path(str(tmp_path / "m.py"))["NAMES"] is None


def test_exports_say_how_numbers_are_scaled(tmp_path: Path) -> None:
    """A table's row, encoded by what the exports say alone, gets our prediction from both."""
    encoder = Encoder([OneHot("user", ("a", "b")), Scaled("price", 200.0, 25.0)])
    rng = np.random.default_rng(0)
    linear, factors = rng.normal(size=3).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    machine = Model("regressor", 0.5, linear, factors, {"encoding": encoder.to_json()})
    wanted = predict(machine, encoder.rows(pd.DataFrame({"user": ["b"], "price": [260.0]}), labels=False))
    session = onnxruntime.InferenceSession(onnx.content(machine), providers=["CPUExecutionProvider"])
    props = session.get_modelmeta().custom_metadata_map
    (tmp_path / "m.py").write_bytes(standalone.content(machine))
    file = runpy.run_path(str(tmp_path / "m.py"))
    for names, scales in (
        (json.loads(props["feature_names"]), json.loads(props["feature_scales"])), (file["NAMES"], file["SCALES"])
    ):  # fmt: skip
        mean, deviation = scales["price"]
        x = np.zeros((1, 3), np.float32)
        x[0, names.index("user=b")], x[0, names.index("price")] = 1, (260.0 - mean) / deviation
        np.testing.assert_allclose(session.run(["score"], {"features": x})[0], wanted, rtol=1e-5)
        np.testing.assert_allclose(file["predict"](x), wanted, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_loads_what_was_saved(tmp_path: Path) -> None:
    """MLflow's python_function predicts as we do, knows the signature, and refuses another width."""
    machine, rows = trained("binary_classifier", 5), reference.rows(50, 40, 6).to_dense()
    flavour.save(machine, tmp_path / "saved")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.predict(rows.matrix), predict(machine, rows), rtol=1e-6, atol=1e-6)
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 40)
    with pytest.raises(Exception, match="shape"):
        loaded.predict(rows.matrix[:, :5])
    with pytest.raises(UsageError, match="not empty"):
        flavour.save(machine, tmp_path / "saved")


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_study_becomes_runs(tmp_path: Path) -> None:
    """A parent run with the best score, and a run a trial with its parameters, curve and state."""
    result = report_fixtures.study(trials=6, epochs=3)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    parent = flavour.log(result, uri)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(result.study_name)
    children = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    trials = [t for cell in result.cells for t in cell.trials]
    assert len(children) == len(trials)
    best = result.best
    assert best is not None
    metric = result.objective.replace(":", "_")
    assert client.get_run(parent).data.metrics[metric] == best.value
    curves = {tuple(m.value for m in client.get_metric_history(run.info.run_id, metric)) for run in children}
    assert curves == {t.curve for t in trials}


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_an_address_that_is_none_of_mlflows_is_refused_without_its_password() -> None:
    """In MLflow's words, exit code 4."""
    with pytest.raises(StorageError) as error:
        flavour.log(report_fixtures.study(trials=1, epochs=1), "nosuch://me:s3cret@host/x")
    assert str(error.value).startswith("nosuch://me:***@host/x: MLflow does not take it: ")
    assert str(error.value).endswith("\n  hint: check the address, and that its server runs")
    assert "s3cret" not in str(error.value)


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg"])
def test_an_address_where_nobody_answers_is_given_up(scheme: str) -> None:
    """After one or two tries, where MLflow itself makes eight or ten; in one line, exit code 4."""
    calls: list[str] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        uri = f"{scheme}://me:s3cret@127.0.0.1:{listener.getsockname()[1]}/x"
        thread = threading.Thread(target=_hang_up, args=(listener, calls))
        thread.start()
        with pytest.raises(StorageError) as error:
            flavour.log(report_fixtures.study(trials=1, epochs=1), uri)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)
    assert 1 <= len(calls) <= 3 and error.value.exit_code == 4
    said = str(error.value)
    assert said.startswith(uri.replace("s3cret", "***") + ": MLflow does not take it: ") and "s3cret" not in said
    assert said.splitlines()[1:] == ["  hint: check the address, and that its server runs"]
    assert not any(name in os.environ for name in flavour._FIRST)


def _hang_up(listener: socket.socket, calls: list[str]) -> None:
    """Take calls until the listener is shut, and end each at its first words."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            calls.append("")
            with connection:
                connection.recv(65536)


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    """Before MLflow tries it ten times; one that is not there yet is MLflow's to make."""
    (tmp_path / "m.db").write_bytes(b"hello" * 1000)
    with pytest.raises(StorageError, match="file is not a database"):
        flavour.log(report_fixtures.study(trials=1, epochs=1), f"sqlite:///{tmp_path / 'm.db'}")


def test_a_password_that_splits_the_address_is_refused() -> None:
    """A driver would take its rest for the host, and show it."""
    with pytest.raises(StorageError, match="more than one @") as error:
        flavour.log(report_fixtures.study(trials=1, epochs=1), "postgresql+psycopg://me:s3@cret@127.0.0.1:1/x")
    assert "cret" not in str(error.value)
