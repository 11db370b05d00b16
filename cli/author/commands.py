"""The commands of whoever writes hotfixes. Each brings the embedded PostgreSQL, so it needs Linux."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.author.laptop import enter_laptop, is_in_laptop
from cli.operate.commands import hotfix_id
from laptop.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable

EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
schema = click.option(
    "--schema", type=EXISTING, metavar="FILE", help="The tables, as SQL. Default: those of laptop/schema.sql."
)


def on_laptop(command: Callable[..., int]) -> Callable[..., int]:
    """The command runs with every package that a laptop needs, and sees no AWS credentials."""

    @functools.wraps(command)
    def run(**typed: Any) -> int:
        if not is_in_laptop():
            enter_laptop()
        from pg_hotfix.errors import HotfixError

        try:
            return command(**typed)
        except HotfixError as error:
            raise LocalError(str(error)) from error

    return run


@click.command(short_help="Write the next hotfix from its SQL, and prove it.")
@click.argument("name")
@click.option("--sql", required=True, metavar="SQL", help="The statements, or @FILE.")
@click.option("--reason", default="", metavar="TEXT", help="The comment at the head of the file, in one line.")
@click.option("--allow", default="", metavar="'RULE REASON'", help="Why a rewrite or a scan does no harm here.")
@schema
@on_laptop
def new(**typed: Any) -> int:
    """Write sql/<time>_NAME.sql: the SQL with the expect and revert lines that it needs, proved on a filled table."""
    from cli.author.new import write_new

    return write_new(**typed)


@click.command(short_help="Prove hotfix files on filled tables; default: all of sql/.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@schema
@on_laptop
def prove(**typed: Any) -> int:
    """Run each FILE on a fresh database with filled tables: does it make what it promises, rewrite or scan a table, run
    twice, and can it be undone? Without a FILE all of sql/ are proved."""
    from cli.author.prove import prove_files

    return prove_files(**typed)


@click.command(short_help="Write the gate's list from the schema that the application expects.")
@click.argument("dump", type=EXISTING, metavar="DUMP")
@on_laptop
def expect_schema(dump: Path) -> int:
    """Write sql/schema.expect: every column that the application expects.

    DUMP is that schema as SQL. One of these writes it:

    \b
      npx prisma migrate diff --from-empty --to-schema prisma/schema.prisma --script > dump.sql
      pg_dump --schema-only --no-owner --no-privileges > dump.sql
    """
    from cli.author.expect_schema import write_list

    return write_list(dump)


@click.command(short_help="Write a hotfix as a migration of the application's own tool.")
@hotfix_id
@click.option(
    "--to", "folder", required=True, type=click.Path(file_okay=False, exists=True, path_type=Path), metavar="DIR"
)
@click.option(
    *("--format", "form"),
    default="prisma",
    show_default=True,
    type=click.Choice(["prisma", "flyway", "alembic", "dbmate", "django"]),
)
@click.option("--after", metavar="MIGRATION", help="Alembic, Django: what goes before, unless it is the last of DIR.")
@click.option("--app", metavar="NAME", help="Django: the app, unless the folder above DIR is called so.")
@schema
@on_laptop
def formalize(**typed: Any) -> int:
    """Write the hotfix ID into DIR as a migration that changes nothing where the hotfix was applied.

    For Prisma the lines for schema.prisma are printed as well.
    """
    from cli.author.formalize import write_migration

    return write_migration(**typed)


@click.command(short_help="Invoke the built function once against the embedded database.")
@click.argument("event", type=EXISTING, metavar="EVENT")
@on_laptop
def invoke(event: Path) -> int:
    """Invoke the built function once against the embedded database, with a JSON file such as events/plan.json."""
    from cli.author.invoke import invoke_function

    return invoke_function(event)


@click.command(short_help="Open psql on the embedded database.")
@on_laptop
def psql() -> int:
    """Open psql on the embedded database, which is as the last command left it."""
    from cli.author.invoke import open_psql

    return open_psql()


@click.command(short_help="Tell the incident and its fix on an embedded PostgreSQL.")
@on_laptop
def demo() -> int:
    """Tell the incident and its fix by doing it: the real function on a real PostgreSQL, nothing of AWS."""
    from cli.author.demo import tell_story

    tell_story()
    return 0


@click.command(short_help="Serve the dashboard's button on a page of this machine.")
@click.option(
    "--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0 takes any that is free."
)
@on_laptop
def dashboard(port: int) -> int:
    """Serve the dashboard's button on a page of this machine, with the state machine and the function behind it."""
    from laptop.dashboard import serve_until_interrupted

    return serve_until_interrupted(port)


COMMANDS = (new, prove, expect_schema, formalize, invoke, psql, demo, dashboard)
