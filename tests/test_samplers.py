"""fmtune.tune.samplers and algorithms: the tables against the installed Optuna, and samplers by number."""

import importlib.util
import inspect
import logging
import math
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
import pytest

import fmtune.tune.pruners
from fmtune.errors import ResourceError
from fmtune.tune.algorithms import ELSEWHERE, PRUNERS, SAMPLERS, Algorithm, Option, short_name
from fmtune.tune.samplers import Walk, make_pruner, make_sampler, require
from fmtune.tune.space import distributions
from fmtune.tune.spec import Spec, parse

TEXT = """study_name: s
data: {{train: a, test: b}}
objective: test:rmse
hyperparameters: {{epochs: 9}}
search_space: {space}
sampler: {sampler}
pruner: {pruner}
n_trials: 6
"""
LISTED = "{num_factors: [2, 4, 8], optimizer: [adam, adagrad]}"
WIDE = "{num_factors: 2..32 log, optimizer: [adam, adagrad], linear_lr: 1e-3..1 log, use_bias: [true, false]}"


def study_of(sampler: str = "tpe", pruner: str = "median", space: str = WIDE) -> Spec:
    return parse(TEXT.format(space=space, sampler=sampler, pruner=pruner))


def ends(option: Option) -> list[Any]:
    """Return values at the ends of what an option takes."""
    if option.type is bool:
        return [True, False]
    numbers = [value for value in (option.low, option.high) if value is not None]
    return [*map(option.type, numbers), *option.words]


def test_the_tables_hold_every_class_of_optuna() -> None:
    """A new sampler or pruner of Optuna is put in the table, or named as not for files."""
    rows = {row.optuna for row in (*SAMPLERS.values(), *PRUNERS.values())}
    exported = {*optuna.samplers.__all__, *optuna.pruners.__all__}
    classes = {name for name in exported if isinstance(_class(name), type)}
    assert rows - {"RunningMedianPruner"} | set(ELSEWHERE) == classes


@pytest.mark.parametrize("table", [SAMPLERS, PRUNERS], ids=["samplers", "pruners"])
def test_every_option_is_one_of_optunas(table: Mapping[str, Algorithm]) -> None:
    """Names as in the signature; what must be given is what has no default."""
    for row in table.values():
        parameters = inspect.signature(_class(row.optuna)).parameters
        assert set(row.options) <= set(parameters), row.optuna
        for name in row.required:
            assert parameters[name].default is inspect.Parameter.empty


@pytest.mark.parametrize("name", [n for n, row in SAMPLERS.items() if row.package is None])
def test_every_sampler_takes_the_ends_of_its_options_and_asks(name: str) -> None:
    """Without a warning; one option at a time, by short name and by class name."""
    space = LISTED if name in ("grid", "brute_force") else WIDE
    texts = [name, SAMPLERS[name].optuna]
    texts += [f"{{name: {name}, {key}: {str(value).lower()}}}"
              for key, option in SAMPLERS[name].options.items() for value in ends(option)]  # fmt: skip
    for text in texts:
        spec = study_of(text, space=space)
        study = optuna.create_study(sampler=make_sampler(spec, 1))
        assert set(study.ask(distributions(spec.search_space)).params) == set(spec.search_space)


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_takes_the_ends_of_its_options(name: str) -> None:
    """Without a warning; one option at a time, by short name and by class name."""
    needed = {"percentile": {"percentile": 25.0}, "patient": {"patience": 2}, "threshold": {"lower": 0.5}}.get(name, {})
    entries = [{"name": name, **needed}, {"name": PRUNERS[name].optuna, **needed}]
    for key, option in PRUNERS[name].options.items():
        entries += [{"name": name, **needed, key: value} for value in ends(option)]
    for entry in entries:
        text = "{" + ", ".join(f"{key}: {value}" for key, value in entry.items()) + "}"
        assert type(make_pruner(study_of(pruner=text))).__name__ == PRUNERS[name].optuna


def test_pruners_get_their_options() -> None:
    """A patient pruner can wrap another."""
    wrapped = "{name: median, n_startup_trials: 1}"
    patient = make_pruner(study_of(pruner=f"{{name: patient, patience: 2, wrapped_pruner: {wrapped}}}"))
    assert isinstance(vars(patient)["_wrapped_pruner"], optuna.pruners.MedianPruner)
    assert vars(make_pruner(study_of(pruner="{name: patient, patience: 2}")))["_wrapped_pruner"] is None


@pytest.mark.parametrize(("epochs", "most"), [
    ("epochs: 900", 900), ("epochs: 7", 7), ("use_bias: true", 1), ("solver: als", 100),
    ("solver: mcmc, epochs: 30", 30),
])  # fmt: skip
def test_auto_follows_from_the_files_most_epochs(epochs: str, most: int) -> None:
    """Hyperband's largest and successive halving's smallest number, left out or auto, also inside patient."""
    text = TEXT.replace("epochs: 9", epochs)

    def made(pruner: str) -> dict[str, Any]:
        return vars(make_pruner(parse(text.format(space="{num_factors: 2..8}", sampler="tpe", pruner=pruner))))

    for pruner in ("hyperband", "{name: hyperband, max_resource: auto}"):
        assert made(pruner)["_max_resource"] == most
    for pruner in ("successive_halving", "{name: successive_halving, min_resource: auto}"):
        assert made(pruner)["_min_resource"] == max(1, most // 100)
        wrapped = made(f"{{name: patient, patience: 2, wrapped_pruner: {pruner}}}")["_wrapped_pruner"]
        assert vars(wrapped)["_min_resource"] == max(1, most // 100)
    assert made("{name: hyperband, max_resource: 5}")["_max_resource"] == 5
    assert made("{name: successive_halving, min_resource: 3}")["_min_resource"] == 3
    # Optuna's own auto goes with no bootstrap_count, for it is not known before a trial has ended; ours is.
    for pruner in ("successive_halving", "hyperband, max_resource: auto"):
        assert made(f"{{name: {pruner}, bootstrap_count: 2}}")["_bootstrap_count"] == 2


@pytest.mark.parametrize("warmup", [None, 0, 1, 3])
@pytest.mark.parametrize("name", [name for name, row in PRUNERS.items() if "n_warmup_steps" in row.options])
def test_so_many_epochs_at_the_start_are_never_pruned(name: str, warmup: int | None) -> None:
    """The next one is, of a trial that is the worst from the first on; by whichever pruner."""
    needed = {"percentile": ", percentile: 25.0", "threshold": ", upper: 5.0"}.get(name, ", n_startup_trials: 1")
    given = "" if warmup is None else f", n_warmup_steps: {warmup}"
    pruner = make_pruner(study_of(pruner=f"{{name: {name}{needed}{given}}}"))
    study = optuna.create_study()
    for _ in range(5):
        study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values=dict.fromkeys(range(1, 10), 1.0)))
    trial = study.ask()
    for epoch in range(1, 10):
        trial.report(9.0, epoch)
        assert pruner.prune(study, study.trials[-1]) == (epoch > (warmup or 0))


@pytest.mark.parametrize("name", ["random", "tpe", "qmc", "grid"])
def test_a_trial_is_asked_the_same_whatever_sampler_object_asked_before(name: str) -> None:
    """A sampler made anew for trial n gives what one that lived through all trials' seeds would."""
    space = LISTED if name == "grid" else WIDE
    spec = study_of(name, space=space)
    straight, resumed = (_run(spec, stops) for stops in ((), (2, 3, 5)))
    assert straight == resumed
    assert len({str(params) for params in straight}) > 4


@pytest.mark.parametrize("name", ["grid", "brute_force"])
def test_a_walk_takes_every_combination_once(name: str) -> None:
    """Six trials, six combinations, in an order that follows from the study's seed."""
    spec = study_of(name, space=LISTED)
    assert len({str(sorted(p.items())) for p in _run(spec, ())}) == 6
    orders = {tuple(str(Walk(spec.search_space, seed).point(n)) for n in range(6)) for seed in range(5)}
    assert len(orders) > 1
    walk = Walk(spec.search_space, 0)
    assert walk.point(6) == walk.point(0)


def test_quasi_random_trials_are_one_sequence() -> None:
    """Eight Sobol points fall into eight different eighths of a log range, from the first trial on."""
    spec = study_of("qmc", space="{linear_lr: 1e-8..1 log}")
    rates = [params["linear_lr"] for params in _run(spec, (), trials=8)]
    assert len({math.floor(-math.log10(rate)) for rate in rates}) == 8


@pytest.mark.parametrize("name", [n for n, row in SAMPLERS.items() if row.package is not None])
def test_a_sampler_that_needs_a_package_says_so(name: str) -> None:
    """Made where the package is there, else refused with the name that pip knows."""
    package = SAMPLERS[name].package
    assert package is not None
    if importlib.util.find_spec(package):
        assert type(make_sampler(study_of(name), 1)).__name__ == SAMPLERS[name].optuna
        return
    with pytest.raises(ResourceError) as caught:
        make_sampler(study_of(name), 1)
    assert caught.value.what == f"the sampler {name} needs the package {package}"
    assert caught.value.hint == f"pip install {package}"


def test_what_is_installed_is_not_asked_for() -> None:
    """Nothing is needed, or it is there."""
    require(None, "x")
    require("optuna", "x")


def test_names_of_optuna_are_known() -> None:
    """Short names, class names, nothing else."""
    assert short_name(SAMPLERS, "TPESampler") == "tpe"
    assert short_name(PRUNERS, "none") == "none"
    assert short_name(PRUNERS, "TPESampler") is None


def _class(name: str) -> Any:
    places = (optuna.samplers, optuna.pruners, fmtune.tune.pruners)
    return next(getattr(place, name) for place in places if hasattr(place, name))


def _run(spec: Spec, stops: tuple[int, ...], trials: int = 6) -> list[dict[str, Any]]:
    """Ask, score and tell; at each stop the study is rebuilt from its finished trials."""
    logging.getLogger("optuna").setLevel(logging.WARNING)
    study = optuna.create_study(study_name="s")
    for number in range(trials):
        if number in stops:
            old, study = study, optuna.create_study(study_name="s")
            study.add_trials(old.trials)
        study.sampler = make_sampler(spec, 100 + number)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trial = study.ask(distributions(spec.search_space))
            study.tell(trial, float(trial.params.get("num_factors", 1)))
    return [trial.params for trial in study.trials]
