"""psql against an embedded PostgreSQL."""

import os
from collections.abc import Sequence
from pathlib import Path

from laptop.binaries import binary_directory
from laptop.incident import DATABASE, Login
from laptop.places import STATE
from laptop.postgres import Server


def psql_command(*arguments: str) -> Sequence[str | Path]:
    return [binary_directory() / "psql", *arguments]


def psql_environment(server: Server, login: Login, database: str = DATABASE) -> dict[str, str]:
    """Returns the environment in which psql logs in, TLS verified, with no password on a command line."""
    return os.environ | {
        "PGHOST": server.host,
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGDATABASE": database,
        "PGUSER": login.user,
        "PGPASSWORD": login.password,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(server.ca_bundle),
        "PSQL_HISTORY": str(STATE / "psql_history"),
    }
