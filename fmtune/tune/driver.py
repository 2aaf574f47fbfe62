"""Driver: keeps packs full of trials, one pack a thread, until there are no more.

It knows nothing of Optuna: a :class:`Source` hands out jobs and is told what became of them.  A job is one
configuration under one or more seeds, a lane each; its score is the mean over its lanes.  When a job ends,
its columns go to the next one at that pack's next epoch.  Since a lane's bits depend on nothing but itself,
neither the number of threads nor who shares a pack changes any result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import FmtuneError, Hung, ResourceError
from fmtune.fm import cuda_card
from fmtune.fm.arena import columns_of
from fmtune.fm.feed import Recipe
from fmtune.fm.fit import Channels, Progress
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS, evaluate
from fmtune.fm.pack import Lane, Stopped
from fmtune.fm.solvers import Make, Trainer, memory_of, model_bytes, trainer
from fmtune.machine import free_memory
from fmtune.tune.amount import size
from fmtune.tune.silence import Silence

# Floats side by side beyond which a wider pack is no faster, on a CPU; and on a card, which is filled at about these.
WIDTH, WIDE = 256, 4224


@dataclass(eq=False)
class Job:
    """One trial on its way through a pack.

    ``number`` is the trial's; ``configurations`` differ in their seed only; ``epochs`` is how many passes it
    gets; ``token`` is the source's own; ``replay`` says that it runs all of them, patience or not.
    """

    number: int
    configurations: tuple[Hyperparameters, ...]
    progress: Progress
    epochs: int
    token: Any = None
    replay: bool = False
    lanes: list[Lane] = field(default_factory=list)
    scores: NDArray[np.float32] | None = None
    seconds: float = 0.0

    @property
    def columns(self) -> int:
        """Columns that its lanes take."""
        return sum(columns_of(h.num_factors) for h in self.configurations)


@dataclass(frozen=True)
class Outcome:
    """What became of a job; ``state`` is COMPLETE, PRUNED or FAIL, ``reason`` says why not COMPLETE.

    ``best_epoch`` is the first of the best on ``curve``, ``epochs`` the one that ``value`` belongs to; both from 1.
    ``scores`` are the test rows' raw scores at ``epochs``, float32 (seeds, rows).
    """

    state: str
    value: float | None
    curve: tuple[float, ...]
    best_epoch: int | None
    metrics: dict[str, float]
    seconds: float
    rows_per_s: float
    model_bytes: int
    reason: str | None = None
    epochs: int | None = None
    scores: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


class Source(Protocol):
    """Where jobs come from and results go; called from one thread only."""

    def next(self) -> Job | None:
        """Return the next job, or None while none can start (for now or for good)."""

    def pause(self) -> float | None:
        """Return after how many seconds to ask again, None when nothing more will come."""

    def report(self, job: Job, epoch: int, score: float) -> bool:
        """Take the score of an epoch; True prunes the job."""

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Take the end of a job."""

    def give_back(self, job: Job) -> None:
        """Take back a job that was stopped before its end."""

    def tick(self, row_lanes: float, seconds: float) -> None:
        """Take note of an epoch of a pack: so many row-lanes were done in so many seconds of one thread."""


@dataclass(eq=False)
class _Seat:
    """A pack, the jobs in it, and those that enter or leave at its next epoch.

    ``held`` are the bytes of its lanes when they were the most: a pack keeps the place of those that left.
    """

    pack: Trainer
    silence: Silence
    jobs: list[Job] = field(default_factory=list)
    arriving: list[Job] = field(default_factory=list)
    leaving: list[Lane] = field(default_factory=list)
    busy: bool = False
    held: int = 0

    @property
    def columns(self) -> int:
        return sum(job.columns for job in (*self.jobs, *self.arriving))

    def depart(self) -> tuple[list[Lane], list[Job]]:
        """Begin an epoch: return the lanes that leave before it and the jobs that enter."""
        leave, enter = self.leaving, self.arriving
        self.jobs, self.leaving, self.arriving, self.busy = [*self.jobs, *enter], [], [], True
        self.silence.sign()
        return leave, enter


class Driver:
    """Runs a source's jobs to their end.

    Parameters
    ----------
    source
        Where jobs come from.
    channels
        Train and test rows.
    layout
        ``sparse`` or ``dense``.
    metric
        A name of ``METRICS``: what is reported after each epoch.
    lanes
        How many lanes train at once, at most.
    threads
        How many packs train at once.
    stop
        Asked a few times a second; True gives every running job back.
    memory
        Bytes that all lanes together may take; by default half of what is free now, on the device.
    device
        ``cpu`` or ``gpu``.
    make
        Makes what trains a pack; by default this process does.
    stall
        Seconds in which a pack makes no step, after which it hangs; None lets it.

    Raises
    ------
    ResourceError
        A configuration alone needs more memory than there is.
    Hung
        A pack makes no step: its jobs are not given back, since they may be why, and its thread is left.
    """

    def __init__(
        self, source: Source, channels: Channels, layout: str, metric: str, *, lanes: int, threads: int,
        stop: Callable[[], bool] = lambda: False, memory: float | None = None, device: str = "cpu",
        make: Make = trainer, stall: float | None = None,
    ) -> None:  # fmt: skip
        self._make, self._stall = make, stall
        self._source, self._channels, self._layout, self._device = source, channels, layout, device
        self._metric, self._direction = METRICS[metric].compute, METRICS[metric].direction
        # A card is filled by one wide pack; threads of the host would only take turns on it.
        self._lanes, self._threads, self._stop = lanes, 1 if device == "gpu" else threads, stop
        free = cuda_card.free() if device == "gpu" else free_memory()
        self._width = WIDE if device == "gpu" else WIDTH
        self._memory = free / 2 if memory is None else memory
        self._given = memory is not None and memory < free / 2
        self._seats: list[_Seat] = []
        self._broken = False
        self._waiting: Job | None = None
        self._rows = float(channels.feed.n)

    def run(self) -> bool:
        """Run until the source has nothing more; returns False when it was stopped before."""
        running: dict[Future[Any], _Seat] = {}
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fmtune")
        try:
            ended = self._work(pool, running)
            pool.shutdown()
            if ended is None:
                self._give_back()
            return bool(ended)
        except Hung:
            # Nobody can end its thread, or may wait for it.
            pool.shutdown(wait=False, cancel_futures=True)
            self._give_back()
            raise
        except BaseException as error:
            self._broken = True
            pool.shutdown()
            # What breaks in the middle of trials is charged to them, as the death of the process is.
            if isinstance(error, FmtuneError | OSError) or not isinstance(error, Exception):
                self._give_back()
            raise

    def _work(self, pool: ThreadPoolExecutor, running: dict[Future[Any], _Seat]) -> bool | None:
        """Run until the source has nothing more, None when it was stopped before; ``running`` is what trains now."""
        try:
            while not self._stop():
                self._fill()
                for seat in self._seats:
                    if not seat.busy and (seat.jobs or seat.arriving) and len(running) < self._threads:
                        running[pool.submit(self._epoch, seat, *seat.depart())] = seat
                if not running:
                    pause = self._source.pause()
                    if pause is None:
                        return self._waiting is None
                    time.sleep(min(pause, 0.25))
                    continue
                done, _ = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
                for future in done:
                    seat = running.pop(future)
                    seat.busy = False
                    self._settle(seat, future.result())
                    # To the back of the queue, so that packs beyond the threads take turns.
                    self._seats.remove(seat)
                    self._seats.append(seat)
                self._look(running.values())
                self._seats = [s for s in self._seats if s.busy or s.jobs or s.arriving]
        except Stopped:
            pass
        return None

    def _look(self, running: Iterable[_Seat]) -> None:
        """Raise Hung when a pack hangs: its jobs are then nobody's to give back."""
        hung = [seat for seat in running if seat.silence.hangs()]
        numbers = sorted(job.number for seat in hung for job in seat.jobs)
        for seat in hung:
            seat.jobs = []
        if hung:
            raise Hung(
                f"{'trials' if len(numbers) > 1 else 'trial'} {', '.join(map(str, numbers))} made no step for "
                f"{self._stall:g} s: what trains {'them' if len(numbers) > 1 else 'it'} hangs",
                hint="run the same command again: it goes on, and a trial that hangs again and again is given up; "
                "`stall` in the study file is the time that a step may take",
            )  # fmt: skip

    def _give_back(self) -> None:
        jobs = [job for seat in self._seats for job in (*seat.jobs, *seat.arriving)]
        for job in sorted([*jobs, *([self._waiting] if self._waiting else [])], key=lambda job: job.number):
            self._source.give_back(job)

    def _fill(self) -> None:
        """Seat jobs in their order while there is room; one that does not fit waits, and nobody overtakes it."""
        while True:
            used = sum(len(job.configurations) for seat in self._seats for job in (*seat.jobs, *seat.arriving))
            if used and used >= self._lanes:
                return
            self._waiting = self._waiting or self._source.next()
            if self._waiting is None:
                return
            seat = self._seat(self._waiting)
            if seat is None:
                return
            seat.arriving.append(self._waiting)
            seat.held = max(seat.held, self._bytes(seat))
            self._waiting = None

    def _seat(self, job: Job) -> _Seat | None:
        """Return where a job goes, None when it has to wait."""
        recipe = Recipe.of(job.configurations[0], self._layout, self._device)
        need = sum(memory_of(h, self._channels.feed) for h in job.configurations)
        if need > self._memory:
            more = "raise memory, half of which is for copies" if self._given else "run where there is more memory"
            raise ResourceError(
                f"trial {job.number} (num_factors {job.configurations[0].num_factors}) needs {size(need)} for "
                f"{self._channels.feed.feature_dim} features, and {size(self._memory)} may be used",
                hint=f"search a smaller num_factors, or {more}",
            )
        same = [s for s in self._seats if s.pack.recipe == recipe]
        open_ = [s for s in same if not self._closed(s) and (s.columns + job.columns <= self._width or not s.columns)]
        # Packs are spread over the threads first, and filled evenly.
        if len(same) < self._threads or (not open_ and recipe.shuffle == "epoch"):
            if not self._fits(need):
                return None
            seat = _Seat(self._make(self._channels.feed, recipe, 1), Silence(self._stall))
            self._seats.append(seat)
            return seat
        fitting = (s for s in open_ if self._fits(max(0, self._bytes(s) + need - s.held)))
        return min(fitting, key=lambda s: s.columns, default=None)

    def _fits(self, more: int) -> bool:
        """Whether packs may take so many bytes more; the first one may always be made."""
        taken = sum(seat.held for seat in self._seats)
        return not taken or taken + more <= self._memory

    def _closed(self, seat: _Seat) -> bool:
        return seat.pack.recipe.shuffle == "epoch" and (seat.busy or bool(seat.jobs))

    def _bytes(self, seat: _Seat) -> int:
        jobs = (*seat.jobs, *seat.arriving)
        return sum(memory_of(h, self._channels.feed) for job in jobs for h in job.configurations)

    def _epoch(self, seat: _Seat, leave: list[Lane], enter: list[Job]) -> tuple[NDArray[np.float32], list[float]]:
        """In a thread: change the lanes, train one epoch, score; returns scores and objectives, by lane."""
        pack = seat.pack
        if leave or enter:
            lanes = pack.change(leave, [h for job in enter for h in job.configurations])
            for job in enter:
                job.lanes, lanes = lanes[: len(job.configurations)], lanes[len(job.configurations) :]

        def asked() -> bool:
            seat.silence.sign()
            return self._broken or self._stop()

        pack.epoch(asked)
        test = self._channels.test(self._layout)
        assert test is not None
        seat.silence.sign()
        scores = pack.score(test)
        with np.errstate(over="ignore", invalid="ignore"):
            return scores, [self._metric(row, self._channels.test_labels) for row in scores]

    def _settle(self, seat: _Seat, result: tuple[NDArray[np.float32], list[float]]) -> None:
        """After an epoch: report each job's mean, end those that are done."""
        scores, values = result
        place = {id(lane): i for i, lane in enumerate(seat.pack.lanes)}
        total = sum(job.columns for job in seat.jobs)
        for job in sorted(seat.jobs, key=lambda job: job.number):
            job.seconds += seat.pack.seconds * job.columns / total
            own = [place[id(lane)] for lane in job.lanes]
            ended = self._judge(job, float(np.mean([values[i] for i in own])))
            if job.progress.epochs == job.lanes[0].epochs:
                job.scores = scores[own]
            if ended is not None:
                self._source.finish(job, self._outcome(job, *ended))
                seat.jobs.remove(job)
                seat.leaving += job.lanes
        self._source.tick(self._rows * len(seat.pack.lanes), seat.pack.seconds)

    def _judge(self, job: Job, value: float) -> tuple[str, str | None] | None:
        """Return (state, reason) of a job that ends with this epoch's value, else None."""
        epoch = job.lanes[0].epochs
        if not math.isfinite(value):
            return "FAIL", f"diverged at epoch {epoch}"
        tired = job.progress.add(value)
        prune = self._source.report(job, epoch, value)
        if epoch >= job.epochs or (tired and not job.replay):
            return "COMPLETE", None
        return ("PRUNED", f"pruned at epoch {epoch}") if prune else None

    def _outcome(self, job: Job, state: str, reason: str | None) -> Outcome:
        h, done = job.configurations[0], job.lanes[0].epochs
        labels = self._channels.test_labels
        metrics: dict[str, float] = {}
        if state != "FAIL" and job.scores is not None:
            each = [evaluate(row, labels, h.predictor_type) for row in job.scores]
            metrics = {name: float(np.mean([m[name] for m in each])) for name in each[0]}
        lanes = len(job.configurations)
        return Outcome(
            state, job.progress.value if state != "FAIL" else None, tuple(job.progress.curve),
            job.progress.best_epoch if state != "FAIL" else None, metrics, job.seconds,
            self._rows * done * lanes / max(job.seconds, 1e-9),
            model_bytes(h, self._channels.feed.feature_dim), reason,
            job.progress.epochs if state != "FAIL" else None, job.scores,
        )  # fmt: skip


def seeds_of(h: Hyperparameters, seeds: int) -> tuple[Hyperparameters, ...]:
    """Return the configuration under ``seeds`` consecutive seeds, beginning with its own."""
    return tuple(h.replace(seed=h.seed + i) for i in range(seeds))
