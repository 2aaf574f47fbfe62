"""Standalone: a model as one Python file that needs numpy and nothing else.

The file holds the parameters as text (base64 of little-endian float32, compressed), and one function, ``predict``.
"""

from __future__ import annotations

import base64
import textwrap
import zlib

import numpy as np
from numpy.typing import NDArray

from fmtune import __version__
from fmtune.data.encoding import names_of, scales_of
from fmtune.fm.model import Model

_FILE = '''\
"""A factorization machine by fmtune {version}: {predictor_type}, {feature_dim} features, {num_factors} factors.

>>> predict([[0.0, 1.0, ...]])                # rows of {feature_dim} numbers
>>> predict((indptr, indices, values))        # or the three arrays of compressed sparse rows
"""

import base64
import zlib

import numpy as np


def _array(text, *shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4").reshape(shape)


def raw_scores(x):
    """Return raw scores, float64 (rows,), of a matrix or of (indptr, indices, values)."""
    if isinstance(x, tuple):
        indptr, indices, values = (np.asarray(part) for part in x)
        values = values.astype(np.float64)
        full = indptr[1:] > indptr[:-1]

        def rows(terms):
            sums = np.zeros((len(full), *terms.shape[1:]))
            if full.any():
                sums[full] = np.add.reduceat(terms, indptr[:-1][full])
            return sums

        terms = values[:, None] * FACTORS[indices].astype(np.float64)
        sums, squares = rows(terms), rows((terms * terms).sum(1))
        first = rows(values * LINEAR[indices])
    else:
        x = np.asarray(x, np.float64)
        sums = x @ FACTORS.astype(np.float64)
        squares = (x * x) @ (FACTORS.astype(np.float64) ** 2).sum(1)
        first = x @ LINEAR.astype(np.float64)
    return BIAS + first + 0.5 * ((sums * sums).sum(1) - squares)


def predict(x):
    """Return predictions, float64 (rows,): {meaning}."""
    z = raw_scores(x)
    return {link}


# Names of the features, as far as the model knows them: "user=42" is a column and its value.
NAMES = {names!r}
# Columns of numbers: x is (number - mean) / deviation, and 0 where the number is missing.
SCALES = {scales!r}
BIAS = {bias!r}
LINEAR = _array("""
{linear}
""", {feature_dim})
FACTORS = _array("""
{factors}
""", {feature_dim}, {num_factors})
'''


def source(model: Model) -> str:
    """Return the text of the Python file; raises UsageError for a sampled classifier."""
    model.must_be_exact("the file")
    binary = model.predictor_type == "binary_classifier"
    return _FILE.format(
        version=__version__, predictor_type=model.predictor_type, feature_dim=model.feature_dim,
        num_factors=model.num_factors, bias=float(model.bias), linear=_text(model.linear), factors=_text(model.factors),
        names=names_of(model.facts), scales=scales_of(model.facts),
        meaning="probabilities of label 1" if binary else "values",
        link="0.5 * (1.0 + np.tanh(0.5 * z))" if binary else "z",
    )  # fmt: skip


def content(model: Model) -> bytes:
    """Return the content of the Python file."""
    return source(model).encode()


def _text(array: NDArray[np.float32]) -> str:
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array, "<f4").tobytes(), 9))
    return "\n".join(textwrap.wrap(packed.decode(), 118))
