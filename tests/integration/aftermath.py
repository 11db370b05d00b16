"""What must hold of a database after a run of `apply`, however the run ended."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pg_hotfix import errors, hotfix
from pg_hotfix.request import parse_request
from pg_hotfix.server.credentials import read_target
from pg_hotfix.server.limits import derive_limits
from pg_hotfix.settings import Settings
from tests.conftest import HOTFIX, PATIENCE_SECONDS, create_database, meanwhile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pg8000.native import Connection

    from laptop.postgres import Server
    from pg_hotfix.request import Request
    from pg_hotfix.server.limits import Limits
    from tests.conftest import Database

# The promises, in numbers of their own: a limit that grows must not carry its test along. A silent client holds a lock
# no longer than the first; a server at work notices a closed socket within the second.
SILENT_SECONDS = 1.0
CLOSED_SECONDS = 0.5
# What a busy machine may add to any limit.
NOISE_SECONDS = 1.0
# How long a reader may wait, and how long after its end a run may hold anything.
STALL_SECONDS = max(SILENT_SECONDS, CLOSED_SECONDS) + NOISE_SECONDS
# Longer than the idle limit, so that the reader tells an idle transaction from one that the next limit ended.
STATEMENT_TIMEOUT_MS = 2500
LOCK_WAIT_SECONDS = 3
REMAINING_MS = 55_000
# How long nothing may change any more once a run has ended and its sessions hold nothing.
QUIET_SECONDS = 0.4
READ_EVERY_SECONDS = 0.05
# Long beside what it takes to ask for the next.
NAP_SECONDS = 0.05
APPLY = parse_request({"hotfix": HOTFIX, "action": "apply"})

CONTRACT = {error.__name__ for error in errors.HotfixError.__subclasses__()} - {"InternalError"}
OURS = "application_name = 'pg-hotfix' AND datname = current_database()"
NOT_LET_GO = f"""
SELECT a.pid, a.state, a.wait_event, l.mode, l.granted, a.query FROM pg_stat_activity a
LEFT JOIN pg_locks l ON l.pid = a.pid AND l.relation = 'public.drivers'::regclass
WHERE {OURS} AND (a.xact_start IS NOT NULL OR l.pid IS NOT NULL)"""


@dataclass(frozen=True)
class Ending:
    """What a run told its caller. All None when it told nothing: it was killed, or did not end in time."""

    result: str | None = None
    error: str | None = None
    text: str = ""
    retryable: bool = False


def run_to_its_end(
    settings: Settings, remaining_ms: Callable[[], int] = lambda: REMAINING_MS, request: Request = APPLY
) -> Ending:
    try:
        return Ending(result=hotfix.run(request, settings, remaining_ms).result)
    except errors.HotfixError as error:
        return Ending(None, type(error).__name__, error.message, error.retryable)
    except Exception as error:  # noqa: BLE001 - the handler would make an InternalError of it
        return Ending(None, f"{type(error).__module__}.{type(error).__name__}", str(error))


class Clock:
    """Time as another session of the same server has it, which naps again and again and is in nobody's way. Where the
    machine has no time for a run it has none for this session: what is measured so is what the run did, and not what a
    busy machine adds to it."""

    def __init__(self) -> None:
        self.naps = 0
        self.over = threading.Event()

    def go_on(self, connection: Connection) -> None:
        while not self.over.is_set():
            connection.run(f"SELECT pg_sleep({NAP_SECONDS})")
            self.naps += 1

    def now(self) -> float:
        return self.naps * NAP_SECONDS

    def sees(self, happened: Callable[[], object], seconds: float) -> bool:
        """Whether that has happened within the time."""
        end = self.now() + seconds
        while not happened():
            if self.now() > end:
                return False
            time.sleep(NAP_SECONDS)
        return True


@contextmanager
def running_clock(server: Server) -> Iterator[Clock]:
    clock = Clock()
    with server.connect() as connection, ThreadPoolExecutor(1) as pool:
        going_on = pool.submit(clock.go_on, connection)
        try:
            yield clock
        finally:
            clock.over.set()
            going_on.result(PATIENCE_SECONDS)


class Reader:
    """The application: reads the table again and again, and remembers from when to when."""

    def __init__(self, connection: Connection, table: str = "public.drivers") -> None:
        self.connection = connection
        self.table = table
        self.clock = Clock()
        self.reads: list[tuple[float, float]] = []
        self.wanted = threading.Event()
        self.ended = False

    def read_on(self) -> None:
        while self.wanted.wait() and not self.ended:
            time.sleep(READ_EVERY_SECONDS)
            began = self.clock.now()
            self.connection.run(f"SELECT count(*) FROM {self.table}")
            self.reads.append((began, self.clock.now()))

    def end(self) -> None:
        self.ended = True
        self.wanted.set()

    def longest_stall(self, since: float = 0.0) -> float:
        """In seconds, of the reads that ended since then. A read that began by now is waited for."""
        now = self.clock.now()
        while not self.ended and (not self.reads or self.reads[-1][0] <= now):
            time.sleep(READ_EVERY_SECONDS)
        return max(end - begin for begin, end in list(self.reads) if end >= since)


@contextmanager
def somebody_reading(database: Database, table: str = "public.drivers") -> Iterator[Reader]:
    """Within the block another session reads the table all the time."""
    with (
        ThreadPoolExecutor(1) as pool,
        database.connect() as connection,
        running_clock(database.server) as clock,
    ):
        reader = Reader(connection, table)
        reader.clock = clock
        reading = pool.submit(reader.read_on)
        reader.wanted.set()
        try:
            yield reader
        finally:
            reader.end()
            reading.result(PATIENCE_SECONDS)


@dataclass(frozen=True)
class Lane:
    """A database of its own for one trial after another, with an application that reads."""

    database: Database
    settings: Settings
    admin: Connection
    reader: Reader

    @property
    def clock(self) -> Clock:
        return self.reader.clock

    @property
    def limits(self) -> Limits:
        return derive_limits(self.settings, REMAINING_MS)

    @property
    def end_bound(self) -> float:
        """How long a run may take, in seconds: two connections that fall silent, and the wait for the lock."""
        return 2 * self.limits.socket_timeout_ms / 1000 + self.settings.lock_wait_seconds + NOISE_SECONDS

    def reset(self) -> None:
        self.admin.run("ALTER TABLE public.drivers DROP COLUMN IF EXISTS active_since")
        self.reader.reads.clear()

    def has_column(self) -> bool:
        return bool(
            self.admin.run(
                "SELECT FROM pg_attribute WHERE attrelid = 'public.drivers'::regclass AND attname = 'active_since'"
            )
        )

    def still_held(self, seconds: float) -> list[str]:
        """Nothing, as soon as our sessions hold, await and have begun nothing; in words, what they do at the end."""
        held: list[object] = []

        def let_go() -> bool:
            held[:] = self.admin.run(NOT_LET_GO) or []
            return not held

        return [] if self.clock.sees(let_go, seconds) else [f"after {seconds} s a session has not let go: {held}"]


@contextmanager
def somebody_in_the_way(lane: Lane, seconds: float | None = None) -> Iterator[None]:
    """A transaction that has read the table, until its end after that time of the lane's clock, or else with the
    block."""
    with lane.database.connect() as other:
        other.run("BEGIN; SELECT FROM public.drivers")
        leave = meanwhile(lambda: lane.clock.sees(lambda: False, seconds or 0), lambda: other.run("COMMIT"))
        with leave if seconds else nullcontext():
            yield


@contextmanager
def new_lanes(server: Server, count: int) -> Iterator[list[Lane]]:
    """So many lanes, which lack a secret yet. Their databases stay."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(count))
        lanes, reading = [], []
        for _ in range(count):
            database = create_database(server)
            admin = stack.enter_context(database.connect())
            reader = Reader(stack.enter_context(database.connect()))
            reading.append(pool.submit(reader.read_on))
            stack.callback(reader.end)
            lanes.append(Lane(database, new_settings(database), admin, reader))
        yield lanes
        for lane, future in zip(lanes, reading, strict=True):
            lane.reader.end()
            future.result()


def new_settings(database: Database) -> Settings:
    """The function's settings for it, but for the secret."""
    server = database.server
    return Settings(
        "", server.host, server.port, None, server.ca_bundle, Path("sql"), LOCK_WAIT_SECONDS, STATEMENT_TIMEOUT_MS
    )


def with_secret(settings: Settings, database: Database, store_secret: Callable[..., str]) -> Settings:
    """The function can log in, where its settings say: the secret holds neither host nor port."""
    arn = store_secret(database.secret(host=None, port=None), name=f"kaviar/{database.name}")
    settings = replace(settings, secret_arn=arn)
    read_target(settings)  # It is remembered from here on.
    return settings


def examine(lane: Lane, ending: Ending, began: float, stall_bound: float = STALL_SECONDS) -> list[str]:
    """Every promise that is broken after a run that began then, in words. At the end the column is there."""
    broken = lane.still_held(STALL_SECONDS)
    there = lane.has_column()
    if lane.clock.sees(lambda: lane.has_column() != there, QUIET_SECONDS):
        broken.append(f"the column was {'there' if there else 'missing'} after the end, and then no longer")
    if ending.error and ending.error not in CONTRACT:
        broken.append("that is no error of the contract")
    if ending.result and not there:
        broken.append("the column is missing after a success")
    if ending.error and there and "Nothing was changed" in ending.text:
        broken.append("the column is there, though the text says that nothing was changed")
    stall = lane.reader.longest_stall(began)
    if stall > stall_bound:
        broken.append(f"a reader stalled for {stall:.2f} s, more than {stall_bound} s")
    again = run_to_its_end(lane.settings)
    if again.result != ("already_applied" if there else "applied"):
        broken.append(f"a clean run with the column {'there' if there else 'missing'} ended as {again}")
    return [f"{ending}: {what}" for what in broken]


def try_all[Point](lanes: Sequence[Lane], points: Iterable[Point], trial: Callable[[Lane, Point], list[str]]) -> None:
    """Every point was tried in one of the lanes, several at once. Fails with all that was broken."""
    free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def take_a_lane(point: Point) -> list[str]:
        lane = free.get()
        lane.reader.wanted.set()
        try:
            return [f"{point}: {what}" for what in trial(lane, point)]
        finally:
            lane.reader.wanted.clear()
            free.put(lane)

    with ThreadPoolExecutor(len(lanes)) as pool:
        broken = [what for found in pool.map(take_a_lane, points) for what in found]
    assert not broken, "\n".join(broken)
