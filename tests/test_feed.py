"""The feed: the same bits however many mini-batches are made at a time, and whatever is kept of them."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import fm_reference as reference
import numpy as np
import pytest

from fmtune.data.cache import Cache
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.order import BLOCKS, BUFFER, Order
from fmtune.fm.pack import Pack
from fmtune.kernels import tiles
from fmtune.rows import Rows

H = Hyperparameters(num_factors=3, mini_batch_size=7, factors_lr=0.1)


def trained(feed: Feed, h: Hyperparameters, layout: str, rows: Rows) -> tuple[bytes, ...]:
    """Return the bits of two epochs: scores on the way, parameters, and scores of rows."""
    pack = Pack(feed, Recipe.of(h, layout))
    (lane,) = pack.change(enter=[h])
    scores = [pack.epoch(record=True) for _ in range(2)]
    model = pack.model(lane)
    return (*(s.tobytes() for s in scores), model.factors.tobytes(), model.linear.tobytes(), pack.score(rows).tobytes())


@pytest.mark.parametrize("layout", ["sparse", "dense"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"shuffle": "none"}, {"shuffle": "epoch"}, {"pad_last_batch": True}, {"mini_batch_size": 1}, {"lazy": False}],
)
def test_stretches_and_memory_change_no_bit(layout: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """One stretch or many, kept or made anew, from memory or from a map: the same model and scores."""
    data, h = reference.rows(200, 40, 5), H.replace(**changes)
    rows = data.to_dense() if layout == "dense" else data.to_sparse()
    weighted = replace(rows, weights=np.linspace(0, 2, rows.n, dtype=np.float32))
    file = tmp_path / "x"
    file.touch()
    mapped = Cache({}, worth=0).rows([file], {}, lambda: [weighted.slice(0, 50), weighted.slice(50, 200)])
    assert mapped is not None and mapped.mapped and not mapped.owned().mapped
    known = trained(Feed(weighted), h, layout, rows)
    for feed in (Feed(weighted, stretch=64), Feed(weighted, memory=0, stretch=300), Feed(mapped, memory=0, stretch=64)):
        assert trained(feed, h, layout, mapped) == known


def test_what_fits_is_kept_and_the_rest_made_anew() -> None:
    """Within its bytes; orders that were not used lately make room for new ones."""
    data = reference.rows(200, 40, 5)
    recipe, other = Recipe.of(H, "sparse"), Recipe.of(H.replace(mini_batch_size=9), "sparse")

    def twice(feed: Feed, recipe: Recipe) -> list[bool]:
        return [a is b for a, b in zip(feed.stretches(recipe, 0), feed.stretches(recipe, 1), strict=True)]

    assert all(twice(Feed(data, stretch=64), recipe)) and not any(twice(Feed(data, memory=0, stretch=64), recipe))
    whole = Feed(data, stretch=64)
    need = sum(array.nbytes for stretch in whole.stretches(recipe, 0) for array in stretch)
    assert 0.5 < whole.need(recipe) / need < 2
    assert 0 < sum(twice(Feed(data, memory=need / 2, stretch=64), recipe)) < len(list(whole.stretches(recipe, 0)))
    card = recipe._replace(device="gpu")
    assert len(list(whole.stretches(card, 0))) == 1 < len(list(whole.stretches(recipe, 0)))
    anew = recipe._replace(shuffle="epoch")
    orders = [list(whole.stretches(anew, epoch)) for epoch in range(16)]
    assert all(a is b for epoch in range(16) for a, b in zip(orders[epoch], whole.stretches(anew, epoch), strict=True))
    tight = Feed(data, memory=1.2 * need, stretch=64)
    assert all(twice(tight, recipe)) and all(twice(tight, other)) and all(twice(tight, recipe))


def test_what_a_pack_trains_on_is_not_let_go_of() -> None:
    """Its bytes would stay and be counted no more; others make room again when nobody holds them."""
    data, made = reference.rows(200, 40, 5).to_dense(), list[Any]()
    recipes = [Recipe.of(H.replace(mini_batch_size=size), "dense") for size in (7, 9, 11)]
    need = sum(array.nbytes for stretch in Feed(data).stretches(recipes[0], 0) for array in stretch)
    feed = Feed(data, memory=1.2 * need, stretch=400)
    running = [feed.stretches(recipe, 0) for recipe in recipes]
    for stretches in running:
        made += [weakref.ref(next(stretches).matrix) for _ in range(15)]
    gc.collect()
    alive = [matrix().nbytes for matrix in made if matrix() is not None]
    # Beside what is kept each has the stretch that it trains on.
    assert 0.7 * feed.memory < sum(alive) < feed.memory + 3 * max(alive) and len(alive) < 35
    del running, stretches
    assert all(a is b for a, b in zip(*(list(feed.stretches(recipes[2], 0)) for _ in range(2)), strict=True))


def test_scratch_is_shared_and_counted() -> None:
    """A transpose takes a number a feature, one for all epochs' orders, of the memory that mini-batches may take."""
    data, many = reference.rows(50, 40, 5).widen(100_000), Recipe.of(H.replace(shuffle="epoch"), "sparse")
    tracemalloc.start()
    feed = Feed(data, memory=1e6)
    for epoch in range(8):
        list(feed.stretches(many, epoch))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 8e5 < kept < 1e6 and 8e5 < feed.need(many) < 9e5
    tight = Feed(data, memory=8e5)
    assert [a is b for a, b in zip(tight.stretches(many, 0), tight.stretches(many, 0), strict=True)] == [False]


@pytest.mark.parametrize(("size", "pad"), [(1000, False), (1000, True), (33, False), (16, True), (7, False), (7, True)])
@pytest.mark.parametrize("exact", [True, False])
def test_what_dense_mini_batches_take_is_known_before(exact: bool, size: int, pad: bool) -> None:
    """With rows of padding, and with rounded ones, which lie there twice and in whole vectors."""
    if not (exact or tiles.halves()):
        pytest.skip("this CPU has no bfloat16 (avx512_bf16)")
    feed = Feed(reference.rows(200, 40, 5).to_dense())
    recipe = Recipe.of(H.replace(mini_batch_size=size, pad_last_batch=pad), "dense")._replace(exact=exact)
    taken = sum(array.nbytes for array in feed.batches(recipe, 0))
    assert taken <= feed.need(recipe) <= 1.1 * taken


def test_labels_come_in_the_order_of_training() -> None:
    """With those of the padding."""
    feed, recipe = Feed(reference.rows(100, 20, 4)), Recipe.of(H.replace(pad_last_batch=True), "sparse")
    assert feed.labels(recipe, 0).tolist() == feed.batches(recipe, 0).labels.tolist()
    assert len(feed.labels(recipe, 0)) == 105


@pytest.mark.parametrize("seed", [(0, 0), (3, 1)])
@pytest.mark.parametrize("n", [1, 1000, 70_000, 100_003])
def test_an_order_is_a_permutation_however_it_is_asked_for(n: int, seed: tuple[int, int]) -> None:
    """Of 200 entries a row: the larger ones go by buffers of short blocks."""
    order = Order(n, 200 * n, seed)
    whole = order.rows(0, n)
    assert np.sort(whole).tolist() == list(range(n))
    pieces = [order.rows(at, min(n, at + 30_011)) for at in range(0, n, 30_011)]
    assert np.concatenate(pieces).tolist() == whole.tolist()
    assert Order(n, 200 * n, None).rows(n // 2, n).tolist() == list(range(n // 2, n))
    buffer = BUFFER // 200 // BLOCKS * BLOCKS
    if n > buffer:
        block = buffer // BLOCKS
        assert len(np.unique(whole[:buffer] // block)) == BLOCKS
        assert Order(n, 200 * n, (9, 9)).rows(0, n).tolist() != whole.tolist()
    else:
        assert whole.tolist() == np.random.default_rng(seed).permutation(n).tolist()


LIMITED = """
import resource, sys
import numpy as np, psutil
from pathlib import Path
from fmtune.data.cache import Cache
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.pack import Pack
from fmtune.rows import SparseRows

def block(i, n=20_000, k=40):
    random = np.random.default_rng(i)
    keys = (np.arange(k) * 100 + random.integers(0, 100, (n, k))).astype(np.int32).ravel()
    values, labels = np.ones(n * k, np.float32), random.random(n, np.float32)
    return SparseRows(np.arange(0, n * k + 1, k), keys, values, labels, 4000)

h = Hyperparameters(num_factors=1, mini_batch_size=1000)
def fit(feed):
    pack = Pack(feed, Recipe.of(h, "sparse"))
    (lane,) = pack.change(enter=[h])
    pack.epoch()
    return pack.model(lane).factors.tobytes()
fit(Feed(block(0), memory=0, stretch=1 << 17))
file = Path(sys.argv[1]); file.touch()
limit = psutil.Process().memory_info().data + (64 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
rows = Cache({}, worth=0).rows([file], {}, lambda: map(block, range(15)))
feed = Feed(rows, stretch=1 << 17)
streamed = fit(feed)
print(rows.nbytes >> 20, feed.need(Recipe.of(h, "sparse")) > feed.memory)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit memory so")
def test_data_larger_than_memory_are_trained(tmp_path: Path) -> None:
    """94 MiB of rows are written, mapped and trained by a process that may take 64 MiB more than it has."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == ["94", "True"], done.stderr[-2000:]


@pytest.mark.parametrize("cpu", [frozenset({"avx2", "avx512f"}), frozenset({"avx512f", "avx512bf16"})])
def test_exact_parts_packs_of_dense_rows(cpu):
    """``exact: false`` is a recipe of its own for dense rows, on a CPU only with bfloat16; all else is exact."""
    h, plain = Hyperparameters(exact=False), "avx512bf16" not in cpu
    found = {(d, t): Recipe.of(h, t, d, cpu).exact for d in ("cpu", "gpu") for t in ("sparse", "dense")}
    assert found == {("cpu", "sparse"): True, ("cpu", "dense"): plain, ("gpu", "sparse"): True, ("gpu", "dense"): False}
    assert not plain or Recipe.of(h, "dense", cpu=cpu) == Recipe.of(Hyperparameters(), "dense")
    assert Recipe.of(h.replace(mini_batch_size=7), "dense", cpu=cpu).exact
