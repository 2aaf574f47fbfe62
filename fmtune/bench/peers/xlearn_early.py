"""xLearn under Optuna with its early stopping; otherwise as ``xlearn_search``."""

from __future__ import annotations

import functools

from fmtune.bench.peers.xlearn_search import prepare
from fmtune.bench.serve import serve

if __name__ == "__main__":
    serve(functools.partial(prepare, early=True))
