"""Rounded products: the program behind the table of quality in ``docs/speed.md``; run ``python -m tests.rounded``.

Each row: the test log loss of exact and of rounded (``exact: false``) passes over the same ten seeds, the spread over
seeds, and the mean difference with its standard error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import cross_entropy
from fmtune.fm.pack import Pack
from fmtune.rows import DenseRows

SEEDS = range(10)
FACTORS = (8, 16, 64)
SIDE = 28


def digits() -> tuple[DenseRows, DenseRows]:
    """Return scikit-learn's digits, 64 grey values: 5 and more against less."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return _divided((x[order] / 16).astype(np.float32), y[order] >= 5, 1300)


def strokes() -> tuple[DenseRows, DenseRows]:
    """Return drawn pictures of four strokes, 784 grey values; labels are those of a planted model."""
    random = np.random.default_rng(0)
    pictures = np.zeros((12_000, SIDE, SIDE), np.float32)
    for picture in pictures:
        for _ in range(4):
            start, step = random.integers(3, SIDE - 3, 2), random.normal(size=2) * 0.7
            for i, j in (start + np.arange(12)[:, None] * step).astype(int):
                if 0 <= i < SIDE - 1 and 0 <= j < SIDE - 1:
                    dot = picture[i : i + 2, j : j + 2]
                    np.maximum(dot, 0.5 + 0.5 * random.random((2, 2), np.float32), out=dot)
    x = pictures.reshape(len(pictures), -1)
    factors, weights = random.normal(size=(SIDE**2, 6)) * 0.06, random.normal(size=SIDE**2) * 0.05
    levels = x @ weights + 0.5 * (((x @ factors) ** 2).sum(1) - (x**2) @ (factors**2).sum(1))
    odds = 2 * (levels - levels.mean()) / levels.std()
    return _divided(x, random.random(len(x)) < 1 / (1 + np.exp(-odds)), 10_000)


def _divided(x: Any, y: Any, n: int) -> tuple[DenseRows, DenseRows]:
    labels = np.asarray(y, np.float32)
    return DenseRows(x[:n], labels[:n], x.shape[1]), DenseRows(x[n:], labels[n:], x.shape[1])


DATA = {"digits": (digits, 60, 0.01), "strokes": (strokes, 4, 0.002), "strokes, long": (strokes, 30, 0.003)}
"""Name -> what makes its rows, epochs, and the rate of all parameters."""


def losses(train: DenseRows, test: DenseRows, epochs: int, **values: Any) -> Any:
    """Return the test log loss of each seed's lane, (10,), after so many epochs."""
    lanes = [Hyperparameters.of({"predictor_type": "binary_classifier", "seed": seed, **values}) for seed in SEEDS]
    pack = Pack(Feed(train), Recipe.of(lanes[0], "dense"))
    pack.change(enter=lanes)
    for _ in range(epochs):
        pack.epoch()
    labels = test.labels
    assert labels is not None
    return np.array([cross_entropy(scores, labels) for scores in pack.score(test)])


if __name__ == "__main__":
    print("| data | num_factors | exact | rounded | spread over seeds | difference, with its standard error |")
    for name, (make, epochs, rate) in DATA.items():
        train, test = make()
        for count in FACTORS:
            values = {"mini_batch_size": 100, "num_factors": count, "factors_init_sigma": 0.1}
            rates = dict.fromkeys(("factors_lr", "linear_lr", "bias_lr"), rate)
            exact, rounded = (losses(train, test, epochs, exact=exact, **values, **rates) for exact in (True, False))
            gap = rounded - exact
            means = f"{exact.mean():.4f} | {rounded.mean():.4f} | {exact.std(ddof=1):.4f}"
            error = gap.std(ddof=1) / np.sqrt(len(gap))
            print(f"| {name} | {count} | {means} | {gap.mean():.4f} +- {error:.4f} |", flush=True)
