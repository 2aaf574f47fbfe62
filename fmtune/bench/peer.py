"""Peer: other trainers that are measured beside ours, in the same turns.

A peer is a program in ``fmtune.bench.peers`` that speaks the worker's protocol and imports nothing of ours but
that.  It may run under another interpreter (``--peer-python``), where its library is installed.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from fmtune.bench.worker import Side
from fmtune.errors import UsageError

# name -> (program, what pip installs, what is compared, the kind of cases it runs)
PEERS = {
    "sklearn-sgd": ("sklearn_sgd", "scikit-learn", "a linear model by SGD: the floor", "fit"),
    "myfm": ("myfm_gibbs", "myfm", "a factorization machine by Gibbs sampling", "fit"),
    "torch": ("torch_fm", "torch", "a factorization machine by EmbeddingBag and Adagrad, dense by matmul", "fit"),
    "torch-search": ("torch_search", "torch optuna", "a whole study: Optuna drives torch, two trials at once", "study"),
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
