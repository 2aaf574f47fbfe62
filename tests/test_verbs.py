"""What ``fmtune data`` does: convert, check, stats, list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fmtune.data import verbs
from fmtune.data.source import FORMATS, read_channel, write
from fmtune.errors import DataError
from fmtune.rows import DenseRows

ROWS = DenseRows(np.array([[0, 1.5, 0], [2, 0, 3]], np.float32), np.array([0, 1], np.float32), 3)


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_any_format_converts_to_any_other(source: str, target: str, tmp_path: Path) -> None:
    """The rows stay the same; what was done is told."""
    write(ROWS, tmp_path / "a", source)
    done = verbs.convert(tmp_path / "a", tmp_path / "b", format=target, layout="sparse", feature_dim=3)
    assert done | {"bytes": 0} == {
        "out": str(tmp_path / "b"), "rows": 2, "feature_dim": 3, "layout": "sparse", "bytes": 0, "notes": []
    }  # fmt: skip
    assert read_channel(tmp_path / "b").to_dense().digest() == ROWS.digest()


def test_check_tells_what_was_read_and_noted(tmp_path: Path) -> None:
    """Format and size of each file, the kind of the labels, where libsvm indices begin, and warnings as notes."""
    (tmp_path / "a.svm").write_text("-1 2:1 1:1\n+1 3:1\n")
    report = verbs.check(tmp_path / "a.svm")
    notes = report.pop("notes")
    assert report == {
        "files": [{"path": str(tmp_path / "a.svm"), "format": "libsvm", "bytes": 18}],
        "rows": 2, "feature_dim": 3, "layout": "sparse", "labels": "binary", "index_base": 1,
    }  # fmt: skip
    assert [note.rpartition(": ")[2] for note in notes] == [
        "1 row has keys out of order; they were sorted", "all labels are -1 or +1; read as 0 and 1"
    ]  # fmt: skip
    (tmp_path / "a.svm").write_text("1 1:1 x\n")
    with pytest.raises(DataError, match="line 1"):
        verbs.check(tmp_path / "a.svm")


def test_stats_tell_how_the_numbers_are_spread(tmp_path: Path) -> None:
    """Entries, density, ranges of values and labels."""
    write(ROWS, tmp_path / "a.npz")
    stats = verbs.stats(tmp_path / "a.npz")
    known = {"entries": 3, "density": 0.5, "features_used": 3, "value_min": 1.5, "value_max": 3.0, "label_mean": 0.5}
    assert stats | known == stats
    assert stats["entries_per_row"] == {"min": 1, "mean": 1.5, "max": 2}


def test_the_cards_are_listed_with_their_keys() -> None:
    """Name, licence and keys of each."""
    listed = {card["name"]: card for card in verbs.list_cards()}
    assert listed["digits"]["licence"] == "CC BY 4.0" and listed["digits"]["download"] == 0
    assert listed["movielens-100k"]["download"] == 4_924_029
    assert [key["name"] for key in listed["digits"]["keys"]] == ["class", "split"]
