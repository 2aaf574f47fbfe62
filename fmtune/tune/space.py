"""Space: the searched parameters for Optuna and for readers, and what of a study may not change when it resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fmtune.fm.hyperparameters import PARAMETERS
from fmtune.tune.dimension import Dimension
from fmtune.tune.spec import Spec

# May change when a study goes on: they decide how much is tried and where it is kept, not what a trial gets.
_FREE = ("n_trials", "timeout", "storage", "pack", "memory", "threads", "grace", "stall", "path", "text", "sweep")


def distributions(search_space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each searched parameter, in the file's order."""
    return {name: _distribution(dimension) for name, dimension in search_space.items()}


def misfit(values: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> str | None:
    """Return why no trial can have these values, None when one can."""
    for name, value in values.items():
        if name not in space:
            return f"enqueued with {name}, which is not searched"
        try:
            inside = space[name]._contains(space[name].to_internal_repr(value))
        except (TypeError, ValueError):
            inside = False
        if not inside:
            return f"enqueued with {name} {value!r}, which is not in its search space"
    return None


def describe(search_space: Mapping[str, Dimension]) -> dict[str, dict[str, Any]]:
    """Return each searched parameter as plain values: what is set of the dimension, its shorthand and meaning."""
    return {
        name: {**_set(dimension), "shorthand": str(dimension), "help": PARAMETERS[name].help}
        for name, dimension in search_space.items()
    }


def canonical(spec: Spec) -> dict[str, Any]:
    """Return what must stay as it is when a study resumes, as JSON keeps it.

    The budget (``n_trials``, ``timeout``), ``storage``, ``pack``, ``memory``, ``threads``, ``grace`` and ``stall`` may
    change.
    Paths are kept as written; that the data itself is the same is for digests to say.  Of a cluster only that is kept
    which a trial depends on.
    """
    made = {name: value for name, value in spec.model_dump(mode="json").items() if name not in _FREE}
    made["data"] = {key: value for key, value in made["data"].items() if value not in (None, {})}
    if made["groups"] is None:  # studies that were begun before there were groups go on
        del made["groups"]
    made["search_space"] = {name: _set(dimension) for name, dimension in spec.search_space.items()}
    if spec.cluster is None:
        del made["cluster"]
    else:  # where a trial is trained may change, what it gets may not
        made["cluster"] = {name: made["cluster"][name] for name in ("parts", "block", "exchange")}
    kept: dict[str, Any] = json.loads(json.dumps(made))
    return kept


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return each change between two :func:`canonical` values: ``search_space.num_factors.high: 32 -> 64``."""
    return list(_changes("", dict(old), dict(new)))


def _changes(at: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{at}.{key}" if at else key
            if key not in new:
                yield f"{place}: {_short(old[key])} -> not given"
            elif key not in old:
                yield f"{place}: not given -> {_short(new[key])}"
            else:
                yield from _changes(place, old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, pair in enumerate(zip(old, new, strict=True)):
            yield from _changes(f"{at}[{i}]", *pair)
    elif old != new or type(old) is not type(new):
        yield f"{at}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."


def _set(dimension: Dimension) -> dict[str, Any]:
    """Return a dimension's fields that are set."""
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(dimension).items()}
    return {key: value for key, value in fields.items() if value is not None and (key != "log" or value)}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices is not None:
        return CategoricalDistribution(dimension.choices)
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None
    assert high is not None
    if dimension.type == "int":
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))
    return FloatDistribution(float(low), float(high), log=dimension.log, step=step)
