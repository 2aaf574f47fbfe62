"""fmtune.sagemaker's jobs on several hosts: one model, host by host; two hosts are threads here, or processes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmtune.errors import FmtuneError, ResourceError, UsageError
from fmtune.fm.arena import State
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.model import Model
from fmtune.fm.pack import Pack
from fmtune.rows import Rows
from fmtune.sagemaker.artifact import import_artifact
from fmtune.sagemaker.container import Container
from fmtune.sagemaker.hosts import Hosts, joined
from fmtune.sagemaker.logs import Log
from fmtune.sagemaker.training import Trained, Training
from tests.processes import Limited
from tests.test_sagemaker_training import job, rows, run

# Both are this machine; in the order of their names the first is the hub.
NAMES = ("127.0.0.1", "localhost")
SHARDED = {"train": {"S3DistributionType": "ShardedByS3Key"}}


def free_port() -> int:
    with socket.create_server((NAMES[0], 0)) as probe:
        return int(probe.getsockname()[1])


def lay(folder: Path, blocks: tuple[Rows | None, ...], test: Rows | None, config: Any, **values: str) -> list[Path]:
    """Lay out each host's folder."""
    roots = []
    for name, block in zip(NAMES, blocks, strict=True):
        named = {**config, "test": {}} if config and test is not None else config
        roots.append(job(folder / name, block, test, named, **values))
        here = {"current_host": name, "hosts": list(NAMES), "network_interface_name": "lo"}
        (roots[-1] / "input/config/resourceconfig.json").write_text(json.dumps(here))
    return roots


def train(
    roots: list[Path], window: int | None = None, stops: tuple[Callable[[], bool], ...] = (lambda: False,) * 2
) -> list[tuple[Trained | FmtuneError, str, list[Model]]]:
    """Train on all hosts at once; returns what each came to, its log and what it saved."""
    port = free_port()

    def one(root: Path, stop: Callable[[], bool]) -> tuple[Trained | FmtuneError, str, list[Model]]:
        lines: list[str] = []
        saved: list[Model] = []
        container = Container(root)
        here, names = container.hosts()
        try:
            with joined(here, names, lambda: False, port, patience=20.0) as hosts:
                made = container.job()
                channels = container.channels(made, stop)
                training = Training(made, channels["train"], channels.get("test"), Log(lines.append, here), stop,
                                    window, hosts=hosts)  # fmt: skip
                return training.run(saved.append), "\n".join(lines), saved
        except FmtuneError as error:
            return error, "\n".join(lines), saved

    with ThreadPoolExecutor(len(roots)) as pool:
        return list(pool.map(one, roots, stops))


def scores(log: str) -> list[str]:
    """Return the test scores that a host printed."""
    return re.findall(r"#quality_metric: host=\S+, test (.*)", log)


@pytest.mark.parametrize("dense", [False, True])
def test_hosts_train_their_shards_and_move_by_the_sum(dense: bool, tmp_path: Path) -> None:
    """As two packs do whose parameters move by the sum of their changes, and whose states are their own."""
    blocks, test = (rows(500, seed=1), rows(320, seed=2)), rows(200, seed=3)
    if dense:
        blocks, test = tuple(block.to_dense() for block in blocks), test.to_dense()  # type: ignore[assignment]
    found = train(lay(tmp_path, blocks, test, SHARDED, factors_lr="0.01", epochs="2"))
    (first, log, _), (second, other, _) = found
    assert isinstance(first, Trained) and isinstance(second, Trained), (first, second)
    for name in ("bias", "linear", "factors"):
        assert np.array_equal(getattr(first.model, name), getattr(second.model, name))
    assert scores(log) == scores(other) and len(scores(log)) == 3
    assert "Create Store: dist_sync" in log and "host=localhost, epoch=1, train rmse" in other
    expected = moved(tmp_path, blocks, 2)
    np.testing.assert_allclose(first.model.factors, expected.factors, atol=1e-6)
    np.testing.assert_allclose(first.model.linear, expected.linear, atol=1e-6)
    assert first.model.bias == pytest.approx(expected.bias, abs=1e-6)


def moved(folder: Path, blocks: tuple[Rows, ...], epochs: int) -> Model:
    """Do with packs and float64 what the hosts do."""
    h = Container(folder / NAMES[0]).job().model_settings(dense=blocks[0].layout == "dense")
    packs = []
    for block in blocks:
        feeds = [Feed(block.slice(at, min(at + 100, block.n))) for at in range(0, block.n, 100)]
        packs.append((feeds, [Pack(feed, Recipe.of(h, block.layout)) for feed in feeds], []))
        for pack in packs[-1][1]:
            pack.change(enter=[h])
    state = packs[0][1][0].state()
    whole, bias = state.rows[:, 0].astype(np.float64), state.bias[0].astype(np.float64)
    kept = [State(state.rows.copy(), state.bias.copy(), state.steps.copy()) for _ in blocks]
    for _ in range(epochs):
        for i in range(max(len(feeds) for feeds, _, _ in packs)):
            total, moved = np.zeros_like(whole), np.zeros_like(bias)
            for host, (feeds, own, _) in enumerate(packs):
                if i >= len(feeds):
                    continue
                at = own[i].state()
                at.rows[:], at.bias[:], at.steps[0] = kept[host].rows, kept[host].bias, kept[host].steps[0]
                at.rows[:, 0], at.bias[0] = whole, bias
                before, was = at.rows[:, 0].copy(), at.bias[0].copy()
                own[i].epoch()
                kept[host] = State(at.rows.copy(), at.bias.copy(), at.steps.copy())
                total, moved = total + (at.rows[:, 0] - before), moved + (at.bias[0] - was)
            whole, bias = whole + total, bias + moved
    last = packs[0][1][0]
    last.state().rows[:, 0], last.state().bias[0] = whole, bias
    return last.model(last.lanes[0])


def test_replicated_data_are_learned_once_by_each_host(tmp_path: Path) -> None:
    """FullyReplicated: the changes are the same, and their sum is what one host does at twice the rates; it is said."""
    block = rows(900)
    found = train(lay(tmp_path, (block, block), None, None, epochs="2"))
    twice = {"bias_lr": "0.2", "linear_lr": "0.002", "factors_lr": "0.0002"}
    assert run(job(tmp_path / "alone", block, epochs="2", **twice))[0] == 0
    alone = import_artifact(tmp_path / "alone/model/model_algo-1")
    for result, log, _ in found:
        assert isinstance(result, Trained), result
        np.testing.assert_allclose(result.model.factors, alone.factors, atol=1e-5)
        assert "each mini-batch is learned 2 times an epoch; ShardedByS3Key divides the work" in log


def test_two_hosts_learn_as_fast_an_epoch_as_one(tmp_path: Path) -> None:
    """The shards of a channel: the test error falls as far as on one host; with the mean of changes, half as far."""
    whole, test = (replace(r, labels=r.labels + np.float32(3)) for r in (rows(3000, seed=1), rows(500, seed=2)))
    halves = whole.slice(0, 1500), whole.slice(1500, 3000)
    results = train(lay(tmp_path, halves, test, SHARDED, epochs="1", mini_batch_size="100"))
    code, log = run(job(tmp_path / "alone", whole, test, epochs="1", mini_batch_size="100"))
    assert code == 0
    start, one, both = (
        float(re.findall(rf"{words} rmse <loss>=(\S+)", said)[0])
        for words, said in (("batch=0 train", log), ("test", log), ("test", results[0][1]))
    )
    assert (start - both) / (start - one) == pytest.approx(1.0, abs=0.15)


def test_one_that_is_asked_to_stop_stops_all(tmp_path: Path) -> None:
    """Both end with the same model as it stands."""
    asked = iter([False] * 5)
    stops = (lambda: False, lambda: next(asked, True))
    found = train(lay(tmp_path, (rows(500), rows(400)), None, SHARDED, epochs="50"), 100, stops)
    models = [result.model for result, _, _ in found if isinstance(result, Trained) and result.stopped]
    assert len(models) == 2 and np.array_equal(models[0].factors, models[1].factors)


def test_a_failure_of_one_is_the_failure_of_all(tmp_path: Path) -> None:
    """Labels that cannot be used on one host: the other says which host failed, and why."""
    bad = rows(300, seed=2)
    blocks = (rows(300, binary=True), bad)
    found = train(lay(tmp_path, blocks, None, SHARDED, predictor_type="binary_classifier"))
    (first, _, saved), (second, _, _) = found
    assert isinstance(first, ResourceError) and isinstance(second, FmtuneError) and not saved
    assert "host localhost failed" in first.what and second.what[:40] in first.what


def test_hosts_that_differ_train_nothing(tmp_path: Path) -> None:
    """One has dense records, the other sparse ones."""
    found = train(lay(tmp_path, (rows(200), rows(200).to_dense()), None, SHARDED))
    errors = [result for result, _, _ in found]
    assert all(isinstance(error, ResourceError) for error in errors)
    assert any("the hosts differ" in str(error.what) for error in errors if isinstance(error, FmtuneError))


def test_hosts_take_the_files_order(tmp_path: Path) -> None:
    """An order of their own is refused."""
    found = train(lay(tmp_path, (rows(200), rows(200)), None, SHARDED, shuffle="once"))
    assert {type(result) for result, _, _ in found} <= {UsageError, ResourceError}
    assert any("set shuffle to 'none'" in (r.hint or "") for r, _, _ in found if isinstance(r, FmtuneError))


def test_a_host_that_does_not_come_is_named() -> None:
    """The hub waits for so long; and so does one that finds no hub."""
    for here in NAMES:
        waiting = joined(here, NAMES, lambda: False, free_port(), patience=0.3)
        with pytest.raises(ResourceError, match=r"did not come|does not answer"), waiting:
            pass


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"\x02\0\0\0[]", b"\x0f\0\0\0{\"host\": \"evil\"}", b""])
def test_strangers_at_the_port_are_sent_away(words: bytes) -> None:
    """What is no host of the job is closed, and the hosts come together."""
    port = free_port()

    def hub() -> tuple[str, ...]:
        with joined(NAMES[0], NAMES, lambda: False, port, patience=20.0) as hosts:
            hosts.agree({"a": 1})
            return hosts.names

    def other() -> None:
        with joined(NAMES[1], NAMES, lambda: False, port, patience=20.0) as hosts:
            hosts.agree({"a": 1})

    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(hub)
        stranger = reach(port)
        stranger.sendall(words)
        stranger.close()
        pool.submit(other).result()
        assert waiting.result() == NAMES


def reach(port: int) -> socket.socket:
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((NAMES[0], port), timeout=5)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize(
    "head",
    [{"shape": [1, 5]}, {"shape": [99, 5]}, {"shape": [-1, 5]}, {"shape": [1, 9]}, {"shape": [1, 3, 5]},
     {"shape": "x"}, {}],
)
def test_messages_that_do_not_fit_are_refused(head: dict[str, Any]) -> None:
    """Sizes are compared with the model before memory is taken, and features with those that there are."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = json.dumps({"worked": True, "stop": False, **head}).encode()
        theirs.sendall(len(words).to_bytes(4, "little") + words + np.array([30], np.int64).tobytes() + bytes(72))
        theirs.shutdown(socket.SHUT_WR)
        hosts = Hosts(NAMES[0], NAMES, {NAMES[1]: ours})
        with pytest.raises(ResourceError):
            rows, bias = np.zeros((30, 3, 5), np.float32), np.zeros((3, 1), np.float32)
            hosts._hear(NAMES[1], State(rows, bias, np.zeros(1, np.int64)))


def test_two_processes_are_two_hosts(tmp_path: Path) -> None:
    """`fmtune sagemaker train` on each: exit code 0, one model, the same test scores; then a killed host fails both."""
    roots = lay(tmp_path, (rows(500), rows(300)), rows(100), SHARDED)
    done = processes(roots)
    assert [code for code, _ in done] == [0, 0], done
    assert [(root / "model/model_algo-1").exists() for root in roots] == [True, False]
    assert scores(done[0][1]) == scores(done[1][1]) and len(scores(done[0][1])) == 3
    slow = lay(tmp_path / "slow", (rows(500), rows(300)), None, SHARDED, epochs="1000000")
    done = processes(slow, kill=1)
    assert done[0][0] == 5 and done[1][0] == -9
    assert "host localhost has ended" in (slow[0] / "output/failure").read_text()


def processes(roots: list[Path], kill: int | None = None) -> list[tuple[int, str]]:
    env = {**os.environ, "DMLC_PS_ROOT_PORT": str(free_port())}
    words = [sys.executable, "-m", "fmtune", "sagemaker", "train", "--root"]
    started = [
        Limited([*words, str(root)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for root in roots
    ]
    if kill is not None:
        victim = started[kill]
        assert victim.stdout is not None
        next(line for line in victim.stdout if "epoch=0, train" in line)
        threading.Timer(0.2, victim.kill).start()
    logs = [process.communicate(timeout=60)[0] for process in started]
    return [(process.returncode, log) for process, log in zip(started, logs, strict=True)]
