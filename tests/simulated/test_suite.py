"""The suite of a card, with the least of everything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fmtune.bench import cuda_suite, cuda_tables
from fmtune.machine import cores
from fmtune.report.card import build_card

TINY = cuda_tables.Sizes(
    sparse=(6, 20, 3, 1), dense=(6, 3, 3, 1), check=(5, 4, 2, 1), sparse_batches=(6,), dense_batches=(6,), lanes=(2, 1),
    rules=("adam",), packs=(3, 8), copied=2**8, epochs=1,
)  # fmt: skip


def _here(group: str, sizes: cuda_tables.Sizes, seconds: float) -> Iterator[cuda_tables.Part]:
    """Measure in this process; what is installed here beside fmtune is not looked at."""
    return iter(()) if group.startswith("torch") else cuda_tables.here(group, sizes)


def test_every_table_is_filled() -> None:
    """Ceilings, a check of every layout and way, and rates over the grid on both devices; nothing is wrong."""
    said: list[str] = []
    kept: list[int] = []
    result = cuda_suite.run(said.append, TINY, save=lambda one: kept.append(len(one["rates"])), measure=_here)
    assert not cuda_suite.failed(result), result["failures"]
    assert [part["ceiling"] for part in result["ceilings"]][:3] == ["copy", "gather", "gather"]
    assert {part["lanes"] for part in result["ceilings"][3:]} == {1, 2}
    assert len(result["checks"]) == 2 + 4 and all(part["same_twice"] for part in result["checks"])
    assert [part["same_alone"] for part in result["checks"] if "same_alone" in part] == [True, True]
    ways = {(part["layout"], part["device"], part["way"]) for part in result["rates"]}
    assert {("sparse", "gpu", "exact"), ("dense", "gpu", "exact"), ("dense", "gpu", "tf32")} <= ways
    assert {(part["way"], part["lanes"]) for part in result["rates"] if part["device"] == "cpu"} == {
        ("one thread", 1), (f"{min(cores(), 2)} threads", 2),
    }  # fmt: skip
    held = {target["target"]: target["held"] for target in result["targets"]}
    assert held["models to the CPU's, largest difference at most"] is True
    assert held["dense, a lone lane: share of what its two products alone allow"] is not None
    assert held["sparse, mini-batches of 6: times torch on the card"] is None
    page = build_card(cuda_suite.Result.model_validate(result))
    assert all(f'id="{name}"' in page for name in ("verdict", "targets", "sparse", "dense", "checks"))
    assert kept == sorted(kept) and kept[-1] == len(result["rates"])


def test_a_pack_in_tf32_is_held_against_the_exact_pass_of_a_cpu() -> None:
    """A CPU that rounds products to eight bits would be further from the card than the card's eleven are."""
    shape = (64, 16, 16, 4)
    part = cuda_tables._check("dense", "adagrad", "tf32", 1, replace(TINY, check=shape))
    assert part["fine"] and part["model_to_cpu"] < 5e-4


def test_what_fails_is_said_and_the_rest_is_kept() -> None:
    """A group that ends badly, and those for which no time is left, are named; other parts stay."""

    def measure(group: str, sizes: cuda_tables.Sizes, seconds: float) -> Iterator[cuda_tables.Part]:
        if group == "ceilings":
            yield {"part": {"ceiling": "copy", "gb_s": 1.0}}
            yield {"name": "gather", "failed": "a fault of the card"}

    result = cuda_suite.run(lambda line: None, TINY, measure=measure)
    assert cuda_suite.failed(result)
    assert result["ceilings"] == [{"ceiling": "copy", "gb_s": 1.0}]
    assert result["failures"] == [{"name": "gather", "failed": "a fault of the card"}]
    result = cuda_suite.run(lambda line: None, TINY, within=0.0, measure=measure)
    assert {part["failed"] for part in result["failures"]} == {"left out: no time was left"}


def test_a_group_is_a_process_of_its_own() -> None:
    """Its parts come back a line each; one that takes too long is ended, and so is one that fails said to have."""
    parts = list(cuda_suite.apart("ceilings", TINY, 300.0))
    assert [part["part"].get("ceiling") for part in parts][:4] == [None, "copy", "gather", "gather"]
    assert list(cuda_suite.apart("ceilings", TINY, 0.0)) == [{"name": "ceilings", "failed": "ended after 0 s"}]
    assert list(cuda_suite.apart("none", TINY, 300.0)) == [{"name": "none", "failed": "its process ended with 1"}]
