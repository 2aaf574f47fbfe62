"""PyTorch under Optuna: a case's whole study, as a script with the same sampler, pruner and epochs would run it.

Two trials at once, a thread each.  Both samplers search the same space; a rate of its own for the linear weights,
which PyTorch's Adagrad over one table has not, is asked for and left aside.  Mini-batches have 1,000 rows or more: with
fewer PyTorch spends its time between steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]

from fmtune.bench.peers.common import channel
from fmtune.bench.peers.search import prunes, search
from fmtune.bench.peers.torch_fm import DEFAULTS, machine
from fmtune.bench.serve import Job, serve


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample is the whole study."""
    torch.set_num_threads(1)
    path, binary = request["files"]["rows"], request["case"]["study"]["objective"] != "test:rmse"
    train, test = channel(path, "train"), channel(path, "test")

    def curve(h: Mapping[str, Any]) -> Iterator[float]:
        h = {**h, "mini_batch_size": max(DEFAULTS["mini_batch_size"], h["mini_batch_size"])}
        learn, loss = machine(train, test, h, binary=binary)
        for _ in range(h["epochs"]):
            learn()
            yield loss()

    return search(request, DEFAULTS, curve, prune=prunes(request["case"]["study"]))


if __name__ == "__main__":
    serve(prepare)
