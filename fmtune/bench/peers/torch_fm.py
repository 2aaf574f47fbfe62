"""PyTorch: the same factorization machine and mini-batches, by EmbeddingBag and Adagrad; dense by matmul.

One thread.  EmbeddingBag (mode sum, a weight a sample) gives the sum over a row's features of linear weights and
factors in one lookup; the squares need a second one.  Its gradients are sparse, and Adagrad takes them so; fused
Adagrad takes dense gradients only, so it is used for the dense layout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]

from fmtune.bench.peers.common import channel, job, log_loss, rmse
from fmtune.bench.serve import Job, serve

DEFAULTS = {"num_factors": 16, "mini_batch_size": 1000, "factors_lr": 0.01, "factors_init_sigma": 0.05}


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample is one pass over the train channel."""
    torch.set_num_threads(1)
    case, path = request["case"], request["files"]["rows"]
    train, test = channel(path, "train"), channel(path, "test")
    learn, loss = machine(train, test, DEFAULTS | case["hyperparameters"], case["layout"] == "dense")
    return job(request, len(train[1]), learn, loss)


def machine(
    train: tuple[Any, Any], test: tuple[Any, Any], h: Mapping[str, Any], dense: bool = False,
    device: str = "cpu", binary: bool = True,
) -> tuple[Callable[[], None], Callable[[], float]]:  # fmt: skip
    """Return two calls for a new factorization machine: one pass over train, and the log loss or RMSE on test.

    Decay (``factors_wd``) is of the rows' own parameters, as a term of the loss, since sparse Adagrad has none.
    """
    torch.manual_seed(0)
    bias = torch.zeros(1, device=device, requires_grad=True)
    table = torch.zeros(train[0].shape[1], h["num_factors"] + 1, device=device)
    table[:, 1:].normal_(0, h["factors_init_sigma"])
    table.requires_grad_(True)
    lr = h["factors_lr"]
    rules = [_adagrad(table, lr, dense), torch.optim.Adagrad([bias], lr=lr)]
    batches = _batches(*train, h["mini_batch_size"], dense, device)
    whole = _batches(*test, 10**9, dense, device)

    decay = 0.5 * h.get("factors_wd", 0.0)

    def learn() -> None:
        for score, labels in batches:
            for rule in rules:
                rule.zero_grad()
            z, length = score(bias, table)
            if binary:
                lost = torch.nn.functional.binary_cross_entropy_with_logits(z, labels)
            else:
                lost = 0.5 * torch.nn.functional.mse_loss(z, labels)
            (lost + decay / len(labels) * length if decay else lost).backward()
            for rule in rules:
                rule.step()

    def loss() -> float:
        with torch.no_grad():
            z = torch.cat([score(bias, table)[0] for score, _ in whole])
        return log_loss(torch.sigmoid(z).cpu().numpy(), test[1]) if binary else rmse(z.cpu().numpy(), test[1])

    return learn, loss


def _adagrad(table: Any, lr: float, dense: bool) -> Any:
    """Return Adagrad of a table, fused for dense gradients where torch has that for the table's device."""
    if dense:
        # Some versions find only in a step that a device has no fused one.
        probe = torch.zeros(1, device=table.device, requires_grad=True)
        probe.grad = torch.zeros_like(probe)
        with contextlib.suppress(RuntimeError):
            torch.optim.Adagrad([probe], lr=lr, fused=True).step()
            return torch.optim.Adagrad([table], lr=lr, fused=True)
    return torch.optim.Adagrad([table], lr=lr)


Score = Callable[[Any, Any], tuple[Any, Any]]


def _batches(x: Any, y: Any, size: int, dense: bool, device: str) -> list[tuple[Score, Any]]:
    """Return each mini-batch as a function from parameters to raw scores and squared length, and its labels."""
    found: list[tuple[Score, Any]] = []
    for start in range(0, len(y), size):
        rows = x[start : start + size]
        labels = torch.from_numpy(np.ascontiguousarray(y[start : start + size])).to(device)
        found.append((_dense(rows, device) if dense else _sparse(rows, device), labels))
    return found


def _dense(rows: Any, device: str) -> Score:
    matrix = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
    squares = matrix * matrix

    def score(bias: Any, table: Any) -> tuple[Any, Any]:
        sums, own = matrix @ table, squares @ (table[:, 1:] ** 2)
        return bias + sums[:, 0] + 0.5 * (sums[:, 1:] ** 2 - own).sum(1), len(matrix) * (table**2).sum()

    return score


def _sparse(rows: Any, device: str) -> Score:
    indices, offsets = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (rows.indices, rows.indptr[:-1]))
    weights = torch.from_numpy(rows.data).to(device)
    # The row of each entry: the squares are summed by it, so that no second gradient of the table is needed.
    owner = torch.from_numpy(np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))).to(device)

    def score(bias: Any, table: Any) -> tuple[Any, Any]:
        bag = torch.nn.functional.embedding_bag(
            indices, table, offsets, mode="sum", per_sample_weights=weights, sparse=True
        )
        picked = torch.nn.functional.embedding(indices, table, sparse=True)
        own = ((picked[:, 1:] * weights[:, None]) ** 2).sum(1)
        squares = torch.zeros(rows.shape[0], device=device).index_add_(0, owner, own)
        return bias + bag[:, 0] + 0.5 * ((bag[:, 1:] ** 2).sum(1) - squares), (picked**2).sum()

    return score


if __name__ == "__main__":
    serve(prepare)
