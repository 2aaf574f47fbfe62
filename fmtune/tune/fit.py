"""Fit: one model of what a caller from Python gives, and what it predicts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fmtune.data.columns import Columns
from fmtune.data.source import DataWarning
from fmtune.data.split import Split
from fmtune.errors import UsageError
from fmtune.fm import draws
from fmtune.fm.fit import Fit, default_objective, train
from fmtune.fm.hyperparameters import Hyperparameters, cpu_only
from fmtune.fm.metrics import Array
from fmtune.fm.model import Model
from fmtune.fm.pack import predict as score_rows
from fmtune.machine import cores
from fmtune.tune import remarks
from fmtune.tune.devices import choose
from fmtune.tune.given import Data, as_channels, rows_for, tables


def fit(
    train_data: Data, test: Data | float | None = None, *, label: str | None = None,
    columns: Mapping[str, Any] | None = None, by: str | None = None, group: str | None = None,
    layout: str | None = None, objective: str | None = None,
    groups: Mapping[str, Any] | Sequence[int] | None = None, threads: int | None = None, device: str = "cpu",
    **hyperparameters: Any,
) -> Fit:  # fmt: skip
    """Train one model.

    Parameters
    ----------
    train_data, test
        Rows, ``(X, y)``, or files; of tables, ``test`` may be a share of the rows.
    label
        The label's column, where the files are tables; the model then knows their columns.
    columns
        What the others are, as in a study file: ``{"categorical": ["user"], "numeric": ["age"]}``; by default what a
        look at the first rows suggests.
    by, group
        Columns by which a share is divided: by time, or by whole groups.
    layout
        ``sparse`` or ``dense``; by default the data's own.
    objective
        The metric that ``patience`` and the curve go by.
    groups
        Runs of features with priors (mcmc) or weight decay (als) of their own: name to first feature.
    threads
        How many a sweep of als or mcmc takes, one a core by default; the model does not depend on it.
    device
        ``cpu``, ``gpu``, or ``auto``: a card if there is one that can be used.
    **hyperparameters
        As in ``fmtune.fm.hyperparameters.PARAMETERS``.

    Returns
    -------
    Fit
        The model, its test metrics and its curve.
    """
    h = Hyperparameters.of(hyperparameters)
    binary, encoder = h.predictor_type == "binary_classifier", None
    if label is not None:
        split = Split(test if isinstance(test, float) else 0.0, by=by, group=group)
        train_data, test, encoder = tables(train_data, test, Columns.of(label, columns or {}), split, binary)
        groups = groups or encoder.groups()
    elif columns or by or group or isinstance(test, float):
        raise UsageError("columns and shares are of tables", hint="name their label: label=COLUMN")
    channels = as_channels(train_data, test, binary, groups)
    metric = None if objective is None else objective.removeprefix("test:")
    remarks.of_classes(channels, hyperparameters)
    if h.patience and test is None:
        warnings.warn(
            f"patience has no test rows to watch, so all {h.epochs} epochs are trained; "
            "give test, or the number of epochs that was best",
            DataWarning, stacklevel=2,
        )  # fmt: skip
    many = threads or cores()
    layout = layout or channels.train.layout
    where = choose(device, layout, cpu_only((h.solver,), (h.optimizer,)))
    done = train(channels, h, layout=layout, device=where, objective=metric, threads=many)
    if done.curve:
        remarks.of_score(channels, metric or default_objective(h.predictor_type), done.curve[done.best_epoch - 1])
    if encoder is None:
        return done
    return replace(done, model=replace(done.model, facts={**done.model.facts, "encoding": encoder.to_json()}))


def predict(model: Model, data: Any) -> Array:
    """Return predictions, float32 (n,): the value, or the probability of label 1.

    Parameters
    ----------
    model
        As :func:`fit` gives it, or ``Model.load``.
    data
        Rows, a SciPy matrix or an array (n, features), or files; where the model knows the columns of a table, a data
        frame of pandas, polars or pyarrow too.

    Raises
    ------
    DataError, UsageError
        The data cannot be read, or have features that the model has not.
    """
    return score_rows(model, rows_for(model, data))


def predict_interval(model: Model, data: Any, level: float = 0.9) -> tuple[Array, Array]:
    """Return the ends of each row's central interval, float32 (n,) each; the model is one of ``solver="mcmc"``.

    Of a regressor: where a new label lies with probability ``level``.  Of a classifier: where the probability of
    label 1 lies.  Data and errors as in :func:`predict`.
    """
    return draws.interval(model, rows_for(model, data), level)
