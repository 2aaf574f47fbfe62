"""Engine: where shards and workers live: in Ray's processes, or in this one."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from fmtune.errors import ResourceError
from fmtune.extras import install


class Lost(Exception):
    """A process of the cluster has died."""


class Engine(Protocol):
    """Makes actors, calls them, and waits for their answers."""

    def make(self, kind: type, *words: Any) -> Any:
        """Start an actor and return its handle."""

    def call(self, actor: Any, method: str, *words: Any) -> Any:
        """Ask an actor for something; returns a promise."""

    def wait(self, promises: list[Any]) -> list[Any]:
        """Return the answers; raises :class:`Lost` when an actor died."""

    def lives(self, actor: Any) -> bool:
        """Whether an actor answers."""

    def end(self, actor: Any) -> None:
        """Let an actor go."""

    def close(self) -> None:
        """Let all go."""


class Inline:
    """Actors are objects of this process, called at once: for a look at the method without a cluster."""

    def make(self, kind: type, *words: Any) -> Any:
        """Make the object."""
        return kind(*words)

    def call(self, actor: Any, method: str, *words: Any) -> Any:
        """Call the method."""
        return getattr(actor, method)(*words)

    def wait(self, promises: list[Any]) -> list[Any]:
        """Return what was returned."""
        return promises

    def lives(self, actor: Any) -> bool:
        """Objects do not die."""
        return True

    def end(self, actor: Any) -> None:
        """Nothing is to be done."""

    def close(self) -> None:
        """Nothing is to be done."""


class OnRay:
    """Actors are Ray's: one process each, anywhere in its cluster.

    Parameters
    ----------
    address
        ``ray://host:10001``, ``host:6379``, or ``auto``: the cluster that this machine belongs to, else one of its
        own.
    """

    def __init__(self, address: str | None = None) -> None:
        ray = _ray()
        if address is not None and not ray.is_initialized():
            try:
                self._join(ray, address)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ResourceError(
                    f"Ray's cluster cannot be joined: {str(error).splitlines()[0]}", where=address,
                    hint="`ray start --head` begins one; `--cluster auto` takes this machine alone",
                ) from error  # fmt: skip

    @staticmethod
    def _join(ray: Any, address: str) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        if address != "auto":
            ray.init(address, log_to_driver=False, logging_level="ERROR")
            return
        try:
            ray.init("auto", log_to_driver=False, logging_level="ERROR")
        except ConnectionError:
            ray.init(**quiet)

    def close(self) -> None:
        """Leave the cluster; its actors end."""
        _ray().shutdown()

    def make(self, kind: type, *words: Any) -> Any:
        """Start an actor; it takes no core for itself, so that shards and workers fit beside each other."""
        return _ray().remote(num_cpus=0)(kind).remote(*words)

    def call(self, actor: Any, method: str, *words: Any) -> Any:
        """Ask an actor; the answer is an object reference."""
        return getattr(actor, method).remote(*words)

    def wait(self, promises: list[Any]) -> list[Any]:
        """Return the answers."""
        ray = _ray()
        try:
            found: list[Any] = ray.get(promises)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, (ray.exceptions.RayActorError, Lost)):
                raise Lost from error
            raise
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            raise Lost from error
        return found

    def lives(self, actor: Any) -> bool:
        """Whether an actor answers within some seconds."""
        ray = _ray()
        try:
            ray.get(actor.__ray_ready__.remote(), timeout=30)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return False
        return True

    def end(self, actor: Any) -> None:
        """Kill an actor, whoever else still knows it."""
        _ray().kill(actor)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ResourceError("Ray is not installed", hint=install("cluster")) from error
