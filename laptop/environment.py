"""Everything that one invocation on a laptop needs, put together: database, secret and function."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from laptop.aws import fake_aws
from laptop.build import build_if_changed
from laptop.emulator import EmulatedFunction, emulated_function
from laptop.incident import DATABASE, Login, create_incident, has_incident, renew_login
from laptop.places import PROJECT, STATE
from laptop.postgres import Server, running_server
from laptop.psql import psql_command, psql_environment

SECRET_NAME = "kaviar/database"  # noqa: S105 - a name, no secret
# Of samconfig.toml's default environment.
STACK_NAME = "pg-hotfix-dev"


@dataclass(frozen=True)
class Laptop:
    server: Server
    login: Login
    function: EmulatedFunction


@contextlib.contextmanager
def running_database(*, fresh: bool = False) -> Iterator[tuple[Server, Login]]:
    """Within the block PostgreSQL serves `kaviar`: as the last command left it, or `fresh`, as the incident began."""
    with running_server(STATE / "database") as server:
        if fresh or not has_incident(server):
            create_incident(server)
        yield server, renew_login(server)


@contextlib.contextmanager
def running_laptop(*, fresh: bool = False) -> Iterator[Laptop]:
    """Within the block the built function can be invoked against the laptop's PostgreSQL."""
    build_if_changed()
    with running_database(fresh=fresh) as (server, login), fake_aws() as aws:
        secret_arn = aws.put_secret(SECRET_NAME, write_secret(server, login))
        with emulated_function(local_environment(server.ca_bundle, secret_arn, aws.endpoint_url)) as function:
            yield Laptop(server, login, function)


def write_secret(server: Server, login: Login, database: str = DATABASE) -> str:
    """Returns the secret's value as RDS writes it."""
    return json.dumps(
        {
            "engine": "postgres",
            "username": login.user,
            "password": login.password,
            "host": server.host,
            "port": server.port,
            "dbname": database,
        }
    )


def local_environment(ca_bundle: Path, secret_arn: str, endpoint_url: str) -> dict[str, str]:
    """Returns the variables of the function that stand for what only a deployed stack has."""
    return {
        "DB_SECRET_ARN": secret_arn,
        "STACK_NAME": STACK_NAME,
        "DB_CA_BUNDLE": str(ca_bundle),
        "SQL_DIR": str(PROJECT / "sql"),
        "AWS_ENDPOINT_URL": endpoint_url,
    }


def describe_table(server: Server, login: Login, table: str) -> str:
    """Returns what psql's `\\d` shows of the table."""
    command = psql_command("--no-psqlrc", "--command", f"\\d {table}")
    result = subprocess.run(command, env=psql_environment(server, login), capture_output=True, text=True, check=True)
    return result.stdout.rstrip()
