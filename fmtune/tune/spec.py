"""Spec: a study file, typed and checked; whatever is wrong is said all at once, each fault at its place.

The file's shape stands in ``fmtune.tune.studyfile``, what its values must be to each other in
``fmtune.tune.checks``; a file that passes both is a ``Spec``, which the rest of the suite reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from fmtune.data import catalog
from fmtune.data.canonical import warn
from fmtune.errors import UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Value, cpu_only
from fmtune.fm.metrics import METRICS
from fmtune.tune import checks, effect, yamlfile
from fmtune.tune import schema as schemas
from fmtune.tune.algorithms import PRUNERS, SAMPLERS
from fmtune.tune.amount import amount
from fmtune.tune.dimension import Dimension
from fmtune.tune.places import Wrong, combined, shown
from fmtune.tune.studyfile import Cell, Cluster, Matrix, Model, StudyFile, worded
from fmtune.tune.yamlfile import Document

DRAFT = "https://json-schema.org/draft/2020-12/schema"
__all__ = ["Cell", "DataSpec", "Dimension", "Matrix", "PrunerSpec", "SamplerSpec", "Spec", "parse", "read", "schema"]


class DataSpec(Model):
    """The data: a dataset card with its keys, or paths by channel as the file has them.

    ``paths`` gives a channel's paths from the study file's own folder.  ``columns`` and ``split`` are there where
    ``train`` is a table, for ``fmtune.data.columns.Columns`` and ``fmtune.data.split.Split``.
    """

    card: str | None = None
    keys: dict[str, Any] = Field(default_factory=dict)
    train: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None
    holdout: tuple[str, ...] | None = None
    feature_dim: int | None = None
    columns: dict[str, Any] = Field(default_factory=dict)
    split: dict[str, Any] = Field(default_factory=dict)

    def paths(self, channel: str, study: Path) -> tuple[Path, ...] | None:
        """Return a channel's paths, relative ones taken from the study file's folder; None where it is not given."""
        given = {"train": self.train, "test": self.test, "holdout": self.holdout}[channel]
        return None if given is None else tuple(study.parent / Path(path).expanduser() for path in given)


class SamplerSpec(Model):
    """A sampler of ``SAMPLERS`` and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class PrunerSpec(Model):
    """A pruner of ``PRUNERS`` and its options; a wrapped pruner is a mapping with ``name``."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class Spec(Model):
    """A study file that has passed every check.

    ``hyperparameters`` holds the fixed values and ``predictor_type``; ``timeout`` is in seconds, ``memory`` in bytes;
    ``path`` and ``text`` are the file's.  ``text`` and ``storage`` may hold a password and are left out of ``repr``.
    """

    study_name: str
    data: DataSpec
    objective: str
    hyperparameters: dict[str, Value]
    search_space: dict[str, Dimension]
    sampler: SamplerSpec
    pruner: PrunerSpec
    n_trials: int
    timeout: float | None
    storage: str | None = Field(repr=False)
    matrix: Matrix
    cluster: Cluster | None
    sweep: dict[str, tuple[Value, ...]]
    enqueue: tuple[dict[str, Value], ...]
    seeds: int
    seed: int
    lag: int | None
    pack: int | Literal["auto"]
    memory: int | None
    threads: int | None
    groups: dict[str, Any] | list[int] | None
    grace: float
    stall: float | None
    path: Path
    text: str = Field(repr=False)

    def within(self, memory: str | int) -> Spec:
        """Return the study with another ``memory``, given as a study file has it.

        Raises
        ------
        UsageError
            It is no amount, or a cluster trains the study.
        """
        if self.cluster is not None:
            raise UsageError(checks.UNPACKED, hint="leave memory out")
        return self.model_copy(update={"memory": amount(memory)})

    def members(self) -> tuple[Spec, ...]:
        """Return the studies of a sweep, one for each combination of values; without a sweep, this study alone."""
        found = []
        for values in itertools.product(*self.sweep.values()):
            keys = dict(zip(self.sweep, values, strict=True))
            name = ".".join([self.study_name, *(f"{key}-{value}" for key, value in keys.items())])
            data = self.data.model_copy(update={"keys": {**self.data.keys, **keys}})
            found.append(self.model_copy(update={"study_name": name, "data": data, "sweep": {}}))
        return tuple(found) if self.sweep else (self,)

    @property
    def solvers(self) -> tuple[str, ...]:
        """The solvers that its trials may take."""
        return tuple(map(str, self.choices("solver")))

    def choices(self, name: str) -> tuple[Value, ...]:
        """The values that its trials may take of a hyperparameter that is searched by choices, or fixed."""
        searched = self.search_space.get(name)
        if searched is not None and searched.choices:
            return searched.choices
        return (self.hyperparameters.get(name, PARAMETERS[name].default),)

    @property
    def fixed(self) -> dict[str, Value]:
        """The hyperparameters that all its trials have in common, the study's seed among them."""
        return {**self.hyperparameters, "predictor_type": self.predictor_type, "seed": self.seed}

    @property
    def cpu_only(self) -> tuple[str, ...]:
        """What its trials may take and no card does, in words."""
        searched = self.search_space.get("optimizer")
        one = str(self.hyperparameters.get("optimizer", PARAMETERS["optimizer"].default))
        return cpu_only(self.solvers, (one,) if searched is None else map(str, searched.choices or ()))

    @property
    def metric(self) -> str:
        """The objective without ``test:``, a name of ``METRICS``."""
        return self.objective.removeprefix("test:")

    @property
    def direction(self) -> str:
        """``minimize`` or ``maximize``."""
        return METRICS[self.metric].direction

    @property
    def predictor_type(self) -> str:
        """``regressor`` or ``binary_classifier``, as the objective implies."""
        return METRICS[self.metric].predictor_type


def read(path: str | Path) -> Spec:
    """Return the study of a file.

    Raises
    ------
    StudyFileError
        The file cannot be read, or is not a sound study; ``faults`` holds every fault found.
    """
    return _checked(yamlfile.read(Path(path)), Path(path))


def parse(text: str, path: str | Path = "study.yaml") -> Spec:
    """Return the study of a text; ``path`` is what messages call it, and where relative paths start.

    Raises
    ------
    StudyFileError
        The text is not a sound study; ``faults`` holds every fault found.
    """
    return _checked(yamlfile.load(text, str(path)), Path(path))


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a study file."""
    made = StudyFile.model_json_schema(mode="validation")
    made["properties"]["data"].update(schemas.data(catalog.cards()))
    return {"$schema": DRAFT, **made, "title": "fmtune study"}


_PLACEHOLDERS: dict[str, Any] = {
    "study_name": "x", "data": None, "objective": "test:rmse", "search_space": {},
}  # fmt: skip


def _checked(document: Document, path: Path) -> Spec:
    raw = document.value
    if not isinstance(raw, dict):
        what = "the file is empty" if raw is None else f"a study is a mapping of keys, not {shown(raw)}"
        raise document.fault((), what, f"it needs {', '.join(_PLACEHOLDERS)}")
    shape, bad, wrong = _shape(raw)
    values, more = _relations(shape, bad, document)
    faults = [document.fault(w.at, w.what, w.hint, key=w.key) for w in (*wrong, *more)]
    faults.extend(document.faults)
    if faults:
        raise combined(faults)
    return Spec(**{**dict(shape), **values, "path": path, "text": document.text})


def _shape(raw: dict[str, Any]) -> tuple[StudyFile, set[str], list[Wrong]]:
    """Return the file's values by shape, the keys that have none, and why; those hold a placeholder."""
    try:
        return StudyFile.model_validate(raw), set(), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    bad = {str(detail["loc"][0]) for detail in details}
    kept = {key: value for key, value in raw.items() if key not in bad}
    holders = {key: value for key, value in _PLACEHOLDERS.items() if key in bad}
    return StudyFile.model_validate({**holders, **kept}), bad, [worded(detail) for detail in details]


def _relations(shape: StudyFile, bad: set[str], document: Document) -> tuple[dict[str, Any], list[Wrong]]:
    """Return what the checks make of the values, and all that they find."""
    wrong: list[Wrong] = []

    def note(key: str, faults: Iterable[Wrong]) -> None:
        wrong.extend(fault.under(key) for fault in faults if key not in bad)

    keys = tuple(StudyFile.model_fields)
    fixed, faults = checks.hyperparameters(shape.hyperparameters, keys)
    note("hyperparameters", faults)
    if "objective" not in bad:
        implied, disagreement = checks.predictor_type(shape.objective, fixed)
        fixed["predictor_type"] = implied
        wrong += disagreement
    space, faults = checks.search_space(shape.search_space, shape.hyperparameters, keys)
    note("search_space", faults)
    if not {"objective", "hyperparameters"} & bad:
        unsound = (shape.hyperparameters.keys() | shape.search_space.keys()) - fixed.keys() - space.keys()
        for said in effect.told(space, fixed, unsound):
            warn(said)
    queue, faults = checks.enqueue(shape.enqueue, space, shape.search_space, shape.hyperparameters)
    note("enqueue", faults if "search_space" not in bad else ())
    if "n_trials" not in bad:
        note("enqueue", checks.queued(len(shape.enqueue), shape.n_trials))
    sampler, sampler_options, faults = checks.algorithm(shape.sampler, SAMPLERS, "sampler")
    note("sampler", faults)
    pruner, pruner_options, faults = checks.algorithm(shape.pruner, PRUNERS, "pruner")
    note("pruner", faults)
    if not {"n_trials", "search_space", "enqueue"} & bad and len(space) == len(shape.search_space):
        wrong += checks.exhaustive(sampler, space, shape.n_trials, len(queue))
    if not {"cluster", "matrix", "pack", "groups", "memory"} & bad and shape.cluster is not None:
        sort = checks.Sort(shape.matrix.cells, shape.pack, shape.groups is not None, shape.memory is not None)
        wrong += checks.cluster(sort, fixed, space)
    data, faults = _data(shape.data)
    note("data", faults)
    if not {"data", "sweep"} & bad and not faults:
        wrong += checks.sweep(shape.sweep, data.card, data.keys, catalog.cards())
    return {
        "hyperparameters": fixed, "search_space": space, "enqueue": queue, "data": data,
        "sweep": {key: tuple(entries) for key, entries in shape.sweep.items()},
        "sampler": SamplerSpec(name=sampler, options=sampler_options),
        "pruner": PrunerSpec(name=pruner, options=pruner_options),
    }, wrong  # fmt: skip


def _data(raw: Any) -> tuple[DataSpec, list[Wrong]]:
    entry = {"card": raw} if isinstance(raw, str) else raw
    if not isinstance(entry, dict):
        hint = "write data: digits, or train: PATH and test: PATH below it"
        return DataSpec(), [Wrong((), f"data must be a card or channels, not {shown(raw)}", hint)]
    if "card" in entry:
        cards = catalog.cards()
        faults = checks.card(entry, cards)
        if isinstance(raw, str):
            faults = [fault._replace(at=()) for fault in faults]
        return DataSpec(card=str(entry["card"]), keys={k: v for k, v in entry.items() if k != "card"}), faults
    columns, split, faults = checks.tables(entry)
    faults = [*checks.channels(entry), *faults]
    if faults:
        return DataSpec(), faults
    files = {k: v for k, v in entry.items() if k in ("train", *checks.SHARED) and k not in split and v}
    paths = {k: (v,) if isinstance(v, str) else tuple(v) for k, v in files.items()}
    made = {**paths, "feature_dim": entry.get("feature_dim"), "columns": columns, "split": split}
    return DataSpec.model_validate(made), []
