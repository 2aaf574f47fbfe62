"""Prefetch: ask for a cache line before it is needed; the one thing that LLVM does not do by itself here."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def _prefetch(typing_context: Any, array: Any, row: Any, byte: Any) -> Any:
    """``prefetch(array, row, byte)``: the line that holds a byte of a row of a C-contiguous array; no bounds."""
    signature = types.void(array, types.intp, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        view = context.make_array(sig.args[0])(context, builder, args[0])
        stride = builder.extract_value(view.strides, 0)
        offset = builder.add(builder.mul(args[1], stride), args[2])
        base = builder.ptrtoint(view.data, ir.IntType(64))
        pointer = builder.inttoptr(builder.add(base, offset), cgutils.voidptr_t)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t] + [ir.IntType(32)] * 3)
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        one, three = ir.Constant(ir.IntType(32), 1), ir.Constant(ir.IntType(32), 3)
        builder.call(function, [pointer, ir.Constant(ir.IntType(32), 0), three, one])
        return context.get_dummy_value()

    return signature, generate


# An intrinsic is called without its first argument, which a type checker cannot know.
prefetch: Any = _prefetch
