"""Fit: the rate of epochs of a pack; companions are final losses and curves under fixed seeds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fmtune.bench.kinds import stored
from fmtune.bench.serve import Job, Line, serve
from fmtune.fm.arena import columns_of
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Channels, train
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.pack import Pack, bytes_of
from fmtune.rows import Rows, concatenate

_SAMPLES = 8


def prepare(request: Mapping[str, Any]) -> Job:
    """Put the lanes into a pack; a sample is ``inner`` epochs."""
    case, path = request["case"], request["files"]["rows"]
    h = Hyperparameters.of(case["hyperparameters"])
    channels = Channels(stored.rows(path, "train"), stored.rows(path, "test"))
    lanes = [h.replace(seed=lane) for lane in range(case["lanes"])]
    rows = _longer(channels.train, request.get("plant", {}).get("slowdown", 0.0))
    packs = _packs(rows, case["layout"], lanes)

    def arm() -> Line:
        pack = next(packs)

        def line() -> None:
            for _ in range(case["inner"]):
                pack.epoch()

        return line

    def companions() -> dict[str, Any]:
        fits = [
            train(channels, h.replace(seed=s, epochs=case["epochs"]), layout=case["layout"])
            for s in range(case["seeds"])
        ]
        return {
            "loss": [fit.curve[-1] for fit in fits],
            "curve": stored.digest(value for fit in fits for value in fit.curve),
            "passes": case["seeds"] * case["epochs"],
            "rows": case["seeds"] * case["epochs"] * channels.train.n,
            "model_bytes": fits[0].model.nbytes,
        }

    return Job(arm, companions, _about(channels.feed, case, h))


def _longer(rows: Rows, share: float) -> Rows:
    """Return the rows with a share of them once more: real work, planted for proofs; the companions do not see it."""
    return concatenate([rows, rows.slice(0, round(rows.n * share))]) if share else rows


def _packs(rows: Rows, layout: str, lanes: list[Hyperparameters]) -> Iterator[Pack]:
    """Yield packs, each for a few samples and once trained.

    Where its arrays happen to lie makes a pack some percent faster or slower; several are luck shared out.
    """
    while True:
        gap = bytearray(int.from_bytes(os.urandom(2), "little"))
        pack = Pack(Channels(rows).feed, Recipe.of(lanes[0], layout))
        pack.change(enter=lanes)
        del gap
        pack.epoch()
        for _ in range(_SAMPLES):
            yield pack


def _about(feed: Feed, case: Mapping[str, Any], h: Hyperparameters) -> dict[str, Any]:
    """Return what an epoch does, for rates and ceilings."""
    layout = case["layout"]
    recipe = Recipe.of(h, layout)
    batches: Any = feed.batches(recipe, 0)
    count = len(batches.rows) - 1
    facts: dict[str, Any] = {
        "rows": feed.n * case["inner"] * case["lanes"], "examples": feed.n * case["inner"], "layout": layout,
        "lanes": case["lanes"], "num_factors": h.num_factors, "feature_dim": feed.feature_dim,
        "planes": bytes_of(h, feed.feature_dim) / (4.0 * columns_of(h.num_factors) * feed.feature_dim),
        "updates_per_row": count / feed.n,
    }  # fmt: skip
    if layout == "sparse":
        facts["nnz_per_row"] = len(batches.values) / feed.n
        facts["features"] = len(np.unique(batches.indices))
        # Mini-batches of one row have no transpose: they touch what their row has.
        facts["touched_per_row"] = (int(batches.touched[-1]) or len(batches.values)) / feed.n
    return facts


if __name__ == "__main__":
    serve(prepare)
