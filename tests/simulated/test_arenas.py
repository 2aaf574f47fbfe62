"""A pack on the card against the same pack on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import cuda

from fmtune.fm import cuda_arena
from fmtune.fm.cuda_product import Aside, Simulated
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import Lane, Pack
from fmtune.kernels import cuda_dense, cuda_parts, cuda_sparse
from fmtune.kernels.rules import RULES
from fmtune.rows import SparseRows
from tests import fm_reference as reference

LAYOUTS = tuple(cuda_arena.CUDA_ARENAS)
BASE = Hyperparameters(
    predictor_type="binary_classifier", num_factors=5, mini_batch_size=9, bias_lr=0.02, linear_lr=0.02,
    factors_lr=0.02, factors_init_sigma=0.1, clip_gradient=0.5,
)  # fmt: skip
RAGGED = [BASE, BASE.replace(num_factors=0, seed=1), BASE.replace(num_factors=10, seed=2, factors_lr=0.1)]
DATA = reference.rows(20, 7, 3)


def _packs(data: SparseRows, h: Hyperparameters, layout: str) -> list[Pack]:
    return [Pack(Feed(data), Recipe.of(h, layout, device)) for device in ("cpu", "gpu")]


def _same(packs: list[Pack], lanes: list[list[Lane]]) -> None:
    for cpu, gpu in zip(*lanes, strict=True):
        a, b = packs[0].model(cpu), packs[1].model(gpu)
        np.testing.assert_allclose(b.bias, a.bias, atol=1e-5)
        np.testing.assert_allclose(b.linear, a.linear, atol=1e-5)
        np.testing.assert_allclose(b.factors, a.factors, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rule", "lazy"), [
    *((rule, True) for rule, row in RULES.items() if not row.rowwise), ("adam", False), ("ftrl", False),
])  # fmt: skip
def test_a_pass_equals_the_cpu_room(layout: str, rule: str, lazy: bool) -> None:
    """Every rule, and two not lazy, of lanes of unequal width: models and the scores of the pass agree to 1e-5."""
    own = {"linear_l1": 0.01, "factors_l1": 0.01} if rule == "ftrl" else {}
    lanes = [h.replace(optimizer=rule, lazy=lazy, **own) for h in RAGGED]
    lanes = lanes if lazy else lanes[1:]
    packs = _packs(DATA, lanes[0], layout)
    placed = [pack.change(enter=lanes) for pack in packs]
    scores = [pack.epoch(record=True) for pack in packs]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-5)
    _same(packs, placed)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 20])
def test_mini_batches_of_any_size(layout: str, size: int) -> None:
    """One row a mini-batch, or all: a lone regressor and its scores of other rows agree with the CPU to 1e-5.

    In one of all rows some features are several pieces, and some are one.
    """
    h = BASE.replace(predictor_type="regressor", mini_batch_size=size, optimizer="sgd")
    test = reference.rows(5, 7, 3, seed=1, binary=False)
    data = reference.rows(20, 7, 3, binary=False)
    often = np.bincount(data.indices) > cuda_sparse.PIECE
    assert often.any() and not often.all()
    packs = _packs(data, h, layout)
    placed = [pack.change(enter=[h]) for pack in packs]
    for pack in packs:
        pack.epoch()
    rows = test if layout == "sparse" else test.to_dense()
    np.testing.assert_allclose(packs[1].score(rows), packs[0].score(rows), atol=1e-5)
    _same(packs, placed)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_of_rows_count(layout: str) -> None:
    """A row's weight multiplies its slope, as on the CPU."""
    weights = np.linspace(0, 2, DATA.n).astype(np.float32)
    data = SparseRows(DATA.indptr, DATA.indices, DATA.values, DATA.labels, 7, weights)
    packs = _packs(data, BASE, layout)
    placed = [pack.change(enter=[BASE]) for pack in packs]
    for pack in packs:
        pack.epoch()
    _same(packs, placed)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_groups_have_decays_of_their_own(layout: str) -> None:
    """A group's factor multiplies the decay of its features, as on the CPU."""
    h, groups = BASE.replace(linear_wd=0.1, factors_wd=0.1), Groups.of({"a": 0, "b": {"first": 4, "decay": 20}})
    packs = [Pack(Feed(DATA, groups=groups), Recipe.of(h, layout, device)) for device in ("cpu", "gpu")]
    placed = [pack.change(enter=[h]) for pack in packs]
    for pack in packs:
        pack.epoch()
    _same(packs, placed)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rates_that_move_and_parameters_that_are_given(layout: str) -> None:
    """A lane takes new learning rates and a model's parameters between passes, as on the CPU."""
    packs = _packs(DATA, BASE, layout)
    placed = [pack.change(enter=[BASE]) for pack in packs]
    rng = np.random.default_rng(1)
    given = Model("binary_classifier", 0.1, *(rng.normal(size=n).astype(np.float32) for n in (7, (7, 5))))
    for pack, (lane,) in zip(packs, placed, strict=True):
        pack.epoch()
        pack.load(lane, given)
        pack._arena.rescale(0, np.array([0.1, 0.2, 0.3], np.float32))
        pack.epoch()
    _same(packs, placed)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lanes_enter_and_leave(layout: str) -> None:
    """A lane's bits on the card do not depend on who else is there, or since when."""
    lanes, alone = [h.replace(mini_batch_size=20) for h in RAGGED], []
    for h in (lanes[0], lanes[2]):
        pack = Pack(Feed(DATA), Recipe.of(h, layout, "gpu"))
        (lane,) = pack.change(enter=[h])
        pack.epoch()
        pack.epoch()
        alone.append(pack.model(lane))
    pack = Pack(Feed(DATA), Recipe.of(lanes[0], layout, "gpu"))
    a, b = pack.change(enter=[lanes[1], lanes[0]])
    pack.epoch()
    (c,) = pack.change(leave=[a], enter=[lanes[2]])
    pack.epoch()
    _equal(pack.model(b), alone[0])
    pack.epoch()
    _equal(pack.model(c), alone[1])


def _equal(one: Model, other: Model) -> None:
    assert one.bias == other.bias
    np.testing.assert_array_equal(one.linear, other.linear)
    np.testing.assert_array_equal(one.factors, other.factors)


def test_one_launch_or_four_a_mini_batch_is_the_same() -> None:
    """The kernel of all phases and the kernels of one phase each give the same bytes."""
    batches = Feed(DATA).batches(Recipe.of(BASE, "sparse", "gpu"), 0)
    found = []
    for together in (0, 2**21):
        arena = cuda_arena.CudaSparseArena(7, "adam", "binary_classifier", lazy=False)
        arena.together = together
        arena.place([], RAGGED)
        for first, last in ((0, 2), (2, 3)):
            arena.learn(batches, first, last, np.empty((3, 0), np.float32))
        found.append([arena.parameters(lane) for lane in range(3)])
    for one, other in zip(*found, strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_array_equal(x, y)


def test_one_product_for_all_lanes_in_tf32() -> None:
    """Not exact: numbers are rounded to 11 bits before they are multiplied, and the model is near the exact one."""
    batches = Feed(DATA).batches(Recipe.of(BASE, "dense", "gpu"), 0)
    found = []
    for exact in (True, False):
        arena = cuda_arena.CudaDenseArena(7, "adagrad", "binary_classifier", exact=exact)
        arena.place([], RAGGED)
        arena.learn(batches, 0, 3, np.empty((3, 0), np.float32))
        found.append(arena.parameters(2)[2])
    assert 1e-6 < np.abs(found[0] - found[1]).max() < 2e-2


def test_kernels_round_to_tf32_as_the_host_does() -> None:
    """To eleven bits, ties away from zero; rows are rounded by the host, and all else by the kernels."""

    @cuda.jit
    def kernel(x):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i < len(x):
            x[i] = cuda_parts.rounded(x[i])

    tie, unit = 1.0 + 2.0**-11, 2.0**-10
    x = np.array([tie, -tie, tie - 2.0**-23, 1.0 + 2.5 * unit, 1 / 3, -1e-30, 3e30, 0.0], np.float32)
    out = cuda.to_device(x)
    kernel[1, 8](out)
    np.testing.assert_array_equal(out.copy_to_host(), cuda_dense.tf32(x))
    np.testing.assert_array_equal(cuda_dense.tf32(x)[:4], [1.0 + unit, -1.0 - unit, 1.0, 1.0 + 3 * unit])
    assert (cuda_dense.tf32(x)[4:7] != x[4:7]).all()


@pytest.mark.parametrize("rule", [rule for rule, row in RULES.items() if not row.rowwise])
def test_many_lanes_are_multiplied_otherwise(rule: str) -> None:
    """Products of squares for many lanes, and the kernels for a few, give the same models.

    To 2e-4: a number that is rounded to 11 bits may fall to either side.
    """
    lanes = [h.replace(optimizer=rule) for h in (*RAGGED, BASE.replace(num_factors=4, seed=3))]
    batches = Feed(DATA).batches(Recipe.of(lanes[0], "dense", "gpu"), 0)
    found = []
    for many in (4, 5):
        arena = cuda_arena.CudaDenseArena(7, rule, "binary_classifier", exact=False)
        arena.many = many
        arena.place([], lanes)
        arena.learn(batches, 0, 3, np.empty((4, 0), np.float32))
        found.append([arena.parameters(lane) for lane in range(4)])
    for one, other in zip(*found, strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_allclose(x, y, atol=2e-4)


class Late(Aside):
    """Does nothing of its products before somebody waits for them."""

    def __init__(self) -> None:
        super().__init__()
        own, self.left = self.product, deque[Callable[[], None]]()
        self.product = lambda *args, **how: self.left.append(lambda: own(*args, **how))

    def meet(self, stream: Any) -> None:
        """Do what is left."""
        while self.left:
            self.left.popleft()()


def test_products_that_are_queued_aside_are_waited_for() -> None:
    """They may end as late as the stream that waits for them: models have the same bytes, and nothing is left over."""
    batches = Feed(DATA).batches(Recipe.of(BASE, "dense", "gpu"), 0)
    found, late = [], Late()
    for aside in (Aside(), late):
        arena = cuda_arena.CudaDenseArena(7, "adagrad", "binary_classifier", exact=False)
        arena.many, arena.aside = 3, aside
        arena.place([], RAGGED)
        arena.learn(batches, 0, 3, np.empty((3, 0), np.float32))
        found.append([arena.parameters(lane) for lane in range(3)])
    assert not late.left
    for one, other in zip(*found, strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_array_equal(x, y)


def test_products_take_parts_of_matrices_turned_or_not() -> None:
    """``out = a b`` of parts that begin anywhere, each transposed first where that is said; the rest stays."""
    rng = np.random.default_rng(0)
    a, b = rng.random((4, 5)), rng.random((6, 5))
    out = cuda.to_device(np.zeros((5, 5)))
    parts = [cuda_dense.Part(cuda.to_device(x), 1, 3, 2, 2) for x in (a, b)]
    product = Simulated()
    product(*parts, cuda_dense.Part(out, 1, 3, 1, 3), turn_b=True)
    wanted = np.zeros((5, 5))
    wanted[1:4, 1:4] = a[1:4, 2:4] @ b[1:4, 2:4].T
    np.testing.assert_allclose(out.copy_to_host(), wanted)
    product(*parts, cuda_dense.Part(out, 0, 2, 0, 2), turn_a=True)
    np.testing.assert_allclose(out.copy_to_host()[:2, :2], a[1:4, 2:4].T @ b[1:4, 2:4])


def test_parameters_go_in_and_out() -> None:
    """A model that is only scored has the CPU's scores, and comes back as it went in."""
    rng = np.random.default_rng(0)
    model = Model("regressor", 0.5, rng.normal(size=7).astype(np.float32), rng.normal(size=(7, 3)).astype(np.float32))
    for layout, kind in cuda_arena.CUDA_ARENAS.items():
        arena = kind(7, None, "regressor")
        arena.place([], [model])
        bias, linear, factors = arena.parameters(0)
        assert bias == 0.5
        np.testing.assert_array_equal(linear, model.linear)
        np.testing.assert_array_equal(factors, model.factors)
        rows = DATA if layout == "sparse" else DATA.to_dense()
        wanted = [
            reference.raw_score(0.5, linear.astype(float), factors.astype(float), x)
            for x in DATA.to_dense().matrix.astype(float)
        ]  # fmt: skip
        np.testing.assert_allclose(arena.score(rows)[0], wanted, rtol=1e-5, atol=1e-5)
