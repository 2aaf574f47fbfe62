"""Connection: HTTP/1.1 for one client, on llhttp (httptools) and within uvicorn's server.

uvicorn takes a protocol class of one's own; this one answers a small request where its last byte is read, without a
task, an event or an intermediate scope, which halves the work of a request.  What a client may cost is bounded
here: the bytes of a head and of a body, and the time for each.  Time is kept by one sweep over all connections
instead of a timer for each request.

A request that is refused before its body has come (413, 415 ...) is answered at once; the body is then read and
thrown away for a short time, so that the client can read the answer before the connection closes.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from fmtune.errors import ResourceError
from fmtune.extras import install

try:
    import httptools
except ImportError as error:
    raise ResourceError("httptools is not installed", hint=install("serve")) from error

NEVER = float("inf")
_LINGER = 2.0
"""Seconds for which the rest of a refused body is read."""

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(frozen=True)
class Limits:
    """What one client may cost, and all together.

    Attributes
    ----------
    body : int
        Bytes of a body; SageMaker's own default is 6 MiB.
    head : int
        Bytes of request line and headers.
    head_seconds, body_seconds : float
        From the first byte to the end of the head, and from there to the end of the body.
    idle_seconds : float
        For which a connection may wait for a (next) request.
    stop_seconds : float
        For which requests under way may go on after SIGTERM.
    connections : int
        At once; one more is answered 503.
    held : int
        Bytes of bodies held at once; more are answered 503.
    waiting : int
        Large requests that wait for the one thread that answers them; more are answered 503.
    inline : int
        Bytes of the largest body that is answered in the event loop; larger ones must not hold up the others.
    """

    body: int = 6 * 2**20
    head: int = 32 * 2**10
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    stop_seconds: float = 10.0
    connections: int = 1000
    held: int = 256 * 2**20
    waiting: int = 16
    inline: int = 16 * 2**10


class Response(NamedTuple):
    """What is answered; ``headers`` are whole lines with their line ends."""

    status: int
    content: bytes = b""
    content_type: bytes = b"application/json"
    headers: bytes = b""


@dataclass(slots=True)
class Request:
    """A head, then its body; header names are lower-case, of repeated headers the last counts.

    ``types`` and ``endpoint`` are the application's: what it read from the head, for when the body is there.
    """

    method: str
    path: str
    headers: dict[bytes, bytes]
    keep_alive: bool
    body: bytes | bytearray = b""
    refused: Response | None = None
    types: tuple[str, str] = ("", "")
    endpoint: bool = False

    def add(self, part: bytes) -> None:
        """Add a part of the body; most have one, which is kept as it came."""
        if not self.body:
            self.body = part
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += part


class Application(Protocol):
    """What stands behind the connections; ``connections`` are those that the sweep watches."""

    limits: Limits
    connections: set[Any]
    held: int
    date: bytes

    def check(self, request: Request) -> Response | None:
        """Return a refusal or an answer that needs no body, when the head is there; None asks for the body."""
        ...

    def answer(self, request: Request) -> Response | asyncio.Future[Response]:
        """Answer a whole request, at once or later; nothing is raised."""
        ...


def refusal(status: int, what: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response ``{"message": what}``, which boto3 shows."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return Response(status, json.dumps({"message": what}).encode() + b"\n", headers=lines.encode())


def busy(what: str) -> Response:
    """Return the 503 that asks to try again in a second."""
    return refusal(503, f"{what}: try again", {"Retry-After": "1"})


class Connection(asyncio.Protocol):
    """One client's connection; parameters as uvicorn gives them, after the application."""

    def __init__(
        self, application: Application, *, server_state: Any, _loop: asyncio.AbstractEventLoop | None = None, **_: Any
    ) -> None:
        self._application, self._state = application, server_state
        self._limits, self._loop = application.limits, _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._request: Request | None = None  # its head is there, its body is being read
        self._busy: Request | None = None  # is being answered in a thread
        self._ready: deque[Request] = deque()  # are whole, and wait for the busy one
        self._in_head = self._draining = self._stopping = self._unread = self._paused = False
        self._fed = self._head = 0
        self._url, self._headers = b"", dict[bytes, bytes]()
        self.deadline = NEVER

    # ---- asyncio ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection and start its clock."""
        self._transport = transport  # type: ignore[assignment]
        self._state.connections.add(self)
        self._application.connections.add(self)
        self.deadline = self._loop.time() + self._limits.head_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; an answer that is still being made is thrown away."""
        self._state.connections.discard(self)
        self._application.connections.discard(self)
        for request in (self._request, *self._ready):
            self._release(request)
        self._ready.clear()
        self._request = None
        self._draining = True

    def data_received(self, data: bytes) -> None:
        """Read on; llhttp calls the methods below from here."""
        self._fed += len(data)
        if self._draining:
            if self._fed > 8 * self._limits.body:
                self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(refusal(400, "upgrades are not understood: only HTTP/1.1 is spoken here"))
        except httptools.HttpParserError:
            self._refuse(refusal(400, "the bytes are not an HTTP request"))
        if self._in_head and max(self._fed, self._head + len(self._url)) > self._limits.head:
            self._refuse(self._large_head())
        # A body may come in chunks of one byte, of which each costs six.
        elif self._fed > 8 * self._limits.body + self._limits.head:
            self._refuse(self._large_body())

    def eof_received(self) -> bool:
        """Let answers go out to a client that has said all it has to say."""
        self._stopping = True
        return self._busy is not None

    def pause_writing(self) -> None:
        """Read no more from a client that does not read."""
        self._unread = self._paused = True
        self._transport.pause_reading()
        self.deadline = self._loop.time() + self._limits.body_seconds

    def resume_writing(self) -> None:
        """Go on with a client that reads again."""
        self._unread = False
        self._await()

    # ---- llhttp ----

    def on_message_begin(self) -> None:
        """A request begins; its clock starts with its first byte."""
        self._in_head, self._fed, self._head = True, 0, 0
        self._url, self._headers = b"", {}
        self.deadline = self._loop.time() + self._limits.head_seconds

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those after the body are of no interest."""
        if self._in_head:
            self._headers[name.lower()] = value
            self._head += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """The head is there: refuse, or go on to the body."""
        self._in_head = False
        if self._draining:
            return
        keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        path = self._url.partition(b"?")[0].decode("latin-1")
        self._request = request = Request(self._parser.get_method().decode(), path, self._headers, keep_alive)
        length = int(self._headers.get(b"content-length", b"0"))
        has_body = length > 0 or b"transfer-encoding" in request.headers
        request.refused = self._application.check(request) or self._crowded(request, length)
        if self._head + len(self._url) > self._limits.head:
            request.refused = self._large_head()
        elif request.refused is None and length > self._limits.body:
            request.refused = self._large_body()
        # A small body is read all the same, and the connection kept.
        if request.refused is not None and has_body and not 0 < length <= self._limits.inline:
            self._refuse(request.refused)
        elif has_body:
            self.deadline = self._loop.time() + self._limits.body_seconds
            if request.headers.get(b"expect", b"").lower() == b"100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        request = self._request
        if self._draining or request is None:
            return
        request.add(body)
        self._application.held += len(body)
        if len(request.body) > self._limits.body:
            self._refuse(self._large_body())
        elif self._application.held > self._limits.held:
            self._refuse(busy("too much is being sent at once"))

    def on_message_complete(self) -> None:
        """The request is whole: answer it, after those before it."""
        request, self._request = self._request, None
        if self._draining or request is None:
            return
        self._ready.append(request)
        self._answer()

    # ---- answers ----

    def _answer(self) -> None:
        """Answer what is whole, in order, as far as that goes without waiting."""
        while self._ready and self._busy is None and not self._transport.is_closing():
            request = self._ready.popleft()
            response = request.refused or self._application.answer(request)
            if isinstance(response, Response):
                self._write(request, response)
                continue
            self._busy, self.deadline, self._paused = request, NEVER, True
            self._transport.pause_reading()
            response.add_done_callback(self._answered)

    def _answered(self, future: asyncio.Future[Response]) -> None:
        request, self._busy = self._busy, None
        assert request is not None
        if self._transport.is_closing() or future.cancelled():
            self._release(request)
            return
        self._write(request, future.result())
        self._answer()

    def _write(self, request: Request, response: Response) -> None:
        status, content, content_type, headers = response
        last = not self._ready
        close = (self._stopping and last) or not request.keep_alive
        length = b"" if status == 204 else b"content-type: %b\r\ncontent-length: %d\r\n" % (content_type, len(content))
        self._transport.write(b"HTTP/1.1 %d %b\r\ndate: %b\r\n%b%b%b\r\n%b" % (
            status, _REASONS[status], self._application.date, length, headers,
            b"connection: close\r\n" if close else b"", b"" if request.method == "HEAD" else content,
        ))  # fmt: skip
        self._release(request)
        if self._draining and last:
            self._transport.write_eof()
            self.deadline = self._loop.time() + _LINGER
        elif close and not self._draining:
            self._transport.close()
        else:
            self._await()

    def _await(self) -> None:
        """Wait for the next request."""
        if self._unread or self._busy or self._transport.is_closing():
            return
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._request is None:
            self.deadline = self._loop.time() + self._limits.idle_seconds

    def _refuse(self, response: Response) -> None:
        """Answer the request that is being read as the connection's last, and read no more of it."""
        if self._draining:
            return
        request = self._request or Request("", "", {}, False)
        self._release(request)
        request.refused, request.keep_alive = response, False
        self._request, self._draining, self._in_head = None, True, False
        self._ready.append(request)
        self._answer()

    def _release(self, request: Request | None) -> None:
        if request is not None:
            self._application.held -= len(request.body)
            request.body = b""

    def _crowded(self, request: Request, length: int) -> Response | None:
        if len(self._application.connections) > self._limits.connections and request.path != "/ping":
            request.keep_alive = False
            return busy("too many connections")
        if length <= self._limits.body and self._application.held + length > self._limits.held:
            return busy("too much is being sent at once")
        return None

    def _large_head(self) -> Response:
        return refusal(431, f"the head of the request has more than {self._limits.head} bytes")

    def _large_body(self) -> Response:
        return refusal(413, f"the body has more than {self._limits.body} bytes")

    # ---- time ----

    def expire(self) -> None:
        """The deadline has passed: say so to whoever is sending, and close."""
        if self._draining or self._unread:
            self._transport.abort()
        elif self._request is not None:
            self._refuse(refusal(408, f"the body did not come within {self._limits.body_seconds:g} seconds"))
            self._transport.close()
        elif self._in_head:
            self._refuse(refusal(408, f"the head did not come within {self._limits.head_seconds:g} seconds"))
            self._transport.close()
        else:
            self._transport.close()

    def shutdown(self) -> None:
        """The server stops: what is under way is answered, for a while; uvicorn calls this."""
        self._stopping = True
        if self._request is None and self._busy is None and not self._in_head:
            self._transport.close()
        elif self._busy is None:
            self.deadline = min(self.deadline, self._loop.time() + self._limits.stop_seconds)
