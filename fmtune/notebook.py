"""Notebook: small tables of HTML, for what a cell of a notebook shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def table(title: str, facts: Mapping[str, Any]) -> str:
    """Return a title and names beside values, every text escaped; None is left out."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(str(name))}</th><td style='text-align:left'>{_text(value)}</td></tr>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<div><b>{escape(title)}</b><table>{rows}</table></div>"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(name))} {_text(each)}" for name, each in value.items())
    if isinstance(value, str) or not isinstance(value, Sequence):
        return escape(f"{value:.6g}" if isinstance(value, float) else str(value))
    return "<br>".join(map(_text, value))
