"""Model: a trained factorization machine, and its file.

The file is a line of text, a JSON header, the arrays as little-endian float32, and the SHA-256 of all that::

    fmtune model 1\\n | u64 length of the header | header | linear | factors | digest (32 bytes)

A model of draws is of version 2: its header has ``draws`` (bias and noise of each), and ``linear`` and ``factors``
stand there once a draw.

Nothing in it is executed, every length is checked against the file before memory is taken, and any
truncation or flipped bit is seen.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import ModelError, ResourceError, UsageError
from fmtune.files import atomic_stream
from fmtune.notebook import table

_MAGIC, _MAGIC_DRAWS = b"fmtune model 1\n", b"fmtune model 2\n"
_DIGEST = 32
_HINT = "copy it again from where it was made, or train it again"


class Draws(NamedTuple):
    """Models drawn from a posterior, by ``solver: mcmc``; a classifier's are probit models.

    Attributes
    ----------
    bias : float64 (draws,)
    linear : float32 (draws, feature_dim)
    factors : float32 (draws, feature_dim, num_factors)
    noise : float64 (draws,)
        Standard deviation of a label about its score.
    """

    bias: NDArray[np.float64]
    linear: NDArray[np.float32]
    factors: NDArray[np.float32]
    noise: NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A factorization machine of order 2.

    Attributes
    ----------
    predictor_type : str
        ``regressor`` or ``binary_classifier``.
    bias : float
    linear : float32 (feature_dim,)
    factors : float32 (feature_dim, num_factors)
    facts : dict
        What is known of its making (hyperparameters, scores, data digest); plain JSON values.
    draws : Draws or None
        What a sampled model was averaged from.  Its own parameters score as the mean of their scores does, with
        the factors of all draws side by side; a sampled classifier's probabilities need the draws themselves.
    """

    predictor_type: str
    bias: float
    linear: NDArray[np.float32]
    factors: NDArray[np.float32]
    facts: dict[str, Any] = field(default_factory=dict)
    draws: Draws | None = field(default=None, repr=False)

    @classmethod
    def of_draws(cls, predictor_type: str, draws: Draws, facts: dict[str, Any]) -> Model:
        """Return the model that scores as the mean of its draws."""
        count, d, k = draws.factors.shape
        wide = draws.factors.transpose(1, 0, 2).reshape(d, count * k) / np.float32(math.sqrt(count))
        linear = draws.linear.mean(0, dtype=np.float64).astype(np.float32)
        return cls(predictor_type, float(draws.bias.mean()), linear, wide, facts, draws)

    def drawn(self) -> list[Model]:
        """Return each draw as a model, or the model itself where it has none."""
        if self.draws is None:
            return [self]
        parts = zip(self.draws.bias.tolist(), self.draws.linear, self.draws.factors, strict=True)
        return [Model(self.predictor_type, *part) for part in parts]

    @property
    def exact(self) -> bool:
        """Whether its own parameters say all that its predictions need."""
        return self.draws is None or self.predictor_type == "regressor"

    def must_be_exact(self, form: str) -> None:
        """Raise UsageError if a form that has a model's parameters and no draws would predict otherwise."""
        if not self.exact:
            raise UsageError(
                f"a classifier of solver mcmc is a mean of many models' probabilities, which {form} has no place for",
                hint="train one with solver sgd or als; a regressor of solver mcmc can be exported",
            )

    @property
    def feature_dim(self) -> int:
        """Number of features."""
        return len(self.linear)

    @property
    def num_factors(self) -> int:
        """Length of a factor vector."""
        return int(self.factors.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of its parameters."""
        kept = self if self.draws is None else self.draws
        return 4 + kept.linear.nbytes + kept.factors.nbytes

    def __repr__(self) -> str:
        return f"<Model: {self.predictor_type}, {self.feature_dim} features, {self.num_factors} factors>"

    def _repr_html_(self) -> str:
        known = {name: self.facts.get(name) or None for name in ("study_name", "trial", "metrics", "hyperparameters")}
        shape = {"features": self.feature_dim, "factors": self.num_factors, "bytes": self.nbytes, "bias": self.bias}
        return table(f"factorization machine: {self.predictor_type}", {**shape, **known})

    def to_bytes(self) -> bytes:
        """Return the content of its file."""
        return b"".join(self._parts())

    def _parts(self) -> Iterator[bytes | memoryview]:
        """Yield the content of its file piece by piece: of a large model no copy is made."""
        content: dict[str, Any] = {
            "predictor_type": self.predictor_type, "bias": self.bias, "feature_dim": self.feature_dim,
            "num_factors": self.num_factors, "facts": self.facts,
        }  # fmt: skip
        found, magic = [self.linear, self.factors], _MAGIC
        if self.draws is not None:
            bias, linear, factors, noise = self.draws
            content.update(num_factors=factors.shape[2], draws={"bias": bias.tolist(), "noise": noise.tolist()})
            found, magic = [linear, factors], _MAGIC_DRAWS
        header = json.dumps(content, sort_keys=True).encode()
        digest = hashlib.sha256()
        arrays = (np.ascontiguousarray(a, "<f4").data.cast("B") if a.size else b"" for a in found)
        for part in (magic, struct.pack("<Q", len(header)), header, *arrays):
            digest.update(part)
            yield part
        yield digest.digest()

    def save(self, path: str | Path) -> None:
        """Write it to a file, whole or not at all."""
        with atomic_stream(Path(path), self.nbytes) as stream:
            stream.writelines(self._parts())

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model's file.

        Raises
        ------
        ModelError
            Not there, not a model, cut off, or not what was written.
        ResourceError
            It may not be read.
        """
        try:
            with Path(path).open("rb") as stream:
                # A foreign file, however large, is known by its first line.
                content = stream.read(len(_MAGIC))
                if content in (_MAGIC, _MAGIC_DRAWS):
                    content += stream.read()
        except PermissionError as error:
            hint = "check its permissions"
            raise ResourceError("the file may not be read: permission denied", where=str(path), hint=hint) from error
        except OSError as error:
            raise ModelError(f"cannot be read: {error.strerror}", where=str(path), hint="check the path") from error
        return cls.from_bytes(content, str(path))

    @classmethod
    def from_bytes(cls, content: bytes, where: str = "model") -> Model:
        """Return the model of a file's content; errors as in :meth:`load`."""
        if not content.startswith((_MAGIC, _MAGIC_DRAWS)):
            packed = content.startswith((b"\x1f\x8b", b"PK\x03\x04"))
            hint = ("`fmtune sagemaker import` makes one of SageMaker's model.tar.gz" if packed
                    else "fmtune fit -o FILE writes one")  # fmt: skip
            raise ModelError("not a fmtune model", where=where, hint=hint)
        body, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            raise ModelError("the file is damaged: its digest does not fit its content", where=where, hint=_HINT)
        try:
            return cls._parse(body)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, struct.error) as error:
            raise ModelError(f"the file is not understood: {error}", where=where, hint=_HINT) from error

    @classmethod
    def _parse(cls, body: bytes) -> Model:
        at = len(_MAGIC) + 8
        (length,) = struct.unpack("<Q", body[len(_MAGIC) : at])
        header = json.loads(body[at : at + length])
        d, k, bias = int(header["feature_dim"]), int(header["num_factors"]), float(header["bias"])
        kinds = ("regressor", "binary_classifier")
        if min(d, k) < 0 or not math.isfinite(bias) or header["predictor_type"] not in kinds:
            raise ValueError("impossible header")
        drawn = header["draws"] if body.startswith(_MAGIC_DRAWS) else None
        count = 1 if drawn is None else len(drawn["bias"])
        if len(body) - at - length != 4 * count * d * (k + 1):
            raise ValueError("its length does not fit its header")
        arrays = np.frombuffer(body, "<f4", count * d * (k + 1), at + length).astype(np.float32)
        linear, factors = arrays[: count * d], arrays[count * d :]
        if drawn is None:
            return cls(header["predictor_type"], bias, linear, factors.reshape(d, k), dict(header["facts"]))
        biases, noise = np.array(drawn["bias"], np.float64), np.array(drawn["noise"], np.float64)
        if not count or biases.shape != noise.shape or not (np.isfinite(biases).all() and (noise > 0).all()):
            raise ValueError("impossible draws")
        draws = Draws(biases, linear.reshape(count, d), factors.reshape(count, d, k), noise)
        return cls.of_draws(header["predictor_type"], draws, dict(header["facts"]))
