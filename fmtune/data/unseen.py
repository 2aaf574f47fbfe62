"""Unseen: how many values of a table to be scored are none that its model knows."""

from __future__ import annotations

from collections import Counter

from fmtune.data.canonical import warn


class Unseen:
    """Counts of values by column: those without a feature, and all that are not missing.

    Columns with a feature for rare values are not counted: an unseen value has that one.
    """

    def __init__(self) -> None:
        self._unknown: Counter[str] = Counter()
        self._all: Counter[str] = Counter()

    def count(self, column: str, unknown: int, all_of_them: int) -> None:
        """Add the values of a block."""
        self._unknown[column] += unknown
        self._all[column] += all_of_them

    def add(self, other: Unseen) -> None:
        """Add another block's counts."""
        self._unknown.update(other._unknown)
        self._all.update(other._all)

    def say(self, name: str) -> None:
        """Warn of the columns of which more than half is unknown; ``name`` is the path."""
        most = {column: (n, self._all[column]) for column, n in self._unknown.items() if 2 * n > self._all[column]}
        if most:
            words = ", ".join(f"{column} ({n:,} of {total:,} values)" for column, (n, total) in most.items())
            warn(f"{name}: unknown to the model, and nothing to it: {words}")
