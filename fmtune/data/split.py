"""Split: which rows of a table train, test and, if wanted, are held out; known of each row by itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmtune.data.cells import Float64, coded, missing_column, shown, text_of
from fmtune.data.fitting import Sample
from fmtune.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

CHANNELS = ("train", "test", "holdout")
# Where a share of so many rows begins is known to a tenth of a percent.
_TIMES = 1 << 20
_WRITTEN = "write times as 2024-05-17 or 2024-05-17T09:30, or as numbers such as seconds"


@dataclass(frozen=True)
class Split:
    """How rows are divided: by chance, by time (``by``: the newest rows are tested) or by whole groups (``group``).

    Attributes
    ----------
    test, holdout : float
        Shares of the rows, or of the groups.
    by : str or None
        A column whose order decides: the oldest rows train, then come test and holdout.
    group : str or None
        A column whose equal cells stay together.
    seed : int
        For chance and for groups.
    """

    test: float = 0.0
    holdout: float = 0.0
    by: str | None = None
    group: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("test", "holdout"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise UsageError(f"{name} is {share:g}", hint="a share of the rows, such as 0.1")
        if self.test + self.holdout >= 1:
            raise UsageError("test and holdout leave nothing to train on", hint="such as 0.1 each")
        if self.by is not None and self.group is not None:
            raise UsageError("the rows are divided by time or by group", hint="name one of the two columns")

    @property
    def apart(self) -> tuple[str, ...]:
        """The column that it looks at, if any."""
        return tuple(name for name in (self.by, self.group) if name is not None)

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that get rows."""
        return tuple(name for name in CHANNELS if name == "train" or getattr(self, name) > 0)


class Divider:
    """A split of one table; where ``by`` names a column, all its cells are first shown to ``look``."""

    def __init__(self, split: Split, where: str) -> None:
        self.split, self._where = split, where
        self._times, self._ends = Sample(_TIMES), np.empty(0)

    def look(self, frame: pd.DataFrame) -> None:
        """Learn from a block where in time the channels begin."""
        self._times.add(self._time(frame))

    def divide(self, frame: pd.DataFrame, first: int) -> tuple[NDArray[np.int64], Float64 | None]:
        """Return each row's place in ``split.channels`` (rows,), and its group as a number, where groups decide.

        ``first`` is the block's first row in the table.
        """
        split = self.split
        ends = np.cumsum([1 - split.test - split.holdout, split.test or split.holdout])[: len(split.channels) - 1]
        if split.by is not None:
            if not len(self._ends):
                self._ends = self._times.quantiles(ends)
            # Equal times stay together, in the later channel.
            return np.searchsorted(self._ends, self._time(frame), "right").astype(np.int64), None
        groups = None
        if split.group is not None:
            chances = groups = self._groups(frame)
        else:
            generator = np.random.Generator(np.random.PCG64(split.seed).advance(first))
            chances = generator.random(len(frame))
        return np.searchsorted(ends, chances, "right").astype(np.int64), groups

    def _time(self, frame: pd.DataFrame) -> Float64:
        import pandas as pd

        cells = _of(frame, self.split.by, self._where).infer_objects()
        if not pd.api.types.is_numeric_dtype(cells.dtype):
            try:
                cells = pd.to_datetime(cells, utc=True, format="ISO8601").astype("datetime64[ns, UTC]").astype("int64")
            except (ValueError, TypeError) as error:
                read = pd.to_datetime(cells, utc=True, format="ISO8601", errors="coerce")
                bad = cells[read.isna() & cells.notna()]
                found = shown((bad if len(bad) else cells).iloc[0])
                what = f"{self.split.by!r} is {found}, no time as ISO 8601 has it"
                raise DataError(what, where=self._where, hint=_WRITTEN) from error
        times = cells.to_numpy(np.float64, na_value=np.nan)
        if np.isnan(times).any() or (times < -9e18).any():
            raise DataError(f"the time {self.split.by!r} is missing in some rows", where=self._where,
                            hint="drop those rows, or divide by another column")  # fmt: skip
        return times

    def _groups(self, frame: pd.DataFrame) -> Float64:
        """Return a number in 0..1 for each row, the same for the same group."""
        codes, uniques = coded(_of(frame, self.split.group, self._where), self._where)
        chances = [self._chance(text_of(group)) for group in uniques]
        return np.array([*chances, self._chance("")])[codes]

    def _chance(self, text: str) -> float:
        digest = hashlib.blake2b(f"{self.split.seed}:{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "little") / 2.0**64


def _of(frame: pd.DataFrame, name: str | None, where: str) -> pd.Series[Any]:
    if name not in frame.columns:
        raise missing_column(str(name), frame.columns, where)
    return frame[name]
