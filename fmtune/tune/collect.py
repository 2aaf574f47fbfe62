"""Collect: a stored study read into a :class:`~fmtune.tune.result.StudyResult`, on any machine that can open it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from fmtune.errors import StorageError
from fmtune.fm.metrics import METRICS
from fmtune.tune.channels import folder_of
from fmtune.tune.places import redacted
from fmtune.tune.result import CellResult, StudyResult, TrialResult
from fmtune.tune.spec import Spec
from fmtune.tune.storage import open_storage, sqlite_url
from fmtune.tune.store import Store


def collect(spec: Spec, root: Path | None = None) -> StudyResult:
    """Read what a study has come to.

    Raises
    ------
    StorageError
        There is no such study yet, or its database cannot be opened.
    """
    study, storage = _open(spec, root)
    try:
        return _result(spec.study_name, study, storage)
    finally:
        storage.engine.dispose()


def workers(spec: Spec, root: Path | None = None) -> list[dict[str, Any]]:
    """Return the processes that run a study, and those that died: who, ``trials`` held, ``age``, ``lives``."""
    study, storage = _open(spec, root)
    try:
        return _workers(spec, study, storage)
    finally:
        storage.engine.dispose()


def _workers(spec: Spec, study: optuna.Study, storage: RDBStorage) -> list[dict[str, Any]]:
    store = Store(storage, spec.study_name, METRICS[spec.metric].direction, grace=spec.grace)
    names = {study.study_name, *(f"{spec.study_name}/{cell.name}" for cell in spec.matrix.cells)}
    ids = [s._study_id for s in storage.get_all_studies() if s.study_name in names]
    running = [t for i in ids for t in storage.get_all_trials(i, deepcopy=False, states=(TrialState.RUNNING,))]
    held = [t.user_attrs.get("owner", {}).get("run") for t in running]
    return [{**worker, "trials": held.count(worker["run"])} for worker in store.workers()]


def _open(spec: Spec, root: Path | None) -> tuple[optuna.Study, RDBStorage]:
    url = spec.storage or sqlite_url(folder_of(spec.study_name, root))
    hint = f"`fmtune run {spec.path}` begins it"
    if spec.storage is None and not (folder_of(spec.study_name, root) / "study.db").exists():
        raise StorageError(f"there is no study {spec.study_name!r} yet", where=redacted(url), hint=hint)
    storage = open_storage(url)
    try:
        return optuna.load_study(study_name=spec.study_name, storage=storage), storage
    except KeyError as error:
        raise StorageError(f"there is no study {spec.study_name!r} yet", where=redacted(url), hint=hint) from error


def _result(study_name: str, study: optuna.Study, storage: RDBStorage) -> StudyResult:
    attrs = study.user_attrs
    cells = _cells(study_name, study, storage, attrs.get("fmtune:cells", []))
    text = {
        key: attrs.get(f"fmtune:{key}", "")
        for key in ("objective", "data", "spec_path", "spec_text", "sampler", "pruner")
    }
    return StudyResult(
        study_name=study_name, direction=attrs.get("fmtune:direction", "minimize"),
        n_trials=attrs.get("fmtune:n_trials", 0), cells=cells, search_space=attrs.get("fmtune:space", {}),
        fixed=attrs.get("fmtune:fixed", {}), channels=attrs.get("fmtune:channels", {}),
        holdout=attrs.get("fmtune:holdout"), selection=attrs.get("fmtune:selection"),
        confirmation=attrs.get("fmtune:confirmation"), baseline=attrs.get("fmtune:baseline"),
        constant=attrs.get("fmtune:constant"), calibration=attrs.get("fmtune:calibration"),
        explained=attrs.get("fmtune:explained"), importance=attrs.get("fmtune:importance") or {},
        environment=attrs.get("fmtune:environment", {}), seeds=attrs.get("fmtune:seeds", 1),
        started=attrs.get("fmtune:started"), finished=attrs.get("fmtune:finished"),
        model_path=attrs.get("fmtune:model", {}).get("path"), **text,
    )  # fmt: skip


def _cells(
    study_name: str, study: optuna.Study, storage: RDBStorage, facts: list[dict[str, Any]]
) -> tuple[CellResult, ...]:
    """Return the cells; the first that could run holds the search, and stands first."""
    found, searched = [], False
    names = {s.study_name for s in storage.get_all_studies()}
    for fact in facts:
        trials: tuple[TrialResult, ...] = ()
        own = f"{study_name}/{fact['device']}-{fact['layout']}"
        if fact.get("note") is None and not searched:
            searched, trials = True, tuple(_trial(t) for t in study.get_trials(deepcopy=False))
        elif own in names:
            replayed = optuna.load_study(study_name=own, storage=storage)
            trials = tuple(sorted((_trial(t) for t in replayed.get_trials(deepcopy=False)), key=lambda t: t.number))
        found.append(CellResult(
            fact["device"], fact["layout"], trials, fact.get("note"), fact.get("seconds"), fact.get("rows_per_s"),
            fact.get("peak_mb"),
        ))  # fmt: skip
    return tuple(sorted(found, key=lambda c: c.note is not None))


def _trial(t: FrozenTrial) -> TrialResult:
    a = t.user_attrs
    curve = tuple(t.intermediate_values[step] for step in sorted(t.intermediate_values))
    return TrialResult(
        t.number, t.state.name, dict(t.params), t.value, curve, a.get("best_epoch"), a.get("metrics", {}),
        a.get("seconds"), a.get("rows_per_s"), a.get("reason"), a.get("model_bytes"), a.get("attempts", 1),
    )  # fmt: skip
