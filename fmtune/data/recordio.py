"""RecordIO-wrapped protobuf: SageMaker's training format, read and written.

Records are counted from 1, bytes from 0.  Float64 and Int32 tensors become float32.  Of a label that holds
several numbers the first counts, as in SageMaker.  A record with keys, or with nothing but a shape, is sparse;
one with values alone is dense; where both occur the file is read as sparse, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fmtune.data.canonical import LARGEST_DIM, Disorder, beyond, check_matrix, checked_labels, put_right
from fmtune.data.parts import BLOCK, Block, Job, Part, blocks, whole
from fmtune.data.schema import Record
from fmtune.errors import DataError
from fmtune.kernels import frames, records, wire
from fmtune.rows import DenseRows, Float32, Int64, Rows, SparseRows

_TORN = "the file is cut short: copy or download it again"
_DAMAGED = "the file is damaged or was not written as RecordIO: write it again"
_REWRITE = "write the record again with the schema aialgs.data.Record"

# code -> what is wrong ({detail} is the number at fault), and the next step
FAULTS = {
    frames.HEADER: ("the file ends in a record's header", _TORN),
    frames.NOT_MAGIC: ("no record starts here (the bytes 0a 23 d7 ce are missing)", _DAMAGED),
    frames.TOO_LONG: ("the record claims {detail} bytes, more than the 16 MiB that one may have", _DAMAGED),
    frames.BODY: ("the record claims {detail} bytes, more than are left in the file", _TORN),
    frames.PADDING: ("the file ends in a record's padding", _TORN),
    frames.DIRTY: ("the padding after the record is not zero", _DAMAGED),
    frames.PARTS: ("the parts of a record do not follow each other as first, middle, last", _DAMAGED),
    wire.GARBAGE: ("the bytes are not a protobuf record", _DAMAGED),
    records.NO_FEATURES: ("the record has no features under the key 'values'", _REWRITE),
    records.RAW_FEATURES: ("the features are raw bytes, not numbers", "write them as a Float32Tensor"),
    records.UNEQUAL: ("the features have keys and values of different length", _REWRITE),
    records.SHAPE: (
        "the features are {detail} by their shape, but another number of values stands there without keys",
        _REWRITE,
    ),
    records.WIDE_SHAPE: (f"the shape is {{detail}}, beyond the {LARGEST_DIM} features that can be numbered", _REWRITE),
    records.WIDTH: (
        "a dense record of {detail} values follows dense records of another length",
        "give every dense record all features",
    ),
    records.RAW_LABEL: ("the label is raw bytes, not a number", "write it as a Float32Tensor"),
    records.KEY_SHAPE: ("key {detail} is not below the record's own shape", _REWRITE),
    records.NO_VALUES: ("the record has neither values nor a shape, among dense records", _REWRITE),
}


def sniff(head: bytes) -> bool:
    """Say whether the bytes begin a RecordIO file."""
    return head[:4] == frames.MAGIC.to_bytes(4, "little")


def read(path: Path, feature_dim: int | None = None) -> Rows:
    """Read a file; labels are None where no record has one.

    Parameters
    ----------
    path
        A file of RecordIO frames.
    feature_dim
        Number of features; None takes the largest shape or key + 1.

    Raises
    ------
    DataError
        Anything that is not such a file, with record and byte.
    """
    return whole(path, jobs(path, feature_dim))


def jobs(path: Path, feature_dim: int | None = None, size: int = BLOCK) -> Iterator[Job]:
    """Yield jobs that together read a file, ``size`` bytes each, about; parameters and errors as in :func:`read`."""
    with path.open("rb") as stream:
        for block in blocks(stream, _cut, size):
            yield partial(_part, block, feature_dim, str(path))


def parse(content: bytes | NDArray[np.uint8], feature_dim: int | None = None, name: str = "records") -> Rows:
    """Read records from memory; ``name`` stands for the path in messages."""
    buf = content if isinstance(content, np.ndarray) else np.frombuffer(bytearray(content), np.uint8)
    return whole(Path(name), [partial(_part, Block(buf, 0, 0), feature_dim, name)])


def _cut(buf: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the bytes of the whole records that a buffer begins with, and their number; see ``parts.blocks``."""
    work = wire.work()
    count, _ = frames.count_frames(buf, work)
    if count >= 0:
        return len(buf), count
    code, byte, end = work[[0, 1, frames.WHOLE]].tolist()
    torn = code in (frames.HEADER, frames.BODY, frames.PADDING) or (code == frames.PARTS and byte == len(buf))
    # A record that is not all there comes with the next block; what else is wrong, the parser says.
    return (end if torn else len(buf)), -1 - count


def _part(block: Block, feature_dim: int | None, name: str) -> Part:
    return _Reader(block, feature_dim, name).part()


class _Reader:
    """A block of one file: frames listed, records measured, arrays filled."""

    def __init__(self, block: Block, feature_dim: int | None, name: str) -> None:
        self.name, self.feature_dim, self.work = name, feature_dim, wire.work()
        buf, self.record, self.byte = block
        count, joined = frames.count_frames(buf, self.work)
        if count < 0:
            raise self.fault(-1 - count)
        if count == 0:
            raise DataError("the file is empty", where=name, hint="a channel needs at least one record")
        self.frames, self.starts, self.stops = (np.empty(count, np.int64) for _ in range(3))
        self.parts = joined > 0
        whole = np.zeros(joined, np.uint8)
        frames.list_frames(buf, whole, self.frames, self.starts, self.stops)
        self.buf = whole if self.parts else buf
        self.totals = np.zeros(records.TOTALS, np.int64)

    def place(self, record: int, byte: int | None = None) -> str:
        """Say where a record stands; within joined parts a byte has no place of its own in the file."""
        at = self.frames[record] if byte is None or self.parts else byte
        return f"{self.name}: record {self.record + record + 1}, byte {self.byte + at}"

    def fault(self, record: int) -> DataError:
        """Return the error for the fault that a kernel left."""
        code, byte, detail = self.work[:3].tolist()
        if code < wire.GARBAGE:  # a fault of framing: the frames are not listed yet
            where = f"{self.name}: record {self.record + record + 1}, byte {self.byte + byte}"
        else:
            where = self.place(record, byte if code == wire.GARBAGE else None)
        if code == records.KEY:
            return beyond(detail % 2**64, self.feature_dim, where)
        what, hint = FAULTS[code]
        return DataError(what.format(detail=detail % 2**64), where=where, hint=hint)

    def part(self) -> Part:
        kinds = np.zeros(len(self.starts), np.int8)
        bits, keys = np.zeros(0, np.uint32), np.zeros(0, np.uint64)
        record, most, most_label = records.measure(
            self.buf, self.starts, self.stops, bits, keys, self.work, kinds, self.totals
        )
        if record >= 0:
            raise self.fault(record)
        labels = self.label_room()
        self.bits, self.keys = np.zeros(most + most_label, np.uint32), np.zeros(most + most_label, np.uint64)
        self.work[wire.LABEL + wire.FROM] = most
        dense = int(self.totals[records.DENSE])
        if dense and self.feature_dim not in (None, self.totals[records.COLUMNS]):
            raise self.wrong_width(kinds)
        if dense and not self.totals[records.SPARSE]:
            if self.totals[records.EMPTY]:
                self.work[0] = records.NO_VALUES
                raise self.fault(int(np.argmax(kinds == records.EMPTY)))
            return Part(self.dense(labels), self.place(0), "record", dense)
        rows, disorder = self.sparse(labels)
        return Part(rows, self.place(0), "record", dense, disorder)

    def label_room(self) -> Float32:
        """Return room for the labels, none if no record has one."""
        count = int(self.totals[records.LABELLED])
        if count not in (0, len(self.starts)):
            bare, full = self.totals[records.UNLABELLED_AT].item(), self.totals[records.LABELLED_AT].item()
            what = (
                "has no label, though records before it have one"
                if bare > full
                else "has a label, though records before it have none"
            )
            raise DataError(
                f"the record {what}", where=self.place(max(bare, full)), hint="give every record a label, or none"
            )
        return np.zeros(count, np.float32)

    def wrong_width(self, kinds: NDArray[np.int8]) -> DataError:
        where = self.place(int(np.argmax(kinds == records.DENSE)))
        return DataError(
            f"a dense record has {self.totals[records.COLUMNS]} values, but feature_dim is {self.feature_dim}",
            where=where,
            hint="dense channels of a study need the same columns",
        )

    def dense(self, labels: Float32) -> DenseRows:
        matrix = np.zeros((len(self.starts), int(self.totals[records.COLUMNS])), np.float32)
        records.fill_dense(
            self.buf,
            self.starts,
            self.stops,
            self.bits,
            self.keys,
            self.work,
            matrix.view(np.uint32),
            labels.view(np.uint32),
        )
        check_matrix(matrix, self.place)
        checked = checked_labels(labels, self.place) if len(labels) else None
        return DenseRows(matrix, checked, matrix.shape[1])

    def sparse(self, labels: Float32) -> tuple[SparseRows, Disorder]:
        indptr: Int64 = np.zeros(len(self.starts) + 1, np.int64)
        room = int(self.totals[records.ENTRIES])
        indices, values = np.empty(room, np.int32), np.empty(room, np.float32)
        limit = LARGEST_DIM if self.feature_dim is None else self.feature_dim
        record = records.fill_sparse(
            self.buf,
            self.starts,
            self.stops,
            limit,
            self.bits,
            self.keys,
            self.work,
            indptr,
            indices,
            values.view(np.uint32),
            labels.view(np.uint32),
            self.totals,
        )
        if record >= 0:
            raise self.fault(record)
        held = int(indptr[-1])
        at_least = max(int(self.totals[records.LARGEST]), int(self.totals[records.COLUMNS]))
        mine = labels if len(labels) else None
        if not self.totals[[records.DISORDER, records.WILD]].any() and np.isfinite(labels).all():
            seen = max(at_least, int(self.totals[records.BEYOND]))
            dim = seen if self.feature_dim is None else self.feature_dim
            return SparseRows(indptr, indices[:held], values[:held], mine, dim), Disorder()
        arrays = (indptr, indices[:held], values[:held], mine)
        return put_right(*arrays, self.feature_dim, self.place, at_least=at_least)


def write(stream: BinaryIO, rows: Rows) -> None:
    """Write rows as SageMaker's own writers do: one whole record each, Float32, sparse ones with their shape.

    Raises
    ------
    DataError
        A row makes a longer record than is read again.
    """
    for r in range(rows.n):
        record = Record()
        tensor = record.features["values"].float32_tensor
        if isinstance(rows, DenseRows):
            tensor.values.extend(rows.matrix[r].tolist())
        else:
            entries = slice(rows.indptr[r], rows.indptr[r + 1])
            tensor.values.extend(rows.values[entries].tolist())
            tensor.keys.extend(rows.indices[entries].tolist())
            tensor.shape.append(rows.feature_dim)
        if rows.labels is not None:
            record.label["values"].float32_tensor.values.append(rows.labels[r].item())
        payload = record.SerializeToString(deterministic=True)
        if len(payload) > frames.LONGEST:
            what = f"a row of {len(tensor.values)} entries makes a record longer than 16 MiB"
            raise DataError(what, hint="write such rows as npz")
        stream.write(frame(payload))


def frame(payload: bytes) -> bytes:
    """Return one whole record: magic, length, payload, zeros up to a multiple of four."""
    head = frames.MAGIC.to_bytes(4, "little") + len(payload).to_bytes(4, "little")
    return head + payload + bytes(-len(payload) % 4)
