"""What the suite ``gpu`` measures: groups of parts, each group in a process of its own.

A kernel that reads where nothing lies takes every later call of its process with it, and one that waits for itself
never ends; so a group is a process, which prints a line a part.  Within a group a part that fails is a line too.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import metadata
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from fmtune.fm import cuda_card
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import Pack
from fmtune.kernels.rules import RULES
from fmtune.machine import cores
from fmtune.rows import DenseRows, Rows, SparseRows

# Packages that have a part in what runs on a card.
_DRIVES = (
    "numba-cuda", "cuda-bindings", "cuda-core", "cuda-pathfinder", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cublas",
    "torch",
)  # fmt: skip

Part = dict[str, Any]
Parts = Iterator[tuple[str, Callable[[], Part]]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured; tests take less.

    ``sparse`` and ``dense``: rows, features, non-zeros a row (dense: all), num_factors; ``check`` likewise, for the
    comparison with the CPU; ``batches`` and ``lanes``: the grid, of each layout in the order in which it is measured;
    ``rules``: those that are checked; ``packs``: so many lanes, exact and in tf32, that a check takes the kernels which
    few lanes do not need; ``copied``: floats; ``epochs``: timed ones.
    """

    sparse: tuple[int, int, int, int] = (262_144, 1_000_000, 39, 16)
    dense: tuple[int, int, int, int] = (262_144, 784, 784, 64)
    check: tuple[int, int, int, int] = (4_096, 512, 24, 16)
    sparse_batches: tuple[int, ...] = (65_536, 1_000, 16_384, 4_096)
    dense_batches: tuple[int, ...] = (1_000, 65_536, 4_096, 16_384)
    lanes: tuple[int, ...] = (64, 1, 8)
    rules: tuple[str, ...] = tuple(name for name, rule in RULES.items() if not rule.rowwise)
    packs: tuple[int, int] = (17, 9)
    copied: int = 2**28
    epochs: int = 5

    def batches(self, layout: str) -> tuple[int, ...]:
        """Return the mini-batch sizes of a layout."""
        return self.sparse_batches if layout == "sparse" else self.dense_batches

    def shape(self, layout: str) -> tuple[int, int, int, int]:
        """Return rows, features, non-zeros and num_factors of a layout."""
        return self.sparse if layout == "sparse" else self.dense


def ceilings(sizes: Sizes) -> Parts:
    """Yield how fast the card copies, gathers rows of 24 floats from tables in and beyond its cache, and multiplies."""
    yield "card", card
    yield "copy", partial(_copy, sizes.copied)
    for rows in (max(1, sizes.copied // 2**12), max(1, sizes.copied // 2**5)):
        yield "gather", partial(_gather, rows, max(1, sizes.copied // 16))
    if cuda_card.missing("dense") is None:
        size = min(sizes.dense[0], sizes.dense_batches[0])
        for lanes in (sizes.lanes[0], 1):
            for tf32 in (True, False):
                name = f"products of {lanes} lanes, {'tf32' if tf32 else 'float32'}"
                yield name, partial(_products, name, sizes.dense, size, lanes, tf32)


def card() -> Part:
    """Return the card's name and memory, and the versions of what drives it."""
    from numba import cuda

    free, total = cuda.current_context().get_memory_info()
    name = getattr(cuda.gpus[0], "name", "simulator")
    words = name.decode() if isinstance(name, bytes) else str(name)
    found = {name: version for name in _DRIVES if (version := _version(name)) is not None}
    return {"name": words, "free": float(free), "memory": float(total), "cards": cuda_card.cards(), "versions": found}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _timed(work: Callable[[], Any], times: int = 3, warm: int = 1) -> float:
    """Return the median of seconds, after calls that are not counted; ``work`` ends when the card is done."""
    for _ in range(warm):
        work()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _copy(n: int) -> Part:
    from numba import cuda

    from fmtune.kernels import cuda_probe
    from fmtune.kernels.cuda_parts import THREADS, blocks

    source, target = cuda.device_array(n, np.float32), cuda.device_array(n, np.float32)

    def copy() -> None:
        cuda_probe.copy[blocks(n // 4), THREADS](source, target)
        cuda.synchronize()

    return {"ceiling": "copy", "bytes": 8 * n, "gb_s": 8 * n / _timed(copy) / 1e9}


def _gather(rows: int, many: int) -> Part:
    from numba import cuda

    from fmtune.kernels import cuda_probe
    from fmtune.kernels.cuda_parts import THREADS, blocks, flat

    width = 24
    table = flat(cuda.to_device(np.ones((rows, width), np.float32)))
    indices = cuda.to_device(np.random.default_rng(0).integers(0, rows, many).astype(np.int32))
    out = cuda.device_array(max(1, many // 64) * width, np.float32)

    def gather() -> None:
        cuda_probe.gather[blocks(out.size // 4), THREADS](table, width, indices, out)
        cuda.synchronize()

    rate = 4.0 * many * (width + 1) / _timed(gather) / 1e9
    return {"ceiling": "gather", "table_mb": rows * width * 4 / 1e6, "gb_s": rate}


def _products(name: str, shape: tuple[int, int, int, int], size: int, lanes: int, tf32: bool) -> Part:
    """Return how many row-lanes a second the two large products of a mini-batch would allow, without all the rest."""
    from numba import cuda

    from fmtune.fm.cuda_arena import CudaDenseArena
    from fmtune.kernels.cuda_dense import Part as Some

    _, dim, _, k = shape
    arena = CudaDenseArena(dim, None, "binary_classifier")
    columns, repeats, rng = lanes * (-(-(k + 1) // 8) * 8), 64, np.random.default_rng(0)
    x, theta = (cuda.to_device(rng.random(of, np.float32)) for of in ((size, dim), (dim, columns)))
    s, g = cuda.device_array((size, columns), np.float32), cuda.device_array((dim, columns), np.float32)

    def some(array: Any) -> Some:
        return Some(array, 0, array.shape[0], 0, array.shape[1])

    def queue(stream: Any) -> None:
        product = arena.product_on(stream)
        for _ in range(repeats):
            product(some(x), some(theta), some(s), tf32=tf32)
            product(some(x), some(s), some(g), turn_a=True, tf32=tf32)

    def work() -> None:
        arena.queue.run(name, 2 * repeats, queue)
        cuda.synchronize()

    seconds = _timed(work, warm=2) / repeats
    flops = 4.0 * size * dim * columns / seconds
    return {"ceiling": name, "lanes": lanes, "tflop_s": flops / 1e12, "row_lanes_s": size * lanes / seconds}


@cache
def _rows(shape: tuple[int, int, int, int], layout: str, seed: int = 0) -> Rows:
    """Return random rows: click-like features, few of them frequent, or a matrix one fifth of which is filled."""
    n, dim, nnz, _ = shape
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n).astype(np.float32)
    if layout == "dense":
        matrix = rng.random((n, dim), np.float32)
        matrix[matrix > 0.2] = 0.0
        return DenseRows(np.float32(5.0) * matrix, labels, dim)
    # A feature's number falls off as a power within each field; fields do not overlap, so a row names none twice.
    field = max(1, dim // nnz)
    picked = (field * rng.random((n, nnz)) ** 3).astype(np.int64) + np.arange(nnz) * field
    values = np.ones(n * nnz, np.float32)
    return SparseRows(np.arange(n + 1, dtype=np.int64) * nnz, picked.astype(np.int32).ravel(), values, labels, dim)


def _lanes(shape: tuple[int, int, int, int], rule: str, size: int, lanes: int, exact: bool) -> list[Hyperparameters]:
    rate = {"sgd": 1.0, "ftrl": 0.1}.get(rule, 0.01)
    h = Hyperparameters(
        predictor_type="binary_classifier", num_factors=shape[3], mini_batch_size=size, optimizer=rule, bias_lr=rate,
        linear_lr=rate, factors_lr=rate, exact=exact, factors_init_method="uniform", factors_init_scale=0.05,
    )  # fmt: skip
    return [h.replace(seed=lane) for lane in range(lanes)]


def checks(layout: str, sizes: Sizes) -> Parts:
    """Yield, by rule and way: distance to float64 scores and to the CPU's model, and whether runs agree.

    Two runs of the same pack, and of an exact pack one more, of a lane by itself.
    """
    if cuda_card.missing(layout):
        return
    for way, lanes in {"exact": 2, "exact pack": sizes.packs[0], "tf32": 1, "tf32 pack": sizes.packs[1]}.items():
        if layout == "dense" or way.startswith("exact"):
            for rule in sizes.rules:
                yield f"{layout} {rule} {way}", partial(_check, layout, rule, way, lanes, sizes)


def _check(layout: str, rule: str, way: str, count: int, sizes: Sizes) -> Part:
    rows = _rows(sizes.check, layout)
    matrix = rows.to_dense().matrix.astype(np.float64)
    exact = way.startswith("exact")
    lanes = _lanes(sizes.check, rule, min(1_000, rows.n), count, exact)
    (pack, one), (_, again) = (_trained(rows, layout, "gpu", lanes) for _ in range(2))
    # The CPU's exact pass: its other one rounds to eight bits, which moves a model further than tf32 does.
    _, cpu = _trained(rows, layout, "cpu", [lanes[-1].replace(exact=True)])
    v, w = one.factors.astype(np.float64), one.linear.astype(np.float64)
    wanted = one.bias + matrix @ w + 0.5 * (((matrix @ v) ** 2).sum(1) - (matrix**2 @ v**2).sum(1))
    score = float(np.abs(pack.score(rows)[-1] - wanted).max() / max(1.0, np.abs(wanted).max()))
    moved = one.factors - cpu.factors
    start = np.linalg.norm(cpu.factors)
    model = float(np.abs(moved).max()) if exact else float(np.linalg.norm(moved) / start)
    same, limit = _digest(one) == _digest(again), 1e-4 if exact else 3e-2
    part = {"check": f"{layout} {rule} {way}", "score_to_float64": score, "model_to_cpu": model, "limit": limit,
            "same_twice": same, "fine": same and score < 1e-4 and model < limit}  # fmt: skip
    if exact and count > 2:
        part["same_alone"] = _digest(_trained(rows, layout, "gpu", lanes[-1:])[1]) == _digest(one)
    return part


def _trained(rows: Rows, layout: str, device: str, lanes: list[Hyperparameters]) -> tuple[Pack, Model]:
    """Return a pack after three epochs, of which the last two are replays where launches are recorded, and a model."""
    pack = Pack(Feed(rows), Recipe.of(lanes[0], layout, device))
    placed = pack.change(enter=lanes)
    for _ in range(3):
        pack.epoch()
    return pack, pack.model(placed[-1])


def _digest(model: Model) -> str:
    arrays = np.float32(model.bias).tobytes() + model.linear.tobytes() + model.factors.tobytes()
    return hashlib.sha256(arrays).hexdigest()


def rates(layout: str, sizes: Sizes) -> Parts:
    """Yield row-lanes a second of the card over the grid."""
    if cuda_card.missing(layout):
        return
    feed = Feed(_rows(sizes.shape(layout), layout))
    for size in sizes.batches(layout):
        for way in ("tf32", "exact") if layout == "dense" else ("exact",):
            for count in sizes.lanes:
                lanes = _lanes(sizes.shape(layout), "adagrad", size, count, way == "exact")
                yield f"{layout} {way} {size} x {count}", partial(_rate, feed, layout, "gpu", lanes, sizes.epochs, way)


def _rate(feed: Feed, layout: str, device: str, lanes: list[Hyperparameters], epochs: int, way: str) -> Part:
    pack = Pack(feed, Recipe.of(lanes[0], layout, device))
    pack.change(enter=lanes)
    # The first epoch compiles, the second records.
    seconds = _timed(pack.epoch, epochs, warm=2 if device == "gpu" else 1)
    return {"layout": layout, "device": device, "way": way, "mini_batch_size": lanes[0].mini_batch_size,
            "lanes": len(lanes), "row_lanes_s": feed.n * len(lanes) / seconds, "replays": pack.replays}  # fmt: skip


def processor(layout: str, sizes: Sizes) -> Parts:
    """Yield the CPU's rates at the ends of the grid: a lane on a thread, and packs on all cores."""
    rows = _rows(sizes.shape(layout), layout)
    batches = sizes.batches(layout)
    for size in sorted({min(batches), max(batches)}, key=batches.index):
        part = Feed(rows.slice(0, min(rows.n, max(size, rows.n // 8))))
        for count in sizes.lanes:
            lanes = _lanes(sizes.shape(layout), "adagrad", size, count, True)
            name = f"{layout} cpu {size} x {count}"
            if count == 1:
                yield name, partial(_rate, part, layout, "cpu", lanes, 1, "one thread")
            else:
                yield name, partial(_host, part, layout, lanes)


def _host(feed: Feed, layout: str, lanes: list[Hyperparameters]) -> Part:
    """Return the rate of the whole processor: as a study does it, lanes in packs of their own, one thread each."""
    threads = min(cores(), len(lanes))
    packs = [Pack(feed, Recipe.of(lanes[0], layout, "cpu")) for _ in range(threads)]
    for n, pack in enumerate(packs):
        pack.change(enter=lanes[n::threads])
    with ThreadPoolExecutor(threads) as pool:
        seconds = _timed(lambda: list(pool.map(Pack.epoch, packs)), 1)
    return {"layout": layout, "device": "cpu", "way": f"{threads} threads", "mini_batch_size": lanes[0].mini_batch_size,
            "lanes": len(lanes), "row_lanes_s": feed.n * len(lanes) / seconds}  # fmt: skip


def torch(layout: str, sizes: Sizes) -> Parts:
    """Yield the rates of one model in torch on the card."""
    for size in sizes.batches(layout):
        yield f"{layout} torch {size}", partial(_torch, layout, sizes.shape(layout), size, min(3, sizes.epochs))


def _torch(layout: str, shape: tuple[int, int, int, int], size: int, epochs: int) -> Part:
    """Return the rate of one model in torch on the card: embedding bags and sparse Adagrad, or dense products."""
    import torch as library  # type: ignore[import-not-found, unused-ignore]

    from fmtune.bench.peers.torch_fm import DEFAULTS, machine

    if not library.cuda.is_available():
        raise RuntimeError("torch sees no CUDA device")
    rows = _rows(shape, layout)
    if isinstance(rows, SparseRows):
        x: Any = csr_matrix((rows.values, rows.indices, rows.indptr), shape=(rows.n, rows.feature_dim))
    else:
        x = rows.matrix
    few = (x[:2], np.zeros(2, np.float32))
    h = {**DEFAULTS, "num_factors": shape[3], "mini_batch_size": size}
    learn, _ = machine((x, rows.labels), few, h, layout == "dense", "cuda")

    def one() -> None:
        learn()
        library.cuda.synchronize()

    return {"layout": layout, "device": "gpu", "way": "torch", "mini_batch_size": size, "lanes": 1,
            "row_lanes_s": rows.n / _timed(one, epochs)}  # fmt: skip


def profiles(sizes: Sizes) -> Parts:
    """Yield where the card's time goes in an epoch of the packs that are held to a figure, by torch's profiler."""
    for layout, way in (("dense", "tf32"), ("sparse", "exact")):
        if cuda_card.missing(layout) is None:
            feed, size = Feed(_rows(sizes.shape(layout), layout)), sizes.batches(layout)[0]
            for count in sizes.lanes[:2]:
                lanes = _lanes(sizes.shape(layout), "adagrad", size, count, way == "exact")
                name = f"{layout} {way} {size} x {count}"
                yield name, partial(_profile, name, feed, layout, lanes)


def _profile(name: str, feed: Feed, layout: str, lanes: list[Hyperparameters], most: int = 10) -> Part:
    from torch.profiler import ProfilerActivity, profile  # type: ignore[import-not-found, unused-ignore]

    pack = Pack(feed, Recipe.of(lanes[0], layout, "gpu"))
    pack.change(enter=lanes)
    for _ in range(3):
        pack.epoch()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        pack.epoch()
    spent = [(each.self_device_time_total, each.count, each.key) for each in found.key_averages()]
    kernels = [
        {"kernel": key[:80], "calls": count, "us_a_call": total / count}
        for total, count, key in sorted(spent, reverse=True)[:most] if total
    ]  # fmt: skip
    return {"profile": name, "seconds": pack.seconds, "kernels": kernels}


GROUPS: dict[str, tuple[str, Callable[[Sizes], Parts]]] = {
    "ceilings": ("ceilings", ceilings),
    "checks of dense": ("checks", partial(checks, "dense")),
    "checks of sparse": ("checks", partial(checks, "sparse")),
    "dense": ("rates", partial(rates, "dense")),
    "sparse": ("rates", partial(rates, "sparse")),
    "torch, sparse": ("rates", partial(torch, "sparse")),
    "cpu, dense": ("rates", partial(processor, "dense")),
    "torch's profiles": ("profiles", profiles),
    "torch, dense": ("rates", partial(torch, "dense")),
    "cpu, sparse": ("rates", partial(processor, "sparse")),
}
"""Groups in the order in which they are measured, and the tables that they fill."""


def here(group: str, sizes: Sizes) -> Iterator[Part]:
    """Yield the parts of a group, measured in this process: ``{"part": ...}``, or ``{"name": ..., "failed": why}``."""
    for name, part in GROUPS[group][1](sizes):
        try:
            yield {"part": part()}
        except Exception as error:  # whatever it is, the other parts are wanted
            yield {"name": name, "failed": f"{type(error).__name__}: {error}"[:500]}


def main(group: str, sizes: str) -> None:
    """Measure a group and print a line of JSON a part."""
    warnings.simplefilter("default")
    told = json.loads(sizes).items()
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told}
    for line in here(group, Sizes(**given)):
        print(json.dumps(line), flush=True)


def text(sizes: Sizes) -> str:
    """Return sizes as :func:`main` reads them."""
    return json.dumps(asdict(sizes))


if __name__ == "__main__":
    main(*sys.argv[1:])
