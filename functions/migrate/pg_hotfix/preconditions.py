"""What is refused before any lock is taken, because PostgreSQL would refuse it later. Nothing here changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.blockers import named_tables_sql
from pg_hotfix.look import hash_plan
from pg_hotfix.promises.column import catalog
from pg_hotfix.promises.column.definition import FIRST_NORMAL_OID, refuse_impossible
from pg_hotfix.promises.column.obstacles import refuse_obstacles
from pg_hotfix.server.membership import refuse_to_alter
from pg_hotfix.server.session import literal

if TYPE_CHECKING:
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.look import Seen
    from pg_hotfix.server.session import Session

# Words of a column or a constraint for which PostgreSQL creates an index or a sequence.
MAKES_A_RELATION = {"UNIQUE", "PRIMARY", "EXCLUDE", "IDENTITY"}


def refuse_stale_plan(session: Session, hotfix: Hotfix, seen: Seen, plan_hash: str | None) -> None:
    if plan_hash is not None and plan_hash != hash_plan(session, hotfix, seen):
        raise errors.plan_changed(hotfix.id, hotfix.tables)


def refuse_what_cannot_work(session: Session, hotfix: Hotfix, seen: Seen) -> None:
    """The server would not refuse the file, and no column differs, which IF NOT EXISTS would hide.

    Raises:
        HotfixError: it would, or one does. Nothing was changed, and no lock was taken.
    """
    refuse_read_only(session)
    wrong = [column.describe() for column in seen.columns if not column.matches and column.actual != catalog.MISSING]
    if wrong:
        raise errors.mismatch(hotfix.id, wrong, reverting=hotfix.reverting)
    if not seen.is_done:
        refuse_what_alter_table_would(session, hotfix, seen)


def refuse_what_alter_table_would(session: Session, hotfix: Hotfix, seen: Seen) -> None:
    """ALTER TABLE would accept the tables, and the columns that are missing."""
    refuse_system_tables(seen)
    refuse_missing_rights(session, seen)
    refuse_obstacles(session, hotfix, seen)
    if not hotfix.reverting:
        refuse_missing_rights_beside_the_table(session, hotfix, seen)
        refuse_impossible(session, hotfix, seen)


def refuse_read_only(session: Session) -> None:
    if session.facts.in_recovery:
        raise errors.read_only(session.target.address, "it is a replica, in recovery")
    if session.facts.read_only:
        raise errors.read_only(session.target.address, f"default_transaction_read_only is on for {session.facts.user}")


def refuse_system_tables(seen: Seen) -> None:
    """Without this the advice would be to give the role rights on system tables."""
    for column in seen.columns:
        schema, table = column.expectation.schema, column.expectation.qualified_table
        if schema.startswith("pg_temp_"):
            raise errors.temporary_table(table, table)
        # PostgreSQL reserves schema names that begin like this.
        if (column.found.relation_oid or 0) < FIRST_NORMAL_OID or schema.startswith("pg_"):
            raise errors.system_table(table)


def refuse_missing_rights_beside_the_table(session: Session, hotfix: Hotfix, seen: Seen) -> None:
    """The role has CREATE on the table's schema if the file adds an index or a sequence, and REFERENCES on the other
    table if it adds a foreign key. What a file needs that does more than ADD, or that names several schemas, only the
    server knows.

    https://www.postgresql.org/docs/current/ddl-priv.html
    """
    words = hotfix.keywords
    if words.isdisjoint({*MAKES_A_RELATION, "REFERENCES"}) or not hotfix.additions:
        return
    user, schemas = session.facts.user, catalog.schemas_of(hotfix)
    if len(schemas) > 1 or all(column.actual != catalog.MISSING for column in seen.columns):
        return
    ((closed, unreferable),) = session.query(f"""
SELECT (SELECT pg_catalog.min(n.nspname::text COLLATE pg_catalog."C") FROM pg_catalog.pg_namespace n
        WHERE n.nspname = {literal(schemas[0])}::name AND NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE')),
    (SELECT pg_catalog.min((pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname))
            COLLATE pg_catalog."C")
        FROM ({named_tables_sql(session, hotfix, None)}) AS named (oid, weakest)
        JOIN pg_catalog.pg_class c ON c.oid = named.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT pg_catalog.has_any_column_privilege(c.oid, 'REFERENCES'))""")
    if closed and not words.isdisjoint(MAKES_A_RELATION):
        raise errors.no_create(closed, user)
    if unreferable and "REFERENCES" in words:
        raise errors.no_references(unreferable, user)


def are_selectable(session: Session, seen: Seen) -> bool:
    """The role that has logged in may select each column; False if one of them was dropped since. The table is not
    read: even a SELECT of no rows would run functions of the table's owner, such as those in its policies, with this
    role's rights.

    Raises:
        NotOwnerError: it may not.
    """
    values = ", ".join(
        f"({position}, {column.found.relation_oid}::pg_catalog.oid,"
        f" {literal(column.expectation.column)}::pg_catalog.name)"
        for position, column in enumerate(seen.columns)
    )
    rows = session.query(f"""
SELECT e.position, pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'),
    pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
FROM (VALUES {values}) AS e (position, relation, attribute)
JOIN pg_catalog.pg_class c ON c.oid = e.relation
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = e.attribute AND NOT a.attisdropped""")
    for position, usable, selectable in rows:
        expectation, user = seen.columns[position].expectation, session.facts.user
        if not usable:
            raise errors.no_usage(expectation.schema, user)
        if not selectable:
            raise errors.no_select_privilege(expectation.name, expectation.table_in_sql, user)
    return len(rows) == len(seen.columns)


def refuse_missing_rights(session: Session, seen: Seen) -> None:
    for column in seen.columns:
        expectation, user = column.expectation, session.facts.user
        tables = expectation.qualified_table, expectation.table_in_sql
        if not column.found.owned:
            raise refuse_to_alter(session, tables[0], tables[1:], column.found.owner or "")
        if not column.found.schema_usable:
            raise errors.no_usage(expectation.schema, user)
        if not column.found.lockable:
            raise errors.no_lock_privilege(*tables, user)
