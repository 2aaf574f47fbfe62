"""Collect: a stored study read into a :class:`~fmtune.tune.result.StudyResult`, on any machine that can open it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from fmtune.errors import StorageError
from fmtune.fm.fit import best_epoch
from fmtune.fm.metrics import METRICS
from fmtune.tune.folder import folder_of
from fmtune.tune.places import command, redacted
from fmtune.tune.result import CellResult, StudyResult, TrialResult
from fmtune.tune.space import canonical, difference
from fmtune.tune.spec import Spec
from fmtune.tune.storage import open_to_read, sqlite_url
from fmtune.tune.store import Store

_TRIALS = models.TrialModel.__table__
_VALUES = models.TrialValueModel.__table__


def collect(spec: Spec, root: Path | None = None) -> StudyResult:
    """Read what a study has come to; a warning says where the file is no longer what it was begun with.

    Raises
    ------
    StorageError
        There is no such study yet, or its database cannot be opened.
    """
    study, storage = _open(spec, root)
    _compare(spec, study.user_attrs)
    try:
        return _result(spec.study_name, study, storage)
    finally:
        storage.engine.dispose()


def named(study_name: str, root: Path | None = None) -> StudyResult | None:
    """Read what a study of that name has come to in ``runs/`` below ``root``; None where there is none."""
    folder = folder_of(study_name, root)
    if not (folder / "study.db").exists():
        return None
    storage = open_to_read(sqlite_url(folder))
    try:
        return _result(study_name, optuna.load_study(study_name=study_name, storage=storage), storage)
    except KeyError:
        return None
    finally:
        storage.engine.dispose()


class Standing(NamedTuple):
    """How far a study is, counted in the database, however many trials it has.

    ``n_trials`` is the file's.  ``cells`` are names, notes and how many trials are in which state; ``workers`` the
    processes that run it, and those that died: who, ``trials`` held, ``age``, ``lives``.  ``storage`` is where it was
    looked for, without a password.
    """

    study_name: str
    objective: str
    n_trials: int
    cells: tuple[tuple[str, str | None, dict[str, int]], ...]
    best: TrialResult | None
    holdout: dict[str, Any] | None
    model_path: str | None
    workers: list[dict[str, Any]]
    storage: str


def standing(spec: Spec, root: Path | None = None) -> Standing:
    """Return how far a study is; errors and warning as in :func:`collect`."""
    study, storage = _open(spec, root)
    _compare(spec, study.user_attrs)
    try:
        attrs = study.user_attrs
        found: list[tuple[str, str | None, dict[str, int]]] = []
        best: TrialResult | None = None
        for fact, name in _stored(spec.study_name, storage, attrs.get("fmtune:cells", [])):
            id_ = None if name is None else storage.get_study_id_from_name(name)
            found.append((f"{fact['device']}-{fact['layout']}", fact.get("note"), _counted(storage, id_)))
            if id_ is not None and best is None:
                best = _best(storage, id_, _direction(attrs))
        return Standing(
            spec.study_name, attrs.get("fmtune:objective", ""), spec.n_trials,
            tuple(sorted(found, key=lambda cell: cell[1] is not None)), best, attrs.get("fmtune:holdout"),
            attrs.get("fmtune:model", {}).get("path"), _workers(spec, study, storage), redacted(_url(spec, root)),
        )  # fmt: skip
    finally:
        storage.engine.dispose()


def _compare(spec: Spec, attrs: Mapping[str, Any]) -> None:
    """Warn where the file says something else than the study was begun with: what is read is the old one."""
    changed = difference(attrs["fmtune:canonical"], canonical(spec)) if "fmtune:canonical" in attrs else []
    if changed:
        more = f"; and {len(changed) - 3} changes more" if len(changed) > 3 else ""
        warnings.warn(
            f"{spec.path}: study {spec.study_name!r} is shown as it was begun, and the file says otherwise: "
            f"{'; '.join(changed[:3])}{more}; `fmtune run` refuses it: put that back, give it a new "
            "study_name, or start anew with --fresh",
            stacklevel=3,
        )  # fmt: skip


def _counted(storage: RDBStorage, study_id: int | None) -> dict[str, int]:
    states = sa.select(_TRIALS.c.state, sa.func.count()).where(_TRIALS.c.study_id == study_id)
    with storage.engine.connect() as c:
        return {state.name: count for state, count in c.execute(states.group_by(_TRIALS.c.state))}


def _best(storage: RDBStorage, study_id: int, direction: str) -> TrialResult | None:
    """Return the COMPLETE trial with the best value, the lowest number among equals."""
    value = _VALUES.c.value if direction == "minimize" else _VALUES.c.value.desc()
    first = (
        sa.select(_TRIALS.c.trial_id)
        .join(_VALUES, _VALUES.c.trial_id == _TRIALS.c.trial_id)
        .where(_TRIALS.c.study_id == study_id, _TRIALS.c.state == TrialState.COMPLETE)
        .order_by(value, _TRIALS.c.number)
        .limit(1)
    )
    with storage.engine.connect() as c:
        trial_id = c.scalar(first)
    return None if trial_id is None else _trial(storage.get_trial(trial_id), direction)


def _workers(spec: Spec, study: optuna.Study, storage: RDBStorage) -> list[dict[str, Any]]:
    store = Store(storage, spec.study_name, METRICS[spec.metric].direction, grace=spec.grace)
    names = {study.study_name, *(f"{spec.study_name}/{cell.name}" for cell in spec.matrix.cells)}
    ids = [s._study_id for s in storage.get_all_studies() if s.study_name in names]
    running = [t for i in ids for t in storage.get_all_trials(i, deepcopy=False, states=(TrialState.RUNNING,))]
    held = [t.user_attrs.get("owner", {}).get("run") for t in running]
    return [{**worker, "trials": held.count(worker["run"])} for worker in store.workers()]


def _url(spec: Spec, root: Path | None) -> str:
    return spec.storage or sqlite_url(folder_of(spec.study_name, root))


def _open(spec: Spec, root: Path | None) -> tuple[optuna.Study, RDBStorage]:
    url = _url(spec, root)
    hint = f"`{command('run', spec.path)}` begins it"
    if spec.storage is None and not (folder_of(spec.study_name, root) / "study.db").exists():
        beside = spec.path.resolve().parent
        if (folder_of(spec.study_name, beside) / "study.db").exists():
            hint = f"one lies in {beside}/runs: run the same command in {beside}"
        raise StorageError(f"there is no study {spec.study_name!r} yet", where=redacted(url), hint=hint)
    storage = open_to_read(url)
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
        study_name=study_name, direction=_direction(attrs),
        n_trials=attrs.get("fmtune:n_trials", 0), cells=cells, search_space=attrs.get("fmtune:space", {}),
        fixed=attrs.get("fmtune:fixed", {}), channels=attrs.get("fmtune:channels", {}),
        holdout=attrs.get("fmtune:holdout"), selection=attrs.get("fmtune:selection"),
        confirmation=attrs.get("fmtune:confirmation"), baseline=attrs.get("fmtune:baseline"),
        constant=attrs.get("fmtune:constant"), calibration=attrs.get("fmtune:calibration"),
        explained=attrs.get("fmtune:explained"), importance=attrs.get("fmtune:importance") or {},
        clear=attrs.get("fmtune:clear"),
        environment=attrs.get("fmtune:environment", {}), seeds=attrs.get("fmtune:seeds", 1),
        started=attrs.get("fmtune:started"), finished=attrs.get("fmtune:finished"),
        model_path=attrs.get("fmtune:model", {}).get("path"), **text,
    )  # fmt: skip


def _cells(
    study_name: str, study: optuna.Study, storage: RDBStorage, facts: list[dict[str, Any]]
) -> tuple[CellResult, ...]:
    """Return the cells; the first that could run holds the search, and stands first."""
    found = []
    for fact, name in _stored(study_name, storage, facts):
        trials: tuple[TrialResult, ...] = ()
        if name is not None:
            own = study if name == study_name else optuna.load_study(study_name=name, storage=storage)
            read = (_trial(t, _direction(study.user_attrs)) for t in own.get_trials(deepcopy=False))
            trials = tuple(sorted(read, key=lambda t: t.number))
        found.append(CellResult(
            fact["device"], fact["layout"], trials, fact.get("note"), fact.get("seconds"), fact.get("rows_per_s"),
            fact.get("peak_mb"),
        ))  # fmt: skip
    return tuple(sorted(found, key=lambda c: c.note is not None))


def _stored(
    study_name: str, storage: RDBStorage, facts: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield each cell's facts with the name of the study that holds its trials, None where it has none."""
    names, searched = {s.study_name for s in storage.get_all_studies()}, False
    for fact in facts:
        own = f"{study_name}/{fact['device']}-{fact['layout']}"
        if fact.get("note") is None and not searched:
            searched = True
            yield fact, study_name
        else:
            yield fact, own if own in names else None


def _direction(attrs: Mapping[str, Any]) -> str:
    return str(attrs.get("fmtune:direction", "minimize"))


def _trial(t: FrozenTrial, direction: str) -> TrialResult:
    a = t.user_attrs
    curve = tuple(t.intermediate_values[step] for step in sorted(t.intermediate_values))
    return TrialResult(
        t.number, t.state.name, dict(t.params), t.value, curve, best_epoch(curve, direction) or None,
        a.get("metrics", {}), a.get("seconds"), a.get("rows_per_s"), a.get("reason"), a.get("model_bytes"),
        a.get("attempts", 1),
    )  # fmt: skip
