"""`make gate`: writes the list of the columns that the application expects, from the schema as SQL."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from local.columns import expect_any, expect_line, list_columns, word_columns
from local.errors import LocalError
from local.places import PROJECT, shown
from local.scratch import Scratch, scratch_database, scratch_server
from pg_hotfix.errors import HotfixError
from pg_hotfix.file.hotfix_file import ExpectedSchema, count_columns, parse_schema
from pg_hotfix.gate import compare_schema
from pg_hotfix.promises.column.line import Unreadable

LIST = PROJECT / "sql" / ExpectedSchema.file
# Who reads more than these reads the file's own diff.
SHOWN_CHANGES = 20
USAGE = """\
SCHEMA is missing:  make gate SCHEMA=schema.sql
It is the schema that the application expects, as SQL; one of these writes it:
  npx prisma migrate diff --from-empty --to-schema prisma/schema.prisma --script > schema.sql
  pg_dump --schema-only --no-owner --no-privileges > schema.sql"""


def main(environment: Mapping[str, str]) -> int:
    schema = environment.get("SCHEMA", "")
    try:
        if not schema:
            raise LocalError(USAGE)
        with scratch_server() as server, scratch_database(server, [], find_file(schema)) as scratch:
            content = word_list(scratch)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    before = LIST.read_bytes() if LIST.exists() else None
    LIST.write_bytes(content)
    print(describe(content, before))
    return 0


def find_file(schema: str) -> Path:
    path = Path(schema)
    if not path.is_file():
        raise LocalError(f"There is no file {path}. {USAGE.partition('\n')[2]}")
    return path


def word_list(scratch: Scratch) -> bytes:
    """The list of all columns of the database, which the function's own gate has passed against that database. The same
    schema gives the same bytes.

    Raises: LocalError when there is none, or one that no expect line can hold.
    """
    names = list_columns(scratch)
    if not names:
        raise LocalError(f"{shown(scratch.schema)} makes no table with a column, so there is nothing to expect.")
    with scratch.open_session() as session:
        words = word_columns(session, names)
        head = f"-- What the application expects: {count_columns(expect_any(names))}. Written by make gate."
        lines = [head, *(expect_line(name, worded) for name, worded in words.items()), ""]
        content = "\n".join(lines).encode()
        try:
            compare_schema(session, parse_schema(content))
        except Unreadable as error:
            raise LocalError(
                f"{shown(scratch.schema)} has a column that no expect line can hold: {error.what}. {error.advice}"
            ) from None
        except HotfixError as error:
            raise LocalError(f"The list does not match the database that it was read from. {error}") from error
    return content


def describe(content: bytes, before: bytes | None) -> str:
    """What the list holds now, what has changed since `before`, and what to do next."""
    new, old = read_lines(content), read_lines(before or b"")
    # The lines of a column that has changed stand together.
    changed = [(line, "-") for line in old - new] + [(line, "+") for line in new - old]
    changes = [f"   {sign} {line.removeprefix('-- expect: column ')}" for line, sign in sorted(changed)]
    changes = [] if before is None else changes or ["   nothing has changed"]
    more = len(changes) - SHOWN_CHANGES
    return "\n".join(
        [
            f"{shown(LIST)}: {count_columns(parse_schema(content).expectations)}",
            *changes[:SHOWN_CHANGES],
            *([f"   and {more} more"] if more > 0 else []),
            "Next: a review, a deploy, and then, before each deploy of the application,",
            "   make hotfix ENV=prod ACTION=gate",
        ]
    )


def read_lines(content: bytes) -> set[str]:
    return {line for line in content.decode(errors="replace").splitlines() if line.startswith("-- expect:")}


if __name__ == "__main__":
    sys.exit(main(os.environ))
