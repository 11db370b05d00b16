"""Runs a file's SQL under a short lock, proves it there, and commits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import catalog
import errors
from database import LockNotAvailable
from limits import elapsed_ms
from look import Look, compare_all, differing

if TYPE_CHECKING:
    from catalog import Column
    from database import Session
    from sqlfile import Hotfix


@dataclass(frozen=True)
class Altered:
    """What one committed transaction did, and how long it held the lock: from its grant to the answer to COMMIT."""

    proof: tuple[Column, ...]
    lock_held_ms: float


def alter_and_prove(session: Session, hotfix: Hotfix, before: Look) -> Altered | None:
    """The file's SQL is committed, and was proved before COMMIT under the same lock. None if the lock was not free
    within lock_timeout, or another table stands in the place of the one that was looked at: then all is rolled back.

    Raises:
        ColumnMismatchError: the proof failed. Whatever is raised, the session's owner closes it, which rolls back.
    """
    try:
        session.begin(hotfix.statement_count)
        proof, locked_for_ms, answered = run_under_lock(session, hotfix, before)
        if [column.relation_oid for column in proof] != [column.relation_oid for column in before.columns]:
            session.roll_back()
            return None
        wrong = differing(Look(proof, before.types))
        if wrong:
            raise errors.proof_failed(hotfix.id, wrong)
        session.commit(hotfix.id)
    except LockNotAvailable:
        session.roll_back()
        return None
    return Altered(proof, round(locked_for_ms + elapsed_ms(answered), 1))


def run_under_lock(session: Session, hotfix: Hotfix, before: Look) -> tuple[tuple[Column, ...], float, float]:
    """The transaction holds the lock, the SQL was run, and the columns were read, all in one round trip. Returns the
    columns, how long the server had held the lock by then in ms, and when its answer came.

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
        # The file may have changed the search_path, which decides how expressions are printed.
        f"{catalog.set_search_path_sql(session, hotfix)};"
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
    return compare_all(hotfix, proof_rows), (proved_at - locked_at) * 1000, answered
