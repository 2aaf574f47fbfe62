"""Rehearsal: a study on many workers, played through with a clock of its own before anybody pays for the machines.

Claims, ends, deaths and late words go through the real :class:`~fmtune.tune.store.Store` (on a database in memory) and
the real rule of who may begin a trial.  Made up are the times: how long a trial takes, how long the database is at one
operation, and when workers are killed or cut off.  Nothing is trained and no sampler is asked.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage

from fmtune.tune.claims import Claim, New
from fmtune.tune.sources import POLL, PROGRESS, may_begin
from fmtune.tune.storage import quiet
from fmtune.tune.store import Store
from fmtune.tune.workers import BEATS, GRACE, name_of

_SPACE = {"x": FloatDistribution(0.0, 1.0)}
# A beat that does not grow old: the worker lives, and its beats are counted rather than written.
_LIVING = 1e18
# Later than a moment, whatever rounding does to it.
_SOON = 1e-3


@dataclass(frozen=True)
class Scene:
    """What is assumed; times are in seconds.

    Attributes
    ----------
    workers, n_trials : int
    trial : float
        How long one trial takes alone, on the average; single ones vary by ``spread``, a standard deviation of the
        logarithm.
    lanes : int
        Trials that a worker trains at once; each then takes so many times as long.
    lag : int or None
        As in a study file; None is one for each lane of all workers.
    grace : float
        As in a study file.
    failures : float
        Time between two failures of one worker, on the average; 0 is never.  Every other failure is a network's: the
        worker goes on, and tells what it has after twice the grace.
    restart : float
        Until a killed worker is there again.
    service : float
        How long the database is at one claim or end; they take turns.
    seed : int
    """

    workers: int
    n_trials: int
    trial: float
    spread: float = 0.5
    lanes: int = 1
    lag: int | None = None
    grace: float = GRACE
    failures: float = 0.0
    restart: float = 120.0
    service: float = 0.01
    seed: int = 0


@dataclass
class Played:
    """What came of it.

    Attributes
    ----------
    seconds : float
        Until the last trial had ended.
    done, failed : int
        Trials that ended, and those of them that lost too many workers.
    worked, lost : float
        Seconds of training, and those of them that came to nothing.
    killed, cut, late : int
        Workers killed, workers cut off, and ends that were told too late.
    operations : Counter
        Of the database, by kind: ``claim``, ``poll``, ``end``, ``scores``, ``beat``.
    idle : float
        Share of the time of the workers' lanes in which these had no trial.
    queue : float
        The longest that a claim or an end waited for its turn.
    """

    seconds: float = 0.0
    done: int = 0
    failed: int = 0
    worked: float = 0.0
    lost: float = 0.0
    killed: int = 0
    cut: int = 0
    late: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    idle: float = 0.0
    queue: float = 0.0

    @property
    def rate(self) -> float:
        """Operations of the database a second."""
        return self.operations.total() / max(self.seconds, 1e-9)


@dataclass(eq=False)
class _Worker:
    number: int
    run: int = 0
    born: float = 0.0
    poll: float = POLL[0]
    away: bool = False
    # Trial to when it was begun.
    mine: dict[int, float] = field(default_factory=dict)
    untold: list[tuple[int, float]] = field(default_factory=list)
    busy: float = 0.0

    @property
    def owner(self) -> dict[str, object]:
        return {"host": f"host-{self.number}", "pid": 1, "run": str(self.run), "since": self.born}


def play(scene: Scene) -> Played:
    """Play a study through; the same scene gives the same again."""
    with quiet():
        return _Play(scene).go()


class _Play:
    """One call of :func:`play`."""

    def __init__(self, scene: Scene, shortcut: bool = True) -> None:
        self.shortcut = shortcut
        self.scene, self.found, self.rng = scene, Played(), random.Random(scene.seed)
        self.now = self.free = 0.0
        self.lag = scene.workers * scene.lanes if scene.lag is None else scene.lag
        self.workers = [_Worker(i) for i in range(scene.workers)]
        # Workers that the others take for living; and whether a claim would see what the last one did not.
        self.living: set[str] = set()
        self.news = True
        # One cache for all: each worker's own would see the same.
        self.store = Store(RDBStorage("sqlite://"), "rehearsal", "minimize", grace=scene.grace, clock=lambda: self.now)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0

    def go(self) -> Played:
        for worker in self.workers:
            self.at(self.rng.uniform(0.0, 1.0), lambda worker=worker: self.begin(worker))  # type: ignore[misc]
        while self.events and self.found.done < self.scene.n_trials:
            self.now, _, event = heapq.heappop(self.events)
            event()
        self.store.storage.engine.dispose()
        return self.result()

    def result(self) -> Played:
        found, lived = self.found, sum(self.now - w.born for w in self.workers)
        found.seconds = self.now
        found.operations["beat"] = round(lived / (self.scene.grace / BEATS))
        for worker in self.workers:
            self.settle(worker, list(worker.mine))
        found.operations["scores"] = round(found.worked / PROGRESS)
        found.idle = 1 - min(1.0, sum(w.busy for w in self.workers) / max(lived * self.scene.lanes, 1e-9))
        return found

    def at(self, when: float, event: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, event))

    def turn(self) -> float:
        """Take a turn at the database; returns when it is over."""
        begins = max(self.now, self.free)
        self.found.queue = max(self.found.queue, begins - self.now)
        self.free = begins + self.scene.service
        return self.free

    def settle(self, worker: _Worker, numbers: list[int], lost: bool = False) -> None:
        """Count the time that trials took."""
        for number in numbers:
            took = self.now - worker.mine.pop(number)
            worker.busy += took
            self.found.worked += took / self.scene.lanes
            self.found.lost += took / self.scene.lanes if lost else 0.0

    def begin(self, worker: _Worker) -> None:
        """A worker process starts."""
        worker.run, worker.born, worker.away, worker.poll = worker.run + 1, self.now, False, POLL[0]
        self.beat(worker, _LIVING)
        self.living.add(name_of(worker.owner))
        if self.scene.failures:
            run = worker.run
            self.at(self.now + self.rng.expovariate(1 / self.scene.failures), lambda: self.fail(worker, run))
        self.ask(worker, worker.run)

    def beat(self, worker: _Worker, when: float) -> None:
        self.store.me = worker.owner
        self.store.set_attrs({f"fmtune:worker:{name_of(worker.owner)}": {**worker.owner, "beat": when}})

    def ask(self, worker: _Worker, run: int) -> None:
        """A worker asks for trials until it gets none."""
        if run != worker.run or worker.away or len(worker.mine) >= self.scene.lanes:
            return
        claim = self.claim(worker)
        over = self.turn()
        if claim is None:
            self.found.operations["poll"] += 1
            self.at(over + worker.poll, lambda: self.ask(worker, run))
            worker.poll = min(2 * worker.poll, POLL[1])
            return
        self.found.operations["claim"] += 1
        worker.poll = POLL[0]
        if claim.spent is not None:
            self.news = True
            self.store.finish(claim.number, "FAIL", None, [], {"reason": claim.spent}, {})
            self.found.operations["end"] += 1
            self.found.failed, self.found.done = self.found.failed + 1, self.found.done + 1
        else:
            worker.mine[claim.number] = over
            mean = math.log(self.scene.trial) - self.scene.spread**2 / 2
            took = self.scene.lanes * self.rng.lognormvariate(mean, self.scene.spread)
            self.at(over + took, lambda: self.end(worker, run, claim.number))
        self.at(over, lambda: self.ask(worker, run))

    def claim(self, worker: _Worker) -> Claim | None:
        """Let the store say what a worker gets; it is not asked where it can only say that there is nothing."""

        def may(workers: int) -> bool:
            n = len(self.store)
            return may_begin(n, self.scene.n_trials, self.store.begun, self.lag, workers, len(worker.mine))

        if self.shortcut and not self.news and not may(len(self.living)):
            return None
        self.store.me = worker.owner
        claim = self.store.claim(
            set(worker.mine), lambda workers: New(len(self.store), {"x": 0.5}, _SPACE, {}, {}) if may(workers) else None
        )
        # What was taken over may not have been all that is left.
        self.news = claim is not None and claim.attempts > 1
        return claim

    def end(self, worker: _Worker, run: int, number: int) -> None:
        """A trial has been trained."""
        if run != worker.run or number not in worker.mine:
            return
        if worker.away:
            worker.untold.append((number, self.now - worker.mine[number]))
            self.settle(worker, [number])
            return
        took = self.now - worker.mine[number]
        self.settle(worker, [number])
        self.tell(worker, number, took)
        self.at(self.turn(), lambda: self.ask(worker, run))

    def tell(self, worker: _Worker, number: int, took: float) -> None:
        self.store.me = worker.owner
        self.found.operations["end"] += 1
        self.news = True
        if self.store.finish(number, "COMPLETE", 0.5, [0.5], {"seconds": took}, {}):
            self.found.done += 1
        else:
            self.found.late += 1
            self.found.lost += took / self.scene.lanes

    def fail(self, worker: _Worker, run: int) -> None:
        """A worker is killed, or cut off for twice the grace."""
        if run != worker.run:
            return
        last = self.now - self.rng.uniform(0.0, self.scene.grace / BEATS)
        self.beat(worker, last)
        gone = name_of(worker.owner)
        self.at(last + self.scene.grace + _SOON, lambda: self.given_up(worker, gone))
        if self.rng.random() < 0.5:
            self.found.killed += 1
            self.settle(worker, list(worker.mine), lost=True)
            worker.run += 1
            self.at(self.now + self.scene.restart, lambda: self.begin(worker))
        else:
            self.found.cut += 1
            worker.away = True
            self.at(self.now + 2 * self.scene.grace, lambda: self.back(worker, run))

    def given_up(self, worker: _Worker, name: str) -> None:
        """A worker's last beat is a grace old: the others may take what it held."""
        if worker.away or name != name_of(worker.owner):
            self.living.discard(name)
            self.news = True

    def back(self, worker: _Worker, run: int) -> None:
        """A worker that was cut off reaches the database again."""
        worker.away = False
        self.beat(worker, _LIVING)
        self.living.add(name_of(worker.owner))
        for number, took in worker.untold:
            self.tell(worker, number, took)
        worker.untold = []
        self.at(self.now + self.rng.expovariate(1 / self.scene.failures), lambda: self.fail(worker, run))
        self.ask(worker, run)
