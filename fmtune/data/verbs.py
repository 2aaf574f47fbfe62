"""Verbs: what ``fmtune data convert | check | stats | index | list`` does, as functions that return plain values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fmtune.data import catalog, libsvm, shelf
from fmtune.data.canonical import DataWarning
from fmtune.data.columns import Columns
from fmtune.data.download import Progress
from fmtune.data.index import write_index
from fmtune.data.preparation import Tables
from fmtune.data.source import Paths, files_of, format_of, read_channel, write
from fmtune.rows import Rows


def convert(
    sources: Paths,
    out: str | Path,
    *,
    format: str | None = None,
    layout: str | None = None,
    feature_dim: int | None = None,
    map_labels: bool = True,
) -> dict[str, Any]:
    """Read files of any known format and write them as one.

    Parameters
    ----------
    sources
        A file, a folder, a glob or a list of these.
    out
        The file to write; its suffix chooses the format unless ``format`` names it.
    layout
        ``sparse`` or ``dense``; None keeps that of the sources.
    feature_dim, map_labels
        As in ``read_channel``.

    Returns
    -------
    dict
        ``rows``, ``feature_dim``, ``layout``, ``bytes``, ``out`` and ``notes``.
    """
    rows, notes = _noted(
        lambda: read_channel(sources, feature_dim=feature_dim, labelled=False, name="data", map_labels=map_labels)
    )
    if layout is not None:
        rows = rows.to_dense() if layout == "dense" else rows.to_sparse()
    write(rows, out, format)
    size = Path(out).stat().st_size
    return {
        "out": str(out),
        "rows": rows.n,
        "feature_dim": rows.feature_dim,
        "layout": rows.layout,
        "bytes": size,
        "notes": notes,
    }


def check(
    paths: Paths, *, feature_dim: int | None = None, labelled: bool = True, columns: Columns | None = None
) -> dict[str, Any]:  # fmt: skip
    """Read everything, as training would; return what was read, or raise the first DataError.

    ``columns`` are those of tables.

    Returns
    -------
    dict
        ``files`` (path, format, bytes of each), ``rows``, ``feature_dim``, ``layout``, ``labels`` (``missing``,
        ``binary`` or ``real``), ``index_base`` (0 or 1, libsvm only) and ``notes``.
    """
    return _looked_at(paths, feature_dim, labelled, columns)[0]


def _looked_at(
    paths: Paths, feature_dim: int | None, labelled: bool, columns: Columns | None
) -> tuple[dict[str, Any], Rows]:  # fmt: skip
    """Return what ``check`` says, and the rows."""
    files = files_of(paths)
    formats = [format_of(file) for file in files]
    table = None if columns is None else Tables(files, columns)
    encoder = None if table is None else table.fit()
    rows, notes = _noted(
        lambda: read_channel(files, feature_dim=feature_dim, labelled=labelled, name="data", encoder=encoder)
    )
    notes += [] if table is None else table.notes
    report: dict[str, Any] = {
        "files": [
            {"path": str(file), "format": kind, "bytes": file.stat().st_size}
            for file, kind in zip(files, formats, strict=True)
        ],
        "rows": rows.n,
        "feature_dim": rows.feature_dim,
        "layout": rows.layout,
        "labels": _label_kind(rows),
        "notes": notes,
    }
    text = [file for file, kind in zip(files, formats, strict=True) if kind == "libsvm"]
    if text:
        report["index_base"] = 0 if any(libsvm.counts_from_zero(file) for file in text) else 1
    return report, rows


def stats(paths: Paths, *, columns: Columns | None = None) -> dict[str, Any]:
    """Return what ``check`` does, and how the numbers are spread; ``columns`` are those of tables.

    Adds ``entries``, ``density``, ``entries_per_row`` (min, mean, max), ``features_used``, ``value_min``,
    ``value_max``, ``label_mean``, ``label_min``, ``label_max`` and ``memory_bytes``.
    """
    report, rows = _looked_at(paths, None, columns is not None, columns)
    sparse = rows.to_sparse()
    lengths = np.diff(sparse.indptr)
    cells = rows.n * rows.feature_dim
    report |= {
        "entries": sparse.nnz,
        "density": sparse.nnz / cells if cells else 0.0,
        "entries_per_row": {"min": int(lengths.min()), "mean": float(lengths.mean()), "max": int(lengths.max())},
        "features_used": len(np.unique(sparse.indices)),
        "value_min": float(sparse.values.min()) if sparse.nnz else None,
        "value_max": float(sparse.values.max()) if sparse.nnz else None,
        "memory_bytes": rows.nbytes,
    }
    if rows.labels is not None:
        labels = rows.labels.astype(np.float64)
        report |= {
            "label_mean": float(labels.mean()),
            "label_min": float(labels.min()),
            "label_max": float(labels.max()),
        }
    return report


def get(
    name: str, source: Path | None = None, *, progress: Progress | None = None, where: Path | None = None,
    home: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Bring a card's files to this machine: from ``source``, a file or folder that has them, or by download.

    Parameters
    ----------
    name
        The card.
    progress
        Called as bytes come.
    where, home
        Folders of the cards and of downloaded files, instead of the usual ones.

    Returns
    -------
    dict
        ``card``, ``licence``, ``folder`` and ``files`` (``copied``, ``there`` or ``missing`` by name).

    Raises
    ------
    UsageError
        No such card.
    DataError, ResourceError
        A file is not the card's, or cannot be had.
    """
    card = catalog.find(name, where)
    home = home or shelf.folder()
    if source is None:
        catalog.obtain(card, home=home, progress=progress)
        files = {file.name: "there" for file in card.files}
    else:
        files = shelf.take(card.name, card.remote, home, source)
    place = home / card.name if card.remote else card.folder
    return {"card": card.name, "licence": card.licence, "folder": str(place), "files": files}


def index(paths: Paths) -> list[dict[str, Any]]:
    """Write the index of each file; return ``path``, ``bytes`` and ``index``, where that lies."""
    return [
        {"path": str(file), "bytes": file.stat().st_size, "index": str(write_index(file))} for file in files_of(paths)
    ]


def list_cards() -> list[dict[str, Any]]:
    """Return each dataset card's name, title, task, origin, licence, size of its download in bytes, and keys."""
    return [
        {
            "name": card.name,
            "title": card.title,
            "description": card.description,
            "task": card.task,
            "origin": card.origin,
            "licence": card.licence,
            "download": sum(file.size for file in card.remote),
            "keys": [{"name": name, "default": key.default, "help": key.help} for name, key in card.keys.items()],
        }
        for card in catalog.cards().values()
    ]


def _label_kind(rows: Rows) -> str:
    if rows.labels is None:
        return "missing"
    return "binary" if bool(((rows.labels == 0) | (rows.labels == 1)).all()) else "real"


def _noted(read: Callable[[], Rows]) -> tuple[Rows, list[str]]:
    """Return what ``read`` gives, and the texts of the warnings about the data on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        rows = read()
    return rows, [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
