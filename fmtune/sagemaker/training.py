"""Training of one job as SageMaker's container does it: windows of rows through a pack of one lane, and its log.

Rows go through in windows of whole mini-batches, so that a pipe or a file larger than memory is trained on as
it comes; where the windows end changes nothing in the result.  The test channel is scored once, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fmtune import __version__
from fmtune.errors import UsageError
from fmtune.fm.epoch import Batches
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Diverged
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import Array
from fmtune.fm.model import Model
from fmtune.fm.pack import Lane, Pack, Stopped
from fmtune.fm.solvers import compile_kernels
from fmtune.rows import Rows, SparseRows
from fmtune.sagemaker.channels import WINDOW, Channel, Stop, labels_of, never, windows
from fmtune.sagemaker.hosts import Hosts, Touched
from fmtune.sagemaker.hyperparameters import Job
from fmtune.sagemaker.logs import Counts, Log, Tally


@dataclass(frozen=True)
class Trained:
    """What a job came to: the model, the last epoch's train metrics, the test metrics, and whether it was stopped."""

    model: Model
    train: dict[str, float]
    test: dict[str, float] = field(default_factory=dict)
    stopped: bool = False


class _Belt(Feed):
    """What the pack reads: one window of rows after the other is put on it."""

    def __init__(self, feature_dim: int) -> None:
        self.feature_dim = feature_dim
        self.epoch = 0
        self.now: Feed | None = None

    def stretches(self, recipe: Recipe, epoch: int) -> Iterator[Batches]:
        """Yield the mini-batches of the window that lies on it; the pack's own count of passes means nothing here."""
        assert self.now is not None
        return self.now.stretches(recipe, self.epoch)


class Training:
    """One job under way.

    Parameters
    ----------
    job
        Its hyperparameters.
    train, test
        Its channels.
    log
        Where its lines go.
    stop
        Asked between windows.
    window
        Rows trained at a time, about; None takes one mini-batch where hosts exchange what changed.
    memory
        Bytes that a channel's rows may take; None is half of what is free.
    hosts
        The others that train the same model, if any.
    """

    def __init__(
        self, job: Job, train: Channel, test: Channel | None, log: Log, stop: Stop = never,
        window: int | None = None, memory: int | None = None, hosts: Hosts | None = None,
    ) -> None:  # fmt: skip
        self.job, self.channel, self.test_channel, self.log, self.stop = job, train, test, log, stop
        self.window, self.memory, self.hosts = window or (WINDOW if hosts is None else 1), memory, hosts
        self.began = log.clock()
        self._stopped = False

    def run(self, save: Callable[[Model], None]) -> Trained:
        """Train, hand the model to ``save``, and score the test channel.

        Raises
        ------
        UsageError, DataError
            Hyperparameters or data cannot be used.
        Diverged
            The train loss or the weights are no longer finite.
        Stopped
            ``stop`` said so before anything was trained.
        """
        self._prepare()
        metrics: dict[str, float] = {}
        done = 0
        for epoch in range(self.settings.epochs):
            found = self._epoch(epoch)
            if found is None:
                break
            metrics, done = found, epoch + 1
        else:
            self.log.quality(metrics, "train")
        if self.hosts is None:
            self.log.warning("wait_for_all_workers will not sync workers since the kv store is not running distributed")
        self.log.info("Pulling entire model from kvstore to finalize")
        pulled = self.log.clock()
        model = self._model(done)
        self.log.metrics({"finalize.time": 1000 * (self.log.clock() - pulled)}, pulled)
        save(model)
        if done < self.settings.epochs:
            self.log.warning(f"stopped in epoch {done}; the model is saved as it stands")
            return Trained(model, metrics, stopped=True)
        test = self._test()
        took = 1000 * (self.log.clock() - self.began)
        self.log.metrics({"setuptime": 1000 * (self.ready - self.began), "totaltime": took}, self.began)
        return Trained(replace(model, facts={**model.facts, "metrics": test}), metrics, test)

    def _prepare(self) -> None:
        """Look at the data, and make what they need: a sparse or a dense network."""
        log, job = self.log, self.job
        rows = self.channel.whole(self.memory)
        # The first part of the first epoch is kept for its training: a pipe cannot be opened twice.
        self._first: Iterator[Rows] = iter(()) if rows is not None else self.channel.blocks(0)
        peeked = rows if rows is not None else next(self._first)
        self.layout = peeked.layout
        self._peeked, self._rows = peeked, rows
        self.settings: Hyperparameters = job.model_settings(dense=self.layout == "dense")
        if rows is None and self.settings.shuffle != "none":
            raise UsageError(f"shuffle is {self.settings.shuffle!r}, but the train channel is a stream",
                             hint="set shuffle to 'none', or use File mode with enough memory")  # fmt: skip
        self.channel.check(self.settings.epochs)
        self._test_rows = None if self.test_channel is None else self.test_channel.whole(self.memory)
        log.info("Number of GPUs being used: 0")
        log.info(f"[{self.layout.capitalize()} network] Building a {self.layout} network.")
        compile_kernels(self.layout, optimizers=(self.settings.optimizer,), exact=self.settings.exact)
        self.recipe = Recipe.of(self.settings, self.layout)
        self.belt = _Belt(job.feature_dim)
        self.pack = Pack(self.belt, self.recipe)
        self.lane: Lane = self.pack.change(enter=[self.settings])[0]
        if self.hosts is not None:
            self._agree(self.hosts)
        log.info(f"Create Store: {'local' if self.hosts is None else 'dist_sync'}")
        self.ready = log.clock()
        log.metrics({"initialize.time": 1000 * (self.ready - self.began)}, self.began)
        self.counts = Counts()
        self.counts.add(min(peeked.n, self.settings.mini_batch_size), 1)
        self.counts.reset()
        log.counts(self.counts, self.ready, Meta="init_train_data_iter")
        self._kept: list[Feed] = []

    def _agree(self, hosts: Hosts) -> None:
        """See that all hosts train one model, and warn where they do the same work."""
        if self.settings.shuffle != "none":
            raise UsageError(f"shuffle is {self.settings.shuffle!r}, and there are {len(hosts.names)} hosts",
                             hint="several hosts take the rows in the file's order: set shuffle to 'none'")  # fmt: skip
        hosts.agree({"version": __version__, "network": self.layout, "hyperparameters": self.job.final})
        if not self.channel.sharded:
            self.log.warning("every host passes over all of the train channel, so that each mini-batch is learned "
                             f"{len(hosts.names)} times an epoch; ShardedByS3Key divides the work")  # fmt: skip

    def _touched(self, feed: Feed) -> Touched:
        state, rows = self.pack.state(), feed.rows
        some = isinstance(rows, SparseRows) and self.settings.lazy
        ids = np.unique(rows.indices) if some else np.arange(self.job.feature_dim)  # type: ignore[union-attr]
        return Touched.of(state, ids.astype(np.int64))

    def _meet(self, touched: Touched | None) -> bool:
        """After a window, or without one, let the hosts' changes come together; whether any had a window."""
        if self.hosts is None:
            return False
        worked = self.hosts.merge(self.pack.state(), touched, stop=self._stopped)
        self._stopped = self._stopped or self.hosts.stopped
        return worked

    def _windows(self, epoch: int) -> Iterable[Feed]:
        """Return an epoch's windows; those of rows in memory are cut and transposed once for all epochs."""
        size = max(1, self.window // self.settings.mini_batch_size) * self.settings.mini_batch_size
        if self._rows is None:
            blocks = self._begun(self._peeked, self._first) if epoch == 0 else self.channel.blocks(epoch)
            return (Feed(rows, keep=1) for rows in windows(blocks, size, self.layout))
        if not self._kept:
            n = self._rows.n
            step = size if self.settings.shuffle == "none" else n
            self._kept = [Feed(self._rows.slice(at, min(n, at + step)), keep=1) for at in range(0, n, step)]
        return self._kept

    @staticmethod
    def _begun(first: Rows, rest: Iterator[Rows]) -> Iterator[Rows]:
        yield first
        yield from rest

    def _unless_stopped(self, feeds: Iterable[Feed]) -> Iterator[Feed]:
        """Yield the windows until somebody asks to stop, also while a pipe is waited for."""
        try:
            for feed in feeds:
                if self.stop():
                    self._stopped = True
                    return
                yield feed
        except Stopped:
            self._stopped = True

    def _epoch(self, epoch: int) -> dict[str, float] | None:
        """Train one pass and print its lines; returns its train metrics, or None when it was stopped."""
        log, size, interval = self.log, self.settings.mini_batch_size, self.job.interval
        began = log.clock()
        tally = Tally(self.settings.predictor_type)
        lines = _Lines(log, epoch, size, interval, tally)
        self.counts.reset()
        records = 0
        for feed in self._unless_stopped(self._windows(epoch)):
            self.belt.now, self.belt.epoch = feed, epoch
            touched = None if self.hosts is None else self._touched(feed)
            scores = self.pack.epoch(record=True)[0]
            lines.add(scores, feed.labels(self.recipe, epoch), feed.n / max(self.pack.seconds, 1e-9))
            records += feed.n
            self.counts.add(feed.n, -(-feed.n // size))
            self._meet(touched)
            if self._stopped:
                return None
        # Hosts with fewer rows wait for the others; whoever was asked to stop says so.
        while self._meet(None) and not self._stopped:
            pass
        if self._stopped:
            return None
        metrics = tally.metrics()
        if not all(math.isfinite(value) for value in metrics.values()):
            raise Diverged(epoch + 1)
        seconds = max(log.clock() - began, 1e-9)
        log.quality(metrics, f"epoch={epoch}, train")
        times = {"epochs": float(self.settings.epochs)} if epoch == 0 else {}
        log.metrics({**times, "update.time": 1000 * seconds}, began)
        log.progress(epoch + 1, self.settings.epochs)
        log.counts(self.counts, began, epoch=epoch, Meta="training_data_iter")
        log.throughput(records / seconds)
        return metrics

    def _model(self, done: int) -> Model:
        facts: dict[str, Any] = {
            "sagemaker": {"network": self.layout, "training_parameters": self.job.final},
            "hyperparameters": self.settings.changed(), "epochs": done,
        }  # fmt: skip
        model = self.pack.model(self.lane, **facts)
        if not (np.isfinite(model.factors).all() and np.isfinite(model.linear).all() and math.isfinite(model.bias)):
            raise Diverged(max(1, done))
        return model

    def _test(self) -> dict[str, float]:
        if self.test_channel is None:
            return {}
        began, counts, tally = self.log.clock(), Counts(), Tally(self.settings.predictor_type)
        counts.reset()
        blocks = self.test_channel.blocks(0) if self._test_rows is None else iter((self._test_rows,))
        for rows in windows(blocks, WINDOW, self.layout):
            tally.add(self.pack.score(rows)[0], labels_of(rows))
            counts.add(rows.n, -(-rows.n // self.settings.mini_batch_size))
        self.log.counts(counts, began, Meta="test_data_iter")
        metrics = tally.metrics()
        self.log.test(metrics)
        return metrics


class _Lines:
    """Prints the lines of an epoch's mini-batches: the first, and each ``interval``-th from there on."""

    def __init__(self, log: Log, epoch: int, size: int, interval: int, tally: Tally) -> None:
        self.log, self.epoch, self.size, self.interval, self.tally = log, epoch, size, interval, tally
        self.batch = 0

    def add(self, scores: Array, labels: Array, rows_per_s: float) -> None:
        """Take whole mini-batches; the metrics of a line are those of all rows since the epoch's begin.

        ``rows_per_s`` is the speed of the window that they come from.
        """
        at = 0
        while at < len(scores):
            due = -(-self.batch // self.interval) * self.interval
            end = min(len(scores), at + (due - self.batch + 1) * self.size)
            self.tally.add(scores[at:end], labels[at:end])
            self.batch += -(-(end - at) // self.size)
            at = end
            if self.batch == due + 1:
                if due:
                    self.log.speed(self.epoch, due, rows_per_s)
                self.log.batch(self.epoch, due, self.tally.metrics())
