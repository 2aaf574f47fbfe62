"""The record: a result as JSON and back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from report_fixtures import not_run, of_state, study

from fmtune.errors import DataError
from fmtune.report.record import from_json, masked, to_json
from fmtune.tune.result import CellResult, TrialResult


@pytest.mark.parametrize("result", [study(12), of_state("FAIL"), study(0, cells=(not_run(),), importance={})])
def test_a_record_gives_its_result_back(result) -> None:  # type: ignore[no-untyped-def]
    """Through JSON and back is the same record; states, parameters, values and reasons are exact."""
    record = to_json(result)
    back = from_json(json.loads(json.dumps(record, allow_nan=False)))
    assert to_json(back) == record
    for cell, other in zip(result.cells, back.cells, strict=True):
        for one, two in zip(cell.trials, other.trials, strict=True):
            assert (one.state, one.params, one.value, one.reason) == (two.state, two.params, two.value, two.reason)


def test_curves_keep_six_digits() -> None:
    """A curve is a picture; what decided, the value, is exact."""
    trial = TrialResult(0, "COMPLETE", {}, 0.12345678901234, (0.12345678901234,))
    back = from_json(to_json(study(1, cells=(CellResult("cpu", "sparse", (trial,)),))))
    assert back.cells[0].trials[0].curve == (0.123457,)
    assert back.cells[0].trials[0].value == 0.12345678901234


def test_a_parameter_that_is_none_differs_from_one_that_is_absent() -> None:
    """A choice of null comes back; a parameter that a trial has not stays away."""
    trials = (TrialResult(0, "COMPLETE", {"clip_gradient": None}, 1.0), TrialResult(1, "COMPLETE", {}, 1.0))
    back = from_json(to_json(study(2, cells=(CellResult("cpu", "sparse", trials),))))
    assert [t.params for t in back.cells[0].trials] == [{"clip_gradient": None}, {}]


def test_a_cell_with_other_parameters_keeps_its_own() -> None:
    """Only a cell that repeats the first one's parameters leaves them out."""
    first = CellResult("cpu", "sparse", (TrialResult(0, "COMPLETE", {"k": 1}, 1.0),))
    other = CellResult("cpu", "dense", (TrialResult(0, "COMPLETE", {"k": 2}, 1.0),))
    back = from_json(to_json(study(1, cells=(first, other))))
    assert [c.trials[0].params for c in back.cells] == [{"k": 1}, {"k": 2}]


def test_numpy_scalars_become_numbers() -> None:
    """What numpy computed is a plain number in the record."""
    trial = TrialResult(0, "COMPLETE", {"k": np.int64(3)}, float(np.float64(0.5)), (np.float32(0.25),))  # type: ignore[arg-type]
    record = to_json(study(1, cells=(CellResult("cpu", "sparse", (trial,)),)))
    assert json.loads(json.dumps(record))["cells"][0]["trials"]["params"] == {"k": [3]}


@pytest.mark.parametrize(
    "address", ["postgresql://me:pw@host/db", "mysql+pymysql://me:p@w/x@host:3306/db", "redis://:pw@host"]
)
def test_passwords_are_masked(address: str) -> None:
    """User and host stay, the password goes, in any string of the result."""
    shown = masked(replace(study(1), spec_text=f"storage: {address}", environment={"storage": address}))
    assert "pw" not in shown.spec_text.replace("pymysql", "") and "p@w" not in shown.spec_text
    assert ":***@host" in shown.environment["storage"]


@pytest.mark.parametrize("record", [{}, {"format": "other"}, {"format": "fmtune-report/1", "study": {}, "cells": []}])
def test_a_foreign_record_is_refused(record: dict[str, object]) -> None:
    """Another format, or one with fields missing, is a DataError."""
    with pytest.raises(DataError):
        from_json(record)
