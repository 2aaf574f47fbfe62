"""MLflow: a model with its signature as an MLflow model, and a finished study as a tree of runs.

The MLflow model is a ``python_function``: it takes a matrix or a data frame with a column a feature and returns
predictions.  MLflow loads it through :func:`_load_pyfunc`, so fmtune must be installed where it is served.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import sqlalchemy as sa
from mlflow.models import Model as MlflowModel
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from fmtune import __version__
from fmtune.errors import StorageError, UsageError
from fmtune.fm.model import Model
from fmtune.fm.scorer import Scorer
from fmtune.rows import DenseRows
from fmtune.tune.places import ambiguous, redacted
from fmtune.tune.result import StudyResult, TrialResult

FILE = "model.fm"

# What MLflow opens itself. It asks a server or a file that does not answer ten times, in half an hour with timeouts.
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")

# Of the first request: whether there is a server. Its own, of 7 more tries and 120 seconds each, are for later ones.
_FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "8"}


class Predictor:
    """What MLflow calls: ``predict`` of a matrix or a data frame, float32 (rows, feature_dim)."""

    def __init__(self, model: Model) -> None:
        self._scorer = Scorer(model)

    def predict(self, features: Any, params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Return predictions, float32 (rows,): the value, or the probability of label 1."""
        matrix = np.ascontiguousarray(np.asarray(features), np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != self._scorer.feature_dim:
            raise UsageError(f"the input has the shape {matrix.shape}, the model {self._scorer.feature_dim} features")
        return self._scorer.predict(DenseRows(matrix, None, matrix.shape[1]))


def _load_pyfunc(path: str) -> Predictor:
    """Return the predictor of a saved model; the name is MLflow's."""
    return Predictor(Model.load(path))


def save(model: Model, folder: Path) -> None:
    """Write an MLflow model into a new folder.

    Raises
    ------
    UsageError
        The folder exists already and holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("the folder is not empty", where=str(folder), hint="name a new one")
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / FILE)
    shape = Schema([TensorSpec(np.dtype(np.float32), (-1, model.feature_dim))])
    found = MlflowModel(signature=ModelSignature(shape, Schema([TensorSpec(np.dtype(np.float32), (-1,))])))
    mlflow.pyfunc.add_to_model(found, loader_module=__name__, data=FILE, pip_requirements=None)
    facts = {k: v for k, v in model.facts.items() if isinstance(v, str | int | float)}
    found.add_flavor("fmtune", fmtune_version=__version__, data=FILE, predictor_type=model.predictor_type, facts=facts)
    (folder / "requirements.txt").write_text(f"fmtune=={__version__}\n")
    found.save(str(folder / "MLmodel"))


def log(result: StudyResult, uri: str, model: Path | None = None) -> str:
    """Write a study as a parent run with a child run a trial; returns the parent's id.

    Parameters
    ----------
    result
        The study.
    uri
        MLflow's tracking address: ``sqlite:///mlflow.db``, ``file:folder`` or a server's.
    model
        The winner's model file; it is logged with the parent.

    Raises
    ------
    StorageError
        It cannot be written there; that nobody answers is known within half a minute.
    """
    try:
        if wrong := ambiguous(uri):
            raise ValueError(wrong)
        _knock(uri)
        client = mlflow.MlflowClient(uri)
        with _first():
            named = client.get_experiment_by_name(result.study_name)
        experiment = named.experiment_id if named else client.create_experiment(result.study_name)
        return _logged(client, experiment, result, model)
    except Exception as error:  # MLflow's stores have no common base
        hint = "check the address, and that its server runs"
        raise StorageError(f"MLflow does not take it: {_words(error)}", where=redacted(uri), hint=hint) from error


def _knock(uri: str) -> None:
    """Connect to a database once; raises what its driver says."""
    if not uri.startswith(_DATABASES):
        return
    url = sa.make_url(uri)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():  # MLflow makes it
        return
    brief = {"connect_timeout": 10} if url.get_backend_name() == "postgresql" else {}
    engine = sa.create_engine(url, connect_args={k: v for k, v in brief.items() if k not in url.query})
    try:
        sa.inspect(engine).get_table_names()
    finally:
        engine.dispose()


@contextmanager
def _first() -> Iterator[None]:
    """Have a request wait briefly, unless the environment says how long."""
    mine = {name: value for name, value in _FIRST.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            del os.environ[name]


def _words(error: BaseException) -> str:
    """Return an error in one line without a password, in the system's words where it began there."""
    inner = error
    while (below := inner.__cause__ or inner.__context__) is not None:
        inner = below
    if isinstance(inner, OSError):
        return inner.strerror or str(inner)
    return redacted(str(error).strip().partition("\n")[0] or type(error).__name__)[:300]


def _logged(client: Any, experiment: str, result: StudyResult, model: Path | None) -> str:
    tags = {"fmtune.objective": result.objective, "fmtune.data": result.data, "fmtune.version": __version__}
    parent = client.create_run(experiment, run_name=result.study_name, tags=tags).info.run_id
    for name, value in result.fixed.items():
        client.log_param(parent, name, value)
    for cell in result.cells:
        for trial in cell.trials:
            _trial(client, experiment, parent, f"{cell.name}/{trial.number}", trial, result.objective)
    best = result.best
    if best is not None and best.value is not None:
        client.log_metric(parent, result.objective.replace(":", "_"), best.value)
        for name, value in best.params.items():
            client.log_param(parent, f"best.{name}", value)
    if model is not None and model.exists():
        client.log_artifact(parent, str(model))
    client.set_terminated(parent)
    return str(parent)


def _trial(client: Any, experiment: str, parent: str, name: str, trial: TrialResult, objective: str) -> None:
    tags = {"mlflow.parentRunId": parent, "fmtune.state": trial.state, "fmtune.reason": trial.reason or ""}
    run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    metric = objective.replace(":", "_")
    # One request a trial, not one an epoch.
    client.log_batch(
        run,
        params=[mlflow.entities.Param(k, str(v)) for k, v in trial.params.items()],
        metrics=[mlflow.entities.Metric(metric, v, 0, step) for step, v in enumerate(trial.curve, 1)],
    )
    client.set_terminated(run, "FAILED" if trial.state == "FAIL" else "FINISHED")
