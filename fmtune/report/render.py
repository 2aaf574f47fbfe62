"""Render: the templates of this room, with autoescape; all that is not a template of ours is text."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fmtune.report import words

_FILTERS = {
    "score": words.score, "rate": words.rate, "seconds": words.seconds, "size": words.size, "times": words.times,
    "setting": words.setting, "signed": words.signed, "short": words.short, "metric": words.metric,
}  # fmt: skip


def render(template: str, **values: Any) -> Markup:
    """Return ``templates/<template>.html.jinja`` filled with the values, every string escaped.

    Parameters
    ----------
    template : str
        The file's name without its suffix; a section's template is named as its function.
    """
    return Markup(_ENVIRONMENT.get_template(f"{template}.html.jinja").render(**values))


def asset(name: str) -> str:
    """Return the text of ``style.css`` or ``table.js``."""
    return resources.files("fmtune.report").joinpath("templates", name).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fmtune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    environment.globals["count"] = words.count
    return environment


_ENVIRONMENT = _environment()
