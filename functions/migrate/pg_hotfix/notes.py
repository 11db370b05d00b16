"""What may surprise somebody later. Notes stop nothing; plan, apply and verify show them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.dependents_sql import text_of
from pg_hotfix.file.mentions import takes_whole_rows
from pg_hotfix.promises.column.catalog import MISSING
from pg_hotfix.promises.column.line import written
from pg_hotfix.quoting import quoted, string
from pg_hotfix.server.session import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.look import Seen
    from pg_hotfix.promises.column.catalog import Column
    from pg_hotfix.server.session import Session


def find_notes(session: Session, seen: Seen) -> tuple[dict[str, str], ...]:
    """What others should know about the columns that are there or will be. Nothing was changed, no table was locked.
    What cannot be read is left out: a missing note is no reason to fail."""
    if seen.reverting:
        return ()
    try:
        # Asked first, because few tables have either, and planning what follows takes four times as long.
        if not session.query(tables_to_note_sql(seen.columns)):
            return ()
        ((grants, triggers),) = session.query_prepared(
            f"SELECT ({read_column_grants_sql(seen.columns)}), ({read_triggers_sql(seen.columns)})"
        )
    except (errors.SqlRefusedError, errors.NotOwnerError, errors.StatementTimeoutError):
        return ()
    notes = []
    for role, oid, rights in json.loads(grants):
        columns = [column for column in seen.columns if column.found.relation_oid == oid]
        notes.append(describe_column_grants(role, columns, rights))
    for trigger, function, source in json.loads(triggers):
        if takes_whole_rows(source):
            notes.append(describe_trigger(trigger, function))
    return tuple(notes)


def tables_to_note_sql(columns: Sequence[Column]) -> str:
    """Selects a row for each table that has a trigger, or a right on a single column."""
    tables = ", ".join(f"{column.found.relation_oid}::oid" for column in columns)
    return f"""
SELECT 1 FROM pg_catalog.pg_class c WHERE c.oid IN ({tables}) AND (c.relhastriggers OR EXISTS (
    SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL))"""


def describe_trigger(trigger: str, function: str) -> dict[str, str]:
    text = (
        f"The trigger {trigger} calls {function}, which uses whole rows (NEW.* or OLD.*): with one more column every "
        "write to the table may fail. Read it:  "
        f"SELECT pg_catalog.pg_get_functiondef({string(function)}::pg_catalog.regprocedure);"
    )
    return {"code": "trigger_whole_row", "text": text}


def read_triggers_sql(columns: Sequence[Column]) -> str:
    """Selects one text: the triggers of the tables whose function may use whole rows, each with the function and its
    source."""
    tables = ", ".join(f"{column.found.relation_oid}::oid" for column in columns)
    return f"""
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
    pg_catalog.quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass, p.oid::regprocedure, {text_of("p.prosrc")})
    ORDER BY t.tgrelid, t.tgname), '[]')::text
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE t.tgrelid IN ({tables}) AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND l.lanname = 'plpgsql'
    AND pg_catalog.strpos(p.prosrc, '*') > 0"""


def describe_column_grants(role: str, columns: Sequence[Column], rights: dict[str, list[str]]) -> dict[str, str]:
    """`rights`: SELECT, INSERT or UPDATE, each with the columns on which the role lacks it."""
    expectation = columns[0].expectation
    lacked = {name for lacking in rights.values() for name in lacking}
    names = " or ".join(written(one.expectation.column) for one in columns if one.expectation.column in lacked)
    grantee = quoted(role) if role != "public" else "PUBLIC"
    when = "Grant it after apply" if any(column.actual == MISSING for column in columns) else "Grant it"
    granted = ", ".join(f"{right} ({', '.join(map(quoted, lacking))})" for right, lacking in sorted(rights.items()))
    text = (
        f"{role} has {' and '.join(sorted(rights))} on single columns of {expectation.qualified_table}, but not on "
        f"{names}. PostgreSQL refuses its statements that name it (42501). {when}:  "
        f"GRANT {granted} ON {expectation.table_in_sql} TO {grantee};"
    )
    return {"code": "column_grants", "text": text}


def read_column_grants_sql(columns: Sequence[Column]) -> str:
    """Selects one text: the roles that hold a right on some columns of a table, but not on the table and not on an
    expected column. `public` stands for PUBLIC: no role can have this name.

    https://www.postgresql.org/docs/current/ddl-priv.html
    """
    values = ", ".join(
        f"({position}, {column.found.relation_oid}::oid, {literal(column.expectation.column)}::name)"
        for position, column in enumerate(columns)
    )
    return f"""
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
    CASE WHEN grantee = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(grantee) END, target, rights)
    ORDER BY target, grantee), '[]')::text
FROM (SELECT grantee, target, pg_catalog.json_object_agg(privilege, lacking) AS rights
FROM (SELECT g.grantee, e.target::bigint, g.privilege, pg_catalog.json_agg(e.attribute ORDER BY e.position) AS lacking
FROM (VALUES {values}) AS e (position, target, attribute)
JOIN pg_catalog.pg_class c ON c.oid = e.target
CROSS JOIN LATERAL (SELECT DISTINCT x.privilege_type AS privilege,
        x.grantee
    FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) x
    WHERE a.attrelid = e.target AND a.attnum > 0 AND NOT a.attisdropped
        AND x.grantee <> c.relowner AND x.privilege_type IN ('SELECT', 'INSERT', 'UPDATE')) g
LEFT JOIN pg_catalog.pg_attribute own
    ON own.attrelid = e.target AND own.attname = e.attribute AND own.attnum > 0 AND NOT own.attisdropped
WHERE NOT CASE WHEN own.attnum IS NULL THEN pg_catalog.has_table_privilege(g.grantee, e.target, g.privilege)
    ELSE pg_catalog.has_column_privilege(g.grantee, e.target, own.attnum, g.privilege) END
GROUP BY g.grantee, e.target, g.privilege) AS lacking
GROUP BY grantee, target) AS noted"""
