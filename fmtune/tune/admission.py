"""Admission: what a study is, stored with its first trial; a file that says something else is refused ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fmtune import __version__
from fmtune.errors import StorageError
from fmtune.tune import environment
from fmtune.tune.channels import StudyData
from fmtune.tune.places import redacted
from fmtune.tune.space import canonical, describe, difference
from fmtune.tune.spec import Cell, Spec
from fmtune.tune.store import Store
from fmtune.tune.winner import utc


def admit(store: Store, spec: Spec, data: StudyData, absent: Mapping[Cell, str | None]) -> tuple[int, int]:
    """Store what the study is, or refuse to go on with another one; returns lanes and lag.

    Parameters
    ----------
    absent
        Why each cell cannot run, None where it can.

    Raises
    ------
    StorageError
        The study was begun with another setting or with other data, or others run it with other versions.
    """
    others = [w for w in store.workers() if w["lives"]]

    def decide(attrs: dict[str, Any]) -> dict[str, Any]:
        refuse_another(attrs, spec, data)
        _same_build(spec, others)
        lanes, lag = lanes_of(spec, attrs.get("fmtune:lag"))
        beside = {"fmtune:digests": _digests(data), "fmtune:lanes": lanes, "fmtune:lag": lag}
        return {**_facts(attrs, spec, data, absent), **beside}

    before = store.change(decide)
    store.name_metric(spec.objective)
    return lanes_of(spec, before.get("fmtune:lag"))


def refuse_another(attrs: Mapping[str, Any], spec: Spec, data: StudyData) -> None:
    """Refuse to go on with a study that was begun as another one; ``attrs`` is what is stored with it.

    Raises
    ------
    StorageError
        It was begun with another setting (exit code 2) or with other data (3).
    """
    if "fmtune:canonical" not in attrs:
        return
    changed = difference(attrs["fmtune:canonical"], canonical(spec))
    if changed:
        raise _another(spec, "\n  ".join(changed), 2)
    old, new = attrs["fmtune:digests"], _digests(data)
    moved = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    if moved:
        raise _another(spec, f"the data of {', '.join(moved)} changed since its first trial", 3)


def _digests(data: StudyData) -> dict[str, str]:
    return {name: stats["digest"] for name, stats in data.stats.items()}


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


def _facts(
    attrs: Mapping[str, Any], spec: Spec, data: StudyData, absent: Mapping[Cell, str | None]
) -> dict[str, Any]:  # fmt: skip
    """Return what is stored with the study."""
    return {
        "fmtune:version": __version__, "fmtune:canonical": canonical(spec),
        "fmtune:channels": data.stats, "fmtune:data": data.description, "fmtune:facts": data.facts,
        "fmtune:objective": spec.objective, "fmtune:direction": spec.direction, "fmtune:n_trials": spec.n_trials,
        "fmtune:seeds": spec.seeds,
        "fmtune:space": describe(spec.search_space), "fmtune:fixed": spec.fixed,
        "fmtune:sampler": spec.sampler.name, "fmtune:pruner": spec.pruner.name,
        "fmtune:spec_path": str(spec.path), "fmtune:spec_text": redacted(spec.text),
        "fmtune:environment": environment.describe(),
        "fmtune:started": attrs.get("fmtune:started", utc()),
        "fmtune:cells": attrs.get("fmtune:cells") or [
            {"device": c.device, "layout": c.layout, "note": None, "absent": why} for c, why in absent.items()
        ],
    }  # fmt: skip


def _another(spec: Spec, difference: str, code: int) -> StorageError:
    error = StorageError(
        f"study {spec.study_name!r} was begun with another setting:\n  {difference}", where=str(spec.path),
        hint="give it a new study_name, or start anew with `fmtune run --fresh`; its finished trials are kept",
    )  # fmt: skip
    error.exit_code = code
    return error


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
