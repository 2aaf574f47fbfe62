"""Fitting: an encoder learned from a table, a block at a time.

What is held does not grow with the rows: a count for each value, two sums for each number, and at most ``SAMPLE``
numbers of each column that is cut into ranges.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmtune.data.cells import Float64, coded, missing_column, numbers_of, values_of
from fmtune.data.columns import Columns
from fmtune.data.encoding import Encoder
from fmtune.data.kinds import Bucketed, Column, Hashed, OneHot, Scaled
from fmtune.data.labels import Words

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = 1 << 18
"""Numbers of a column that its ranges are taken from."""


class Fitter:
    """Learns an encoder; ``where`` is what messages call the table."""

    def __init__(self, columns: Columns, where: str = "data") -> None:
        self.columns, self._where, self._rows = columns, where, 0
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in columns.texts}
        self._moments = {name: _Moments() for name in columns.numeric}
        self._samples = {name: Sample(SAMPLE) for name in columns.bucketed}
        self._words = Words(str(columns.label))

    def add(
        self, frame: pd.DataFrame, kept: NDArray[np.bool_] | None = None, where: str | None = None,
        first: int | None = None,
    ) -> None:  # fmt: skip
        """Learn from a block, or from the rows of it that are ``kept`` (rows,); errors as in ``Encoder.rows``.

        ``first`` is the number of the block's first row in ``where``; by default blocks follow one another.
        """
        where, first = where or self._where, self._rows if first is None else first
        kept = np.ones(len(frame), bool) if kept is None else kept
        for name in (*self._counts, *self._moments, *self._samples):
            if name not in frame.columns:
                raise missing_column(name, frame.columns, where)
        for name, counter in self._counts.items():
            if self.columns.hash_bits is None:
                codes, uniques = coded(frame[name], where, first)
                codes = codes[kept & (codes >= 0)]
                _count(counter, uniques, np.bincount(codes, minlength=len(uniques)), self.columns.separator_of(name))
        for name in (*self._moments, *self._samples):
            numbers = numbers_of(frame[name], name, first, where)
            (self._moments if name in self._moments else self._samples)[name].add(numbers[kept & ~np.isnan(numbers)])
        if self.columns.label in frame.columns:
            self._words.add(frame[self.columns.label][kept], where, first + np.flatnonzero(kept))
        self._rows += len(frame)

    def encoder(self) -> Encoder:
        """Return what was learned."""
        made: list[Column] = [self._text(name) for name in self._counts]
        made += [Bucketed(name, sample.edges(self.columns.buckets)) for name, sample in self._samples.items()]
        made += [Scaled(name, *moments.scale()) for name, moments in self._moments.items()]
        return Encoder(made, self.columns.label, self._words.classes(self._where))

    def _text(self, name: str) -> OneHot | Hashed:
        separator = self.columns.separator_of(name)
        if self.columns.hash_bits is not None:
            return Hashed(name, self.columns.hash_bits, separator)
        counter, least = self._counts[name], self.columns.min_count
        # The commonest first: their parameters lie together.
        values = sorted((v for v, count in counter.items() if count >= least), key=lambda v: (-counter[v], v))
        return OneHot(name, tuple(values), len(values) < len(counter), separator)


def _count(counter: Counter[str], uniques: Iterable[Any], counts: NDArray[np.int64], separator: str | None) -> None:
    for cell, count in zip(uniques, counts.tolist(), strict=True):
        # A name that is known is its own; others are looked at closer.
        if separator is None and isinstance(cell, str) and cell in counter:
            counter[cell] += count
        elif count:
            for value in values_of(cell, separator):
                counter[value] += count


class _Moments:
    """Mean and deviation of a stream of numbers, in float64 (Chan, Golub and LeVeque, 1983)."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, numbers: Float64) -> None:
        if not len(numbers):
            return
        n, mean = len(numbers), float(numbers.mean())
        delta, total = mean - self.mean, self.n + n
        self.squares += float(((numbers - mean) ** 2).sum()) + delta**2 * self.n * n / total
        self.n, self.mean = total, self.mean + delta * n / total

    def scale(self) -> tuple[float, float]:
        """Return mean and deviation; the deviation of equal numbers is 1."""
        deviation = math.sqrt(self.squares / self.n) if self.n else 0.0
        return self.mean, deviation if deviation > 1e-12 * abs(self.mean) else 1.0


class Sample:
    """At most ``size`` numbers of a stream, all with the same chance; the same stream gives the same sample."""

    def __init__(self, size: int) -> None:
        self._size, self._random = size, np.random.default_rng(0)
        self._numbers, self._ranks = np.empty(0), np.empty(0)

    def add(self, numbers: Float64) -> None:
        """Take more numbers."""
        self._numbers = np.concatenate([self._numbers, numbers])
        self._ranks = np.concatenate([self._ranks, self._random.random(len(numbers))])
        if len(self._ranks) > self._size:
            keep = np.sort(np.argpartition(self._ranks, self._size)[: self._size])
            self._numbers, self._ranks = self._numbers[keep], self._ranks[keep]

    def quantiles(self, shares: Iterable[float]) -> Float64:
        """Return the numbers below which these shares of the sample lie."""
        return np.quantile(self._numbers, list(shares)) if len(self._numbers) else np.empty(0)

    def edges(self, buckets: int) -> tuple[float, ...]:
        """Return where at most so many ranges meet, each with as many numbers as the others, about."""
        found = np.unique(self.quantiles(np.arange(1, buckets) / buckets))
        return tuple(found[found > self._numbers.min()].tolist()) if len(found) else ()
