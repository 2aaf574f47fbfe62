"""Scoring: a model's predictions for data files, written as csv, JSON lines or Parquet by the name's suffix."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.data import source
from fmtune.data.encoding import Encoder
from fmtune.data.sidecar import vocabulary_of
from fmtune.errors import DataError, ResourceError, UsageError
from fmtune.files import atomic_write
from fmtune.fm.draws import interval
from fmtune.fm.model import Model
from fmtune.fm.pack import predict

_PARQUET = importlib.util.find_spec("pyarrow") is not None

Array = NDArray[Any]
Columns = Mapping[str, Array]


def predict_file(
    model: Path, data: Sequence[Path], out: Path, level: float | None = None, parquet: bool = _PARQUET
) -> int:
    """Score data and write a row each: ``score``, and ``predicted_label`` for a binary model; returns how many.

    With ``level`` there are ``low`` and ``high`` too, the ends of an interval; see ``fm.draws.interval``.

    Raises
    ------
    ResourceError
        Parquet is asked for and pyarrow is not installed (``parquet``).
    UsageError
        The suffix is none of ``SUFFIXES``, or the model has no draws and an interval is asked for.
    ModelError, DataError
        Model or data cannot be read, or do not fit each other.
    """
    if out.suffix not in SUFFIXES:
        raise UsageError(f"no format for the suffix {out.suffix!r}", where=str(out), hint="use " + ", ".join(SUFFIXES))
    if out.suffix == ".parquet" and not parquet:
        raise ResourceError("Parquet needs pyarrow", where=str(out), hint="pip install 'fmtune[parquet]'")
    loaded = Model.load(model)
    _same_names(Encoder.of(loaded.facts), data)
    rows = source.read_channel(
        list(data), feature_dim=loaded.feature_dim, labelled=False, name="data", map_labels=False,
        base=loaded.facts.get("index_base"), encoder=Encoder.of(loaded.facts),
    )  # fmt: skip
    scores = predict(loaded, rows)
    columns: dict[str, Array] = {"score": scores}
    if loaded.predictor_type == "binary_classifier":
        columns["predicted_label"] = (scores >= np.float32(0.5)).astype(np.int8)
    if level is not None:
        columns["low"], columns["high"] = interval(loaded, rows, level)
    atomic_write(out, _ENCODERS[out.suffix](columns))
    return rows.n


def _same_names(encoder: Encoder | None, data: Sequence[Path]) -> None:
    """Refuse rows that were made by another vocabulary than the model's: their features mean something else."""
    beside = vocabulary_of(list(data)) if encoder is not None else None
    if encoder is not None and beside is not None and beside.to_json() != encoder.to_json():
        raise DataError(
            "its vocabulary is not the model's: its features mean something else", where=str(data[0]),
            hint="give the table itself, or convert it with --vocabulary of the model's train channel",
        )  # fmt: skip


def _csv(columns: Columns) -> bytes:
    lines = [",".join(columns), *map(",".join, zip(*map(_words, columns.values()), strict=True))]
    return ("\n".join(lines) + "\n").encode()


def _jsonl(columns: Columns) -> bytes:
    words = [[w if math.isfinite(float(w)) else "null" for w in _words(values)] for values in columns.values()]
    form = "{{" + ", ".join(f'"{name}": {{}}' for name in columns) + "}}\n"
    return "".join(form.format(*row) for row in zip(*words, strict=True)).encode()


def _parquet(columns: Columns) -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def _words(values: Array) -> list[str]:
    """Return numbers as text, float32 in as few digits as give the same number again."""
    return [str(word) for word in values.astype(str)]


_ENCODERS: dict[str, Callable[[Columns], bytes]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
SUFFIXES = tuple(_ENCODERS)
