"""Devices: which cells of a study can run here, and what ``device: auto`` comes to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fmtune.errors import ResourceError, UsageError
from fmtune.fm import cuda_card
from fmtune.tune.spec import Cell, Spec
from fmtune.tune.studyfile import DEVICES

HINT = "pip install 'fmtune[gpu]' on a machine with an NVIDIA card, or device: cpu"


def missing(cell: Cell, only: Sequence[str] = ()) -> str | None:
    """Return why a cell cannot run here, or None; only a card is ever missing.

    ``only`` is what no card does (``fm.hyperparameters.cpu_only``).
    """
    if cell.device == "cpu":
        return None
    if only:
        return f"{' and '.join(only)} runs on the CPU only"
    return cuda_card.missing(cell.layout)


def resolved(cell: Cell, only: Sequence[str] = ()) -> tuple[Cell, str | None]:
    """Return a cell with ``auto`` made ``gpu`` or ``cpu``, and why it is the CPU where it is."""
    if cell.device != "auto":
        return cell, None
    why = missing(cell, only)
    return (cell._replace(device="cpu"), f"device auto: cpu, {why}") if why else (cell._replace(device="gpu"), None)


def cells(spec: Spec) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Return a study's cells with ``auto`` resolved and no cell twice, and what there is to say of that."""
    found = [resolved(cell, spec.cpu_only) for cell in spec.matrix.cells]
    notes = dict.fromkeys(note for _, note in found if note)
    return tuple(dict.fromkeys(cell for cell, _ in found)), tuple(notes)


class Places(NamedTuple):
    """Where a study's cells run.

    Attributes
    ----------
    absent : dict
        Each cell, and why it cannot run anywhere; None where it can.
    elsewhere : set of Cell
        Those that run, and not on this machine.
    notes : tuple of str
        What there is to say of that.
    """

    absent: dict[Cell, str | None]
    elsewhere: set[Cell]
    notes: tuple[str, ...]

    @property
    def searches(self) -> Cell:
        """The cell that searches: the first that can run."""
        return next(cell for cell, why in self.absent.items() if not why)


def places(spec: Spec, attrs: Mapping[str, Any]) -> Places:
    """Return where cells run: as the study was begun, or as this machine has it.

    Parameters
    ----------
    attrs
        What is stored with the study; nothing for a new one.

    Raises
    ------
    ResourceError
        This machine cannot search as the study does.
    """
    found, notes = cells(spec)
    stored = attrs.get("fmtune:cells")
    if stored:
        found = tuple(Cell(c["device"], c["layout"]) for c in stored)
    here = {cell: missing(cell, spec.cpu_only) for cell in found}
    absent = dict(here)
    if stored:
        absent = {cell: c.get("absent", here[cell]) for cell, c in zip(found, stored, strict=True)}
    searches = next((cell for cell in found if not absent[cell]), found[0])
    if why := here[searches]:
        raise ResourceError(f"the study searches on {searches.name}: {why}", where="matrix", hint=HINT)
    return Places(absent, {cell for cell in found if here[cell] and not absent[cell]}, notes)


def first(spec: Spec) -> Cell:
    """Return the cell that searches: the first that can run here.

    Raises
    ------
    ResourceError
        None can.
    """
    reasons = {}
    for cell in cells(spec)[0]:
        why = missing(cell, spec.cpu_only)
        if why is None:
            return cell
        reasons[cell.name] = why
    raise ResourceError("; ".join(f"{name}: {why}" for name, why in reasons.items()), where="matrix", hint=HINT)


def choose(device: str, layout: str, only: Sequence[str] = ()) -> str:
    """Return ``cpu`` or ``gpu`` for one model; where ``auto`` comes to the CPU a warning says why.

    Raises
    ------
    UsageError
        There is no such device.
    ResourceError
        ``gpu`` is asked for and cannot be had.
    """
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}", hint=f"there are {', '.join(DEVICES)}")
    cell, note = resolved(Cell(device, layout), only)
    why = missing(cell, only)
    if why is not None:
        raise ResourceError(why, where="device: gpu", hint=HINT)
    if note:
        warnings.warn(note, stacklevel=3)
    return cell.device
