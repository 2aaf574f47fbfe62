"""Baseline: the linear model that a winner must beat, tuned for itself, a grid of settings, a pack for each rate.

What shapes the pass, and the bias, it has from the winner; but an update for every few rows, which a winner may have,
would cost more than the whole search, and a linear model gains nothing by it.  For sgd its rate and its decay are
searched, whatever the winner's are, with adam, which needs the least care; for als the decay, around the winner's; mcmc
has nothing to search.  By gradients a linear model may need more epochs than one with factors, so it gets up to
``LONGER`` times the winner's.  A pack ends when none of its settings has got better for ``PATIENCE`` epochs.  Like the
winner it is selected on the test channel, and at its best epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from fmtune.fm import cuda_card
from fmtune.fm.feed import Recipe
from fmtune.fm.fit import Channels
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS, Array
from fmtune.fm.solvers import memory_of, trainer
from fmtune.machine import free_memory
from fmtune.tune.selection import difference

RATES = (0.003, 0.01, 0.03, 0.1)
DECAYS = (0.0, 1e-4, 1e-3, 1e-2)
FACTORS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)

# Updates of an epoch that are enough, and rows of one beyond which its pass gets no cheaper.
UPDATES, ROWS = 100, 1000

LONGER = 3
PATIENCE = 2
_BETTER = 1e-3  # a smaller share of the score is not worth more epochs

_SHAPE = (
    "predictor_type", "solver", "seed", "mini_batch_size", "shuffle", "shuffle_seed", "lazy", "exact", "pad_last_batch",
    "use_bias", "bias_lr", "bias_wd", "bias_init_method", "bias_init_sigma", "bias_init_scale", "bias_init_value",
)  # fmt: skip
_TUNED = {"sgd": ("linear_lr", "linear_wd"), "als": ("linear_wd",), "mcmc": ()}


def settings(winner: Hyperparameters, rows: int) -> list[Hyperparameters]:
    """Return the linear models that are tried beside a winner that learnt from so many rows."""
    if winner.solver != "sgd":
        plain = winner.replace(num_factors=0, patience=0)
        decay = plain.linear_wd or Hyperparameters().linear_wd
        return [plain] if winner.solver == "mcmc" else [plain.replace(linear_wd=decay * f) for f in FACTORS]
    own = {name: getattr(winner, name) for name in _SHAPE}
    own["mini_batch_size"] = max(winner.mini_batch_size, min(ROWS, rows // UPDATES))
    plain = Hyperparameters.of({**own, "num_factors": 0, "optimizer": "adam", "epochs": LONGER * winner.epochs})
    return [plain.replace(linear_lr=rate, linear_wd=decay) for rate in RATES for decay in DECAYS]


def baseline(
    channels: Channels, winner: Hyperparameters, device: str, layout: str, metric: str, scores: Array,
    stop: Callable[[], bool] | None = None, room: float | None = None, threads: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Train the linear models and compare the best of them with the winner on the same test rows.

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
    room
        Bytes that packs may take, and never more than half of what is free on the device; what needs more is divided,
        down to one setting at a time.
    threads
        How many packs are trained at once at most, on the CPU; the result does not depend on it where memory suffices.

    Returns
    -------
    dict
        ``value``; ``tried``, how many settings; ``params``, what was tuned or differs from the winner; ``epoch``, the
        best; ``epochs``, how many were trained;
        ``difference``, how much worse the linear model is, with ``low`` and ``high``
        of its 95 % interval over test rows.
    """
    tries = settings(winner, channels.feed.n)
    free = (cuda_card.free() if device == "gpu" else free_memory()) / 2
    room = free if room is None else min(free, room)
    fit = max(1, int(min(len(tries), room / memory_of(tries[0], channels.feed))))
    threads = 1 if device == "gpu" else min(threads, fit)
    wide = fit // threads
    rates = [list(pack) for _, pack in itertools.groupby(tries, lambda h: h.linear_lr)]
    packs = [pack[i : i + wide] for pack in rates for i in range(0, len(pack), wide)]
    with ThreadPoolExecutor(threads) as pool:
        ended = pool.map(lambda pack: _best(channels, pack, device, layout, metric, stop), packs)
        found = [one for one in ended if one is not None]
    if not found:
        return {"value": None, "tried": len(tries), "params": {}}
    sign = 1.0 if METRICS[metric].direction == "minimize" else -1.0
    best = min(found, key=lambda one: sign * one.value)
    params = {n: v for n, v in vars(best.h).items() if n in _TUNED[winner.solver] or v != getattr(winner, n)}
    return {
        "value": best.value, "tried": len(tries), "params": params, "epoch": best.epoch, "epochs": best.epochs,
        **difference(metric, scores[None], best.scores[None], channels.test_labels, channels.units),
    }  # fmt: skip


class _Best(NamedTuple):
    value: float
    h: Hyperparameters
    epoch: int
    epochs: int
    scores: Array


def _best(
    channels: Channels, tries: Sequence[Hyperparameters], device: str, layout: str, metric: str,
    stop: Callable[[], bool] | None,
) -> _Best | None:  # fmt: skip
    """Train a pack until none of it gets better; return the best of all its epochs, None without a finite score."""
    pack = trainer(channels.feed, Recipe.of(tries[0], layout, device))
    pack.change(enter=tries)
    test, labels = channels.test(layout), channels.test_labels
    assert test is not None
    sign = 1.0 if METRICS[metric].direction == "minimize" else -1.0
    best: tuple[float, int, int, Array] | None = None
    marks, since, epoch = np.full(len(tries), np.inf), np.zeros(len(tries), int), 0
    while epoch < tries[0].epochs and epoch - since.max() < PATIENCE:
        pack.epoch(stop)
        epoch += 1
        for i, row in enumerate(pack.score(test)):
            with np.errstate(over="ignore", invalid="ignore"):
                value = METRICS[metric].compute(row, labels)
            if np.isfinite(value) and (best is None or sign * value < sign * best[0]):
                best = value, i, epoch, row
            if sign * value < marks[i]:
                marks[i], since[i] = sign * value - _BETTER * abs(value), epoch
    return None if best is None else _Best(best[0], tries[best[1]], best[2], epoch, best[3])
