"""A study run by many workers on a real PostgreSQL, which is stopped, and whose workers are killed and cut off.

Run by `make test-cluster`.  The test with network namespaces needs root and Debian's package iproute2.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import fmtune
from fmtune.tune import spec as specs
from fmtune.tune.collect import collect
from fmtune.tune.result import StudyResult
from tests.cluster.namespaces import namespace
from tests.cluster.server import PASSWORD, Server
from tests.study_fixtures import STUDY, command, write_study
from tests.study_fixtures import fmtune as cli

GRACE = 5.0

# Many small trials, and few that take some seconds each.
SHORT = STUDY.replace("n_trials: 24", "n_trials: 200\nlag: 16\ngrace: 60").replace("pack: 4", "pack: 4\nthreads: 1")
SHORT = SHORT.replace("matrix: {layout: [sparse, dense]}\n", "").replace("\nthreads: 2", "")
LONG = SHORT.replace("n_trials: 200\nlag: 16\ngrace: 60", f"n_trials: 12\nlag: 4\ngrace: {GRACE:g}")
LONG = LONG.replace("epochs: 4", "epochs: 40").replace("pruner: {name: median, n_startup_trials: 3}", "pruner: none")
LONG = LONG.replace("pack: 4", "pack: 8")  # more lanes than the lag lets anybody fill: another's trials find a place
ROWS = 20_000


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture(autouse=True)
def reaped() -> Iterator[None]:
    """No worker outlives its test."""
    yield
    while Worker.started:
        with Worker.started.pop().process as process:
            process.kill()


class Worker:
    """A worker as a process, and the events it has printed so far."""

    started: ClassVar[list[Worker]] = []

    def __init__(self, study: Path, *before: str, verb: str = "worker") -> None:
        self.out = study.parent / f"{verb}-{time.monotonic_ns()}.jsonl"
        words = [*before, *command(verb, study, "--json")]
        with self.out.open("w") as out:
            self.process = subprocess.Popen(words, cwd=study.parent, stdout=out, stderr=subprocess.STDOUT)
        self.started.append(self)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        lines = [line for line in self.out.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        found = [json.loads(line) for line in lines]
        return [e for e in found if e["event"] in kinds]

    def ended(self, limit: float = 300.0) -> int:
        return self.process.wait(limit)


def until(true: Callable[[], Any], limit: float = 120.0) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + limit
    while not (found := true()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)
    return found


def study_on(url: str | None, folder: Path, text: str, rows: int = 600) -> Path:
    folder.mkdir(exist_ok=True)
    return write_study(folder, text + (f"storage: {url}\n" if url else ""), rows)


def held(worker: Worker) -> set[int]:
    """Trials that a worker has begun and not ended."""
    ended = {e["number"] for e in worker.events("trial", "late")}
    return {e["number"] for e in worker.events("start")} - ended


def facts(result: StudyResult) -> list[tuple[object, ...]]:
    """What must not depend on who ran a trial."""
    return [(t.number, t.state, t.params, t.value, t.curve) for c in result.cells for t in c.trials]


def alone(folder: Path, text: str, rows: int = 600) -> list[tuple[object, ...]]:
    """The same study run by one process."""
    path = study_on(None, folder, text, rows)
    fmtune.run(path, root=folder)
    return facts(collect(specs.read(path), folder))


def no_secret(folder: Path) -> None:
    """The password is in no output, model or report."""
    files = [f for f in folder.rglob("*") if f.is_file() and f.name != "study.yaml"]
    assert files
    assert not [f for f in files if PASSWORD.encode() in f.read_bytes()]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_sixteen_workers(kind: str, server: Server, tmp_path: Path) -> None:
    """16 workers run 200 trials: none lost, doubled or over the budget, and each one is what one process gives it."""
    study = study_on(server.url if kind == "postgresql" else None, tmp_path, SHORT.replace("small", f"many-{kind[0]}"))
    workers = [Worker(study) for _ in range(15)] + [Worker(study, verb="run")]
    assert [w.ended() for w in workers] == [0] * 16, [w.out.read_text()[-500:] for w in workers]
    told = [e["number"] for w in workers for e in w.events("trial")]
    print(f"{kind}: trials by worker {sorted(len(w.events('trial')) for w in workers)}")
    assert sorted(told) == list(range(200))
    result = collect(specs.read(study), tmp_path)
    assert [t.number for t in result.cells[0].trials] == list(range(200))
    assert {t.state for t in result.cells[0].trials} <= {"COMPLETE", "PRUNED"}
    assert {t.attempts for t in result.cells[0].trials} == {1}
    assert result.holdout is not None and result.holdout["opened"] == 1 and result.selection is not None
    assert facts(result) == alone(tmp_path / "alone", SHORT.replace("small", "one"))
    no_secret(tmp_path)


def test_a_killed_workers_trials_are_done_by_another(server: Server, tmp_path: Path) -> None:
    """kill -9: within the grace another worker has begun each of its trials; the study ends as if nothing were."""
    text = LONG.replace("small", "killed")
    study = study_on(server.url, tmp_path, text, ROWS)
    first, second = Worker(study), Worker(study)
    until(lambda: held(first) and held(second))
    first.process.kill()
    first.ended()
    began, lost = time.monotonic(), held(first)
    until(lambda: lost <= {e["number"] for e in second.events("start")})
    print(f"{len(lost)} trials begun again {time.monotonic() - began:.1f} s after the kill")
    assert time.monotonic() - began < GRACE
    until(lambda: lost <= {e["number"] for e in second.events("trial")})
    print(f"and done {time.monotonic() - began:.1f} s after it")
    workers = json.loads(cli(tmp_path, "status", study, "--json").stdout)["workers"]
    assert first.process.pid in {w["pid"] for w in workers if not w["lives"]}
    assert second.ended() == 0
    result = collect(specs.read(study), tmp_path)
    assert {t.number for t in result.cells[0].trials if t.attempts == 2} == lost
    assert facts(result) == alone(tmp_path / "alone", LONG.replace("small", "one"), ROWS)


def test_a_stopped_worker_gives_its_trials_back(server: Server, tmp_path: Path) -> None:
    """SIGTERM: exit code 143, its trials wait for the next worker, and that is no attempt."""
    study = study_on(server.url, tmp_path, LONG.replace("small", "stopped"), ROWS)
    first = Worker(study)
    until(lambda: held(first))
    first.process.send_signal(signal.SIGTERM)
    assert first.ended(30) == 143
    states = [t.state for t in collect(specs.read(study), tmp_path).cells[0].trials]
    assert "WAITING" in states and "RUNNING" not in states
    assert Worker(study).ended() == 0
    assert {t.attempts for t in collect(specs.read(study), tmp_path).cells[0].trials} == {1}


def test_the_database_may_be_away(server: Server, tmp_path: Path) -> None:
    """Stopped for 20 s and started again: workers go on training, tell what ended, and the study completes."""
    text = LONG.replace("small", "away").replace(f"grace: {GRACE:g}", "grace: 30")
    study = study_on(server.url, tmp_path, text, ROWS)
    workers = [Worker(study), Worker(study)]
    until(lambda: all(held(w) for w in workers))
    server.stop()
    time.sleep(20)
    server.start()
    assert [w.ended() for w in workers] == [0, 0], [w.out.read_text()[-1500:] for w in workers]
    assert all(w.events("away") and w.events("back") for w in workers)
    told = [e["number"] for w in workers for e in w.events("trial")]
    assert sorted(told) == list(range(12))
    trials = collect(specs.read(study), tmp_path).cells[0].trials
    assert {(t.state, t.attempts) for t in trials} == {("COMPLETE", 1)}
    no_secret(tmp_path)


def test_a_suspended_worker_tells_late(server: Server, tmp_path: Path) -> None:
    """A worker that sleeps beyond the grace finds its trials taken over: what it tells is ignored and logged."""
    study = study_on(server.url, tmp_path, LONG.replace("small", "asleep"), ROWS)
    sleeper, other = Worker(study), Worker(study)
    until(lambda: held(sleeper) and held(other))
    sleeper.process.send_signal(signal.SIGSTOP)
    lost = held(sleeper)
    until(lambda: lost <= {e["number"] for e in other.events("start")})
    sleeper.process.send_signal(signal.SIGCONT)
    assert [w.ended() for w in (sleeper, other)] == [0, 0]
    assert {e["number"] for e in sleeper.events("late")} == lost
    assert facts(collect(specs.read(study), tmp_path)) == alone(
        tmp_path / "alone", LONG.replace("small", "one"), ROWS
    )


@pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root")
def test_a_worker_cut_off_tells_late(tmp_path: Path) -> None:
    """A host whose cable is pulled goes on training; its trials are taken over, and what it tells later is ignored."""
    with namespace("fmtune-a", "10.77.1.1", "10.77.1.2"), Server("10.77.1.1") as server:
        study = study_on(server.url, tmp_path, LONG.replace("small", "cut"), ROWS)
        far, near = Worker(study, "ip", "netns", "exec", "fmtune-a"), Worker(study)
        until(lambda: held(far) and held(near))
        subprocess.run(["ip", "link", "set", "fmtune-a", "down"], check=True)
        lost = until(lambda: far.events("away") and held(far))
        until(lambda: {e["number"] for e in near.events("start")} & lost)
        subprocess.run(["ip", "link", "set", "fmtune-a", "up"], check=True)
        assert [w.ended() for w in (near, far)] == [0, 0], [w.out.read_text()[-1500:] for w in (near, far)]
        late = {e["number"] for e in far.events("late")}
        print(f"cut off with {len(lost)} trials, {len(late)} told late")
        assert late and far.events("back")
        told = [e["number"] for w in (near, far) for e in w.events("trial")]
        assert sorted(told) == list(range(12))
        assert {t.state for t in collect(specs.read(study), tmp_path).cells[0].trials} == {"COMPLETE"}


def test_another_build_or_other_data_may_not_join(server: Server, tmp_path: Path) -> None:
    """A worker with other data or another search space is refused with the difference shown."""
    text = LONG.replace("small", "join")
    study = study_on(server.url, tmp_path, text, ROWS)
    worker = Worker(study)
    until(lambda: held(worker))
    try:
        other = study_on(server.url, tmp_path / "space", text.replace("1..12", "1..16"), ROWS)
        refused = cli(other.parent, "worker", other)
        assert refused.returncode == 2 and "search_space.num_factors.high: 12 -> 16" in refused.stderr
        other = study_on(server.url, tmp_path / "data", text, ROWS + 1)
        refused = cli(other.parent, "worker", other)
        assert refused.returncode == 3 and "train changed since its first trial" in refused.stderr
    finally:
        worker.process.terminate()
        worker.ended(30)


def test_any_optuna_reader_opens_it(server: Server, tmp_path: Path) -> None:
    """The study on PostgreSQL is an ordinary Optuna study: a script that knows nothing of fmtune reads it."""
    study = study_on(server.url, tmp_path, SHORT.replace("small", "plain").replace("n_trials: 200", "n_trials: 4"))
    assert cli(tmp_path, "run", study).returncode == 0
    script = "import optuna, sys; print(optuna.load_study(study_name='plain', storage=sys.argv[1]).best_params)"
    words = [sys.executable, "-c", script, server.url]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    best = min(collect(specs.read(study), tmp_path).cells[0].trials, key=lambda trial: trial.value or 0.0)
    assert found.stdout.strip() == str(dict(best.params))
