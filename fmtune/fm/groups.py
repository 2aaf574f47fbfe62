"""Groups: which features belong together, for priors and weight decay of their own.

A group is a run of neighbouring features, as one-hot encoded columns lie: all users, then all items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import UsageError

_HINT = "name each group with its first feature, counted from 0, as in {user: 0, item: 943}, or list them: [0, 943]"


class Groups(NamedTuple):
    """Runs of features: their names, first features (ascending, the first is 0) and factors of weight decay."""

    names: tuple[str, ...] = ("all",)
    firsts: tuple[int, ...] = (0,)
    decays: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, raw: Mapping[str, Any] | Sequence[int]) -> Groups:
        """Return the groups of a study file's or a call's words.

        Parameters
        ----------
        raw
            First features, or name to first feature, or name to ``{first, decay}``; ``decay`` multiplies
            ``linear_wd`` and ``factors_wd`` of solvers ``als`` and ``sgd``.

        Raises
        ------
        UsageError
            No group begins at 0, one is empty, or a number is none.
        """
        entries = raw.items() if isinstance(raw, Mapping) else [(str(i), first) for i, first in enumerate(raw)]
        rows = sorted(_row(str(name), entry) for name, entry in entries)
        firsts = tuple(first for first, _, _ in rows)
        if not firsts or firsts[0] != 0 or len(set(firsts)) < len(firsts):
            raise UsageError("groups must begin at feature 0, each at a place of its own", hint=_HINT)
        return cls(tuple(name for _, name, _ in rows), firsts, tuple(decay for _, _, decay in rows))

    def sizes(self, feature_dim: int) -> NDArray[np.int64]:
        """Return how many features each group has, int64 (groups,).

        Raises
        ------
        UsageError
            A group begins beyond the last feature.
        """
        if self.firsts[-1] >= feature_dim:
            name, first = self.names[-1], self.firsts[-1]
            raise UsageError(f"group {name!r} begins at feature {first}, and there are {feature_dim}", hint=_HINT)
        sizes: NDArray[np.int64] = np.diff(np.array([*self.firsts, feature_dim]))
        return sizes

    def features(self, feature_dim: int) -> NDArray[np.int32]:
        """Return each feature's group, int32 (feature_dim,); errors as in ``sizes``."""
        sizes = self.sizes(feature_dim)
        return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


def _row(name: str, entry: Any) -> tuple[int, str, float]:
    """Return first feature, name and decay of one entry."""
    parts = entry if isinstance(entry, Mapping) else {"first": entry}
    first, decay = parts.get("first"), parts.get("decay", 1.0)
    if isinstance(first, bool) or not isinstance(first, int) or first < 0 or set(parts) - {"first", "decay"}:
        raise UsageError(f"group {name!r} must have a first feature, a whole number, not {entry!r}", hint=_HINT)
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < float("inf"):
        raise UsageError(f"the decay of group {name!r} must be a number of at least 0, not {decay!r}", hint=_HINT)
    return first, name, float(decay)
