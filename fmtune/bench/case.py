"""Case: what is measured, read from a suite file (``studies/bench/*.yaml``).

A suite is ``{suite: name, cases: [...]}``; a case names its kind and the fields that the kind reads::

    - name: fit-clicks-sparse-8
      kind: fit
      data: {card: planted-clicks, rows: 50000}
      hyperparameters: {num_factors: 8}
      lanes: 8
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from fmtune.bench.kinds.startup import COMMANDS
from fmtune.data.catalog import check_keys, find
from fmtune.errors import FmtuneError, StudyFileError, UsageError
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.tune import yamlfile

KINDS = ("fit", "predict", "parse", "study", "startup")
DEVICES = ("cpu",)
LAYOUTS = ("sparse", "dense")
_SUFFIXES = (".yaml", ".yml")

# Which ceiling moves like the case does, on another machine.
_LIKE = {"fit": "gather", "predict": "gather", "parse": "copy", "study": "fma", "startup": "gather"}


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes
    ----------
    name : str
        Unique in its suite, and the same in every version that is to be compared.
    kind : str
        One of ``KINDS``.
    data : dict
        A dataset card and its keys.
    hyperparameters : dict
        As in a study file.
    device, layout : str
        The backend.
    lanes : int
        Models trained side by side.
    inner : int
        How often a sample does its work; chosen so that a sample takes about a tenth of a second.
    seeds, epochs : int
        Of the fits that state the quality.
    command : str
        Of kind startup: one of ``kinds.startup.COMMANDS``.
    study : dict
        Of kind study: a study file's content; paths of data begin where ``fmtune bench`` is run.
    peers : dict
        Of kind study: hyperparameters that peers take in place of the study's, as the epochs of their own schedule.
    calibrate : str
        The ceiling (copy, gather, fma) that the case is divided by on another machine.
    """

    name: str
    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    layout: str = "sparse"
    lanes: int = 1
    inner: int = 1
    seeds: int = 3
    epochs: int = 3
    command: str = "help"
    study: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, Any] = field(default_factory=dict)
    calibrate: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the case as plain values, as workers and result files have it."""
        return asdict(self)


class Suite(NamedTuple):
    """A suite: its own name, and its cases."""

    name: str
    cases: tuple[Case, ...]


def folder() -> Path:
    """Return the folder of the suites: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "_share" / "studies" / "bench"
    return inside if inside.is_dir() else package.parent / "studies" / "bench"


def suite_name(suite: str | Path) -> str:
    """Return the name that a suite goes by unless its file gives another: that of the file, without the folder."""
    path = Path(suite)
    return path.stem if path.suffix in _SUFFIXES else str(suite)


def read(suite: str | Path) -> Suite:
    """Return a suite: ``quick``, ``full``, or a file.

    Raises
    ------
    UsageError
        There is no such suite.
    StudyFileError
        A case has an unknown field or a wrong value, with its line.
    """
    path = Path(suite)
    if path.suffix not in _SUFFIXES:
        known = sorted(p.stem for p in folder().glob("*.yaml"))
        if str(suite) not in known:
            raise UsageError(f"unknown suite {str(suite)!r}", hint=f"the suites are {', '.join(known)}; or name a file")
        path = folder() / f"{suite}.yaml"
    document = yamlfile.read(path)
    if document.faults:
        raise document.faults[0]
    items = document.value.get("cases") if isinstance(document.value, dict) else None
    if not isinstance(items, list) or not items:
        raise document.fault(("cases",), "a suite needs a list of cases", "write cases: [...]")
    cases: list[Case] = []
    for i, item in enumerate(items):
        cases.append(_case(document, ("cases", i), item))
        if cases[-1].name in {case.name for case in cases[:-1]}:
            raise document.fault(("cases", i, "name"), f"a second case is called {cases[-1].name!r}")
    name = document.value.get("suite", suite_name(path))
    if wanted := _word(name):
        raise document.fault(("suite",), f"suite must be {wanted}, not {name!r}")
    return Suite(name, tuple(cases))


def choose(cases: tuple[Case, ...], names: tuple[str, ...]) -> tuple[Case, ...]:
    """Return the cases of these names, all without any; raise UsageError for a name that there is not."""
    known = [case.name for case in cases]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            guess = f" (did you mean {near[0]!r}?)" if near else ""
            raise UsageError(f"unknown case {name!r}{guess}", hint=f"the cases are {', '.join(known)}")
    return tuple(case for case in cases if not names or case.name in names)


def _case(document: yamlfile.Document, at: tuple[str | int, ...], item: Any) -> Case:
    if not isinstance(item, dict):
        raise document.fault(at, "a case is a mapping")
    known = {f.name: f for f in fields(Case)}
    for name in item:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(known)}"
            raise document.fault((*at, name), f"unknown field {name!r}", hint, key=True)
    for name in ("name", "kind"):
        if name not in item:
            raise document.fault(at, f"the case has no {name}")
    for name, check in _CHECKS.items():
        if name in item and (wanted := check(item[name])):
            raise document.fault((*at, name), f"{name} must be {wanted}, not {item[name]!r}")
    try:
        _check_content(item)
    except StudyFileError:
        raise
    except FmtuneError as error:
        raise document.fault(at, f"case {item['name']}: {error.what}", error.hint) from error
    return Case(**{"calibrate": _like(item), **item})


def _like(item: Mapping[str, Any]) -> str:
    return "fma" if item.get("layout") == "dense" else _LIKE[item["kind"]]


def _check_content(item: Mapping[str, Any]) -> None:
    Hyperparameters.of(item.get("hyperparameters", {}))
    Hyperparameters.of(item.get("peers", {}))
    if item["kind"] in ("fit", "predict", "parse"):
        keys = dict(item.get("data", {}))
        check_keys(find(str(keys.pop("card", ""))), keys)
    if item["kind"] == "study" and not item.get("study"):
        raise UsageError("a study case needs the content of a study file", hint="study: {data: ..., n_trials: ...}")


def _among(words: tuple[str, ...]) -> Any:
    return lambda value: "" if value in words else f"one of {', '.join(words)}"


def _whole(least: int) -> Any:
    return lambda value: "" if type(value) is int and value >= least else f"a whole number of at least {least}"


def _mapping(value: Any) -> str:
    return "" if isinstance(value, dict) else "a mapping"


def _word(value: Any) -> str:
    fine = isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable()
    return "" if fine else "a name of at most 100 characters"


_CHECKS = {
    "name": _word, "kind": _among(KINDS), "data": _mapping, "hyperparameters": _mapping, "study": _mapping,
    "peers": _mapping, "device": _among(DEVICES), "layout": _among(LAYOUTS), "lanes": _whole(1), "inner": _whole(1),
    "seeds": _whole(1), "epochs": _whole(1), "command": _among(tuple(COMMANDS)),
    "calibrate": _among(("copy", "gather", "fma")),
}  # fmt: skip
