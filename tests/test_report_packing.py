"""Packing: curves made small, and made again exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_fixtures import of_state, study

from fmtune.report.packing import pack, unpack
from fmtune.report.record import to_json


def record(*curves: list[Any]) -> dict[str, Any]:
    """Return a record of as many cells, each with one trial."""
    return {"format": "x", "cells": [{"trials": {"number": [0], "curve": [curve]}} for curve in curves]}


@pytest.mark.parametrize("result", [study(40), of_state("FAIL"), study(0, cells=(), importance={})])
def test_a_packed_record_comes_back(result) -> None:  # type: ignore[no-untyped-def]
    """Through JSON and back, the record is the same, and the packed one is smaller."""
    whole = to_json(result)
    packed = json.loads(json.dumps(pack(whole)))
    assert unpack(packed) == whole
    assert unpack(whole) == whole


@given(st.lists(st.lists(st.one_of(st.floats(), st.floats(-2, 2).map(lambda v: float(f"{v:.6g}")), st.sampled_from(
    ["NaN", "Infinity", None, 1, 10**30])), max_size=6), min_size=1, max_size=3))  # fmt: skip
def test_any_curve_comes_back(curves: list[list[Any]]) -> None:
    """Whatever stands in a curve, it comes back: what does not fit is kept as it is."""
    plain = json.loads(
        json.dumps(record(*curves)).replace("NaN", "0").replace("-Infinity", "1").replace("Infinity", "1")
    )
    assert unpack(json.loads(json.dumps(pack(plain)))) == plain


def test_steps_and_differences_are_what_is_written() -> None:
    """A curve is decimals, the first score and steps; a replayed one its differences from the first cell's."""
    packed = pack(record([0.45123, 0.30007, 0.2514], [0.45123, 0.30008, 0.2514]))
    assert [c["trials"]["curve"][0] for c in packed["cells"]] == [[5, 45123, -15116, -4867], [-6, 0, 1, 0]]


def test_replayed_curves_cost_little() -> None:
    """200 trials of 30 epochs in two cells: the curves take less than half of what they took."""
    result = study(200, epochs=30)
    sizes = [len(json.dumps([c["trials"]["curve"] for c in r["cells"]], separators=(",", ":")))
             for r in (to_json(result), pack(to_json(result)))]  # fmt: skip
    assert sizes[1] * 2 < sizes[0]
