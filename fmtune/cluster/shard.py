"""Shard: a run of features, with their parameters and their rule's state; workers pull rows of it and push changes.

What is pushed in a round is kept by part and summed in the parts' order when the round is merged.  So a push that
comes twice counts once, and the sum does not depend on who was first.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import StorageError
from fmtune.files import atomic_write
from fmtune.fm.arena import columns_of, initial
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.kernels.rules import RULES

Float32 = NDArray[np.float32]
Ids = NDArray[np.int64]


class Changes(NamedTuple):
    """What a part changed: rows, float16 or float32 (features, planes, columns), times ``scale`` (planes,)."""

    rows: NDArray[np.floating]
    scale: Float32

    @classmethod
    def of(cls, rows: Float32, half: bool) -> Changes:
        """Return changes to send; halved, each plane is brought into float16's range, which Adam's squares leave."""
        if not half:
            return cls(rows, np.ones(rows.shape[1], np.float32))
        largest = np.abs(rows).max(axis=(0, 2), initial=0.0)
        scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
        return cls((rows / scale[:, None]).astype(np.float16), scale)

    @property
    def nbytes(self) -> int:
        """Bytes on the way."""
        return int(self.rows.nbytes + self.scale.nbytes)


# Near float16's largest number; its smallest is 1e-12 of that.
_LARGEST = 60_000.0


class _Push(NamedTuple):
    ids: Ids
    changes: Changes


class Shard:
    """Features ``start`` to ``stop``; a row is float32 (planes, columns): parameters, then states.

    Parameters
    ----------
    h
        The configuration.
    start, stop
        The features, by their number in the whole model.
    folder
        Where checkpoints go; all shards and their successors must reach it.
    round
        The checkpoint to begin with; 0 begins with first values.
    """

    def __init__(self, h: Hyperparameters, start: int, stop: int, folder: Path, round: int = 0) -> None:
        self._h, self._start, self._stop, self._folder = h, start, stop, folder
        self._pushed: dict[int, _Push] = {}
        self._rows = np.zeros((stop - start, 1 + RULES[h.optimizer].states, columns_of(h.num_factors)), np.float32)
        if round:
            self.restore(round)
            return
        initial(h, "factors", self._rows[:, 0, : h.num_factors], start)
        initial(h, "linear", self._rows[:, 0, -1:], start)

    def pull(self, ids: Ids) -> Float32:
        """Return rows of features, float32 (features, planes, columns)."""
        return self._rows[ids - self._start]

    def push(self, part: int, ids: Ids, changes: Changes) -> int:
        """Take what a part changed in this round; returns the bytes."""
        self._pushed[part] = _Push(ids, changes)
        return int(ids.nbytes) + changes.nbytes

    def merge(self) -> None:
        """End a round: each feature moves by the mean over the parts that touched it."""
        total = {part: push for part, push in sorted(self._pushed.items()) if len(push.ids)}
        if total:
            ids = np.unique(np.concatenate([push.ids for push in total.values()]))
            sums, counts = np.zeros((len(ids), *self._rows.shape[1:]), np.float32), np.zeros(len(ids), np.float32)
            for push in total.values():
                at = np.searchsorted(ids, push.ids)
                sums[at] += push.changes.rows * push.changes.scale[:, None]
                counts[at] += 1
            self._rows[ids - self._start] += sums / counts[:, None, None]
        self._pushed = {}

    def drop(self) -> None:
        """Forget what was pushed in a round that is done again."""
        self._pushed = {}

    def parameters(self) -> Float32:
        """Return the parameters without states, float32 (features, num_factors + 1); the linear weight is the last."""
        return np.concatenate([self._rows[:, 0, : self._h.num_factors], self._rows[:, 0, -1:]], axis=1)

    def save(self, round: int, old: int) -> None:
        """Write a checkpoint, and remove an old one that nobody needs any more."""
        atomic_write(self._file(round), self._rows.tobytes())
        self._file(old).unlink(missing_ok=True)

    def restore(self, round: int) -> None:
        """Go back to a checkpoint.

        Raises
        ------
        StorageError
            It cannot be read: the folder is not shared, or the file is damaged.
        """
        path = self._file(round)
        try:
            self._rows[:] = np.fromfile(path, np.float32).reshape(self._rows.shape)
        except (OSError, ValueError) as error:
            raise StorageError(f"the checkpoint cannot be read: {error}", where=str(path),
                               hint="name a folder that all machines share") from error  # fmt: skip
        self._pushed = {}

    def _file(self, round: int) -> Path:
        return self._folder / f"{round}-{self._start}.shard"


def bounds(feature_dim: int, shards: int) -> Ids:
    """Return where shards begin, and the end: int64 (shards + 1,)."""
    return np.linspace(0, feature_dim, shards + 1).astype(np.int64)
