"""The shipped studies of downloaded data: what they set, and that they run on small stand-ins of the same form."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmtune.data import catalog
from fmtune.data.source import write
from fmtune.fm.hyperparameters import PARAMETERS
from fmtune.tune import spec as specs
from fmtune.tune.study import run
from tests.card_fixtures import card_file, pictures, ratings, write_card

STUDIES = Path(__file__).parent.parent / "studies"
MOVIES = "".join(f"{1 + i % 3}\t{1 + i % 2}\t{1 + i % 5}\t{i}\n" for i in range(60))
STAND_INS = {
    "sagemaker-mnist": ("images", pictures(train=260, test=40)),
    "movielens-100k": ("movielens", {"ml-100k.zip": ratings(ua_base=MOVIES, ua_test="1\t2\t5\t0\n3\t1\t2\t1\n")}),
}


FREE = sorted(path.stem for path in STUDIES.glob("*.yaml") if path.stem not in STAND_INS)


def test_the_notebooks_settings_are_the_first_trial() -> None:
    """10 factors, batches of 200, one epoch in the file's order; what is searched begins with SageMaker's defaults."""
    spec = specs.read(STUDIES / "sagemaker-mnist.yaml")
    (first,) = spec.enqueue
    assert set(first) == set(spec.search_space) and first["num_factors"] == 10
    assert all(first[name] == PARAMETERS[name].default for name in first if name != "num_factors")
    fixed = {"epochs": 1, "mini_batch_size": 200, "shuffle": "none", "lazy": False}
    assert spec.hyperparameters == {**fixed, "predictor_type": "binary_classifier"}


@pytest.mark.parametrize("name", STAND_INS)
def test_a_study_of_a_card_runs(name: str, tmp_path: Path) -> None:
    """From the card's files to a winner, with the study's own search space; the holdout is opened once."""
    maker, contents = STAND_INS[name]
    files = [card_file(file, content, f"http://127.0.0.1:1/{file}") for file, content in contents.items()]
    write_card(tmp_path / "cards", "small", maker, files)
    (tmp_path / "small").mkdir()
    for file, content in contents.items():
        (tmp_path / "small" / file).write_bytes(content)
    loaded = catalog.load("small", where=tmp_path / "cards", home=tmp_path)
    channels = {c: rows for c in ("train", "test", "holdout") if (rows := getattr(loaded, c)) is not None}
    for channel, rows in channels.items():
        write(rows, tmp_path / f"{channel}.npz")
    spec = specs.read(STUDIES / f"{name}.yaml")
    data = specs.DataSpec.model_validate({channel: (str(tmp_path / f"{channel}.npz"),) for channel in channels})
    study = run(spec.model_copy(update={"data": data, "n_trials": 3}), root=tmp_path)
    assert len(study.trials) == 3 and study.best_value is not None
    opened = {"opened": 1} if "holdout" in channels else None
    assert opened == ({"opened": held["opened"]} if (held := study.user_attrs.get("fmtune:holdout")) else None)


@pytest.mark.parametrize("name", FREE)
def test_a_study_of_data_at_hand_runs(name: str, tmp_path: Path) -> None:
    """With few rows, epochs and trials, its own search space, sampler, pruner and matrix come to a winner."""
    spec = specs.read(STUDIES / f"{name}.yaml").members()[0]
    keys = {"rows": 2000} if "rows" in catalog.cards()[spec.data.card or ""].keys else {}
    less: dict[str, object] = {
        "data": spec.data.model_copy(update={"keys": {**spec.data.keys, **keys}}), "n_trials": 2, "enqueue": (),
        "hyperparameters": {**spec.hyperparameters, "epochs": 2},
    }  # fmt: skip
    study = run(spec.model_copy(update=less), root=tmp_path)
    assert len(study.trials) == 2 and study.best_value is not None


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_study_says_what_it_shows(path: Path) -> None:
    """The schema's line for editors, a comment on what it is for, and a name that is the file's."""
    lines = path.read_text().splitlines()
    assert "# yaml-language-server: $schema=schema.json" in lines[:2]
    assert any(line.startswith("# ") and "$schema" not in line for line in lines[:4])
    assert specs.read(path).study_name == path.stem
