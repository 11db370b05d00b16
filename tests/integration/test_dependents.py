"""`revert` leaves nothing behind that needs what it drops, and takes nothing along without a word."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pg8000.native import DatabaseError

import dependents
from tests.integration.test_apply import columns_of
from tests.integration.test_revert import NAME, before_the_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

__all__ = ["before_the_lock"]

RATING = "public.drivers.rating"
DROP = "ALTER TABLE drivers DROP COLUMN IF EXISTS rating;"
ADD = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint;"
FORCE = {"force": True, "reason": "INC-4712"}
FORCE_LINE = (
    "To drop it all the same, with whatever it holds, for good:  "
    f'{{"hotfix": "{NAME}", "action": "revert", "force": true, "reason": "<why it may go>"}}'
)
STAYS = (
    f"What needs {RATING} would stay behind, so {NAME} was not reverted: PostgreSQL would refuse to drop it, or writes"
    " to its table would fail. Nothing was changed.\n"
)
MIGRATE = "Change or drop them by a migration, then revert again.\nForce does not get past this."
LOST = f"More than {RATING} would be lost, so {NAME} was not reverted. Nothing was changed.\n"
NOTE = """CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.rating := 1; RETURN NEW; END $$;"""
TRIGGER = "CREATE OR REPLACE TRIGGER noting BEFORE UPDATE ON drivers FOR EACH ROW EXECUTE FUNCTION note();"


@pytest.fixture
def applied(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> Callable[..., str]:
    """A hotfix that adds `rating`, and does `more`, is applied to a table of three rows. Returns its id."""

    def apply(more: str = "", back: str = DROP, column: str = "smallint", expected: str | None = None) -> str:
        lines = "".join(f"-- revert: {line}\n" for line in back.splitlines())
        add = ADD.replace("smallint", column)
        hotfix_id = write_hotfix(f"{lines}{add}\n{more}", f"{RATING} {expected or column}")
        database.run_as_owner("INSERT INTO drivers (id, name) SELECT gen_random_uuid(), 'x' FROM generate_series(1, 3)")
        outcome = invoke("apply", hotfix_id)
        assert outcome.result in ("applied", "already_applied"), outcome.text
        return hotfix_id

    return apply


def has_rating(database: Database) -> bool:
    return "rating" in columns_of(database)


def write_a_row(database: Database) -> None:
    database.run_as_owner("INSERT INTO drivers (id, name) VALUES (gen_random_uuid(), 'y')")
    database.run_as_owner("UPDATE drivers SET name = 'z'")
    database.run_as_owner("DELETE FROM drivers WHERE name = 'z'")


# What stays behind


@pytest.mark.parametrize("fields", [{}, FORCE], ids=["", "with force"])
def test_a_trigger_whose_function_needs_the_column_is_not_left_behind(
    invoke: Invoke, applied: Callable[..., str], database: Database, fields: dict[str, Any]
) -> None:
    outcome = invoke("revert", applied(f"{NOTE}\n{TRIGGER}"), **fields)
    assert outcome.error_name == "RevertRefusedError"
    assert outcome.text == (
        f"{STAYS}  trigger noting on public.drivers, whose function public.note() names the column\n"
        f"Let sql/{NAME}.sql drop what it makes before the column, have it reviewed, and deploy:\n"
        "  -- revert: DROP TRIGGER IF EXISTS noting on public.drivers;\n"
        "  -- revert: DROP FUNCTION IF EXISTS public.note();\n"
        "Force does not get past this."
    )
    assert has_rating(database)
    write_a_row(database)


def test_the_way_back_that_is_advised_is_accepted_and_leaves_nothing(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    more = f"{NOTE}\n{TRIGGER}\nCREATE OR REPLACE VIEW ratings AS SELECT rating FROM drivers;"
    refused = invoke("revert", applied(more))
    (_, *lines) = refused.text.split("  -- revert: ")
    back = "\n".join(line.splitlines()[0] for line in lines)
    assert back.splitlines() == [
        "DROP TRIGGER IF EXISTS noting on public.drivers;",
        "DROP VIEW IF EXISTS public.ratings;",
        "DROP FUNCTION IF EXISTS public.note();",
    ]
    hotfix_id = applied(more, f"{back}\n{DROP}")
    outcome = invoke("revert", hotfix_id)
    assert outcome.result == "reverted", outcome.text
    assert outcome.response["notes"] == []
    assert database.run("SELECT count(*) FROM pg_proc WHERE proname = 'note'") == [[0]]
    write_a_row(database)
    assert invoke("apply", hotfix_id).result == "applied"


# PostgreSQL refuses to drop a column under the most of these, and says so only once it holds the lock.
STAYING = {
    "a view": ("CREATE VIEW ratings AS SELECT rating FROM drivers", ["view public.ratings"]),
    "a view on a view": (
        "CREATE VIEW ratings AS SELECT rating FROM drivers; CREATE VIEW best AS SELECT * FROM ratings",
        ["view public.ratings", "view public.best"],
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW ratings AS SELECT rating FROM drivers",
        ["materialized view public.ratings"],
    ),
    "a policy": ("CREATE POLICY best ON drivers USING (rating > 3)", ["policy best on public.drivers"]),
    "a policy of another table": (
        "CREATE TABLE other (id uuid);"
        "CREATE POLICY best ON other USING (id IN (SELECT d.id FROM drivers d WHERE d.rating > 3))",
        ["policy best on public.other"],
    ),
    "a rule": (
        "CREATE RULE noting AS ON UPDATE TO drivers WHERE NEW.rating > 9 DO NOTHING",
        ["rule noting on public.drivers"],
    ),
    "a generated column": (
        "ALTER TABLE drivers ADD twice int GENERATED ALWAYS AS (rating * 2) STORED",
        ["column public.drivers.twice"],
    ),
    "UPDATE OF": (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER noting BEFORE UPDATE OF rating ON drivers FOR EACH ROW EXECUTE FUNCTION f()",
        ["trigger noting on public.drivers"],
    ),
    "WHEN": (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER noting BEFORE UPDATE ON drivers FOR EACH ROW WHEN (NEW.rating > 3) EXECUTE FUNCTION f()",
        ["trigger noting on public.drivers"],
    ),
    "a body of standard SQL": (
        "CREATE FUNCTION best() RETURNS bigint LANGUAGE sql"
        " BEGIN ATOMIC SELECT count(*) FROM drivers WHERE rating > 3; END",
        ["function public.best()"],
    ),
    "a key of another table": (
        "ALTER TABLE drivers ADD CONSTRAINT one UNIQUE (rating);"
        "CREATE TABLE other (rating smallint CONSTRAINT to_one REFERENCES drivers (rating))",
        ["constraint to_one on public.other"],
    ),
    "a trigger that is given the column": (
        "ALTER TABLE drivers ADD words tsvector;"
        "CREATE TRIGGER words BEFORE INSERT OR UPDATE ON drivers FOR EACH ROW"
        " EXECUTE FUNCTION tsvector_update_trigger(words, 'pg_catalog.english', name, rating)",
        ["trigger words on public.drivers, which is given the name of the column"],
    ),
    "a trigger that updates the table": (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN UPDATE drivers SET rating = 0 WHERE id = NEW.id AND rating = 1; RETURN NULL; END';"
        "CREATE TRIGGER noting AFTER INSERT ON drivers FOR EACH ROW EXECUTE FUNCTION f()",
        ["trigger noting on public.drivers, whose function public.f() names the column"],
    ),
    "a trigger that puts its SQL together": (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN EXECUTE 'SELECT $1.' || '\"x\"' || '' || $q$, $1.RATING$q$ USING NEW; RETURN NULL; END$$;"
        "CREATE TRIGGER noting AFTER DELETE ON drivers FOR EACH ROW EXECUTE FUNCTION f()",
        ["trigger noting on public.drivers, whose function public.f() names the column"],
    ),
    "a trigger that is disabled": (
        f"{NOTE} {TRIGGER} ALTER TABLE drivers DISABLE TRIGGER noting",
        ["trigger noting on public.drivers, whose function public.note() names the column"],
    ),
}


@pytest.mark.parametrize("kind", STAYING)
def test_what_needs_the_column_is_named_before_any_lock(
    invoke: Invoke, applied: Callable[..., str], database: Database, kind: str
) -> None:
    made, named = STAYING[kind]
    hotfix_id = applied()
    database.run_as_owner(made)
    with database.connect() as other:
        other.run("BEGIN; LOCK TABLE drivers IN ROW EXCLUSIVE MODE")  # Whoever asked for the lock would not get it.
        outcome = invoke("revert", hotfix_id, **FORCE)
    assert outcome.error_name == "RevertRefusedError", outcome.text
    lines = "".join(f"  {line}\n" for line in named or [])
    assert outcome.text == f"{STAYS}{lines}{MIGRATE}"
    assert has_rating(database)


def test_the_index_without_which_a_published_table_refuses_updates_is_named(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied(column="smallint not null default 0")
    database.run_as_owner(
        "CREATE UNIQUE INDEX own ON drivers (rating, id); ALTER TABLE drivers REPLICA IDENTITY USING INDEX own"
    )
    outcome = invoke("revert", hotfix_id, **FORCE)
    assert outcome.text == f"{STAYS}  replica identity of public.drivers\n{MIGRATE}"
