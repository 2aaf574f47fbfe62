"""Plan: what a run would do, said before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import optuna
from sqlalchemy import URL, make_url

from fmtune.data.download import Progress
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Channels
from fmtune.machine import free_memory
from fmtune.tune import devices, probe
from fmtune.tune.admission import lanes_of
from fmtune.tune.amount import size
from fmtune.tune.budget import Budget, budget, largest
from fmtune.tune.channels import bring
from fmtune.tune.collect import collect
from fmtune.tune.driver import WIDTH
from fmtune.tune.duration import Duration, probed, remembered
from fmtune.tune.folder import folder_of
from fmtune.tune.places import redacted
from fmtune.tune.rehearsal import Scene, play
from fmtune.tune.result import CellResult
from fmtune.tune.space import canonical, difference
from fmtune.tune.spec import Cell, Spec
from fmtune.tune.storage import open_storage, sqlite_url


def lines(
    spec: Spec, progress: Progress | None = None, workers: Sequence[int] = (), failures: float = 0.0
) -> list[str]:  # fmt: skip
    """Return the plan of a study file, a line each: data, cells, trials, packs, memory, what is new.

    ``progress`` is called while a card's files are downloaded.  How long the trials to go take is told by those that
    have ended or, in a new study, by a few configurations that are trained for a moment.  For each number of
    ``workers`` the study is played through, each of which fails once in ``failures`` hours on the average.

    Raises
    ------
    DataError, StorageError
        As the run would.
    """
    data = bring(spec, progress)
    stored = _stored(spec)
    lanes, lag = lanes_of(spec, stored.lag)
    said = [f"study {spec.study_name}: {spec.objective} ({spec.direction}); {data.description}"]
    for name, s in data.stats.items():
        filled = s["nnz"] / max(1, s["rows"])
        said.append(f"  {name}: {s['rows']:,} rows, {s['feature_dim']:,} features, {filled:.1f} non-zeros a row")
    said += _cells(spec)
    may = budget(spec, data.channels.feed, lanes)
    data.channels.feed.memory = may.batches
    at_once = max(spec.seeds, may.at_once(lanes, spec.seeds))
    runs = [cell for cell in devices.cells(spec)[0] if devices.missing(cell, spec.cpu_only) is None]
    left = _left(spec, runs, stored)
    over = bool(left) and not any(left.values())
    if over:
        all_done = "nothing is left to do: all trials are done, and the winner is chosen; a larger n_trials goes on"
        said.append(all_done if stored.concluded else "no trial is left to do; the winner is still to be trained")
    elif len(runs) > 1 and spec.solvers == ("sgd",):
        said.append(probe.fastest(runs, data.channels.train, largest(spec), at_once))
    if spec.cluster is not None:
        return [*said, _cluster(spec), f"storage: {stored.where}: {stored.words}"]
    seeds = f", {spec.seeds} of them a trial" if spec.seeds > 1 else ""
    said.append(
        f"packs: {lanes} {'lane' if lanes == 1 else 'lanes'} at once{seeds}, at most {WIDTH} floats side by side; "
        f"lag {lag}; {_sharing(spec)}"
    )
    said.append(_memory(spec, may, lanes))
    said.append(_feeding(spec, data.channels.feed))
    if not over:
        found = _durations(spec, data.channels, at_once, left, stored)
        said += _times(spec, found, left)
        said += _on_many(spec, found, left, (at_once, lag), workers, failures)
    said.append(f"storage: {stored.where}: {stored.words}")
    return said


class _Stored(NamedTuple):
    """What the database holds already, in words; the study's lag; what its cells came to; whether it was concluded."""

    where: str
    words: str
    lag: int | None = None
    cells: Mapping[str, CellResult] = MappingProxyType({})
    concluded: bool = False


def _left(spec: Spec, runs: Sequence[Cell], stored: _Stored) -> dict[Cell, int]:
    """Return how many trials each cell that runs still has to train."""
    trials = {cell: stored.cells[cell.name].trials if cell.name in stored.cells else () for cell in runs}
    # Those that were put there by Optuna's own means are run beyond n_trials, and all that were searched are replayed.
    most = max([spec.n_trials, *map(len, trials.values())])
    return {cell: most - sum(trial.state in _ENDED for trial in own) for cell, own in trials.items()}


_ENDED = ("COMPLETE", "PRUNED", "FAIL")


def _cells(spec: Spec) -> Iterator[str]:
    searched = False
    cells, notes = devices.cells(spec)
    yield from notes
    for cell in cells:
        why = devices.missing(cell, spec.cpu_only)
        if why:
            yield f"cell {cell.name}: will not run: {why}"
            continue
        role = f"searches with {spec.sampler.name}, prunes with {spec.pruner.name}"
        again = "replays the same trials" + (", in whatever time it takes" if spec.timeout is not None else "")
        yield f"cell {cell.name}: {spec.n_trials} trials, {again if searched else role}"
        searched = True


def _durations(
    spec: Spec, channels: Channels, lanes: int, left: Mapping[Cell, int], stored: _Stored
) -> dict[Cell, Duration | None]:  # fmt: skip
    """Return what trials take in each cell of which it can be told: as those took that ended, else as a probe does."""
    past = {cell: remembered(stored.cells[cell.name]) for cell in left if cell.name in stored.cells}
    return {
        cell: past.get(cell) or probed(spec, cell, channels, lanes)
        for cell in left if cell.device == "cpu" or past.get(cell)
    }  # fmt: skip


def _times(spec: Spec, found: Mapping[Cell, Duration | None], left: Mapping[Cell, int]) -> Iterator[str]:
    """Say how long each cell takes; the timeout ends the search, and so what is replayed."""
    fewer, searched = 0, devices.first(spec)
    for cell, of in found.items():
        trials = max(0, left[cell] - fewer)
        if of is None:
            yield f"time of {cell.name}: not probed, for want of memory"
            continue
        if not trials:
            yield f"time of {cell.name}: no trials are left"
            continue
        middle, high = (timedelta(seconds=math.ceil(min(trials * each, 1e12))) for each in (of.middle, of.high))
        many = f"{trials} {'trial' if trials == 1 else 'trials'}"
        words = f"time of {cell.name}: {many} to train, about {middle}"
        if high > middle:
            words += f", or {high} if all are as the dearest quarter"
        if cell == searched and spec.timeout is not None and trials * of.high > spec.timeout:
            within = [min(trials, int(spec.timeout / each)) for each in (of.high, of.middle)]
            fewer = trials - within[1]
            comes = "comes" if fewer else "may come"
            words += f"; the timeout {comes} first, after {' to '.join(map(str, dict.fromkeys(within)))} trials or so"
        elif fewer:
            words += ", for what the search comes to"
        yield f"{words} (hours:minutes:seconds, less what ends early; {of.basis})"


def _cluster(spec: Spec) -> str:
    of = spec.cluster
    assert of is not None
    return (
        f"cluster {of.address}: one trial at a time, on {of.workers} workers and {of.shards} shards; {of.parts} parts "
        f"exchange what changed every {of.block:,} rows each, as {of.exchange}; its time is not probed"
    )


def _on_many(
    spec: Spec, durations: Mapping[Cell, Duration | None], left: Mapping[Cell, int], width: tuple[int, int],
    workers: Sequence[int], failures: float,
) -> Iterator[str]:  # fmt: skip
    """Say what becomes of the study on so many workers, machines like this one; ``width`` is lanes and lag."""
    lanes, lag = width
    cell = devices.first(spec)
    found = durations.get(cell)
    for number in workers if found is not None and left[cell] else ():
        assert found is not None
        jobs = max(1, lanes // spec.seeds)
        scene = Scene(
            number, left[cell], found.middle, lanes=jobs, lag=lag, grace=spec.grace, failures=3600 * failures,
        )  # fmt: skip
        played = play(scene)
        lost = played.lost / max(played.worked, 1e-9)
        few = f"; write lag: {2 * number * jobs}, so that all have work" if lag < number * jobs else ""
        who, whole = "1 worker" if number == 1 else f"{number} workers", timedelta(seconds=math.ceil(played.seconds))
        yield (
            f"{who}, played through with lag {lag}: {whole}; "
            f"{lost:.1%} of the work is lost to {played.killed + played.cut} failures; the workers are idle "
            f"{played.idle:.0%} of the time; {played.rate:.1f} operations of the storage a second{few}"
        )


def _sharing(spec: Spec) -> str:
    shaping = ("solver", "mini_batch_size", "optimizer", "lazy", "shuffle", "shuffle_seed", "positive_weight",
               "exact")  # fmt: skip
    shapes = [name for name in shaping if name in spec.search_space]
    if not shapes:
        return "all trials can share a pass"
    return f"trials of the same {' and '.join(shapes)} share a pass"


def _memory(spec: Spec, may: Budget, lanes: int) -> str:
    """Say what parameters and their state take at most, what they may take, and what that leads to."""
    words = f"memory: at most {size(may.lane)} a lane, {size(may.lane * lanes)} for all, of {size(free_memory())} free"
    if spec.memory is not None:
        words += f"; of the study's {size(spec.memory)} lanes may take {size(may.lanes)}, and as much again for copies"
    few = may.at_once(lanes, spec.seeds)
    if not few:
        more = ", or raise memory" if spec.memory is not None else ""
        return f"{words}: the largest trial does not fit and would be refused; search a smaller num_factors{more}"
    return f"{words}: {few} of the largest train at once" if few < lanes else words


def _feeding(spec: Spec, feed: Feed) -> str:
    """Say whether an epoch's mini-batches stay in memory."""
    need = feed.need(Recipe.of(largest(spec), spec.matrix.cells[0].layout))
    words = f"mini-batches: about {size(need)}, of {size(feed.memory)} that they may take"
    return f"{words}: kept" if need <= feed.memory else f"{words}: what does not fit is made anew in each epoch"


def _to_be_made(url: URL) -> bool:
    """Whether it names a file that is not there yet, in a folder that is."""
    file = Path(url.database or ".")
    return not url.host and not file.exists() and file.parent.is_dir()


def _stored(spec: Spec) -> _Stored:
    """Look at the database; nothing is made where there is none."""
    url = spec.storage or sqlite_url(folder_of(spec.study_name))
    where = redacted(url) if spec.storage else f"runs/{spec.study_name}/study.db"
    if spec.storage is None and not (folder_of(spec.study_name) / "study.db").exists():
        return _Stored(where, "a new study")
    if url.startswith("sqlite") and _to_be_made(make_url(url)):
        return _Stored(where, "a new study")
    try:
        study = optuna.load_study(study_name=spec.study_name, storage=open_storage(url))
    except KeyError:
        return _Stored(where, "a new study")
    attrs = study.user_attrs
    lag: int | None = attrs.get("fmtune:lag")
    changed = difference(attrs["fmtune:canonical"], canonical(spec)) if "fmtune:canonical" in attrs else []
    if changed:
        return _Stored(where, f"would be refused, it was begun with another setting: {'; '.join(changed)}", lag)
    found = collect(spec)
    states = [trial.state for trial in found.cells[0].trials] if found.cells else []
    done = sum(state in _ENDED for state in states)
    again = f", {len(states) - done} of them start again" if len(states) > done else ""
    words = f"{done} trials are done, {max(0, spec.n_trials - done)} to go{again}"
    return _Stored(where, words, lag, {cell.name: cell for cell in found.cells}, found.finished is not None)
