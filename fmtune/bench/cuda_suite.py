"""The suite ``gpu``: what a CUDA card does, checked and measured, beside the CPU of its machine and torch.

It is a list of tables, not of cases: a card is not compared in turns with another version, and what is measured here
is a grid.  Without a card it says so.  Whatever happens to a part, the others are measured and kept.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fmtune.bench import machine as place
from fmtune.bench.cuda_tables import GROUPS, Part, Sizes, text
from fmtune.bench.run import Say
from fmtune.errors import DataError
from fmtune.fm import cuda_card

# Seconds that a group may take: one that waits for itself must not take the others' time.
_PATIENCE = 180.0

TABLES = ("ceilings", "checks", "rates", "profiles", "targets", "failures")

Measure = Callable[[str, Sizes, float], Iterator[Part]]
"""From a group, sizes and seconds to the lines that ``cuda_tables.here`` describes."""


def run(
    say: Say, sizes: Sizes | None = None, within: float = math.inf,
    save: Callable[[dict[str, Any]], None] | None = None, measure: Measure | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the suite's result as plain values; ``say`` is told a line a figure.

    Without a CUDA device the result has ``not_run`` and nothing is measured.

    Parameters
    ----------
    say
        Told a line a figure, and at the end what was held.
    sizes
        How much is measured.
    within
        Seconds; groups that would begin later are left out, one that is under way is ended.
    save
        Given the result so far after each part.
    measure
        Measures a group; by default in a process of its own.
    """
    result: dict[str, Any] = {
        "suite": "gpu", "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": place.commit(),
        "machine": place.describe(),
    }  # fmt: skip
    if (why := cuda_card.absent()) is not None:
        say(f"not run: {why}")
        return {**result, "not_run": why}
    tables: dict[str, list[Part]] = {name: [] for name in TABLES}
    result |= {"card": None, **tables}
    began = time.monotonic()
    for layout in ("sparse", "dense"):
        if (why := cuda_card.missing(layout)) is not None:
            _add(result, "", {"name": layout, "failed": why}, say)
    for group, (table, _) in GROUPS.items():
        if group.startswith("torch") and importlib.util.find_spec("torch") is None:
            say(f"{group}: torch is not installed")
            continue
        left = within - (time.monotonic() - began)
        if left <= 0:
            _add(result, table, {"name": group, "failed": "left out: no time was left"}, say)
            continue
        for line in (measure or apart)(group, sizes or Sizes(), min(left, _PATIENCE)):
            _add(result, table, line, say)
            result["targets"] = targets(result)
            if save is not None:
                save(result)
        say(f"{group}: {time.monotonic() - began:.0f} s since the beginning")
    for target in result["targets"]:
        say(sentence(target))
    return result


def _add(result: dict[str, Any], table: str, line: Part, say: Say) -> None:
    """Put a line of a group where it belongs, and say it."""
    if "failed" in line:
        result["failures"].append(line)
        say(f"failed: {line['name']}: {line['failed']}")
        return
    part = line["part"]
    if "memory" in part:
        result["card"] = part
    else:
        result[table].append(part)
    say(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in part.items()))


def apart(group: str, sizes: Sizes, seconds: float) -> Iterator[Part]:
    """Yield the lines of a group that is measured in a process of its own, ended after so many seconds."""
    command = [sys.executable, "-m", "fmtune.bench.cuda_tables", group, text(sizes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        late = threading.Timer(seconds, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
            process.wait()
        finally:
            in_time = late.is_alive()
            late.cancel()
            process.kill()
    if not in_time:
        yield {"name": group, "failed": f"ended after {seconds:.0f} s"}
    elif process.returncode:
        yield {"name": group, "failed": f"its process ended with {process.returncode}"}


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Card(_Open):
    """What was measured."""

    name: str
    memory: float
    cards: int


class Ceiling(_Open):
    """How fast it moves numbers, or multiplies them: row-lanes a second if a mini-batch were its two products."""

    ceiling: str
    gb_s: float | None = None
    table_mb: float | None = None
    tflop_s: float | None = None
    lanes: int | None = None
    row_lanes_s: float | None = None


class Check(_Open):
    """How near it comes to float64 and to the CPU, and whether it does the same twice, and in a pack as alone."""

    check: str
    score_to_float64: float
    model_to_cpu: float
    same_twice: bool
    same_alone: bool | None = None
    fine: bool


class Rate(_Open):
    """Row-lanes a second."""

    layout: Literal["sparse", "dense"]
    device: str
    way: str
    mini_batch_size: int
    lanes: int
    row_lanes_s: float


class Profile(_Open):
    """Where the card's time goes in an epoch: kernels, their calls and microseconds a call."""

    profile: str
    seconds: float
    kernels: list[dict[str, str | int | float]]


class Target(_Open):
    """What the card is held to: ``held`` is None where it was not measured."""

    target: str
    wanted: float
    found: float | None
    held: bool | None


class Failure(_Open):
    """A part or a group that was not measured, and why."""

    name: str
    failed: str


class Result(_Open):
    """A result of the suite; without a card there is ``not_run`` and nothing is measured."""

    suite: Literal["gpu"]
    date: str
    commit: str | None
    machine: dict[str, str]
    not_run: str = "no CUDA device"
    card: Card | None = None
    ceilings: list[Ceiling] = []
    checks: list[Check] = []
    rates: list[Rate] = []
    profiles: list[Profile] = []
    targets: list[Target] = []
    failures: list[Failure] = []


def read(path: Path) -> Result | None:
    """Return a result that was written to a file; None for what is not of this suite.

    Raises
    ------
    DataError
        It is of this suite, and damaged.
    """
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"] or any(one["loc"] == ("suite",) for one in error.errors()):
            return None
        what = f"not a result of the suite gpu: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(what, where=str(path), hint="run it anew: fmtune bench --suite gpu --out FILE") from None


def failed(result: dict[str, Any]) -> bool:
    """Whether a check of a result found the card wrong, or something could not be measured."""
    return any(not part["fine"] for part in result.get("checks", ())) or bool(result.get("failures"))


def sentence(target: dict[str, Any]) -> str:
    """Return in words whether the card holds a target."""
    words = {True: "held", False: "NOT HELD", None: "not measured"}[target["held"]]
    found = "" if target["found"] is None else f", found {target['found']:.4g}"
    return f"{words}: {target['target']}: wanted {target['wanted']:.4g}{found}"


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the card is held to, with what was found so far."""
    checks, rates, ceilings = result["checks"], result["rates"], result["ceilings"]
    exact = [part for part in checks if "tf32" not in part["check"]]
    rough = [part for part in checks if "tf32" in part["check"]]
    alone = [part["same_alone"] for part in checks if part.get("same_alone") is not None]
    most = max((part["lanes"] for part in rates if part["device"] == "gpu"), default=0)

    def best(layout: str, size: int, device: str = "gpu", **of: Any) -> float | None:
        wanted = {"layout": layout, "mini_batch_size": size, "device": device, **of}
        found = [
            part["row_lanes_s"] for part in rates
            if all(part[name] == value for name, value in wanted.items()) and (part["way"] == "torch") <= ("way" in of)
        ]  # fmt: skip
        return max(found, default=None)

    sizes = {layout: {part["mini_batch_size"] for part in rates if part["layout"] == layout} for layout in
             ("sparse", "dense")}  # fmt: skip
    large, small = max(sizes["sparse"], default=0), min(sizes["dense"], default=0)
    pack, lone = (best("dense", small, way="tf32", lanes=lanes) for lanes in (most, 1))
    roof = max((part["row_lanes_s"] for part in ceilings if part.get("lanes") == 1), default=None)
    sparse = best("sparse", large)
    made = [
        ("models to the CPU's, largest difference at most", 1e-4, _worst(exact, "model_to_cpu"), False),
        ("models in tf32 to the CPU's, relative, at most", 3e-2, _worst(rough, "model_to_cpu"), False),
        ("scores to float64's, relative, at most", 1e-4, _worst(checks, "score_to_float64"), False),
        ("checks whose two runs differ by a bit", 0.0, sum(not c["same_twice"] for c in checks) if checks else None,
         False),
        ("exact packs with a lane that differs by a bit from itself alone", 0.0,
         sum(not same for same in alone) if alone else None, False),
        (f"sparse, mini-batches of {large}: row-lanes/s", 2e8, sparse, True),
        (f"dense, mini-batches of {small}, {most} lanes: row-lanes/s", 4e8, pack, True),
        (f"dense, {most} lanes: times a lone lane", 8.0, _ratio(pack, lone), True),
        ("dense, a lone lane: share of what its two products alone allow", 0.4, _ratio(lone, roof), True),
        (f"sparse, mini-batches of {large}: times torch on the card", 10.0,
         _ratio(sparse, best("sparse", large, way="torch")), True),
        (f"dense, mini-batches of {small}, {most} lanes: times the CPU", 20.0,
         _ratio(pack, best("dense", small, "cpu")), True),
    ]  # fmt: skip
    return [
        {"target": what, "wanted": wanted, "found": found,
         "held": None if found is None else (found >= wanted if more else found <= wanted)}
        for what, wanted, found, more in made
    ]  # fmt: skip


def _worst(checks: list[dict[str, Any]], name: str) -> float | None:
    return max((part[name] for part in checks), default=None)


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other
