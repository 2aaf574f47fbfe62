"""Defaults: the program behind the table of ``docs/sklearn.md``; ``python -m tests.defaults [data ...]`` prints it.

Each score is the mean over three seeds, of data and model, on rows that did not train.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from pandas.api.types import is_numeric_dtype
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, make_friedman1
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fmtune import FMClassifier, FMRegressor
from fmtune.data import catalog

Parts = tuple[Any, Any, Any, Any]

# Of seeds 0 to 2 the defaults were chosen.
SEEDS = (3, 4, 5)


def divided(x: Any, y: Any, seed: int, test: float = 0.3) -> Parts:
    """Return features and labels of train, and those of test."""
    train, later, labels, wanted = train_test_split(x, y, test_size=test, random_state=seed)
    return train, labels, later, wanted


def card(seed: int, name: str, **keys: Any) -> Parts:
    """Return the channels of a card, whose features are one-hot."""
    channels = catalog.load({"card": name, "seed": seed, **keys})
    wide, test = channels.train.feature_dim, channels.test
    assert test is not None
    train_x, test_x = (
        scipy.sparse.csr_matrix((rows.values, rows.indices, rows.indptr), (rows.n, wide))
        for rows in (channels.train.to_sparse(), test.to_sparse())
    )
    return train_x, np.asarray(channels.train.labels), test_x, np.asarray(test.labels)


def movies(seed: int, n: int, users: int, items: int) -> Parts:
    """Return ratings in which some users and items are many times as frequent as others; noise is 0.9."""
    random = np.random.default_rng(seed)
    user, item = (users * random.random(n) ** 1.7).astype(int), (items * random.random(n) ** 2).astype(int)
    levels = 3.5 + 0.4 * random.normal(size=users)[user] + 0.5 * random.normal(size=items)[item]
    tastes, kinds = random.normal(size=(users, 6)), random.normal(size=(items, 6))
    y = levels + 0.5 * (tastes[user] * kinds[item]).sum(1) / np.sqrt(6) + 0.9 * random.normal(size=n)
    return divided(pd.DataFrame({"user": user.astype(str), "item": item.astype(str)}), y, seed, 0.1)


def clicks(seed: int, n: int, users: int, items: int) -> Parts:
    """Return clicks on items, equally frequent, on days of the week, which say nothing."""
    random = np.random.default_rng(seed)
    user, item, day = (random.integers(count, size=n) for count in (users, items, 7))
    levels = -1 + 0.5 * random.normal(size=users)[user] + 0.5 * random.normal(size=items)[item]
    tastes, kinds = random.normal(size=(users, 4)), random.normal(size=(items, 4))
    odds = levels + 0.75 * (tastes[user] * kinds[item]).sum(1)
    x = pd.DataFrame({"user": user.astype(str), "item": item.astype(str), "day": day.astype(str)})
    return divided(x, (random.random(n) < 1 / (1 + np.exp(-odds))).astype(int), seed)


def few(seed: int) -> Parts:
    """Return 3,000 rows of 50 users and 6 items, with an age that says nothing."""
    random = np.random.default_rng(seed)
    user, item = random.integers(50, size=3000), random.integers(6, size=3000)
    y = random.random(3000) < 0.3 + 0.4 * ((item < 2) & (user < 25))
    x = pd.DataFrame({"user": user.astype(str), "item": item.astype(str), "age": random.normal(40, 10, 3000)})
    return divided(x, y.astype(int), seed)


def digits(seed: int) -> Parts:
    """Return whether a digit is an 8."""
    x, y = load_digits(return_X_y=True)
    return divided(x, (y == 8).astype(int), seed)


DATA: dict[str, tuple[bool, Callable[[int], Parts]]] = {
    "planted-ratings, 30,000 rows": (True, lambda seed: card(seed, "planted-ratings", rows=30_000, test=0.3)),
    "planted-clicks": (False, lambda seed: card(seed, "planted-clicks")),
    'digits, "is it an 8?"': (False, digits),
    "breast cancer": (False, lambda seed: divided(*load_breast_cancer(return_X_y=True), seed)),
    "diabetes": (True, lambda seed: divided(*load_diabetes(return_X_y=True), seed)),
    "friedman1, 2,000 rows": (True, lambda seed: divided(*make_friedman1(2000, random_state=seed), seed)),
    "3,000 rows, 50 users, 6 items": (False, few),
    "clicks, 3,000 rows, 30 users, 20 items": (False, lambda seed: clicks(seed, 3000, 30, 20)),
    "clicks, 50,000 rows, 5,000 users, 2,000 items": (False, lambda seed: clicks(seed, 50_000, 5000, 2000)),
    "clicks, 200,000 rows, 2,000 users, 500 items": (False, lambda seed: clicks(seed, 200_000, 2000, 500)),
    "ratings, 20,000 rows, 400 users, 600 items": (True, lambda seed: movies(seed, 20_000, 400, 600)),
    "ratings, 100,000 rows, 943 users, 1,682 items": (True, lambda seed: movies(seed, 100_000, 943, 1682)),
    "ratings, 1,000,000 rows, 6,040 users, 3,700 items": (True, lambda seed: movies(seed, 1_000_000, 6040, 3700)),
}
"""Name -> whether it has ratings (RMSE) or classes (log loss), and its rows of a seed."""

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one decay": {"linear_wd": 0.001, "factors_wd": 0.001},
    "rates 0.003": {"bias_lr": 0.003, "linear_lr": 0.003, "factors_lr": 0.003},
    "rates 0.03": {"bias_lr": 0.03, "linear_lr": 0.03, "factors_lr": 0.03},
}


def linear(x: Any, is_rating: bool) -> Any:
    """Return ridge or logistic regression on standardised numbers and one-hot names."""
    model = Ridge() if is_rating else LogisticRegression(max_iter=2000)
    if scipy.sparse.issparse(x):
        return model
    if not isinstance(x, pd.DataFrame):
        return make_pipeline(StandardScaler(), model)
    numbers = [name for name in x if is_numeric_dtype(x[name].dtype)]
    names = [name for name in x if name not in numbers]
    encoder = OneHotEncoder(handle_unknown="ignore")
    return make_pipeline(make_column_transformer((encoder, names), (StandardScaler(), numbers)), model)


def scores(parts: Parts, is_rating: bool, seed: int) -> list[float]:
    """Return the scores of each of ``SETTINGS``, of a linear model and of a constant."""
    x, y, later, wanted = parts
    kind = FMRegressor if is_rating else FMClassifier
    models = [*(kind(random_state=seed, **setting) for setting in SETTINGS.values()), linear(x, is_rating)]
    # What the defaults were before they went by the rows.
    models[1].set_params(mini_batch_size=int(np.clip(len(y) // 20, 64, 1000)))
    said = [model.fit(x, y).predict(later) if is_rating else model.fit(x, y).predict_proba(later)[:, 1]
            for model in models]  # fmt: skip
    said.append(np.full(len(wanted), np.mean(y)))
    return [float(np.sqrt(np.mean((one - wanted) ** 2)) if is_rating else log_loss(wanted, one)) for one in said]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("|".join(["", "data", "score", *SETTINGS, "linear", "constant", ""]))
    for name in sys.argv[1:] or DATA:
        is_rating, make = DATA[name]
        mean = np.mean([scores(make(seed), is_rating, seed) for seed in SEEDS], axis=0)
        score = "RMSE" if is_rating else "log loss"
        print("|".join(["", name, score, *(f"{one:.4g}" for one in mean), ""]), flush=True)
