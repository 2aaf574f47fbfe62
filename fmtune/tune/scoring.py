"""Scoring: a model's predictions for data files, written as csv, JSON lines or Parquet by the name's suffix."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fmtune.data import source
from fmtune.errors import ResourceError, UsageError
from fmtune.files import atomic_write
from fmtune.fm.model import Model
from fmtune.fm.pack import predict

SUFFIXES = (".csv", ".jsonl", ".parquet")


def predict_file(model: Path, data: Sequence[Path], out: Path) -> int:
    """Score data and write a row each: ``score``, and ``predicted_label`` for a binary model; returns how many.

    Raises
    ------
    UsageError
        The suffix is none of ``SUFFIXES``.
    ModelError, DataError
        Model or data cannot be read, or do not fit each other.
    """
    if out.suffix not in SUFFIXES:
        raise UsageError(f"no format for the suffix {out.suffix!r}", where=str(out), hint="use " + ", ".join(SUFFIXES))
    loaded = Model.load(model)
    rows = source.read_channel(list(data), feature_dim=loaded.feature_dim, labelled=False, name="data")
    scores = predict(loaded, rows)
    frame = pd.DataFrame({"score": scores})
    if loaded.predictor_type == "binary_classifier":
        frame["predicted_label"] = (scores >= np.float32(0.5)).astype(np.int8)
    atomic_write(out, _encoded(frame, out.suffix))
    return rows.n


def _encoded(frame: pd.DataFrame, suffix: str) -> bytes:
    if suffix == ".csv":
        return frame.to_csv(index=False).encode()
    if suffix == ".jsonl":
        return frame.to_json(orient="records", lines=True, double_precision=9).encode()
    if importlib.util.find_spec("pyarrow") is None:
        raise ResourceError("Parquet needs pyarrow", hint="pip install 'fmtune[parquet]'")
    stream = io.BytesIO()
    frame.to_parquet(stream, index=False)
    return stream.getvalue()
