"""Gate: what stands before optuna-dashboard, which by itself answers anybody who reaches its port.

Three doors, in this order:

1. The Host header names this server.  A foreign page whose own host name was made to point at this machine
   (DNS rebinding) stays outside.
2. The request carries the token, once in the address and from then on in a cookie that scripts cannot read.
   Other users and other programs of this machine stay outside.
3. What could change the study (any method but GET and HEAD) is refused, unless the dashboard was opened
   writable and the request comes from its own pages.  A cookie belongs to a host with all its ports, so the
   page of another local server would bring it along; its origin gives it away.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

FOREIGN = "This dashboard answers only under its own address. Open the one that `fmtune dashboard` printed."
NO_TOKEN = "The token is missing or old. Open the whole address that `fmtune dashboard` printed, with its ?token=."
READ_ONLY = "This dashboard is read-only. To change the study, stop it and start `fmtune dashboard --writable`."
STRANGE = "Changes are taken only from the dashboard's own pages."

_HEADERS = [
    ("X-Frame-Options", "SAMEORIGIN"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
# The dashboard's page has a policy of its own.  Artifacts are files from anywhere: a page among them may run its
# scripts, but not as a part of this site, where it could read and change every study.
_SANDBOX = ("Content-Security-Policy", "sandbox allow-scripts allow-downloads")


class Gate:
    """A WSGI application that lets one browser through to another application.

    Parameters
    ----------
    app
        What is guarded.
    token
        The secret.
    port
        Where the server listens; a part of the Host header.
    home
        The path to which ``/?token=...`` leads.
    writable
        Whether methods other than GET and HEAD may pass.
    host
        The address listened on; names of the loopback are always known.
    """

    def __init__(
        self, app: WSGIApplication, *, token: str, port: int, home: str = "/dashboard", writable: bool = False,
        host: str = "127.0.0.1",
    ) -> None:  # fmt: skip
        self._app, self._token, self._home, self._writable = app, token, home, writable
        self._port, self._names = port, {*LOOPBACK, bracketed(host).lower()}
        self._anywhere = ipaddress.ip_address(host).is_unspecified if is_address(host) else False
        # Cookies know no ports: two dashboards on one machine need two names.
        self._cookie = f"fmtune_{port}"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or pass it on."""
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        if not self._is_ours(environ.get("HTTP_HOST", "")):
            return _refuse(start_response, FOREIGN)
        if reads and self._fits(_asked(environ)):
            return self._welcome(environ, start_response)
        if not any(self._fits(value) for value in _kept(environ, self._cookie)):
            return _refuse(start_response, NO_TOKEN)
        if not reads and not self._writable:
            return _refuse(start_response, READ_ONLY)
        if not reads and not _from_own_page(environ):
            return _refuse(start_response, STRANGE)
        return self._app(environ, _hardened(start_response, environ.get("PATH_INFO", "")))

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this server; for 0.0.0.0 any address does, since none can be rebound."""
        name, colon, port = host.lower().rpartition(":")
        if not colon or host.endswith("]"):
            name, port = host.lower(), "80"
        if port != str(self._port):
            return False
        return name in self._names or (self._anywhere and is_address(name.strip("[]")))

    def _fits(self, value: str) -> bool:
        return secrets.compare_digest(value.encode("utf-8", "replace"), self._token.encode())

    def _welcome(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Turn the token in the address into a cookie and lead on to the address without it."""
        path = "/" + environ.get("PATH_INFO", "").lstrip("/")
        place = self._home if path == "/" else quote(path.encode("latin-1", "replace"))
        headers = [
            ("Set-Cookie", f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"),
            ("Cache-Control", "no-store"), ("Content-Type", "text/plain; charset=utf-8"),
            ("Referrer-Policy", "no-referrer"),
        ]  # fmt: skip
        # A strict cookie does not survive a redirect that began with a link on another site (a terminal in the
        # browser, say); a refresh begins here.
        if environ.get("HTTP_SEC_FETCH_SITE", "none") in ("none", "same-origin"):
            start_response("303 See Other", [*headers, ("Location", place)])
        else:
            start_response("200 OK", [*headers, ("Refresh", f"0; url={place}")])
        return [b"Welcome.\n"]


def is_address(host: str) -> bool:
    """Whether ``host`` is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def bracketed(host: str) -> str:
    """Return a host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _asked(environ: WSGIEnvironment) -> str:
    query = parse_qs(str(environ.get("QUERY_STRING", "")), errors="replace")
    return query.get("token", [""])[0]


def _kept(environ: WSGIEnvironment, name: str) -> list[str]:
    """Return the cookies of this name; a path or a parent domain can put a second one beside ours."""
    pairs = (pair.strip().partition("=") for pair in environ.get("HTTP_COOKIE", "").split(";"))
    return [value for key, _, value in pairs if key == name]


def _from_own_page(environ: WSGIEnvironment) -> bool:
    """Whether a browser says that the request comes from a page of this very server."""
    site, origin, referer = (environ.get(f"HTTP_{name}") for name in ("SEC_FETCH_SITE", "ORIGIN", "REFERER"))
    own = f"http://{environ['HTTP_HOST']}".lower()
    if site is not None and site != "same-origin":
        return False
    if origin is not None:
        return bool(origin.lower() == own)
    return site is not None or str(referer).lower().startswith(own + "/")


def _hardened(start_response: StartResponse, path: str) -> StartResponse:
    """Return a ``start_response`` that adds our headers; artifacts would else be readable by any site."""
    ours = _HEADERS if path == "/" or path.startswith("/dashboard") else [*_HEADERS, _SANDBOX]

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() != "access-control-allow-origin"]
        return start_response(status, kept + ours, exc_info)

    return start


def _refuse(start_response: StartResponse, why: str) -> Iterable[bytes]:
    start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
    return [f"{why}\n".encode()]
