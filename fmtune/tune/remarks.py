"""Remarks: what a caller from Python is told of labels, ranges and scores, as warnings at his own line."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from fmtune.data.labels import are_binary
from fmtune.data.source import DataWarning
from fmtune.fm.fit import Channels
from fmtune.fm.hyperparameters import Value
from fmtune.fm.metrics import constant, unlearned
from fmtune.tune import effect
from fmtune.tune.dimension import Dimension


def of_classes(channels: Channels, hyperparameters: Mapping[str, Any]) -> None:
    """Say so where nobody asked for a regressor, and labels are those of two classes."""
    labels = channels.train.labels
    assert labels is not None
    signs = bool((np.abs(labels) == 1).all() and 0 < float((labels > 0).mean()) < 1)
    if "predictor_type" not in hyperparameters and (signs or are_binary(labels)):
        warnings.warn(
            f"all labels are {-1 if signs else 0} or 1 and a regressor is trained; predictor_type=binary_classifier "
            "trains a classifier", DataWarning, stacklevel=3,
        )  # fmt: skip


def of_ranges(space: Mapping[str, Dimension], fixed: Mapping[str, Value]) -> None:
    """Say which searched parameters no trial can use, in the words of a study file."""
    for said in effect.told(space, fixed):
        warnings.warn(said, DataWarning, stacklevel=3)


def of_score(channels: Channels, metric: str, value: float) -> None:
    """Say so where the best score is hardly better than a constant's."""
    labels = channels.train.labels
    assert labels is not None
    said = unlearned(metric, value, constant(metric, labels, channels.test_labels))
    if said is not None:
        warnings.warn(said, stacklevel=3)
