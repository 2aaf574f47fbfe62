"""The dashboard: the real optuna-dashboard over HTTP, the gate before it, and what a study wears in it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

import fmtune
from fmtune.dashboard.gate import Gate
from fmtune.errors import ResourceError, StorageError, UsageError
from fmtune.extras import install
from fmtune.report import page
from fmtune.report.markdown import markdown
from fmtune.tune import spec as specs
from fmtune.tune.collect import collect
from fmtune.tune.spec import Spec
from fmtune.tune.storage import open_storage
from tests.processes import Limited
from tests.study_fixtures import STUDY, command, write_study

pytest.importorskip("optuna_dashboard", reason="needs `pip install 'fmtune[dashboard]'`")

from fmtune.dashboard.dress import WORN, dress
from fmtune.dashboard.plots import POINTS, curves, figures
from fmtune.dashboard.serve import open_server, refuse_writes, serve

HOSTILE = ["ключ 鍵 🔑", "<script>alert(1)</script>", "a/../../b", "'; DROP TABLE studies; --", "x\r\nSet-Cookie: a=b"]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A browser of few lines: one address, and the cookie that it was given."""

    def __init__(self, url: str) -> None:
        self.host, _, rest = url.removeprefix("http://").partition("/")
        self.door, self.cookie = f"/{rest}", ""

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        sent = {"Accept-Encoding": "identity", **({"Cookie": self.cookie} if self.cookie else {}), **headers}
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in sent.items()})
        got = connection.getresponse()
        answer = Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        connection.close()
        return answer

    def enter(self) -> Client:
        self.cookie = self.ask(self.door).headers["set-cookie"].partition(";")[0]
        return self


class Place(NamedTuple):
    spec: Spec
    root: Path

    @property
    def database(self) -> str:
        return f"sqlite:///{self.root}/runs/{self.spec.study_name}/study.db"

    def worn(self) -> dict[str, Any]:
        """Return the study's system attributes."""
        return dict(open_storage(self.database).get_study_system_attrs(1))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished study of two cells with its report."""
    root = tmp_path_factory.mktemp("dashboard")
    spec = specs.read(write_study(root, STUDY.replace("n_trials: 24", "n_trials: 8")))
    fmtune.run(spec, root=root)
    page.write(collect(spec, root), root / "reports" / "small.html")
    return Place(spec, root)


@pytest.fixture
def place(ran: Place, tmp_path: Path) -> Place:
    """A copy of the finished study that a test may change."""
    shutil.copytree(ran.root, tmp_path / "copy")
    return Place(ran.spec, tmp_path / "copy")


@contextmanager
def opened(place: Place, **options: Any) -> Iterator[Client]:
    """The real dashboard on a free port."""
    server, url = open_server(place.spec, port=0, root=place.root, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Client(url)
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


# --- the real thing -------------------------------------------------------------------------------------------


def test_the_dashboard_shows_the_study(place: Place) -> None:
    """The page, its script and its API are optuna-dashboard's, with both cells, all trials, note, plots, report."""
    with opened(place, verdict=lambda result: "**Trial 3** wins.") as client:
        client.enter()
        assert b"<title>Optuna Dashboard</title>" in client.ask("/dashboard").body
        assert len(client.ask("/static/bundle.js").body) > 1_000_000
        names = {s["study_name"]: s["study_id"] for s in client.ask("/api/studies").json["study_summaries"]}
        assert set(names) == {"small", "small/cpu-dense"}
        study = client.ask(f"/api/studies/{names['small']}").json
        assert len(study["trials"]) == 8 and study["objective_names"] == [place.spec.objective]
        assert study["note"]["body"].startswith("**Trial 3** wins.\n\n[The whole report](/artifacts/")
        assert {g["id"] for g in study["plotly_graph_objects"]} == {"learning-curves", "cells"}
        report = client.ask(f"/artifacts/{names['small']}/{study['artifacts'][0]['artifact_id']}")
        assert report.body == (place.root / "reports/small.html").read_bytes()
        replayed = client.ask(f"/api/studies/{names['small/cpu-dense']}").json
        assert len(replayed["trials"]) == 8 and replayed["objective_names"] == [place.spec.objective]


def test_the_token_in_the_address_becomes_a_cookie(place: Place) -> None:
    """The printed address sets a strict cookie that scripts cannot read, and leads to the study's own page."""
    with opened(place) as client:
        answer = client.ask(client.door)
        name, *attributes = answer.headers["set-cookie"].split("; ")
        assert (answer.status, answer.headers["location"]) == (303, "/dashboard/studies/1")
        assert name.startswith(f"fmtune_{client.host.partition(':')[2]}=")
        assert attributes == ["Path=/", "HttpOnly", "SameSite=Strict"]
        client.cookie = name
        assert client.ask("/api/studies").status == 200


def test_strangers_stay_outside(place: Place) -> None:
    """No token, a wrong one, a foreign Host with the right cookie: 403 and a sentence."""
    with opened(place) as client:
        for path in ("/", "/dashboard", "/api/studies", "/static/bundle.js", "/?token=guess", "/?token=%ff"):
            answer = client.ask(path)
            assert (answer.status, b"Open the whole address" in answer.body) == (403, True), path
        client.enter()
        for host in ("evil.example", f"evil.example:{client.host[-5:]}", "127.0.0.1", "127.0.0.1:1", ""):
            answer = client.ask("/api/studies", Host=host)
            assert (answer.status, b"only under its own address" in answer.body) == (403, True), host


@pytest.mark.parametrize("method", ["DELETE", "POST", "PUT", "PATCH", "OPTIONS"])
def test_nothing_changes_unless_writable(place: Place, method: str) -> None:
    """Without the token 403; with it still 403, since the dashboard is read-only; the study is there."""
    with opened(place) as client:
        assert b"token" in client.ask("/api/studies/1", method).body
        assert client.ask(client.door.replace("/?", "/api/studies/1?"), method).status == 403
        answer = client.enter().ask("/api/studies/1", method, Origin=f"http://{client.host}")
        assert (answer.status, b"--writable" in answer.body) == (403, True)
        assert len(client.ask("/api/studies").json["study_summaries"]) == 2


def test_the_database_itself_refuses_writes(place: Place) -> None:
    """Even past the gate a read-only dashboard cannot delete a study."""
    storage = open_storage(place.database)
    refuse_writes(storage)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        storage.delete_study(1)
    assert len(storage.get_all_trials(1)) == 8


def test_writable_takes_changes_from_its_own_page_only(place: Place) -> None:
    """A change from another site, another port or from nowhere is refused; one from the dashboard's page is made."""
    with opened(place, writable=True) as client:
        own = f"http://{client.host}"
        assert client.ask("/api/studies/2", "DELETE", Origin=own).status == 403
        client.enter()
        foreign: list[dict[str, str]] = [
            {}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
            {"Referer": "http://evil.example/"}, {"Referer": f"{own}.evil.example/"},
            {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site", "Origin": own},
        ]  # fmt: skip
        for headers in foreign:
            assert client.ask("/api/studies/2", "DELETE", None, **headers).status == 403, headers
        assert client.ask("/api/studies/2", "DELETE", b"{}", Origin=own, Content_Type="application/json").status == 204
        assert [s["study_name"] for s in client.ask("/api/studies").json["study_summaries"]] == ["small"]


def test_hostile_study_names(place: Place) -> None:
    """Other studies of the same database are listed under their very names; no header is made of one."""
    for name in HOSTILE:
        optuna.create_study(study_name=name, storage=open_storage(place.database))
    with opened(place) as client:
        studies = client.enter().ask("/api/studies").json["study_summaries"]
        assert [s["study_name"] for s in studies if not s["study_name"].startswith("small")] == HOSTILE
        for study in studies:
            assert client.ask(f"/api/studies/{study['study_id']}").json["name"] == study["study_name"]
            answer = client.ask(f"/csv/{study['study_id']}")
            assert answer.status == 200 or "\n" in study["study_name"]
            assert "set-cookie" not in answer.headers


def test_artifacts_are_no_part_of_the_site(place: Place) -> None:
    """A page among the artifacts is served sandboxed, and no other site may read it."""
    with opened(place) as client:
        artifact = client.enter().ask("/api/studies/1").json["artifacts"][0]["artifact_id"]
        headers = client.ask(f"/artifacts/1/{artifact}").headers
        assert headers["content-security-policy"] == "sandbox allow-scripts allow-downloads"
        assert "access-control-allow-origin" not in headers
        assert "sandbox" not in client.ask("/dashboard").headers["content-security-policy"]


def test_a_running_study(ran: Place, tmp_path: Path) -> None:
    """The dashboard follows a study that runs, writes nothing to it, and does not hold it up."""
    path = write_study(tmp_path, STUDY.replace("n_trials: 24", "n_trials: 100000"))
    writer = Limited(command("run", path, "--json"), cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True)
    assert writer.stdout is not None
    ended = 0
    events = (json.loads(line)["event"] for line in writer.stdout)
    try:
        while ended < 3:
            ended += next(events) == "trial"
        here = Place(specs.read(path), tmp_path)
        with opened(here) as client:
            client.enter()
            seen = [len(_finished(client))]
            while ended < 40:
                ended += next(events) == "trial"
            # The dashboard itself remembers trials for two seconds.
            while len(seen) < 2000 and seen[-1] <= seen[0]:
                seen.append(len(_finished(client)))
            assert seen[-1] > seen[0] >= 3
            assert client.ask("/api/studies/1").json["note"]["body"] == ""
        assert WORN not in here.worn()
    finally:
        os.killpg(writer.pid, signal.SIGINT)
        writer.communicate()
    assert writer.returncode == 130
    assert dress(here.spec, tmp_path)
    assert WORN in here.worn()


def _finished(client: Client) -> list[Any]:
    return [t for t in client.ask("/api/studies/1").json["trials"] if t["state"] in ("Complete", "Pruned")]


# --- what a study wears ---------------------------------------------------------------------------------------


def test_dressing_twice_is_dressing_once(place: Place) -> None:
    """The second time nothing is written, the third, with another report, only what changed."""
    assert dress(place.spec, place.root)
    once = place.worn()
    assert dress(place.spec, place.root)
    assert place.worn() == once
    (place.root / "reports/small.html").write_text("another report")
    assert dress(place.spec, place.root)
    assert {k for k, v in place.worn().items() if v != once.get(k)} == {WORN}
    stored = list((place.root / "runs/small/artifacts").iterdir())
    assert [f.read_text() for f in stored] == ["another report"]


def test_the_note_is_the_reports_own_verdict(place: Place) -> None:
    """The report's Markdown goes into the note; what is folded there would be shown as tags, and is left out."""
    result = collect(place.spec, place.root)
    dress(place.spec, place.root, markdown)
    note = _note(place)
    assert result.best is not None and f"Winner: trial {result.best.number}" in note
    assert "<details>" in markdown(result) and "<details>" not in note
    assert f"fmtune report {place.spec.path}" in note


def test_an_edited_note_is_left_alone(place: Place) -> None:
    """What somebody wrote in the dashboard survives the next opening."""
    dress(place.spec, place.root, lambda result: "first")
    storage = open_storage(place.database)
    storage.set_study_system_attr(1, "dashboard:note_str:0", "mine")
    dress(place.spec, place.root, lambda result: "second")
    assert _note(place) == "mine"


def test_without_a_report_the_note_says_so(place: Place) -> None:
    """A study whose report was never written has no artifact and says what writes one."""
    (place.root / "reports/small.html").unlink()
    dress(place.spec, place.root)
    assert "There is no report yet." in _note(place)
    assert not [k for k in place.worn() if k.startswith("artifacts:")]


def _note(place: Place) -> str:
    parts = {k: v for k, v in place.worn().items() if k.startswith("dashboard:note_str:")}
    return "".join(parts[f"dashboard:note_str:{i}"] for i in range(len(parts)))


def test_figures_are_small_and_exact(ran: Place) -> None:
    """A figure takes a few attributes of 2,045 characters, holds the curve's own numbers, and its best epoch."""
    result = collect(ran.spec, ran.root)
    made = figures(result)
    assert all(len(f.to_json()) < 4 * 2045 for f in made.values())
    best, first = result.best, made["learning-curves"].data[0]
    assert best is not None and first["name"] == f"trial {best.number}"
    assert first["y"] == pytest.approx(best.curve, rel=1e-5) and first["x"] == [1, 2, 3, 4]
    assert made["cells"].data[0]["x"] == ["cpu-sparse", "cpu-dense"]


def test_long_curves_are_thinned(ran: Place) -> None:
    """A curve of 1,000 epochs keeps about POINTS of them, among them the best and the last; NaN becomes a gap."""
    result = collect(ran.spec, ran.root)
    trial = replace(result.cells[0].trials[0], state="COMPLETE", value=1.0, best_epoch=777,
                    curve=(*(1.0 for _ in range(999)), float("nan")))  # fmt: skip
    figure = curves(replace(result, cells=(replace(result.cells[0], trials=(trial,) * 9),)))
    assert figure is not None and len(figure.to_json()) < 5 * 2045
    line = json.loads(figure.to_json())["data"][0]
    assert len(line["x"]) <= POINTS + 2 and {777, 1000} <= set(line["x"]) and line["y"][-1] is None


def test_nothing_to_draw(ran: Place) -> None:
    """A study without a complete trial, and one of a single cell, have no such figure."""
    result = collect(ran.spec, ran.root)
    assert figures(replace(result, cells=())) == {}
    assert set(figures(replace(result, cells=result.cells[:1]))) == {"learning-curves"}


# --- refusals -------------------------------------------------------------------------------------------------


def test_a_port_in_use(ran: Place) -> None:
    """Exit code 5 and another port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ResourceError, match="is in use") as caught:
        open_server(ran.spec, port=taken.getsockname()[1], root=ran.root)
    assert caught.value.exit_code == 5
    assert "--port " in str(caught.value.hint) and "--port 0" in str(caught.value.hint)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_only_the_loopback_unless_asked(ran: Place, host: str) -> None:
    """A host that others can reach is refused before anything listens, and the way round is named."""
    with pytest.raises(UsageError, match="reached from other machines") as caught:
        open_server(ran.spec, host, 0, root=ran.root)
    assert "ssh -L" in str(caught.value.hint) and "--beyond-loopback" in str(caught.value.hint)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 65536)])
def test_impossible_places(ran: Place, host: str, port: int) -> None:
    """An address of no interface and a number that is no port are errors of the command line."""
    with pytest.raises(UsageError):
        open_server(ran.spec, host, port, beyond_loopback=True, root=ran.root)


def test_no_study_yet(ran: Place, tmp_path: Path) -> None:
    """A study that was never run has no dashboard; nothing is created."""
    with pytest.raises(StorageError, match="there is no study 'small' yet"):
        open_server(ran.spec, port=0, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_extra_is_missing(ran: Place) -> None:
    """Without optuna-dashboard the error names the extra to install."""
    script = (
        "import sys; sys.modules['optuna_dashboard'] = None\n"
        "from fmtune.dashboard.serve import serve\nfrom fmtune.errors import ResourceError\n"
        "from fmtune.tune import spec\n"
        "try: serve(spec.read(sys.argv[1]), port=0)\n"
        "except ResourceError as error: print(error, error.exit_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, ran.spec.path], capture_output=True, text=True, check=True, cwd=ran.root,
        timeout=120,
    )
    assert f"{install('dashboard')} 5" in done.stdout


def test_ctrl_c_ends_quietly(place: Place) -> None:
    """The verb prints its address, answers there, and ends on Ctrl-C with code 0 and one word."""
    script = (
        "import sys\nfrom fmtune.dashboard.serve import serve\nfrom fmtune.tune import spec\n"
        "serve(spec.read(sys.argv[1]), port=0, open_browser=False)"
    )
    verb = Limited(
        [sys.executable, "-u", "-c", script, place.spec.path], cwd=place.root, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert verb.stdout is not None
    line = verb.stdout.readline()
    assert line.startswith("small, read-only, until Ctrl-C: http://127.0.0.1:")
    assert Client(line.split()[-1]).enter().ask("/api/studies").status == 200
    verb.send_signal(signal.SIGINT)
    out, err = verb.communicate(timeout=30)
    assert (verb.returncode, out, err.strip()) == (0, "", "closed")


# --- the gate alone -------------------------------------------------------------------------------------------


def _through(host: str = "127.0.0.1", port: int = 8080, **environ: str) -> tuple[str, dict[str, str]]:
    """Send one request through a gate before an application that says 200."""
    said: dict[str, Any] = {}

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        said.update(status=status, headers=dict(headers))

    def inside(_: Any, answer: Any) -> list[bytes]:
        answer("200 OK", [("Access-Control-Allow-Origin", "*")])
        return []

    request: dict[str, Any] = {}
    setup_testing_defaults(request)
    request.update(environ)
    list(Gate(inside, token="secret", port=port, host=host)(request, start))
    return said["status"][:3], said["headers"]


@pytest.mark.parametrize(
    ("name", "host", "port", "status"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, "200"),
        ("LocalHost:8080", "127.0.0.1", 8080, "200"),
        ("[::1]:8080", "::1", 8080, "200"),
        ("localhost", "127.0.0.1", 80, "200"),
        ("[::1]", "::1", 80, "200"),
        ("127.0.0.2:8080", "127.0.0.2", 8080, "200"),
        ("127.0.0.2:8080", "127.0.0.1", 8080, "403"),
        ("localhost", "127.0.0.1", 8080, "403"),
        ("localhost:80", "127.0.0.1", 8080, "403"),
        ("127.0.0.1:8080,evil.example", "127.0.0.1", 8080, "403"),
        ("localhost.evil.example:8080", "127.0.0.1", 8080, "403"),
        ("192.0.2.7:8080", "0.0.0.0", 8080, "200"),
        ("evil.example:8080", "0.0.0.0", 8080, "403"),
        ("", "127.0.0.1", 8080, "403"),
    ],
)
def test_hosts(name: str, host: str, port: int, status: str) -> None:
    """A Host header must be one of ours with our port, to the letter."""
    assert _through(host, port, HTTP_HOST=name, HTTP_COOKIE=f"fmtune_{port}=secret")[0] == status


@pytest.mark.parametrize(
    ("cookie", "status"),
    [
        ("fmtune_8080=secret", "200"),
        ("a=b; fmtune_8080=secret; c", "200"),
        ("fmtune_8080=planted; fmtune_8080=secret", "200"),
        ("fmtune_8081=secret", "403"),
        ("fmtune_8080=secre", "403"),
        ("fmtune_8080=", "403"),
        ("fmtune_8080=\xff\ud800", "403"),
    ],
)
def test_cookies(cookie: str, status: str) -> None:
    """The cookie of this port with the whole token opens, nothing else does."""
    assert _through(HTTP_HOST="127.0.0.1:8080", HTTP_COOKIE=cookie)[0] == status


def test_the_token_leads_nowhere_else() -> None:
    """A path after which the token stands is kept, and can be no other site; the token is not in it."""
    for path, place in (("//evil.example/", "/evil.example/"), ("/a\r\nb", "/a%0D%0Ab"), ("/\\evil", "/%5Cevil")):
        status, headers = _through(HTTP_HOST="localhost:8080", PATH_INFO=path, QUERY_STRING="token=secret")
        assert (status, headers["Location"]) == ("303", place)


def test_a_link_from_another_site_gets_in() -> None:
    """There a redirect would lose the strict cookie, so the page leads on itself."""
    status, headers = _through(
        HTTP_HOST="localhost:8080", QUERY_STRING="token=secret", HTTP_SEC_FETCH_SITE="cross-site"
    )
    assert (status, headers["Refresh"]) == ("200", "0; url=/dashboard")


def test_serve_is_what_the_verb_calls() -> None:
    """The verb's defaults: loopback, read-only, the user's browser."""
    assert serve.__defaults__ == ("127.0.0.1", 8080, False, True)
