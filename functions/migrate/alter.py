"""Runs a file's SQL under a short lock, proves it there, and commits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import catalog
import errors
import locks
from database import LockNotAvailable
from look import Look, differing

if TYPE_CHECKING:
    from catalog import Column
    from database import Session
    from sqlfile import Hotfix


@dataclass(frozen=True)
class Altered:
    """What one committed transaction did."""

    proof: tuple[Column, ...]
    attempts: int
    lock_wait_ms: int
    lock_held_ms: float


def alter_and_prove(session: Session, hotfix: Hotfix, before: Look) -> Altered:
    """The file's SQL is committed, and was proved before COMMIT under the same lock. Each attempt waits for the lock no
    longer than lock_timeout.

    Raises:
        LockBusyError: the budget is spent. ColumnMismatchError: the proof failed. Whatever is raised, the session is
        then closed by its owner, which rolls back.
    """
    started = time.monotonic()
    deadline = min(started + session.limits.lock_wait_ms / 1000, session.limits.last_attempt_at)
    attempts = 0
    while True:
        attempts += 1
        try:
            session.begin()
            proof, locked_for_ms, answered = run_under_lock(session, hotfix, before)
            session.commit(hotfix.id)
            held_ms = locked_for_ms + elapsed_ms(answered)
            return Altered(proof, attempts, max(0, round(elapsed_ms(started) - held_ms)), round(held_ms, 1))
        except LockNotAvailable:
            session.roll_back()
        pause = locks.pause_seconds(session.limits.lock_timeout_ms)
        if time.monotonic() + pause > deadline:
            blockers = [blocker.describe() for blocker in locks.find_blockers(session, hotfix.expectations)]
            raise errors.lock_busy(hotfix.id, hotfix.tables, round(elapsed_ms(started)), blockers, attempts)
        time.sleep(pause)


def run_under_lock(session: Session, hotfix: Hotfix, before: Look) -> tuple[tuple[Column, ...], float, float]:
    """The transaction holds the lock, the SQL is run and proved, all in one round trip. Returns the proof, how long the
    server had held the lock by then in ms, and when its answer came.

    Taking the lock by its own statement, in the order of the oids, keeps two runs from a deadlock and tells waiting
    from holding.
    """
    tables = {
        column.relation_oid: f"{errors.quoted(column.expectation.schema)}.{errors.quoted(column.expectation.table)}"
        for column in sorted(before.columns, key=lambda column: column.relation_oid or 0)
        if not column.matches
    }
    clock = "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8, pg_catalog.pg_current_xact_id()::text"
    rows = session.run_file(
        hotfix.id,
        f"LOCK TABLE {', '.join(tables.values())} IN ACCESS EXCLUSIVE MODE; {clock}",
        hotfix.sql,
        f"{catalog.read_columns_sql(hotfix.expectations, before.types, in_own_transaction=True)}; {clock}",
    )
    answered = time.monotonic()
    (locked_at, began_as), (proved_at, ended_as) = rows[0], rows[-1]
    if began_as != ended_as:  # The reading of the file refuses transaction control; this is the second line of defence.
        raise errors.file_ended_transaction(hotfix.id)
    proof_rows = rows[-1 - len(hotfix.expectations) : -1]
    if None in before.types:
        # The file may have made the type. Only then further round trips are needed under the lock.
        types = catalog.read_types(session, hotfix)
        proof_rows = session.query(catalog.read_columns_sql(hotfix.expectations, types, in_own_transaction=True))
    proof = tuple(map(catalog.compare, hotfix.expectations, proof_rows))
    wrong = differing(Look(proof, before.types))
    if wrong:
        raise errors.column_mismatch(hotfix.id, wrong, rolled_back=True)
    return proof, (proved_at - locked_at) * 1000, answered


def elapsed_ms(since: float) -> float:
    return (time.monotonic() - since) * 1000
