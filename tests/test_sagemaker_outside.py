"""SageMaker's room against a finished training job, MXNet and the SageMaker SDK themselves, where they are named.

MXNet and the SDK need older packages than fmtune's, so each runs in a Python of its own::

    python3.11 -m venv /tmp/mx && /tmp/mx/bin/pip install mxnet==1.9.1 numpy==1.23.5
    python3.11 -m venv /tmp/sdk && /tmp/sdk/bin/pip install 'sagemaker<3' scipy
    FMTUNE_MXNET_PYTHON=/tmp/mx/bin/python FMTUNE_SDK_PYTHON=/tmp/sdk/bin/python pytest tests/test_sagemaker_outside.py

A finished regression job of the sparse network is a folder with its ``model.tar.gz``, its channels' ``train.protobuf``
and ``test.protobuf``, and its log as ``log.txt``: ``FMTUNE_SAGEMAKER_JOB=folder``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from fmtune.data import source
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.model import Model
from fmtune.fm.pack import Pack, predict
from fmtune.sagemaker.archive import read_parts
from fmtune.sagemaker.artifact import export_artifact, import_artifact, member_of
from fmtune.sagemaker.container import Container
from fmtune.sagemaker.hyperparameters import DEFAULTS, job_of
from fmtune.sagemaker.logs import Log
from fmtune.sagemaker.ndarray import read_arrays
from fmtune.sagemaker.training import Training
from tests import fm_reference as reference

MXNET, SDK = os.environ.get("FMTUNE_MXNET_PYTHON"), os.environ.get("FMTUNE_SDK_PYTHON")
JOB = os.environ.get("FMTUNE_SAGEMAKER_JOB")
needs_mxnet = pytest.mark.skipif(not MXNET, reason="FMTUNE_MXNET_PYTHON names no Python with mxnet 1.9.1")
needs_job = pytest.mark.skipif(not JOB, reason="FMTUNE_SAGEMAKER_JOB names no folder of a finished job")
needs_sdk = pytest.mark.skipif(not SDK, reason="FMTUNE_SDK_PYTHON names no Python with sagemaker<3")

# Loads our files by the recipe of AWS's blog, scores the rows, trains as SageMaker's container does, saves the weights.
IN_MXNET = """
import sys, numpy as np, mxnet as mx
folder, dense, clip = sys.argv[1], sys.argv[2] == "dense", float(sys.argv[3])
z = np.load(folder + "/rows.npz")
if dense:
    data = mx.nd.array(z["x"])
else:
    data = mx.nd.array(z["x"]).tostype("csr")
rows = mx.io.NDArrayIter({"data": data}, {"out_label": z["y"].reshape(-1, 1)}, 100, last_batch_handle="discard")
symbol, weights, aux = mx.model.load_checkpoint(folder + "/model", 0)
bound = {**weights, "data": data, "out_label": mx.nd.zeros((len(z["y"]), 1))}
scores = symbol.bind(mx.cpu(), bound, grad_req="null").forward(is_train=False)[0].asnumpy().ravel()
module = mx.mod.Module(symbol, ["data"], ["out_label"])
module.bind(rows.provide_data, rows.provide_label)
module.init_params(arg_params=weights, aux_params=aux)
options = {"learning_rate": 1.0, "wd": 1.0, **({"clip_gradient": clip} if clip else {})}
module.init_optimizer("local", "adam", tuple(options.items()))
for epoch in range(3):
    rows.reset()
    for batch in rows:
        module.forward_backward(batch)
        module.update()
mx.nd.save(folder + "/trained.params", {"arg:" + name: array for name, array in module.get_params()[0].items()})
np.save(folder + "/scores.npy", scores)
"""

IN_SDK = """
import sys, numpy as np, scipy.sparse, sagemaker.amazon.common as smac
folder = sys.argv[1]
z = np.load(folder + "/rows.npz")
with open(folder + "/sparse.pbr", "wb") as f:
    smac.write_spmatrix_to_sparse_tensor(f, scipy.sparse.csr_matrix(z["x"]), z["y"])
with open(folder + "/dense.pbr", "wb") as f:
    smac.write_numpy_to_dense_tensor(f, z["x"], z["y"])
with open(folder + "/ours.pbr", "rb") as f:
    records = smac.read_records(f)
values = [(list(r.features["values"].float32_tensor.keys), list(r.features["values"].float32_tensor.values),
           r.label["values"].float32_tensor.values[0]) for r in records]
np.save(folder + "/labels.npy", np.float32([v[2] for v in values]))
np.save(folder + "/sums.npy", np.float32([sum(v[1]) for v in values]))
"""


def logged(pattern: str, text: str) -> list[float]:
    """Return the numbers that follow a pattern in a job's log."""
    return [float(found) for found in re.findall(pattern + r"([-\d.e+]+)", text)]


@needs_job
def test_a_finished_jobs_artifact_predicts_its_logged_scores(tmp_path):
    """Its test channel's metrics to six digits; and written again, it holds the same bytes of weights and network."""
    folder = Path(str(JOB))
    rows, log = source.read_channel(folder / "test.protobuf"), (folder / "log.txt").read_text()
    model = import_artifact(folder / "model.tar.gz")
    off = predict(model, rows).astype(np.float64) - rows.labels
    found = [np.sqrt(np.mean(off**2)), np.mean(off**2), np.mean(np.abs(off))]
    np.testing.assert_allclose(found, logged(r"#test_score \(algo-1\) : \('\w+', ", log), rtol=1e-7)
    export_artifact(model, tmp_path / "model.tar.gz")
    ours, theirs = read_parts(tmp_path / "model.tar.gz"), read_parts(folder / "model.tar.gz")
    assert ours.params == theirs.params
    assert json.loads(ours.symbol or b"") == json.loads(theirs.symbol or b"")
    assert ours.meta == theirs.meta


@needs_job
def test_a_finished_job_trained_again_is_one_of_its_seeds(tmp_path):
    """Every epoch's train loss, the test score and the weights lie where those of 16 seeds lie."""
    folder, box = Path(str(JOB)), Container(tmp_path)
    log = (folder / "log.txt").read_text()
    theirs = import_artifact(folder / "model.tar.gz")
    settings = theirs.facts["sagemaker"]["training_parameters"]
    given = {name: text for name, text in settings.items() if DEFAULTS.get(name) != text}
    for channel in ("train", "test"):
        (tmp_path / "input/data" / channel).mkdir(parents=True)
        shutil.copy(folder / f"{channel}.protobuf", tmp_path / "input/data" / channel)
    (tmp_path / "input/config").mkdir()
    curves, scores, weights = [], [], []
    for seed in range(16):
        (tmp_path / "input/config/hyperparameters.json").write_text(json.dumps({**given, "seed": str(seed)}))
        job, lines = box.job(), list[str]()
        channels = box.channels(job)
        done = Training(job, channels["train"], channels["test"], Log(lines.append, "algo-1")).run(lambda model: None)
        curves.append(logged(r"epoch=\d+, train mse <loss>=", "\n".join(lines)))
        scores.append(done.test["mse"])
        weights.append(done.model.linear)
    for ours, real in ((curves, logged(r"epoch=\d+, train mse <loss>=", log)), (scores, logged(r"\('mse', ", log))):
        z = (np.array(real) - np.mean(ours, 0)) / np.std(ours, 0, ddof=1)
        assert np.abs(z).max() < 4
    between = np.mean([np.linalg.norm(a - b) for a in weights for b in weights if a is not b])
    assert np.mean([np.linalg.norm(theirs.linear - one) for one in weights]) < 1.1 * between

IN_CLIENT = """
import io, json, sys, boto3, numpy as np
from sagemaker.amazon.common import RecordDeserializer, RecordSerializer
from sagemaker.deserializers import JSONDeserializer, JSONLinesDeserializer
from sagemaker.serializers import JSONSerializer, JSONLinesSerializer
address, folder = sys.argv[1:]
x = np.load(folder + "/rows.npz")["x"]
client = boto3.client("sagemaker-runtime", endpoint_url=address, region_name="us-east-1",
                      aws_access_key_id="none", aws_secret_access_key="none")
def ask(serializer, deserializer, data):
    answer = client.invoke_endpoint(EndpointName="fm", Body=serializer.serialize(data),
                                    ContentType=serializer.CONTENT_TYPE, Accept=deserializer.ACCEPT[0])
    return deserializer.deserialize(answer["Body"], answer["ContentType"])
dense = {"instances": [{"features": row.tolist()} for row in x]}
sparse = [{"data": {"features": {"keys": np.flatnonzero(row).tolist(), "shape": [len(row)],
                                 "values": row[row != 0].tolist()}}} for row in x]
found = [
    [one["score"] for one in ask(JSONSerializer(), JSONDeserializer(), dense)["predictions"]],
    [one["score"] for one in ask(JSONSerializer(), JSONDeserializer(), {"instances": sparse})["predictions"]],
    [one["score"] for one in ask(JSONLinesSerializer(), JSONLinesDeserializer(), sparse)],
    [r.label["score"].float32_tensor.values[0] for r in ask(RecordSerializer(), RecordDeserializer(), x)],
]
print(json.dumps(found))
"""


@needs_mxnet
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    "change", [{}, {"clip_gradient": "0.05", "factors_wd": "0.1"}, {"predictor_type": "binary_classifier"}],
    ids=["regressor", "clipped", "binary"],
)  # fmt: skip
def test_mxnet_loads_scores_and_trains_alike(change, dense, tmp_path):
    """MXNet's own module, from our artifact: the same scores, and after three epochs the same weights to 1e-5."""
    job = job_of({"feature_dim": "30", "num_factors": "4", "predictor_type": "regressor", "epochs": "3",
                  "mini_batch_size": "100", "factors_lr": "0.01", "factors_init_sigma": "0.1", **change})  # fmt: skip
    h = job.model_settings(dense)
    rows = reference.rows(800, 30, 4, binary=h.predictor_type == "binary_classifier")
    layout = "dense" if dense else "sparse"
    pack = Pack(Feed(rows), Recipe.of(h, layout))
    (lane,) = pack.change(enter=[h])
    first = pack.model(lane, sagemaker={"network": layout, "training_parameters": job.final})
    with zipfile.ZipFile(BytesIO(member_of(first))) as archive:
        (tmp_path / "model-symbol.json").write_bytes(archive.read("symbol.json"))
        (tmp_path / "model-0000.params").write_bytes(archive.read("params"))
    np.savez(tmp_path / "rows.npz", x=rows.to_dense().matrix, y=rows.labels)
    words = [str(MXNET), "-W", "ignore", "-c", IN_MXNET, tmp_path, layout, str(h.clip_gradient or 0)]
    subprocess.run(words, check=True, timeout=120)
    for _ in range(3):
        pack.epoch()
    ours, theirs = pack.model(lane), read_arrays((tmp_path / "trained.params").read_bytes())
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), predict(first, rows), atol=1e-5)
    weight, bias = ("Linear_Plus_Bias_weight", "Linear_Plus_Bias_bias") if dense else ("w1_weight", "w0_weight")
    np.testing.assert_allclose(theirs["v"].T if dense else theirs["v"], ours.factors, atol=1e-5)
    np.testing.assert_allclose(theirs[weight].ravel(), ours.linear, atol=1e-5)
    np.testing.assert_allclose(theirs[bias], [ours.bias], atol=1e-5)
    assert np.abs(ours.factors - first.factors).max() > 0.05


@needs_sdk
def test_the_sdk_writes_what_we_read_and_reads_what_we_write(tmp_path: Path):
    """Its two writers, sparse and dense, and its reader of records."""
    rows = reference.rows(200, 30, 4)
    np.savez(tmp_path / "rows.npz", x=rows.to_dense().matrix, y=rows.labels)
    source.write(rows, tmp_path / "ours.pbr")
    subprocess.run([str(SDK), "-W", "ignore", "-c", IN_SDK, tmp_path], check=True, timeout=120)
    sparse, dense = (source.read_channel(tmp_path / f"{name}.pbr") for name in ("sparse", "dense"))
    assert (sparse.digest(), dense.digest()) == (rows.digest(), rows.to_dense().digest())
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), rows.labels)
    np.testing.assert_allclose(np.load(tmp_path / "sums.npy"), rows.to_dense().matrix.sum(1), atol=1e-5)


@needs_sdk
def test_boto3_and_the_sdk_ask_and_read_the_answers(tmp_path: Path):
    """As of an endpoint, at our address: JSON dense and sparse, JSON lines, records; the scores of ``predict``."""
    rows = reference.rows(50, 30, 4)
    rng = np.random.default_rng(0)
    model = Model("regressor", 0.5, rng.normal(size=30).astype("f"), rng.normal(size=(30, 4)).astype("f"))
    model.save(tmp_path / "fm.model")
    np.savez(tmp_path / "rows.npz", x=rows.to_dense().matrix)
    words = [sys.executable, "-m", "fmtune", "serve", tmp_path / "fm.model", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            said = iter(server.stdout.readline, "")
            address = next(found[0] for line in said if (found := re.search(r"http://\S+:\d+", line)))
            words = [str(SDK), "-W", "ignore", "-c", IN_CLIENT, address, tmp_path]
            printed = subprocess.run(words, check=True, timeout=120, stdout=subprocess.PIPE).stdout
            answers = json.loads(printed.splitlines()[-1])  # the SDK prints more, above
        finally:
            server.terminate()
    for found in answers:
        np.testing.assert_allclose(found, predict(model, rows), rtol=1e-5, atol=1e-5)
