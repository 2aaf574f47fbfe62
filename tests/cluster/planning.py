"""Planning: the tables of docs/cluster.md that no machine here is large enough to measure.

`python -m tests.cluster.planning` plays a study through on 10, 100 and 1,000 workers (minutes), and counts what two
machines would send each other for a model of 100 million features.
"""

from __future__ import annotations

import time

import numpy as np

from fmtune.cluster.shard import Changes
from fmtune.fm.arena import columns_of
from fmtune.kernels.rules import RULES
from fmtune.tune.rehearsal import Scene, play

HOUR = 3600.0
SCENES = [
    *(Scene(workers, 8 * workers, trial=60.0, lag=factor * workers, failures=failures * HOUR)
      for workers in (10, 100) for factor, failures in ((1, 24.0), (2, 24.0), (2, 2.0))),
    Scene(1000, 1000, trial=60.0, lag=2000, failures=24 * HOUR),
]  # fmt: skip
FEATURES, FILLED = 100_000_000, 40


def workers() -> None:
    """Print what comes of each scene."""
    for scene in SCENES:
        began = time.process_time()
        found = play(scene)
        best = scene.n_trials * scene.trial / scene.workers
        asked = found.operations["claim"] + found.operations["end"] + found.operations["poll"]
        print(f"| {scene.workers:,} | {scene.n_trials:,} | {scene.lag:,} | {scene.failures / HOUR:.0f} h | "
              f"{found.seconds / 60:.0f} min ({found.seconds / best:.1f} x) | {found.lost / found.worked:.1%} | "
              f"{found.rate:.0f} ({asked / found.seconds:.0f}) | {found.queue:.2f} s |"
              f" <!-- {time.process_time() - began:.0f} s -->", flush=True)  # fmt: skip


def touched(rows: int) -> int:
    """Return how many features of click logs' kind so many rows touch."""
    each = FEATURES // FILLED
    values = np.minimum(np.random.default_rng(0).zipf(1.3, (rows, FILLED)), each) - 1
    return sum(len(np.unique(column)) for column in values.T)


def traffic() -> None:
    """Print what a part sends and gets in one exchange."""
    for rows in (6_000, 48_000, 1_000_000):
        count = touched(rows)
        for factors in (8, 16, 64):
            shape = (1, 1 + RULES["adagrad"].states, columns_of(factors))
            one = np.ones(shape, np.float32)
            sizes = [one.nbytes + Changes.of(one, half).rows.nbytes for half in (False, True)]
            both = " | ".join(f"{count * size / 1e6:,.0f} MB | {count * size / rows:,.0f} B" for size in sizes)
            print(f"| {rows:,} | {count:,} | {factors} | {both} | {one.nbytes * FEATURES / 1e9:.0f} GB |")


if __name__ == "__main__":
    traffic()
    workers()
