"""Effect: which searched parameters move nothing, whatever else a trial of the study is given.

Such a dimension costs trials, for the sampler cannot know.  Fixed values without effect are let be: a SageMaker job
names many of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from fmtune.fm.hyperparameters import PARAMETERS, SOLVERS, Value
from fmtune.tune.dimension import Dimension
from fmtune.tune.places import Wrong, shown

_DECAYS = ("bias_wd", "linear_wd", "factors_wd")
# What a solver that sweeps reads; the rest is of sgd's passes.
_OF_SWEEPS = ("predictor_type", "solver", "num_factors", "epochs", "positive_weight", *_DECAYS, "use_bias",
              "use_linear", "patience", "seed")  # fmt: skip
_METHODS = {"sigma": "normal", "scale": "uniform", "value": "constant"}


def _but(name: str, *wanted: str) -> tuple[Value, ...]:
    return tuple(choice for choice in PARAMETERS[name].choices if choice not in wanted)


def _named(start: str) -> tuple[str, ...]:
    return tuple(name for name in PARAMETERS if name.startswith(start))


# Parameters, another one, and the values of that one with which they move nothing.
_VAIN: list[tuple[tuple[str, ...], str, tuple[Value, ...]]] = [
    (tuple(name for name in PARAMETERS if name not in _OF_SWEEPS), "solver", tuple(s for s in SOLVERS if s != "sgd")),
    ((*_DECAYS, "positive_weight"), "solver", ("mcmc",)),
    (("linear_l1", "factors_l1"), "optimizer", _but("optimizer", "ftrl")),
    (("lr_schedule", "lr_warmup"), "optimizer", ("ftrl",)),
    (("eps",), "optimizer", ("sgd",)),
    (("shuffle_seed",), "shuffle", ("none",)),
    (("positive_weight",), "predictor_type", ("regressor",)),
    (_named("bias_"), "use_bias", (False,)),
    (_named("linear_"), "use_linear", (False,)),
    (_named("factors_"), "num_factors", (0,)),
    *(
        ((f"{array}_init_{key}",), f"{array}_init_method", _but(f"{array}_init_method", method))
        for array in ("bias", "linear", "factors") for key, method in _METHODS.items()
    ),
]  # fmt: skip


def idle(space: Mapping[str, Dimension], fixed: Mapping[str, Value], wrong: Collection[str] = ()) -> Iterator[Wrong]:
    """Yield the searched parameters that no trial can use, each with the first reason why.

    Parameters
    ----------
    space, fixed
        What is searched, and what all trials have in common.
    wrong
        Names that the file gives and that have no sound value: nothing follows from them.
    """
    for name in space:
        for names, other, vain in _VAIN:
            if name not in names or other in wrong:
                continue
            values = _values(other, space, fixed)
            if not values or not set(values) <= set(vain):
                continue
            default = "" if other in space or other in fixed else ", its default"
            what = f"{name} has no effect: {other} is {' or '.join(map(shown, values))}{default}"
            yield Wrong((name,), what, _hint(other, vain), key=True)
            break


def told(space: Mapping[str, Dimension], fixed: Mapping[str, Value], wrong: Collection[str] = ()) -> Iterator[str]:
    """Yield what is to be said of :func:`idle`: a warning and no fault, since a study may have begun with it."""
    for vain in idle(space, fixed, wrong):
        yield f"search_space: {vain.what}; {vain.hint}"


def _values(name: str, space: Mapping[str, Dimension], fixed: Mapping[str, Value]) -> tuple[Value, ...]:
    """Return what a parameter may be, nothing where that is a range."""
    if name in space:
        return space[name].choices or ()
    return (fixed.get(name, PARAMETERS[name].default),)


def _hint(other: str, vain: tuple[Value, ...]) -> str:
    # What follows from the objective is not to be let be anything.
    wanted = () if other == "predictor_type" else _but(other, *map(str, vain))
    return f"leave it out, or let {other} be {' or '.join(map(str, wanted))}" if wanted else "leave it out"
