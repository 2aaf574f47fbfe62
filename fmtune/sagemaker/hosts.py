"""Hosts: the machines of one job.  Each trains a mini-batch of its own rows; then all have what every one changed.

A parameter moves by the sum of the hosts' changes, as on SageMaker, whose server applies each host's push at once: a
job on several hosts learns as much an epoch as on one.  A sum over more than a mini-batch of each overshoots.  The
states of the update rule are each host's own.  The first host is the hub: it takes what the others changed, in their
order, and answers with the parameters as they are now, so that all hold the same.  A message is the length of a head,
the head as JSON, and arrays whose sizes follow from it; nothing of it is executed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmtune.errors import FmtuneError, ResourceError
from fmtune.fm.arena import State
from fmtune.fm.pack import Stopped
from fmtune.sagemaker.channels import Stop

PORT = 9000
"""Where the first host listens, as SageMaker's own does; DMLC_PS_ROOT_PORT says otherwise."""
PATIENCE = 1200.0
"""Seconds in which all hosts must have come."""
_HEAD = 1 << 20
_RETRY = 0.2

Ids = NDArray[np.int64]
Float32 = NDArray[np.float32]


class Touched(NamedTuple):
    """Features that a window may change, and what their parameters and the bias (1,) were before it."""

    ids: Ids
    rows: Float32
    bias: Float32

    @classmethod
    def of(cls, state: State, ids: Ids) -> Touched:
        """Remember what ``ids`` are now."""
        return cls(ids, state.rows[ids, 0], state.bias[0].copy())


class _Message(NamedTuple):
    head: dict[str, Any]
    ids: Ids
    rows: Float32
    bias: Float32


class Hosts:
    """One host's side of a job on several.

    Parameters
    ----------
    here, names
        This host, and all of them; the first is the hub.
    peers
        The hub's connections by host, in the order of ``names``; elsewhere the one to the hub.
    """

    def __init__(self, here: str, names: tuple[str, ...], peers: Mapping[str, socket.socket]) -> None:
        self.here, self.names, self._peers = here, names, dict(peers)
        self.hub = here == names[0]
        self.stopped = False

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Compare what must be equal on all hosts.

        Raises
        ------
        ResourceError
            It is not, or a host has ended.
        """
        if not self.hub:
            self._tell(self.names[0], {"facts": dict(facts)})
            self._hear(self.names[0])
            return
        for name in self._peers:
            theirs = self._hear(name).head.get("facts")
            if theirs != facts:
                raise ResourceError(f"the hosts differ: {dict(facts)} on {self.here}, {theirs} on {name}",
                                    hint="give all hosts the same kind of data and the same image")  # fmt: skip
        for name in self._peers:
            self._tell(name, {})

    def merge(self, state: State, touched: Touched | None, stop: bool = False) -> bool:
        """Bring all hosts' changes of one window together.

        Parameters
        ----------
        state
            The parameters, all hosts' are the same afterwards; what the rule keeps of each is the host's own.
        touched
            What this host's window may have changed; None where it has no rows left in this epoch.
        stop
            Whether this host was asked to stop; then all do.

        Returns
        -------
        bool
            Whether any host had a window.
        """
        mine = _changes(state, touched, stop)
        if touched is not None:
            state.rows[touched.ids, 0], state.bias[0] = touched.rows, touched.bias
        answer = self._gather(state, mine) if self.hub else self._ask(state, mine)
        self.stopped = bool(answer.head["stop"])
        return bool(answer.head["worked"])

    def _ask(self, state: State, mine: _Message) -> _Message:
        self._tell(self.names[0], mine.head, mine)
        answer = self._hear(self.names[0], state)
        state.rows[answer.ids, 0], state.bias[0] = answer.rows, answer.bias
        return answer

    def _gather(self, state: State, mine: _Message) -> _Message:
        """On the hub: take all messages, move the parameters, and answer."""
        every = [mine, *(self._hear(name, state) for name in self._peers)]
        for one in every:
            state.rows[one.ids, 0] += one.rows
            state.bias[0] += one.bias
        ids = np.unique(np.concatenate([one.ids for one in every]))
        head = {name: any(one.head[name] for one in every) for name in ("worked", "stop")}
        answer = _Message(head, ids, state.rows[ids, 0], state.bias[0].copy())
        for name in self._peers:
            self._tell(name, head, answer)
        return answer

    def fail(self, text: str) -> None:
        """Tell the others that this host has failed, as far as they hear it."""
        for name in self._peers:
            with contextlib.suppress(FmtuneError):
                self._tell(name, {"failed": text[:1000]})

    def close(self) -> None:
        """Leave the others."""
        for peer in self._peers.values():
            peer.close()

    def _tell(self, name: str, head: Mapping[str, Any], body: _Message | None = None) -> None:
        shape = [0, 0] if body is None else list(body.rows.shape)
        words = json.dumps({**head, "shape": shape}).encode()
        try:
            self._peers[name].sendall(struct.pack("<I", len(words)) + words)
            for array in () if body is None else body[1:]:
                self._peers[name].sendall(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        except OSError as error:
            raise self._gone(name) from error

    def _hear(self, name: str, state: State | None = None) -> _Message:
        """Return a host's next message; its arrays must fit the state, or be none."""
        features, _, columns = (0, 0, 0) if state is None else state.rows.shape
        try:
            head = _head(self._peers[name])
            if "failed" in head:
                raise ResourceError(f"host {name} failed: {str(head['failed'])[:1000]}", hint="see that host's log")
            count, own = (int(number) for number in head.get("shape", (-1, 0)))
            if own != columns or not 0 <= count <= features:
                raise ResourceError(f"host {name} sends what does not fit the model",
                                    hint="give all hosts the same hyperparameters and image")  # fmt: skip
            sizes = (8 * count, 4 * count * columns, 0 if state is None else 4)
            ids, rows, bias = (_exact(self._peers[name], size) for size in sizes)
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise self._gone(name) from error
        places = np.frombuffer(ids, np.int64)
        if count and (places.min() < 0 or places.max() >= features):
            raise ResourceError(f"host {name} names features that there are not", hint="see that host's log")
        changes = np.frombuffer(rows, np.float32).reshape(count, columns)
        return _Message(head, places, changes, np.frombuffer(bias, np.float32))

    def _gone(self, name: str) -> ResourceError:
        return ResourceError(f"host {name} has ended, or cannot be reached", hint="see that host's log")


def _changes(state: State, touched: Touched | None, stop: bool) -> _Message:
    head = {"worked": touched is not None, "stop": stop}
    if touched is None:
        none = np.zeros(0, np.int64)
        return _Message(head, none, state.rows[none, 0], np.zeros(1, np.float32))
    return _Message(head, touched.ids, state.rows[touched.ids, 0] - touched.rows, state.bias[0] - touched.bias)


@contextmanager
def joined(
    here: str, names: tuple[str, ...], stop: Stop, port: int | None = None, patience: float = PATIENCE
) -> Iterator[Hosts]:  # fmt: skip
    """Bring the hosts of a job together; they part at the end, and a failure of one is told to the others.

    Raises
    ------
    ResourceError
        Some have not come in time.
    Stopped
        ``stop`` said so.
    """
    port = int(os.environ.get("DMLC_PS_ROOT_PORT", PORT)) if port is None else port
    deadline = time.monotonic() + patience
    meet = _accept if here == names[0] else _connect
    made = Hosts(here, names, meet(here, names, port, stop, deadline))
    try:
        yield made
    except BaseException as error:
        made.fail(error.what if isinstance(error, FmtuneError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        made.close()


def _accept(
    here: str, names: tuple[str, ...], port: int, stop: Stop, deadline: float
) -> dict[str, socket.socket]:  # fmt: skip
    """On the hub: wait until each of the others has said its name."""
    found: dict[str, socket.socket] = {}
    wanted = set(names[1:])
    with socket.create_server((here, port), backlog=len(names)) as server:
        server.settimeout(_RETRY)
        while wanted:
            _wait(f"{', '.join(sorted(wanted))} did not come", stop, deadline)
            try:
                peer, _ = server.accept()
            except TimeoutError:
                continue
            name = _name(peer)
            if name in wanted:
                wanted.discard(name)
                found[name] = _patient(peer)
            else:
                peer.close()
    return {name: found[name] for name in names[1:]}


def _name(peer: socket.socket) -> Any:
    """Return what a connection says that it is; None where it says nothing sensible in time."""
    peer.settimeout(5.0)
    try:
        return _head(peer).get("host")
    except (OSError, EOFError, ValueError):
        return None


def _connect(
    here: str, names: tuple[str, ...], port: int, stop: Stop, deadline: float
) -> dict[str, socket.socket]:  # fmt: skip
    """Elsewhere: reach the hub, which may begin later or not have a name yet."""
    while True:
        _wait(f"{names[0]} does not answer at port {port}", stop, deadline)
        try:
            peer = socket.create_connection((names[0], port), timeout=5.0)
        except OSError:
            time.sleep(_RETRY)
            continue
        words = json.dumps({"host": here}).encode()
        peer.sendall(struct.pack("<I", len(words)) + words)
        return {names[0]: _patient(peer)}


def _wait(what: str, stop: Stop, deadline: float) -> None:
    if stop():
        raise Stopped
    if time.monotonic() > deadline:
        raise ResourceError(f"the hosts of the job are not together: {what}",
                            hint="see whether that host has failed, and whether they reach each other")  # fmt: skip


def _patient(peer: socket.socket) -> socket.socket:
    """Let a connection wait for a slow host, and end where its machine is gone."""
    peer.settimeout(None)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 6), ("TCP_USER_TIMEOUT", 60_000)):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return peer


def _head(peer: socket.socket) -> dict[str, Any]:
    (size,) = struct.unpack("<I", _exact(peer, 4))
    if size > _HEAD:
        raise ValueError("a head of that length is none")
    found = json.loads(_exact(peer, size))
    if not isinstance(found, dict):
        raise ValueError("the head is no JSON object")
    return found


def _exact(peer: socket.socket, size: int) -> bytearray:
    """Read so many bytes."""
    made = bytearray(size)
    view = memoryview(made)
    while view:
        if not (count := peer.recv_into(view)):
            raise EOFError
        view = view[count:]
    return made
