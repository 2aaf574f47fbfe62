"""Encoding: the columns of a table as features of a factorization machine, fitted once and kept with the model.

A table comes as a pandas frame, a block at a time; a request's row as a mapping.  Both give the same entries.
What a column becomes stands in ``fmtune.data.kinds``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from fmtune.data.canonical import LARGEST_DIM, warn
from fmtune.data.cells import LARGEST, Float64, coded, missing_column, numbers_of, place, shown, values_of
from fmtune.data.columns import near
from fmtune.data.kinds import KINDS, TOO_FAR, Bucketed, Column, Hashed, OneHot, Scaled, column_of
from fmtune.data.labels import Classes, known_labels, labels_of
from fmtune.data.unseen import Unseen
from fmtune.errors import DataError, FmtuneError, ModelError
from fmtune.rows import Float32, Int32, Int64, SparseRows

if TYPE_CHECKING:
    import pandas as pd


class Encoder:
    """Fitted columns; makes rows of frames and of mappings.

    Parameters
    ----------
    columns
        In the order of their features; hashed ones come last, whatever their place.
    label
        The column of the labels, None where there is none.
    classes
        The two words that labels are, those for 0 and for 1; empty where they are numbers.

    Attributes
    ----------
    feature_dim : int
        Number of features.
    """

    def __init__(self, columns: Sequence[Column], label: str | None = None, classes: Classes = ()) -> None:
        self.columns, self.label, self.classes = tuple(columns), label, classes
        hashed = [column for column in columns if isinstance(column, Hashed)]
        plain = sum(column.width for column in columns)
        self.feature_dim = plain + (1 << hashed[0].bits if hashed else 0)
        if self.feature_dim > LARGEST_DIM:
            raise DataError(
                f"the columns make {self.feature_dim:,} features; {LARGEST_DIM:,} is the most",
                hint="raise min_count, or set hash_bits",
            )
        at, starts = 0, {}
        for column in columns:
            starts[column.name] = plain if isinstance(column, Hashed) else at
            at += column.width
        self._starts = starts
        self._by_name = {column.name: column for column in columns}

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the columns whose cells are read as text."""
        return tuple(column.name for column in self.columns if isinstance(column, OneHot | Hashed))

    def rows(self, frame: pd.DataFrame, labels: bool = True, first: int = 0, where: str = "data") -> SparseRows:
        """Return a frame's rows; a warning tells of columns whose values are mostly unknown, where rows are scored.

        Parameters and errors as in :meth:`encoded`.
        """
        rows, unseen = self.encoded(frame, labels, first, where)
        if not labels:
            unseen.say(where)
        return rows

    def encoded(
        self, frame: pd.DataFrame, labels: bool | None = True, first: int = 0, where: str = "data"
    ) -> tuple[SparseRows, Unseen]:  # fmt: skip
        """Return a frame's rows, and how many of its values have no feature.

        Parameters
        ----------
        frame
            Columns of these names; others are not looked at.
        labels
            Whether the label's column is to be read; None reads what there is of it, NaN else.  Rows that need no
            labels are to be scored: of their columns some may be missing, as in a request, and count as missing cells.
        first, where
            Number of the frame's first row in the whole table, and the table, for messages.

        Raises
        ------
        DataError
            A column is missing, or a cell is not what its column is.
        """
        absent = [name for name in self._by_name if name not in frame.columns]
        if absent and (labels or len(absent) == len(self._by_name)):
            raise missing_column(absent[0], frame.columns, where)
        if absent:
            warn(f"{where}: {', '.join(absent)} not in the table: those cells count as missing")
        there = [column for column in self.columns if column.name not in absent]
        unseen = Unseen()
        parts = [self._block(column, frame[column.name], first, where, unseen) for column in there]
        which, keys, values = (np.concatenate(several) for several in zip(*parts, strict=True))
        places = which * self.feature_dim + keys
        order = np.argsort(places, kind="stable")
        starts = np.flatnonzero(np.diff(places[order], prepend=-1))
        pick, indptr = order[starts], np.zeros(len(frame) + 1, np.int64)
        np.cumsum(np.bincount(which[pick], minlength=len(frame)), out=indptr[1:])
        # Two values of a row may share a hashed feature.
        sums = np.add.reduceat(values[order], starts) if len(starts) else values
        made = self._labels(frame, labels, first, where)
        rows = SparseRows(indptr, keys[pick].astype(np.int32), sums.astype(np.float32), made, self.feature_dim)
        return rows, unseen

    def entries(self, record: Mapping[str, Any]) -> tuple[Int32, Float32]:
        """Return one row's keys, ascending, and its values, from cells by name; a column left out is missing.

        Raises
        ------
        DataError
            A name is no column's, or a cell is not what its column is; ``where`` is the name.
        """
        found: dict[int, float] = {}
        for name, cell in record.items():
            column = self._by_name.get(name)
            if column is None:
                if name == self.label:
                    continue
                what = f"the model has no column {name!r}{near(name, self._by_name)}: it has "
                raise DataError(what + ", ".join(self._by_name), where=name)
            start = self._starts[name]
            for key, value in column.entries(cell):
                found[start + key] = found.get(start + key, 0.0) + value
        keys = sorted(found)
        return np.array(keys, np.int32), np.array([found[key] for key in keys], np.float32)

    def names(self) -> list[str]:
        """Return the features' names (feature_dim,): ``user=42``, ``age``, ``hour 6..12``, ``#17`` of hashed ones."""
        plain = [column.named(at) for column in self.columns for at in range(column.width)]
        return plain + [f"#{at}" for at in range(self.feature_dim - len(plain))]

    def name(self, feature: int) -> str:
        """Return one feature's name, as in ``names``."""
        for column in self.columns:
            start = self._starts[column.name]
            if start <= feature < start + column.width:
                return column.named(feature - start)
        return f"#{feature - sum(column.width for column in self.columns)}"

    def groups(self) -> dict[str, int]:
        """Return the first feature of each column, for solvers whose columns have priors of their own."""
        found = {column.name: self._starts[column.name] for column in self.columns if column.width}
        hashed = [column.name for column in self.columns if isinstance(column, Hashed)]
        return {**found, hashed[0]: self._starts[hashed[0]]} if hashed else found

    def alone(self) -> list[tuple[int, int]]:
        """Return the features, first and the one after the last, of each column of which a row has one at most.

        Lists may stand in any column of names, but a column without a separator is taken to hold single ones.
        """
        single = (c for c in self.columns if isinstance(c, Bucketed) or (isinstance(c, OneHot) and not c.separator))
        return [(self._starts[column.name], self._starts[column.name] + column.width) for column in single]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, for a model's facts and for ``*.vocabulary.json``."""
        kinds = {kind: name for name, kind in KINDS.items()}
        columns = []
        for column in self.columns:
            values = {key: value for key, value in asdict(column).items() if key != "_places"}
            columns.append({"kind": kinds[type(column)], **values})
        made = {"version": 1, "label": self.label, "feature_dim": self.feature_dim, "columns": columns}
        return {**made, "classes": list(self.classes)} if self.classes else made

    @classmethod
    def from_json(cls, made: Mapping[str, Any], where: str = "encoding") -> Encoder:
        """Return what ``to_json`` described.

        Raises
        ------
        ModelError
            It is not understood.
        """
        try:
            if made["version"] != 1 or not isinstance(made["label"], str | None):
                raise ValueError(f"version {made['version']}, label {made['label']!r}")
            match made.get("classes", []):
                case [] | [str(), str()] as classes:
                    encoder = cls([column_of(entry) for entry in made["columns"]], made["label"], tuple(classes))
                case classes:
                    raise ValueError(f"classes {classes!r}")
            if encoder.feature_dim != made["feature_dim"]:
                raise ValueError("the columns do not make its feature_dim")
        except (KeyError, TypeError, ValueError, AttributeError, FmtuneError) as error:
            hint = "convert the table again, or train the model again"
            raise ModelError(f"the encoding is not understood: {error}", where=where, hint=hint) from error
        return encoder

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Encoder | None:
        """Return the encoder among a model's facts, None where its rows were not made of a table."""
        made = facts.get("encoding")
        return None if made is None else cls.from_json(made, "the model's encoding")

    def _block(
        self, column: Column, cells: pd.Series[Any], first: int, where: str, unseen: Unseen
    ) -> tuple[Int64, Int64, Float64]:  # fmt: skip
        """Return row, key and value of every entry of a column; count the values without one in ``unseen``."""
        start = self._starts[column.name]
        if isinstance(column, Scaled | Bucketed):
            numbers = numbers_of(cells, column.name, first, where)
            there = np.flatnonzero(~np.isnan(numbers))
            keys, values = column.block(numbers[there])
            if len(far := np.flatnonzero(np.abs(values) > LARGEST)):
                at = int(there[far[0]])
                what = f"{column.name!r} is {shown(cells.iloc[at])}, {TOO_FAR}"
                hint = "correct it, or cut the column into buckets"
                raise DataError(what, where=place(where, first + at), hint=hint)
            return there, keys + start, values
        codes, uniques = coded(cells, where, first)
        found = [column.entries(cell) for cell in uniques]
        lengths = np.array([len(entries) for entries in found], np.int64)
        flat = np.array([entry for entries in found for entry in entries], np.float64).reshape(-1, 2)
        there = np.flatnonzero(codes >= 0)
        mine = lengths[codes[there]]
        if isinstance(column, OneHot) and not column.others:
            self._count(unseen, column, uniques, lengths, np.bincount(codes[there], minlength=len(uniques)))
        ends = np.cumsum(mine)
        offsets = np.repeat((np.cumsum(lengths) - lengths)[codes[there]] - (ends - mine), mine)
        pick = offsets + np.arange(len(offsets))
        return np.repeat(there, mine), flat[pick, 0].astype(np.int64) + start, flat[pick, 1]

    @staticmethod
    def _count(unseen: Unseen, column: OneHot, uniques: Sequence[Any], lengths: Int64, counts: Int64) -> None:
        """Count the cells that hold something, and those of them without an entry."""
        nothing = np.flatnonzero(lengths == 0)
        empty = [at for at in nothing.tolist() if not values_of(uniques[at], column.separator)]
        missing = int(counts[empty].sum())
        unseen.count(column.name, int(counts[nothing].sum()) - missing, int(counts.sum()) - missing)

    def _labels(self, frame: pd.DataFrame, wanted: bool | None, first: int, where: str) -> Float32 | None:
        if wanted is None:
            return known_labels(frame, self.label, self.classes).astype(np.float32)
        return labels_of(frame, str(self.label), self.classes, first, where).astype(np.float32) if wanted else None


def names_of(facts: Mapping[str, Any]) -> list[str] | None:
    """Return the features' names among a model's facts: its encoder's, or its dataset card's; None without either."""
    encoder = Encoder.of(facts)
    if encoder is not None:
        return encoder.names()
    names = facts.get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def scales_of(facts: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return by name what is taken from a column's numbers, and what they are then divided by, before the model."""
    encoder = Encoder.of(facts)
    scaled = () if encoder is None else (c for c in encoder.columns if isinstance(c, Scaled))
    return {column.name: (float(column.mean), float(column.deviation)) for column in scaled}
