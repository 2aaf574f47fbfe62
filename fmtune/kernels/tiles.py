"""Tiles: the innermost loop of a product of matrices, with all of its sums in registers.

A tile is some vectors of neighbouring sums (rows of a mini-batch, or features) times some columns.  It runs over the
terms: each time it loads the vectors of the left side once, and for each column one number of the right side, which is
multiplied with all of them.  The loops are made here for every shape, because a compiler keeps sums in registers only
where their number is known.

    out[c, v] += sum_t left[t, v] * right[c, t]

Each sum is one chain of fused multiply-adds in the order of its terms, so its bits do not depend on the tile's shape.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

_FLOAT, _WORD, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)


def features() -> frozenset[str]:
    """Return what the CPU can do that kernels are compiled for, by LLVM's names (``avx512f``, ``avx512bf16``)."""
    said = cpu_target.target_context.codegen().magic_tuple()[2]  # type: ignore[no-untyped-call]
    return frozenset(word[1:] for word in said.split(",") if word.startswith("+"))


# Floats of a vector, vectors of a tile, and its columns: as many sums as there are registers, less what is loaded.
WIDTH, VECTORS, COLUMNS = (16, 3, 8) if "avx512f" in features() else (8, 3, 4)


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), args)


def _aligned(builder: Any, place: Any, kind: Any) -> Any:
    loaded = builder.load(builder.bitcast(place, kind.as_pointer()))
    loaded.align = 4
    return loaded


def _splatted(builder: Any, scalar: Any) -> Any:
    none = ir.Constant(ir.VectorType(scalar.type, WIDTH), ir.Undefined)
    one = builder.insert_element(none, scalar, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(one, none, ir.Constant(ir.VectorType(_WORD, WIDTH), [0] * WIDTH))


def _fused(builder: Any, x: Any, y: Any, total: Any) -> Any:
    return _call(builder, f"llvm.fma.v{WIDTH}f32", total.type, [x, y, total])


def _pairs(builder: Any, x: Any, y: Any, total: Any) -> Any:
    """Two terms at a time, each side a pair of bfloat16 in 32 bits."""
    return _call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", total.type, [total, x, y])


def _loop(builder: Any, given: Any, vectors: int, columns: int, add: Any, squared: bool) -> None:
    """Emit the loop of one shape; the builder stands behind it afterwards."""
    left, step, right, across, along, terms, out, down = given
    item = left.type.pointee
    vector, sums = ir.VectorType(item, WIDTH), ir.VectorType(_FLOAT, WIDTH)
    places = [
        builder.gep(out, [builder.add(builder.mul(ir.Constant(_LONG, c), down), ir.Constant(_LONG, WIDTH * v))])
        for c in range(columns) for v in range(vectors)
    ]  # fmt: skip
    begins = [builder.gep(right, [builder.mul(ir.Constant(_LONG, c), across)]) for c in range(columns)]
    first = [_aligned(builder, place, sums) for place in places]
    before = builder.block
    body, behind = builder.append_basic_block(), builder.append_basic_block()
    builder.branch(body)
    builder.position_at_end(body)
    t, at, offset = builder.phi(_LONG), builder.phi(left.type), builder.phi(_LONG)
    total = [builder.phi(sums) for _ in places]
    x = [_aligned(builder, builder.gep(at, [ir.Constant(_LONG, WIDTH * v)]), vector) for v in range(vectors)]
    x = [builder.fmul(a, a) for a in x] if squared else x
    new = []
    for c in range(columns):
        y = _splatted(builder, builder.load(builder.gep(begins[c], [offset])))
        new += [add(builder, x[v], y, total[c * vectors + v]) for v in range(vectors)]
    after = builder.add(t, ir.Constant(_LONG, 1))
    nexts = [after, builder.gep(at, [step]), builder.add(offset, along), *new]
    zero = ir.Constant(_LONG, 0)
    for phi, start, now in zip([t, at, offset, *total], [zero, left, zero, *first], nexts, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(now, body)
    builder.cbranch(builder.icmp_signed("<", after, terms), body, behind)
    builder.position_at_end(behind)
    for place, value in zip(places, new, strict=True):
        stored = builder.store(value, builder.bitcast(place, sums.as_pointer()))
        stored.align = 4


def _tile(add: Any, squared: bool) -> Any:
    """Return the intrinsic ``(left, at, step, right, at, across, along, terms, out, at, down, vectors, columns)``.

    ``left[at + t * step + v]``, ``right[at + c * across + t * along]`` and ``out[at + c * down + v]``, all flat arrays;
    ``vectors`` is 1 or ``VECTORS``, ``columns`` 1 to ``COLUMNS``, ``terms`` at least 1.
    """

    @intrinsic
    def tile(
        typing_context: Any, left: Any, l0: Any, step: Any, right: Any, r0: Any, across: Any, along: Any, terms: Any,
        out: Any, o0: Any, down: Any, vectors: Any, columns: Any,
    ) -> Any:  # fmt: skip
        long = types.intp
        sig = types.void(left, long, long, right, long, long, long, long, out, long, long, long, long)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            views = [context.make_array(sig.args[i])(context, builder, args[i]) for i in (0, 3, 8)]
            starts = [builder.gep(v.data, [args[i]]) for v, i in zip(views, (1, 4, 9), strict=True)]
            given = (starts[0], args[2], starts[1], args[5], args[6], args[7], starts[2], args[10])
            end = builder.append_basic_block()
            shape = builder.add(builder.mul(args[11], ir.Constant(_LONG, 64)), args[12])
            choice = builder.switch(shape, end)
            for m in (1, VECTORS):
                for n in range(1, COLUMNS + 1):
                    block = builder.append_basic_block()
                    choice.add_case(ir.Constant(_LONG, 64 * m + n), block)
                    builder.position_at_end(block)
                    _loop(builder, given, m, n, add, squared)
                    builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return sig, generate

    return tile


@intrinsic
def _turn(typing_context: Any, source: Any, s0: Any, stride: Any, out: Any, o0: Any, down: Any) -> Any:
    """Eight runs of eight numbers of 32 bits, turned."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source, out = (context.make_array(sig.args[i])(context, builder, args[i]).data for i in (0, 3))
        eight = ir.VectorType(_WORD, 8)

        def place(array: Any, at: Any, i: int, step: Any) -> Any:
            return builder.gep(array, [builder.add(at, builder.mul(ir.Constant(_LONG, i), step))])

        def mixed(a: Any, b: Any, order: list[int]) -> Any:
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_WORD, 8), order))

        rows = [_aligned(builder, place(source, args[1], i, args[2]), eight) for i in range(8)]
        for gap in (1, 2, 4):  # lanes and rows whose numbers differ in this bit change places
            near = [i if i & gap == 0 else 8 + i - gap for i in range(8)]
            far = [i + gap if i & gap == 0 else 8 + i for i in range(8)]
            made = list(rows)
            for i in range(8):
                if i & gap == 0:
                    made[i], made[i + gap] = (mixed(rows[i], rows[i + gap], order) for order in (near, far))
            rows = made
        for i, row in enumerate(rows):
            stored = builder.store(row, builder.bitcast(place(out, args[4], i, args[5]), eight.as_pointer()))
            stored.align = 4
        return context.get_dummy_value()

    long = types.intp
    return types.void(source, long, long, out, long, long), generate


# Intrinsics are called without their first argument, which a type checker cannot know.
product: Any = _tile(_fused, False)
squares: Any = _tile(_fused, True)
pairs: Any = _tile(_pairs, False)
turn8: Any = _turn
