"""The gate: compares the database with every column that the application expects, before that is deployed."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pg_hotfix import errors
from pg_hotfix.change.blockers import describe_blockers, find_blockers
from pg_hotfix.promises.column import catalog
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pg_hotfix.change.blockers import Blocker
    from pg_hotfix.file.hotfix_file import ExpectedSchema
    from pg_hotfix.promises.column.catalog import Column
    from pg_hotfix.server.session import Session


# Prisma writes TIMESTAMPTZ(6) for what most write without. https://www.postgresql.org/docs/current/datatype-datetime.html
FULL_PRECISION = re.compile(r"^(timestamp|time|interval)\(6\)")

# What a default's words say beyond its text and names: the types with a length that it casts to, and what it calls.
QUOTED = re.compile(r"(['\"])(?:(?!\1).|\1\1)*\1", re.DOTALL)
SIZED_CAST = re.compile(r"::(?:(?:character|bit) varying|[\w.\"]+)\([\d, ]+\)")
CALL = re.compile(r"([\w$.\"]+)\s*\(")
# These have one value for a whole statement, so PostgreSQL keeps it once for all the rows that are there.
AT_ONCE = {"now", "current_timestamp", "localtimestamp", "current_time", "localtime"}


def compare_schema(session: Session, schema: ExpectedSchema) -> tuple[Column, ...]:
    """Every column of the list is there as expected, seen without a lock on any table. What the database has beyond it
    does not matter.

    Raises:
        MismatchError: its text names all that are missing or differ. LockBusyError: a table can't be looked at.
    """
    try:
        columns = tuple(look_at_all(session, schema))
    except LockNotAvailable as error:
        holders = [blocker.describe() for blocker in find_holders(session, schema)]
        raise errors.look_was_blocked(f"A table of sql/{schema.file}", holders) from error
    refuse_differences(session, columns)
    return columns


def look_at_all(session: Session, schema: ExpectedSchema) -> Iterator[Column]:
    expectations = sorted(schema.expectations, key=lambda expectation: (expectation.schema, expectation.table))
    types = catalog.read_types(session, replace(schema, expectations=tuple(expectations)))
    ((text,),) = session.query(catalog.read_columns_sql(session, expectations, types))
    _, rows = catalog.parse_columns(text)
    return map(ignore_full_precision, map(catalog.compare, expectations, rows))


def ignore_full_precision(column: Column) -> Column:
    """A column that differs only in saying that it has the precision which it would have anyway is as expected."""
    expected, actual = (FULL_PRECISION.sub(r"\1", words) for words in (column.expected, column.actual))
    return replace(column, matches=True) if expected == actual else column


def find_holders(session: Session, schema: ExpectedSchema) -> tuple[Blocker, ...]:
    """Who is in the way of a look. Many others read and write these tables, which is in nobody's way."""
    try:
        blockers = find_blockers(session, schema)
        return describe_blockers(session, [one for one in blockers if one.lock_mode == "ACCESS EXCLUSIVE"])
    except (errors.HotfixError, LockNotAvailable):
        return ()


def refuse_differences(session: Session, columns: Sequence[Column]) -> None:
    tables = [list(of_table) for _, of_table in groupby(columns, key=lambda column: column.expectation.qualified_table)]
    present = [table for table in tables if table[0].relation_kind in catalog.TABLE_KINDS]
    absent = [describe_absent(session, table) for table in tables if table[0].relation_kind not in catalog.TABLE_KINDS]
    differing = [column for table in present for column in table if not column.matches]
    if not differing and not absent:
        return
    hotfixes = [draft for table in present if (draft := draft_hotfix(table))]
    raise errors.schema_differs(
        session.facts.name,
        len(columns),
        [column.describe() for column in differing],
        absent,
        hotfixes,
        rest=bool(absent) or not all(map(can_be_added, differing)),
    )


def describe_absent(session: Session, table: Sequence[Column]) -> dict[str, Any]:
    """Of a table that is missing, or of a relation that is none."""
    first = table[0]
    kind = first.relation_kind and catalog.OTHER_KINDS.get(first.relation_kind, "relation of an unknown kind")
    actual = f"in a {kind}" if kind else catalog.MISSING
    return {
        "name": first.expectation.qualified_table,
        "kind": kind,
        "columns": [replace(column, actual=actual, matches=False).describe() for column in table],
        "similar": [] if kind else catalog.find_similar_tables(session, first.expectation),
    }


def draft_hotfix(table: Sequence[Column]) -> tuple[str, str] | None:
    """Name and SQL of a hotfix that adds what the table lacks, as far as one can."""
    missing = [column for column in table if can_be_added(column)]
    if not missing:
        return None
    expectation = missing[0].expectation
    what = expectation.column if len(missing) == 1 else "columns"
    name = re.sub("[^a-z0-9]+", "_", f"add {expectation.table} {what}".lower()).strip("_")
    clauses = ", ".join(
        f"ADD COLUMN IF NOT EXISTS {errors.quoted(column.expectation.column)} {column.expected}" for column in missing
    )
    return name, f"ALTER TABLE {expectation.table_in_sql} {clauses}"


def can_be_added(column: Column) -> bool:
    """Whether a filled table takes it at once: without a rewrite by an identity, an expression of other columns, or a
    default that may be another one for each row."""
    expectation = column.expectation
    takes_it = not expectation.not_null or expectation.default is not None
    known = "(no such type)" not in column.expected
    at_once = expectation.generated is None and find_calls(expectation.default or "") <= AT_ONCE
    return column.actual == catalog.MISSING and takes_it and known and at_once


def find_calls(expression: str) -> set[str]:
    """The functions that it calls, as it names them. Some keywords before a bracket count as one, to be on the safe
    side."""
    bare = QUOTED.sub(r"\1\1", expression)
    return {name.lower() for name in CALL.findall(SIZED_CAST.sub("", bare))}
