"""Coordinate descent lowers its objective at every step and ends where another method ends."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from fmtune.fm.als import Descent
from fmtune.fm.feed import Feed
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.sweeps import Move
from fmtune.rows import DenseRows, SparseRows
from tests import fm_reference as reference

KINDS = ("regressor", "binary_classifier")


def _chain(kind: str, data: SparseRows, groups: Groups | None = None, **values: object) -> tuple[Descent, Move]:
    h = Hyperparameters.of({"solver": "als", "predictor_type": kind, "num_factors": 2, **values})
    columns = Feed(data, groups=groups).by_column()
    return Descent(h, columns), Move(columns, None)


def _objective(theta: NDArray[np.float64], data: SparseRows, h: Hyperparameters, decay: NDArray[np.float64]) -> float:
    """What als lowers, written from its formula."""
    d, x = data.feature_dim, data.to_dense().matrix.astype(np.float64)
    assert data.labels is not None
    bias, linear, v = theta[0], theta[1 : d + 1], theta[d + 1 :].reshape(d, -1)
    z = bias + x @ linear + 0.5 * ((x @ v) ** 2 - x**2 @ v**2).sum(1)
    y = data.labels.astype(np.float64)
    loss = 0.5 * (z - y) ** 2 if h.predictor_type == "regressor" else np.logaddexp(0, z) - y * z
    square = h.linear_wd * (decay @ linear**2) + h.factors_wd * (decay @ v**2).sum()
    return float(loss.mean() + 0.5 * (h.bias_wd * bias**2 + square))


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_makes_it_worse(kind: str) -> None:
    """After the bias, after every single feature's weight and after every feature's factors it is lower or equal."""
    data = reference.rows(80, 12, 4, binary=kind == "binary_classifier")
    chain, _ = _chain(kind, data, num_factors=11, linear_wd=0.01, factors_wd=0.01)
    seen = [chain.objective()]

    def move(kernel: object) -> None:
        seen.append(chain.objective())
        for j in range(12):
            kernel(j, j + 1)  # type: ignore[operator]
            seen.append(chain.objective())

    for _ in range(8):
        chain.sweep(move)  # type: ignore[arg-type]
    steps = np.diff(seen)
    assert len(steps) > 200 and steps.max() <= 1e-7 * seen[0] and seen[-1] < 0.9 * seen[0]


def test_no_sweep_makes_it_worse_beside_a_year() -> None:
    """Numbers of thousands that hardly differ are one of its columns."""
    random = np.random.default_rng(0)
    matrix = np.stack([random.normal(size=2000), 1990.0 + random.integers(0, 35, 2000)], 1).astype(np.float32)
    rows = DenseRows(matrix, (matrix[:, 0] + 0.3 * random.normal(size=2000)).astype(np.float32), 2).to_sparse()
    chain, move = _chain("regressor", rows, num_factors=4)
    seen = []
    for _ in range(100):
        chain.sweep(move)
        seen.append(chain.objective())
    assert np.diff(seen).max() <= 1e-6 * seen[0] and seen[-1] < 0.047


@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_at_the_optimum_of_another_method(kind: str) -> None:
    """From some starts each, als and a quasi-Newton method find the same lowest value of a tiny problem."""
    data = reference.rows(40, 5, 3, binary=kind == "binary_classifier")
    groups = Groups.of({"a": 0, "b": {"first": 2, "decay": 3.0}})
    decay = np.array(groups.decays)[groups.features(5)]
    found = []
    for seed in range(4):
        chain, move = _chain(kind, data, groups, seed=seed, linear_wd=0.05, factors_wd=0.05)
        for _ in range(400):
            chain.sweep(move)
        found.append(chain.objective())
        bias, linear, factors = chain.parameters()
        theta = np.concatenate([[bias], linear, factors.ravel()]).astype(np.float64)
        assert _objective(theta, data, chain.hyperparameters, decay) == pytest.approx(found[-1], abs=1e-6)
    rng = np.random.default_rng(0)
    others = [
        minimize(_objective, rng.normal(size=16) * 0.3, (data, chain.hyperparameters, decay), tol=1e-12).fun
        for _ in range(6)
    ]
    assert min(found) == pytest.approx(min(others), abs=1e-5)
