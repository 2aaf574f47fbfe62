"""A model's file: what was written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmtune.errors import ModelError, ResourceError
from fmtune.fm.model import Draws, Model
from tests.unprivileged import folder, nobody

MAGIC, MAGIC_DRAWS = b"fmtune model 1\n", b"fmtune model 2\n"


def _model(features: int = 3, factors: int = 2) -> Model:
    rng = np.random.default_rng(0)
    linear = rng.normal(size=features).astype(np.float32)
    matrix = rng.normal(size=(features, factors)).astype(np.float32)
    return Model("binary_classifier", 0.1, linear, matrix, {"study_name": "é", "epochs": 3})


def _sampled(features: int = 2, factors: int = 1, count: int = 3) -> Model:
    rng = np.random.default_rng(1)
    linear, matrix = rng.normal(size=(count, features)), rng.normal(size=(count, features, factors))
    draws = Draws(rng.normal(size=count), linear.astype(np.float32), matrix.astype(np.float32), np.full(count, 0.5))
    return Model.of_draws("regressor", draws, {"epochs": 9})


def _sealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def _with_header(header: bytes, rest: bytes = b"", length: int | None = None, magic: bytes = MAGIC) -> bytes:
    """A file whose digest is right and whose header is whatever is given."""
    return _sealed(magic + struct.pack("<Q", len(header) if length is None else length) + header + rest)


def _header(**values: Any) -> bytes:
    good = {"predictor_type": "regressor", "bias": 0.0, "feature_dim": 1, "num_factors": 0, "facts": {}}
    return json.dumps({**good, **values}).encode()


@pytest.mark.parametrize(("features", "factors"), [(3, 2), (0, 4), (5, 0)])
def test_what_was_saved_is_loaded(features: int, factors: int, tmp_path: Path) -> None:
    """Every number and fact comes back as it was, and the same model has the same bytes."""
    model = _model(features, factors)
    model.save(tmp_path / "m.fm")
    loaded = Model.load(tmp_path / "m.fm")
    assert (loaded.predictor_type, loaded.bias, loaded.facts) == (model.predictor_type, model.bias, model.facts)
    assert np.array_equal(loaded.linear, model.linear) and np.array_equal(loaded.factors, model.factors)
    assert (loaded.feature_dim, loaded.num_factors) == (features, factors)
    assert loaded.nbytes == 4 * (1 + features * (1 + factors))
    assert loaded.to_bytes() == model.to_bytes()


def test_draws_come_back(tmp_path: Path) -> None:
    """A sampled model's draws are saved with it, and its own parameters are theirs again."""
    model = _sampled()
    model.save(tmp_path / "m.fm")
    loaded = Model.load(tmp_path / "m.fm")
    assert loaded.draws is not None and model.draws is not None
    assert all(np.array_equal(a, b) for a, b in zip(loaded.draws, model.draws, strict=True))
    assert np.array_equal(loaded.factors, model.factors) and loaded.bias == model.bias and loaded.facts == model.facts
    assert loaded.to_bytes() == model.to_bytes() and loaded.nbytes == 4 + 4 * 3 * 2 * 2
    assert [one.num_factors for one in loaded.drawn()] == [1, 1, 1]
    draws = model.draws
    assert model.bias == draws.bias.mean() and np.allclose(model.linear, draws.linear.mean(0))
    assert np.allclose(model.factors, np.concatenate(list(draws.factors), 1) / np.sqrt(3))


@pytest.mark.parametrize("make", [_model, _sampled])
def test_every_truncation_is_refused(make: Callable[[], Model]) -> None:
    """No proper beginning of a model's file is a model."""
    content = make().to_bytes()
    for length in range(len(content)):
        with pytest.raises(ModelError):
            Model.from_bytes(content[:length])


@pytest.mark.parametrize("make", [_model, _sampled])
def test_every_flipped_bit_is_refused(make: Callable[[], Model]) -> None:
    """No file that differs in one bit is a model."""
    content = make().to_bytes()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            with pytest.raises(ModelError):
                Model.from_bytes(bytes(flipped))


def test_what_follows_a_model_is_refused() -> None:
    """A model with bytes behind it is not a model."""
    with pytest.raises(ModelError, match="damaged"):
        Model.from_bytes(_model().to_bytes() + b"\n")


FOREIGN = (b"", b"\x00" * 100, b"label,feature\n1,2\n", pickle.dumps({"bias": 1.0}), b"\x1f\x8b")


@pytest.mark.parametrize("content", FOREIGN)
def test_foreign_files_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    """An empty file, zeros, csv, a pickle and gzip are not models; the message names the file."""
    path = tmp_path / "m.fm"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a fmtune model") as caught:
        Model.load(path)
    assert caught.value.where == str(path) and caught.value.exit_code == 3


def test_a_pickle_behind_the_first_line_is_never_loaded(tmp_path: Path) -> None:
    """What a file would execute, were it unpickled, is not executed."""

    class Mine:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "owned",))

    with pytest.raises(ModelError):
        Model.from_bytes(_sealed(MAGIC + pickle.dumps(Mine())))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [
    _sealed(MAGIC),
    _sealed(MAGIC + b"\x01\x02"),
    _with_header(b""),
    _with_header(b"\xff\xfe"),
    _with_header(b"[1, 2]"),
    _with_header(b"[" * 100_000),
    _with_header(_header(), b"\0" * 4, length=2**63),
    _with_header(_header(feature_dim=-1)),
    _with_header(_header(num_factors=-2)),
    _with_header(_header(feature_dim=2**62, num_factors=2**62)),
    _with_header(_header(feature_dim=1e300)),
    _with_header(_header(feature_dim=float("inf"))),
    _with_header(_header(feature_dim="many"), b"\0" * 4),
    _with_header(_header(predictor_type="oracle"), b"\0" * 4),
    _with_header(_header(bias=float("nan")), b"\0" * 4),
    _with_header(_header(facts=3), b"\0" * 4),
    _with_header(_header(feature_dim=2), b"\0" * 4),
    _with_header(b'{"bias": 0}', b"\0" * 4),
    _with_header(_header(), b"\0" * 4, magic=MAGIC_DRAWS),
    _with_header(_header(draws={"bias": [], "noise": []}), magic=MAGIC_DRAWS),
    _with_header(_header(draws={"bias": [1.0], "noise": [0.0]}), b"\0" * 4, magic=MAGIC_DRAWS),
    _with_header(_header(draws={"bias": [1.0], "noise": []}), b"\0" * 4, magic=MAGIC_DRAWS),
    _with_header(_header(draws={"bias": [1.0, 2.0], "noise": [1.0, 1.0]}), b"\0" * 4, magic=MAGIC_DRAWS),
    _with_header(_header(draws=3), b"\0" * 4, magic=MAGIC_DRAWS),
])  # fmt: skip
def test_an_impossible_header_is_refused(content: bytes) -> None:
    """A right digest does not help: lengths are compared with the file before memory is taken."""
    with pytest.raises(ModelError, match="not understood"):
        Model.from_bytes(content)


def test_a_large_foreign_file_is_not_read(tmp_path: Path) -> None:
    """A file of 1 TiB is refused by its first line."""
    path = tmp_path / "large.fm"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(ModelError, match="not a fmtune model"):
        Model.load(path)


def test_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    """A path that is not there, or a folder, is said in one line."""
    for path in (tmp_path / "none.fm", tmp_path):
        with pytest.raises(ModelError, match="cannot be read"):
            Model.load(path)


def test_a_model_is_its_own_only_draw() -> None:
    """One that was sampled has several; a notebook shows what either is."""
    one, several = _model(), _sampled()
    assert one.drawn() == [one] and len(several.drawn()) == 3
    assert "factorization machine: binary_classifier" in one._repr_html_()
    assert repr(one) == "<Model: binary_classifier, 3 features, 2 factors>"


WHY = {
    "not a fmtune model\n  hint: fmtune fit -o FILE writes one": b"fmtune model 3\n",
    "the file is damaged: its digest does not fit its content": MAGIC + bytes(64),
    "the file is not understood: impossible header": _with_header(_header(feature_dim=-1)),
    "the file is not understood: its length does not fit its header": _with_header(_header(), bytes(8)),
}


@pytest.mark.parametrize("said", WHY)
def test_a_file_that_is_no_model_says_why(said: str, tmp_path: Path) -> None:
    """Word for word, with the next step; also from memory."""
    hint = "" if "hint" in said else "\n  hint: copy it again from where it was made, or train it again"
    (tmp_path / "m").write_bytes(WHY[said])
    ways = {tmp_path / "m": lambda: Model.load(tmp_path / "m"), "model": lambda: Model.from_bytes(WHY[said])}
    for where, read in ways.items():
        with pytest.raises(ModelError) as error:
            read()
        assert str(error.value) == f"{where}: {said}{hint}"
    with pytest.raises(ModelError) as error:
        Model.load(tmp_path / "n")
    assert str(error.value) == f"{tmp_path / 'n'}: cannot be read: No such file or directory\n  hint: check the path"


def test_a_file_that_may_not_be_read_is_no_damaged_one() -> None:
    """It is a matter of permissions."""
    with folder() as place:
        _model().save(place / "m")
        (place / "m").chmod(0)
        with nobody(), pytest.raises(ResourceError) as error:
            Model.load(place / "m")
        said = "the file may not be read: permission denied\n  hint: check its permissions"
        assert str(error.value) == f"{place / 'm'}: {said}"
