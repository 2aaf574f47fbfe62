"""Modelfile: a trial's model as a file, with the facts that let it be scored, served and exported by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fmtune import __version__
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.tune.channels import StudyData
from fmtune.tune.spec import Spec


def save(
    model: Model, path: Path, spec: Spec, data: StudyData, h: Hyperparameters, *, trial: int, value: float,
    epochs: int, metrics: dict[str, float],
) -> None:  # fmt: skip
    """Write a trial's model to a file, whole or not at all.

    Parameters
    ----------
    model
        As it stood after ``epochs``.
    spec, data
        The study and its rows, whose encoder goes along.
    h
        The trial's configuration.
    trial, value
        Its number and its score, which with several seeds is their mean.
    metrics
        All test metrics of this very model.

    Raises
    ------
    ResourceError
        The place cannot be written.
    """
    facts: dict[str, Any] = {
        "study_name": spec.study_name, "trial": trial, "objective": spec.objective, "value": value,
        # The epochs are counted already: who trains it again is not to stop before.
        "hyperparameters": h.replace(patience=0).changed(), "metrics": metrics, "epochs": epochs,
        "data": data.description, "train_digest": data.stats["train"]["digest"], "version": __version__,
        "index_base": data.index_base,
    }  # fmt: skip
    if data.encoder is not None:
        facts["encoding"] = data.encoder.to_json()
    if data.names:
        facts["names"] = list(data.names)
    replace(model, facts=facts).save(path)
