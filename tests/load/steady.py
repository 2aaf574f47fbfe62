"""Steady load: what a server lives with for an hour: many good requests, some malformed ones, and slow clients.

The good requests are wrk's, where it is there; malformed and slow ones, and good ones beside them, are made here, one
connection each, so that it is known what each of them must be answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import statistics
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil

# Seconds between two bytes of a slow client, and between two looks at the server's memory.
TRICKLE, LOOK = 1.0, 1.0


@dataclass
class Told:
    """What came of the requests: answers by sort and status, and what was wrong."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def count(self, sort: str) -> int:
        """How many of a sort were answered."""
        return sum(n for (name, _), n in self.answers.items() if name == sort)

    def take(self, sort: str, wanted: int, answer: bytes) -> None:
        """Take an answer, which is to have a status."""
        status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
        self.answers[sort, status] += 1
        if status != wanted:
            self.faults.append(f"{sort}: {status} where {wanted} was wanted: {answer[:200]!r}")


def request(
    body: bytes, length: int | None = None, method: str = "POST", path: str = "/invocations", **headers: str
) -> bytes:
    """Return a request that closes its connection; ``length`` is what it says of its body."""
    given = {"Host": "localhost", "Content-Type": "application/json", "Connection": "close",
             **{name.replace("_", "-"): value for name, value in headers.items()},
             "Content-Length": str(len(body) if length is None else length)}  # fmt: skip
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def malformed(body: bytes) -> list[tuple[bytes, int]]:
    """Return requests made of a good one's body that are each wrong in one way, and the status that says so."""
    return [
        (request(body[:-2]), 400), (request(body.replace(b'"keys"', b'"kyes"')), 400), (request(b"\xff" + body), 400),
        (request(body, Content_Type="text/csv"), 415), (request(body, Accept="text/csv"), 406),
        (request(body, path="/nothing"), 404), (request(b"", method="GET"), 405),
        (request(b"", length=10**9), 413), (b"GET\r\n\r\n", 400),
    ]  # fmt: skip


async def ask(port: int, content: bytes) -> bytes:
    """Return what comes back for a request, whether or not the server waits for more of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(content)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        return head + await reader.readexactly(int(length[1]) if length else 0)
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()


async def asked(port: int, sort: str, requests: Iterator[tuple[bytes, int]], rate: float, told: Told) -> None:
    """Send requests, so many a second, for ever."""
    due = time.monotonic()
    for content, wanted in requests:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due += 1 / rate
        told.take(sort, wanted, await ask(port, content))


async def slow(port: int, first: bytes, told: Told) -> None:
    """Be a client that sends the rest of a request byte by byte, and again when it has been cut."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first)
        answer = asyncio.ensure_future(reader.read())
        try:
            while not (await asyncio.wait([answer], timeout=TRICKLE))[0]:
                writer.write(b"x")
            told.take("slow", 408, answer.result())
        finally:
            answer.cancel()
            writer.close()


async def trouble(
    port: int, body: bytes, told: Told, until: Coroutine[Any, Any, object], rates: tuple[float, float], clients: int
) -> None:
    """Live with good and malformed requests at two rates, and slow clients, until something ends.

    Half of the slow clients are slow in the head, half in the body.
    """
    head, part = b"POST /invocations HTTP/1.1\r\nX-Slow: ", request(body[:9], len(body) + 1000)
    work = [asked(port, "good", itertools.repeat((request(body), 200)), rates[0], told),
            asked(port, "malformed", itertools.cycle(malformed(body)), rates[1], told),
            *(slow(port, part if n % 2 else head, told) for n in range(clients))]  # fmt: skip
    tasks = [asyncio.ensure_future(one) for one in (until, *work)]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    # Of the clients none ends by itself.
    told.faults += [f"a client broke off: {task.exception()!r}" for task in done - {tasks[0]}]
    if tasks[0] in done:
        tasks[0].result()


async def memory(pid: int) -> list[float]:
    """Return the server's memory in MB, second by second, until it is cancelled."""
    process, seen = psutil.Process(pid), []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            seen.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(LOOK)
    return seen


def growth(seen: list[float]) -> tuple[float, float]:
    """Return the memory after the first tenth, as the median of the next, and that of the last tenth."""
    tenth = max(1, len(seen) // 10)
    return statistics.median(seen[tenth : 2 * tenth] or seen), statistics.median(seen[-tenth:])
