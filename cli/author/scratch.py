"""Throw-away databases on an embedded PostgreSQL, with the tables that a hotfix needs, and the function's own session.

What looks at columns here is the function's own code: the Makefile puts functions/migrate on the PYTHONPATH.
"""

import contextlib
import itertools
import re
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pg8000.native

from laptop.errors import LocalError
from laptop.incident import Login
from laptop.places import PROJECT, STATE, shown
from laptop.postgres import Server, running_server
from laptop.psql import psql_command, psql_environment
from pg_hotfix.promises.column.line import written
from pg_hotfix.quoting import quoted
from pg_hotfix.server.credentials import Target
from pg_hotfix.server.limits import derive_limits
from pg_hotfix.server.session import Session, open_session
from pg_hotfix.settings import Settings

SCHEMA = PROJECT / "laptop" / "schema.sql"
ROLE = "scratch_owner"
# As long as Lambda gives the function.
RUN_MS = 55_000
# Every scan is to be the hotfix's own, and counted where it is looked for.
SETTINGS = {"autovacuum": "off", "max_parallel_workers_per_gather": "0", "max_parallel_maintenance_workers": "0"}
DUMP = "pg_dump --schema-only --no-owner --no-privileges --table=public.drivers"
# Of what is not PostgreSQL's own, but for what the role owns already, or through another role.
OWNERS = """
SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE oid >= 16384
    AND NOT pg_has_role(:role, relowner, 'USAGE')
"""
MISSING_ROLE = re.compile(r'ERROR:  role "((?:[^"]|"")+)" does not exist')

type Table = tuple[str, str]

numbers = itertools.count(1)


@dataclass(frozen=True)
class Scratch:
    """A database that is gone after its block. `login` owns its tables, as the role of the function owns the real ones;
    `stubs` are tables that were made up, since no schema has them."""

    server: Server
    name: str
    login: Login
    schema: Path
    stubs: tuple[str, ...]

    def connect(self) -> pg8000.native.Connection:
        """Opens a connection as the administrator."""
        return self.server.connect(self.name)

    def run(self, sql: str) -> list[list[Any]]:
        with self.connect() as admin:
            return admin.run(sql) or []

    def open_session(self) -> Session:
        """Opens the function's own session, with its limits in force."""
        target = Target(self.server.host, self.server.port, self.name, self.login.user, self.login.password)
        return open_session(target, derive_limits(self.settings, RUN_MS), self.server.ca_bundle)

    @property
    def settings(self) -> Settings:
        return Settings("", None, None, None, self.server.ca_bundle, PROJECT / "sql", 30, 5000)

    def psql(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """psql has run as the tables' owner, and stopped at its first error."""
        return run_psql(self.server, self.name, self.login, *arguments)


@contextlib.contextmanager
def scratch_server(directory: Path = STATE / "scratch") -> Iterator[Server]:
    """Within the block a PostgreSQL runs that `psql`, `demo` and `invoke` do not use."""
    with running_server(directory, settings=SETTINGS) as server:
        yield server


@contextlib.contextmanager
def scratch_database(server: Server, tables: Iterable[Table], schema: Path | None = None) -> Iterator[Scratch]:
    """Within the block there is a database with the tables of `schema`, any SQL that psql can run; or else those of
    laptop/schema.sql, and a stub with the column `id` for each of `tables` that is not among them.

    Raises: LocalError when the schema can't be loaded, or a given one lacks one of the tables.
    """
    name = f"scratch_{next(numbers)}"
    login = renew_role(server)
    path = schema or SCHEMA
    try:
        load_schema(server, name, login, path)
        with server.connect(name) as admin:
            missing = find_missing(admin, tables)
            if schema and missing:
                raise LocalError(explain_missing(admin, missing[0], schema))
        if missing:
            create_stubs(server, name, login, missing)
        yield Scratch(server, name, login, path, tuple(map(qualified, missing)))
    finally:
        with server.connect() as admin:
            admin.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def renew_role(server: Server) -> Login:
    """The role that owns the tables exists, with a new password; no other works any more."""
    login = Login(ROLE, secrets.token_urlsafe(24))
    with server.connect() as admin:
        verb = "ALTER" if admin.run("SELECT FROM pg_roles WHERE rolname = :role", role=ROLE) else "CREATE"
        admin.run(f"{verb} ROLE {ROLE} LOGIN PASSWORD {pg8000.native.literal(login.password)}")
    return login


def load_schema(server: Server, name: str, login: Login, schema: Path) -> None:
    """The database is new and holds the schema; the role owns all of it, or is a member of who does."""
    if not schema.is_file():
        raise LocalError(f"There is no file {schema}. Write the tables into one:  {DUMP} > schema.sql")
    with server.connect() as admin:
        while True:
            admin.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            admin.run(f"CREATE DATABASE {name} OWNER {login.user}")
            # Extensions and the like need a superuser; what it creates is the role's own all the same.
            admin.run(f"ALTER ROLE {login.user} SUPERUSER")
            try:
                result = run_psql(server, name, login, f"--file={schema.resolve()}")
            finally:
                admin.run(f"ALTER ROLE {login.user} NOSUPERUSER")
            if result.returncode == 0:
                break
            # A dump names the owners and readers of its tables, whom only the dumped server knows.
            role = MISSING_ROLE.search(result.stderr)
            if role is None:
                raise LocalError(
                    f"{shown(schema)} can't be loaded: {first_error(result.stderr)}\n"
                    f"Take out what the columns of its tables do not need. One table alone:  {DUMP} > schema.sql"
                )
            admin.run(f"CREATE ROLE {quoted(role[1].replace('""', '"'))}")
    with server.connect(name) as admin:
        for (owner,) in admin.run(OWNERS, role=login.user):
            admin.run(f"GRANT {quoted(owner)} TO {login.user}")


def run_psql(server: Server, name: str, login: Login, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = psql_command("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", *arguments)
    environment = psql_environment(server, login, name) | {"PGOPTIONS": "-c client_min_messages=warning"}
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def first_error(stderr: str) -> str:
    """What psql said first, without the path that it puts before the line's number."""
    lines = stderr.strip().splitlines() or ["psql ended without a word"]
    return re.sub(r"^psql:.*?:(\d+): ", r"line \1, ", lines[0])


def find_missing(admin: pg8000.native.Connection, tables: Iterable[Table]) -> list[Table]:
    found = {(schema, name) for schema, name in admin.run("SELECT schemaname, tablename FROM pg_tables")}
    return [table for table in dict.fromkeys(tables) if table not in found]


def explain_missing(admin: pg8000.native.Connection, table: Table, schema: Path) -> str:
    similar = admin.run(
        "SELECT schemaname, tablename FROM pg_tables WHERE lower(tablename) = lower(:name) ORDER BY 1, 2", name=table[1]
    )
    there = "".join(f" It has {qualified((schema_name, name))}." for schema_name, name in similar)
    return (
        f"{shown(schema)} has no table {qualified(table)}.{there} Name the table as it has it, or dump the right one."
    )


def create_stubs(server: Server, name: str, login: Login, tables: Sequence[Table]) -> None:
    with server.connect(name, login.user, login.password) as owner:
        for schema, table in tables:
            owner.run(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
            owner.run(f"CREATE TABLE {quoted(schema)}.{quoted(table)} (id bigint PRIMARY KEY)")


def qualified(table: Table) -> str:
    return f"{written(table[0])}.{written(table[1])}"
