"""The database of the incident: `kaviar`, whose `drivers` lacks the column that the application reads."""

import secrets
from dataclasses import dataclass, field

import pg8000.native

from laptop.places import PROJECT
from laptop.postgres import Server

DATABASE = "kaviar"
# The packaged example, which ends it.
HOTFIX = "20260212092000_add_drivers_active_since"
APPLICATION = "kaviar_app"
DRIVER = "f30bc0d9-e7e8-467c-801c-6cf0623d8f0f"
# The statement behind GET /api/admin/drivers/:id.
SELECT_DRIVER = f"SELECT id, name, active_since FROM drivers WHERE id = '{DRIVER}'"  # noqa: S608 - a constant

SCHEMA = PROJECT / "laptop" / "schema.sql"


@dataclass(frozen=True)
class Login:
    """What the application, and the hotfix, log in with."""

    user: str
    password: str = field(repr=False)


def create_incident(server: Server) -> None:
    """`kaviar` is as it was when the incident began, whatever it was before; the application owns its table."""
    with server.connect() as admin:
        admin.run(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        if not admin.run("SELECT FROM pg_roles WHERE rolname = :role", role=APPLICATION):
            admin.run(f"CREATE ROLE {APPLICATION} LOGIN")
        admin.run(f"CREATE DATABASE {DATABASE} OWNER {APPLICATION}")
    with server.connect(DATABASE) as admin:
        # Since PostgreSQL 15 only the owner of the database may create tables in public.
        admin.run(f"SET ROLE {APPLICATION}")
        admin.run(SCHEMA.read_text())


def has_incident(server: Server) -> bool:
    """Returns whether `kaviar` is there, with or without the column."""
    with server.connect() as admin:
        return bool(admin.run("SELECT FROM pg_database WHERE datname = :name", name=DATABASE))


def renew_login(server: Server) -> Login:
    """The application's role has a new random password; no other works any more, and none is kept on disk."""
    login = Login(APPLICATION, secrets.token_urlsafe(24))
    with server.connect() as admin:
        admin.run(f"ALTER ROLE {APPLICATION} PASSWORD {pg8000.native.literal(login.password)}")
    return login
