"""Container: the files below ``/opt/ml`` that SageMaker and a training job exchange."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmtune.errors import DataError, FmtuneError, UsageError
from fmtune.files import atomic_write
from fmtune.fm.model import Model
from fmtune.sagemaker.artifact import MEMBER, member_of
from fmtune.sagemaker.channels import Channel, Stop, never
from fmtune.sagemaker.hyperparameters import Job, job_of

MODES = ("File", "FastFile", "Pipe")
CHANNELS = ("train", "test")
CONTENT_TYPE = "application/x-recordio-protobuf"
REASON = 1024
"""Characters of output/failure that SageMaker shows as FailureReason."""


@dataclass(frozen=True)
class Container:
    """One job's folder.

    Attributes
    ----------
    root : Path
        ``/opt/ml``.
    """

    root: Path

    @property
    def config(self) -> Path:
        """``input/config``."""
        return self.root / "input" / "config"

    def hosts(self) -> tuple[str, tuple[str, ...]]:
        """Return this host's name and all hosts' in order (resourceconfig.json; one host where there is none).

        Raises
        ------
        UsageError
            This host is none of them.
        """
        found = self._json("resourceconfig.json") or {}
        here = str(found.get("current_host", "algo-1"))
        hosts = found.get("hosts", [here])
        # algo-10 comes after algo-2.
        names = tuple(sorted({*map(str, hosts)}, key=lambda name: (len(name), name))) if isinstance(hosts, list) else ()
        if here not in names:
            raise UsageError(f"current_host {here!r} is not one of the hosts", where=str(self.config),
                             hint="resourceconfig.json names them all under hosts")  # fmt: skip
        return here, names

    def provided(self) -> dict[str, Any]:
        """Return hyperparameters.json.

        Raises
        ------
        UsageError
            It is missing or no JSON object.
        """
        if not self.root.is_dir():
            raise UsageError("there is no such folder", where=str(self.root),
                             hint="a job's folder is laid out as /opt/ml: input/config, input/data")  # fmt: skip
        found = self._json("hyperparameters.json")
        if found is None:
            raise UsageError("hyperparameters.json is missing", where=str(self.config),
                             hint="it needs feature_dim, num_factors and predictor_type")  # fmt: skip
        return found

    def job(self) -> Job:
        """Return the job's checked hyperparameters; errors as in ``hyperparameters.job_of``."""
        return job_of(self.provided(), str(self.config / "hyperparameters.json"))

    def channels(self, job: Job, stop: Stop = never) -> dict[str, Channel]:
        """Return the channels of inputdataconfig.json; without that file, the folders that are there.

        Raises
        ------
        UsageError
            A channel, mode or content type that factorization machines have not, or no train channel.
        """
        data, where = self.root / "input" / "data", str(self.config / "inputdataconfig.json")
        found = self._json("inputdataconfig.json")
        if found is None:
            found = {name: {} for name in CHANNELS if (data / name).exists()}
        strangers = [name for name in found if name not in CHANNELS]
        if strangers:
            names = ", ".join(map(repr, strangers))
            verb = "was" if len(strangers) == 1 else "were"
            what = f"Additional properties are not allowed ({names} {verb} unexpected)"
            raise UsageError(what, where=where, hint="the channels are train and test")
        if "train" not in found:
            raise UsageError("'train' is a required property", where=where, hint="name a channel train")
        binary = job.final["predictor_type"] == "binary_classifier"
        return {
            name: Channel(name, data, _mode(name, entry, where), entry.get("S3DistributionType") == "ShardedByS3Key",
                          job.feature_dim, binary, stop)
            for name, entry in found.items()
        }  # fmt: skip

    def save(self, model: Model) -> Path:
        """Write the model where SageMaker packs it from: ``model/model_algo-1``."""
        path = self.root / "model" / MEMBER
        atomic_write(path, member_of(model))
        return path

    def begin(self) -> None:
        """Take away what an earlier job has said of its failure."""
        with contextlib.suppress(OSError):
            (self.root / "output" / "failure").unlink(missing_ok=True)

    def fail(self, error: BaseException) -> str:
        """Write output/failure, where it can be written, and return its text: whose fault, and what."""
        text = reason(error)
        try:
            path = self.root / "output" / "failure"
            path.parent.mkdir(exist_ok=True)  # not the root, whose name may be mistyped
            path.write_text(text[:REASON])
        except OSError:
            pass  # the log has it
        return text

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.config / name
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"the file is not readable JSON: {error}", where=str(path)) from error
        if not isinstance(found, dict):
            raise UsageError("the file is not a JSON object", where=str(path))
        return found


def reason(error: BaseException) -> str:
    """Return the text of a failure: ClientError for what the user can change, AlgorithmError for the rest."""
    if isinstance(error, MemoryError):
        return ("AlgorithmError: not enough memory\n\nhint: a model takes 12 * (num_factors + 1) bytes for each of its "
                "feature_dim features; lower one of them, or take an instance with more memory")  # fmt: skip
    if not isinstance(error, FmtuneError):
        return f"AlgorithmError: {type(error).__name__}: {error}"
    whose = "ClientError" if isinstance(error, (UsageError, DataError)) else "AlgorithmError"
    hint = f"\n\nhint: {error.hint}" if error.hint else ""
    return f"{whose}: {error.what}\n\n(in {error.where}){hint}" if error.where else f"{whose}: {error.what}{hint}"


def _mode(name: str, entry: Any, where: str) -> str:
    """Return a channel's input mode, after its entry is checked."""
    if not isinstance(entry, dict):
        raise UsageError(f"the channel {name!r} is not a JSON object", where=where)
    mode = entry.get("TrainingInputMode", "File")
    if mode not in MODES:
        raise UsageError(f"{mode!r} is not one of {list(MODES)}", where=f"{where}: {name}.TrainingInputMode")
    content = entry.get("ContentType") or CONTENT_TYPE
    if str(content).split(";")[0].strip().lower() != CONTENT_TYPE:
        raise UsageError(f"No iterator has been registered for ContentType {str(content)!r}",
                         where=f"{where}: {name}.ContentType", hint=f"convert the data to {CONTENT_TYPE}: "
                         "`fmtune data convert` does it")  # fmt: skip
    return str(mode)
