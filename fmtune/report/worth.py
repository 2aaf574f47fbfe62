"""Worth: what the winner's score is worth: as selected, corrected, under other seeds, on the sealed holdout.

``StudyResult.selection`` and ``StudyResult.confirmation`` are plain dicts from the study's storage; here they become
values that the page can rely on.  What was found for an earlier winner counts as not found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fmtune.fm.metrics import unlearned
from fmtune.report import words
from fmtune.report.summary import best, complete, sign
from fmtune.tune.drawing import LEAST
from fmtune.tune.result import StudyResult

OVER_ROWS, OVER_GROUPS = "rows", "groups of rows"
_MORE = re.compile(r"about ([\d,]{1,12}) more seed")


class Finalist(NamedTuple):
    """One configuration under more seeds, against the best of them; the best itself has no gap."""

    trial: int
    mean: float | None  # None where it diverged under some seeds
    sd: float | None
    gap: float | None
    low: float | None
    high: float | None
    verdict: str  # best, better (the best beats it), equal, undecided, diverged
    sentence: str

    @property
    def score(self) -> str:
        """The mean with its spread, or ``diverged``."""
        return "diverged" if self.mean is None or self.sd is None else words.spread(self.mean, self.sd)


class Lead(NamedTuple):
    """A trial that took the lead: its score as found, and corrected for having been picked from all until then."""

    trial: int
    naive: float
    corrected: float


class Holdout(NamedTuple):
    """The sealed channel: whose score, its spread over seeds (``sd`` None for one), how often it was opened.

    ``low`` and ``high`` are the ends of its 95 % interval over the rows, None where that is not known.
    """

    trial: int | None
    score: float
    sd: float | None
    opened: int
    low: float | None = None
    high: float | None = None
    seeds: int | None = None  # over how many it is a mean
    groups: int | None = None  # of its rows, where they were drawn together

    @property
    def over(self) -> str:
        """What its interval draws."""
        return OVER_ROWS if self.groups is None else OVER_GROUPS


class Worth(NamedTuple):
    """The winner's score in all its forms; what is not known is None or empty."""

    trial: int
    naive: float
    among: int
    corrected: float | None
    known: int  # of how many trials the correction knows the scores; 0 if not said
    low: float | None
    high: float | None
    won: float | None  # share of draws in which the winner was the best
    wins: dict[int, float]
    draws: int
    rows: int | None
    groups: int | None  # of test rows, where the split kept them together and so they are drawn
    few: bool  # so few test rows, or groups, that they say nothing of their own chance
    curve: tuple[Lead, ...]
    seeds: int
    looks: int  # how often the finalists were compared
    finalists: tuple[Finalist, ...]
    outdated: bool  # a confirmation there is, but without this winner
    sealed: Holdout | None  # the winner's model
    confirmed: Holdout | None  # the confirmation's best, over its seeds

    @property
    def over(self) -> str:
        """What its interval and its correction draw."""
        return OVER_ROWS if self.groups is None else OVER_GROUPS

    @property
    def own(self) -> Finalist | None:
        """The winner among the finalists."""
        return next((f for f in self.finalists if f.trial == self.trial), None)

    @property
    def ahead(self) -> Finalist | None:
        """The best of the finalists."""
        return next((f for f in self.finalists if f.verdict == "best"), None)

    @property
    def opened(self) -> int:
        """How often the holdout was opened."""
        return max((h.opened for h in (self.sealed, self.confirmed) if h), default=0)


def worth(result: StudyResult) -> Worth | None:
    """Return what the winner's score is worth, or None without a winner."""
    top = best(result)
    if top is None or top.value is None:
        return None
    chosen = result.selection if _whole((result.selection or {}).get("trial")) == top.number else None
    rows = _whole(_dict(chosen).get("rows")) or _whole(_dict(result.channels.get("test")).get("rows"))
    _, groups, few = tested(result)
    found = {} if few else chosen or {}
    wins = {int(k): v for k, raw in _dict(found.get("wins")).items() if str(k).isdigit() and (v := _real(raw))}
    finalists = _finalists(result.confirmation)
    current = any(f.trial == top.number for f in finalists)
    return Worth(
        top.number, top.value, len(complete(result.cells[0])), _real(found.get("corrected")),
        _whole(found.get("among")) or 0, _real(found.get("low")), _real(found.get("high")),
        wins.get(top.number, 0.0) if found else None, wins,
        _whole(found.get("draws")) or 0, rows, groups, few, _curve(found.get("curve")),
        (_whole((result.confirmation or {}).get("seeds")) or 0) if current else 0,
        _whole((result.confirmation or {}).get("looks")) or 1, finalists if current else (),
        bool(finalists) and not current, _holdout(result.holdout),
        _holdout((result.confirmation or {}).get("holdout")) if current else None,
    )  # fmt: skip


def learned_nothing(result: StudyResult) -> str | None:
    """Return a sentence where the winner is hardly better than a constant, or worse; else None."""
    top, found = best(result), result.constant or {}
    if top is None or top.value is None or found.get("trial") != top.number or found.get("value") is None:
        return None
    said = unlearned(result.objective.partition(":")[2], top.value, found["value"])
    if said is None:
        return None
    gap = sign(result) * (found["value"] - top.value)
    side = "worse" if gap < 0 else "hardly better" if gap else "no better"
    return (
        f"The winner has learnt nothing: it is {side} than predicting the train labels' mean for every row, "
        f"which scores {words.near(found['value'], top.value)}."
    )


class Tested(NamedTuple):
    """What is drawn of the test channel, in words; its groups, if it has any; whether they are too few to draw."""

    words: str
    groups: int | None
    few: bool


def tested(result: StudyResult) -> Tested:
    """Return what intervals and the corrected score draw: test rows, or groups that a split kept together."""
    known = _dict(result.channels.get("test"))
    rows, groups = _whole(known.get("rows")), _whole(known.get("groups"))
    if groups is not None:
        return Tested(f"{words.count(groups, 'group')} of test rows", groups, groups < LEAST)
    return Tested(words.count(rows or 0, "test row"), None, rows is not None and rows < LEAST)


def in_short(result: StudyResult) -> str | None:
    """Return the score in all its forms as one sentence, the best known to the least; None if only one is known."""
    found = worth(result)
    if found is None:
        return None
    parts = [f"{words.score(found.naive)} as selected"]
    if found.few:
        parts[0] += f" on {tested(result).words}, too few for an interval or a correction"
    if found.corrected is not None:
        parts.append(f"about {words.score(found.corrected)} when corrected for {picked(found)}, by draws of rows alone")
    if found.own is not None:
        parts.append(f"{found.own.score} over {words.count(found.seeds, 'seed')}" if found.own.mean is not None else
                     f"diverged under some of {words.count(found.seeds, 'other seed')}")  # fmt: skip
    held = found.confirmed or found.sealed
    if held is not None:
        known = "" if held.low is None or held.high is None else (
            f" (95 % over {held.over}: {words.score(held.low, 3)} to {words.score(held.high, 3)})"
        )  # fmt: skip
        parts.append(f"{held_score(held)}{known} on the sealed holdout{_whose(held, found)}, {opened(held.opened)}")
    return f"{'; '.join(parts)}." if len(parts) > 1 or found.few else None


def picked(found: Worth) -> str:
    """Return what the corrected score is corrected for, which is less where it does not know all trials."""
    best_of = f"having picked the best of {words.count(found.among, 'complete trial')}"
    if found.known >= found.among:
        return best_of
    known = f"the {found.known:,} whose scores are kept" if found.known else "the few whose scores were kept"
    return f"{best_of}, as far as {known} show it"


def decided(result: StudyResult) -> str | None:
    """Return what the confirmation decided between the winner and the other finalists; None without one."""
    found = worth(result)
    if found is None or found.own is None or found.ahead is None:
        return None
    if found.ahead.trial != found.trial:
        own = found.own
        how = {"better": "is better", "equal": "is practically equal", "diverged": "is ahead"}.get(
            own.verdict, "is ahead, but not decidedly"
        )
        return f"Over {found.seeds} seeds trial {found.ahead.trial} {how}: {own.sentence}."
    verdicts = "better", "equal", "undecided", "diverged"
    groups = {v: [f.trial for f in found.finalists if f.verdict == v] for v in verdicts}
    said = [
        text.format(_trials(groups[verdict]))
        for verdict, text in (
            ("better", "it beats {}"), ("equal", "it is practically equal to {}"),
            ("undecided", "it is not decided whether it beats {}"), ("diverged", "{} diverged under some of them"),
        ) if groups[verdict]
    ]  # fmt: skip
    return f"Over {found.seeds} seeds {words.listing(said)}." if said else None


def more_seeds(found: Worth) -> int | None:
    """Return how many more seeds would decide among the finalists; None if they would hardly, or nothing is open."""
    asked = [m for f in found.finalists if f.verdict == "undecided" and (m := _MORE.search(f.sentence))]
    return max((int(m[1].replace(",", "")) for m in asked), default=None)


def opened(times: int) -> str:
    """Return ``opened once``, ``opened twice``, ``opened 3 times``."""
    return {0: "not opened", 1: "opened once", 2: "opened twice"}.get(times, f"opened {times} times")


def held_score(held: Holdout) -> str:
    """Return the holdout's score, with its spread over seeds where it has one."""
    return words.score(held.score) if held.sd is None else words.spread(held.score, held.sd)


def _whose(held: Holdout, found: Worth) -> str:
    return "" if held.trial in (None, found.trial) else f" (trial {held.trial})"


def _trials(numbers: list[int]) -> str:
    return f"trial{'s' if len(numbers) > 1 else ''} {words.listing([str(n) for n in numbers])}"


def _finalists(confirmation: dict[str, Any] | None) -> tuple[Finalist, ...]:
    found = _dict(confirmation)
    pairs = {p.get("trial"): p for p in found.get("pairs") or () if isinstance(p, dict)}
    made = []
    for name, score in _dict(found.get("scores")).items():
        mean, sd = _real(_dict(score).get("mean")), _real(_dict(score).get("sd"))
        lost = _whole(_dict(score).get("diverged"))
        if not str(name).isdigit() or (not lost and (mean is None or sd is None)):
            continue
        pair = _dict(score) if lost else _dict(pairs.get(int(name)))
        verdict = "best" if int(name) == found.get("best") else "diverged" if lost else str(pair.get("verdict"))
        made.append(Finalist(
            int(name), mean, sd, _real(pair.get("difference")), _real(pair.get("low")), _real(pair.get("high")),
            verdict, str(pair.get("sentence", "")).replace("..", " to ").replace(" x ", " × "),
        ))  # fmt: skip
    return tuple(sorted(made, key=lambda f: (f.verdict != "best", f.verdict == "diverged", f.gap or 0.0, f.trial)))


def _curve(raw: Any) -> tuple[Lead, ...]:
    leads = []
    for one in raw if isinstance(raw, (list, tuple)) else ():
        trial, naive, corrected = (_dict(one).get(k) for k in ("trial", "naive", "corrected"))
        if _whole(trial) is not None and _real(naive) is not None and _real(corrected) is not None:
            leads.append(Lead(int(trial), float(naive), float(corrected)))  # type: ignore[arg-type]
    return tuple(leads)


def _holdout(raw: Any) -> Holdout | None:
    found = _dict(raw)
    score = _real(found.get("score"))
    if score is None:
        return None
    low, high = _real(found.get("low")), _real(found.get("high"))
    opened, seeds = _whole(found.get("opened")) or 0, _whole(found.get("seeds"))
    groups = _whole(found.get("groups"))
    return Holdout(_whole(found.get("trial")), score, _real(found.get("sd")), opened, low, high, seeds, groups)


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _real(value: Any) -> float | None:
    """Return a finite number, or None."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
