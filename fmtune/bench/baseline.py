"""Baseline: a result that was accepted, kept in ``reports/``, and the history of all that ever were."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from fmtune.bench.case import suite_name
from fmtune.errors import DataError
from fmtune.files import atomic_write

HISTORY = "history.jsonl"


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Sample(_Open):
    """One sample: seconds on both clocks, and whose."""

    round: int
    block: int
    cpu: float
    wall: float


class CaseEntry(_Open):
    """One case of a result."""

    name: str
    kind: str
    case: dict[str, Any]
    error: str | None
    samples: list[Sample]
    companions: dict[str, Any]
    calibration: dict[str, float]


class Machine(_Open):
    """What a result was measured on."""

    fingerprint: str
    processor: str
    cores: str


class Result(_Open):
    """A result object; other fields may stand beside these."""

    schema_: Literal["fmtune.bench/1"]
    suite: str
    date: str
    commit: str | None
    machine: Machine
    cases: list[CaseEntry]

    model_config = ConfigDict(extra="allow", title="fmtune.bench/1", alias_generator=lambda name: name.rstrip("_"))


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a result."""
    return Result.model_json_schema()


def read(path: Path) -> dict[str, Any]:
    """Return a result that was written to a file.

    Raises
    ------
    DataError
        There is none, or it is not a result of this schema.
    """
    try:
        content = json.loads(path.read_bytes())
        Result.model_validate(content)
    except FileNotFoundError:
        hint = f"make one: fmtune bench --accept --check {path}"
        raise DataError("there is no such baseline", where=str(path), hint=hint) from None
    except ValidationError as error:
        first = error.errors()[0]
        what = f"not a result of fmtune.bench/1: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(what, where=str(path), hint="accept a new baseline") from None
    except (ValueError, OSError) as error:
        raise DataError(f"cannot be read as JSON: {error}", where=str(path)) from None
    return dict(content)


def accept(result: Mapping[str, Any], path: Path) -> None:
    """Make a result the baseline, and add a line to the history beside it.

    The history is only ever appended to; a line that a crash has cut short is ended before the next.
    """
    atomic_write(path, (json.dumps(result, indent=1) + "\n").encode())
    line = json.dumps({
        "date": result["date"], "commit": result["commit"], "suite": result["suite"],
        "fingerprint": result["machine"]["fingerprint"], "version": result["machine"].get("fmtune"),
        "cases": {entry["name"]: _point(entry) for entry in result["cases"] if entry["error"] is None},
    })  # fmt: skip
    place = path.parent / HISTORY
    torn = place.exists() and place.stat().st_size > 0 and not place.read_bytes().endswith(b"\n")
    with place.open("a") as stream:
        stream.write("\n" * torn + line + "\n")


def _point(entry: Mapping[str, Any]) -> dict[str, Any]:
    cpu = statistics.median(sample["cpu"] for sample in entry["samples"])
    losses = entry["companions"].get("loss")
    return {"cpu": cpu, "loss": sum(losses) / len(losses) if losses else None}


def history(folder: Path) -> list[dict[str, Any]]:
    """Return the accepted results of a folder, oldest first; lines that are cut short are left out."""
    place = folder / HISTORY
    found = []
    for line in place.read_text().splitlines() if place.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def of_suite(lines: Sequence[Mapping[str, Any]], suite: str) -> list[Mapping[str, Any]]:
    """Return the lines of one suite; lines from before a suite's own name was kept have its file's path."""
    return [line for line in lines if suite in (line["suite"], suite_name(line["suite"]))]


@dataclass(frozen=True)
class Course:
    """A case over the history: ``values`` are CPU seconds on the first machine's scale.

    ``moves`` are the indices at which the machine is another one than before: nothing is known of what changed there,
    and the first time on a machine stands at the level before it.
    """

    dates: list[str]
    values: list[float]
    moves: list[int]


def series(lines: Sequence[Mapping[str, Any]], name: str) -> Course:
    """Return a case's CPU times over the history, as measured where machines are the same, by their fingerprint."""
    found = Course([], [], [])
    scales: dict[str | None, float] = {}
    last: str | None = None
    for line in lines:
        seconds, machine = line["cases"].get(name, {}).get("cpu"), line.get("fingerprint")
        if not seconds:
            continue
        if found.values and machine != last:
            found.moves.append(len(found.values))
        scale = scales.setdefault(machine, found.values[-1] / seconds if found.values else 1.0)
        found.dates.append(line["date"])
        found.values.append(seconds * scale)
        last = machine
    return found


@dataclass(frozen=True)
class Step:
    """A lasting change: the first value after it, and the ratio of the levels, after over before."""

    index: int
    ratio: float


def steps(values: Sequence[float], *, least: float = 0.03, apart: float = 5.0, segment: int = 3) -> list[Step]:
    """Return where a series of positive values steps up or down for good.

    Parameters
    ----------
    values
        In order of time.
    least
        Smallest change of level that counts, as a share.
    apart
        How many standard errors the two levels must differ by.
    segment
        Fewest values on either side.

    Notes
    -----
    Binary segmentation on the logs: the split with the largest t, if it is large enough, then both halves.  The noise
    is the median absolute difference of neighbours, which a step does not move.
    """
    logs = np.log(np.asarray(values, np.float64))
    if len(logs) < 2 * segment:
        return []
    noise = max(1.4826 * float(np.median(np.abs(np.diff(logs)))) / math.sqrt(2), 1e-4)
    cuts = sorted(_cuts(logs, 0, noise, apart, math.log1p(least), segment))
    edges = [0, *cuts, len(logs)]
    levels = [float(np.median(logs[a:b])) for a, b in itertools.pairwise(edges)]
    return [Step(cut, math.exp(levels[i + 1] - levels[i])) for i, cut in enumerate(cuts)]


def _cuts(logs: Any, start: int, noise: float, apart: float, least: float, segment: int) -> list[int]:
    best, cut = 0.0, 0
    for k in range(segment, len(logs) - segment + 1):
        change = abs(float(np.median(logs[k:]) - np.median(logs[:k])))
        t = change / (noise * math.sqrt(1 / k + 1 / (len(logs) - k)))
        if change >= least and t > best:
            best, cut = t, k
    if best < apart:
        return []
    left = _cuts(logs[:cut], start, noise, apart, least, segment)
    return [*left, start + cut, *_cuts(logs[cut:], start + cut, noise, apart, least, segment)]
