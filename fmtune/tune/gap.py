"""Gap: how much worse one study's winner is than another's, on the same test rows, drawn for both alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.fm.metrics import METRICS, Array
from fmtune.tune.folder import folder_of
from fmtune.tune.result import StudyResult
from fmtune.tune.selection import LABELS, UNITS, difference


def gaps(results: Sequence[StudyResult], root: Path | None = None) -> list[dict[str, Any] | None]:
    """Return how much worse each study's winner is than the best of all.

    Parameters
    ----------
    results
        The studies.
    root
        The folder in which ``runs/`` lies; what another machine ran has no scores there.

    Returns
    -------
    list of dict or None
        ``difference``, and ``low`` and ``high`` of its 95 % interval over test rows.  None for the best itself, and
        where the two were scored on other rows, on too few of them, or the scores are not here.
    """
    done = [r for r in results if r.best is not None]
    unknown: list[dict[str, Any] | None] = [None] * len(results)
    if len({r.objective for r in done}) != 1:
        return unknown
    best = min(done, key=_cost)
    metric = best.objective.removeprefix("test:")
    same = [r for r in done if _test(r) & _test(best)]
    labels = next((found for r in same if (found := _stored(r, LABELS, root)) is not None), None)
    if labels is None or (ours := _scores(best, metric, labels, root)) is None:
        return unknown
    # Groups that only one of the studies kept together are drawn together for both.
    kept = (_stored(r, UNITS, root) for r in same)
    units = next((found for found in kept if found is not None and len(found) == len(labels)), None)
    theirs = {id(r): _scores(r, metric, labels, root) for r in same if r is not best}
    measured = [
        difference(metric, ours, scores, labels, units) if (scores := theirs.get(id(r))) is not None else None
        for r in results
    ]  # fmt: skip
    return [None if gap is None or gap["low"] is None else gap for gap in measured]


def _cost(result: StudyResult) -> float:
    assert result.best is not None and result.best.value is not None
    return result.best.value if result.direction == "minimize" else -result.best.value


def _test(result: StudyResult) -> set[tuple[str, str]]:
    """Return what the test rows go by: as they are encoded, and which they are; either fixes their order too."""
    known = result.channels.get("test", {})
    return {(name, str(known[name])) for name in ("digest", "origin") if known.get(name)}


def _scores(result: StudyResult, metric: str, labels: Array, root: Path | None) -> Array | None:
    """Return the winner's raw scores, float32 (seeds, n), None where they are not here."""
    assert result.best is not None and result.best.value is not None
    found = _stored(result, f"{result.best.number}.npy", root)
    if found is None or found.shape[-1] != len(labels):
        return None
    # The folder may hold another study of this name, of another database or machine.
    value = np.mean([METRICS[metric].compute(row, labels) for row in found])
    return found if math.isclose(value, result.best.value, rel_tol=1e-6) else None


def _stored(result: StudyResult, name: str, root: Path | None) -> NDArray[Any] | None:
    file = folder_of(result.study_name, root) / "finalists" / name
    try:
        return np.asarray(np.load(file, allow_pickle=False))
    except (OSError, ValueError):
        return None
