"""Logs: the lines that SageMaker's container prints, word for word; its tuner and dashboards read metrics from them."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fmtune.fm.metrics import Array, row_losses

NAMES: dict[str, tuple[str, str]] = {
    "rmse": ("rmse", "loss"),
    "mse": ("mse", "loss"),
    "absolute_loss": ("absolute_loss", "loss"),
    "binary_classification_accuracy": ("binary_classification_accuracy", "score"),
    "binary_classification_cross_entropy": ("binary_classification_cross_entropy", "loss"),
    "binary_f_beta": ("binary_f_1.000", "score"),
}
"""Metric -> its name in a line, and whether it is a loss or a score."""


class Tally:
    """Metrics over all rows seen so far, from raw scores; sums in float64.

    Parameters
    ----------
    predictor_type
        ``regressor`` or ``binary_classifier``.
    """

    def __init__(self, predictor_type: str) -> None:
        self.predictor_type = predictor_type
        self.rows = self._right = self._hits = self._said = self._true = 0
        self._loss = self._absolute = 0.0

    def add(self, scores: Array, labels: Array) -> None:
        """Take more rows: raw scores and labels, float32 (n,)."""
        self.rows += len(scores)
        self._loss += float(row_losses(scores, labels, self.predictor_type).sum())
        if self.predictor_type == "regressor":
            self._absolute += float(np.abs(scores.astype(np.float64) - labels).sum())
            return
        said, true = scores >= 0, labels >= 0.5
        self._right += int((said == true).sum())
        self._hits += int((said & true).sum())
        self._said += int(said.sum())
        self._true += int(true.sum())

    def metrics(self) -> dict[str, float]:
        """Return the metrics in the order of SageMaker's lines; NaN without rows."""
        n = self.rows or math.nan
        if self.predictor_type == "regressor":
            mse = self._loss / n
            return {"rmse": math.sqrt(mse) if mse >= 0 else math.nan, "mse": mse, "absolute_loss": self._absolute / n}
        both = self._said + self._true
        return {
            "binary_classification_accuracy": self._right / n,
            "binary_classification_cross_entropy": self._loss / n,
            "binary_f_beta": 2 * self._hits / both if both else 0.0,
        }


class Log:
    """Writes SageMaker's lines.

    Parameters
    ----------
    write
        Takes a line without its end.
    host
        ``algo-1`` and so on.
    clock
        Seconds since 1970.
    """

    def __init__(self, write: Callable[[str], None], host: str, clock: Callable[[], float] = time.time) -> None:
        self.write, self.host, self.clock = write, host, clock

    def info(self, text: str, level: str = "INFO") -> None:
        """Print a line with time and thread."""
        now = time.strftime("%m/%d/%Y %H:%M:%S", time.gmtime(self.clock()))
        self.write(f"[{now} {level} {threading.get_ident()}] {text}")

    def warning(self, text: str) -> None:
        """Print a warning."""
        self.info(text, "WARNING")

    def quality(self, metrics: Mapping[str, float], place: str) -> None:
        """Print a line for each metric; ``place`` is what stands between the host and its name."""
        for metric, value in metrics.items():
            name, kind = NAMES[metric]
            self.info(f"#quality_metric: host={self.host}, {place} {name} <{kind}>={value}")

    def batch(self, epoch: int, batch: int, metrics: Mapping[str, float]) -> None:
        """Print the train metrics from the epoch's begin up to a mini-batch (0-based)."""
        self.quality(metrics, f"epoch={epoch}, batch={batch} train")

    def speed(self, epoch: int, batch: int, rows_per_s: float) -> None:
        """Print how fast rows are trained on; ``#011`` is how the container's log shows a tab."""
        self.info(f"Iter[{epoch}] Batch [{batch}]#011Speed: {rows_per_s:.2f} samples/sec")

    def test(self, metrics: Mapping[str, float]) -> None:
        """Print the scores on the test channel."""
        for metric, value in metrics.items():
            self.info(f"#test_score ({self.host}) : {(NAMES[metric][0], value)!r}")
        self.quality(metrics, "test")

    def progress(self, done: int, epochs: int) -> None:
        """Print how far the training is."""
        self.info(f"#progress_metric: host={self.host}, completed {100.0 * done / epochs} % of epochs")

    def throughput(self, rows_per_s: float) -> None:
        """Print the speed of an epoch."""
        self.info(f"#throughput_metric: host={self.host}, train throughput={rows_per_s} records/second")

    def metrics(self, values: Mapping[str, float], began: float, **dimensions: Any) -> None:
        """Print a line of metrics as JSON; each value is a sum of one."""
        sums = {name: {"sum": float(value), "count": 1, "min": value, "max": value} for name, value in values.items()}
        where = {"Algorithm": "factorization-machines", "Host": self.host, "Operation": "training", **dimensions}
        line = {"StartTime": began, "EndTime": self.clock(), "Dimensions": where, "Metrics": sums}
        self.write(f"#metrics {json.dumps(line)}")

    def counts(self, counts: Counts, began: float, **dimensions: Any) -> None:
        """Print what was read of a channel."""
        self.metrics(counts.values(), began, **dimensions)


class Counts:
    """What was read of a channel, in all and since its last reset."""

    def __init__(self) -> None:
        self.records = self.batches = self.resets = self.most_records = self.most_batches = 0
        self.last_records = self.last_batches = 0

    def add(self, records: int, batches: int) -> None:
        """Take what was read since."""
        self.records, self.batches = self.records + records, self.batches + batches
        self.last_records, self.last_batches = self.last_records + records, self.last_batches + batches
        self.most_records = max(self.most_records, self.last_records)
        self.most_batches = max(self.most_batches, self.last_batches)

    def reset(self) -> None:
        """Begin again at the first record."""
        self.resets += 1
        self.last_records = self.last_batches = 0

    def values(self) -> dict[str, float]:
        """Return the counts under the container's names."""
        return {
            "Total Records Seen": self.records,
            "Total Batches Seen": self.batches,
            "Max Records Seen Between Resets": self.most_records,
            "Max Batches Seen Between Resets": self.most_batches,
            "Reset Count": self.resets,
            "Number of Records Since Last Reset": self.last_records,
            "Number of Batches Since Last Reset": self.last_batches,
        }
