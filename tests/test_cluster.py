"""Local SGD over parts: the model depends on the parts, and not on who trains them or who dies."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmtune.cluster.engine import Inline, Lost, OnRay
from fmtune.cluster.fit import ClusterFit, fit
from fmtune.cluster.layout import Layout
from fmtune.cluster.shard import Changes, Shard
from fmtune.errors import ResourceError, StorageError, UsageError
from fmtune.extras import install
from fmtune.fm import fit as alone
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.kernels.rules import RULES
from tests import fm_reference as reference

H = Hyperparameters.of({
    "predictor_type": "binary_classifier", "num_factors": 3, "epochs": 3, "mini_batch_size": 20, "optimizer": "adagrad",
    "linear_lr": 0.1, "factors_lr": 0.1, "factors_init_sigma": 0.1,
})  # fmt: skip
ROWS = reference.rows(900, 40, 6)
TRAIN, TEST = ROWS.slice(300, 900), ROWS.slice(0, 300)


class Dying(Inline):
    """An engine whose next calls of a method are lost, with the actor that was called."""

    def __init__(self, method: str, after: int, deaths: int = 1) -> None:
        self.method, self.left, self.deaths, self.dead = method, after, deaths, []

    def call(self, actor: Any, method: str, *words: Any) -> Any:
        if method == self.method:
            self.left -= 1
            if self.left <= 0 and self.deaths:
                self.deaths -= 1
                self.dead.append(actor)
        if any(actor is one for one in self.dead):
            raise Lost
        return super().call(actor, method, *words)

    def lives(self, actor: Any) -> bool:
        return not any(actor is one for one in self.dead)


def _fit(folder: Path, engine: Inline | None = None, h: Hyperparameters = H, **layout: Any) -> ClusterFit:
    return fit(engine or Inline(), TRAIN, TEST, h, Layout(**{"parts": 4, "block": 50, **layout}), folder)


def _same(a: ClusterFit, b: ClusterFit) -> bool:
    equal = np.array_equal(a.model.factors, b.model.factors) and a.model.bias == b.model.bias
    return bool(equal and a.curve == b.curve)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> ClusterFit:
    return _fit(tmp_path_factory.mktemp("straight"))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("shards", [1, 2])
def test_workers_and_shards_change_nothing(straight: ClusterFit, tmp_path: Path, workers: int, shards: int) -> None:
    """1, 2 or 3 workers on 1 or 2 shards give the same bits."""
    assert _same(_fit(tmp_path, workers=workers, shards=shards), straight)


@pytest.mark.parametrize("optimizer", RULES)
def test_one_part_in_one_block_is_plain_training(tmp_path: Path, optimizer: str) -> None:
    """With nothing to exchange the model is that of one process, up to the sum's rounding."""
    h = H.replace(shuffle="none", optimizer=optimizer)
    found = _fit(tmp_path, h=h, parts=1, block=600)
    assert found.model.linear == pytest.approx(alone.train(alone.Channels(TRAIN, TEST), h).model.linear, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "rowwise_adagrad"])
def test_it_learns(tmp_path: Path, optimizer: str) -> None:
    """Four parts come near to what one process reaches."""
    h = H.replace(optimizer=optimizer, linear_lr=0.05, factors_lr=0.05, epochs=10)
    own = alone.train(alone.Channels(TRAIN, TEST), h).curve[-1]
    assert _fit(tmp_path, h=h).curve[-1] < own + 0.1


def test_half_precision_changes_little(straight: ClusterFit, tmp_path: Path) -> None:
    """Changes sent as float16 take half the bytes and move the score by less than 0.001."""
    found = _fit(tmp_path, half=True)
    assert found.bytes < straight.bytes
    assert found.curve[-1] == pytest.approx(straight.curve[-1], abs=1e-3)


@pytest.mark.parametrize("scale", [1.0, 1e-20, 0.0])
def test_halves_are_numpys(scale: float) -> None:
    """Changes on their way are IEEE's half precision, scaled by plane; what is added is what numpy would add."""
    rng = np.random.default_rng(0)
    rows = (scale * rng.normal(size=(50, 2, 9)) * 10.0 ** rng.uniform(-12, 0, (50, 2, 9))).astype(np.float32)
    sent = Changes.of(rows, True)
    assert sent.scale is not None and sent.nbytes == rows.nbytes // 2 + 8
    expected = (rows / sent.scale[:, None]).astype(np.float16)
    assert np.abs(sent.rows.view(np.float16) - expected).max() <= np.spacing(np.abs(expected).max())
    into = np.zeros((60, 2, 9), np.float32)
    sent.add(into, np.arange(10, 60), np.full(60, 2, np.int32))
    np.testing.assert_allclose(into[10:], sent.rows.view(np.float16) * (sent.scale[:, None] / 2), rtol=1e-6)
    assert not into[:10].any()


@pytest.mark.parametrize(("method", "after"), [("train", 3), ("train", 15), ("push", 20), ("merge", 6), ("save", 2)])
def test_a_death_changes_nothing(straight: ClusterFit, tmp_path: Path, method: str, after: int) -> None:
    """A worker or a shard dies, before the first checkpoint or after it: the model is the same."""
    engine = Dying(method, after)
    assert _same(_fit(tmp_path, engine, shards=2), straight)
    assert len(engine.dead) == 1


def test_death_after_death_ends_it(tmp_path: Path) -> None:
    """Processes that die at once, again and again, are no accident."""
    with pytest.raises(ResourceError, match="die again and again"):
        _fit(tmp_path, Dying("train", 1, deaths=1000))


def test_what_a_cluster_cannot_train_is_refused(tmp_path: Path) -> None:
    """Sweeps, dense updates, an order by epoch and patience belong to one process."""
    with pytest.raises(UsageError, match="a cluster trains with"):
        _fit(tmp_path, h=H.replace(patience=2))


def test_a_lost_checkpoint_is_named(tmp_path: Path) -> None:
    """A shard that begins where its checkpoint cannot be read says so."""
    with pytest.raises(StorageError, match="checkpoint cannot be read") as caught:
        Shard(H, 0, 10, tmp_path, 7)
    assert caught.value.hint is not None and "share" in caught.value.hint


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_is_an_extra() -> None:
    """Without Ray the message says what to install."""
    with pytest.raises(ResourceError, match="Ray is not installed") as caught:
        OnRay("auto")
    assert caught.value.hint == install("cluster")
