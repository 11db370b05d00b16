"""A hotfix as the migration of the application's own tool, and its line for schema.prisma."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from cli.author.columns import drop_expected, tables_of
from cli.author.formats import FORMATS, Migration, Place
from cli.author.prisma import FieldType, describe_fields, identifier
from cli.author.scratch import scratch_database, scratch_server
from laptop.errors import LocalError
from laptop.places import PROJECT
from laptop.postgres import Server
from pg_hotfix.file.hotfix_file import Hotfix, load_hotfix
from pg_hotfix.hotfix import apply


def write_migration(
    hotfix: str, folder: Path, form: str, after: str | None, app: str | None, schema: Path | None
) -> int:
    """The migration is in the folder, and what its tool's users have to know was printed. Returns 0.

    Raises:
        LocalError: other bytes are in its place; nothing was written.
        HotfixError: the file is not there or not right; nothing was written.
    """
    found = load_hotfix(PROJECT / "sql", hotfix)
    migration = FORMATS[form](found, Place(folder, after, app))
    lines = [write(migration, found)]
    if migration.is_prisma:
        with scratch_server() as server:
            lines += describe_in_prisma(server, found, schema)
    print("\n".join([*lines, *migration.notes]))
    return 0


def write(migration: Migration, hotfix: Hotfix) -> str:
    """The file is there, with these bytes, now or before; returns which.

    Raises: LocalError when other bytes are in its place; they stay.
    """
    path, digest = migration.path, hashlib.sha256(migration.content).hexdigest()
    if path.exists() and path.read_bytes() != migration.content:
        raise LocalError(
            f"{path} is there already, with other bytes. Nothing was written. What differs:"
            f"  diff {path} sql/{hotfix.id}.sql\nIf it was never deployed, remove it and run this again."
        )
    if path.exists():
        return f"{path} is there already, with the same bytes (sha256 {digest})."
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(migration.content)
    return f"{path} written, sha256 {digest}."


def describe_in_prisma(server: Server, hotfix: Hotfix, schema: Path | None) -> Iterator[str]:
    """What to paste into schema.prisma, from the catalog of a database in which the hotfix was applied."""
    with scratch_database(server, tables_of(hotfix), schema) as scratch:
        drop_expected(scratch, hotfix)
        with scratch.open_session() as session:
            apply(session, hotfix, scratch.open_session)
            fields = list(describe_fields(session, hotfix))
    for table in dict.fromkeys(expectation.qualified_table for expectation, _, _ in fields):
        yield f"In schema.prisma, in the model of {table}:"
        yield f"  /// Added by the hotfix {hotfix.id}."
        yield from (f"  {line}" for expectation, line, _ in fields if expectation.qualified_table == table)
    for field_type in dict.fromkeys(field_type for _, _, field_type in fields if field_type.labels):
        yield "And, unless it is there:"
        yield from write_enum(field_type)


def write_enum(field_type: FieldType) -> Iterator[str]:
    yield f"  enum {field_type.name} {{"
    for label in field_type.labels:
        name = identifier(label)
        yield f"    {name}" + (f" @map({json.dumps(label, ensure_ascii=False)})" if name != label else "")
    if field_type.database_name != field_type.name:
        yield f"    @@map({json.dumps(field_type.database_name, ensure_ascii=False)})"
    yield "  }"
