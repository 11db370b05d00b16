"""What a hotfix's transaction does with Prisma's history: it writes the row that `prisma migrate resolve --applied`
writes, or checks that there is none.

See mark_migration_applied in https://github.com/prisma/prisma-engines/tree/main/schema-engine/commands/src/commands
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.job import Bookkeeping
from pg_hotfix.history.prisma import (
    ADVISORY_LOCK,
    FAILED,
    IS_ADVISORY_LOCK,
    TABLE,
    UNREADABLE,
    checksums,
    foreign_triggers_sql,
)
from pg_hotfix.server.session import literal
from pg_hotfix.server.signals import HISTORY_BUSY

if TYPE_CHECKING:
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.history.prisma import History, HistoryTable
    from pg_hotfix.server.session import Session


def plan_recording(hotfix: Hotfix, table: HistoryTable | None, *, record_only: bool) -> Bookkeeping | None:
    """What `prisma migrate resolve --applied` does, as one statement to run while Prisma's lock is held: it marks
    failed rows of this id as rolled back, and writes a row that counts as applied unless there is one. None without a
    history. `record_only`: the columns are there, and nothing else is to be done.

    The statement fails if the history has changed so that this would be wrong: then it must be read again.
    """
    if table is None:
        return None
    known = ", ".join(map(literal, checksums(hotfix)))
    applied, failed = (f"(SELECT id FROM own WHERE finished_at IS {what})" for what in ("NOT NULL", "NULL"))
    same = f"EXISTS (SELECT FROM own WHERE finished_at IS NOT NULL AND checksum IN ({known}))"
    is_right = f"(NOT EXISTS {applied} OR {same})"
    resolve = f" resolved AS (UPDATE {table.in_sql} SET rolled_back_at = pg_catalog.now() WHERE id IN {failed}),"
    if not table.updatable:
        is_right, resolve = f"{is_right} AND NOT EXISTS {failed}", ""
    return make_bookkeeping(
        table,
        "WITH own AS (SELECT id, checksum, finished_at"
        f" FROM {table.in_sql} WHERE migration_name = {literal(hotfix.id)} AND rolled_back_at IS NULL),{resolve}"
        f" written AS (INSERT INTO {table.in_sql} (id, checksum, logs, started_at, finished_at, migration_name)"
        f" SELECT pg_catalog.gen_random_uuid()::text, {literal(hotfix.sha256)}, '', pg_catalog.now(), pg_catalog.now(),"
        f" {literal(hotfix.id)} WHERE NOT EXISTS {applied} RETURNING id)"
        f" SELECT CASE WHEN {is_right} THEN (SELECT pg_catalog.count(*)::text FROM written)"
        f" ELSE '{HISTORY_BUSY}' || (SELECT pg_catalog.count(*) FROM own) END::int",
        lock_table=f"LOCK TABLE ONLY {table.in_sql} IN ROW EXCLUSIVE MODE NOWAIT;{refuse_triggers_sql(hotfix, table)};",
        record_only=record_only,
    )


def refuse_triggers_sql(hotfix: Hotfix, table: HistoryTable) -> str:
    """Selects nothing, and fails if another role has created a trigger since the history was read. The lock that is
    held now keeps further ones away."""
    found = (
        f"SELECT FROM ({foreign_triggers_sql(hotfix)}) AS t"
        f" WHERE t.tgrelid = {literal(table.in_sql)}::pg_catalog.regclass"
    )
    return f"SELECT WHERE (CASE WHEN EXISTS ({found}) THEN '{HISTORY_BUSY}0' ELSE '0' END)::int > 0"


def plan_absence(hotfix: Hotfix, table: HistoryTable | None) -> Bookkeeping | None:
    """Fails if a row of this hotfix counts as applied, or if a migration runs: after a revert a deploy that skips the
    hotfix would never add the column again. None without a history."""
    if table is None:
        return None
    return make_bookkeeping(
        table,
        f"SELECT CASE WHEN EXISTS (SELECT FROM {table.in_sql} WHERE migration_name = {literal(hotfix.id)}"
        f" AND finished_at IS NOT NULL AND rolled_back_at IS NULL) THEN '{HISTORY_BUSY}0' ELSE '0' END::int",
    )


def make_bookkeeping(table: HistoryTable, sql: str, lock_table: str = "", *, record_only: bool = False) -> Bookkeeping:
    return Bookkeeping((table.schema, TABLE), take_lock_sql(), IS_ADVISORY_LOCK, sql, lock_table, record_only)


def take_lock_sql() -> str:
    """An expression that takes Prisma's lock for this transaction, or fails if it is not free. It never waits."""
    taken = f"pg_catalog.pg_try_advisory_xact_lock({ADVISORY_LOCK})"
    return f"CASE WHEN {taken} THEN '1' ELSE '{HISTORY_BUSY}' || pg_catalog.pg_backend_pid() END::int"


def refuse_unrecordable(session: Session, hotfix: Hotfix, table: HistoryTable | None, history: History) -> None:
    """The hotfix can be recorded at the end.

    Raises:
        RelationError, NotOwnerError, HotfixFileError: it cannot. Nothing was changed.
    """
    if table is None:
        raise errors.no_history(hotfix.id, session.facts.name)
    rights = {
        "SELECT": table.readable,
        "INSERT": table.insertable,
        "UPDATE": table.updatable or history.state != FAILED,
    }
    if lacking := [right for right, given in rights.items() if not given]:
        raise errors.history_forbidden(hotfix.id, table.name, table.in_sql, lacking, session.facts.user)
    if history.state == UNREADABLE:
        raise errors.history_unusable(hotfix.id, table.name, history.reason)
    if table.trigger:
        raise errors.history_has_trigger(hotfix.id, table.name, table.in_sql, table.trigger, session.facts.user)
    if history.differs:
        raise errors.history_differs(hotfix.id, table.name)


def refuse_recorded(hotfix: Hotfix, table: HistoryTable | None, history: History) -> None:
    """Prisma does not have the hotfix as applied, with any checksum; otherwise it would never run it again.

    Raises:
        RevertRefusedError: it has, or that cannot be read. Nothing was changed.
    """
    if table and history.state == UNREADABLE:
        raise errors.history_not_seen(hotfix.id, table.name, history.reason)
    if table and history.has_applied:
        raise errors.recorded_as_applied(hotfix.id, table.name, table.in_sql)
