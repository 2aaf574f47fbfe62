"""Verbs: what ``fmtune sagemaker ...`` does, as functions; the server stands elsewhere."""

from __future__ import annotations

import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fmtune.errors import FmtuneError, ModelError, UsageError
from fmtune.fm.model import Model
from fmtune.fm.pack import Stopped
from fmtune.sagemaker import topn, training_job, tuning_export, tuning_job, warm_start
from fmtune.sagemaker.artifact import export_artifact, import_artifact
from fmtune.sagemaker.channels import Stop, never
from fmtune.sagemaker.container import Container
from fmtune.sagemaker.hosts import Hosts, joined
from fmtune.sagemaker.hyperparameters import DEFAULTS, Job
from fmtune.sagemaker.logs import Log
from fmtune.sagemaker.training import Training
from fmtune.tune import spec as specs

STOPPED = 128 + signal.SIGTERM


def train(
    root: str | Path = "/opt/ml", *, write: Callable[[str], None] | None = None, stop: Stop | None = None
) -> int:
    """Run the training job below ``root`` and return its exit code.

    0 is Completed; a failure's code is its error's (2 hyperparameters or channels, 3 data, 5 resources, 6 diverged,
    70 a fault of fmtune), with the reason in output/failure; 143 after SIGTERM, with the model as it stood.

    Parameters
    ----------
    root
        ``/opt/ml`` in a container.
    write
        Takes the lines of the log; None prints them.
    stop
        Asked between windows of rows; None heeds SIGTERM and SIGINT.
    """
    container = Container(Path(root))
    container.begin()
    say = _print if write is None else write
    with warnings.catch_warnings(), _signals(stop) as heeded:
        log = Log(say, "algo-1")
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: log.warning(str(message))
        try:
            return _train(container, log, heeded)
        except Stopped:
            log.warning("stopped; no part of the job after this point was done")
            return STOPPED
        except FmtuneError as error:
            log.info(container.fail(error), "ERROR")
            return error.exit_code
        except Exception as error:
            log.info(container.fail(error), "ERROR")
            return 5 if isinstance(error, (MemoryError, OSError)) else 70


def _train(container: Container, log: Log, stop: Stop) -> int:
    log.host, names = container.hosts()
    log.write("Docker entrypoint called with argument(s): train")
    log.write("Running default environment configuration script")
    provided = container.provided()
    log.info(f"Reading default configuration from default-conf.json: {DEFAULTS}")
    log.info(f"Merging with provided configuration from {container.config / 'hyperparameters.json'}: {provided}")
    job = container.job()
    log.info(f"Final configuration: {job.final}")
    for doubt in job.doubts():
        log.warning(doubt)
    if len(names) == 1:
        return _job(container, job, log, stop, None)
    with joined(log.host, names, stop) as hosts:
        return _job(container, job, log, stop, hosts)


def _job(container: Container, job: Job, log: Log, stop: Stop, hosts: Hosts | None) -> int:
    """Train what the job's channels hold here; the first host saves the model."""
    channels = container.channels(job, stop)
    log.info("Using default worker.")
    log.info("Checkpoint loading and saving are disabled.")

    def save(model: Model) -> None:
        if hosts is None or hosts.hub:
            log.info(f'Saved checkpoint to "{container.save(model)}"')

    done = Training(job, channels["train"], channels.get("test"), log, stop, hosts=hosts).run(save)
    return STOPPED if done.stopped else 0


def _print(line: str) -> None:
    print(line, flush=True)


@contextmanager
def _signals(stop: Stop | None) -> Iterator[Stop]:
    """Give a question that says True once SIGTERM or SIGINT has come, as long as this lasts.

    SageMaker waits 120 s after SIGTERM, so the model can be saved; whoever else wants the process gone within
    seconds (``fmtune.__main__``) is not asked meanwhile.
    """
    if stop is not None or threading.current_thread() is not threading.main_thread():
        yield stop or never
        return
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    wakeup = signal.set_wakeup_fd(-1)
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)


def import_model(artifact: Path, out: Path) -> dict[str, Any]:
    """Write a SageMaker artifact as a model of fmtune; returns what it is."""
    model = import_artifact(artifact)
    model.save(out)
    return {
        "predictor_type": model.predictor_type, "feature_dim": model.feature_dim, "num_factors": model.num_factors,
        "network": model.facts["sagemaker"]["network"], "model": str(out),
    }  # fmt: skip


def export_model(model: Path, out: Path, *, dense: bool | None = None) -> None:
    """Write a model of fmtune as SageMaker's model.tar.gz."""
    export_artifact(Model.load(model), out, dense=dense)


def vectors(model: Path, out: Path, items: str | None = None, users: str | None = None) -> dict[str, int]:
    """Write the vectors of items and users for nearest-neighbour search; ``model`` is of fmtune or SageMaker."""
    return topn.write(any_model(model), out, topn.span(items), topn.span(users))


def any_model(path: Path) -> Model:
    """Return a model of fmtune, or of SageMaker's (an artifact, or a folder with one)."""
    if path.is_dir():
        return import_artifact(path)
    try:
        with path.open("rb") as stream:
            ours = stream.read(6) == b"fmtune"
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path), hint="check the path") from error
    return Model.load(path) if ours else import_artifact(path)


def import_tuning_job(
    job: Path, *, data: str | None = None, runs: Path | None = None, results: Sequence[Path] = ()
) -> str:  # fmt: skip
    """Return a study file for a tuning job's JSON; issues ``DialectWarning`` for what is not taken over as it was.

    Parameters
    ----------
    job
        JSON of CreateHyperParameterTuningJob, or of its description.
    data
        Folder with the channels' files; None takes ``data``.
    runs
        Folder below which earlier studies lie (``runs/<name>``), for warm starts; None is the current one.
    results
        What AWS tried already, as ``warm_start.results_of`` reads it.

    Raises
    ------
    UsageError
        A file that cannot be read, or a job that makes no study.
    """
    content = _json_of(job, "create-hyper-parameter-tuning-job")
    try:
        parents = warm_start.parents(content, runs)
        tried = {str(path): warm_start.results_of(path) for path in results}
        return tuning_job.study_of(content, data=data or "data", parents=parents, results=tried)
    except UsageError as error:
        raise UsageError(error.what, where=error.where or str(job), hint=error.hint) from error


def import_training_job(job: Path, *, data: str = "data") -> str:
    """Return a study file for a training job's JSON; arguments and errors as in ``import_tuning_job``."""
    content = _json_of(job, "create-training-job")
    try:
        return training_job.study_around(content, data)
    except UsageError as error:
        raise UsageError(error.what, where=f"{job}: {error.where}" if error.where else str(job),
                         hint=error.hint) from error  # fmt: skip


def _json_of(path: Path, command: str) -> Any:
    """Return the content of a JSON file that is for a command of ``aws sagemaker``."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        hint = f"aws sagemaker {command} --generate-cli-skeleton shows the form"
        raise UsageError(f"not JSON: {error}", where=str(path), hint=hint) from error


def hyperparameters(study: Path, trial: int | None = None, ours: bool = False) -> str:
    """Return HyperParameters as JSON; arguments and errors as in ``training_job.best_of``."""
    return json.dumps(training_job.best_of(specs.read(study), trial, ours), indent=2)


def export_tuning_job(study: Path, image: str | None = None) -> str:
    """Return the JSON of CreateHyperParameterTuningJob for a study file; issues ``DialectWarning``."""
    return json.dumps(tuning_export.job_of(specs.read(study), image), indent=2)


__all__ = [
    "any_model", "export_model", "export_tuning_job", "hyperparameters", "import_model", "import_training_job",
    "import_tuning_job", "train", "vectors",
]  # fmt: skip
