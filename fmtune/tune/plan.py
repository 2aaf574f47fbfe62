"""Plan: what a run would do, said before anything runs."""

from __future__ import annotations

import psutil

from fmtune.fm.hyperparameters import PARAMETERS, Hyperparameters
from fmtune.fm.metrics import METRICS
from fmtune.fm.pack import bytes_of
from fmtune.tune.channels import bring, folder_of
from fmtune.tune.space import canonical, difference
from fmtune.tune.spec import Spec
from fmtune.tune.storage import Store, open_storage, redacted, sqlite_url
from fmtune.tune.study import DEVICES, lanes_of


def lines(spec: Spec) -> list[str]:
    """Return the plan of a study file, a line each: data, cells, trials, packs, memory, what is new.

    Raises
    ------
    DataError, StorageError
        As the run would.
    """
    data = bring(spec)
    stored, lag = _stored(spec)
    lanes, lag = lanes_of(spec, lag)
    train = data.stats["train"]
    said = [f"study {spec.study_name}: {spec.objective} ({spec.direction}), {data.description}"]
    for name, s in data.stats.items():
        dense = s["nnz"] / max(1, s["rows"])
        said.append(f"  {name}: {s['rows']:,} rows, {s['feature_dim']:,} features, {dense:.1f} non-zeros a row")
    searched = False
    for cell in spec.matrix.cells:
        if cell.device not in DEVICES:
            said.append(f"cell {cell.device}-{cell.layout}: will not run: no CUDA device")
            continue
        role = (
            "replays the searching cell's trials"
            if searched
            else f"searches with {spec.sampler.name}, {spec.pruner.name}"
        )
        searched = True
        said.append(f"cell {cell.device}-{cell.layout}: {spec.n_trials} trials, {role}")
    said.append(f"packs: {lanes} lanes at once ({spec.seeds} a trial), lag {lag}; {_sharing(spec)}")
    most = bytes_of(_largest(spec), train["feature_dim"])
    free = psutil.virtual_memory().available
    said.append(f"memory: at most {most * lanes / 2**20:.1f} MiB for parameters, of {free / 2**30:.1f} GiB free")
    said.append(stored)
    return said


def _sharing(spec: Spec) -> str:
    shapes = [n for n in ("mini_batch_size", "optimizer", "lazy", "shuffle", "shuffle_seed") if n in spec.search_space]
    if not shapes:
        return "all trials can share a pass"
    return f"trials share a pass where {', '.join(shapes)} agree"


def _largest(spec: Spec) -> Hyperparameters:
    """Return the configuration that needs the most memory."""
    dimension = spec.search_space.get("num_factors")
    most = {} if dimension is None else {"num_factors": max(dimension.choices or (dimension.high,))}  # type: ignore[type-var]
    optimizer = spec.search_space.get("optimizer")
    rule = {"optimizer": PARAMETERS["optimizer"].default} if optimizer is not None else {}
    return Hyperparameters.of({**spec.hyperparameters, **most, **rule})


def _stored(spec: Spec) -> tuple[str, int | None]:
    """Return what is stored already, in words, and the study's lag."""
    url = spec.storage or sqlite_url(folder_of(spec.study_name))
    if spec.storage is None and not (folder_of(spec.study_name) / "study.db").exists():
        return f"storage: {redacted(url)}: a new study", None
    store = Store(open_storage(url), spec.study_name, METRICS[spec.metric].direction)
    attrs, trials = store.attrs(), store.trials()
    done = sum(t.state.is_finished() for t in trials)
    if "fmtune:canonical" in attrs and (changed := difference(attrs["fmtune:canonical"], canonical(spec))):
        return f"storage: {redacted(url)}: refused, another setting: {'; '.join(changed)}", attrs.get("fmtune:lag")
    again = sum(not t.state.is_finished() for t in trials)
    left = max(0, spec.n_trials - done)
    return f"storage: {redacted(url)}: {done} trials are done, {again} start again, {left} to go", attrs.get(
        "fmtune:lag"
    )
