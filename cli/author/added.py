"""Which columns some SQL adds, worked out by running it twice on a throw-away database."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pg8000.native

from cli.author.columns import Name, expect_line, find_added, list_columns, word_columns
from cli.author.scratch import DUMP, Scratch, Table, qualified, scratch_database
from laptop.errors import LocalError
from laptop.places import shown
from laptop.postgres import Server
from pg_hotfix.file.hotfix_file import cut_statements, cut_tokens, derive_way_back, find_tables
from pg_hotfix.file.lexer import tokens
from pg_hotfix.promises.column.line import Expectation
from pg_hotfix.server.sqlstates import excerpt

# https://www.postgresql.org/docs/current/errcodes-appendix.html
DUPLICATE_COLUMN = "42701"
NOT_IN_THE_SCHEMA = ("42P01", "42703", "42704", "3F000")
# What follows ADD where no column does, or one with its keyword.
AFTER_ADD = ("COLUMN", "IF", "CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE")
ONCE_ONLY = (
    "Write ADD COLUMN IF NOT EXISTS, CREATE ... IF NOT EXISTS, or a DO block that looks first. What belongs to the"
    " column, such as NOT NULL, can stand in the same clause."
)


@dataclass(frozen=True)
class Added:
    """The columns that the SQL adds, as expect lines and revert lines, and the tables that were made up for it."""

    expect_lines: tuple[str, ...]
    revert_lines: tuple[str, ...]
    stubs: tuple[str, ...]


def find_added_columns(server: Server, sql: str, schema: Path | None) -> Added:
    """What one run of the SQL adds, by the function's own look before and after it. It was run twice.

    Raises: LocalError when PostgreSQL refuses a run, or nothing was added that a hotfix can promise.
    """
    with scratch_database(server, find_altered(sql), schema) as scratch:
        before = look_at_all(scratch)
        if refusal := run_sql(scratch, sql):
            raise LocalError(f"PostgreSQL refuses the SQL: {refusal.text}{advise(refusal, scratch)}")
        after = look_at_all(scratch)
        refuse_changes(before, after)
        names = find_added(before, after)
        if not names:
            raise LocalError(
                f"The SQL adds no column to a table of {shown(scratch.schema)}, so there is nothing to prove. Is the"
                " column there already? Write it as  ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint"
            )
        if refusal := run_sql(scratch, sql):
            form = idempotent_form(sql)
            advice = f"Write\n  {form}" if form != sql and refusal.sqlstate == DUPLICATE_COLUMN else ONCE_ONLY
            raise LocalError(f"The SQL can't run twice: {refusal.text}{advice}")
        with scratch.open_session() as session:
            lines = [expect_line(name, worded) for name, worded in word_columns(session, names).items()]
        way_back = derive_way_back(Expectation(*name, type="") for name in names)
        return Added(tuple(lines), tuple(f"-- revert: {line}" for line in way_back), scratch.stubs)


def find_altered(sql: str) -> list[Table]:
    """The tables that the SQL alters; a bare name is taken for one of `public`."""
    cut = cut_statements(cut_tokens(sql.encode())[1])
    return [(named.schema or "public", named.name) for one in cut for named in find_tables(one) if named.altered]


def look_at_all(scratch: Scratch) -> dict[Name, str]:
    names = list_columns(scratch)
    with scratch.open_session() as session:
        return word_columns(session, names)


def refuse_changes(before: Mapping[Name, str], after: Mapping[Name, str]) -> None:
    changed = [
        f"  {qualified(name[:2])}.{name[2]}  was {worded}, is {after.get(name, 'gone')}"
        for name, worded in before.items()
        if after.get(name) != worded
    ]
    if changed:
        raise LocalError(
            "\n".join(
                ["The SQL changes columns that were there:", *changed, "Leave that to a migration: a hotfix only adds."]
            )
        )


@dataclass(frozen=True)
class Refusal:
    sqlstate: str
    text: str


def run_sql(scratch: Scratch, sql: str) -> Refusal | None:
    """The SQL was run as one transaction by the tables' owner, or refused as a whole."""
    login = scratch.login
    with scratch.server.connect(scratch.name, login.user, login.password) as owner:
        try:
            owner.run(sql)
        except pg8000.native.DatabaseError as error:
            fields = error.args[0]
            where = excerpt(sql, int(fields.get("P", 0)))
            return Refusal(fields["C"], f"{fields['M']}.\n{where}\n" if where else f"{fields['M']}. ")
    return None


def advise(refusal: Refusal, scratch: Scratch) -> str:
    if refusal.sqlstate not in NOT_IN_THE_SCHEMA:
        return "Correct it."
    stubs = " and ".join(scratch.stubs)
    stub = f" It lacks {stubs}, of which a stub with the column id was made." if stubs else ""
    tables = f"--schema schema.sql takes those of production, from  {DUMP} > schema.sql"
    return f"It ran with the tables of {shown(scratch.schema)}.{stub} {tables}"


def idempotent_form(sql: str) -> str:
    """The SQL with IF NOT EXISTS in each ADD COLUMN that lacks it."""
    found = [token for token in tokens(sql) if token.kind not in ("space", "comment")]
    for token, following, third in reversed(list(zip(found, found[1:], found[2:], strict=False))):
        if token.keyword == "ADD" and following.keyword == "COLUMN" and third.keyword != "IF":
            sql = f"{sql[: third.position]}IF NOT EXISTS {sql[third.position :]}"
        elif token.keyword == "ADD" and following.keyword not in AFTER_ADD:
            sql = f"{sql[: following.position]}COLUMN IF NOT EXISTS {sql[following.position :]}"
    return sql
