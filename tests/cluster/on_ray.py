"""One model trained on a real Ray: near a single process, the same for any number of workers, and in spite of deaths.

Run by `make test-cluster`, with Ray in an environment of its own.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import fmtune
from fmtune.cluster.engine import Inline, OnRay
from fmtune.cluster.fit import ClusterFit, fit
from fmtune.cluster.layout import Layout
from fmtune.data import catalog
from fmtune.fm import fit as alone
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.rows import SparseRows
from tests.study_fixtures import write_study

H = Hyperparameters.of({
    "predictor_type": "binary_classifier", "num_factors": 4, "epochs": 6, "mini_batch_size": 200,
    "optimizer": "adagrad", "linear_lr": 0.1, "factors_lr": 0.1, "factors_init_sigma": 0.1, "bias_wd": 0.0,
})  # fmt: skip
DATA = catalog.load("planted-clicks", {})


STUDY = """\
study_name: spread
data: {train: train.npz, test: test.npz}
objective: test:binary_classification_cross_entropy
hyperparameters: {epochs: 3, mini_batch_size: 20, optimizer: adagrad}
search_space: {num_factors: 1..8, linear_lr: 1e-2..0.5 log, factors_lr: 1e-2..0.5 log}
n_trials: 4
cluster: {address: auto, workers: 2, shards: 2, parts: 4, block: 50}
"""


class Counted(OnRay):
    """Ray, with a list of the actors that were made."""

    def __init__(self, address: str | None = None) -> None:
        super().__init__(address)
        self.made: dict[str, list[Any]] = {"Shard": [], "Worker": []}

    def make(self, kind: type, *words: Any) -> Any:
        # What actors are given is Ray alone.
        actor = super().make(kind, *(OnRay() if word is self else word for word in words))
        self.made[kind.__name__].append(actor)
        return actor


@pytest.fixture(scope="module")
def engine() -> Iterator[Counted]:
    yield Counted("auto")
    ray.shutdown()


def _fit(
    engine: Counted, folder: Path, listener: Callable[[dict[str, Any]], None] = lambda event: None, **layout: Any
) -> ClusterFit:  # fmt: skip
    return fit(engine, DATA.train, DATA.test, H, Layout(**layout), folder, listener)


@pytest.fixture(scope="module")
def three(engine: Counted, tmp_path_factory: pytest.TempPathFactory) -> ClusterFit:
    return _fit(engine, tmp_path_factory.mktemp("three"), workers=3, shards=2)


def test_near_a_single_process(three: ClusterFit) -> None:
    """3 workers and 2 shards reach the log loss of one process within 0.005."""
    own = alone.train(alone.Channels(DATA.train, DATA.test), H).curve[-1]
    print(f"log loss: one process {own:.5f}, 3 workers and 2 shards {three.curve[-1]:.5f}")
    assert abs(three.curve[-1] - own) < 0.005


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers(engine: Counted, three: ClusterFit, tmp_path: Path, workers: int) -> None:
    """1, 2 and 3 workers give the same model to 1e-5."""
    found = _fit(engine, tmp_path, workers=workers, shards=2)
    worst = max(np.abs(found.model.factors - three.model.factors).max(), abs(found.model.bias - three.model.bias))
    print(f"{workers} workers: largest difference {worst:.2g}")
    assert worst < 1e-5


@pytest.mark.parametrize("kind", ["Worker", "Shard"])
def test_a_killed_process(engine: Counted, three: ClusterFit, tmp_path: Path, kind: str) -> None:
    """A worker, or a shard, killed in the third epoch: the training ends, within 0.01 of what it was."""
    seen: list[str] = []

    def kill(event: dict[str, Any]) -> None:
        seen.append(event["event"])
        if event["event"] == "round" and event["round"] == 2 * event["of"] // 6 + 1 and "mended" not in seen:
            victim = engine.made[kind][-1]
            os.kill(ray.get(victim.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)

    found = _fit(engine, tmp_path, kill, workers=3, shards=2)
    print(f"a {kind} killed: log loss {found.curve[-1]:.5f} for {three.curve[-1]:.5f}")
    assert "mended" in seen
    assert abs(found.curve[-1] - three.curve[-1]) < 0.01


def _clicks(features: int, rows: int = 96_000, filled: int = 40) -> SparseRows:
    """Rows as in click logs: few values of a field make most of its rows."""
    rng, each = np.random.default_rng(0), features // filled
    values = np.minimum(rng.zipf(1.3, (rows, filled)), each) - 1
    return SparseRows(
        np.arange(rows + 1, dtype=np.int64) * filled, (values + each * np.arange(filled)).astype(np.int32).ravel(),
        np.ones(rows * filled, np.float32), (rng.random(rows) < 0.3).astype(np.float32), each * filled,
    )  # fmt: skip


# num_factors, features, rows a block, whether changes travel as float16.
SIZES = [
    (16, 100_000, 6000, True), (16, 100_000, 6000, False), (64, 100_000, 6000, True),
    (16, 10_000, 24_000, True), (64, 10_000, 24_000, True),
]  # fmt: skip
REPEATS = 5


def test_two_workers_are_faster_than_one(engine: Counted, tmp_path: Path) -> None:
    """Rows a second of two workers beside one, in turns, and what share of their time the exchange takes, by size."""
    best = 0.0
    for factors, features, block, half in SIZES:
        train = _clicks(features)
        h = H.replace(num_factors=factors, epochs=3)
        rates: dict[int, list[float]] = {1: [], 2: []}
        shares: dict[int, list[float]] = {1: [], 2: []}
        # The first turn loads kernels, and is not counted.
        for turn in range(REPEATS + 1):
            for workers in (1, 2) if turn % 2 else (2, 1):
                ends: list[float] = []

                def note(event: dict[str, Any], ends: list[float] = ends) -> None:
                    ends.append(time.monotonic())

                found = fit(engine, train, None, h, Layout(workers, 1, 2, block, half), tmp_path, note)
                if turn:
                    rates[workers].append(train.n * h.epochs * (1 - 1 / len(ends)) / (ends[-1] - ends[0]))
                    shares[workers].append(found.exchange_seconds / (found.exchange_seconds + found.train_seconds))
        ratios = sorted(two / one for one, two in zip(rates[1], rates[2], strict=True))
        best = max(best, float(np.median(ratios)))
        print(
            f"num_factors {factors}, {features} features, blocks of {block}, {'fp16' if half else 'fp32'}: rows/s "
            f"{np.median(rates[1]):,.0f} and {np.median(rates[2]):,.0f}, {np.median(ratios):.2f} x "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}); exchange {np.median(shares[1]):.0%} and "
            f"{np.median(shares[2]):.0%} of their time, {found.bytes / train.n / h.epochs:.0f} bytes a row"
        )
    assert best >= 1.2


def test_a_study_on_the_cluster(tmp_path: Path) -> None:
    """`cluster: auto` in a study file: trials train on Ray, and give what the engine in this process gives."""
    values = []
    for name, engine in (("ray", OnRay), ("here", lambda address: Inline())):
        (tmp_path / name).mkdir()
        study = fmtune.run(write_study(tmp_path / name, STUDY), root=tmp_path / name, engine=engine)
        values.append([trial.value for trial in study.trials])
    assert len(values[0]) == 4 and values[0] == values[1]
