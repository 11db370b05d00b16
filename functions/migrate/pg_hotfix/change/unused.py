"""Whether a column that a hotfix has added is still unused, so that dropping it loses nothing.

A column is unused while every row holds what the column was added with: the value that PostgreSQL stores once for all
rows that existed before, or NULL. No default is evaluated, and no value leaves the server.

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

# The rows are read again under the lock, where all other sessions wait. If reading takes longer, the revert is refused.
LONGEST_READ_MS = 200
# Under the lock reading is cancelled after this time, if something has slowed it down since.
READ_UNDER_LOCK_MS = 2 * LONGEST_READ_MS
# No such column, no such table: https://www.postgresql.org/docs/current/errcodes-appendix.html
GONE = ("42703", "42P01")


def refuse_used(session: Session, hotfix: Hotfix, guard: str) -> None:
    """Every row holds what the columns were added with, and reading them takes little time. Other sessions can read and
    write meanwhile.

    Raises:
        RevertRefusedError: a row holds something else, or cannot be read, or not quickly. LockNotAvailable.
    """
    took_ms = 0.0
    for sql in (read_rows_sql(hotfix), guard):  # The second time the rows are in the server's memory.
        started = time.monotonic()
        try:
            session.query(sql)
        except InUse as found:
            raise explain(hotfix, found, elapsed_ms(started)) from found
        except errors.SqlRefusedError as error:
            if error.facts["refusal"][:5] not in GONE:
                raise
            return  # Another session has dropped it since: the next look finds that.
        took_ms = elapsed_ms(started)
        if took_ms <= LONGEST_READ_MS:
            return
    raise errors.rows_not_seen(hotfix.id, hotfix.tables, round(took_ms), LONGEST_READ_MS)


def guard_sql(hotfix: Hotfix) -> str:
    """The same SQL, for the transaction that holds the lock."""
    return f"SELECT pg_catalog.set_config('statement_timeout', '{READ_UNDER_LOCK_MS}ms', true);{read_rows_sql(hotfix)}"


def explain(hotfix: Hotfix, found: InUse, took_ms: float | None = None) -> errors.RevertRefusedError:
    """The error for what the guard, or `read_rows_sql`, has found. `took_ms`: how long it took without a lock."""
    column = hotfix.expectations[found.position].name
    match found.why:
        case "changed":
            return errors.dependents_changed(hotfix.id, " and ".join(one.name for one in hotfix.expectations))
        case "used":
            return errors.column_used(hotfix.id, column)
        case "untold":
            return errors.usage_not_told(hotfix.id, column)
        case _ if took_ms is None:
            return errors.rows_not_seen(hotfix.id, hotfix.tables, READ_UNDER_LOCK_MS, READ_UNDER_LOCK_MS)
        case _:
            return errors.rows_not_seen(hotfix.id, hotfix.tables, round(took_ms), LONGEST_READ_MS)


def read_rows_sql(hotfix: Hotfix) -> str:
    """SQL that fails with InUse at the first row that holds a value of its own. It reads the table, its partitions and
    its children one by one, because each stores for itself what its rows were given.

    Values are compared as `format` prints them: not every type can be compared, and a cast to text may print otherwise.
    The collation is "C" and floats have all digits, so that different values never count as equal. With row_security
    off the server fails instead of hiding rows.
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
