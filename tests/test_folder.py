"""A study's folder: held by those that run the study, by one alone, or set aside."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fmtune.errors import StorageError
from fmtune.tune.folder import exclusive, set_aside, shared


def test_the_first_knows_that_nobody_else_is_there(tmp_path: Path) -> None:
    """It learns when that was; the second, beside it, learns that somebody is there; the next is the first again."""
    began = time.time()
    with shared(tmp_path / "s") as first, shared(tmp_path / "s") as second:
        assert first is not None and began <= first <= time.time() and second is None
    with shared(tmp_path / "s") as third:
        assert third is not None


def test_holding_alone_and_together_exclude_each_other(tmp_path: Path) -> None:
    """Each is refused while the other lasts, and taken afterwards; other studies are not concerned."""
    text = f"{tmp_path / 's'}: study 's' is being run by another process\n  hint: wait for it, or stop it"
    for outer, inner in ((shared, exclusive), (exclusive, shared), (exclusive, exclusive)):
        with outer(tmp_path / "s"), exclusive(tmp_path / "other"):
            with pytest.raises(StorageError) as error, inner(tmp_path / "s"):
                pass
            assert str(error.value) == text
        with inner(tmp_path / "s"):
            pass


def test_a_folder_is_set_aside_over_an_older_one(tmp_path: Path) -> None:
    """What it held is in ``.old``, with folders; an empty one is not moved."""
    folder, old = tmp_path / "s", tmp_path / "s.old"
    folder.mkdir()
    set_aside(folder)
    assert not old.exists()
    for name in ("first", "second"):
        (folder / "inner").mkdir()
        (folder / "inner" / name).touch()
        set_aside(folder)
        assert [path.name for path in old.rglob("*")] == ["inner", name] and not list(folder.iterdir())
