"""Markdown: the verdict, the matrix and the winner in one screen, for a pull request or a step summary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fmtune.report import compare, words
from fmtune.report.advice import advice, command, comparison, lead
from fmtune.report.record import masked
from fmtune.report.summary import best, in_states, ranked, speed, time_spent, time_to_target
from fmtune.report.worth import Worth, decided, in_short, learned_nothing, worth
from fmtune.tune.result import CellResult, StudyResult

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|<>~@&$]|^[-+=])")


def markdown(result: StudyResult) -> str:
    """Return a study's result as GitHub-flavoured Markdown; all free text is escaped.

    Parameters
    ----------
    result : StudyResult

    Returns
    -------
    str
        A heading, the verdict, next steps, the matrix, the winner's values, the ten best trials, and the winner's
        strongest features and pairs.
    """
    shown = masked(result)
    parts = [f"## {text(words.short(shown.study_name or 'A study without a name'))}", f"**{text(lead(shown))}**"]
    parts += [text(s) for s in (learned_nothing(shown), in_short(shown), decided(shown)) if s is not None]
    parts += [text(s) for cell in shown.cells[1:] if (s := comparison(shown, cell))]
    parts += [_steps(shown), _matrix(shown), _winner(shown), _finalists(worth(shown)), _leaders(shown)]
    parts += [_explained(shown)]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_markdown(results: Sequence[StudyResult], gaps: compare.Gaps | None = None) -> str:
    """Return several studies side by side as GitHub-flavoured Markdown; all free text is escaped.

    ``gaps`` are as in ``compare.build_comparison``.

    Raises
    ------
    UsageError
        There is only one study, or none.
    """
    compare.several(results)
    shown = [masked(result) for result in results]
    head = f"| study | cell | score | 95 % | corrected | holdout | rows/s | to target | model |\n|:--|:--|{'--:|' * 7}"
    parts = ["## Comparison of studies", f"**{text(compare.verdict(shown, gaps))}**",
             *map(text, compare.caveats(shown, gaps))]  # fmt: skip
    return "\n\n".join([*parts, "\n".join([head, *map(_line, compare.lines(shown, gaps))])]) + "\n"


def _line(row: dict[str, Any]) -> str:
    cell = row["cell"]
    study = text(words.short(row["study"], 60) + (f" ({row['part']})" if row["part"] else ""))
    if cell.note and not row["ran"]:
        return f"| {study} | {text(cell.name)} | {text(cell.note)} |{' |' * 6}"
    own = f"({row['trial']})" if row["trial"] else ""
    facts = row["held_ends"] and f"95 %: {row['held_ends']}", row["held"], row["opened"]
    held = f"({', '.join(filter(None, facts))})" if row["opened"] else ""
    cells = [
        study, text(cell.name), " ".join(filter(None, (f"**{row['score']}**" if row["top"] else row["score"], own))),
        row["ends"] or words.NONE, row["corrected"], " ".join(filter(None, (row["holdout"], held))),
        words.rate(cell.rows_per_s), row["reached"], row["bytes"],
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def text(value: object) -> str:
    """Return free text on one line with every character escaped that Markdown or HTML could act on."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in str(value)).split())
    return _SPECIAL.sub(r"\\\1", line).replace("://", ":\u2060//").replace("www.", "www\u2060.")


def _code(value: str) -> str:
    """Return a code span; its fence is longer than any run of back quotes inside."""
    line = " ".join(value.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _steps(result: StudyResult) -> str:
    return "\n".join(f"- {text(s.text)}" + (f" {_code(s.command)}" if s.command else "") for s in advice(result))


def _matrix(result: StudyResult) -> str:
    if not result.cells:
        return ""
    name = text(words.metric(result.objective))
    head = f"| cell | {name} | rows/s | ratio | seconds | to target | model | trials |\n|:--|{'--:|' * 6}:--|"
    return "\n".join([head, *(_matrix_row(result, cell) for cell in result.cells)])


def _matrix_row(result: StudyResult, cell: CellResult) -> str:
    if cell.note and not cell.trials:
        return f"| {text(cell.name)} | – | – | – | – | – | – | {text(cell.note)} |"
    top, reached = best(result, cell), time_to_target(result, cell)
    late = f"> {words.seconds(time_spent(cell))}" if top and time_spent(cell) else words.NONE
    cells = [
        text(cell.name), words.score(top.value, 5) if top else words.NONE, words.rate(cell.rows_per_s),
        words.times(speed(result, cell)), words.seconds(cell.seconds),
        late if reached is None else words.seconds(reached), words.size(top.model_bytes if top else None),
        text(in_states(cell)),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _winner(result: StudyResult) -> str:
    top = best(result)
    if top is None:
        return ""
    values = "\n".join(f"| {text(k)} | {text(words.setting(v))} |" for k, v in top.params.items())
    table = f"| hyperparameter | value |\n|:--|--:|\n{values}"
    return f"### Winner: trial {top.number}\n\n{table}\n\nAgain: {_code(command(result, 'run', '--fresh'))}"


def _finalists(found: Worth | None) -> str:
    if found is None or not found.finalists:
        return ""
    rows = [
        f"| {f.trial} | {f.score} | {words.NONE if f.gap is None else words.signed(f.gap)} "
        f"| {text(f.verdict)} |"
        for f in found.finalists
    ]
    head = f"| trial | over {found.seeds} seeds | behind the best | verdict |\n|--:|--:|--:|:--|"
    return "\n".join([head, *rows])


def _leaders(result: StudyResult) -> str:
    if best(result) is None:
        return ""
    rows = [
        f"| {t.number} | {words.score(t.value, 5)} | {t.best_epoch or words.NONE} | {words.seconds(t.seconds)} |"
        for t in ranked(result, result.cells[0])[:10]
    ]
    table = "\n".join(["| trial | score | best epoch | time |", "|--:|--:|--:|--:|", *rows])
    return f"<details><summary>The best trials</summary>\n\n{table}\n\n</details>"


def _explained(result: StudyResult) -> str:
    top, found = best(result), result.explained or {}
    if top is None or found.get("trial") != top.number or not found.get("features"):
        return ""
    named = [([f["name"]], f) for f in found["features"]] + [(p["names"], p) for p in found.get("pairs") or ()]
    rows = [
        f"| {text(' × '.join(words.short(str(name), 80) for name in names))} | {words.signed(one['weight'])} "
        f"| {words.score(one['effect'], 3)} | {one['rows']:,} |"
        for names, one in sorted(named, key=lambda row: -row[1]["effect"])
    ]
    table = "\n".join(["| feature or pair | weight | effect | train rows |", "|:--|--:|--:|--:|", *rows])
    return f"<details><summary>What the winner's scores come from</summary>\n\n{table}\n\n</details>"
