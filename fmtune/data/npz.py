"""npz: numpy's archive of arrays, in one of two forms.

====== ======================================================== ================================================
form   members                                                  written by
====== ======================================================== ================================================
sparse ``format`` (csr), ``indptr``, ``indices``, ``data``,     ``scipy.sparse.save_npz(file, x)``, which leaves
       ``shape``, and ``labels`` (n,)                           ``labels`` to be added; ``np.savez`` with all six
dense  ``x`` (n, feature_dim), ``y`` (n,)                       ``np.savez(file, x=x, y=y)``
====== ======================================================== ================================================

Labels may be left out for rows that are only to be scored; ``labels`` and ``y`` are the same thing.  Numbers of
any real type become float32.  No pickle is ever loaded, and an array is made only after its length was compared
with the bytes that the archive has for it.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fmtune.data.canonical import LARGEST_DIM, check_matrix, checked_labels, sparse_rows
from fmtune.errors import DataError
from fmtune.rows import DenseRows, Rows

_SPARSE = ("indptr", "indices", "data", "shape")
_MEMBERS = "members are format, indptr, indices, data, shape and labels (sparse), or x and y (dense)"
_AGAIN = "the archive is damaged: write or copy it again"
# Deflate cannot pack tighter than this; an archive that claims to is lying about its size.
_TIGHTEST = 1032


def sniff(head: bytes) -> bool:
    """Say whether the bytes begin a zip archive whose first member is an array."""
    size = int.from_bytes(head[26:28], "little")
    return head[:4] == b"PK\x03\x04" and head[30 : 30 + size].endswith(b".npy")


def read(path: Path, feature_dim: int | None = None) -> Rows:
    """Read an archive; ``feature_dim`` None takes the width that it states.

    Raises
    ------
    DataError
        Members missing or of unfitting shape, pickled objects, a damaged archive.
    """
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                arrays = {name: _array(archive, name, path) for name in _wanted(archive, path)}
        # A wrong offset makes an OSError of a seek: the file itself is open and can be read.
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as it:
            raise DataError(f"the archive cannot be read ({it})", where=str(path), hint=_AGAIN) from it
    labels = arrays.get("labels", arrays.get("y"))
    rows = (
        _dense(arrays["x"], labels, feature_dim, path) if "x" in arrays else _sparse(arrays, labels, feature_dim, path)
    )
    if rows.n == 0:
        raise DataError("the archive holds no rows", where=str(path), hint="a channel needs at least one row")
    return rows


def write(stream: BinaryIO, rows: Rows) -> None:
    """Write rows in the form of their layout, compressed."""
    labels: dict[str, Any] = (
        {} if rows.labels is None else {"y" if isinstance(rows, DenseRows) else "labels": rows.labels}
    )
    if isinstance(rows, DenseRows):
        np.savez_compressed(stream, x=rows.matrix, **labels)
        return
    np.savez_compressed(
        stream,
        format=np.array(b"csr"),
        shape=np.array([rows.n, rows.feature_dim], np.int64),
        indptr=rows.indptr,
        indices=rows.indices,
        data=rows.values,
        **labels,
    )


def _wanted(archive: zipfile.ZipFile, path: Path) -> list[str]:
    held = [info.filename for info in archive.infolist()]
    names = {name.removesuffix(".npy") for name in held if name.endswith(".npy")}
    labels = sorted({"labels", "y"} & names)
    if len(labels) > 1:
        raise DataError("both labels and y are there", where=str(path), hint=_MEMBERS)
    if "x" in names:
        return ["x", *labels]
    if not names.issuperset(_SPARSE):
        shown = sorted({name.removesuffix(".npy") for name in held})[:8]
        raise DataError(f"the members {shown} are no rows", where=str(path), hint=_MEMBERS)
    return [*_SPARSE, *labels, *sorted({"format"} & names)]


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    """Return one member, after its header was compared with its size."""
    where = f"{path}: member {name}"
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > _TIGHTEST * info.compress_size + 1024:
        raise DataError(
            f"it claims {info.file_size} bytes, more than {info.compress_size} can hold", where=where, hint=_AGAIN
        )
    with archive.open(info) as member:
        try:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(member)
            # numpy takes True for a length, and then cannot reshape by it.
            if any(isinstance(length, bool) for length in shape):
                raise ValueError(f"its shape is {shape}")
        except ValueError as error:
            raise DataError(f"it is not an array ({str(error).splitlines()[0]})", where=where, hint=_AGAIN) from error
        if dtype.hasobject:
            raise DataError(
                "it holds pickled objects, which are never loaded", where=where, hint="save arrays of numbers"
            )
        if dtype.kind not in ("biufS" if name == "format" else "biuf"):
            raise DataError(f"it holds {dtype}, not real numbers", where=where, hint=_MEMBERS)
        count = 1
        for length in shape:
            count *= length
        left = info.file_size - member.tell()
        if count * dtype.itemsize != left:
            raise DataError(
                f"its header promises {count} items of {dtype.itemsize} bytes, but {left} bytes follow",
                where=where,
                hint=_AGAIN,
            )
        flat = np.frombuffer(bytearray(member.read()), dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _dense(x: NDArray[Any], labels: NDArray[Any] | None, feature_dim: int | None, path: Path) -> DenseRows:
    if x.ndim != 2:
        raise DataError(f"its shape is {x.shape}, not (rows, features)", where=f"{path}: member x", hint=_MEMBERS)
    if feature_dim not in (None, x.shape[1]):
        raise DataError(
            f"a dense row has {x.shape[1]} values, but feature_dim is {feature_dim}",
            where=f"{path}: member x",
            hint="dense channels of a study need the same columns",
        )
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(x, np.float32)
    check_matrix(matrix, _place(path))
    return DenseRows(matrix, _labels(labels, len(x), path), x.shape[1])


def _sparse(arrays: dict[str, NDArray[Any]], labels: NDArray[Any] | None, feature_dim: int | None, path: Path) -> Rows:
    kind = arrays.get("format", np.array(b"csr"))
    if kind.tobytes() != b"csr":
        raise DataError(
            f"the sparse format is {kind.tobytes()[:12].decode('ascii', 'replace')!r}, not csr",
            where=f"{path}: member format",
            hint="convert the matrix with .tocsr() before saving it",
        )
    indptr, keys, values, shape = (arrays[name] for name in _SPARSE)
    n = len(indptr) - 1 if indptr.ndim == 1 else -1
    whole = all(a.dtype.kind in "iu" for a in (indptr, keys, shape)) and all(
        a.ndim == 1 for a in (indptr, keys, values, shape)
    )
    if not (
        whole
        and n >= 0
        and len(shape) == 2
        and shape[0] == n
        and 0 <= int(shape[1]) <= LARGEST_DIM
        and len(keys) == len(values)
        and int(indptr[0]) == 0
        and int(indptr[-1]) == len(keys)
        and bool((indptr[1:] >= indptr[:-1]).all())
    ):
        raise DataError("indptr, indices, data and shape do not fit together", where=str(path), hint=_MEMBERS)
    width = int(shape[1])
    keys = keys.astype(np.int64)
    return sparse_rows(
        indptr.astype(np.int64),
        keys,
        values,
        _labels(labels, n, path),
        width if feature_dim is None else feature_dim,
        str(path),
        _place(path),
    )


def _labels(labels: NDArray[Any] | None, n: int, path: Path) -> NDArray[Any] | None:
    if labels is None:
        return None
    if labels.size != n or labels.shape not in ((n,), (n, 1)):
        raise DataError(f"labels have the shape {labels.shape} for {n} rows", where=str(path), hint=_MEMBERS)
    return checked_labels(labels.reshape(n), _place(path))


class _place:
    """Says where row ``r`` stands; rows are counted from 1."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, row: int) -> str:
        return f"{self.path}: row {row + 1}"
