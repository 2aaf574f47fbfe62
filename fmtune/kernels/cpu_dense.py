r"""Learn and score on the CPU over dense rows: the pass is two matrix products, over all lanes of a pack at once.

A lane's parameters are a block of the arena, float32 of shape (planes, feature_dim, num_factors + 1): its factors,
then its linear weights.  Where factors share one number of state there is plane 0 alone, and a feature has two more
numbers in it: the state of its linear weight, and that of its factors.  With ``T`` the parameters of all lanes side by
side::

    S = X T        z = w0 + S_linear + 1/2 (sum_f S_f^2 - sum_i x_i^2 |v_i|^2)
    G = X' E       with E = [e S_f ..., e]:  g_if = G_if - v_if sum_b e_b x_bi^2,  g_i = G_i,linear

The products are our own (:func:`_product`): each of their entries is one sum in the order of its terms, whatever stands
beside it, so a lane's bits do not depend on its neighbours, on the rows that share its pass, or on threads.  A BLAS
promises none of that, and was no faster here at the widths of packs.

Columns of the products: each lane's whole eights of factors first, then each lane's other factors and its linear
weight, then zeros up to a multiple of eight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fmtune.kernels.losses import slope
from fmtune.kernels.rowwise import move_dense
from fmtune.kernels.rules import correction, pulled
from fmtune.kernels.simd import fma8, load8, splat8, spread8, store8, sum8
from fmtune.kernels.steps import settings, step1, step8

STRIP = 16
# Terms of a sum between two stores: a strip of so many rows stays in the second cache.
_TERMS = 1024


class Lanes(NamedTuple):
    """The lanes of a pack, as arrays.

    ``offset`` (int64, (lanes,)): where in the arena the lane's block begins; ``factors`` (int64, (lanes,)); ``eights``
    and ``tail`` (int64, (lanes,)): its first column in the products, and that of the factors after the last whole
    eight; ``bias`` (float32, (lanes, 1 + states)); ``steps`` (int64, (lanes,)); ``knobs`` (float32, (lanes, 3, 6)): for
    bias, linear and factors: rate, decay, rescale, clip, eps, l1; ``decays`` (float32, (features,) or None): factors of
    the features' decay.
    """

    offset: NDArray[np.int64]
    factors: NDArray[np.int64]
    eights: NDArray[np.int64]
    tail: NDArray[np.int64]
    bias: NDArray[np.float32]
    steps: NDArray[np.int64]
    knobs: NDArray[np.float32]
    decays: NDArray[np.float32] | None


class Batches(NamedTuple):
    """Rows in training order: ``matrix`` (float32, (n, feature_dim)), ``labels`` (float32, (n,)), ``rows``
    (int64, (batches + 1,)), ``touched`` (bool, (batches, feature_dim)): columns not all zero in the batch, and
    ``weights`` (float32, (n,) or (0,)): factors of the rows' slopes; none is 1."""

    matrix: NDArray[np.float32]
    labels: NDArray[np.float32]
    rows: NDArray[np.int64]
    touched: NDArray[np.bool_]
    weights: NDArray[np.float32]


@njit(cache=True, nogil=True)
def _product(x, at, n, terms, row, term, strips, columns, out):  # type: ignore[no-untyped-def]
    """Write ``out[r, c] = sum_t x[at + r * row + t * term] * right[t, c]`` (float32, (n, columns)).

    ``right`` lies in strips of 16 columns, one after the other, float32 (strips, terms, 16).  Six rows times sixteen
    columns are summed at a time: twelve registers of sums, for two of the strip and one entry of ``x``.
    """
    zero = splat8(np.float32(0.0))
    for c in range(0, columns, 16):
        two = c + 16 <= columns
        for first in range(0, terms, _TERMS):
            last = min(terms, first + _TERMS)
            r = 0
            while r + 6 <= n:
                a0 = a1 = a2 = a3 = a4 = a5 = b0 = b1 = b2 = b3 = b4 = b5 = zero
                p = r * columns + c
                if first > 0:
                    a0, a1, a2 = load8(out, p), load8(out, p + columns), load8(out, p + 2 * columns)
                    a3, a4, a5 = load8(out, p + 3 * columns), load8(out, p + 4 * columns), load8(out, p + 5 * columns)
                    if two:
                        p += 8
                        b0, b1, b2 = load8(out, p), load8(out, p + columns), load8(out, p + 2 * columns)
                        b3, b4 = load8(out, p + 3 * columns), load8(out, p + 4 * columns)
                        b5 = load8(out, p + 5 * columns)
                        p -= 8
                for t in range(first, last):
                    u, v = load8(strips, c * terms + 16 * t), load8(strips, c * terms + 16 * t + 8)
                    o = at + r * row + t * term
                    y = spread8(x, o)
                    a0, b0 = fma8(y, u, a0), fma8(y, v, b0)
                    y = spread8(x, o + row)
                    a1, b1 = fma8(y, u, a1), fma8(y, v, b1)
                    y = spread8(x, o + 2 * row)
                    a2, b2 = fma8(y, u, a2), fma8(y, v, b2)
                    y = spread8(x, o + 3 * row)
                    a3, b3 = fma8(y, u, a3), fma8(y, v, b3)
                    y = spread8(x, o + 4 * row)
                    a4, b4 = fma8(y, u, a4), fma8(y, v, b4)
                    y = spread8(x, o + 5 * row)
                    a5, b5 = fma8(y, u, a5), fma8(y, v, b5)
                store8(out, p, a0)
                store8(out, p + columns, a1)
                store8(out, p + 2 * columns, a2)
                store8(out, p + 3 * columns, a3)
                store8(out, p + 4 * columns, a4)
                store8(out, p + 5 * columns, a5)
                if two:
                    p += 8
                    store8(out, p, b0)
                    store8(out, p + columns, b1)
                    store8(out, p + 2 * columns, b2)
                    store8(out, p + 3 * columns, b3)
                    store8(out, p + 4 * columns, b4)
                    store8(out, p + 5 * columns, b5)
                r += 6
            for rest in range(r, n):
                for half in range(c, min(c + 16, columns), 8):
                    a0 = load8(out, rest * columns + half) if first > 0 else zero
                    for t in range(first, last):
                        u = load8(strips, c * terms + 16 * t + half - c)
                        a0 = fma8(spread8(x, at + rest * row + t * term), u, a0)
                    store8(out, rest * columns + half, a0)


@njit(inline="always")
def _strip(column, terms):  # type: ignore[no-untyped-def]
    """Return where in the strips the first entry of a column is; the next one lies 16 floats on."""
    return (column // 16) * 16 * terms + column % 16


@njit(inline="always")
def _lay_out(arena, lanes, more, d, strips, q):  # type: ignore[no-untyped-def]
    """Copy plane 0 of all lanes into strips, and the factors' squared lengths into ``q`` (float32, (lanes * d,)).

    A feature has ``more`` numbers after its linear weight.
    """
    for lane in range(len(lanes.offset)):
        factors, p = lanes.factors[lane], lanes.offset[lane]
        whole = factors - factors % 8
        for i in range(d):
            total, rest = splat8(np.float32(0.0)), np.float32(0.0)
            for f in range(0, whole, 8):
                part = load8(arena, p + f)
                total = total + part * part
                store8(strips, _strip(lanes.eights[lane] + f, d) + 16 * i, part)
            for f in range(whole, factors):
                rest += arena[p + f] * arena[p + f]
            for f in range(whole, factors + 1):
                strips[_strip(lanes.tail[lane] + f - whole, d) + 16 * i] = arena[p + f]
            q[lane * d + i] = sum8(total) + rest
            p += factors + 1 + more


@njit(inline="always")
def _thin(x, at, q, begin, d):  # type: ignore[no-untyped-def]
    """Return the sum over features of ``x**2 * q``: whole eights side by side, then the rest."""
    total = splat8(np.float32(0.0))
    whole = d - d % 8
    for i in range(0, whole, 8):
        part = load8(x, at + i)
        total = fma8(part * part, load8(q, begin + i), total)
    rest = np.float32(0.0)
    for i in range(whole, d):
        rest += (x[at + i] * x[at + i]) * q[begin + i]
    return sum8(total) + rest


@njit(inline="always")
def _thin_back(x, at, n, d, e, weight):  # type: ignore[no-untyped-def]
    """Write ``sum_b e[b] * x[at + b * d + i]**2`` into ``weight`` (float32, (d,)), four rows at a time."""
    weight[:] = np.float32(0.0)
    whole = d - d % 8
    b = 0
    while b < n:
        four = b + 4 <= n
        p = at + b * d
        for i in range(0, whole, 8):
            total, part = load8(weight, i), load8(x, p + i)
            total = fma8(part * part, splat8(e[b]), total)
            if four:
                part = load8(x, p + d + i)
                total = fma8(part * part, splat8(e[b + 1]), total)
                part = load8(x, p + 2 * d + i)
                total = fma8(part * part, splat8(e[b + 2]), total)
                part = load8(x, p + 3 * d + i)
                total = fma8(part * part, splat8(e[b + 3]), total)
            store8(weight, i, total)
        step = 4 if four else 1
        for i in range(whole, d):
            for r in range(step):
                weight[i] += (x[p + r * d + i] * x[p + r * d + i]) * e[b + r]
        b += step


@njit(inline="always")
def _score(lanes, lane, s, base, thin):  # type: ignore[no-untyped-def]
    """Return a row's score, given its products ``s[base:]`` and its thin product."""
    factors, total, rest = lanes.factors[lane], splat8(np.float32(0.0)), np.float32(0.0)
    whole, tail = factors - factors % 8, base + lanes.tail[lane]
    for f in range(0, whole, 8):
        part = load8(s, base + lanes.eights[lane] + f)
        total = total + part * part
    for f in range(factors - whole):
        rest += s[tail + f] * s[tail + f]
    pairs = sum8(total) + rest - thin
    return lanes.bias[lane, 0] + s[tail + factors - whole] + np.float32(0.5) * pairs


@njit(inline="always")
def _columns(lanes):  # type: ignore[no-untyped-def]
    """Return the columns of the products, up to a multiple of eight."""
    total = np.int64(0)
    for factors in lanes.factors:
        total += factors + 1
    return total + -total % 8


@njit(cache=True, nogil=True)
def score(arena, more, lanes, matrix, out, block):  # type: ignore[no-untyped-def]
    """Write raw scores into ``out`` (float32, (lanes, rows)), ``block`` rows at a time.

    ``more`` as in :func:`learn`.
    """
    n, d = matrix.shape
    columns, x = _columns(lanes), matrix.ravel()
    strips, q = np.zeros((columns + 8) * d, np.float32), np.empty(len(lanes.offset) * d, np.float32)
    s = np.empty(min(n, block) * columns, np.float32)
    _lay_out(arena, lanes, more, d, strips, q)
    for start in range(0, n, block):
        m = min(block, n - start)
        _product(x, start * d, m, d, d, 1, strips, columns, s)
        for b in range(m):
            for lane in range(len(lanes.offset)):
                thin = _thin(x, (start + b) * d, q, lane * d, d)
                out[lane, start + b] = _score(lanes, lane, s, b * columns, thin)


@njit(inline="always")
def _errors(lanes, lane, s, base, strips, n, b, e):  # type: ignore[no-untyped-def]
    """Write a row of ``E`` into the strips: its products times its slope, and the slope."""
    factors = lanes.factors[lane]
    whole, tail = factors - factors % 8, lanes.tail[lane]
    for f in range(0, whole, 8):
        c = lanes.eights[lane] + f
        store8(strips, _strip(c, n) + 16 * b, load8(s, base + c) * e)
    for f in range(factors - whole):
        strips[_strip(tail + f, n) + 16 * b] = s[base + tail + f] * e
    strips[_strip(tail + factors - whole, n) + 16 * b] = e


@njit(inline="always")
def _move(rule, lazy, share, arena, planes, more, lanes, lane, d, touched, g, columns, weight, rate, moves):  # type: ignore[no-untyped-def]
    """Apply the rule to all of a lane's weights and factors."""
    factors, at, tail = lanes.factors[lane], lanes.offset[lane], lanes.tail[lane]
    whole, width, knobs = factors - factors % 8, factors + 1 + more, lanes.knobs
    own, away = settings(knobs, lane, 2), d * width if share is None else 1
    for i in range(d):
        if lazy and not touched[i]:
            continue
        p, row = at + i * width, i * columns
        w = pulled(weight[i], np.float32(-1.0), lanes.decays, i, knobs[lane, 2, 1], knobs[lane, 2, 2])
        linear = g[row + tail + factors - whole]
        linear = pulled(linear, arena[p + factors], lanes.decays, i, knobs[lane, 1, 1], knobs[lane, 1, 2])
        if share is not None:
            move_dense(arena, p, lanes, lane, share, g, row + lanes.eights[lane], row + tail, w, rate[2], moves)
        else:
            for f in range(0, whole, 8):
                move = load8(g, row + lanes.eights[lane] + f) - load8(arena, p + f) * w
                step8(rule, arena, p + f, away, move, rate[2], own)
            for f in range(whole, factors):
                move = g[row + tail + f - whole] - arena[p + f] * w
                step1(rule, arena, p + f, away, move, rate[2], own)
        step1(rule, arena, p + factors, away, linear, rate[1], settings(knobs, lane, 1))


@njit(cache=True, nogil=True)
def learn(rule, loss, lazy, share, arena, planes, more, lanes, batches, first, last, scores):  # type: ignore[no-untyped-def]
    """Train all lanes on mini-batches ``first`` to ``last`` (exclusive).

    Parameters
    ----------
    rule, loss : int
        Codes of ``RULES`` and ``losses.CODES``.
    lazy : bool
        Whether columns that are all zero in a mini-batch stay as they are.
    share : float32 (lanes,) or None
        One over the number of a lane's factors, 0 where it has none, where they share their state; None where each has
        its own, which is known when the kernel is compiled.
    arena : float32 (size,)
    planes, more : int
        1 + the rule's number of states, and 0; or where factors share their state 1 and 2.
    lanes : Lanes
    batches : Batches
    scores : float32 (lanes, rows of the batches or 0)
        Receives each row's score before its mini-batch's update, unless it is empty.
    """
    d, columns, n_lanes = batches.matrix.shape[1], _columns(lanes), len(lanes.offset)
    longest = np.int64(0)
    for k in range(first, last):
        longest = max(longest, batches.rows[k + 1] - batches.rows[k])
    x, begin, weighted = batches.matrix.ravel(), batches.rows[first], len(batches.weights) > 0
    theta, errors = np.zeros((columns + 8) * d, np.float32), np.zeros((columns + 8) * longest, np.float32)
    s, g = np.empty(longest * columns, np.float32), np.empty(d * columns, np.float32)
    q, weight, rate = np.empty(n_lanes * d, np.float32), np.empty(d, np.float32), np.empty(3, np.float32)
    e, total = np.empty((n_lanes, longest), np.float32), np.empty(n_lanes, np.float64)
    moves, bias = np.empty(columns, np.float32), lanes.bias.ravel()
    for k in range(first, last):
        r0 = batches.rows[k]
        n = batches.rows[k + 1] - r0
        _lay_out(arena, lanes, more, d, theta, q)
        _product(x, r0 * d, n, d, d, 1, theta, columns, s)
        total[:] = 0.0
        for b in range(n):
            for lane in range(n_lanes):
                z = _score(lanes, lane, s, b * columns, _thin(x, (r0 + b) * d, q, lane * d, d))
                if scores.shape[1] > 0:
                    scores[lane, r0 - begin + b] = z
                error = slope(loss, z, batches.labels[r0 + b])
                if weighted:
                    error *= batches.weights[r0 + b]
                e[lane, b] = error
                total[lane] += error
                _errors(lanes, lane, s, b * columns, errors, n, b, error)
        _product(x, r0 * d, d, n, 1, d, errors, columns, g)
        for lane in range(n_lanes):
            lanes.steps[lane] += 1
            factor = correction(rule, lanes.steps[lane])
            for array in range(3):
                rate[array] = lanes.knobs[lane, array, 0] * factor
            own, at = settings(lanes.knobs, lane, 0), lane * lanes.bias.shape[1]
            step1(rule, bias, at, 1, np.float32(total[lane]), rate[0], own)
            _thin_back(x, r0 * d, n, d, e[lane], weight)
            touched = batches.touched[k]
            _move(rule, lazy, share, arena, planes, more, lanes, lane, d, touched, g, columns, weight, rate, moves)
