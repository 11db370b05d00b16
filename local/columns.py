"""Which columns a database has, and how the function's own look words them."""

from collections.abc import Collection, Iterable, Sequence

import catalog
from database import Session
from errors import quoted
from expectation import Expectation
from gate import search_path_sql
from local.scratch import Scratch, Table
from sqlfile import Hotfix

type Name = tuple[str, str, str]

# What a partition or a child has from its parent is promised of the parent.
COLUMNS = """
SELECT n.nspname, c.relname, a.attname FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'
    AND a.attnum > 0 AND NOT a.attisdropped AND a.attislocal
ORDER BY n.nspname, c.relname, a.attnum
"""


def list_columns(scratch: Scratch) -> list[Name]:
    return [(schema, table, column) for schema, table, column in scratch.run(COLUMNS)]


def find_added(before: Collection[Name], after: Iterable[Name]) -> list[Name]:
    """The new columns of tables that were there before."""
    tables = {(schema, table) for schema, table, _ in before}
    return [name for name in after if name not in before and name[:2] in tables]


def word_columns(session: Session, names: Iterable[Name]) -> dict[Name, str]:
    """Each column as an expect line words it, such as `timestamp with time zone null`."""
    expectations = expect_any(names)
    if not expectations:
        return {}
    session.query(catalog.set_search_path_sql(session, Hotfix("", "", "", 0, expectations)))
    return read_words(session, expectations)


def word_schema(session: Session, schema: str, names: Iterable[Name]) -> dict[Name, str]:
    """As `word_columns`, for columns of one schema, in the words of the gate."""
    session.query(search_path_sql(schema))
    return read_words(session, expect_any(names))


def expect_any(names: Iterable[Name]) -> tuple[Expectation, ...]:
    # Of a column that is only looked at no type is expected.
    return tuple(Expectation(*name, type="") for name in names)


def read_words(session: Session, expectations: Sequence[Expectation]) -> dict[Name, str]:
    ((text,),) = session.query(catalog.read_columns_sql(session, expectations, [None] * len(expectations)))
    _, rows = catalog.parse_columns(text)
    return {
        (one.schema, one.table, one.column): catalog.compare(one, row).actual
        for one, row in zip(expectations, rows, strict=True)
    }


def expect_line(name: Name, worded: str) -> str:
    return f"-- expect: column {Expectation(*name, type='').name} {worded}"


def tables_of(hotfix: Hotfix) -> list[Table]:
    return list(dict.fromkeys((one.schema, one.table) for one in hotfix.expectations))


def drop_expected(scratch: Scratch, hotfix: Hotfix) -> None:
    """No expected column is there: a dump may be of a database that has had the hotfix."""
    for one in hotfix.expectations:
        scratch.run(f"ALTER TABLE {one.table_in_sql} DROP COLUMN IF EXISTS {quoted(one.column)} CASCADE")
