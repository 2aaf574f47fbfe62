"""Packing: a record's curves made small for a page, and made again exactly.

A curve of six-digit numbers costs nine characters an epoch, and a study has many.  On the page a curve is a
list of whole numbers instead: how many decimals, then the first score and the steps from epoch to epoch, all in
units of the last decimal::

    [0.45123, 0.30007, 0.2514]   ->   [5, 45123, -15116, -4867]

A cell that replays another's trials differs from it in the last digits only, so its curve is the differences
from the first cell's, epoch by epoch, marked by decimals below zero: ``[-1 - decimals, 0, 1, 0]``.
A curve that does not fit this (a value that is not finite, many decimals) stays as it is, inside a list.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

_MOST = 12  # decimals; whole numbers of that size are still exact
_LARGEST = 2**50

Curve = list[Any]


def pack(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record with its curves packed; ``unpack`` gives it back exactly.

    Parameters
    ----------
    record : dict
        What ``fmtune.report.record.to_json`` returned.
    """
    first: dict[int, Curve] = {}
    cells = []
    for cell in record["cells"]:
        trials = cell["trials"]
        curves = [_packed(c, first.get(n)) for n, c in zip(trials["number"], trials["curve"], strict=True)]
        cells.append({**cell, "trials": {**trials, "curve": curves}})
        first = first or dict(zip(trials["number"], trials["curve"], strict=True))
    return {**record, "curves": "packed", "cells": cells}


def unpack(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record that was given to ``pack``; one that is not packed is returned as it is."""
    if record.get("curves") != "packed":
        return record
    first: dict[int, Curve] = {}
    cells = []
    for cell in record["cells"]:
        trials = cell["trials"]
        curves = [_unpacked(c, first.get(n)) for n, c in zip(trials["number"], trials["curve"], strict=True)]
        cells.append({**cell, "trials": {**trials, "curve": curves}})
        first = first or dict(zip(trials["number"], curves, strict=True))
    return {name: value for name, value in record.items() if name != "curves"} | {"cells": cells}


def _packed(curve: Curve, base: Curve | None) -> Curve:
    decimals = max(map(_decimals, curve), default=_MOST + 1)
    if decimals > _MOST:
        return [curve]
    whole = _whole(curve, decimals)
    if max(map(abs, whole)) > _LARGEST or [w / 10**decimals for w in whole] != curve:
        return [curve]
    steps = [decimals, whole[0], *(b - a for a, b in pairwise(whole))]
    if base is None or len(base) < len(curve) or max(map(_decimals, base)) > _MOST:
        return steps
    other = [-1 - decimals, *(w - b for w, b in zip(whole, _whole(base, decimals), strict=False))]
    return min(steps, other, key=lambda packed: len(str(packed)))


def _unpacked(packed: Curve, base: Curve | None) -> Curve:
    decimals = packed[0]
    if isinstance(decimals, list):
        return decimals
    if decimals < 0:
        decimals = -1 - decimals
        whole = [w + b for w, b in zip(packed[1:], _whole(base or [], decimals), strict=False)]
    else:
        total, whole = 0, []
        for step in packed[1:]:
            total += step
            whole.append(total)
    return [float(w / 10**decimals) for w in whole]


def _whole(curve: Curve, decimals: int) -> list[int]:
    return [round(v * 10**decimals) for v in curve]


def _decimals(value: Any) -> int:
    """Return how many decimals a number is written with; more than are packed for what is no such number."""
    if not isinstance(value, float) or abs(value) >= 1e9:
        return _MOST + 1
    text = f"{value:.{_MOST}f}"
    return len(text.rstrip("0").partition(".")[2]) if float(text) == value else _MOST + 1
