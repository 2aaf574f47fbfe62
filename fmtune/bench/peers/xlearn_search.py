"""xLearn under Optuna: a case's whole study, each trial a run of its own program; see ``xlearn_fm``.

Two trials at once, a thread each.  xLearn has one rate for all parameters; one for the linear weights is asked for and
left aside.  Each trial runs all of the case's epochs; ``xlearn_early`` lets xLearn stop by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fmtune.bench.peers.search import search
from fmtune.bench.peers.xlearn_fm import DEFAULTS, Program
from fmtune.bench.serve import Job, serve


def prepare(request: Mapping[str, Any], *, early: bool = False) -> Job:
    """A sample is the whole study; files are written, and turned into xLearn's own form, before the clock.

    Parameters
    ----------
    early
        Whether xLearn stops early, three epochs after its best, and a trial's score is that of the best epoch.
    """
    program = Program(request["files"], binary=request["case"]["study"]["objective"] != "test:rmse")

    def curve(h: Mapping[str, Any]) -> list[float]:
        scores = program.run(h, h["epochs"], early=early)
        return scores[: scores.index(min(scores)) + 1] if early else scores

    return search(request, DEFAULTS, curve, prune=False)


if __name__ == "__main__":
    serve(prepare)
