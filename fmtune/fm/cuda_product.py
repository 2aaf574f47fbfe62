"""Matrix products on the card by cuBLAS, called as it is: through ctypes, or by NumPy in numba's simulator.

cuBLAS alone and not a library of arrays around it, because mini-batches are recorded to be replayed as one launch
(``cuda_queue``), which such libraries forbid for products, and because its scratch must be ours: with a workspace of
its own and one stream it gives the same bytes each time.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

from numba import cuda

from fmtune.errors import ResourceError
from fmtune.extras import install
from fmtune.fm.cuda_queue import Graphs
from fmtune.kernels.cuda_dense import Part, Product
from fmtune.kernels.cuda_quads import SIMULATED

# NVIDIA's advice for cards since Hopper.
_WORKSPACE = 32 * 2**20

_PLAIN, _TURNED = 0, 1
_DEFAULT_MATH, _TF32_MATH = 0, 3


class Cublas:
    """cuBLAS's single-precision product of parts of row-major matrices, queued on a stream.

    Raises
    ------
    ResourceError
        cuBLAS is not installed, or refuses.
    """

    def __init__(self) -> None:
        self._blas = library()
        cuda.current_context()
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        # At the process's end the driver may be gone before this.
        weakref.finalize(self, self._blas.cublasDestroy_v2, self._handle).atexit = False
        self._scratch = cuda.device_array(_WORKSPACE, "u1")
        self._one, self._zero = ctypes.c_float(1.0), ctypes.c_float(0.0)
        self._stream: int | None = None

    def on(self, stream: int) -> None:
        """Queue what follows on a stream, by its handle; from the thread that calls."""
        cuda.current_context()
        if stream != self._stream:
            self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
            # A new stream takes cuBLAS back to a workspace of its own.
            at = ctypes.c_void_p(self._scratch.device_ctypes_pointer.value)
            self._call("cublasSetWorkspace_v2", self._handle, at, ctypes.c_size_t(_WORKSPACE))
            self._stream = stream

    def __call__(
        self, a: Part, b: Part, out: Part, turn_a: bool = False, turn_b: bool = False, tf32: bool = False
    ) -> None:
        """See ``cuda_dense.Product``."""
        # cuBLAS reads columns first, so a row-major matrix is its own transpose there: out' = b' a'.
        self._call("cublasSetMathMode", self._handle, _TF32_MATH if tf32 else _DEFAULT_MATH)
        self._call(
            "cublasSgemm_v2", self._handle, _TURNED if turn_b else _PLAIN, _TURNED if turn_a else _PLAIN,
            out.columns, out.rows, b.columns if turn_b else b.rows, ctypes.byref(self._one), _address(b), _lead(b),
            _address(a), _lead(a), ctypes.byref(self._zero), _address(out), _lead(out),
        )  # fmt: skip

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._blas, name)(*args)
        if status:
            raise ResourceError(f"cuBLAS refused {name}: status {status}", where="device: gpu")


class Aside:
    """See ``cuda_dense.Aside``.

    It waits for nobody but those whom it is told to: so it can be part of what is recorded.  Products on two streams
    have a handle and scratch each, which keeps their bytes the same each time.
    """

    def __init__(self) -> None:
        self.stream: Any = 0 if SIMULATED else Graphs().unbound(self)
        own = product()
        own.on(int(self.stream))
        self.product: Product = own
        self._parted, self._met = (cuda.event() if SIMULATED else cuda.event(timing=False) for _ in range(2))

    def part(self, stream: Any) -> None:
        """See ``cuda_dense.Aside``."""
        self._parted.record(stream)
        self._parted.wait(self.stream)

    def meet(self, stream: Any) -> None:
        """See ``cuda_dense.Aside``."""
        self._met.record(self.stream)
        self._met.wait(stream)


def library() -> ctypes.CDLL:
    """Return cuBLAS.

    Raises
    ------
    ResourceError
        It is not installed.
    """
    from cuda import pathfinder  # comes with numba-cuda

    try:
        found = pathfinder.load_nvidia_dynamic_lib("cublas")
    except RuntimeError:
        raise ResourceError("cuBLAS is not installed", hint=install("gpu")) from None
    return ctypes.CDLL(found.abs_path)


def _lead(part: Part) -> int:
    return int(part.matrix.shape[1])


def _address(part: Part) -> ctypes.c_void_p:
    begin: int = part.matrix.device_ctypes_pointer.value
    return ctypes.c_void_p(begin + 4 * (part.row * _lead(part) + part.column))


class Simulated:
    """The same products by NumPy, on the simulator's arrays; ``tf32`` changes nothing: numbers come rounded."""

    def on(self, stream: int) -> None:
        """Do nothing: there is no stream."""

    def __call__(
        self, a: Part, b: Part, out: Part, turn_a: bool = False, turn_b: bool = False, tf32: bool = False
    ) -> None:
        """See ``cuda_dense.Product``."""
        left, right, into = (_view(part) for part in (a, b, out))
        into[:] = (left.T if turn_a else left) @ (right.T if turn_b else right)


def product() -> Cublas | Simulated:
    """Return a product."""
    return Simulated() if SIMULATED else Cublas()


def _view(part: Part) -> Any:
    whole = part.matrix._ary  # the array behind the simulator's
    return whole[part.row : part.row + part.rows, part.column : part.column + part.columns]
