"""Four neighbouring floats at a time: one access of 16 bytes a thread.

A thread that reads one float waits for memory as long as one that reads four, and has asked for a quarter.  Arrays
are contiguous and of one dimension, and a quad begins at a multiple of four.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda
from numba.core import config

# numba-cuda 0.30 looks for this name at its first compilation, and NumPy 2.5 no longer has it.
vars(np).setdefault("row_stack", np.vstack)

SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:

    @cuda.jit(device=True)
    def load1(array, at):  # type: ignore[no-untyped-def]
        """Return an element of an array; ``at`` is not negative."""
        return array[at]

    @cuda.jit(device=True)
    def load4(array, at):  # type: ignore[no-untyped-def]
        """Return four floats of an array, from ``at`` on."""
        return array[at], array[at + 1], array[at + 2], array[at + 3]

    @cuda.jit(device=True)
    def store4(array, at, a, b, c, d):  # type: ignore[no-untyped-def]
        """Write four floats into an array, from ``at`` on."""
        array[at] = a
        array[at + 1] = b
        array[at + 2] = c
        array[at + 3] = d

else:
    # The simulator has none of these.
    from numba.cuda import types
    from numba.cuda.core import config as settings
    from numba.cuda.extending import intrinsic

    # A small pack has small grids, and that is no mistake.
    settings.CUDA_LOW_OCCUPANCY_WARNINGS = 0

    _QUAD = ir.VectorType(ir.FloatType(), 4)
    _PLACES = [ir.Constant(ir.IntType(32), n) for n in range(4)]

    def _place(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.gep(context.make_array(sig.args[0])(context, builder, args[0]).data, [args[1]])

    def _address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(_place(context, builder, sig, args), _QUAD.as_pointer())

    @intrinsic
    def load1(typing_context: Any, array: Any, at: Any) -> Any:
        """Return an element of an array; ``at`` is not negative.

        numba's own indexing looks for negative places at each element, and keeps the array's length at hand for it.
        """

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.load(_place(context, builder, sig, args))

        return array.dtype(array, types.int64), generate

    @intrinsic
    def load4(typing_context: Any, array: Any, at: Any) -> Any:
        """Return four floats of an array, from ``at`` on."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            quad = builder.load(_address(context, builder, sig, args))
            quad.align = 16
            parts = [builder.extract_element(quad, place) for place in _PLACES]
            return context.make_tuple(builder, sig.return_type, parts)

        return types.UniTuple(types.float32, 4)(array, types.int64), generate

    @intrinsic
    def store4(typing_context: Any, array: Any, at: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        """Write four floats into an array, from ``at`` on."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            quad = ir.Constant(_QUAD, ir.Undefined)
            for place, value in zip(_PLACES, args[2:], strict=True):
                quad = builder.insert_element(quad, value, place)
            builder.store(quad, _address(context, builder, sig, args)).align = 16
            return context.get_dummy_value()

        one = types.float32
        return types.void(array, types.int64, one, one, one, one), generate
