"""Study: a study file run to its end: ask, fit, tell until the budget is spent; then the winner's model.

The study in the database is the only memory.  Running the same file again continues it and repeats nothing;
running it in several processes, on one machine or many, divides its trials among them.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from fmtune import __version__
from fmtune.cluster.engine import Engine, OnRay
from fmtune.cluster.layout import Layout
from fmtune.cluster.trainer import Trainers
from fmtune.errors import FmtuneError, Interrupted, ResourceError, StorageError, UsageError
from fmtune.files import make_folder
from fmtune.fm.metrics import METRICS
from fmtune.fm.solvers import Make, compile_kernels, trainer, wake
from fmtune.machine import cores
from fmtune.tune import devices, environment
from fmtune.tune.channels import StudyData, bring
from fmtune.tune.driver import Driver
from fmtune.tune.folder import exclusive, folder_of, set_aside, shared
from fmtune.tune.history import History
from fmtune.tune.limit import Limit
from fmtune.tune.places import redacted
from fmtune.tune.samplers import make_pruner, make_sampler
from fmtune.tune.selection import Finalists
from fmtune.tune.sources import ReplaySource, SearchSource, Terms
from fmtune.tune.space import canonical, describe, difference, distributions
from fmtune.tune.spec import Cell, Spec, read
from fmtune.tune.storage import open_storage, quiet, sqlite_url, warm
from fmtune.tune.store import Away, Store
from fmtune.tune.winner import Winner, best, ended, utc
from fmtune.tune.workers import beating, owner

Listener = Callable[[dict[str, Any]], None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        self.fixed = {**spec.hyperparameters, "predictor_type": spec.predictor_type, "seed": spec.seed}
        self.finalists = Finalists(folder / "finalists", self.direction)
        self.stopped_by: int | None = None
        self.me = owner()
        self.limit = Limit(spec.timeout)

    def emit(self, event: str, **values: Any) -> None:
        self.listener({"event": event, **values})

    def stop(self) -> bool:
        return self.asked() or self.limit.over()

    def asked(self) -> bool:
        """Whether a signal came: that ends the winner's training too, which the timeout does not."""
        return self.stopped_by is not None

    def go(self) -> optuna.Study:
        warm(wake)
        data = bring(self.spec, lambda name, done, size: self.emit("download", file=name, bytes=done, size=size))
        storage = open_storage(self.url, self.spec.grace)
        store = Store(storage, self.spec.study_name, self.direction, me=self.me, grace=self.spec.grace)
        notes = self._places(store.attrs())
        lanes, lag = self._admit(store, data)
        # Of two that begin at once, one says what the cells are.
        self._places(store.attrs())
        self.emit(
            "study", study_name=self.spec.study_name, objective=self.spec.objective, direction=self.direction,
            cells=[_name(c) for c in self.cells], **self._so_far(storage), n_trials=self.spec.n_trials, notes=notes,
            lanes=lanes, threads=self.threads, storage=redacted(self.url),
        )  # fmt: skip
        facts = {**environment.build(), "lanes": lanes, "joined": utc()}
        cell = next(cell for cell in self.cells if not self.absent[cell])
        try:
            with beating(lambda: store.beat(facts), self.spec.grace), self._trainers(data) as make:
                self.make = make
                with self._signals():
                    self._cells(storage, store, data, lanes, lag)
                    winner = Winner(
                        self.spec, cell, self.folder, self.fixed, self.finalists, self.threads, self.emit, self.asked,
                        make,
                    )  # fmt: skip
                    concluded = not self.asked() and winner.conclude(store, data, wait=not self.worker)
                if self.stopped_by is not None and not concluded:
                    raise self._halted(self.stopped_by, store)
        finally:
            # A database that cannot be written learns it by this worker's silence.
            with contextlib.suppress(FmtuneError):
                store.leave()
        return optuna.load_study(study_name=self.spec.study_name, storage=storage)

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

    def _halted(self, signal: int, store: Store) -> Interrupted:
        try:
            kept = f"{ended(store, patience=0.0)} finished trials are kept"
        except Away:
            kept = "the study's database is away; trials that were said to be finished are kept"
        return Interrupted(
            f"stopped; {kept}", signal=signal, hint="run the same command again: it goes on where it stopped"
        )  # fmt: skip

    def _places(self, attrs: Mapping[str, Any]) -> tuple[str, ...]:
        """Say what the cells are and which were absent: as the study was begun, or as this machine has it.

        Returns what there is to say of that; raises ResourceError where this machine cannot search as the study does.
        """
        self.cells, notes = devices.cells(self.spec)
        missing = {cell: devices.missing(cell, self.spec.cpu_only) for cell in self.cells}
        stored = attrs.get("fmtune:cells")
        if stored:
            self.cells = tuple(Cell(c["device"], c["layout"]) for c in stored)
            missing = {cell: devices.missing(cell, self.spec.cpu_only) for cell in self.cells}
            begun = dict(zip(self.cells, stored, strict=True))
            self.absent = {cell: c.get("absent", missing[cell]) for cell, c in begun.items()}
        else:
            self.absent = dict(missing)
        searches = next((cell for cell in self.cells if not self.absent[cell]), self.cells[0])
        if why := missing[searches]:
            raise ResourceError(f"the study searches on {_name(searches)}: {why}", where="matrix", hint=devices.HINT)
        self.elsewhere = {cell for cell in self.cells if missing[cell] and not self.absent[cell]}
        return notes

    def _so_far(self, storage: Any) -> dict[str, dict[str, Any]]:
        """Return, for the screen of a study that goes on, by cell: finished trials by state, and the best one."""
        names = {s.study_name: s._study_id for s in storage.get_all_studies()}
        done: dict[str, Any] = {}
        leads: dict[str, Any] = {}
        for i, cell in enumerate(c for c in self.cells if not self.absent[c]):
            name = f"{self.spec.study_name}/{_name(cell)}" if i else self.spec.study_name
            trials = storage.get_all_trials(names[name], deepcopy=False) if name in names else []
            states = [t.state.name for t in trials]
            done[_name(cell)] = {s: states.count(s) for s in ("COMPLETE", "PRUNED", "FAIL")}
            if (lead := best(trials, self.direction)) is not None:
                leads[_name(cell)] = {"number": lead.number, "value": lead.value, "params": dict(lead.params)}
        return {"done": done, "best": leads}

    def _admit(self, store: Store, data: StudyData) -> tuple[int, int]:
        """Store what the study is, or refuse to go on with another one; returns lanes and lag."""
        mine = canonical(self.spec)
        digests = {name: s["digest"] for name, s in data.stats.items()}
        others = [w for w in store.workers() if w["lives"]]

        def admit(attrs: dict[str, Any]) -> dict[str, Any]:
            if "fmtune:canonical" in attrs:
                changed = difference(attrs["fmtune:canonical"], mine)
                if changed:
                    raise _another(self.spec, "\n  ".join(changed), 2)
                old = attrs["fmtune:digests"]
                moved = [name for name in sorted({*old, *digests}) if old.get(name) != digests.get(name)]
                if moved:
                    raise _another(self.spec, f"the data of {', '.join(moved)} changed since its first trial", 3)
            _same_build(self.spec, others)
            lanes, lag = lanes_of(self.spec, attrs.get("fmtune:lag"))
            return self._facts(attrs, data, digests, mine, lanes, lag)

        before = store.change(admit)
        store.name_metric(self.spec.objective)
        return lanes_of(self.spec, before.get("fmtune:lag"))

    def _facts(
        self, attrs: Mapping[str, Any], data: StudyData, digests: Mapping[str, str], mine: Mapping[str, Any],
        lanes: int, lag: int,
    ) -> dict[str, Any]:  # fmt: skip
        """Return what is stored with the study."""
        return {
            "fmtune:version": __version__, "fmtune:canonical": mine, "fmtune:digests": digests,
            "fmtune:channels": data.stats, "fmtune:data": data.description, "fmtune:facts": data.facts,
            "fmtune:objective": self.spec.objective, "fmtune:direction": self.direction, "fmtune:lag": lag,
            "fmtune:lanes": lanes, "fmtune:n_trials": self.spec.n_trials, "fmtune:seeds": self.spec.seeds,
            "fmtune:space": describe(self.spec.search_space), "fmtune:fixed": self.fixed,
            "fmtune:sampler": self.spec.sampler.name, "fmtune:pruner": self.spec.pruner.name,
            "fmtune:spec_path": str(self.spec.path), "fmtune:spec_text": redacted(self.spec.text),
            "fmtune:environment": environment.describe(),
            "fmtune:started": attrs.get("fmtune:started", utc()),
            "fmtune:cells": attrs.get("fmtune:cells") or [
                {"device": c.device, "layout": c.layout, "note": None, "absent": self.absent[c]} for c in self.cells
            ],
        }  # fmt: skip

    def _cells(self, storage: Any, store: Store, data: StudyData, lanes: int, lag: int) -> None:
        """Run the first cell that can run, then let the others replay it."""
        searched: Cell | None = None
        for cell in self.cells:
            if self.absent[cell]:
                self._record(store, cell, note=f"not run: {self.absent[cell]}")
                continue
            if cell in self.elsewhere:  # a worker that has the device replays it
                continue
            if self.stop():
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
            self.emit("cell", cell=_name(cell))

    def _train(
        self, store: Store, cell: Cell, source: SearchSource | ReplaySource, data: StudyData, lanes: int
    ) -> None:  # fmt: skip
        """Drive one cell's trials, and record what that took."""
        store.set_attrs({"fmtune:finished": None})
        seconds = sum(compile_kernels(cell.layout, solver, cell.device) for solver in self.spec.solvers)
        self.emit("compiled", cell=_name(cell), seconds=seconds)
        began = time.monotonic()
        driver = Driver(
            source, data.channels, cell.layout, self.metric, lanes=lanes, threads=self.threads, stop=self.stop,
            memory=None if self.spec.cluster is None else math.inf, device=cell.device, make=self.make,
            stall=self.spec.stall,
        )  # fmt: skip
        try:
            with self.limit.counting():
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
        name = f"{self.spec.study_name}/{_name(cell)}"
        own = Store(storage, name, self.direction, me=self.me, grace=self.spec.grace, home=store.study_id)
        return ReplaySource(own, self._terms(cell), store.trials(), self._stored(own))

    def _stored(self, store: Store) -> list[FrozenTrial]:
        """Return a cell's trials so far; those that were held before this process was alone with them are nobody's."""
        stored = store.trials()
        if self.alone is not None and self.spec.storage is None:
            store.orphan(stored, self.alone)
        return stored

    def _terms(self, cell: Cell) -> Terms:
        return Terms(_name(cell), self.fixed, self.spec.seeds, self.direction, self.emit)

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

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let the first SIGINT, SIGTERM or SIGHUP stop at a safe point, and the second at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _: Any) -> None:
            if self.stopped_by is not None:
                os._exit(128 + number)
            self.stopped_by = number

        # One that is ignored stays so: nohup asks for that.
        wanted = (s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN)
        before = {s: signal.signal(s, note) for s in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def lanes_of(spec: Spec, stored_lag: int | None = None) -> tuple[int, int]:
    """Return how many lanes train at once, and the lag, which is fixed when the study begins.

    ``pack: auto`` keeps the searched trials at eight times the lanes or more: a sampler that learns nothing
    between many asks is no better than chance.
    """
    jobs = max(1, min(16, spec.n_trials // 8)) if spec.pack == "auto" else max(1, spec.pack // spec.seeds)
    if spec.cluster is not None:
        jobs = 1
    lag = stored_lag if stored_lag is not None else jobs if spec.lag is None else spec.lag
    return (min(jobs, max(1, lag)) if spec.pack == "auto" else jobs) * spec.seeds, int(lag)


def _another(spec: Spec, difference: str, code: int) -> StorageError:
    error = StorageError(
        f"study {spec.study_name!r} was begun with another setting:\n  {difference}", where=str(spec.path),
        hint="give it a new study_name, or start anew with --fresh; its finished trials are kept",
    )  # fmt: skip
    error.exit_code = code
    return error


def _name(cell: Cell) -> str:
    return f"{cell.device}-{cell.layout}"


def _same_build(spec: Spec, others: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to join workers that would give a trial other numbers."""
    for name, mine in environment.build().items():
        for other in others:
            if other.get(name) != mine:
                hint = "install the same versions everywhere, or wait until that worker has ended"
                where = f"{other.get('host')}:{other.get('pid')}"
                error = StorageError(
                    f"study {spec.study_name!r} is being run by another {name}: {other.get(name)} at {where}, "
                    f"{mine} here", where=str(spec.path), hint=hint,
                )  # fmt: skip
                error.exit_code = 2
                raise error
