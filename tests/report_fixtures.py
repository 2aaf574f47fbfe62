"""Studies as values, seeded: what report tests build pages from; no training and no storage."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

from fmtune.tune.result import CellResult, StudyResult, TrialResult

SPACE: dict[str, dict[str, Any]] = {
    "num_factors": {"type": "int", "low": 2, "high": 32, "step": 1, "log": True},
    "factors_lr": {"type": "float", "low": 1e-4, "high": 0.3, "step": None, "log": True},
    "linear_lr": {"type": "float", "low": 1e-4, "high": 0.3, "step": None, "log": True},
    "factors_wd": {"type": "float", "low": 1e-7, "high": 1e-2, "step": None, "log": True},
    "linear_wd": {"type": "float", "low": 1e-7, "high": 1e-2, "step": None, "log": True},
    "factors_init_sigma": {"type": "float", "low": 1e-3, "high": 0.3, "step": None, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "adagrad"]},
}
IMPORTANCE = {
    "factors_lr": 0.47, "num_factors": 0.21, "linear_lr": 0.13, "optimizer": 0.1,
    "factors_wd": 0.051, "factors_init_sigma": 0.032, "linear_wd": 0.007,
}  # fmt: skip
SPEC = """\
# yaml-language-server: $schema=https://example.org/study.schema.json
study_name: digits
data: {card: digits, split: 0}
objective: test:binary_classification_cross_entropy
hyperparameters: {predictor_type: binary_classifier, epochs: 20, mini_batch_size: 64}
search_space:
  num_factors: {type: int, low: 2, high: 32, log: true}
  factors_lr: 1e-4 .. 0.3 log
  optimizer: [adam, adagrad]
sampler: tpe
pruner: {name: median, n_warmup_steps: 4}
n_trials: 64
matrix: {device: [cpu], layout: [sparse, dense]}
"""
ENVIRONMENT = {
    "fmtune": "0.1.0", "python": "3.11.9", "numpy": "2.4.6", "numba": "0.68.1", "optuna": "5.0.0",
    "processor": "Example CPU @ 2.40 GHz", "cores": "2", "system": "Linux 6.1",
}  # fmt: skip


def study(trials: int = 64, seed: int = 0, epochs: int = 20, **changes: Any) -> StudyResult:
    """Return a finished study of two cells, cpu-sparse searched and cpu-dense replayed."""
    rng = random.Random(seed)
    sparse = tuple(trial(rng, number, trials, epochs) for number in range(trials))
    dense = tuple(replayed(rng, t) for t in sparse)
    done = [t for t in sparse if t.state == "COMPLETE" and t.value is not None]
    top = min(done, key=lambda t: t.value or 0.0, default=None)
    values: dict[str, Any] = {
        "study_name": "digits", "objective": "test:binary_classification_cross_entropy", "direction": "minimize",
        "n_trials": trials, "cells": (cell("sparse", sparse), cell("dense", dense)), "search_space": SPACE,
        "fixed": {"predictor_type": "binary_classifier", "epochs": epochs, "mini_batch_size": 64, "patience": 5},
        "channels": {
            "train": {"rows": 1078, "nnz": 34021, "feature_dim": 64, "digest": "b1946ac92492d2347c6235b4d2611184"},
            "test": {"rows": 359, "nnz": 11290, "feature_dim": 64, "digest": "591785b794601e212b260e25925636fd"},
            "holdout": {"rows": 360, "nnz": 11385, "feature_dim": 64, "digest": "2cd6ee2c70b0bde53fbe6cac3c8b8bb1"},
        },
        "data": "digits (class 8, split 0)",
        "holdout": None if top is None else {
            "score": (top.value or 0.0) * 1.12, "low": (top.value or 0.0) * 0.9, "high": (top.value or 0.0) * 1.4,
            "opened": 1, "trial": top.number,
            "metrics": {"binary_classification_accuracy": 0.9806, "auc": 0.9971},
        },
        "selection": selection(done), "explained": None if top is None else explained(top.number),
        "importance": IMPORTANCE if len(done) > 10 else {}, "environment": ENVIRONMENT,
        "spec_path": "studies/digits.yaml", "spec_text": SPEC, "sampler": "TPESampler", "pruner": "MedianPruner",
        "seeds": 1, "started": "2025-03-01T09:00:00Z", "finished": "2025-03-01T09:00:41Z",
        "model_path": "runs/digits/best.fm" if top else None,
    }  # fmt: skip
    return StudyResult(**(values | changes))


def explained(trial: int) -> dict[str, Any]:
    """Return what ``fmtune.tune.explained.explained`` would find for a trial's model."""
    return {"trial": trial, "bias": -0.22, "features": [
        {"name": f"row {n}, column 4", "weight": (-1) ** n * 0.3 / n, "effect": 0.2 / n, "rows": 1000 - n}
        for n in range(1, 9)
    ], "pairs": [
        {"names": [f"row {n}, column 4", "row 6, column 3"], "weight": (-1) ** n * 1.2 / n, "effect": 0.5 / n,
         "rows": 600 - n} for n in range(1, 9)
    ]}  # fmt: skip


def selection(done: list[TrialResult]) -> dict[str, Any] | None:
    """Return what ``fmtune.tune.selection.honest`` would find: the more leaders, the more was luck."""
    if len(done) < 2:
        return None
    ranked = sorted(done, key=lambda t: t.value or 0.0)
    leads: list[TrialResult] = []
    for one in done:
        if not leads or (one.value or 0.0) < (leads[-1].value or 0.0):
            leads.append(one)
    top = ranked[0].value or 0.0
    curve = [{"trial": t.number, "naive": t.value, "corrected": (t.value or 0.0) * (1 + 0.02 * i)}
             for i, t in enumerate(leads)]  # fmt: skip
    shares = [0.5 / 1.6**i for i in range(min(12, len(ranked)))]
    wins = {str(t.number): round(s / sum(shares), 4) for t, s in zip(ranked, shares, strict=False)}
    corrected = top * (1 + 0.02 * (len(leads) - 1))
    return {"trial": ranked[0].number, "naive": top, "corrected": corrected, "low": top * 0.7, "high": top * 1.4,
            "among": len(done), "draws": 1000, "rows": 359, "wins": wins, "curve": curve}  # fmt: skip


def confirmed(result: StudyResult, *verdicts: str, ahead: int = 0) -> StudyResult:
    """Return the study after ``fmtune confirm``: its best trials in order, or the one ``ahead`` first.

    ``verdicts`` are those of the others: better (the best beats it), equal, undecided, diverged.
    """
    done = [t for t in result.cells[0].trials if t.state == "COMPLETE" and t.value is not None]
    best = sorted(done, key=lambda t: t.value or 0.0)[: 1 + len(verdicts)]
    best.insert(0, best.pop(ahead))
    base = (best[0].value or 0.0) * 1.1
    gaps = {"better": 0.004, "equal": 0.0001, "undecided": 0.002}
    scores: dict[str, dict[str, Any]] = {str(best[0].number): {"mean": base, "sd": 0.0031}}
    pairs = []
    for other, verdict in zip(best[1:], verdicts, strict=True):
        if verdict == "diverged":
            said = f"trial {other.number} diverged under 2 of 10 seeds"
            scores[str(other.number)] = {"mean": None, "sd": None, "diverged": 2, "sentence": said}
            continue
        gap, half = gaps[verdict], 0.0002 if verdict == "equal" else 0.003
        scores[str(other.number)] = {"mean": base + gap, "sd": 0.0029}
        more = "about 14 more seeds would decide, at a second look, which the interval does not allow for"
        end = more if verdict == "undecided" else verdict
        sentence = f"trials {best[0].number} and {other.number}: {gap - half:.4f}..{gap + half:.4f}; {end}"
        pairs.append({"trial": other.number, "difference": gap, "low": gap - half, "high": gap + half,
                      "verdict": verdict, "sentence": sentence})  # fmt: skip
    holdout = {"trial": best[0].number, "score": base * 1.08, "sd": 0.004, "opened": 2}
    return replace(result, holdout={**(result.holdout or holdout), "opened": 2}, confirmation={
        "seeds": 10, "rows": 359, "best": best[0].number, "scores": scores, "pairs": pairs, "holdout": holdout,
        "sentences": [p["sentence"] for p in pairs],
    })  # fmt: skip


def heavy(trials: int = 200, epochs: int = 30) -> StudyResult:
    """Return a study in which nothing was pruned and nothing failed: every curve is whole, with four metrics."""
    rng = random.Random(7)
    light = study(trials, epochs=epochs)
    whole: list[TrialResult] = []
    for one in light.cells[0].trials:
        floor = 0.06 + 0.1 * rng.random()
        curve = tuple(floor + 0.4 * math.exp(-e / 6) + rng.gauss(0, 0.001) for e in range(epochs))
        names = ("binary_classification_cross_entropy", "binary_classification_accuracy", "binary_f_beta", "auc")
        whole.append(replace(one, state="COMPLETE", value=curve[-1], curve=curve, best_epoch=epochs, reason=None,
                             metrics={name: curve[-1] * (1 + i) for i, name in enumerate(names)},
                             seconds=rng.random(), rows_per_s=1e6 * rng.random(), model_bytes=4 * 65 * one.number))
    dense = tuple(replayed(rng, t) for t in whole)
    result = replace(light, cells=(cell("sparse", tuple(whole)), cell("dense", dense)), selection=selection(whole))
    return confirmed(result, "undecided", "better")


def trial(rng: random.Random, number: int, trials: int, epochs: int) -> TrialResult:
    """Return one trial whose score depends on its parameters as a real one's would."""
    focus = 0.55 * min(1.0, number / (0.6 * trials)) if number > 10 else 0.0  # a sampler that learns
    params = {
        "num_factors": round(math.exp(_pull(rng, math.log(2), math.log(32), math.log(12), focus))),
        "factors_lr": math.exp(_pull(rng, math.log(1e-4), math.log(0.3), math.log(0.02), focus)),
        "linear_lr": math.exp(_pull(rng, math.log(1e-4), math.log(0.3), math.log(0.01), focus)),
        "factors_wd": math.exp(_pull(rng, math.log(1e-7), math.log(1e-2), math.log(1e-4), focus)),
        "linear_wd": math.exp(rng.uniform(math.log(1e-7), math.log(1e-2))),
        "factors_init_sigma": math.exp(_pull(rng, math.log(1e-3), math.log(0.3), math.log(0.05), focus)),
        "optimizer": "adam" if rng.random() < 0.6 + focus / 2 else "adagrad",
    }
    seconds = (0.15 + 0.02 * params["num_factors"]) * rng.uniform(0.9, 1.1)
    if params["factors_lr"] > 0.1 and rng.random() < 0.7:
        at = rng.randint(1, 4)
        curve = tuple(0.4 * 1.7**e for e in range(1, at + 1))
        return TrialResult(number, "FAIL", params, None, curve, seconds=seconds * at / epochs,
                           reason=f"diverged at epoch {at + 1}")  # fmt: skip
    miss = (
        0.012 * math.log(params["factors_lr"] / 0.02) ** 2
        + 0.010 * math.log(params["num_factors"] / 12) ** 2
        + 0.004 * math.log(params["linear_lr"] / 0.01) ** 2
        + 0.001 * math.log(params["factors_wd"] / 1e-4) ** 2
        + (0.03 if params["optimizer"] == "adagrad" else 0.0)
    )
    floor = 0.061 + 0.5 * miss / (1 + miss) + rng.gauss(0, 0.003)
    pace = 2.5 / (1 + 3 * miss)
    curve = tuple(
        floor + (0.45 - floor) * math.exp(-pace * e / 6) + max(0.0, e - 14) * 0.0006 + rng.gauss(0, 0.0008)
        for e in range(1, epochs + 1)
    )
    if number > 8 and curve[5] > 0.165:
        return TrialResult(number, "PRUNED", params, None, curve[:6], seconds=seconds * 6 / epochs,
                           rows_per_s=21_560 / seconds, reason="pruned after epoch 6: below the median")  # fmt: skip
    value = min(curve)
    metrics = {"binary_classification_cross_entropy": curve[-1], "binary_classification_accuracy": 1 - 0.3 * curve[-1],
               "auc": 1 - 0.05 * curve[-1]}  # fmt: skip
    return TrialResult(number, "COMPLETE", params, value, curve, curve.index(value) + 1, metrics, seconds,
                       21_560 / seconds, None, 4 * 64 * (1 + params["num_factors"]))  # fmt: skip


def replayed(rng: random.Random, first: TrialResult) -> TrialResult:
    """Return the same trial as another layout would have scored it: the last digits differ, and the time."""
    factor = rng.uniform(0.38, 0.46)
    seconds = None if first.seconds is None else first.seconds * factor
    curve = tuple(v * (1 + rng.gauss(0, 2e-6)) for v in first.curve)
    value = None if first.value is None else min(curve)
    rate = None if first.rows_per_s is None else first.rows_per_s / factor
    return replace(first, curve=curve, value=value, seconds=seconds, rows_per_s=rate)


def cell(layout: str, trials: tuple[TrialResult, ...], device: str = "cpu", **changes: Any) -> CellResult:
    """Return a cell with its totals."""
    seconds = sum(t.seconds or 0.0 for t in trials)
    rows = sum((t.rows_per_s or 0.0) * (t.seconds or 0.0) for t in trials)
    values: dict[str, Any] = {
        "seconds": seconds or None, "rows_per_s": rows / seconds if seconds else None, "peak_mb": 214.3,
    }  # fmt: skip
    return CellResult(device, layout, trials, **(values | changes))


def not_run(device: str = "gpu", layout: str = "dense") -> CellResult:
    """Return a cell that could not run."""
    return CellResult(device, layout, (), note="not run: no CUDA device")


def of_state(state: str, trials: int = 5, **changes: Any) -> StudyResult:
    """Return a study whose trials all ended in one state (or are still in it)."""
    reason = {"FAIL": "diverged at epoch 2", "PRUNED": "pruned after epoch 1"}.get(state)
    some = tuple(
        TrialResult(n, state, {"factors_lr": 0.1 + n / 100, "optimizer": "adam"}, curve=(0.7, 0.9), reason=reason)
        for n in range(trials)
    )
    return study(2, cells=(cell("sparse", some), cell("dense", some)), **({"holdout": None, "model_path": None,
                 "importance": {}, "n_trials": trials} | changes))  # fmt: skip


def _pull(rng: random.Random, low: float, high: float, best: float, focus: float) -> float:
    return (1 - focus) * rng.uniform(low, high) + focus * best
