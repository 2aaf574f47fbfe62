"""Corrected scores: the program behind the table of ``docs/limits.md``; ``python -m tests.corrected`` prints it.

Trials of a drawn classification, each the planted scores and noise of its own: with ``spread`` 0 all have as much, so
the best is best by luck; with more they differ.  Rows: how much better than its true log loss the best trial looks, as
selected and as corrected, means over studies, and the standard error of one trial's score beside them.  The luck that
the planted scores had with the test rows is taken off: it is the same for all trials, and nothing that choosing does.
"""

from __future__ import annotations

import numpy as np

from fmtune.fm.metrics import cross_entropy
from fmtune.tune.selection import honest

STUDIES, TRIALS, TRUTH = 100, 60, 20_000


def study(rows: int, spread: float, seed: int) -> tuple[float, float, float]:
    """Return the best trial's true log loss minus the selected one, the same minus the corrected one, and the error."""
    random = np.random.default_rng(seed)
    planted = 1.5 * random.normal(size=rows + TRUTH)
    labels = (random.random(rows + TRUTH) < 1 / (1 + np.exp(-planted))).astype(np.float32)
    noises = 0.8 * np.exp(0.5 * spread * random.normal(size=TRIALS))
    scores = [(planted + noise * random.normal(size=rows + TRUTH)).astype(np.float32) for noise in noises]
    found = honest("binary_classification_cross_entropy", {n: s[None, :rows] for n, s in enumerate(scores)},
                   labels[:rows], seed)  # fmt: skip
    assert found is not None
    luck = cross_entropy(planted[:rows], labels[:rows]) - cross_entropy(planted[rows:], labels[rows:])
    truth = cross_entropy(scores[found["trial"]][rows:], labels[rows:]) + luck
    error = (found["high"] - found["low"]) / (2 * 1.96)
    return truth - found["naive"], truth - found["corrected"], error


if __name__ == "__main__":
    print("| test rows | spread | as selected | as corrected | error of one score |")
    print("| --- | --- | --- | --- | --- |")
    for rows in (150, 600, 2000):
        for spread in (0.0, 0.1, 0.3, 1.0):
            found = np.array([study(rows, spread, seed) for seed in range(STUDIES)])
            (naive, corrected, error), spoilt = found.mean(axis=0), found.std(axis=0, ddof=1) / STUDIES**0.5
            print(f"| {rows:,} | {spread} | {naive:.4f} +- {spoilt[0]:.4f} | {corrected:+.4f} +- {spoilt[1]:.4f} | "
                  f"{error:.4f} |", flush=True)  # fmt: skip
