"""ONNX: a model as a graph of a few products, for onnxruntime and what else reads it.

Input ``features``, float32 (rows, feature_dim); outputs ``score``, float32 (rows,), the value or the probability of
label 1, and for a binary model ``predicted_label``, int64 (rows,).  The features' names, where the model knows them,
are a JSON list in the metadata ``feature_names``; ``feature_scales`` says by name what to take from a number and to
divide it by before it goes in.  With ``S = X V``::

    z = w0 + X w + 1/2 (sum_f S_f^2 - (X * X) q)        q_i = sum_f v_if^2
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fmtune.data.encoding import names_of, scales_of
from fmtune.fm.model import Model

_OPSET = 17


def graph(model: Model) -> Any:
    """Return the model as an ONNX ``ModelProto``; raises UsageError for a sampled classifier."""
    model.must_be_exact("the graph")
    factors = np.ascontiguousarray(model.factors)
    weights = {
        "bias": np.array([model.bias], np.float32),
        "linear": model.linear.reshape(-1, 1),
        "factors": factors,
        "squares": (factors.astype(np.float64) ** 2).sum(1, keepdims=True).astype(np.float32),
        "half": np.array([0.5], np.float32),
        "last": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["features", "linear"], ["first"]),
        node("MatMul", ["features", "factors"], ["sums"]),
        node("ReduceSumSquare", ["sums"], ["pairs"], axes=[1], keepdims=1),
        node("Mul", ["features", "features"], ["squared"]),
        node("MatMul", ["squared", "squares"], ["selves"]),
        node("Sub", ["pairs", "selves"], ["twice"]),
        node("Mul", ["twice", "half"], ["second"]),
        node("Add", ["first", "second"], ["terms"]),
        node("Add", ["terms", "bias"], ["column"]),
        node("Squeeze", ["column", "last"], ["raw"]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])]
    if model.predictor_type == "binary_classifier":
        weights["zero"] = np.array(0, np.float32)
        nodes += [
            node("Sigmoid", ["raw"], ["score"]),
            node("GreaterOrEqual", ["raw", "zero"], ["above"]),
            node("Cast", ["above"], ["predicted_label"], to=TensorProto.INT64),
        ]
        outputs.append(helper.make_tensor_value_info("predicted_label", TensorProto.INT64, ["rows"]))
    else:
        nodes.append(node("Identity", ["raw"], ["score"]))
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", model.feature_dim])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "factorization machine", [features], outputs, tensors)
    found = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="fmtune")
    found.ir_version = 8
    if (names := names_of(model.facts)) is not None:
        props = {"feature_names": names, "feature_scales": scales_of(model.facts)}
        helper.set_model_props(found, {k: json.dumps(v, ensure_ascii=False) for k, v in props.items() if v})
    onnx.checker.check_model(found)
    return found


def content(model: Model) -> bytes:
    """Return the content of the ``.onnx`` file."""
    return bytes(graph(model).SerializeToString())
