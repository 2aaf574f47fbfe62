"""The gate: three verdicts on speed, quality beside it, and what cases that are not there come to."""

from __future__ import annotations

import numpy as np
import pytest
from bench_fixtures import LOSSES, entry, result

from fmtune.bench import baseline, gate
from fmtune.bench.worker import OURS


def judged(slower: float, *, seed: int = 1, **values):
    return gate.paired("a", entry(seed=0), entry(level=0.01 * slower, seed=seed, **values))


@pytest.mark.parametrize(
    ("slower", "verdict"), [(1.0, "ok"), (0.8, "ok"), (1.05, "regressed"), (1.5, "regressed"), (1.02, "cannot tell")]
)
def test_three_verdicts(slower, verdict):
    """Equal and faster are ok, 5 % slower is regressed, a change as large as the tolerance cannot be told."""
    assert judged(slower).verdict == verdict


def test_the_estimate_lies_in_its_interval_and_near_the_truth():
    """A planted ratio is recovered to a percent."""
    verdict = judged(1.10)
    assert verdict.low < verdict.ratio < verdict.high
    assert verdict.ratio == pytest.approx(1.10, abs=0.01)


def test_false_alarms_and_finds_on_drawn_noise():
    """Over 200 drawn comparisons of equal versions there is no alarm; of 5 % slower ones 95 % are found."""
    assert [judged(1.0, seed=seed).verdict for seed in range(1, 201)].count("regressed") == 0
    assert [judged(1.05, seed=seed).verdict for seed in range(1, 201)].count("regressed") >= 190


def test_one_round_decides_nothing():
    """A single pair of processes has no interval: cannot tell."""
    base, new = entry(), entry(level=0.05, seed=1)
    for side in (base, new):
        side["samples"] = [sample for sample in side["samples"] if sample["round"] == 0]
    verdict = gate.paired("a", base, new)
    assert (verdict.verdict, verdict.low) == ("cannot tell", None)


def test_disturbed_samples_do_not_move_a_level():
    """One sample in four at three times the time leaves the verdict as it was."""
    new = entry(seed=1)
    for sample in new["samples"][::4]:
        sample["cpu"] *= 3
    assert gate.paired("a", entry(), new).verdict == "ok"


@pytest.mark.parametrize(
    ("loss", "quality", "verdict"),
    [
        (LOSSES, "equal", "ok"),
        ([x + 1e-4 for x in LOSSES], "within", "ok"),
        ([x - 1e-4 for x in LOSSES], "within", "ok"),
        ([x + 0.006 for x in LOSSES], "worse", "worse"),
        ([x - 0.02 for x in LOSSES], "better", "ok"),
        ([float("nan"), *LOSSES[1:]], "worse", "worse"),
        (LOSSES[:2], "worse", "worse"),
    ],
)
def test_quality(loss, quality, verdict):
    """A mean final loss above the base's interval, not finite, or of other seeds fails at equal speed."""
    found = judged(1.0, loss=loss)
    assert (found.quality, found.verdict) == (quality, verdict)


def test_faster_and_worse_fails():
    """Speed does not buy quality, and the verdict says so."""
    found = judged(0.5, loss=[x + 0.02 for x in LOSSES])
    assert found.verdict == "worse"
    assert "faster and worse" in " ".join(found.notes)


def test_the_interval_of_a_loss_is_never_wider_than_half_a_percent():
    """Seeds that disagree do not open the gate."""
    assert gate.margin([0.1, 0.9]) == pytest.approx(0.0025)
    assert gate.margin([0.5]) == pytest.approx(0.0025)
    assert gate.margin([0.5, 0.5001]) < 0.0025


def test_moved_counts_are_noted():
    """Passes that differ are stated."""
    new = entry(seed=1)
    new["companions"]["passes"] = 10
    assert "passes: 10, base 9" in gate.paired("a", entry(), new).notes


def test_missing_new_and_failed_cases():
    """Each says what it is; missing and failed fail, new does not."""
    base = result(entry("kept"), entry("gone"))
    now = result(entry("kept", seed=1), entry("fresh"), entry("broken", error="it broke"))
    verdicts = {verdict.name: verdict for verdict in gate.check(base, now)}
    assert {name: v.verdict for name, v in verdicts.items()} == {
        "kept": "ok", "fresh": "new", "broken": "failed", "gone": "missing"
    }  # fmt: skip
    assert all(verdicts[name].notes for name in ("fresh", "broken", "gone"))
    for name, code in (("kept", 0), ("fresh", 0), ("broken", 1), ("gone", 1)):
        assert gate.exit_code([verdicts[name]]) == code


def test_a_case_that_the_base_cannot_run_is_new():
    """An older version without the feature is no failure of the newer one."""
    assert gate.paired("a", entry(error="no such layout"), entry()).verdict == "new"


def test_a_disturbed_case_cannot_be_told():
    """A process that was stopped from outside, on either side or of a case that is new, is no failure."""
    stopped = {**entry(error="stopped"), "disturbed": True}
    for sides in ((entry(), stopped), (stopped, entry())):
        assert gate.paired("a", *sides).verdict == "cannot tell"
    assert gate.check(result(), result(stopped))[0].verdict == "cannot tell"


def test_a_case_that_neither_version_runs_cannot_be_told():
    """A full disk is not the newer version's fault; what only the newer one cannot run is."""
    assert gate.paired("a", entry(error="no space"), entry(error="no space")).verdict == "cannot tell"
    assert gate.paired("a", entry(), entry(error="it broke")).verdict == "failed"


def test_a_redefined_case_is_not_compared():
    """A changed definition under the same name is new, with a sentence."""
    now = entry(level=0.1)
    now["case"]["lanes"] = 8
    (verdict,) = gate.check(result(entry()), result(now))
    assert (verdict.verdict, "defined otherwise" in verdict.notes[0]) == ("new", True)


def test_other_data_are_not_compared():
    """A study's loss on other rows says nothing: new, and why; a baseline from before the digest is compared."""
    base, now = entry(), entry(seed=1, loss=[x + 0.02 for x in LOSSES])
    for then, today, verdict in (("a", "b", "new"), ("a", "a", "worse"), (None, "b", "worse")):
        for side, digest in ((base, then), (now, today)):
            side.pop("data", None)
            side.update({"data": digest} if digest else {})
        (found,) = gate.check(result(base), result(now))
        assert found.verdict == verdict
        assert ("files are others" in " ".join(found.notes)) == (verdict == "new")


def test_a_field_that_cases_had_not_yet_redefines_none():
    """A baseline from before a field compares with a case that has the field's default, and with no other."""
    for peers, verdict in (({}, "ok"), ({"epochs": 10}, "new")):
        then, now = entry(), entry()
        then["case"].pop("peers", None)
        now["case"]["peers"] = peers
        assert [v.verdict for v in gate.check(result(then), result(now))] == [verdict]


def test_another_machine_is_divided_by_its_calibration_and_labelled():
    """Three times slower with three times slower kernels is no regression, and the verdict says what was done."""
    base, now = result(entry()), result(entry(level=0.03, seed=1, kernel=0.003), fingerprint="there")
    (verdict,) = gate.check(base, now)
    assert (verdict.verdict, "another machine" in verdict.notes[0]) == ("ok", True)
    assert verdict.ratio == pytest.approx(1.0, abs=0.02)
    now["machine"]["fingerprint"] = "here"
    assert gate.check(base, now)[0].verdict == "regressed"


@pytest.mark.parametrize(
    ("spread", "verdict"), [(0.0, "regressed"), (0.1, "cannot tell"), (0.2, "cannot tell")]
)
@pytest.mark.parametrize("side", ["base", "new"])
def test_an_uncertain_calibration_cannot_tell(spread, verdict, side):
    """Kernels whose times spread open the interval, and beyond the tolerance it is they that the verdict names."""
    kernels = {side: (1.0 - spread, 1.0 + spread) * 2}
    base = result(entry(kernels=kernels.get("base", (1.0,) * 4)))
    now = result(entry(level=0.0132, seed=1, kernels=kernels.get("new", (1.0,) * 4)), fingerprint="there")
    (found,) = gate.check(base, now)
    assert found.verdict == verdict
    if spread == 0.2:
        who = {"base": "the baseline", "new": "this run"}[side]
        assert found.ratio is None and f"the gather kernel of {who} is too uncertain" in found.notes[0]


def test_calibration_is_pooled_over_the_cases():
    """One case's odd kernel moves no verdict where all the others agree: the median of the whole run is taken."""
    names = [f"case-{i}" for i in range(12)]
    base = result(*(entry(name, kernel=0.004 if name == "case-3" else 0.001) for name in names))
    now = result(*(entry(name, seed=1) for name in names), fingerprint="there")
    assert {verdict.verdict for verdict in gate.check(base, now)} == {"ok"}


def test_kernels_of_another_definition_are_not_compared():
    """A baseline from before gather was changed cannot tell; its fma is the same and still tells."""
    for kernel, verdict in (("gather", "cannot tell"), ("fma", "ok")):
        base, now = result(entry()), result(entry(seed=1), fingerprint="there")
        del base["calibration"]
        for side in (base, now):
            side["cases"][0]["case"]["calibrate"] = kernel
        (found,) = gate.check(base, now)
        assert found.verdict == verdict
        assert ("an older one" in found.notes[0]) == (verdict == "cannot tell")


def test_the_shipped_baseline_tells_what_its_calibration_allows():
    """Its gather and copy kernels were read out of a shared cache: cases divided by them cannot be told elsewhere."""
    base = baseline.read(OURS / "reports" / "baseline.json")
    now = {**base, "machine": {**base["machine"], "fingerprint": "there"}}
    for verdict in gate.check(base, now):
        (kernel,) = [case["case"]["calibrate"] for case in base["cases"] if case["name"] == verdict.name]
        assert (verdict.verdict == "ok") == (kernel == "fma"), verdict


def test_only_restricts_what_may_be_missing():
    """Checking one case of a baseline does not miss the others."""
    verdicts = gate.check(result(entry("a"), entry("b")), result(entry("a", seed=1)), only=("a",))
    assert [v.name for v in verdicts] == ["a"]


def test_strict_exit_code():
    """Cannot tell is 0, 3 on demand, and a failure comes first."""
    unsure, bad = gate.Verdict("a", "cannot tell"), gate.Verdict("b", "regressed")
    assert [gate.exit_code([unsure]), gate.exit_code([unsure], strict=True)] == [0, 3]
    assert gate.exit_code([unsure, bad], strict=True) == 1


def test_least_exit_code():
    """What was neither compared nor decided is not told; fewer than asked for is 3, and a failure comes first."""
    verdicts = [gate.Verdict(word, word) for word in ("ok", "cannot tell", "new", "ok")]
    assert gate.told(verdicts) == 2
    assert [gate.exit_code(verdicts, least=least) for least in (0, 2, 3)] == [0, 0, 3]
    assert gate.exit_code([*verdicts, gate.Verdict("bad", "worse")], least=9) == 1


def test_intervals_widen_with_luck():
    """Processes with more luck of their own give a wider interval."""

    def width(luck: float) -> float:
        logs = [np.full(8, x) for x in np.random.default_rng(0).normal(0, luck, 8)]
        _, low, high = gate.interval([np.zeros(8)] * 8, logs, turns=True)
        return high - low

    assert width(0.02) > 3 * width(0.004)
