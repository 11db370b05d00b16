"""Notes: what others should know of a column, in the answers of plan, apply and verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pg8000.exceptions import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

COLUMN = "public.drivers.active_since"
TABLE = '"public"."drivers"'


@pytest.fixture
def api(database: Database) -> Iterator[str]:
    role = f"{database.user}_api"
    database.run(f"CREATE ROLE {role}")
    yield role
    database.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


def notes_of(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.error is None, outcome.text
    notes: list[dict[str, Any]] = outcome.response["notes"]
    return notes


def test_a_role_with_grants_on_other_columns_is_named_before_and_after(
    invoke: Invoke, database: Database, api: str
) -> None:
    database.run(f"GRANT SELECT (id, name), UPDATE (name) ON public.drivers TO {api}")
    note = (
        f"{api} has SELECT and UPDATE on single columns of public.drivers, but not on active_since. PostgreSQL"
        ' refuses its statements that name it (42501). Grant it{}:  GRANT SELECT ("active_since"), UPDATE'
        f' ("active_since") ON {TABLE} TO "{api}";'
    )
    assert notes_of(invoke("plan")) == [{"code": "column_grants", "text": note.format(" after apply")}]
    for action in ("apply", "apply", "plan", "verify"):
        assert notes_of(invoke(action)) == [{"code": "column_grants", "text": note.format("")}]
    database.run_as_owner(note.rpartition(":  ")[2])
    assert notes_of(invoke("verify")) == []


def test_everybody_may_hold_a_grant_on_a_column(invoke: Invoke, database: Database) -> None:
    database.run("GRANT SELECT (id) ON public.drivers TO PUBLIC")
    invoke("apply")
    (note,) = notes_of(invoke("verify"))
    assert note["text"] == (
        "public has SELECT on single columns of public.drivers, but not on active_since. PostgreSQL refuses"
        f' its statements that name it (42501). Grant it:  GRANT SELECT ("active_since") ON {TABLE} TO PUBLIC;'
    )


def test_of_several_columns_those_that_a_role_lacks_are_named(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, api: str
) -> None:
    database.run_as_owner('ALTER TABLE drivers ADD COLUMN a int; ALTER TABLE drivers ADD COLUMN "B" int')
    database.run(f"GRANT INSERT (id, a), SELECT (id) ON public.drivers TO {api}")
    hotfix_id = write_hotfix("SELECT 1;", "public.drivers.a int", 'public.drivers."B" int')
    (note,) = notes_of(invoke("verify", hotfix_id))
    assert note["text"].endswith(
        f'on a or "B". PostgreSQL refuses its statements that name it (42501). Grant it: '
        f' GRANT INSERT ("B"), SELECT ("a", "B") ON {TABLE} TO "{api}";'
    )


@pytest.mark.parametrize(
    "grant",
    [
        "GRANT SELECT ON public.drivers TO {}",
        "GRANT SELECT (id) ON public.drivers TO {0}; GRANT SELECT ON public.drivers TO {0}",
        "GRANT SELECT (id) ON public.drivers TO {0}; GRANT SELECT ON public.drivers TO PUBLIC",
        "GRANT REFERENCES (id) ON public.drivers TO {}",
        "GRANT SELECT (id) ON public.drivers TO {0}; ALTER ROLE {0} SUPERUSER",
    ],
)
def test_a_role_that_can_use_the_column_is_not_named(invoke: Invoke, database: Database, api: str, grant: str) -> None:
    database.run(grant.format(api))
    assert [notes_of(invoke(action)) for action in ("plan", "apply", "verify")] == [[], [], []]


def test_a_trigger_that_takes_whole_rows_is_named_since_every_write_may_fail_from_then_on(
    invoke: Invoke, database: Database
) -> None:
    database.run_as_owner(
        "CREATE TABLE log AS SELECT *, now() AS at FROM drivers;"
        "CREATE FUNCTION whole() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO log VALUES (NEW . *, now()); RETURN NEW; END';"
        "CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM x.* FROM log x; -- NEW.*\n RETURN NEW; END';"
        "CREATE TRIGGER logged BEFORE INSERT ON drivers FOR EACH ROW EXECUTE FUNCTION whole();"
        "CREATE TRIGGER counted BEFORE INSERT ON drivers FOR EACH ROW EXECUTE FUNCTION counted()"
    )
    write = "INSERT INTO drivers (id, name) VALUES (gen_random_uuid(), 'x')"
    database.run_as_owner(write)
    read = "SELECT pg_catalog.pg_get_functiondef('public.whole()'::pg_catalog.regprocedure);"
    for action in ("plan", "apply", "verify"):
        (note,) = notes_of(invoke(action))
        assert note == {
            "code": "trigger_whole_row",
            "text": (
                "The trigger logged on public.drivers calls public.whole(), which uses whole rows (NEW.* or OLD.*):"
                f" with one more column every write to the table may fail. Read it:  {read}"
            ),
        }
    with pytest.raises(DatabaseError, match="more expressions than target columns"):
        database.run_as_owner(write)
    assert "INSERT INTO log" in database.run(read)[0][0]


def test_verify_says_by_whom_the_column_can_be_selected(invoke: Invoke, database: Database) -> None:
    invoke("apply")
    response = invoke("verify").response
    assert response["summary"] == f"{COLUMN} as expected, and can be selected by {database.user}."
    assert response["database"]["user"] == database.user


def test_a_note_that_cannot_be_read_fails_no_run(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, database: Database, api: str
) -> None:
    database.run(f"GRANT SELECT (id) ON public.drivers TO {api}")
    monkeypatch.setattr(
        "pg_hotfix.notes.read_column_grants_sql", lambda columns: "SELECT 'not' || pg_catalog.nothing()"
    )
    outcome = invoke("apply")
    assert (outcome.result, notes_of(outcome)) == ("applied", [])
