"""Proof: the gate tried on this machine, as loaded as it is: ``python -m fmtune.bench.proof [--times N]``.

Three questions, each put to the gate as ``--against`` puts it, with fresh processes and the same budget:

- A against A, N times: how many false alarms?
- A against A with 5 % more work inside the clock, N times: how many are found?  The work is real: each epoch
  has one mini-batch more for each twenty.
- A against A with worse hyperparameters, at the same speed: is the loss of quality found?

Prints one JSON object with machine, date, commit, every verdict and the counts; exits 1 unless all three hold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fmtune.bench import machine
from fmtune.bench.case import Case
from fmtune.bench.paired import Effort, duel
from fmtune.bench.stock import Stock
from fmtune.bench.worker import Side

# 20 mini-batches an epoch, so that 5 % of the rows are one whole mini-batch.
CASE = Case(
    name="proof", kind="fit", data={"card": "planted-clicks", "rows": 25000},
    hyperparameters={"predictor_type": "binary_classifier", "num_factors": 8, "linear_lr": 0.01, "factors_lr": 0.01,
                     "factors_init_sigma": 0.05},
    inner=1, epochs=4, calibrate="gather",
)  # fmt: skip

WORSE = ({"factors_lr": 0.004}, {"linear_lr": 0.003}, {"factors_wd": 0.01}, {"factors_init_sigma": 0.001})


def prove(
    times: int, *, slowdown: float = 0.05, budget: float = 120.0, jobs: int = 1,
    note: Callable[[dict[str, Any]], None] = lambda done: None,
) -> dict[str, Any]:  # fmt: skip
    """Return the counts of the three questions, each comparison's verdict, and the circumstances.

    Parameters
    ----------
    times
        Comparisons of the first two kinds.
    slowdown
        How much more work is planted.
    budget
        Seconds after which a comparison begins no further rounds.
    jobs
        Comparisons at the same time: they finish sooner and disturb each other.
    note
        Called with each comparison.
    """
    began = time.monotonic()
    plants: list[tuple[str, dict[str, Any]]] = [("same", {}), ("slower", {"slowdown": slowdown})] * times
    worse = itertools.islice(itertools.cycle(WORSE), max(len(WORSE), times // 10))
    plants[4:4] = [("worse", {"hyperparameters": change}) for change in worse]
    with tempfile.TemporaryDirectory(prefix="fmtune-proof-") as folder, ThreadPoolExecutor(jobs) as pool:
        files = Stock(Path(folder)).files(CASE)

        def compare(plant: tuple[str, dict[str, Any]]) -> dict[str, Any]:
            at = time.monotonic()
            base = Side("base", Path(folder) / "cache-base")
            new = Side("new", Path(folder) / "cache-new", plant=plant[1])
            verdict, found = duel(CASE, files, base, new, Effort(budget=budget))
            done = {"planted": plant[0], **verdict.plain(), "seconds": round(time.monotonic() - at, 1),
                    "rounds": len(found["new"].starts), "load": os.getloadavg()[0]}  # fmt: skip
            note(done)
            return done

        comparisons = list(pool.map(compare, plants))
    return {
        "machine": machine.describe(), "commit": machine.commit(), "seconds": round(time.monotonic() - began),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "case": CASE.plain(), "slowdown": slowdown,
        "jobs": jobs, "counts": counts(comparisons), "comparisons": comparisons,
    }  # fmt: skip


def counts(comparisons: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return how often each verdict was given, by what was planted."""
    return {word: dict(Counter(c["verdict"] for c in comparisons if c["planted"] == word))
            for word in ("same", "slower", "worse")}  # fmt: skip


def holds(proof: dict[str, Any]) -> bool:
    """Say whether there was no false alarm, 95 % of the slowdowns were found, and every loss of quality."""
    same, slower, worse = (Counter(proof["counts"][word]) for word in ("same", "slower", "worse"))
    alarms = sum(same[word] for word in ("regressed", "worse", "failed"))
    return alarms == 0 and slower["regressed"] >= 0.95 * slower.total() and worse["worse"] == worse.total() > 0


def main() -> None:
    """Run the proof and write it down."""
    parser = argparse.ArgumentParser(prog="python -m fmtune.bench.proof", description="Try the gate on this machine.")
    parser.add_argument("--times", type=int, default=100, help="comparisons of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="comparisons at the same time")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    given = parser.parse_args()
    proof = prove(given.times, jobs=given.jobs, note=lambda done: print(json.dumps(done), file=sys.stderr, flush=True))
    if given.out:
        given.out.write_text(json.dumps(proof, indent=1) + "\n")
    print(json.dumps({key: value for key, value in proof.items() if key != "comparisons"}))
    sys.exit(0 if holds(proof) else 1)


if __name__ == "__main__":
    main()
