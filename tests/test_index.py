"""The index of a data file: no truncation and no flipped bit gets by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fmtune import digests
from fmtune.cli.data import data
from fmtune.data.columns import Columns
from fmtune.data.index import BLOCK, check_index, index_of, write_index
from fmtune.data.preparation import Tables
from fmtune.data.source import read_channel, write
from fmtune.errors import DataError
from fmtune.rows import DenseRows

ROWS = DenseRows(np.eye(4, dtype=np.float32), np.array([0, 1, 1, 0], np.float32), 4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.pbr"
    write(ROWS, path)
    write_index(path)
    return path


def test_an_indexed_file_is_read_as_before(file: Path) -> None:
    """Its index is hidden, and no shard of the folder; a file without one is not checked."""
    assert check_index(file) and not check_index(index_of(file))
    assert read_channel(file).digest() == read_channel(file.parent).digest() == ROWS.digest()


def test_every_flip_and_every_truncation_is_seen(file: Path) -> None:
    """Of the file and of its index: 100 %."""
    for path in (file, index_of(file)):
        good = path.read_bytes()
        broken = [good[:n] for n in range(len(good))]
        flips = ((at, good[at] ^ 1 << bit) for at in range(len(good)) for bit in range(8))
        broken += [good[:at] + bytes([byte]) + good[at + 1 :] for at, byte in flips]
        for content in [*broken, good + b"\0"]:
            path.write_bytes(content)
            with pytest.raises(DataError):
                check_index(file)
        path.write_bytes(good)
    assert check_index(file)


def test_faults_name_place_cause_and_next_step(file: Path) -> None:
    """The block that changed, the length that did, an index that is damaged."""
    again = "restore the file; or, if the change is meant, run fmtune data index again"
    file.write_bytes(good := file.read_bytes() * 20_000)
    write_index(file)
    file.write_bytes(good[: BLOCK + 5] + b"x" + good[BLOCK + 6 :])
    with pytest.raises(DataError) as error:
        read_channel(file)
    assert str(error.value) == (
        f"{file}: bytes {BLOCK} to {2 * BLOCK - 1}: the data changed since they were indexed\n  hint: {again}"
    )
    file.write_bytes(good[:-4])
    with pytest.raises(DataError) as error:
        read_channel(file)
    size = len(good)
    assert str(error.value) == (
        f"{file}: the file has {size - 4} bytes, and had {size} when it was indexed\n  hint: {again}"
    )
    index_of(file).write_bytes(digests.sealed({"version": 0}))
    with pytest.raises(DataError, match="the index is damaged, or of another version\n  hint: check the file, then"):
        read_channel(file)


def test_tables_are_checked_too(tmp_path: Path) -> None:
    """Before a line of them is believed."""
    path = tmp_path / "t.csv"
    path.write_text("a,y\n1,0\n2,1\n")
    write_index(path)
    path.write_text("a,y\n1,0\n3,1\n")
    with pytest.raises(DataError, match="the data changed since they were indexed"):
        Tables(path, Columns(label="y"))


def test_the_verb_writes_an_index_for_each_file(tmp_path: Path) -> None:
    """Of a folder too, and says where."""
    for name in ("a.pbr", "b.svm"):
        write(ROWS, tmp_path / name)
    done = CliRunner().invoke(data, ["index", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert [Path(one["index"]).name for one in said] == [".a.pbr.index", ".b.svm.index"]
    assert all(check_index(Path(one["path"])) for one in said)
