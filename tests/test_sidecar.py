"""The vocabulary beside rows that were made of a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmtune.data.encoding import Encoder
from fmtune.data.kinds import OneHot, Scaled
from fmtune.data.sidecar import read_vocabulary, sidecar_of, vocabulary_of, write_vocabulary
from fmtune.errors import DataError, FmtuneError, ModelError

AGAIN = "  hint: convert the table again"


def test_a_vocabulary_reads_back(tmp_path: Path) -> None:
    """It is found beside the first file of a channel; where there is none, nothing is."""
    rows = tmp_path / "train.pbr"
    rows.write_bytes(b"x")
    assert vocabulary_of(rows) is None
    encoder = Encoder((OneHot("user", ("é", "b"), True, None), Scaled("age", 30.0, 2.0)), "y")
    write_vocabulary(encoder, sidecar_of(rows))
    assert sidecar_of(rows) == tmp_path / "train.vocabulary.json"
    written = sidecar_of(rows).read_bytes()
    assert written.endswith(b"}\n") and written.count(b"\n") == 1 and "é".encode() in written
    found = vocabulary_of(rows)
    assert found is not None and found.to_json() == encoder.to_json()


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (b"{", DataError, f"the vocabulary is no JSON: Expecting property name enclosed in double quotes: line 1 column"
         f" 2 (char 1)\n{AGAIN}"),
        (b"[1]", ModelError, f"the vocabulary is no JSON object\n{AGAIN}"),
        (b"{}", ModelError, f"the encoding is not understood: 'version'\n{AGAIN}, or train the model again"),
        (b'{"version": 2, "label": "y"}', ModelError,
         f"the encoding is not understood: version 2, label 'y'\n{AGAIN}, or train the model again"),
        (b'{"version": 1, "label": "y", "feature_dim": 2, "columns": [{"kind": "scaled", "name": "a", "mean": 0, '
         b'"deviation": 1}]}', ModelError,
         f"the encoding is not understood: the columns do not make its feature_dim\n{AGAIN}, or train the model again"),
        (b'{"version": 1, "label": "y", "feature_dim": 1, "columns": [{"kind": "scaled", "name": "a", "mean": 0, '
         b'"deviation": 0}]}', ModelError,
         f"the encoding is not understood: a cannot be scaled by these numbers\n{AGAIN}, or train the model again"),
    ],
)  # fmt: skip
def test_a_damaged_vocabulary_is_refused(content: bytes, error: type[FmtuneError], text: str, tmp_path: Path) -> None:
    """Place, cause and next step; exit code 3."""
    path = tmp_path / "v.json"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        read_vocabulary(path)
    assert str(caught.value) == f"{path}: {text}" and caught.value.exit_code == 3


def test_a_vocabulary_that_is_not_there_is_named(tmp_path: Path) -> None:
    """In the words of the system."""
    path = tmp_path / "v.json"
    with pytest.raises(DataError) as error:
        read_vocabulary(path)
    assert str(error.value) == f"{path}: cannot be read: No such file or directory\n  hint: check the path"
