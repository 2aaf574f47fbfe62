"""Extra: optuna-dashboard itself, which only ``pip install 'fmtune[dashboard]'`` brings."""

from __future__ import annotations

import importlib
from typing import Any

from fmtune.errors import ResourceError
from fmtune.extras import install


def optuna_dashboard() -> Any:
    """Return the package ``optuna_dashboard``.

    Raises
    ------
    ResourceError
        It is not installed.
    """
    try:
        return importlib.import_module("optuna_dashboard")
    except ImportError as error:
        raise ResourceError(
            "optuna-dashboard is not installed", where="fmtune dashboard", hint=install("dashboard")
        ) from error
