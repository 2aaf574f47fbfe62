"""Channels of a study: its data section turned into rows, with what a report says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmtune.data import catalog, source
from fmtune.errors import UsageError
from fmtune.fm.fit import Channels
from fmtune.rows import Rows
from fmtune.tune.spec import Spec


@dataclass(frozen=True, eq=False)
class StudyData:
    """A study's rows.

    Attributes
    ----------
    channels : Channels
        Train and test.
    holdout : Rows or None
        The sealed channel.
    description : str
        The card or the paths, in words.
    facts : dict
        What a generator knows of its data (the planted model's own score), else empty.
    """

    channels: Channels
    holdout: Rows | None
    description: str
    facts: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)


def bring(spec: Spec) -> StudyData:
    """Read a study's channels.

    Raises
    ------
    DataError
        A channel cannot be read, or its labels do not fit the predictor type.
    """
    binary = spec.predictor_type == "binary_classifier"
    rows: dict[str, Rows | None]
    if spec.data.card is not None:
        loaded = catalog.load(spec.data.card, spec.data.keys)
        rows = {"train": loaded.train, "test": loaded.test, "holdout": loaded.holdout}
        description, facts = loaded.description, dict(loaded.facts)
    else:
        given = {name: spec.data.paths(name, spec.path) for name in ("train", "test", "holdout")}
        paths = {name: list(found) for name, found in given.items() if found}
        rows = dict(source.read_channels(paths, feature_dim=spec.data.feature_dim, map_labels=binary))
        description, facts = ", ".join(f"{name}: {' '.join(map(str, p))}" for name, p in paths.items()), {}
    present: dict[str, Rows] = {name: r for name, r in rows.items() if r is not None}
    for name, r in present.items():
        if r.labels is not None:
            source.check_labels(r.labels, binary, name)
    if "test" not in present:
        raise UsageError("the objective needs a test channel", where=str(spec.path), hint="add data.test")
    stats = {
        name: {"rows": r.n, "nnz": r.nnz, "feature_dim": r.feature_dim, "digest": r.digest(), "layout": r.layout}
        for name, r in present.items()
    }
    return StudyData(
        Channels(present["train"], present["test"]), present.get("holdout"), description, facts, stats
    )  # fmt: skip


def folder_of(study_name: str, root: Path | None = None) -> Path:
    """Return the study's own folder, ``runs/<study_name>`` under the current one."""
    return (root or Path.cwd()) / "runs" / study_name
