"""Devices: which cells of a study can run here, and what ``device: auto`` comes to."""

from __future__ import annotations

from collections.abc import Sequence

from fmtune.errors import ResourceError
from fmtune.fm import cuda_card
from fmtune.tune.spec import Cell, Spec

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


def choose(device: str, layout: str, only: Sequence[str] = ()) -> tuple[str, str | None]:
    """Return ``cpu`` or ``gpu`` for one model, and why it is the CPU where ``auto`` made it so.

    Raises
    ------
    ResourceError
        ``gpu`` is asked for and cannot be had.
    """
    cell, note = resolved(Cell(device, layout), only)
    why = missing(cell, only)
    if why is not None:
        raise ResourceError(why, where="device: gpu", hint=HINT)
    return cell.device, note
