"""Extras: how what only an extra of fmtune brings gets into this very installation."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit


def install(extra: str) -> str:
    """Return the command that installs an extra: by this Python, from where fmtune itself came."""
    try:
        told = json.loads(distribution("fmtune").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        told = {}
    place = urlsplit(told.get("url", ""))
    folder = Path(unquote(place.path)) if place.scheme == "file" else None
    words = [sys.executable, "-m", "pip", "install"]
    if folder is not None and (folder / "pyproject.toml").is_file():
        editable = ["-e"] if told.get("dir_info", {}).get("editable") else []
        return shlex.join([*words, *editable, f"{folder}[{extra}]"])
    return shlex.join([*words, f"fmtune[{extra}]"])
