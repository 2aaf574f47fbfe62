"""Symbol: the network of a factorization machine as MXNet writes it (symbol.json), made and looked at.

The sparse network has SageMaker's own nodes, names and attributes, in SageMaker's order.  Of the dense network
only the names and shapes of its weights are known (``Linear_Plus_Bias_weight``, ``Linear_Plus_Bias_bias``,
``v`` transposed); its nodes here compute the same sums from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fmtune.errors import ModelError

HEADS = {"LinearRegressionOutput": "regressor", "LogisticRegressionOutput": "binary_classifier"}
_OUTPUT = {kind: op for op, kind in HEADS.items()}
_VERSION = ["int", 10301]
_STORAGE = {"csr": "2", "row_sparse": "1", "default": "0"}

Node = tuple[str, str, dict[str, str], tuple[int, ...]]


def predictor_type_of(content: bytes, where: str) -> str | None:
    """Return the predictor type that a network's last operation means, or None.

    Raises
    ------
    ModelError
        Not a network.
    """
    try:
        graph = json.loads(content)
        heads = graph["heads"]
        op = graph["nodes"][heads[0][0]]["op"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise ModelError("symbol.json is not a network", where=where, hint="download the model again") from error
    return HEADS.get(op) if isinstance(op, str) else None


def network(
    feature_dim: int, num_factors: int, predictor_type: str, settings: Mapping[str, str], dense: bool = False
) -> str:
    """Return symbol.json.

    Parameters
    ----------
    feature_dim, num_factors
        Shape of the factors.
    predictor_type
        Which output.
    settings
        The final configuration, as text: rates, decays and initialisation stand in the weights' attributes.
    dense
        The dense network.
    """
    make = _dense_nodes if dense else _sparse_nodes
    nodes = make(feature_dim, num_factors, predictor_type, settings)
    return json.dumps({
        "nodes": [_node(*node) for node in nodes],
        "arg_nodes": [i for i, node in enumerate(nodes) if node[0] == "null"],
        "node_row_ptr": list(range(len(nodes) + 1)),
        "heads": [[len(nodes) - 1, 0, 0]],
        "attrs": {"mxnet_version": _VERSION},
    }, indent=2)  # fmt: skip


def _node(op: str, name: str, attrs: dict[str, str], inputs: tuple[int, ...]) -> dict[str, Any]:
    made: dict[str, Any] = {"op": op, "name": name}
    if attrs:
        made["attrs"] = attrs
    return {**made, "inputs": [[i, 0, 0] for i in inputs]}


def _weight(
    name: str, group: str, shape: tuple[int, ...], settings: Mapping[str, str], storage: str = "default"
) -> Node:
    method = settings.get(f"{group}_init_method", "normal")
    key = {"normal": "sigma", "uniform": "scale", "constant": "value"}[method]
    spread = {key: float(settings.get(f"{group}_init_{key}", 0.0))}
    attrs = {
        "__init__": json.dumps([method, spread]),
        "__lr_mult__": str(float(settings.get(f"{group}_lr", 1.0))),
        "__shape__": str(shape),
        "__wd_mult__": str(float(settings.get(f"{group}_wd", 0.0))),
    }
    if storage != "default":
        attrs["__storage_type__"] = _STORAGE[storage]
    return "null", name, dict(sorted(attrs.items())), ()


def _sparse_nodes(d: int, k: int, predictor_type: str, settings: Mapping[str, str]) -> list[Node]:
    return [
        ("null", "data", {"__storage_type__": _STORAGE["csr"]}, ()),
        _weight("w1_weight", "linear", (d, 1), settings, "row_sparse"),
        ("dot", "dot0", {}, (0, 1)),
        _weight("w0_weight", "bias", (1,), settings),
        ("broadcast_add", "broadcast_plus0", {}, (2, 3)),
        _weight("v", "factors", (d, k), settings, "row_sparse"),
        ("dot", "dot2", {}, (0, 5)),
        ("square", "Square", {}, (6,)),
        ("_mul_scalar", "_mulscalar0", {"scalar": "0.5"}, (7,)),
        ("Concat", "concat0", {"dim": "1", "num_args": "2"}, (4, 8)),
        ("sum", "sum0", {"axis": "1", "keepdims": "True"}, (9,)),
        ("square", "x_square", {}, (0,)),
        ("_square_sum", "_square_sum0", {"axis": "1", "keepdims": "True"}, (5,)),
        ("dot", "dot1", {}, (11, 12)),
        ("negative", "negative0", {}, (13,)),
        ("_mul_scalar", "_mulscalar1", {"scalar": "0.5"}, (14,)),
        ("elemwise_add", "Final_Summation", {}, (10, 15)),
        ("null", "out_label", {}, ()),
        (_OUTPUT[predictor_type], "out", {}, (16, 17)),
    ]


def _dense_nodes(d: int, k: int, predictor_type: str, settings: Mapping[str, str]) -> list[Node]:
    return [
        ("null", "data", {}, ()),
        _weight("Linear_Plus_Bias_weight", "linear", (1, d), settings),
        _weight("Linear_Plus_Bias_bias", "bias", (1,), settings),
        ("FullyConnected", "Linear_Plus_Bias", {"num_hidden": "1"}, (0, 1, 2)),
        _weight("v", "factors", (k, d), settings),
        ("FullyConnected", "fullyconnected0", {"no_bias": "True", "num_hidden": str(k)}, (0, 4)),
        ("square", "square0", {}, (5,)),
        ("_mul_scalar", "_mulscalar0", {"scalar": "0.5"}, (6,)),
        ("Concat", "concat0", {"dim": "1", "num_args": "2"}, (3, 7)),
        ("sum", "sum0", {"axis": "1", "keepdims": "True"}, (8,)),
        ("square", "x_square", {}, (0,)),
        ("square", "v_square", {}, (4,)),
        ("sum", "sum1", {"axis": "0", "keepdims": "True"}, (11,)),
        ("FullyConnected", "fullyconnected1", {"no_bias": "True", "num_hidden": "1"}, (10, 12)),
        ("negative", "negative0", {}, (13,)),
        ("_mul_scalar", "_mulscalar1", {"scalar": "0.5"}, (14,)),
        ("elemwise_add", "Final_Summation", {}, (9, 15)),
        ("null", "out_label", {}, ()),
        (_OUTPUT[predictor_type], "out", {}, (16, 17)),
    ]
