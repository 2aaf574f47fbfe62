"""Sections: the page from top to bottom, one function and one template of the same name each.

To add one: write a function that takes the result and returns a ``Section`` (or None when the study has nothing
for it), a template, and put the function into ``SECTIONS``.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from fmtune.report import charts, words
from fmtune.report.advice import advice, command, comparison, lead
from fmtune.report.render import render
from fmtune.report.summary import (
    best,
    close,
    in_states,
    optimism,
    paired,
    sign,
    speed,
    states,
    time_spent,
    time_to_target,
)
from fmtune.report.worth import Worth, decided, held_score, in_short, learned_nothing, opened, tested, worth
from fmtune.tune.result import CellResult, StudyResult, TrialResult

_LINEAR = ("num_factors", "optimizer", "linear_lr", "linear_wd")
_MARKS = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


class Section(NamedTuple):
    """A piece of the page: its anchor, its heading, and its HTML."""

    name: str
    title: str
    body: Markup


def verdict(result: StudyResult) -> Section:
    """Return the verdict sentence, the comparisons of cells, and the study in one line."""
    first = result.cells[0] if result.cells else None
    facts = [words.metric(result.objective) + (", higher is better" if sign(result) < 0 else ", lower is better")]
    if first and first.trials:
        facts.append(f"{first.name}: {in_states(first)}")
    facts += [f for f in (_size(result), result.data, result.sampler) if f]
    compared = [s for cell in result.cells[1:] if (s := comparison(result, cell)) is not None]
    sure = [s for s in (learned_nothing(result), in_short(result), decided(result)) if s is not None]
    body = render("verdict", lead=lead(result), sure=sure, compared=compared[:3], facts=facts)
    return Section("verdict", result.study_name or "A study without a name", body)


def next_steps(result: StudyResult) -> Section | None:
    """Return what to do next."""
    steps = advice(result)
    return Section("next_steps", "What to do next", render("next_steps", steps=steps)) if steps else None


def matrix(result: StudyResult) -> Section | None:
    """Return device x layout: score, rows/s, seconds and ratio; cells that did not run with their note."""
    if not result.cells:
        return None
    fastest = max((c.rows_per_s or 0.0 for c in result.cells), default=0.0)
    rows = [_matrix_row(result, cell, fastest) for cell in result.cells]
    searched = result.cells[0].name
    body = render("matrix", rows=rows, searched=searched, won=best(result) is not None)
    return Section("matrix", "Device and layout", body)


def winner(result: StudyResult) -> Section | None:
    """Return the winner's card: its values as YAML to paste, and the commands that give it again."""
    top = best(result)
    if top is None:
        return None
    settings = {**top.params, **{k: v for k, v in result.fixed.items() if k not in top.params}}
    yaml = "\n".join(["hyperparameters:", *(f"  {words.yaml(k)}: {words.yaml(v)}" for k, v in settings.items())])
    pairs = [part for k, v in settings.items() for part in ("-p", f"{k}={words.yaml(v)}")]
    alone = shlex.join(["fmtune", "fit", "TRAIN", "--test", "TEST", *pairs, "-o", "winner.fm"])
    body = render(
        "winner", trial=top, yaml=yaml, again=command(result, "run", "--fresh"), alone=alone,
        epochs=len(top.curve), metrics=_metrics(top.metrics),
    )  # fmt: skip
    return Section("winner", f"The winner: trial {top.number}", body)


def quality(result: StudyResult) -> Section | None:
    """Return quality against epochs."""
    return _chart("quality", charts.curves(result) if result.cells else None)


def pace(result: StudyResult) -> Section | None:
    """Return quality against time, a line for each cell."""
    return _chart("pace", charts.speed(result) if result.cells else None)


def honesty(result: StudyResult) -> Section | None:
    """Return the winner's score in all its forms, from the most optimistic to the least."""
    top, found = best(result), worth(result)
    if top is None or found is None:
        return None
    held = found.confirmed or found.sealed
    objective = result.objective.partition(":")[2] or result.objective
    others = {k: v for k, v in ((result.holdout or {}).get("metrics") or {}).items() if k != objective}
    gap = None if held is None or held.trial not in (None, found.trial) else sign(result) * (held.score - found.naive)
    body = render(
        "honesty", found=found, drawn=tested(result).words,
        rungs=_rungs(result, found), close=len(close(result, top)), gap=gap,
        apart=words.signed(abs(gap or 0.0)).lstrip("+"), errors=f"{optimism(found.among):.1f}",
        name=words.metric(result.objective), times=opened(found.opened), again=command(result, "confirm"),
        metrics=_metrics(others), won=words.share(found.won) if found.won is not None else None,
    )  # fmt: skip
    return Section("honesty", "How far to trust the score", body)


def baseline(result: StudyResult) -> Section | None:
    """Return the linear model beside the winner, and whether the factors are worth it."""
    top, found = best(result), result.baseline or {}
    if top is None or found.get("trial") != top.number or found.get("value") is None:
        return None
    name = words.metric(result.objective)
    low, high, gap, (drawn, _, are_few) = found.get("low"), found.get("high"), found["difference"], tested(result)
    if are_few:
        few = f"{drawn} {'is' if drawn.startswith('1 ') else 'are'}"
        sentence = f"Whether the linear model is worse is not decided: it is {_sided(gap)}, and {few} too few to tell."
    elif low is None or high is None:
        sentence = f"The linear model is {_sided(gap)}; no interval of that is known."
    elif low > 0 or high < 0:
        ends = _ends(*sorted((abs(low), abs(high))))
        sentence = f"The linear model is {_sided(gap)} (95 %: {ends})."
    else:
        ends = f"{_sided(low)} to {_sided(high)}"
        sentence = f"Whether the linear model is worse is not decided: it is {_sided(gap)} (95 %: {ends})."
    chosen = found.get("params") or {}
    settings = [f"{k} {words.setting(chosen[k])}" for k in _LINEAR if k in chosen]
    settings += [f"epoch {found['epoch']}"] if found.get("epoch") else []
    tried = words.count(int(found.get("tried", 1)), "setting")
    # Linear models of before they were tuned for themselves do not say how long they were trained.
    body = render(
        "baseline", sentence=sentence, name=name, top=top, ours=words.score(top.value),
        theirs=words.score(found["value"]), own="epochs" in found, sgd=result.fixed.get("solver", "sgd") == "sgd",
        what=f"best of {tried} on test: {', '.join(settings)}",
    )  # fmt: skip
    return Section("baseline", "Beside a linear model", body)


def reliability(result: StudyResult) -> Section | None:
    """Return whether the winner's probabilities are what they say."""
    return _chart("reliability", charts.reliability(result) if result.cells else None)


def explained(result: StudyResult) -> Section | None:
    """Return the winner's strongest features and pairs of features, by name."""
    top, found = best(result), result.explained or {}
    if top is None or found.get("trial") != top.number or not found.get("features"):
        return None
    binary = result.fixed.get("predictor_type") == "binary_classifier"
    features = [
        (f["name"], words.signed(f["weight"]), words.score(f["effect"], 3), f"{f['rows']:,}") for f in found["features"]
    ]
    pairs = [
        (" × ".join(words.short(str(name), 80) for name in p["names"]), words.signed(p["weight"]),
         words.score(p["effect"], 3), f"{p['rows']:,}")
        for p in found.get("pairs") or ()
    ]  # fmt: skip
    body = render("explained", features=features, pairs=pairs, binary=binary, bias=words.signed(found["bias"]),
                  model=result.model_path, centred=found.get("centred", False))  # fmt: skip
    return Section("explained", "What the winner's scores come from", body)


def confirmed(result: StudyResult) -> Section | None:
    """Return the finalists under more seeds, compared in pairs."""
    found = worth(result)
    if found is None or not found.finalists:
        return None
    rows = [
        {
            "one": f, "mean": f.score, "share": words.share(found.wins.get(f.trial, 0.0)),
            "gap": words.NONE if f.gap is None else words.signed(f.gap),
            "ends": "" if f.low is None or f.high is None else f"{words.signed(f.low)} to {words.signed(f.high)}",
        }
        for f in found.finalists
    ]  # fmt: skip
    body = render("confirmed", rows=rows, found=found, name=words.metric(result.objective))
    return Section("confirmed", f"The finalists over {words.count(found.seeds, 'seed')}", body)


def overtuning(result: StudyResult) -> Section | None:
    """Return whether the search has begun to fit the test rows."""
    return _chart("overtuning", charts.overtuning(result) if result.cells else None)


def history(result: StudyResult) -> Section | None:
    """Return the score of each trial in order."""
    return _chart("history", charts.history(result) if result.cells else None)


def importance(result: StudyResult) -> Section | None:
    """Return which parameters set the best trials apart."""
    return _chart("importance", charts.importance(result) if result.cells else None)


def slices(result: StudyResult) -> Section | None:
    """Return the score against each searched parameter."""
    return _chart("slices", charts.slices(result) if result.cells else None)


def trials(result: StudyResult) -> Section | None:
    """Return the table of all trials, one row a number, with the score in each cell."""
    ran = [c for c in result.cells if c.trials]
    if not ran:
        return None
    by_number: dict[int, dict[str, TrialResult]] = defaultdict(dict)
    for cell in ran:
        for trial in cell.trials:
            by_number[trial.number][cell.name] = trial
    names = list(dict.fromkeys([*result.search_space, *(n for c in ran for t in c.trials for n in t.params)]))
    top = best(result)
    rows = [_trial_row(by_number[n], ran, names) for n in sorted(by_number)]
    body = render("trials", rows=rows, cells=[c.name for c in ran], names=names, top=top.number if top else None)
    return Section("trials", "Every trial", body)


def failures(result: StudyResult) -> Section | None:
    """Return why trials failed, the commonest reason first."""
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for cell in result.cells:
        for trial in cell.trials:
            if trial.state == "FAIL":
                groups[trial.reason or "no reason was recorded"].append((trial.number, cell.name))
    rows = [
        (reason, ", ".join(dict.fromkeys(name for _, name in where)), sorted({number for number, _ in where}))
        for reason, where in groups.items()
    ]
    rows.sort(key=lambda row: (-len(row[2]), row[0]))
    return Section("failures", "Failed trials", render("failures", rows=rows)) if rows else None


def provenance(result: StudyResult) -> Section:
    """Return where the numbers come from: data, environment, settings and the study file's text."""
    facts = {
        "started": result.started, "finished": result.finished or "not finished", "sampler": result.sampler,
        "pruner": result.pruner, "seeds a trial": str(result.seeds), "data": result.data, "model": result.model_path,
        "study file": result.spec_path,
    }  # fmt: skip
    body = render(
        "provenance", facts={k: v for k, v in facts.items() if v}, environment=result.environment,
        channels=result.channels, fixed=result.fixed, text=result.spec_text, again=command(result, "run", "--fresh"),
    )  # fmt: skip
    return Section("provenance", "Environment and provenance", body)


SECTIONS: tuple[Callable[[StudyResult], Section | None], ...] = (
    verdict,
    next_steps,
    matrix,
    winner,
    quality,
    pace,
    baseline,
    honesty,
    reliability,
    explained,
    confirmed,
    overtuning,
    history,
    importance,
    slices,
    trials,
    failures,
    provenance,
)


def _chart(name: str, chart: charts.Chart | None) -> Section | None:
    if chart is None:
        return None
    return Section(name, chart.title, render("chart", chart=chart, drawing=Markup(chart.svg)))


def _size(result: StudyResult) -> str:
    train = result.channels.get("train", {})
    if not isinstance(train.get("rows"), int):
        return ""
    features = train.get("feature_dim")
    wide = f" × {words.count(features, 'feature')}" if isinstance(features, int) else ""
    return f"{words.count(train['rows'], 'train row')}{wide}"


def _rows_of(result: StudyResult, channel: str) -> int | None:
    rows = result.channels.get(channel, {}).get("rows")
    return rows if isinstance(rows, int) else None


def _metrics(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {words.metric(str(name)): words.score(value) for name, value in (values or {}).items()}


class _Rung(NamedTuple):
    """A form of the score: what it is, how large, its interval and what that draws, of how many rows; to be quoted?"""

    what: str
    score: str
    ends: str
    over: str
    rows: int | None
    quote: bool = False


def _rungs(result: StudyResult, found: Worth) -> list[_Rung]:
    """Return the rungs from the score as found to the holdout, of which the last is to be quoted."""
    test, sealed = found.rows or _rows_of(result, "test"), _rows_of(result, "holdout")
    tried = len(result.cells[0].trials)
    scored = f", {found.among:,} with a score" if found.among < tried else ""
    rungs = [_Rung(f"as selected on test, the best of {words.count(tried, 'trial')}{scored}", words.score(found.naive),
                   _ends(found.low, found.high), found.over, test)]  # fmt: skip
    if found.corrected is not None:
        partly = "" if found.known >= found.among else "in part "
        what = f"{partly}corrected for the picking, by draws of rows alone"
        rungs.append(_Rung(what, words.score(found.corrected), "", "", test))
    if found.own is not None:
        rungs.append(_Rung(f"on test over {words.count(found.seeds, 'new seed')}", found.own.score, "", "", test))
    for held, what in ((found.sealed, "the model itself"), (found.confirmed, f"over {_seeds(found)} new seeds")):
        if held is not None:
            whose = "" if held.trial in (None, found.trial) else f", trial {held.trial}"
            ends = _ends(held.low, held.high)
            rungs.append(_Rung(f"on the sealed holdout, {what}{whose}", held_score(held), ends, held.over, sealed))
    return [*rungs[:-1], rungs[-1]._replace(quote=True)]


def _seeds(found: Worth) -> int:
    """Return over how many seeds the confirmed trial's score on the holdout is a mean."""
    return (found.confirmed and found.confirmed.seeds) or found.seeds


def _sided(gap: float) -> str:
    """Return ``worse by 0.012`` or ``better by 0.012``: a difference by its size alone would hide which."""
    return f"{'better' if gap < 0 else 'worse'} by {words.signed(abs(gap)).lstrip('+')}" if gap else "level"


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{words.score(low, 3)} to {words.score(high, 3)}"


def _matrix_row(result: StudyResult, cell: CellResult, fastest: float) -> dict[str, Any]:
    top, first = best(result, cell), cell is result.cells[0]
    reached = time_to_target(result, cell)
    spent = f"> {words.seconds(time_spent(cell))}" if time_spent(cell) else "not reached"
    found = worth(result) if first else None
    pair = None if first else paired(result, cell)
    quality = {"equal": "equal score", "better": "better score", "worse": "worse score", "undecided": "score undecided"}
    return {
        "cell": cell, "top": top, "score": words.score(top.value, 5) if top and top.value is not None else words.NONE,
        "ends": _ends(found.low, found.high) if found else "", "quality": quality[pair.verdict] if pair else "",
        "bar": round(100 * (cell.rows_per_s or 0.0) / fastest, 1) if fastest else 0.0, "ratio": speed(result, cell),
        "reached": words.seconds(reached) if reached is not None else spent if top else words.NONE,
        "censored": top is not None and reached is None, "bytes": words.size(top.model_bytes if top else None),
        "trials": sum(states(cell).values()),
    }  # fmt: skip


def _trial_row(seen: dict[str, TrialResult], ran: list[CellResult], names: list[str]) -> dict[str, Any]:
    trial = next(iter(seen.values()))
    scores = []
    for cell in ran:
        one = seen.get(cell.name)
        known = one is not None and one.state == "COMPLETE" and one.value is not None
        scores.append(words.score(one.value, 5) if one and known else "" if one is None else _state(one))
    return {
        "number": trial.number, "state": _state(trial), "scores": scores, "epoch": trial.best_epoch or "",
        "seconds": f"{trial.seconds:.3g}" if trial.seconds is not None else "",
        "rate": f"{trial.rows_per_s / 1e3:,.0f}" if trial.rows_per_s is not None else "",
        "params": [words.setting(trial.params[n]) if n in trial.params else "" for n in names],
        "reason": words.short(trial.reason or "", 200),
    }  # fmt: skip


def _state(trial: TrialResult) -> str:
    return _MARKS.get(trial.state, trial.state.lower())
