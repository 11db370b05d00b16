"""The line that a NotOwnerError advises works: an administrator runs it, and the next plan passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import HOTFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]

pytestmark = pytest.mark.long_too

SINCE_16 = 'GRANT "{owner}" TO "{user}" WITH INHERIT TRUE;'
BOTH = 'GRANT "{owner}" TO "{user}"; ALTER ROLE "{user}" INHERIT;'
GRANT, INHERIT = 'GRANT "{owner}" TO "{user}";', 'ALTER ROLE "{user}" INHERIT;'
# What is granted before, whether that makes a member, and the line up to PostgreSQL 15.
CASES = {
    "a stranger": ("", False, GRANT),
    "a stranger that inherits nothing": ("ALTER ROLE {user} NOINHERIT", False, BOTH),
    "a member that inherits nothing": ("ALTER ROLE {user} NOINHERIT; GRANT {owner} TO {user}", True, INHERIT),
    "an administrator of the owner": (
        "ALTER ROLE {user} NOINHERIT; GRANT {owner} TO {user} WITH ADMIN OPTION",
        True,
        INHERIT,
    ),
    "through a group that inherits nothing": (
        "ALTER ROLE {group} NOINHERIT; GRANT {owner} TO {group}; GRANT {group} TO {user}",
        True,
        GRANT,
    ),
    "through a group, and inherits nothing": (
        "GRANT {owner} TO {group}; ALTER ROLE {user} NOINHERIT; GRANT {group} TO {user}",
        True,
        BOTH,
    ),
}
CASES_SINCE_16 = {
    "inherits nothing of this one": ("GRANT {owner} TO {user} WITH INHERIT FALSE", True),
    "may only SET ROLE": ("GRANT {owner} TO {user} WITH INHERIT FALSE, SET TRUE, ADMIN FALSE", True),
    "may only grant it": ("GRANT {owner} TO {user} WITH INHERIT FALSE, SET FALSE, ADMIN TRUE", True),
    "a group inherits nothing of it": ("GRANT {owner} TO {group} WITH INHERIT FALSE; GRANT {group} TO {user}", True),
}


@pytest.fixture
def names(database: Database) -> Iterator[dict[str, str]]:
    """Roles beside our own; the owner has the table."""
    names = {"user": database.user, "owner": f"{database.user}_owner", "group": f"{database.user}_group"}
    database.run(
        "CREATE ROLE {owner}; CREATE ROLE {group}; ALTER TABLE public.drivers OWNER TO {owner}".format(**names)
    )
    yield names
    database.run("DROP OWNED BY {owner}, {group}; DROP ROLE {owner}, {group}".format(**names))


def is_since_16(database: Database) -> bool:
    return database.run("SELECT current_setting('server_version_num')::int >= 160000") == [[True]]


def not_owner(names: dict[str, str], line: str, *, is_member: bool) -> str:
    though = "; {user} is a member of {owner}, but does not inherit its rights" if is_member else ""
    return (
        "{user} does not own public.drivers: {owner} does, and ALTER TABLE needs the owner's rights" + though + "."
        " Nothing was changed. As an administrator, give the role these rights:  " + line
    ).format(**names)


@pytest.mark.parametrize(("granted", "is_member", "line"), CASES.values(), ids=CASES)
def test_the_advised_line_makes_the_plan_pass(
    invoke: Invoke, database: Database, names: dict[str, str], granted: str, is_member: bool, line: str
) -> None:
    database.run(granted.format(**names))
    refused = invoke("plan", HOTFIX)
    assert refused.error_name == "NotOwnerError"
    line = SINCE_16 if is_since_16(database) else line
    assert refused.text == not_owner(names, line, is_member=is_member)
    database.run(refused.text.rpartition("  ")[2])
    assert invoke("plan", HOTFIX).result == "would_apply"


@pytest.mark.parametrize(("granted", "is_member"), CASES_SINCE_16.values(), ids=CASES_SINCE_16)
def test_the_advised_line_makes_the_plan_pass_since_16(
    invoke: Invoke, database: Database, names: dict[str, str], granted: str, is_member: bool
) -> None:
    if not is_since_16(database):
        pytest.skip("up to PostgreSQL 15 a membership has no options of its own")
    test_the_advised_line_makes_the_plan_pass(invoke, database, names, granted, is_member, SINCE_16)


def test_an_owner_that_is_a_member_of_our_role_gives_the_table_away(
    invoke: Invoke, database: Database, names: dict[str, str]
) -> None:
    database.run("GRANT {user} TO {owner}".format(**names))
    gives_the_table_away(invoke, database, names, "is itself a member of {user}".format(**names))


def test_an_owner_that_administers_rds_gives_the_table_away(
    invoke: Invoke, database: Database, names: dict[str, str]
) -> None:
    database.run("CREATE ROLE rds_superuser; GRANT rds_superuser TO {owner}".format(**names))
    try:
        gives_the_table_away(invoke, database, names, "is an administrator")
    finally:
        database.run("DROP ROLE rds_superuser")


def gives_the_table_away(invoke: Invoke, database: Database, names: dict[str, str], why: str) -> None:
    refused = invoke("plan", HOTFIX)
    assert refused.error_name == "NotOwnerError"
    assert refused.text == (
        "{user} does not own public.drivers: {owner} does, which {why}, and ALTER TABLE needs the owner's rights."
        " Nothing was changed. Give the table to a role of the application: "
        ' ALTER TABLE "public"."drivers" OWNER TO "{user}";'
    ).format(**names, why=why)
    database.run(refused.text.rpartition("  ")[2])
    assert invoke("plan", HOTFIX).result == "would_apply"


@pytest.mark.parametrize("inherits", ["INHERIT", "NOINHERIT"])
def test_the_line_that_shows_what_blockers_do_shows_it(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch, inherits: str
) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    database.run(f"ALTER ROLE {database.user} {inherits}")
    with database.connect() as other:
        other.run("BEGIN; SELECT FROM public.drivers")
        hidden = invoke("apply", HOTFIX)
        assert hidden.line["blockers"][0]["state"] is None
        database.run(hidden.text.rpartition("since when:  ")[2])
        assert invoke("apply", HOTFIX).line["blockers"][0]["state"] == "idle in transaction"
