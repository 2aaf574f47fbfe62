"""The suite of a card, with the least of everything."""

from __future__ import annotations

from fmtune.bench import cuda_suite
from fmtune.machine import cores
from fmtune.report.card import build_card


def test_every_table_is_filled() -> None:
    """Ceilings, a check of every layout and rule, and rates over the grid on both devices; nothing is wrong."""
    tiny = cuda_suite.Sizes(
        sparse=(6, 20, 3, 1), dense=(6, 3, 3, 1), check=(5, 4, 2, 1), batches=(6,), lanes=(1, 2), copied=2**8,
        epochs=1,
    )  # fmt: skip
    said: list[str] = []
    result = cuda_suite.run(said.append, tiny)
    assert not cuda_suite.failed(result)
    assert [part["ceiling"] for part in result["ceilings"]] == ["copy", "gather", "gather"]
    assert len(result["checks"]) == 8 and all(part["same_twice"] for part in result["checks"])
    ways = {(part["layout"], part["device"], part["way"]) for part in result["rates"]}
    assert {("sparse", "gpu", "exact"), ("dense", "gpu", "exact"), ("dense", "gpu", "tf32")} <= ways
    assert {("sparse", "cpu", "one thread"), ("dense", "cpu", "one thread")} <= ways
    assert {(part["way"], part["lanes"]) for part in result["rates"] if part["device"] == "cpu"} == {
        ("one thread", 1), ("one thread", 2), (f"{min(cores(), 2)} threads", 2),
    }  # fmt: skip
    page = build_card(cuda_suite.Result.model_validate(result))
    assert all(f'id="{name}"' in page for name in ("verdict", "sparse", "dense", "checks"))
    assert len(said) == sum(len(result[kind]) for kind in ("ceilings", "checks", "rates"))
