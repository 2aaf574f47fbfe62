"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from fmtune.errors import ResourceError
from fmtune.files import appear, atomic_stream, atomic_write, foresee, make_folder


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Folders on the way are made, the old content goes, no other file stays, and the mode is that of any new file."""
    path = tmp_path / "a" / "b" / "x"
    for content in (b"one", b"two and more"):
        atomic_write(path, content)
        assert path.read_bytes() == content and list(path.parent.iterdir()) == [path]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    """An error of whoever writes goes through as it is; the half file goes too."""
    path = tmp_path / "x"
    atomic_write(path, b"old")
    with pytest.raises(KeyError), atomic_stream(path) as stream:
        stream.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("write", "needed"),
    [
        (lambda path: atomic_write(path, bytes(1 << 20)), "; 1.05 MB are needed"),
        (lambda path: _stream(path, 1 << 20), ""),
    ],
    ids=["size known", "size unknown"],
)
def test_a_full_disk_keeps_the_old_file_and_says_how_much_is_needed(
    write: Callable[[Path], None], needed: str, tmp_path: Path
) -> None:
    """A limit on the size of files is met as a full disk is; with room again the same call goes well."""
    path = tmp_path / "x"
    atomic_write(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(ResourceError) as error:
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(error.value) == (
        f"{path}: no space left on the disk (File too large){needed}\n"
        "  hint: free some space and run the same command again; nothing was lost"
    )
    assert error.value.exit_code == 5
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write(path)
    assert path.stat().st_size == 1 << 20


def _stream(path: Path, size: int) -> None:
    with atomic_stream(path) as stream:
        stream.write(bytes(size))


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    """A file where a folder is wanted, in the words of the system, with the next step."""
    (tmp_path / "file").touch()
    hint = "  hint: check the folder and its permissions, or name another place"
    path = tmp_path / "file" / "x"
    with pytest.raises(ResourceError) as error:
        atomic_write(path, b"")
    assert str(error.value) == f"{path}: cannot be written: File exists\n{hint}"
    with pytest.raises(ResourceError) as error:
        make_folder(path)
    assert str(error.value) == f"{path}: the folder cannot be made: Not a directory\n{hint}"


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    """With those above it; one that is there stays as it is."""
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "x").touch()
    make_folder(tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x"]


def test_a_file_appears_whole_and_over_nothing(tmp_path: Path) -> None:
    """What is there by then stays; of a failure, or of a full disk, nothing is left."""
    path = tmp_path / "made"
    appear(path, lambda part: part.write_text("first"))
    appear(path, lambda part: part.write_text("second"))
    assert path.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["made"]

    def full(part: Path) -> None:
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResourceError, match="no space left on the disk"):
        appear(tmp_path / "other", full)
    assert [p.name for p in tmp_path.iterdir()] == ["made"]

    def none(old: Path, new: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    appear(tmp_path / "renamed", lambda part: part.write_text("third"), none)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"made": "first", "renamed": "third"}


def test_a_place_that_cannot_be_written_is_foreseen(tmp_path: Path) -> None:
    """A folder, a place below a file; what can be made is no fault, and is not made."""
    (tmp_path / "file").write_text("x")
    foresee(tmp_path / "new" / "deep" / "model")
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "file" / "model", "Not a directory")):
        with pytest.raises(ResourceError) as error:
            foresee(path)
        assert error.value.what == f"cannot be written: {why}" and error.value.where == str(path)
    with pytest.raises(ResourceError, match="cannot be written: Permission denied"):
        foresee(tmp_path / "model", lambda place, mode, **_: place != tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
