"""Rows for a table of any columns, made up by the server: as many as its keys let in."""

from dataclasses import dataclass

import pg8000.native

from cli.author.scratch import Scratch, Table
from pg_hotfix.quoting import quoted, string

ROWS = 12_000

COLUMNS = """
SELECT a.attname, a.attnotnull, a.attgenerated <> '' OR a.attidentity <> '', a.atthasdef,
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND a.attnum = ANY (i.indkey)),
    a.atttypid::bigint, a.atttypmod
FROM pg_attribute a WHERE a.attrelid = {table}::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
TYPE = """
SELECT t.typname, t.oid::regtype::text, t.typtype::text, t.typcategory::text, t.typelem::bigint, t.typbasetype::bigint,
    t.typtypmod, (SELECT r.rngsubtype::bigint FROM pg_range r WHERE r.rngtypid = t.oid),
    (SELECT r.rngtypid::bigint FROM pg_range r WHERE r.rngmultitypid = t.oid)
FROM pg_type t WHERE t.oid = {oid}
"""
CHECKS = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = {table}::regclass AND contype = 'c' AND convalidated
"""
# A value for row `n`, each another one as far as the type can hold so many. What is not here takes `n` as a text.
VALUES = {
    "bool": "n % 2 = 0",
    "box": "box(point(n, n), point(0, 0))",
    "bytea": "decode(lpad(to_hex(n), 8, '0'), 'hex')",
    "cidr": "('10.' || n / 256 || '.' || n % 256 || '.0/24')::cidr",
    "circle": "circle(point(n, n), 1)",
    "date": "date '2000-01-01' + n",
    "inet": "inet '10.0.0.0' + n",
    "interval": "make_interval(secs => n)",
    "json": "json_build_object('n', n)",
    "jsonb": "jsonb_build_object('n', n)",
    "line": "line(point(0, 0), point(1, n))",
    "lseg": "lseg(point(0, 0), point(1, n))",
    "macaddr": "lpad(to_hex(n), 12, '0')::macaddr",
    "macaddr8": "lpad(to_hex(n), 16, '0')::macaddr8",
    "path": "path(polygon(box(point(n, n), point(0, 0))))",
    "pg_lsn": "pg_lsn '0/0' + n",
    "point": "point(n, n)",
    "polygon": "polygon(box(point(n, n), point(0, 0)))",
    "time": "time '00:00' + make_interval(secs => n)",
    "timestamp": "timestamp '2000-01-01' + make_interval(secs => n)",
    "timestamptz": "timestamptz '2000-01-01 00:00+00' + make_interval(secs => n)",
    "timetz": "timetz '00:00+00' + make_interval(secs => n)",
    "tsquery": "to_tsquery('simple', n::text)",
    "tsvector": "to_tsvector('simple', n::text)",
    "uuid": "lpad(to_hex(n), 32, '0')::uuid",
    "xml": "('<n>' || n || '</n>')::xml",
}
BITS_OF_INT = 32
# PostgreSQL adds it to the length, or to precision and scale, in a modifier.
HEADER = 4


@dataclass(frozen=True)
class Filled:
    """How many rows a table has now. `refusal` is why none could be made up, or None."""

    rows: int
    refusal: str | None


def fill(scratch: Scratch, table: Table) -> Filled:
    """The table holds some 10,000 rows, unless its keys or domains let in fewer.

    Foreign keys and triggers are not heeded, and a CHECK that refuses what is made up is NOT VALID afterwards.
    """
    name = f"{quoted(table[0])}.{quoted(table[1])}"
    with scratch.connect() as admin:
        admin.run("SET session_replication_role = replica")
        refusal = None
        try:
            admin.run(insert_sql(admin, name, sparse=False))
        except pg8000.native.DatabaseError:
            try:
                insert_unchecked(admin, name)
            except pg8000.native.DatabaseError as error:
                admin.run("ROLLBACK")
                refusal = str(error.args[0]["M"])
        count = f"SELECT count(*) FROM {name}"  # noqa: S608 - a quoted name
        return Filled(admin.run(count)[0][0], refusal)


def insert_unchecked(admin: pg8000.native.Connection, name: str) -> None:
    checks = admin.run(CHECKS.format(table=string(name)))
    admin.run("BEGIN")
    for check, _ in checks:
        admin.run(f"ALTER TABLE {name} DROP CONSTRAINT {quoted(check)}")
    admin.run(insert_sql(admin, name, sparse=True))
    for check, definition in checks:
        admin.run(f"ALTER TABLE {name} ADD CONSTRAINT {quoted(check)} {definition} NOT VALID")
    admin.run("COMMIT")


def insert_sql(admin: pg8000.native.Connection, name: str, *, sparse: bool) -> str:
    """Leaves to the server what it makes by itself, and to its default what need not be unique; if `sparse`, also
    everything that may be NULL."""
    values: dict[str, str] = {}
    for column, not_null, made_by_server, has_default, unique, oid, modifier in admin.run(
        COLUMNS.format(table=string(name))
    ):
        if made_by_server or (has_default and not unique) or (sparse and not not_null):
            continue
        values[quoted(column)] = value_sql(admin, oid, modifier)
    columns = f"({', '.join(values)})" if values else ""
    numbers = f"FROM generate_series(1, {ROWS}) AS numbers (n)"
    return f"INSERT INTO {name} {columns} SELECT {', '.join(values.values())} {numbers} ON CONFLICT DO NOTHING"


def value_sql(admin: pg8000.native.Connection, oid: int, modifier: int) -> str:
    """An expression of the integer `n` that gives a value of the type."""
    ((name, in_sql, kind, category, element, base, base_modifier, subtype, range_type),) = admin.run(
        TYPE.format(oid=oid)
    )
    match kind, category:
        case "d", _:
            return f"({value_sql(admin, base, base_modifier)})::{in_sql}"
        case "e", _:
            labels = f"enum_range(NULL::{in_sql})"
            return f"({labels})[1 + n % cardinality({labels})]"
        case "r", _:
            bound = value_sql(admin, subtype, -1)
            return f"{in_sql}({bound}, {bound}, '[]')"
        case "m", _:
            return f"{in_sql}({value_sql(admin, range_type, -1)})"
        case "c", _:
            return f"NULL::{in_sql}"
        case _, "A":
            return f"ARRAY[{value_sql(admin, element, modifier)}]::{in_sql}"
    if name in VALUES:
        return VALUES[name]
    return sized_value_sql(name, in_sql, category, modifier)


def sized_value_sql(name: str, in_sql: str, category: str, modifier: int) -> str:
    if name in ("bit", "varbit"):
        return f"n::bit({modifier if modifier > 0 else BITS_OF_INT})"
    if name == "numeric" and modifier >= HEADER:
        precision, scale = (modifier - HEADER) >> 16, (((modifier - HEADER) & 0x7FF) ^ 1024) - 1024
        whole = max(precision - scale, 0)
        return f"(n % 1e{min(whole, 9)}::integer)::numeric"
    if category == "N":
        return f"n::numeric::{in_sql}" if name == "money" else f"n::{in_sql}"
    if name in ("varchar", "bpchar") and modifier >= HEADER:
        return f"right(lpad(n::text, 5, '0'), {modifier - HEADER})"
    return f"n::text::{in_sql}"
