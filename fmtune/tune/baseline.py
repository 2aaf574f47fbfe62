"""Baseline: the linear model that a winner must beat, tuned with little effort under the winner's own settings.

It is the winner's configuration with ``num_factors: 0``.  What matters most to a linear model is tried at
``FACTORS`` of the winner's value, side by side in one pack: the rate of the linear weights for sgd, their decay for
als; mcmc has neither.  Like the winner it is selected on the test channel, and at its best epoch; it has the same
patience.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fmtune.fm.feed import Recipe
from fmtune.fm.fit import Channels, Progress
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS, Array
from fmtune.fm.solvers import trainer
from fmtune.tune.selection import contributions, joined

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)

_TUNED = {"sgd": "linear_lr", "als": "linear_wd"}
_DRAWS = 1000


def baseline(
    channels: Channels, winner: Hyperparameters, device: str, layout: str, metric: str, scores: Array,
    stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train the linear model and compare it with the winner on the same test rows.

    Parameters
    ----------
    channels, device, layout
        What the winner was trained on, and where.
    winner
        Its configuration.
    metric
        A name of ``METRICS``.
    scores
        The winner's raw scores of the test rows, float32 (n,).
    stop
        Asked a few times a second; True raises :class:`~fmtune.fm.pack.Stopped`.

    Returns
    -------
    dict
        ``value``; ``tried``, how many settings; ``params``, what differs from the winner; ``epoch``; ``difference``,
        how much worse the linear model is, with ``low`` and ``high`` of its 95 % interval over test rows (None for
        a metric that is no sum over rows).
    """
    tuned = _TUNED.get(winner.solver)
    plain = winner.replace(num_factors=0)
    tries = [plain.replace(**{tuned: getattr(plain, tuned) * f}) for f in FACTORS] if tuned else [plain]
    pack = trainer(channels.feed, Recipe.of(plain, layout, device))
    pack.change(enter=tries)
    test, labels = channels.test(layout), channels.test_labels
    assert test is not None
    sign = 1.0 if METRICS[metric].direction == "minimize" else -1.0
    found: tuple[float, int, int, Array] | None = None
    progress = [Progress(METRICS[metric].direction, winner.patience) for _ in tries]
    for epoch in range(1, winner.epochs + 1):
        pack.epoch(stop)
        tired = []
        for i, row in enumerate(pack.score(test)):
            value = METRICS[metric].compute(row, labels)
            tired.append(progress[i].add(value))
            if np.isfinite(value) and (found is None or sign * value < sign * found[0]):
                found = value, i, epoch, row
        if all(tired):
            break
    if found is None:
        return {"value": None, "tried": len(tries), "params": {}}
    value, i, epoch, row = found
    params = {"num_factors": 0, **({tuned: getattr(tries[i], tuned)} if tuned else {})}
    return {
        "value": value, "tried": len(tries), "params": params, "epoch": epoch,
        **_difference(metric, scores, row, labels),
    }  # fmt: skip


def _difference(metric: str, winner: Array, other: Array, labels: Array) -> dict[str, Any]:
    """Return how much worse ``other`` is, and the interval of that over draws of the rows, the same for both."""
    sign = 1.0 if METRICS[metric].direction == "minimize" else -1.0
    compute = METRICS[metric].compute
    gap = sign * (compute(other, labels) - compute(winner, labels))
    parts = [contributions(metric, scores, labels) for scores in (winner, other)]
    if parts[0] is None or parts[1] is None:
        return {"difference": gap, "low": None, "high": None}
    rng, n = np.random.default_rng(0), len(labels)
    draws = np.empty(_DRAWS)
    for k in range(_DRAWS):
        share = np.bincount(rng.integers(0, n, n), minlength=n) / n
        draws[k] = sign * (joined(metric, parts[1] @ share) - joined(metric, parts[0] @ share))
    low, high = (float(x) for x in np.quantile(draws, [0.025, 0.975]))
    return {"difference": gap, "low": low, "high": high}
