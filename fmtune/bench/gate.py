"""Gate: slower, no slower, or cannot tell; and never faster at the price of worse.

Speed is judged by the log ratio of CPU seconds, new over base, with an interval by bootstrap over rounds (fresh
processes) and samples within them.  Changes up to the tolerance are nobody's business::

    regressed     the interval lies above the tolerance
    ok            it lies below
    cannot tell   it holds the tolerance: sample on within the budget, then say so

Quality is judged by the final losses under fixed seeds: equal to the last bit, or their mean inside the base's
interval; above it the case is ``worse``, whatever its speed.  The base's interval is that of a mean over seeds
(Student's t, 95 %), and never wider than half a percent of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fmtune.bench import calibration
from fmtune.bench.case import Case

# What a change of speed may be before it counts: in one interleaved run, in a run against stored samples of the
# same machine, and against those of another one.
TOLERANCES = {"paired": 0.02, "stored": 0.10, "elsewhere": 0.25}
CONFIDENCE = 0.98
DRAWS = 2000
WIDEST = 0.005
DIGITS = 1e-9

FAILS = ("regressed", "worse", "failed", "missing")
STRICT_EXIT = 3

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one case.

    Attributes
    ----------
    name : str
        The case.
    verdict : str
        ok, regressed, worse, cannot tell, failed, missing or new.
    ratio, low, high : float or None
        Time of the new version over the base's: estimate and interval.
    quality : str
        equal, within, better, worse, or none where the case states no loss.
    notes : tuple of str
        Sentences for whoever reads it.
    """

    name: str
    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    quality: str = "none"
    notes: tuple[str, ...] = field(default=())

    def plain(self) -> dict[str, Any]:
        """Return plain values for a result file."""
        return {**asdict(self), "notes": list(self.notes)}


def paired(
    name: str, base: Mapping[str, Any], new: Mapping[str, Any], *, tolerance: float = TOLERANCES["paired"]
) -> Verdict:
    """Judge a case whose two sides took turns: each holds ``samples``, ``companions``, ``error`` and ``disturbed``."""
    if (known := _unmeasured(name, base, new)) is not None:
        return known
    logs = interval(log_seconds(base["samples"]), log_seconds(new["samples"]), turns=True)
    return _judged(name, logs, tolerance, base, new)


def stored(
    name: str, base: Mapping[str, Any], new: Mapping[str, Any], *, tolerance: float | None = None,
    results: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> Verdict:  # fmt: skip
    """Judge a case against samples of another day.

    ``results``: of another machine; the two whole results, base and new.  Both times are divided by a kernel's over the
    whole of their own result.
    """
    if (known := _unmeasured(name, base, new)) is not None:
        return known
    if _definition(base) != _definition(new):
        note = "the case is defined otherwise than in the baseline: not compared; accept a new baseline"
        return Verdict(name, "new", notes=(note,))
    if base.get("data") != new.get("data") and "data" in base:
        note = "the study's files are others than in the baseline: not compared; accept a new baseline"
        return Verdict(name, "new", notes=(note,))
    limit = TOLERANCES["elsewhere" if results else "stored"] if tolerance is None else tolerance
    logs = interval(log_seconds(base["samples"]), log_seconds(new["samples"]), turns=False)
    notes: tuple[str, ...] = ()
    if results is not None:
        logs, notes = _divided(logs, *results, new["case"]["calibrate"], limit)
    return _judged(name, logs, limit, base, new, notes)


def _divided(
    logs: tuple[float, float, float], base: Mapping[str, Any], new: Mapping[str, Any], kernel: str, tolerance: float
) -> tuple[tuple[float, float, float], tuple[str, ...]]:
    """Return a log ratio over that of a kernel, and what was done; NaN where the kernel cannot be trusted."""
    elsewhere = "another machine than the baseline's"
    if why := calibration.doubt(base, new, kernel, tolerance):
        return (math.nan, math.nan, math.nan), (f"{elsewhere}, and {why}",)
    then, now = calibration.pool(base, kernel), calibration.pool(new, kernel)
    assert then is not None and now is not None
    shift = math.log(now.seconds / then.seconds)
    # A kernel's median may be off by as much as its times are apart.
    room = math.hypot(math.log1p(then.spread), math.log1p(now.spread)) / 2
    note = f"{elsewhere}: divided by the {kernel} kernel of each; here {now}, there {then}"
    return (logs[0] - shift, logs[1] - shift - room, logs[2] - shift + room), (note,)


def check(
    base: Mapping[str, Any], new: Mapping[str, Any], *, tolerance: float | None = None, only: Sequence[str] = ()
) -> list[Verdict]:
    """Judge a result against a stored one, case by case; ``only`` restricts it to these names.

    A case that only the baseline has is ``missing``, one that only the new result has is ``new``.
    """
    results = (base, new) if base["machine"]["fingerprint"] != new["machine"]["fingerprint"] else None
    before = {case["name"]: case for case in base["cases"] if not only or case["name"] in only}
    after = {case["name"]: case for case in new["cases"]}
    verdicts = []
    for name, case in after.items():
        if name not in before:
            fresh = Verdict(name, "new", notes=("not in the baseline",))
            verdicts.append(_unmeasured(name, {"error": None}, case) or fresh)
        else:
            verdicts.append(stored(name, before[name], case, tolerance=tolerance, results=results))
    gone = "in the baseline, but not in this run: accept a new baseline if it was taken out on purpose"
    return verdicts + [Verdict(name, "missing", notes=(gone,)) for name in before if name not in after]


def told(verdicts: Sequence[Verdict]) -> int:
    """Return how many cases were compared and decided: neither ``cannot tell`` nor ``new``."""
    return sum(verdict.verdict not in ("cannot tell", "new") for verdict in verdicts)


def exit_code(verdicts: Sequence[Verdict], *, strict: bool = False, least: int = 0) -> int:
    """Return 1 if any case fails, 3 if ``strict`` and any cannot be told or fewer than ``least`` were, else 0."""
    if any(verdict.verdict in FAILS for verdict in verdicts):
        return 1
    unsure = strict and any(verdict.verdict == "cannot tell" for verdict in verdicts)
    return STRICT_EXIT if unsure or told(verdicts) < least else 0


def log_seconds(samples: Sequence[Mapping[str, Any]]) -> list[Float64]:
    """Return the logs of CPU seconds, one array a round."""
    rounds = sorted({sample["round"] for sample in samples})
    return [np.log([max(s["cpu"], 1e-9) for s in samples if s["round"] == r]) for r in rounds]


def interval(
    base: Sequence[Float64], new: Sequence[Float64], *, turns: bool, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Return the log ratio of two versions' seconds, new over base, and its interval.

    Parameters
    ----------
    base, new
        Log seconds, one array a round.
    turns
        Whether rounds of the same number took turns; then rounds are drawn together.
    confidence
        Of the interval.

    Returns
    -------
    estimate, lower and upper end; the ends are NaN with fewer than two rounds.

    Notes
    -----
    A neighbour can only make a sample slower, so a round's level is the mean of its fastest quarter.  Processes have
    luck of their own, now and then a good deal of it, so rounds are joined by a trimmed mean.  The bootstrap draws
    rounds and samples within them; over R rounds it shows (R - 1) / R of the variance, and is widened accordingly.
    """
    rng = np.random.default_rng(0)
    (mine, my_draws), (other, other_draws) = _levels(new, rng), _levels(base, rng)
    if turns:
        centre, draws = _joined(mine - other, my_draws - other_draws, rng)
    else:
        (high, highs), (low, lows) = _joined(mine, my_draws, rng), _joined(other, other_draws, rng)
        centre, draws = high - low, highs - lows
    tail = (1 - confidence) / 2
    least, most = np.quantile(draws, [tail, 1 - tail])
    return centre, float(least), float(most)


def _levels(rounds: Sequence[Float64], rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Return each round's level, float64 (rounds,), and levels of samples drawn anew, float64 (draws, rounds)."""
    drawn = [one[rng.integers(0, len(one), (DRAWS, len(one)))] for one in rounds]
    return np.array([_level(one) for one in rounds]), np.stack([_level(one) for one in drawn], axis=1)


def _level(logs: Float64) -> Any:
    """Return the mean of the fastest quarter along the last axis."""
    quarter = max(1, logs.shape[-1] // 4)
    return np.partition(logs, quarter - 1, axis=-1)[..., :quarter].mean(axis=-1)


def _joined(levels: Float64, drawn: Float64, rng: np.random.Generator) -> tuple[float, Float64]:
    rounds = len(levels)
    if rounds < 2:
        return float(levels.mean()), np.full(DRAWS, np.nan)
    pick = rng.integers(0, rounds, (DRAWS, rounds))
    draws = stats.trim_mean(np.take_along_axis(drawn, pick, axis=1), 0.25, axis=1)
    centre = float(stats.trim_mean(levels, 0.25))
    return centre, centre + (draws - draws.mean()) * math.sqrt(rounds / (rounds - 1))


def quality(base: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return equal, within, better, worse or none, and a sentence when it is not equal."""
    before, after = base.get("loss"), new.get("loss")
    if not before or not after:
        same = base.get("curve") == new.get("curve")
        return ("none", None) if same else ("worse", "the result differs from the base's")
    if before == after and base.get("curve") == new.get("curve"):
        return "equal", None
    if len(before) != len(after) or not np.isfinite(after).all():
        return "worse", "the final loss is not finite, or was stated under other seeds"
    old, now, half = float(np.mean(before)), float(np.mean(after)), margin(before)
    words = f"mean final loss {now:.6g}, base {old:.6g} +- {half:.2g}"
    if now > old + half:
        return "worse", words
    return ("better" if now < old - half else "within"), words


def margin(losses: Sequence[float]) -> float:
    """Return the half width of the interval of a mean loss: Student's t over seeds, at most ``WIDEST`` of it."""
    widest = WIDEST * abs(float(np.mean(losses)))
    if len(losses) < 2:
        return widest
    half = float(stats.t.ppf(0.975, len(losses) - 1) * np.std(losses, ddof=1) / math.sqrt(len(losses)))
    return max(min(half, widest), DIGITS * abs(float(np.mean(losses))))


def _judged(
    name: str, logs: tuple[float, float, float], tolerance: float, base: Mapping[str, Any], new: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> Verdict:  # fmt: skip
    _, low, high = logs
    limit = math.log1p(tolerance)
    speed = "regressed" if low > limit else "ok" if high < limit else "cannot tell"
    found, words = quality(base["companions"], new["companions"])
    notes = (*notes, *([words] if words else []), *_counts(base["companions"], new["companions"]))
    verdict = "worse" if found == "worse" else speed
    if found == "worse" and high < 0:
        notes = (*notes, "faster and worse is no improvement")
    ratio, least, most = (math.exp(x) if math.isfinite(x) else None for x in logs)
    return Verdict(name, verdict, ratio, least, most, found, notes)


def _counts(base: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return sentences about counts that should not have moved: passes, rows, bytes."""
    names = ("passes", "rows", "bytes", "trials", "model_bytes")
    return [f"{name}: {new[name]}, base {base[name]}" for name in names
            if name in base and name in new and base[name] != new[name]]  # fmt: skip


def _unmeasured(name: str, base: Mapping[str, Any], new: Mapping[str, Any]) -> Verdict | None:
    for side, who in ((new, ""), (base, "base: ")):
        if side.get("disturbed"):
            return Verdict(name, "cannot tell", notes=(f"{who}{side['error']}",))
    if new["error"] and base["error"]:
        return Verdict(name, "cannot tell", notes=(f"neither version runs it: {new['error']}",))
    if new["error"]:
        return Verdict(name, "failed", notes=(str(new["error"]),))
    if base["error"]:
        return Verdict(name, "new", notes=(f"the base cannot run it: {base['error']}",))
    return None


def _definition(entry: Mapping[str, Any]) -> dict[str, Any]:
    # A field that there was not yet had its default.
    return {**Case("", "").plain(), **entry["case"]}
