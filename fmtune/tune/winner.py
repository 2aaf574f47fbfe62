"""Winner: what is done once when a study has ended: its best model, the holdout, and what the choice is worth.

Any worker that finds the study complete does it; a note with the study says who is at it, and a dead one's is
taken over.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from fmtune.errors import FmtuneError, ModelError, NoTrialError
from fmtune.fm.fit import train
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import calibration, constant, evaluate, unlearned
from fmtune.fm.model import Model
from fmtune.fm.pack import Stopped, score
from fmtune.fm.solvers import Make, trainer
from fmtune.tune import modelfile
from fmtune.tune.again import AgainSource
from fmtune.tune.baseline import baseline
from fmtune.tune.budget import PLACES
from fmtune.tune.channels import StudyData
from fmtune.tune.drawing import groups_of
from fmtune.tune.driver import Driver
from fmtune.tune.explained import explained
from fmtune.tune.importance import importance
from fmtune.tune.selection import Finalists, honest, interval
from fmtune.tune.sources import Emit, epochs_of, values_of
from fmtune.tune.spec import Cell, Spec
from fmtune.tune.storage import PATIENCE
from fmtune.tune.store import Store
from fmtune.tune.workers import name_of


class Winner:
    """Concludes a study.

    Parameters
    ----------
    spec, cell, folder
        The study, its cell that searches, and its own folder.
    fixed
        Hyperparameters that are not searched.
    finalists
        The best trials' scores, as far as they lie here.
    threads
        Threads of a pass.
    emit
        Takes the events ``doing``, ``winner`` and ``concluded``.
    stop
        Asked a few times a second; True gives up what is being trained, and the next run does it again.
    make
        Makes what trains.
    memory
        Bytes that lanes may take; None is half of what is free.
    """

    def __init__(
        self, spec: Spec, cell: Cell, folder: Path, fixed: Mapping[str, Any], finalists: Finalists, threads: int,
        emit: Emit, stop: Callable[[], bool], make: Make = trainer, memory: float | None = None,
    ) -> None:  # fmt: skip
        self._cell, self._stop, self._make, self._memory = cell, stop, make, memory
        self._spec, self._folder, self._fixed, self._finalists = spec, folder, dict(fixed), finalists
        self._threads, self._emit = threads, emit

    def conclude(self, store: Store, data: StudyData, *, wait: bool) -> bool:
        """Choose the winner, once for all workers and when none of them trains any more.

        One does it; the others ``wait``, or leave it to those that still train or to that one.  Returns False when it
        was stopped.

        Raises
        ------
        NoTrialError
            Every trial failed.
        """
        # What others still train may be better, and the holdout is not to be opened for less.
        if wait and not _alone(store):
            self._doing("waiting for the workers that still train")
        if not self._awaited(lambda: _alone(store) or None, wait):
            return not wait
        done = ended(store)
        turn = self._awaited(lambda: self._turn(store, done), wait)
        if turn is None:
            return not wait
        try:
            self._winner(store, data)
            if turn:
                self._selection(store, data)
                store.set_attrs({"fmtune:finished": utc(), "fmtune:concluded": done})
                self._emit("concluded", trials=done)
        except Stopped:
            return False
        finally:
            if turn:
                with contextlib.suppress(FmtuneError):
                    store.set_attrs({"fmtune:concluding": None})
        return True

    def _doing(self, what: str) -> None:
        self._emit("doing", what=what)

    def _awaited(self, ask: Callable[[], bool | None], wait: bool) -> bool | None:
        """Return the answer when there is one; None without, when stopped or where it is not waited for."""
        while (answer := ask()) is None and wait and not self._stop():
            time.sleep(0.5)
        return answer

    def _turn(self, store: Store, done: int) -> bool | None:
        """Whether the winner is this process's to choose; False when that is done, None while another is at it."""
        living = [name_of(w) for w in store.workers() if w["lives"] and w["run"] != store.me["run"]]

        def take(attrs: dict[str, Any]) -> dict[str, Any]:
            busy = attrs.get("fmtune:concluding")
            free = busy is None or name_of(busy) not in living
            return {"fmtune:concluding": store.me} if free and not settled(attrs) else {}

        def settled(attrs: Mapping[str, Any]) -> bool:
            return attrs.get("fmtune:concluded") == done and attrs.get("fmtune:finished") is not None

        before = store.change(take)
        if settled(before):
            return False
        busy = before.get("fmtune:concluding")
        return True if busy is None or name_of(busy) not in living else None

    def _winner(self, store: Store, data: StudyData) -> None:
        """Train the best configuration again, as many epochs as gave its score, and save it."""
        trials = store.trials()
        top = best(trials, self._spec.direction)
        if top is None:
            raise _nothing(trials, self._spec)
        path = self._folder / "model.fm"
        # A run that died may have saved the model and not come to the holdout, which is scored then.
        model = _saved(store, path, top.number) or self._trained(store, data, top, path)
        holdout = self._open_holdout(store, data, model, top.number)
        self._emit("winner", number=top.number, value=top.value, model=str(path), params=top.params, holdout=holdout)

    def _trained(self, store: Store, data: StudyData, top: FrozenTrial, path: Path) -> Model:
        """Return the winner's model, trained, saved and stored with what a report shows beside it."""
        self._doing(f"training trial {top.number} again, the winner")
        epochs = epochs_of(top)
        own = Hyperparameters.of({**self._fixed, **top.params})
        metric = self._spec.metric
        fit = train(
            data.channels, own.replace(patience=0), layout=self._cell.layout, device=self._cell.device,
            objective=metric, epochs=epochs, stop=self._stop, make=self._make,
        )  # fmt: skip
        labels = data.channels.train.labels
        assert labels is not None and top.value is not None
        plain = constant(metric, labels, data.channels.test_labels)
        if (said := unlearned(metric, top.value, plain)) is not None:
            warnings.warn(said, stacklevel=2)
        if self._spec.seeds == 1 and fit.curve[-1] != top.value:
            warnings.warn(
                f"trial {top.number} scored {top.value!r} in its study and {fit.curve[-1]!r} trained again",
                stacklevel=2,
            )
        modelfile.save(
            fit.model, path, self._spec, data, own, trial=top.number, value=top.value, epochs=epochs,
            metrics=fit.metrics,
        )  # fmt: skip
        found = {"trial": top.number, "path": _shown(path), "bytes": fit.model.nbytes}
        beside = {"fmtune:constant": {"trial": top.number, "value": plain}}
        store.set_attrs({"fmtune:model": found, **beside, **self._beside(data, own, fit.model, top.number)})
        return fit.model

    def _beside(self, data: StudyData, h: Hyperparameters, model: Model, trial: int) -> dict[str, dict[str, Any]]:
        """Return what a report shows beside a winner: its strongest parts, the linear model, its calibration."""
        test, labels = data.channels.test(self._cell.layout), data.channels.test_labels
        assert test is not None
        self._doing("comparing the winner with a linear model")
        scores = score(model, test)
        found = {"fmtune:explained": {"trial": trial, **explained(model, data)}}
        if h.num_factors:
            # No lane enters or leaves beside others, so no pack has copies; the winner's model stays.
            room = None if self._memory is None else max(0.0, PLACES * self._memory - model.nbytes)
            asked = data.channels, h, *self._cell, self._spec.metric, scores, self._stop
            linear = baseline(*asked, room=room, threads=self._threads)
            found["fmtune:baseline"] = {"trial": trial, **linear}
        if h.predictor_type == "binary_classifier":
            found["fmtune:calibration"] = {"trial": trial, **calibration(scores, labels)}
        return found

    def _selection(self, store: Store, data: StudyData) -> None:
        """Store what the choice among the best trials is worth, and which parameters set the best apart."""
        self._doing("asking what the choice among the best trials is worth")
        trials = {t.number: t for t in store.trials()}
        size = 4 * self._spec.seeds * len(data.channels.test_labels)
        missing = self._finalists.choose(values_of(list(trials.values())), size)
        self._fill([trials[n] for n in missing], data)
        labels, units = data.channels.test_labels, data.channels.units
        self._finalists.label(labels, units)
        found = honest(self._spec.metric, self._finalists.scores(), labels, self._spec.seed, units)
        study = optuna.load_study(study_name=self._spec.study_name, storage=store.storage)
        shares, clear = importance(study)
        store.set_attrs({"fmtune:selection": found, "fmtune:importance": shares, "fmtune:clear": clear})

    def _fill(self, trials: Sequence[FrozenTrial], data: StudyData) -> None:
        """Train finalists again whose scores lie on another machine."""
        source = AgainSource(trials, self._fixed, self._spec.seeds, self._finalists)
        lanes = 16 if self._spec.cluster is None else self._spec.seeds
        whole = Driver(
            source, data.channels, self._cell.layout, self._spec.metric, lanes=lanes, threads=self._threads,
            memory=self._memory, device=self._cell.device, stop=self._stop, make=self._make,
        ).run()  # fmt: skip
        if not whole:
            raise Stopped

    def _open_holdout(self, store: Store, data: StudyData, model: Model, trial: int) -> dict[str, Any] | None:
        """Score the sealed channel for a new winner, and count that it was opened; an old one keeps its score."""
        rows = data.holdout
        if rows is None or rows.labels is None:
            return None
        before = store.attrs().get("fmtune:holdout") or {}
        if before.get("trial") == trial and "score" in before:
            return dict(before)
        opened = int(before.get("opened", 0)) + 1
        raw = score(model, rows)
        metrics = evaluate(raw, rows.labels, self._spec.predictor_type)
        ends = interval(self._spec.metric, raw[None], rows.labels, self._spec.seed, data.held)
        low, high = ends or (None, None)
        held = {"score": metrics[self._spec.metric], "metrics": metrics, "low": low, "high": high,
                "groups": groups_of(data.held), "opened": opened, "trial": trial}  # fmt: skip
        store.set_attrs({"fmtune:holdout": held})
        return held


def best(trials: Sequence[FrozenTrial], direction: str) -> FrozenTrial | None:
    """Return the complete trial with the best value, the lowest number among equals; None without one."""
    done = [t for t in trials if t.state.name == "COMPLETE" and t.value is not None]
    sign = 1.0 if direction == "minimize" else -1.0
    return min(done, key=lambda t: (sign * (t.value or 0.0), t.number), default=None)


def _alone(store: Store) -> bool:
    """Whether no other worker that lives still trains trials."""
    return not any(w["lives"] and w["run"] != store.me["run"] and w.get("trains", True) for w in store.workers())


def _saved(store: Store, path: Path, trial: int) -> Model | None:
    """Return the model of a trial as an earlier run left it here, None where it is not there or not whole."""
    if store.attrs().get("fmtune:model", {}).get("trial") != trial:
        return None
    with contextlib.suppress(ModelError):
        model = Model.load(path)
        # Where several machines run a study, an earlier winner's may lie here.
        return model if model.facts.get("trial") == trial else None
    return None


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


def _shown(path: Path) -> str:
    """Return a path as the user would write it: relative to the current folder where it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def ended(store: Store, patience: float = PATIENCE) -> int:
    """Return how many of a study's trials have ended."""
    return sum(trial.state.is_finished() for trial in store.trials(patience))


def utc() -> str:
    """Return the time as studies keep it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
