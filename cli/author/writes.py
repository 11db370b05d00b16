"""Whether a table can be written to: what a file's way back may have broken, and no catalog tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pg8000.native

from pg_hotfix.quoting import quoted, string

if TYPE_CHECKING:
    from cli.author.scratch import Scratch, Table

COLUMNS = """
SELECT attname, attidentity = 'a' FROM pg_attribute WHERE attrelid = {table}::regclass AND attnum > 0
    AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""


def try_writes(scratch: Scratch, table: Table) -> dict[str, str | None]:
    """Of each kind of write to one row, how PostgreSQL refuses it to the table's owner; None if it does not. Nothing of
    them is left.

    A row that was made up may break a foreign key or a rule of the application's own: what a write meets is to be held
    against what it met before.
    """
    name = f"{quoted(table[0])}.{quoted(table[1])}"
    with scratch.connect() as admin:
        columns = admin.run(COLUMNS.format(table=string(name)))
        changed = ", ".join(f"{quoted(one)} = {quoted(one)}" for one, by_server in columns if not by_server)
        listed = ", ".join(quoted(one) for one, _ in columns)
        row = f"ctid = (SELECT ctid FROM {name} LIMIT 1)"  # noqa: S608 - a quoted name
        remove = f"DELETE FROM {name} WHERE {row}"  # noqa: S608
        add = f"INSERT INTO {name} ({listed}) OVERRIDING SYSTEM VALUE SELECT {listed} FROM one_row"  # noqa: S608
        admin.run(f"CREATE TEMP TABLE one_row AS SELECT * FROM {name} LIMIT 1")  # noqa: S608
        admin.run(f"GRANT SELECT ON one_row TO {scratch.login.user}")
        # An added row takes the place of the one that it is like, whatever is unique in it.
        writes = {"INSERT": (remove, add if listed else ""), "DELETE": ("", remove)}
        if changed:
            writes["UPDATE"] = "", f"UPDATE {name} SET {changed} WHERE {row}"  # noqa: S608
        return {kind: try_write(scratch, admin, *sql) for kind, sql in writes.items()}


def try_write(scratch: Scratch, admin: pg8000.native.Connection, before: str, sql: str) -> str | None:
    """`before` makes room for it without any trigger or key."""
    admin.run("BEGIN")
    try:
        admin.run(
            f"SET LOCAL session_replication_role = replica; {before}; SET LOCAL session_replication_role = origin"
        )
        admin.run(f"SET LOCAL ROLE {scratch.login.user}")
        admin.run(sql)
        admin.run("SET CONSTRAINTS ALL IMMEDIATE")
    except pg8000.native.DatabaseError as error:
        return str(error.args[0]["M"])
    finally:
        admin.run("ROLLBACK")
    return None
