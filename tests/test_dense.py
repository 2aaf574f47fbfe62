"""Dense passes: tiles, and what ``exact: false`` does on a CPU that multiplies bfloat16."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fmtune.fm.arena import DenseArena
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import Pack, score
from fmtune.kernels import cpu_halves, cpu_product, tiles
from fmtune.rows import DenseRows

Float32 = NDArray[np.float32]

halves = pytest.mark.skipif(not tiles.halves(), reason="this CPU has no bfloat16 (avx512_bf16)")
# A plain step of length 1 without decay is the gradient.
STEP = Hyperparameters(
    optimizer="sgd", shuffle="none", linear_lr=1.0, factors_lr=1.0, bias_lr=1.0, linear_wd=0.0, factors_wd=0.0,
    bias_wd=0.0, factors_init_sigma=0.1,
)  # fmt: skip


def _rows(n: int, d: int) -> DenseRows:
    rng = np.random.default_rng(n + d)
    matrix = (rng.random((n, d)) * (rng.random((n, d)) < 0.3)).astype(np.float32)
    return DenseRows(matrix, (rng.random(n) < 0.5).astype(np.float32), d)


def _trained(rows: DenseRows, lanes: Sequence[Hyperparameters]) -> tuple[Float32, list[Model]]:
    """The scores of the rows by each lane and its model, after an epoch."""
    pack = Pack(Feed(rows), Recipe.of(lanes[0], "dense"))
    places = pack.change(enter=lanes)
    pack.epoch()
    return pack.score(rows), [pack.model(lane) for lane in places]


def _flat(model: Model) -> Float32:
    return np.concatenate([[np.float32(model.bias)], model.linear, model.factors.ravel()])


def _product(multiply: Callable[..., None], left: Float32, right: Float32, squared: bool = False) -> Float32:
    """The product of a panel, (terms, height), with columns, (columns, terms)."""
    (terms, height), columns = left.shape, len(right)
    out, more = np.zeros((columns, height), np.float32), (1,) if squared else ()
    left, vectors = np.ascontiguousarray(left).ravel(), height // tiles.WIDTH
    multiply(left, 0, height, right.ravel(), 0, terms, *more, terms, out.ravel(), 0, height, vectors, columns)
    return out


@pytest.mark.parametrize("squared", [False, True])
def test_sums_have_the_same_bits_in_every_tile(squared: bool) -> None:
    """A column of a product is the same byte for byte beside any others, and in panels of any height."""
    rng, terms, width = np.random.default_rng(0), 37, tiles.WIDTH
    left = rng.normal(size=(terms, tiles.VECTORS * width)).astype(np.float32)
    right = rng.normal(size=(19, terms)).astype(np.float32)
    multiply = cpu_product.multiply_squares if squared else cpu_product.multiply
    alone = [_product(multiply, left, right[c : c + 1], squared) for c in range(19)]
    for columns in range(1, 20):
        found = _product(multiply, left, right[:columns], squared)
        np.testing.assert_array_equal(found, np.concatenate(alone[:columns]))
        small = _product(multiply, left[:, width : 2 * width], right[:columns], squared)
        np.testing.assert_array_equal(small, found[:, width : 2 * width])
    wanted = right.astype(np.float64) @ left.astype(np.float64) ** (1 + squared)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@halves
def test_numbers_are_rounded_to_the_nearest_with_ties_to_even() -> None:
    """Pairs hold the upper halves of rounded numbers, the first one below; an odd run ends with 0."""
    numbers = np.random.default_rng(1).normal(size=(2, 32)).astype(np.float32)
    numbers[0, :4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, 255, 257  # ties: to 1, to 1 + 2**-6, exact, to 256
    for length in (31, 32):
        out = np.zeros((2, 16), np.int32)
        cpu_halves.halved(numbers.ravel(), 2, length, 32, out.ravel())
        words = numbers.view(np.uint32)
        wanted = ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)
        wanted[:, length:] = 0
        np.testing.assert_array_equal(out.view(np.uint16), wanted)
    assert (wanted[0, :4].astype(np.uint32) << 16).view(np.float32).tolist() == [1, 1 + 2.0**-6, 255, 256]


@halves
@pytest.mark.parametrize(("n", "d"), [(230, 40), (301, 33), (33, 7), (16, 20), (150, 2001)])
def test_rounded_gradients_are_near_the_exact_ones(n: int, d: int) -> None:
    """``exact: false`` gives other gradients than the exact pass, within 1 % of their length, for odd shapes too."""
    rows, kind = _rows(n, d), {"mini_batch_size": n, "predictor_type": "binary_classifier"}
    lanes = [STEP.replace(num_factors=k, seed=k, **kind) for k in (8, 0, 17, 64)]
    start = [np.float32(0.0) - _flat(m) for m in _trained(rows, [h.replace(rescale_grad=1e-30) for h in lanes])[1]]
    exact = _trained(rows, lanes)[1]
    rounded = _trained(rows, [h.replace(exact=False) for h in lanes])[1]
    for begin, one, other in zip(start, exact, rounded, strict=True):
        length = np.linalg.norm(begin + _flat(one))
        assert 0 < np.linalg.norm(_flat(one) - _flat(other)) < 1e-2 * length


@halves
@pytest.mark.parametrize("optimizer", ["adam", "rowwise_adagrad"])
def test_a_rounded_lane_is_the_same_again_and_in_any_company(optimizer: str) -> None:
    """With ``exact: false`` a lane's model is the same byte for byte in a second run, and alone."""
    rows = _rows(301, 61)
    h = STEP.replace(exact=False, optimizer=optimizer, mini_batch_size=75, factors_lr=0.02)
    lanes = [h.replace(num_factors=k, seed=k) for k in (8, 3, 17)]
    once, again = _trained(rows, lanes), _trained(rows, lanes)
    assert once[0].tobytes() == again[0].tobytes()
    for one, other, lane in zip(once[1], again[1], lanes, strict=True):
        (alone,) = _trained(rows, [lane])[1]
        assert _flat(one).tobytes() == _flat(other).tobytes() == _flat(alone).tobytes()


@halves
def test_a_rounded_pass_goes_on_where_it_stopped() -> None:
    """Mini-batches of 17 to 160 rows, also of several blocks, learned one by one or all at once: the same bytes."""
    for size in (17, 160):
        h = STEP.replace(exact=False, mini_batch_size=size, num_factors=9, factors_lr=0.02)
        batches = Feed(_rows(500, 37)).batches(Recipe.of(h, "dense"), 0)
        last, found = len(batches.rows) - 1, []
        for stops in ([0, last], range(last + 1)):
            arena = DenseArena(37, h.optimizer, h.predictor_type, exact=False)
            arena.place([], [h])
            for a, b in itertools.pairwise(stops):
                arena.learn(batches, a, b, np.empty((1, 0), np.float32))
            found.append(arena.parameters(0))
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)


@halves
def test_scores_are_exact_whatever_trained() -> None:
    """A pack with ``exact: false`` scores rows as its models do, in float32."""
    rows = _rows(150, 40)
    scores, models = _trained(rows, [STEP.replace(exact=False, mini_batch_size=50, linear_lr=0.1, factors_lr=0.1)])
    np.testing.assert_array_equal(scores[0], score(models[0], rows))


def test_a_cpu_multiplies_bfloat16_if_it_says_so() -> None:
    """Both the instructions and the registers that they need are asked for."""
    assert tiles.halves(frozenset({"avx512f", "avx512bf16"}))
    assert not tiles.halves(frozenset({"avx2", "fma"})) and not tiles.halves(frozenset({"avx512f"}))
    assert tiles.halves() == tiles.halves(tiles.features())
