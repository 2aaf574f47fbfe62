"""Study: a study file run to its end: ask, fit, tell until the budget is spent; then the winner's model.

The study in the database is the only memory.  Running the same file again continues it and repeats nothing.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.trial import FrozenTrial

from fmtune import __version__
from fmtune.errors import Interrupted, NoTrialError, ResourceError, StorageError
from fmtune.files import make_folder
from fmtune.fm.fit import train
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import METRICS, evaluate
from fmtune.fm.pack import score
from fmtune.fm.solvers import compile_kernels
from fmtune.machine import cores
from fmtune.rows import Rows
from fmtune.tune import environment
from fmtune.tune.channels import StudyData, bring, folder_of
from fmtune.tune.driver import Driver
from fmtune.tune.history import History
from fmtune.tune.importance import importance
from fmtune.tune.samplers import make_pruner, make_sampler
from fmtune.tune.selection import Finalists, honest
from fmtune.tune.sources import ReplaySource, SearchSource, Terms
from fmtune.tune.space import canonical, describe, difference, distributions
from fmtune.tune.spec import Cell, Spec, read
from fmtune.tune.storage import Store, open_storage, quiet, redacted, sqlite_url

Listener = Callable[[dict[str, Any]], None]

DEVICES = ("cpu",)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(
    study: str | Path | Spec, *, fresh: bool = False, root: Path | None = None, listener: Listener | None = None,
) -> optuna.Study:  # fmt: skip
    """Run a study file, or go on with it, until its budget is spent.

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
    Interrupted
        SIGINT or SIGTERM; the same call continues.
    """
    spec = study if isinstance(study, Spec) else read(Path(study))
    folder = folder_of(spec.study_name, root)
    make_folder(folder)
    with alone(folder), quiet():
        if fresh:
            _set_aside(folder)
        return _Run(spec, folder, listener or (lambda event: None)).go()


class _Run:
    """One call of :func:`run`."""

    def __init__(self, spec: Spec, folder: Path, listener: Listener) -> None:
        self.spec, self.folder, self.listener = spec, folder, listener
        self.url = spec.storage or sqlite_url(folder)
        self.metric = spec.objective.removeprefix("test:")
        self.direction = METRICS[self.metric].direction
        self.threads = spec.threads or cores()
        self.fixed = {**spec.hyperparameters, "predictor_type": spec.predictor_type, "seed": spec.seed}
        self.finalists = Finalists(folder / "finalists", self.direction)
        self.stopped_by: int | None = None
        self.worked = False
        self.deadline = math.inf if spec.timeout is None else time.monotonic() + spec.timeout

    def emit(self, event: str, **values: Any) -> None:
        self.worked |= event == "trial"
        self.listener({"event": event, **values})

    def stop(self) -> bool:
        return self.stopped_by is not None or time.monotonic() > self.deadline

    def go(self) -> optuna.Study:
        data = bring(self.spec, lambda name, done, size: self.emit("download", file=name, bytes=done, size=size))
        storage = open_storage(self.url)
        store = Store(storage, self.spec.study_name, self.direction)
        attrs = store.attrs()
        lanes, lag = lanes_of(self.spec, attrs.get("fmtune:lag"))
        self._admit(store, attrs, data, lanes, lag)
        self.emit(
            "study", study_name=self.spec.study_name, objective=self.spec.objective, direction=self.direction,
            cells=[_name(c) for c in self.spec.matrix.cells], done=self._done(storage), n_trials=self.spec.n_trials,
            lanes=lanes, threads=self.threads, storage=redacted(self.url),
        )  # fmt: skip
        with self._signals():
            self._cells(storage, store, data, lanes, lag)
        if self.stopped_by is not None:
            raise Interrupted(
                f"stopped; {sum(t.state.is_finished() for t in store.trials())} finished trials are kept",
                signal=self.stopped_by, hint="run the same command again: it goes on where it stopped",
            )  # fmt: skip
        self._winner(store, data)
        self._selection(store, data)
        # A run that found nothing to do did not finish the study: a report written since is still its report.
        before = None if self.worked else attrs.get("fmtune:finished")
        store.set_attrs({"fmtune:finished": before or _utc()})
        return optuna.load_study(study_name=self.spec.study_name, storage=storage)

    def _done(self, storage: Any) -> dict[str, dict[str, int]]:
        """Count finished trials by cell and state, for the screen of a study that goes on."""
        names = {s.study_name: s._study_id for s in storage.get_all_studies()}
        done: dict[str, dict[str, int]] = {}
        for i, cell in enumerate(c for c in self.spec.matrix.cells if c.device in DEVICES):
            name = f"{self.spec.study_name}/{_name(cell)}" if i else self.spec.study_name
            states = [t.state.name for t in storage.get_all_trials(names[name])] if name in names else []
            done[_name(cell)] = {s: states.count(s) for s in ("COMPLETE", "PRUNED", "FAIL")}
        return done

    def _admit(self, store: Store, attrs: Mapping[str, Any], data: StudyData, lanes: int, lag: int) -> None:
        """Store what the study is, or refuse to go on with another one."""
        mine = canonical(self.spec)
        digests = {name: s["digest"] for name, s in data.stats.items()}
        if "fmtune:canonical" in attrs:
            changed = difference(attrs["fmtune:canonical"], mine)
            if changed:
                raise _another(self.spec, "\n  ".join(changed), 2)
            old = attrs["fmtune:digests"]
            moved = [name for name in sorted({*old, *digests}) if old.get(name) != digests.get(name)]
            if moved:
                raise _another(self.spec, f"the data of {', '.join(moved)} changed since its first trial", 3)
        store.set_attrs({
            "fmtune:version": __version__, "fmtune:canonical": mine, "fmtune:digests": digests,
            "fmtune:channels": data.stats, "fmtune:data": data.description, "fmtune:facts": data.facts,
            "fmtune:objective": self.spec.objective, "fmtune:direction": self.direction, "fmtune:lag": lag,
            "fmtune:lanes": lanes, "fmtune:n_trials": self.spec.n_trials, "fmtune:seeds": self.spec.seeds,
            "fmtune:space": describe(self.spec.search_space), "fmtune:fixed": self.fixed,
            "fmtune:sampler": self.spec.sampler.name, "fmtune:pruner": self.spec.pruner.name,
            "fmtune:spec_path": str(self.spec.path), "fmtune:spec_text": redacted(self.spec.text),
            "fmtune:environment": environment.describe(), "fmtune:finished": None,
            "fmtune:started": attrs.get("fmtune:started", _utc()),
            "fmtune:cells": attrs.get("fmtune:cells") or [
                {"device": c.device, "layout": c.layout, "note": None} for c in self.spec.matrix.cells
            ],
        })  # fmt: skip
        store.storage.set_study_system_attr(store.study_id, "study:metric_names", [self.spec.objective])

    def _cells(self, storage: Any, store: Store, data: StudyData, lanes: int, lag: int) -> None:
        """Run the first cell that can run, then let the others replay it."""
        searched: Cell | None = None
        for cell in self.spec.matrix.cells:
            if cell.device not in DEVICES:
                self._record(store, cell, note=f"not run: no {'CUDA device' if cell.device == 'gpu' else cell.device}")
                continue
            if self.stop():
                return
            source: SearchSource | ReplaySource
            if searched is None:
                searched = cell
                source = self._search(store, cell, lag)
            else:
                own = Store(storage, f"{self.spec.study_name}/{_name(cell)}", self.direction)
                source = ReplaySource(own, self._terms(cell), store.trials(), own.trials())
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
        seconds = sum(compile_kernels(cell.layout, solver) for solver in self.spec.solvers)
        self.emit("compiled", cell=_name(cell), seconds=seconds)
        began = time.monotonic()
        driver = Driver(
            source, data.channels, cell.layout, self.metric, lanes=lanes, threads=self.threads, stop=self.stop
        )  # fmt: skip
        try:
            driver.run()
        finally:
            if source.row_lanes:
                work = {"row_lanes": source.row_lanes, "pass_seconds": source.pass_seconds}
                self._record(store, cell, seconds=time.monotonic() - began, **work)

    def _search(self, store: Store, cell: Cell, lag: int) -> SearchSource:
        space = distributions(self.spec.search_space)
        stored = store.trials()
        history = History(
            self.spec.study_name, self.direction, space,
            lambda seed: make_sampler(self.spec, seed),
            make_pruner(self.spec), lag, self.spec.seed,
        )  # fmt: skip
        history.restore_study(store.storage.get_study_system_attrs(store.study_id))
        return SearchSource(
            store, self._terms(cell), history, stored, n_trials=self.spec.n_trials, lag=lag, distributions=space,
            enqueue=self.spec.enqueue, finalists=self.finalists,
        )  # fmt: skip

    def _terms(self, cell: Cell) -> Terms:
        return Terms(_name(cell), self.fixed, self.spec.seeds, self.direction, self.emit)

    def _record(self, store: Store, cell: Cell, **values: Any) -> None:
        """Add what a cell took to what it took before."""
        cells = [dict(c) for c in store.attrs()["fmtune:cells"]]
        mine = next(c for c in cells if (c["device"], c["layout"]) == (cell.device, cell.layout))
        for key in ("seconds", "row_lanes", "pass_seconds"):
            if key in values:
                mine[key] = mine.get(key, 0.0) + values.pop(key)
        if mine.get("seconds"):
            # Of the passes alone: the search itself, which only one cell pays for, is not in it.
            mine["rows_per_s"] = mine["row_lanes"] / max(mine["pass_seconds"], 1e-9)
            mine["peak_mb"] = environment.peak_mb()
        mine.update(values)
        store.set_attrs({"fmtune:cells": cells})

    def _winner(self, store: Store, data: StudyData) -> None:
        """Train the best configuration again, as many epochs as gave its score, and save it."""
        trials = store.trials()
        best = _best(trials, self.direction)
        if best is None:
            raise _nothing(trials, self.spec)
        path = self.folder / "model.fm"
        attrs = store.attrs()
        if attrs.get("fmtune:model", {}).get("trial") == best.number and path.exists():
            self.emit("winner", number=best.number, value=best.value, model=str(path), params=best.params,
                      holdout=attrs.get("fmtune:holdout"))  # fmt: skip
            return
        epochs = int(best.user_attrs.get("best_epoch") or len(best.intermediate_values))
        h = Hyperparameters.of({**self.fixed, **best.params}).replace(epochs=epochs, patience=0)
        layout = next(c.layout for c in self.spec.matrix.cells if c.device in DEVICES)
        fit = train(data.channels, h, layout=layout, objective=self.metric)
        if self.spec.seeds == 1 and fit.curve[-1] != best.value:
            warnings.warn(
                f"trial {best.number} scored {best.value!r} in its study and {fit.curve[-1]!r} trained again",
                stacklevel=2,
            )
        facts = {
            "study_name": self.spec.study_name, "trial": best.number, "objective": self.spec.objective,
            "value": best.value, "hyperparameters": h.changed(), "metrics": fit.metrics, "epochs": epochs,
            "data": data.description, "train_digest": data.stats["train"]["digest"], "version": __version__,
            "index_base": data.index_base,
        }  # fmt: skip
        if data.encoder is not None:
            facts["encoding"] = data.encoder.to_json()
        replace(fit.model, facts=facts).save(path)
        found = {"trial": best.number, "path": _shown(path), "bytes": fit.model.nbytes}
        store.set_attrs({"fmtune:model": found})
        holdout = self._open_holdout(store, data.holdout, fit.model, best.number)
        self.emit("winner", number=best.number, value=best.value, model=str(path), params=best.params, holdout=holdout)

    def _selection(self, store: Store, data: StudyData) -> None:
        """Store what the choice among the best trials is worth, and which parameters mattered."""
        if not self.worked and "fmtune:selection" in store.attrs():
            return
        found = honest(self.metric, self.finalists.scores(), data.channels.test_labels, self.spec.seed)
        study = optuna.load_study(study_name=self.spec.study_name, storage=store.storage)
        store.set_attrs({"fmtune:selection": found, "fmtune:importance": importance(study)})

    def _open_holdout(self, store: Store, rows: Rows | None, model: Any, trial: int) -> dict[str, Any] | None:
        """Score the sealed channel for a new winner, and count that it was opened."""
        if rows is None or rows.labels is None:
            return None
        opened = int((store.attrs().get("fmtune:holdout") or {}).get("opened", 0)) + 1
        metrics = evaluate(score(model, rows), rows.labels, self.spec.predictor_type)
        held = {"score": metrics[self.metric], "metrics": metrics, "opened": opened, "trial": trial}
        store.set_attrs({"fmtune:holdout": held})
        return held

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
    lag = stored_lag if stored_lag is not None else jobs if spec.lag is None else spec.lag
    return (min(jobs, max(1, lag)) if spec.pack == "auto" else jobs) * spec.seeds, int(lag)


def _best(trials: list[FrozenTrial], direction: str) -> FrozenTrial | None:
    done = [t for t in trials if t.state.name == "COMPLETE" and t.value is not None]
    sign = 1.0 if direction == "minimize" else -1.0
    return min(done, key=lambda t: (sign * (t.value or 0.0), t.number), default=None)


def _nothing(trials: list[FrozenTrial], spec: Spec) -> NoTrialError:
    diverged = [t for t in trials if "diverged" in str(t.user_attrs.get("reason"))]
    if not trials:
        return NoTrialError("no trial was finished within the timeout", where=spec.study_name, hint="raise timeout")
    if not diverged:
        return NoTrialError(f"none of {len(trials)} trials was completed", where=spec.study_name,
                            hint="see `fmtune status`; a milder pruner or more epochs may help")  # fmt: skip
    ranges = ", ".join(
        f"{name} {min(t.params[name] for t in diverged):.3g}..{max(t.params[name] for t in diverged):.3g}"
        for name in diverged[0].params if name.endswith("_lr")
    )  # fmt: skip
    fixed = ", ".join(f"{k} {v:g}" for k, v in spec.hyperparameters.items() if k.endswith("_lr"))
    return NoTrialError(
        f"none of {len(trials)} trials succeeded: {len(diverged)} diverged with {ranges or fixed or 'these settings'}",
        where=spec.study_name, hint="lower the learning rates, or set clip_gradient",
    )  # fmt: skip


def _another(spec: Spec, difference: str, code: int) -> StorageError:
    error = StorageError(
        f"study {spec.study_name!r} was begun with another setting:\n  {difference}", where=str(spec.path),
        hint="give it a new study_name, or start anew with --fresh; its finished trials are kept",
    )  # fmt: skip
    error.exit_code = code
    return error


def _name(cell: Cell) -> str:
    return f"{cell.device}-{cell.layout}"


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _shown(path: Path) -> str:
    """Return a path as the user would write it: relative to the current folder where it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the study's folder, so that two runs do not write one study."""
    lock = filelock.FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StorageError(
            f"study {folder.name!r} is being run by another process", where=str(folder), hint="wait for it, or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _set_aside(folder: Path) -> None:
    """Move a study's folder to ``<folder>.old``, over an older one, and leave an empty one."""
    if not any(folder.iterdir()):
        return
    old = folder.with_name(folder.name + ".old")
    if old.exists():
        for file in sorted(old.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        old.rmdir()
    folder.rename(old)
    folder.mkdir()
