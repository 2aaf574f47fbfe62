"""Archive: the members of a model.tar.gz, read in memory and never unpacked to a disk.

SageMaker packs a folder into ``model.tar.gz``; of a factorization machine it holds one file, ``model_algo-1``,
a zip of ``meta.json``, ``symbol.json`` and ``params``.  An unzipped folder packed again, a bare zip and a tar
without gzip are read as well.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from fmtune.errors import ModelError

LIMIT = 1 << 34
"""Bytes that an archive may unpack to: 16 GiB are ten million features with 400 factors."""
_FREE, _RATIO = 1 << 26, 100
"""Below the first size nothing is suspected; above it, weights never pack a hundredfold."""
_MEMBERS = 1000
_FAULTS = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, OverflowError, NotImplementedError,
    RuntimeError, KeyError, IndexError, UnicodeError,
)  # fmt: skip
_HINT = "it should be the model.tar.gz of a factorization machine, as SageMaker wrote it"


class Parts(NamedTuple):
    """The three files of a model."""

    params: bytes
    symbol: bytes | None
    meta: bytes | None


def read_parts(path: Path, limit: int = LIMIT) -> Parts:
    """Return the files of a model.

    Parameters
    ----------
    path
        ``model.tar.gz``, the tar or zip inside it, or a folder with it or with what was in it, as a hosting container
        has it.
    limit
        Bytes that it may unpack to.

    Raises
    ------
    ModelError
        Not there, cut off, damaged, hostile (links, devices, ``..``, a bomb), or without the files.
    """
    packed = path / "model.tar.gz"
    path = packed if packed.is_file() else path
    where = str(path)
    try:
        members = _folder(path, limit) if path.is_dir() else _packed(path, limit)
        zips = {name: body for name, body in members.items() if body[:4] == b"PK\x03\x04"}
        if zips:
            name = "model_algo-1" if "model_algo-1" in zips else min(zips)
            members = _unzipped(zips[name], limit, f"{where}: {name}")
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError("there is no such file", where=where, hint="check the path") from error
    except _FAULTS as error:
        what = f"the archive cannot be read: {str(error) or type(error).__name__}"
        raise ModelError(what, where=where, hint=_HINT) from error
    return Parts(
        _named(members, "params", ".params", where) or _missing(members, where),
        _named(members, "symbol.json", "-symbol.json", where),
        _named(members, "meta.json", "-meta.json", where),
    )


def _missing(members: dict[str, bytes], where: str) -> bytes:
    held = ", ".join(sorted(members)[:5]) or "nothing"
    raise ModelError(f"there are no weights in it ('params'); it holds {held}", where=where, hint=_HINT)


def _named(members: dict[str, bytes], name: str, ending: str, where: str) -> bytes | None:
    if name in members:
        return members[name]
    several = [body for other, body in members.items() if other.endswith(ending)]
    if len(several) > 1:
        raise ModelError(f"{len(several)} files end in {ending!r}", where=where, hint=_HINT)
    return several[0] if several else None


class _Bounded(io.RawIOBase):
    """A stream that gives a fault instead of more bytes than it may, counting what it gave."""

    def __init__(self, inner: BinaryIO | gzip.GzipFile, most: int, where: str) -> None:
        super().__init__()
        self.inner, self.left, self.where = inner, most, where

    def read(self, size: int = -1) -> bytes:
        wanted = self.left + 1 if size < 0 else min(size, self.left + 1)
        got = self.inner.read(wanted)
        self.left -= len(got)
        if self.left < 0:
            raise ModelError("it unpacks to more than a model can be: a bomb", where=self.where, hint=_HINT)
        return got


def _allowed(size: int, limit: int) -> int:
    return min(limit, max(_FREE, _RATIO * size))


def _folder(path: Path, limit: int) -> dict[str, bytes]:
    """Return the plain files of a folder."""
    members: dict[str, bytes] = {}
    for entry in sorted(path.iterdir())[:_MEMBERS]:
        if entry.is_file():
            with entry.open("rb") as stream:
                members[entry.name] = _Bounded(stream, limit, str(entry)).read()
            limit -= len(members[entry.name])
    return members


def _packed(path: Path, limit: int) -> dict[str, bytes]:
    with path.open("rb") as stream:
        return _members(stream, path.stat().st_size, limit, str(path))


def _members(stream: BinaryIO, size: int, limit: int, where: str) -> dict[str, bytes]:
    """Return the files of a tar, packed or not; a zip is one file."""
    head = stream.read(4)
    stream.seek(0)
    if head == b"PK\x03\x04":
        return {"model_algo-1": _Bounded(stream, limit, where).read()}
    inner = gzip.GzipFile(fileobj=stream) if head[:2] == b"\x1f\x8b" else stream
    bounded = _Bounded(inner, _allowed(size, limit), where)
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=bounded, mode="r|") as tar:
        for count, member in enumerate(tar):
            if count >= _MEMBERS:
                raise ModelError(f"more than {_MEMBERS} members", where=where, hint=_HINT)
            name = _safe(member.name, f"{where}: {member.name!r}")
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise ModelError("a link, a device or another thing that is no plain file",
                                 where=f"{where}: {member.name!r}", hint=_HINT)  # fmt: skip
            if name in members:
                raise ModelError("the member is there twice", where=f"{where}: {name}", hint=_HINT)
            if member.size > bounded.left:
                raise ModelError(f"the member claims {member.size} bytes", where=f"{where}: {name}", hint=_HINT)
            file = tar.extractfile(member)
            members[name] = b"" if file is None else file.read()
    while bounded.read(1 << 20):
        pass  # gzip's checksum stands at the end
    return members


def _safe(name: str, where: str) -> str:
    """Return a member's plain name."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ModelError("a member's name leads out of the archive", where=where, hint=_HINT)
    return str(path)


def _unzipped(content: bytes, limit: int, where: str) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    left = _allowed(len(content), limit)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        if len(entries) > _MEMBERS:
            raise ModelError(f"more than {_MEMBERS} members", where=where, hint=_HINT)
        for entry in entries:
            name = _safe(entry.filename, f"{where}: {entry.filename!r}")
            if entry.is_dir():
                continue
            if name in members:
                raise ModelError("the member is there twice", where=f"{where}: {name}", hint=_HINT)
            if entry.file_size > left:
                raise ModelError(f"the member claims {entry.file_size} bytes", where=f"{where}: {name}", hint=_HINT)
            with archive.open(entry) as file:
                members[name] = file.read(left + 1)
            left -= len(members[name])
            if left < 0 or len(members[name]) != entry.file_size:
                raise ModelError("the member's size is not what it claims", where=f"{where}: {name}", hint=_HINT)
    return members
