"""Model: a trained factorization machine, and its file.

The file is a line of text, a JSON header, the arrays as little-endian float32, and the SHA-256 of all that::

    fmtune model 1\\n | u64 length of the header | header | linear | factors | digest (32 bytes)

Nothing in it is executed, every length is checked against the file before memory is taken, and any
truncation or flipped bit is seen.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import ModelError
from fmtune.files import atomic_write

_MAGIC = b"fmtune model 1\n"
_DIGEST = 32
_HINT = "copy it again from where it was made, or train it again"


@dataclass(frozen=True, eq=False)
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
    """

    predictor_type: str
    bias: float
    linear: NDArray[np.float32]
    factors: NDArray[np.float32]
    facts: dict[str, Any] = field(default_factory=dict)

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
        return 4 + self.linear.nbytes + self.factors.nbytes

    def to_bytes(self) -> bytes:
        """Return the content of its file."""
        header = json.dumps({
            "predictor_type": self.predictor_type, "bias": self.bias, "feature_dim": self.feature_dim,
            "num_factors": self.num_factors, "facts": self.facts,
        }, sort_keys=True).encode()  # fmt: skip
        arrays = [np.ascontiguousarray(a, "<f4").tobytes() for a in (self.linear, self.factors)]
        body = b"".join([_MAGIC, struct.pack("<Q", len(header)), header, *arrays])
        return body + hashlib.sha256(body).digest()

    def save(self, path: str | Path) -> None:
        """Write it to a file, whole or not at all."""
        atomic_write(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model's file.

        Raises
        ------
        ModelError
            Not there, not a model, cut off, or not what was written.
        """
        try:
            with Path(path).open("rb") as stream:
                # A foreign file, however large, is known by its first line.
                content = stream.read(len(_MAGIC))
                if content == _MAGIC:
                    content += stream.read()
        except OSError as error:
            raise ModelError(f"cannot be read: {error.strerror}", where=str(path), hint="check the path") from error
        return cls.from_bytes(content, str(path))

    @classmethod
    def from_bytes(cls, content: bytes, where: str = "model") -> Model:
        """Return the model of a file's content; errors as in :meth:`load`."""
        if not content.startswith(_MAGIC):
            raise ModelError("not a fmtune model", where=where, hint="fmtune fit -o FILE writes one")
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
        if len(body) - at - length != 4 * d * (k + 1):
            raise ValueError("its length does not fit its header")
        arrays = np.frombuffer(body, "<f4", d * (k + 1), at + length).astype(np.float32)
        return cls(header["predictor_type"], bias, arrays[:d], arrays[d:].reshape(d, k), dict(header["facts"]))
