"""Serve: the verb ``fmtune dashboard``: optuna-dashboard over a study, behind the gate, until Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

import click
import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage

from fmtune.dashboard.dress import Verdict, artifact_folder, artifacts, dress
from fmtune.dashboard.extra import optuna_dashboard
from fmtune.dashboard.gate import Gate, bracketed, is_address
from fmtune.errors import ResourceError, UsageError
from fmtune.tune.folder import folder_of
from fmtune.tune.spec import Spec
from fmtune.tune.storage import open_storage, sqlite_url


class Opened(NamedTuple):
    """A server that listens, and the address that lets one in."""

    server: WSGIServer
    url: str


def serve(
    spec: Spec, host: str = "127.0.0.1", port: int = 8080, writable: bool = False, open_browser: bool = True, *,
    beyond_loopback: bool = False, root: Path | None = None, verdict: Verdict | None = None,
) -> None:  # fmt: skip
    """Show a study in optuna-dashboard until Ctrl-C.

    Parameters
    ----------
    spec
        The study; it may be running.
    host, port
        Where to listen; port 0 takes any free one.
    writable
        Let the dashboard change the study: notes, artifacts, trials; even delete it.
    open_browser
        Open the address in the user's browser; it is printed in any case.
    beyond_loopback
        Allow a ``host`` that other machines can reach.
    root
        The folder in which ``runs/`` and ``reports/`` lie; by default the current one.
    verdict
        Says what came of the study, as Markdown, for its note: ``fmtune.report.markdown.markdown``.

    Raises
    ------
    ResourceError
        optuna-dashboard is missing, or the port is taken or not allowed.
    StorageError
        There is no such study yet, or its database cannot be opened.
    UsageError
        The host is not of this machine, or not a loopback one.
    """
    opened = open_server(spec, host, port, writable, beyond_loopback=beyond_loopback, root=root, verdict=verdict)
    click.echo(f"{spec.study_name}, {'WRITABLE' if writable else 'read-only'}, until Ctrl-C: {opened.url}")
    if open_browser:
        # In a thread: a browser in the terminal itself would keep the server from answering it.
        threading.Thread(target=webbrowser.open, args=(opened.url,), daemon=True).start()
    try:
        opened.server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        click.echo("\nclosed", err=True)
    finally:
        opened.server.server_close()


def open_server(
    spec: Spec, host: str = "127.0.0.1", port: int = 8080, writable: bool = False, *, beyond_loopback: bool = False,
    root: Path | None = None, verdict: Verdict | None = None,
) -> Opened:  # fmt: skip
    """Dress the study and listen; the parameters and errors are those of :func:`serve`."""
    host = "127.0.0.1" if host == "localhost" else host
    _check(host, port, beyond_loopback)
    tools = optuna_dashboard()
    _dress(spec, root, verdict)
    storage = open_storage(spec.storage or sqlite_url(folder_of(spec.study_name, root)))
    home = f"/dashboard/studies/{storage.get_study_id_from_name(spec.study_name)}"
    if writable:
        artifact_folder(spec, root).mkdir(parents=True, exist_ok=True)
    else:
        refuse_writes(storage)
    server = _listen(host, port)
    token, port = secrets.token_urlsafe(32), server.server_port
    app: WSGIApplication = tools.wsgi(storage, artifacts(spec, root))
    server.set_app(Gate(app, token=token, port=port, home=home, writable=writable, host=host))
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return Opened(server, f"http://{bracketed(shown)}:{port}/?token={token}")


def refuse_writes(storage: RDBStorage) -> None:
    """Let sqlite itself refuse to change anything through this storage; other databases rely on the gate."""
    if storage.engine.dialect.name == "sqlite":
        sa.event.listen(storage.engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=ON"))
        storage.engine.dispose()


def _dress(spec: Spec, root: Path | None, verdict: Verdict | None) -> None:
    """Dress the study; one that cannot be written is shown as it is."""
    try:
        if not dress(spec, root, verdict):
            click.echo("the study is running: its note and its plots are written when it is opened after its end")
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        click.echo(f"the study is shown as it is; its note could not be written: {reason}", err=True)


def _check(host: str, port: int, beyond_loopback: bool) -> None:
    if not 0 <= port <= 65535:
        raise UsageError(f"{port} is not a port", where="--port", hint="0 to 65535; 0 takes any free one")
    if beyond_loopback or (is_address(host) and ipaddress.ip_address(host).is_loopback):
        return
    raise UsageError(
        f"{host!r} can be reached from other machines, and what the dashboard sends is not encrypted", where="--host",
        hint="keep 127.0.0.1 and use `ssh -L 8080:127.0.0.1:8080` from there, or insist with --beyond-loopback",
    )  # fmt: skip


def _listen(host: str, port: int) -> WSGIServer:
    server = _Server6 if ":" in host else _Server
    try:
        return server((host, port), _Handler)
    except socket.gaierror as error:
        raise UsageError(f"no such host: {host!r}", where="--host", hint="127.0.0.1 is the default") from error
    except OSError as error:
        raise _refusal(error, host, port, server) from error


def _refusal(error: OSError, host: str, port: int, server: type[WSGIServer]) -> Exception:
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"{host} is no address of this machine", where="--host", hint="127.0.0.1 is the default")
    why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be listened on: {error.strerror}"
    with server((host, 0), _Handler) as free:
        hint = f"try --port {free.server_port}, which is free, or --port 0 for any that is"
    return ResourceError(f"port {port} {why}", where="--port", hint=hint)


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request: the dashboard's page asks for several things at once."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without the base class's question to the name service, which may take seconds to answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep silent on browsers that hang up."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    """Writes no log: its lines would hold the token."""

    timeout = 60  # seconds without a byte

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
