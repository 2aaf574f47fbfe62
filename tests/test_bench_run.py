"""Runs in real worker processes: what comes out the same each time, what a failure and a planted loss look like."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
from bench_fixtures import CACHE

from fmtune.bench import baseline, calibration, ceilings, versions
from fmtune.bench.case import Case
from fmtune.bench.gate import Verdict
from fmtune.bench.kinds.study import seeded
from fmtune.bench.paired import Effort, confirmed, duel, run_paired
from fmtune.bench.peer import sooner
from fmtune.bench.peers.search import search
from fmtune.bench.proof import counts, holds
from fmtune.bench.run import Measured, measure, run_suite
from fmtune.bench.stock import Stock
from fmtune.bench.worker import OURS, CaseFailed, Disturbed, Side, Worker
from fmtune.data.source import write
from tests import fm_reference as reference

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
    assert [set(one) for one in fit["calibrations"]] == [{"copy", "gather", "fma"}] * 2
    assert result["calibration"]["kernels"] == 2 and result["calibration"]["gather"]["count"] == 4
    assert fit["ceiling"]["share"] > 0
    assert {"import", "first", "cold"} == set(fit["starts"][0])
    assert startup["error"] is None and "ceiling" in startup and startup["ceiling"] is None


def test_calibration_is_the_machines_and_not_its_memorys():
    """Kernels on buffers made anew take the same time: neither their places nor a shared cache matters."""
    times = [calibration.Calibrator().measure() for _ in range(5)]
    for kernel in ("copy", "gather", "fma"):
        found = sorted(one[kernel] for one in times)
        assert found[3] / found[1] < 1.15


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


def test_a_study_of_ones_own_data(tmp_path, monkeypatch):
    """Paths begin where the benchmark is run; of a path that there is not, the worker says which, and the next step."""
    (tmp_path / "data").mkdir()
    write(reference.rows(60, 12, 3), tmp_path / "data" / "rows.pbr")
    monkeypatch.chdir(tmp_path)
    study = {"data": {"train": "data/rows.pbr", "test": "data/rows.pbr"}, "objective": "test:rmse",
             "search_space": {"linear_lr": "1e-3..1e-1 log"}, "n_trials": 2}  # fmt: skip
    assert measured(Case("s", "study", study=study), tmp_path).companions["trials"] == 2
    study["data"] = {**study["data"], "test": "data/none.pbr"}
    said = measured(Case("t", "study", study=study), tmp_path).error or ""
    assert "data/none.pbr" in said and "hint: " in said


def test_a_studys_files_are_known_by_their_bytes(tmp_path, monkeypatch):
    """The result has a digest of them: the same wherever they lie, another for other rows; a card has none."""
    for folder, seed in (("one", 3), ("two", 3), ("three", 4)):
        (tmp_path / folder).mkdir()
        write(reference.rows(60, 12, seed), tmp_path / folder / "rows.pbr")
    monkeypatch.chdir(tmp_path)
    study = {"objective": "test:rmse", "search_space": {"linear_lr": "1e-3..1e-1 log"}, "n_trials": 1}

    def case(data):
        return Case("s", "study", study={**study, "data": data}, calibrate="fma")

    found = {name: Stock(tmp_path).digest(case({"train": f"{name}/rows.pbr", "test": f"{name}/*.pbr"}))
             for name in ("one", "two", "three", "none")}  # fmt: skip
    assert found["one"] == found["two"] != found["three"]
    assert found["one"] is not None and found["none"] is None
    assert Stock(tmp_path).digest(case("digits")) is None
    one = case({"train": "one/rows.pbr", "test": "one/rows.pbr"})
    (entry,) = run_suite([one], tmp_path, cache=CACHE, **ONCE)["cases"]
    assert entry["error"] is None and entry["data"] == found["one"]


def test_a_failing_case_says_why(tmp_path):
    """A worker that dies leaves its last words, and no samples."""
    found = measured(replace(FIT, hyperparameters={**FIT.hyperparameters, "epochs": 0}), tmp_path)
    assert "epochs must be at least 1" in (found.error or "")
    assert found.samples == []


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_was_disturbed_is_told_from_one_that_crashed(number, tmp_path):
    """Stopped or killed from outside says nothing about the case; a crash of its own does."""
    files = Stock(tmp_path).files(FIT)
    with pytest.raises(CaseFailed) as caught, Worker(Side("one", CACHE), FIT.plain(), files, 1.0) as worker:
        os.kill(worker.pid, number)
        worker.started()
    said = {signal.SIGSTOP: "no answer within 1 s", signal.SIGKILL: "from outside, by SIGKILL", signal.SIGSEGV: "-11"}
    assert said[number] in str(caught.value)
    assert isinstance(caught.value, Disturbed) == (number != signal.SIGSEGV)


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
        duel(FIT, files, base, Side("new", CACHE, plant=plant), Effort(rounds=1, blocks=1, budget=-1))[0]
        for plant in ({}, {"hyperparameters": {"linear_lr": 1e-5, "bias_lr": 1e-5}})
    ]
    assert [verdict.quality for verdict in duels] == ["equal", "worse"]
    assert duels[1].verdict == "worse"


def test_a_failure_is_looked_for_twice(tmp_path):
    """A planted loss of quality is found again in a second run; without time nothing is measured and nothing fails."""
    base, new = Side("base", CACHE), Side("new", CACHE, plant={"hyperparameters": {"linear_lr": 1e-5, "bias_lr": 1e-5}})
    effort = Effort(rounds=1, blocks=1, budget=-1, twice=True)
    (verdict,) = run_paired([FIT], tmp_path, base, new, effort)[1]
    assert verdict.verdict == "worse" and verdict.notes[-1] == "found again in a second run"
    result, (verdict,) = run_paired([FIT], tmp_path, base, new, replace(effort, within=0.0))
    assert (verdict.verdict, verdict.notes) == ("cannot tell", ("the time was up",))
    baseline.Result.model_validate(result)


def test_a_failure_that_is_not_found_again_cannot_be_told():
    """The two runs' words stand in the notes."""
    found = confirmed(Verdict("a", "regressed", 1.05, 1.03, 1.07), Verdict("a", "ok", 1.0, 0.99, 1.01))
    assert (found.verdict, found.notes) == ("cannot tell", ("regressed in one run, in a second one: ok",))


def test_what_an_example_needs():
    """Bytes and operations of an example follow the formulas; what is no kernel needs nothing."""
    about = {"layout": "sparse", "nnz_per_row": 10.0, "touched_per_row": 0.5, "lanes": 2, "num_factors": 5,
             "planes": 3, "features": 100}  # fmt: skip
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


def test_how_much_sooner_than_a_peer():
    """Of each seed: when the peer had its final score, and when ours had one as good; never is infinite."""
    theirs = [[(2.0, 0.9), (6.0, 0.7), (8.0, 0.8)], [(4.0, 0.5)], [(4.0, 0.6), (5.0, 0.9)]]
    ours = [[(1.0, 0.8), (3.0, 0.6)], [(1.0, 0.5)], [(2.0, 0.7)]]
    found = sooner(ours, theirs)
    assert found["score"] == [0.7, 0.5, 0.6]
    assert (found["theirs"], found["whole"]) == ([6.0, 4.0, 4.0], [8.0, 4.0, 5.0])
    assert found["ours"] == [3.0, 1.0, float("inf")]
    assert (found["times"], found["times_whole"]) == (2.0, 8.0 / 3.0)


def test_a_sample_beside_a_peer_has_its_number_as_all_seeds():
    """Beside a peer a study's sampler and the order of its rows have the sample's seed; nothing else is changed."""
    study = {"n_trials": 2, "hyperparameters": {"epochs": 3}}
    assert seeded(study, 4) == {"n_trials": 2, "seed": 4, "hyperparameters": {"epochs": 3, "shuffle_seed": 4}}
    assert study["hyperparameters"] == {"epochs": 3}


def test_searches_beside_a_peer_have_the_seeds_in_turn(tmp_path):
    """A study whose rows are written apart runs with the seeds 0, 1, ..., and says when each trial was complete."""
    study = {"data": "digits", "objective": "test:binary_classification_cross_entropy", "n_trials": 2,
             "search_space": {"linear_lr": "1e-3..1e-1 log"}, "pruner": "none"}  # fmt: skip
    case = Case("s", "study", study=study)
    found = {"one": Measured()}
    files = Stock(tmp_path).files(case, apart=True)
    measure(case, files, [Side("one", CACHE)], found, rounds=(0,), blocks=1)
    searches = found["one"].companions["searches"]
    assert [len(search) for search in searches] == [2, 2]
    assert searches[0][0][1] != searches[1][0][1]
    assert all(at > 0 for search in searches for at, _ in search)


def test_a_peer_searches_with_settings_of_its_own():
    """It takes the study's fixed hyperparameters, but those of ``peers`` first, and searches the study's space."""
    study = {"n_trials": 3, "hyperparameters": {"epochs": 3, "eps": 1.0}, "search_space": {"num_factors": "8..64 log"}}
    asked = []

    def curve(h):
        asked.append(h)
        return [0.5, 0.4]

    job = search({"case": {"study": study, "peers": {"epochs": 10}}}, {"eps": 2.0, "seed": 1}, curve, prune=False)
    job.arm()()  # thrown away
    job.arm()()
    assert {(h["epochs"], h["eps"], h["seed"]) for h in asked} == {(10, 1.0, 1)}
    assert all(8 <= h["num_factors"] <= 64 for h in asked)
    assert [len(found) for found in job.companions()["searches"]] == [3]
