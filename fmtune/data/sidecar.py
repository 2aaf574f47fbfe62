"""Sidecar: the vocabulary of rows that were made of a table, ``train.vocabulary.json`` beside ``train.pbr``."""

from __future__ import annotations

import json
from pathlib import Path

from fmtune.data.encoding import Encoder
from fmtune.data.source import VOCABULARY, Paths, files_of
from fmtune.errors import DataError, ModelError
from fmtune.files import atomic_write

_HINT = "convert the table again"


def sidecar_of(path: Path) -> Path:
    """Return where the vocabulary of a file of rows lies."""
    return path.with_suffix(VOCABULARY)


def write_vocabulary(encoder: Encoder, path: Path) -> None:
    """Write an encoder to a file, whole or not at all."""
    atomic_write(path, (json.dumps(encoder.to_json(), ensure_ascii=False) + "\n").encode())


def read_vocabulary(path: Path) -> Encoder:
    """Read what ``write_vocabulary`` wrote.

    Raises
    ------
    DataError
        Not there, or no JSON.
    ModelError
        JSON that is no encoding.
    """
    try:
        made = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), hint="check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"the vocabulary is no JSON: {error}", where=str(path), hint=_HINT) from error
    if not isinstance(made, dict):
        raise ModelError("the vocabulary is no JSON object", where=str(path), hint=_HINT)
    return Encoder.from_json(made, str(path))


def vocabulary_of(paths: Paths) -> Encoder | None:
    """Return the vocabulary that lies beside a channel's first file, if there is one; errors as in its reading."""
    path = sidecar_of(files_of(paths)[0])
    return read_vocabulary(path) if path.is_file() else None
