"""The cache of converted data: mapped the second time, made again whenever it is not exactly what it should be."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fmtune import kernels
from fmtune.data.cache import FOLDER, Cache
from fmtune.data.source import DataWarning, read_channel, read_channels, write
from fmtune.errors import DataError
from fmtune.rows import DenseRows, Rows, SparseRows

DENSE = DenseRows(np.array([[0, 1.5], [2, 0], [0, 0]], np.float32), np.array([0, 1, 1], np.float32), 2)
SPARSE = DENSE.to_sparse()


def cache(**environment: str) -> Cache:
    return Cache(environment, worth=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.pbr"
    write(SPARSE, path)
    return path


def entry(folder: Path) -> Path:
    """Return the only entry of a cache."""
    (found,) = [path for path in (folder / FOLDER).iterdir() if path.is_dir()]
    return found


def never() -> Iterable[Rows]:
    raise AssertionError("the source was read again")


@pytest.mark.parametrize("rows", [SPARSE, DENSE, SparseRows(SPARSE.indptr, SPARSE.indices, SPARSE.values, None, 9)])
def test_the_second_reading_is_a_memory_map_of_the_same_rows(rows: Rows, tmp_path: Path) -> None:
    """Of either layout, with labels or without; nothing is read from the source."""
    path = tmp_path / "a.npz"
    write(rows, path)
    first = read_channel(path, labelled=False, cache=cache())
    assert first.digest() == rows.digest()
    assert read_channel(path, labelled=False, cache=cache()).digest() == rows.digest()
    mapped = cache().rows([path], {"base": None, "feature_dim": None}, never)
    assert mapped is not None and mapped.digest() == rows.digest()
    arrays = [mapped.values, mapped.indices] if isinstance(mapped, SparseRows) else [mapped.matrix]
    assert not any(array.flags.writeable or array.flags.owndata for array in arrays)


def test_only_large_inputs_are_kept_and_it_can_be_switched_off(file: Path) -> None:
    """Nothing is written then."""
    size = file.stat().st_size
    for none in (Cache({}), Cache({}, worth=size + 1), cache(FMTUNE_DATA_CACHE="off"), cache(FMTUNE_DATA_CACHE="0")):
        assert read_channel(file, cache=none).digest() == SPARSE.digest()
    assert not (file.parent / FOLDER).exists()
    read_channel(file, cache=Cache({}, worth=size))
    assert entry(file.parent).name.startswith("train.pbr.")


def test_a_place_that_cannot_be_written_has_its_cache_below_the_users(file: Path, tmp_path: Path) -> None:
    """Here a file stands where the folder should; without any place the data are read into memory."""
    (file.parent / FOLDER).touch()
    for name in ("FMTUNE_CACHE_DIR", "XDG_CACHE_HOME"):
        assert read_channel(file, cache=cache(**{name: str(tmp_path / name)})).digest() == SPARSE.digest()
        assert list((tmp_path / name / "fmtune" / "data").rglob("about.json"))
    assert read_channel(file, cache=cache(FMTUNE_CACHE_DIR=str(file))).digest() == SPARSE.digest()


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Also one that is no UTF-8."""
    folder = tmp_path / os.fsdecode(b"dir\xff")
    folder.mkdir()
    write(SPARSE, folder / "a.pbr")
    assert read_channel(folder / "a.pbr", cache=cache()).digest() == SPARSE.digest()
    assert (entry(folder) / "about.json").is_file()


def test_a_user_without_a_home_has_a_cache_beside_the_data(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or none, where that cannot be written: a container may run under a number that has neither name nor HOME."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    for name in ("FMTUNE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert kernels.user_cache() is None and kernels.user_cache({"XDG_CACHE_HOME": "/x"}) == Path("/x")
    compiled = kernels._cache_folder()
    assert compiled is None or compiled.startswith(tempfile.gettempdir())
    assert read_channel(file, cache=cache()).digest() == SPARSE.digest()
    shutil.rmtree(file.parent / FOLDER)
    (file.parent / FOLDER).touch()
    assert read_channel(file, cache=cache()).digest() == SPARSE.digest()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit flipped at the front": lambda old: bytes([old[0] ^ 1]) + old[1:],
    "a bit flipped at the end": lambda old: old[:-1] + bytes([old[-1] ^ 128]),
    "a byte cut": lambda old: old[:-1],
    "a byte too many": lambda old: old + b"\0",
    "emptied": lambda old: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_seen_and_made_again(damage: str, file: Path) -> None:
    """Whatever file of it, wherever."""
    read_channel(file, cache=cache())
    for path in sorted(entry(file.parent).iterdir()):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        assert read_channel(file, cache=cache()).digest() == SPARSE.digest()
        path.unlink()
        assert read_channel(file, cache=cache()).digest() == SPARSE.digest()
        assert cache().rows([file], {"base": None, "feature_dim": None}, never) is not None


def test_every_bit_of_an_entry_counts(file: Path) -> None:
    """One bit of every byte in turn, in every file."""
    read_channel(file, cache=cache())
    for path in sorted(entry(file.parent).iterdir()):
        good = path.read_bytes()
        for at in range(len(good)):
            path.write_bytes(good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :])
            with pytest.raises(AssertionError, match="read again"):
                cache().rows([file], {"base": None, "feature_dim": None}, never)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(good)


def test_an_entry_of_another_version_is_made_again(file: Path) -> None:
    """Its seal may be sound."""
    read_channel(file, cache=cache())
    about = entry(file.parent) / "about.json"
    old = {**json.loads(about.read_bytes().partition(b"\n")[2]), "version": 0}
    text = json.dumps(old).encode()
    about.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    assert read_channel(file, cache=cache()).digest() == SPARSE.digest()
    assert json.loads(about.read_bytes().partition(b"\n")[2])["version"] > 0


def test_changed_sources_are_read_again(file: Path) -> None:
    """By their size, or by the time of their change; also when a shard is added."""
    read_channel(file, cache=cache())
    write(SPARSE.slice(0, 2), file)
    assert read_channel(file, cache=cache()).n == 2
    state = file.stat()
    flipped = SparseRows(SPARSE.indptr, SPARSE.indices, -SPARSE.values, SPARSE.labels, 2).slice(0, 2)
    write(flipped, file)
    assert file.stat().st_size == state.st_size
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert read_channel(file, cache=cache()).digest() == flipped.digest()
    write(SPARSE, file.with_name("u.pbr"))
    assert read_channel(file.parent, cache=cache()).n == 5


def test_what_was_put_right_is_said_each_time(tmp_path: Path) -> None:
    """Dense beside sparse shards, and keys out of order: the warnings are kept with the rows."""
    write(DENSE, tmp_path / "a.npz")
    (tmp_path / "b.svm").write_text("1 2:1 1:1\n")
    digests = set()
    for _ in range(2):
        with pytest.warns(DataWarning) as said:
            digests.add(read_channel(tmp_path, cache=cache()).digest())
        assert sorted(str(one.message).partition(": ")[2] for one in said) == [
            "1 dense and 1 sparse shards are mixed; all were read as sparse",
            "1 row has keys out of order; they were sorted",
        ]
    assert len(digests) == 1


def test_faults_are_found_as_without_a_cache(file: Path) -> None:
    """A key beyond a feature_dim given later is named with its record; nothing half is left."""
    read_channel(file, cache=cache())
    with pytest.raises(DataError, match="record 1, byte 0: key 1 is not below feature_dim 1"):
        read_channel(file, feature_dim=1, cache=cache())
    assert not list((file.parent / FOLDER).glob("*.part"))
    assert read_channel(file, feature_dim=7, cache=cache()).feature_dim == 7


def test_the_first_index_is_remembered_and_looked_for_again_in_changed_text(tmp_path: Path) -> None:
    """Index 0 in one channel counts for all, from the cache too."""
    a, b = tmp_path / "a.svm", tmp_path / "b.svm"
    a.write_text("1 1:1 3:1\n")
    b.write_text("1 2:1\n")
    for _ in range(2):
        rows = read_channels({"train": a, "test": b}, cache=cache())
        assert (rows["train"].feature_dim, rows["test"].to_dense().matrix.tolist()) == (3, [[0, 1, 0]])
    b.write_text("1 0:1 2:1\n")
    for _ in range(2):
        rows = read_channels({"train": a, "test": b}, cache=cache())
        assert (rows["train"].feature_dim, rows["test"].to_dense().matrix.tolist()) == (4, [[1, 0, 1, 0]])


def test_two_at_once_write_it_once(file: Path) -> None:
    """The second waits and maps what the first has made."""
    read, inside = [], threading.Event()

    def slow() -> Iterable[Rows]:
        read.append(1)
        inside.set()
        yield SPARSE.slice(0, 1)
        yield SPARSE.slice(1, 3)

    with ThreadPoolExecutor(4) as pool:
        found = [job.result() for job in [pool.submit(cache().rows, [file], {}, slow) for _ in range(4)]]
    assert len(read) == 1 and inside.is_set()
    assert {rows.digest() for rows in found if rows is not None} == {SPARSE.digest()}


KILLED = """
import os, sys
from pathlib import Path
from fmtune.data.cache import Cache
from fmtune.data.source import read_channel
path = Path(sys.argv[1])
rows = read_channel(path)
def read():
    yield rows
    os._exit(9)
Cache({}, worth=0).rows([path], {"base": None, "feature_dim": None}, read)
"""


def test_a_process_killed_while_writing_leaves_nothing_that_is_read(file: Path) -> None:
    """What it leaves has another name and goes with the next reading."""
    assert subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False, timeout=120).returncode == 9
    folder = file.parent / FOLDER
    assert [path.suffix for path in folder.iterdir() if path.is_dir()] == [".part"]
    assert read_channel(file, cache=cache()).digest() == SPARSE.digest()
    assert entry(file.parent).suffix != ".part"


def test_without_room_the_data_are_read_into_memory(file: Path) -> None:
    """A file stands in the way here; the warning says so, once a reading."""
    read_channel(file, cache=cache())
    place = entry(file.parent)
    (place / "values").write_bytes(b"")
    place.with_name(f"{place.name}.part").touch()
    with pytest.warns(DataWarning, match="no cache beside it .File exists.; the data are read into memory"):
        assert read_channel(file, cache=cache()).digest() == SPARSE.digest()
    place.with_name(f"{place.name}.part").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_channel(file, cache=cache())
