"""The memory of a study: how it is written, how it is shared out, and that packs stay within it."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import fm_reference as reference
import pytest
from test_pack import _List

import fmtune
from fmtune.errors import ResourceError, UsageError
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Channels
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.pack import Lane, Pack, bytes_of
from fmtune.tune import spec as specs
from fmtune.tune.amount import amount, size
from fmtune.tune.budget import budget, largest
from fmtune.tune.collect import collect
from fmtune.tune.confirm import confirm
from fmtune.tune.driver import Driver
from fmtune.tune.replay import replay
from tests.study_fixtures import STUDY, write_study

METRIC = "binary_classification_cross_entropy"
MIB = 2**20

# Lanes of 1.7 to 3.2 MB each, of which four train at once.
WIDE = (
    STUDY.replace("holdout: holdout.npz", "feature_dim: 16000").replace("1..12", "[8, 16]")
    .replace("epochs: 4", "epochs: 2").replace("matrix: {layout: [sparse, dense]}\n", "")
    .replace("n_trials: 24", "n_trials: 6")
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "number"),
    [("4GiB", 2**32), ("500MB", 5e8), ("1.5 GiB", 1.5 * 2**30), ("2000kB", 2e6), ("2000KB", 2e6), (2**21, 2**21)],
)
def test_an_amount_has_units(text: object, number: float) -> None:
    """Of a thousand or of 1024, or a number of bytes."""
    assert amount(text) == number


@pytest.mark.parametrize("text", ["4", "4G", "4 gigs", "-1GiB", "1000kiB", True, None, [1], float("nan"), 10**400])
def test_what_is_no_amount_is_refused(text: object) -> None:
    """Without a unit, below a mebibyte, or no number at all; with the next step."""
    with pytest.raises(UsageError, match="memory must be ") as caught:
        amount(text)
    assert caught.value.hint


def test_an_amount_is_said_in_a_unit_that_fits_it() -> None:
    """GiB, and MiB below one."""
    assert (size(1.5 * 2**30), size(2**29)) == ("1.5 GiB", "512.0 MiB")


def test_packs_take_what_they_need_and_mini_batches_the_rest() -> None:
    """All lanes where they fit twice, else what mini-batches leave, else two thirds; a trial's seeds above all."""
    feed = Feed(reference.rows(600, 20_000, 6), memory=1e12)
    text = STUDY.replace("1..12", "1..8").replace("pack: 4", "pack: 4\nmemory: ")

    def shared(megabytes: float, more: str = "") -> tuple[float, float]:
        spec = specs.parse(text.replace("memory: ", f"memory: {megabytes}MB") + more)
        found = budget(spec, feed, lanes=4)
        assert found.lane == bytes_of(largest(spec), 20_000, 600) == lane
        assert 2 * found.lanes + found.batches <= megabytes * 1e6
        return found.lanes / lane, found.batches

    lane = bytes_of(Hyperparameters(num_factors=8, mini_batch_size=50), 20_000, 600)
    dense = feed.need(Recipe.of(Hyperparameters(), "dense"))
    assert 2 * lane < 5e6 < 48e6 < dense < 49e6
    assert shared(200) == (4, 200e6 - 8 * lane)
    assert shared(60) == pytest.approx((4, 60e6 - 8 * lane))
    assert shared(12) == pytest.approx((8e6 / 2 / lane, 4e6))
    assert shared(5) == pytest.approx((1, 5e6 - 2 * lane))
    assert shared(7, "seeds: 3\n") == pytest.approx((7e6 / 2 / lane, 0))
    small = budget(specs.parse(text.replace("memory: ", "memory: 12MB").replace(", dense", "")), feed, lanes=4)
    assert 2 * small.lanes == 12e6 - feed.need(Recipe.of(Hyperparameters(), "sparse"))


def test_without_a_budget_it_follows_from_what_is_free() -> None:
    """Half of that for lanes; mini-batches keep their share; a budget beyond it changes nothing."""
    feed = Feed(reference.rows(100, 50, 6), memory=1e6)
    for text in (STUDY, STUDY + "memory: 1000TiB\n"):
        found = budget(specs.parse(text), feed, lanes=4)
        assert found.batches == 1e6 and found.at_once(4, 1) == 4
    assert budget(specs.parse(STUDY), feed, lanes=4).lanes > 1e7


def test_whole_trials_train_at_once() -> None:
    """Those of the largest that fit, all lanes at most, and none where one does not fit."""
    feed = Feed(reference.rows(100, 20_000, 6))
    found = budget(specs.parse(STUDY), feed, lanes=4)
    assert [found._replace(lanes=n * found.lane).at_once(6, 2) for n in (1.9, 2, 3, 5.9, 7)] == [0, 2, 2, 4, 6]


class _Watched(Pack):
    """A pack that tells how much all packs hold: each as many bytes as its lanes ever took."""

    alive: weakref.WeakSet[_Watched]
    most: list[int]
    held: int = 0

    def change(self, leave: Sequence[Lane] = (), enter: Sequence[Hyperparameters] = ()) -> list[Lane]:
        found = super().change(leave, enter)
        self.alive.add(self)
        self.held = max(self.held, sum(bytes_of(lane.hyperparameters, 1000, 300) for lane in self.lanes))
        self.most.append(sum(pack.held for pack in self.alive))
        return found


@pytest.mark.parametrize("threads", [1, 2])
def test_packs_stay_within_their_memory(threads: int) -> None:
    """Jobs wait until there is room, and a pack's place counts as long as there is the pack."""
    channels = Channels(reference.rows(300, 1000, 8), reference.rows(100, 1000, 8, seed=1))
    base = Hyperparameters(predictor_type="binary_classifier", mini_batch_size=50)
    trials = [
        base.replace(num_factors=8 * (1 + i % 4), epochs=1 + i % 3, optimizer=("adam", "sgd")[i % 2]) for i in range(24)
    ]
    alive, most, curves = weakref.WeakSet[_Watched](), list[int](), []
    largest_ = max(bytes_of(h, 1000, 300) for h in trials)

    def make(feed: Feed, recipe: Recipe, threads: int) -> Pack:
        pack = _Watched(feed, recipe)
        pack.alive, pack.most = alive, most
        return pack

    for memory in (1e12, 2.5 * largest_, largest_):
        source = _List(trials)
        most.clear()
        driver = Driver(
            source, channels, "sparse", METRIC, lanes=8, threads=threads, memory=memory, make=make
        )  # fmt: skip
        assert driver.run() and max(most) <= memory
        curves.append([source.ended[i].curve for i in range(len(trials))])
    assert curves[0] == curves[1] == curves[2]


def test_what_follows_the_search_stays_within_the_memory_too(tmp_path: Path) -> None:
    """The winner's training, its file, its strongest features, the linear models, and a replay that keeps a model.

    The smallest memory that takes a lane, of the rule with the smallest; the rows and the program itself, not counted,
    take a few MiB here.
    """
    text = (
        STUDY.replace("holdout: holdout.npz", "feature_dim: 500000").replace("  num_factors: 1..12\n", "")
        .replace("  optimizer: [adam, adagrad]\n", "").replace("epochs: 4", "epochs: 1, optimizer: sgd")
        .replace("bias_lr", "num_factors: 15, bias_lr").replace("matrix: {layout: [sparse, dense]}\n", "")
        .replace("n_trials: 24", "n_trials: 2").replace("threads: 2", "threads: 1")
    )  # fmt: skip
    spec = specs.read(write_study(tmp_path, text))
    lane = bytes_of(largest(spec), 500_000, 600)
    spec = spec.within(2 * lane + MIB)
    peaks: dict[str, float] = {}
    stage = ["before"]

    def listen(event: dict[str, object]) -> None:
        if event["event"] in ("compiled", "cell", "doing", "winner"):
            peaks[stage[0]] = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            stage[0] = str(event.get("what", event["event"]))

    fmtune.run(spec, root=tmp_path / "before")  # loads what is loaded once
    tracemalloc.start()
    try:
        fmtune.run(spec, root=tmp_path, listener=listen)
        tracemalloc.reset_peak()
        result = replace(collect(spec, tmp_path), spec_text=spec.text + f"memory: {spec.memory}\n")
        assert replay(result, 0, root=tmp_path, out=tmp_path / "model.fm").model is not None
        peaks["replay"] = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(peaks) >= 6 and spec.memory is not None
    assert {name: peak for name, peak in peaks.items() if peak > spec.memory + 14 * MIB} == {}


def test_a_study_within_its_memory_finds_the_same(tmp_path: Path) -> None:
    """Trials, winner and finalists as without; what does not fit is refused with figures and a next step."""
    path = write_study(tmp_path, WIDE)
    found = []
    for i, memory in enumerate((None, "14MiB")):
        spec = specs.read(path)
        spec = spec if memory is None else spec.within(memory)
        fmtune.run(spec, root=tmp_path / str(i))
        result = collect(spec, tmp_path / str(i))
        assert result.best is not None
        found.append([(t.number, t.state, t.curve) for t in result.cells[0].trials])
    assert found[0] == found[1] and len(found[0]) == 6
    with pytest.raises(ResourceError, match=r"3 finalists under 9 seeds each need .*, and memory is 14\.0 MiB"):
        confirm(spec, tmp_path / "1", seeds=9)
    whole, within = (confirm(spec.within(of), tmp_path / str(i), seeds=2) for i, of in enumerate(("1TiB", "24MiB")))
    assert whole["scores"] == within["scores"]
    with pytest.raises(ResourceError, match=r"and 1\.0 MiB may be used") as caught:
        fmtune.run(specs.read(path).within("2MiB"), root=tmp_path / "2")
    assert caught.value.hint == "search a smaller num_factors, or raise memory, half of which is for copies"
    assert caught.value.exit_code == 5
