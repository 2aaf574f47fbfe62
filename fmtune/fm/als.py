r"""Als: coordinate descent, the minimum over one feature's parameters at a time.

It lowers what sgd lowers, with the same meaning of its parameters::

    (1 / n) sum_i loss(m_i, y_i) + (bias_wd b^2 + linear_wd |w|^2 + factors_wd |v|^2) / 2

with half the squared error or log loss.  No learning rate; no step makes it worse, but for the rounding of float32.
Columns of very large or very small numbers are divided by a power of two first, and it is the divided column's
parameters that decay: in a year's own unit a decay is nothing, and factors grow until float32 cannot tell their sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from fmtune.fm.draws import each
from fmtune.fm.feed import ByColumn
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import row_losses
from fmtune.fm.model import Model
from fmtune.fm.sweeps import EIGHT, Chain, Float32, Float64, Move, Step, Sweeps
from fmtune.rows import Rows


class Descent(Chain):
    """One lane of coordinate descent."""

    def __init__(self, hyperparameters: Hyperparameters, data: ByColumn) -> None:
        logistic = hyperparameters.predictor_type == "binary_classifier"
        super().__init__(hyperparameters, data, logistic=logistic)
        self._step = Step(0.25 if logistic else 1.0, None)
        self._decays = len(data.labels) * np.array(data.groups.decays)[:, None]

    def sweep(self, move: Move) -> None:
        """Move every parameter to its minimum, given all others."""
        h = self.hyperparameters
        if h.use_bias:
            self._move_bias(len(self.data.labels) * h.bias_wd)
        none = np.zeros((len(self._decays), EIGHT))
        if h.use_linear:
            self.move_linear(move, self._step, none, h.linear_wd * self._decays)
        for eight in range(len(self.factors)):
            self.move_factors(move, eight, self._step, none, np.repeat(h.factors_wd * self._decays, EIGHT, axis=1))
        self.sweeps += 1

    def _move_bias(self, decay: float) -> None:
        residual, p = self.residuals(), self._step.precision
        weights = self.data.weights if len(self.data.weights) else np.ones(len(residual))
        total = p * float(weights.sum(dtype=np.float64)) + decay
        by = (p * float(weights @ residual) - decay * self.bias) / total if total else 0.0
        self.bias += by
        self.target.residual[:] -= by

    def residuals(self) -> Float64:
        """Return what the present steps fit: label less score, or its like for log loss; float64 (n,)."""
        if not self.target.logistic:
            return self.target.residual
        return 4.0 * (self.data.labels - expit(-self.target.residual))

    def objective(self) -> float:
        """Return what is lowered, for the parameters as they stand."""
        h, n = self.hyperparameters, len(self.data.labels)
        if self.target.logistic:
            losses = row_losses(-self.target.residual.astype(np.float32), self.data.labels, h.predictor_type)
        else:
            losses = self.target.residual**2 / 2.0
        weights = self.data.weights if len(self.data.weights) else np.ones(n)
        decay = np.array(self.data.groups.decays)[self.data.group]
        square = h.linear_wd * (decay @ self.linear**2) + h.factors_wd * (decay @ (self.factors**2).sum((0, 2)))
        return float(weights @ losses / n + (h.bias_wd * self.bias**2 + square) / 2.0)

    def score(self, rows: Rows) -> Float32:
        """Return raw scores, float32 (n,)."""
        scores: Float32 = each([self.model({})], rows)[0]
        return scores

    def model(self, facts: dict[str, Any]) -> Model:
        """Return the model as it stands."""
        return Model(self.hyperparameters.predictor_type, *self.parameters(), facts)


class Als(Sweeps):
    """Lanes of coordinate descent."""

    chain = Descent
