"""Artifact: SageMaker's model.tar.gz of a factorization machine, read into a Model and written from one."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fmtune.errors import ModelError, UsageError
from fmtune.files import atomic_write
from fmtune.fm.hyperparameters import PARAMETERS
from fmtune.fm.model import Model
from fmtune.sagemaker.archive import LIMIT, read_parts
from fmtune.sagemaker.hyperparameters import DEFAULTS, SCHEMA, typed
from fmtune.sagemaker.ndarray import Float32, read_arrays, write_arrays
from fmtune.sagemaker.symbol import network, predictor_type_of

SPARSE = ("w1_weight", "w0_weight", "v")
DENSE = ("Linear_Plus_Bias_weight", "Linear_Plus_Bias_bias", "v")
MEMBER = "model_algo-1"
_HINT = "it should be the model.tar.gz of a factorization machine, as SageMaker wrote it"


def import_artifact(path: str | Path, limit: int = LIMIT) -> Model:
    """Return the model of a SageMaker artifact; members and arrays may stand in any order.

    Its ``facts`` hold ``sagemaker`` (the network, ``sparse`` or ``dense``, and the training parameters as they
    stand in meta.json) and ``hyperparameters`` (those that fmtune knows).

    Parameters
    ----------
    path
        ``model.tar.gz``, the tar or zip inside it, or a folder with what was in it, as a hosting container has it.
    limit
        Bytes that it may unpack to.

    Raises
    ------
    ModelError
        Not such a file, damaged, hostile, or one whose parts contradict each other.
    """
    where = str(path)
    parts = read_parts(Path(path), limit)
    settings = _settings(parts.meta, where)
    arrays = read_arrays(parts.params, f"{where}: params")
    linear, factors, bias, dense = _weights(arrays, settings, where)
    predictor_type = _predictor_type(parts.symbol, settings, where)
    _agree(settings, linear, factors, where)
    facts: dict[str, Any] = {"sagemaker": {"network": "dense" if dense else "sparse", "training_parameters": settings}}
    facts["hyperparameters"] = _known(settings)
    return Model(predictor_type, bias, linear, factors, facts)


def export_artifact(model: Model, path: str | Path, *, dense: bool | None = None) -> None:
    """Write a model as SageMaker would have; the same model gives the same bytes.

    Parameters
    ----------
    model
        Any model.
    path
        Where ``model.tar.gz`` goes.
    dense
        Names and shapes of SageMaker's dense network; None keeps those of an imported model, else sparse.

    Raises
    ------
    ResourceError
        The file cannot be written.
    """
    member = member_of(model, dense=dense)
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(MEMBER)
        entry.size, entry.mode = len(member), 0o644
        tar.addfile(entry, io.BytesIO(member))
    atomic_write(Path(path), stream.getvalue())


def member_of(model: Model, *, dense: bool | None = None, settings: Mapping[str, str] | None = None) -> bytes:
    """Return the content of ``model_algo-1``, the one file that SageMaker packs.

    ``settings`` is the final configuration; None takes what the model's facts know.
    """
    model.must_be_exact("SageMaker's artifact")
    own = model.facts.get("sagemaker", {})
    dense = own.get("network") == "dense" if dense is None else dense
    if settings is None:
        settings = own.get("training_parameters") or _described(model)
    settings = _ordered(settings)
    # SageMaker has no model without factors; one that is zero predicts the same.
    factors = model.factors if model.num_factors else np.zeros((model.feature_dim, 1), np.float32)
    bias = np.array([model.bias], np.float32)
    if dense:
        arrays = dict(zip(DENSE, (model.linear[None, :], bias, factors.T), strict=True))
    else:
        arrays = dict(zip(SPARSE, (model.linear[:, None], bias, factors), strict=True))
    files = {
        "meta.json": _meta(settings),
        "symbol.json": network(model.feature_dim, factors.shape[1], model.predictor_type, settings, dense).encode(),
        "params": write_arrays(arrays, frozenset() if dense else frozenset({"w1_weight", "v"})),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return stream.getvalue()


def _ordered(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings in one order, whatever file they came through, so that equal models give equal bytes."""
    return {name: settings[name] for name in (*SCHEMA, *sorted(settings)) if name in settings}


def _meta(settings: Mapping[str, str]) -> bytes:
    made = {"version": 1, "epoch_number": 1, "training_parameters": dict(settings), "label_names": ["out_label"]}
    return json.dumps(made).encode()


def _described(model: Model) -> dict[str, str]:
    """Return SageMaker's names and texts for a model trained here."""
    known = model.facts.get("hyperparameters", {})
    own = {name: _text(value) for name, value in known.items() if name in SCHEMA and value is not None}
    shape = {"feature_dim": str(model.feature_dim), "num_factors": str(max(1, model.num_factors))}
    return {**DEFAULTS, **own, **shape, "predictor_type": model.predictor_type}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings(meta: bytes | None, where: str) -> dict[str, str]:
    """Return the training parameters of meta.json, all text."""
    if meta is None:
        return {}
    try:
        settings = json.loads(meta).get("training_parameters", {})
        return {str(name): _text(value) for name, value in settings.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError("meta.json is not understood", where=where, hint=_HINT) from error


def _known(settings: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, text in settings.items():
        if name in PARAMETERS:
            try:
                made[name] = typed(name, text)
            except UsageError:
                continue  # it is kept as text beside
    return made


def _weights(
    arrays: Mapping[str, Float32], settings: Mapping[str, str], where: str
) -> tuple[Float32, Float32, float, bool]:
    """Return linear weights (feature_dim,), factors (feature_dim, num_factors), the bias, and whether it was dense."""
    if "v" not in arrays or arrays["v"].ndim != 2:
        held = ", ".join(arrays)[:200] or "none"
        raise ModelError(f"there are no factors 'v'; the weights are {held}", where=where, hint=_HINT)
    dense = any(name in arrays for name in DENSE[:2])
    names = DENSE if dense else SPARSE
    strangers = [name for name in arrays if name not in names]
    if strangers:
        held = ", ".join(strangers)[:200]
        raise ModelError(f"weights that a factorization machine has not: {held}", where=where, hint=_HINT)
    factors = np.ascontiguousarray(arrays["v"].T if dense else arrays["v"])
    d = len(factors)
    linear = _vector(arrays, names[0], "use_linear", d, settings, where)
    bias = _vector(arrays, names[1], "use_bias", 1, settings, where)
    if not (np.isfinite(linear).all() and np.isfinite(factors).all() and np.isfinite(bias).all()):
        raise ModelError("the weights are not finite: the job that made them diverged", where=where,
                         hint="train it again with lower learning rates, or clip_gradient")  # fmt: skip
    return linear, factors, float(bias[0]), dense


def _vector(
    arrays: Mapping[str, Float32], name: str, use: str, size: int, settings: Mapping[str, str], where: str
) -> Float32:
    """Return one of the smaller weights; it may only be missing where the job went without it."""
    if name not in arrays:
        if settings.get(use, "true").lower() != "false":
            raise ModelError(f"the weights {name!r} are missing", where=where, hint=_HINT)
        return np.zeros(size, np.float32)
    if arrays[name].size != size or max(arrays[name].shape) != size:
        what = f"{name!r} has the shape {arrays[name].shape}, the factors say {size}"
        raise ModelError(what, where=where, hint=_HINT)
    return arrays[name].reshape(size)


def _predictor_type(symbol: bytes | None, settings: Mapping[str, str], where: str) -> str:
    said = settings.get("predictor_type")
    seen = None if symbol is None else predictor_type_of(symbol, where)
    if said is not None and said not in ("regressor", "binary_classifier"):
        raise ModelError(f"meta.json has the predictor_type {said[:100]!r}", where=where, hint=_HINT)
    if said and seen and said != seen:
        raise ModelError(f"meta.json says {said}, symbol.json says {seen}", where=where, hint=_HINT)
    found = said or seen
    if found is None:
        raise ModelError("neither meta.json nor symbol.json says what it predicts", where=where, hint=_HINT)
    return found


def _agree(settings: Mapping[str, str], linear: Float32, factors: Float32, where: str) -> None:
    for name, size in (("feature_dim", len(linear)), ("num_factors", factors.shape[1])):
        said = settings.get(name, str(size))
        if said != str(size):
            raise ModelError(f"meta.json says {name} {said[:100]}, the weights have {size}", where=where, hint=_HINT)
