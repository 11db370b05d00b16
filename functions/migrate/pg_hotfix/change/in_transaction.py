"""Runs a job's SQL under a short lock, proves the result there, writes the bookkeeping if there is any, and commits."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.look import compare_all, differing
from pg_hotfix.promises.column import catalog
from pg_hotfix.server.limits import MARGIN_MS, SHORTEST_ATTEMPT_MS, USUAL_ATTEMPT_MS, elapsed_ms
from pg_hotfix.server.pinned import SHOW_ALL_ROWS
from pg_hotfix.server.signals import ArrivedLate, HistoryBusy, LockNotAvailable, NotAsExpected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.change.job import Bookkeeping, Job
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.look import Seen
    from pg_hotfix.promises.column.catalog import Column
    from pg_hotfix.server.session import Row, Session


# To lock a table with many partitions takes this long at most, without the waiting.
LOCKING_MS = 100


@dataclass(frozen=True)
class Altered:
    """What one committed transaction did. `lock_held_ms` is how long it held the lock at most: from its sending to the
    answer to COMMIT, without the wait. `stalled_ms` is how long other sessions may have waited for it, with the wait.
    `recorded` tells whether its bookkeeping wrote a row. `ended` is on the monotonic clock."""

    proof: tuple[Column, ...]
    lock_held_ms: float
    stalled_ms: float
    recorded: bool
    ended: float


@dataclass(frozen=True)
class NotYet:
    """A lock was not free, or the tables or the other tool's history have changed since the look. The transaction is
    rolled back. `stalled_ms` is how long other sessions may have waited behind the attempt. `hidden`: the attempt held
    its locks and failed on one more, of which the server `said` something. `late`: the message arrived too late to
    begin."""

    stalled_ms: float = 0.0
    hidden: bool = False
    said: str = ""
    late: bool = False


@dataclass(frozen=True)
class Ran:
    """What the message with the file has answered: how long the server waited for the lock, the text of the columns,
    and whether the bookkeeping wrote a row."""

    waited_ms: float
    text: str
    recorded: bool = False


class Replaced(Exception):  # noqa: N818 - never leaves this module
    """Another table has taken the place of the one that was looked at, or the column has changed since."""


def alter_and_prove(session: Session, job: Job, queue_wait_ms: int, *, judge_here: bool = False) -> Altered | NotYet:
    """The job's SQL is committed, and was proved before COMMIT under the same lock; or nothing was changed. The attempt
    waits for `queue_wait_ms` at most in the lock queue; with 0 it does not enter the queue. The bookkeeping follows the
    proof, under the other tool's lock, for which the attempt never waits. If only the bookkeeping is to be done, no
    table is locked.

    Everything goes to the server in one message, with COMMIT: so neither the network nor a slow function makes the
    server hold the lock for longer. With `judge_here` COMMIT follows after the proof was judged here. Revert lines run
    only if the columns are still those that were looked at, and if the guard does not fail.

    Raises:
        MismatchError: the proof failed. OutcomeUnknownError: the connection was lost. InUse: the guard failed.
        After any error the session's owner closes it, which rolls back what is not committed.
    """
    hotfix, before = job.hotfix, job.before
    # The file may create a type, which has no oid before. Only then are further round trips needed under the lock.
    judge_here = judge_here or (None in before.types and not before.reverting)
    started = time.monotonic()
    try:
        ran = run_under_lock(session, job, queue_wait_ms, judge_here=judge_here)
        if judge_here:
            proof = judge(hotfix, before, ran.text)
            sql = f"{SHOW_ALL_ROWS};{bookkeeping_sql(session, job.bookkeeping)}"
            rows = session.commit(hotfix.id, sql, reverting=before.reverting)
            recorded = has_recorded(job, rows)
        else:
            proof, recorded = compare_all(hotfix, catalog.parse_columns(ran.text)[1]), ran.recorded
    except NotAsExpected as error:
        session.roll_back()
        try:
            if before.reverting and error.wanted == before.state:
                raise Replaced
            judge(hotfix, before, error.seen)
        except Replaced:
            return NotYet(0.0 if before.is_done else elapsed_ms(started))
        return alter_and_prove(session, job, queue_wait_ms, judge_here=True)
    except HistoryBusy:
        stalled_ms = elapsed_ms(started) if session.lock_held and not before.is_done else 0.0
        session.roll_back()
        return NotYet(stalled_ms)
    except ArrivedLate:
        session.roll_back()
        session.read_clock()
        return NotYet(late=True)
    except (LockNotAvailable, Replaced) as error:
        # Of several tables or partitions the first ones are locked while the attempt waits for the next.
        one_table = sum(not before.is_as_wanted(column) for column in before.columns) == 1 and not any(
            column.found.has_children for column in before.columns
        )
        harmless = before.is_done or (one_table and not queue_wait_ms and not session.lock_held)
        stalled_ms = 0.0 if harmless else elapsed_ms(started)
        session.roll_back()
        if isinstance(error, LockNotAvailable) and session.lock_held:
            return NotYet(stalled_ms, hidden=True, said=error.said)
        return NotYet(stalled_ms)
    ended = time.monotonic()
    if before.is_done:
        return Altered(proof, 0.0, 0.0, recorded, ended)
    if before.reverting:  # The catalog does not tell who dropped a column; it was still there under the lock.
        proof = tuple(
            replace(column, changed_here=not before.is_as_wanted(was))
            for column, was in zip(proof, before.columns, strict=True)
        )
    stalled_ms = elapsed_ms(started)
    return Altered(proof, round(stalled_ms - ran.waited_ms, 1), stalled_ms, recorded, ended)


def run_under_lock(session: Session, job: Job, queue_wait_ms: int, *, judge_here: bool) -> Ran:
    """The SQL was run under the lock, and the columns were read. Unless they are to be judged here, the server has
    proved, recorded and committed them. If all columns are as expected before, no SQL is run and no table is locked."""
    # The file's own statements may need locks on further tables. They wait a little for these, but not for long, since
    # the first lock is held by then.
    hotfix, before, bookkeeping = job.hotfix, job.before, job.bookkeeping
    lock_timeout_ms = queue_wait_ms or SHORTEST_ATTEMPT_MS
    further_ms = min(lock_timeout_ms, USUAL_ATTEMPT_MS)
    # `lock_timeout` counts for each lock; this limits the locking of a table with all its partitions.
    locking_ms = lock_timeout_ms + LOCKING_MS
    # The proof and COMMIT have their share, too; and so have the queries of the history, and of the columns before
    # revert lines.
    others = 2 + bool(bookkeeping) + before.reverting
    statement_ms = session.share_of_statements(hotfix.statement_count + others)
    read = session.sql_or_execute(catalog.read_columns_sql(session, hotfix.expectations, before.types))
    prove = ""
    if not judge_here:
        prove = (
            f"SELECT pg_catalog.set_config('{catalog.STATE_TO_PROVE}', '{before.state_wanted}', true),"
            " pg_catalog.set_config('row_security', 'off', true);"
            f"{read};{bookkeeping_sql(session, bookkeeping)}COMMIT"
        )
    locks = f", {bookkeeping.take_lock};{bookkeeping.lock_table}" if bookkeeping else ";"
    if not before.is_done:
        locks += f"{lock_tables_sql(before, nowait=not queue_wait_ms)};"
    unchanged = ""
    if before.reverting:
        unchanged = (
            f", pg_catalog.set_config('{catalog.STATE_TO_PROVE}', '{before.state}', true);{read};{job.guard}"
            f"SELECT pg_catalog.set_config('{catalog.STATE_TO_PROVE}', '', true),"
            f" pg_catalog.set_config('statement_timeout', '{statement_ms}ms', true)"
        )
    rows = session.run_file(
        hotfix.id,
        f"BEGIN; SELECT pg_catalog.set_config('lock_timeout', '{lock_timeout_ms}ms', true),"
        f" pg_catalog.set_config('statement_timeout', '{locking_ms}ms', true),"
        # A message that was delayed must not begin after the run has given up: so it fails if it arrives too late.
        f" 1 / (pg_catalog.clock_timestamp() < {session.server_time_in(MARGIN_MS)})::int{locks}"
        "SELECT extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp())::float8 * 1000,"
        f" pg_catalog.set_config('{catalog.TRANSACTION}', pg_catalog.pg_current_xact_id()::text, true),"
        f" pg_catalog.pg_current_xact_id(), pg_catalog.set_config('lock_timeout', '{further_ms}ms', true),"
        f" pg_catalog.set_config('statement_timeout', '{statement_ms}ms', true){unchanged}",
        "" if before.is_done else hotfix.sql_to_run,
        prove,
        schemas=catalog.schemas_of(hotfix),
        locking_ms=locking_ms,
        statement_ms=statement_ms,
        reverting=before.reverting,
    )
    # The file's own rows lie between: before them the limits and the wait, after them the columns and the bookkeeping.
    _, (waited_ms, *_), *rest = rows
    if not judge_here:
        columns = rest[-2] if bookkeeping else rest[-1]
        return Ran(waited_ms, columns[0], has_recorded(job, rest))
    types = catalog.read_types(session, hotfix)
    ((text,),) = session.query(catalog.read_columns_sql(session, hotfix.expectations, types))
    return Ran(waited_ms, text)


def has_recorded(job: Job, rows: Sequence[Row]) -> bool:
    """Whether the job's bookkeeping, which answers last, wrote a row."""
    return job.bookkeeping is not None and rows[-1] == [1]


def bookkeeping_sql(session: Session, bookkeeping: Bookkeeping | None) -> str:
    return f"{session.sql_or_execute(bookkeeping.sql)};" if bookkeeping else ""


def judge(hotfix: Hotfix, before: Seen, text: str) -> tuple[Column, ...]:
    """The columns are as expected, in the tables that were looked at, and in the transaction that took the lock.

    Raises:
        MismatchError, HotfixFileError, Replaced: they are not. The caller must not commit.
    """
    own, rows = catalog.parse_columns(text)
    if not own:  # hotfix_file.py refuses transaction control; this is the second line of defence.
        raise errors.file_ended_transaction(hotfix.id)
    proof = compare_all(hotfix, rows)
    if [column.found.relation_oid for column in proof] != [column.found.relation_oid for column in before.columns]:
        raise Replaced
    if wrong := differing(replace(before, columns=proof)):
        if before.is_done:  # Nothing was run that could have made it so.
            raise Replaced
        raise errors.proof_failed(hotfix.id, wrong, reverting=hotfix.reverting)
    return proof


def lock_tables_sql(before: Seen, *, nowait: bool) -> str:
    """SQL that takes the locks before any statement of the file runs, in the order of the oids, so that two runs cannot
    deadlock. PostgreSQL locks partitions and inheritance children, too. A table that a foreign key of a dropped column
    refers to is locked here, because DROP COLUMN would wait for it while it holds the other locks.

    https://www.postgresql.org/docs/current/sql-lock.html
    """
    tables = {
        column.found.relation_oid: column.expectation.table_in_sql
        for column in before.columns
        # Revert lines drop with IF EXISTS what another session may have added meanwhile.
        if before.reverting or not before.is_as_wanted(column)
    }
    tables = dict(sorted((tables | before.referenced).items(), key=lambda table: table[0] or 0))
    return f"LOCK TABLE {', '.join(tables.values())} IN ACCESS EXCLUSIVE MODE{' NOWAIT' if nowait else ''}"
