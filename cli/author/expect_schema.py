"""The gate's list: the columns that the application expects, from its schema as SQL."""

from pathlib import Path

from cli.author.columns import expect_any, expect_line, list_columns, word_columns
from cli.author.scratch import Scratch, scratch_database, scratch_server
from cli.program import PROGRAM
from laptop.errors import LocalError
from laptop.places import PROJECT, shown
from pg_hotfix.errors import HotfixError
from pg_hotfix.file.hotfix_file import ExpectedSchema, count_columns, parse_schema
from pg_hotfix.gate import compare_schema
from pg_hotfix.promises.column.line import Unreadable

LIST = PROJECT / "sql" / ExpectedSchema.file
# Who reads more than these reads the file's own diff.
SHOWN_CHANGES = 20


def write_list(dump: Path) -> int:
    """sql/schema.expect lists every column of the schema, and what has changed in it was printed. Returns 0.

    Raises: LocalError when the schema can't be loaded or listed; the list stays as it was.
    """
    with scratch_server() as server, scratch_database(server, [], dump) as scratch:
        content = word_list(scratch)
    before = LIST.read_bytes() if LIST.exists() else None
    LIST.write_bytes(content)
    print(describe(content, before))
    return 0


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
        head = f"-- What the application expects: {count_columns(expect_any(names))}. By ./pg-hotfix expect-schema."
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
            f"   {PROGRAM} gate --env prod",
        ]
    )


def read_lines(content: bytes) -> set[str]:
    return {line for line in content.decode(errors="replace").splitlines() if line.startswith("-- expect:")}
