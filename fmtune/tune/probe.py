"""Probe: which cell of a study will be the fastest, told from a few short passes.

A pass takes a fixed time and a time a row: both are fitted to passes over a part of the rows and half of that, in
turns over the cells, so that a machine that slows down slows all.  What the turns say apart is how sure it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from fmtune.errors import ResourceError
from fmtune.fm.arena import columns_of
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.pack import Pack, bytes_of
from fmtune.machine import free_memory
from fmtune.rows import Rows, SparseRows
from fmtune.tune.driver import WIDTH
from fmtune.tune.spec import Cell

TURNS = 3

# Entries of the rows that are passed over: some hundredths of a second a lane.
_ENTRIES = 400_000


def fastest(cells: Sequence[Cell], train: Rows, h: Hyperparameters, lanes: int) -> str:
    """Return a sentence: the cell whose epochs are expected to be the shortest, by how much, and how sure that is.

    Parameters
    ----------
    cells
        Two or more that can run here.
    train
        The train channel.
    h
        A configuration of the study.
    lanes
        How many train side by side.
    """
    entries = len(train.values) / train.n if isinstance(train, SparseRows) else train.feature_dim
    n = int(min(train.n, max(2 * h.mini_batch_size, _ENTRIES / max(1.0, entries))))
    wide = max(1, min(lanes, WIDTH // columns_of(h.num_factors)))
    if 2 * len(cells) * wide * bytes_of(h, train.feature_dim) > free_memory() / 4:
        return "fastest cell: not tried, its largest lanes would take much of the memory that is free"
    feeds = {rows: Feed(train.slice(0, rows)) for rows in (max(1, n // 2), n)}
    packs: dict[Cell, dict[int, Pack]] = {}
    for cell in cells:
        try:
            packs[cell] = {rows: _pack(feed, cell, h, wide) for rows, feed in feeds.items()}
        except ResourceError:
            continue
    if len(packs) < 2:
        return "fastest cell: not tried, its rows do not fit"
    turns = [{cell: _seconds(of, train.n) for cell, of in packs.items()} for _ in range(TURNS)]
    return said(turns)


def _pack(feed: Feed, cell: Cell, h: Hyperparameters, lanes: int) -> Pack:
    pack = Pack(feed, Recipe.of(h, cell.layout, cell.device))
    pack.change(enter=[h.replace(seed=h.seed + lane) for lane in range(lanes)])
    pack.epoch()
    return pack


def _seconds(packs: dict[int, Pack], rows: int) -> float:
    """Return what an epoch over all rows is expected to take."""
    taken = {}
    for n, pack in packs.items():
        began = time.perf_counter()
        pack.epoch()
        taken[n] = time.perf_counter() - began
    (few, short), (many, long) = taken.items()
    each = (long - short) / (many - few) if many > few else 0.0
    # A probe so short that its halves tell nothing apart is taken as it is.
    return float(long + max(each, 0.5 * long / many) * (rows - many))


def said(turns: Sequence[dict[Cell, float]]) -> str:
    """Return the sentence of :func:`fastest`, of each turn's expected seconds an epoch."""
    middle = {cell: float(np.median([turn[cell] for turn in turns])) for cell in turns[0]}
    first, second = sorted(middle, key=lambda cell: middle[cell])[:2]
    ratios = sorted(turn[second] / turn[first] for turn in turns)
    words = f"{ratios[len(ratios) // 2]:.1f} times as fast as {second.name}"
    between = f"{ratios[0]:.1f} to {ratios[-1]:.1f} in {len(turns)} short passes"
    if ratios[0] <= 1.05:
        return f"fastest cell: cannot tell {first.name} from {second.name} ({between})"
    return f"fastest cell: {first.name}, about {words} ({between})"
