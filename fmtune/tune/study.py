"""Study: a study file run to its end: ask, fit, tell until the budget is spent; then the winner's model.

The study in the database is the only memory.  Running the same file again continues it and repeats nothing;
running it in several processes, on one machine or many, divides its trials among them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from fmtune.cluster.engine import Engine, OnRay
from fmtune.cluster.layout import Layout
from fmtune.cluster.trainer import Trainers
from fmtune.errors import FmtuneError, Interrupted, ResourceError, UsageError
from fmtune.files import make_folder
from fmtune.fm.metrics import METRICS
from fmtune.fm.solvers import Make, compile_kernels, trainer, wake
from fmtune.machine import cores
from fmtune.tune import devices, environment
from fmtune.tune.admission import admit
from fmtune.tune.budget import budget
from fmtune.tune.channels import StudyData, bring
from fmtune.tune.database import Away
from fmtune.tune.driver import Driver
from fmtune.tune.folder import exclusive, folder_of, set_aside, shared
from fmtune.tune.halt import Halt
from fmtune.tune.history import History
from fmtune.tune.limit import Limit
from fmtune.tune.places import redacted
from fmtune.tune.samplers import make_pruner, make_sampler
from fmtune.tune.selection import Finalists
from fmtune.tune.sources import ReplaySource, SearchSource, Terms
from fmtune.tune.space import distributions
from fmtune.tune.spec import Cell, Spec, read
from fmtune.tune.storage import PATIENCE, open_storage, quiet, sqlite_url, warm
from fmtune.tune.store import Store
from fmtune.tune.winner import Winner, best, ended, utc
from fmtune.tune.workers import beating, owner

Listener = Callable[[dict[str, Any]], None]


def run(
    study: str | Path | Spec, *, fresh: bool = False, root: Path | None = None, listener: Listener | None = None,
    worker: bool = False, engine: Callable[[str], Engine] = OnRay, make: Make = trainer,
) -> optuna.Study:  # fmt: skip
    """Run a study file, go on with it, or join those that run it, until its budget is spent.

    Parameters
    ----------
    study
        Path of a study file, or one that was read.
    fresh
        Start anew; the old study's folder is kept as ``<folder>.old``.
    root
        The folder in which ``runs/`` lies; by default the current one.
    listener
        Called with one dict an event (``download``, ``study``, ``compiled``, ``start``, ``progress``,
        ``trial``, ``cell``, ``winner``).
    worker
        Leave the winner to others while there are any: a worker ends when it finds nothing more to do.
    engine
        Joins the cluster of a study that names one.
    make
        Makes what trains, where the study names no cluster.

    Returns
    -------
    optuna.Study
        The searching cell's study, as stored.

    Raises
    ------
    StudyFileError, DataError, StorageError, ResourceError
        Something is wrong with what was given; what was finished before is kept.
    NoTrialError
        Every trial failed.
    Hung
        Training made no step for the study's ``stall``; its thread is left, and Python waits for it at its own end:
        end the process with ``os._exit``.  The same call, in another process, continues.
    Interrupted
        SIGINT or SIGTERM; the same call continues.
    """
    spec = study if isinstance(study, Spec) else read(Path(study))
    folder = folder_of(spec.study_name, root)
    make_folder(folder)
    if fresh and spec.storage is not None:
        raise UsageError(
            "--fresh is for a study in its own folder, and this one is in a database", where=str(spec.path),
            hint="give the study a new study_name",
        )  # fmt: skip
    if fresh:
        with exclusive(folder):
            set_aside(folder)
    with shared(folder) as alone, quiet():
        return _Run(spec, folder, listener or (lambda event: None), worker, alone, engine, make).go()


class _Run:
    """One call of :func:`run`."""

    def __init__(
        self, spec: Spec, folder: Path, listener: Listener, worker: bool, alone: float | None,
        engine: Callable[[str], Engine], make: Make,
    ) -> None:  # fmt: skip
        self.engine, self.make = engine, make
        self.spec, self.folder, self.listener, self.worker, self.alone = spec, folder, listener, worker, alone
        self.url = spec.storage or sqlite_url(folder)
        self.metric = spec.objective.removeprefix("test:")
        self.direction = METRICS[self.metric].direction
        # A cluster's trials take turns: each has all of its workers.
        self.threads = 1 if spec.cluster is not None else spec.threads or cores()
        self.finalists = Finalists(folder / "finalists", self.direction)
        self.halt = Halt()
        self.me = owner()

    def emit(self, event: str, **values: Any) -> None:
        self.listener({"event": event, **values})

    def go(self) -> optuna.Study:
        warm(wake)
        data = bring(self.spec, lambda name, done, size: self.emit("download", file=name, bytes=done, size=size))
        storage = open_storage(self.url, self.spec.grace)
        store = Store(storage, self.spec.study_name, self.direction, me=self.me, grace=self.spec.grace)
        lanes, lag = admit(store, self.spec, data, devices.places(self.spec, store.attrs()).absent)
        self.memory = self._bounded(data, lanes)
        # Of two that begin at once, one says what the cells are.
        self.places = devices.places(self.spec, store.attrs())
        self.emit(
            "study", study_name=self.spec.study_name, objective=self.spec.objective, direction=self.direction,
            cells=[c.name for c in self.places.absent], **self._so_far(storage), n_trials=self.spec.n_trials,
            notes=self.places.notes, lanes=lanes, threads=self.threads, storage=redacted(self.url),
        )  # fmt: skip
        facts = {**environment.build(), "lanes": lanes, "joined": utc(), "trains": True}
        cell = self.places.searches
        try:
            with beating(lambda: store.beat(facts), self.spec.grace), self._trainers(data) as make:
                self.make = make
                with self.halt.heeded():
                    self._cells(storage, store, data, lanes, lag)
                    # A signal ends the winner's training too, the timeout does not.
                    winner = Winner(
                        self.spec, cell, self.folder, self.spec.fixed, self.finalists, self.threads, self.emit,
                        self.halt.asked, make, self._memory_of(cell),
                    )  # fmt: skip
                    concluded = not self.halt.asked()
                    if concluded:
                        # Said before the others are looked at: of those that end together one finds all at their end.
                        facts["trains"] = False
                        store.beat(facts, PATIENCE)
                        concluded = winner.conclude(store, data, wait=not self.worker)
                if self.halt.signal is not None and not concluded:
                    raise _halted(self.halt.signal, store)
        finally:
            # A database that cannot be written learns it by this worker's silence.
            with contextlib.suppress(FmtuneError):
                store.leave()
        return optuna.load_study(study_name=self.spec.study_name, storage=storage)

    def _bounded(self, data: StudyData, lanes: int) -> float | None:
        """Bound the mini-batches that are kept, and return what lanes may take; None leaves it to what is free."""
        if self.spec.cluster is not None:
            return math.inf
        found = budget(self.spec, data.channels.feed, lanes)
        data.channels.feed.memory = found.batches
        return None if self.spec.memory is None else found.lanes

    def _memory_of(self, cell: Cell) -> float | None:
        """Return what a cell's lanes may take; a card has memory of its own."""
        return None if cell.device == "gpu" else self.memory

    @contextmanager
    def _trainers(self, data: StudyData) -> Iterator[Make]:
        """Give what trains: this process, or the cluster that the study names."""
        named = self.spec.cluster
        if named is None:
            yield self.make
            return
        layout = Layout(named.workers, named.shards, named.parts, named.block, named.exchange == "fp16")
        shared = self.folder / "rounds" if named.checkpoints is None else self.spec.path.parent / named.checkpoints
        folder = shared / f"{self.spec.study_name}-{self.me['run']}"
        made = Trainers(self.engine(named.address), data.channels.train.to_sparse(), layout, folder)
        try:
            yield made
        finally:
            made.close()

    def _so_far(self, storage: Any) -> dict[str, dict[str, Any]]:
        """Return, for the screen of a study that goes on, by cell: finished trials by state, and the best one."""
        names = {s.study_name: s._study_id for s in storage.get_all_studies()}
        done: dict[str, Any] = {}
        leads: dict[str, Any] = {}
        for i, cell in enumerate(c for c, why in self.places.absent.items() if not why):
            name = f"{self.spec.study_name}/{cell.name}" if i else self.spec.study_name
            trials = storage.get_all_trials(names[name], deepcopy=False) if name in names else []
            states = [t.state.name for t in trials]
            done[cell.name] = {s: states.count(s) for s in ("COMPLETE", "PRUNED", "FAIL")}
            if (lead := best(trials, self.direction)) is not None:
                leads[cell.name] = {"number": lead.number, "value": lead.value, "params": dict(lead.params)}
        return {"done": done, "best": leads}

    def _cells(self, storage: Any, store: Store, data: StudyData, lanes: int, lag: int) -> None:
        """Run the first cell that can run, then let the others replay it."""
        searched: Cell | None = None
        for cell, why in self.places.absent.items():
            if why:
                self._record(store, cell, note=f"not run: {why}")
                continue
            if cell in self.places.elsewhere:  # a worker that has the device replays it
                continue
            if self.halt.asked():
                return
            source: SearchSource | ReplaySource
            if searched is None:
                searched = cell
                source = self._search(store, cell, lag)
            else:
                source = self._replay(storage, store, cell)
            try:
                if source.left:
                    self._train(store, cell, source, data, lanes)
            except ResourceError as error:
                if isinstance(source, SearchSource):
                    raise
                self._record(store, cell, note=f"not run: {error.what}")
            self.emit("cell", cell=cell.name)

    def _train(
        self, store: Store, cell: Cell, source: SearchSource | ReplaySource, data: StudyData, lanes: int
    ) -> None:  # fmt: skip
        """Drive one cell's trials, and record what that took."""
        store.set_attrs({"fmtune:finished": None})
        own = (tuple(map(str, self.spec.choices("optimizer"))), all(self.spec.choices("exact")))
        seconds = sum(compile_kernels(cell.layout, solver, cell.device, *own) for solver in self.spec.solvers)
        self.emit("compiled", cell=cell.name, seconds=seconds)
        began = time.monotonic()
        limit = Limit(self.spec.timeout if isinstance(source, SearchSource) else None)
        driver = Driver(
            source, data.channels, cell.layout, self.metric, lanes=lanes, threads=self.threads,
            stop=lambda: self.halt.asked() or limit.over(), memory=self._memory_of(cell), device=cell.device,
            make=self.make, stall=self.spec.stall,
        )  # fmt: skip
        try:
            with limit.counting():
                driver.run()
        finally:
            if source.row_lanes:
                work = {"row_lanes": source.row_lanes, "pass_seconds": source.pass_seconds}
                self._record(store, cell, seconds=time.monotonic() - began, **work)

    def _search(self, store: Store, cell: Cell, lag: int) -> SearchSource:
        space = distributions(self.spec.search_space)
        stored = self._stored(store)
        history = History(
            self.spec.study_name, self.direction, space,
            lambda seed: make_sampler(self.spec, seed),
            make_pruner(self.spec), lag, self.spec.seed,
        )  # fmt: skip
        return SearchSource(
            store, self._terms(cell), history, stored, n_trials=self.spec.n_trials, lag=lag, distributions=space,
            enqueue=self.spec.enqueue, finalists=self.finalists,
        )  # fmt: skip

    def _replay(self, storage: RDBStorage, store: Store, cell: Cell) -> ReplaySource:
        name = f"{self.spec.study_name}/{cell.name}"
        own = Store(storage, name, self.direction, me=self.me, grace=self.spec.grace, home=store.study_id)
        return ReplaySource(own, self._terms(cell), store.trials(), self._stored(own))

    def _stored(self, store: Store) -> list[FrozenTrial]:
        """Return a cell's trials so far; those that were held before this process was alone with them are nobody's."""
        stored = store.trials()
        if self.alone is not None and self.spec.storage is None:
            store.orphan(stored, self.alone)
        return stored

    def _terms(self, cell: Cell) -> Terms:
        return Terms(cell.name, self.spec.fixed, self.spec.seeds, self.direction, self.emit)

    def _record(self, store: Store, cell: Cell, **values: Any) -> None:
        """Add what a cell took to what it took before; several workers' seconds are summed."""

        def add(attrs: dict[str, Any]) -> dict[str, Any]:
            cells = attrs["fmtune:cells"]
            mine = next(c for c in cells if (c["device"], c["layout"]) == (cell.device, cell.layout))
            for key in ("seconds", "row_lanes", "pass_seconds"):
                if key in values:
                    mine[key] = mine.get(key, 0.0) + values[key]
            if mine.get("seconds"):
                # Of the passes alone: the search itself, which only one cell pays for, is not in it.
                mine["rows_per_s"] = mine["row_lanes"] / max(mine["pass_seconds"], 1e-9)
                mine["peak_mb"] = max(environment.peak_mb(), mine.get("peak_mb", 0.0))
            mine.update({key: value for key, value in values.items() if key == "note"})
            return {"fmtune:cells": cells}

        store.change(add)


def _halted(signal: int, store: Store) -> Interrupted:
    try:
        kept = f"{ended(store, patience=0.0)} finished trials are kept"
    except Away:
        kept = "the study's database is away; trials that were said to be finished are kept"
    return Interrupted(
        f"stopped; {kept}", signal=signal, hint="run the same command again: it goes on where it stopped"
    )  # fmt: skip
