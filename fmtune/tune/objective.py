"""Objective: what any Optuna script can use by itself, without a study file.

>>> objective = fmtune.Objective(train, test, search_space={"num_factors": "2..32 log"})  # doctest: +SKIP
>>> study = optuna.create_study(direction=objective.direction)  # doctest: +SKIP
>>> study.optimize(objective, n_trials=20)            # packs of one lane  # doctest: +SKIP
>>> fmtune.optimize(study, objective, n_trials=100)   # full packs  # doctest: +SKIP
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState

from fmtune.errors import UsageError
from fmtune.fm.fit import Channels, Progress, default_objective
from fmtune.fm.hyperparameters import PARAMETERS, Hyperparameters, cpu_only
from fmtune.fm.metrics import METRICS
from fmtune.machine import cores
from fmtune.tune import checks, remarks
from fmtune.tune.devices import choose
from fmtune.tune.dimension import Dimension
from fmtune.tune.driver import Driver, Job, Outcome, seeds_of
from fmtune.tune.given import Data, as_channels
from fmtune.tune.places import shown
from fmtune.tune.space import distributions

Callbacks = Iterable[Callable[[optuna.Study, FrozenTrial], object]]


class Objective:
    """A plain callable for ``study.optimize``: suggests, trains, reports each epoch's test score, and prunes.

    Parameters
    ----------
    train, test
        Rows, ``(X, y)``, or files; the score is computed on ``test``.
    search_space
        Parameter to its range or choices, as in a study file: ``"1e-4..1 log"``, ``["adam", "adagrad"]``; or to an
        Optuna distribution.
    objective
        A SageMaker metric name (``test:rmse``), which says what is trained; by default RMSE, or log loss where
        ``predictor_type`` is ``binary_classifier``.
    hyperparameters
        Values that are not searched.
    layout
        ``sparse`` or ``dense``; by default the data's own.
    device
        ``cpu``, ``gpu``, or ``auto``: a card if there is one that can be used.
    seeds
        Lanes a trial; the score is their mean.
    groups
        Runs of features with priors of their own: name to first feature.

    Raises
    ------
    UsageError
        An unknown parameter, an impossible range, a metric that does not fit the predictor type.
    DataError
        The data cannot be used.
    """

    def __init__(
        self, train: Data, test: Data, *, search_space: Mapping[str, Any], objective: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None, layout: str | None = None, seeds: int = 1,
        groups: Mapping[str, Any] | Sequence[int] | None = None, device: str = "cpu",
    ) -> None:  # fmt: skip
        fixed = dict(hyperparameters or {})
        if objective is not None:
            metric = METRICS.get(objective.removeprefix("test:"))
            if metric is None:
                raise UsageError(
                    f"unknown objective {objective!r}", hint="one of " + ", ".join(f"test:{m}" for m in METRICS)
                )
            if fixed.setdefault("predictor_type", metric.predictor_type) != metric.predictor_type:
                raise UsageError(f"{objective} is not a metric of predictor_type {fixed['predictor_type']}")
        self._values, self._fixed = fixed, Hyperparameters.of(fixed)
        self.metric = (objective or default_objective(self._fixed.predictor_type)).removeprefix("test:")
        self.direction = METRICS[self.metric].direction
        space = _space(search_space, fixed)
        self._distributions = distributions(space)
        remarks.of_ranges(space, {name: getattr(self._fixed, name) for name in fixed})
        self.channels = as_channels(train, test, self._fixed.predictor_type == "binary_classifier", groups)
        if objective is None:
            remarks.of_classes(self.channels, hyperparameters or {})
        self.layout, self.seeds = layout or self.channels.train.layout, seeds
        self.device = choose(device, self.layout, cpu_only((self._fixed.solver,), (self._fixed.optimizer,)))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or another process needs; mini-batches are made anew there."""
        channels = self.channels
        return {**vars(self), "channels": (channels.train, channels._test, channels.groups)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, channels=Channels(*state["channels"]))

    def configuration(self, trial: Trial | FixedTrial) -> Hyperparameters:
        """Return what the trial suggests, over the fixed values."""
        found = {name: trial._suggest(name, d) for name, d in self._distributions.items()}
        return Hyperparameters.of({**self._values, **found})

    def job(self, trial: Trial | FixedTrial) -> Job:
        """Return the trial as work for a pack."""
        h = self.configuration(trial)
        return Job(trial.number, seeds_of(h, self.seeds), Progress(self.direction, h.patience), h.epochs, trial)

    def __call__(self, trial: Trial | FixedTrial) -> float:
        """Train one trial; raises ``optuna.TrialPruned`` when the pruner says so.

        A trial that diverges returns NaN, which Optuna makes FAIL; its user attribute ``reason`` says at which epoch.
        """
        if isinstance(trial, Trial):  # a FixedTrial has no study
            _fitting(trial.study, self)
        source = _One(self.job(trial))
        Driver(
            source, self.channels, self.layout, self.metric, lanes=self.seeds, threads=1, device=self.device
        ).run()  # fmt: skip
        ended = source.outcome
        assert ended is not None
        _note(trial, ended)
        if ended.state == "PRUNED":
            raise optuna.TrialPruned(ended.reason)
        return math.nan if ended.value is None else ended.value


def _space(raw: Mapping[str, Any], fixed: Mapping[str, Any]) -> Mapping[str, Dimension]:
    ranges = {name: _range(name, given) for name, given in raw.items()}
    space, wrong = checks.search_space(ranges, {k: v for k, v in fixed.items() if k != "predictor_type"}, ())
    if wrong:
        raise UsageError("; ".join(fault.what for fault in wrong), where="search_space", hint=wrong[0].hint)
    return space


def _range(name: str, given: Any) -> Any:
    """Return a range as a study file has it, from one or from an Optuna distribution; a tuple could mean two things."""
    if isinstance(given, CategoricalDistribution):
        return list(given.choices)
    if isinstance(given, IntDistribution | FloatDistribution):
        own = _NUMERIC.get(PARAMETERS[name].type) if name in PARAMETERS else None
        if own is not None and not isinstance(given, own):
            raise UsageError(
                f"{name} is of type {PARAMETERS[name].type.__name__}, which {type(given).__name__} is not",
                where="search_space", hint=f"give {own.__name__}({given.low:g}, {given.high:g})",
            )  # fmt: skip
        # A step of 1 is that of whole numbers anyway, and a study file has none beside log.
        step = None if own is IntDistribution and given.step == 1 else given.step
        return {"low": given.low, "high": given.high, "log": given.log, "step": step}
    if isinstance(given, tuple):
        hint = f"write {list(given)} for choices"
        if len(given) == 2 and all(isinstance(end, int | float) for end in given):
            ends = f"{given[0]}..{given[1]}"
            hint = f'write "{ends}" or "{ends} log" for a range, {list(given)} for choices'
        what = f"{name} must be a range or a list of choices, not the tuple {shown(given)}"
        raise UsageError(what, where="search_space", hint=hint)
    return given


_NUMERIC: dict[type, type] = {int: IntDistribution, float: FloatDistribution}


def optimize(
    study: optuna.Study, objective: Objective, n_trials: int | None = None, *, timeout: float | None = None,
    callbacks: Callbacks | None = None, lanes: int | None = None, threads: int | None = None,
) -> None:  # fmt: skip
    """Run trials of a study in full packs, where ``study.optimize`` would run packs of one.

    ``study.stop()``, of a callback or a sampler, ends the search after the trials that run.  Whatever else ends it is
    raised, and the trials that ran are FAIL.  A warning says so where the study's best score is then hardly better than
    predicting the mean of the train labels.

    Parameters
    ----------
    study
        Any Optuna study of the objective's direction; its own sampler, pruner and storage are used.
    objective
        What to train.
    n_trials
        How many trials to add; None is until ``timeout`` or ``study.stop()``.
    timeout
        Seconds after which no trial begins any more; those that run are trained to their end.
    callbacks
        Each is called with the study and the finished trial, as ``study.optimize`` does.
    lanes
        How many train side by side.  A sampler does not know the scores of trials that still run, so the default is
        an eighth of ``n_trials``; but 4 at least, since most samplers choose their first ten trials by chance, and 16
        at most.  Without ``n_trials`` it is 8.
    threads
        Packs that train at once; by default as many as there are processors.

    Raises
    ------
    UsageError
        The study has another direction than the objective, or several.
    """
    _fitting(study, objective)
    wide = lanes or (8 if n_trials is None else max(4, min(16, n_trials // 8))) * objective.seeds
    limit = math.inf if timeout is None else timeout
    with _AskTell(study, objective, _most(study, n_trials), limit, callbacks) as source:
        Driver(
            source, objective.channels, objective.layout, objective.metric, lanes=wide, threads=threads or cores(),
            device=objective.device,
        ).run()  # fmt: skip
    values = [t.values[0] for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.values]
    if values:
        best = min(values) if objective.direction == "minimize" else max(values)
        remarks.of_score(objective.channels, objective.metric, best)


def _fitting(study: optuna.Study, objective: Objective) -> None:
    """Raise UsageError unless the study wants what the objective gives."""
    directions = [direction.name.lower() for direction in study.directions]
    if directions != [objective.direction]:
        wants = f"it has {len(directions)} objectives" if len(directions) > 1 else f"its direction is {directions[0]}"
        raise UsageError(
            f"{wants}, but test:{objective.metric} is one value to {objective.direction}", where="study",
            hint=f"optuna.create_study(direction={objective.direction!r}), or direction=objective.direction",
        )  # fmt: skip


def _most(study: optuna.Study, n_trials: int | None) -> float:
    """Return how many trials may be asked for: no more than a grid has points, which while they run it gives again."""
    most = math.inf if n_trials is None else n_trials
    if isinstance(study.sampler, optuna.samplers.GridSampler):
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        most = min(most, len(waiting) + len(study.sampler._get_unvisited_grid_ids(study)))
    return most


def _note(trial: Trial | FixedTrial, ended: Outcome) -> None:
    for key in ("seconds", "rows_per_s", "metrics", "best_epoch", "epochs", "model_bytes", "reason"):
        if (value := getattr(ended, key)) is not None:
            trial.set_user_attr(key, value)


class _One:
    """A source of one job."""

    def __init__(self, job: Job) -> None:
        self._job: Job | None = job
        self.outcome: Outcome | None = None

    def next(self) -> Job | None:
        job, self._job = self._job, None
        return job

    def pause(self) -> None: ...

    def report(self, job: Job, epoch: int, score: float) -> bool:
        job.token.report(score, epoch)
        return bool(job.token.should_prune())

    def finish(self, job: Job, outcome: Outcome) -> None:
        self.outcome = outcome

    def give_back(self, job: Job) -> None: ...

    def tick(self, row_lanes: float, seconds: float) -> None: ...


class _AskTell:
    """A source that asks a study for trials and tells it how they ended; as a context it leaves none running.

    Inside of it ``study.stop()`` is heard, as it is inside ``study.optimize``: callbacks and samplers call it.
    """

    def __init__(
        self, study: optuna.Study, objective: Objective, n_trials: float, timeout: float, callbacks: Callbacks | None
    ) -> None:  # fmt: skip
        self._study, self._objective, self._left = study, objective, n_trials
        self._until, self._callbacks = time.monotonic() + timeout, tuple(callbacks or ())
        self._running: dict[int, Trial] = {}

    def __enter__(self) -> Self:
        if self._study._thread_local.in_optimize_loop:
            raise UsageError("the study is being optimized already", where="optimize", hint="call it outside of trials")
        self._study._stop_flag, self._study._thread_local.in_optimize_loop = False, True
        return self

    def __exit__(self, *error: object) -> None:
        try:
            for trial in self._running.values():
                # The sampler is told and may raise; by then the state is stored, and what came first is raised.
                with suppress(Exception):
                    self._study.tell(trial, state=TrialState.FAIL)
        finally:
            self._study._thread_local.in_optimize_loop = False

    def next(self) -> Job | None:
        if self._left <= 0 or self._study._stop_flag or time.monotonic() >= self._until:
            return None
        self._left -= 1
        trial = self._study.ask()
        self._running[trial.number] = trial
        return self._objective.job(trial)

    def pause(self) -> None: ...

    def report(self, job: Job, epoch: int, score: float) -> bool:
        job.token.report(score, epoch)
        return bool(job.token.should_prune())

    def finish(self, job: Job, outcome: Outcome) -> None:
        _note(job.token, outcome)
        value = outcome.value if outcome.state == "COMPLETE" else None
        ended = self._study.tell(job.token, value, TrialState[outcome.state])
        del self._running[job.number]
        _log(self._study, ended, outcome.reason)
        for callback in self._callbacks:
            callback(self._study, copy.deepcopy(ended))

    def give_back(self, job: Job) -> None: ...

    def tick(self, row_lanes: float, seconds: float) -> None: ...


def _log(study: optuna.Study, ended: FrozenTrial, reason: str | None) -> None:
    """Say how a trial ended in the words, and by the logger, of ``study.optimize``."""
    logger = optuna.logging.get_logger("optuna.study.study")
    if ended.state == TrialState.COMPLETE:
        study._log_completed_trial(ended.values, ended.number, ended.params)
    elif ended.state == TrialState.PRUNED:
        logger.info(f"Trial {ended.number} pruned. {reason}")
    else:
        logger.warning(f"Trial {ended.number} failed with parameters: {ended.params} because of: {reason}.")
