"""The SQL that gives our role the rights of another one, for this server version and the existing grants.

A member has the rights of a role only by inheritance. That is a property of the member up to PostgreSQL 15, and of each
membership since 16. https://www.postgresql.org/docs/current/role-membership.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.quoting import quoted
from pg_hotfix.server.session import literal, read_as, with_names
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.server.session import Session

# Its members see what other sessions do: https://www.postgresql.org/docs/current/predefined-roles.html
READER_OF_SESSIONS = "pg_read_all_stats"


@dataclass(frozen=True)
class Membership:
    """How our role relates to another: whether ours inherits at all, and is a member, directly or through others. The
    other one may be an administrator, of which no role should be a member, or itself a member of ours."""

    inherits: bool
    is_direct: bool
    is_member: bool
    is_administrator: bool
    is_circular: bool


def refuse_to_alter(session: Session, table: str, tables_in_sql: Sequence[str], owner: str) -> errors.NotOwnerError:
    """The error for a table, or for several tables of one owner, whose rights our role does not have."""
    user = session.facts.user
    found = read_membership(session, owner)
    if found.is_administrator or found.is_circular:
        why = "is an administrator" if found.is_administrator else f"is itself a member of {user}"
        return errors.owned_by_other(table, tables_in_sql, owner, user, why)
    line = line_that_grants(session, owner, found)
    return errors.not_owner(table, owner, user, line, is_member=found.is_member)


def line_that_shows_sessions(session: Session) -> str:
    """The GRANT that lets our role see other sessions; a plain one if the catalog cannot be read."""
    try:
        return line_that_grants(session, READER_OF_SESSIONS, read_membership(session, READER_OF_SESSIONS))
    except (errors.HotfixError, LockNotAvailable):
        return f"GRANT {quoted(READER_OF_SESSIONS)} TO {quoted(session.facts.user)};"


def line_that_grants(session: Session, role: str, found: Membership) -> str:
    user = quoted(session.facts.user)
    grant = f"GRANT {quoted(role)} TO {user}"
    if session.facts.version_number >= 160000:
        return f"{grant} WITH INHERIT TRUE;"
    lines = [] if found.is_direct and not found.inherits else [f"{grant};"]
    return " ".join(lines if found.inherits else [*lines, f"ALTER ROLE {user} INHERIT;"])


def read_membership(session: Session, role: str) -> Membership:
    """On RDS administrators are members of rds_superuser, which is not a superuser."""
    sql = (
        "SELECT own.rolinherit AS inherits, EXISTS (SELECT FROM pg_catalog.pg_auth_members m"
        " WHERE m.roleid = other.oid AND m.member = own.oid) AS is_direct,"
        " pg_catalog.pg_has_role(own.oid, other.oid, 'MEMBER') AS is_member,"
        " other.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'rds_superuser'"
        " AND pg_catalog.pg_has_role(other.oid, r.oid, 'MEMBER'))"
        " AS is_administrator, pg_catalog.pg_has_role(other.oid, own.oid, 'MEMBER') AS is_circular"
        " FROM pg_catalog.pg_roles own, pg_catalog.pg_roles other"
        f" WHERE own.rolname = current_user AND other.rolname = {literal(role)}::pg_catalog.name"
    )
    (found,) = read_as(Membership, session.query(with_names(sql)))
    return found
