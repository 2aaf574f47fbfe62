"""Ceilings: what this machine's memory and arithmetic would allow, measured by three small kernels.

copy: bytes a second of a long array copied, read and written; gather: bytes a second of rows read from random
places of a table as large as the case's own; fma: float32 multiply-adds a second with everything in registers.
The floor of a case is the longest of what its bytes and its operations would take at these rates, and its
share is that floor over the time it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_COPY_BYTES = 1 << 26
_GATHER_ROWS = 1 << 16
FMA_STEPS = 200_000
LANES = 128


@njit(nogil=True)
def copy(source: Any, target: Any) -> None:
    for i in range(len(source)):
        target[i] = source[i]


@njit(nogil=True, fastmath=True)
def gather(table: Any, places: Any, total: Any) -> None:
    """Sum rows of ``table`` (float32, (rows, width)) at random places: nothing but the reading."""
    for i in range(len(places)):
        r = places[i]
        for c in range(table.shape[1]):
            total[c] += table[r, c]


@njit(nogil=True, fastmath=True)
def fma(steps: int, a: Any, b: Any, sums: Any) -> None:
    """Do ``steps`` rounds of 128 independent multiply-adds; the sums fit in the registers."""
    own = np.zeros(128, np.float32)
    for _ in range(steps):
        for c in range(128):
            own[c] = own[c] * a + b
    for c in range(128):
        sums[c] += own[c]


class Ceilings:
    """Rates of this machine; each is measured when first asked for, the best of a few runs."""

    def __init__(self) -> None:
        self._gathers: dict[tuple[int, int], float] = {}
        self._source = np.ones(_COPY_BYTES // 8, np.float32)
        self._target = np.empty_like(self._source)
        self._sums = np.zeros(LANES, np.float32)
        self.copy = _COPY_BYTES / self._time(self._once_copy)
        self.fma = FMA_STEPS * LANES / self._time(self._once_fma)

    def gather(self, rows: int, width: int) -> float:
        """Return bytes a second of reading rows of ``width`` float32 at random from a table of ``rows``."""
        rows = max(1, min(rows, (1 << 28) // (4 * width)))
        if (rows, width) not in self._gathers:
            run = self._gatherer(rows, width)
            self._gathers[rows, width] = _GATHER_ROWS * width * 4 / self._time(run)
        return self._gathers[rows, width]

    def _once_copy(self) -> None:
        copy(self._source, self._target)

    def _once_fma(self) -> None:
        fma(FMA_STEPS, np.float32(0.999), np.float32(0.001), self._sums)

    def _gatherer(self, rows: int, width: int) -> Callable[[], None]:
        table = np.ones((rows, width), np.float32)
        places: NDArray[np.int64] = np.random.default_rng(0).integers(0, rows, _GATHER_ROWS)
        total = np.zeros(width, np.float32)
        return lambda: gather(table, places, total)

    @staticmethod
    def _time(run: Callable[[], None], times: int = 7) -> float:
        run()
        found = []
        for _ in range(times):
            began = time.process_time()
            run()
            found.append(time.process_time() - began)
        return min(found)


def needs(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the bytes and operations of one example, written out; None where a case is no kernel.

    Sparse, with ``m`` entries a row, ``u`` features touched a row (features of a mini-batch over its rows), ``C``
    columns (all lanes' factors, padded, and linear weights) and ``P`` planes (parameter and optimizer's state)::

        streamed  forward 8 m + 12          update 8 m + 12 u        (index or row 4, value 4; offsets, label)
        gathered  forward 4 m C             update 8 u P C           (read; read and written)
        multiply-adds  forward 2 m C + C    update m C + 12 u C      (q and s; scores; gradients; the rule)

    Dense, with ``d`` features and ``W`` columns a lane: a lane streams its ``4 d`` bytes of row once and its
    parameters once a mini-batch (``8 d W P`` times updates a row), and does ``d W`` multiply-adds forward, ``d W``
    in the update and ``3 d`` in the thin products.  Scoring is the forward part.
    """
    if "nnz_per_row" not in about and about.get("layout") != "dense":
        return None
    k, lanes, planes = about["num_factors"], about["lanes"], about["planes"]
    updates = about.get("updates_per_row", 0.0)
    if about["layout"] == "dense":
        d, width = about["feature_dim"], k + 1
        learns = bool(updates)
        return {
            "streamed": lanes * (4.0 * d + 8.0 * d * width * planes * updates), "gathered": 0.0,
            "multiply_adds": lanes * (d * width * (1.0 + learns) + d * (1.0 + 2.0 * learns) + 12 * updates * d * width),
            "rows": d, "width": width,
        }  # fmt: skip
    m, u, columns = about["nnz_per_row"], about.get("touched_per_row", 0.0), lanes * (-(-k // 8) * 8 + 1)
    learns = bool(u)
    return {
        "streamed": 8.0 * m * (1 + learns) + 12.0 + 12.0 * u,
        "gathered": 4.0 * m * columns + 8.0 * u * planes * columns,
        "multiply_adds": 2.0 * m * columns + columns + (m * columns + 12.0 * u * columns) * learns,
        # Features that never occur are no part of the table that is read.
        "rows": about["features"], "width": columns,
    }  # fmt: skip


def floor(about: Mapping[str, Any], seconds: float, ceilings: Ceilings) -> dict[str, Any] | None:
    """Return a case's floor: rates, bytes and operations of an example, what bounds it, and the share reached."""
    need = needs(about)
    if need is None:
        return None
    rates = {"copy": ceilings.copy, "gather": ceilings.gather(need["rows"], need["width"]), "fma": ceilings.fma}
    # Copying counts each byte read and written once; streaming only reads.
    times = {
        "memory": need["streamed"] / rates["copy"] + need["gathered"] / rates["gather"],
        "arithmetic": need["multiply_adds"] / rates["fma"],
    }
    bound = max(times, key=lambda name: times[name])
    took = seconds / about["examples"]
    return {"rates": rates, "per_example": need, "floor": times[bound], "took": took, "bound": bound,
            "share": times[bound] / took}  # fmt: skip
