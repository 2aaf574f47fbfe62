"""Steps: a rule of ``RULES`` applied to parameters where they lie, eight at a time or one.

``knobs`` is float32 (lanes, 3, 5): for bias, linear weights and factors: rate, decay, rescale, clip, eps.
"""

from __future__ import annotations

from numba import njit

from fmtune.kernels.rules import ADAM, adagrad, adam, decayed
from fmtune.kernels.simd import load8, store8


@njit(inline="always")
def step8(rule, arena, p, stride, gradient, rate, knobs, lane, array):  # type: ignore[no-untyped-def]
    """Move the eight parameters at place ``p`` of the arena; their states lie ``stride`` floats further on each."""
    theta = load8(arena, p)
    g = decayed(gradient, theta, knobs[lane, array, 2], knobs[lane, array, 1], knobs[lane, array, 3])
    eps = knobs[lane, array, 4]
    if rule == ADAM:
        theta, a, b = adam(theta, load8(arena, p + stride), load8(arena, p + 2 * stride), g, rate, eps)
        store8(arena, p + stride, a)
        store8(arena, p + 2 * stride, b)
    else:
        theta, a, b = adagrad(theta, load8(arena, p + stride), theta, g, rate, eps)
        store8(arena, p + stride, a)
    store8(arena, p, theta)


@njit(inline="always")
def step1(rule, plane0, plane1, plane2, i, gradient, rate, knobs, lane, array):  # type: ignore[no-untyped-def]
    """Move one parameter, given its planes as arrays (one state: the second and third are the same)."""
    g = decayed(gradient, plane0[i], knobs[lane, array, 2], knobs[lane, array, 1], knobs[lane, array, 3])
    eps = knobs[lane, array, 4]
    if rule == ADAM:
        theta, a, b = adam(plane0[i], plane1[i], plane2[i], g, rate, eps)
        plane2[i] = b
    else:
        theta, a, b = adagrad(plane0[i], plane1[i], plane1[i], g, rate, eps)
    plane0[i] = theta
    plane1[i] = a
