"""SageMaker's room against MXNet and the SageMaker SDK themselves, where a Python that has them is named.

They need older packages than fmtune's, so each runs in a Python of its own::

    python3.11 -m venv /tmp/mx && /tmp/mx/bin/pip install mxnet==1.9.1 numpy==1.23.5
    python3.11 -m venv /tmp/sdk && /tmp/sdk/bin/pip install 'sagemaker<3' scipy
    FMTUNE_MXNET_PYTHON=/tmp/mx/bin/python FMTUNE_SDK_PYTHON=/tmp/sdk/bin/python pytest tests/test_sagemaker_outside.py
"""

import os
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from fmtune.data import source
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.pack import Pack, predict
from fmtune.sagemaker.artifact import member_of
from fmtune.sagemaker.hyperparameters import job_of
from fmtune.sagemaker.ndarray import read_arrays
from tests import fm_reference as reference

MXNET, SDK = os.environ.get("FMTUNE_MXNET_PYTHON"), os.environ.get("FMTUNE_SDK_PYTHON")
needs_mxnet = pytest.mark.skipif(not MXNET, reason="FMTUNE_MXNET_PYTHON names no Python with mxnet 1.9.1")
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
