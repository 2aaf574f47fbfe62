r"""Learn and score on the CPU over dense rows: the pass is matrix products, done by BLAS.

One lane at a time, on blocks of fixed shape, so that a lane's bits do not depend on its neighbours.  A
lane's parameters are a block of the arena, float32 of shape (planes, feature_dim, width): its factors, then
its linear weights, then zero columns up to a multiple of eight.  With ``T`` for plane 0::

    S = X T        z = w0 + S_linear + 1/2 (sum_f S_f^2 - sum_i x_i^2 |v_i|^2)
    G = X' E       with E = [e S_f ..., e]:  g_if = G_if - v_if sum_b e_b x_bi^2,  g_i = G_i,linear

Two products with BLAS; the two thin ones (``x^2`` against one vector) are plain loops in a fixed order.
The caller holds BLAS to one thread: its bits change with the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fmtune.kernels.losses import slope
from fmtune.kernels.rules import correction
from fmtune.kernels.simd import load8, splat8, sum8
from fmtune.kernels.steps import step1, step8

GROUP = 8


class Lanes(NamedTuple):
    """The lanes of a pack, as arrays.

    ``offset`` (int64, (lanes,)): where in the arena the lane's block begins; ``factors`` and ``width``
    (int64, (lanes,)): number of factors, and of columns; ``bias`` (float32, (lanes, planes)); ``steps``
    (int64, (lanes,)); ``knobs`` (float32, (lanes, 3, 6)): for bias, linear and factors: rate, decay,
    rescale, clip, eps, l1.
    """

    offset: NDArray[np.int64]
    factors: NDArray[np.int64]
    width: NDArray[np.int64]
    bias: NDArray[np.float32]
    steps: NDArray[np.int64]
    knobs: NDArray[np.float32]


class Batches(NamedTuple):
    """Rows in training order: ``matrix`` (float32, (n, feature_dim)), ``labels`` (float32, (n,)), ``rows``
    (int64, (batches + 1,)), ``touched`` (bool, (batches, feature_dim)): columns not all zero in the batch, and
    ``weights`` (float32, (n,) or (0,)): factors of the rows' slopes; none is 1."""

    matrix: NDArray[np.float32]
    labels: NDArray[np.float32]
    rows: NDArray[np.int64]
    touched: NDArray[np.bool_]
    weights: NDArray[np.float32]


@njit(inline="always")
def _squares(x, at, n):  # type: ignore[no-untyped-def]
    """Return the sum of squares of ``n`` floats from ``at`` on: whole eights side by side, then the rest."""
    total = splat8(np.float32(0.0))
    whole = n - n % 8
    for i in range(0, whole, 8):
        part = load8(x, at + i)
        total = total + part * part
    rest = np.float32(0.0)
    flat = x.ravel()
    for i in range(whole, n):
        rest += flat[at + i] * flat[at + i]
    return sum8(total) + rest


@njit(inline="always")
def _thin(x, b, q):  # type: ignore[no-untyped-def]
    """Return the sum over features of ``x[b]**2 * q``, in the order of :func:`_squares`."""
    d = len(q)
    total = splat8(np.float32(0.0))
    whole = d - d % 8
    for i in range(0, whole, 8):
        part = load8(x, b * d + i)
        total = total + (part * part) * load8(q, i)
    rest = np.float32(0.0)
    for i in range(whole, d):
        rest += (x[b, i] * x[b, i]) * q[i]
    return sum8(total) + rest


@njit(inline="always")
def _scores(theta, factors, bias, x, n, q, s, z):  # type: ignore[no-untyped-def]
    """Write the raw scores of ``x[:n]`` into ``z`` and the products ``X T`` into ``s[:n]``."""
    width = theta.shape[1]
    np.dot(x[:n], theta, s[:n])
    for i in range(len(theta)):
        q[i] = _squares(theta, i * width, factors)
    for b in range(n):
        pairs = _squares(s, b * width, factors) - _thin(x, b, q)
        z[b] = bias + s[b, factors] + np.float32(0.5) * pairs


@njit(cache=True, nogil=True)
def score(arena, lanes, matrix, out, block):  # type: ignore[no-untyped-def]
    """Write raw scores into ``out`` (float32, (lanes, rows)), ``block`` rows at a time."""
    n, d = matrix.shape
    q, z = np.empty(d, np.float32), np.empty(block, np.float32)
    for lane in range(len(lanes.offset)):
        width, at = lanes.width[lane], lanes.offset[lane]
        theta = arena[at : at + d * width].reshape((d, width))
        s = np.empty((block, width), np.float32)
        for start in range(0, n, block):
            m = min(block, n - start)
            _scores(theta, lanes.factors[lane], lanes.bias[lane, 0], matrix[start : start + m], m, q, s, z)
            for b in range(m):
                out[lane, start + b] = z[b]


@njit(cache=True, nogil=True)
def learn(rule, loss, lazy, arena, planes, lanes, batches, first, last, scores):  # type: ignore[no-untyped-def]
    """Train all lanes on mini-batches ``first`` to ``last`` (exclusive).

    Parameters
    ----------
    rule, loss : int
        Codes of ``RULES`` and ``losses.CODES``.
    lazy : bool
        Whether columns that are all zero in a mini-batch stay as they are.
    arena : float32 (size,)
    planes : int
        1 + the rule's number of states.
    lanes : Lanes
    batches : Batches
    scores : float32 (lanes, rows of the batches or 0)
        Receives each row's score before its mini-batch's update, unless it is empty.
    """
    d = batches.matrix.shape[1]
    longest = 0
    for k in range(first, last):
        longest = max(longest, batches.rows[k + 1] - batches.rows[k])
    q, weight = np.empty(d, np.float32), np.empty(d, np.float32)
    z, rate = np.empty(longest, np.float32), np.empty(3, np.float32)
    begin, second, third, weighted = batches.rows[first], min(1, planes - 1), planes - 1, len(batches.weights) > 0
    for lane in range(len(lanes.offset)):
        width, factors, at = lanes.width[lane], lanes.factors[lane], lanes.offset[lane]
        block = arena[at : at + planes * d * width].reshape((planes, d, width))
        theta = block[0]
        s, g = np.empty((longest, width), np.float32), np.empty((d, width), np.float32)
        whole, bias = factors - factors % 8, lanes.bias[lane]
        for k in range(first, last):
            r0 = batches.rows[k]
            n = batches.rows[k + 1] - r0
            x = batches.matrix[r0 : r0 + n]
            _scores(theta, factors, bias[0], x, n, q, s, z)
            if scores.shape[1] > 0:
                for b in range(n):
                    scores[lane, r0 - begin + b] = z[b]
            total = 0.0
            for i in range(d):
                weight[i] = np.float32(0.0)
            for b in range(n):
                e = slope(loss, z[b], batches.labels[r0 + b])
                if weighted:
                    e *= batches.weights[r0 + b]
                total += e
                for f in range(factors):
                    s[b, f] *= e
                s[b, factors] = e
                for i in range(d):
                    weight[i] += e * (x[b, i] * x[b, i])
            np.dot(x.T, s[:n], g)
            lanes.steps[lane] += 1
            factor = correction(rule, lanes.steps[lane])
            for array in range(3):
                rate[array] = lanes.knobs[lane, array, 0] * factor
            step1(rule, bias[:1], bias[second:], bias[third:], 0, np.float32(total), rate[0], lanes.knobs, lane, 0)
            for i in range(d):
                if lazy and not batches.touched[k, i]:
                    continue
                place = at + i * width
                for f in range(0, whole, 8):
                    move = load8(g, i * width + f) - load8(arena, place + f) * weight[i]
                    step8(rule, arena, place + f, d * width, move, rate[2], lanes.knobs, lane, 2)
                one, two, three = block[0, i], block[second, i], block[third, i]
                for f in range(whole, factors):
                    move = g[i, f] - theta[i, f] * weight[i]
                    step1(rule, one, two, three, f, move, rate[2], lanes.knobs, lane, 2)
                step1(rule, one, two, three, factors, g[i, factors], rate[1], lanes.knobs, lane, 1)
