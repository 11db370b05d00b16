"""The settings under which our own SQL runs, so that it means the same and prints the same in every database.

With an empty search_path a name without a schema means one of pg_catalog, whatever other roles have created, and
PostgreSQL prints every other name with its schema. With these formats it prints values as pg_dump does. The statements
of a hotfix file run under the session's own settings, which their author knows.

https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATH and setup_connection in
https://github.com/postgres/postgres/blob/master/src/bin/pg_dump/pg_dump.c
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg8000.native import literal

if TYPE_CHECKING:
    from collections.abc import Mapping

PINNED = {
    "search_path": "",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "quote_all_identifiers": "off",
    # For a default of type money.
    "lc_monetary": "C",
}

# Runs before anything is pinned, when another role's functions and operators may come first in the search_path. So it
# calls functions of pg_catalog by their whole names, and uses no operator, no cast and no table.
READ_OWN = (
    "SELECT pg_catalog.json_build_object('pid', pg_catalog.pg_backend_pid(),"
    " 'schemas', pg_catalog.current_schemas(false), 'settings', pg_catalog.json_build_object("
    + ", ".join(f"{literal(name)}, pg_catalog.current_setting({literal(name)})" for name in PINNED)
    + "))"
)

# Until the transaction ends; see https://www.postgresql.org/docs/current/ddl-rowsecurity.html
SHOW_ALL_ROWS = "SELECT pg_catalog.set_config('row_security', 'off', true)"


def set_sql(settings: Mapping[str, str]) -> str:
    """SQL that sets them for the session, even if a file has set them before in the same transaction. A rollback of the
    transaction undoes it. It is as safe as READ_OWN under any settings."""
    calls = ", ".join(
        f"pg_catalog.set_config({literal(name)}, {literal(value)}, false)" for name, value in settings.items()
    )
    return f"SELECT {calls}"


PIN = set_sql(PINNED)
# Runs after a file's statements: triggers that these have deferred belong to them, and run under the same settings.
# https://www.postgresql.org/docs/current/sql-set-constraints.html
END_OF_FILE = f"SET CONSTRAINTS ALL IMMEDIATE;{PIN}"
