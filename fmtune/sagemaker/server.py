"""Server: a model behind SageMaker's three addresses, in the container and outside it.

::

    POST /invocations            scores; see inference.py for what may be sent and what comes back
    GET  /ping                   200 when the model is there and scores a row
    GET  /execution-parameters   what a batch transform may send at once

``/endpoints/NAME/invocations``, where boto3 and the SDK send what is for an endpoint, is ``/invocations`` too; a
fault of the model's is there the ModelError that SageMaker makes of a container's.

The server is uvicorn, with ``connection.py`` in the place of its HTTP protocol.  Compared on one core with one
sparse row a request, in microseconds of processor time: FastAPI on uvicorn 200, granian with RSGI 90, an ASGI
application on uvicorn 65, this 38, and a quarter less since then.  Beyond the loopback it answers only with a token,
or in a container, where SageMaker's network stands before it.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import hmac
import ipaddress
import json
import logging
import os
import re
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.utils import formatdate
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from fmtune.data.canonical import DataWarning
from fmtune.data.encoding import Encoder
from fmtune.errors import FmtuneError, ModelError, ResourceError, UsageError
from fmtune.extras import install
from fmtune.fm.model import Model
from fmtune.fm.scorer import Scorer
from fmtune.rows import SparseRows
from fmtune.sagemaker import inference, media
from fmtune.sagemaker.connection import Connection, Limits, Request, Response, busy, refusal
from fmtune.sagemaker.hosting import as_endpoint, limits_of

try:
    import uvicorn
    from uvicorn.supervisors import Multiprocess
except ImportError as error:
    raise ResourceError("uvicorn is not installed", hint=install("serve")) from error

log = logging.getLogger("fmtune.serve")

_METHODS = {"/invocations": ("POST",), "/ping": ("GET", "HEAD"), "/execution-parameters": ("GET", "HEAD")}
_ENDPOINT = re.compile(r"/endpoints/[A-Za-z0-9-]{1,63}/invocations")
_TYPES = ", ".join(media.TYPES)
_SWEEP = 0.25
"""Seconds between two looks at the deadlines."""
_TURN = 0.0005
"""Seconds after which the thread of large requests lets the event loop have its turn; Python's own are 0.005."""

Load = Callable[[], Model]


class Service:
    """What stands behind the connections of one process.

    Parameters
    ----------
    load
        Returns the model; called in a thread, while requests are answered 503.
    limits
    token
        What ``Authorization: Bearer`` must carry; None lets everybody in.
    hosts
        Names and addresses that a Host header may give; None for any.  A web page whose own name was made to point
        here (DNS rebinding) stays outside.
    workers
        How many such processes there are.
    ready
        Called once the model is there.
    """

    def __init__(
        self, load: Load, limits: Limits | None = None, token: str | None = None, hosts: frozenset[str] | None = None,
        workers: int = 1, ready: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._load, self.limits, self._hosts, self._workers = load, limits or Limits(), hosts, workers
        self._ready = ready
        self._bearer = None if token is None else f"Bearer {token}".encode()
        self.scorer: Scorer | None = None
        self._encoder: Encoder | None = None
        self.failure: Exception | None = None
        self.connections: set[Any] = set()
        self.held = self._waiting = 0
        self.date = b""

    # ---- what uvicorn calls ----

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Begin and end with the server (ASGI's lifespan); requests come by way of ``Connection``."""
        if scope["type"] != "lifespan":
            return
        await receive()
        # Answers of odd requests are as good as their rows; the log of a server is no place for each of them.
        warnings.simplefilter("ignore", DataWarning)
        turn = sys.getswitchinterval()
        sys.setswitchinterval(_TURN)
        pool = ThreadPoolExecutor(1, "large")
        self._pool = pool
        tasks = [asyncio.create_task(self._prepare()), asyncio.create_task(self._sweep())]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tasks:
            task.cancel()
        pool.shutdown(wait=False, cancel_futures=True)
        sys.setswitchinterval(turn)
        gc.unfreeze()
        await send({"type": "lifespan.shutdown.complete"})

    async def _prepare(self) -> None:
        """Make the model ready; a failure ends the process."""
        try:
            scorer, self._encoder = await asyncio.get_running_loop().run_in_executor(self._pool, prepared, self._load)
            # What is there now stays. A full collection, as large requests bring it on, would walk over all of it
            # and hold up every other request for a tenth of a second.
            gc.collect()
            gc.freeze()
            self.scorer = scorer
            if self._ready is not None:
                self._ready()
        except Exception as error:
            self.failure = error
            signal.raise_signal(signal.SIGTERM)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.date = formatdate(usegmt=True).encode()
            now = loop.time()
            for connection in [c for c in self.connections if c.deadline < now]:
                connection.expire()
            await asyncio.sleep(_SWEEP)

    # ---- what connections call ----

    def check(self, request: Request) -> Response | None:
        """Return what is wrong with a head, or the answer to a request without a body."""
        if request.path not in _METHODS and _ENDPOINT.fullmatch(request.path):
            request.path, request.endpoint = "/invocations", True
        refused = self._refused(request)
        return as_endpoint(refused) if refused is not None and request.endpoint else refused

    def _refused(self, request: Request) -> Response | None:
        methods = _METHODS.get(request.path)
        headers = request.headers
        if self._hosts is not None and _host(headers.get(b"host", b"")) not in self._hosts:
            return refusal(403, "this server answers only under its own address")
        if methods is None:
            return refusal(404, f"there is nothing at {request.path[:100]}: the addresses are {', '.join(_METHODS)}")
        if request.method not in methods:
            return refusal(405, f"{request.path} takes {' or '.join(methods)}", {"Allow": ", ".join(methods)})
        if request.path == "/ping":
            return None
        if self._bearer is not None and not hmac.compare_digest(headers.get(b"authorization", b""), self._bearer):
            what = "the token is missing or wrong: send Authorization: Bearer TOKEN"
            return refusal(401, what, {"WWW-Authenticate": "Bearer"})
        if request.path == "/execution-parameters":
            return None
        if self.scorer is None:
            return busy("the model is not loaded yet")
        content_type = media.media_type(_text(headers.get(b"content-type")))
        # An empty body has no type.
        if content_type is None and headers.get(b"content-length", b"0") != b"0":
            given = (_text(headers.get(b"content-type")) or "none")[:100]
            return refusal(415, f"the Content-Type is {given}; it may be {_TYPES}, in UTF-8")
        if (coding := _text(headers.get(b"content-encoding")) or "identity") != "identity":
            return refusal(415, f"the Content-Encoding is {coding[:100]}; send the body as it is")
        accept = media.accepted(_text(headers.get(b"accept")), content_type or media.JSON)
        if accept is None:
            return refusal(406, f"what Accept asks for is not made here; it may be {_TYPES}")
        request.types = (content_type or media.JSON, accept)
        return None

    def answer(self, request: Request) -> Response | asyncio.Future[Response]:
        """Answer a request whose head was found good."""
        if request.path == "/ping":
            return self.ping()
        if request.path == "/execution-parameters":
            return Response(200, json.dumps(self.execution_parameters()).encode())
        if not request.body:
            return Response(204)
        if len(request.body) <= self.limits.inline:
            return self.invoke(request)
        if self._waiting >= self.limits.waiting:
            return busy("too many large requests are waiting")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self.invoke, request)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: asyncio.Future[Response]) -> None:
        self._waiting -= 1

    def ping(self) -> Response:
        """Say whether a row can be scored."""
        if self.scorer is None:
            return busy("the model is not loaded yet")
        return Response(200) if scores(self.scorer) else refusal(500, "the model scores no row to a finite number")

    def execution_parameters(self) -> dict[str, Any]:
        """Return what a batch transform asks before it begins."""
        return {"MaxConcurrentTransforms": self._workers, "BatchStrategy": "MULTI_RECORD",
                "MaxPayloadInMB": max(1, self.limits.body >> 20)}  # fmt: skip

    def invoke(self, request: Request) -> Response:
        """Score a body; a fault of the request is 400 with its path."""
        response = self._scored(request)
        return as_endpoint(response) if request.endpoint else response

    def _scored(self, request: Request) -> Response:
        assert self.scorer is not None
        try:
            content = inference.answer(self.scorer, bytes(request.body), *request.types, self._encoder)
        except FmtuneError as error:
            return refusal(400, f"{error.where}: {error.what}" if error.where else error.what)
        except MemoryError:
            return busy("out of memory")
        except Exception:
            log.exception("a request could not be answered")
            return refusal(500, "internal error: the server's log has more")
        return Response(200, content, request.types[1].encode())


def prepared(load: Load) -> tuple[Scorer, Encoder | None]:
    """Load a model and score a row, which also loads the kernels; returns it with what encodes its tables.

    Raises
    ------
    ModelError
        It cannot be read, or scores no row to a finite number.
    """
    scorer = Scorer(load())
    if scorer.feature_dim == 0 or not scores(scorer):
        raise ModelError("the model scores no row to a finite number", hint="train it again")
    encoding = scorer.encoding
    return scorer, None if encoding is None else Encoder.from_json(encoding, "the model's encoding")


def scores(scorer: Scorer) -> bool:
    """Whether a row of the first, a middle and the last feature gets a finite score."""
    keys = np.unique(np.array([0, scorer.feature_dim // 2, scorer.feature_dim - 1], np.int32))
    rows = SparseRows(np.array([0, len(keys)]), keys, np.ones(len(keys), np.float32), None, scorer.feature_dim)
    return bool(np.isfinite(scorer.predict(rows)).all())


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.decode("latin-1")


@lru_cache(64)
def _host(header: bytes) -> str:
    """Return the name in a Host header, without its port and the brackets of an IPv6 address."""
    name = header.decode("latin-1").lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


# ---- the runner ----


def serve(
    model: str | Path | Load,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    container: bool = False,
    workers: int = 1,
    limits: Limits | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a model until SIGTERM or SIGINT, which let requests under way finish.

    Parameters
    ----------
    model
        A model's file, or a function that returns the model; with several workers it must be picklable.
    host, port
        Where to listen; port 0 takes any that is free.
    token
        A secret for ``Authorization: Bearer``; /ping alone does without it.
    container
        Whether SageMaker's network stands before the server: any host, no token.
    workers
        Processes; each holds the model once.
    limits
        By default those of the environment if ``container``, else ``Limits()``.
    ready
        Told the server's address once it listens and the model is known to be sound.

    Raises
    ------
    UsageError
        A host beyond the loopback without a token, or a token that no header can carry.
    ResourceError
        The port is taken, or may not be used.
    ModelError
        The model cannot be read.
    """
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("the token is empty or holds what no header can", where="--token", hint="letters and digits")
    if not (container or token or _is_loopback(host)):
        raise UsageError(
            f"{host} can be reached from other machines, and no token is set", where="--host",
            hint="keep 127.0.0.1, or set a token",
        )  # fmt: skip
    limits = limits or (limits_of(os.environ) if container else Limits())
    load = model if callable(model) else partial(Model.load, model)
    hosts = None if container or token else frozenset({"127.0.0.1", "localhost", "::1", host.lower()})
    with closing(_listen(host, port)) as listener:
        name = f"[{host}]" if ":" in host else host
        say = None if ready is None else partial(ready, f"http://{name}:{listener.getsockname()[1]}")
        if workers > 1:
            prepared(load)  # a fault is said once, here, and not by workers that end and are started again
            if say is not None:
                say()
        service = Service(load, limits, token, hosts, workers, say if workers == 1 else None)
        _run(service, listener, workers)
    if isinstance(service.failure, Exception):
        raise service.failure


def _run(service: Service, listener: socket.socket, workers: int) -> None:
    config = uvicorn.Config(
        service, http=partial(Connection, service),  # type: ignore[arg-type]
        lifespan="on", ws="none", log_config=None, log_level="warning", access_log=False,
        timeout_graceful_shutdown=25, workers=workers,
    )  # fmt: skip
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s", level=logging.WARNING)
    # uvicorn raises the signal again when it has stopped; that is no failure. The command line's own watch would
    # end the process before requests under way are answered.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    pipe = signal.set_wakeup_fd(-1)
    try:
        if workers > 1:
            Multiprocess(config, sockets=[listener]).run()
        else:
            uvicorn.Server(config).run([listener])
    finally:
        signal.set_wakeup_fd(pipe)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UsageError(f"there is no port {port}", where="--port", hint="0 to 65535; 0 takes any that is free")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"no such host: {host!r}", where="--host", hint="127.0.0.1 is the default") from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        what = f"{host} port {port} " + ("is in use" if taken else f"cannot be listened on: {error}")
        raise ResourceError(what, where="--port", hint="port 0 takes any that is free") from error
    return listener
