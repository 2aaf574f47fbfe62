"""A study file run whole: continued, killed, refused, stopped."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest

import fmtune
from fmtune.data import source
from fmtune.errors import Hung, Interrupted, NoTrialError, StorageError
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.model import Model
from fmtune.fm.solvers import trainer
from fmtune.tune import environment
from fmtune.tune import spec as specs
from fmtune.tune.channels import bring
from fmtune.tune.collect import collect
from fmtune.tune.result import StudyResult
from fmtune.tune.selection import Finalists
from fmtune.tune.storage import open_storage, sqlite_url
from fmtune.tune.store import Store
from fmtune.tune.winner import Winner
from tests.processes import Limited
from tests.proof.child import Spiked
from tests.study_fixtures import STUDY, command, write_study
from tests.study_fixtures import fmtune as cli


def _facts(result: StudyResult) -> list[tuple[object, ...]]:
    """What must not depend on how a study was run: every cell's trials, without times."""
    return [
        (c.name, t.number, t.state, t.params, t.value, t.curve, t.best_epoch, t.metrics, t.reason)
        for c in result.cells
        for t in c.trials
    ]


def _run(path: Path, root: Path, **options: object) -> StudyResult:
    fmtune.run(path, root=root, **options)
    return collect(specs.read(path), root)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def straight(study: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """The study run without a stop."""
    return _run(study, tmp_path_factory.mktemp("straight"))


def test_a_study_finds_a_model(straight: StudyResult) -> None:
    """Every trial of the budget ended in both cells, the winner's model is saved, the holdout was opened once."""
    assert [len(c.trials) for c in straight.cells] == [24, 24]
    assert {t.state for c in straight.cells for t in c.trials} <= {"COMPLETE", "PRUNED"}
    assert straight.best is not None and straight.best.value is not None and straight.best.value < 0.5
    assert straight.holdout is not None and straight.holdout["opened"] == 1
    assert straight.model_path is not None and Model.load(straight.model_path).facts["trial"] == straight.best.number


def test_cells_are_paired(straight: StudyResult) -> None:
    """The second cell trained the same configurations for as many epochs, and scores agree to 1e-4."""
    sparse, dense = straight.cells
    for a, b in zip(sparse.trials, dense.trials, strict=True):
        assert (a.number, a.params, a.state, len(a.curve)) == (b.number, b.params, b.state, len(b.curve))
        assert a.curve == pytest.approx(b.curve, abs=1e-4)


def test_threads_change_nothing(study: Path, straight: StudyResult, tmp_path: Path) -> None:
    """One thread gives the trials of two, to the last bit."""
    spec = specs.read(study).model_copy(update={"threads": 1})
    fmtune.run(spec, root=tmp_path)
    assert _facts(collect(spec, tmp_path)) == _facts(straight)


def test_a_larger_budget_continues(study: Path, straight: StudyResult, tmp_path: Path) -> None:
    """A study of 10 trials, run again with 24, is the study of 24: nothing is repeated."""
    spec = specs.read(study)
    fmtune.run(spec.model_copy(update={"n_trials": 10}), root=tmp_path)
    first = collect(spec, tmp_path)
    assert len(first.cells[0].trials) == 10
    events: list[dict[str, object]] = []
    fmtune.run(spec, root=tmp_path, listener=events.append)
    assert sum(e["event"] == "trial" for e in events) == 28
    assert _facts(collect(spec, tmp_path)) == _facts(straight)


def test_kill_loses_nothing_and_repeats_nothing(study: Path, straight: StudyResult, tmp_path: Path) -> None:
    """Killed five times at random moments and run again: the same trials, none lost, none repeated, none RUNNING."""
    rng, told = random.Random(5), []
    for _ in range(5):
        child = Limited(
            command("run", study, "--json"), cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True
        )  # fmt: skip
        assert child.stdout is not None
        # Somewhere among the next few trials' events, start-up included.
        left = rng.randrange(1, 40)
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "trial":
                told.append((event["cell"], event["number"]))
            left -= 1
            if left <= 0:
                break
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    done = cli(tmp_path, "run", study, "--json")
    assert done.returncode == 0, done.stderr
    told += [(e["cell"], e["number"]) for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "trial"]
    result = collect(specs.read(study), tmp_path)
    assert len(told) == len(set(told)), "a finished trial was repeated"
    assert {(c.name, t.number) for c in result.cells for t in c.trials} >= set(told)
    assert _facts(result) == _facts(straight)
    with sqlite3.connect(tmp_path / "runs/small/study.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM trials WHERE state NOT IN ('COMPLETE','PRUNED')").fetchone() == (0,)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_says_how_to_go_on(study: Path, tmp_path: Path, number: int, code: int) -> None:
    """Ctrl-C and SIGTERM end with their code, put running trials back, and say what to do."""
    child = Limited(command("run", study, "--json"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    for line in child.stdout:
        if json.loads(line)["event"] == "trial":
            break
    child.send_signal(number)
    _, message = child.communicate(timeout=30)
    assert child.returncode == code
    hint = "  hint: run the same command again: it goes on where it stopped"
    assert re.fullmatch(rf"stopped; \d+ finished trials are kept\n{hint}\n", message)
    states = {t.state for c in collect(specs.read(study), tmp_path).cells for t in c.trials}
    assert "RUNNING" not in states


def test_a_stop_gives_up_the_winner_and_what_is_beside_it(study: Path, tmp_path: Path) -> None:
    """Asked to stop in the winner's training or the linear model's, nothing is stored; the next run does both.

    Who calls from Python sees a KeyboardInterrupt, which no ``except Exception`` swallows.
    """
    spec = specs.read(study).model_copy(update={"n_trials": 6})

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "cell":
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="6 finished trials are kept") as caught:
        fmtune.run(spec, root=tmp_path, listener=interrupt)
    assert isinstance(caught.value, KeyboardInterrupt) and not isinstance(caught.value, Exception)
    folder, data = tmp_path / "runs/small", bring(spec)
    fixed = {**spec.hyperparameters, "predictor_type": spec.predictor_type, "seed": spec.seed}
    for asked in (0, 2, 6):
        asks = iter([False] * asked)
        store = Store(open_storage(sqlite_url(folder)), spec.study_name, "minimize")
        finalists = Finalists(folder / "finalists", "minimize")
        winner = Winner(spec, spec.matrix.cells[0], folder, fixed, finalists, 1, lambda event, **_: None,
                        lambda asks=asks: next(asks, True))  # fmt: skip
        assert not winner.conclude(store, data, wait=True)
        kept = store.attrs()
        assert not any(kept.get(f"fmtune:{name}") for name in ("model", "baseline", "finished", "holdout"))
    fmtune.run(spec, root=tmp_path)
    assert collect(spec, tmp_path).finished is not None and (folder / "model.fm").exists()


def test_a_run_that_dies_at_the_holdout_leaves_it_to_the_next(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model is saved and not trained again; the holdout is scored by it, and opened once."""
    spec = specs.read(study).model_copy(update={"n_trials": 6})
    with monkeypatch.context() as patched:
        patched.setattr("fmtune.tune.winner.evaluate", lambda *asked: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fmtune.run(spec, root=tmp_path)
    assert collect(spec, tmp_path).holdout is None
    for _ in range(2):
        events: list[dict[str, Any]] = []
        fmtune.run(spec, root=tmp_path, listener=events.append)
        found = collect(spec, tmp_path)
        assert found.finished is not None and found.best is not None and found.holdout is not None
        assert found.holdout["trial"] == found.best.number and found.holdout["opened"] == 1
        assert next(e["holdout"] for e in events if e["event"] == "winner") == found.holdout
        assert not any("again, the winner" in e.get("what", "") for e in events)


def test_other_settings_are_refused(study: Path, straight: StudyResult, tmp_path: Path) -> None:
    """Another search space, or other data, under the same name is refused with the difference; trials are kept."""
    fmtune.run(specs.read(study).model_copy(update={"n_trials": 4}), root=tmp_path)
    other = write_study(tmp_path, STUDY.replace("1..12", "1..16"))
    with pytest.raises(StorageError, match=r"search_space\.num_factors\.high: 12 -> 16") as caught:
        fmtune.run(other, root=tmp_path)
    assert caught.value.exit_code == 2
    changed = write_study(tmp_path, STUDY, rows=601)
    with pytest.raises(StorageError, match=r"the data of .*train changed") as caught:
        fmtune.run(changed, root=tmp_path)
    assert caught.value.exit_code == 3
    assert len(collect(specs.read(study), tmp_path).cells[0].trials) == 4


def test_a_gpu_cell_without_a_gpu_is_reported(tmp_path: Path) -> None:
    """A cell that cannot run says why and blocks none."""
    path = write_study(tmp_path, STUDY.replace("{layout: [sparse, dense]}", "{device: [gpu, cpu], layout: [sparse]}"))
    result = _run(path, tmp_path)
    assert [(c.name, c.note) for c in result.cells] == [("cpu-sparse", None), ("gpu-sparse", "not run: no CUDA device")]
    assert len(result.cells[0].trials) == 24


def test_seeds_are_lanes_of_one_trial(tmp_path: Path) -> None:
    """With ``seeds: 3`` a trial's curve is the mean over three models that differ in their first values only."""
    base = STUDY.replace("n_trials: 24", "n_trials: 3").replace(
        "pruner: {name: median, n_startup_trials: 3}", "pruner: none"
    )
    three = _run(write_study(tmp_path, base + "seeds: 3\n"), tmp_path)
    singles = []
    first = three.cells[0].trials[0]
    fixed = specs.read(tmp_path / "study.yaml").hyperparameters
    for seed in range(3):
        fit = fmtune.fit(
            tmp_path / "train.npz", tmp_path / "test.npz", layout="sparse", **{**fixed, **first.params, "seed": seed}
        )
        singles.append(fit.curve)
    mean = [sum(c) / 3 for c in zip(*singles, strict=True)]
    assert first.curve == pytest.approx(mean, rel=1e-12)


def test_all_diverged_says_which_rates(tmp_path: Path) -> None:
    """Rates that diverge in every trial end with NoTrialError, exit code 6, and name the range.

    That labels of 0 and 1 make a regression is said before.
    """
    text = STUDY.replace("objective: test:binary_classification_cross_entropy", "objective: test:rmse")
    text = text.replace("linear_lr: 1e-3..0.5 log", "linear_lr: 1e30..1e37 log").replace("n_trials: 24", "n_trials: 4")
    told = pytest.warns(source.DataWarning, match="all labels are 0 or 1, and test:rmse trains a regressor")
    with told, pytest.raises(NoTrialError, match=r"4 diverged with linear_lr .*e\+3") as caught:
        fmtune.run(write_study(tmp_path, text), root=tmp_path)
    assert caught.value.exit_code == 6
    result = collect(specs.read(tmp_path / "study.yaml"), tmp_path)
    assert all(t.state == "FAIL" and "diverged at epoch" in str(t.reason) for t in result.cells[0].trials)


def test_a_deadly_trial_is_given_up(study: Path, tmp_path: Path) -> None:
    """A trial whose process died five times, with no trial finished in between, fails with the reason."""
    spec = specs.read(study).model_copy(update={"n_trials": 6})
    fmtune.run(spec, root=tmp_path)
    with sqlite3.connect(tmp_path / "runs/small/study.db") as db:
        (trial,) = db.execute("SELECT trial_id FROM trials WHERE study_id = 1 AND number = 5").fetchone()
        db.execute("UPDATE trials SET state = 'RUNNING' WHERE trial_id = ?", (trial,))
        db.execute("DELETE FROM trial_values WHERE trial_id = ?", (trial,))
        db.execute(
            "UPDATE trial_user_attributes SET value_json = '5' WHERE trial_id = ? AND key = 'attempts'", (trial,)
        )
        db.execute("UPDATE trial_user_attributes SET value_json = '{}' WHERE trial_id = ? AND key = 'owner'", (trial,))
    fmtune.run(spec, root=tmp_path)
    last = collect(spec, tmp_path).cells[0].trials[5]
    assert (last.state, last.reason) == ("FAIL", "its process died 5 times in a row")


def test_training_that_hangs_ends_the_run(study: Path, straight: StudyResult, tmp_path: Path) -> None:
    """Its trials count as having died with their worker; the next run ends as one without a hang."""
    freed, epochs = threading.Event(), itertools.count()

    def make(feed: Feed, recipe: Recipe, threads: int) -> Any:
        return Spiked(trainer(feed, recipe, threads), lambda lanes: next(epochs) > 0 and freed.wait(60))

    spec = specs.read(study).model_copy(update={"stall": 0.5})
    with pytest.raises(Hung, match=r"made no step for 0.5 s: what trains \w+ hangs"):
        fmtune.run(spec, root=tmp_path, make=make)
    freed.set()
    assert _facts(_run(study, tmp_path)) == _facts(straight)
    with contextlib.closing(sqlite3.connect(tmp_path / "runs/small/study.db")) as db:
        counted = db.execute("SELECT value_json FROM trial_user_attributes WHERE key = 'attempts'").fetchall()
    assert {("1",), ("2",)} == set(counted)


def test_fresh_keeps_the_old_study(study: Path, tmp_path: Path) -> None:
    """``fresh`` starts anew and keeps the old folder beside the new one."""
    spec = specs.read(study).model_copy(update={"n_trials": 3})
    fmtune.run(spec, root=tmp_path)
    fmtune.run(spec, root=tmp_path, fresh=True)
    assert (tmp_path / "runs/small.old/study.db").exists()
    assert len(collect(spec, tmp_path).cells[0].trials) == 3


def test_two_runs_share_a_study(study: Path, straight: StudyResult, tmp_path: Path) -> None:
    """A second run of a study that is being run joins it: each trial is run once, and none is another."""
    events: list[dict[str, object]] = []

    def join(event: dict[str, object]) -> None:
        events.append(event)
        if event["event"] == "start" and len(events) < 20 and not other:
            other.append(subprocess.Popen(command("run", study, "--json"), cwd=tmp_path, stdout=subprocess.PIPE))

    other: list[subprocess.Popen[bytes]] = []
    fmtune.run(study, root=tmp_path, listener=join)
    out, _ = other[0].communicate(timeout=60)
    theirs = [json.loads(line) for line in out.splitlines()]
    told = [(e["cell"], e["number"]) for e in (*events, *theirs) if e["event"] == "trial"]
    assert len(told) == len(set(told)) == 48
    assert _facts(collect(specs.read(study), tmp_path)) == _facts(straight)


def test_a_timeout_ends_the_search_and_other_cells_replay_all_of_it(study: Path, tmp_path: Path) -> None:
    """Cells hold the same trials at the end of every run; a second run has the time anew, and goes on."""
    spec = specs.read(study).model_copy(update={"n_trials": 5000, "timeout": 0.5})
    counts = [0]
    for _ in range(2):
        fmtune.run(spec, root=tmp_path)
        sparse, dense = collect(spec, tmp_path).cells
        ended = [t.number for t in sparse.trials if t.state in ("COMPLETE", "PRUNED")]
        assert ended == [t.number for t in dense.trials if t.state in ("COMPLETE", "PRUNED")]
        counts.append(len(ended))
    assert 0 < counts[1] < counts[2] < 5000


def test_the_winner_is_chosen_when_no_worker_trains_any_more(study: Path, tmp_path: Path) -> None:
    """A worker leaves it to one that still trains, and the holdout stays sealed; a run waits for that one."""
    spec = specs.read(study).model_copy(update={"n_trials": 6})
    folder = tmp_path / "runs/small"
    folder.mkdir(parents=True)
    storage = open_storage(sqlite_url(folder))
    other = Store(storage, "small", "minimize")
    facts = environment.build()
    other.beat({**facts, "trains": True})
    fmtune.run(spec, root=tmp_path, worker=True)
    left = collect(spec, tmp_path)
    assert len(left.cells[1].trials) == 6 and (left.model_path, left.holdout, left.finished) == (None, None, None)
    said: list[str] = []

    def end(event: dict[str, Any]) -> None:
        said.append(event.get("what", event["event"]))
        if said[-1] == "waiting for the workers that still train":
            other.beat({**facts, "trains": False})

    fmtune.run(spec, root=tmp_path, listener=end)
    assert said.index("waiting for the workers that still train") < said.index("winner") < said.index("concluded")
    found = collect(spec, tmp_path)
    assert found.finished is not None and found.holdout is not None and found.holdout["opened"] == 1
    other.leave()


def test_any_optuna_reader_opens_the_study(study: Path, straight: StudyResult, tmp_path: Path) -> None:
    """The database is an ordinary Optuna study: best trial, parameters, curves, metric name."""
    returned = fmtune.run(specs.read(study).model_copy(update={"n_trials": 5}), root=tmp_path)
    loaded = optuna.load_study(study_name="small", storage=f"sqlite:///{tmp_path}/runs/small/study.db")
    assert loaded.best_params == returned.best_params and len(loaded.trials) == 5
    assert loaded.metric_names == ["test:binary_classification_cross_entropy"]
    assert optuna.load_study(study_name="small/cpu-dense", storage=loaded._storage).best_value > 0
