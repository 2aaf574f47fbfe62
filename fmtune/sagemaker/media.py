"""Media: the types of requests and responses, and what the headers Content-Type and Accept say of them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import lru_cache

JSON = "application/json"
LINES = "application/jsonlines"
RECORDS = "application/x-recordio-protobuf"
TYPES = (JSON, LINES, RECORDS)
"""What a request may be, and an answer too."""

# What is answered when nothing is asked: batch transforms of records without an Accept gave JSON lines.
DEFAULTS = {JSON: JSON, LINES: LINES, RECORDS: LINES}


@lru_cache(256)
def media_type(header: str | None) -> str | None:
    """Return the media type that a Content-Type header names, None for one that cannot be read."""
    if header is None:
        return None
    kind, *parameters = [part.strip().lower() for part in header.split(";")]
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    return kind if kind in TYPES and all(map(_is_readable, charsets)) else None


def _is_readable(charset: str) -> bool:
    """Whether JSON in a charset can be read as UTF-8: one byte below 128 for each of ASCII's signs."""
    try:
        return codecs.lookup(charset).name in ("utf-8", "ascii", "iso8859-1", "cp1252")
    except (LookupError, ValueError):
        return False


@lru_cache(256)
def accepted(header: str | None, content_type: str) -> str | None:
    """Return the media type to answer in, None if there is none that an Accept header allows.

    Of types that are wanted equally, the one that ``DEFAULTS`` gives for the request's own comes first.
    """
    if header is None or not header.strip():
        return DEFAULTS[content_type]
    ranges = [_range(part) for part in header.split(",") if part.strip()]
    order = [DEFAULTS[content_type], *(kind for kind in TYPES if kind != DEFAULTS[content_type])]
    quality = {kind: _quality(kind, ranges) for kind in order}
    best = max(order, key=lambda kind: quality[kind])
    return best if quality[best] > 0 else None


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = [word.strip().lower() for word in part.split(";")]
    weights = [word.removeprefix("q=") for word in parameters if word.startswith("q=")]
    try:
        return kind, float(weights[0]) if weights else 1.0
    except ValueError:
        return kind, 0.0


def _quality(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the weight of the range that names the type most closely."""
    for wanted in (kind, "application/*", "*/*"):
        weights = [weight for name, weight in ranges if name == wanted]
        if weights:
            return weights[0]
    return 0.0
