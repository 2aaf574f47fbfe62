"""Duration: how long a study takes, from two passes of a few configurations over some of its rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.samplers import RandomSampler

from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Channels
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.solvers import compile_kernels, memory_of, trainer
from fmtune.machine import cores, free_memory
from fmtune.tune.space import distributions
from fmtune.tune.spec import Cell, Spec
from fmtune.tune.storage import quiet

# Enough rows for a rate, few enough for a moment.
ROWS = 20_000
_DRAWS = 16


@dataclass(frozen=True)
class Duration:
    """What was measured of one cell.

    Attributes
    ----------
    seconds : float
        What training all its trials takes if none ends early, in seconds of wall clock.
    lanes, rows : int
        How many models trained side by side to find out, and on how many rows.
    pace : float
        Trials a second.
    """

    seconds: float
    lanes: int
    rows: int
    pace: float


def duration(spec: Spec, cell: Cell, channels: Channels, lanes: int, rows: int = ROWS) -> Duration | None:
    """Train a few of a study's configurations for two passes, and say what all of them would take.

    The first pass makes mini-batches and is not timed.  Where trials differ in what shapes a pass, those that share
    the first one's are taken.

    Parameters
    ----------
    cell
        One that can run here, on the CPU.
    channels
        The study's rows; train is cut to ``rows``, test too.
    lanes
        Models that the study trains side by side.

    Returns
    -------
    Duration or None
        None where the configurations do not fit into the memory that is free.
    """
    drawn = _drawn(spec)
    epochs = sum(h.epochs for h in drawn) / len(drawn)
    train, n = channels.train, min(rows, channels.train.n)
    feed = Feed(train.slice(0, n))
    recipe = Recipe.of(drawn[0], cell.layout)
    threads = min(spec.threads or cores(), lanes)
    # A pack a thread: each takes its share of the lanes.
    taken = [h for h in drawn if Recipe.of(h, cell.layout) == recipe][: max(1, lanes // threads)]
    if sum(memory_of(h, feed) for h in taken) > free_memory() / 4:
        return None
    compile_kernels(cell.layout, recipe.solver)
    pack = trainer(feed, recipe)
    pack.change(enter=taken)
    pack.epoch()
    trained = _timed(pack.epoch) * train.n / n
    test = channels.test(cell.layout)
    if test is not None:
        some = test.slice(0, min(rows, test.n))
        trained += _timed(lambda: pack.score(some)) * test.n / some.n
    a_trial = trained / len(taken) * epochs * spec.seeds / threads
    return Duration(a_trial * spec.n_trials, len(taken), n, 1 / a_trial)


def _drawn(spec: Spec) -> list[Hyperparameters]:
    """Return configurations as a random search would try them."""
    space = distributions(spec.search_space)
    with quiet():
        study = optuna.create_study(sampler=RandomSampler(seed=spec.seed))
        asked = [study.ask(space).params for _ in range(_DRAWS)]
    return [Hyperparameters.of({**spec.fixed, **params}) for params in asked]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
