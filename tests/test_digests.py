"""Digests by blocks: the same of an array, of a file, and of pieces."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path

import numpy as np
import pytest

from fmtune import digests


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 64])
def test_pieces_and_files_have_the_digests_of_the_whole(length: int, tmp_path: Path) -> None:
    """However the bytes come; an empty file has none."""
    content = bytes(range(length))
    known = [hashlib.sha256(content[at : at + 8]).hexdigest() for at in range(0, length, 8)]
    (tmp_path / "x").write_bytes(content)
    assert digests.of_file(tmp_path / "x", 8) == known
    for step in (1, 3, 8, 20):
        running = digests.Running(8)
        for at in range(0, length, step):
            running.add(memoryview(content[at : at + step]))
        assert running.blocks() == known


def test_an_array_has_the_digests_of_its_bytes(tmp_path: Path) -> None:
    """Also one that cannot be written, asked twice."""
    array = np.arange(3 << 20, dtype=np.int64)
    (tmp_path / "x").write_bytes(array.tobytes())
    known = digests.of_file(tmp_path / "x")
    assert len(known) == 3 and digests.of_array(array) == known
    array.flags.writeable = False
    assert digests.of_array(array) == digests.of_array(array) == known


def test_a_seal_is_broken_by_any_change(tmp_path: Path) -> None:
    """What is not there or not whole is None."""
    path = tmp_path / "x"
    assert digests.unsealed(path) is None
    whole = digests.sealed({"a": 1})
    path.write_bytes(whole)
    assert digests.unsealed(path) == {"a": 1}
    for damaged in (whole[:-1], whole + b" ", b"0" + whole[1:], b""):
        path.write_bytes(damaged)
        assert digests.unsealed(path) is None


def test_digests_are_forgotten_with_their_array() -> None:
    """Another array in its place has its own."""
    known = dict(digests._known)
    array = np.arange(8)
    array.flags.writeable = False
    digests.of_array(array)
    assert digests._known != known
    del array
    gc.collect()
    assert digests._known == known
