"""fmtune.sagemaker.artifact, archive, ndarray and symbol: SageMaker's model.tar.gz, read and written."""

import contextlib
import gzip
import io
import itertools
import json
import random
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmtune.errors import ModelError, UsageError
from fmtune.fm.model import Draws, Model
from fmtune.fm.pack import score
from fmtune.rows import DenseRows
from fmtune.sagemaker.archive import read_parts
from fmtune.sagemaker.artifact import export_artifact, import_artifact, member_of
from fmtune.sagemaker.hyperparameters import DEFAULTS
from fmtune.sagemaker.ndarray import read_arrays, write_arrays
from fmtune.sagemaker.symbol import network
from tests.fm_reference import compiled

# w1_weight row_sparse, w0_weight dense, v row_sparse; written by another program from the layout alone.
SPECIMEN = bytes.fromhex(
    """
    12 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00 c9 fa 93 f9 01 00 00 00
    02 00 00 00 02 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 02 00 00 00 00 00 00 00
    01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 06 00 00 00 01 00 00 00 02 00 00 00
    00 00 00 00 00 00 00 3f 00 00 80 be 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 c9 fa 93 f9
    00 00 00 00 01 00 00 00 01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00 40 40
    c9 fa 93 f9 01 00 00 00 02 00 00 00 02 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 02 00 00 00
    02 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 06 00 00 00
    01 00 00 00 02 00 00 00 00 00 00 00 cd cc cc 3d cd cc 4c 3e 9a 99 99 3e cd cc cc be 00 00 00 00
    00 00 00 00 01 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00 0d 00 00 00 00 00 00 00 61 72 67 3a
    77 31 5f 77 65 69 67 68 74 0d 00 00 00 00 00 00 00 61 72 67 3a 77 30 5f 77 65 69 67 68 74 05 00
    00 00 00 00 00 00 61 72 67 3a 76
    """
)
SETTINGS = {"feature_dim": "2", "num_factors": "2", "predictor_type": "regressor"}


def model(kind: str = "regressor", d: int = 7, k: int = 3, **facts: Any) -> Model:
    rng = np.random.default_rng(5)
    return Model(kind, 0.25, rng.normal(size=d).astype("f"), rng.normal(size=(d, k)).astype("f"), facts)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def packed(path: Path, members: list[tuple[tarfile.TarInfo | str, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            entry = tarfile.TarInfo(info) if isinstance(info, str) else info
            if entry.isreg():
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def parts(settings: dict[str, Any] = SETTINGS, params: bytes = SPECIMEN, kind: str = "regressor") -> dict[str, bytes]:
    meta = {"version": 1, "epoch_number": 1, "training_parameters": settings, "label_names": ["out_label"]}
    return {
        "meta.json": json.dumps(meta).encode(), "symbol.json": network(2, 2, kind, {}).encode(), "params": params,
    }  # fmt: skip


def artifact(path: Path, *args: Any, **options: Any) -> Path:
    return packed(path / "model.tar.gz", [("model_algo-1", zipped(parts(*args, **options)))])


HINT = "\n  hint: it should be the model.tar.gz of a factorization machine, as SageMaker wrote it"


def refused(path: Path, **options: Any) -> str:
    """Return why a path is no model, its own name and the usual hint left out."""
    with pytest.raises(ModelError) as error:
        import_artifact(path, **options)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ").removesuffix(HINT)


# An independent reader: written from the layout, sharing nothing with fmtune's.
def layout_reader(content: bytes) -> dict[str, tuple[int, np.ndarray]]:
    at = 0

    def word(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + form, content, at)
        at += struct.calcsize(form)
        return int(value)

    def shape() -> list[int]:
        return [word("q") for _ in range(word("I"))]

    assert (word("Q"), word("Q")) == (0x112, 0)
    found = []
    for _ in range(word("Q")):
        assert word("I") == 0xF993FAC9
        storage = word("i")
        stored = shape() if storage else []
        full = shape()
        assert (word("i"), word("i"), word("i")) == (1, 0, 0)
        if storage:
            assert (word("i"), shape()) == (6, [stored[0]])
        count = int(np.prod(stored or full))
        values = np.array(struct.unpack_from(f"<{count}f", content, at), np.float32).reshape(stored or full)
        at += 4 * count
        if storage:
            rows = [word("q") for _ in range(stored[0])]
            dense = np.zeros(full, np.float32)
            dense[rows] = values
            values = dense
        found.append((storage, values))
    names = []
    for _ in range(word("Q")):
        length = word("Q")
        names.append(content[at : at + length].decode())
        at += length
    assert at == len(content)
    return dict(zip(names, found, strict=True))


def test_the_published_specimen_is_read():
    """Vector 7: three arrays, row_sparse and dense, to the last byte."""
    arrays = read_arrays(SPECIMEN)
    assert list(arrays) == ["w1_weight", "w0_weight", "v"]
    np.testing.assert_array_equal(arrays["w1_weight"], np.float32([[0.5], [-0.25]]))
    np.testing.assert_array_equal(arrays["w0_weight"], np.float32([3.0]))
    np.testing.assert_array_equal(arrays["v"], np.float32([[0.1, 0.2], [0.3, -0.4]]))


def test_the_published_specimen_is_written():
    """Vector 7 comes out byte for byte."""
    assert write_arrays(read_arrays(SPECIMEN), frozenset({"w1_weight", "v"})) == SPECIMEN


def test_older_layouts_are_read():
    """V1 has no storage word; before it the dimensions stood first, in 32 bits; float64 and float16 are converted."""
    tail = struct.pack("<QQ5s", 1, 5, b"arg:v")
    head = struct.pack("<QQQ", 0x112, 0, 1)
    values = np.float32([[1, 2, 3], [4, 5, 6]])
    v1 = struct.pack("<IIqqiii", 0xF993FAC8, 2, 2, 3, 1, 0, 0) + values.tobytes()
    v0 = struct.pack("<IIIiii", 2, 2, 3, 1, 0, 0) + values.tobytes()
    f64 = struct.pack("<IiIqqiii", 0xF993FACA, 0, 2, 2, 3, 1, 0, 1) + values.astype("<f8").tobytes()
    f16 = struct.pack("<IiIqqiii", 0xF993FAC9, 0, 2, 2, 3, 2, 7, 2) + values.astype("<f2").tobytes()
    for body in (v1, v0, f64, f16):
        np.testing.assert_array_equal(read_arrays(head + body + tail)["v"], values)


def test_rows_that_are_not_stored_are_zero():
    """A row_sparse array may leave rows out, and name them in any order."""
    body = struct.pack("<IiIqqIqqiii", 0xF993FAC9, 1, 2, 2, 1, 2, 4, 1, 1, 0, 0) + struct.pack("<iIq", 6, 1, 2)
    content = struct.pack("<QQQ", 0x112, 0, 1) + body + struct.pack("<ffqq", 5, 7, 3, 1)
    array = read_arrays(content + struct.pack("<QQ5s", 1, 5, b"arg:v"))["v"]
    np.testing.assert_array_equal(array.ravel(), [0, 7, 0, 5])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_order_of_members_and_arrays_means_nothing(order, tmp_path):
    """Arrays are found by name and zip members too, whatever their order; deflate is as good as store."""
    arrays = read_arrays(SPECIMEN)
    names = [list(arrays)[i] for i in order]
    files = parts(params=write_arrays({name: arrays[name] for name in names}, frozenset({"v"})))
    shuffled = {list(files)[i]: files[list(files)[i]] for i in order}
    path = packed(tmp_path / "m.tar.gz", [("model_algo-1", zipped(shuffled, zipfile.ZIP_DEFLATED))])
    found = import_artifact(path)
    assert (found.bias, found.predictor_type) == (3.0, "regressor")
    np.testing.assert_array_equal(found.factors, arrays["v"])
    assert found.facts["hyperparameters"]["num_factors"] == 2


def test_wrappings(tmp_path):
    """The zip alone, a tar without gzip, an unzipped folder packed again, AWS's recipe, and a hosting container's."""
    files = parts()
    body = zipped(files)
    (tmp_path / "model_algo-1").write_bytes(body)
    for name, contents in {"model": {"model_algo-1": body}, "files": files}.items():
        (tmp_path / name).mkdir()
        for member, content in contents.items():
            (tmp_path / name / member).write_bytes(content)
    renamed = [("./model-symbol.json", files["symbol.json"]), ("./model-0000.params", files["params"])]
    folder = tarfile.TarInfo(".")
    folder.type = tarfile.DIRTYPE
    paths = [
        tmp_path / "model_algo-1",
        packed(tmp_path / "a.tar", [("model_algo-1", body)], "w"),
        packed(tmp_path / "b.tar.gz", [(folder, b""), *(("./" + n, c) for n, c in files.items())]),
        packed(tmp_path / "c.tar.gz", renamed),
        tmp_path / "model",
        tmp_path / "files",
    ]
    for path in paths:
        np.testing.assert_array_equal(import_artifact(path).linear, np.float32([0.5, -0.25]))


@compiled
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", ["regressor", "binary_classifier"])
def test_a_model_goes_out_and_comes_back(kind, dense, tmp_path):
    """Bit for bit, in either naming; the scores are the same, and the same model gives the same bytes."""
    one = model(kind)
    export_artifact(one, tmp_path / "m.tar.gz", dense=dense)
    export_artifact(one, tmp_path / "n.tar.gz", dense=dense)
    assert (tmp_path / "m.tar.gz").read_bytes() == (tmp_path / "n.tar.gz").read_bytes()
    back = import_artifact(tmp_path / "m.tar.gz")
    assert (back.predictor_type, back.bias) == (kind, one.bias)
    np.testing.assert_array_equal(back.linear, one.linear)
    np.testing.assert_array_equal(back.factors, one.factors)
    rows = DenseRows(np.eye(7, dtype="f"), None, 7)
    np.testing.assert_array_equal(score(back, rows), score(one, rows))
    again = tmp_path / "again.tar.gz"
    export_artifact(back, again)
    assert read_parts(again).params == read_parts(tmp_path / "m.tar.gz").params


@pytest.mark.parametrize("dense", [False, True])
def test_an_independent_reader_finds_the_same_arrays(dense, tmp_path):
    """One tar member, a stored zip of three, and arrays as the layout says: names, shapes, storage, values."""
    one = model("binary_classifier", epochs=3, hyperparameters={"factors_lr": 0.5, "use_bias": True})
    export_artifact(one, tmp_path / "m.tar.gz", dense=dense)
    with tarfile.open(tmp_path / "m.tar.gz") as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.mode, member.uid, member.gid) == ("model_algo-1", 0o644, 0, 0)
        body = tar.extractfile(member).read()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.namelist() == ["meta.json", "symbol.json", "params"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        meta, params = json.loads(archive.read("meta.json")), archive.read("params")
    assert list(meta) == ["version", "epoch_number", "training_parameters", "label_names"]
    settings = meta["training_parameters"]
    assert all(isinstance(value, str) for value in settings.values())
    assert (settings["factors_lr"], settings["use_bias"], settings["feature_dim"]) == ("0.5", "true", "7")
    arrays = layout_reader(params)
    if dense:
        assert list(arrays) == ["arg:Linear_Plus_Bias_weight", "arg:Linear_Plus_Bias_bias", "arg:v"]
        assert [storage for storage, _ in arrays.values()] == [0, 0, 0]
        w, b, v = (array for _, array in arrays.values())
        assert (w.shape, v.shape) == ((1, 7), (3, 7))
        v = v.T
    else:
        assert list(arrays) == ["arg:w1_weight", "arg:w0_weight", "arg:v"]
        assert [storage for storage, _ in arrays.values()] == [1, 0, 1]
        w, b, v = (array for _, array in arrays.values())
        assert w.shape == (7, 1)
    np.testing.assert_array_equal(w.ravel(), one.linear)
    np.testing.assert_array_equal(v, one.factors)
    assert b.tolist() == [0.25]


def test_the_sparse_network_has_sagemakers_nodes():
    """Nineteen nodes in SageMaker's order, with the weights' attributes, for either output."""
    settings = {"factors_lr": "0.0001", "factors_wd": "0.00001", "factors_init_sigma": "0.001"}
    graph = json.loads(network(2625, 64, "regressor", settings))
    ops = [node["op"] for node in graph["nodes"]]
    assert ops == ["null", "null", "dot", "null", "broadcast_add", "null", "dot", "square", "_mul_scalar", "Concat",
                   "sum", "square", "_square_sum", "dot", "negative", "_mul_scalar", "elemwise_add", "null",
                   "LinearRegressionOutput"]  # fmt: skip
    assert [node["name"] for node in graph["nodes"]] == [
        "data", "w1_weight", "dot0", "w0_weight", "broadcast_plus0", "v", "dot2", "Square", "_mulscalar0", "concat0",
        "sum0", "x_square", "_square_sum0", "dot1", "negative0", "_mulscalar1", "Final_Summation", "out_label", "out",
    ]  # fmt: skip
    assert graph["nodes"][5]["attrs"] == {
        "__init__": '["normal", {"sigma": 0.001}]', "__lr_mult__": "0.0001", "__shape__": "(2625, 64)",
        "__storage_type__": "1", "__wd_mult__": "1e-05",
    }  # fmt: skip
    assert (graph["arg_nodes"], graph["heads"]) == ([0, 1, 3, 5, 17], [[18, 0, 0]])
    assert graph["attrs"] == {"mxnet_version": ["int", 10301]}
    assert json.loads(network(5, 2, "binary_classifier", {}))["nodes"][18]["op"] == "LogisticRegressionOutput"


def test_what_it_predicts_is_known_from_either_file(tmp_path):
    """From meta.json, or where it is silent from the network's head; if they contradict each other, refused."""
    silent = {name: value for name, value in SETTINGS.items() if name != "predictor_type"}
    assert import_artifact(artifact(tmp_path, silent, kind="binary_classifier")).predictor_type == "binary_classifier"
    path = artifact(tmp_path, kind="binary_classifier")
    assert refused(path) == "meta.json says regressor, symbol.json says binary_classifier"


def test_weights_that_a_job_went_without(tmp_path):
    """Without use_bias or use_linear their arrays may be missing and count as zero; otherwise that is a fault."""
    only = write_arrays({"v": np.ones((2, 2), np.float32)})
    found = import_artifact(artifact(tmp_path, {**SETTINGS, "use_bias": "false", "use_linear": "false"}, only))
    assert (found.bias, found.linear.tolist()) == (0.0, [0.0, 0.0])
    assert refused(artifact(tmp_path, SETTINGS, only)) == "the weights 'w1_weight' are missing"
    only = write_arrays({"v": np.ones((2, 2), np.float32), "w1_weight": np.ones((2, 1), np.float32)})
    assert refused(artifact(tmp_path, SETTINGS, only)) == "the weights 'w0_weight' are missing"


@pytest.mark.parametrize(
    ("arrays", "settings", "said"),
    [
        ({"w1_weight": (2, 1), "w0_weight": (1,)}, SETTINGS,
         "there are no factors 'v'; the weights are w1_weight, w0_weight"),
        ({"w1_weight": (3, 1), "w0_weight": (1,), "v": (2, 2)}, SETTINGS,
         "'w1_weight' has the shape (3, 1), the factors say 2"),
        ({"w1_weight": (2, 1), "w0_weight": (1,), "v": (2, 2), "centroids": (2,)}, SETTINGS,
         "weights that a factorization machine has not: centroids"),
        ({"w1_weight": (2, 1), "w0_weight": (1,), "v": (2, 2)}, {**SETTINGS, "feature_dim": "3"},
         "meta.json says feature_dim 3, the weights have 2"),
        ({"w1_weight": (2, 1), "w0_weight": (1,), "v": (2, 2)}, {**SETTINGS, "predictor_type": "x"},
         "meta.json has the predictor_type 'x'"),
        ({"w1_weight": (2, 1), "w0_weight": (1,), "v": (2, 2)}, {**SETTINGS, "num_factors": "3"},
         "meta.json says num_factors 3, the weights have 2"),
        ({"w1_weight": (2, 1), "w0_weight": (1,), "v": (2,)}, SETTINGS,
         "there are no factors 'v'; the weights are w1_weight, w0_weight, v"),
        ({"w1_weight": (1, 2), "w0_weight": (1, 1), "v": (2, 2)}, SETTINGS, None),
        ({"w1_weight": (2, 1), "w0_weight": (2,), "v": (2, 2)}, SETTINGS,
         "'w0_weight' has the shape (2,), the factors say 1"),
        ({}, SETTINGS, "there are no factors 'v'; the weights are none"),
    ],
)
def test_parts_that_do_not_fit_are_refused(arrays, settings, said, tmp_path):
    """Missing, misshapen and foreign weights, and settings that contradict them."""
    params = write_arrays({name: np.ones(shape, np.float32) for name, shape in arrays.items()})
    path = artifact(tmp_path, settings, params)
    assert said == refused(path) if said else import_artifact(path).feature_dim == 2


def test_weights_of_a_diverged_job_are_refused(tmp_path):
    """NaN predicts nothing."""
    bad = {"w1_weight": np.float32([[1], [np.nan]]), "w0_weight": np.float32([0]), "v": np.ones((2, 2), np.float32)}
    assert refused(artifact(tmp_path, SETTINGS, write_arrays(bad))) == (
        "the weights are not finite: the job that made them diverged\n"
        "  hint: train it again with lower learning rates, or clip_gradient"
    )


def test_a_linear_model_goes_out_with_one_factor_of_zero(tmp_path):
    """SageMaker has no model without factors; the predictions are the same."""
    one = Model("regressor", 1.0, np.ones(4, np.float32), np.zeros((4, 0), np.float32))
    export_artifact(one, tmp_path / "m.tar.gz")
    back = import_artifact(tmp_path / "m.tar.gz")
    assert back.num_factors == 1
    assert not back.factors.any()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


@pytest.mark.parametrize(
    "hostile",
    [
        tarfile.TarInfo("../params"), tarfile.TarInfo("/etc/params"), tarfile.TarInfo("a/../../params"),
        special("params", tarfile.SYMTYPE, "/etc/passwd"), special("params", tarfile.LNKTYPE, "model_algo-1"),
        special("params", tarfile.CHRTYPE), special("params", tarfile.BLKTYPE), special("params", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type!r}",
)  # fmt: skip
def test_hostile_members_are_refused(hostile, tmp_path):
    """Names that lead out, links, devices and pipes: refused before or after a good member, and nothing is written."""
    good = ("model_algo-1", zipped(parts()))
    for members in ([(hostile, b"x"), good], [good, (hostile, b"x")]):
        path = packed(tmp_path / "m.tar.gz", members)
        what = "a member's name leads out of the archive"
        if hostile.name == "params":
            what = "a link, a device or another thing that is no plain file"
        assert refused(path) == f"{hostile.name!r}: {what}"
    assert [p.name for p in tmp_path.iterdir()] == ["m.tar.gz"]


def test_zip_names_that_lead_out_are_refused(tmp_path):
    """Also one level further in."""
    path = packed(tmp_path / "m.tar.gz", [("model_algo-1", zipped({**parts(), "../x": b""}))])
    assert refused(path) == "model_algo-1: '../x': a member's name leads out of the archive"


def test_the_same_member_twice_is_refused(tmp_path):
    """Which one counts would depend on the reader."""
    body = zipped(parts())
    path = packed(tmp_path / "m.tar.gz", [("model_algo-1", body), ("model_algo-1", body)])
    assert refused(path) == "model_algo-1: the member is there twice"


def test_a_folder_is_bounded_too(tmp_path):
    """No more bytes than the limit in all; an empty folder holds no weights."""
    assert refused(tmp_path) == "there are no weights in it ('params'); it holds nothing"
    for name, content in parts().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    sizes = sum(map(len, parts().values()))
    assert import_artifact(tmp_path, limit=sizes).feature_dim == import_artifact(tmp_path).feature_dim
    bomb = "it unpacks to more than a model can be: a bomb"
    with pytest.raises(ModelError) as error:
        import_artifact(tmp_path, limit=sizes - 1)
    assert str(error.value) == f"{tmp_path / 'symbol.json'}: {bomb}{HINT}"
    (tmp_path / "m").write_bytes(zipped(parts()))
    size = (tmp_path / "m").stat().st_size
    assert import_artifact(tmp_path / "m", limit=size).feature_dim == 2
    assert refused(tmp_path / "m", limit=size - 1) == bomb


def test_bombs_are_refused(tmp_path):
    """A gzip or zip of zeros, a member or an array that claims terabytes: refused, with little memory."""
    zeros = bytes(1 << 20)
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=9) as stream:
        entry = tarfile.TarInfo("model_algo-1")
        entry.size = 200 << 20
        stream.write(entry.tobuf())
        for _ in range(100):
            stream.write(zeros)
    inner = zipped({"params": bytes(80 << 20)}, zipfile.ZIP_DEFLATED)
    packed(tmp_path / "zip.tar.gz", [("model_algo-1", inner)])
    assert refused(tmp_path / "bomb.tar.gz") == f"model_algo-1: the member claims {200 << 20} bytes"
    assert refused(tmp_path / "zip.tar.gz") == f"model_algo-1: params: the member claims {80 << 20} bytes"
    assert refused(artifact(tmp_path), limit=300) == "it unpacks to more than a model can be: a bomb"
    empty = struct.pack("<QQQIiIqqIqqiiiiIq", 0x112, 0, 1, 0xF993FAC9, 1, 2, 0, 64, 2, 10**9, 64, 1, 0, 0, 6, 1, 0)
    with pytest.raises(ModelError, match="in a file of"):
        read_arrays(empty + struct.pack("<QQ5s", 1, 5, b"arg:v"))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty file"), (b"\x80\x04pickle", "truncated header"), (b"PK\x03\x04", "File is not a zip file"),
     (b"\x1f\x8b\x08", "Compressed file ended before the end-of-stream marker was reached"),
     (b"fmtune model 1\n", "truncated header")],
)  # fmt: skip
def test_foreign_files_are_refused(content, said, tmp_path):
    """Empty, a pickle, half an archive."""
    (tmp_path / "m").write_bytes(content)
    assert refused(tmp_path / "m") == f"the archive cannot be read: {said}"
    assert refused(tmp_path / "n") == "there is no such file\n  hint: check the path"


def test_an_archive_of_something_else_says_what_it_holds(tmp_path):
    """Another algorithm's model has no params."""
    path = packed(tmp_path / "m.tar.gz", [("model_algo-1", b"k-means")])
    assert refused(path) == "there are no weights in it ('params'); it holds model_algo-1"
    path = packed(tmp_path / "m.tar.gz", [(name, b"") for name in "gfedcba"])
    assert refused(path) == "there are no weights in it ('params'); it holds a, b, c, d, e"


def test_every_truncation_is_seen(tmp_path):
    """Of the weights alone, and of the archive around them; never another exception."""
    for end in range(len(SPECIMEN)):
        with pytest.raises(ModelError):
            read_arrays(SPECIMEN[:end])
    whole = artifact(tmp_path).read_bytes()
    for end in range(0, len(whole) - 1, 7):
        (tmp_path / "cut").write_bytes(whole[:end])
        with pytest.raises(ModelError):
            import_artifact(tmp_path / "cut")


def test_flipped_bits_are_seen_or_harmless(tmp_path):
    """Every flip of the archive is refused, or changes no byte of what is packed (a time in gzip's header)."""
    path = artifact(tmp_path)
    whole, good = path.read_bytes(), import_artifact(path)
    for bit in random.Random(1).sample(range(8 * len(whole)), 1500):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = import_artifact(path)
        except ModelError:
            continue
        assert gzip.decompress(flipped) == gzip.decompress(whole)
        np.testing.assert_array_equal(found.factors, good.factors)


def test_no_foreign_exception_under_fuzzing(tmp_path):
    """Words of the weights overwritten with large numbers, and of the archive: a model or a ModelError."""
    rng = random.Random(2)
    words = [struct.pack("<q", value) for value in (-1, 0, 1, 2**31, 2**40, 2**62, -(2**63))]
    for _ in range(3000):
        body = bytearray(SPECIMEN)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(body))
            body[at : at + 8] = rng.choice(words)[: rng.randint(1, 8)]
        with contextlib.suppress(ModelError):
            read_arrays(bytes(body))
    member = zipped(parts())
    for _ in range(600):
        body = bytearray(member)
        at = rng.randrange(len(body))
        body[at : at + 4] = rng.choice(words)[: rng.randint(1, 4)]
        (tmp_path / "m").write_bytes(body)
        with contextlib.suppress(ModelError):
            import_artifact(tmp_path / "m")
    tar = bytearray(packed(tmp_path / "t.tar", [("model_algo-1", member)], "w").read_bytes())
    for _ in range(600):
        body = bytearray(tar)
        at = rng.randrange(512)
        body[at : at + 4] = rng.randbytes(4)
        body[148:156] = b"%06o\0 " % (sum(body[:148]) + 256 + sum(body[156:512]))  # a right checksum
        (tmp_path / "m").write_bytes(body)
        with contextlib.suppress(ModelError):
            import_artifact(tmp_path / "m")


def test_member_is_what_a_job_leaves():
    """model_algo-1 is the zip that SageMaker packs."""
    assert member_of(model())[:4] == b"PK\x03\x04"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.params": b"", "b.params": b""}, "2 files end in '.params'"),
        ({f"{n}": b"" for n in range(1001)}, "more than 1000 members"),
    ],
    ids=["two weights", "many members"],
)
def test_archives_that_are_none_of_a_model_are_refused(members, said, tmp_path):
    """Packed as tar or as zip within it."""
    for path in (
        packed(tmp_path / "a.tar.gz", list(members.items())),
        packed(tmp_path / "b.tar.gz", [("model_algo-1", zipped(members))]),
    ):
        assert refused(path).removeprefix("model_algo-1: ") == said


def test_folders_are_stepped_over_and_claims_checked_in_a_zip(tmp_path):
    """A member twice, or of another size than it claims."""
    good = zipped({**parts(), "folder/": b""})
    assert import_artifact(packed(tmp_path / "m.tar.gz", [("model_algo-1", good)])).feature_dim == 2
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("params", SPECIMEN)
    path = packed(tmp_path / "m.tar.gz", [("model_algo-1", stream.getvalue())])
    assert refused(path) == "model_algo-1: params: the member is there twice"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("params", SPECIMEN)
        archive.getinfo("params").file_size = len(SPECIMEN) + 1
    path = packed(tmp_path / "m.tar.gz", [("model_algo-1", stream.getvalue())])
    assert refused(path) == "model_algo-1: params: the member's size is not what it claims"


def test_a_member_that_claims_more_than_is_left_is_refused(tmp_path):
    """Before it is read."""
    entry = tarfile.TarInfo("model_algo-1")
    entry.size = 1 << 40
    (tmp_path / "m.tar").write_bytes(entry.tobuf() + bytes(1024))
    assert refused(tmp_path / "m.tar") == f"model_algo-1: the member claims {1 << 40} bytes"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"meta.json": b"[]"}, "meta.json is not understood"),
        ({"meta.json": b"{"}, "meta.json is not understood"),
        ({"symbol.json": b"[]"}, "symbol.json is not a network"),
        ({"symbol.json": b'{"heads": [[9]], "nodes": []}'}, "symbol.json is not a network"),
        ({"meta.json": b'{"training_parameters": {"predictor_type": "ranker"}}'},
         "meta.json has the predictor_type 'ranker'"),
    ],
)  # fmt: skip
def test_descriptions_that_are_not_understood_are_refused(change, said, tmp_path):
    """Each file by its name."""
    said += "\n  hint: download the model again" * said.startswith("symbol")
    assert refused(packed(tmp_path / "m.tar.gz", [("model_algo-1", zipped({**parts(), **change}))])) == said


def test_settings_with_foreign_values_are_kept_as_text(tmp_path):
    """They may be of a version to come."""
    made = import_artifact(artifact(tmp_path, {**SETTINGS, "epochs": "many"}))
    assert made.facts["sagemaker"]["training_parameters"]["epochs"] == "many"


def test_two_arrays_of_one_name_are_refused():
    """Which one counts would depend on the reader."""
    body = write_arrays({"w1": np.ones((2, 1), np.float32), "w2": np.ones((2, 1), np.float32)})
    with pytest.raises(ModelError, match="two arrays are named 'w1'"):
        read_arrays(body.replace(b"w2", b"w1"))


def test_a_mean_of_probabilities_has_no_artifact():
    """The next step is said; a regressor's draws are one model."""
    draws = Draws(np.zeros(2), np.zeros((2, 3), np.float32), np.zeros((2, 3, 1), np.float32), np.full(2, 0.5))
    with pytest.raises(UsageError) as error:
        member_of(Model.of_draws("binary_classifier", draws, {}))
    assert str(error.value) == (
        "a classifier of solver mcmc is a mean of many models' probabilities, "
        "which SageMaker's artifact has no place for\n"
        "  hint: train one with solver sgd or als; a regressor of solver mcmc can be exported"
    )
    assert member_of(Model.of_draws("regressor", draws, {}), settings={"epochs": "3"})


def test_what_follows_the_end_of_an_archive_is_read_for_its_checksum(tmp_path):
    """Zeros harm nobody; a flipped bit in the checksum behind them is seen."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as out:
        out.write(gzip.decompress(artifact(tmp_path).read_bytes()) + bytes(3 << 20))
    (tmp_path / "m.tar.gz").write_bytes(stream.getvalue())
    assert import_artifact(tmp_path / "m.tar.gz").feature_dim == 2
    (tmp_path / "m.tar.gz").write_bytes(stream.getvalue()[:-8] + b"\0" + stream.getvalue()[-7:])
    with pytest.raises(ModelError, match="cannot be read"):
        import_artifact(tmp_path / "m.tar.gz")


def test_a_model_that_does_not_say_what_it_predicts_is_refused(tmp_path):
    """Neither in meta.json nor by a network."""
    silent = {name: body for name, body in parts({"feature_dim": "2"}).items() if name != "symbol.json"}
    path = packed(tmp_path / "m.tar.gz", [("model_algo-1", zipped(silent))])
    assert refused(path) == "neither meta.json nor symbol.json says what it predicts"


def test_what_is_written_is_described(tmp_path):
    """In SageMaker's names and texts: defaults, what the model knows of itself, and its shape."""
    known = {"factors_lr": 0.5, "use_bias": True, "clip_gradient": None, "epochs": 3, "solver": "sgd"}
    made = model(hyperparameters=known)
    for name, dense in (("sparse", False), ("dense", True)):
        export_artifact(made, tmp_path / "m.tar.gz", dense=dense)
        with tarfile.open(tmp_path / "m.tar.gz") as tar:
            (entry,) = tar.getmembers()
            member = tar.extractfile(entry).read()
        assert (entry.name, entry.mode, member) == ("model_algo-1", 0o644, member_of(made, dense=dense))
        with zipfile.ZipFile(io.BytesIO(member)) as archive:
            assert archive.namelist() == ["meta.json", "symbol.json", "params"]
            assert {info.external_attr >> 16 for info in archive.infolist()} == {0o644}
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            meta = json.loads(archive.read("meta.json"))
        settings = meta.pop("training_parameters")
        assert meta == {"version": 1, "epoch_number": 1, "label_names": ["out_label"]}
        assert settings == {
            **DEFAULTS, "factors_lr": "0.5", "use_bias": "true", "epochs": "3", "feature_dim": "7", "num_factors": "3",
            "predictor_type": "regressor",
        }  # fmt: skip
        facts = import_artifact(tmp_path / "m.tar.gz").facts
        assert facts["sagemaker"] == {"network": name, "training_parameters": settings}
        assert (facts["hyperparameters"]["epochs"], facts["hyperparameters"]["use_bias"]) == (3, True)
