"""Inference: SageMaker's requests to rows, and scores to its responses; no server here.

``READERS`` and ``WRITERS`` are the tables of media types.  What a request may hold::

    application/json                    {"instances": [INSTANCE, ...]}
    application/jsonlines               one INSTANCE a line
    application/x-recordio-protobuf     records as in training; labels are ignored

    INSTANCE    {"features": [1.5, 16.0]}
                {"data": {"features": {"values": [1.5, 16.0]}}}
                {"data": {"features": {"keys": [26, 182], "shape": [2000], "values": [1, 4]}}}
                {"user": "42", "genres": ["Action", "Drama"], "age": 31}    of a model with an encoding

Dense and sparse instances may be mixed, and either may be asked of any model.  Of ``shape`` only the keys beside
it are held against it; what counts is the model's own number of features.  A fault is a ``DataError`` whose
``where`` is its path: ``instances[3].data.features.keys[2]``.

JSON is decoded by msgspec straight into typed objects: as fast as orjson, which knows no types, and with the path
of a fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fmtune.data import canonical, recordio
from fmtune.data.encoding import Encoder
from fmtune.data.schema import Record
from fmtune.errors import DataError, ResourceError
from fmtune.extras import install
from fmtune.fm.scorer import Scorer
from fmtune.rows import Float32, Int32, SparseRows
from fmtune.sagemaker.media import JSON, LINES, RECORDS

try:
    import msgspec
    from msgspec import UNSET, UnsetType
except ImportError as error:
    raise ResourceError("msgspec is not installed", hint=install("serve")) from error

# Below so many numbers, plain Python is quicker than numpy.
_FEW = 32
# The smallest number that float32 rounds to infinity: half a step above its largest.
_INFINITE = 2.0**128 - 2.0**103
_NO_KEYS, _NO_VALUES = np.zeros(0, np.int32), np.zeros(0, np.float32)


class _Features(msgspec.Struct, gc=False):
    values: list[float]
    keys: list[int] | UnsetType = UNSET
    shape: list[int] | UnsetType = UNSET


class _Data(msgspec.Struct, gc=False):
    features: _Features


class _Instance(msgspec.Struct, gc=False):
    features: list[float] | UnsetType = UNSET
    data: _Data | UnsetType = UNSET


class _Request(msgspec.Struct, gc=False):
    instances: list[_Instance]


class _AnyRequest(msgspec.Struct, gc=False):
    """A request to a model that knows its columns by name."""

    instances: list[dict[str, Any]]


class _Score(msgspec.Struct, gc=False):
    score: float


class _Label(msgspec.Struct, gc=False):
    """The documentation shows the label as 0, endpoints answer 0.0: as they do, so do we."""

    score: float
    predicted_label: float


class _Response(msgspec.Struct, gc=False):
    predictions: list[_Score] | list[_Label]


_request = msgspec.json.Decoder(_Request)
_line = msgspec.json.Decoder(_Instance)
_any_request = msgspec.json.Decoder(_AnyRequest)
_any_line = msgspec.json.Decoder(dict[str, Any])
_json = msgspec.json.Encoder()

Path = Callable[[int], str]
"""Says what instance ``i`` is called in messages."""


# ---- requests ----


def read_json(body: bytes, feature_dim: int, encoder: Encoder | None = None) -> SparseRows:
    """Return the rows of ``{"instances": [...]}``; ``feature_dim`` and ``encoder`` are the model's.

    Raises
    ------
    DataError
        Not JSON, not of this form, or with values that the model cannot take; ``where`` is the path.
    """
    try:
        request = _request.decode(body) if encoder is None else _any_request.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _json_fault(error, "body") from error
    return _rows(request.instances, feature_dim, lambda i: f"instances[{i}]", encoder)


def read_lines(body: bytes, feature_dim: int, encoder: Encoder | None = None) -> SparseRows:
    """Return the rows of instances that stand one on a line, blank lines aside; otherwise as ``read_json``."""

    numbers: list[int] = []
    instances: list[_Instance | dict[str, Any]] = []

    def path(i: int) -> str:
        return f"line {numbers[i]}: "

    # msgspec's own decoder of lines also takes two instances on one.
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line or line.isspace():
            continue
        numbers.append(number)
        try:
            instances.append(_line.decode(line) if encoder is None else _any_line.decode(line))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise _json_fault(error, f"line {number}") from error
    return _rows(instances, feature_dim, path, encoder)


def read_records(body: bytes, feature_dim: int, encoder: Encoder | None = None) -> SparseRows:
    """Return the rows of RecordIO-wrapped protobuf, which has no names; errors as in ``recordio.parse``."""
    return recordio.parse(body, feature_dim, "body").to_sparse()


Reader = Callable[[bytes, int, Encoder | None], SparseRows]
READERS: dict[str, Reader] = {JSON: read_json, LINES: read_lines, RECORDS: read_records}


def _json_fault(error: Exception, whole: str) -> DataError:
    """Return msgspec's words with the path put first: ``instances[3].data.features.keys[2]``.

    ``whole`` is ``body``, or the line that an instance stands on.
    """
    if isinstance(error, RecursionError):
        return DataError("the JSON is nested too deep", where=whole)
    what, _, place = str(error).partition(" - at `")
    what = what.replace("`", "").replace("Expected", "wants", 1)
    what = what if what.startswith("JSON") else what[:1].lower() + what[1:]
    place = place.removesuffix("`").removeprefix("$").removeprefix(".")
    return DataError(what, where=place or whole if whole == "body" else _joined(f"{whole}: ", place))


def _joined(head: str, tail: str) -> str:
    if not tail:
        return head.removesuffix(": ")
    return head + tail if head.endswith(" ") else f"{head}.{tail}"


def _rows(
    given: Sequence[_Instance | dict[str, Any]], dim: int, path: Path, encoder: Encoder | None
) -> SparseRows:  # fmt: skip
    """Return checked rows: the quick way if nothing is odd, else the fault is looked for one by one."""
    instances = [_typed(instance, i, path) if isinstance(instance, dict) else instance
                 for i, instance in enumerate(given)]  # fmt: skip
    try:
        parts = [
            _entries(instance, dim) if isinstance(instance, _Instance) else _named(instance, encoder, i, path)
            for i, instance in enumerate(instances)
        ]
    except (ValueError, ArithmeticError):
        raise _fault(instances, dim, path) from None
    if len(parts) == 1:
        keys, values, ascending = parts[0]
        indptr = np.array([0, len(keys)])
    else:
        indptr = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part[0]) for part in parts], out=indptr[1:])
        keys = np.concatenate([_NO_KEYS, *[part[0] for part in parts]])
        values = np.concatenate([_NO_VALUES, *[part[1] for part in parts]])
        ascending = all(part[2] for part in parts)
    if ascending:
        return SparseRows(indptr, keys, values, None, dim)
    return canonical.sparse_rows(indptr, keys, values, None, dim, "body", path)


def _typed(instance: dict[str, Any], i: int, path: Path) -> _Instance | dict[str, Any]:
    """Return an instance of numbered features as such, any other as it is."""
    numbered = isinstance(instance.get("features"), list) or (
        isinstance(instance.get("data"), dict) and "features" in instance["data"]
    )
    if instance and not numbered:
        return instance
    try:
        return msgspec.convert(instance, _Instance)
    except msgspec.ValidationError as error:
        fault = _json_fault(error, "body")
        place = "" if fault.where == "body" else str(fault.where)
        raise DataError(fault.what, where=_joined(path(i), place)) from error


def _named(instance: dict[str, Any], encoder: Encoder | None, i: int, path: Path) -> tuple[Int32, Float32, bool]:
    """Return the entries of an instance that names its features."""
    assert encoder is not None
    try:
        return (*encoder.entries(instance), True)
    except DataError as error:
        raise DataError(error.what, where=_joined(path(i), error.where or "")) from error


def _entries(instance: _Instance, dim: int) -> tuple[Int32, Float32, bool]:
    """Return an instance's keys, values, and whether its keys ascend.

    Any fault is a ValueError or ArithmeticError; the words for it are those of ``_fault``.
    """
    if instance.data is UNSET:
        return _dense(instance.features, dim)
    features = instance.data.features
    if instance.features is not UNSET:
        raise ValueError
    if _is_dense(features):
        return _dense(features.values, dim)
    listed = features.keys or []
    if features.shape is not UNSET:
        (declared,) = features.shape
        dim = min(dim, declared)
    keys = np.array(listed, np.int32)
    values = _float32(features.values)
    ascending = sorted(set(listed)) == listed if len(listed) < _FEW else bool((keys[1:] > keys[:-1]).all())
    if len(keys) != len(values) or dim <= 0:
        raise ValueError
    if listed and ((listed[0] if ascending else min(listed)) < 0 or (listed[-1] if ascending else max(listed)) >= dim):
        raise ValueError
    return keys, values, ascending


def _is_dense(features: _Features) -> bool:
    """Whether there are no keys; nothing but a shape is a sparse row of zeros."""
    return not features.keys and (features.keys is UNSET or bool(features.values)) and (
        bool(features.values) or features.shape is UNSET
    )


def _dense(listed: list[float] | UnsetType, dim: int) -> tuple[Int32, Float32, bool]:
    if listed is UNSET or len(listed) != dim:
        raise ValueError
    values = _float32(listed)
    keys = np.flatnonzero(values)
    return keys.astype(np.int32), values[keys], True


def _float32(listed: list[float]) -> Float32:
    """Return JSON's numbers, of which none is infinite, or raise ArithmeticError for one that becomes so."""
    if len(listed) < _FEW:
        if listed and (max(listed) >= _INFINITE or min(listed) <= -_INFINITE):
            raise OverflowError
        return np.array(listed, np.float32)
    with np.errstate(over="raise"):
        return np.array(listed, np.float32)


def _fault(instances: Sequence[_Instance | dict[str, Any]], dim: int, path: Path) -> DataError:
    """Return the first fault of an instance that ``_entries`` refused."""
    numbered = ((i, one) for i, one in enumerate(instances) if isinstance(one, _Instance))
    at, instance = next((i, one) for i, one in numbered if _refused(one, dim))
    tail, what = _words(instance, dim)
    return DataError(what, where=_joined(path(at), tail))


def _refused(instance: _Instance, dim: int) -> bool:
    try:
        _entries(instance, dim)
    except (ValueError, ArithmeticError):
        return True
    return False


def _words(instance: _Instance, dim: int) -> tuple[str, str]:
    """Return the path within a refused instance, and what is wrong there."""
    if instance.data is UNSET:
        if instance.features is UNSET:
            return "", "has neither 'features' nor 'data'"
        return _value_words("features", instance.features, dim)
    if instance.features is not UNSET:
        return "", "has both 'features' and 'data': give one of them"
    features, at = instance.data.features, "data.features"
    if _is_dense(features):
        return _value_words(f"{at}.values", features.values, dim)
    keys = features.keys or []
    if features.shape is not UNSET and (len(features.shape) != 1 or features.shape[0] <= 0):
        return f"{at}.shape", "wants one number above 0, the number of features"
    if len(keys) != len(features.values):
        return at, f"{len(keys)} keys but {len(features.values)} values"
    declared = dim if features.shape is UNSET else features.shape[0]
    for e, key in enumerate(keys):
        if key < 0:
            return f"{at}.keys[{e}]", f"{key} is below 0, where features begin"
        if key >= dim:
            return f"{at}.keys[{e}]", f"{key} is beyond the model's {dim} features"
        if key >= declared:
            return f"{at}.keys[{e}]", f"{key} is beyond its own shape, [{declared}]"
    return _value_words(f"{at}.values", features.values, len(keys))


def _value_words(at: str, values: list[float], dim: int) -> tuple[str, str]:
    if len(values) != dim:
        return at, f"{len(values)} values, but the model has {dim} features; sparse instances have keys"
    with np.errstate(over="ignore"):
        bad = int(np.argmin(np.isfinite(np.array(values, np.float32))))
    return f"{at}[{bad}]", f"{values[bad]:g} is not a finite float32 number"


# ---- responses ----


def write_json(scores: Float32, binary: bool) -> bytes:
    """Return ``{"predictions": [{"score": 0.4, "predicted_label": 0.0}]}``; the label for binary models only."""
    return _json.encode(_Response(_predictions(scores, binary)))


def write_lines(scores: Float32, binary: bool) -> bytes:
    """Return one prediction a line."""
    return _json.encode_lines(_predictions(scores, binary))


def write_records(scores: Float32, binary: bool) -> bytes:
    """Return one record a row, with labels ``score`` and, for binary models, ``predicted_label``."""
    record = _BINARY_RECORD if binary else _SCORE_RECORD
    out = np.tile(record.content, (len(scores), 1))
    out[:, record.score : record.score + 4] = scores.astype("<f4").view(np.uint8).reshape(-1, 4)
    if binary:
        labels = (scores >= 0.5).astype("<f4")
        out[:, record.label : record.label + 4] = labels.view(np.uint8).reshape(-1, 4)
    return out.tobytes()


Writer = Callable[[Float32, bool], bytes]
WRITERS: dict[str, Writer] = {JSON: write_json, LINES: write_lines, RECORDS: write_records}


def _predictions(scores: Float32, binary: bool) -> list[_Score] | list[_Label]:
    """Return scores, float32 widened to double as endpoints give them."""
    if binary:
        return [_Label(score, 1.0 if score >= 0.5 else 0.0) for score in scores.tolist()]
    return [_Score(score) for score in scores.tolist()]


class _Template:
    """A response's record with a mark where each number goes: all records of a response are as long."""

    def __init__(self, binary: bool) -> None:
        record = Record()
        marks = {"score": np.float32(1.2345e-20), "predicted_label": np.float32(5.4321e-20)}
        for name in marks if binary else ["score"]:
            record.label[name].float32_tensor.values.append(marks[name].item())
        content = recordio.frame(record.SerializeToString(deterministic=True))
        self.content = np.frombuffer(content, np.uint8)
        self.score, self.label = (content.find(marks[name].tobytes()) for name in ("score", "predicted_label"))


_SCORE_RECORD, _BINARY_RECORD = _Template(False), _Template(True)


# ---- both ----


def answer(
    scorer: Scorer, body: bytes, content_type: str, accept: str, encoder: Encoder | None = None
) -> bytes:  # fmt: skip
    """Return the response to a request; both types are keys of the tables, the encoder is the model's, if it has one.

    Raises
    ------
    DataError
        The request is at fault, ``where`` says in which place.
    """
    scores = scorer.predict(READERS[content_type](body, scorer.feature_dim, encoder))
    if not (math.isfinite(scores[0]) if len(scores) == 1 else np.isfinite(scores).all()):
        row = int(np.argmin(np.isfinite(scores)))
        raise DataError("its score is not a finite number: the values are too large", where=f"instances[{row}]")
    return WRITERS[accept](scores, scorer.binary)
