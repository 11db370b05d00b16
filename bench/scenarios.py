"""What is in the way of a tool, and for how long."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.probes import running_pgbench
from bench.stage import Stage

SERVER_TIME = "SELECT extract(epoch FROM clock_timestamp())::float8"
# Rows that no probe writes.
BLOCKED_ROW, FIRST_BUSY_ROW = 50, 200
UPDATE = f"UPDATE public.drivers SET name = 'Idle' WHERE id = lpad('{BLOCKED_ROW}', 32, '0')::uuid"  # noqa: S608 - constant
BUSY_CLIENTS = 8
BUSY = f"""
\\set us random(5000, 20000)
BEGIN;
SELECT name FROM public.drivers WHERE id = lpad(({FIRST_BUSY_ROW} + :client_id)::text, 32, '0')::uuid;
UPDATE public.drivers SET name = 'Busy' WHERE id = lpad(({FIRST_BUSY_ROW} + :client_id)::text, 32, '0')::uuid;
\\sleep :us us
COMMIT;
"""  # noqa: S608 - a constant

# Waits until who is in the way has gone; returns when that was, in seconds since the epoch, or None: nobody went.
Ended = Callable[[], float | None]


@dataclass(frozen=True)
class Scenario:
    """`title` names who is in the way; `{hold}` stands for the seconds. `column` says whether it is there already."""

    key: str
    title: str
    enter: Callable[[Stage, float], contextlib.AbstractContextManager[Ended]]
    column: bool = False


@contextlib.contextmanager
def nobody(_stage: Stage, _hold_seconds: float) -> Iterator[Ended]:
    yield lambda: None


@contextlib.contextmanager
def long_reader(stage: Stage, hold_seconds: float) -> Iterator[Ended]:
    """A transaction has read the table and works on for that long, as a report does."""
    with stage.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.run("BEGIN; SELECT FROM public.drivers LIMIT 1")
        # One message, so that the end waits for no client.
        done = pool.submit(connection.run, f"SELECT pg_sleep({hold_seconds}); {SERVER_TIME}; COMMIT")
        yield lambda: float(done.result()[-1][0])


@contextlib.contextmanager
def idle_writer(stage: Stage, hold_seconds: float) -> Iterator[Ended]:
    """A transaction has updated a row that nobody else wants, and its client says nothing for that long."""
    with stage.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.run(f"BEGIN; {UPDATE}")

        def wait_and_commit() -> float:
            time.sleep(hold_seconds)
            return float((connection.run(f"{SERVER_TIME}; COMMIT") or [])[-1][0])

        yield pool.submit(wait_and_commit).result


@contextlib.contextmanager
def busy_table(stage: Stage, _hold_seconds: float) -> Iterator[Ended]:
    """Short transactions without a pause, so that hardly ever nobody holds the table, and nobody holds it for long."""
    with running_pgbench(stage, "busy", BUSY, BUSY_CLIENTS):
        yield lambda: None


QUIET = Scenario("quiet", "A quiet table", nobody)
READER = Scenario("reader", "A transaction that has read the table, for {hold:g} s", long_reader)
WRITER = Scenario("writer", "A transaction that has updated a row and idles, for {hold:g} s", idle_writer)
BUSY_TABLE = Scenario("busy", f"{BUSY_CLIENTS} clients in short transactions, without a pause", busy_table)
RERUN = Scenario("rerun", "As 2, but the column is there already", long_reader, column=True)
SCENARIOS = (QUIET, READER, WRITER, BUSY_TABLE, RERUN)
