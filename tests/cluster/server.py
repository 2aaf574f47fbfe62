"""Server: a PostgreSQL of its own for the tests, from Debian's package `postgresql` (or any with initdb and pg_ctl)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

PASSWORD = "canary-of-the-cluster-tests"


class Server:
    """A PostgreSQL in a temporary folder, which can be stopped and started again; root runs it as ``postgres``."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host, self.port = host, _free_port(host)
        self._user = "postgres" if os.getuid() == 0 else None
        self._temporary = tempfile.TemporaryDirectory(prefix="fmtune-pg-")
        home = Path(self._temporary.name)
        self.folder, secret = home / "pg", home / "secret"
        secret.write_text(PASSWORD)
        if self._user:
            shutil.chown(home, self._user, self._user)
            shutil.chown(secret, self._user, self._user)
        self._call("initdb", "-D", self.folder, "-U", "fmtune", "-A", "scram-sha-256", f"--pwfile={secret}", "-N")
        with (self.folder / "pg_hba.conf").open("a") as access:
            access.write("host all all 10.0.0.0/8 scram-sha-256\n")
        self.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._temporary.cleanup()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://fmtune:{PASSWORD}@{self.host}:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses={self.host} -c unix_socket_directories={self.folder}"
        self._call("pg_ctl", "-D", self.folder, "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", self.folder, "-w", "-m", "fast", "stop")

    def _call(self, tool: str, *words: object) -> None:
        command = [_tool(tool), *map(str, words)]
        subprocess.run(command, user=self._user, cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=60)


def _tool(name: str) -> str:
    found = [*sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True), shutil.which(name)]
    if not found[0]:
        pytest.fail(f"{name} is missing: apt-get install postgresql", pytrace=False)
    return str(found[0])


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
