"""Matrix products on the card: cuBLAS by way of CuPy, or NumPy where the card is numba's simulator."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmtune.kernels.cuda_dense import Part


class Cublas:
    """cuBLAS's single-precision product of parts of row-major matrices, queued on the card's default stream.

    Parameters
    ----------
    tf32
        Whether tensor cores may be used, which read eleven bits of each number.

    Raises
    ------
    ImportError
        CuPy is not installed.
    """

    def __init__(self, tf32: bool) -> None:
        from cupy.cuda import cublas, device  # an optional extra

        self._cublas, self._handle = cublas, device.get_cublas_handle
        self._mode = cublas.CUBLAS_TF32_TENSOR_OP_MATH if tf32 else cublas.CUBLAS_DEFAULT_MATH
        self._factors = np.array([1.0, 0.0], np.float32)

    def __call__(self, a: Part, b: Part, out: Part, transposed: bool) -> None:
        """See ``cuda_dense.Product``."""
        # cuBLAS reads columns first, so a row-major matrix is its own transpose there: out' = b' a (or b' a').
        one = self._factors.ctypes.data
        handle, blas = self._handle(), self._cublas
        blas.setMathMode(handle, self._mode)
        blas.sgemm(
            handle, blas.CUBLAS_OP_N, blas.CUBLAS_OP_T if transposed else blas.CUBLAS_OP_N,
            out.columns, out.rows, b.rows, one, _address(b), b.matrix.shape[1], _address(a), a.matrix.shape[1],
            one + self._factors.itemsize, _address(out), out.matrix.shape[1],
        )  # fmt: skip


def _address(part: Part) -> int:
    begin: int = part.matrix.__cuda_array_interface__["data"][0]
    return begin + 4 * (part.row * int(part.matrix.shape[1]) + part.column)


class Simulated:
    """The same products by NumPy, on the simulator's arrays; ``tf32`` changes nothing: numbers come rounded."""

    def __init__(self, tf32: bool) -> None:
        self.tf32 = tf32

    def __call__(self, a: Part, b: Part, out: Part, transposed: bool) -> None:
        """See ``cuda_dense.Product``."""
        left, right, into = (_view(part) for part in (a, b, out))
        into[:] = (left.T if transposed else left) @ right


def _view(part: Part) -> Any:
    whole = part.matrix._ary  # the array behind the simulator's
    return whole[part.row : part.row + part.rows, part.column : part.column + part.columns]
