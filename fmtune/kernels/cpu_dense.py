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
from fmtune.kernels.rules import ADAM, adagrad, adam, correction, decayed

GROUP = 8


class Lanes(NamedTuple):
    """The lanes of a pack, as arrays.

    ``offset`` (int64, (lanes,)): where in the arena the lane's block begins; ``factors`` and ``width``
    (int64, (lanes,)): number of factors, and of columns; ``bias`` (float32, (lanes, planes)); ``steps``
    (int64, (lanes,)); ``knobs`` (float32, (lanes, 3, 5)): for bias, linear and factors: rate, decay,
    rescale, clip, eps.
    """

    offset: NDArray[np.int64]
    factors: NDArray[np.int64]
    width: NDArray[np.int64]
    bias: NDArray[np.float32]
    steps: NDArray[np.int64]
    knobs: NDArray[np.float32]


class Batches(NamedTuple):
    """Rows in training order: ``matrix`` (float32, (n, feature_dim)), ``labels`` (float32, (n,)), ``rows``
    (int64, (batches + 1,)), and ``touched`` (bool, (batches, feature_dim)): columns not all zero in the batch."""

    matrix: NDArray[np.float32]
    labels: NDArray[np.float32]
    rows: NDArray[np.int64]
    touched: NDArray[np.bool_]


@njit(inline="always")
def _square_norms(theta, factors, q):  # type: ignore[no-untyped-def]
    """Write each feature's sum of squared factors into ``q`` (float32, (feature_dim,))."""
    for i in range(len(theta)):
        total = np.float32(0.0)
        for f in range(factors):
            total += theta[i, f] * theta[i, f]
        q[i] = total


@njit(inline="always")
def _thin(x, b, q, part):  # type: ignore[no-untyped-def]
    """Return the sum over features of ``x[b]**2 * q``, by eight running sums in a fixed order."""
    d = len(q)
    for j in range(8):
        part[j] = np.float32(0.0)
    whole = d - d % 8
    for i in range(0, whole, 8):
        for j in range(8):
            part[j] += (x[b, i + j] * x[b, i + j]) * q[i + j]
    for i in range(whole, d):
        part[i - whole] += (x[b, i] * x[b, i]) * q[i]
    return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]))


@njit(inline="always")
def _scores(theta, factors, bias, x, n, q, s, part, z):  # type: ignore[no-untyped-def]
    """Write the raw scores of ``x[:n]`` into ``z`` and the products ``X T`` into ``s[:n]``."""
    np.dot(x[:n], theta, s[:n])
    _square_norms(theta, factors, q)
    for b in range(n):
        total = np.float32(0.0)
        for f in range(factors):
            total += s[b, f] * s[b, f]
        z[b] = bias + s[b, factors] + np.float32(0.5) * (total - _thin(x, b, q, part))


@njit(cache=True, nogil=True)
def score(arena, lanes, matrix, out, block):  # type: ignore[no-untyped-def]
    """Write raw scores into ``out`` (float32, (lanes, rows)), ``block`` rows at a time."""
    n, d = matrix.shape
    q, part, z = np.empty(d, np.float32), np.empty(8, np.float32), np.empty(block, np.float32)
    for lane in range(len(lanes.offset)):
        width, at = lanes.width[lane], lanes.offset[lane]
        theta = arena[at : at + d * width].reshape((d, width))
        s = np.empty((block, width), np.float32)
        for start in range(0, n, block):
            m = min(block, n - start)
            _scores(theta, lanes.factors[lane], lanes.bias[lane, 0], matrix[start : start + m], m, q, s, part, z)
            for b in range(m):
                out[lane, start + b] = z[b]


@njit(inline="always")
def _step(rule, theta, a, b, g, rate, knobs):  # type: ignore[no-untyped-def]
    """Return a parameter and its state after one update; ``knobs`` are rate, decay, rescale, clip, eps.

    A rule with one state gives it twice: the caller's two planes are then one.
    """
    g = decayed(g, theta, knobs[2], knobs[1], knobs[3])
    if rule == ADAM:
        return adam(theta, a, b, g, rate, knobs[4])
    theta, a, _ = adagrad(theta, a, b, g, rate, knobs[4])
    return theta, a, a


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
    part, z = np.empty(8, np.float32), np.empty(longest, np.float32)
    begin, state = batches.rows[first], planes - 1
    for lane in range(len(lanes.offset)):
        width, factors, at = lanes.width[lane], lanes.factors[lane], lanes.offset[lane]
        block = arena[at : at + planes * d * width].reshape((planes, d, width))
        theta = block[0]
        s, g = np.empty((longest, width), np.float32), np.empty((d, width), np.float32)
        knobs = lanes.knobs[lane]
        for k in range(first, last):
            r0 = batches.rows[k]
            n = batches.rows[k + 1] - r0
            x = batches.matrix[r0 : r0 + n]
            _scores(theta, factors, lanes.bias[lane, 0], x, n, q, s, part, z)
            if scores.shape[1] > 0:
                for b in range(n):
                    scores[lane, r0 - begin + b] = z[b]
            total = 0.0
            for i in range(d):
                weight[i] = np.float32(0.0)
            for b in range(n):
                e = slope(loss, z[b], batches.labels[r0 + b])
                total += e
                for f in range(factors):
                    s[b, f] *= e
                s[b, factors] = e
                for i in range(d):
                    weight[i] += e * (x[b, i] * x[b, i])
            np.dot(x.T, s[:n], g)
            lanes.steps[lane] += 1
            factor = correction(rule, lanes.steps[lane])
            bias_rate = np.float32(knobs[0, 0] * factor)
            linear_rate = np.float32(knobs[1, 0] * factor)
            factors_rate = np.float32(knobs[2, 0] * factor)
            bias = lanes.bias[lane]
            bias[0], bias[1], bias[state] = _step(rule, bias[0], bias[1], bias[state], np.float32(total), bias_rate,
                                                  knobs[0])
            for i in range(d):
                if lazy and not batches.touched[k, i]:
                    continue
                for f in range(factors):
                    moved = _step(rule, theta[i, f], block[1, i, f], block[state, i, f],
                                  g[i, f] - theta[i, f] * weight[i], factors_rate, knobs[2])
                    theta[i, f], block[1, i, f], block[state, i, f] = moved
                moved = _step(rule, theta[i, factors], block[1, i, factors], block[state, i, factors],
                              g[i, factors], linear_rate, knobs[1])
                theta[i, factors], block[1, i, factors], block[state, i, factors] = moved
