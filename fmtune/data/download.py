"""Download: one file from the web, resumed where it broke off, and kept only if it is the file that is wanted.

What has come is in ``<file>.part``.  The size and the SHA-256 that the card states decide, so it does not matter
through which mirrors, proxies and redirections the bytes came.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fmtune import __version__
from fmtune.errors import DataError, ResourceError
from fmtune.files import unwritable

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that have come, and its size."""

TRIES = 3
"""How often in a row an address may give nothing before the next one is tried."""

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""

_CHUNK = 1 << 16
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that may be others a moment later


@dataclass(frozen=True)
class File:
    """A file of a dataset card: its name, digest and size, and the addresses it may be had from, if it is not here."""

    name: str
    sha256: str
    size: int
    urls: tuple[str, ...] = ()

    def is_right(self, content: bytes) -> bool:
        """Return whether these bytes are the file."""
        return len(content) == self.size and hashlib.sha256(content).hexdigest() == self.sha256


class _Refused(Exception):
    """This address will not give the file; ``wrong`` if it gave another one."""

    def __init__(self, reason: str, *, wrong: bool = False) -> None:
        super().__init__(reason)
        self.wrong = wrong


def download(file: File, target: Path, progress: Progress, *, pause: float = 1.0) -> None:
    """Download a file to ``target``, whole and right or not at all; its folder is there.

    Parameters
    ----------
    file
        What is wanted; its addresses are tried in order.
    progress
        Called as bytes come.
    pause
        Seconds before the second try at an address; doubled for each further one.

    Raises
    ------
    ResourceError
        No address gave it (what came stays in ``.part`` for the next time), or the disk is full.
    DataError
        Something came, and it is not the file.
    """
    part = target.with_name(f"{target.name}.part")
    refusals: list[_Refused] = []
    for url in file.urls:
        try:
            _complete(url, file, part, progress, pause)
        except _Refused as refused:
            refusals.append(_Refused(f"{url}: {refused}", wrong=refused.wrong))
        else:
            part.replace(target)
            return
    kind = DataError if any(refused.wrong for refused in refusals) else ResourceError
    raise kind("it could not be downloaded: " + "; ".join(map(str, refusals)), where=file.name)


def _complete(url: str, file: File, part: Path, progress: Progress, pause: float) -> None:
    """Bring ``part`` to the whole file from one address, in as many pieces as it takes."""
    tries, began = 0, _size(part)
    while True:
        before = _size(part)
        reason = "the connection broke off"
        if before < file.size:
            try:
                _append(url, file, part, progress)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416:  # the address knows no such part of it
                    part.unlink(missing_ok=True)
                elif error.code not in _PASSING:
                    raise _Refused(f"{error.code} {error.reason}") from error
                reason = f"{error.code} {error.reason}"
            except (OSError, http.client.HTTPException) as error:
                reason = _words(error)
        now = _size(part)
        if now >= file.size:
            if file.is_right(part.read_bytes()):
                return
            part.unlink()
            if began == 0:
                raise _Refused("what came has another SHA-256 than the card says", wrong=True)
            began = 0  # the beginning was an older file's; once more, from the start
            continue
        tries = 0 if now > before else tries + 1
        if tries == TRIES:
            raise _Refused(reason)
        if tries:
            time.sleep(pause * 2 ** (tries - 1))


def _append(url: str, file: File, part: Path, progress: Progress) -> None:
    """Add what one request gives to ``part``; from the start where the server does not do ranges."""
    start = _size(part)
    # A compressed file must not be unpacked on the way: its digest is that of the file.
    headers = {"User-Agent": f"fmtune/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        resumed = answer.status == 206 and _starts_at(answer.headers.get("Content-Range", ""), start)
        if answer.status == 206 and not resumed:
            raise _Refused("it answered with another part than was asked for")
        begin = start if resumed else 0
        length = answer.headers.get("Content-Length", "")
        if length.isdecimal() and begin + int(length) != file.size:
            kind = answer.headers.get("Content-Type", "").partition(";")[0] or "something"
            raise _Refused(f"it gives {kind} of {begin + int(length):,} bytes, the file has {file.size:,}", wrong=True)
        _pour(answer, file, part, begin, progress)


def _pour(answer: BinaryIO, file: File, part: Path, begin: int, progress: Progress) -> None:
    """Write an answer's bytes to ``part`` from ``begin`` on, never more than the file has."""
    done, told = begin, 0.0
    try:
        stream = part.open("ab" if begin else "wb")
    except OSError as error:
        raise unwritable(error, part, file.size) from error
    with stream:
        while chunk := answer.read(min(_CHUNK, file.size - done + 1)):
            done += len(chunk)
            if done > file.size:
                part.unlink()
                raise _Refused(f"it gives more than the {file.size:,} bytes of the file", wrong=True)
            try:
                stream.write(chunk)
                stream.flush()
            except OSError as error:
                raise unwritable(error, part, file.size) from error
            now = time.monotonic()
            if now - told > 0.1 or done == file.size:
                progress(file.name, done, file.size)
                told = now


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https, and redirections between them, and nothing else (no file:, no ftp:)."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.UnknownHandler, urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler, urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _starts_at(content_range: str, start: int) -> bool:
    found = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", content_range)
    return found is not None and int(found[1]) == start


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _words(error: Exception) -> str:
    """Return why no answer came, without Python's wrapping."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
    return text or type(inner).__name__
