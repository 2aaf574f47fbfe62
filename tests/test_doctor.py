"""The doctor tries what it says, finds what does not work, and names nobody."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from fmtune.cli import fmtune
from fmtune.cli.tools import CODES
from fmtune.export import standalone
from fmtune.fm.hyperparameters import PARAMETERS
from fmtune.tune import doctor
from fmtune.tune.glossary import keys
from fmtune.tune.studyfile import StudyFile
from tests.test_explain import model


def test_a_place_that_works_has_no_failure(tmp_path: Path) -> None:
    """On a writable local disk nothing fails but what the machine itself lacks, and nothing is left behind."""
    found = {f.name: f for f in doctor.examine(tmp_path)}
    assert list(found) == list(doctor.CHECKS)
    assert found["storage"].ok and "wal" in found["storage"].text
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_does_not_is_a_finding_with_a_hint(tmp_path: Path) -> None:
    """A folder that is not there fails its checks, each in one line."""
    found = {f.name: f for f in doctor.examine(tmp_path / "gone")}
    for name in ("disk", "storage"):
        assert found[name].ok is False and found[name].hint and "\n" not in found[name].text


def test_the_json_for_an_issue_names_no_user_and_no_machine() -> None:
    """Home and host are replaced."""
    secret = doctor.Finding("kernels", True, f"kept in {Path.home()}/x on {os.uname().nodename}", f"see {Path.home()}")
    (clean,) = doctor.redacted([secret])
    assert clean["text"] == "kept in ~/x on this machine" and clean["hint"] == "see ~"


def test_exit_codes_and_hyperparameters_are_explained() -> None:
    """One, all, or none of that number or name; the nearest is suggested, by what other libraries call it too."""
    run = CliRunner().invoke(fmtune, ["explain", "6"])
    assert run.exit_code == 0 and run.output.startswith("  6  no trial succeeded")
    every = CliRunner().invoke(fmtune, ["explain"]).output
    assert len(every.splitlines()) == len(CODES) + len(PARAMETERS) + len(keys()) + 3
    assert all(name in every and row.help in every for name, row in PARAMETERS.items())
    one = CliRunner().invoke(fmtune, ["explain", "num_factors"]).output
    assert PARAMETERS["num_factors"].help in one and "16" in one and "whole number, from 0, to 65,536" in one
    unknown = CliRunner().invoke(fmtune, ["explain", "learning_rate"]).exception
    assert "did you mean 'linear_lr' or 'factors_lr'?" in str(unknown)
    assert "no exit code 9" in str(CliRunner().invoke(fmtune, ["explain", "9"]).exception)


def test_the_keys_of_a_study_file_are_explained() -> None:
    """Each with its default and its place in the file, as the schema has them; a misspelt one is suggested."""
    assert set(StudyFile.model_fields) <= set(keys()) and {"train", "label", "layout", "shards"} <= set(keys())
    for name, words in {
        "n_trials": ("total number of trials", "default  100\n", "in the study file, at the top level"),
        "bucketed": ("columns of numbers, cut into ranges", "below data"), "grace": ("default  30\n",),
        "test": ("or a share", "below data"), "layout": ("below matrix",), "shards": ("below cluster",),
    }.items():
        said = CliRunner().invoke(fmtune, ["explain", name]).output
        assert all(word in said for word in words), said
    misspelt = CliRunner().invoke(fmtune, ["explain", "n_trails"]).exception
    assert "no key of a study file 'n_trails' (did you mean 'n_trials'?)" in str(misspelt)


@pytest.mark.parametrize(("words", "begun", "found"), [
    (["fit", "-p"], "num", ["num_factors="]), (["fit", "-p"], "optimizer=ad", ["optimizer=adam", "optimizer=adagrad"]),
    (["fit", "-p"], "lazy=", ["lazy=true", "lazy=false"]), (["fit", "-p"], "nope=", []),
    (["data", "get"], "dig", ["digits"]), (["explain"], "bias_w", ["bias_wd"]), (["explain"], "14", ["141", "143"]),
    (["explain"], "n_t", ["n_trials"]),
])  # fmt: skip
def test_names_are_completed(words: list[str], begun: str, found: list[str]) -> None:
    """Hyperparameters after -p, and the words of some; cards after data get; what can be explained."""
    asked = ShellComplete(fmtune, {}, "fmtune", "_FMTUNE_COMPLETE")
    assert [item.value for item in asked.get_completions(words, begun)] == found


def test_completion_scripts_call_the_command() -> None:
    """Each shell gets a script that asks fmtune for the words."""
    for shell in ("bash", "zsh", "fish"):
        assert "_FMTUNE_COMPLETE" in CliRunner().invoke(fmtune, ["completion", shell]).output


def test_inspect_and_export_read_a_model(tmp_path: Path) -> None:
    """inspect lists weights and pairs; export writes what other tools read."""
    path = tmp_path / "model.fm"
    model(30, 3).save(path)
    said = json.loads(CliRunner().invoke(fmtune, ["inspect", str(path), "--json", "--near", "4"]).output)
    assert said["feature_dim"] == 30 and len(said["weights"]) == len(said["interactions"]) == len(said["nearest"]) == 10
    assert "feature" in CliRunner().invoke(fmtune, ["inspect", str(path), "--top", "2"]).output
    out = tmp_path / "machine.py"
    assert CliRunner().invoke(fmtune, ["export", "numpy", str(path), "-o", str(out)]).exit_code == 0
    assert out.read_bytes() == standalone.content(model(30, 3))
