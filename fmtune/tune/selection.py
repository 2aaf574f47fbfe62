"""Selection: how much of the best score is the luck of having looked at so many.

The best of N noisy scores is too good.  Bootstrap bias correction (Tsamardinos, Greasidou and Borboudakis,
2018): draw test rows with replacement, select among the trials on the drawn rows, and score the chosen one
on the rows that were not drawn.  By how much the chosen ones are worse there than the study's best is, on the mean over
many draws, is how much too good the best score is.  Taking the difference on the same rows leaves the curvature of a
root or a ratio out, which on few rows is larger than what is asked for.

Choosing on drawn rows is choosing with twice the variance, so where trials differ by about as much as their scores'
noise, the correction goes a little too far (``python -m tests.corrected``); where they are equal it does not.

It holds for the trials that take part.  The best few alone were chosen on all rows, drawn or not, and all of them
look better than they are: so as many trials as the memory allows take part, not finalists alone.

Metrics are computed from sums over rows, so a draw is one product of row counts and row contributions.  auc is
no such sum, but near one: each row's share of the pairs that it wins adds up to it (DeLong, DeLong and
Clarke-Pearson, 1988), exactly on all rows and to first order on drawn ones.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.files import atomic_write
from fmtune.fm.metrics import METRICS, Array, row_losses
from fmtune.tune.drawing import Float64, Units, enough, groups_of, shares

DRAWS = 1000

# Scores of all trials together take this many bytes at most; those of the best few may take more, on large channels.
BUDGET = 2**23
_FEW_BUDGET = 2**26

# What is drawn at once takes this many bytes at most.
_WORK = 2**26

# The test rows' labels, beside the scores: with them two studies can be compared that had the same rows.
LABELS = "labels.npy"
UNITS = "units.npy"


def contributions(metric: str, scores: Array, labels: Array) -> Float64:
    """Return what each row adds to a metric, float64 (parts, n)."""
    if metric == "auc":
        return _placements(scores, labels)
    if metric in ("rmse", "mse"):
        return np.asarray(row_losses(scores, labels, "regressor")[None])
    if metric == "absolute_loss":
        return np.asarray(np.abs(scores.astype(np.float64) - labels)[None])
    if metric == "binary_classification_cross_entropy":
        return np.asarray(row_losses(scores, labels, "binary_classifier")[None])
    said, true = scores >= 0, labels >= 0.5
    if metric == "binary_classification_accuracy":
        return np.asarray((said == true).astype(np.float64)[None])
    return np.stack([2.0 * (said & true), said.astype(np.float64) + true])


def _placements(scores: Array, labels: Array) -> Float64:
    """Return each row's share of the rows of the other label that it is on the right side of, float64 (5, n).

    The parts are: shares of label 1, label 1, shares of label 0, label 0, and auc itself.
    """
    true = labels >= 0.5
    shares = np.empty(len(labels))
    for own, way in ((true, 1), (~true, -1)):
        others = np.sort(way * scores[~own])
        wins = np.searchsorted(others, way * scores[own], "left") + np.searchsorted(others, way * scores[own], "right")
        shares[own] = wins / max(1, 2 * len(others))
    area = shares[true].mean() if true.any() else 0.5
    return np.stack([shares * true, true, shares * ~true, ~true, np.full(len(labels), area)])


def joined(metric: str, sums: Float64) -> Float64:
    """Return the metric from means of contributions, float64 (..., parts) to (...)."""
    if metric == "auc":
        area = sums[..., 4]
        # Draws without one of the labels say nothing of its side.
        sides = [np.divide(sums[..., i], sums[..., i + 1], out=area.copy(), where=sums[..., i + 1] > 0) for i in (0, 2)]
        return np.asarray(sides[0] + sides[1] - area)
    if metric == "rmse":
        return np.asarray(np.sqrt(sums[..., 0]))
    if metric == "binary_f_beta":
        return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1e-300))
    return np.asarray(sums[..., 0])


def difference(
    metric: str, ours: Array, theirs: Array, labels: Array, units: Units | None = None
) -> dict[str, Any]:  # fmt: skip
    """Return how much worse ``theirs`` is, and the interval of that over draws of the rows, the same for both.

    Both are raw scores, float32 (seeds, n).  ``units`` are the rows' groups, as in ``drawing.shares``.  ``low`` and
    ``high`` are None where there are too few rows or groups to draw from.
    """
    sign = 1.0 if METRICS[metric].direction == "minimize" else -1.0
    scores = [np.mean([METRICS[metric].compute(row, labels) for row in x]) for x in (ours, theirs)]
    gap = sign * float(scores[1] - scores[0])
    if not enough(len(labels), units):
        return {"difference": gap, "low": None, "high": None}
    low, high = (float(x) for x in np.quantile(sign * gaps(metric, ours, theirs, labels, units), [0.025, 0.975]))
    return {"difference": gap, "low": low, "high": high}


def gaps(
    metric: str, ours: Array, theirs: Array, labels: Array, units: Units | None = None, seed: int = 0
) -> Float64:  # fmt: skip
    """Return ``theirs`` minus ``ours`` in each draw of the rows, float64 (DRAWS,); parameters as in ``difference``."""
    tables = [np.stack([contributions(metric, row, labels) for row in x]) for x in (ours, theirs)]
    found = []
    for drawn in shares(len(labels), units, DRAWS, seed):
        one, two = (joined(metric, np.moveaxis(table @ drawn.T, -1, 0)).mean(axis=-1) for table in tables)
        found.append(two - one)
    return np.concatenate(found)


def interval(
    metric: str, scores: Array, labels: Array, seed: int = 0, units: Units | None = None
) -> tuple[float, float] | None:  # fmt: skip
    """Return the 95 % interval of a score over draws of the rows, drawn as for the best trial's; None for too few.

    ``scores`` are raw, float32 (seeds, n); the score is the mean over seeds.
    """
    if not enough(len(labels), units):
        return None
    inside, _, _ = _draws(metric, [scores], labels, seed, units)
    low, high = np.quantile(inside[:, 0], [0.025, 0.975])
    return float(low), float(high)


class Finalists:
    """The scores of the complete trials on the test rows, the best first, kept in files beside the study.

    Parameters
    ----------
    folder
        Where the files lie, ``<number>.npy``: float32 (seeds, test rows).
    direction
        ``minimize`` or ``maximize``.
    keep
        How many are kept at most; fewer where ``BUDGET`` ends.
    few
        So many of the best are there in any case: trained again where their scores lie on another machine.
    """

    def __init__(self, folder: Path, direction: str, keep: int = 1000, few: int = 20) -> None:
        self._folder, self._keep, self._few = folder, keep, few
        self._sign = 1.0 if direction == "minimize" else -1.0
        self._values: dict[int, float] = {}

    def know(self, values: Mapping[int, float]) -> None:
        """Take the values of trials that are complete already."""
        stored = self._stored()
        self._values = {n: v for n, v in values.items() if n in stored}

    def offer(self, number: int, value: float, scores: Array) -> None:
        """Keep a trial's scores if it is among the best, or better than all numbered before it; others then go."""
        values = {**self._values, number: value}
        kept, first = self._kept(values, scores.nbytes)
        if number in kept:
            # Syncing each trial would take longer than training a small one.
            atomic_write(self._folder / f"{number}.npy", _npy(scores), sync=number in first)
        for n in self._values.keys() - kept:
            (self._folder / f"{n}.npy").unlink(missing_ok=True)
        self._values = {n: values[n] for n in kept}

    def choose(self, values: Mapping[int, float], nbytes: int) -> list[int]:
        """Keep the best of a finished study, ``nbytes`` of scores each; returns those that are missed.

        They are the few whose scores are on the machines of other workers, and can be put here after training them
        again.
        """
        stored = self._stored()
        kept, first = self._kept(values, nbytes)
        for n in stored - kept:
            (self._folder / f"{n}.npy").unlink(missing_ok=True)
        self._values = {n: values[n] for n in kept & stored}
        return sorted(first - stored)

    def put(self, number: int, value: float, scores: Array) -> None:
        """Keep a chosen trial's scores."""
        atomic_write(self._folder / f"{number}.npy", _npy(scores))
        self._values[number] = value

    def label(self, labels: Array, units: Units | None = None) -> None:
        """Keep the test rows' labels, and which rows belong together."""
        atomic_write(self._folder / LABELS, _npy(labels))
        if units is not None:
            atomic_write(self._folder / UNITS, _npy(units))

    def scores(self) -> dict[int, Array]:
        """Return the kept scores by trial, best first."""
        ranked = sorted(self._values, key=lambda n: (self._sign * self._values[n], n))
        found = {n: _loaded(self._folder / f"{n}.npy") for n in ranked}
        return {n: scores for n, scores in found.items() if scores is not None}

    def _kept(self, values: Mapping[int, float], nbytes: int) -> tuple[set[int], set[int]]:
        """Return the trials that are kept, and those of them that have to be."""
        ranked, size = sorted(values, key=lambda n: (self._sign * values[n], n)), max(1, nbytes)
        few = min(self._few, self._keep, _FEW_BUDGET // size)
        first = {*ranked[:few], *_leaders(values, self._sign)}
        return first.union(ranked[: min(self._keep, BUDGET // size)]), first

    def _stored(self) -> set[int]:
        return {int(f.stem) for f in self._folder.glob("*.npy") if f.stem.isdigit()}


def _leaders(values: Mapping[int, float], sign: float) -> list[int]:
    """Return the trials that were the best of all up to their number, in number order."""
    found: list[int] = []
    for n in sorted(values):
        if not found or sign * values[n] < sign * values[found[-1]]:
            found.append(n)
    return found


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _loaded(path: Path) -> Array | None:
    """Return scores, or None where they were lost with the machine's power."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError):
        return None


def honest(
    metric: str, finalists: Mapping[int, Array], labels: Array, seed: int = 0, units: Units | None = None
) -> dict[str, Any] | None:  # fmt: skip
    """Return what selecting the best of these trials is worth.

    Parameters
    ----------
    metric
        A name of ``METRICS``.
    finalists
        Trial to its raw scores, float32 (seeds, n).
    labels
        float32 (n,).
    units
        The group of each row, as in ``drawing.shares``.

    Returns
    -------
    dict or None
        ``naive`` (the best score as found), ``corrected`` (bootstrap bias corrected), ``low`` and ``high`` (95 %
        interval of the best one's score over test rows), ``wins`` (trial to the share of draws in which it was
        the best), ``curve`` (after each trial that took the lead: ``trial``, ``naive``, ``corrected``; where they
        part, the search has begun to fit the test rows), ``among`` (how many trials took part), ``draws``,
        ``rows`` and ``groups`` (of rows, None where single ones were drawn).  None for fewer than two trials, and where
        there are too few rows or groups to draw from.
    """
    if len(finalists) < 2 or not enough(len(labels), units):
        return None
    inside, outside, found = _draws(metric, list(finalists.values()), labels, seed, units)
    sign = 1.0 if METRICS[metric].direction == "minimize" else -1.0
    chosen = np.argmin(sign * inside, axis=1)
    best = int(np.argmin(sign * found))
    numbers = list(finalists)
    low, high = np.quantile(inside[:, best], [0.025, 0.975])
    won = np.bincount(chosen, minlength=len(numbers)) / len(chosen)
    values = dict(zip(numbers, found.tolist(), strict=True))

    def corrected(lead: int, picks: NDArray[np.int64]) -> float:
        # A draw of few rows may leave none out.
        return float(found[lead] + np.nanmean(outside[np.arange(len(picks)), picks] - outside[:, lead]))

    curve = []
    for number in _leaders(values, sign):
        known = np.array([i for i, n in enumerate(numbers) if n <= number])
        picks = known[np.argmin(sign * inside[:, known], axis=1)]
        curve.append({
            "trial": number, "naive": values[number], "corrected": corrected(numbers.index(number), picks),
        })  # fmt: skip
    return {
        "curve": curve, "naive": float(found[best]), "corrected": corrected(best, chosen),
        "low": float(low), "high": float(high), "among": len(numbers), "draws": len(chosen),
        "rows": len(labels), "groups": groups_of(units), "trial": numbers[best],
        "wins": {str(n): round(float(s), 4) for n, s in zip(numbers, won, strict=True) if s > 0},
    }  # fmt: skip


def _draws(
    metric: str, models: Sequence[Array], labels: Array, seed: int, units: Units | None
) -> tuple[Float64, Float64, Float64]:  # fmt: skip
    """Return scores on drawn rows and on the rest, float64 (draws, trials), and on all rows (trials,)."""
    parts, seeds = len(contributions(metric, models[0][0], labels)), len(models[0])
    size = max(1, _WORK // (8 * seeds * parts * (len(labels) + 2 * DRAWS)))
    groups = [_drawn(metric, models[i : i + size], labels, seed, units) for i in range(0, len(models), size)]
    drawn, rest, found = (np.concatenate(group, axis=-1) for group in zip(*groups, strict=True))
    return drawn, rest, found


def _drawn(
    metric: str, models: Sequence[Array], labels: Array, seed: int, units: Units | None
) -> tuple[Float64, Float64, Float64]:
    """Return the same of some of the trials, NaN for a rest without rows; the seed draws the same rows for all.

    A trial's score is the mean of its models' scores, which is not the score of their mean contributions: a root or a
    ratio is between.
    """
    table = np.stack([contributions(metric, row, labels) for scores in models for row in scores])
    _, parts, n = table.shape
    flat = table.reshape(-1, n)
    inside, outside = [], []
    for drawn in shares(n, units, DRAWS, seed):
        left = (drawn == 0).astype(np.float64)
        counts = left.sum(axis=1, keepdims=True)
        weights = np.concatenate([drawn, left / np.where(counts > 0, counts, np.nan)])
        # One product with the large array in front takes an eighth of the time of two with it behind.
        sums = (flat @ weights.T).T
        inside.append(sums[: len(drawn)])
        outside.append(sums[len(drawn) :])
    inner, rest, found = (
        joined(metric, x.reshape(*x.shape[:-1], len(models), -1, parts)).mean(axis=-1)
        for x in (np.concatenate(inside), np.concatenate(outside), flat.mean(axis=1))
    )
    return inner, rest, found
