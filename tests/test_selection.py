"""What the choice among the best is worth, and comparisons that end in a sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fmtune.cli import fmtune as cli
from fmtune.errors import NoTrialError
from fmtune.fm.metrics import METRICS
from fmtune.fm.solvers import Trainer
from fmtune.rows import Rows
from fmtune.tune import spec as specs
from fmtune.tune.collect import collect
from fmtune.tune.confirm import _half, _more, compare, confirm
from fmtune.tune.selection import Finalists, _draws, contributions, difference, honest, interval, joined
from fmtune.tune.study import run
from tests.study_fixtures import write_study


def _labels(metric: str, n: int, rng: np.random.Generator) -> np.ndarray:
    real = METRICS[metric].predictor_type == "regressor"
    return (rng.normal(size=n) if real else rng.random(n) < 0.4).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
def test_contributions_add_up_to_the_metric(metric: str) -> None:
    """The mean of the rows' contributions gives the metric itself."""
    rng = np.random.default_rng(0)
    labels, scores = _labels(metric, 500, rng), rng.normal(size=500).astype(np.float32)
    parts = contributions(metric, scores, labels)
    assert joined(metric, parts.mean(axis=1)) == pytest.approx(METRICS[metric].compute(scores, labels), rel=1e-12)


def test_choosing_among_equals_is_corrected() -> None:
    """Of 20 equally good models the best looks better than it is; the corrected score is near the truth."""
    naive, corrected = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels = rng.normal(size=300).astype(np.float32)
        finalists = {n: (labels + rng.normal(size=300))[None].astype(np.float32) for n in range(20)}
        found = honest("mse", finalists, labels, seed)
        assert found is not None
        naive.append(found["naive"])
        corrected.append(found["corrected"])
    assert np.mean(naive) < 0.88  # the expectation of each single model is 1
    assert abs(np.mean(corrected) - 1.0) < 0.04


def test_the_best_few_alone_are_not_corrected_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 equally good trials nearly all the optimism goes; the best 20 alone, chosen on all rows, leave a part."""
    monkeypatch.setattr("fmtune.tune.selection.DRAWS", 300)
    naive, whole, few = [], [], []
    for seed in (0, 1, 3, 4):
        rng = np.random.default_rng(seed)
        labels = rng.normal(size=300).astype(np.float32)
        scores = {n: (labels + rng.normal(size=300))[None].astype(np.float32) for n in range(300)}
        kept = Finalists(tmp_path / str(seed), "minimize")
        values = {n: METRICS["mse"].compute(x[0], labels) for n, x in scores.items()}
        for n, x in scores.items():
            kept.offer(n, values[n], x)
        found = honest("mse", kept.scores(), labels, seed)
        best = honest("mse", dict(list(kept.scores().items())[:20]), labels, seed)
        assert found is not None and best is not None and found["among"] == 300 and best["among"] == 20
        truth = np.mean(list(values.values()))
        naive.append(truth - found["naive"])
        whole.append(truth - found["corrected"])
        few.append(truth - best["corrected"])
    assert np.mean(naive) > 0.18 and abs(np.mean(whole)) < 0.02 and np.mean(few) > 0.05


@pytest.mark.parametrize("metric", METRICS)
def test_of_twins_nothing_was_chosen(metric: str) -> None:
    """A model beside itself is corrected by nothing, heavy tails, few rows and curved metrics or not."""
    rng = np.random.default_rng(5)
    labels = _labels(metric, 30, rng)
    scores = (labels + rng.standard_t(2, 30)).astype(np.float32)[None]
    found = honest(metric, {0: scores, 1: scores}, labels)
    assert found is not None and found["corrected"] == found["naive"]
    assert [point["corrected"] for point in found["curve"]] == [found["naive"]]


def test_too_few_rows_say_nothing() -> None:
    """29 rows, or many rows of 29 groups, give neither a corrected score nor an interval; 30 do."""
    rng = np.random.default_rng(6)
    for n, units, known in ((29, None, False), (30, None, True), (290, 29, False), (300, 30, True)):
        labels = rng.normal(size=n).astype(np.float32)
        own = None if units is None else np.arange(n) % units
        one, two = ((labels + rng.normal(size=n)).astype(np.float32)[None] for _ in range(2))
        gap = difference("rmse", one, two, labels, own)
        assert (honest("rmse", {0: one, 1: two}, labels, units=own) is not None) is known
        assert (gap["low"] is not None) is known and np.isfinite(gap["difference"])


def test_rows_of_one_group_are_drawn_together() -> None:
    """Where rows of a group are alike, intervals are those of one row a group, not of as many as there are rows."""
    rng = np.random.default_rng(7)
    errors = rng.normal(size=(2, 40))
    labels, few = np.zeros(40, np.float32), {n: e[None].astype(np.float32) for n, e in enumerate(errors)}
    many, units = {n: np.repeat(x, 25, axis=1) for n, x in few.items()}, np.repeat(np.arange(40), 25)
    single = honest("rmse", few, labels)
    grouped = honest("rmse", many, np.repeat(labels, 25), units=units)
    assert single is not None and grouped is not None
    for name in ("naive", "corrected", "low", "high", "wins"):
        assert grouped[name] == pytest.approx(single[name], rel=1e-6)
    assert (grouped["rows"], grouped["groups"], single["groups"]) == (1000, 40, None)
    gaps = [difference("rmse", x[0], x[1], np.zeros(x[0].shape[1], np.float32), own)
            for x, own in ((few, None), (many, units))]  # fmt: skip
    assert gaps[1] == pytest.approx(gaps[0], rel=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_a_trial_is_the_mean_over_its_seeds(metric: str) -> None:
    """With seeds that differ much the choice goes by the trials' own values, as the study's does, in any metric."""
    rng = np.random.default_rng(0)
    labels = _labels(metric, 400, rng)
    clear = labels if METRICS[metric].predictor_type == "regressor" else 2 * labels - 1
    trials = {
        n: np.stack([clear + s * rng.normal(size=400) for s in noise]).astype(np.float32)
        for n, noise in enumerate(((0.5, 0.5, 1.5), (0.88, 0.88, 0.88), (0.3, 0.9, 2.5)))
    }
    values = {n: np.mean([METRICS[metric].compute(row, labels) for row in x]) for n, x in trials.items()}
    found = honest(metric, trials, labels)
    assert found is not None and found["naive"] == pytest.approx(values[found["trial"]], rel=1e-12)
    pick = min if METRICS[metric].direction == "minimize" else max
    assert found["trial"] == pick(values, key=lambda n: values[n])


def test_many_trials_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found is the same whether all trials are drawn at once or a few at a time."""
    rng = np.random.default_rng(4)
    labels = (rng.random(60) < 0.5).astype(np.float32)
    trials = {n: (labels + rng.normal(size=(2, 60))).astype(np.float32) for n in range(7)}
    whole = honest("auc", trials, labels)
    monkeypatch.setattr("fmtune.tune.selection._WORK", 2 * 8 * 2 * 5 * (60 + 2000))
    parts = honest("auc", trials, labels)
    assert whole is not None and parts is not None and parts["wins"] == whole["wins"]
    assert parts["corrected"] == pytest.approx(whole["corrected"], rel=1e-12)


def test_only_a_few_are_trained_again(tmp_path: Path) -> None:
    """Of trials of other machines the best few and the leaders are missed; scores that power cut short are not read."""
    values = {n: abs(n - 30.0) for n in range(60)}
    kept = Finalists(tmp_path, "minimize", few=3)
    for n in range(0, 60, 2):
        kept.offer(n, values[n], np.zeros((1, 3), np.float32))
    assert kept.choose(values, 12) == [n for n in range(31) if n % 2] + [31]
    assert len(kept.scores()) == 30
    (tmp_path / "58.npy").write_bytes(b"")
    (tmp_path / "56.npy").write_bytes(bytes(140))
    assert len(kept.scores()) == 28
    monkey = Finalists(tmp_path, "minimize", keep=10, few=3)
    monkey.choose(values, 12)
    assert {int(f.stem) for f in tmp_path.glob("*.npy")} == {*range(0, 31, 2), 32, 34}


def test_the_curve_names_every_leader() -> None:
    """The curve has one point for each trial that took the lead, in number order, and ends at the winner."""
    rng = np.random.default_rng(1)
    labels = rng.normal(size=400).astype(np.float32)
    finalists = {
        n: (labels + s * rng.normal(size=400))[None].astype(np.float32)
        for n, s in ((9, 0.5), (2, 2.0), (4, 1.0), (7, 1.5))
    }
    found = honest("rmse", finalists, labels)
    assert found is not None
    assert [point["trial"] for point in found["curve"]] == [2, 4, 9]
    assert found["trial"] == 9 and found["wins"] == {"9": 1.0}


def test_the_interval_of_auc_is_near_that_of_drawing_rows() -> None:
    """Rows' shares of won pairs give, over draws, almost the same values as auc computed anew, ties and all."""
    rng = np.random.default_rng(3)
    labels = (rng.random(600) < 0.3).astype(np.float32)
    scores = (rng.normal(size=600) + labels).round(1).astype(np.float32)
    parts = contributions("auc", scores, labels)
    picks = [rng.integers(0, 600, 600) for _ in range(300)]
    anew = np.array([METRICS["auc"].compute(scores[p], labels[p]) for p in picks])
    near = np.array([joined("auc", parts[:, p].mean(axis=1)) for p in picks])
    assert np.corrcoef(anew, near)[0, 1] > 0.995 and np.abs(anew - near).max() < 0.005


def test_drawn_rows_of_one_label_leave_auc_as_it_is() -> None:
    """Where a draw has no row of a label, that side counts as on all rows; there is never a division by zero."""
    labels = np.array([0, 0, 0, 1], np.float32)
    parts = contributions("auc", np.array([0.1, 0.5, 0.2, 0.3], np.float32), labels)
    assert joined("auc", parts[:, 3]) == pytest.approx(METRICS["auc"].compute(
        np.array([0.1, 0.5, 0.2, 0.3], np.float32), labels))
    labels = np.repeat(labels, 8)
    found = honest("auc", {0: labels[None], 1: -labels[None]}, labels)
    assert found is not None and found["trial"] == 0 and np.isfinite([found["low"], found["corrected"]]).all()


def test_finalists_are_the_best_and_the_leaders(tmp_path: Path) -> None:
    """Kept are the best few and whoever led at its number, in whatever order trials end."""
    rng = np.random.default_rng(2)
    values = {n: float(v) for n, v in enumerate(rng.permutation(60))}
    wanted = set(sorted(values, key=values.__getitem__)[:5])
    wanted |= {n for n in values if values[n] == min(values[m] for m in range(n + 1))}
    for seed in range(3):
        folder = tmp_path / str(seed)
        kept = Finalists(folder, "minimize", keep=5)
        for n in np.random.default_rng(seed).permutation(60):
            kept.offer(int(n), values[int(n)], np.full((1, 3), n, np.float32))
        assert set(kept.scores()) == wanted == {int(f.stem) for f in folder.glob("*.npy")}
        again = Finalists(folder, "minimize", keep=5)
        again.know(values)
        assert list(again.scores()) == sorted(wanted, key=values.__getitem__)


def _models(gap: float, noise: float, seeds: int, n: int, seed: int = 0) -> tuple[dict[int, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=n).astype(np.float32)
    base = labels + 0.5 * rng.normal(size=n)
    scores = {
        t: np.stack([base + e * rng.normal(size=n) for _ in range(seeds)]).astype(np.float32)
        for t, e in ((1, noise), (2, noise + gap))
    }
    return scores, labels


def test_a_clear_difference_is_better() -> None:
    """A model that is clearly better is said to be, with its interval and what it rests on."""
    found = compare("mse", *_models(0.4, 0.1, seeds=6, n=2000))
    assert found["best"] == 1 and found["pairs"][0]["verdict"] == "better"
    assert (
        found["sentences"][0].startswith("trial 1 beats trial 2 by ")
        and "2,000 rows x 6 seeds" in found["sentences"][0]
    )


def test_equal_models_are_never_better() -> None:
    """Of two models that differ by chance alone, neither beats the other in 95 of 100 comparisons or more."""
    verdicts = [compare("mse", *_models(0.0, 0.3, seeds=5, n=300, seed=s))["pairs"][0]["verdict"] for s in range(40)]
    assert verdicts.count("better") <= 4


@pytest.mark.parametrize(("seeds", "alarms"), [(2, 0.05), (3, 0.04), (5, 0.05), (10, 0.05)])
def test_seeds_alone_seldom_make_a_winner(seeds: int, alarms: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two configurations that only seeds tell apart, one beats the other in 5 of 100 comparisons at any S.

    A bootstrap over seeds said so in 50, 26, 18 and 11 of 100.
    """
    monkeypatch.setattr("fmtune.tune.selection.DRAWS", 30)
    rng, verdicts = np.random.default_rng(1), []
    labels = rng.normal(size=100).astype(np.float32)
    for _ in range(400):
        noise = 0.5 * rng.normal(size=100)
        shape = (seeds, 1)
        scores = {t: (labels + noise * (1 + 0.1 * rng.normal(size=shape))).astype(np.float32) for t in (1, 2)}
        verdicts.append(compare("rmse", scores, labels)["pairs"][0]["verdict"])
    assert verdicts.count("better") / 400 == pytest.approx(alarms, abs=0.025)


@pytest.mark.parametrize(("gap", "noise"), [(0.0, 0.3), (0.03, 0.3), (0.4, 0.1), (0.0005, 0.02), (0.05, 0.2)])
def test_sentence_and_interval_say_the_same(gap: float, noise: float) -> None:
    """The ends that are printed are those that were found, and lie above zero where, and only where, one is better."""
    for seed in range(8):
        pair = compare("mse", *_models(gap, noise, seeds=2 + seed % 3, n=300, seed=seed))["pairs"][0]
        assert pair["low"] < pair["difference"] < pair["high"]
        if pair["verdict"] == "equal":
            continue
        ends = re.search(r" (-?[\d.]+)\.\.(-?[\d.]+) \(95 %", pair["sentence"])
        assert ends is not None and "+-" not in pair["sentence"]
        low, high = map(float, ends.groups())
        assert low == pytest.approx(pair["low"], rel=0.06) and high == pytest.approx(pair["high"], rel=0.06)
        assert (low > 0) == (pair["verdict"] == "better") == (pair["low"] > 0)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("rows", [0.0, 0.03, 0.1, 1.0, 10.0])
def test_the_interval_holds_whatever_share_the_rows_have(rows: float, seeds: int) -> None:
    """Equal pairs seem different in 5 of 100 comparisons at most; ``rows`` is their variance beside that of seeds."""
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(10_000, seeds)) * np.sqrt(seeds)
    gaps = np.abs(differences.mean(axis=1) + np.sqrt(rows) * rng.normal(size=10_000))
    halves = [_half(own, rows, seeds) for own in differences.var(axis=1, ddof=1)]
    assert 0.01 < np.mean(gaps > halves) < 0.056


def test_so_many_more_seeds_would_decide() -> None:
    """The seeds that an undecided comparison asks for are as many as its own interval needs, with none left over."""
    own, rows, gap, seeds = 1.0, 0.01, 0.5, 4
    found = re.match(r"about (\d+) more seeds would decide", _more(gap, own, rows, seeds))
    assert found is not None
    asked = seeds + int(found[1])
    assert _half(own, rows, asked) < gap <= _half(own, rows, asked - 1)
    assert "more test rows would" in _more(gap, own, rows=0.1, seeds=seeds)


@pytest.mark.parametrize("metric", ["binary_classification_cross_entropy", "auc", "binary_classification_accuracy"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_finalist_that_diverges_is_last_and_in_no_pair(metric: str, bad: float) -> None:
    """Whatever the metric, and wherever it stands: it is said under how many seeds, and the others are compared."""
    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.5).astype(np.float32)
    good = (2 * labels - 1 + rng.normal(size=(4, 300))).astype(np.float32)
    lost = good + np.float32(0.5) * (2 * labels - 1)
    lost[2, 7:] = bad
    for trials in ({0: lost, 1: good, 2: -good}, {2: -good, 1: good, 0: lost}):
        found = compare(metric, trials, labels)
        assert found["best"] == 1 and [p["trial"] for p in found["pairs"]] == [2]
        assert found["sentences"][-1] == "trial 0 diverged under 1 of 4 seeds"
        assert found["scores"]["0"]["mean"] is None and found["scores"]["0"]["diverged"] == 1
        json.dumps(found, allow_nan=False)
    assert compare(metric, {0: lost, 1: good}, labels)["pairs"] == []
    with pytest.raises(NoTrialError, match="trial 0 diverged under 1 of 4 seeds; trial 3 diverged under 1"):
        compare(metric, {3: lost, 0: lost}, labels)


def test_a_tiny_difference_is_practically_equal() -> None:
    """A difference far below half a per cent is called equal, however sure it is."""
    found = compare("mse", *_models(0.0005, 0.02, seeds=6, n=20000))
    assert found["pairs"][0]["verdict"] == "equal" and "practically equal" in found["sentences"][0]


@pytest.mark.parametrize(("rows", "decided"), [(1, False), (29, False), (30, True)])
def test_a_handful_of_rows_makes_no_winner(rows: int, decided: bool) -> None:
    """With one row the rows' own share of the variance is 0, and seeds alone would decide."""
    scores, labels = _models(3.0, 0.0, 5, rows)
    (pair,) = compare("rmse", scores, labels)["pairs"]
    assert (pair["verdict"] == "better") is decided and (pair["low"] is not None) is decided
    assert ("too few to tell" in pair["sentence"]) is not decided


def test_an_undecided_pair_says_what_would_decide() -> None:
    """Where neither holds, the sentence says so and what more it would take."""
    found = compare("mse", *_models(0.03, 0.3, seeds=3, n=100, seed=3))
    assert found["pairs"][0]["verdict"] == "undecided"
    assert "not decided" in found["sentences"][0] and "more" in found["sentences"][0]


def test_another_look_is_said_not_to_be_allowed_for() -> None:
    """The number of seeds that would decide is told at the first look alone; a later verdict says which look it is."""
    undecided, clear = _models(0.03, 0.3, seeds=3, n=100, seed=3), _models(0.4, 0.1, seeds=6, n=2000)
    (first,), (second,) = (compare("mse", *undecided, looks=n)["sentences"] for n in (1, 2))
    assert "would" in first and "look 2" not in first
    assert second.endswith("; this was look 2, and the interval allows for one") and "more" not in second
    assert "this was look 3" in compare("mse", *clear, looks=3)["sentences"][0]
    assert "look" not in compare("mse", *clear)["sentences"][0]


def test_looking_until_it_decides_finds_what_is_not_there() -> None:
    """Two equal trials, 10 seeds at first and then as many as were said to decide: 5, 11 and 18 of 100 alarms."""
    draw, alarms, tries = np.random.default_rng(0), np.zeros(6), 1000
    for _ in range(tries):
        differences, seeds = draw.normal(size=2000), 10
        for look in range(6):
            gap, own = abs(differences[:seeds].mean()), float(differences[:seeds].var(ddof=1))
            if gap > _half(own, 0.0, seeds):
                alarms[look:] += 1
                break
            asked = np.arange(seeds + 1, min(50 * seeds, len(differences)))
            enough = asked[_half(own, 0.0, asked) < gap]
            if not len(enough):
                break
            seeds = int(enough[0])
    assert np.allclose(alarms[[0, 1, 5]] / tries, [0.05, 0.11, 0.18], atol=0.03)


def test_a_score_has_the_interval_that_the_best_trial_s_has() -> None:
    """The same draws of the same rows, and none below 30 rows."""
    draw = np.random.default_rng(0)
    labels = (draw.random(200) < 0.4).astype(np.float32)
    scores = (labels - 0.4 + draw.normal(size=(2, 2, 200))).astype(np.float32)
    for metric in ("binary_classification_cross_entropy", "auc", "binary_f_beta"):
        found = honest(metric, {4: scores[0], 7: scores[1]}, labels, seed=3)
        assert found is not None
        best = scores[0] if found["trial"] == 4 else scores[1]
        assert interval(metric, best, labels, seed=3) == pytest.approx((found["low"], found["high"]))
    assert interval("auc", scores[0, :, :29], labels[:29]) is None


@pytest.mark.parametrize(("rows", "held"), [(5, 0.78), (30, 0.92), (200, 0.94)])
def test_intervals_of_few_rows_are_too_narrow(rows: int, held: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """How often the 95 % interval of a log loss holds what it is on very many rows."""
    monkeypatch.setattr("fmtune.tune.selection.DRAWS", 200)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = draw.normal(size=n)
        labels = (draw.random(n) < 1 / (1 + np.exp(1 - 1.5 * x))).astype(np.float32)
        return (1.3 * x - 0.9 + 0.4 * draw.normal(size=n)).astype(np.float32), labels

    draw, metric, inside = np.random.default_rng(1), "binary_classification_cross_entropy", 0
    truth = METRICS[metric].compute(*drawn(1_000_000))
    for _ in range(2000):
        scores, labels = drawn(rows)
        low, high = np.quantile(_draws(metric, [scores[None]], labels, 0, None)[0], [0.025, 0.975])
        inside += bool(low <= truth <= high)
    assert inside / 2000 == pytest.approx(held, abs=0.015)


def test_confirm_opens_the_holdout_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Confirming twice asks the same question: the holdout is opened once more than by the run, not twice."""
    spec = specs.read(write_study(tmp_path)).model_copy(update={"n_trials": 8})
    run(spec, root=tmp_path)
    first = confirm(spec, tmp_path, finalists=2, seeds=3)
    assert first["holdout"]["opened"] == 2 and first["seeds"] == 3
    assert confirm(spec, tmp_path, finalists=2, seeds=3) == first
    second = confirm(spec, tmp_path, finalists=2, seeds=4)
    assert first["looks"] == 1 and second["looks"] == 2 and first["holdout"]["seeds"] == 3
    assert first["holdout"]["low"] < first["holdout"]["score"] < first["holdout"]["high"]
    # The holdout has answered for this trial; for another it is opened anew.
    assert (second["holdout"] == first["holdout"]) is (second["best"] == first["best"])
    again = confirm(spec, tmp_path, finalists=2, seeds=4, again=True)
    assert again["looks"] == 2 and again["holdout"]["seeds"] == 4
    assert again["holdout"]["opened"] == second["holdout"]["opened"] + 1
    result, asked = collect(spec, tmp_path), []
    complete = sum(t.state == "COMPLETE" for t in result.cells[0].trials)
    assert result.selection is not None and result.selection["among"] == complete

    def diverged(pack: Trainer, rows: Rows) -> np.ndarray:
        asked.append(pack)
        scores = pack.score(rows)
        return scores * np.float32(np.nan) if len(asked) == 1 else scores

    monkeypatch.setattr("fmtune.tune.confirm._scored", diverged)
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(cli, ["confirm", str(spec.path), "--finalists", "2", "--seeds", "5"])
    assert said.exit_code == 0, said.output
    assert f"\ntrial {first['question']['trials'][0]} diverged under 5 of 5 seeds\n" in said.output
