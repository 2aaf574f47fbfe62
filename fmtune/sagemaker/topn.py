"""Top-N: vectors of items and users whose inner product ranks the items of a user, for nearest-neighbour search.

For a user ``u`` and an item ``i`` the model's score is ``<v_u, v_i> + w_i`` and what is the same for all
items; so items become ``concat(v_i, w_i)`` and users ``concat(v_u, 1)``.
"""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import ResourceError, UsageError
from fmtune.extras import install
from fmtune.files import atomic_write
from fmtune.fm.model import Model

Float32 = NDArray[np.float32]
Arrays = dict[str, NDArray[np.float32] | NDArray[np.int64]]
_PARQUET = importlib.util.find_spec("pyarrow") is not None


def span(text: str | None) -> tuple[int, int | None] | None:
    """Return the first feature and the one behind the last of ``943..2624`` (both included) or ``943..``.

    Raises
    ------
    UsageError
        The text is no such range.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,10})\.\.(\d{1,10})?", text.strip())
    if match is None:
        raise UsageError(f"a range of features is written 943..2624 or 943.., not {text!r}")
    return int(match[1]), None if match[2] is None else int(match[2]) + 1


def items(model: Model, features: NDArray[np.int64]) -> Float32:
    """Return the vectors of item features, float32 (n, num_factors + 1)."""
    return np.hstack([model.factors[features], model.linear[features, None]]).astype(np.float32)


def users(model: Model, features: NDArray[np.int64]) -> Float32:
    """Return the vectors of user features, float32 (n, num_factors + 1)."""
    ones = np.ones((len(features), 1), np.float32)
    return np.hstack([model.factors[features], ones]).astype(np.float32)


def write(
    model: Model, out: Path, item_span: tuple[int, int | None] | None, user_span: tuple[int, int | None] | None,
    parquet: bool = _PARQUET,
) -> dict[str, int]:  # fmt: skip
    """Write the vectors; returns how many of each.

    ``.npz`` holds ``items``, ``item_features``, ``users`` and ``user_features``; ``.parquet`` the columns ``kind``
    (item or user), ``feature`` and ``vector``.  A kind without a range is left out, unless neither has one: then
    both are written for all features.

    Raises
    ------
    UsageError
        A range outside the model, or a suffix that is neither.
    ResourceError
        Parquet is asked for and pyarrow is not installed (``parquet``), or the file cannot be written.
    """
    if out.suffix not in (".npz", ".parquet"):
        raise UsageError(f"no format for the suffix {out.suffix!r}", where=str(out), hint="use .npz or .parquet")
    if out.suffix == ".parquet" and not parquet:
        raise ResourceError("Parquet needs pyarrow", where=str(out), hint=install("parquet"))
    if item_span is None and user_span is None:
        item_span = user_span = (0, None)
    item_features, user_features = (_features(s, model.feature_dim) for s in (item_span, user_span))
    arrays: Arrays = {
        "items": items(model, item_features), "item_features": item_features,
        "users": users(model, user_features), "user_features": user_features,
    }  # fmt: skip
    atomic_write(out, _npz(arrays) if out.suffix == ".npz" else _parquet(arrays))
    return {"items": len(item_features), "users": len(user_features)}


def _features(of: tuple[int, int | None] | None, feature_dim: int) -> NDArray[np.int64]:
    if of is None:
        return np.zeros(0, np.int64)
    first, end = of
    end = feature_dim if end is None else end
    if not first < end <= feature_dim:
        raise UsageError(f"features {first} to {end - 1} of a model that has 0 to {feature_dim - 1}")
    return np.arange(first, end)


def _npz(arrays: Arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _parquet(arrays: Arrays) -> bytes:
    import pyarrow
    import pyarrow.parquet

    vectors = np.concatenate([arrays["items"], arrays["users"]]).astype(np.float32)
    features = np.concatenate([arrays["item_features"], arrays["user_features"]])
    kinds = ["item"] * len(arrays["items"]) + ["user"] * len(arrays["users"])
    offsets = pyarrow.array(np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1])
    column = pyarrow.ListArray.from_arrays(offsets, pyarrow.array(vectors.ravel()))
    stream = io.BytesIO()
    table = pyarrow.table({"kind": kinds, "feature": features, "vector": column})
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()
