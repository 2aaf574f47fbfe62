"""The plan: what a run would do, said without doing it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

import fmtune
from fmtune.errors import StorageError
from fmtune.fm.arena import columns_of
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.tune import plan
from fmtune.tune import spec as specs
from fmtune.tune.channels import bring
from fmtune.tune.duration import _reckoned, probed, remembered
from fmtune.tune.result import CellResult, TrialResult
from tests.study_fixtures import STUDY, write_study

SMALL = STUDY.replace("n_trials: 24", "n_trials: 4").replace("epochs: 4", "epochs: 1")


def _plan(path: Path, text: str = SMALL) -> str:
    path.write_text(text)
    with contextlib.chdir(path.parent):
        return "\n".join(plan.lines(specs.read(path)))


def test_a_new_study_is_planned_and_nothing_is_made(tmp_path: Path) -> None:
    """Channels, cells, packs and memory are said; no folder, database or report comes of it."""
    said = _plan(write_study(tmp_path))
    before = sorted(p.name for p in tmp_path.iterdir())
    for words in ("train: 600 rows, 40 features, 6.0 non-zeros a row", "cell cpu-sparse: 4 trials, searches with tpe",
                  "cell cpu-dense: 4 trials, replays the same trials", "4 lanes at once",
                  "trials of the same optimizer share a pass", "MiB for all", "study.db: a new study"):  # fmt: skip
        assert words in said
    assert before == ["holdout.npz", "study.yaml", "test.npz", "train.npz"]
    _plan(tmp_path / "study.yaml", SMALL + f"storage: sqlite:///{tmp_path}/mine.db\n")
    assert not (tmp_path / "mine.db").exists()


def test_a_study_is_played_through_on_many_workers(tmp_path: Path) -> None:
    """Time, what is lost and the storage's load are said for each number of workers, and a lag that is too short."""
    path = write_study(tmp_path, SMALL)
    said = [line for line in plan.lines(specs.read(path), workers=(1, 3), failures=1.0) if "played through" in line]
    assert [line.split(",")[0] for line in said] == ["1 worker", "3 workers"]
    assert "lost to 0 failures" in said[0] and "operations of the storage a second" in said[0]
    assert "write lag: 24, so that all have work" in said[1] and "write lag" not in said[0]


def test_a_begun_study_says_what_is_left(tmp_path: Path) -> None:
    """Done trials are counted, a larger budget is to go, another setting would be refused."""
    path = write_study(tmp_path, SMALL)
    fmtune.run(path, root=tmp_path)
    done, more = _plan(path), _plan(path, SMALL.replace("n_trials: 4", "n_trials: 9"))
    assert "4 trials are done, 0 to go" in done and "4 trials are done, 5 to go" in more
    assert "nothing is left to do: all trials are done, and the winner is chosen" in done
    assert "time of " not in done and "fastest cell" not in done
    assert "time of cpu-sparse: 5 trials to train, about 0:00:0" in more
    assert more.count("as its 4 finished trials took, the newest most") == 2 and "probed" not in more
    assert "would be refused, it was begun with another setting" in _plan(path, SMALL.replace("1..12", "1..13"))
    (tmp_path / "runs" / "small" / "study.db").write_bytes(b"hello" * 1000)
    with pytest.raises(StorageError, match="cannot be opened"):
        _plan(path)


def test_cells_and_sizes_that_cannot_run_are_said(tmp_path: Path) -> None:
    """A gpu cell without a gpu and a trial larger than the memory are known before the run."""
    path = write_study(tmp_path)
    text = SMALL.replace("{layout: [sparse, dense]}", "{device: [gpu, cpu]}").replace("1..12", "4..4096")
    said = _plan(path, text.replace("holdout: holdout.npz", "feature_dim: 100000000"))
    assert "cell gpu-sparse: will not run: no CUDA device" in said
    assert "4578.8 GiB a lane" in said and "would be refused; search a smaller num_factors" in said


def test_a_memory_budget_and_what_it_leads_to_are_said(tmp_path: Path) -> None:
    """How it is shared out, how many train at once, what is refused, and what is made anew."""
    wide = SMALL.replace("holdout: holdout.npz", "feature_dim: 10000").replace("1..12", "[8, 16]")
    path = write_study(tmp_path)
    roomy, tight, little = (_plan(path, f"{wide}memory: {of}\n") for of in ("1GiB", "9MB", "1MiB"))
    for said, words in (
        (roomy, "of the study's 1.0 GiB lanes may take 7.8 MiB, and as much again for copies\nmini-batches"),
        (tight, "of the study's 8.6 MiB lanes may take 2.9 MiB, and as much again for copies: 1 of the largest"),
        (little, "the largest trial does not fit and would be refused; search a smaller num_factors, or raise memory"),
        (little, "of 0.0 MiB that they may take: what does not fit is made anew in each epoch"),
    ):
        assert words in said
    assert "configurations and 600 rows" in tight


def test_seeds_and_equal_settings_are_said(tmp_path: Path) -> None:
    """Three seeds are three lanes a trial; without a searched shape all trials share a pass."""
    text = SMALL.replace("  optimizer: [adam, adagrad]\n", "").replace("pack: 4", "pack: 6\nseeds: 3")
    said = _plan(write_study(tmp_path), text)
    assert "6 lanes at once, 3 of them a trial" in said and "all trials can share a pass" in said


def test_the_time_of_each_cell_is_said(tmp_path: Path) -> None:
    """Each cell that runs has a line; a timeout that comes first is said, and what it leaves to replay."""
    path = write_study(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    many = SMALL.replace("n_trials: 4", "n_trials: 1000000\ntimeout: 1s")
    path.write_text(many)
    said = [line for line in plan.lines(specs.read(path)) if line.startswith("time of ")]
    assert [line.split(":")[0] for line in said] == ["time of cpu-sparse", "time of cpu-dense"]
    assert all(line.endswith("and 600 rows)") for line in said)
    most = re.search(r"the timeout comes first, after (?:\d+ to )?(\d+) trials or so \(", said[0])
    assert most is not None
    assert said[1].startswith(f"time of cpu-dense: {most[1]} trials to train, about ") and "comes to (" in said[1]
    assert before == sorted(p.name for p in tmp_path.iterdir())


def test_the_time_is_carried_over_from_some_of_the_rows(tmp_path: Path) -> None:
    """Not all rows are needed, the lanes are divided over the threads, and what does not fit is not tried."""
    path = write_study(tmp_path, STUDY)
    spec = specs.read(path)
    cell, channels = spec.matrix.cells[0], bring(spec).channels
    few = probed(spec, cell, channels, lanes=4, rows=100)
    assert few is not None and few.basis.endswith("configurations and 100 rows") and 0 < few.middle <= few.high
    wide = bring(specs.parse(STUDY.replace("holdout: holdout.npz", "feature_dim: 2000000000"), path)).channels
    huge = specs.parse(STUDY.replace("1..12", "4096..65536"), path)
    assert probed(huge, cell, wide, lanes=4) is None


def test_a_space_of_dear_and_cheap_trials_has_a_range(tmp_path: Path) -> None:
    """Where epochs vary a hundredfold, a trial of the dearest quarter takes half as long again as the mean one."""
    text = STUDY.replace("{epochs: 4, ", "{").replace("search_space:", "search_space:\n  epochs: 1..300 log")
    spec = specs.read(write_study(tmp_path, text))
    found = probed(spec, spec.matrix.cells[0], bring(spec).channels, lanes=4)
    assert found is not None and found.high > 1.5 * found.middle


def test_configurations_that_were_not_tried_are_reckoned_from_packs_that_were() -> None:
    """A lane takes a time of its own and one a column; a shape of pass that is twice as slow stays so."""
    small, large = (Hyperparameters(num_factors=k) for k in (8, 64))
    slow = Hyperparameters(num_factors=8, mini_batch_size=1)
    own, columns = 0.5, {h: columns_of(h.num_factors) / 16 for h in (small, large)}
    tried = [
        ([small, small], 2 * (own + columns[small])), ([small, large], 2 * own + columns[small] + columns[large]),
        ([slow], 2 * (own + columns[small])),
    ]  # fmt: skip
    new = Hyperparameters(num_factors=32)
    found = _reckoned([new, slow], tried, "sparse")
    assert found[1] == pytest.approx(tried[2][1])
    assert found[0] == pytest.approx(own + columns_of(32) / 16, rel=0.1)


def test_trials_that_have_ended_say_what_others_take() -> None:
    """Their shares of the wall clock, the newest counting most; too few say nothing, nor do failures without a pass."""

    def cell(*took: float | None, seconds: float | None) -> CellResult:
        trials = tuple(TrialResult(i, "COMPLETE", {}, 0.5, seconds=each) for i, each in enumerate(took))
        return CellResult("cpu", "sparse", trials, seconds=seconds)

    even = remembered(cell(1.0, 1.0, None, 1.0, 1.0, seconds=8.0))
    assert even is not None and even.middle == pytest.approx(2.0) == even.high
    grows, shrinks = remembered(cell(1, 2, 3, 4, seconds=10)), remembered(cell(4, 3, 2, 1, seconds=10))
    assert grows is not None and shrinks is not None
    assert shrinks.middle < 2.5 < grows.middle < grows.high == shrinks.high == pytest.approx(4.0)
    assert remembered(cell(1, 2, 3, seconds=10)) is None is remembered(cell(1, 2, 3, 4, seconds=None))
