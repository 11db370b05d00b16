"""The gate: compares the database with every column that the application expects, before its deployment."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.blocker import name_blockers
from pg_hotfix.change.blockers import describe_blockers, find_blockers
from pg_hotfix.listing import counted, first_that_fit
from pg_hotfix.promises.column import catalog
from pg_hotfix.quoting import quoted
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pg_hotfix.change.blocker import Blocker
    from pg_hotfix.file.hotfix_file import ExpectedSchema
    from pg_hotfix.promises.column.catalog import Column
    from pg_hotfix.server.session import Session

# Step Functions keeps 32,768 characters of a failure, in JSON, where most letters beyond ASCII take 6. A log event has
# 256 kB. https://docs.aws.amazon.com/step-functions/latest/apireference/API_TaskFailedEventDetails.html
LONGEST_LIST, LONGEST_COMMANDS, LOGGED_COLUMNS, NAMED_COMMANDS = 20_000, 6_000, 500, 10

# Prisma writes TIMESTAMPTZ(6) where most others write TIMESTAMPTZ, which has the same precision.
# https://www.postgresql.org/docs/current/datatype-datetime.html
FULL_PRECISION = re.compile(r"^(timestamp|time|interval)\(6\)")

# To find what a default calls: quoted text and names, casts to a type with a length, and names before a bracket.
QUOTED = re.compile(r"(['\"])(?:(?!\1).|\1\1)*\1", re.DOTALL)
SIZED_CAST = re.compile(r"::(?:(?:character|bit) varying|[\w.\"]+)\([\d, ]+\)")
CALL = re.compile(r"([\w$.\"]+)\s*\(")
# These have one value for a whole statement, so PostgreSQL stores it once for all existing rows, without a rewrite.
AT_ONCE = {"now", "current_timestamp", "localtimestamp", "current_time", "localtime"}


def compare_schema(session: Session, schema: ExpectedSchema) -> tuple[Column, ...]:
    """Every column of the list is there as expected. No table was locked. What the database has beyond the list does
    not matter.

    Raises:
        MismatchError: its text names all that are missing or differ. LockBusyError: another session holds a table.
    """
    try:
        columns = tuple(compare_all(session, schema))
    except LockNotAvailable as error:
        holders = find_holders(session, schema)
        in_the_way = name_blockers(holders, len(holders))
        described = [blocker.describe() for blocker in holders]
        raise errors.catalog_blocked(f"A table of sql/{schema.file}", in_the_way, described) from error
    refuse_differences(session, columns)
    return columns


def compare_all(session: Session, schema: ExpectedSchema) -> Iterator[Column]:
    expectations = sorted(schema.expectations, key=lambda expectation: (expectation.schema, expectation.table))
    types = catalog.read_types(session, replace(schema, expectations=tuple(expectations)))
    ((text,),) = session.query(catalog.read_columns_sql(session, expectations, types))
    _, rows = catalog.parse_columns(text)
    return map(ignore_full_precision, map(catalog.compare, expectations, rows))


def ignore_full_precision(column: Column) -> Column:
    """A column is as expected if it differs only by naming the precision that it has by default."""
    expected, actual = (FULL_PRECISION.sub(r"\1", words) for words in (column.expected, column.actual))
    return replace(column, matches=True) if expected == actual else column


def find_holders(session: Session, schema: ExpectedSchema) -> tuple[Blocker, ...]:
    """The sessions that keep the catalog from being read. Those that read or write the tables do not."""
    try:
        blockers = find_blockers(session, schema)
        return describe_blockers(session, [one for one in blockers if one.lock_mode == "ACCESS EXCLUSIVE"])
    except (errors.HotfixError, LockNotAvailable):
        return ()


def refuse_differences(session: Session, columns: Sequence[Column]) -> None:
    """No column is missing, and none differs.

    Raises:
        MismatchError: one is, or does. Its text has the commands that write hotfixes for what a hotfix can add.
    """
    tables = [list(of_table) for _, of_table in groupby(columns, key=lambda column: column.expectation.qualified_table)]
    present = [table for table in tables if table[0].found.relation_kind in catalog.TABLE_KINDS]
    absent = [name_absent_columns(table) for table in tables if table not in present]
    differing = [column for table in present for column in table if not column.matches]
    if not differing and not absent:
        return
    wrong = [*differing, *(column for table in absent for column in table)]
    missing = sum(column.actual == catalog.MISSING for column in wrong)
    entries = [describe_absent_table(session, table) for table in absent]
    entries += ["\n".join([f"  {one.expectation.name}", *errors.compared(one.describe(), "    ")]) for one in differing]
    shown = first_that_fit(entries, LONGEST_LIST)
    raise errors.schema_differs(
        session.facts.name,
        f"of {counted(len(columns), 'column')} {missing} missing, {len(wrong) - missing} different",
        shown,
        len(entries) - len(shown),
        shorten_commands([command for table in present if (command := write_command(table))]),
        [column.describe() for column in wrong[:LOGGED_COLUMNS]],
        rest=bool(absent) or not all(map(can_be_added, differing)),
    )


def name_absent_columns(table: Sequence[Column]) -> list[Column]:
    """The columns of a table that is missing, or of a relation that is not a table."""
    kind = kind_of_other(table)
    actual = f"in a {kind}" if kind else catalog.MISSING
    return [replace(column, actual=actual, matches=False) for column in table]


def describe_absent_table(session: Session, table: Sequence[Column]) -> str:
    kind, expectation = kind_of_other(table), table[0].expectation
    similar = [] if kind else catalog.find_similar_tables(session, expectation)
    what = f"is a {kind}, not a table" if kind else "missing"
    there = f"; there is {', '.join(similar)}" if similar else ""
    return f"  {expectation.qualified_table}  {what}, with {counted(len(table), 'column')}{there}"


def kind_of_other(table: Sequence[Column]) -> str | None:
    kind = table[0].found.relation_kind
    return kind and catalog.OTHER_KINDS.get(kind, "relation of an unknown kind")


def shorten_commands(commands: Sequence[str]) -> list[str]:
    shown = first_that_fit(commands[:NAMED_COMMANDS], LONGEST_COMMANDS)
    if commands and not shown:
        shown = ["  ./pg-hotfix new NAME --sql 'ALTER TABLE ...'"]
    return [*shown, "  and so on"] if len(shown) < len(commands) else shown


def write_command(table: Sequence[Column]) -> str | None:
    """The command that writes a hotfix for what the table lacks, as far as a hotfix can add it."""
    missing = [column for column in table if can_be_added(column)]
    if not missing:
        return None
    expectation = missing[0].expectation
    what = expectation.column if len(missing) == 1 else "columns"
    name = re.sub("[^a-z0-9]+", "_", f"add {expectation.table} {what}".lower()).strip("_")
    clauses = ", ".join(
        f"ADD COLUMN IF NOT EXISTS {quoted(column.expectation.column)} {column.expected}" for column in missing
    )
    sql = f"ALTER TABLE {expectation.table_in_sql} {clauses}"
    return f"  ./pg-hotfix new {name} --sql {shlex.quote(sql)}"


def can_be_added(column: Column) -> bool:
    """Whether a table with rows accepts it at once. PostgreSQL rewrites the table for an identity, for an expression of
    other columns, and for a default that may differ from row to row."""
    expectation = column.expectation
    takes_it = not expectation.not_null or expectation.default is not None
    known = "(no such type)" not in column.expected
    at_once = expectation.generated is None and find_calls(expectation.default or "") <= AT_ONCE
    return column.actual == catalog.MISSING and takes_it and known and at_once


def find_calls(expression: str) -> set[str]:
    """The functions that it calls, as it names them. A keyword before a bracket counts as a call, which is safe."""
    bare = QUOTED.sub(r"\1\1", expression)
    return {name.lower() for name in CALL.findall(SIZED_CAST.sub("", bare))}
