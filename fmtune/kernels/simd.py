"""Eight floats side by side, as one value in a compiled kernel.

LLVM gives up on vectorising loops whose arrays might overlap when there are more than a few of them, and an
update reads a dozen.  ``Float8`` says what is meant: it is loaded, computed with by the ordinary operators, and
stored.  Rules written for scalars compile for it as they stand.  Each of the eight is rounded by itself, as a
scalar would be, so a column's bits do not depend on its place.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

_VECTOR = ir.VectorType(ir.FloatType(), 8)
_WORD = ir.IntType(32)


class Float8(types.Type):
    """numba's type of eight float32."""

    def __init__(self) -> None:
        super().__init__("Float8")


float8 = Float8()


@register_model(Float8)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)  # type: ignore[no-untyped-call]


def _place(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """Return the address of eight floats of a contiguous array, ``offset`` floats from its first."""
    view = context.make_array(array_type)(context, builder, array)
    return builder.bitcast(builder.gep(view.data, [offset]), _VECTOR.as_pointer())


def _splatted(builder: Any, scalar: Any) -> Any:
    none = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(none, scalar, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(one, none, ir.Constant(ir.VectorType(_WORD, 8), [0] * 8))


@intrinsic
def _load(typing_context: Any, array: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        loaded = builder.load(_place(context, builder, sig.args[0], args[0], args[1]))
        loaded.align = 4
        return loaded

    return float8(array, types.intp), generate


@intrinsic
def _store(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        stored = builder.store(args[2], _place(context, builder, sig.args[0], args[0], args[1]))
        stored.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, float8), generate


@intrinsic
def _splat(typing_context: Any, scalar: Any) -> Any:
    return float8(types.float32), lambda context, builder, sig, args: _splatted(builder, args[0])


@intrinsic
def _spread(typing_context: Any, array: Any, offset: Any) -> Any:
    """One float of an array, eight times; numba's own indexing would look for negative places at each."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        view = context.make_array(sig.args[0])(context, builder, args[0])
        return _splatted(builder, builder.load(builder.gep(view.data, [args[1]])))

    return float8(array, types.intp), generate


@intrinsic
def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name, kind = "llvm.fma.v8f32", ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(function, args)

    return float8(float8, float8, float8), generate


@intrinsic
def _sum(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = [builder.extract_element(args[0], ir.Constant(_WORD, i)) for i in range(8)]
        while len(parts) > 1:
            parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    return types.float32(float8), generate


@intrinsic
def _sums(typing_context: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """The sums of eight values, side by side, each in the order of ``_sum``."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def added(pair: Any, left: list[int], right: list[int]) -> Any:
            masks = (ir.Constant(ir.VectorType(_WORD, 8), mask) for mask in (left, right))
            return builder.fadd(*(builder.shuffle_vector(*pair, mask) for mask in masks))

        parts = list(args)
        while len(parts) > 2:  # neighbours within each half, which is one instruction
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [added(pair, [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15]) for pair in pairs]
        return added(parts, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])

    return float8(*[float8] * 8), generate


@intrinsic
def _root(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name, kind = "llvm.sqrt.v8f32", ir.FunctionType(_VECTOR, [_VECTOR])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(function, [args[0]])

    return float8(float8), generate


@intrinsic
def _limited8(typing_context: Any, value: Any, limit: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        high = _splatted(builder, args[1])
        low = _splatted(builder, builder.fneg(args[1]))
        x = builder.select(builder.fcmp_ordered(">", args[0], high), high, args[0])
        return builder.select(builder.fcmp_ordered("<", x, low), low, x)

    return float8(float8, types.float32), generate


@intrinsic
def _power(typing_context: Any, m: Any) -> Any:
    """See ``losses.power``."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        words = ir.VectorType(_WORD, 8)
        bias, place = ir.Constant(words, [127] * 8), ir.Constant(words, [23] * 8)
        exponent = builder.shl(builder.add(builder.bitcast(args[0], words), bias), place)
        return builder.bitcast(exponent, _VECTOR)

    return float8(float8), generate


@intrinsic
def _either(typing_context: Any, mask: Any, offset: Any, a: Any, b: Any) -> Any:
    """Each of ``a`` where eight floats of an array are not 0, else that of ``b``."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        loaded = builder.load(_place(context, builder, sig.args[0], args[0], args[1]))
        loaded.align = 4
        zero = ir.Constant(_VECTOR, [0.0] * 8)
        return builder.select(builder.fcmp_ordered("!=", loaded, zero), args[2], args[3])

    return float8(mask, types.intp, float8, float8), generate


def _operator(operation: Any, name: str) -> None:
    """Let an operator take eight floats, or eight and one."""

    @intrinsic
    def made(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            sides = [x if t is float8 else _splatted(builder, x) for x, t in zip(args, sig.args, strict=True)]
            return getattr(builder, name)(*sides)

        return float8(a if a is float8 else types.float32, b if b is float8 else types.float32), generate

    call: Any = made

    @overload(operation)
    def implementation(a, b):  # type: ignore[no-untyped-def]
        return (lambda a, b: call(a, b)) if a is float8 or b is float8 else None


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


@overload(math.sqrt)
def _sqrt(x):  # type: ignore[no-untyped-def]
    return (lambda x: _call_root(x)) if x is float8 else None


# Intrinsics are called without their first argument, which a type checker cannot know.
load8: Any = _load
store8: Any = _store
splat8: Any = _splat
spread8: Any = _spread
fma8: Any = _fma
sum8: Any = _sum
sums8: Any = _sums
limited8: Any = _limited8
power8: Any = _power
either8: Any = _either
_call_root: Any = _root
