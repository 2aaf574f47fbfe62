"""Result: what a study has come to, as plain values; reports and the command line read nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fmtune.notebook import table


def surplus(done: int, asked: int) -> str:
    """Return ``; the file asks for 3 trials`` where more are done, since ``n_trials`` may be lowered; else nothing."""
    return f"; the file asks for {asked} trial{'' if asked == 1 else 's'}" if done > asked else ""


@dataclass(frozen=True)
class TrialResult:
    """One trial of one cell.

    Attributes
    ----------
    number : int
        Optuna's number; the same number in two cells is the same configuration.
    state : str
        COMPLETE, PRUNED, FAIL, RUNNING or WAITING.
    params : dict
        What the sampler chose.
    value : float or None
        The objective; None unless the trial ended with one.
    curve : tuple of float
        The objective on the test channel after epoch 1, 2, ...
    best_epoch : int or None
        The first epoch (1-based) of the best score on ``curve``; ``value`` is another one's, the last's, where there
        was no ``patience``.
    metrics : dict
        All test metrics of the model whose score ``value`` is, by SageMaker's names without ``test:``: that of the
        best epoch with ``patience``, else of the last.
    seconds : float or None
        This trial's share of the time of the passes it took part in.
    rows_per_s : float or None
        Training rows a second, counting its share of each pass.
    reason : str or None
        Why it failed or was pruned.
    model_bytes : int or None
        Size of the model's arrays.
    attempts : int
        How often it was started (more than once after a crash).
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None = None
    curve: tuple[float, ...] = ()
    best_epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    rows_per_s: float | None = None
    reason: str | None = None
    model_bytes: int | None = None
    attempts: int = 1


@dataclass(frozen=True)
class CellResult:
    """One entry of the matrix: device x layout, with its trials.

    ``note`` says why a cell did not run (``not run: no CUDA device``), else None.  ``rows_per_s`` counts
    row-lanes: training rows times the models trained on them, per second of one thread in a pass.  ``peak_mb`` is the
    process's peak.
    """

    device: str
    layout: str
    trials: tuple[TrialResult, ...] = ()
    note: str | None = None
    seconds: float | None = None
    rows_per_s: float | None = None
    peak_mb: float | None = None

    @property
    def name(self) -> str:
        """``cpu-sparse`` and so on."""
        return f"{self.device}-{self.layout}"

    def best(self, direction: str) -> TrialResult | None:
        """Return the COMPLETE trial with the best value (the lowest number among equals), or None."""
        done = [t for t in self.trials if t.state == "COMPLETE" and t.value is not None]
        sign = 1.0 if direction == "minimize" else -1.0
        return min(done, key=lambda t: (sign * (t.value or 0.0), t.number), default=None)


@dataclass(frozen=True)
class StudyResult:
    """A whole study, finished or not.

    Attributes
    ----------
    study_name, objective, direction
        As in the study file; direction is ``minimize`` or ``maximize``.
    n_trials : int
        The budget per cell.
    cells : tuple of CellResult
        The first one searched; the others replayed its trials by number.
    search_space : dict
        Name to Optuna's distribution as a plain dict: type, low, high, step, log, choices.
    fixed : dict
        Hyperparameters that were not searched.
    channels : dict
        Channel name to ``{"rows": int, "nnz": int, "feature_dim": int, "digest": str, "origin": str}``: ``digest`` of
        the rows as they are encoded, ``origin`` of which rows they are; ``groups`` where a split kept some together.
    data : str
        The dataset card or the paths, in words.
    holdout : dict or None
        ``{"score": float, "metrics": {...}, "low": float, "high": float, "groups": int, "opened": int, "trial": int}``
        when the study has a sealed holdout; ``low`` and ``high`` are None below 30 rows or groups, ``groups`` where
        rows were drawn.
    selection : dict or None
        What the choice among the finalists is worth: ``naive``, ``corrected``, ``low``, ``high``, ``wins``, ``curve``,
        ``draws``, ``rows``, as ``fmtune.tune.selection.honest`` gives it.
    confirmation : dict or None
        What ``fmtune confirm`` found, as ``fmtune.tune.confirm.confirm`` gives it.
    baseline : dict or None
        The linear model beside the winner, as ``fmtune.tune.baseline.baseline`` gives it, and ``trial``.
    constant : dict or None
        What predicting the train labels' mean for every test row scores, ``value``, and ``trial``, the winner then.
    calibration : dict or None
        How far the winner's probabilities are what they say, as ``fmtune.fm.metrics.calibration`` gives it, and
        ``trial``.
    explained : dict or None
        The winner's strongest features and pairs, as ``fmtune.tune.explained.explained`` gives them, and ``trial``.
    importance : dict
        Parameter to its share in what sets the best tenth of the trials apart (PED-ANOVA), empty with too few trials.
    clear : list of str or None
        The parameters whose share is more than chance would give; None where that was not asked.
    environment : dict
        Versions, processor, cores, operating system.
    spec_path, spec_text : str
        The study file as it was run.
    sampler, pruner : str
    started, finished : str or None
        UTC times, ISO 8601.
    model_path : str or None
        Where the winner's model lies.
    """

    study_name: str
    objective: str
    direction: str
    n_trials: int
    cells: tuple[CellResult, ...]
    search_space: dict[str, dict[str, Any]]
    fixed: dict[str, Any]
    channels: dict[str, dict[str, Any]]
    data: str
    holdout: dict[str, Any] | None = None
    selection: dict[str, Any] | None = None
    confirmation: dict[str, Any] | None = None
    baseline: dict[str, Any] | None = None
    constant: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    explained: dict[str, Any] | None = None
    importance: dict[str, float] = field(default_factory=dict)
    clear: list[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    spec_path: str = ""
    spec_text: str = ""
    sampler: str = ""
    pruner: str = ""
    seeds: int = 1
    started: str | None = None
    finished: str | None = None
    model_path: str | None = None

    def _repr_html_(self) -> str:
        best, holdout = self.best, self.holdout or {}
        states = {cell.name: cell.note or Counter(trial.state for trial in cell.trials) for cell in self.cells}
        return table(f"study {self.study_name}: {self.objective} ({self.direction})", {
            "data": self.data, "trials": states,
            "best": best and {"trial": best.number, "value": best.value}, "parameters": best and best.params,
            "corrected": (self.selection or {}).get("corrected"),
            "sealed holdout": (holdout and {"score": holdout["score"], "opened": holdout["opened"]}) or None,
            "model": self.model_path,
        })  # fmt: skip

    @property
    def best(self) -> TrialResult | None:
        """The first cell's best trial."""
        return self.cells[0].best(self.direction) if self.cells else None
