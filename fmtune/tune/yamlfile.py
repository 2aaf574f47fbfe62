"""YAML file: plain values read with the place of each, so that a fault can be shown where it stands.

The text goes through ruamel.yaml's event parser (YAML 1.2, no recursion) and is put together here: a study
needs mappings, lists and scalars, and nothing that can run or multiply.  Anchors, aliases and tags are
refused, so is whatever is too large, too deep or not UTF-8 text.  Nothing is built before it is checked.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLStreamError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from fmtune.errors import StudyFileError
from fmtune.tune.places import KeyPath, Place, fault, place_of, printable, shortened, suggestion

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 10_000

_WHICH = "name a study file; `fmtune init DATA` writes one"
_SMALL = "a study file is small; shorten it, or name another file"

# YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema): ``1e-3`` is a float, ``yes`` is text.
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Document:
    """A file's plain value, with the places of its keys and values by key path.

    Attributes
    ----------
    path : str
        The file as named in messages.
    text : str
        Its text.
    value : object
        None, bool, int, float, str, list and dict only; keys are text.
    keys, values : dict
        Key path (``("search_space", "eps")``; numbers index lists) to Place.
    quoted : set of key paths
        Scalars written in quotes.
    faults : tuple of StudyFileError
        Repeated keys; the first value was kept.
    """

    path: str
    text: str
    value: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    quoted: set[KeyPath] = field(default_factory=set)
    faults: tuple[StudyFileError, ...] = ()

    def place(self, at: KeyPath, *, key: bool = False) -> Place:
        """Return where the value (or the key) of a path stands, or the nearest thing around it."""
        tables = (self.keys, self.values) if key else (self.values, self.keys)
        for end in range(len(at), 0, -1):
            for table in tables:
                if at[:end] in table:
                    return table[at[:end]]
        return Place(1, 1)

    def fault(self, at: KeyPath, what: str, hint: str | None = None, *, key: bool = False) -> StudyFileError:
        """Return the error that says ``what`` about a path, with its lines."""
        return fault(self.path, self.text, self.place(at, key=key), what, hint)


def read(path: Path) -> Document:
    """Return the document of a file.

    Raises
    ------
    StudyFileError
        It is missing, not a file, too large, not UTF-8 text or not YAML.
    """
    name = printable(str(path))
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe or a device"
            raise StudyFileError(f"is {kind}, not a file", where=name, hint=_WHICH)
        if facts.st_size > MAX_BYTES:
            raise _too_large(name, facts.st_size)
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise StudyFileError("no such file" + _neighbour(path), where=name, hint=_WHICH) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL"
        hint = "check its name and its permissions"
        raise StudyFileError(f"cannot be read: {reason}", where=shortened(name), hint=hint) from None
    if len(content) > MAX_BYTES:
        raise _too_large(name, len(content))
    return load(_decode(content, name), name)


def load(text: str, path: str) -> Document:
    """Return the document of a text; ``path`` is what messages call it.

    Raises
    ------
    StudyFileError
        The text is not one YAML document of mappings, lists and scalars, or is too large or too deep.
    """
    if len(text) > MAX_BYTES:
        raise _too_large(path, len(text))
    strange = _UNPRINTABLE.search(text)
    if strange:
        name = "a NUL character" if strange[0] == "\0" else f"the control character U+{ord(strange[0]):04X}"
        place = place_of(text, strange.start())
        raise fault(path, text, place, f"{name} is in the text", "a study file is plain UTF-8 text")
    _check_brackets(text, path)
    composer = _Composer(text, path)
    try:
        return composer.document()
    except MarkedYAMLError as error:
        raise _translated(error, text, path) from None
    except (YAMLError, YAMLStreamError, ValueError, OverflowError) as error:  # ValueError: "\U00110000"
        raise fault(path, text, composer.last, f"not YAML, here or below: {error}") from None


def number_in(text: str) -> int | float | None:
    """Return the number that a text would be without its quotes, or None."""
    try:
        value = _scalar(text)
    except ValueError:
        return None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def unquoted(value: Any) -> str | None:
    """Return the advice for a number or a flag in quotes, None for anything else."""
    quoted = isinstance(value, str) and (number_in(value) is not None or value in ("true", "false"))
    return "remove the quotes" if quoted else None


class _Composer:
    """Puts one document together from the parser's events, bounded in depth and in number of nodes."""

    def __init__(self, text: str, path: str) -> None:
        self.events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)
        self.made = Document(path, text)
        self.faults: list[StudyFileError] = []
        self.nodes = 0
        self.last = Place(1, 1)

    def document(self) -> Document:
        value: Any = None
        seen = False
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                if seen:
                    raise self._error(event, "a second document starts here; a study file holds one")
                seen = True
            elif isinstance(event, NodeEvent):
                value = self._node(event, ())
        made = self.made
        return Document(made.path, made.text, value, made.keys, made.values, made.quoted, tuple(self.faults))

    def _node(self, event: Event, at: KeyPath) -> Any:
        self.nodes += 1
        self.last = self.made.values[at] = _span(event)
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise self._error(event, "anchors (&) and aliases (*) are not used in a study file",
                              "write the value out, or put it in quotes if it is text")
        if self.nodes > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES} values", _SMALL)
        if len(at) > MAX_DEPTH:
            raise self._error(event, f"nested more than {MAX_DEPTH} levels deep", _SMALL)
        tag = getattr(event, "ctag", None)
        if tag is not None and str(tag) != "!":
            raise self._error(event, f"tags ({shortened(str(tag), 100)}) are not used in a study file")
        if isinstance(event, ScalarEvent):
            return self._value(event, at)
        return self._list(at) if isinstance(event, SequenceStartEvent) else self._mapping(at)

    def _list(self, at: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            items.append(self._node(event, (*at, len(items))))
        return items

    def _mapping(self, at: KeyPath) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            if not isinstance(event, ScalarEvent) or event.anchor or event.ctag is not None:
                raise self._error(event, "a key must be a plain name")
            key = self._text(event)
            if key in items:
                first = self.made.keys[*at, key].line
                what = f"the key {shortened(repr(key), 100)} is here a second time"
                what += f"; the first is in line {first}"
                self.faults.append(self._error(event, what, "take one of them out"))
                self._node(next(self.events), (-1,) * (len(at) + 1))  # checked like any other, kept nowhere
            else:
                self.made.keys[*at, key] = _span(event)
                items[key] = self._node(next(self.events), (*at, key))
        return items

    def _value(self, event: ScalarEvent, at: KeyPath) -> Any:
        text = self._text(event)
        if event.style:
            self.made.quoted.add(at)
            return text
        try:
            return _scalar(text)
        except ValueError as error:
            raise self._error(event, str(error)) from None

    def _text(self, event: ScalarEvent) -> str:
        text = str(event.value)
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise self._error(event, "an escape makes a character that text cannot hold")
        return text

    def _error(self, event: Event, what: str, hint: str | None = None) -> StudyFileError:
        return fault(self.made.path, self.made.text, _span(event), what, hint)


def _scalar(text: str) -> Any:
    """Return an unquoted scalar as YAML 1.2's core schema reads it."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        if len(text) > 240:  # in hexadecimal still below float's largest, so that comparing never overflows
            raise ValueError(f"a number of {len(text)} digits")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"the number {shortened(text, 60)} is too large")
        return value
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1).lower())
    return text


def _decode(content: bytes, path: str) -> str:
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(content) > 1 and content[:2].count(0) == 1)
    if wide:  # a byte order mark, or an ASCII character of two bytes
        what = "is UTF-16 text, or not text at all"
        raise StudyFileError(what, where=f"{path}:1:1", hint="save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = place_of(good := content[: error.start].decode("utf-8-sig", "replace"), len(good))
        raise StudyFileError(f"byte 0x{content[error.start]:02x} is not UTF-8 text", hint="save it as UTF-8",
                             where=f"{path}:{place.line}:{place.column}") from None


def _too_large(path: str, size: int) -> StudyFileError:
    limit = f"a study file has at most {MAX_BYTES / 1e6:.0f} MB"
    return StudyFileError(f"is {size / 1e6:.1f} MB; {limit}", where=path, hint=_WHICH)


def _neighbour(path: Path) -> str:
    try:
        names = [entry.name for _, entry in zip(range(1000), path.parent.iterdir(), strict=False)]
    except OSError:
        return ""
    return suggestion(path.name, [name for name in names if name.endswith((".yaml", ".yml"))])


def _check_brackets(text: str, path: str) -> None:
    """Refuse a line that opens very many brackets: the scanner looks ahead in a line, in quadratic time.

    Quotes and comments are not told apart here, so the bound is wider than the one on the depth itself.
    """
    if text.count("[") + text.count("{") <= 3 * MAX_DEPTH:
        return
    depth = 0
    for match in re.finditer(r"[\[\]{}\n]", text):
        sign = match[0]
        depth = 0 if sign == "\n" else depth + (1 if sign in "[{" else -1)
        if depth > 3 * MAX_DEPTH:
            place = place_of(text, match.start())
            raise fault(path, text, place, f"nested more than {MAX_DEPTH} levels deep", _SMALL)


def _span(event: Event) -> Place:
    start, end = event.start_mark, event.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Place(start.line + 1, start.column + 1, max(width, 1))


def _translated(error: MarkedYAMLError, text: str, path: str) -> StudyFileError:
    """Return the parser's complaint in our words, at the place where the writer should look."""
    problem, context = str(error.problem or "not YAML"), str(error.context or "")
    mark, opened = error.problem_mark or error.context_mark, error.context_mark
    what, hint = problem, None
    odd = re.search(r"found character ('.+?'|\".+?\") that cannot start", problem)
    found = re.search(r"(?:got|found) '(.*)'$", problem)
    token = found[1] if found else ""
    if odd and "\\t" in odd[1]:
        what, hint = "a tab stands where YAML wants spaces", "indent with spaces"
    elif odd:
        what, hint = f"a value cannot start with {odd[1]}", "put text in quotes"
    elif "flow" in context and opened is not None and mark is not None and "expected ','" in problem:
        bracket, closing = ("[", "]") if "sequence" in context else ("{", "}")
        if token == "<stream end>" or mark.line > opened.line:
            what, mark, hint = f"the bracket {bracket!r} is never closed", opened, f"put a {closing!r} behind it"
        else:
            what, hint = f"a ',' or {closing!r} is missing here", f"put a ',' between values, a {closing!r} at the end"
    elif "quoted scalar" in context and "end of stream" in problem:
        what, mark = "the quote is never closed", opened
    elif problem.startswith("mapping values are not allowed"):
        what, hint = "a ':' is not allowed here", "check the indentation; put text that holds ': ' in quotes"
    elif problem.startswith("could not find expected ':'"):
        what, mark = "a ':' is missing after this key", opened
    elif token == "<stream end>":
        what, hint = "the file ends where a value should stand", "close the bracket that is open"
    elif token in ("]", "}", ","):
        what = f"{token!r} is not expected here"
    elif problem.startswith("expected <block end>"):
        what = "the indentation does not fit the lines above"
    place = Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)
    return fault(path, text, place, what, hint)
