"""symbol.json: both networks node by node, and what a network says of its output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fmtune.errors import ModelError
from fmtune.sagemaker.symbol import network, predictor_type_of

NETWORKS = json.loads((Path(__file__).parent / "specimens" / "networks.json").read_text())
SETTINGS = {
    "factors_lr": "0.0001", "factors_wd": "0.00001", "factors_init_sigma": "0.001", "bias_init_method": "uniform",
    "bias_init_scale": "0.5", "linear_init_method": "constant", "linear_init_value": "2", "linear_lr": "3",
}  # fmt: skip


@pytest.mark.parametrize(("layout", "kind"), [("sparse", "regressor"), ("dense", "binary_classifier")])
def test_a_network_is_the_specimen(layout: str, kind: str) -> None:
    """Five features and two factors: every node, attribute and edge, in SageMaker's order."""
    made = network(5, 2, kind, SETTINGS, layout == "dense")
    assert json.loads(made) == NETWORKS[layout]
    assert predictor_type_of(made.encode(), "x") == kind


NONE = [b"[]", b"{", b"{}", b'{"heads": [[9]], "nodes": []}', b"[" * 10**5, b'{"heads": 1}']


@pytest.mark.parametrize("content", NONE, ids=range(len(NONE)))
def test_what_is_no_network_is_refused(content: bytes) -> None:
    """In one sentence, whatever it is instead."""
    with pytest.raises(ModelError) as error:
        predictor_type_of(content, "m.tar.gz")
    assert str(error.value) == "m.tar.gz: symbol.json is not a network\n  hint: download the model again"


def test_an_output_of_another_kind_says_nothing() -> None:
    """Nor does one that is no text."""
    for op in ('"softmax"', "[1]"):
        assert predictor_type_of(b'{"heads": [[0]], "nodes": [{"op": %s}]}' % op.encode(), "x") is None
