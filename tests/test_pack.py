"""A lane's bits depend on nothing but itself."""

from __future__ import annotations

import hashlib
import itertools
import time
from typing import Any

import numpy as np
import pytest

from fmtune.errors import UsageError
from fmtune.fm.arena import ARENAS
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Channels, Progress
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS
from fmtune.fm.model import Model
from fmtune.fm.pack import Pack, score
from fmtune.kernels.rules import RULES
from fmtune.rows import SparseRows, concatenate
from fmtune.tune.driver import Driver, Job, Outcome
from tests import fm_reference as reference

LAYOUTS = tuple(ARENAS)
BASE = Hyperparameters(
    predictor_type="binary_classifier", mini_batch_size=64, epochs=3, bias_lr=0.05, linear_lr=0.05, factors_lr=0.05,
    factors_init_sigma=0.1,
)  # fmt: skip
MIXED = [BASE.replace(num_factors=k, seed=s, factors_lr=r) for s, (k, r) in enumerate(
    [(7, 0.05), (0, 0.05), (16, 0.2), (1, 0.01), (8, 0.05), (33, 0.1)])]  # fmt: skip


def _digest(model: Model) -> str:
    return hashlib.sha256(
        np.float32(model.bias).tobytes() + model.linear.tobytes() + model.factors.tobytes()
    ).hexdigest()


def _alone(feed: Feed, h: Hyperparameters, layout: str) -> str:
    pack = Pack(feed, Recipe.of(h, layout))
    (lane,) = pack.change(enter=[h])
    for _ in range(h.epochs):
        pack.epoch()
    return _digest(pack.model(lane))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lazy", [True, False])
def test_a_lane_is_the_same_in_any_company(layout: str, rule: str, lazy: bool) -> None:
    """Alone, among lanes of other widths, and at any offset, a lane's model is the same byte for byte."""
    feed = Feed(reference.rows(500, 60, 8))
    lanes = [h.replace(optimizer=rule, lazy=lazy, factors_l1=0.001) for h in MIXED]
    alone = [_alone(feed, h, layout) for h in lanes]
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4], [4, 4, 0, 2]):
        pack = Pack(feed, Recipe.of(lanes[0], layout))
        places = pack.change(enter=[lanes[i] for i in order])
        for _ in range(3):
            pack.epoch()
        assert [_digest(pack.model(lane)) for lane in places] == [alone[i] for i in order]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lanes_may_enter_and_leave_between_epochs(layout: str) -> None:
    """Whoever leaves, and whenever a lane enters, it trains as it would alone."""
    feed = Feed(reference.rows(500, 60, 8))
    alone = [_alone(feed, h, layout) for h in MIXED]
    pack = Pack(feed, Recipe.of(BASE, layout))
    a, b, c = pack.change(enter=MIXED[:3])
    pack.epoch()
    (d,) = pack.change(leave=[b], enter=[MIXED[3]])
    pack.epoch()
    pack.epoch()
    assert [_digest(pack.model(lane)) for lane in (a, c)] == [alone[0], alone[2]]
    pack.change(leave=[a])
    pack.epoch()
    assert _digest(pack.model(d)) == alone[3]


class _List:
    """A source that hands out a list of configurations and keeps what came of them."""

    def __init__(self, configurations: list[Hyperparameters]) -> None:
        self._todo = [Job(i, (h,), Progress("minimize"), h.epochs) for i, h in enumerate(configurations)]
        self.ended: dict[int, Outcome] = {}

    def next(self) -> Job | None:
        return self._todo.pop(0) if self._todo else None

    def pause(self) -> None: ...

    def report(self, job: Job, epoch: int, value: float) -> bool:
        return False

    def finish(self, job: Job, outcome: Outcome) -> None:
        self.ended[job.number] = outcome

    def give_back(self, job: Job) -> None:
        raise AssertionError("nothing was stopped")

    def tick(self, row_lanes: float, seconds: float) -> None: ...


@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_and_lanes_change_nothing(layout: str) -> None:
    """One thread or two, one lane or many at once: every trial's curve is the same to the last bit."""
    channels = Channels(reference.rows(500, 60, 8), reference.rows(200, 60, 8, seed=1))
    trials = [h.replace(seed=s) for s in range(3) for h in MIXED]
    curves = []
    for threads, lanes in ((1, 1), (1, 5), (2, 7), (2, 18)):
        source = _List(trials)
        driver = Driver(
            source, channels, layout, "binary_classification_cross_entropy", lanes=lanes, threads=threads
        )  # fmt: skip
        assert driver.run()
        curves.append([source.ended[i].curve for i in range(len(trials))])
    assert curves[0] == curves[1] == curves[2] == curves[3]


def test_what_ends_the_driver_ends_the_epochs_that_run() -> None:
    """Ctrl-C where one pack's trial ends: the other pack's epoch, of half a minute, is given up."""
    channels, asks = Channels(reference.rows(50, 6, 3), reference.rows(50, 6, 3)), itertools.count()
    back: list[int] = []

    class Interrupts(_List):
        def finish(self, job: Job, outcome: Outcome) -> None:
            raise KeyboardInterrupt

        def give_back(self, job: Job) -> None:
            back.append(job.number)

    class Slow(Pack):
        def epoch(self, stop: Any = None, record: bool = False) -> Any:
            if self.lanes[0].hyperparameters.seed:
                while not stop() and next(asks) < 600:
                    time.sleep(0.05)
            return super().epoch(stop, record)

    source = Interrupts([BASE.replace(epochs=1), BASE.replace(epochs=1, seed=1)])
    driver = Driver(
        source, channels, "sparse", "binary_classification_cross_entropy", lanes=2, threads=2, make=Slow.of
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    assert next(asks) < 600 and back == [0, 1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("size", "lazy"), [(1, True), (50, True), (50, False)])
def test_features_numbered_by_frequency_change_no_bit(rule: str, size: int, lazy: bool) -> None:
    """Where features lie in memory is seen neither in scores nor in models, nor in a model that is given."""
    data, test = reference.rows(300, 60, 8), reference.rows(100, 60, 8, seed=1)
    groups = Groups.of({"a": 0, "b": {"first": 9, "decay": 30}})
    lanes, found = [h.replace(optimizer=rule, mini_batch_size=size, lazy=lazy) for h in MIXED[:3]], []
    for many in (None, 1):
        feed = Feed(data, groups=groups, many=many)
        pack = Pack(feed, Recipe.of(lanes[0], "sparse"))
        places = pack.change(enter=lanes)
        pack.epoch()
        pack.change(leave=places[:1])
        pack.load(places[1], pack.model(places[1]))
        pack.epoch()
        found.append([pack.score(test).tobytes(), *(_digest(pack.model(lane)) for lane in places[1:])])
        assert (feed.numbering(pack.recipe) is None) == (many is None)
    assert found[0] == found[1]


def test_layouts_agree() -> None:
    """Sparse and dense give the same model to 2e-5 after three epochs, and the same log loss to 1e-6."""
    data, test = reference.rows(500, 60, 8), reference.rows(300, 60, 8, seed=1)
    h = BASE.replace(num_factors=8)
    models = []
    for layout in LAYOUTS:
        pack = Pack(Feed(data), Recipe.of(h, layout))
        (lane,) = pack.change(enter=[h])
        for _ in range(3):
            pack.epoch()
        models.append(pack.model(lane))
    np.testing.assert_allclose(models[0].factors, models[1].factors, atol=2e-5)
    loss = METRICS["binary_classification_cross_entropy"].compute
    first, second = (loss(score(m, test), np.asarray(test.labels)) for m in models)
    assert abs(first - second) < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_do_not_depend_on_the_block(layout: str) -> None:
    """Rows scored in blocks of any size, or alone, have the same bits."""
    data = reference.rows(300, 60, 8)
    data = data.to_dense() if layout == "dense" else data
    rng = np.random.default_rng(0)
    model = Model("regressor", 0.1, rng.normal(size=60).astype(np.float32), rng.normal(size=(60, 9)).astype(np.float32))
    whole = score(model, data)
    np.testing.assert_array_equal(whole, score(model, data, block=7))


def test_a_shuffled_epoch_is_its_own_order() -> None:
    """``shuffle: epoch`` gives another order each epoch and the same one again for the same seed."""
    data = reference.rows(200, 20, 4)
    h = BASE.replace(shuffle="epoch")
    feed, recipe = Feed(data), Recipe.of(h, "sparse")
    first, second = feed.batches(recipe, 0), feed.batches(recipe, 1)
    assert not np.array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.indices, Feed(data).batches(recipe, 0).indices)


def test_a_pack_refuses_what_does_not_share_its_pass() -> None:
    """A lane of another mini_batch_size, or a late lane under ``shuffle: epoch``, is refused."""
    feed = Feed(reference.rows(100, 20, 4))
    pack = Pack(feed, Recipe.of(BASE, "sparse"))
    with pytest.raises(UsageError, match="cannot share a pack"):
        pack.change(enter=[BASE.replace(mini_batch_size=10)])
    h = BASE.replace(shuffle="epoch")
    pack = Pack(feed, Recipe.of(h, "sparse"))
    pack.change(enter=[h])
    pack.epoch()
    with pytest.raises(UsageError, match="starts together"):
        pack.change(enter=[h])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_fills_the_last_batch(layout: str) -> None:
    """With ``pad_last_batch`` a short last mini-batch trains as if rows of zeros with label 0 stood in the file."""
    data = reference.rows(150, 20, 4)
    h = BASE.replace(shuffle="none", pad_last_batch=True)
    nothing = np.zeros(0, np.int32)
    zeros = SparseRows(np.zeros(43, np.int64), nothing, nothing.astype(np.float32), np.zeros(42, np.float32), 20)
    longer = concatenate([data, zeros])
    assert _alone(Feed(data), h, layout) == _alone(Feed(longer), h.replace(pad_last_batch=False), layout)
    assert _alone(Feed(data), h, layout) != _alone(Feed(data), h.replace(pad_last_batch=False), layout)
