"""Steps: a rule of ``RULES`` applied to parameters where they lie, eight at a time or one.

``knobs`` is float32 (lanes, 3, 6): for bias, linear weights and factors: rate, decay, rescale, clip, eps, l1.
"""

from __future__ import annotations

from numba import njit

from fmtune.kernels.rules import ADAGRAD, ADAM, FTRL, adagrad, adam, decayed, ftrl, sgd
from fmtune.kernels.simd import load8, store8


@njit(inline="always")
def settings(knobs, lane, array):  # type: ignore[no-untyped-def]
    """Return decay, rescale, clip, eps and l1, read once: a loop that stores would read them again each time."""
    # By number and not by a view: numba counts the views of an array, and that waits for every store under way.
    decay, rescale, clip = knobs[lane, array, 1], knobs[lane, array, 2], knobs[lane, array, 3]
    return decay, rescale, clip, knobs[lane, array, 4], knobs[lane, array, 5]


@njit(inline="always")
def step8(rule, arena, p, stride, gradient, rate, own):  # type: ignore[no-untyped-def]
    """Move the eight parameters at place ``p`` of the arena; their states lie ``stride`` floats further on each.

    ``own`` is of :func:`settings`.
    """
    decay, rescale, clip, eps, l1 = own
    theta = load8(arena, p)
    g = decayed(gradient, theta, rescale, decay, clip)
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
def step(rule, theta, a, b, gradient, rate, eps, l1):  # type: ignore[no-untyped-def]
    """Return a parameter and its states after one update; states that the rule has not come back as they came."""
    if rule == ADAM:
        return adam(theta, a, b, gradient, rate, eps, l1)
    if rule == ADAGRAD:
        return adagrad(theta, a, b, gradient, rate, eps, l1)
    if rule == FTRL:
        return ftrl(theta, a, b, gradient, rate, eps, l1)
    return sgd(theta, a, b, gradient, rate, eps, l1)


@njit(inline="always")
def step1(rule, arena, p, stride, gradient, rate, own):  # type: ignore[no-untyped-def]
    """Move one parameter, as :func:`step8` does eight."""
    decay, rescale, clip, eps, l1 = own
    theta = arena[p]
    g = decayed(gradient, theta, rescale, decay, clip)
    if rule == ADAM:
        theta, a, b = adam(theta, arena[p + stride], arena[p + 2 * stride], g, rate, eps, l1)
        arena[p + stride] = a
        arena[p + 2 * stride] = b
    elif rule == ADAGRAD:
        theta, a, b = adagrad(theta, arena[p + stride], theta, g, rate, eps, l1)
        arena[p + stride] = a
    elif rule == FTRL:
        theta, a, b = ftrl(theta, arena[p + stride], arena[p + 2 * stride], g, rate, eps, l1)
        arena[p + stride] = a
        arena[p + 2 * stride] = b
    else:
        theta, a, b = sgd(theta, theta, theta, g, rate, eps, l1)
    arena[p] = theta
