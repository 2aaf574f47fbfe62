"""fmtune.tune.effect: a searched parameter that no trial can use is told, and no other is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fmtune.data.source import DataWarning
from fmtune.fm.feed import Recipe
from fmtune.fm.fit import Channels
from fmtune.fm.hyperparameters import PARAMETERS, Hyperparameters, Value
from fmtune.fm.solvers import trainer
from fmtune.tune import spec as specs
from fmtune.tune.dimension import SEARCHABLE, Dimension, parse
from fmtune.tune.effect import idle
from fmtune.tune.objective import Objective
from tests import fm_reference as reference

# What else all trials have, what is searched, and the reason why the first of it has no effect.
IDLE: list[tuple[dict[str, Value], dict[str, object], str]] = [
    ({"optimizer": "adam"}, {"linear_l1": "0..1"}, "linear_l1 has no effect: optimizer is 'adam'"),
    ({}, {"linear_l1": "0..1", "optimizer": ["adam", "sgd"]}, "linear_l1 has no effect: optimizer is 'adam' or 'sgd'"),
    ({"solver": "mcmc"}, {"factors_wd": "0..1"}, "factors_wd has no effect: solver is 'mcmc'"),
    ({}, {"lazy": [True, False], "solver": ["als", "mcmc"]}, "lazy has no effect: solver is 'als' or 'mcmc'"),
    ({"optimizer": "ftrl"}, {"lr_schedule": ["linear", "cosine"]}, "lr_schedule has no effect: optimizer is 'ftrl'"),
    ({"optimizer": "sgd"}, {"eps": "1e-8..1 log"}, "eps has no effect: optimizer is 'sgd'"),
    ({"use_bias": False}, {"bias_lr": "0..1"}, "bias_lr has no effect: use_bias is false"),
    ({"shuffle": "none"}, {"shuffle_seed": "0..9"}, "shuffle_seed has no effect: shuffle is 'none'"),
    ({}, {"positive_weight": "1..9"}, "positive_weight has no effect: predictor_type is 'regressor', its default"),
]

USED: list[tuple[dict[str, Value], dict[str, object]]] = [
    ({}, {"linear_l1": "0..1", "optimizer": ["adam", "ftrl"]}),
    ({}, {"factors_lr": "0..1", "solver": ["sgd", "als"]}),
    ({}, {"factors_lr": "0..1", "num_factors": "0..4"}),
    ({"solver": "als"}, {"linear_wd": "0..1"}),
    ({"solver": "mcmc"}, {"num_factors": "2..4"}),
    ({"predictor_type": "binary_classifier"}, {"positive_weight": "1..9"}),
    ({"linear_init_method": "uniform"}, {"linear_init_scale": "0..1"}),
]


def _space(raw: dict[str, object]) -> dict[str, Dimension]:
    found = {name: parse(name, form)[0] for name, form in raw.items()}
    return {name: dimension for name, dimension in found.items() if dimension is not None}


@pytest.mark.parametrize(("fixed", "raw", "why"), IDLE)
def test_what_no_trial_can_use_is_told(fixed: dict[str, Value], raw: dict[str, object], why: str) -> None:
    """At the parameter's own line, once, with the first reason."""
    (fault,) = idle(_space(raw), fixed)
    assert (fault.at, fault.what, fault.key) == ((next(iter(raw)),), why, True)
    assert fault.hint is not None and fault.hint.startswith("leave it out")


@pytest.mark.parametrize(("fixed", "raw", "why"), IDLE)
def test_an_objective_says_what_a_study_file_says(fixed: dict[str, Value], raw: dict[str, object], why: str) -> None:
    """In the same words, at the caller's own line."""
    data = reference.rows(60, 12, 3, binary=False)
    text = {"study_name": "x", "data": {"train": "a", "test": "b"}, "objective": "test:rmse", "hyperparameters": fixed,
            "search_space": raw}  # fmt: skip
    with pytest.warns(DataWarning) as file:
        specs.parse(json.dumps(text))
    with pytest.warns(DataWarning, match=why.removesuffix(", its default")) as own:
        Objective(data, data, search_space=raw, hyperparameters=fixed, objective="test:rmse")
    assert [str(w.message) for w in own] == [str(w.message) for w in file] and own[0].filename == __file__


@pytest.mark.parametrize(("fixed", "raw"), USED)
def test_what_a_trial_can_use_is_not(fixed: dict[str, Value], raw: dict[str, object]) -> None:
    """One value of the other parameter is enough."""
    assert list(idle(_space(raw), fixed)) == []


def test_nothing_follows_from_what_is_wrong() -> None:
    """A misspelt optimizer has its own fault, and makes none of another's."""
    assert list(idle(_space({"linear_l1": "0..1"}), {}, {"optimizer"})) == []


@pytest.mark.parametrize("kind", ["regressor", "binary_classifier"])
@pytest.mark.parametrize(("solver", "optimizer"), [
    ("als", "adam"), ("mcmc", "adam"), ("sgd", "adam"), ("sgd", "ftrl"), ("sgd", "sgd"),
])  # fmt: skip
def test_what_is_told_to_be_idle_changes_no_model(solver: str, optimizer: str, kind: str) -> None:
    """Every parameter that is said to have no effect, at another value: the same scores, bit for bit."""
    rows = reference.rows(60, 12, 3)
    channels = Channels(rows, rows)
    base: dict[str, Value] = {"predictor_type": kind, "solver": solver, "optimizer": optimizer, "epochs": 2,
                              "mini_batch_size": 7, "num_factors": 3}  # fmt: skip

    def scores(more: dict[str, Value]) -> np.ndarray:
        h = Hyperparameters.of({**base, **more})
        pack = trainer(channels.feed, Recipe.of(h, "sparse"))
        pack.change(enter=[h])
        for _ in range(2):
            pack.epoch()
        return np.array(pack.score(channels.test("sparse")))

    known = scores({})
    for name in SEARCHABLE:
        row = PARAMETERS[name]
        other: Value = row.choices[-1] if row.choices else (not row.default if row.type is bool else row.type(3))
        fixed = {key: value for key, value in base.items() if key != name}
        if (solver, name) == ("mcmc", "positive_weight"):
            continue  # refused, in training too
        if name != "solver" and list(idle({name: Dimension("categorical", choices=(row.default, other))}, fixed)):
            np.testing.assert_array_equal(scores({name: other}), known, name)


def test_a_study_that_searches_in_vain_is_told_and_read() -> None:
    """A study may have begun with it, so its file stays one that can be reported and gone on with."""
    text = "study_name: s\ndata: digits\nobjective: test:auc\nn_trials: 2\nsearch_space: {linear_l1: 0..1}\n"
    with pytest.warns(UserWarning, match=r"search_space: linear_l1 has no effect: optimizer is 'adam', its default; ."):
        assert set(specs.parse(text, Path("s.yaml")).search_space) == {"linear_l1"}
