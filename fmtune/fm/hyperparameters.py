"""Hyperparameters: one configuration of a factorization machine, under SageMaker's own names.

``PARAMETERS`` is the one table of names, types, ranges and defaults; the study file, the command line
and the JSON Schema are made from it.  What SageMaker has not (``optimizer``, ``seed``, ``shuffle``,
``lazy``, ``patience``, the L1 penalties) is named in the same style.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from fmtune.errors import UsageError

Value = int | float | str | bool | None


class Parameter(NamedTuple):
    """One row of ``PARAMETERS``: its type, default, lowest and highest value, choices and meaning."""

    type: type
    default: Value
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    help: str
    open_low: bool = False
    optional: bool = False

    @property
    def values(self) -> str:
        """What it may be, in words: ``whole number, from 0, to 65,536``."""
        if self.choices or self.type is bool:
            return ", ".join(self.choices or ("true", "false"))
        kind = {int: "whole number", float: "number"}[self.type]
        low = "" if self.low is None else f", {'above' if self.open_low else 'from'} {self.low:g}"
        return kind + low + ("" if self.high is None else f", to {self.high:,.0f}")


def _int(default: int, low: int, text: str, high: int | None = None) -> Parameter:
    return Parameter(int, default, low, high, (), text)


def _rate(default: float | None, text: str, *, low: float | None = 0.0, open_low: bool = False) -> Parameter:
    return Parameter(float, default, low, None, (), text, open_low, default is None)


def _one_of(default: str, choices: tuple[str, ...], text: str) -> Parameter:
    return Parameter(str, default, None, None, choices, text)


def _flag(default: bool, text: str) -> Parameter:
    return Parameter(bool, default, None, None, (), text)


_SWEEPS = 100

_INIT = ("normal", "uniform", "constant")

SOLVERS = {
    "sgd": "fmtune.fm.pack:Pack",
    "als": "fmtune.fm.als:Als",
    "mcmc": "fmtune.fm.mcmc:Mcmc",
}
"""Solver -> where its class is, which is imported when it is first used; see :mod:`fmtune.fm.solvers`."""


def cpu_only(solvers: Iterable[str], optimizers: Iterable[str]) -> tuple[str, ...]:
    """Return which of these no card does, in words."""
    swept = tuple(f"solver {solver}" for solver in solvers if solver != "sgd")
    return swept + tuple(f"optimizer {rule}" for rule in optimizers if rule == "rowwise_adagrad")

PARAMETERS: dict[str, Parameter] = {
    "predictor_type": _one_of(
        "regressor", ("regressor", "binary_classifier"), "squared loss, or log loss of labels 0 and 1"
    ),
    "solver": _one_of(
        "sgd", tuple(SOLVERS), "gradients in mini-batches, coordinate descent, or Gibbs sampling"
    ),
    "num_factors": _int(16, 0, "length of each feature's factor vector; 0 is a linear model", 65536),
    "epochs": _int(1, 1, "passes over the train channel", 1_000_000),
    "mini_batch_size": _int(1000, 1, "rows of one update", 2**24),
    "bias_lr": _rate(0.1, "learning rate of the bias"),
    "linear_lr": _rate(0.001, "learning rate of the linear weights"),
    "factors_lr": _rate(0.0001, "learning rate of the factors"),
    "lr_schedule": _one_of(
        "constant", ("constant", "linear", "cosine"), "how learning rates fall over the epochs; ftrl keeps its own"
    ),
    "lr_warmup": _int(0, 0, "epochs over which learning rates rise to their full value", 1_000_000),
    "average_last": _int(1, 1, "the model is the mean over so many last epochs; 1 is the last alone", 1000),
    "positive_weight": _rate(1.0, "weight of each row with label 1; binary_classifier only", open_low=True),
    "bias_wd": _rate(0.01, "weight decay (L2) of the bias"),
    "linear_wd": _rate(0.001, "weight decay (L2) of the linear weights"),
    "factors_wd": _rate(0.00001, "weight decay (L2) of the factors"),
    "bias_init_method": _one_of("normal", _INIT, "distribution of the first bias"),
    "bias_init_sigma": _rate(0.01, "standard deviation, for normal"),
    "bias_init_scale": _rate(0.01, "half width, for uniform"),
    "bias_init_value": _rate(0.0, "the value, for constant", low=None),
    "linear_init_method": _one_of("normal", _INIT, "distribution of the first linear weights"),
    "linear_init_sigma": _rate(0.01, "standard deviation, for normal"),
    "linear_init_scale": _rate(0.01, "half width, for uniform"),
    "linear_init_value": _rate(0.0, "the value, for constant", low=None),
    "factors_init_method": _one_of("normal", _INIT, "distribution of the first factors"),
    "factors_init_sigma": _rate(0.001, "standard deviation, for normal"),
    "factors_init_scale": _rate(0.001, "half width, for uniform"),
    "factors_init_value": _rate(0.0, "the value, for constant", low=None),
    "clip_gradient": _rate(
        None, "largest absolute value of a gradient, after rescaling and decay; none is off", open_low=True
    ),
    "eps": _rate(
        None, "added to the denominator of the update; none is the rule's own (1e-8, or ftrl's beta, 1)", open_low=True
    ),
    "rescale_grad": _rate(None, "factor of a batch's summed gradient; none is 1 / mini_batch_size", open_low=True),
    "use_bias": _flag(True, "train the bias; off, it stays 0"),
    "use_linear": _flag(True, "train the linear weights; off, they stay 0"),
    "optimizer": _one_of(
        "adam", ("adam", "adagrad", "sgd", "ftrl", "rowwise_adagrad"),
        "update rule; adam is SageMaker's, rowwise_adagrad keeps one sum for all of a feature's factors",
    ),
    "linear_l1": _rate(0.0, "L1 penalty of the linear weights, which makes some exactly 0; ftrl only"),
    "factors_l1": _rate(0.0, "L1 penalty of the factors, which makes some exactly 0; ftrl only"),
    "lazy": _flag(True, "leave features alone that a mini-batch does not touch"),
    "exact": _flag(
        True, "dense rows: products in float32; off, faster ones: tf32 on a card, bfloat16 on a CPU that has it"
    ),
    "shuffle": _one_of(
        "once",
        ("once", "epoch", "none"),
        "one order for all epochs, a new one each epoch, or the file's own",
    ),
    "patience": _int(0, 0, "stop after so many epochs without a better test score and keep the best epoch; 0 is off"),
    "seed": _int(0, 0, "seed of the initial values", 2**63 - 1),
    "shuffle_seed": _int(0, 0, "seed of the shuffle; models that share it see the rows in the same order", 2**63 - 1),
    "pad_last_batch": _flag(
        False, "fill the last mini-batch with empty rows of label 0, as SageMaker does; they pull at the bias"
    ),
}


@dataclass(frozen=True)
class Hyperparameters:
    """One configuration; fields and defaults as in ``PARAMETERS``, SageMaker's where it has one.

    Raises
    ------
    UsageError
        A value has the wrong type or lies outside its range.
    """

    predictor_type: str = "regressor"
    solver: str = "sgd"
    num_factors: int = 16
    epochs: int = 1
    mini_batch_size: int = 1000
    bias_lr: float = 0.1
    linear_lr: float = 0.001
    factors_lr: float = 0.0001
    lr_schedule: str = "constant"
    lr_warmup: int = 0
    average_last: int = 1
    positive_weight: float = 1.0
    bias_wd: float = 0.01
    linear_wd: float = 0.001
    factors_wd: float = 0.00001
    bias_init_method: str = "normal"
    bias_init_sigma: float = 0.01
    bias_init_scale: float = 0.01
    bias_init_value: float = 0.0
    linear_init_method: str = "normal"
    linear_init_sigma: float = 0.01
    linear_init_scale: float = 0.01
    linear_init_value: float = 0.0
    factors_init_method: str = "normal"
    factors_init_sigma: float = 0.001
    factors_init_scale: float = 0.001
    factors_init_value: float = 0.0
    clip_gradient: float | None = None
    eps: float | None = None
    rescale_grad: float | None = None
    use_bias: bool = True
    use_linear: bool = True
    optimizer: str = "adam"
    linear_l1: float = 0.0
    factors_l1: float = 0.0
    lazy: bool = True
    exact: bool = True
    shuffle: str = "once"
    patience: int = 0
    seed: int = 0
    shuffle_seed: int = 0
    pad_last_batch: bool = False

    def __post_init__(self) -> None:
        for name in PARAMETERS:
            object.__setattr__(self, name, check(name, getattr(self, name)))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Hyperparameters:
        """Return ``values`` over the defaults; an unknown name is an error with a suggestion.

        ``epochs`` is 100 by default for a solver that sweeps.
        """
        for name in values:
            known(name)
        # Sweeps need more than the one pass that is SageMaker's default.
        sweeps = {"epochs": _SWEEPS} if values.get("solver", "sgd") != "sgd" else {}
        return cls(**{**sweeps, **values})

    def replace(self, **values: Any) -> Hyperparameters:
        """Return a copy with some values changed."""
        return replace(self, **values)

    def changed(self) -> dict[str, Value]:
        """Return the values that differ from the defaults, in the table's order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


_ELSEWHERE = {
    ("lr", "learning_rate", "eta", "alpha", "step_size"): ("linear_lr", "factors_lr"),
    ("wd", "weight_decay", "l2", "reg", "reg_lambda", "lambda", "regularization"): ("linear_wd", "factors_wd"),
    ("l1",): ("linear_l1", "factors_l1"),
    ("k", "rank", "dim", "embedding_dim", "n_factors", "latent_dim"): ("num_factors",),
    ("n_iter", "max_iter", "iterations", "n_epochs"): ("epochs",),
    ("batch", "batch_size", "minibatch_size"): ("mini_batch_size",),
    ("sigma", "init_stdev", "init_std"): ("factors_init_sigma",),
    ("random_state", "random_seed"): ("seed",),
    ("early_stopping", "early_stopping_rounds"): ("patience",),
    ("task", "loss"): ("predictor_type",),
}  # fmt: skip
"""Names that other libraries have for what is meant by some of ``PARAMETERS``."""


def meant(name: str, among: Collection[str] = PARAMETERS) -> str:
    """Return `` (did you mean 'linear_lr' or 'factors_lr'?)`` for another library's or a misspelt name, or nothing."""
    others = next((own for words, own in _ELSEWHERE.items() if name.lower() in words), ())
    near = [own for own in others if own in among] or difflib.get_close_matches(name[:100], among, 1)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def known(name: str) -> Parameter:
    """Return the row of ``PARAMETERS`` of that name.

    Raises
    ------
    UsageError
        There is none; the nearest name is suggested.
    """
    if name not in PARAMETERS:
        raise UsageError(f"unknown parameter {name!r}{meant(name)}")
    return PARAMETERS[name]


def check(name: str, value: Any) -> Value:
    """Return ``value`` as the parameter's type.

    Raises
    ------
    UsageError
        Not of that type, not finite, out of range, or not one of the choices.
    """
    row = known(name)
    if value is None and row.optional:
        return None
    if row.type is bool:
        if not isinstance(value, bool):
            raise UsageError(f"{name} must be true or false, not {value!r}")
        return value
    if row.type is str:
        if value not in row.choices:
            raise UsageError(f"{name} must be one of {', '.join(row.choices)}, not {value!r}")
        return str(value)
    return _number(name, row, value)


def _number(name: str, row: Parameter, value: Any) -> int | float:
    wanted = "a whole number" if row.type is int else "a number"
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
        item = getattr(value, "item", None)  # numpy's scalars
        if item is None:
            raise UsageError(f"{name} must be {wanted}, not {value!r}")
        return _number(name, row, item())
    if not math.isfinite(value) or (row.type is int and value != int(value)):
        raise UsageError(f"{name} must be {wanted}, not {value!r}")
    hint = f"{name}: {row.help}"
    if row.low is not None and (value < row.low or (row.open_low and value <= row.low)):
        least = "above" if row.open_low else "at least"
        raise UsageError(f"{name} must be {least} {row.low:g}, not {value!r}", hint=hint)
    if row.high is not None and value > row.high:
        raise UsageError(f"{name} must be at most {row.high:g}, not {value!r}", hint=hint)
    return int(value) if row.type is int else float(value)
