"""Confirm: the finalists trained again under more seeds, compared in pairs, and the holdout opened once.

Two configurations are compared on the same rows and the same seeds.  The interval of their difference adds what
rows do, by bootstrap, to what seeds do, by their own spread, so it says what would change with other data and with
other first values.  The comparison ends in a sentence: better, practically equal, or not decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from scipy.special import ndtri, stdtrit

from fmtune.errors import NoTrialError, ResourceError, StorageError, UsageError
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS, Array
from fmtune.fm.solvers import Trainer, memory_of, trainer
from fmtune.machine import cores
from fmtune.rows import Rows
from fmtune.tune import devices
from fmtune.tune.admission import refuse_another
from fmtune.tune.amount import size
from fmtune.tune.channels import StudyData, bring
from fmtune.tune.drawing import LEAST, Float64, Units, enough, groups_of
from fmtune.tune.driver import seeds_of
from fmtune.tune.folder import exclusive, folder_of
from fmtune.tune.places import command
from fmtune.tune.selection import gaps, interval
from fmtune.tune.sources import epochs_of
from fmtune.tune.spec import Spec
from fmtune.tune.storage import open_storage, sqlite_url
from fmtune.tune.store import Store

# A difference smaller than this share of the score is of no practical use.
EQUAL = 0.005


def confirm(
    spec: Spec, root: Path | None = None, *, finalists: int = 3, seeds: int = 10, again: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train the best trials again under more seeds, say which is best, and score it on the holdout.

    Parameters
    ----------
    spec
        The study; it must have complete trials.
    root
        The folder in which ``runs/`` lies.
    finalists, seeds
        How many trials, and under how many seeds each (consecutive ones, beginning above the study's own).
    again
        Open the holdout although it was opened for this trial, or this very question, before.
    say
        Takes what is being done, in words.

    Returns
    -------
    dict
        ``seeds``; ``looks``, how often these trials were compared; ``rows``; ``scores`` (trial to its mean test score
        and its standard deviation over seeds, None where it diverged under some: it is then in no pair);
        ``best``; ``sentences``; ``pairs`` (against the best: difference, low, high, verdict); ``holdout`` (trial,
        score, sd, seeds, opened, low and high over its rows, or over as many ``groups`` of them) or None.  It is stored
        with the study, so that a report shows it.

    Raises
    ------
    NoTrialError
        No trial is complete, or all finalists diverged under new seeds.
    StorageError
        There is no such study, it is being run, or it was begun with another setting or other data.
    ResourceError
        The models do not fit into the study's ``memory``.
    """
    if finalists < 2 or seeds < 2:
        raise UsageError("two finalists and two seeds at least", hint="--finalists 3 --seeds 10")
    if spec.cluster is not None:
        raise UsageError("the study's trials train on a cluster, and confirm trains in one process",
                         hint="set seeds in the study file: each trial then trains so many models")  # fmt: skip
    folder = folder_of(spec.study_name, root)
    if spec.storage is None and not (folder / "study.db").exists():
        raise StorageError(f"there is no study {spec.study_name!r} yet", hint=command("run", spec.path))
    # A search that is still running has no finalists yet, and must not see the holdout.
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        return _confirm(spec, folder, finalists, seeds, again, say)


def _confirm(
    spec: Spec, folder: Path, finalists: int, seeds: int, again: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    url = spec.storage or sqlite_url(folder)
    store = Store(open_storage(url), spec.study_name, METRICS[spec.metric].direction)
    if any(worker["lives"] for worker in store.workers()):
        raise StorageError(f"study {spec.study_name!r} is being run", where=spec.study_name, hint="wait for it")
    best = _ranked(store.trials(), spec.direction)[:finalists]
    if not best:
        raise NoTrialError("no trial is complete yet", where=spec.study_name, hint=command("run", spec.path))
    numbers = [t.number for t in best]
    question = {"trials": numbers, "seeds": seeds, "values": [t.value for t in best]}
    stored = store.attrs().get("fmtune:confirmation")
    if stored and stored.get("question") == question and not again:
        return dict(stored)
    data = bring(spec)
    refuse_another(store.attrs(), spec, data)
    _bound(spec, data.channels.feed, best, seeds)
    say(f"training trials {', '.join(map(str, numbers))} under {seeds} new seeds each ...")
    with ThreadPoolExecutor(spec.threads or cores()) as pool:
        trained = dict(zip(numbers, pool.map(lambda t: _train(spec, data, t, seeds), best), strict=True))
    scores = {n: _scored(pack, data.channels.test(pack.recipe.layout)) for n, pack in trained.items()}
    say("comparing them ...")
    looks = _looks(stored or {}, question)
    found = compare(spec.metric, scores, data.channels.test_labels, data.channels.units, looks=looks)
    # The same trial under other seeds is the same question to the holdout, which is answered already.
    before = (stored or {}).get("holdout") or {}
    held = dict(before) if before.get("trial") == found["best"] and not again else (
        _opened(store, trained[found["best"]], found["best"], data, spec)
    )  # fmt: skip
    result = {"question": question, "looks": looks, **found, "holdout": held or None}
    store.set_attrs({"fmtune:confirmation": result})
    return result


def _looks(stored: Mapping[str, Any], question: Mapping[str, Any]) -> int:
    """Return how often two of these trials have been compared, this time included; the same seeds show nothing new."""
    asked = stored.get("question") or {}
    if len(set(asked.get("trials", ())) & set(question["trials"])) < 2:
        return 1
    return int(stored.get("looks", 1)) + int(asked.get("seeds") != question["seeds"])


def _ranked(trials: Sequence[FrozenTrial], direction: str) -> list[FrozenTrial]:
    sign = 1.0 if direction == "minimize" else -1.0
    done = [t for t in trials if t.state.name == "COMPLETE" and t.value is not None]
    return sorted(done, key=lambda t: (sign * (t.value or 0.0), t.number))


def _bound(spec: Spec, feed: Feed, best: Sequence[FrozenTrial], seeds: int) -> None:
    """Keep the models and the mini-batches within the study's memory; all models are there until the end."""
    if spec.memory is None or devices.first(spec).device == "gpu":
        return
    need = seeds * sum(memory_of(_configuration(spec, trial), feed) for trial in best)
    if need > spec.memory:
        raise ResourceError(
            f"{len(best)} finalists under {seeds} seeds each need {size(need)}, and memory is {size(spec.memory)}",
            where=str(spec.path), hint="take fewer --finalists or --seeds, or raise memory",
        )  # fmt: skip
    feed.memory = min(feed.memory, spec.memory - need)


def _configuration(spec: Spec, trial: FrozenTrial) -> Hyperparameters:
    """Return a trial's configuration under the first of the new seeds."""
    return Hyperparameters.of({**spec.hyperparameters, **trial.params, "seed": spec.seed + spec.seeds})


def _train(spec: Spec, data: StudyData, trial: FrozenTrial, seeds: int) -> Trainer:
    """Return a pack with a trial's configuration under new seeds, trained as long as the trial's score took."""
    cell, h = devices.first(spec), _configuration(spec, trial)
    pack = trainer(data.channels.feed, Recipe.of(h, cell.layout, cell.device))
    pack.change(enter=seeds_of(h, seeds))
    for _ in range(epochs_of(trial)):
        pack.epoch()
    return pack


def compare(
    metric: str, scores: Mapping[int, Array], labels: Array, units: Units | None = None, seed: int = 0, looks: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Compare configurations on the same rows and seeds.

    Parameters
    ----------
    metric
        A name of ``METRICS``.
    scores
        Trial to raw scores, float32 (seeds, rows).
    labels
        float32 (rows,).
    units
        The group of each row, as in ``drawing.shares``.
    looks
        How often they have been compared, this time included.

    Returns
    -------
    dict
        ``rows``, ``seeds``, ``best``, ``scores``, ``pairs`` and ``sentences``; see :func:`confirm`.

    Raises
    ------
    NoTrialError
        All of them diverged under some seed.
    """
    lost = {n: k for n, s in scores.items() if (k := int(np.sum(~np.isfinite(s).all(axis=1))))}
    seeds = len(next(iter(scores.values())))
    said = {n: f"trial {n} diverged under {k} of {seeds} seeds" for n, k in sorted(lost.items())}
    if len(lost) == len(scores):
        raise NoTrialError("; ".join(said.values()), hint="lower the learning rates, or set clip_gradient")
    each = {n: np.array([METRICS[metric].compute(row, labels) for row in scores[n]]) for n in scores if n not in lost}
    sign = 1.0 if METRICS[metric].direction == "minimize" else -1.0
    order = sorted(each, key=lambda n: (sign * each[n].mean(), n))
    best, rows = order[0], len(labels)
    means: dict[str, Any] = {str(n): {"mean": float(v.mean()), "sd": float(v.std(ddof=1))} for n, v in each.items()}
    means |= {str(n): {"mean": None, "sd": None, "diverged": lost[n], "sentence": said[n]} for n in said}
    pairs = [_pair(metric, scores, each, best, other, labels, units, seed, looks) for other in order[1:]]
    return {
        "rows": rows, "seeds": seeds, "best": best, "scores": means, "pairs": pairs,
        "sentences": [*(p["sentence"] for p in pairs), *said.values()],
    }  # fmt: skip


def _pair(
    metric: str,
    scores: Mapping[int, Array],
    each: Mapping[int, Float64],
    best: int,
    other: int,
    labels: Array,
    units: Units | None,
    seed: int,
    looks: int,
) -> dict[str, Any]:
    """Compare two: how much worse ``other`` is than ``best``, positive when it is."""
    sign = 1.0 if METRICS[metric].direction == "minimize" else -1.0
    if not enough(len(labels), units):
        few = f"fewer than {LEAST} test rows, or groups of them, are too few to tell"
        return {"trial": other, "difference": float(sign * (each[other] - each[best]).mean()), "low": None,
                "high": None, "verdict": "undecided",
                "sentence": f"trials {best} and {other}: not decided, {few}"}  # fmt: skip
    differences = sign * (each[other] - each[best])
    gap, seeds = float(differences.mean()), len(differences)
    own = float(np.var(differences, ddof=1))
    rows = float(np.var(gaps(metric, scores[best], scores[other], labels, units, seed), ddof=1))
    half = float(_half(own, rows, seeds))
    low, high = gap - half, gap + half
    margin = EQUAL * abs(float(each[best].mean()))
    of = "" if units is None else f" of {groups_of(units):,} groups"
    basis = f"paired, {len(labels):,} rows{of} x {seeds} seeds"
    by = f"{_interval(low, high)} (95 %, {basis})"
    if -margin <= low and high <= margin:
        verdict, words = "equal", f"trials {best} and {other} are practically equal (within {margin:.2g}, {basis})"
    elif low > 0:
        verdict, words = "better", f"trial {best} beats trial {other} by {by}"
    else:
        verdict, words = "undecided", f"trials {best} and {other}: not decided, {by}"
        words += f"; {_more(gap, own, rows, seeds)}" if looks == 1 else ""
    # Looking until it decides finds a difference where there is none.
    if looks > 1 and verdict != "equal":
        words += f"; this was look {looks}, and the interval allows for one"
    return {"trial": other, "difference": gap, "low": low, "high": high, "verdict": verdict, "sentence": words}


def _half(own: float, rows: float, seeds: int | NDArray[np.int64]) -> Float64:
    """Return half the width of a difference's 95 % interval.

    Parameters
    ----------
    own
        The variance of the difference from seed to seed.
    rows
        The variance of its mean over draws of the rows; more seeds leave it as it is.
    seeds
        How many there are.

    Notes
    -----
    The halves of what seeds and what rows do are added as squares (Zou and Donner, 2008), seeds by Student's t: few
    of them know little of their own variance.  One quantile for both, by Satterthwaite's degrees of freedom, lets
    12.6 instead of 5 % of equal pairs seem different where rows vary a tenth as much as the mean of two seeds.
    """
    own_half = stdtrit(np.asarray(seeds) - 1, 0.975) * np.sqrt(own / np.asarray(seeds))
    return np.asarray(np.hypot(own_half, ndtri(0.975) * math.sqrt(rows)))


def _interval(low: float, high: float) -> str:
    """Return ``0.012..0.034``: two significant digits of the half width, and of an end that is nearer to zero."""
    sizes = [x for x in ((high - low) / 2, abs(low), abs(high)) if x > 0]
    digits = max(0, 1 - math.floor(math.log10(min(sizes)))) if sizes else 0
    return f"{low:.{digits}f}..{high:.{digits}f}"


def _more(gap: float, own: float, rows: float, seeds: int) -> str:
    """Say how many seeds would decide: they shrink their own share of the variance, not that of the rows."""
    asked = np.arange(seeds + 1, 50 * seeds)
    enough = asked[_half(own, rows, asked) < gap]
    if not len(enough):
        return "more seeds would hardly decide it, more test rows would"
    more = f"about {enough[0] - seeds} more seed{'s' if enough[0] - seeds > 1 else ''}"
    return f"{more} would decide, at a second look, which the interval does not allow for"


def _scored(pack: Trainer, rows: Rows | None) -> Array:
    assert rows is not None
    return pack.score(rows)


def _opened(store: Store, pack: Trainer, number: int, data: StudyData, spec: Spec) -> dict[str, Any] | None:
    """Score the confirmed winner on the holdout, and count that it was opened."""
    rows = data.holdout
    if rows is None or rows.labels is None:
        return None
    labels = rows.labels
    shown = rows.widen(data.channels.train.feature_dim)
    scores = pack.score(shown.to_dense() if pack.recipe.layout == "dense" else shown.to_sparse())
    values = [METRICS[spec.metric].compute(row, labels) for row in scores]
    before = store.attrs().get("fmtune:holdout") or {}
    opened = int(before.get("opened", 0)) + 1
    store.set_attrs({"fmtune:holdout": {**before, "opened": opened}})
    low, high = interval(spec.metric, scores, labels, spec.seed, data.held) or (None, None)
    return {"trial": number, "score": float(np.mean(values)), "sd": float(np.std(values, ddof=1)),
            "seeds": len(values), "low": low, "high": high, "groups": groups_of(data.held),
            "opened": opened}  # fmt: skip
