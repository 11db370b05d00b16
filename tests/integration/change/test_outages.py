"""The server itself fails in the middle of an `apply`: it crashes, hands over to a replica, or has no room left."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pg8000.exceptions
import pytest

from laptop.account import reachable_directory, server_user
from laptop.binaries import reachable_binaries
from laptop.postgres import Server, running_server, start, stop
from laptop.proxy import Fault, running_proxy
from tests.conftest import HOTFIX, PASSWORDS, create_database, meanwhile, until
from tests.integration.aftermath import Ending, new_settings, run_to_its_end, with_secret
from tests.integration.change.test_apply import until_it_sleeps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from laptop.proxy import Message
    from pg_hotfix.settings import Settings
    from tests.conftest import Database

    Store = Callable[..., str]

VERSION = int(os.environ["PG_VERSION"]) if "PG_VERSION" in os.environ else None
# What a client is told to be committed survives the server's death, unlike with the laptop's quick settings.
DURABLE = {"synchronous_commit": "on", "max_connections": "12"}


@dataclass
class OwnServer:
    """A server that may be killed, and started again at the same port."""

    server: Server
    log: Path

    def kill(self) -> None:
        """All its processes are gone at once, as in a power cut."""
        process = self.server.process
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in [process.pid, *map(int, children)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        until(lambda: not any(Path(f"/proc/{pid}/fd").exists() and is_alive(int(pid)) for pid in children))

    def restart(self) -> None:
        cluster = self.server.ca_bundle.parent
        process = start(reachable_binaries(VERSION), cluster, self.server.port, DURABLE, self.log)
        self.server = replace(self.server, process=process)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    directory = tmp_path_factory.mktemp("own")
    with running_server(directory, version=VERSION, settings=DURABLE) as server:
        PASSWORDS.add(server.admin_password)
        own = OwnServer(server, directory / "restarted.log")
        try:
            yield own
        finally:
            stop(own.server.process)


@pytest.fixture
def own_database(own_server: OwnServer) -> Database:
    return create_database(own_server.server)


def has_column(database: Database) -> bool:
    return bool(
        database.run(
            "SELECT FROM pg_attribute WHERE attrelid = 'public.drivers'::regclass AND attname = 'active_since'"
        )
    )


def messages_of_a_run(database: Database, settings: Settings) -> list[Message]:
    """What is said in a clean run; the column is missing again after it."""
    with running_proxy(database.server) as proxy:
        assert run_to_its_end(replace(settings, db_port=proxy.port)).result == "applied"
    database.run("ALTER TABLE public.drivers DROP COLUMN active_since")
    return proxy.messages


def commit_of(messages: list[Message]) -> Message:
    return next(message for message in messages if "COMMIT" in message.text)


# A crash


@pytest.mark.parametrize("moment", ["while it waits", "while its SQL runs", "before COMMIT", "after COMMIT"])
def test_a_server_that_crashes_leaves_nothing_half_done(
    own_server: OwnServer, own_database: Database, secrets_manager: Store, tmp_path: Path, moment: str
) -> None:
    settings = with_secret(new_settings(own_database), own_database, secrets_manager)
    messages = messages_of_a_run(own_database, settings)
    commit = commit_of(messages)
    answer = next(message for message in messages if message.number > commit.number and message.sender == "server")
    at = {"before COMMIT": commit.number, "after COMMIT": answer.number}.get(moment)
    faults = [Fault("call", at, action=own_server.kill)] if at else []
    with running_proxy(own_server.server, *faults) as proxy, ExitStack() as stack:
        hurt = replace(settings, db_port=proxy.port)
        if moment == "while it waits":
            stack.enter_context(doomed_reader(own_database))
        if moment == "while its SQL runs":
            hurt = replace(hurt, sql_dir=sleeping(tmp_path))
        if not at:
            waiting = moment == "while it waits"
            begun = own_database.until_waited_for if waiting else lambda: until_it_sleeps(own_database)
            stack.enter_context(meanwhile(begun, own_server.kill))
        ending = run_to_its_end(hurt)
    own_server.restart()
    expected = "DatabaseUnavailableError" if moment == "while it waits" else "OutcomeUnknownError"
    assert (ending.error, ending.retryable) == (expected, True), ending.text
    there = has_column(own_database)
    assert there == (moment == "after COMMIT")
    assert run_to_its_end(settings).result == ("already_applied" if there else "applied")


@contextmanager
def doomed_reader(database: Database) -> Iterator[None]:
    """Somebody is in the way until the server's end."""
    other = database.connect()
    other.run("BEGIN; SELECT FROM public.drivers")
    yield
    with suppress(pg8000.exceptions.InterfaceError):
        other.close()


def sleeping(folder: Path) -> Path:
    sql = Path("sql", f"{HOTFIX}.sql").read_text()
    (folder / f"{HOTFIX}.sql").write_text(f"{sql}SELECT pg_sleep(1.9);")
    return folder


# A failover


@dataclass(frozen=True)
class Pair:
    """A primary, and a replica that has its state of some time ago."""

    primary: Server
    replica: Server
    primary_database: Database

    @property
    def replica_database(self) -> Database:
        return replace(self.primary_database, server=self.replica)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with running_server(tmp_path / "primary", version=VERSION) as server:
        PASSWORDS.add(server.admin_password)
        database = create_database(server)
    (tmp_path / "replica").mkdir()
    cluster = server.ca_bundle.parent
    copy = reachable_directory(tmp_path / "replica") / cluster.name
    subprocess.run(["cp", "-a", cluster, copy], check=True)
    signal_file = copy / "standby.signal"
    signal_file.touch()
    os.chown(signal_file, copy.stat().st_uid, copy.stat().st_gid)
    with (
        running_server(tmp_path / "primary", version=VERSION) as primary,
        running_server(tmp_path / "replica", version=VERSION) as replica,
    ):
        yield Pair(primary, replica, replace(database, server=primary))


@pytest.mark.parametrize("committed", [False, True])
def test_a_failover_in_the_middle_of_a_run_is_told_and_overcome(
    pair: Pair, secrets_manager: Store, committed: bool
) -> None:
    """The address leads to the replica from that moment on, which lacks what the primary has committed by then."""
    settings = with_secret(new_settings(pair.primary_database), pair.primary_database, secrets_manager)
    messages = messages_of_a_run(pair.primary_database, settings)
    commit = commit_of(messages)
    at = next(
        message.number
        for message in messages
        if message.number > commit.number and message.sender == "client" and message.text
    )
    at = at if committed else commit.number - 1

    def fail_over() -> None:
        proxy.server = pair.replica

    with running_proxy(pair.primary, Fault("call", at, action=fail_over), Fault("reset", at)) as proxy:
        settings = replace(settings, db_port=proxy.port)
        ending = run_to_its_end(settings)
        expected = "OutcomeUnknownError" if committed else "DatabaseUnavailableError"
        assert (ending.error, ending.retryable) == (expected, True), ending.text
        assert has_column(pair.primary_database) == committed
        ending = run_to_its_end(settings)
        assert ending.error == "ReadOnlyDatabaseError", ending.text
        assert "it is a replica, in recovery. Nothing was changed." in ending.text
        pair.replica_database.run("SELECT pg_promote()")
        assert run_to_its_end(settings).result == "applied"
    assert has_column(pair.replica_database)


# No room


def test_a_server_without_a_free_connection_is_worth_a_retry(
    own_server: OwnServer, own_database: Database, secrets_manager: Store
) -> None:
    settings = with_secret(new_settings(own_database), own_database, secrets_manager)
    with ExitStack() as stack:
        with suppress(pg8000.exceptions.DatabaseError):
            while True:
                stack.enter_context(own_database.connect(own_database.user, own_database.password))
        ending = run_to_its_end(settings)
        assert (ending.error, ending.retryable) == ("DatabaseUnavailableError", True)
        assert "(53300: " in ending.text
        assert not has_column(own_database)
    assert eventually(settings) == "applied"


def eventually(settings: Settings) -> str | None:
    """The result of the first run that is not refused for want of a connection."""
    endings: list[Ending] = []

    def has_room() -> bool:
        endings.append(run_to_its_end(settings))
        return "(53300: " not in endings[-1].text

    until(has_room)
    return endings[-1].result


def test_a_second_look_without_a_free_connection_leaves_the_outcome_unknown(
    database: Database, secrets_manager: Store
) -> None:
    settings = with_secret(new_settings(database), database, secrets_manager)
    messages = messages_of_a_run(database, settings)
    commit = commit_of(messages)
    look = next(
        message.number
        for message in messages
        if message.number > commit.number and message.sender == "client" and message.text
    )

    def leave_no_room() -> None:
        database.run(f"ALTER ROLE {database.user} CONNECTION LIMIT 0")

    faults = [Fault("call", look, action=leave_no_room), Fault("reset", look)]
    with running_proxy(database.server, *faults) as proxy:
        ending = run_to_its_end(replace(settings, db_port=proxy.port))
    assert (ending.error, ending.retryable) == ("OutcomeUnknownError", True)
    assert "this connection failed, and so did a new one (DatabaseUnavailableError)." in ending.text
    assert has_column(database)
    database.run(f"ALTER ROLE {database.user} CONNECTION LIMIT -1")
    assert run_to_its_end(settings).result == "already_applied"


@pytest.fixture
def small_disk(own_server: OwnServer, tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which the server may write to."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = reachable_directory(tmp_path) / "small"
    place.mkdir()
    user = server_user()
    assert user
    options = f"size=24m,mode=0700,uid={user.pw_uid},gid={user.pw_gid}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small file system failed: {mounted.stderr.decode(errors='replace').strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_changes_nothing_until_there_is_room_again(
    small_disk: Path, own_server: OwnServer, own_database: Database, secrets_manager: Store, tmp_path: Path
) -> None:
    settings = with_secret(new_settings(own_database), own_database, secrets_manager)
    rewriting = (
        "ALTER TABLE public.drivers ADD COLUMN IF NOT EXISTS active_since timestamptz DEFAULT clock_timestamp();"
    )
    expect = "-- expect: column public.drivers.active_since timestamptz null default clock_timestamp()"
    (tmp_path / f"{HOTFIX}.sql").write_text(f"{expect}\n{rewriting}\n")
    settings = replace(settings, sql_dir=tmp_path)
    own_database.run(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    try:
        own_database.run("ALTER TABLE public.drivers SET TABLESPACE small")
        own_database.run("INSERT INTO public.drivers SELECT gen_random_uuid(), 'x' FROM generate_series(1, 50000)")
        with pytest.raises(pg8000.exceptions.DatabaseError, match="No space left"):
            fill(own_database)
        ending = run_to_its_end(settings)
        assert (ending.error, ending.retryable) == ("DatabaseUnavailableError", True), ending.text
        assert "(53100: " in ending.text
        assert not has_column(own_database)
        own_database.run("DROP TABLE public.filler; CHECKPOINT")
        assert run_to_its_end(settings).result == "applied"
    finally:
        own_database.run("DROP TABLE IF EXISTS public.filler, public.drivers")
        own_database.run("CHECKPOINT")
        own_database.run("DROP TABLESPACE small")


def fill(database: Database) -> None:
    with database.connect() as connection:
        connection.run("CREATE TABLE public.filler (rubbish text) TABLESPACE small")
        connection.run("ALTER TABLE public.filler ALTER rubbish SET STORAGE PLAIN")
        while True:
            connection.run("INSERT INTO public.filler SELECT repeat('x', 8000) FROM generate_series(1, 20)")
