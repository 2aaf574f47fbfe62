"""Runs in real worker processes: what comes out the same each time, what a failure and a planted loss look like."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench_fixtures import CACHE

from fmtune.bench import baseline, ceilings, versions
from fmtune.bench.case import Case
from fmtune.bench.paired import duel
from fmtune.bench.proof import counts, holds
from fmtune.bench.run import Measured, measure, run_suite
from fmtune.bench.stock import Stock
from fmtune.bench.worker import OURS, CaseFailed, Side, Worker

FIT = Case(
    "fit", "fit", data={"card": "digits"}, epochs=2, seeds=2, calibrate="gather",
    hyperparameters={"predictor_type": "binary_classifier", "num_factors": 4, "mini_batch_size": 100},
)  # fmt: skip
ONCE = {"rounds": 1, "blocks": 1}


def measured(case: Case, folder, **plant) -> Measured:
    side = Side("one", CACHE, plant=plant)
    found = {"one": Measured()}
    measure(case, Stock(folder).files(case), [side], found, rounds=(0,), blocks=1)
    return found["one"]


def test_a_result(tmp_path):
    """A suite's result fits the schema: raw samples of both clocks, rates, shares of the ceilings, losses."""
    help_case = Case("help", "startup", command="help", calibrate="gather")
    result = run_suite([FIT, help_case], tmp_path, cache=CACHE, rounds=2, blocks=1)
    baseline.Result.model_validate(result)
    fit, startup = result["cases"]
    assert [(s["round"], s["block"]) for s in fit["samples"]] == [(0, 0)] * 2 + [(1, 0)] * 2
    assert fit["companions"]["passes"] == 4
    assert len(fit["companions"]["loss"]) == 2
    assert fit["ceiling"]["share"] > 0
    assert {"import", "first", "cold"} == set(fit["starts"][0])
    assert startup["error"] is None and "ceiling" in startup and startup["ceiling"] is None


def test_companions_are_exact_and_planted_work_leaves_them(tmp_path):
    """Two processes give the same losses to the last bit, also when one has more work inside the clock."""
    once, again = measured(FIT, tmp_path), measured(FIT, tmp_path, slowdown=0.5)
    for name in ("loss", "curve", "passes", "rows"):
        assert once.companions[name] == again.companions[name]


def test_kinds(tmp_path):
    """Predict, parse and a whole study run, and state what they made."""
    predict = measured(replace(FIT, name="p", kind="predict", layout="dense"), tmp_path)
    parse = measured(replace(FIT, name="r", kind="parse"), tmp_path)
    space = {"linear_lr": "1e-3..1e-1 log"}
    study = {"data": "digits", "objective": "test:binary_classification_cross_entropy", "search_space": space,
             "n_trials": 2}  # fmt: skip
    whole = measured(Case("s", "study", study=study), tmp_path)
    assert [found.error for found in (predict, parse, whole)] == [None] * 3
    assert (predict.companions["rows"], parse.companions["rows"], whole.companions["trials"]) == (360, 1078, 2)


def test_a_failing_case_says_why(tmp_path):
    """A worker that dies leaves its last words, and no samples."""
    found = measured(replace(FIT, hyperparameters={**FIT.hyperparameters, "epochs": 0}), tmp_path)
    assert "epochs must be at least 1" in (found.error or "")
    assert found.samples == []


def test_a_worker_that_does_not_answer_is_ended(tmp_path):
    """Patience runs out with a sentence, not with a bare exit code."""
    files = Stock(tmp_path).files(FIT)
    one = Side("one", CACHE)
    with pytest.raises(CaseFailed, match="no answer within"), Worker(one, FIT.plain(), files, 0.01) as worker:
        worker.started()


def test_a_peer_that_is_not_installed_says_so(tmp_path):
    """Ours is measured all the same."""
    gone = Side("gone", CACHE, module="fmtune.bench.peers.no_such_peer")
    result = run_suite([FIT], tmp_path, cache=CACHE, peers=[gone], **ONCE)
    assert result["cases"][0]["error"] is None
    assert "no_such_peer" in result["cases"][0]["peers"]["gone"]["error"]


def test_a_planted_loss_of_quality_is_found_against_a_tree(tmp_path):
    """Another tree with our bench room laid over it is measured: worse hyperparameters are worse, others equal."""
    base = Side("base", CACHE, versions.overlay(OURS, tmp_path / "overlay"))
    files = Stock(tmp_path).files(FIT)
    duels = [
        duel(FIT, files, base, Side("new", CACHE, plant=plant), rounds=1, blocks=1, budget=-1)[0]
        for plant in ({}, {"hyperparameters": {"linear_lr": 1e-5, "bias_lr": 1e-5}})
    ]
    assert [verdict.quality for verdict in duels] == ["equal", "worse"]
    assert duels[1].verdict == "worse"


def test_what_an_example_needs():
    """Bytes and operations of an example follow the formulas; what is no kernel needs nothing."""
    about = {"layout": "sparse", "nnz_per_row": 10.0, "touched_per_row": 0.5, "lanes": 2, "num_factors": 5,
             "planes": 3, "feature_dim": 100}  # fmt: skip
    need = ceilings.needs(about)
    assert need["width"] == 18
    assert need["streamed"] == 8 * 20 + 12 + 6
    assert need["gathered"] == 4 * 10 * 18 + 8 * 0.5 * 3 * 18
    assert need["multiply_adds"] == 3 * 10 * 18 + 18 + 12 * 0.5 * 18
    assert ceilings.needs({"processes": 1}) is None


@pytest.mark.parametrize(
    ("alarms", "found", "holding"), [(0, 95, True), (1, 100, False), (0, 94, False)], ids=["holds", "alarm", "missed"]
)
def test_what_the_proof_asks(alarms, found, holding):
    """No false alarm, 95 of 100 slowdowns, and every loss of quality."""
    verdicts = [("same", "regressed")] * alarms + [("same", "ok")] * (100 - alarms)
    verdicts += [("slower", "regressed")] * found + [("slower", "cannot tell")] * (100 - found) + [("worse", "worse")]
    proof = {"counts": counts([{"planted": planted, "verdict": verdict} for planted, verdict in verdicts])}
    assert holds(proof) is holding
