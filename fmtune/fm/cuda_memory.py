"""Memory of a CUDA card: arrays made, sent and copied on it; where it is full that is said in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from fmtune.errors import ResourceError
from fmtune.fm.cuda_card import free
from fmtune.kernels.cuda_parts import THREADS, blocks, copy_columns, fill, flat


def zeros(*shape: int) -> Any:
    """Return a float32 array of zeros on the card."""
    array = empty(*shape)
    if array.size:
        fill[blocks(array.size), THREADS](flat(array), 0)
    return array


def empty(*shape: int, dtype: type = np.float32) -> Any:
    """Return an array on the card with anything in it."""
    return _taken(lambda: cuda.device_array(shape, dtype), 4.0 * math.prod(shape))


def sent(host: NDArray[Any]) -> Any:
    """Return a copy of an array on the card."""
    array = np.ascontiguousarray(host)
    return _taken(lambda: cuda.to_device(array), float(array.nbytes))


def _taken(make: Callable[[], Any], size: float) -> Any:
    """Return an array on the card, or say that there is no room for it.

    Raises
    ------
    ResourceError
        The card's memory is full.
    """
    try:
        return make()
    except Exception as error:  # the driver's; the simulator has no class for it
        if "OUT_OF_MEMORY" not in str(error):
            raise
        raise ResourceError(
            f"{size / 2**30:.1f} GiB are needed on the card, and {free() / 2**30:.1f} GiB are free",
            where="device: gpu", hint="fewer lanes a pack (pack), fewer num_factors, or device: cpu",
        ) from None  # fmt: skip


def copy(source: Any, at: int, target: Any, to: int, width: int) -> None:
    """Copy ``width`` columns from ``at`` on to ``to`` on, between matrices on the card."""
    if width and source.shape[0]:
        copy_columns[blocks(source.shape[0] * width), THREADS](source, at, target, to, width)
