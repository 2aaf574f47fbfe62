"""Small stand-ins for what cards download: IDX files, an archive like MovieLens', cards for them, and a server."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmtune.data.download import File

NAMES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
         "t10k-labels-idx1-ubyte.gz")  # fmt: skip


def idx(array: NDArray[np.uint8]) -> bytes:
    """Return an array as an IDX file, gzipped."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(head + array.tobytes(), mtime=0)


def pictures(train: int = 60, test: int = 20) -> dict[str, bytes]:
    """Return four files like MNIST's, of 4 x 4 pixels: picture i shows class i % 10 as a bright pixel."""
    made = []
    for n in (train, test):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = np.zeros((n, 4, 4), np.uint8)
        images.reshape(n, 16)[np.arange(n), labels] = 255
        images[:, 3, 3] = np.arange(n) % 3  # 0 is background and is not stored
        made += [idx(images), idx(labels)]
    return dict(zip(NAMES, made, strict=True))


USERS = "1|24|M|technician|85711\n2|53|F|other|94043\n3|23|M|writer|32067\n"
ITEMS = (
    "1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "2|Été (1996)|02-Feb-1996||http://y|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "3|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
)
BASE, TEST = "1\t1\t5\t881250949\n2\t3\t1\t881250950\n3\t2\t4\t881250951\n", "1\t3\t2\t881250952\n"


def ratings(**members: str) -> bytes:
    """Return an archive laid out as MovieLens 100k is; ``members`` replace text by name (``ua_base``)."""
    texts = {"u_user": USERS, "u_item": ITEMS, "ua_base": BASE, "ua_test": TEST, "u1_base": TEST, "u1_test": BASE}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**texts, **members}.items():
            archive.writestr(f"ml-100k/{name.replace('_', '.')}", text.encode("latin-1"))
    return made.getvalue()


def card_file(name: str, content: bytes, *urls: str) -> File:
    """Return what a card says of a file."""
    return File(name, hashlib.sha256(content).hexdigest(), len(content), urls)


def write_card(folder: Path, name: str, maker: str, files: Sequence[File], task: str = "binary_classifier") -> None:
    """Write a card whose keys are those of the shipped card of that maker."""
    keys = {
        "images": "class: {type: int, default: 0, low: 0, high: 9, help: the class}\n"
        "  test: {type: int, default: 10, low: 1, high: 59999, help: how many}",
        "movielens": "split: {type: str, default: ua, choices: [u1, ua], help: which}\n"
        "  attributes: {type: bool, default: false, help: more}",
    }[maker]
    lines = [f"  - {{name: {f.name}, size: {f.size}, sha256: {f.sha256}, urls: [{', '.join(f.urls)}]}}" for f in files]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(
        f"name: {name}\ntitle: {name}\ndescription: small\ntask: {task}\nmaker: {maker}\n"
        f"origin: http://example.invalid/\nlicence: none\nfiles:\n{chr(10).join(lines)}\nkeys:\n  {keys}\n"
    )


@dataclass
class Site:
    """A server on this machine: paths and what they do; ``asked`` is what came, a path and its Range each.

    ``breaks`` names how many bytes of the body are sent before the connection is cut, once for each entry.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    lengths: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Site]:
    """Run a server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, site)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def answer(handler: BaseHTTPRequestHandler, site: Site) -> None:
    """Answer one request as the site says."""
    wanted = handler.headers.get("Range")
    site.asked.append((handler.path, wanted))
    if handler.path in site.moved:
        handler.send_response(302)
        handler.send_header("Location", site.moved[handler.path])
        handler.end_headers()
        return
    statuses = site.statuses.get(handler.path)
    if statuses or handler.path not in site.files:
        handler.send_error(statuses.pop(0) if statuses else 404)
        return
    whole = site.files[handler.path]
    start = int(re.findall(r"\d+", wanted)[0]) if wanted and site.ranges else 0
    if start >= len(whole):
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
    if site.lengths:
        handler.send_header("Content-Length", str(len(whole) - start))
    handler.end_headers()
    body = whole[start:]
    handler.wfile.write(body[: site.breaks.pop(0)] if site.breaks else body)
