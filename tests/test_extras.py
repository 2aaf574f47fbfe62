"""What installs an extra into this very installation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fmtune import extras


class Installed:
    """An installed fmtune whose installer left these words."""

    def __init__(self, told: str | None) -> None:
        self._told = told

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._told


@pytest.mark.parametrize("editable", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_an_extra_comes_from_where_fmtune_came(
    there: bool, editable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the checkout while there is one, as editable as it was; else by name; always by this Python."""
    place = tmp_path / "a folder"
    place.mkdir()
    if there:
        (place / "pyproject.toml").touch()
    told = {"url": place.as_uri(), "dir_info": {"editable": editable}}
    monkeypatch.setattr(extras, "distribution", lambda name: Installed(json.dumps(told)))
    flag = "-e " if editable else ""
    wanted = f"{flag}'{place}[onnx]'" if there else "'fmtune[onnx]'"
    assert extras.install("onnx") == f"{sys.executable} -m pip install {wanted}"


@pytest.mark.parametrize("told", [None, "", "no JSON", "{}"])
def test_where_nothing_is_known_it_comes_by_name(told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an index, or where the installer's words cannot be read."""
    monkeypatch.setattr(extras, "distribution", lambda name: Installed(told))
    assert extras.install("serve").endswith(" -m pip install 'fmtune[serve]'")


def test_a_tree_that_was_never_installed_says_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path alone makes fmtune importable, too."""

    def gone(name: str) -> Any:
        raise extras.PackageNotFoundError(name)

    monkeypatch.setattr(extras, "distribution", gone)
    assert extras.install("gpu").endswith("'fmtune[gpu]'")
