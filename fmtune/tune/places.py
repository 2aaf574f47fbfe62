"""Places: where a fault stands in a text, shown as ``path:line:column``, the line, and a caret under it.

Whatever goes into a message comes from a stranger's file: it is cut to a readable length, kept on its line,
freed of what a terminal would obey, and passwords in URLs are hidden.
"""

from __future__ import annotations

import difflib
import functools
import re
import shlex
from collections.abc import Collection, Sequence
from typing import NamedTuple

from fmtune.errors import StudyFileError

MAX_SHOWN = 50  # faults in one message; all are in StudyFileError.faults

_PASSWORD = re.compile(r"(://[^\s:/@]*:)(?:\S*(?=@)|\S*$)")  # of a URL that may be cut short, too
_AUTHORITY = re.compile(r"(://[^:/@\s]*:)\S*@")
_QUERY = re.compile(r"([?&](?:password|passwd|pwd|sslpassword)=)[^&\s\"']*", re.IGNORECASE)


KeyPath = tuple[str | int, ...]


class Wrong(NamedTuple):
    """What is wrong at a key path, before it has a place in a file; ``key`` points at the key itself."""

    at: KeyPath
    what: str
    hint: str | None = None
    key: bool = False

    def under(self, *at: str | int) -> Wrong:
        """Return the same with a path in front."""
        return self._replace(at=(*at, *self.at))


class Place(NamedTuple):
    """Where something stands: line and column from 1, and how many characters it takes on that line."""

    line: int
    column: int
    width: int = 1


def combined(faults: Sequence[StudyFileError]) -> StudyFileError:
    """Return one error that shows every fault, in the order of the file; ``faults`` holds them one by one."""
    ordered = sorted(faults, key=_order)
    first, rest = ordered[0], ordered[1:]
    hint = f"  hint: {first.hint}" if first.hint else ""
    lines = [first.snippet or "", hint, *map(str, rest[: MAX_SHOWN - 1])]
    if len(ordered) > MAX_SHOWN:
        lines.append(f"and {len(ordered) - MAX_SHOWN} more")
    return StudyFileError(first.what, where=first.where, snippet="\n".join(filter(None, lines)) or None,
                          faults=tuple(ordered))


def redacted(url: str) -> str:
    """Return a storage URL, or a text that holds one, with passwords replaced by ``***``."""
    return _AUTHORITY.sub(r"\1***@", _QUERY.sub(r"\1***", url))


def ambiguous(url: str) -> str | None:
    """Return what is wrong with a URL of which a driver would take a part of the password for the host, and show it."""
    if url.count("@") > 1 or "@" in url.partition("?")[2]:
        return "it has more than one @, or one behind a ?; in a password write them as %40 and %3F"
    return None


def command(*words: object) -> str:
    """Return a command of fmtune as a shell takes it: a path may hold blanks."""
    return shlex.join(["fmtune", *map(str, words)])


def printable(text: str) -> str:
    """Return the text on one line, with ``?`` for what a terminal should not be sent."""
    return "".join(c if c.isprintable() else "→" if c == "\t" else "?" for c in text)


def shortened(text: str, most: int = 240) -> str:
    """Return the text on one line, a URL's password hidden, its middle left out beyond ``most`` characters."""
    text = _hidden(text)
    return printable(text if len(text) <= most else f"{text[: most - 60]} ... {text[-50:]}")


def _hidden(text: str) -> str:
    return _PASSWORD.sub(r"\1***", _QUERY.sub(r"\1***", text))


def shown(value: object) -> str:
    """Return a value of a study file as its writer would know it, quoted and cut."""
    words = {None: "nothing", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    if isinstance(value, dict):
        return "a mapping of keys"
    return shortened(repr(value), 120)


def suggestion(word: str, words: Collection[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest of the words, or nothing."""
    near = difflib.get_close_matches(word[:100], words, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def place_of(text: str, offset: int) -> Place:
    """Return the place of a character by its offset."""
    lines = (text[:offset] + "x").splitlines()
    return Place(len(lines), len(lines[-1]))


def fault(path: str, text: str, place: Place, what: str, hint: str | None = None) -> StudyFileError:
    """Return the error that says ``what`` about a place of a text."""
    return StudyFileError(shortened(what), where=f"{path}:{place.line}:{place.column}", hint=hint,
                          snippet=_snippet(text, place))


def _order(fault: StudyFileError) -> tuple[int, int]:
    """Return line and column of a fault's ``where``; those without come first."""
    match = re.search(r":(\d+):(\d+)$", fault.where or "")
    return (int(match[1]), int(match[2])) if match else (0, 0)


@functools.lru_cache(maxsize=1)  # thousands of faults may be shown from one text
def _lines(text: str) -> list[str]:
    return text.splitlines()  # YAML's line breaks, and some that the reader refuses


def _snippet(text: str, place: Place) -> str | None:
    """Return the line with a caret under the place, cut to a terminal's width, a URL's password hidden."""
    lines = _lines(text)
    if place.line > len(lines):
        return None
    line = lines[place.line - 1]
    before, rest = line[: place.column - 1], line[place.column - 1 :]
    hidden = _hidden(before + rest)
    caret = len(_hidden(before)) if hidden != line else len(before)
    start = max(0, caret - 60)
    shown = printable(hidden[start : start + 100])
    under = " " * (caret - start) + "^" * max(1, min(place.width, 60, len(shown) - caret + start))
    number = f"{place.line:>4}"
    return f"{number} | {shown}\n{' ' * len(number)} | {under}"
