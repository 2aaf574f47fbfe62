"""A factorization machine in plain float64 loops, written from the formulas, to hold the kernels against."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.rows import SparseRows

# Training and scoring use vector instructions, which have no form in Python.
compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="numba's compiler is off")


def rows(n: int, dim: int, nnz: int, seed: int = 0, binary: bool = True, ones: bool = False) -> SparseRows:
    """Random sparse rows: ``nnz`` distinct features each, normal values (or ones), labels from a random plane."""
    rng = np.random.default_rng(seed)
    indices = np.sort(np.stack([rng.permutation(dim)[:nnz] for _ in range(n)]).astype(np.int32), axis=1)
    values = np.ones((n, nnz), np.float32) if ones else rng.normal(size=(n, nnz)).astype(np.float32)
    weight = rng.normal(size=dim)
    target = (weight[indices] * values).sum(1) + 0.3 * rng.normal(size=n)
    labels = (target > 0).astype(np.float32) if binary else target.astype(np.float32)
    return SparseRows(np.arange(n + 1, dtype=np.int64) * nnz, indices.ravel(), values.ravel(), labels, dim)


def raw_score(bias: float, linear: np.ndarray, factors: np.ndarray, x: np.ndarray) -> float:
    """The sum over all pairs, as the model is defined: O(n^2)."""
    z = bias + float(linear @ x)
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            z += float(factors[i] @ factors[j]) * x[i] * x[j]
    return z


def train(
    start: Model, data: SparseRows, h: Hyperparameters, order: np.ndarray, decays: np.ndarray | None = None
) -> tuple[float, np.ndarray, np.ndarray]:
    """``h.epochs`` passes by the specification's rule in float64; returns bias, linear, factors.

    ``decays`` are factors of each feature's decay.
    """
    x_all, y_all = data.to_dense().matrix.astype(np.float64), np.asarray(data.labels, np.float64)
    theta = [np.array([start.bias]), start.linear.astype(np.float64), start.factors.astype(np.float64)]
    m, v = [np.zeros_like(t) for t in theta], [np.zeros_like(t) for t in theta]
    rates = ((h.bias_lr, h.bias_wd), (h.linear_lr, h.linear_wd), (h.factors_lr, h.factors_wd))
    rescale = 1 / h.mini_batch_size if h.rescale_grad is None else h.rescale_grad
    eps, t = h.eps or (1.0 if h.optimizer == "ftrl" else 1e-8), 0
    first, own = [x.copy() for x in theta], np.ones(data.feature_dim) if decays is None else decays
    factor = [np.ones(1), own, own[:, None]]
    weights = np.ones(data.n) if data.weights is None else data.weights.astype(np.float64)
    for _ in range(h.epochs):
        for at in range(0, len(order), h.mini_batch_size):
            pick = order[at : at + h.mini_batch_size]
            x, y = x_all[pick], y_all[pick]
            q = x @ theta[2]
            z = theta[0] + x @ theta[1] + 0.5 * ((q**2).sum(1) - (x**2 @ theta[2] ** 2).sum(1))
            e = ((z if h.predictor_type == "regressor" else 1 / (1 + np.exp(-z))) - y) * weights[pick]
            grads = [np.array([e.sum()]), x.T @ e, x.T @ (e[:, None] * q) - theta[2] * (x**2).T.dot(e)[:, None]]
            touched = (x != 0).any(0) if h.lazy else np.ones(x.shape[1], bool)
            t += 1
            for k, (rate, decay) in enumerate(rates):
                at_rows = slice(None) if k == 0 else touched
                g = grads[k][at_rows] * rescale + decay * (factor[k] * theta[k])[at_rows]
                if h.clip_gradient:
                    g = np.clip(g, -h.clip_gradient, h.clip_gradient)
                if h.optimizer == "adam":
                    m[k][at_rows] = 0.9 * m[k][at_rows] + 0.1 * g
                    v[k][at_rows] = 0.999 * v[k][at_rows] + 0.001 * g * g
                    c = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
                    theta[k][at_rows] -= rate * c * m[k][at_rows] / (np.sqrt(v[k][at_rows]) + eps)
                elif h.optimizer == "sgd":
                    theta[k][at_rows] -= rate * g
                elif h.optimizer == "ftrl":  # McMahan et al. (2013), algorithm 1, for the distance from the start
                    l1, w0, root = (0, h.linear_l1, h.factors_l1)[k], first[k][at_rows], np.sqrt(v[k][at_rows])
                    v[k][at_rows] += g * g
                    bigger = np.sqrt(v[k][at_rows])
                    m[k][at_rows] += g - (bigger - root) / rate * theta[k][at_rows]
                    z = m[k][at_rows] - w0 * eps / rate
                    theta[k][at_rows] = -np.sign(z) * np.maximum(np.abs(z) - l1, 0) * rate / (eps + bigger)
                else:
                    together = k == 2 and h.optimizer == "rowwise_adagrad"  # factors share the mean of their squares
                    m[k][at_rows] += (g * g).mean(1, keepdims=True) if together else g * g
                    theta[k][at_rows] -= rate * g / (np.sqrt(m[k][at_rows]) + eps)
    return float(theta[0][0]), theta[1], theta[2]
