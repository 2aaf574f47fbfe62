"""Scorer: a model laid out once for many small questions, as a server asks them.

``fm.pack.score`` lays the model's parameters out anew at each call, which for one row costs a thousand times the
row itself.  Rows of either layout take the sparse pass: a row's score has the same bits alone and in a batch,
whichever way it was written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import UsageError
from fmtune.fm.arena import SparseArena
from fmtune.fm.draws import scored, together
from fmtune.fm.model import Model
from fmtune.kernels import losses
from fmtune.rows import Rows

Float32 = NDArray[np.float32]


class Scorer:
    """A model, ready to score; may be used from several threads at once.

    Parameters
    ----------
    model
        It is copied: 4 bytes a parameter, factors up to a multiple of eight.
    """

    def __init__(self, model: Model) -> None:
        self.feature_dim = model.feature_dim
        self.predictor_type = model.predictor_type
        self.encoding: dict[str, Any] | None = model.facts.get("encoding")
        self.binary = model.predictor_type == "binary_classifier"
        self._code = losses.CODES[model.predictor_type]
        self._arena = SparseArena(model.feature_dim, None, model.predictor_type)
        self._arena.place([], scored(model))
        self._model = model

    def score(self, rows: Rows) -> Float32:
        """Return raw scores, float32 (n,).

        Raises
        ------
        UsageError
            The rows have features that the model has not.
        """
        if rows.feature_dim > self.feature_dim:
            raise UsageError(f"the rows have {rows.feature_dim} features, the model {self.feature_dim}")
        return together(self._model, self._arena.score(rows.to_sparse()))

    def predict(self, rows: Rows) -> Float32:
        """Return predictions, float32 (n,): the value, or the probability of label 1; errors as in ``score``."""
        raw = self.score(rows)
        if self.binary:
            losses.link(self._code, raw, raw)
        return raw
