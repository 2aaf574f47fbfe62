"""What a plan says of the fastest cell."""

from __future__ import annotations

from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.tune import probe
from fmtune.tune.spec import Cell
from tests import fm_reference as reference

SPARSE, DENSE = Cell("cpu", "sparse"), Cell("cpu", "dense")


def test_a_clear_case_and_an_open_one() -> None:
    """Turns that agree name the fastest cell; turns that do not are said not to tell."""
    turns = [{SPARSE: 3.0, DENSE: 1.0}, {SPARSE: 2.5, DENSE: 1.0}, {SPARSE: 4.0, DENSE: 1.0}]
    words = "fastest cell: cpu-dense, about 3.0 times as fast as cpu-sparse (2.5 to 4.0 in 3 short passes)"
    assert probe.said(turns) == words
    turns[1] = {SPARSE: 0.9, DENSE: 1.0}
    assert probe.said(turns) == "fastest cell: cannot tell cpu-dense from cpu-sparse (0.9 to 4.0 in 3 short passes)"


def test_cells_are_tried() -> None:
    """Real passes end in one of the two sentences."""
    h = Hyperparameters(num_factors=4, mini_batch_size=50)
    found = probe.fastest([SPARSE, DENSE], reference.rows(300, 20, 4, binary=False), h, 4)
    assert found.startswith("fastest cell: ") and "cpu-dense" in found


def test_what_does_not_fit_is_not_tried() -> None:
    """A configuration that would fill the memory is left alone."""
    h = Hyperparameters(num_factors=4096, mini_batch_size=50)
    rows = reference.rows(30, 20, 4, binary=False).widen(50_000_000)
    assert "not tried" in probe.fastest([SPARSE, DENSE], rows, h, 4)
