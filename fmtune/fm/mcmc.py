r"""Mcmc: Gibbs sampling of a Bayesian factorization machine (Rendle, 2012; Freudenthaler et al., 2011).

Labels, centred and divided by their standard deviation, are the score with noise of precision a.  Each group of
features has a prior of its own for the linear weight and for every factor::

    y ~ N(m, 1/a)     b ~ N(0, 1)     theta ~ N(mu, 1/l)     mu ~ N(0, 1/l)     a, l ~ Gamma(1/2, rate 1/2)

A classifier's labels are the signs of hidden targets with a = 1 (probit; Albert and Chib, 1993).  Priors adapt to
the data, so there is nothing to tune but ``num_factors`` and the groups.

A sweep ends in a draw.  The first fifth of the draws is left out, the others are kept, every second or fourth one
of them when there would be more than ``KEPT``; what is predicted is the mean over the draws that are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fmtune.errors import UsageError
from fmtune.fm.draws import each, joined, shares
from fmtune.fm.feed import ByColumn
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Draws, Model
from fmtune.fm.sweeps import Chain, Float32, Float64, Move, Step, Sweeps
from fmtune.kernels import columns as kernels
from fmtune.rows import Rows

# All that a hundred sweeps leave: fewer predict worse (0.0008 of RMSE on MovieLens 100K with 40 in place of 80).
KEPT = 80
_FEWEST, _BYTES = 8, 2**28
# Gamma(shape / 2, rate / 2) of all precisions.
_SHAPE = _RATE = 1.0


class Draw(NamedTuple):
    """The parameters after one sweep, in the labels' units; ``noise`` is the labels' standard deviation."""

    sweep: int
    model: Model
    noise: float


@dataclass(eq=False)
class _Scored:
    """Rows and the sum of what some draws predict for them."""

    rows: Rows
    total: Float64
    draws: list[Draw] = field(default_factory=list)


def kept_at_most(num_factors: int, feature_dim: int) -> int:
    """Return how many draws are kept: fewer where one takes many bytes."""
    return max(_FEWEST, min(KEPT, _BYTES // (4 * feature_dim * (num_factors + 1))))


class Gibbs(Chain):
    """One lane of Gibbs sampling.

    Parameters
    ----------
    hyperparameters, data
        As a chain's.
    standard
        Whether labels are centred and scaled.

    Raises
    ------
    UsageError
        Rows have weights and the labels are classes: a weighted probit likelihood has no such sampler.
    """

    def __init__(self, hyperparameters: Hyperparameters, data: ByColumn, standard: bool = True) -> None:
        self.binary = hyperparameters.predictor_type == "binary_classifier"
        if self.binary and len(data.weights):
            raise UsageError("solver mcmc takes no weights for a classifier", hint="use solver als or sgd")
        if self.binary or not standard:
            super().__init__(hyperparameters, data)
        else:
            spread = float(data.labels.std(dtype=np.float64))
            super().__init__(hyperparameters, data, centre=float(data.labels.mean(dtype=np.float64)),
                             scale=spread if spread > 0 else 1.0)  # fmt: skip
        self._firsts = np.array(data.groups.firsts)
        self._counts = np.diff([*data.groups.firsts, data.feature_dim])
        self._hidden = self.data.labels.astype(np.float64)  # the targets that residuals refer to
        self.precision = 1.0
        self._most = kept_at_most(hyperparameters.num_factors, data.feature_dim)
        self._stride, self._draws = 1, list[Draw]()
        self._scored = list[_Scored]()

    def sweep(self, move: Move) -> None:
        """Draw every parameter once, given all others."""
        h, self.sweeps = self.hyperparameters, self.sweeps + 1
        keys = np.random.SeedSequence([h.seed, self.sweeps]).generate_state(3 + len(self.factors), np.uint64)
        chance = np.random.default_rng(keys[0])
        if self.binary:
            scores = self._hidden - self.target.residual
            kernels.latent(self.data.labels, scores, keys[1], self._hidden)
            self.target.residual[:] = self._hidden - scores
        else:
            self.precision = self._draw_precision(chance)
        if h.use_bias:
            self._draw_bias(chance)
        if h.use_linear:
            prior = self._draw_prior(chance, self.linear[:, None])
            self.move_linear(move, Step(self.precision, int(keys[2])), *prior)
        for eight, size in enumerate(self.sizes()):
            prior = self._draw_prior(chance, self.factors[eight], size)
            self.move_factors(move, eight, Step(self.precision, int(keys[3 + eight])), *prior)
        self._keep()

    def _draw_precision(self, chance: np.random.Generator) -> float:
        """Draw the labels' precision."""
        residual, weights = self.target.residual, self.data.weights
        squares = float(weights @ residual**2 if len(weights) else residual @ residual)
        shape, rate = (_SHAPE + len(residual)) / 2.0, (_RATE + squares) / 2.0
        return float(chance.gamma(shape) / rate)

    def _draw_bias(self, chance: np.random.Generator) -> None:
        residual, weights = self.target.residual, self.data.weights
        count = float(weights.sum(dtype=np.float64)) if len(weights) else float(len(residual))
        right = float(weights @ residual if len(weights) else residual.sum()) + count * self.bias
        total = self.precision * count + 1.0
        new = self.precision * right / total + chance.standard_normal() / math.sqrt(total)
        residual[:] -= new - self.bias
        self.bias = new

    def _draw_prior(self, chance: np.random.Generator, theta: Float64, size: int = 1) -> tuple[Float64, Float64]:
        """Draw mean and precision of each group and column of ``theta`` (d, columns), the precision first.

        Returns
        -------
        float64 (groups, columns) each; columns from ``size`` on are not used
        """
        p = self._counts[:, None].astype(np.float64)
        sums = np.add.reduceat(theta, self._firsts, axis=0)
        squares = np.add.reduceat(theta * theta, self._firsts, axis=0)
        rate = (_RATE + squares - sums * sums / (p + 1.0)) / 2.0
        precision = chance.gamma((_SHAPE + p) / 2.0, size=rate.shape) / rate
        mean = sums / (p + 1.0) + chance.standard_normal(rate.shape) / np.sqrt((p + 1.0) * precision)
        mean[:, size:], precision[:, size:] = 0.0, 1.0
        return mean, precision

    def _keep(self) -> None:
        """Take the parameters as a draw, and let go of those that count no more."""
        noise = self.scale / math.sqrt(self.precision) if self.precision else math.inf
        draw = Draw(self.sweeps, Model(self.hyperparameters.predictor_type, *self.parameters()), noise)
        self._draws = [d for d in (*self._draws, draw) if d.sweep > self.sweeps // 5 and d.sweep % self._stride == 0]
        while len(self._draws) > self._most:
            self._stride *= 2
            self._draws = [d for d in self._draws if d.sweep % self._stride == 0]

    def score(self, rows: Rows) -> Float32:
        """Return raw scores of the mean over the draws that are kept, float32 (n,).

        Rows seen before cost only the draws that came and went since.
        """
        kind = self.hyperparameters.predictor_type
        known = next((s for s in self._scored if s.rows is rows), None)
        if known is None:
            known = _Scored(rows, np.zeros(rows.n))
            self._scored.append(known)
        for sign, changed in ((1.0, _less(self._draws, known.draws)), (-1.0, _less(known.draws, self._draws))):
            if changed:
                for raw in each([draw.model for draw in changed], rows):
                    known.total += sign * shares(kind, raw)
        known.draws = list(self._draws)
        return joined(kind, known.total / len(self._draws))

    def model(self, facts: dict[str, Any]) -> Model:
        """Return the mean of the draws that are kept, with them."""
        drawn = [draw.model for draw in self._draws]
        draws = Draws(
            np.array([m.bias for m in drawn]), np.stack([m.linear for m in drawn]),
            np.stack([m.factors for m in drawn]), np.array([draw.noise for draw in self._draws]),
        )  # fmt: skip
        return Model.of_draws(self.hyperparameters.predictor_type, draws, facts)


def _less(draws: list[Draw], others: list[Draw]) -> list[Draw]:
    """Return the draws that are not among the others."""
    there = {draw.sweep for draw in others}
    return [draw for draw in draws if draw.sweep not in there]


class Mcmc(Sweeps):
    """Lanes of Gibbs sampling."""

    chain = Gibbs

    @staticmethod
    def memory(h: Hyperparameters, feature_dim: int, rows: int) -> int:
        """Return the bytes that a lane takes while it trains: of draws twice, as they are and in the model of them."""
        draws = 8 * feature_dim * (h.num_factors + 1) * kept_at_most(h.num_factors, feature_dim)
        return Sweeps.memory(h, feature_dim, rows) + 8 * rows + draws

    @staticmethod
    def models(h: Hyperparameters, feature_dim: int) -> int:
        """Return how many models' parameters a trained one holds, at most: the kept draws'."""
        return kept_at_most(h.num_factors, feature_dim)
