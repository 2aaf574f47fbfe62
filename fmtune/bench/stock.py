"""Stock: the data of cases, written once by the measuring side, so that both versions read the same bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fmtune import digests
from fmtune.bench.case import Case
from fmtune.data import catalog
from fmtune.data.source import files_of, write
from fmtune.errors import FmtuneError
from fmtune.rows import DenseRows, Rows
from fmtune.tune.channels import bring
from fmtune.tune.spec import Spec, parse


class Stock:
    """Files of cases, by data and layout.

    Parameters
    ----------
    folder
        Where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, case: Case, *, apart: bool = False) -> dict[str, str]:
        """Return the files that a worker of this case is given, written if they are not there yet.

        ``apart``: also the rows of a study, for peers, which read no study file.
        """
        found = {"folder": str(self._folder)}
        if case.kind in ("fit", "predict"):
            found["rows"] = str(self._rows(case))
        elif case.kind == "study" and apart:
            found["rows"] = str(self._rows(replace(case, data={"study": case.study})))
        elif case.kind == "parse":
            found["channel"] = str(self._channel(case))
        return found

    def digest(self, case: Case) -> str | None:
        """Return a digest of the files that a study reads, of their bytes; None where a card names the data.

        Also None where the files cannot be read: that is for the worker to say.
        """
        if case.kind != "study":
            return None
        try:
            spec = _spec(case)
            given = [spec.data.paths(channel, spec.path) for channel in ("train", "test", "holdout")]
            files = [[digests.of_file(file) for file in files_of(paths)] if paths else None for paths in given]
        except (FmtuneError, OSError):
            return None
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16] if any(files) else None

    def _rows(self, case: Case) -> Path:
        path = self._path(case, ".npz")
        if not path.exists():
            train, test = self._channels(case)
            if test is None:
                raise ValueError(f"case {case.name}: its data have no test channel")
            parts = {f"{name}_{key}": value for name, rows in (("train", train), ("test", test))
                     for key, value in _arrays(rows, case.layout).items()}  # fmt: skip
            np.savez(path, allow_pickle=False, feature_dim=train.feature_dim, **parts)
        return path

    def _channels(self, case: Case) -> tuple[Rows, Rows | None]:
        if case.kind == "study":
            channels = bring(_spec(case)).channels
            return channels.train, channels.test(case.layout)
        loaded = catalog.load(case.data)
        return loaded.train, loaded.test

    def _channel(self, case: Case) -> Path:
        path = self._path(case, ".recordio")
        if not path.exists():
            rows = catalog.load(case.data).train
            write(rows.to_dense() if case.layout == "dense" else rows.to_sparse(), path)
        return path

    def _path(self, case: Case, suffix: str) -> Path:
        text = json.dumps([case.data, case.layout], sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}{suffix}"


def _spec(case: Case) -> Spec:
    return parse(json.dumps({"study_name": case.name, **case.study}), Path.cwd() / "bench.yaml")


def _arrays(rows: Rows, layout: str) -> dict[str, Any]:
    turned = rows.to_dense() if layout == "dense" else rows.to_sparse()
    assert turned.labels is not None
    if isinstance(turned, DenseRows):
        return {"matrix": turned.matrix, "labels": turned.labels}
    return {"indptr": turned.indptr, "indices": turned.indices, "values": turned.values, "labels": turned.labels}
