"""The real server on a port of the loopback: every fault of a client is answered, and harms nobody else."""

import asyncio
import contextlib
import gc
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fmtune.data.encoding import Encoder
from fmtune.data.kinds import OneHot, Scaled
from fmtune.errors import ModelError, ResourceError, UsageError
from fmtune.fm.model import Model
from fmtune.fm.scorer import Scorer
from fmtune.rows import SparseRows
from fmtune.sagemaker import inference, media
from fmtune.sagemaker.connection import Limits, Request
from fmtune.sagemaker.hosting import limits_of, port_of, workers_of
from fmtune.sagemaker.server import Service, serve
from tests.load import steady
from tests.processes import Limited

DIM = 50
BODY = b'{"instances": [{"data": {"features": {"keys": [3, 7], "values": [1, 2]}}}]}'
TYPE = {"Content-Type": media.JSON}
LIMITS = {"body": 400_000, "head": 4096, "head_seconds": 0.6, "body_seconds": 0.9, "stop_seconds": 1.0}

# A process of its own: signals, and a loop that nothing else shares. The model may be held back by a file.
CHILD = """
import functools, json, sys, time
from pathlib import Path
from fmtune.fm.model import Model
from fmtune.sagemaker.connection import Limits
from fmtune.sagemaker.server import serve

def load(path):
    while (path.parent / "wait").exists():
        time.sleep(0.05)
    return Model.load(path)

path, limits, options = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
model = path if options.get("workers") else functools.partial(load, path)
if __name__ == "__main__":
    serve(model, limits=Limits(**limits), ready=lambda a: print(a, flush=True), **{"port": 0, **options})
    print("stopped", flush=True)
"""


class Child:
    """A server's process and its port."""

    def __init__(self, folder, limits=None, wait=False, encoder=None, **options):
        rng = np.random.default_rng(0)
        dim = encoder.feature_dim if encoder else DIM
        weights = rng.normal(size=dim).astype("f4"), rng.normal(size=(dim, 4)).astype("f4")
        self.model = Model("binary_classifier", 0.5, *weights, {"encoding": encoder.to_json()} if encoder else {})
        self.model.save(folder / "model")
        (folder / "serve.py").write_text(CHILD)
        self.gate = folder / "wait"
        if wait:
            self.gate.touch()
            with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
                options["port"] = free.getsockname()[1]
        words = [folder / "model", json.dumps({**LIMITS, **(limits or {})}), json.dumps(options)]
        self.process = Limited(
            [sys.executable, folder / "serve.py", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.port = options["port"] if wait else int(self.process.stdout.readline().rpartition(":")[2])
        self.until(503 if wait else 200)

    def until(self, status):
        """Wait until /ping says so."""
        end = time.monotonic() + 30
        while self._ping() != status:
            assert time.monotonic() < end and self.process.poll() is None
            time.sleep(0.05)

    def _ping(self):
        with contextlib.suppress(ConnectionRefusedError):
            return self.ask("GET", "/ping")[0]

    def ask(self, method="POST", path="/invocations", body=b"", headers=TYPE):
        """Return status, headers and content of the answer, on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def connect(self, first=b""):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        client.sendall(first)
        return client

    def talk(self, content):
        """Send bytes, and return all that comes back until the server closes."""
        with self.connect(content) as client:
            return read(client)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def read(client):
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def head(length, *lines):
    rest = "".join(f"{line}\r\n" for line in ("Host: localhost", f"Content-Type: {media.JSON}", *lines))
    return f"POST /invocations HTTP/1.1\r\n{rest}Content-Length: {length}\r\n\r\n".encode()


def error(content):
    return json.loads(content)["message"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    child = Child(tmp_path_factory.mktemp("server"))
    yield child
    assert child.stop()[0] == 0


@pytest.fixture(scope="module")
def expected(server):
    rows = inference.read_json(BODY, DIM)
    return float(Scorer(server.model).predict(rows)[0])


def test_requests_may_name_features(tmp_path):
    """A model that was trained on a table knows its columns; numbered features are taken as ever."""
    encoder = Encoder([OneHot("user", ("42", "7")), OneHot("tags", ("a", "b"), separator="|"), Scaled("age", 40, 10)])
    child = Child(tmp_path, encoder=encoder)
    scorer = Scorer(child.model)

    def scores(*instances):
        status, _, content = child.ask(body=json.dumps({"instances": instances}).encode())
        assert status == 200
        return [one["score"] for one in json.loads(content)["predictions"]]

    named = scores({"user": 7, "tags": "a|b", "age": 50}, {"user": "new"}, {"features": [0, 1, 0.5, 0.5, 1]})
    alone = scorer.predict(SparseRows(np.array([0, 4, 4]), np.array([1, 2, 3, 4], "i4"),
                                      np.array([1, 0.5, 0.5, 1], "f4"), None, 5))  # fmt: skip
    assert named == [float(alone[0]), float(alone[1]), float(alone[0])]
    for instance, what in (
        ({"usr": 1}, "instances[0].usr: the model has no column 'usr' (did you mean 'user'?)"),
        ({"age": "old"}, "instances[0].age: wants a finite number, not 'old'"),
        ({}, "instances[0]: has neither 'features' nor 'data'"),
        ({"features": [0, "1"]}, "instances[0].features[1]: wants float, got str"),
    ):
        status, _, content = child.ask(body=json.dumps({"instances": [instance]}).encode())
        assert status == 400 and error(content).startswith(what)
    lines = b'{"user": "42"}\n\n{"user": "42", "age": "x"}'
    assert error(child.ask(body=lines, headers={"Content-Type": media.LINES})[2]).startswith("line 3: age: wants")
    assert child.stop()[0] == 0


def test_invocations(server, expected):
    """A request is scored, in each type that is asked for."""
    status, headers, content = server.ask(body=BODY)
    assert (status, headers["Content-Type"]) == (200, media.JSON)
    assert json.loads(content) == {"predictions": [{"score": expected, "predicted_label": float(expected >= 0.5)}]}
    _, headers, content = server.ask(body=BODY, headers={**TYPE, "Accept": media.LINES})
    assert headers["Content-Type"] == media.LINES and json.loads(content)["score"] == expected
    _, headers, content = server.ask(body=BODY, headers={**TYPE, "Accept": f"{media.RECORDS}, */*;q=0.1"})
    assert headers["Content-Type"] == media.RECORDS and np.float32(expected).tobytes() in content


def test_an_endpoints_address_is_invocations(server):
    """Where boto3 sends a request to an endpoint of any name that SageMaker allows, and only there."""
    assert server.ask(path="/endpoints/my-FM-2/invocations", body=BODY)[2] == server.ask(body=BODY)[2]
    for path in ("/endpoints/a_b/invocations", "/endpoints//invocations", "/endpoints/a/invocations/x", "/endpoints/a"):
        assert server.ask(path=path, body=BODY)[0] == 404


def test_a_fault_of_an_endpoint_is_a_model_error(server):
    """What SageMaker makes of a container's answer: 424, as botocore's model has it; at /invocations it stays."""
    path = "/endpoints/fm/invocations"
    for body, headers, status in ((b"{", TYPE, 400), (BODY, {"Content-Type": "text/csv"}, 415)):
        plain, _, said = server.ask(body=body, headers=headers)
        got, told, content = server.ask(path=path, body=body, headers=headers)
        assert (plain, got, told["x-amzn-ErrorType"]) == (status, 424, "ModelError")
        found = json.loads(content)
        assert found["OriginalStatusCode"] == status
        assert json.loads(found["OriginalMessage"]) == json.loads(said)
        assert found["Message"].startswith(f"Received client error ({status}) from primary with message ")
    assert server.ask("GET", path)[0] == 405


def test_ping_and_parameters(server):
    """/ping is an empty 200, /execution-parameters say what a batch transform may send."""
    assert server.ask("GET", "/ping")[::2] == (200, b"")
    status, headers, content = server.ask("HEAD", "/ping")
    assert (status, content) == (200, b"") and headers["Date"]
    parameters = {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1}
    assert json.loads(server.ask("GET", "/execution-parameters?x=1")[2]) == parameters


TYPES = "application/json, application/jsonlines, application/x-recordio-protobuf"
NOTHING = "the addresses are /invocations, /ping, /execution-parameters"


def changed(old, new):
    return BODY.replace(old, new)


# Method, address, body, headers; the status, and the message that is the whole answer.
REFUSED = [
    ("GET", "/invocations", b"", TYPE, 405, "/invocations takes POST"),
    ("TRACE", "/invocations", b"", TYPE, 405, "/invocations takes POST"),
    ("DELETE", "/ping", b"", {}, 405, "/ping takes GET or HEAD"),
    ("POST", "/ping", BODY, TYPE, 405, "/ping takes GET or HEAD"),
    ("GET", "/", b"", {}, 404, f"there is nothing at /: {NOTHING}"),
    ("POST", "/invocation", BODY, TYPE, 404, f"there is nothing at /invocation: {NOTHING}"),
    ("GET", "/invocations/../ping", b"", {}, 404, f"there is nothing at /invocations/../ping: {NOTHING}"),
    ("POST", "/invocations", BODY, {}, 415, f"the Content-Type is none; it may be {TYPES}, in UTF-8"),
    ("POST", "/invocations", b"1,2", {"Content-Type": "text/csv"}, 415,
     f"the Content-Type is text/csv; it may be {TYPES}, in UTF-8"),
    ("POST", "/invocations", BODY, {"Content-Type": "application/json; charset=utf-16"}, 415,
     f"the Content-Type is application/json; charset=utf-16; it may be {TYPES}, in UTF-8"),
    ("POST", "/invocations", BODY, {**TYPE, "Content-Encoding": "gzip"}, 415,
     "the Content-Encoding is gzip; send the body as it is"),
    ("POST", "/invocations", BODY, {**TYPE, "Accept": "text/csv"}, 406,
     f"what Accept asks for is not made here; it may be {TYPES}"),
    ("POST", "/invocations", b"{", TYPE, 400, "body: input data was truncated"),
    ("POST", "/invocations", b"\xff", TYPE, 400, "body: JSON is malformed: invalid character (byte 0)"),
    ("POST", "/invocations", b"null", TYPE, 400, "body: wants object, got null"),
    ("POST", "/invocations", b'{"instances": [{}, 3]}', TYPE, 400, "instances[1]: wants object, got int"),
    ("POST", "/invocations", changed(b"2]", b'"2"]'), TYPE, 400,
     "instances[0].data.features.values[1]: wants float, got str"),
    ("POST", "/invocations", changed(b"2]", b"2, 3]"), TYPE, 400,
     "instances[0].data.features: 2 keys but 3 values"),
    ("POST", "/invocations", b"[" * 300_000, TYPE, 400, "body: wants object, got array"),
    ("POST", "/invocations", b'{"instances": [], "x": ' + b"[" * 200_000, TYPE, 400,
     "body: the JSON is nested too deep"),
    ("POST", "/invocations", changed(b"7", b"50"), TYPE, 400,
     "instances[0].data.features.keys[1]: 50 is beyond the model's 50 features"),
    ("POST", "/invocations", changed(b"7", b"-1"), TYPE, 400,
     "instances[0].data.features.keys[1]: -1 is below 0, where features begin"),
    ("POST", "/invocations", changed(b"2]", b"NaN]"), TYPE, 400,
     "body: JSON is malformed: invalid character (byte 68)"),
    ("POST", "/invocations", changed(b"2]", b"1e999]"), TYPE, 400,
     "instances[0].data.features.values[1]: number out of range"),
    ("POST", "/invocations", b"\n{}", {"Content-Type": media.LINES}, 400,
     "line 2: has neither 'features' nor 'data'"),
    ("POST", "/invocations", b"junk", {"Content-Type": media.RECORDS}, 400,
     "body: record 1, byte 0: no record starts here (the bytes 0a 23 d7 ce are missing)"),
    ("POST", "/invocations", b" " * 400_001, TYPE, 413, "the body has more than 400000 bytes"),
    ("POST", "/invocations", BODY, {**TYPE, "X-Large": "x" * 5000}, 431,
     "the head of the request has more than 4096 bytes"),
    ("POST", "/invocations", BODY, {**TYPE, "Host": "evil.example"}, 403,
     "this server answers only under its own address"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "what"), REFUSED, ids=range(len(REFUSED)))
def test_refused(server, method, path, body, headers, status, what):
    """A request that cannot be answered says why, as JSON, with the status that HTTP has for it."""
    given, got, content = server.ask(method, path, body, headers)
    assert (given, content) == (status, json.dumps({"message": what}).encode() + b"\n")
    assert got["Content-Type"] == media.JSON
    if status == 405:
        assert got["Allow"] in ("POST", "GET, HEAD")


def test_empty(server):
    """An empty body is 204, as in SageMaker's other containers; no instances are no predictions."""
    assert server.ask(headers={})[::2] == server.ask()[::2] == (204, b"")
    assert server.ask(body=b'{"instances": []}')[2] == b'{"predictions":[]}'


def test_connection_is_kept(server):
    """One connection serves requests one after another, also after a refused one, and many sent at once in order."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        statuses = []
        for body in (BODY, b"{", BODY):
            connection.request("POST", "/invocations", body, TYPE)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        assert statuses == [200, 400, 200]
    lines = b'{"data": {"features": {"keys": [%d], "values": [1]}}}\n'
    large = b"".join(lines % (i % DIM) for i in range(1000))
    one = head(len(BODY)) + BODY
    many = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media.LINES}\r\n"
    many = many.encode() + b"Content-Length: %d\r\n\r\n" % len(large) + large
    last = head(2, "Connection: close") + b"{}"
    content = server.talk(one + many + one + last)
    assert re.findall(rb"HTTP/1.1 (\d+)", content) == [b"200", b"200", b"200", b"400"]
    assert content.count(b"\n{\"score\"") >= 999
    content = server.talk(many + one + b"junk\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", content) == [b"200", b"200", b"400"]


def test_chunks_and_continue(server, expected):
    """A body in chunks is read, Expect is answered with 100, HTTP/1.0 is answered and closed."""
    chunked = head(0, "Transfer-Encoding: chunked", "Connection: close").replace(b"Content-Length: 0\r\n", b"")
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:20], BODY[20:])) + b"0\r\n\r\n"
    assert str(expected).encode() in server.talk(chunked + pieces)
    content = server.talk(head(len(BODY), "Expect: 100-continue", "Connection: close") + BODY)
    assert content.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert b" 200 OK" in server.talk((head(len(BODY)) + BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
    large = chunked + b"%x\r\n" % 500_000 + b" " * 500_000 + b"\r\n0\r\n\r\n"
    assert b" 413 " in server.talk(large)


JUNK = [b"junk\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /ping HTTP/9.9\r\n\r\n",
        head(10, "Content-Length: 11"), head(10, "Transfer-Encoding: chunked"), head(-1), head("1e3"), head(10**30),
        b"GET /ping HTTP/1.1\r\nbad header\r\n\r\n"]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_junk(server, junk):
    """What is not HTTP/1.1, or could be read in two ways, is answered 400 and the connection closed."""
    head, _, content = server.talk(junk).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n") and error(content) == "the bytes are not an HTTP request"


def test_upgrade(server):
    """A wish for another protocol is not heeded, nor what is sent in it."""
    wish = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    assert server.talk(wish + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 200 OK")


def test_endless_head(server):
    """A head without an end is cut off: 431."""
    assert b" 431 " in server.talk(b"GET /ping HTTP/1.1\r\n" + b"X-Y: z\r\n" * 2000)
    assert b" 431 " in server.talk(b"GET /" + b"x" * 20_000)


def test_slow_clients(server):
    """Slow heads and bodies are answered 408; 200 of them keep nobody else waiting."""
    heads = [server.connect(b"POST /invocations HTTP/1.1\r\nHost: loc") for _ in range(100)]
    bodies = [server.connect(head(1000) + b"{") for _ in range(100)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: server.ask(body=BODY)[0], range(40))) == [200] * 40
    assert server.ask("GET", "/ping")[0] == 200
    for clients, part, seconds in ((heads, "head", 0.6), (bodies, "body", 0.9)):
        for client in clients:
            with client:
                answer, _, content = read(client).partition(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert error(content) == f"the {part} did not come within {seconds} seconds"
    assert server.ask(body=BODY)[0] == 200


def test_steady_load(server):
    """Good requests are answered, malformed ones refused as each must be, slow ones cut, all at once and for long."""
    told = steady.Told()

    async def enough():
        while told.count("good") < 100 or told.count("malformed") < 27 or told.count("slow") < 20:
            await asyncio.sleep(0.05)
            assert not told.faults and server.process.poll() is None

    async def live():
        looks = asyncio.create_task(steady.memory(server.process.pid))
        await steady.trouble(server.port, BODY, told, asyncio.wait_for(enough(), 60), (100, 30), 20)
        looks.cancel()
        return await looks

    assert min(steady.growth(asyncio.run(live()))) > 1.0
    assert not told.faults and {status for sort, status in told.answers if sort == "malformed"} == {
        400, 404, 405, 406, 413, 415,
    }  # fmt: skip
    assert steady.growth([9.0, *range(19)]) == (1.5, 17.5)


def test_client_leaves(server):
    """Clients that leave in the middle, also without reading a large answer, harm nobody."""
    large = b'{"features": [%s]}\n' % b",".join([b"1"] * DIM) * 3000
    lines = head(len(large)).replace(b"application/json", b"application/jsonlines")
    for content in (b"", b"POST", head(100) + b"{", lines + large, (head(len(BODY)) + BODY) * 50):
        client = server.connect(content)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    assert server.ask(body=BODY)[0] == 200


def test_large_requests_do_not_hold_up_others(server, expected):
    """Large bodies are answered in a thread: right, and while small ones go on."""
    line = b'{"data": {"features": {"keys": [3, 7], "values": [1, 2]}}}\n'
    large = line * 6000
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(server.ask, body=large, headers={"Content-Type": media.LINES}) for _ in range(4)]
        assert server.ask(body=BODY)[0] == 200
        for status, _, content in (answer.result() for answer in answers):
            assert status == 200 and {json.loads(part)["score"] for part in content.splitlines()} == {expected}
            assert content.count(b"\n") == 6000


def test_overload(tmp_path):
    """Beyond its limits the server answers 503 with Retry-After, and goes on when there is room again."""
    child = Child(tmp_path, {"connections": 2, "held": 3000, "body": 2000, "waiting": 0, "inline": 500})
    held = [child.connect(head(1900) + b" " * 1800) for _ in range(1)]
    status, headers, content = child.ask(body=b" " * 1400)
    assert (status, headers["Retry-After"], error(content)) == (503, "1", "too much is being sent at once: try again")
    held.append(child.connect())
    status, headers, content = child.ask(body=BODY)
    assert (status, headers["Retry-After"], error(content)) == (503, "1", "too many connections: try again")
    assert child.ask("GET", "/ping")[0] == 200
    for client in held:
        client.close()
    while child.ask(body=BODY)[0] != 200:
        time.sleep(0.02)
    status, headers, content = child.ask(body=BODY + b" " * 600)
    assert (status, headers["Retry-After"]) == (503, "1")
    assert error(content) == "too many large requests are waiting: try again"
    assert child.stop()[0] == 0


def test_stop(tmp_path):
    """SIGTERM closes idle connections, lets requests under way finish, and ends with exit code 0."""
    child = Child(tmp_path)
    idle, slow, under_way = child.connect(), child.connect(head(100) + b"{"), child.connect(head(len(BODY)) + BODY[:9])
    time.sleep(0.3)  # all three are accepted
    child.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    under_way.sendall(BODY[9:])
    answer = read(under_way)
    assert b" 200 OK" in answer and b"connection: close" in answer
    assert read(idle) == b"" and b" 408 " in read(slow)
    out, err = child.process.communicate(timeout=20)
    assert (child.process.returncode, out) == (0, "stopped\n") and "Traceback" not in err
    for client in (idle, slow, under_way):
        client.close()


def test_not_ready(tmp_path):
    """Until the model is there, /ping and requests are answered 503, after that 200; the token is wanted all along."""
    child = Child(tmp_path, wait=True, token="secret-1")
    bearer = {**TYPE, "Authorization": "Bearer secret-1"}
    assert child.ask("GET", "/ping", headers={})[0] == 503
    status, headers, content = child.ask(body=BODY, headers=bearer)
    assert (status, headers["Retry-After"]) == (503, "1") and error(content) == "the model is not loaded yet: try again"
    assert child.ask(body=BODY)[0] == 401
    child.gate.unlink()
    child.until(200)
    assert child.process.stdout.readline() == f"http://127.0.0.1:{child.port}\n"
    assert child.ask(body=BODY, headers=bearer)[0] == 200
    for wrong in ("", "Bearer secret-2", "secret-1", "Basic x"):
        status, headers, content = child.ask(body=BODY, headers={**TYPE, "Authorization": wrong})
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert error(content) == "the token is missing or wrong: send Authorization: Bearer TOKEN"
    assert child.ask("GET", "/execution-parameters")[0] == 401
    assert child.ask(body=BODY, headers={**bearer, "Host": "name.example"})[0] == 200
    assert child.stop(signal.SIGINT)[0] == 0


def test_workers(tmp_path):
    """Two workers share the port; SIGTERM ends them both."""
    child = Child(tmp_path, workers=2)
    assert {child.ask(body=BODY)[0] for _ in range(10)} <= {200, 503}
    assert json.loads(child.ask("GET", "/execution-parameters")[2])["MaxConcurrentTransforms"] == 2
    assert child.stop()[0] == 0
    with pytest.raises(ConnectionRefusedError):
        child.connect()


# ---- without a process ----


def test_damaged_model_ends_the_server(tmp_path):
    """A model that cannot be read, or scores nothing, is an error of ``serve``, and no server is said to be there."""
    (tmp_path / "model").write_bytes(b"junk")
    before, said = signal.getsignal(signal.SIGTERM), []
    for workers in (1, 2):
        with pytest.raises(ModelError, match="not a fmtune model"):
            serve(tmp_path / "model", port=0, workers=workers, ready=said.append)
        endless = Model("regressor", float("inf"), np.ones(2, "f4"), np.ones((2, 1), "f4"))
        with pytest.raises(ModelError, match="no row to a finite number"):
            serve(lambda model=endless: model, port=0, workers=workers, ready=said.append)
    assert said == [] and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.invalid", "127.0.0.1.example.invalid"])
def test_beyond_loopback(host):
    """A host that other machines reach is refused without a token."""
    with pytest.raises(UsageError) as error:
        serve("model", host=host)
    what = f"--host: {host} can be reached from other machines, and no token is set"
    assert str(error.value) == f"{what}\n  hint: keep 127.0.0.1, or set a token" and error.value.exit_code == 2


@pytest.mark.parametrize("token", ["", "a b", "ä", "a\r\nb"])
def test_odd_token(token):
    """A token that no header can carry is refused."""
    with pytest.raises(UsageError) as error:
        serve("model", token=token)
    what = "--token: the token is empty or holds what no header can"
    assert str(error.value) == f"{what}\n  hint: letters and digits"


def test_port_taken():
    """A taken port is said to be taken; one that cannot be is no crash."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ResourceError) as taken:
            serve("model", port=port)
    hint = "\n  hint: port 0 takes any that is free"
    assert str(taken.value) == f"--port: 127.0.0.1 port {port} is in use{hint}" and taken.value.exit_code == 5
    with pytest.raises(UsageError) as absent:
        serve("model", port=70_000)
    assert str(absent.value) == "--port: there is no port 70000\n  hint: 0 to 65535; 0 takes any that is free"


def test_container_limits():
    """The container's environment sets the payload, within SageMaker's bounds."""
    assert limits_of({}) == Limits()
    assert limits_of({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}).body == 100 * 2**20
    for odd in ("0", "101", "x", "-1"):
        with pytest.raises(UsageError, match="SAGEMAKER_MAX_PAYLOAD_IN_MB"):
            limits_of({"SAGEMAKER_MAX_PAYLOAD_IN_MB": odd})


def test_container_port_and_workers():
    """The label of the image promises to heed SAGEMAKER_BIND_TO_PORT; a transform keeps so many workers busy."""
    assert (port_of({}), workers_of({})) == (8080, 1)
    assert port_of({"SAGEMAKER_HTTP_PORT": "9000"}) == 9000
    assert port_of({"SAGEMAKER_HTTP_PORT": "9000", "SAGEMAKER_BIND_TO_PORT": "9001"}) == 9001
    assert workers_of({"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "4"}) == 4
    assert workers_of({"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "4", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"}) == 2
    with pytest.raises(UsageError, match="SAGEMAKER_BIND_TO_PORT is 'x'"):
        port_of({"SAGEMAKER_BIND_TO_PORT": "x"})


def test_the_process_is_left_as_it_was():
    """While it serves, the interpreter's threads change quicker and what was loaded is kept out of collections."""
    model = Model("regressor", 0.5, np.ones(DIM, "f4"), np.ones((DIM, 4), "f4"))
    service = Service(lambda: model)
    messages, sent, seen = asyncio.Queue(), [], []

    async def send(message):
        sent.append(message["type"])

    async def live():
        messages.put_nowait({"type": "lifespan.startup"})
        serving = asyncio.create_task(service({"type": "lifespan"}, messages.get, send))
        while service.scorer is None:
            await asyncio.sleep(0.01)
        seen.append((sys.getswitchinterval(), gc.get_freeze_count() > 0))
        messages.put_nowait({"type": "lifespan.shutdown"})
        await serving

    before = (sys.getswitchinterval(), gc.get_freeze_count() > 0)
    with warnings.catch_warnings():
        asyncio.run(live())
    assert seen == [(pytest.approx(0.0005), True)] and before == (sys.getswitchinterval(), gc.get_freeze_count() > 0)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_internal_error_is_500(caplog):
    """A fault of ours is a 500 without its text; lack of memory is a 503."""

    class Broken:
        feature_dim, binary = DIM, False

        def __init__(self, fault):
            self.fault = fault

        def predict(self, rows):
            raise self.fault

    service = Service(lambda: None)
    for fault, status in ((RuntimeError("a secret"), 500), (MemoryError(), 503)):
        service.scorer = Broken(fault)
        request = Request("POST", "/invocations", {b"content-type": b"application/json"}, True, bytearray(BODY))
        assert service.check(request) is None
        response = service.answer(request)
        assert response.status == status and b"secret" not in response.content
    assert "a secret" in caplog.text
