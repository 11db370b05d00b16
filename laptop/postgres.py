"""An embedded PostgreSQL with TLS and SCRAM on 127.0.0.1, from wheels, without any system package.

The server lives as long as the `with` block of `running_server`; the cluster in its directory lives on.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pg8000.native
import trustme

from laptop.account import give_to_server_user, reachable_directory, run_as_server_user, start_as_server_user
from laptop.binaries import DEFAULT_VERSION, reachable_binaries
from laptop.errors import LocalError

ADMIN = "postgres"
# The certificate carries this DNS name only: connecting to 127.0.0.1 is a host name mismatch, as it is with RDS.
HOST = "localhost"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
TIMEOUT_SECONDS = 30.0

# Durability is off because this is a laptop's toy: a power cut costs a `make clean`, and every start is faster.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "ssl": "on",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


@dataclass(frozen=True)
class Server:
    host: str
    port: int
    ca_bundle: Path
    admin_user: str
    admin_password: str = field(repr=False)
    process: subprocess.Popen[bytes]

    def connect(
        self, database: str = "postgres", user: str | None = None, password: str | None = None
    ) -> pg8000.native.Connection:
        """Opens a connection, TLS verified by certificate and host name; as the administrator unless told otherwise."""
        plain = socket.create_connection((self.host, self.port), TIMEOUT_SECONDS)
        # pg8000 alone would wait 40 ms for the kernel in each login.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return pg8000.native.Connection(
            user or self.admin_user,
            host=self.host,
            port=self.port,
            database=database,
            password=self.admin_password if user is None else password,
            ssl_context=ssl.create_default_context(cafile=str(self.ca_bundle)),
            sock=plain,
        )


@contextlib.contextmanager
def running_server(
    directory: Path, *, version: int | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Within the block a PostgreSQL of that major version serves the cluster of `directory`; after it nothing runs.

    The cluster is created when missing, with a certificate for `localhost` and a random administrator's password. A
    server left behind by a killed run is stopped first. `settings` go to the server's command line, after its own ones.

    Raises: LocalError when the machine lacks something, or another command is using the same cluster.
    """
    major = version or DEFAULT_VERSION
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with _sole_user(directory / f"postgres-{major}.lock"), _ending_signals_raised():
        binaries = reachable_binaries(version)
        cluster = reachable_directory(directory) / f"postgres-{major}"
        _stop_leftover(cluster)
        if not (cluster / "PG_VERSION").exists():
            _create_cluster(binaries, cluster)
        port = free_port()
        process = start(binaries, cluster, port, settings or {}, log=directory / f"postgres-{major}.log")
        try:
            yield Server(
                host=HOST,
                port=port,
                ca_bundle=cluster / "ca.pem",
                admin_user=ADMIN,
                admin_password=(cluster / "admin_password").read_text(),
                process=process,
            )
        finally:
            stop(process)


def start(binaries: Path, cluster: Path, port: int, settings: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """The server accepts connections on that port of 127.0.0.1."""
    options = [f"--{name}={value}" for name, value in (SETTINGS | {"port": str(port)} | dict(settings)).items()]
    with log.open("wb") as output:
        # A session of its own, because a Ctrl-C in psql must not reach the server.
        process = start_as_server_user(
            [binaries / "postgres", "-D", cluster, *options], stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(cluster, process.pid):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace").strip()[-1500:]
                raise LocalError(
                    f"PostgreSQL did not start; `make clean` gives a fresh one. Its log ends with:\n{tail}"
                )
            time.sleep(0.02)
    except BaseException:
        stop(process)
        raise
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """The server has ended: by a fast shutdown, or by an immediate one when that takes too long."""
    for stop_signal in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _create_cluster(binaries: Path, cluster: Path) -> None:
    """The cluster exists whole: it is prepared under another name, so that an interrupted run leaves none."""
    unfinished = cluster.with_name(f"{cluster.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(cluster, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    give_to_server_user(unfinished)
    password = secrets.token_urlsafe(24)
    password_file = unfinished.with_name(f"{cluster.name}.password")
    _write_private(password_file, password)
    try:
        # The C locale is the only one that every bare machine has.
        run_as_server_user(
            [
                binaries / "initdb",
                f"--pgdata={unfinished}",
                f"--username={ADMIN}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ]
        )
    finally:
        password_file.unlink()
    _write_private(unfinished / "admin_password", password)
    authority = trustme.CA(organization_name="pg-hotfix laptop")
    certificate = authority.issue_cert(HOST)
    _write_private(unfinished / "server.key", certificate.private_key_pem.bytes().decode())
    _write_private(unfinished / "server.crt", "".join(part.bytes().decode() for part in certificate.cert_chain_pems))
    _write_private(unfinished / "ca.pem", authority.cert_pem.bytes().decode())
    _write_private(unfinished / "pg_hba.conf", "hostssl all all 127.0.0.1/32 scram-sha-256\n")
    unfinished.rename(cluster)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    give_to_server_user(path)


def _is_ready(cluster: Path, pid: int) -> bool:
    # postmaster.pid: line 1 is the process, line 8 the state. https://www.postgresql.org/docs/current/storage-file-layout.html
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _stop_leftover(cluster: Path) -> None:
    """No server of a killed run serves the cluster any more."""
    try:
        pid = int((cluster / "postmaster.pid").read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    deadline = time.monotonic() + STOP_SECONDS
    while _serves(pid, cluster):
        os.kill(pid, signal.SIGINT if time.monotonic() < deadline else signal.SIGQUIT)
        time.sleep(0.1)


def _serves(pid: int, cluster: Path) -> bool:
    # The number may belong to any other process by now; the postmaster is the one that works in the cluster.
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == cluster
    except OSError:
        return False


@contextlib.contextmanager
def _sole_user(lock: Path) -> Iterator[None]:
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            raise LocalError(
                f"The embedded PostgreSQL of {lock.parent} is in use by process {owner}: quit that first."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def _ending_signals_raised() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP unwind the stack, so that the server is stopped, too."""

    def leave(number: int, _: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    replaced = {
        number: signal.signal(number, leave)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
