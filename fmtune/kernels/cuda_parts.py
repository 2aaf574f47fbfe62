"""What the CUDA rooms share: a rule applied to one number, columns copied, and rounding to tf32.

Imported only where a card is asked for (with ``cuda_sparse`` and ``cuda_dense``): numba's CUDA takes half a second.
Kernels are compiled at their first launch, never at import, so importing them needs no card.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from fmtune.kernels.cuda_quads import SIMULATED, load4, store4
from fmtune.kernels.rules import apart, decayed
from fmtune.kernels.steps import step

# Threads of a block, and blocks at most; the simulator makes a Python thread of each thread.
THREADS = 8 if SIMULATED else 128
_BLOCKS = 2 if SIMULATED else 65535

_HALF = np.int32(0x0FFF)
_KEPT = np.int32(-0x2000)


class Lanes(NamedTuple):
    """The lanes of a pack, on the card.

    ``owner`` (int32, (columns / 4,)): the lane of four factor columns, -1 for four linear ones, where those lie
    apart; ``first`` and ``last`` (int32, (lanes,)): its factor columns; ``linear`` (int32, (lanes,)): its linear
    column; ``bias`` (float32, (planes, lanes)); ``knobs`` (float32, (lanes, 3, k)): see ``kernels.steps``; ``began``
    (int32, (lanes,)): updates done before mini-batch 0; ``corrections`` (float32, (n,)): factor of the rate at update
    1, 2, ... (``rules.correction``, computed in float64 on the host); ``decays`` (float32, (features,) or (0,)):
    factors of the features' decay.
    """

    owner: Any
    first: Any
    last: Any
    linear: Any
    bias: Any
    knobs: Any
    began: Any
    corrections: Any
    decays: Any


@cuda.jit(device=True)
def moved(rule, theta, a, b, gradient, lanes, lane, array, k):  # type: ignore[no-untyped-def]
    """Return a parameter and its two states after update ``k`` of the pass; ``array``: 0 bias, 1 linear, 2 factors."""
    knobs = lanes.knobs
    rate = knobs[lane, array, 0] * lanes.corrections[lanes.began[lane] + k]
    g = decayed(gradient, theta, knobs[lane, array, 2], knobs[lane, array, 1], knobs[lane, array, 3])
    return step(rule, theta, a, b, g, rate, knobs[lane, array, 4], knobs[lane, array, 5])


@cuda.jit(device=True)
def move1(rule, arena, at, stride, planes, gradient, lanes, feature, lane, array, k):  # type: ignore[no-untyped-def]
    """Apply a rule to the parameter at ``at`` of an arena, whose states lie ``stride`` floats further on each."""
    theta = a = b = arena[at]
    if planes > 1:
        a = arena[at + stride]
    if planes > 2:
        b = arena[at + 2 * stride]
    if len(lanes.decays) > 0:
        gradient += apart(lanes.decays[feature], lanes.knobs[lane, array, 1], lanes.knobs[lane, array, 2]) * theta
    theta, a, b = moved(rule, theta, a, b, gradient, lanes, lane, array, k)
    arena[at] = theta
    if planes > 1:
        arena[at + stride] = a
    if planes > 2:
        arena[at + 2 * stride] = b
    return theta


@cuda.jit(device=True)
def move4(rule, arena, at, stride, planes, g0, g1, g2, g3, lanes, feature, lane, k):  # type: ignore[no-untyped-def]
    """Do what :func:`move1` does to four factors of a lane, and return them."""
    t0, t1, t2, t3 = load4(arena, at)
    a0, a1, a2, a3 = t0, t1, t2, t3
    b0, b1, b2, b3 = t0, t1, t2, t3
    if planes > 1:
        a0, a1, a2, a3 = load4(arena, at + stride)
    if planes > 2:
        b0, b1, b2, b3 = load4(arena, at + 2 * stride)
    if len(lanes.decays) > 0:
        own = apart(lanes.decays[feature], lanes.knobs[lane, 2, 1], lanes.knobs[lane, 2, 2])
        g0, g1, g2, g3 = g0 + own * t0, g1 + own * t1, g2 + own * t2, g3 + own * t3
    t0, a0, b0 = moved(rule, t0, a0, b0, g0, lanes, lane, 2, k)
    t1, a1, b1 = moved(rule, t1, a1, b1, g1, lanes, lane, 2, k)
    t2, a2, b2 = moved(rule, t2, a2, b2, g2, lanes, lane, 2, k)
    t3, a3, b3 = moved(rule, t3, a3, b3, g3, lanes, lane, 2, k)
    store4(arena, at, t0, t1, t2, t3)
    if planes > 1:
        store4(arena, at + stride, a0, a1, a2, a3)
    if planes > 2:
        store4(arena, at + 2 * stride, b0, b1, b2, b3)
    return t0, t1, t2, t3


@cuda.jit(device=True)
def move_bias(rule, lanes, lane, gradient, k):  # type: ignore[no-untyped-def]
    """Apply a rule to one lane's bias."""
    bias = lanes.bias
    second, third = min(1, len(bias) - 1), min(2, len(bias) - 1)
    theta, a, b = moved(rule, bias[0, lane], bias[second, lane], bias[third, lane], gradient, lanes, lane, 0, k)
    # From the last plane to the first: where two are the same, what belongs there is written last.
    bias[third, lane] = b
    bias[second, lane] = a
    bias[0, lane] = theta


@cuda.jit(device=True)
def rounded(x):  # type: ignore[no-untyped-def]
    """Return a float32 rounded to tf32's eleven bits, ties away from zero: a tensor core multiplies them exactly."""
    bits = np.float32(x).view(np.int32)
    return np.int32(np.int32(bits + np.int32(_HALF + np.int32(1))) & _KEPT).view(np.float32)


@cuda.jit
def fill(flat, value):  # type: ignore[no-untyped-def]
    """Set every element of an array of one dimension."""
    i, step = cuda.grid(1), cuda.gridsize(1)
    while i < len(flat):
        flat[i] = value
        i += step


@cuda.jit
def copy_columns(source, at, target, to, width):  # type: ignore[no-untyped-def]
    """Copy ``width`` columns from ``at`` on to ``to`` on, between matrices of equally many rows."""
    i, step = cuda.grid(1), cuda.gridsize(1)
    while i < source.shape[0] * width:
        row, c = i // width, i % width
        target[row, to + c] = source[row, at + c]
        i += step


def blocks(items: int, threads: int = THREADS) -> int:
    """Return how many blocks a kernel over so many items gets; it goes on by strides where that is not one each."""
    return max(1, min(-(-items // threads), _BLOCKS))


def flat(array: Any) -> Any:
    """Return a contiguous array on the card as one of one dimension."""
    return array.reshape(array.size)
