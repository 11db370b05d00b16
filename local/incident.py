"""The database of the incident: `kaviar`, whose `drivers` lacks the column that the application reads."""

import secrets
from dataclasses import dataclass, field

import pg8000.native

from local.postgres import Server

DATABASE = "kaviar"
APPLICATION = "kaviar_app"
DRIVER = "f30bc0d9-e7e8-467c-801c-6cf0623d8f0f"
# The statement behind GET /api/admin/drivers/:id.
SELECT_DRIVER = f"SELECT id, name, active_since FROM drivers WHERE id = '{DRIVER}'"  # noqa: S608

TABLE = f"""
CREATE TABLE drivers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO drivers (id, name, email) VALUES
    ('{DRIVER}', 'Marina Lopes', 'marina@example.com'),
    ('0b8f9a54-6c1e-4f0e-9f64-2d7c1a0b3e55', 'Caio Prado', 'caio@example.com'),
    ('7d3c2f10-91ab-4c77-8e0d-5a4b6c7d8e9f', 'Rita Alves', 'rita@example.com');
"""  # noqa: S608


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
        admin.run(TABLE)


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
