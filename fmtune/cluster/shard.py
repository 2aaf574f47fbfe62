"""Shard: a run of features, with their parameters and their rule's state; workers pull rows of it and push changes.

What is pushed in a round is kept by block and summed in the parts' order when the round is merged.  So a push that
comes twice counts once, and the sum does not depend on who was first.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import StorageError
from fmtune.files import atomic_write
from fmtune.fm.arena import columns_of, initial, shape_of
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.kernels import exchange

Float32 = NDArray[np.float32]
Ids = NDArray[np.int64]
Counts = NDArray[np.int32]

# Which rows: the number of the part, and of its piece.
Block = tuple[int, int]


class Changes(NamedTuple):
    """What a part changed: rows (features, planes, columns), float32, or halves' bits times ``scale`` (planes,)."""

    rows: NDArray[np.float32] | NDArray[np.uint16]
    scale: Float32 | None

    @classmethod
    def of(cls, rows: Float32, half: bool) -> Changes:
        """Return changes to send; halved, each plane is brought into float16's range, which Adam's squares leave."""
        if not half:
            return cls(rows, None)
        most, out = np.empty(rows.shape[1], np.float32), np.empty(rows.shape, np.uint16)
        exchange.largest(rows, most)
        # What is not finite is found in the model, by whoever asks for it.
        scale = np.where(np.isfinite(most) & (most > _SMALLEST), most / _LARGEST, 1.0).astype(np.float32)
        exchange.halve(rows, np.float32(1.0) / scale, out)
        return cls(out, scale)

    @property
    def nbytes(self) -> int:
        """Bytes on the way."""
        return int(self.rows.nbytes + (0 if self.scale is None else self.scale.nbytes))

    def add(self, rows: Float32, places: Ids, counts: Counts) -> None:
        """Add them to rows, each divided by how many parts changed it."""
        if self.scale is None:
            exchange.add(rows, places, self.rows, counts)
        else:
            exchange.add_halves(rows, places, self.rows, self.scale, counts)


# Near float16's largest number; its smallest is 1e-12 of that.  And what is too small to be divided by.
_LARGEST, _SMALLEST = 60_000.0, 1e-30


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
        self._blocks: dict[Block, Ids] = {}
        self._pushed: dict[Block, Changes] = {}
        self._counts: Counts = np.zeros(stop - start, np.int32)
        self._rows = np.zeros((stop - start, *shape_of(h)), np.float32)
        self._linear = slice(columns_of(h.num_factors) - 1, columns_of(h.num_factors))
        if round:
            self.restore(round)
            return
        initial(h, "factors", self._rows[:, 0, : h.num_factors], start)
        initial(h, "linear", self._rows[:, 0, self._linear], start)

    def pull(self, block: Block, ids: Ids | None = None) -> Float32 | None:
        """Return the rows of a block's features, float32 (features, planes, columns).

        A block's features are the same in each epoch, so ``ids`` are sent once; None is returned for a block that
        this shard has not met.
        """
        if ids is not None:
            self._blocks[block] = ids - self._start
        return self._rows[self._blocks[block]] if block in self._blocks else None

    def push(self, block: Block, changes: Changes) -> int:
        """Take what a block's part changed in this round; returns the bytes."""
        self._pushed[block] = changes
        return changes.nbytes

    def merge(self) -> None:
        """End a round: each feature moves by the mean over the parts that touched it, summed in the parts' order."""
        pushed = [(self._blocks[block], changes) for block, changes in sorted(self._pushed.items())]
        for places, _ in pushed:
            exchange.count(places, self._counts)
        for places, changes in pushed:
            changes.add(self._rows, places, self._counts)
        for places, _ in pushed:
            exchange.clear(places, self._counts)
        self._pushed = {}

    def drop(self) -> None:
        """Forget what was pushed in a round that is done again."""
        self._pushed = {}

    def parameters(self) -> Float32:
        """Return the parameters without states, float32 (features, num_factors + 1); the linear weight is the last."""
        return np.concatenate([self._rows[:, 0, : self._h.num_factors], self._rows[:, 0, self._linear]], axis=1)

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
