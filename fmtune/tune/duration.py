"""Duration: how long a study's trials take: from a few short passes or, when some have ended, from what these took.

What a sampler will choose nobody knows beforehand.  So there are two figures: a trial that is as the search space is on
the average, and one of its dearest quarter, where a sampler goes that finds many factors or epochs to be better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import RandomSampler
from scipy.optimize import nnls

from fmtune.fm.arena import columns_of
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Channels
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.solvers import compile_kernels, memory_of, trainer
from fmtune.machine import cores, free_memory
from fmtune.tune.driver import WIDTH
from fmtune.tune.result import CellResult
from fmtune.tune.space import distributions
from fmtune.tune.spec import Cell, Spec
from fmtune.tune.storage import quiet

# Enough rows for a rate, few enough for a moment.
ROWS = 20_000
# Configurations that train for a moment, and those whose time is then reckoned: with few, one large one is half of it.
_TRIED, _DRAWN = 16, 256
# Seconds after which no more packs are tried.
_ENOUGH = 4.0
# A short work is timed so many times, or for so many seconds.
_TIMES, _SHORT = 9, 0.1
# Seconds that a trial and a lane's epoch take beside the pass, one after the other: the sampler is asked, scores are
# told, a trial is written down.  2 cores, 300 trials of one epoch (tpe) and 60 of 300 epochs of almost no work.
_A_TRIAL, _AN_EPOCH = 0.03, 0.0004
# Finished trials that say more than a probe does.
FEW = 4

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Duration:
    """What a cell's trials are expected to take, each in seconds of wall clock, when all lanes are in use.

    Attributes
    ----------
    middle : float
        The mean trial.
    high : float
        The mean of the dearest quarter.
    basis : str
        What says so, in words.
    """

    middle: float
    high: float
    basis: str


def remembered(cell: CellResult) -> Duration | None:
    """Return what a cell's finished trials took, the newest counting most; None where they are too few.

    What passes did not take (scoring, the sampler, the database) is shared out by what they took.  The last trial
    counts sixteen times as much as the first: the sampler has drifted since.
    """
    took = np.array([t.seconds for t in cell.trials if t.seconds and t.state in ("COMPLETE", "PRUNED", "FAIL")])
    if len(took) < FEW or not cell.seconds:
        return None
    wall = took * cell.seconds / took.sum()
    middle = float(np.average(wall, weights=np.exp2(np.linspace(0, 4, len(wall)))))
    return Duration(middle, max(middle, _dearest(wall)), f"as its {len(took)} finished trials took, the newest most")


def probed(spec: Spec, cell: Cell, channels: Channels, lanes: int, rows: int = ROWS) -> Duration | None:
    """Train a few of a study's configurations for two passes, and say what its trials would take if none ends early.

    The first pass makes mini-batches and is not timed.

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
        None where no configuration fits into the memory that is free.
    """
    drawn = _drawn(spec)
    n, threads = min(rows, channels.train.n), min(spec.threads or cores(), max(1, lanes // spec.seeds))
    feed = Feed(channels.train.slice(0, n))
    test = channels.test(cell.layout)
    some = None if test is None else test.slice(0, min(rows, test.n))
    ends = time.perf_counter() + _ENOUGH

    def took(pack: list[Hyperparameters]) -> float | None:
        """Return the seconds that an epoch of a pack takes, None where it was not tried."""
        if time.perf_counter() > ends or sum(memory_of(h, feed) for h in pack) * threads > free_memory() / 4:
            return None
        made = trainer(feed, Recipe.of(pack[0], cell.layout))
        made.change(enter=pack)
        made.epoch()
        seconds = _timed(made.epoch) * channels.train.n / n
        if test is not None and some is not None:
            seconds += _timed(lambda: made.score(some)) * test.n / some.n
        return seconds

    for solver in {h.solver for h in drawn[:_TRIED]}:
        compile_kernels(cell.layout, solver)
    # Side by side, as the study's: threads share caches, memory and, with others, the cores.
    packs = _packs(drawn[:_TRIED], cell.layout, max(1, lanes // threads))
    with ThreadPoolExecutor(threads) as pool:
        tried = [(pack, seconds) for pack, seconds in zip(packs, pool.map(took, packs), strict=True) if seconds]
    if not tried:
        return None
    passes = _reckoned(drawn, tried, cell.layout) / threads
    epochs = np.array([h.epochs for h in drawn])
    wall = _A_TRIAL + epochs * spec.seeds * (passes + _AN_EPOCH)
    many = sum(len(pack) for pack, _ in tried)
    basis = f"probed on {many} {'configuration' if many == 1 else 'configurations'} and {n:,} rows"
    return Duration(float(wall.mean()), _dearest(wall), basis)


def _packs(drawn: Sequence[Hyperparameters], layout: str, lanes: int) -> list[list[Hyperparameters]]:
    """Return configurations that share a pass, as many as train side by side, in their order."""
    packs: list[list[Hyperparameters]] = []
    for h in drawn:
        for pack in packs:
            wide = sum(columns_of(one.num_factors) for one in (*pack, h))
            if len(pack) < lanes and wide <= WIDTH and Recipe.of(pack[0], layout) == Recipe.of(h, layout):
                pack.append(h)
                break
        else:
            packs.append([h])
    return packs


def _reckoned(
    drawn: Sequence[Hyperparameters], tried: Sequence[tuple[Sequence[Hyperparameters], float]], layout: str
) -> Float64:  # fmt: skip
    """Return what an epoch of each drawn configuration takes of a thread, from the seconds of packs that were tried.

    A lane takes a time of its own and one for each of its columns, fitted to all packs; where what shapes the pass
    differs (mini_batch_size, say), a configuration takes as many times as long as the packs of its shape did.
    """
    sums = np.array([[len(pack), sum(columns_of(h.num_factors) for h in pack)] for pack, _ in tried], np.float64)
    seconds = np.array([took for _, took in tried])
    each = nnls(sums, seconds)[0]
    fitted = sums @ each
    shapes = [Recipe.of(pack[0], layout) for pack, _ in tried]
    times = {}
    for shape in set(shapes):
        own = [other == shape for other in shapes]
        times[shape] = seconds[own].sum() / max(fitted[own].sum(), 1e-12)
    return np.array([
        times.get(Recipe.of(h, layout), 1.0) * (each[0] + each[1] * columns_of(h.num_factors)) for h in drawn
    ])  # fmt: skip


def _dearest(wall: Float64) -> float:
    """Return the mean of the dearest quarter."""
    return float(np.sort(wall)[-max(1, len(wall) // 4) :].mean())


def _drawn(spec: Spec) -> list[Hyperparameters]:
    """Return configurations as a random search would try them."""
    space = distributions(spec.search_space)
    with quiet():
        study = optuna.create_study(sampler=RandomSampler(seed=spec.seed))
        asked = [study.ask(space).params for _ in range(_DRAWN)]
    return [Hyperparameters.of({**spec.fixed, **params}) for params in asked]


def _timed(work: Callable[[], object]) -> float:
    """Return the seconds that a work takes; of a short one the median of several, which others may have held up."""
    took: list[float] = []
    while len(took) < _TIMES and sum(took) < _SHORT:
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return float(np.median(took))
