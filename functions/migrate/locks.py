"""Who holds the tables, and when to try for the lock.

This is the place of the lock strategy. Today: short attempts, whose stall for others is bounded by lock_timeout, with
pauses of several times their length, until the budget is spent.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import errors
from database import LockNotAvailable, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from database import Session
    from expectation import Expectation
    from limits import Limits

# A busy table has hundreds; a log event has 256 kB.
BLOCKERS_LIMIT = 50
# Others get at least this many times as long undisturbed as an attempt may stall them. The jitter keeps several runs
# from marching in step.
PAUSE_FACTOR = (3.0, 6.0)


@dataclass(frozen=True)
class Blocker:
    """A transaction that holds or awaits a lock on one of the tables. `pid` is None for a prepared transaction;
    `application_name`, `state` and `transaction_seconds` are None where the role lacks pg_read_all_stats. No query
    text: it would hold people's data."""

    pid: int | None
    user: str | None
    application_name: str | None
    state: str | None
    transaction_seconds: float | None
    lock_mode: str
    granted: bool
    table: str

    def describe(self) -> dict[str, Any]:
        return asdict(self)


def find_blockers(session: Session, expectations: Sequence[Expectation]) -> tuple[Blocker, ...]:
    """Every other session with a lock, or in wait for one, on one of the tables or their partitions, the oldest
    transaction first: each conflicts with ACCESS EXCLUSIVE. Waits for nobody.

    https://www.postgresql.org/docs/current/view-pg-locks.html
    """
    tables = ", ".join(f"({literal(expected.schema)}, {literal(expected.table)})" for expected in expectations)
    rows = session.query(f"""
WITH RECURSIVE relation (oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname) IN ({tables})
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN relation ON i.inhparent = relation.oid
)
SELECT l.pid, coalesce(a.usename, p.owner), nullif(a.application_name, ''), a.state,
    extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8,
    pg_catalog.upper(pg_catalog.regexp_replace(
        pg_catalog.replace(l.mode, 'Lock', ''), '([a-z])([A-Z])', '\\1 \\2', 'g')),
    l.granted, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
FROM pg_catalog.pg_locks l
JOIN relation ON relation.oid = l.relation
JOIN pg_catalog.pg_class c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction::text
WHERE l.locktype = 'relation' AND l.database = {literal(session.facts.database_oid)}
    AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
ORDER BY l.granted DESC, 5 DESC NULLS LAST, l.pid
LIMIT {BLOCKERS_LIMIT}""")
    return tuple(Blocker(*row) for row in rows)


def describe_blockers(session: Session, expectations: Sequence[Expectation]) -> list[dict[str, Any]]:
    """The blockers as data, for an error that must be reported whether they can be seen or not."""
    try:
        return [blocker.describe() for blocker in find_blockers(session, expectations)]
    except (errors.HotfixError, LockNotAvailable):
        return []


def pause_before_next_attempt(limits: Limits, started: float) -> bool:
    """Others had the table to themselves for a while. False, at once, when the budget that began at `started` would be
    spent by then, or too little of the function's time would be left."""
    pause = limits.lock_timeout_ms / 1000 * random.uniform(*PAUSE_FACTOR)  # noqa: S311 - jitter, no secret
    if time.monotonic() + pause > min(started + limits.lock_wait_ms / 1000, limits.last_attempt_at):
        return False
    time.sleep(pause)
    return True
