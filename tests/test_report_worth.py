"""Worth: the winner's score in all its forms, and the words that follow from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_fixtures import confirmed, of_state, study

from fmtune.report.advice import advice, lead
from fmtune.report.markdown import comparison_markdown, markdown
from fmtune.report.page import build
from fmtune.report.sections import confirmed as confirmed_section
from fmtune.report.sections import honesty
from fmtune.report.worth import decided, in_short, learned_nothing, more_seeds, opened, worth
from fmtune.tune.result import CellResult, StudyResult, TrialResult


def test_the_short_sentence_goes_from_the_best_looking_to_the_least() -> None:
    """As selected, corrected, over seeds, on the holdout: in this order, with their spreads and the openings."""
    said = in_short(confirmed(study(64), "undecided", "undecided"))
    assert said is not None and said.startswith("0.05770 as selected; about 0.0")
    order = [
        "as selected",
        "corrected for having picked the best of 59 complete trials, by draws of rows alone; ",
        "over 10 seeds",
        "on the sealed holdout, opened twice.",
    ]
    assert sorted(order, key=said.index) == order and "±" in said


@pytest.mark.parametrize(("known", "said"), [(20, "the 20 whose scores are kept"), (None, "the few whose scores were")])
def test_a_correction_that_knows_few_trials_claims_less(known: int | None, said: str) -> None:
    """Where the scores of some trials are not kept, sentence, table, text and chart say so."""
    result = study(64)
    result = replace(result, selection={**(result.selection or {}), "among": known})
    assert f"the best of 59 complete trials, as far as {said}" in (in_short(result) or "")
    html, whole = build(result), build(study(64))
    for words in ("in part corrected", "still a little too good", "those with kept scores"):
        assert words in html and words not in whole


@pytest.mark.parametrize(("channel", "said"), [
    ({"rows": 1}, "1 test row, too few"), ({"rows": 29}, "29 test rows, too few"), ({"rows": 30}, ""),
    ({"rows": 900, "groups": 29}, "29 groups of test rows, too few"), ({"rows": 900, "groups": 30}, ""),
])  # fmt: skip
def test_a_handful_of_rows_has_no_interval(channel: dict[str, int], said: str) -> None:
    """Nor a corrected score, nor shares of draws; the sentence and the page say why, and count groups if any."""
    result = study(64)
    held = {**(result.holdout or {}), "groups": channel.get("groups")}
    result = replace(result, channels={**result.channels, "test": {**result.channels["test"], **channel}}, holdout=held)
    found, short, page = worth(result), in_short(result) or "", build(result)
    assert found is not None and found.few is bool(said) and said in short
    assert (found.low is None) is (found.corrected is None) is (found.won is None) is bool(said)
    assert ("when corrected" in short) is ("of these draws" in page) is not bool(said)
    assert ("too few to draw from" in page) is bool(said)
    assert ("groups of rows" in page) is ("groups" in channel)


def test_a_winner_that_learned_nothing_is_said_to() -> None:
    """Worse than a constant, no better, hardly better: on the page, first; nothing where it is better."""
    result = study(20)
    assert result.best is not None and result.best.value is not None and learned_nothing(result) is None
    number, value = result.best.number, result.best.value
    for factor, side in ((0.5, "worse"), (1.0, "no better"), (1.001, "hardly better")):
        plain = replace(result, constant={"trial": number, "value": factor * value})
        said = learned_nothing(plain)
        assert said is not None and f"it is {side} than predicting the train labels' mean" in said
        assert "learnt nothing" in build(plain) and "learnt nothing" in markdown(plain)
    for other in ({"trial": number, "value": 2 * value}, {"trial": -1, "value": 0.5 * value}):
        assert learned_nothing(replace(result, constant=other)) is None


def test_one_form_alone_needs_no_sentence() -> None:
    """Without correction, confirmation and holdout the lead has said it all."""
    assert in_short(study(64, selection=None, holdout=None)) is None
    assert in_short(of_state("FAIL")) is None


@pytest.mark.parametrize(
    ("verdicts", "first", "said"),
    [
        (("better", "better"), "Trial 33 wins: ", "it beats trials"),
        (("equal", "better"), "Trial 33 leads: ", "it beats trial"),
        (("undecided", "undecided"), "Trial 33 leads: ", "it is not decided whether it beats trials"),
    ],
)
def test_the_verdict_is_as_sure_as_the_confirmation(verdicts: tuple[str, ...], first: str, said: str) -> None:
    """A winner wins when it beat all finalists, and leads where one is level or not decided."""
    result = confirmed(study(64), *verdicts)
    assert lead(result).startswith(first)
    found = decided(result)
    assert found is not None and found.startswith("Over 10 seeds ") and said in found


def test_another_trial_may_be_ahead_over_seeds() -> None:
    """The selected trial is then called selected, and the sentence names the one that is ahead."""
    result = confirmed(study(64), "undecided", "undecided", ahead=1)
    found = worth(result)
    assert found is not None and found.ahead is not None and found.ahead.trial != found.trial
    assert lead(result).startswith("Trial 33 was selected: ")
    assert f"trial {found.ahead.trial} is ahead, but not decidedly" in (decided(result) or "")
    assert f"(trial {found.ahead.trial})" in (in_short(result) or "")


def test_finalists_that_diverged_come_last() -> None:
    """They have no score over seeds; a winner that did is no longer one."""
    result = confirmed(study(64), "diverged", "better")
    found, table = worth(result), confirmed_section(result)
    assert found is not None and [f.verdict for f in found.finalists] == ["best", "better", "diverged"]
    assert lead(result).startswith("Trial 33 wins: ") and "diverged under some of them." in (decided(result) or "")
    assert table is not None and "diverged under 2 of 10 seeds" in table.body and "None" not in table.body
    assert "| diverged | – | diverged |" in markdown(result)
    ahead = confirmed(study(64), "undecided", ahead=1)
    lost = {"mean": None, "sd": None, "diverged": 2, "sentence": "trial 33 diverged under 2 of 10 seeds"}
    old = ahead.confirmation or {}
    result = replace(ahead, confirmation={**old, "scores": {**old["scores"], "33": lost}, "pairs": []})
    assert lead(result).startswith("Trial 33 was selected: ")
    assert (decided(result) or "").endswith("is ahead: trial 33 diverged under 2 of 10 seeds.")
    assert "; diverged under some of 10 other seeds; " in (in_short(result) or "") and "diverged" in build(result)


def test_what_was_found_for_an_earlier_winner_does_not_count() -> None:
    """A study that went on and has a new winner is neither corrected nor confirmed; it is told to confirm again."""
    old = confirmed(study(64), "better")
    trials = tuple(replace(t, value=0.01) if t.number == 40 else t for t in old.cells[0].trials)
    trials = tuple(replace(t, state="COMPLETE") if t.number == 40 else t for t in trials)
    result = replace(old, cells=(replace(old.cells[0], trials=trials), old.cells[1]))
    found = worth(result)
    assert found is not None and found.trial == 40 and found.outdated
    assert found.corrected is None and found.finalists == () and confirmed_section(result) is None
    assert any("has changed since" in step.text for step in advice(result))


def test_advice_asks_for_a_confirmation_and_then_for_what_it_lacked() -> None:
    """Not yet confirmed: confirm. Not decided: so many seeds more. Decided: neither."""
    commands = {step.command for step in advice(study(64))}
    assert "fmtune confirm studies/digits.yaml" in commands
    open_ = confirmed(study(64), "undecided", "better")
    assert any(step.command == "fmtune confirm studies/digits.yaml --seeds 24" for step in advice(open_))
    assert not any("confirm" in (step.command or "") for step in advice(confirmed(study(64), "better", "equal")))


def test_later_looks_are_counted_and_not_asked_for() -> None:
    """The section says which look it was, and no advice asks for one more."""
    first = confirmed(study(64), "undecided")
    later = replace(first, confirmation={**(first.confirmation or {}), "looks": 2})
    pairs = [{**p, "sentence": "not decided; this was look 2"} for p in (first.confirmation or {})["pairs"]]
    later = replace(later, confirmation={**(later.confirmation or {}), "pairs": pairs})
    bodies = [section.body for r in (first, later) if (section := confirmed_section(r)) is not None]
    assert "for one look." in bodies[0] and "for one look: this was look 2." in bodies[1]
    assert any("which their intervals do not allow for" in step.text for step in advice(first))
    assert any("would find a difference where there is none" in step.text for step in advice(later))
    assert not any("confirm" in (step.command or "") for step in advice(later))


def test_the_holdout_s_score_has_its_interval() -> None:
    """In the sentence, in the section and in a comparison's row; a study of before it was kept has none."""
    result = study(64)
    bare = replace(result, holdout={k: v for k, v in (result.holdout or {}).items() if k not in ("low", "high")})
    assert "0.06462 (95 % over rows: 0.0519 to 0.0808) on the sealed holdout" in (in_short(result) or "")
    assert "0.06462 on the sealed holdout" in (in_short(bare) or "")
    bodies = [section.body for r in (result, bare) if (section := honesty(r)) is not None]
    assert [body.count("95 % over rows") for body in bodies] == [2, 1]
    assert "95 %: 0.0519 to 0.0808, trial 33, opened once" in comparison_markdown([result, bare])


def test_more_seeds_that_would_hardly_decide_are_not_asked_for() -> None:
    """When rows are what lacks, the advice says so and gives no command."""
    result = confirmed(study(64), "undecided")
    pairs = [{**p, "sentence": "more seeds would hardly decide it"} for p in (result.confirmation or {})["pairs"]]
    result = replace(result, confirmation={**(result.confirmation or {}), "pairs": pairs})
    found = worth(result)
    assert found is not None and more_seeds(found) is None
    assert any("more seeds would hardly tell them apart" in step.text for step in advice(result))


def test_the_section_has_every_rung_and_the_finalists() -> None:
    """Interval, share of draws, holdout with its openings, and a row for each finalist."""
    result = confirmed(study(64), "undecided", "better")
    body = honesty(result)
    assert body is not None
    for words in ("as selected on test", "corrected for the picking, by draws of rows alone", "over 10 new seeds",
                  "the model itself", "95 % over rows", "of these draws of rows", "under other seeds another may be.",
                  "opened twice"):  # fmt: skip
        assert words in body.body
    table = confirmed_section(result)
    assert table is not None and table.body.count("<tr>") == 4 and "about 14 more seeds would decide" in table.body
    assert ": -0.0010 to 0.0050; about 14" in table.body


@pytest.mark.parametrize(
    "junk", [{}, {"trial": 33}, {"trial": 33, "wins": 3, "curve": "x", "low": "NaN", "corrected": True}]
)
def test_incomplete_findings_make_a_page_all_the_same(junk: dict[str, object]) -> None:
    """What another version stored, or what is not finite, is left out."""
    html = build(
        study(64, selection=junk, confirmation={**junk, "scores": {"33": {"mean": "NaN"}, "x": 1}, "pairs": [1]})
    )
    assert "Trial 33 wins" in html and "None" not in html.partition("fmtune-data")[0]


@pytest.mark.parametrize(
    ("times", "words"), [(0, "not opened"), (1, "opened once"), (2, "opened twice"), (5, "opened 5 times")]
)
def test_openings_are_counted_in_words(times: int, words: str) -> None:
    """Once, twice, so many times."""
    assert opened(times) == words


def of_leads(*corrected: float, direction: str = "minimize") -> StudyResult:
    """Return a study of 40 trials that were led by trials 0, 20 and 38, with these corrected scores."""
    up = -1.0 if direction == "minimize" else 1.0
    found = [0.5 + up * n / 10 for n in range(3)]
    trials = tuple(
        TrialResult(n, "COMPLETE", {}, 0.5 if n not in (20, 38) else found[(20, 38).index(n) + 1]) for n in range(40)
    )
    curve = [{"trial": n, "naive": v, "corrected": c} for n, v, c in zip((0, 20, 38), found, corrected, strict=True)]
    picked = {"trial": 38, "naive": found[-1], "curve": curve}
    return study(40, cells=(CellResult("cpu", "sparse", trials),), direction=direction, selection=picked)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (of_leads(0.5, 0.4, 0.4), False),  # a late winner that other rows would not have picked
        (of_leads(0.5, 0.4, 0.41), False),
        (of_leads(0.5, 0.4, 0.38), True),
        (replace(of_leads(0.5, 0.4, 0.38), n_trials=9), True),
        (of_leads(0.5, 0.6, 0.62, direction="maximize"), True),
        (of_leads(0.5, 0.6, 0.58, direction="maximize"), False),
        (replace(of_leads(0.5, 0.4, 0.38), selection=None), False),
        (confirmed(of_leads(0.5, 0.4, 0.38), "better"), True),
        (confirmed(of_leads(0.5, 0.4, 0.38), "equal"), False),
    ],
)  # fmt: skip
def test_more_trials_are_advised_while_the_corrected_score_improves(result: StudyResult, said: bool) -> None:
    """That the winner came late is no reason by itself, and none after a confirmation that found others equal."""
    texts = [step.text for step in advice(result)]
    wanted = "Raise n_trials above 40: the last quarter of the trials still improved the corrected score by 0.020."
    assert (wanted in texts) == said and any("Raise n_trials" in text for text in texts) == said
