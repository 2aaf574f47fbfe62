"""npz: both forms, scipy's own files, and every bad archive by its exact text."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from fmtune.data import npz
from fmtune.data.canonical import DataWarning
from fmtune.errors import DataError
from fmtune.rows import DenseRows, SparseRows

RANDOM = np.random.default_rng(0)
MATRIX = np.where(RANDOM.random((20, 6)) < 0.4, RANDOM.standard_normal((20, 6)), 0).astype(np.float32)
LABELS = RANDOM.integers(0, 2, 20).astype(np.float32)


@pytest.mark.parametrize("labels", [LABELS, None])
def test_rows_of_both_layouts_survive_the_round_trip(labels: Any, tmp_path: Path) -> None:
    """Bit for bit, with and without labels."""
    dense = DenseRows(MATRIX, labels, 6)
    for rows in (dense, dense.to_sparse()):
        with (tmp_path / "x.npz").open("wb") as stream:
            npz.write(stream, rows)
        back = npz.read(tmp_path / "x.npz")
        assert (back.layout, back.digest()) == (rows.layout, rows.digest())


def test_what_scipy_saves_is_read(tmp_path: Path) -> None:
    """A matrix saved by scipy has no labels; numpy's savez adds them, under either name."""
    matrix = scipy.sparse.csr_matrix(MATRIX.astype(np.float64))
    scipy.sparse.save_npz(tmp_path / "x.npz", matrix)
    assert npz.read(tmp_path / "x.npz").digest() == DenseRows(MATRIX, None, 6).to_sparse().digest()
    members = {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data, "shape": matrix.shape}
    np.savez(tmp_path / "y.npz", **members, y=LABELS.astype(np.int64)[:, None])  # type: ignore[arg-type]
    assert npz.read(tmp_path / "y.npz").digest() == DenseRows(MATRIX, LABELS, 6).to_sparse().digest()


def test_other_types_and_orders_become_float32(tmp_path: Path) -> None:
    """Booleans, integers, doubles and Fortran order."""
    for x in (MATRIX > 0, (MATRIX * 9).astype(np.int8), np.asfortranarray(MATRIX, np.float64), MATRIX.astype(">f4")):
        np.savez(tmp_path / "x.npz", x=x, y=LABELS)
        rows = npz.read(tmp_path / "x.npz")
        assert isinstance(rows, DenseRows) and rows.matrix.dtype == np.float32 and np.array_equal(rows.matrix, x)


def test_keys_out_of_order_are_put_right_with_a_warning(tmp_path: Path) -> None:
    """As in every sparse format."""
    np.savez(tmp_path / "x.npz", indptr=[0, 2], indices=[3, 1], data=[1.0, 2.0], shape=[1, 5])
    with pytest.warns(DataWarning, match="1 row has keys out of order; they were sorted"):
        rows = npz.read(tmp_path / "x.npz")
    assert isinstance(rows, SparseRows) and rows.indices.tolist() == [1, 3]


MEMBERS = "members are format, indptr, indices, data, shape and labels (sparse), or x and y (dense)"
AGAIN = "the archive is damaged: write or copy it again"
FINITE = "values and labels must be finite float32 numbers: replace or drop such rows before writing the file"
CSR: dict[str, Any] = {"indptr": [0, 1, 2], "indices": [0, 4], "data": [1.0, 2.0], "shape": [2, 5]}
UNFIT = ("", "indptr, indices, data and shape do not fit together", MEMBERS)
BAD: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "foreign members": ({"a": [1], "b": [2]}, ("", "the members ['a', 'b'] are no rows", MEMBERS)),
    "two labels": (CSR | {"y": [0, 1], "labels": [0, 1]}, ("", "both labels and y are there", MEMBERS)),
    "objects": ({"x": np.array([[{}]])},
                (": member x", "it holds pickled objects, which are never loaded", "save arrays of numbers")),
    "text": ({"x": np.array([["a"]])}, (": member x", "it holds <U1, not real numbers", MEMBERS)),
    "three dimensions": ({"x": np.zeros((2, 2, 2))},
                         (": member x", "its shape is (2, 2, 2), not (rows, features)", MEMBERS)),
    "no rows": ({"x": np.zeros((0, 5))}, ("", "the archive holds no rows", "a channel needs at least one row")),
    "too few labels": ({"x": np.zeros((2, 5)), "y": [1]}, ("", "labels have the shape (1,) for 2 rows", MEMBERS)),
    "another width": ({"x": np.zeros((2, 4))}, (": member x", "a dense row has 4 values, but feature_dim is 5",
                                                "dense channels of a study need the same columns")),
    "NaN value": ({"x": [[0.0] * 5, [0, 0, np.nan, 0, 0]]}, (": row 2", "the value of feature 2 is nan", FINITE)),
    "beyond float32": (CSR | {"data": [1.0, 1e39]}, (": row 2", "the value of feature 4 is inf", FINITE)),
    "NaN label": (CSR | {"labels": [0.0, np.nan]}, (": row 2", "the label is nan", FINITE)),
    "key beyond the features": (CSR | {"indices": [0, 5]}, (": row 2", "key 5 is not below feature_dim 5",
        "the channels of a study share one numbering, and data to score have their model's: "
        "check that file, or give a larger feature_dim (in a study, below data:)")),
    "negative key": (CSR | {"indices": [-1, 4]}, (": row 1", "index -1 is below 0, where the numbering starts",
                                                 "one file counts features from 0 or from 1, not both")),
    "csc": (CSR | {"format": np.array(b"csc")}, (": member format", "the sparse format is 'csc', not csr",
                                                 "convert the matrix with .tocsr() before saving it")),
    "indptr too long": (CSR | {"indptr": [0, 1, 2, 2]}, UNFIT),
    "indptr falls": (CSR | {"indptr": [0, 3, 2]}, UNFIT),
    "keys and values of different length": (CSR | {"data": [1.0]}, UNFIT),
    "keys that are no integers": (CSR | {"indices": [0.0, 4.0]}, UNFIT),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_archives_give_place_cause_and_next_step(name: str, tmp_path: Path) -> None:
    """Each fault is a DataError whose text stands here word for word; feature_dim is 5."""
    members, (place, what, hint) = BAD[name]
    path = tmp_path / "x.npz"
    np.savez(path, **members)
    with pytest.raises(DataError) as error:
        npz.read(path, 5)
    assert str(error.value) == f"{path}{place}: {what}\n  hint: {hint}"


def archive(path: Path, header: bytes, body: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", header + body)


def test_a_header_that_promises_more_than_follows_is_refused(tmp_path: Path) -> None:
    """Nothing of the promised size is allocated; nor are headers run as code."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)})
    archive(tmp_path / "x.npz", stream.getvalue(), bytes(64))
    with pytest.raises(
        DataError, match="member x: its header promises 1000000000000000 items of 4 bytes, but 64 bytes"
    ):
        npz.read(tmp_path / "x.npz")
    archive(tmp_path / "y.npz", b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').abort()".ljust(32))
    with pytest.raises(DataError, match="member x: it is not an array"):
        npz.read(tmp_path / "y.npz")


def test_a_shape_of_truths_is_refused(tmp_path: Path) -> None:
    """numpy takes True for a length, until it is to reshape by it."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2)}".ljust(117) + b"\n"
    archive(tmp_path / "x.npz", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header, bytes(8))
    with pytest.raises(DataError, match=r"member x: it is not an array \(its shape is \(True, 2\)\)"):
        npz.read(tmp_path / "x.npz")


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    """Cut anywhere, or with any byte of its arrays changed."""
    stream = io.BytesIO()
    npz.write(stream, DenseRows(MATRIX[:3], LABELS[:3], 6))
    whole, path = stream.getvalue(), tmp_path / "x.npz"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError):
            npz.read(path)
    for at in range(60, 150):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(DataError):
            npz.read(path)


def test_sniffing_looks_for_an_array_in_a_zip(tmp_path: Path) -> None:
    """Another zip file is not npz."""
    np.savez(tmp_path / "x.npz", x=MATRIX)
    assert npz.sniff((tmp_path / "x.npz").read_bytes()[:64])
    assert not npz.sniff(b"PK\x03\x04" + bytes(60)) and not npz.sniff(b"")


def test_a_member_that_claims_more_than_deflate_can_hold_is_refused(tmp_path: Path) -> None:
    """Before a byte of it is unpacked."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", bytes(100))
        info = file.getinfo("x.npy")
        info.file_size = 10**9
    with pytest.raises(DataError) as error:
        npz.read(tmp_path / "x.npz")
    assert str(error.value).startswith(
        f"{tmp_path / 'x.npz'}: member x: it claims 1000000000 bytes, more than {info.compress_size} can hold\n  hint: "
    )


def test_what_a_damaged_archive_says(tmp_path: Path) -> None:
    """Place, cause in the words of its reader, next step."""
    path = tmp_path / "x.npz"
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (2, 3)})
    archive(path, stream.getvalue(), bytes(20))
    cases = {
        path.read_bytes(): ": member x: its header promises 6 items of 4 bytes, but 20 bytes follow",
        b"PK\x03\x04" + bytes(60): ": the archive cannot be read (File is not a zip file)",
    }
    archive(path, b"\x93NUMPY\x07\x00" + bytes(20))
    cases[path.read_bytes()] = ": member x: it is not an array (Cannot parse header: '')"
    archive(path, b"none")
    cases[path.read_bytes()] = (
        ": member x: it is not an array (EOF: reading magic string, expected 8 bytes got 4)"
    )
    for content, said in cases.items():
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            npz.read(path)
        assert str(error.value) == f"{path}{said}\n  hint: {AGAIN}"
