"""The table that every tool alters: `public.drivers` of the incident with many rows, on a PostgreSQL of its own."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pg8000.native

from laptop.incident import DATABASE, Login, create_incident, renew_login
from laptop.places import STATE
from laptop.postgres import Server, running_server

# A vacuum that happens to run would hold a lock of its own in one tool's run and not in another's.
SETTINGS = {"autovacuum": "off", "track_commit_timestamp": "on"}
# As in production: the server holds a lock until its COMMIT is on the disk.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
# Where tools remember what they have applied. psql and pg-hotfix remember nothing.
HISTORIES = ("schema_migrations", "alembic_version", "_yoyo_migration")

FILL = """
INSERT INTO drivers (id, name, email)
SELECT lpad(n::text, 32, '0')::uuid, 'Driver ' || n, 'driver' || n || '@example.com' FROM generate_series(1, :rows) n
"""
# By the server's clock. https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-COMMIT-TIMESTAMP
COLUMN_COMMITTED = """
SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM pg_attribute
WHERE attrelid = 'public.drivers'::regclass AND attname = 'active_since' AND NOT attisdropped
"""


@dataclass(frozen=True)
class Stage:
    """The database, and a directory for what the tools and probes read and write."""

    server: Server
    login: Login
    directory: Path
    rows: int
    admin: pg8000.native.Connection

    def connect(self) -> pg8000.native.Connection:
        """Opens a connection as the application."""
        return self.server.connect(DATABASE, self.login.user, self.login.password)

    def reset(self, *, column: bool) -> None:
        """The column is there, or is not, and no tool remembers having applied anything."""
        change = "ADD COLUMN IF NOT EXISTS active_since timestamptz" if column else "DROP COLUMN IF EXISTS active_since"
        self.admin.run(f"ALTER TABLE public.drivers {change}")
        for history in HISTORIES:
            if self.admin.run("SELECT to_regclass(:history)", history=history) != [[None]]:
                self.admin.run(f"DELETE FROM {history}")  # noqa: S608 - constants

    def column_committed_at(self) -> float | None:
        """Returns when the column's transaction committed, in seconds since the epoch; None when there is none."""
        rows: list[list[Any]] = self.admin.run(COLUMN_COMMITTED)
        return rows[0][0] if rows else None

    def count_sessions(self, application: str) -> int:
        count: int = self.admin.run(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = :application", application=application
        )[0][0]
        return count


@contextlib.contextmanager
def open_stage(directory: Path, rows: int, *, durable: bool = False) -> Iterator[Stage]:
    """Within the block PostgreSQL serves the table with that many rows, without the column. Unless it is durable,
    nobody waits for the disk: its hiccups would pass for stalls."""
    settings = SETTINGS | (DURABLE if durable else {})
    with running_server(STATE / "bench-database", settings=settings) as server:
        create_incident(server)
        login = renew_login(server)
        with server.connect(DATABASE) as admin:
            # Room for the new versions of updated rows, so that the probes' updates cost the same after an hour.
            admin.run("ALTER TABLE drivers SET (fillfactor = 70)")
            admin.run(FILL, rows=rows)
            admin.run("VACUUM ANALYZE drivers")
            yield Stage(server, login, directory, rows, admin)
