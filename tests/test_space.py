"""fmtune.tune.space: Optuna's distributions, and what may not change when a study resumes."""

import json

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fmtune.tune.dimension import Dimension
from fmtune.tune.space import canonical, describe, difference, distributions
from fmtune.tune.spec import parse

TEXT = """study_name: s
data: {train: a.libsvm, test: [b.libsvm, c.libsvm]}
objective: test:rmse
hyperparameters: {epochs: 3}
search_space:
  num_factors: 2..32 log
  linear_lr: 0..1 step 0.25
  optimizer: [adam, adagrad]
n_trials: 10
"""


def test_each_dimension_becomes_optunas() -> None:
    """Type, ends, step, log and choices; the file's order stays."""
    made = distributions(parse(TEXT).search_space)
    assert list(made.items()) == [
        ("num_factors", IntDistribution(2, 32, log=True)),
        ("linear_lr", FloatDistribution(0.0, 1.0, step=0.25)),
        ("optimizer", CategoricalDistribution(("adam", "adagrad"))),
    ]
    assert distributions({"num_factors": Dimension("int", 2, 8, 3)})["num_factors"] == IntDistribution(2, 8, step=3)


def test_a_space_is_described_in_plain_values() -> None:
    """What is set, the shorthand, the meaning."""
    assert describe(parse(TEXT).search_space)["num_factors"] == {
        "type": "int", "low": 2, "high": 32, "log": True, "shorthand": "2..32 log",
        "help": "length of each feature's factor vector; 0 is a linear model",
    }  # fmt: skip


def test_a_larger_budget_is_not_a_change() -> None:
    """n_trials, timeout, storage, pack, memory and threads may change, and so may spelling."""
    other = TEXT.replace("n_trials: 10", "n_trials: 99\ntimeout: 3h\npack: 4\nmemory: 1GiB\nthreads: 1\nstorage: 'sqlite:///x.db'")
    other = other.replace("2..32 log", "{low: 2, high: 32, log: true}").replace("epochs: 3", "epochs: 3.0")
    assert difference(canonical(parse(TEXT)), canonical(parse(other))) == []


def test_what_must_not_change_is_shown_old_and_new() -> None:
    """One sentence a change, by its path in the file."""
    other = (
        TEXT.replace("2..32 log", "2..64 log").replace("epochs: 3", "epochs: 4, patience: 1")
        .replace("  linear_lr: 0..1 step 0.25\n", "").replace("test:rmse", "test:mse").replace("c.lib", "d.lib")
    )  # fmt: skip
    new = canonical(parse(other + "seeds: 3\nsampler: {name: tpe, group: true}\npruner: none\nlag: 4\n"))
    assert difference(canonical(parse(TEXT)), new) == [
        "data.test[1]: c.libsvm -> d.libsvm",
        "objective: test:rmse -> test:mse",
        "hyperparameters.epochs: 3 -> 4",
        "hyperparameters.patience: not given -> 1",
        "search_space.num_factors.high: 32 -> 64",
        'search_space.linear_lr: {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25} -> not given',
        "sampler.options.group: not given -> true",
        "pruner.name: median -> none",
        "seeds: 1 -> 3",
        "lag: null -> 4",
    ]


def test_what_is_kept_is_json_and_holds_no_password() -> None:
    """It goes into the study's database as it is."""
    made = canonical(parse(TEXT + "storage: postgresql://me:s3cret@host/db\n"))
    assert json.loads(json.dumps(made)) == made
    assert "s3cret" not in json.dumps(made)
