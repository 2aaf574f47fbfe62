"""Scoring: a model's predictions for data files, written as csv, JSON lines or Parquet by the name's suffix."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.data import source, tables
from fmtune.data.cells import missing_column
from fmtune.data.encoding import Encoder
from fmtune.data.sidecar import vocabulary_of
from fmtune.errors import DataError, ResourceError, UsageError
from fmtune.extras import install
from fmtune.files import atomic_write
from fmtune.fm.draws import interval
from fmtune.fm.metrics import evaluate
from fmtune.fm.model import Model
from fmtune.fm.pack import score
from fmtune.kernels import losses

if TYPE_CHECKING:
    import pandas as pd

STDOUT = Path("-")

_PARQUET = importlib.util.find_spec("pyarrow") is not None

Array = NDArray[Any]
# Scores, and what is kept of a table as pandas has it.
Columns = Mapping[str, "Array | pd.Series[Any]"]


class Scored(NamedTuple):
    """How many rows were scored, how many of them have a label, and the metrics on those; none without two labels."""

    rows: int
    labelled: int
    metrics: dict[str, float]


def predict_file(
    model: Path, data: Sequence[Path], out: Path, level: float | None = None, parquet: bool = _PARQUET,
    keep: Sequence[str] = (),
) -> Scored:  # fmt: skip
    """Score data and write a row each: ``score``, and ``predicted_label`` for a binary model.

    With ``level`` there are ``low`` and ``high`` too, the ends of an interval; see ``fm.draws.interval``.  ``keep``
    names columns of the tables that are written before the scores, in their own types; a csv file's are text.  ``-``
    is standard output, as csv.

    Raises
    ------
    ResourceError
        Parquet is asked for and pyarrow is not installed (``parquet``).
    UsageError
        The suffix is none of ``SUFFIXES``, or the model has no draws and an interval is asked for.
    ModelError, DataError
        Model or data cannot be read, or do not fit each other.
    """
    suffix = ".csv" if out == STDOUT else out.suffix
    if suffix not in SUFFIXES:
        raise UsageError(f"no format for the suffix {out.suffix!r}", where=str(out), hint="use " + ", ".join(SUFFIXES))
    if suffix == ".parquet" and not parquet:
        raise ResourceError("Parquet needs pyarrow", where=str(out), hint=install("parquet"))
    loaded = Model.load(model)
    _same_names(Encoder.of(loaded.facts), data)
    rows = source.read_channel(
        list(data), feature_dim=loaded.feature_dim, labelled=None, name="data", map_labels=False,
        base=loaded.facts.get("index_base"), encoder=Encoder.of(loaded.facts),
    )  # fmt: skip
    raw = score(loaded, rows)
    scores = np.empty_like(raw)
    losses.link(losses.CODES[loaded.predictor_type], raw, scores)
    columns: dict[str, Array | pd.Series[Any]] = {**_kept(data, keep), "score": scores}
    if loaded.predictor_type == "binary_classifier":
        columns["predicted_label"] = (scores >= np.float32(0.5)).astype(np.int8)
    if level is not None:
        columns["low"], columns["high"] = interval(loaded, rows, level)
    content = _ENCODERS[suffix](columns)
    if out == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        atomic_write(out, content)
    return _scored(loaded, raw, rows.labels)


def _scored(model: Model, raw: Array, labels: Array | None) -> Scored:
    """Return the metrics on the rows that have a label that the model's task knows."""
    if labels is None:
        return Scored(len(raw), 0, {})
    if model.predictor_type == "binary_classifier":
        labels = np.select([labels == 1, (labels == 0) | (labels == -1)], [1, 0], np.nan).astype(np.float32)
    known = np.flatnonzero(np.isfinite(labels))
    # Files of rows without labels are often written with a 0 in their place.
    if len(np.unique(labels[known])) < 2:
        return Scored(len(raw), len(known), {})
    return Scored(len(raw), len(known), evaluate(raw[known], labels[known], model.predictor_type))


def _kept(data: Sequence[Path], names: Sequence[str]) -> dict[str, pd.Series[Any]]:
    """Return columns of tables (rows,) in their own types; those of a csv file, which says none, as text."""
    if clash := sorted({"score", "predicted_label", "low", "high"}.intersection(names)):
        raise UsageError(f"{clash[0]!r} is a column of the predictions", hint="rename the table's")
    if not names:
        return {}
    import pandas as pd

    found: dict[str, list[pd.Series[Any]]] = {name: [] for name in names}
    for file in source.files_of(list(data)):
        kind = source.format_of(file)
        if kind not in tables.TABLES:
            raise UsageError(f"rows ({kind}) have no columns to keep", where=str(file), hint="leave --keep out")
        for frame in tables.blocks(file, kind, names, names):
            for name, parts in found.items():
                if name not in frame.columns:
                    raise missing_column(name, frame.columns, str(file))
                parts.append(frame[name])
    return {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}


def _same_names(encoder: Encoder | None, data: Sequence[Path]) -> None:
    """Refuse rows that were made by another vocabulary than the model's: their features mean something else."""
    beside = vocabulary_of(list(data)) if encoder is not None else None
    if encoder is not None and beside is not None and beside.to_json() != encoder.to_json():
        raise DataError(
            "its vocabulary is not the model's: its features mean something else", where=str(data[0]),
            hint="give the table itself, or convert it with --vocabulary of the model's train channel",
        )  # fmt: skip


def _csv(columns: Columns) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(_words, columns.values()), strict=True))
    return stream.getvalue().encode()


def _jsonl(columns: Columns) -> bytes:
    names, words = [json.dumps(name) for name in columns], [_jsons(values) for values in columns.values()]
    lines = (", ".join(map("{}: {}".format, names, row)) for row in zip(*words, strict=True))
    return "".join(f"{{{line}}}\n" for line in lines).encode()


def _jsons(values: Array | pd.Series[Any]) -> list[str]:
    if not isinstance(values, np.ndarray):
        return [json.dumps(cell, default=str) for cell in _cells(values)]
    return [word if math.isfinite(float(word)) else "null" for word in _words(values)]


def _parquet(columns: Columns) -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({name: _arrow(values) for name, values in columns.items()}), stream)
    return stream.getvalue()


def _arrow(values: Array | pd.Series[Any]) -> Any:
    """Return a column as Arrow has it; as text where its cells are of several types."""
    import pyarrow

    try:
        return pyarrow.array(values, from_pandas=True)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        return pyarrow.array([word or None for word in _words(values)])


def _words(values: Array | pd.Series[Any]) -> list[str]:
    """Return values as text, float32 in as few digits as give the same number again; what is missing empty."""
    if isinstance(values, np.ndarray):
        return [str(word) for word in values.astype(str)]
    cells = ("" if cell is None else cell for cell in _cells(values))
    return [json.dumps(cell) if isinstance(cell, list) else str(cell) for cell in cells]


def _cells(values: pd.Series[Any]) -> list[Any]:
    """Return a table's cells (rows,) as JSON has them: lists, float32 in few digits, and None for missing ones."""
    if values.dtype.kind == "f":
        return [float(word) if math.isfinite(float(word)) else None for word in _words(values.to_numpy())]
    plain = [cell.tolist() if isinstance(cell, np.ndarray | np.generic) else cell for cell in values]
    return [None if not isinstance(cell, list) and cell != cell else cell for cell in plain]


_ENCODERS: dict[str, Callable[[Columns], bytes]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
SUFFIXES = tuple(_ENCODERS)
