"""Steps: a rule of ``RULES`` applied to parameters where they lie, eight at a time or one.

``knobs`` is float32 (lanes, 3, 6): for bias, linear weights and factors: rate, decay, rescale, clip, eps, l1.
"""

from __future__ import annotations

from numba import njit

from fmtune.kernels.rules import ADAGRAD, ADAM, FTRL, adagrad, adam, decayed, ftrl, sgd
from fmtune.kernels.simd import load8, store8


@njit(inline="always")
def step8(rule, arena, p, stride, gradient, rate, knobs, lane, array):  # type: ignore[no-untyped-def]
    """Move the eight parameters at place ``p`` of the arena; their states lie ``stride`` floats further on each."""
    theta = load8(arena, p)
    g = decayed(gradient, theta, knobs[lane, array, 2], knobs[lane, array, 1], knobs[lane, array, 3])
    eps, l1 = knobs[lane, array, 4], knobs[lane, array, 5]
    if rule == ADAM:
        theta, a, b = adam(theta, load8(arena, p + stride), load8(arena, p + 2 * stride), g, rate, eps, l1)
        store8(arena, p + stride, a)
        store8(arena, p + 2 * stride, b)
    elif rule == ADAGRAD:
        theta, a, b = adagrad(theta, load8(arena, p + stride), theta, g, rate, eps, l1)
        store8(arena, p + stride, a)
    elif rule == FTRL:
        theta, a, b = ftrl(theta, load8(arena, p + stride), load8(arena, p + 2 * stride), g, rate, eps, l1)
        store8(arena, p + stride, a)
        store8(arena, p + 2 * stride, b)
    else:
        theta, a, b = sgd(theta, theta, theta, g, rate, eps, l1)
    store8(arena, p, theta)


@njit(inline="always")
def step1(rule, plane0, plane1, plane2, i, gradient, rate, knobs, lane, array):  # type: ignore[no-untyped-def]
    """Move one parameter, given its planes as arrays; planes that the rule has not are the last that it has."""
    g = decayed(gradient, plane0[i], knobs[lane, array, 2], knobs[lane, array, 1], knobs[lane, array, 3])
    eps, l1 = knobs[lane, array, 4], knobs[lane, array, 5]
    theta, a, b = plane0[i], plane1[i], plane2[i]
    if rule == ADAM:
        theta, a, b = adam(theta, a, b, g, rate, eps, l1)
    elif rule == ADAGRAD:
        theta, a, b = adagrad(theta, a, b, g, rate, eps, l1)
        b = a
    elif rule == FTRL:
        theta, a, b = ftrl(theta, a, b, g, rate, eps, l1)
    else:
        theta, a, b = sgd(theta, a, b, g, rate, eps, l1)
        a = b = theta
    plane2[i] = b
    plane1[i] = a
    plane0[i] = theta
