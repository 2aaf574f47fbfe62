"""Channels of a study: its data section turned into rows, with what a report says of them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.data import canonical, catalog, preparation, source
from fmtune.data.cache import Cache
from fmtune.data.columns import Columns
from fmtune.data.download import Progress
from fmtune.data.encoding import Encoder
from fmtune.data.labels import are_binary, told_apart
from fmtune.data.split import Split
from fmtune.errors import DataError, UsageError
from fmtune.fm.fit import Channels
from fmtune.fm.groups import Groups
from fmtune.rows import Float32, Rows
from fmtune.tune.drawing import groups_of
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
    index_base : int or None
        First index of the channels' libsvm files, if any are.
    encoder : Encoder or None
        What made the rows of tables.
    names : tuple of str
        The features' names, as far as a card knows them.
    held : NDArray or None
        The group of each holdout row, int64 (n,), where the split kept groups together.
    """

    channels: Channels
    holdout: Rows | None
    description: str
    facts: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)
    index_base: int | None = None
    encoder: Encoder | None = None
    names: tuple[str, ...] = ()
    held: NDArray[np.int64] | None = None


def bring(spec: Spec, progress: Progress | None = None) -> StudyData:
    """Read a study's channels; ``progress`` is called while a card's files are downloaded.

    Raises
    ------
    DataError
        A channel cannot be read, or its labels do not fit the predictor type.
    ResourceError
        A card's file could not be downloaded.
    """
    binary = spec.predictor_type == "binary_classifier"
    rows: dict[str, Rows | None]
    if spec.data.card is not None:
        loaded = catalog.load(spec.data.card, spec.data.keys, progress=progress)
        rows = {"train": loaded.train, "test": loaded.test, "holdout": loaded.holdout}
        description, facts, base, groups = loaded.description, dict(loaded.facts), None, loaded.groups
        encoder, names, units = None, loaded.names, {}
    else:
        cache = Cache()
        given = {name: spec.data.paths(name, spec.path) for name in ("train", "test", "holdout")}
        paths = {name: list(found) for name, found in given.items() if found}
        prepared = preparation.prepare(
            paths, Columns(**spec.data.columns) if spec.data.columns else None, Split(**spec.data.split),
            feature_dim=spec.data.feature_dim, map_labels=binary, binary=binary, cache=cache,
        )  # fmt: skip
        rows, encoder, names, units = dict(prepared.rows), prepared.encoder, (), prepared.units
        if prepared.notes:
            canonical.warn(f"no features are named, so: {'; '.join(prepared.notes)}")
        description, facts = ", ".join(f"{name}: {' '.join(map(str, p))}" for name, p in paths.items()), {}
        base = source.index_base(list(paths.values()), cache)
        groups = encoder.groups() if encoder else {}
    trained = rows["train"]
    if not binary and trained is not None and are_binary(trained.labels):
        canonical.warn(f"all labels are 0 or 1, and {spec.objective} trains a regressor; a classifier is trained by "
                       "test:binary_classification_cross_entropy or test:auc")  # fmt: skip
    present: dict[str, Rows] = {name: r for name, r in rows.items() if r is not None}
    for name, r in present.items():
        if r.labels is not None:
            source.check_labels(r.labels, binary, name)
    for name, r in present.items():
        if binary and r.labels is not None:
            _two_classes(name, r.labels, _named(spec, name), None if encoder is None else encoder.label)
    if "test" not in present:
        raise UsageError("the objective needs a test channel", where=str(spec.path), hint="add data.test")
    stats = {
        name: {
            "rows": r.n, "nnz": r.nnz, "feature_dim": r.feature_dim, "digest": r.digest(), "layout": r.layout,
            "origin": _origin(spec, name, r),
            **({"groups": groups_of(units[name])} if name in units else {}),
        } for name, r in present.items()
    }  # fmt: skip
    _tell_apart(stats)
    raw = spec.groups or groups
    channels = Channels(present["train"], present["test"], Groups.of(raw) if raw else None, units.get("test"))
    held = units.get("holdout")
    return StudyData(channels, present.get("holdout"), description, facts, stats, base, encoder, names, held)


def _two_classes(name: str, labels: Float32, where: str, column: str | None) -> None:
    """Refuse a channel of one class; of the holdout it is only said, for the search does without."""
    try:
        told_apart(labels, where, column)
    except DataError as error:
        if name != "holdout":
            raise
        canonical.warn(f"{where}: {error.what}")


def _named(spec: Spec, channel: str) -> str:
    """Return a channel with what it is read from."""
    data = spec.data
    files = {"train": data.train, "test": data.test, "holdout": data.holdout}[channel] or data.train
    return f"{channel} ({data.card or ', '.join(files or ())})"


def _origin(spec: Spec, channel: str, rows: Rows) -> str:
    """Return a digest of which rows these are, however they are encoded: where they are from, and their labels."""
    data = spec.data
    own = {"train": data.train, "test": data.test, "holdout": data.holdout}[channel]
    names = [Path(path).name for path in own or data.train or ()]
    split = None if own and channel != "train" else asdict(Split(**data.split))
    state = hashlib.sha256(json.dumps([data.card, names, split]).encode())
    state.update(b"" if rows.labels is None else rows.labels.tobytes())
    return state.hexdigest()


def _tell_apart(stats: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a holdout that the search sees under another name; say so when train is scored as test."""
    digests = {name: s["digest"] for name, s in stats.items()}
    for name in ("train", "test"):
        if "holdout" in digests and digests["holdout"] == digests[name]:
            hint = "a holdout is for rows that the search never sees; name others, or leave it out"
            raise DataError(f"it holds the rows of {name}", where="holdout", hint=hint)
    if digests["train"] == digests["test"]:
        warnings.warn("train and test hold the same rows: scores say nothing of new ones", source.DataWarning, 2)
