"""The page of the suite ``gpu``: rates beside the CPU's and torch's, checks, ceilings; or that there was no card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fmtune.bench import cuda_suite
from fmtune.errors import DataError
from fmtune.report.card import build_card, rates
from fmtune.report.page import extract

HOSTILE = "<script>alert(1)</script>"


def found(**more: Any) -> dict[str, Any]:
    """Return a result without a card, or with what is given."""
    return {"suite": "gpu", "date": "2026-01-01T00:00:00", "commit": None, "machine": {"processor": HOSTILE}, **more}


def measured(lanes: int, rate: float, device: str = "gpu", way: str = "exact") -> dict[str, Any]:
    """Return a rate of sparse rows."""
    return {"layout": "sparse", "device": device, "way": way, "mini_batch_size": 1000, "lanes": lanes,
            "row_lanes_s": rate}  # fmt: skip


CARD = {
    "card": {"name": "a card", "memory": 2e9, "cards": 1, "free": 1e9},
    "ceilings": [{"ceiling": "copy", "gb_s": 100.0}, {"ceiling": "gather", "gb_s": 50.0, "table_mb": 6.0},
                 {"ceiling": "products", "tflop_s": 250.0, "row_lanes_s": 8e8}],
    "checks": [{"check": "sparse adam", "score_to_float64": 1e-6, "model_to_cpu": 1e-6, "same_twice": True,
                "fine": False}],
    "rates": [measured(1, 1e6), measured(64, 6.4e7), measured(64, 8e6, "cpu", "16 threads"),
              measured(1, 4e6, way="torch")],
}  # fmt: skip


def test_the_card_beside_a_lone_lane_the_cpu_and_torch() -> None:
    """Each as a ratio at the same mini-batch, with what the checks found, and the result inside."""
    page = build_card(cuda_suite.Result.model_validate(found(**CARD)))
    assert "a card: 1 check found it wrong." in page
    said = "Sparse, 64 lanes, mini-batches of 1000, exact: 64.0 M row-lanes/s, "
    assert said + "64.0 times a lone lane, 8.0 times the CPU and 16.0 times torch." in page
    assert all(text in page for text in ("gather, table of 6 MB", "50 GB/s", "cpu, 16 threads"))
    assert "250 TFLOP/s, 800 M row-lanes/s" in page
    assert 'id="sparse"' in page and 'id="dense"' not in page
    assert HOSTILE not in page and extract(page)["rates"][1]["row_lanes_s"] == 6.4e7


def test_without_a_card_the_page_says_so() -> None:
    """And has no chart and no table."""
    result = cuda_suite.Result.model_validate(found(not_run="no CUDA device"))
    page = build_card(result)
    assert "Not run: no CUDA device." in page and "<svg" not in page and "<table" not in page
    assert rates(result, "sparse") is None


def test_a_result_is_read_from_its_file(tmp_path: Path) -> None:
    """What is of no card is left to others; what is damaged is refused, with the place."""
    path = tmp_path / "gpu.json"
    for text in ("{", "[]", json.dumps({"suite": "quick"}), json.dumps({"date": 1})):
        path.write_text(text)
        assert cuda_suite.read(path) is None
    assert cuda_suite.read(tmp_path / "none.json") is None
    path.write_text(json.dumps(found(**CARD)))
    read = cuda_suite.read(path)
    assert read is not None and read.card is not None and read.card.name == "a card"
    path.write_text(json.dumps(found(rates=[{"layout": "sparse"}])))
    with pytest.raises(DataError) as error:
        cuda_suite.read(path)
    assert error.value.what == "not a result of the suite gpu: rates.0.device: Field required"
