"""A real PgBouncer in front of the test's server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme

from laptop.account import give_to_server_user, start_as_server_user
from laptop.postgres import free_port, stop
from tests.conftest import PATIENCE_SECONDS, require_or_skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pg8000.native import Connection

    from tests.conftest import Database


@dataclass(frozen=True)
class Bouncer:
    """`port` of localhost, with a certificate that `ca_bundle` verifies."""

    database: Database
    port: int
    ca_bundle: Path

    def connect(self) -> Connection:
        """As the application does it."""
        there = replace(self.database.server, port=self.port, ca_bundle=self.ca_bundle)
        return there.connect(self.database.name, self.database.user, self.database.password)

    def secret(self, **fields: Any) -> dict[str, Any]:
        return self.database.secret(port=self.port, **fields)


@contextmanager
def running_bouncer(
    database: Database, *, server_port: int | None = None, password: str | None = None, **settings: str | int
) -> Iterator[Bouncer]:
    """Within the block a PgBouncer takes connections for the database and its role; after it nothing runs. It connects
    to another `server_port` than the database's if that is given, and knows another `password` of the role."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        require_or_skip("pgbouncer is not installed (apt-get install pgbouncer)")
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="pg-hotfix-bouncer-") as folder:
        home = Path(folder)
        certificate = write_certificate(home)
        (home / "userlist.txt").write_text(f'"{database.user}" "{password or database.password}"\n')
        port = free_port()
        server = f"host=127.0.0.1 port={server_port or database.server.port} dbname={database.name}"
        own = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": home / "userlist.txt",
            "client_tls_sslmode": "require",
            "client_tls_key_file": certificate,
            "client_tls_cert_file": certificate,
            "server_tls_sslmode": "require",
            "logfile": home / "log",
        }
        lines = [f"{name} = {value}" for name, value in (own | settings).items()]
        (home / "pgbouncer.ini").write_text(
            "\n".join(["[databases]", f"{database.name} = {server}", "[pgbouncer]", *lines, ""])
        )
        for path in (home, *home.iterdir()):
            give_to_server_user(path)
        process = start_as_server_user([program, home / "pgbouncer.ini"], stderr=subprocess.DEVNULL)
        try:
            wait_for(port, process, home / "log")
            yield Bouncer(database, port, home / "ca.pem")
        finally:
            stop(process)


def write_certificate(home: Path) -> Path:
    """Key and certificate for localhost in one file, its authority's in ca.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(home / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(home / "server.pem")
    return home / "server.pem"


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            said = log.read_text() if log.exists() else "nothing"
            assert process.poll() is None, f"pgbouncer ended, and said: {said}"
            assert time.monotonic() < deadline, f"pgbouncer takes no connections, and said: {said}"
            time.sleep(0.05)
        else:
            return
