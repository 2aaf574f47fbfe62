"""The kernels against plain float64 references, over all rules, losses and layouts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fmtune.errors import DataError
from fmtune.fm.arena import ARENAS
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import Pack, bytes_of, score
from fmtune.kernels import losses, random, rules
from fmtune.rows import DenseRows, Rows
from tests import fm_reference as reference

LAYOUTS = tuple(ARENAS)
RULES = tuple(rules.RULES)

# Specification, part (d), vector 8: three mini-batches of two rows.
TRACE_ROWS = ({0: 1, 1: 1}, {0: 1, 2: 2}, {1: 1, 2: 1}, {0: 0.5, 1: 1}, {0: 1}, {2: 1})
TRACE_START = ([0.01, -0.02, 0.03], [[0.1, -0.2], [0.3, 0.4], [-0.5, 0.6]])
TRACES = {
    "regressor": (
        (4, 1, 3, 5, 2, 0),
        (-0.06, -0.27, 0.201880007829, 0.061519978082, 0.211212754115, 0.231293245120),
        0.285445043087,
        (0.012788007789, -0.018029770719, 0.032734883601),
        (0.100023300770, -0.199747143452, 0.300052072633, 0.399923531027, -0.499739328368, 0.599971052362),
    ),
    "binary_classifier": (
        (1, 0, 1, 0, 0, 1),
        (0.485004498381, 0.432907095035, 0.549809050018, 0.515372462235, 0.528766593140, 0.533312667294),
        0.074721588791,
        (0.009747354398, -0.018428668351, 0.028849613961),
        (0.100200554077, -0.200254071886, 0.300040565266, 0.399950450473, -0.500052960774, 0.600277442604),
    ),
}


def _start(h: Hyperparameters, dim: int) -> Model:
    """The model that a lane of this configuration begins with."""
    arena = ARENAS["sparse"](dim, h.optimizer, h.predictor_type, h.lazy)
    arena.place([], [h])
    bias, linear, factors = arena.parameters(0)
    return Model(h.predictor_type, bias, linear, factors)


def _begin_from(pack: Pack, model: Model) -> None:
    """Put given parameters where a lane's initial values would be, by constant initial values of zero."""
    arena = pack._arena
    if pack.recipe.layout == "sparse":
        k = model.num_factors
        arena._arena[:, 0, :k], arena._arena[:, 0, -1] = model.factors, model.linear
        arena._lanes.bias[0, 0] = model.bias
    else:
        block = arena._theta(0)
        block[:, : model.num_factors], block[:, model.num_factors] = model.factors, model.linear
        arena._lanes.bias[0, 0] = model.bias


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("predictor_type", TRACES)
def test_specification_trace(predictor_type: str, layout: str) -> None:
    """Three updates of SageMaker's rule give the specification's predictions and parameters to 1e-6."""
    labels, predictions, bias, linear, factors = TRACES[predictor_type]
    matrix = np.zeros((6, 3), np.float32)
    for b, row in enumerate(TRACE_ROWS):
        matrix[b, list(row)] = list(row.values())
    h = Hyperparameters(predictor_type=predictor_type, num_factors=2, mini_batch_size=2, shuffle="none")
    pack = Pack(Feed(DenseRows(matrix, np.array(labels, np.float32), 3)), Recipe.of(h, layout))
    (lane,) = pack.change(enter=[h])
    start = Model(predictor_type, 0.0, *(np.array(a, np.float32) for a in TRACE_START))
    _begin_from(pack, start)
    raw = pack.epoch(record=True)[0]
    out = np.empty_like(raw)
    losses.link(losses.CODES[predictor_type], raw, out)
    model = pack.model(lane)
    np.testing.assert_allclose(out, predictions, atol=1e-6)
    np.testing.assert_allclose(model.bias, bias, atol=1e-6)
    np.testing.assert_allclose(model.linear, linear, atol=1e-6)
    np.testing.assert_allclose(model.factors.ravel(), factors, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_specification_trace_with_clipping(layout: str) -> None:
    """Clipping comes after rescaling and decay: the specification's first step with rescale 1 and clip 0.5."""
    matrix = np.zeros((2, 3), np.float32)
    for b, row in enumerate(TRACE_ROWS[:2]):
        matrix[b, list(row)] = list(row.values())
    h = Hyperparameters(num_factors=2, mini_batch_size=2, shuffle="none", rescale_grad=1.0, clip_gradient=0.5)
    pack = Pack(Feed(DenseRows(matrix, np.array([4, 1], np.float32), 3)), Recipe.of(h, layout))
    (lane,) = pack.change(enter=[h])
    _begin_from(pack, Model("regressor", 0.0, *(np.array(a, np.float32) for a in TRACE_START)))
    pack.epoch()
    model = pack.model(lane)
    np.testing.assert_allclose(model.bias, 0.099999936754, atol=1e-6)
    np.testing.assert_allclose(model.linear, [0.010999999368, -0.019000000632, 0.030999999368], atol=1e-6)
    np.testing.assert_allclose(model.factors[0], [0.099900000608, -0.199900000063], atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("predictor_type", ["regressor", "binary_classifier"])
@pytest.mark.parametrize("lazy", [True, False])
def test_an_epoch_equals_the_float64_reference(layout: str, rule: str, predictor_type: str, lazy: bool) -> None:
    """Every rule, loss and layout, lazy or not, is within 1e-4 of a naive float64 trainer after an epoch."""
    data = reference.rows(230, 40, 6, binary=predictor_type != "regressor")
    h = Hyperparameters(
        predictor_type=predictor_type, num_factors=5, mini_batch_size=50, optimizer=rule, lazy=lazy, shuffle="none",
        bias_lr=0.02, linear_lr=0.02, factors_lr=0.02, factors_init_sigma=0.1, clip_gradient=0.5, linear_l1=0.02,
        factors_l1=0.01,
    )  # fmt: skip
    pack = Pack(Feed(data), Recipe.of(h, layout))
    (lane,) = pack.change(enter=[h])
    pack.epoch()
    model = pack.model(lane)
    bias, linear, factors = reference.train(_start(h, 40), data, h, np.arange(230))
    np.testing.assert_allclose(model.bias, bias, atol=1e-4)
    np.testing.assert_allclose(model.linear, linear, atol=1e-4)
    np.testing.assert_allclose(model.factors, factors, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rule", "size", "lazy"), [
    *((rule, 50, True) for rule in RULES), ("adagrad", 1, True), ("rowwise_adagrad", 1, True), ("sgd", 50, False),
])  # fmt: skip
def test_groups_have_decays_of_their_own(layout: str, rule: str, size: int, lazy: bool) -> None:
    """Each feature's decay is its group's factor of ``linear_wd`` and ``factors_wd``, 0 included; two lanes agree."""
    data = reference.rows(230, 40, 6)
    groups = Groups.of({"a": 0, "b": {"first": 9, "decay": 30}, "c": {"first": 25, "decay": 0}})
    h = Hyperparameters(
        predictor_type="binary_classifier", num_factors=11, mini_batch_size=size, optimizer=rule, lazy=lazy,
        shuffle="none", bias_lr=0.02, linear_lr=0.02, factors_lr=0.02, factors_init_sigma=0.1, clip_gradient=0.5,
        linear_wd=0.02, factors_wd=0.01,
    )  # fmt: skip
    pack = Pack(Feed(data, groups=groups), Recipe.of(h, layout))
    _, lane = pack.change(enter=[h.replace(linear_wd=0.5, seed=1), h])
    pack.epoch()
    model, decays = pack.model(lane), np.array(groups.decays)[groups.features(40)]
    bias, linear, factors = reference.train(_start(h, 40), data, h, np.arange(230), decays)
    np.testing.assert_allclose(model.bias, bias, atol=1e-4)
    np.testing.assert_allclose(model.linear, linear, atol=1e-4)
    np.testing.assert_allclose(model.factors, factors, atol=1e-4)


def _epoch(data: Rows, h: Hyperparameters, layout: str) -> Model:
    """The model after one epoch in the file's order."""
    pack = Pack(Feed(data), Recipe.of(h.replace(shuffle="none"), layout))
    (lane,) = pack.change(enter=[h.replace(shuffle="none")])
    pack.epoch()
    return pack.model(lane)


WEIGHTED = Hyperparameters(predictor_type="binary_classifier", num_factors=5, factors_lr=0.02, factors_init_sigma=0.1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mini_batch_size", [1, 50])
def test_a_weight_multiplies_its_rows_gradient(layout: str, mini_batch_size: int) -> None:
    """Weights enter as in the float64 reference, to 1e-5; all weights 2 at half the rescale_grad change no bit."""
    data = reference.rows(230, 40, 6)
    h = WEIGHTED.replace(mini_batch_size=mini_batch_size)
    weights = np.random.default_rng(3).integers(0, 4, 230).astype(np.float32)
    weighted = replace(data, weights=weights)
    model = _epoch(weighted, h, layout)
    bias, linear, factors = reference.train(_start(h, 40), weighted, h, np.arange(230))
    np.testing.assert_allclose(model.bias, bias, atol=1e-5)
    np.testing.assert_allclose(model.linear, linear, atol=1e-5)
    np.testing.assert_allclose(model.factors, factors, atol=1e-5)
    twice = replace(data, weights=np.full(230, 2, np.float32))
    double = _epoch(twice, h.replace(rescale_grad=0.5 / mini_batch_size), layout)
    np.testing.assert_array_equal(double.factors, _epoch(data, h, layout).factors)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weight_two_is_the_row_twice_and_weight_zero_says_nothing(layout: str) -> None:
    """In one mini-batch, a row of weight 2 counts as two equal rows; a row of weight 0 has no say by its label."""
    data = reference.rows(40, 30, 6)
    h = WEIGHTED.replace(mini_batch_size=100)
    twice = np.sort(np.r_[np.arange(40), np.arange(10)])
    heavy = replace(data, weights=np.where(np.arange(40) < 10, 2, 1).astype(np.float32))
    np.testing.assert_allclose(_epoch(heavy, h, layout).factors, _epoch(data.take(twice), h, layout).factors, atol=1e-7)
    labels = np.asarray(data.labels)
    silent = np.where(np.arange(40) < 10, 0, 1).astype(np.float32)
    one, other = (replace(data, labels=y, weights=silent) for y in (labels, np.where(silent == 0, 1 - labels, labels)))
    np.testing.assert_array_equal(_epoch(one, h, layout).factors, _epoch(other, h, layout).factors)


def test_weights_are_one_for_each_row_and_not_negative() -> None:
    """A train channel with a negative, infinite or missing weight is refused."""
    data = reference.rows(3, 30, 6)
    for weights in ([1, 1, -1], [1, np.inf, 1], [1, 1]):
        with pytest.raises(DataError, match="a weight for each row"):
            Feed(replace(data, weights=np.array(weights, np.float32)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_factors", [0, 1, 8, 13])
def test_scores_equal_the_sum_over_pairs(layout: str, num_factors: int) -> None:
    """A prediction equals the O(n^2) definition to 1e-6 of its size."""
    rng = np.random.default_rng(1)
    factors = (0.3 * rng.normal(size=(30, num_factors))).astype(np.float32)
    model = Model("regressor", 0.25, rng.normal(size=30).astype(np.float32), factors)
    data = reference.rows(20, 30, 7)
    data = data.to_dense() if layout == "dense" else data
    matrix = data.to_dense().matrix.astype(np.float64)
    wanted = [reference.raw_score(0.25, model.linear.astype(float), factors.astype(float), x) for x in matrix]
    np.testing.assert_allclose(score(model, data), wanted, rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize("predictor_type", ["regressor", "binary_classifier"])
def test_gradients_equal_central_differences(predictor_type: str) -> None:
    """The reference's gradient, which the kernels are held to, is the derivative of the loss to 1e-6."""
    data = reference.rows(6, 5, 3, binary=predictor_type != "regressor")
    h = Hyperparameters(
        predictor_type=predictor_type, num_factors=2, mini_batch_size=6, factors_init_sigma=0.5, rescale_grad=1.0,
        bias_wd=0.0, linear_wd=0.0, factors_wd=0.0, optimizer="sgd", bias_lr=1.0, linear_lr=1.0, factors_lr=1.0,
    )  # fmt: skip
    start = _start(h, 5)
    # A plain step of length 1 is the gradient.
    bias, linear, factors = reference.train(start, data, h, np.arange(6))
    moved = np.concatenate([[start.bias - bias], start.linear - linear, (start.factors - factors).ravel()])
    at = np.concatenate([[start.bias], start.linear, start.factors.ravel()]).astype(np.float64)

    def loss(theta: np.ndarray) -> float:
        total = 0.0
        for x, y in zip(data.to_dense().matrix.astype(np.float64), np.asarray(data.labels), strict=True):
            z = reference.raw_score(theta[0], theta[1:6], theta[6:].reshape(5, 2), x)
            total += 0.5 * (z - y) ** 2 if predictor_type == "regressor" else np.logaddexp(0, z) - y * z
        return total

    for i in range(len(at)):
        up, down = at.copy(), at.copy()
        up[i], down[i] = up[i] + 1e-5, down[i] - 1e-5
        assert abs((loss(up) - loss(down)) / 2e-5 - moved[i]) < 1e-6


def test_exponential_is_accurate_and_the_same_in_vectors() -> None:
    """The sigmoid is within 2e-7 of float64's over its range, and NaN stays NaN."""
    z = np.linspace(-80, 80, 100_001).astype(np.float32)
    out = np.empty_like(z)
    losses.link(losses.BINARY, z, out)
    wanted = 1 / (1 + np.exp(-z.astype(np.float64)))
    np.testing.assert_allclose(out, wanted, rtol=1e-6, atol=1e-30)
    losses.link(losses.BINARY, np.array([np.nan, np.inf, -np.inf], np.float32), out[:3])
    assert np.isnan(out[0]) and out[1] == 1 and out[2] < 1e-30


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_plain_python(rule: str) -> None:
    """Each rule's source runs without the compiler, as CUDA's simulator needs, and gives the same numbers."""
    step = getattr(rules, rule)
    args = tuple(np.float32(x) for x in (0.3, 0.2, 0.1, -0.4, 0.01, 1e-8, 0.5))
    np.testing.assert_allclose(step.py_func(*args), step(*args), rtol=1e-6)
    assert rules.RULES[rule].states in (0, 1, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
def test_a_lane_takes_the_bytes_that_it_is_said_to(rule: str, layout: str) -> None:
    """Parameters and state; where factors share their state it is two numbers a feature, and else one a parameter."""
    pack = Pack(Feed(reference.rows(50, 40, 6)), Recipe.of(Hyperparameters(optimizer=rule, num_factors=16), layout))
    pack.change(enter=[Hyperparameters(optimizer=rule, num_factors=16)])
    rows, bias, _ = pack.state()
    assert bytes_of(pack.lanes[0].hyperparameters, 40) == rows.nbytes + bias.nbytes
    row = rules.RULES[rule]
    assert rows.size == 40 * (17 + 2 if row.rowwise else 17 * (1 + row.states))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_l1_makes_parameters_exactly_zero(layout: str) -> None:
    """FTRL's L1 leaves linear weights and factors of exactly 0, more of them the larger it is; 0 leaves none."""
    data = reference.rows(230, 40, 6)
    zeros = []
    for l1 in (0.0, 0.05, 100.0):
        h = WEIGHTED.replace(optimizer="ftrl", mini_batch_size=10, linear_lr=0.1, linear_l1=l1, factors_l1=l1)
        model = _epoch(data, h, layout)
        zeros.append(int((model.linear == 0).sum() + (model.factors == 0).sum()))
    assert zeros[0] == 0 < zeros[1] < zeros[2] == 40 * 6


def test_initial_values_depend_on_their_place_only() -> None:
    """A number depends on seed, array, feature and factor: a narrower or shorter array is a part of a larger one."""
    whole, part = np.empty((50, 16), np.float32), np.empty((20, 5), np.float32)
    for method in random.METHODS.values():
        random.fill(whole, method, 0.1, 0.5, 3, random.FACTORS)
        random.fill(part, method, 0.1, 0.5, 3, random.FACTORS)
        np.testing.assert_array_equal(whole[:20, :5], part)


def test_initial_values_have_the_stated_distribution() -> None:
    """Normal values have the stated deviation, uniform ones the stated range, and seeds differ."""
    a, b = np.empty((400, 250), np.float32), np.empty((400, 250), np.float32)
    random.fill(a, random.NORMAL, 0.1, 0.0, 1, random.FACTORS)
    random.fill(b, random.NORMAL, 0.1, 0.0, 2, random.FACTORS)
    assert abs(a.mean()) < 1e-3 and abs(a.std() - 0.1) < 1e-3
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    random.fill(a, random.UNIFORM, 0.1, 0.0, 1, random.FACTORS)
    assert a.min() >= -0.1 and a.max() <= 0.1 and abs(a.std() - 0.1 / np.sqrt(3)) < 1e-3


_SIMULATED = """
import sys
import numpy as np
from numba import cuda
from fmtune.kernels import losses, rules

sys.setswitchinterval(1e-5)  # the simulator's threads wait for a loop that looks at them

theta, a, b, g = (np.linspace(s, s + 1, 16).astype(np.float32) for s in (-0.7, 0.1, 0.2, -2.0))
f = np.float32
for name in rules.RULES:
    step = getattr(rules, name)

    @cuda.jit
    def kernel(theta, a, b, g, out):
        i = cuda.grid(1)
        if i < len(theta):
            d = rules.decayed(g[i], theta[i], f(0.5), f(0.01), f(0.8))
            t, x, y = step(theta[i], a[i], b[i], d, f(0.1), f(1e-8), f(0.5))
            out[i, 0], out[i, 1], out[i, 2], out[i, 3] = t, x, y, losses.slope(losses.BINARY, t, f(1.0))

    out = np.zeros((16, 4), np.float32)
    kernel[1, 32](theta, a, b, g, out)
    sys.stdout.write(" ".join(x.hex() for x in out.astype(float).ravel()) + "\\n")
"""


def test_rules_run_in_the_cuda_simulator_as_they_stand() -> None:
    """Every rule and loss, called from a CUDA kernel in numba's simulator, gives what the compiled ones give."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SIMULATED], env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    theta, a, b, g = (np.linspace(s, s + 1, 16).astype(np.float32) for s in (-0.7, 0.1, 0.2, -2.0))
    f = np.float32
    for name, line in zip(RULES, done.stdout.splitlines(), strict=True):
        simulated = np.array([float.fromhex(x) for x in line.split()]).reshape(16, 4)
        for i in range(16):
            d = rules.decayed(g[i], theta[i], f(0.5), f(0.01), f(0.8))
            t, x, y = getattr(rules, name)(theta[i], a[i], b[i], d, f(0.1), f(1e-8), f(0.5))
            np.testing.assert_allclose(simulated[i], [t, x, y, losses.slope(losses.BINARY, t, f(1.0))], rtol=2e-6)


@pytest.mark.parametrize("features", [2, 6])
@pytest.mark.parametrize("rule", RULES)
def test_single_rows_are_mini_batches_of_one(rule: str, features: int) -> None:
    """The kernel for ``mini_batch_size: 1`` gives the bits of the one for mini-batches, lone and in a pack.

    Also of few features, whose linear weights move one by one.
    """
    data = reference.rows(120, 40, features)
    h = Hyperparameters(
        predictor_type="binary_classifier", num_factors=11, mini_batch_size=1, optimizer=rule, factors_lr=0.02
    )
    feed = Feed(data)
    single = Pack(feed, Recipe.of(h, "sparse"))
    lanes = single.change(enter=[h, h.replace(num_factors=35, seed=1)])
    z = single.epoch(record=True)
    general = ARENAS["sparse"](40, rule, "binary_classifier")
    general.place([], [lane.hyperparameters for lane in lanes])
    batches = feed.batches(Recipe.of(h.replace(lazy=False), "sparse"), 0)
    scores = np.empty_like(z)
    general.learn(batches, 0, 120, scores)
    np.testing.assert_array_equal(z, scores)
    for i, lane in enumerate(lanes):
        model, (bias, linear, factors) = single.model(lane), general.parameters(i)
        assert model.bias == bias
        np.testing.assert_array_equal(model.linear, linear)
        np.testing.assert_array_equal(model.factors, factors)
