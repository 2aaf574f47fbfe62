"""Preparation: from tables to rows; the encoder is fitted on the rows that train, and on no others.

Tables are read a block at a time and more than once: for the times, where the split goes by time; for the
vocabulary; and for the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.data import source, tables
from fmtune.data.cache import Cache
from fmtune.data.canonical import warn
from fmtune.data.cells import Float64, place
from fmtune.data.columns import Columns, checked, inferred
from fmtune.data.encoding import Encoder
from fmtune.data.fitting import Fitter
from fmtune.data.index import check_index
from fmtune.data.kinds import Bucketed, Hashed, OneHot, Scaled
from fmtune.data.labels import labels_of, not_binary
from fmtune.data.sidecar import read_vocabulary, sidecar_of, vocabulary_of, write_vocabulary
from fmtune.data.source import FORMATS, Paths
from fmtune.data.split import Divider, Split
from fmtune.errors import DataError, UsageError
from fmtune.files import atomic_stream
from fmtune.rows import Rows, concatenate

if TYPE_CHECKING:
    import pandas as pd


class Block(NamedTuple):
    """Rows of a table: the number of the first among all rows, and its file and number there, for messages."""

    frame: pd.DataFrame
    first: int
    file: str
    row: int


class Part(NamedTuple):
    """Rows of a channel, and the group of each as a number, where the split goes by groups."""

    channel: str
    rows: Rows
    groups: Float64 | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rows by channel, the encoder that made them of tables, and what was decided on the way, in words.

    ``units`` has the group of each row of a channel, from 0 up, where the split kept groups together.
    """

    rows: dict[str, Rows]
    encoder: Encoder | None
    notes: tuple[str, ...]
    units: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def are_tables(paths: Paths) -> bool:
    """Whether the first of these files is a table; errors as in ``source.format_of``."""
    return source.format_of(source.files_of(paths)[0]) in tables.TABLES


class Tables:
    """The tables of the train channel: one or more files with the same columns.

    Parameters
    ----------
    paths
        As in ``source.files_of``.
    columns
        What is named; where no features are, a look at the first rows decides.
    split
        How the rows are divided.

    Raises
    ------
    DataError
        Files that are no tables, or columns that they have not.
    """

    def __init__(self, paths: Paths, columns: Columns, split: Split | None = None) -> None:
        self.files = [(file, source.format_of(file)) for file in source.files_of(paths, "train")]
        for file, kind in self.files:
            check_index(file)
            if kind not in tables.TABLES:
                what = f"no table but rows ({kind}), which have no columns to name"
                raise DataError(what, where=str(file), hint="leave label and the columns out")
        file, kind = self.files[0]
        self.where = str(file)
        self.split = split or Split()
        head = tables.head(file, kind)
        checked(columns, head, self.where)
        self.columns, self.notes = inferred(columns, head, self.where, self.split.apart)

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        """Yield the blocks of all files."""
        first = 0
        for file, kind in self.files:
            row = 0
            for frame in tables.blocks(file, kind, names, self.columns.texts):
                yield Block(frame, first, str(file), row)
                first, row = first + len(frame), row + len(frame)

    @cached_property
    def divider(self) -> Divider:
        """What divides the rows; it has seen all times, where the split goes by time."""
        divider = Divider(self.split, self.where)
        if self.split.by is not None:
            for block in self.blocks([self.split.by]):
                divider.look(block.frame)
        return divider

    def fit(self) -> Encoder:
        """Return the encoder of the rows that train."""
        fitter = Fitter(self.columns, self.where)
        for block in self.blocks([*self.columns.features, str(self.columns.label), *self.split.apart]):
            trains = self.divider.divide(block.frame, block.first)[0] == 0
            fitter.add(block.frame, trains, block.file, block.row)
        encoder = fitter.encoder()
        if encoder.classes:
            zero, one = encoder.classes
            warn(f"{self.where}: of the labels {one!r} is read as 1, {zero!r} as 0")
        return encoder

    def rows(self, encoder: Encoder) -> Iterator[Part]:
        """Yield the rows in blocks, each with the channel that it belongs to."""
        for block in self.blocks([*self.columns.features, str(encoder.label), *self.split.apart]):
            places, groups = self.divider.divide(block.frame, block.first)
            made = encoder.rows(block.frame, True, block.row, block.file)
            for at, name in enumerate(self.split.channels):
                chosen = np.flatnonzero(places == at)
                if len(chosen):
                    yield Part(name, made.take(chosen), None if groups is None else groups[chosen])


def prepare(
    channels: Mapping[str, Paths],
    columns: Columns | None = None,
    split: Split | None = None,
    *,
    feature_dim: int | None = None,
    map_labels: bool = True,
    binary: bool = False,
    cache: Cache | None = None,
) -> Prepared:
    """Read the channels of one study.

    Parameters
    ----------
    channels
        Files by channel; ``split`` makes channels of the table of ``train``.
    columns
        What the train channel's columns are; None where it holds rows.  Rows that were made of a table find their
        encoder in the vocabulary beside them.
    split, feature_dim, map_labels, cache
        As in :class:`Tables` and ``source.read_channels``.
    binary
        Labels of tables have to be 0 and 1, or -1 and 1; another is named with its file, row and column.

    Raises
    ------
    DataError, UsageError
        As in :class:`Tables`, ``Encoder.rows`` and ``source.read_channel``; or a channel got no rows.
    """
    if columns is not None:
        prepared = _read_tables(channels, columns, split, map_labels)
        for name, made in prepared.rows.items() if binary else ():
            _check_binary(made, channels.get(name, channels["train"]), prepared.encoder)
        return prepared
    encoder = vocabulary_of(channels["train"])
    if encoder is not None and feature_dim not in (None, encoder.feature_dim):
        encoder = None
    feature_dim = feature_dim if encoder is None else encoder.feature_dim
    rows = source.read_channels(
        channels, feature_dim=feature_dim, map_labels=map_labels, cache=cache, encoder=encoder
    )
    return Prepared(rows, encoder, ())


def _read_tables(channels: Mapping[str, Paths], columns: Columns, split: Split | None, map_labels: bool) -> Prepared:
    table = Tables(channels["train"], columns, split)
    encoder = table.fit()
    parts: dict[str, list[Part]] = {name: [] for name in table.split.channels}
    for part in table.rows(encoder):
        parts[part.channel].append(part)
    rows, units = {}, {}
    for name, several in parts.items():
        if not several:
            raise _empty(name, table.where)
        rows[name] = concatenate([part.rows for part in several])
        groups = [part.groups for part in several if part.groups is not None]
        if groups:
            units[name] = np.unique(np.concatenate(groups), return_inverse=True)[1].astype(np.int64)
        rows[name] = source.map_signs(rows[name], name) if map_labels else rows[name]
    rest = {name: paths for name, paths in channels.items() if name != "train"}
    rows |= source.read_channels(rest, feature_dim=encoder.feature_dim, map_labels=map_labels, encoder=encoder)
    return Prepared(rows, encoder, tuple(table.notes), units)


def _check_binary(rows: Rows, paths: Paths, encoder: Encoder | None) -> None:
    """Raise DataError for a label that is not 0 or 1, with its place in the tables that the rows are from."""
    labels = rows.labels
    if labels is None or encoder is None or ((labels == 0) | (labels == 1)).all():
        return
    # Only now is the place looked for: rows have been shuffled into channels, and know it no more.
    for file in source.files_of(paths):
        first = 0
        for frame in tables.blocks(file, source.format_of(file), [str(encoder.label)]):
            numbers = labels_of(frame, str(encoder.label), encoder.classes, first, str(file))
            bad = np.flatnonzero(~np.isin(numbers, (-1, 0, 1)))
            if len(bad):
                at = int(bad[0])
                raise not_binary(f"{encoder.label!r} is {numbers[at]:g}", place(str(file), first + at))
            first += len(frame)


def convert_tables(
    sources: Paths,
    out: Path,
    columns: Columns,
    split: Split | None = None,
    *,
    format: str | None = None,
    vocabulary: Path | None = None,
) -> dict[str, Any]:
    """Write tables as rows, a block at a time, and their vocabulary beside them.

    Parameters
    ----------
    sources
        Tables with the same columns.
    out
        The file of the train channel, ``train.pbr``; test and holdout go beside it, ``test.pbr`` and so on.
    columns, split
        As in :class:`Tables`.
    format
        A name of ``FORMATS``; None goes by the suffix of ``out``.
    vocabulary
        A vocabulary that was written before, to be used in place of one of these tables' own.

    Returns
    -------
    dict
        ``out``, ``rows`` (by channel), ``feature_dim``, ``vocabulary`` (its file) and ``notes``.
    """
    format = source.format_to_write(out, format)
    used = None if vocabulary is None else read_vocabulary(vocabulary)
    if used is not None:
        columns = _columns_of(used, columns, str(vocabulary))
    table = Tables(sources, columns, split)
    encoder = table.fit() if used is None else used
    channels = table.split.channels
    paths = {name: _beside(out, name) for name in channels}
    counts = dict.fromkeys(channels, 0)
    held: dict[str, list[Rows]] = {name: [] for name in channels}
    with ExitStack() as stack:
        streams = {name: stack.enter_context(atomic_stream(path)) for name, path in paths.items()}
        for name, block, _ in table.rows(encoder):
            counts[name] += block.n
            if FORMATS[format].appends:
                source.put(block, streams[name], paths[name], format)
            else:
                held[name].append(block)
        for name, several in held.items():
            if not counts[name]:
                raise _empty(name, table.where)
            if several:
                source.put(concatenate(several), streams[name], paths[name], format)
    write_vocabulary(encoder, sidecar_of(out))
    return {
        "out": {name: str(path) for name, path in paths.items()},
        "rows": counts,
        "feature_dim": encoder.feature_dim,
        "vocabulary": str(sidecar_of(out)),
        "notes": list(table.notes),
    }


def _columns_of(encoder: Encoder, named: Columns, where: str) -> Columns:
    """Return what an encoder's columns are, which says how a table's cells are read; ``named`` may not differ.

    Raises
    ------
    UsageError
        Another label is named, or another column or kind than the encoder's.
    """
    if named.label not in (None, encoder.label):
        what = f"the vocabulary was made with the label {encoder.label!r}, and {named.label!r} is named"
        raise UsageError(what, where=where, hint="leave the label out, or --vocabulary: the table then makes its own")
    texts = [column for column in encoder.columns if isinstance(column, OneHot | Hashed)]
    found = Columns(
        encoder.label,
        categorical=tuple(column.name for column in texts if not column.separator),
        multivalued=tuple(column.name for column in texts if column.separator),
        numeric=tuple(column.name for column in encoder.columns if isinstance(column, Scaled)),
        bucketed=tuple(column.name for column in encoder.columns if isinstance(column, Bucketed)),
    )
    for kind in ("categorical", "multivalued", "numeric", "bucketed"):
        if other := sorted(set(getattr(named, kind)) - set(getattr(found, kind))):
            what = f"{other[0]!r} is named as {kind}, and is not in the vocabulary"
            raise UsageError(what, where=where, hint="leave the columns out: the vocabulary says what they are")
    return found


def _beside(out: Path, channel: str) -> Path:
    """Return where a channel's rows go: ``train.pbr`` becomes ``test.pbr``, ``clicks.pbr`` ``clicks-test.pbr``."""
    if channel == "train":
        return out
    stem = out.stem.replace("train", channel) if "train" in out.stem else f"{out.stem}-{channel}"
    return out.with_name(stem + out.suffix)


def _empty(name: str, where: str) -> DataError:
    return DataError(f"no rows are left for {name}", where=where, hint="change the shares, or the column they go by")
