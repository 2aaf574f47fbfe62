"""fmtune: hyperparameter tuning and benchmarking for factorization machines.

>>> import fmtune
>>> study = fmtune.run("studies/digits.yaml")  # doctest: +SKIP
>>> study.best_params  # doctest: +SKIP

Names are loaded when they are first used, so that ``import fmtune`` and ``fmtune --help`` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "FMClassifier": "fmtune.estimators.machine",
    "FMRegressor": "fmtune.estimators.machine",
    "Hyperparameters": "fmtune.fm.hyperparameters",
    "Model": "fmtune.fm.model",
    "Objective": "fmtune.tune.objective",
    "fit": "fmtune.tune.fit",
    "optimize": "fmtune.tune.objective",
    "predict": "fmtune.tune.fit",
    "predict_interval": "fmtune.tune.fit",
    "progress": "fmtune.screen",
    "run": "fmtune.tune.study",
}

__all__ = [
    "FMClassifier", "FMRegressor", "Hyperparameters", "Model", "Objective", "__version__", "fit", "optimize", "predict",
    "predict_interval", "progress", "run",
]  # fmt: skip

if TYPE_CHECKING:
    from fmtune.estimators.machine import FMClassifier, FMRegressor
    from fmtune.fm.hyperparameters import Hyperparameters
    from fmtune.fm.model import Model
    from fmtune.screen import progress
    from fmtune.tune.fit import fit, predict, predict_interval
    from fmtune.tune.objective import Objective, optimize
    from fmtune.tune.study import run


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fmtune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
