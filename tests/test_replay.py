"""Replay: a trial run again from a result or a page, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmtune.data import source
from fmtune.errors import DataError, ResourceError, UsageError
from fmtune.fm.model import Model
from fmtune.report.page import build, extract
from fmtune.report.record import from_json
from fmtune.tune import replay as replays
from fmtune.tune import spec as specs
from fmtune.tune import study as studies
from fmtune.tune.collect import collect
from fmtune.tune.driver import Outcome
from fmtune.tune.replay import TOLERANCE, address, compare, replay
from fmtune.tune.result import CellResult, StudyResult, TrialResult
from fmtune.tune.storage import open_storage, sqlite_url
from fmtune.tune.store import Store
from tests import fm_reference as reference
from tests.study_fixtures import STUDY, said, write_study

TEXT = STUDY.replace("n_trials: 24", "n_trials: 12")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    """A small study that has run, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("replay")
    spec = specs.read(write_study(folder, TEXT))
    studies.run(spec, root=folder)
    return replace(collect(spec, folder), spec_path="study.yaml"), folder


def test_every_trial_is_identical_on_the_same_machine(done: tuple[StudyResult, Path]) -> None:
    """Complete, pruned, searched or replayed: run alone, each gives the bits that it gave in its pack."""
    result, folder = done
    assert {t.state for t in result.cells[0].trials} >= {"COMPLETE", "PRUNED"}
    for cell in result.cells:
        for trial in cell.trials:
            again = replay(result, trial.number, cell.name, folder)
            assert again.verdict == "identical" and again.largest == 0 and again.environment == {}
            assert again.lines[-1] == "the environment is the same"
            # What reports quote, also where the best epoch was not the last.
            assert again.then == again.now == (trial.value if trial.state == "COMPLETE" else trial.curve[-1])


def test_a_page_is_enough(done: tuple[StudyResult, Path]) -> None:
    """From the page's record alone, six digits of each epoch and all of the value, the trial is found identical."""
    result, folder = done
    top = result.best
    assert top is not None
    from_page = from_json(json.loads(json.dumps(extract(build(result)))))
    again = replay(from_page, top.number, root=folder)
    assert again.verdict == "identical" and again.epochs == len(top.curve)
    assert again.lines[0].startswith(f"trial {top.number} in cpu-sparse: identical (")


def test_entries_of_the_environment_that_differ_are_named(done: tuple[StudyResult, Path]) -> None:
    """Another version, one that was not recorded, one that is gone: each with what it was and what it is."""
    result, folder = done
    old = replace(result, environment={"numpy": "1.0", "python": "3.11", "gone": "x"})
    again = replay(old, 0, root=folder, now={"numpy": "2.0", "python": "3.11", "new": "y"})
    assert again.environment == {"numpy": ("1.0", "2.0"), "gone": ("x", None), "new": (None, "y")}
    assert "  numpy: 1.0 then, 2.0 now" in again.lines


def test_other_data_are_refused(done: tuple[StudyResult, Path], tmp_path: Path) -> None:
    """One label changed: the channel is named, and nothing is trained."""
    result, _ = done
    write_study(tmp_path, TEXT)
    source.write(reference.rows(200, 40, 6), tmp_path / "test.npz")
    with pytest.raises(DataError, match="not the study's data: test differs"):
        replay(result, 0, root=tmp_path)


def test_another_score_is_different(done: tuple[StudyResult, Path]) -> None:
    """A result that was tampered with, or trained with another seed, is told from rounding."""
    result, folder = done
    seed = replace(result, spec_text=result.spec_text + "seed: 5\n")
    again = replay(seed, 0, root=folder)
    assert again.verdict == "different" and again.largest > TOLERANCE and "then" in again.lines[0]


@pytest.mark.filterwarnings("ignore:all labels are 0 or 1")  # rates diverge in a regression alone
def test_a_trial_that_diverged_diverges_again(tmp_path: Path) -> None:
    """Its end is reproduced: identical means failed at the same epoch, with the same scores before."""
    text = TEXT.replace("objective: test:binary_classification_cross_entropy", "objective: test:rmse")
    text = text.replace("linear_lr: 1e-3..0.5 log", "linear_lr: [0.01, 1e37]").replace("n_trials: 12", "n_trials: 6")
    spec = specs.read(write_study(tmp_path, text))
    studies.run(spec, root=tmp_path)
    result = replace(collect(spec, tmp_path), spec_path="study.yaml")
    failed = [t for t in result.cells[0].trials if t.state == "FAIL"]
    assert failed
    assert {replay(result, t.number, root=tmp_path).verdict for t in failed} == {"identical"}
    with pytest.raises(UsageError, match="was not trained to an end in cpu-dense: not replayed"):
        replay(result, failed[0].number, "cpu-dense", tmp_path)


@pytest.mark.parametrize(
    ("trial", "cell", "error", "words"),
    [
        (99, None, UsageError, "no trial 99 in cpu-sparse"),
        (0, "gpu-dense", UsageError, "no cell 'gpu-dense' with trials"),
        (0, "gpu-sparse", ResourceError, "no CUDA device here"),
    ],
)
def test_what_cannot_be_replayed_says_why(
    done: tuple[StudyResult, Path], trial: int, cell: str | None, error: type[Exception], words: str
) -> None:
    """No such trial, no such cell, no such device here."""
    result, folder = done
    result = replace(result, cells=(*result.cells, CellResult("gpu", "sparse", result.cells[0].trials)))
    with pytest.raises(error, match=words):
        replay(result, trial, cell, folder)


def test_the_model_is_what_the_study_would_have_kept(done: tuple[StudyResult, Path], tmp_path: Path) -> None:
    """Of the winner it is the winner's, by the study file or by a page; of another trial it is scored as such."""
    result, folder = done
    top = result.best
    assert top is not None
    again = said(folder, "replay", "study.yaml", "--trial", str(top.number), "-o", tmp_path / "own" / "winner.fm")
    assert again.code == 0 and again.lines[-1] == f"model: {tmp_path / 'own' / 'winner.fm'}"
    (folder / "page.html").write_text(build(result))
    assert said(folder, "replay", f"page.html#trial={top.number}", "-o", tmp_path / "page.fm").code == 0
    kept, *made = (
        Model.load(path) for path in (folder / "runs/small/model.fm", tmp_path / "own/winner.fm", tmp_path / "page.fm")
    )
    for model in made:
        assert model.bias == kept.bias and np.array_equal(model.linear, kept.linear)
        assert np.array_equal(model.factors, kept.factors)
        assert {**model.facts, "data": ""} == {**kept.facts, "data": ""}  # paths are as the study file was named
    other = next(t for t in result.cells[0].trials if t.state == "COMPLETE" and t != top)
    assert said(folder, "replay", "page.html", "--trial", str(other.number), "-o", tmp_path / "other.fm").code == 0
    scored = said(folder, "predict", tmp_path / "other.fm", "test.npz", "-o", tmp_path / "scores.csv")
    assert f"binary_classification_cross_entropy: {other.value:.6g}" in scored.lines


def test_the_model_is_of_the_epoch_and_the_seed_of_the_score(tmp_path: Path) -> None:
    """With patience the best epoch's, which is not the last one; of two seeds the first: as the winner's."""
    text = STUDY.replace("epochs: 4", "epochs: 12, patience: 2").replace("n_trials: 24", "n_trials: 6\nseeds: 2")
    path = write_study(tmp_path, text)
    assert said(tmp_path, "run", "study.yaml", "--no-report").code == 0
    top = collect(specs.read(path), tmp_path).best
    assert top is not None and top.best_epoch is not None and top.best_epoch < len(top.curve)
    assert said(tmp_path, "replay", "study.yaml", "--trial", str(top.number), "-o", "again.fm").code == 0
    assert (tmp_path / "again.fm").read_bytes() == (tmp_path / "runs" / "small" / "model.fm").read_bytes()


def test_no_model_is_written_of_what_is_not_the_trial(done: tuple[StudyResult, Path], tmp_path: Path) -> None:
    """One that came out different, one that was pruned, one that nobody named: each says why, and leaves no file."""
    result, folder = done
    out = tmp_path / "model.fm"
    seed = replace(result, spec_text=result.spec_text + "seed: 5\n")
    assert replay(seed, 0, root=folder, out=out).model is None
    pruned = next(t.number for t in result.cells[0].trials if t.state == "PRUNED")
    data = "data: {train: train.npz, test: test.npz, holdout: holdout.npz}"
    (folder / "sweep.yaml").write_text(TEXT.replace(data, "data: digits\nsweep: {split: [0, 1]}"))
    for words, why in (
        (("study.yaml", "--trial", str(pruned)), f"trial {pruned} is not complete, so it has no model: pruned at"),
        (("study.yaml",), "'study.yaml' names no trial\n  hint: write page.html#trial=42, or study.yaml --trial 42"),
        (("page.html#trial=3", "--trial", "4"), "--trial 4: two trials are named\n  hint: page.html#trial=3 alone"),
        (("sweep.yaml", "--trial", "0"), "sweep.yaml: a sweep is several studies, and each has such a trial"),
    ):
        refused = said(folder, "replay", *words, "-o", out)
        assert refused.code == 2 and why in refused.err
    assert not out.exists()


def test_confirm_names_the_command_that_makes_the_better_trials_model(tmp_path: Path) -> None:
    """Where it finds another trial than the winner ahead; the command is typed as it stands, and works."""
    spec = specs.read(write_study(tmp_path, STUDY.replace("n_trials: 24", "n_trials: 6")))
    studies.run(spec, root=tmp_path)
    words = "confirm", "study.yaml", "--finalists", "2", "--seeds", "2"
    assert said(tmp_path, *words).code == 0
    store = Store(open_storage(sqlite_url(tmp_path / "runs" / "small")), "small", "minimize")
    found = store.attrs()["fmtune:confirmation"]
    other = next(int(n) for n in found["scores"] if int(n) != found["best"])
    store.set_attrs({"fmtune:confirmation": {**found, "best": other}})
    line = next(line for line in said(tmp_path, *words).lines if "the study's model is still trial" in line)
    command = line.split("`")[1]
    assert command == f"fmtune replay study.yaml --trial {other} -o small-{other}.fm"
    made = said(tmp_path, *command.split()[1:])
    assert made.code == 0 and made.lines[-1] == f"model: small-{other}.fm" and (tmp_path / f"small-{other}.fm").exists()


def old(state: str = "COMPLETE", value: float | None = 0.5, curve: tuple[float, ...] = (0.6, 0.5)) -> TrialResult:
    """Return a trial as it was."""
    return TrialResult(3, state, {}, value, curve)


def new(state: str = "COMPLETE", value: float | None = 0.5, curve: tuple[float, ...] = (0.6, 0.5)) -> Outcome:
    """Return a trial run again."""
    return Outcome(state, value, curve, 2, {}, 1.0, 1.0, 4)


@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        (old(), new(), "identical"),
        (old(value=0.12345678, curve=(0.123457,)), new(value=0.12345678, curve=(0.12345678,)), "identical"),
        (old(), new(value=0.5 + 1e-12, curve=(0.6, 0.5)), "within tolerance"),
        (old(), new(value=0.50001, curve=(0.6, 0.50001)), "within tolerance"),
        (old(), new(value=0.51, curve=(0.6, 0.51)), "different"),
        (old(), new(curve=(0.7, 0.5)), "different"),
        (old(), new("FAIL", None, (0.6,)), "different"),
        (old("FAIL", None, ()), new("FAIL", None, ()), "identical"),
        (old("PRUNED", None), new(), "identical"),
    ],
)
def test_the_verdict_follows_from_the_numbers(one: TrialResult, two: Outcome, verdict: str) -> None:
    """Identical to the last bit or to the digits kept, within a thousandth, or different; ends must agree."""
    assert compare(one, two)[0] == verdict


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("reports/digits.html#trial=42", (Path("reports/digits.html"), 42, None)),
        ("a#b.html#trial=0&cell=cpu-dense", (Path("a#b.html"), 0, "cpu-dense")),
    ],
)
def test_an_address_is_a_page_and_a_trial(words: str, parts: tuple[Any, ...]) -> None:
    """The fragment that the page's own links have names the trial, and a cell where one is wanted."""
    assert address(words) == parts


@pytest.mark.parametrize(
    "words", ["page.html", "page.html#trial=", "#trial=3", "page.html#trial=-1", "page.html#trial=3&x=y"]
)
def test_an_address_without_a_trial_is_refused(words: str) -> None:
    """The hint shows the form."""
    with pytest.raises(UsageError):
        address(words)


def test_the_score_that_is_quoted_is_the_reports() -> None:
    """With patience the best epoch's, not the last one's; a trial without a score has its last epoch."""
    curve = (0.5, 0.4, 0.45)
    assert replays._score(TrialResult(0, "COMPLETE", {}, 0.4, curve)) == 0.4
    assert replays._score(TrialResult(0, "PRUNED", {}, None, curve)) == 0.45
    assert replays._score(TrialResult(0, "FAIL", {})) is None
