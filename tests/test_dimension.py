"""fmtune.tune.dimension: shorthand and long form are one thing."""

from pathlib import Path
from typing import Any

import pytest

from fmtune.tune.dimension import Dimension, parse

GOOD: list[tuple[str, Any, Dimension]] = [
    ("linear_lr", "1e-4..1 log", Dimension("float", 1e-4, 1.0, log=True)),
    ("linear_lr", " 0.1 .. 0.5 ", Dimension("float", 0.1, 0.5)),
    ("linear_lr", ".1...5 step 0.1", Dimension("float", 0.1, 0.5, 0.1)),
    ("bias_init_value", "-1..1", Dimension("float", -1.0, 1.0)),
    ("num_factors", "2..32", Dimension("int", 2, 32)),
    ("num_factors", "2..64 step 2", Dimension("int", 2, 64, 2)),
    ("num_factors", "8..64 log", Dimension("int", 8, 64, log=True)),
    ("num_factors", [4, 8], Dimension("categorical", choices=(4, 8))),
    ("optimizer", ["adam", "adagrad"], Dimension("categorical", choices=("adam", "adagrad"))),
    ("use_bias", [True, False], Dimension("categorical", choices=(True, False))),
    ("clip_gradient", [None, 1], Dimension("categorical", choices=(None, 1.0))),
    ("num_factors", {"low": 2, "high": 32, "log": True}, Dimension("int", 2, 32, log=True)),
    ("num_factors", {"type": "int", "low": 2, "high": 32.0}, Dimension("int", 2, 32)),
    ("linear_lr", {"type": "float", "low": 0, "high": 1, "step": 0.25}, Dimension("float", 0.0, 1.0, 0.25)),
    ("optimizer", {"type": "categorical", "choices": ["adam", "adagrad"]},
     Dimension("categorical", choices=("adam", "adagrad"))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "dimension"), GOOD, ids=lambda value: str(value)[:30])
def test_all_forms_become_one_dimension(name: str, raw: Any, dimension: Dimension) -> None:
    """The type follows from the parameter; the shorthand that it prints reads as itself."""
    assert parse(name, raw) == (dimension, [])
    if dimension.choices is None:
        assert parse(name, str(dimension)) == (dimension, [])


BAD: list[tuple[str, Any, list[str]]] = [
    ("num_factors", "32..2", ["low 32 of num_factors is not below high 2"]),
    ("num_factors", "4..4", ["low 4 of num_factors is not below high 4"]),
    ("linear_lr", "0..1 log", ["a log range starts above 0; low of linear_lr is 0"]),
    ("bias_init_value", "-1..1 log", ["a log range starts above 0; low of bias_init_value is -1"]),
    ("num_factors", "2..32 step 2 log", ["step and log exclude each other"]),
    ("num_factors", "2..33 step 2", ["steps of 2 from 2 do not reach 33"]),
    ("num_factors", "0.5..2", ["low of num_factors must be a whole number, not 0.5"]),
    ("num_factors", "-4..4", ["num_factors must be at least 0, not -4"]),
    ("num_factors", "2..100000", ["num_factors must be at most 65536, not 100000"]),
    ("clip_gradient", "0..1", ["clip_gradient must be above 0, not 0"]),
    ("num_factors", "2-32", ["num_factors must be a range or a list of choices, not '2-32'"]),
    ("num_factors", "2..32 logg", ["num_factors must be a range or a list of choices, not '2..32 logg'"]),
    ("num_factors", 16, ["num_factors must be a range or a list of choices, not 16"]),
    ("num_factors", None, ["num_factors must be a range or a list of choices, not nothing"]),
    ("optimizer", "adam", ["optimizer must be a range or a list of choices, not 'adam'"]),
    ("optimizer", "1..2", ["optimizer takes choices, not a range"]),
    ("optimizer", ["adam", "adagrd"],
     ["optimizer must be one of adam, adagrad, sgd, ftrl, rowwise_adagrad, not 'adagrd' (did you mean 'adagrad'?)"]),
    ("num_factors", ["4", 8], ["num_factors must be a whole number, not '4'"]),
    ("num_factors", [4], ["num_factors needs two choices or more"]),
    ("num_factors", [], ["num_factors needs two choices or more"]),
    ("num_factors", [4, 8, 4.0], ["num_factors has the choice 4 twice"]),
    ("num_factors", {"low": "2", "high": 32}, ["low must be a number, not '2'"]),
    ("num_factors", {"low": 2}, ["num_factors has no high"]),
    ("num_factors", {"low": 2, "high": 8, "choices": [1, 2]},
     ["low and choices exclude each other", "high and choices exclude each other"]),
    ("num_factors", {"type": "float", "low": 2, "high": 8}, ["num_factors is of type int, not float"]),
    ("num_factors", {"type": "itn", "low": 2, "high": 8},
     ["type must be int, float or categorical, not 'itn' (did you mean 'int'?)"]),
    ("num_factors", {"low": 2, "high": 8, "step": 0}, ["step must be above 0, not 0"]),
    ("num_factors", {"low": 2, "high": 8, "log": "true"}, ["log must be true or false, not 'true'"]),
    ("num_factors", {"low": 9, "hihg": 8}, ["unknown key 'hihg' (did you mean 'high'?)", "num_factors has no high"]),
    ("linear_lr", {"low": float("nan"), "high": float("inf")},
     ["low must be a number, not nan", "high must be a number, not inf"]),
    ("num_factors", "1e999..2", ["the range '1e999..2' holds a number that is too large"]),
    ("num_factors", {"choices": 3}, ["choices must be a list, not 3"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "wanted"), BAD, ids=lambda value: str(value)[:30])
def test_impossible_dimensions_are_refused(name: str, raw: Any, wanted: list[str]) -> None:
    """All that is wrong is said, in words."""
    dimension, wrong = parse(name, raw)
    assert dimension is None
    assert [w.what for w in wrong] == wanted


def test_hints_say_what_to_write() -> None:
    """The next step: quotes, the value that a step reaches, hyperparameters."""
    hints = {raw: parse("num_factors", raw)[1][0].hint for raw in ("4..4", "2..33 step 2")}
    assert hints["4..4"] == "to fix num_factors at 4, put it under hyperparameters"
    assert hints["2..33 step 2"] == "the last value is 32; write that as high, or change step"
    assert parse("num_factors", {"low": "2", "high": 9})[1][0].hint == "remove the quotes"
    assert parse("optimizer", "adam")[1][0].hint == "write [adam, adagrad, sgd, ftrl, rowwise_adagrad]"


def test_values_are_counted_where_they_can_be() -> None:
    """Steps in decimal, not in binary; a float without step and a log float cannot be counted."""
    steps = Dimension("float", 0.1, 0.5, 0.1)
    assert [steps.nth(i) for i in range(steps.size or 0)] == [0.1, 0.2, 0.3, 0.4, 0.5]
    whole = Dimension("int", 2, 8, 3)
    assert [whole.nth(i) for i in range(whole.size or 0)] == [2, 5, 8]
    assert Dimension("int", 1, 3, log=True).size == 3
    assert Dimension("float", 0.1, 0.5).size is None
    assert Dimension("categorical", choices=("x", None)).nth(1) is None


def test_a_value_is_inside_or_not() -> None:
    """In the range, on the step, among the choices; true is not 1."""
    assert Dimension("float", 0.1, 0.5, 0.1).holds(0.3)
    assert not Dimension("float", 0.1, 0.5, 0.1).holds(0.25)
    assert not Dimension("int", 2, 8).holds(9)
    assert not Dimension("int", 2, 8).holds("x")
    assert not Dimension("categorical", choices=(1, 2)).holds(True)
    assert Dimension("categorical", choices=(None, 1.0)).holds(None)


def test_every_fault_has_its_place_and_its_next_step() -> None:
    """Those of the table above: specimens/dimension_faults.txt, word for word."""
    shown = ""
    for name, raw, _ in BAD:
        for wrong in parse(name, raw)[1]:
            shown += f"{name} {raw!r}: {'.'.join(map(str, wrong.at))}: {wrong.what}: {wrong.hint} {wrong.key}\n"
    assert shown == (Path(__file__).parent / "specimens" / "dimension_faults.txt").read_text()


def test_where_values_lie_decides_whether_one_is_inside() -> None:
    """Both ends are; so is each step of both; what has no size has none for its type's reason."""
    whole = Dimension("int", 2, 8, 3)
    assert [value for value in range(10) if whole.holds(value)] == [2, 5, 8]
    assert Dimension("float", 0.5, 1.5).holds(0.5) and Dimension("float", 0.5, 1.5).holds(1.5)
    assert (whole.size, Dimension("int", 2, 8).size, Dimension("float", 0.5, 1.0, 0.25).size) == (3, 7, 3)
    assert Dimension("int", 2, 8).nth(6) == 8 and type(Dimension("int", 2, 8).nth(6)) is int
    assert type(Dimension("float", 1.0, 2.0, 1.0).nth(1)) is float
    assert Dimension("categorical", choices=("a", "b")).size == 2
    assert (str(whole), str(Dimension("categorical", choices=(None, 1, "x")))) == ("2..8 step 3", "[null, 1, x]")
    assert str(Dimension("float", 1e-8, 512.0, log=True)) == "1e-08..512 log"


@pytest.mark.parametrize(("raw", "dimension"), [
    ("2.E1..30", None), ("1e1..2e+1", Dimension("float", 10.0, 20.0)), (".5..1.", None),
    ("1..2 log log", Dimension("float", 1.0, 2.0, log=True)),
    ("1..2 step 0.5 step 0.25", Dimension("float", 1.0, 2.0, 0.25)), ("1...2", None), ("1..2 x", None),
    ("1.." + "2" * 196, Dimension("float", 1.0, float("2" * 196))), ("1.." + "2" * 197, None),
    ("-2..-1", Dimension("float", -2.0, -1.0)),
])  # fmt: skip
def test_a_range_is_two_numbers_and_what_stands_behind(raw: str, dimension: Dimension | None) -> None:
    """Below 200 characters; the last of several steps counts."""
    assert parse("bias_init_value", raw)[0] == dimension
