"""Tiles: the innermost loop of a product of matrices, with all of its sums in registers.

A tile is some vectors of neighbouring sums (rows of a mini-batch, or features) times some columns.  It runs over the
terms: each time it loads the vectors of the left side once, and for each column one number of the right side, which is
multiplied with all of them.  The loops are made here for every shape, because a compiler keeps sums in registers only
where their number is known.

    out[c, v] += sum_t left[t, v] * right[c, t]

Numbers are float32, or pairs of bfloat16 in 32 bits, whose products take half the time on CPUs that have them.  A sum
of float32 is one chain of fused multiply-adds in the order of its terms, so its bits do not depend on the tile's shape.
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
    said = cpu_target.target_context.codegen().magic_tuple()[2]
    return frozenset(word[1:] for word in said.split(",") if word.startswith("+"))


# Floats of a vector, vectors of a tile, and its columns: as many sums as there are registers, less what is loaded.
WIDTH, VECTORS, COLUMNS = (16, 3, 8) if "avx512f" in features() else (8, 3, 4)


def halves(cpu: frozenset[str] | None = None) -> bool:
    """Return whether a CPU of these features (None: the one that kernels are compiled for) multiplies bfloat16."""
    return {"avx512f", "avx512bf16"} <= (features() if cpu is None else cpu)


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), args)


def _aligned(builder: Any, place: Any, kind: Any) -> Any:
    loaded = builder.load(builder.bitcast(place, kind.as_pointer()))
    loaded.align = 4
    return loaded


def _put(builder: Any, value: Any, place: Any) -> None:
    stored = builder.store(value, builder.bitcast(place, value.type.as_pointer()))
    stored.align = 4


def _at(context: Any, builder: Any, sig: Any, args: Any, i: int) -> Any:
    """Return the address in the array that is argument ``i``, as far from its begin as the next argument says."""
    return builder.gep(context.make_array(sig.args[i])(context, builder, args[i]).data, [args[i + 1]])


def _splatted(builder: Any, scalar: Any) -> Any:
    none = ir.Constant(ir.VectorType(scalar.type, WIDTH), ir.Undefined)
    one = builder.insert_element(none, scalar, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(one, none, ir.Constant(ir.VectorType(_WORD, WIDTH), [0] * WIDTH))


def _fused(builder: Any, x: Any, y: Any, total: Any) -> Any:
    return _call(builder, f"llvm.fma.v{WIDTH}f32", total.type, [x, y, total])


def _dotted(builder: Any, x: Any, y: Any, total: Any) -> Any:
    """Two terms at a time, each side a pair of bfloat16 in 32 bits; sums are float32."""
    return _call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", total.type, [total, x, y])


def _itself(builder: Any, x: Any) -> list[Any]:
    return [x]


def _square(builder: Any, x: Any) -> list[Any]:
    return [builder.fmul(x, x)]


def _pair_of_squares(builder: Any, x: Any) -> list[Any]:
    """The squares of pairs of bfloat16, whose bits are the upper half of a float32's, rounded to pairs again."""
    high = ir.Constant(x.type, [-65536] * WIDTH)
    words = builder.shl(x, ir.Constant(x.type, [16] * WIDTH)), builder.and_(x, high)
    low, high = (builder.bitcast(word, ir.VectorType(_FLOAT, WIDTH)) for word in words)
    halves = ir.VectorType(ir.IntType(16), 32)
    args = [builder.fmul(high, high), builder.fmul(low, low)]
    both = _call(builder, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", halves, args)
    order = [i // 2 + 16 * (i % 2) for i in range(32)]
    return [builder.bitcast(_mixed(builder, both, both, order), x.type)]


def _loop(builder: Any, given: Any, vectors: int, columns: int, read: Any, add: Any) -> None:
    """Emit the loop of one shape; the builder stands behind it afterwards."""
    left, step, right, across, along, terms, out, down = given
    vector, sums = ir.VectorType(left.type.pointee, WIDTH), ir.VectorType(_FLOAT, WIDTH)

    def place(array: Any, c: int, gap: Any, more: int = 0) -> Any:
        return builder.gep(array, [builder.add(builder.mul(ir.Constant(_LONG, c), gap), ir.Constant(_LONG, more))])

    places = [place(out, c, down, WIDTH * v) for c in range(columns) for v in range(vectors)]
    begins = [place(right, c, across) for c in range(columns)]
    first = [_aligned(builder, place, sums) for place in places]
    before, body, behind = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(body)
    builder.position_at_end(body)
    t, at, offset = builder.phi(_LONG), builder.phi(left.type), builder.phi(_LONG)
    total = [builder.phi(sums) for _ in places]
    new: list[Any] = list(total)
    x = [read(builder, _aligned(builder, place(at, v, ir.Constant(_LONG, WIDTH)), vector)) for v in range(vectors)]
    for c in range(columns):
        for i in range(len(x[0])):
            number = builder.load(builder.gep(begins[c], [builder.add(offset, ir.Constant(_LONG, i))]))
            y = _splatted(builder, number)
            for v in range(vectors):
                new[c * vectors + v] = add(builder, x[v][i], y, new[c * vectors + v])
    zero, after = ir.Constant(_LONG, 0), builder.add(t, ir.Constant(_LONG, 1))
    nexts = [after, builder.gep(at, [step]), builder.add(offset, along), *new]
    for phi, start, now in zip([t, at, offset, *total], [zero, left, zero, *first], nexts, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(now, body)
    builder.cbranch(builder.icmp_signed("<", after, terms), body, behind)
    builder.position_at_end(behind)
    for target, value in zip(places, new, strict=True):
        _put(builder, value, target)


def _shapes(module: Any, name: str, given: Any, read: Any, add: Any) -> Any:
    """Return a function with the loops of all shapes.

    It stands apart: copied into each kernel that calls it, and its short loops unrolled, it took seconds to compile.
    """
    kind = ir.FunctionType(ir.VoidType(), [*(a.type for a in given), _LONG])
    function = ir.Function(module, kind, name)
    function.linkage = "linkonce_odr"
    for word in ("noinline", "optsize"):
        function.attributes.add(word)
    builder = ir.IRBuilder(function.append_basic_block())
    end = function.append_basic_block()
    choice = builder.switch(function.args[-1], end)
    for m in (1, VECTORS):
        for n in range(1, COLUMNS + 1):
            block = function.append_basic_block()
            choice.add_case(ir.Constant(_LONG, 64 * m + n), block)
            builder.position_at_end(block)
            _loop(builder, function.args[:-1], m, n, read, add)
            builder.branch(end)
    builder.position_at_end(end)
    builder.ret_void()
    return function


def _tile(read: Any, add: Any) -> Any:
    """Return the intrinsic ``(left, at, step, right, at, across, along, terms, out, at, down, vectors, columns)``.

    ``left[at + t * step + v]``, ``right[at + c * across + t * along]`` and ``out[at + c * down + v]``, all flat arrays;
    ``vectors`` is 1 or ``VECTORS``, ``columns`` 1 to ``COLUMNS``, ``terms`` at least 1.
    """

    @intrinsic
    def tile(
        typing_context: Any, left: Any, l0: Any, step: Any, right: Any, r0: Any, across: Any, along: Any, terms: Any,
        out: Any, o0: Any, down: Any, vectors: Any, columns: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            starts = [_at(context, builder, sig, args, i) for i in (0, 3, 8)]
            given = (starts[0], args[2], starts[1], args[5], args[6], args[7], starts[2], args[10])
            shape = builder.add(builder.mul(args[11], ir.Constant(_LONG, 64)), args[12])
            name = f"fmtune_tile_{read.__name__}{add.__name__}"
            function = builder.module.globals.get(name) or _shapes(builder.module, name, given, read, add)
            builder.call(function, [*given, shape])
            return context.get_dummy_value()

        long = types.intp
        return types.void(left, long, long, right, long, long, long, long, out, long, long, long, long), generate

    return tile


def _mixed(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_WORD, len(order)), order))


@intrinsic
def _turn(typing_context: Any, source: Any, s0: Any, stride: Any, out: Any, o0: Any, down: Any) -> Any:
    """Eight runs of eight numbers of 32 bits, turned."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        begin, target = (_at(context, builder, sig, args, i) for i in (0, 3))
        gaps = [[builder.mul(ir.Constant(_LONG, i), args[k]) for i in range(8)] for k in (2, 5)]
        rows = [_aligned(builder, builder.gep(begin, [gap]), ir.VectorType(_WORD, 8)) for gap in gaps[0]]
        for bit in (1, 2, 4):  # of numbers that differ in this bit, row and place are exchanged
            near = [i if i & bit == 0 else 8 + i - bit for i in range(8)]
            far = [i + bit if i & bit == 0 else 8 + i for i in range(8)]
            made = list(rows)
            for i in range(8):
                if i & bit == 0:
                    made[i], made[i + bit] = (_mixed(builder, rows[i], rows[i + bit], o) for o in (near, far))
            rows = made
        for row, gap in zip(rows, gaps[1], strict=True):
            _put(builder, row, builder.gep(target, [gap]))
        return context.get_dummy_value()

    long = types.intp
    return types.void(source, long, long, out, long, long), generate


def _halved(builder: Any, begin: Any) -> Any:
    """Sixteen float32 as bfloat16, rounded to the nearest, ties to even: 16 numbers of 16 bits."""
    loaded = _aligned(builder, begin, ir.VectorType(_FLOAT, 16))
    half = ir.VectorType(ir.IntType(16), 16)
    return _call(builder, "llvm.x86.avx512bf16.cvtneps2bf16.512", half, [loaded])


@intrinsic
def _halve(typing_context: Any, source: Any, s0: Any, out: Any, o0: Any) -> Any:
    """Sixteen float32 to eight pairs."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        begin, target = (_at(context, builder, sig, args, i) for i in (0, 2))
        _put(builder, builder.bitcast(_halved(builder, begin), ir.VectorType(_WORD, 8)), target)
        return context.get_dummy_value()

    return types.void(source, types.intp, out, types.intp), generate


@intrinsic
def _braid(typing_context: Any, a: Any, a0: Any, b: Any, b0: Any, out: Any, o0: Any) -> Any:
    """Eight pairs of one row and eight of the next to sixteen pairs, each of one feature in both rows."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        halves = ir.VectorType(ir.IntType(16), 16)
        x, y = (_aligned(builder, _at(context, builder, sig, args, i), halves) for i in (0, 2))
        order = [i // 2 + 16 * (i % 2) for i in range(32)]
        _put(builder, _mixed(builder, x, y, order), _at(context, builder, sig, args, 4))
        return context.get_dummy_value()

    return types.void(a, types.intp, b, types.intp, out, types.intp), generate


# Intrinsics are called without their first argument, which a type checker cannot know.
product: Any = _tile(_itself, _fused)
squares: Any = _tile(_square, _fused)
pairs: Any = _tile(_itself, _dotted)
squares_of_pairs: Any = _tile(_pair_of_squares, _dotted)
turn8: Any = _turn
halve16: Any = _halve
braid16: Any = _braid
