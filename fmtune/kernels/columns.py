r"""Columns: sweeps over the columns of a sparse matrix, for coordinate descent and for Gibbs sampling.

The score is that of a factorization machine (Rendle, 2010), kept for every row while parameters move::

    m_i = b + sum_j w_j x_ij + sum_f ((q_if)^2 - sum_j (v_jf x_ij)^2) / 2        q_if = sum_j v_jf x_ij

It is linear in the factors of one feature: dm_i / dv_jf = h_if = x_ij (q_if - v_jf x_ij) does not hold v_j.  So a
feature's weight, or eight of its factors at once, solve a small linear system whose matrix and right hand side
are sums over the feature's own rows::

    A = precision * sum_i h_i h_i' + P              A v_j = precision * sum_i h_i (e_i + h_i' v_j) + P mu

``precision`` is that of a label, ``P`` and ``mu`` are the prior's, and ``e_i`` is the residual.  Descent takes the
solution, the minimum over these parameters; Gibbs draws from N(solution, A^-1) (Rendle, 2012).  Eight factors
lie in one cache line a row; only the present eight of ``q`` are held.

For log loss the residual is ``4 (y - sigmoid(m))`` and the precision 1/4: half the square of that residual lies
above the loss everywhere and touches it at the present score (Boehning and Lindsay, 1988), so a step that lowers
the one lowers the other.

A column's result depends on its own rows only, and its random numbers on (key, feature, factor): columns without
a common row may be done by several threads, and the bits stay the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fmtune.kernels.random import mix, normal, unit
from fmtune.kernels.simd import load8, splat8, store8, sum8

EIGHT = 8

# Rows whose sums are taken in float32, before they are added in float64.
_BLOCK = 512

# Powers of two within which a column's values are left as they are.
_NEAR = 3.0

# A sum over rows may be taken in vectors: its order then depends on the processor, never on the threads.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


class Columns(NamedTuple):
    """Rows by their columns (CSC): ``indptr`` int64 (d + 1,), ``rows`` int32 (nnz,), ``values`` float32 (nnz,)."""

    indptr: NDArray[np.int64]
    rows: NDArray[np.int32]
    values: NDArray[np.float32]


class Target(NamedTuple):
    """What the scores are fitted to.

    Attributes
    ----------
    residual : float64 (n,)
        Label minus score; with ``logistic``, minus the score.
    labels : float32 (n,)
        Read with ``logistic`` only.
    weights : float32 (n,) or (0,)
        Factor of each row's precision.
    logistic : bool
        Whether the loss is log loss.
    """

    residual: NDArray[np.float64]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    logistic: bool


class Prior(NamedTuple):
    """A Gaussian for each group of features: ``group`` int32 (d,), ``mean`` and ``precision`` float64 (groups, 8)."""

    group: NDArray[np.int32]
    mean: NDArray[np.float64]
    precision: NDArray[np.float64]


@njit(cache=True, nogil=True)
def level(columns):  # type: ignore[no-untyped-def]
    """Divide columns whose values are far from 1 by a number near their root mean square; returns it, float64 (d,).

    Sums of eight factors are float32, and of a year's they are millions of which a score needs the last digits.  It
    is a power of two, so that no value is rounded, and 1 where the root mean square of the stored values is near 1.
    """
    by, values = np.ones(len(columns.indptr) - 1), columns.values
    for j in range(len(by)):
        start, end, total = columns.indptr[j], columns.indptr[j + 1], 0.0
        for r in range(start, end):
            total += np.float64(values[r]) * values[r]
        if 0.0 < total < math.inf:
            power = 0.5 * math.log2(total / (end - start))
            if abs(power) > _NEAR:
                by[j] = math.ldexp(1.0, round(power))
                for r in range(start, end):
                    values[r] /= by[j]
    return by


@njit(cache=True, nogil=True)
def runs(columns, n):  # type: ignore[no-untyped-def]
    """Return where runs of neighbouring columns without a common row end, int64 (runs,); there are ``n`` rows."""
    seen, ends, run = np.full(n, -1, np.int64), [], 0
    for j in range(len(columns.indptr) - 1):
        for r in range(columns.indptr[j], columns.indptr[j + 1]):
            if seen[columns.rows[r]] == run:
                run += 1
                ends.append(j)
                break
        for r in range(columns.indptr[j], columns.indptr[j + 1]):
            seen[columns.rows[r]] = run
    ends.append(len(columns.indptr) - 1)
    return np.array(ends)


@njit(inline="always")
def _residual(target, i):  # type: ignore[no-untyped-def]
    """Return the residual of row ``i``."""
    if target.logistic:
        return 4.0 * (target.labels[i] - 1.0 / (1.0 + math.exp(target.residual[i])))
    return target.residual[i]


@njit(cache=True, nogil=True, fastmath=_FAST)
def linear(columns, target, theta, precision, prior, draw, key, first, last):  # type: ignore[no-untyped-def]
    """Move the linear weights ``theta`` (float64 (d,)) of features ``first`` to ``last``; ``prior`` uses place 0.

    ``draw`` says whether to sample; ``key`` is this sweep's own.
    """
    rows, values, residual = columns.rows, columns.values, target.residual
    weighted = len(target.weights) > 0
    for j in range(first, last):
        start, end, old, g = columns.indptr[j], columns.indptr[j + 1], theta[j], prior.group[j]
        a = b = 0.0
        for r in range(start, end):
            i, x = rows[r], np.float64(values[r])
            wx = x * target.weights[i] if weighted else x
            a += wx * x
            b += wx * _residual(target, i)
        total = precision * a + prior.precision[g, 0]
        if total == 0.0:
            continue
        new = (precision * (b + a * old) + prior.precision[g, 0] * prior.mean[g, 0]) / total
        if draw:
            new += normal(mix(key + np.uint64(j))) / math.sqrt(total)
        theta[j] = new
        for r in range(start, end):
            residual[rows[r]] -= values[r] * (new - old)


@njit(cache=True, nogil=True)
def add_linear(columns, theta, residual):  # type: ignore[no-untyped-def]
    """Add the linear part of the score with weights ``theta`` to ``residual``."""
    for j in range(len(theta)):
        for r in range(columns.indptr[j], columns.indptr[j + 1]):
            residual[columns.rows[r]] += columns.values[r] * theta[j]


@njit(cache=True, nogil=True)
def gather(columns, theta, q):  # type: ignore[no-untyped-def]
    """Write the sums ``q`` (float32 (n, 8)) of eight factors ``theta`` (float64 (d, 8))."""
    q[:] = 0.0
    flat, small = q.reshape(-1), np.empty(EIGHT, np.float32)
    for j in range(len(theta)):
        small[:] = theta[j]
        v = load8(small, 0)
        for r in range(columns.indptr[j], columns.indptr[j + 1]):
            i = columns.rows[r] * EIGHT
            store8(flat, i, load8(flat, i) + columns.values[r] * v)


@njit(cache=True, nogil=True, fastmath=_FAST)
def pairs(columns, theta, q, residual):  # type: ignore[no-untyped-def]
    """Take what eight factors add to the score away from ``residual``; ``q`` as :func:`gather` wrote it."""
    for i in range(len(q)):
        total = 0.0
        for f in range(EIGHT):
            total += np.float64(q[i, f]) * q[i, f]
        residual[i] -= 0.5 * total
    for j in range(len(theta)):
        total = 0.0
        for f in range(EIGHT):
            total += theta[j, f] * theta[j, f]
        for r in range(columns.indptr[j], columns.indptr[j + 1]):
            residual[columns.rows[r]] += 0.5 * total * columns.values[r] * columns.values[r]


@njit(cache=True, nogil=True)
def factors(columns, target, theta, q, size, precision, prior, draw, key, first, last):  # type: ignore[no-untyped-def]
    """Move eight factors ``theta`` (float64 (d, 8); the first ``size`` count) of features ``first`` to ``last``.

    ``q`` is float32 (n, 8), as :func:`gather` writes it, and is kept right.
    """
    rows, values, residual, flat = columns.rows, columns.values, target.residual, q.reshape(-1)
    gram, right, step = np.empty((EIGHT, EIGHT)), np.empty(EIGHT), np.zeros(EIGHT)
    small, h = np.empty(EIGHT, np.float32), np.empty(EIGHT, np.float32)
    for j in range(first, last):
        start, end, g = columns.indptr[j], columns.indptr[j + 1], prior.group[j]
        gram[:] = 0.0
        right[:] = 0.0
        small[:] = theta[j]
        v = load8(small, 0)
        for part in range(start, end, _BLOCK):
            _add(columns, target, flat, v, part, min(part + _BLOCK, end), gram, right, h)
        _solve(gram, right, theta[j], size, precision, prior.mean[g], prior.precision[g], step)
        if draw:
            _spread(gram, size, mix(key + np.uint64(j)), step)
        theta[j] += step
        small[:] = step
        by = load8(small, 0)
        for r in range(start, end):
            i, x = rows[r], values[r]
            now = load8(flat, i * EIGHT)
            residual[i] -= sum8((now - x * v) * by) * x
            store8(flat, i * EIGHT, now + x * by)


@njit(inline="always")
def _add(columns, target, flat, v, start, end, gram, right, h):  # type: ignore[no-untyped-def]
    """Add what a few rows of a column say to ``gram`` and ``right``; their own sums are taken in float32."""
    none = splat8(np.float32(0.0))
    b = g0 = g1 = g2 = g3 = g4 = g5 = g6 = g7 = none
    weighted = len(target.weights) > 0
    for r in range(start, end):
        i, x = columns.rows[r], columns.values[r]
        change = x * (load8(flat, i * EIGHT) - x * v)
        weight = target.weights[i] if weighted else np.float32(1.0)
        b = b + (weight * np.float32(_residual(target, i))) * change
        store8(h, 0, change)
        if weighted:
            change = weight * change
        g0, g1, g2, g3 = g0 + h[0] * change, g1 + h[1] * change, g2 + h[2] * change, g3 + h[3] * change
        g4, g5, g6, g7 = g4 + h[4] * change, g5 + h[5] * change, g6 + h[6] * change, g7 + h[7] * change
    store8(h, 0, b)
    right += h
    for f, row in enumerate((g0, g1, g2, g3, g4, g5, g6, g7)):
        store8(h, 0, row)
        gram[f] += h


@njit(cache=True)
def _solve(gram, right, theta, size, precision, mean, tau, step):  # type: ignore[no-untyped-def]
    """Write the way to the minimum into ``step``, and the Cholesky factor of A over the lower part of ``gram``.

    A pivot that is not positive (a factor that no row tells of, without a prior) leaves its factor where it is.
    """
    for f in range(EIGHT):
        if f >= size:
            step[f] = 0.0
            continue
        step[f] = precision * right[f] + tau[f] * (mean[f] - theta[f])
        for k in range(f + 1):
            gram[f, k] *= precision
        gram[f, f] += tau[f]
    for f in range(size):
        for k in range(f):
            s = gram[f, k]
            for m in range(k):
                s -= gram[f, m] * gram[k, m]
            gram[f, k] = s / gram[k, k]
        s = gram[f, f]
        for m in range(f):
            s -= gram[f, m] * gram[f, m]
        gram[f, f] = math.sqrt(s) if s > 1e-12 * gram[f, f] else math.inf
    for f in range(size):
        for k in range(f):
            step[f] -= gram[f, k] * step[k]
        step[f] /= gram[f, f]
    _back(gram, step, size)


@njit(inline="always")
def _back(gram, x, size):  # type: ignore[no-untyped-def]
    """Solve L' y = x in place."""
    for f in range(size - 1, -1, -1):
        for k in range(f + 1, size):
            x[f] -= gram[k, f] * x[k]
        x[f] /= gram[f, f]


@njit(cache=True)
def _spread(gram, size, key, step):  # type: ignore[no-untyped-def]
    """Add a draw of N(0, A^-1) to ``step``."""
    noise = np.empty(EIGHT)
    for f in range(size):
        noise[f] = normal(mix(key + np.uint64(f + 1)))
    _back(gram, noise, size)
    for f in range(size):
        step[f] += noise[f]


@njit(cache=True, nogil=True)
def latent(labels, scores, key, out):  # type: ignore[no-untyped-def]
    """Draw the probit model's hidden targets: N(score, 1), above 0 where the label is 1 and below where it is 0.

    By rejection: from the normal where that is accepted often, else from an exponential (Robert, 1995).  A score that
    is not finite gives a target that is none: nothing would ever be accepted, and no signal reaches a compiled loop.
    """
    for i in range(len(labels)):
        side = 1.0 if labels[i] > 0.5 else -1.0
        low = -side * scores[i]  # a standard normal above this is wanted
        x = mix(key + np.uint64(i))
        rate = 0.5 * (low + math.sqrt(low * low + 4.0))
        while True:
            if low < 0.45:
                z = normal(x)
                accept = z > low
            else:
                z = low - math.log(unit(x)) / rate
                near = math.exp(-0.5 * (z - rate) * (z - rate))
                accept = not rate < math.inf or unit(mix(x + np.uint64(7))) <= near
            if accept:
                break
            x = mix(x + np.uint64(1))
        out[i] = scores[i] + side * z
