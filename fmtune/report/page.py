"""Page: one self-contained HTML file from a study's result, and the numbers back out of such a file.

Nothing is requested from outside, and the Content-Security-Policy inside the page says so to the browser: no
source is allowed but our own style sheet and script, each by its hash.  matplotlib's style attributes are turned
into classes (``svg``), so not even those need an exception.  Without JavaScript the page loses only sorting,
filtering and copying.  The same result gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fmtune.errors import DataError
from fmtune.files import atomic_write
from fmtune.report.packing import pack, unpack
from fmtune.report.record import from_json, to_json
from fmtune.report.render import asset, render
from fmtune.report.sections import SECTIONS, Section
from fmtune.report.summary import best
from fmtune.tune.result import StudyResult

Make = Callable[[StudyResult], Section | None]
DATA_ID = "fmtune-data"
# Control characters and halves of surrogate pairs cannot stand in a file; marks that turn the direction of
# text could show a page in another order than it is written.
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def build(result: StudyResult, sections: Sequence[Make] = SECTIONS) -> str:
    """Return the page of a study, finished or not, as HTML.

    Parameters
    ----------
    result : StudyResult
        Only this is read; every string in it is treated as hostile text.
    sections : sequence of functions, optional
        What the page is made of, the verdict first; by default all of ``SECTIONS``.
    """
    record = to_json(result)
    shown = from_json(record)  # the page shows what its record holds: passwords masked, digits as kept
    parts = [s for make in sections if (s := make(shown)) is not None]
    version = shown.environment.get("fmtune", "")
    return assembled(parts, pack(record), won=best(shown) is not None, version=version)


def assembled(parts: Sequence[Section], record: dict[str, Any], *, won: bool, version: str) -> str:
    """Return sections as one self-contained page with its record inside.

    Parameters
    ----------
    parts
        The first one's title is the page's.
    record
        What ``extract`` gives back, once unpacked.
    won
        Whether there is a winner's card to leave room for.
    version
        Of fmtune, as the study's environment has it.
    """
    style, script = asset("style.css").strip(), asset("table.js").strip()
    html = render(
        "page", title=parts[0].title, sections=parts, style=Markup(style), script=Markup(script),
        policy=_policy(style, script), data=Markup(_embedded(record)), data_id=DATA_ID, won=won, version=version,
    )  # fmt: skip
    return _UNSAFE.sub("\ufffd", html)


def write(result: StudyResult, path: Path) -> None:
    """Write the page of a study to ``path``, whole or not at all.

    Raises
    ------
    ResourceError
        The place cannot be written.
    """
    atomic_write(path, build(result).encode("utf-8"))


def extract(html: str) -> dict[str, Any]:
    """Return the record inside a page that ``build`` made; ``record.from_json`` makes a result of it.

    Raises
    ------
    DataError
        The text holds no such record, or a damaged one.
    """
    reader = _DataReader()
    reader.feed(html)
    try:
        found = json.loads("".join(reader.found))
    except ValueError as error:
        raise DataError("no report data in this page", hint="name a page that `fmtune report` wrote") from error
    if not isinstance(found, dict):
        raise DataError("the report data in this page is not an object")
    try:
        if "studies" in found:
            return {**found, "studies": [unpack(one) for one in found["studies"]]}
        return unpack(found) if "cells" in found else found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"damaged report data in this page: {error!r}") from error


class _DataReader(HTMLParser):
    """Collects the text of the first ``<script id="fmtune-data">``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script" and dict(attrs).get("id") == DATA_ID and not self.found

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found.append(data)


def _embedded(record: dict[str, Any]) -> str:
    """Return JSON that no HTML parser can leave: ASCII, and the three characters of markup escaped."""
    text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
