"""The suite ``gpu``: what a CUDA card does, checked and measured, beside the CPU of its machine and torch.

It is a list of tables, not of cases: a card is not compared in turns with another version, and what is measured here
is a grid.  Without a card it says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.sparse import csr_matrix

from fmtune.bench import machine as place
from fmtune.bench.run import Say
from fmtune.errors import DataError
from fmtune.fm import cuda_card
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import Pack
from fmtune.kernels.rules import RULES
from fmtune.machine import cores
from fmtune.rows import DenseRows, Rows, SparseRows


@dataclass(frozen=True)
class Sizes:
    """How much is measured; tests take less.

    ``sparse`` and ``dense``: rows, features, non-zeros a row (dense: all), num_factors; ``check`` likewise, for the
    comparison with the CPU; ``batches`` and ``lanes``: the grid; ``copied``: floats; ``epochs``: timed ones.
    """

    sparse: tuple[int, int, int, int] = (262_144, 1_000_000, 39, 16)
    dense: tuple[int, int, int, int] = (65_536, 784, 784, 64)
    check: tuple[int, int, int, int] = (4_096, 512, 24, 16)
    batches: tuple[int, ...] = (1_000, 4_096, 16_384, 65_536)
    lanes: tuple[int, ...] = (1, 8, 64)
    copied: int = 2**28
    epochs: int = 3


def run(say: Say, sizes: Sizes | None = None) -> dict[str, Any]:
    """Return the suite's result as plain values; ``say`` is told a line a figure.

    Without a CUDA device the result has ``not_run`` and nothing is measured.
    """
    result: dict[str, Any] = {
        "suite": "gpu", "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": place.commit(),
        "machine": place.describe(),
    }  # fmt: skip
    if not cuda_card.cards():
        say("not run: no CUDA device")
        return {**result, "not_run": "no CUDA device"}
    sizes = sizes or Sizes()
    found: dict[str, Any] = {"card": _card(), "ceilings": [], "checks": [], "rates": []}
    for kind, parts in (("ceilings", _ceilings(sizes)), ("checks", _checks(sizes)), ("rates", _rates(sizes))):
        for part in parts:
            found[kind].append(part)
            say(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in part.items()))
    return {**result, **found}


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Card(_Open):
    """What was measured."""

    name: str
    memory: float
    cards: int


class Ceiling(_Open):
    """How fast it moves numbers."""

    ceiling: str
    gb_s: float
    table_mb: float | None = None


class Check(_Open):
    """How near it comes to float64 and to the CPU, and whether it does the same twice."""

    check: str
    score_to_float64: float
    model_to_cpu: float
    same_twice: bool
    fine: bool


class Rate(_Open):
    """Row-lanes a second."""

    layout: Literal["sparse", "dense"]
    device: str
    way: str
    mini_batch_size: int
    lanes: int
    row_lanes_s: float


class Result(_Open):
    """A result of the suite; without a card there is ``not_run`` and nothing is measured."""

    suite: Literal["gpu"]
    date: str
    commit: str | None
    machine: dict[str, str]
    not_run: str = "no CUDA device"
    card: Card | None = None
    ceilings: list[Ceiling] = []
    checks: list[Check] = []
    rates: list[Rate] = []


def read(path: Path) -> Result | None:
    """Return a result that was written to a file; None for what is not of this suite.

    Raises
    ------
    DataError
        It is of this suite, and damaged.
    """
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"] or any(one["loc"] == ("suite",) for one in error.errors()):
            return None
        what = f"not a result of the suite gpu: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(what, where=str(path), hint="run it anew: fmtune bench --suite gpu --out FILE") from None


def failed(result: dict[str, Any]) -> bool:
    """Whether a check of a result found the card wrong."""
    return any(not part["fine"] for part in result.get("checks", ()))


def _card() -> dict[str, Any]:
    from numba import cuda

    free, total = cuda.current_context().get_memory_info()
    name = getattr(cuda.gpus[0], "name", "simulator")
    words = name.decode() if isinstance(name, bytes) else str(name)
    return {"name": words, "free": float(free), "memory": float(total), "cards": cuda_card.cards()}


def _timed(work: Callable[[], Any], times: int = 3) -> float:
    """Return the median of seconds, after one call that is not counted; ``work`` ends when the card is done."""
    work()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _ceilings(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield how fast the card copies, and gathers rows of 24 floats from tables in and beyond its cache."""
    from numba import cuda

    from fmtune.kernels import cuda_probe
    from fmtune.kernels.cuda_parts import THREADS, blocks

    n = sizes.copied
    source, target = cuda.device_array(n, np.float32), cuda.device_array(n, np.float32)

    def copy() -> None:
        cuda_probe.copy[blocks(n), THREADS](source, target)
        cuda.synchronize()

    yield {"ceiling": "copy", "bytes": 8 * n, "gb_s": 8 * n / _timed(copy) / 1e9}
    width, many = 24, max(1, n // 16)
    for rows in (max(1, n // 2**12), max(1, n // 2**5)):
        table = cuda.to_device(np.ones((rows, width), np.float32))
        indices = cuda.to_device(np.random.default_rng(0).integers(0, rows, many).astype(np.int32))
        out = cuda.device_array(max(1, many // 64) * width, np.float32)

        def gather(table: Any = table, indices: Any = indices, out: Any = out) -> None:
            cuda_probe.gather[blocks(out.size), THREADS](table, indices, out)
            cuda.synchronize()

        yield {"ceiling": "gather", "table_mb": rows * width * 4 / 1e6,
               "gb_s": 4.0 * many * (width + 1) / _timed(gather) / 1e9}  # fmt: skip


def _rows(shape: tuple[int, int, int, int], layout: str, seed: int = 0) -> Rows:
    """Return random rows: click-like features, few of them frequent, or a matrix one fifth of which is filled."""
    n, dim, nnz, _ = shape
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n).astype(np.float32)
    if layout == "dense":
        matrix = rng.random((n, dim), np.float32) * (rng.random((n, dim), np.float32) < 0.2)
        return DenseRows(matrix, labels, dim)
    # A feature's number falls off as a power within each field; fields do not overlap, so a row names none twice.
    field = max(1, dim // nnz)
    picked = (field * rng.random((n, nnz)) ** 3).astype(np.int64) + np.arange(nnz) * field
    values = np.ones(n * nnz, np.float32)
    return SparseRows(np.arange(n + 1, dtype=np.int64) * nnz, picked.astype(np.int32).ravel(), values, labels, dim)


def _lanes(shape: tuple[int, int, int, int], rule: str, size: int, lanes: int) -> list[Hyperparameters]:
    h = Hyperparameters(
        predictor_type="binary_classifier", num_factors=shape[3], mini_batch_size=size, optimizer=rule, bias_lr=0.01,
        linear_lr=0.01, factors_lr=0.01,
    )  # fmt: skip
    return [h.replace(seed=lane) for lane in range(lanes)]


def _trained(rows: Rows, layout: str, device: str, lanes: list[Hyperparameters]) -> tuple[Pack, Model]:
    pack = Pack(Feed(rows), Recipe.of(lanes[0], layout, device))
    placed = pack.change(enter=lanes)
    pack.epoch()
    return pack, pack.model(placed[-1])


def _checks(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield, by layout and rule: distance to float64 scores and to the CPU's model, and whether two runs agree."""
    for layout in ("sparse", "dense"):
        rows = _rows(sizes.check, layout)
        matrix = rows.to_dense().matrix.astype(np.float64)
        for rule in (name for name, row in RULES.items() if not row.rowwise):
            lanes = _lanes(sizes.check, rule, min(1_000, rows.n), 2)
            (pack, one), (_, again) = (_trained(rows, layout, "gpu", lanes) for _ in range(2))
            _, cpu = _trained(rows, layout, "cpu", lanes)
            v, w = one.factors.astype(np.float64), one.linear.astype(np.float64)
            wanted = one.bias + matrix @ w + 0.5 * (((matrix @ v) ** 2).sum(1) - (matrix**2 @ v**2).sum(1))
            score = float(np.abs(pack.score(rows)[-1] - wanted).max())
            model = float(np.abs(one.factors - cpu.factors).max())
            same = _digest(one) == _digest(again)
            yield {"check": f"{layout} {rule}", "score_to_float64": score, "model_to_cpu": model, "same_twice": same,
                   "fine": same and score < 1e-4 and model < 1e-4}  # fmt: skip


def _digest(model: Model) -> str:
    arrays = np.float32(model.bias).tobytes() + model.linear.tobytes() + model.factors.tobytes()
    return hashlib.sha256(arrays).hexdigest()


def _rates(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield row-lanes a second over the grid; the CPU's at the ends of it, and torch's."""
    for layout, shape in (("sparse", sizes.sparse), ("dense", sizes.dense)):
        rows = _rows(shape, layout)
        part = rows.slice(0, min(rows.n, max(sizes.batches[0], rows.n // 8)))
        for size in sizes.batches:
            for lanes in sizes.lanes:
                of = _lanes(shape, "adagrad", size, lanes)
                for way in ("exact", "tf32") if layout == "dense" else ("exact",):
                    yield _rate(rows, layout, "gpu", of, sizes.epochs, way)
                if size in (sizes.batches[0], sizes.batches[-1]):
                    yield _rate(part, layout, "cpu", of, 1, "one thread")
                    if lanes > 1:
                        yield _host(part, layout, of)
            if importlib.util.find_spec("torch") is not None:
                yield _torch(rows, layout, shape[3], size, sizes.epochs)


def _rate(rows: Rows, layout: str, device: str, lanes: list[Hyperparameters], epochs: int, way: str) -> dict[str, Any]:
    lanes = [h.replace(exact=way != "tf32") for h in lanes]
    pack = Pack(Feed(rows), Recipe.of(lanes[0], layout, device))
    pack.change(enter=lanes)
    seconds = _timed(pack.epoch, epochs)
    return {"layout": layout, "device": device, "way": way, "mini_batch_size": lanes[0].mini_batch_size,
            "lanes": len(lanes), "row_lanes_s": rows.n * len(lanes) / seconds}  # fmt: skip


def _host(rows: Rows, layout: str, lanes: list[Hyperparameters]) -> dict[str, Any]:
    """Return the rate of the whole processor: as a study does it, lanes in packs of their own, one thread each."""
    threads = min(cores(), len(lanes))
    feed = Feed(rows)
    packs = [Pack(feed, Recipe.of(lanes[0], layout, "cpu")) for _ in range(threads)]
    for n, pack in enumerate(packs):
        pack.change(enter=lanes[n::threads])
    with ThreadPoolExecutor(threads) as pool:
        seconds = _timed(lambda: list(pool.map(Pack.epoch, packs)), 1)
    return {"layout": layout, "device": "cpu", "way": f"{threads} threads", "mini_batch_size": lanes[0].mini_batch_size,
            "lanes": len(lanes), "row_lanes_s": rows.n * len(lanes) / seconds}  # fmt: skip


def _torch(rows: Rows, layout: str, k: int, size: int, epochs: int) -> dict[str, Any]:
    """Return the rate of one model in torch on the card: embedding bags and sparse Adagrad, or dense products."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    from fmtune.bench.peers.torch_fm import DEFAULTS, machine

    if isinstance(rows, SparseRows):
        x: Any = csr_matrix((rows.values, rows.indices, rows.indptr), shape=(rows.n, rows.feature_dim))
    else:
        x = rows.matrix
    few = (x[:2], np.zeros(2, np.float32))
    h = {**DEFAULTS, "num_factors": k, "mini_batch_size": size}
    learn, _ = machine((x, rows.labels), few, h, layout == "dense", "cuda")

    def one() -> None:
        learn()
        torch.cuda.synchronize()

    seconds = _timed(one, epochs)
    return {"layout": layout, "device": "gpu", "way": "torch", "mini_batch_size": size, "lanes": 1,
            "row_lanes_s": rows.n / seconds}  # fmt: skip
