"""Transform: files scored by the rules of a SageMaker batch transform: split, answered in parts, put together.

==========================================  ========  ============  =================
content type                                split     assemble      accept by default
==========================================  ========  ============  =================
application/json                            None      None          application/json
application/jsonlines                       Line      Line          application/jsonlines
application/x-recordio-protobuf             RecordIO  None          application/jsonlines
==========================================  ========  ============  =================

The answer to ``a/b.pbr`` is ``a/b.pbr.out``, in the order of its records.  A split file is sent in parts of at most
``max_payload`` bytes (MultiRecord); JSON documents that stand one on a line are sent one by one.  A file with a
fault gets no output and does not keep the others from theirs.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from fmtune.data import recordio
from fmtune.data.encoding import Encoder
from fmtune.data.folder import files_below
from fmtune.data.source import files_of
from fmtune.errors import DataError, UsageError
from fmtune.files import atomic_write
from fmtune.fm.model import Model
from fmtune.fm.scorer import Scorer
from fmtune.kernels import frames
from fmtune.sagemaker import inference, media

_HEAD = 4096

Buffer = bytes | mmap.mmap
Part = tuple[int, int]
"""First byte and the one after the last."""


def whole(content: Buffer, limit: int) -> Iterator[Part]:
    """Take a file as one request, however large."""
    yield 0, len(content)


def by_line(content: Buffer, limit: int) -> Iterator[Part]:
    """Cut at line ends, as late as the limit allows; a longer line is a part of its own."""
    start, end = 0, len(content)
    while start < end:
        stop = end
        if end - start > limit:
            cut = content.rfind(b"\n", start, start + limit) + 1 or content.find(b"\n", start + limit) + 1
            stop = cut or end
        yield start, stop
        start = stop


def by_record(content: Buffer, limit: int) -> Iterator[Part]:
    """Cut before whole or first parts of records; from where frames are no longer whole, the rest is one part."""
    start = at = 0
    end = len(content)
    while at + 8 <= end:
        magic, head = struct.unpack_from("<II", content, at)
        length = head & (1 << 29) - 1
        if magic != frames.MAGIC or at + 8 + length > end:
            break
        after = at + 8 + length + -length % 4
        if head >> 29 in (0, 1) and after - start > limit and at > start:
            yield start, at
            start = at
        at = after
    if start < end:
        yield start, end


Split = Callable[[Buffer, int], Iterator[Part]]
SPLITS: dict[str, Split] = {"None": whole, "Line": by_line, "RecordIO": by_record}
ASSEMBLES = ("None", "Line")

# content type -> split and assemble, unless named
RULES = {media.JSON: ("None", "None"), media.LINES: ("Line", "Line"), media.RECORDS: ("RecordIO", "None")}


def transform(
    model: Model | Scorer,
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    content_type: str | None = None,
    split: str | None = None,
    assemble: str | None = None,
    accept: str | None = None,
    max_payload: int = 6 * 2**20,
) -> list[Path]:
    """Score files and return the paths of what was written.

    Parameters
    ----------
    model
    sources
        Files, globs, and folders with all that is below them; names that begin with ``.`` or ``_`` are left out.
    out
        The folder for the answers; a folder's own tree is kept below it.
    content_type
        A key of ``media.TYPES``; None is told from each file: records, a document with ``instances``, or lines.
    split, assemble
        Keys of ``SPLITS``, one of ``ASSEMBLES``; by default those of the content type.
    accept
        As in an Accept header; by default the one of the content type.
    max_payload
        Bytes of a part.

    Raises
    ------
    UsageError
        A content type, rule or Accept that there is not; two sources with one name.
    DataError
        A file with a fault, with its place; the other files' answers are written.
    """
    jobs = _named(sources, Path(out))
    rules = {kind: _rule(kind, accept, split, assemble) for kind in _kinds(content_type, jobs)}
    scorer = model if isinstance(model, Scorer) else Scorer(model)
    written, faults = [], []
    for file, target in jobs.items():
        try:
            kind = kind_of(file) if content_type is None else next(iter(rules))
            content = _answers(scorer, file, kind, *rules[kind], max_payload)
        except DataError as error:
            faults.append(error)
            continue
        atomic_write(target, content)
        written.append(target)
    if faults:
        more = f"; {len(faults) - 1} more of {len(jobs)} files are at fault" if len(faults) > 1 else ""
        raise DataError(faults[0].what + more, where=faults[0].where, hint="the other files' answers are written")
    return written


def kind_of(file: Path) -> str:
    """Return the content type that a file looks like."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    if recordio.sniff(head):
        return media.RECORDS
    return media.JSON if re.match(rb'\s*\{\s*"instances"', head) else media.LINES


def _kinds(content_type: str | None, files: Iterable[Path]) -> set[str]:
    if content_type is None:
        return {kind_of(file) for file in files}
    kind = media.media_type(content_type)
    if kind is None:
        hint = f"the types are {', '.join(media.TYPES)}"
        raise UsageError(f"no such content type: {content_type!r}", hint=hint)
    return {kind}


def _rule(kind: str, accept: str | None, split: str | None, assemble: str | None) -> tuple[str, str, str]:
    """Return what is answered, and how files are split and put together."""
    answered = media.accepted(accept, kind)
    if answered is None:
        raise UsageError(f"nothing is made that Accept asks for: {accept!r}", hint=", ".join(media.TYPES))
    split, assemble = split or RULES[kind][0], assemble or RULES[kind][1]
    _check("split", split, tuple(SPLITS))
    _check("assemble", assemble, ASSEMBLES)
    if assemble == "Line" and answered == media.RECORDS:
        raise UsageError("records cannot be assembled by line", hint="assemble None, or another Accept")
    return answered, split, assemble


def _check(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"no such {name}: {value!r}", hint=f"one of {', '.join(known)}")


def _named(sources: str | Path | Sequence[str | Path], out: Path) -> dict[Path, Path]:
    """Return each file and where its answer goes."""
    jobs: dict[Path, Path] = {}
    for source in [sources] if isinstance(sources, str | Path) else sources:
        top = Path(source)
        if top.is_dir():
            found = [file for file in files_below(top) if file.is_file()]
            if not found:
                raise DataError("the folder holds no files", where=str(top), hint="name the folder that holds the data")
            named = {file: file.relative_to(top) for file in found}
        else:
            named = {file: Path(file.name) for file in files_of(source)}
        for file, name in named.items():
            target = out / name.with_name(name.name + ".out")
            if target in jobs.values() and jobs.get(file) != target:
                raise UsageError(f"two sources are named {name}", where=str(file), hint="score them into two folders")
            jobs[file] = target
    return jobs


def _answers(
    scorer: Scorer, file: Path, kind: str, accept: str, split: str, assemble: str, max_payload: int
) -> bytes:  # fmt: skip
    """Return the answers to a file's parts, put together."""
    # A part of a JSON document is none: of those that stand on lines each is a request.
    limit = 1 if kind == media.JSON and split == "Line" else max_payload
    answers = []
    encoder = None if scorer.encoding is None else Encoder.from_json(scorer.encoding, "the model's encoding")
    with file.open("rb") as stream:
        if file.stat().st_size == 0:
            return b""
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for start, stop in SPLITS[split](content, limit):
                body = content[start:stop]
                if not body.strip():
                    continue
                try:
                    answer = inference.answer(scorer, body, kind, accept, encoder)
                except DataError as error:
                    place = f"{file}, from byte {start}" if start else str(file)
                    raise DataError(error.what, where=f"{place}: {error.where}", hint=error.hint) from error
                answers.append(answer if assemble == "None" else answer.removesuffix(b"\n") + b"\n")
    return b"".join(answers)
