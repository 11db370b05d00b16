"""Whether a column that a hotfix has added is still unused, so that dropping it loses nothing.

It is while every row holds what the column was added with: what PostgreSQL keeps for the rows that were there before,
or NULL. A default is never evaluated, and no value leaves the server.

https://www.postgresql.org/docs/current/catalog-pg-attribute.html (attmissingval)
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.server.limits import elapsed_ms
from pg_hotfix.server.session import literal
from pg_hotfix.server.signals import IN_USE, InUse

if TYPE_CHECKING:
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.server.session import Session

# The rows are looked at once more under the lock, where everybody waits. A table whose look takes longer is left alone.
LONGEST_LOOK_MS = 200
# Under the lock it is ended after so long, whatever has slowed it down since.
LOOK_UNDER_LOCK_MS = 2 * LONGEST_LOOK_MS
# No such column, no such table: https://www.postgresql.org/docs/current/errcodes-appendix.html
GONE = ("42703", "42P01")


def refuse_used(session: Session, hotfix: Hotfix, guard: str) -> None:
    """Every row holds what the columns were added with, and to see that takes little time. No lock stops anybody.

    Raises:
        RevertRefusedError: a row holds something else, or that can't be seen, or not quickly. LockNotAvailable.
    """
    took_ms = 0.0
    for sql in (look_at_rows_sql(hotfix), guard):  # The second time the rows are in the server's memory.
        started = time.monotonic()
        try:
            session.query(sql)
        except InUse as found:
            raise explain(hotfix, found, elapsed_ms(started)) from found
        except errors.SqlRefusedError as error:
            if error.facts["refusal"][:5] not in GONE:
                raise
            return  # Another session changed it first: the look under the lock, and the one before it, tell.
        took_ms = elapsed_ms(started)
        if took_ms <= LONGEST_LOOK_MS:
            return
    raise errors.rows_not_seen(hotfix.id, hotfix.tables, round(took_ms), LONGEST_LOOK_MS)


def guard_sql(hotfix: Hotfix) -> str:
    """The same look, for the transaction that holds the lock."""
    return (
        f"SELECT pg_catalog.set_config('statement_timeout', '{LOOK_UNDER_LOCK_MS}ms', true);{look_at_rows_sql(hotfix)}"
    )


def explain(hotfix: Hotfix, found: InUse, took_ms: float | None = None) -> errors.RevertRefusedError:
    """`took_ms`: of a look without a lock."""
    column = hotfix.expectations[found.position].name
    match found.why:
        case "changed":
            return errors.dependents_changed(hotfix.id, " and ".join(one.name for one in hotfix.expectations))
        case "used":
            return errors.column_used(hotfix.id, column)
        case "untold":
            return errors.usage_not_told(hotfix.id, column)
        case _ if took_ms is None:
            return errors.rows_not_seen(hotfix.id, hotfix.tables, LOOK_UNDER_LOCK_MS, LOOK_UNDER_LOCK_MS)
        case _:
            return errors.rows_not_seen(hotfix.id, hotfix.tables, round(took_ms), LONGEST_LOOK_MS)


def look_at_rows_sql(hotfix: Hotfix) -> str:
    """SQL that fails with InUse at the first row that holds something of its own. It looks at the table, its partitions
    and its children one by one, since each keeps for itself what its rows were given.

    Values are compared as they are printed: not every type can be compared, and a cast to text may print otherwise.
    With row_security off the server refuses to hide rows from this. The column's own collation may take different texts
    for the same, and fewer digits different numbers.
    """
    values = ", ".join(
        f"({position}, {literal(one.schema)}::name, {literal(one.table)}::name, {literal(one.column)}::name)"
        for position, one in enumerate(hotfix.expectations)
    )
    return f"""SELECT pg_catalog.set_config('row_security', 'off', true),
    pg_catalog.set_config('extra_float_digits', '3', true);
DO $pg_hotfix$
DECLARE
    part record;
    position integer := 0;
    found boolean;
BEGIN
    FOR part IN
        WITH RECURSIVE tree (position, attribute, oid) AS (
            SELECT e.position, e.attribute, c.oid FROM (VALUES {values}) AS e (position, schema, relation, attribute)
            JOIN pg_catalog.pg_namespace n ON n.nspname = e.schema
            JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = e.relation
            UNION SELECT tree.position, tree.attribute, i.inhrelid
            FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
        )
        SELECT tree.position, tree.oid, tree.attribute, a.atthasmissing,
            a.attidentity <> '' OR (a.atthasdef AND NOT a.atthasmissing) AS untold,
            pg_catalog.array_to_string(a.attmissingval, '') AS given
        FROM tree JOIN pg_catalog.pg_attribute a ON a.attrelid = tree.oid AND a.attname = tree.attribute
        WHERE a.attgenerated = '' AND NOT a.attisdropped ORDER BY tree.position, tree.oid
    LOOP
        position := part.position;
        EXECUTE 'SELECT EXISTS (SELECT FROM ONLY ' || part.oid::regclass || ' AS t WHERE ' || CASE
            WHEN part.untold THEN 'true'
            WHEN part.atthasmissing THEN pg_catalog.format(
                'CASE WHEN t.%1$I IS DISTINCT FROM NULL THEN pg_catalog.format(%2$L, t.%1$I) END'
                ' COLLATE pg_catalog."C" IS DISTINCT FROM %3$L',
                part.attribute, '%s', part.given)
            ELSE pg_catalog.format('t.%I IS DISTINCT FROM NULL', part.attribute) END || ')' INTO found;
        IF found THEN
            RAISE EXCEPTION USING
                MESSAGE = '{IN_USE}' || position || CASE WHEN part.untold THEN ' untold' ELSE ' used' END;
        END IF;
    END LOOP;
EXCEPTION WHEN query_canceled THEN
    RAISE EXCEPTION USING MESSAGE = '{IN_USE}' || position || ' late';
END $pg_hotfix$;
"""
