"""Which columns a database has, and how the function's own look words them."""

from collections.abc import Collection, Iterable

from cli.author.scratch import Scratch, Table
from pg_hotfix.file.hotfix_file import Hotfix
from pg_hotfix.promises.column import catalog
from pg_hotfix.promises.column.line import Expectation
from pg_hotfix.quoting import quoted
from pg_hotfix.server.session import Session

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
    ((text,),) = session.query(catalog.read_columns_sql(session, expectations, [None] * len(expectations)))
    _, rows = catalog.parse_columns(text)
    return {
        (one.schema, one.table, one.column): catalog.compare(one, row).actual
        for one, row in zip(expectations, rows, strict=True)
    }


def expect_any(names: Iterable[Name]) -> tuple[Expectation, ...]:
    # Of a column that is only looked at no type is expected.
    return tuple(Expectation(*name, type="") for name in names)


def expect_line(name: Name, worded: str) -> str:
    return f"-- expect: column {Expectation(*name, type='').name} {worded}"


def tables_of(hotfix: Hotfix) -> list[Table]:
    return list(dict.fromkeys((one.schema, one.table) for one in hotfix.expectations))


def drop_expected(scratch: Scratch, hotfix: Hotfix) -> None:
    """No expected column is there: a dump may be of a database that has had the hotfix."""
    for one in hotfix.expectations:
        scratch.run(f"ALTER TABLE {one.table_in_sql} DROP COLUMN IF EXISTS {quoted(one.column)} CASCADE")
