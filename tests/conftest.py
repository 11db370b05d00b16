"""The function, called in-process against a real PostgreSQL; moto stands for Secrets Manager. Nothing of pg8000 is "
"faked."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import hypothesis
import hypothesis.configuration
import pg8000.exceptions
import pytest
from moto import mock_aws

# The function reads it once, at its import, as a cold start does.
os.environ["ENVIRONMENT"] = "test"
import app
from laptop.places import MEMORY, PROJECT, memory_directory
from laptop.postgres import Server, running_server
from pg_hotfix.server import credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_secretsmanager import SecretsManagerClient
    from pg8000.native import Connection

HOTFIX = "20260212092000_add_drivers_active_since"
DRIVERS = "CREATE TABLE public.drivers (id uuid PRIMARY KEY, name text NOT NULL)"
# Every password of the session. The fixture `no_secret_in_output` looks for them.
PASSWORDS: set[str] = set()
numbers = itertools.count(1)
# After it a test gives up waiting for what should have come long ago.
PATIENCE_SECONDS = 120.0
# What the clusters of all workers take at most, twice.
ROOM_BYTES = 4 * 2**30
# What nobody else may write to: each worker of pytest-xdist has a name.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
STATE = PROJECT / ".local" / "tests" / WORKER
# As every text of a failure does.
ENDS_IN_A_COMMAND = re.compile(r"\S\n[A-Z][^\n:]+:  \./pg-hotfix [^\n]+$")
OUTSIDE_TRANSACTIONS = """SELECT pid, query, query_start FROM pg_stat_activity
WHERE application_name = 'pg-hotfix' AND datname = current_database() AND state = 'idle'"""

# Of a property's examples; 10,000 take minutes. A shared machine may be slow at any moment, which is no failure.
PATIENT = hypothesis.settings(
    deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow], max_examples=75
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="try 10,000 examples of each property, and every fault")


def pytest_configure(config: pytest.Config) -> None:
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        work_in_memory(config)
    hypothesis.configuration.set_hypothesis_home_dir(STATE / "hypothesis")
    hypothesis.settings.register_profile("quick", PATIENT)
    hypothesis.settings.register_profile("long", PATIENT, max_examples=10_000)
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "quick")


def work_in_memory(config: pytest.Config) -> None:
    """Temporary files are in memory, where there is room, until the end of this run: each test has a database, which is
    300 files, and half of the time of a test would be spent with making and removing them on a disk. Workers inherit
    this."""
    for left in memory_directory().glob("run-*"):
        if not Path("/proc", left.name.removeprefix("run-")).exists():  # It was killed.
            shutil.rmtree(left, ignore_errors=True)
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        folder = memory_directory() / f"run-{os.getpid()}"
        folder.mkdir(parents=True)
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None  # It is asked for again.
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def require_or_skip(reason: str) -> None:
    """The test is skipped because of what this machine lacks; it fails where CI has said that nothing is to lack."""
    if os.environ.get("PG_HOTFIX_REQUIRE") == "1":
        pytest.fail(f"PG_HOTFIX_REQUIRE=1, and {reason}")
    pytest.skip(reason)


def new_password() -> str:
    password = secrets.token_urlsafe(24)
    PASSWORDS.add(password)
    return password


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    version = os.environ.get("PG_VERSION")
    with running_server(tmp_path_factory.mktemp("postgres"), version=int(version) if version else None) as server:
        PASSWORDS.add(server.admin_password)
        yield server
        line_to(server).close()
    shutil.rmtree(server.ca_bundle.parent)  # It may lie outside of pytest's own folder.


def until(happened: Callable[[], object], pause_seconds: float = 0.02) -> None:
    """That has happened. No test says how long it may take: a machine that is busy enough takes any time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"it did not happen within {PATIENCE_SECONDS:.0f} s"
        time.sleep(pause_seconds)


@contextmanager
def meanwhile(*actions: Callable[[], object]) -> Iterator[None]:
    """Calls the actions one after the other in a thread, and has done so at the end of the block. A failure is
    raised."""

    def act() -> None:
        for action in actions:
            action()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(act)
        yield
        done.result(PATIENCE_SECONDS)


class Line:
    """A connection as the administrator, kept for one statement after the other: a login costs more than most of
    them. One thread at a time has it, and a failure ends it."""

    def __init__(self, server: Server, database: str) -> None:
        self.server = server
        self.database = database
        self.turn = threading.Lock()
        self.connection: Connection | None = None

    def run(self, *statements: str) -> list[list[Any]]:
        """The rows of the first of them that has any."""
        if not self.turn.acquire(blocking=False):
            with contextlib.closing(Line(self.server, self.database)) as another:
                return another.run(*statements)
        try:
            self.connection = self.connection_that_works()
            rows = [self.connection.run(sql) for sql in statements]
            self.connection.run("DISCARD ALL")  # The next one begins as a new login does.
        except BaseException:
            self.close()
            raise
        finally:
            self.turn.release()
        return next((found for found in rows if found), [])

    def connection_that_works(self) -> Connection:
        """The kept one, unless the server has ended it, as one that crashed has."""
        if self.connection:
            try:
                self.connection.run("SELECT 1")
            except pg8000.exceptions.InterfaceError:
                self.close()
        return self.connection or self.server.connect(self.database)

    def close(self) -> None:
        if self.connection:
            with contextlib.suppress(pg8000.exceptions.InterfaceError):  # The server was faster.
                self.connection.close()
        self.connection = None


@functools.cache
def line_to(server: Server) -> Line:
    return Line(server, "postgres")


@dataclass(frozen=True)
class Database:
    """A database of its own for one test, with the incident's table, owned by the role the function logs in as."""

    server: Server
    name: str
    user: str
    password: str = field(repr=False)

    @functools.cached_property
    def line(self) -> Line:
        return Line(self.server, self.name)

    def connect(self, user: str | None = None, password: str | None = None) -> Connection:
        return self.server.connect(self.name, user, password)

    def run(self, sql: str) -> list[list[Any]]:
        """As the administrator."""
        return self.line.run(sql)

    def run_as_owner(self, sql: str) -> list[list[Any]]:
        return self.line.run(f"SET SESSION AUTHORIZATION {self.user}", sql, "RESET SESSION AUTHORIZATION")

    def secret(self, **fields: Any) -> dict[str, Any]:
        whole = {
            "username": self.user,
            "password": self.password,
            "host": self.server.host,
            "port": self.server.port,
            "dbname": self.name,
        }
        return {name: value for name, value in (whole | {"engine": "postgres"} | fields).items() if value is not None}

    def until_waited_for(self, runs: int = 1) -> None:
        """So many runs of the function have been seen to wait for somebody: outside of any transaction, where nobody
        waits behind them, they have asked the server the same thing twice."""
        asked: defaultdict[tuple[int, str], set[Any]] = defaultdict(set)
        with self.connect() as admin:

            def are_waiting() -> bool:
                for pid, query, began in admin.run(OUTSIDE_TRANSACTIONS) or []:
                    asked[pid, query].add(began)
                return len({pid for (pid, _), moments in asked.items() if len(moments) > 1}) >= runs

            until(are_waiting)


def create_database(server: Server) -> Database:
    number = next(numbers)
    database = Database(server, f"kaviar_{number}", f"kaviar_app_{number}", new_password())
    line = line_to(server)
    # PostgreSQL 14 copies files anyway; from 15 on it would take four times as long to log them.
    strategy = "STRATEGY file_copy" if line.run("SHOW server_version_num") >= [["150000"]] else ""
    line.run(
        f"CREATE ROLE {database.user} LOGIN PASSWORD '{database.password}'",
        f"CREATE DATABASE {database.name} OWNER {database.user} {strategy}",
    )
    database.run(f"ALTER SCHEMA public OWNER TO {database.user}")
    database.run_as_owner(DRIVERS)
    return database


def drop_database(database: Database) -> None:
    database.line.close()
    line_to(database.server).run(f"DROP DATABASE {database.name} WITH (FORCE)", f"DROP ROLE {database.user}")


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    database = create_database(server)
    yield database
    drop_database(database)


def grant(database: Database, role: str) -> str:
    """What an error advises for a role that is a member of nothing, and inherits."""
    new = database.run("SELECT current_setting('server_version_num')::int >= 160000") == [[True]]
    return f'GRANT "{role}" TO "{database.user}"{" WITH INHERIT TRUE" if new else ""};'


@pytest.fixture
def sql_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the layer."""
    folder = tmp_path / "opt"
    folder.mkdir()
    monkeypatch.setenv("SQL_DIR", str(folder))
    return folder


@pytest.fixture
def write_hotfix(sql_dir: Path) -> Callable[..., str]:
    """Packages one hotfix. Returns its id."""

    def write(sql: str, *expectations: str, name: str = "20260301101500_change_something") -> str:
        lines = [f"-- expect: column {expectation}" for expectation in expectations]
        (sql_dir / f"{name}.sql").write_text("\n".join([*lines, sql, ""]))
        return name

    return write


@dataclass
class FakeContext:
    """What the function uses of Lambda's context."""

    seconds: float = 55.0
    function_name: str = "MigrateFunction"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:sa-east-1:123456789012:function:MigrateFunction"
    aws_request_id: str = "aace99c4-a2c3-447b-b7d1-f9cc56e939c0"
    started: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.seconds - (time.monotonic() - self.started)) * 1000)


@dataclass(frozen=True)
class Outcome:
    """All that one invocation gave. `response` is {} when it raised."""

    response: dict[str, Any]
    error: BaseException | None
    logs: list[dict[str, Any]]
    metrics: list[dict[str, Any]]

    @property
    def result(self) -> str | None:
        return self.response.get("result")

    @property
    def error_name(self) -> str | None:
        return type(self.error).__name__ if self.error else None

    @property
    def text(self) -> str:
        """The text of the failure, without its last line; "None" if there was no failure."""
        return str(self.error).rpartition("\n")[0] or str(self.error)

    @property
    def then(self) -> str:
        """The last line of the text: the command to type next."""
        return str(self.error).rpartition("\n")[2]

    @property
    def line(self) -> dict[str, Any]:
        """The one `hotfix finished` or `hotfix failed` line."""
        (line,) = [log for log in self.logs if str(log["message"]).startswith("hotfix f")]
        return line

    def metric(self, name: str) -> float | None:
        values = [blob[name] for blob in self.metrics if name in blob]
        return values[0][0] if values else None


@pytest.fixture(autouse=True)
def no_secret_in_output(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """No password of the session is in anything that the test printed, logged, returned or raised."""
    transcript: list[str] = []
    yield transcript
    captured = capsys.readouterr()
    logged = [record.getMessage() for phase in ("setup", "call") for record in caplog.get_records(phase)]
    seen = "\n".join([*transcript, captured.out, captured.err, *logged])
    leaked = [password[:4] for password in PASSWORDS if password in seen]
    assert not leaked, f"passwords that begin with {leaked} are in the output"


AWS_LOGIN = {
    "AWS_DEFAULT_REGION": "sa-east-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
}


@pytest.fixture(scope="module")
def moto_client() -> Iterator[SecretsManagerClient]:
    """moto stands for AWS in all tests of a file: for each test it would take longer to start than most of them run."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS_LOGIN.items():
            patch.setenv(name, value)
        # A new session would read botocore's descriptions of all services again.
        with mock_aws(config={"core": {"reset_boto3_session": False}}):
            yield boto3.client("secretsmanager")


@pytest.fixture
def secrets_manager(moto_client: SecretsManagerClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """An empty Secrets Manager; the value returned stores a secret and makes it the function's. Returns its ARN."""
    client = moto_client
    for name, value in AWS_LOGIN.items():
        monkeypatch.setenv(name, value)
    credentials.secrets_provider.cache_clear()
    try:

        def store(value: str | dict[str, Any], name: str = "kaviar/database") -> str:
            text = value if isinstance(value, str) else json.dumps(value)
            if any(secret["Name"] == name for secret in client.list_secrets()["SecretList"]):
                arn: str = client.put_secret_value(SecretId=name, SecretString=text)["ARN"]
            else:
                arn = client.create_secret(Name=name, SecretString=text)["ARN"]
            monkeypatch.setenv("DB_SECRET_ARN", arn)
            return arn

        yield store
    finally:
        credentials.secrets_provider.cache_clear()
        for secret in client.list_secrets()["SecretList"]:
            client.delete_secret(SecretId=secret["ARN"], ForceDeleteWithoutRecovery=True)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], no_secret_in_output: list[str]) -> Callable[..., Outcome]:
    """Calls the handler as Lambda would, with whatever environment the test has set."""

    def call(event: Any, seconds: float = 55.0) -> Outcome:
        for handler in app.logger.handlers:
            assert isinstance(handler, logging.StreamHandler)
            handler.stream = sys.stdout
        capsys.readouterr()
        response: dict[str, Any] = {}
        error = None
        try:
            response = app.lambda_handler(event, FakeContext(seconds))
        except Exception as raised:  # noqa: BLE001 - every failure is looked at by the test
            error = raised
            no_secret_in_output.append("".join(traceback.format_exception(raised)))
        assert error is None or ENDS_IN_A_COMMAND.search(str(error)), error
        printed = capsys.readouterr()
        no_secret_in_output.extend([printed.out, printed.err, json.dumps(response)])
        lines = [json.loads(line) for line in printed.out.split("\n") if line]
        return Outcome(
            response, error, [line for line in lines if "_aws" not in line], [line for line in lines if "_aws" in line]
        )

    return call


@pytest.fixture
def invoke(
    call: Callable[..., Outcome],
    database: Database,
    secrets_manager: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Outcome]:
    """Calls the handler with a working secret and the project's own sql/, or the test's own through `write_hotfix`."""
    secrets_manager(database.secret())
    monkeypatch.setenv("DB_CA_BUNDLE", str(database.server.ca_bundle))
    if not os.environ.get("SQL_DIR"):
        monkeypatch.setenv("SQL_DIR", "sql")

    def invoke(action: str = "plan", hotfix: str | None = HOTFIX, seconds: float = 55.0, **fields: Any) -> Outcome:
        request = {"hotfix": hotfix, "action": action, **fields}
        return call({key: value for key, value in request.items() if value is not None}, seconds)

    return invoke
