"""Whether PostgreSQL can make a column as its expect line says, checked without running any of it.

Some checks depend on what the file does before: it may create the type, for example. These refuse only a file that does
nothing but ADD (`Hotfix.additions`); for other files the proof decides.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.promises.column.catalog import IDENTITY, MISSING
from pg_hotfix.promises.column.expression import refuse_expression
from pg_hotfix.server.session import literal
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.look import Seen
    from pg_hotfix.promises.column.catalog import Column, ColumnType
    from pg_hotfix.server.session import Session

# smallint, integer, bigint
IDENTITY_TYPES = {20, 21, 23}
# initdb makes only objects below it.
FIRST_NORMAL_OID = 16384
# To find a first row takes longer only in a table that is full of dead rows.
LONGEST_SEARCH_MS = 200


@dataclass(frozen=True)
class Facts:
    """What the catalog says of a column's expected type and collation, and of its table with the tables below it.
    `holds_row_of` is one of these tables whose rows the type holds; `stored_in` is a column elsewhere that holds such
    rows. `row` is SQL for a row like the table's."""

    type_in_sql: str | None
    element: str | None
    type_shown: str | None
    type_kind: str | None
    usable: bool | None
    is_builtin: bool
    is_collatable: bool | None
    collation_known: bool
    holds_row_of: str | None
    stored_in: str | None
    has_children: bool
    all_lack_it: bool
    row: str


def refuse_impossible(session: Session, hotfix: Hotfix, seen: Seen) -> None:
    """As far as the catalog shows, PostgreSQL can make the missing columns as expected. No function of any user was
    called, and no lock was waited for.

    Raises:
        HotfixFileError, NotOwnerError, RelationError: it cannot make one. Nothing was changed.
    """
    columns = [
        (column, known)
        for column, known in zip(seen.columns, seen.types, strict=True)
        if column.actual == MISSING and may_be_impossible(column, known)
    ]
    if not columns:
        return
    ((text,),) = session.query_prepared(read_facts_sql(columns))
    facts = [Facts(**one) for one in json.loads(text)]
    additions = hotfix.additions
    for (column, known), about in zip(columns, facts, strict=True):
        refuse_type(session, hotfix, column, known, about)
        refuse_identity(session, hotfix, column, known, about)
        if additions:
            refuse_unknown_names(hotfix, column, known, about)
            refuse_stored_rows(column, about)
            refuse_null_in_rows(session, hotfix, column, about)
            if not column.expectation.generated or additions == 1:  # It may use a column that the file adds before.
                refuse_expression(session, hotfix, column.expectation, about)


def may_be_impossible(column: Column, known: ColumnType | None) -> bool:
    """False for most columns: one of PostgreSQL's own types that may be NULL."""
    wanted = column.expectation
    is_simple = known is not None and known.oid < FIRST_NORMAL_OID and not wanted.not_null
    return not is_simple or bool(wanted.collation or wanted.default or wanted.generated)


def refuse_type(session: Session, hotfix: Hotfix, column: Column, known: ColumnType | None, about: Facts) -> None:
    wanted = column.expectation
    if known and not about.usable:
        name = about.element or about.type_in_sql or ""  # The privileges of an array are those of its element.
        raise errors.type_not_usable(wanted.name, str(about.type_shown), name, session.facts.user)
    if known and about.holds_row_of:
        what = f"to have the type {about.type_shown}, which holds rows of {about.holds_row_of} itself"
        raise errors.bad_column(hotfix.file, wanted.name, what, "Give it another type, such as jsonb or the row's key.")
    if known and wanted.collation and not about.is_collatable:
        what = f"to have the collation {wanted.collation}, which the type {about.type_shown} cannot have"
        raise errors.bad_column(hotfix.file, wanted.name, what, "Remove the collation.")
    if (wanted.generated or "").endswith("virtual") and session.facts.version_number < 180000:
        what = f"to be virtual, which PostgreSQL {session.facts.server_version} does not know"
        raise errors.bad_column(hotfix.file, wanted.name, what, "Write  stored  instead, or remove the clause.")


def refuse_identity(session: Session, hotfix: Hotfix, column: Column, known: ColumnType | None, about: Facts) -> None:
    wanted = column.expectation
    if wanted.generated not in IDENTITY.values():
        return
    if known and known.oid not in IDENTITY_TYPES:
        what = f"to be an identity of the type {about.type_shown}"
        advice = "An identity is smallint, integer or bigint: correct the type."
        raise errors.bad_column(hotfix.file, wanted.name, what, advice)
    if not wanted.not_null:
        what = "to be an identity that may be NULL"
        raise errors.bad_column(
            hotfix.file, wanted.name, what, f"An identity is NOT NULL: write  not null {wanted.generated}"
        )
    if about.has_children and hotfix.additions:
        if column.found.relation_kind == "p" and session.facts.version_number >= 170000:
            return
        what = (
            f"to be an identity, which PostgreSQL {session.facts.server_version} cannot add to a table with "
            f"{'partitions' if column.found.relation_kind == 'p' else 'inheritance children'}"
        )
        advice = "Add a bigint column with a sequence's nextval as its default."
        raise errors.bad_column(hotfix.file, wanted.name, what, advice)


def refuse_unknown_names(hotfix: Hotfix, column: Column, known: ColumnType | None, about: Facts) -> None:
    wanted = column.expectation
    if known is None:
        what = f"to have the type {wanted.type}, which does not exist, and the file does not create it"
        advice = "Correct the type, with its schema unless it is PostgreSQL's own, or create it in the file."
        raise errors.bad_column(hotfix.file, wanted.name, what, advice)
    if not about.collation_known:
        what = f"to have the collation {wanted.collation}, which does not exist, and the file does not create it"
        advice = "Correct it; those that exist:  SELECT collname FROM pg_collation;"
        raise errors.bad_column(hotfix.file, wanted.name, what, advice)


def refuse_stored_rows(column: Column, about: Facts) -> None:
    """No column elsewhere stores rows of this table, which PostgreSQL would have to rewrite. It need not for a column
    without a default, or for one that is computed when it is read."""
    wanted = column.expectation
    gets_value = wanted.default or (wanted.generated and not wanted.generated.endswith("virtual"))
    if about.stored_in and gets_value:
        computed = wanted.generated is not None
        raise errors.row_type_stored(
            wanted.qualified_table, wanted.table_in_sql, wanted.column, about.stored_in, computed
        )


def refuse_null_in_rows(session: Session, hotfix: Hotfix, column: Column, about: Facts) -> None:
    """The table has no row that would get NULL in a NOT NULL column. No value is read. If the answer does not come at
    once, only the apply finds out."""
    wanted = column.expectation
    gets_value = wanted.default or wanted.generated or about.type_kind == "d" or "DEFAULT" in hotfix.keywords
    if not wanted.not_null or gets_value or not about.all_lack_it:
        return
    sql = (
        "SELECT pg_catalog.set_config('row_security', 'off', true),"
        f" pg_catalog.set_config('statement_timeout', '{LONGEST_SEARCH_MS}ms', true);"
        f"LOCK TABLE {wanted.table_in_sql} IN ACCESS SHARE MODE NOWAIT;"
        f"SELECT EXISTS (SELECT FROM {wanted.table_in_sql})"
    )
    with suppress(LockNotAvailable, errors.NotOwnerError, errors.SqlRefusedError, errors.StatementTimeoutError):
        if session.query(sql)[-1] == [True]:
            raise errors.null_in_rows(hotfix.file, wanted.name, wanted.qualified_table)


def read_facts_sql(columns: Sequence[tuple[Column, ColumnType | None]]) -> str:
    """Selects one text: `Facts` for each column. Types that hold a row are followed as PostgreSQL follows them: through
    arrays, domains, ranges and composite types, which all depend on the type they are made of.

    https://github.com/postgres/postgres/blob/master/src/backend/commands/tablecmds.c (find_composite_type_dependencies)
    """
    values = ", ".join(
        f"({position}, {column.found.relation_oid}::oid, {literal(column.expectation.column)}::name,"
        f" {known.oid if known else 0}::oid, {known.modifier if known else -1},"
        f" {literal(column.expectation.collation)}::text)"
        for position, (column, known) in enumerate(columns)
    )
    of_type, of_relation = ("'pg_catalog.pg_type'::pg_catalog.regclass", "'pg_catalog.pg_class'::pg_catalog.regclass")
    return f"""
WITH RECURSIVE wanted (position, target, attribute, type, modifier, wanted_collation) AS (VALUES {values}),
tree (target, oid) AS (
    SELECT target, target FROM wanted
    UNION SELECT tree.target, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
),
holders (target, origin, type) AS (
    SELECT tree.target, tree.oid, c.reltype FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
    UNION SELECT h.target, h.origin, coalesce(c.reltype, d.objid)
    FROM holders h
    JOIN pg_catalog.pg_depend d ON d.refclassid = {of_type} AND d.refobjid = h.type
    LEFT JOIN pg_catalog.pg_class c ON d.classid = {of_relation} AND c.oid = d.objid AND d.objsubid > 0
        AND c.relkind NOT IN ('r', 'm') AND c.reltype <> 0
    WHERE d.classid = {of_type} OR c.oid IS NOT NULL
)
SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
    'type_in_sql', CASE WHEN t.oid IS NOT NULL THEN pg_catalog.format('%I.%I', n.nspname, t.typname) END,
    'element', CASE WHEN t.typcategory = 'A' THEN pg_catalog.format_type(t.typelem, NULL) END,
    'type_shown', pg_catalog.format_type(t.oid, w.modifier),
    'type_kind', t.typtype,
    'usable', pg_catalog.has_type_privilege(t.oid, 'USAGE'),
    'is_builtin', coalesce(t.oid < {FIRST_NORMAL_OID} AND n.nspname = 'pg_catalog', false),
    'is_collatable', t.typcollation <> 0,
    'collation_known', w.wanted_collation IS NULL OR pg_catalog.to_regcollation(w.wanted_collation) IS NOT NULL,
    'holds_row_of', (SELECT pg_catalog.format('%I.%I', cn.nspname, c.relname) FROM holders h
        JOIN pg_catalog.pg_class c ON c.oid = h.origin JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
        WHERE h.target = w.target AND h.type = t.oid LIMIT 1),
    'stored_in', (SELECT pg_catalog.format('%I.%I.%I', cn.nspname, c.relname, a.attname) FROM holders h
        JOIN pg_catalog.pg_depend d ON d.refclassid = {of_type} AND d.refobjid = h.type
            AND d.classid = {of_relation} AND d.objsubid > 0
        JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'm')
        JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid
        WHERE h.target = w.target ORDER BY 1 LIMIT 1),
    'has_children', (SELECT pg_catalog.count(*) > 1 FROM tree WHERE tree.target = w.target),
    'all_lack_it', NOT EXISTS (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = w.attribute AND NOT a.attisdropped
        WHERE tree.target = w.target AND (c.relkind = 'f' OR a.attnum IS NOT NULL)),
    'row', (SELECT pg_catalog.concat_ws(', ', 'NULL::pg_catalog.oid AS tableoid', pg_catalog.string_agg(
            pg_catalog.format('NULL::%I.%I AS %I', tn.nspname, ty.typname, a.attname), ', '))
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type ty ON ty.oid = a.atttypid
        JOIN pg_catalog.pg_namespace tn ON tn.oid = ty.typnamespace
        WHERE a.attrelid = w.target AND a.attnum > 0 AND NOT a.attisdropped)
) ORDER BY w.position)::text
FROM wanted w
LEFT JOIN pg_catalog.pg_type t ON t.oid = w.type
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace"""
