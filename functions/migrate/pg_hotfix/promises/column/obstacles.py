"""The tables that ALTER TABLE would refuse to alter, found in the catalog without a lock on any of them.

ALTER TABLE goes down to partitions and inheritance children of any depth. For each of them the role must be the owner,
there must be room for the column, and a column of that name must have the same type. LOCK TABLE checks the rights on
the named table only. Neither needs USAGE on the schemas of the others. Tried on PostgreSQL 14 to 18.

https://www.postgresql.org/docs/current/sql-altertable.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pg_hotfix import errors
from pg_hotfix.listing import NAMED_OBJECTS, first_few
from pg_hotfix.promises.column.catalog import GENERATED, IDENTITY, MISSING, describe_column, worded
from pg_hotfix.promises.column.line import written
from pg_hotfix.quoting import quoted
from pg_hotfix.server.membership import refuse_to_alter
from pg_hotfix.server.session import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.look import Seen
    from pg_hotfix.promises.column.catalog import Column
    from pg_hotfix.server.session import Session

# Dropped columns count, and VACUUM FULL keeps them. https://www.postgresql.org/docs/current/limits.html
MOST_COLUMNS = 1600


@dataclass(frozen=True)
class ChildColumn:
    """A child's own column that has the name of a column which is missing in the expected table; `position` is that of
    the missing one. Its default is left out, because PostgreSQL locks the table to print it."""

    position: int
    type: str
    collation: str | None
    same_type: bool
    not_null: bool
    clause: str | None
    has_default: bool

    @property
    def shown(self) -> str:
        nullability = "not null" if self.not_null else "null"
        return describe_column(self.type, self.collation, nullability, None, self.clause)


@dataclass(frozen=True)
class Member:
    """An expected table, or one that ALTER TABLE reaches from it: then `oid` is not `target`. `names`, `root` (the
    topmost table above a partition) and `row_type` (of a typed table) are schema and name. `attributes` counts the
    columns as PostgreSQL does, with the dropped ones."""

    target: int
    oid: int
    names: list[str]
    owner: str
    owned: bool
    root: list[str] | None
    row_type: list[str] | None
    is_temporary: bool
    attributes: int
    found: list[ChildColumn]

    @property
    def name(self) -> str:
        return name_of(self.names)

    @property
    def in_sql(self) -> str:
        return name_in_sql(self.names)


def refuse_obstacles(session: Session, hotfix: Hotfix, seen: Seen) -> None:
    """The role owns every table that ALTER TABLE reaches. The tables can take the columns that are missing, or lose
    those that are to be dropped. No lock was taken.

    Raises:
        NotOwnerError, RelationError, MismatchError: it does not, or they cannot. Nothing was changed.
    """
    members = read_members(session, seen)
    for oid in dict.fromkeys(column.found.relation_oid for column in seen.columns):
        target, *below = sorted(
            (member for member in members if member.target == oid), key=lambda member: member.oid != oid
        )
        refuse_other_owners(session, target, below)
        undone = [column for column in seen.columns if column.found.relation_oid == oid and is_undone(seen, column)]
        if not undone:
            continue
        if target.root:
            raise errors.partition_named(target.name, name_of(target.root))
        if target.row_type:
            first = undone[0].expectation
            attribute = quoted(first.column)
            change = f"DROP ATTRIBUTE {attribute}" if hotfix.reverting else f"ADD ATTRIBUTE {attribute} {first.type}"
            raise errors.typed_table(target.name, name_of(target.row_type), name_in_sql(target.row_type), change)
        for member in (target, *below):
            if member.is_temporary:
                raise errors.temporary_table(member.name, target.name)
            if not hotfix.reverting:
                refuse_full(target, member, undone)
                refuse_differing_column(hotfix, target, member, seen.columns)


def is_undone(seen: Seen, column: Column) -> bool:
    """Whether it is still to be added, or dropped. One that exists and differs was refused before."""
    return seen.reverting is (column.actual != MISSING)


def refuse_other_owners(session: Session, target: Member, below: Sequence[Member]) -> None:
    """The role owns all tables below. If several others own some, the error names the first of these."""
    others = [member for member in below if not member.owned]
    if others:
        owner = others[0].owner
        owned = [member for member in others if member.owner == owner]
        names = ", ".join(first_few([member.name for member in owned]))
        raise refuse_to_alter(
            session,
            f"{names} below {target.name}",
            [member.in_sql for member in owned[:NAMED_OBJECTS]],
            owner,
        )


def refuse_full(target: Member, member: Member, missing: Sequence[Column]) -> None:
    needed = len(missing) - len(member.found)
    if member.attributes + needed > MOST_COLUMNS:
        name = target.name if member is target else f"{member.name}, which is below {target.name},"
        raise errors.no_room(name, member.attributes, needed, MOST_COLUMNS)


def refuse_differing_column(hotfix: Hotfix, target: Member, member: Member, columns: Sequence[Column]) -> None:
    """No child has a column of that name that differs. PostgreSQL merges such a column with the new one if type and
    collation are the same. It then keeps the child's NULLs (before 18) and how its values are generated, so the rows
    would not be what the file expects. The child's default may differ, as in any child."""
    if any(named.altered and named.name == member.names[1] for named in hotfix.named_tables):
        return  # The file may correct it first.
    for found in member.found:
        expectation = columns[found.position].expectation
        wanted = expectation.generated and re.sub(r"\(.*\)", "(...)", expectation.generated, flags=re.DOTALL)
        if found.same_type and found.clause == wanted and found.not_null >= expectation.not_null:
            continue
        column = {
            "name": f"{member.name}.{written(expectation.column)}",
            "expected": columns[found.position].expected,
            "actual": found.shown,
        }
        name = quoted(expectation.column)
        if found.clause != wanted:
            change = f"RENAME COLUMN {name} TO {quoted(f'{expectation.column}_before')}"
        elif found.same_type:
            change = f"ALTER COLUMN {name} SET NOT NULL"
        else:
            collation = f" COLLATE {expectation.collation}" if expectation.collation else ""
            change = f"ALTER COLUMN {name} TYPE {expectation.type}{collation} USING {name}::{expectation.type}"
            if found.has_default:  # PostgreSQL may not be able to cast it.
                change = f"ALTER COLUMN {name} DROP DEFAULT, {change}"
        line = f"ALTER TABLE {member.in_sql} {change};"
        raise errors.child_differs(hotfix.id, target.name, member.name, column, line)


def read_members(session: Session, seen: Seen) -> list[Member]:
    ((text,),) = session.query_prepared(read_members_sql(seen))
    found: list[dict[str, Any]] = json.loads(text)
    return [Member(**(one | {"found": [ChildColumn(**column) for column in one["found"]]})) for one in found]


def read_members_sql(seen: Seen) -> str:
    """Selects one text: the expected tables, and each table below them that ALTER TABLE may refuse."""
    values = ", ".join(
        f"({position}, {column.found.relation_oid}::oid, {literal(column.expectation.column)}::name,"
        f" {known.oid if known else 0}::oid, {known.modifier if known else -1},"
        f" {literal(column.expectation.collation)}::text, {not seen.reverting and is_undone(seen, column)})"
        for position, (column, known) in enumerate(zip(seen.columns, seen.types, strict=True))
    )
    return f"""
WITH RECURSIVE wanted (position, target, attribute, type, modifier, wanted_collation, missing) AS (VALUES {values}),
tree (target, oid) AS (
    SELECT target, target FROM wanted
    UNION SELECT tree.target, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
)
SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
    'target', target, 'oid', oid, 'names', names, 'owner', owner, 'owned', owned, 'root', root, 'row_type', row_type,
    'is_temporary', is_temporary, 'attributes', attributes, 'found', found) ORDER BY target, oid)::text
FROM (SELECT tree.target::bigint, c.oid::bigint, {names_sql("c.oid")} AS names,
    pg_catalog.pg_get_userbyid(c.relowner) AS owner,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
    CASE WHEN c.relispartition THEN {names_sql("pg_catalog.pg_partition_root(c.oid)")} END AS root,
    (SELECT pg_catalog.json_build_array(n.nspname, t.typname) FROM pg_catalog.pg_type t
        JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = c.reloftype) AS row_type,
    c.relpersistence = 't' AS is_temporary,
    c.relnatts AS attributes,
    (SELECT pg_catalog.count(*) FROM wanted w WHERE w.target = tree.target AND w.missing) AS added,
    (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'position', w.position,
            'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
            'collation', CASE WHEN a.attcollation <> t.typcollation THEN pg_catalog.regexp_replace(
                (pg_catalog.pg_identify_object('pg_catalog.pg_collation'::pg_catalog.regclass, a.attcollation, 0))
                .identity, '^pg_catalog[.]', '') END,
            'same_type', coalesce(a.atttypid = w.type AND a.atttypmod = w.modifier AND a.attcollation = CASE
                WHEN w.wanted_collation IS NULL THEN t.typcollation
                ELSE pg_catalog.to_regcollation(w.wanted_collation)::oid END, false),
            'not_null', a.attnotnull,
            'clause', coalesce({worded("a.attidentity", IDENTITY)},
                'generated always as (...) ' || {worded("a.attgenerated", GENERATED)}),
            'has_default', a.atthasdef AND a.attgenerated = ''
        ) ORDER BY w.position), '[]')
        FROM wanted w
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = w.attribute
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        WHERE w.target = tree.target AND w.missing AND a.attnum > 0 AND NOT a.attisdropped) AS found
    FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid) AS members
WHERE oid = target OR NOT owned OR is_temporary OR attributes + added > {MOST_COLUMNS} OR found::text <> '[]'"""


def names_sql(oid: str) -> str:
    return (
        "(SELECT pg_catalog.json_build_array(n.nspname, r.relname) FROM pg_catalog.pg_class r"
        f" JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = {oid})"
    )


def name_of(names: Sequence[str]) -> str:
    return ".".join(map(written, names))


def name_in_sql(names: Sequence[str]) -> str:
    return ".".join(map(quoted, names))
