"""Fit: one configuration trained to its end, as a pack of one lane, scored on the test channel after each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import DataError, FmtuneError, UsageError
from fmtune.fm.feed import Feed, Recipe, as_layout
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS, Array, evaluate
from fmtune.fm.model import Model
from fmtune.fm.numbering import MANY
from fmtune.fm.pack import Pack, score
from fmtune.fm.solvers import Make, trainer
from fmtune.notebook import table
from fmtune.rows import Rows


class Diverged(FmtuneError):
    """The parameters or scores are no longer finite."""

    exit_code = 6

    def __init__(self, epoch: int, solver: str = "sgd") -> None:
        hint = "lower the learning rates, or set clip_gradient"
        if solver != "sgd":  # has no rates
            hint = "look for columns or labels of very large numbers, or of none, and scale them"
        super().__init__(f"diverged at epoch {epoch}", hint=hint)
        self.epoch = epoch


@dataclass(frozen=True, eq=False)
class Fit:
    """What a training came to.

    Attributes
    ----------
    model : Model
        As it stood after ``epochs``.
    curve : tuple of float
        The objective on the test channel after each epoch; empty without a test channel.
    best_epoch : int
        1-based: the first of the best on the curve; without a test channel the last.
    epochs : int
        How many the model has learnt for: all, or with ``patience`` as many as were best.
    metrics : dict
        All test metrics of the model, by SageMaker's names.
    seconds : float
        Time inside the passes.
    """

    model: Model
    curve: tuple[float, ...]
    best_epoch: int
    epochs: int
    metrics: dict[str, float]
    seconds: float

    def _repr_html_(self) -> str:
        return table(f"a fit of {self.model!r}", {
            "metrics": self.metrics or None, "epochs": self.epochs, "best epoch": self.best_epoch,
            "seconds": self.seconds, "curve": ", ".join(f"{value:.5g}" for value in self.curve) or None,
        })  # fmt: skip


@dataclass
class Progress:
    """A trial's scores so far, and what ``patience`` makes of them.

    ``value`` is the last epoch's score, or with patience the best epoch's.
    """

    direction: str
    patience: int = 0
    curve: list[float] = field(default_factory=list)

    def add(self, score: float) -> bool:
        """Take the score of the next epoch; returns whether patience has run out."""
        self.curve.append(score)
        return self.patience > 0 and len(self.curve) - self.best_epoch >= self.patience

    @property
    def best_epoch(self) -> int:
        """The first epoch (1-based) of the best score; 0 before the first."""
        return best_epoch(self.curve, self.direction)

    @property
    def epochs(self) -> int:
        """The epoch (1-based) that ``value`` belongs to: the last, or with patience the best."""
        return self.best_epoch if self.patience else len(self.curve)

    @property
    def value(self) -> float:
        """The score that counts."""
        return self.curve[self.epochs - 1]


def best_epoch(curve: Sequence[float], direction: str) -> int:
    """Return the first epoch (1-based) of a curve's best score; 0 of an empty one."""
    if not curve:
        return 0
    return curve.index(min(curve) if direction == "minimize" else max(curve)) + 1


class Channels:
    """Train and test rows in whatever layout is asked for, converted and cut into mini-batches at most once.

    Parameters
    ----------
    train, test
        Rows with labels; ``test`` may be None where nothing is selected.
    groups
        Which features belong together.
    units
        Which test rows do, int64 (n,): groups of a split, from 0 up; None where each row is one of its own.

    Raises
    ------
    DataError
        A channel is empty or has no labels, or the test channel has features that train has not.
    """

    def __init__(
        self, train: Rows, test: Rows | None = None, groups: Groups | None = None,
        units: NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        if test is not None and test.feature_dim > train.feature_dim:
            raise DataError(f"it has {test.feature_dim} features, train {train.feature_dim}", where="test",
                            hint="give feature_dim, so that train has them too")  # fmt: skip
        if test is not None and (test.labels is None or test.n == 0):
            raise DataError("it has no labels or no rows", where="test")
        self.groups, self.units = groups, units
        self.train, self.feed = train, Feed(train, groups=groups, many=MANY)
        self._test = None if test is None else test.widen(train.feature_dim)
        self._layouts: dict[str, Rows] = {} if self._test is None else {self._test.layout: self._test}

    def test(self, layout: str) -> Rows | None:
        """Return the test rows in a layout."""
        return None if self._test is None else as_layout(self._test, layout, self._layouts)

    @property
    def test_labels(self) -> Array:
        """Labels of the test rows, float32 (n,)."""
        if self._test is None or self._test.labels is None:
            raise DataError("there is no test channel", hint="name one: the objective is computed on it")
        return self._test.labels


def default_objective(predictor_type: str) -> str:
    """Return the metric that SageMaker tunes first: rmse, or log loss."""
    return "rmse" if predictor_type == "regressor" else "binary_classification_cross_entropy"


def train(
    channels: Channels,
    hyperparameters: Hyperparameters,
    *,
    layout: str = "sparse",
    device: str = "cpu",
    objective: str | None = None,
    report: Callable[[int, float], bool] | None = None,
    stop: Callable[[], bool] | None = None,
    threads: int = 1,
    epochs: int | None = None,
    start: Model | None = None,
    make: Make = trainer,
) -> Fit:
    """Train one model.

    Parameters
    ----------
    channels
        Train and, if any, test rows.
    hyperparameters
        The configuration.
    layout
        ``sparse`` or ``dense``.
    device
        ``cpu`` or ``gpu``.
    objective
        A name of ``METRICS``; by default log loss or RMSE.
    report
        Called with the epoch (1-based) and the test score; True ends the training there.
    stop
        Asked a few times a second; True raises :class:`~fmtune.fm.pack.Stopped`.
    threads
        How many a sweep of als or mcmc may take; the result does not depend on it.
    epochs
        After how many to stop; by default all of ``hyperparameters.epochs``, which schedules go by.
    start
        A model to go on from, in place of the first values that ``hyperparameters`` say; of solver sgd.
    make
        Makes what trains; by default this process does.

    Raises
    ------
    DataError
        The objective compares two classes, and the test channel has one.
    Diverged
        Parameters or scores are no longer finite.
    """
    h = hyperparameters
    metric = METRICS[objective or default_objective(h.predictor_type)]
    test = channels.test(layout)
    if test is not None and objective == "auc" and len(found := np.unique(channels.test_labels)) == 1:
        raise DataError(f"every label is {found[0]:g}, and auc compares two", where="test",
                        hint="take a test channel with both labels, or another objective")  # fmt: skip
    pack = make(channels.feed, Recipe.of(h, layout, device), threads)
    (lane,) = pack.change(enter=[h])
    if start is not None:
        if not isinstance(pack, Pack):
            raise UsageError(f"solver {h.solver} does not go on from a model", hint="use solver sgd")
        pack.load(lane, start)
    progress, seconds, best = Progress(metric.direction, h.patience), 0.0, None
    for epoch in range(1, (epochs or h.epochs) + 1):
        pack.epoch(stop)
        seconds += pack.seconds
        if test is None:
            continue
        value = metric.compute(pack.score(test)[0], channels.test_labels)
        if not math.isfinite(value):
            raise Diverged(epoch, h.solver)
        tired = progress.add(value)
        if h.patience and progress.best_epoch == epoch:
            best = pack.model(lane)
        if (report is not None and report(epoch, value)) or tired:
            break
    model, last = best or pack.model(lane), lane.epochs
    # Scores take a copy of the model, for which the lane makes room.
    del pack, lane
    if not (np.isfinite(model.factors).all() and np.isfinite(model.linear).all() and math.isfinite(model.bias)):
        raise Diverged(last, h.solver)
    metrics: dict[str, float] = {}
    if test is not None:
        metrics = evaluate(score(model, test), channels.test_labels, h.predictor_type)
    return Fit(
        model, tuple(progress.curve), progress.best_epoch or last, progress.epochs or last, metrics, seconds
    )  # fmt: skip
