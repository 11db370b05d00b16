"""What Prisma Migrate will do next, read from its history as Prisma's own commands read it.

See apply_migrations and diagnose_migration_history in
https://github.com/prisma/prisma-engines/tree/main/schema-engine/commands/src/commands
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pg_hotfix import errors
from pg_hotfix.promises.column.line import written
from pg_hotfix.quoting import quoted
from pg_hotfix.server.pinned import SHOW_ALL_ROWS
from pg_hotfix.server.session import literal, read_as, with_names
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.change.job import Bookkeeping
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.server.session import Session

TABLE = "_prisma_migrations"
# One for each database. Prisma holds it until its session ends, and waits for it for at most 10 s.
# https://www.prisma.io/docs/orm/prisma-migrate/workflows/development-and-production
ADVISORY_LOCK = 72707369
# As pg_locks shows it. https://www.postgresql.org/docs/current/view-pg-locks.html
IS_ADVISORY_LOCK = f"(l.locktype = 'advisory' AND l.classid = 0 AND l.objid = {ADVISORY_LOCK} AND l.objsubid = 1)"
# The hotfix's own rows come first, then failed ones, which block every deploy.
READ_ROWS = 50

NO_HISTORY, NOT_RECORDED, RECORDED, ROLLED_BACK = "no_history", "not_recorded", "recorded", "rolled_back"
FAILED, OTHER_CHECKSUM, UNREADABLE = "failed", "other_checksum", "unreadable"


@dataclass(frozen=True)
class HistoryTable:
    """Where Prisma keeps its history, and what this role may do there. The owner of a table decides what its policies
    and triggers do with the rights of the roles that use it; the table is `trusted` if its owner could do all of that
    without it. `filtered`: row security hides rows from this role. `trigger`: one that would run a function of another
    role; the privilege TRIGGER is enough to create it."""

    schema: str
    owner: str
    trusted: bool
    filtered: bool
    readable: bool
    insertable: bool
    updatable: bool
    trigger: str | None

    @property
    def name(self) -> str:
        return f"{written(self.schema)}.{TABLE}"

    @property
    def in_sql(self) -> str:
        return f"{quoted(self.schema)}.{quoted(TABLE)}"


@dataclass(frozen=True)
class Migration:
    """One row of the history. A migration that runs now looks like one that failed: `pid` holds Prisma's lock, and may
    be running it."""

    name: str
    checksum: str
    finished: bool
    rolled_back: bool
    pid: int | None


@dataclass(frozen=True)
class History:
    """What the history says of a hotfix at one moment. `failed` are the failed migrations, this one first; each of them
    blocks every deploy. `differs`: another file was applied under this id. `has_applied`: a row has it as applied,
    whatever the other rows say. `reason`: why the history could not be read."""

    table: str | None
    state: str
    next_deploy: str
    failed: tuple[str, ...] = ()
    differs: bool = False
    reason: str = ""
    recorded_here: bool = False
    has_applied: bool = False

    def describe(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "state": self.state,
            "blocked_by": list(self.failed[1:] if self.state == FAILED else self.failed),
            "next_deploy": self.next_deploy,
            "recorded_here": self.recorded_here,
        }


def find_history(session: Session, hotfix: Hotfix) -> HistoryTable | None:
    """Prisma's history, found without a lock on it: the first one in the schemas of the expected tables, then along the
    role's own search_path. Prisma keeps it in the schema that its connection URL names."""
    schemas = [one.schema for one in hotfix.expectations] + [*session.facts.schemas, "public"]
    known = ", ".join(f"{literal(schema)}::name" for schema in dict.fromkeys(schemas))
    # Asked first, because most databases have none, and planning what follows takes longer than the look itself.
    found = session.query(f"""
SELECT c.oid::pg_catalog.int8 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = '{TABLE}' AND c.relkind IN ('r', 'p') AND n.nspname IN ({known})
ORDER BY pg_catalog.array_position(ARRAY[{known}], n.nspname) LIMIT 1""")
    if not found:
        return None
    rows = session.query(f"""
SELECT pg_catalog.json_build_object(
    'schema', n.nspname,
    'owner', r.rolname,
    'trusted', c.relowner IN ({trusted_roles_sql(hotfix)}),
    'filtered', pg_catalog.row_security_active(c.oid),
    'readable', coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND pg_catalog.has_table_privilege(c.oid, 'SELECT'), false),
    'insertable', coalesce(pg_catalog.has_table_privilege(c.oid, 'INSERT'), false),
    'updatable', coalesce(pg_catalog.has_table_privilege(c.oid, 'UPDATE'), false),
    'trigger', (SELECT pg_catalog.min(t.tgname::text COLLATE pg_catalog."C") FROM ({foreign_triggers_sql(hotfix)}) AS t
        WHERE t.tgrelid = c.oid))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
WHERE c.oid = {found[0][0]}""")
    return HistoryTable(**json.loads(rows[0][0])) if rows else None


def trusted_roles_sql(hotfix: Hotfix) -> str:
    """Selects the roles whose code may run with this role's rights, because they could do the same without it:
    superusers, roles whose rights this role has, and the owners of the database and of the expected tables."""
    tables = ", ".join(f"({literal(one.schema)}::name, {literal(one.table)}::name)" for one in hotfix.expectations)
    return f"""SELECT oid FROM pg_catalog.pg_roles WHERE rolsuper OR pg_catalog.pg_has_role(oid, 'USAGE')
    UNION ALL SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    UNION ALL SELECT e.relowner FROM (VALUES {tables}) AS expected (schema, relation)
    JOIN pg_catalog.pg_namespace m ON m.nspname = expected.schema
    JOIN pg_catalog.pg_class e ON e.relnamespace = m.oid AND e.relname = expected.relation"""


def foreign_triggers_sql(hotfix: Hotfix) -> str:
    """Selects the triggers, of any table, that may run a function of a role that is not trusted."""
    return f"""SELECT tg.tgrelid, tg.tgname FROM pg_catalog.pg_trigger tg JOIN pg_catalog.pg_proc f ON f.oid = tg.tgfoid
    WHERE NOT tg.tgisinternal AND tg.tgenabled <> 'D' AND f.proowner NOT IN ({trusted_roles_sql(hotfix)})"""


def read_history(
    session: Session,
    hotfix: Hotfix,
    table: HistoryTable | None,
    *,
    is_there: bool,
    bookkeeping: Bookkeeping | None = None,
) -> History:
    """What the history says now. A history that cannot be read is a state, too. `is_there`: the columns are as
    expected. With `bookkeeping` the server has parsed its statement as well.

    Raises:
        LockNotAvailable: only with `bookkeeping`, since then the history must be read.
    """
    if table is None:
        return History(None, NO_HISTORY, without_history(hotfix))
    if reason := find_reason_not_to_read(session, table):
        return unreadable(table, reason)
    try:
        if bookkeeping:
            session.prepare(bookkeeping.sql)
        _, *rows = session.query(read_history_sql(session, hotfix, table))
    except LockNotAvailable:
        if bookkeeping:
            raise
        return unreadable(table, "Another session holds it locked: run it again later.")
    except (errors.SqlRefusedError, errors.NotOwnerError, errors.StatementTimeoutError) as error:
        return unreadable(table, f"{error.facts.get('refusal') or error.message.split('. ', 1)[0]}.")
    return tell(hotfix, table, read_as(Migration, rows), is_there=is_there)


def find_reason_not_to_read(session: Session, table: HistoryTable) -> str | None:
    user = quoted(session.facts.user)
    if not table.trusted:
        return (
            f"It belongs to {written(table.owner)}, whose policies and triggers would run with the rights of "
            f"{session.facts.user}. Give it to the owner of the application's tables:  "
            f"ALTER TABLE {table.in_sql} OWNER TO ...;"
        )
    if not table.readable:
        return f"Grant it:  GRANT SELECT ON {table.in_sql} TO {user};"
    if table.filtered:
        # Not BYPASSRLS: only a superuser may give it, or since PostgreSQL 16 a role that has it, and RDS has neither.
        change = "NO FORCE ROW LEVEL SECURITY" if table.owner == session.facts.user else f"OWNER TO {user}"
        line = f"ALTER TABLE {table.in_sql} {change};"
        return f"Row security may hide rows of it from {session.facts.user}. To show all of them:  {line}"
    return None


def read_history_sql(session: Session, hotfix: Hotfix, table: HistoryTable) -> str:
    """Selects a text for each Migration.

    With row_security off the server fails instead of hiding rows, if row security is switched on meanwhile.
    """
    return f"{SHOW_ALL_ROWS};" + with_names(
        "SELECT migration_name AS name, checksum, finished_at IS NOT NULL AS finished,"
        " rolled_back_at IS NOT NULL AS rolled_back,"
        " CASE WHEN finished_at IS NULL AND rolled_back_at IS NULL THEN (SELECT l.pid FROM pg_catalog.pg_locks l"
        f" WHERE {IS_ADVISORY_LOCK} AND l.granted AND l.database = {literal(session.facts.database_oid)} LIMIT 1) END"
        " AS pid"
        f" FROM {table.in_sql} WHERE migration_name = {literal(hotfix.id)}"
        " OR finished_at IS NULL AND rolled_back_at IS NULL"
        f" ORDER BY migration_name <> {literal(hotfix.id)}, started_at LIMIT {READ_ROWS}"
    )


def checksums(hotfix: Hotfix) -> tuple[str, ...]:
    """Those that Prisma accepts for this file: git may have changed the line ends."""
    spellings = (hotfix.sql, hotfix.sql.replace("\r\n", "\n"), hotfix.sql.replace("\n", "\r\n"))
    return tuple(dict.fromkeys(hashlib.sha256(sql.encode()).hexdigest() for sql in spellings))


def tell(hotfix: Hotfix, table: HistoryTable, rows: Sequence[Migration], *, is_there: bool) -> History:
    """What these rows of the history mean. `is_there`: the columns are as expected."""
    own = [row for row in rows if row.name == hotfix.id]
    applied = {row.checksum for row in own if row.finished and not row.rolled_back}
    unfinished = [row for row in rows if not row.finished and not row.rolled_back]
    failed = tuple(dict.fromkeys(row.name for row in unfinished))
    differs = bool(applied) and applied.isdisjoint(checksums(hotfix))
    if hotfix.id in failed:
        state = FAILED
        # Prisma refuses --applied (P3008) if a row of this name was ever finished.
        text = when_failed(hotfix.id, "--rolled-back" if any(row.finished for row in own) else "--applied", is_there)
    elif applied:
        state = OTHER_CHECKSUM if differs else RECORDED
        text = when_applied(hotfix.id, state, is_there)
    else:
        state = ROLLED_BACK if own else NOT_RECORDED
        text = when_run(hotfix.id, state, is_there)
    if failed:
        running = next((row.pid for row in unfinished if row.pid), None)
        text = f"{when_blocked(failed, running)} {text if state == FAILED else resolve_others(failed, text)}"
    return History(table.name, state, text, failed, differs, has_applied=bool(applied))


# The sentences

RECORD_IT = "An apply with --record prisma"


def without_history(hotfix: Hotfix) -> str:
    schemas = " or ".join(dict.fromkeys(written(expectation.schema) for expectation in hotfix.expectations))
    return (
        f"The database has no {TABLE}. Without Prisma Migrate there is no next deploy. If the connection URL of Prisma "
        f"Migrate names the schema {schemas}, it refuses with P3005, because the schema is not empty, until somebody "
        "baselines it."
    )


def unreadable(table: HistoryTable, reason: str) -> History:
    return History(table.name, UNREADABLE, f"Not known: {table.name} could not be read. {reason}", reason=reason)


def when_run(hotfix: str, state: str, is_there: bool) -> str:
    again = " again, because it is recorded as rolled back," if state == ROLLED_BACK else ""
    runs = f"It runs prisma/migrations/{hotfix}{again} if that folder exists."
    waits = "waits for ACCESS EXCLUSIVE, and all other sessions wait behind it"
    if is_there:
        return f"{runs} With this file's SQL it changes nothing, but {waits}. {RECORD_IT} makes it skip the hotfix."
    return (
        f"{runs} It adds what is missing: it {waits}. After an apply it changes nothing. {RECORD_IT} makes it skip the "
        "hotfix."
    )


def when_applied(hotfix: str, state: str, is_there: bool) -> str:
    other = ", with the checksum of another file" if state == OTHER_CHECKSUM else ""
    lacking = "" if is_there else ". Not all of it is there, and only an apply adds the rest"
    dev = " prisma migrate dev says that it was modified after it was applied." if state == OTHER_CHECKSUM else ""
    return f"It skips {hotfix}, which is recorded as applied{other}{lacking}.{dev}"


def when_blocked(failed: Sequence[str], running: int | None) -> str:
    names = f"{' and '.join(failed)} {'is' if len(failed) == 1 else 'are'}"
    at_work = f" But pid {running} holds Prisma's lock, and may be running it now." if running else ""
    return f"It stops with P3009 and runs nothing, because {names} recorded as failed.{at_work}"


def when_failed(hotfix: str, flag: str, is_there: bool) -> str:
    same = f"  ({RECORD_IT[0].lower()}{RECORD_IT[1:]} does the same)" if flag == "--applied" else ""
    return f"{'To end that' if is_there else 'After an apply'}:  prisma migrate resolve {flag} {hotfix}{same}"


def resolve_others(failed: Sequence[str], then: str) -> str:
    line = f"prisma migrate resolve --rolled-back {failed[0]}"
    return f"To let it run again:  {line}  (--applied if all of it is there). After that: {then[0].lower()}{then[1:]}"
