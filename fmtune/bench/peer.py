"""Peer: other trainers that are measured beside ours, in the same turns.

A peer is a program in ``fmtune.bench.peers`` that speaks the worker's protocol and imports nothing of ours but
that.  It may run under another interpreter (``--peer-python``), where its library is installed.
"""

from __future__ import annotations

import difflib
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmtune.bench.worker import Side
from fmtune.errors import UsageError

# name -> (program, what pip installs, what is compared, the kind of cases it runs)
PEERS = {
    "sklearn-sgd": ("sklearn_sgd", "scikit-learn", "a linear model by SGD: the floor", "fit"),
    "myfm": ("myfm_gibbs", "myfm", "a factorization machine by Gibbs sampling", "fit"),
    "torch": ("torch_fm", "torch", "a factorization machine by EmbeddingBag and Adagrad, dense by matmul", "fit"),
    "torch-search": ("torch_search", "torch optuna", "a whole study: Optuna drives torch, two trials at once", "study"),
    "xlearn": ("xlearn_fm", "(its program, XLEARN_TRAIN)", "a factorization machine by xLearn's AdaGrad", "fit"),
    "xlearn-search": ("xlearn_search", "(XLEARN_TRAIN) optuna", "a whole study: Optuna runs xLearn's program", "study"),
    "xlearn-early": ("xlearn_early", "(XLEARN_TRAIN) optuna", "the same, and xLearn stops each trial early", "study"),
    "vw": ("vw_fm", "vowpalwabbit", "a factorization machine by vw --lrq", "fit"),
}


def sides(names: Sequence[str], cache: Path, python: str | None = None) -> list[Side]:
    """Return the sides of peers by name; raise UsageError for one that there is not."""
    found = []
    for name in names:
        if name not in PEERS:
            near = difflib.get_close_matches(name, PEERS, 1)
            guess = f" (did you mean {near[0]!r}?)" if near else ""
            raise UsageError(f"unknown peer {name!r}{guess}", hint=f"the peers are {', '.join(PEERS)}")
        program, _, _, kind = PEERS[name]
        module = f"fmtune.bench.peers.{program}"
        found.append(Side(name, cache, python=python or sys.executable, module=module, kind=kind))
    return found


Reached = Sequence[Sequence[float]]


def sooner(ours: Sequence[Reached], theirs: Sequence[Reached]) -> dict[str, Any]:
    """Return when a peer's searches came to their final scores, and when ours came to the same, seed by seed.

    A search is (seconds since its begin, score) of each complete trial, as they ended; lower scores are better.

    Returns
    -------
    dict
        Lists by seed: ``score`` (the peer's final one), ``theirs`` (seconds until the peer had it), ``whole`` (until
        its last trial ended), ``ours`` (until we had it, or better; infinite if never); and the medians of
        ``theirs / ours`` and ``whole / ours``, ``times`` and ``times_whole``.
    """
    found: dict[str, Any] = {"score": [], "theirs": [], "whole": [], "ours": []}
    for mine, other in zip(ours, theirs, strict=False):
        score = min(value for _, value in other)
        found["score"].append(score)
        found["theirs"].append(_first(other, score))
        found["whole"].append(max(at for at, _ in other))
        found["ours"].append(_first(mine, score))
    for name, clock in (("times", "theirs"), ("times_whole", "whole")):
        found[name] = statistics.median(t / o for t, o in zip(found[clock], found["ours"], strict=True))
    return found


def _first(search: Reached, score: float) -> float:
    """Return when a search first had a score as good as this."""
    return min((at for at, value in search if value <= score), default=math.inf)
