"""`revert`: the way back of a reviewed file, for real, and every way in which it must not lose a row's data."""

from __future__ import annotations

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from pg8000.native import Connection

from pg_hotfix import errors, hotfix
from pg_hotfix.change import lock_wait, unused
from pg_hotfix.request import parse_request
from pg_hotfix.server import session as database_module
from pg_hotfix.settings import read_settings
from tests.conftest import HOTFIX, grant, meanwhile, until
from tests.integration.aftermath import somebody_reading
from tests.integration.change.test_apply import columns_of, end_session_after_commit, until_it_sleeps, when_it_sleeps
from tests.integration.change.test_locks import holding, timeless, watching_the_queue
from tests.integration.history.test_prisma import CREATE, PrismaHistory

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

NAME = "20260301101500_change_something"
RATING = "public.drivers.rating"
DROP = 'ALTER TABLE "drivers" DROP COLUMN IF EXISTS "rating";'
ASK = "Ask the owner of the data before you drop it."
IN_USE = (
    f"{RATING} is in use: at least one row no longer holds what the column was added with, so {NAME} was not reverted."
    f" Nothing was changed. {ASK}"
)
UNTOLD = (
    f"Cannot tell whether {RATING} is in use, so {NAME} was not reverted: the table has rows, and PostgreSQL no"
    " longer knows what it gave them when the column was added (a volatile default, an identity, or the table was"
    f" rewritten since). Nothing was changed. {ASK}"
)
ADD_ROWS = "INSERT INTO drivers (id, name) SELECT gen_random_uuid(), 'Ana Confidential' FROM generate_series(1, 3)"


@pytest.fixture
def package(write_hotfix: WriteHotfix) -> Callable[..., str]:
    """Packages a hotfix that adds `rating`, with its way back. Returns its id."""

    def package(column: str = "smallint", expected: str | None = None, revert: str = DROP, **names: str) -> str:
        lines = "".join(f"-- revert: {line}\n" for line in revert.splitlines())
        return write_hotfix(
            f"{lines}ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating {column};",
            f"{RATING} {column if expected is None else expected}",
            **names,
        )

    return package


@pytest.fixture
def applied(invoke: Invoke, package: Callable[..., str], database: Database) -> Callable[..., str]:
    """Three rows are there before a hotfix adds `rating`. Returns its id."""

    def apply(*arguments: str, **options: str) -> str:
        hotfix_id = package(*arguments, **options)
        database.run_as_owner(ADD_ROWS)
        outcome = invoke("apply", hotfix_id)
        assert outcome.result == "applied", outcome.text
        return hotfix_id

    return apply


def revert(invoke: Invoke, hotfix_id: str, **fields: Any) -> Outcome:
    outcome = invoke("revert", hotfix_id, **fields)
    assert "Confidential" not in outcome.text + str(outcome.logs)
    return outcome


def has_rating(database: Database) -> bool:
    return "rating" in columns_of(database)


# What it does


def test_an_unused_column_is_dropped_and_proved_gone(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    outcome = revert(invoke, hotfix_id, reason="INC-4712", requested_by="ana")
    assert outcome.error is None, outcome.text
    response = outcome.response
    held_ms = response["lock_held_ms"]
    assert 0 < held_ms <= outcome.line["duration_ms"]
    assert response["summary"] == f"{RATING} dropped, committed and proved gone; the lock was held for {held_ms} ms."
    assert response["objects"] == [
        {
            "kind": "column",
            "step": 1,
            "schema": "public",
            "table": "drivers",
            "column": "rating",
            "name": RATING,
            "expected": "smallint null",
            "actual": "missing",
            "matches": False,
            "changed": True,
        }
    ]
    words = {key: response[key] for key in ("action", "result", "attempts", "sql", "revert", "reason", "blockers")}
    assert words == {
        "action": "revert",
        "result": "reverted",
        "attempts": 1,
        "sql": DROP,
        "revert": DROP,
        "reason": "INC-4712",
        "blockers": [],
    }
    assert (outcome.metric("Reverted"), outcome.metric("Applied")) == (1, None)
    assert outcome.metric("LockHeldMs") == held_ms
    assert columns_of(database) == ["id", "name"]


def test_a_second_revert_takes_no_lock_and_runs_nothing(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    revert(invoke, hotfix_id)
    with database.connect() as other:
        other.run("BEGIN; LOCK TABLE public.drivers IN ACCESS EXCLUSIVE MODE")
        outcome = revert(invoke, hotfix_id)
    assert (outcome.result, outcome.response["attempts"]) == ("already_reverted", 0)
    assert outcome.response["summary"] == f"{RATING} already missing; nothing was run."
    assert (outcome.response["sql"], outcome.metric("Reverted")) == (None, None)
    assert [column["changed"] for column in outcome.response["objects"]] == [False]


def test_what_was_reverted_can_be_applied_again(invoke: Invoke, applied: Callable[..., str]) -> None:
    hotfix_id = applied()
    assert [invoke(action, hotfix_id).result for action in ("revert", "apply", "verify", "revert")] == [
        *("reverted", "applied", "verified", "reverted"),
    ]


def test_plan_and_apply_tell_the_way_back(invoke: Invoke, package: Callable[..., str]) -> None:
    hotfix_id = package()
    assert invoke("plan", hotfix_id).response["revert"] == DROP
    assert invoke("apply", hotfix_id).response["revert"] == DROP


def test_of_two_columns_only_the_one_that_is_there_counts_as_this_runs_doing(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    hotfix_id = write_hotfix(
        "-- revert: ALTER TABLE drivers DROP COLUMN IF EXISTS a,\n--revert:DROP COLUMN IF EXISTS b;\n"
        "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int, ADD COLUMN IF NOT EXISTS b int;",
        "public.drivers.a int",
        "public.drivers.b int",
    )
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN b int")
    outcome = revert(invoke, hotfix_id)
    assert outcome.result == "reverted", outcome.text
    assert {column["column"]: column["changed"] for column in outcome.response["objects"]} == {"a": False, "b": True}
    assert outcome.response["summary"].startswith("public.drivers.b dropped, ")
    assert columns_of(database) == ["id", "name"]


def test_a_file_without_a_way_back_is_refused_with_the_line_to_write(invoke: Invoke) -> None:
    outcome = invoke("revert", HOTFIX)
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == (
        f"sql/{HOTFIX}.sql has no revert line, so no reviewed SQL undoes it. Nothing was contacted and nothing was"
        " changed. If these lines are right, write them at the head of the file, and have it reviewed:\n"
        '  -- revert: ALTER TABLE "public"."drivers" DROP COLUMN IF EXISTS "active_since";'
    )


def test_a_partitioned_table_loses_the_column_in_every_partition(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(
        "CREATE TABLE rides (id int) PARTITION BY RANGE (id); CREATE TABLE rides_1 PARTITION OF rides DEFAULT;"
        "INSERT INTO rides VALUES (1)"
    )
    hotfix_id = write_hotfix(
        "-- revert: ALTER TABLE rides DROP COLUMN a;\nALTER TABLE rides ADD COLUMN IF NOT EXISTS a int DEFAULT 7;",
        "public.rides.a int default 7",
    )
    invoke("apply", hotfix_id)
    database.run_as_owner("UPDATE rides SET a = 8")
    assert revert(invoke, hotfix_id).error_name == "RevertRefusedError"
    database.run_as_owner("UPDATE rides SET a = 7")
    assert revert(invoke, hotfix_id).result == "reverted"
    assert columns_of(database, "public.rides_1") == ["id"]


# What counts as used

UNUSED = {
    "none": ("smallint", "smallint"),
    "constant": ("smallint NOT NULL DEFAULT 5", "smallint not null default 5"),
    "now()": ("timestamptz DEFAULT now()", "timestamptz default now()"),
    "text with quotes": ("text DEFAULT E'it''s a \\\\ %s'", "text default 'it''s a \\ %s'::text"),
    "boolean": ("boolean NOT NULL DEFAULT false", "boolean not null default false"),
    "char": ("char(5) DEFAULT 'a'", "char(5) default 'a'::bpchar"),
    "inet": ("inet DEFAULT '10.0.0.1'", "inet default '10.0.0.1'::inet"),
    "array": ("text[] DEFAULT '{a,\"b c\",NULL}'", "text[] default '{a,\"b c\",NULL}'::text[]"),
    "box": ("box DEFAULT '(1,1),(0,0)'", "box default '(1,1),(0,0)'::box"),
    "json": ("""json DEFAULT '{"a": 1}'""", """json default '{"a": 1}'::json"""),
    "jsonb": ("""jsonb NOT NULL DEFAULT '{}'""", "jsonb not null default '{}'::jsonb"),
    "enum": ("mood DEFAULT 'ok'", "public.mood default 'ok'::public.mood"),
    "composite": ("pair DEFAULT '(1,)'", "public.pair default '(1,)'::public.pair"),
    "domain": ("positive DEFAULT 3", "public.positive default 3"),
    "float": ("double precision DEFAULT 0.1", "double precision default 0.1"),
    "generated": (
        "text GENERATED ALWAYS AS (name || '!') STORED",
        "text generated always as (name || '!'::text) stored",
    ),
}
# Each changes what one row holds.
USED = {
    "none": "1",
    "constant": "6",
    "now()": "'2000-01-01'",
    "text with quotes": "''",
    "boolean": "true",
    "char": "'b'",
    "inet": "'10.0.0.1/8'",
    "array": "'{a,\"b c\"}'",
    "box": "'(1,2),(0,0)'",
    "json": "'{\"a\":1}'",
    "jsonb": "'{\"a\": 1}'",
    "enum": "'bad'",
    "composite": "'(1,2)'",
    "domain": "4",
    "float": "0.10000000000000002",
}
TYPES = "CREATE TYPE mood AS ENUM ('ok', 'bad'); CREATE TYPE pair AS (a int, b int); CREATE DOMAIN positive AS int"


@pytest.mark.parametrize(("made", "expected"), UNUSED.values(), ids=UNUSED)
def test_a_column_in_which_no_row_holds_anything_of_its_own_is_dropped(
    invoke: Invoke, applied: Callable[..., str], database: Database, made: str, expected: str
) -> None:
    database.run_as_owner(TYPES)
    hotfix_id = applied(made, expected)
    outcome = revert(invoke, hotfix_id)
    assert outcome.result == "reverted", outcome.text
    assert not has_rating(database)


@pytest.mark.parametrize("kind", USED)
def test_a_column_in_which_one_row_holds_something_else_is_kept(
    invoke: Invoke, applied: Callable[..., str], database: Database, kind: str
) -> None:
    database.run_as_owner(TYPES)
    hotfix_id = applied(*UNUSED[kind])
    database.run_as_owner(f"UPDATE drivers SET rating = {USED[kind]} WHERE id = (SELECT id FROM drivers LIMIT 1)")
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "RevertRefusedError"
    assert outcome.text == IN_USE
    assert has_rating(database)


@pytest.mark.parametrize(
    ("made", "expected", "sql"),
    [
        ("smallint DEFAULT 5", "smallint default 5", "UPDATE drivers SET rating = NULL"),
        ("text DEFAULT ''", "text default ''::text", "UPDATE drivers SET rating = NULL"),
        ("pair", "public.pair", "UPDATE drivers SET rating = '(,)'"),
        ("timestamptz DEFAULT now()", "timestamptz default now()", ADD_ROWS),
        ("smallint", "smallint", f"{ADD_ROWS}; UPDATE drivers SET rating = 1"),
    ],
    ids=["NULL instead of the default", "NULL instead of ''", "a row of NULLs", "a later now()", "every row"],
)
def test_what_only_looks_like_nothing_counts_as_used(
    invoke: Invoke, applied: Callable[..., str], database: Database, made: str, expected: str, sql: str
) -> None:
    database.run_as_owner(TYPES)
    hotfix_id = applied(made, expected)
    database.run_as_owner(sql)
    assert revert(invoke, hotfix_id).text == IN_USE
    assert has_rating(database)


def test_rows_that_were_added_with_the_same_constant_are_no_use(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied("smallint DEFAULT 5", "smallint default 5")
    database.run_as_owner(ADD_ROWS)
    assert revert(invoke, hotfix_id).result == "reverted"


SEQUENCE = "CREATE SEQUENCE ratings"
CANT_BE_TOLD = {
    "volatile": (
        "timestamptz DEFAULT clock_timestamp()",
        "timestamptz default clock_timestamp()",
        "",
    ),
    "nextval": ("bigint DEFAULT nextval('ratings')", "bigint default nextval('public.ratings'::regclass)", ""),
    "identity": ("bigint GENERATED ALWAYS AS IDENTITY", "bigint not null generated always as identity", ""),
    "rewritten": ("smallint DEFAULT 5", "smallint default 5", "VACUUM FULL drivers"),
}


@pytest.mark.parametrize(("made", "expected", "then"), CANT_BE_TOLD.values(), ids=CANT_BE_TOLD)
def test_what_postgresql_has_not_kept_counts_as_used_as_soon_as_there_is_a_row(
    invoke: Invoke, applied: Callable[..., str], database: Database, made: str, expected: str, then: str
) -> None:
    database.run_as_owner(SEQUENCE)
    hotfix_id = applied(made, expected)
    if then:
        database.run_as_owner(then)
    outcome = revert(invoke, hotfix_id)
    assert (outcome.error_name, outcome.text) == ("RevertRefusedError", UNTOLD)
    calls = database.run("SELECT last_value, is_called FROM ratings")
    assert revert(invoke, hotfix_id).error_name == "RevertRefusedError"
    assert database.run("SELECT last_value, is_called FROM ratings") == calls, "a default was evaluated"
    assert has_rating(database)
    database.run_as_owner("TRUNCATE drivers")
    assert revert(invoke, hotfix_id).result == "reverted"


def test_a_table_that_was_written_anew_still_tells_a_column_without_default(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    database.run_as_owner("VACUUM FULL drivers")
    assert revert(invoke, hotfix_id).result == "reverted"


def test_numbers_that_differ_in_their_last_digit_are_not_the_same(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied("double precision NULL DEFAULT 0.3")
    database.run("UPDATE drivers SET rating = 0.1::float8 + 0.2::float8")
    database.run(f"ALTER ROLE {database.user} SET extra_float_digits = 0")
    assert revert(invoke, hotfix_id).text == IN_USE


def test_of_two_columns_the_one_in_use_is_named(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> None:
    hotfix_id = write_hotfix(
        "-- revert: ALTER TABLE drivers DROP COLUMN IF EXISTS a, DROP COLUMN IF EXISTS rating;\n"
        "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int, ADD COLUMN IF NOT EXISTS rating int;",
        "public.drivers.a int",
        "public.drivers.rating int",
    )
    invoke("apply", hotfix_id)
    database.run_as_owner("INSERT INTO drivers (id, name, rating) VALUES (gen_random_uuid(), 'x', 1)")
    assert revert(invoke, hotfix_id).text == IN_USE


def test_a_row_that_only_a_child_holds_counts(invoke: Invoke, applied: Callable[..., str], database: Database) -> None:
    database.run_as_owner("CREATE TABLE old_drivers () INHERITS (drivers)")
    hotfix_id = applied()
    database.run_as_owner("INSERT INTO old_drivers VALUES (gen_random_uuid(), 'x', 3)")
    assert revert(invoke, hotfix_id).text == IN_USE


def test_rows_that_a_policy_hides_are_no_reason_to_drop_them(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    database.run_as_owner(
        "UPDATE drivers SET rating = 1; ALTER TABLE drivers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    )
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "NotOwnerError"
    assert 'query would be affected by row-level security policy for table "drivers"' in outcome.text
    assert has_rating(database)


# Force


def test_force_drops_a_column_in_use_and_says_so(
    invoke: Invoke, applied: Callable[..., str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unused, "read_rows_sql", lambda _: pytest.fail("nobody is to look at the rows"))
    hotfix_id = applied()
    database.run_as_owner("UPDATE drivers SET rating = 1")
    outcome = revert(invoke, hotfix_id, force=True, reason="INC-4712: filled by mistake")
    assert outcome.result == "reverted", outcome.text
    assert outcome.response["summary"].endswith(" ms. Forced: the rows were not checked.")
    assert outcome.response["reason"] == "INC-4712: filled by mistake"
    assert not has_rating(database)


@pytest.mark.parametrize("fields", [{}, {"force": True, "reason": "INC-4712"}], ids=["", "with force"])
def test_a_column_that_is_not_this_hotfixs_is_never_dropped(
    invoke: Invoke, package: Callable[..., str], database: Database, fields: dict[str, Any]
) -> None:
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN rating text")
    outcome = revert(invoke, package(), **fields)
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"{RATING} exists but is not what {NAME} expects. Nothing was changed.\n"
        "  expected  smallint null\n"
        "  actual    text null\n"
        "It is not what this hotfix adds, so revert will not drop it, even with force. If the actual column is right,"
        " correct the file:\n"
        f"  -- expect: column {RATING} text null\n"
        "Otherwise drop the column by a separate migration."
    )
    assert has_rating(database)


def test_what_is_recorded_in_prismas_history_is_reverted_by_force_only(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    database.run_as_owner(CREATE.format(schema="public"))
    hotfix_id = applied()
    PrismaHistory(database).add(hotfix_id)
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "RevertRefusedError"
    assert outcome.text == (
        f"public._prisma_migrations has {NAME} as applied, so it was not reverted: every later prisma migrate deploy"
        " would skip it, and never add the column again. Nothing was changed. prisma migrate resolve --rolled-back"
        " refuses an applied migration (P3012). To drop the column for good, write a migration. To let a later deploy"
        ' add it again, delete the row first:  DELETE FROM "public"."_prisma_migrations" WHERE migration_name ='
        f" '{NAME}';"
    )
    assert has_rating(database)
    for result in ("reverted", "already_reverted"):
        outcome = revert(invoke, hotfix_id, force=True, reason="INC-4712")
        assert outcome.result == result
        assert outcome.response["summary"].endswith(
            " public._prisma_migrations still has it as applied: no prisma migrate deploy will bring it back."
        )


@pytest.mark.parametrize("row", [{"rolled_back": True}, {"name": "20260101000000_add_orders"}])
def test_what_prismas_history_does_not_have_as_applied_is_reverted(
    invoke: Invoke, applied: Callable[..., str], database: Database, row: dict[str, Any]
) -> None:
    database.run_as_owner(CREATE.format(schema="public"))
    hotfix_id = applied()
    PrismaHistory(database).add(**{"name": hotfix_id, **row})
    outcome = revert(invoke, hotfix_id)
    assert outcome.result == "reverted", outcome.text
    assert "has it as applied" not in outcome.response["summary"]
    assert outcome.response["prisma"]["next_deploy"].startswith(f"It runs prisma/migrations/{NAME}")


def test_a_row_that_has_it_as_applied_counts_also_behind_one_that_failed(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    database.run_as_owner(CREATE.format(schema="public"))
    hotfix_id = applied()
    PrismaHistory(database).add(hotfix_id)
    PrismaHistory(database).add(hotfix_id, finished=False)
    assert "has 20260301101500_change_something as applied" in revert(invoke, hotfix_id).text
    assert has_rating(database)


def test_a_history_that_cannot_be_read_is_no_empty_one(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    database.run(CREATE.format(schema="public"))
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "RevertRefusedError"
    assert outcome.text == (
        f"Cannot tell whether public._prisma_migrations has {NAME} as applied, so it was not reverted: if it has,"
        " every later prisma migrate deploy would skip it, and never add the column again. Nothing was changed."
        " --force drops the column, whatever public._prisma_migrations and the rows hold. Grant it:  GRANT SELECT ON"
        f' "public"."_prisma_migrations" TO "{database.user}";'
    )
    assert outcome.then == f"Run it again:  ./pg-hotfix revert {hotfix_id}"
    assert revert(invoke, hotfix_id, force=True, reason="INC-4712").result == "reverted"


def test_a_deploy_that_records_it_between_look_and_lock_keeps_the_column(
    invoke: Invoke,
    applied: Callable[..., str],
    database: Database,
    before_the_lock: Callable[[Callable[[], Any]], list[int]],
) -> None:
    database.run_as_owner(CREATE.format(schema="public"))
    hotfix_id = applied()
    attempts = before_the_lock(lambda: PrismaHistory(database).add(hotfix_id))
    outcome = revert(invoke, hotfix_id)
    assert (outcome.error_name, len(attempts)) == ("RevertRefusedError", 1), outcome.text
    assert has_rating(database)


def test_a_deploy_that_runs_is_waited_for(
    invoke: Invoke, applied: Callable[..., str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    database.run_as_owner(CREATE.format(schema="public"))
    hotfix_id = applied()
    with database.connect() as deploy:
        (pid,) = deploy.run("SELECT pg_backend_pid() FROM pg_advisory_lock(72707369)")[0]
        outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "LockBusyError"
    assert outcome.text.startswith(
        f"public.drivers or Prisma's history stayed locked for 1 s, so {NAME} was not reverted. Nothing was changed,"
        f" and nobody waited behind this run.\nIn the way: pid {pid} (postgres"
    )
    assert "EXCLUSIVE on Prisma's advisory lock 72707369." in outcome.text
    assert has_rating(database)
    assert revert(invoke, hotfix_id).result == "reverted"


# Rights


def test_a_table_of_another_owner_is_refused_before_any_lock(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    database.run("ALTER TABLE public.drivers OWNER TO postgres")
    assert revert(invoke, hotfix_id).error_name == "NotOwnerError"


def test_a_read_only_database_is_not_reverted(invoke: Invoke, applied: Callable[..., str], database: Database) -> None:
    hotfix_id = applied()
    database.run(f"ALTER ROLE {database.user} SET default_transaction_read_only = on")
    assert revert(invoke, hotfix_id).error_name == "ReadOnlyDatabaseError"


# The SQL


def test_a_way_back_that_leaves_the_column_is_rolled_back(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied(revert="DROP INDEX IF EXISTS ratings;")
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"The revert lines of sql/{NAME}.sql do not drop {RATING}. The SQL was run and rolled back. Nothing was"
        " changed. Correct them."
    )
    assert columns_of(database) == ["id", "name", "rating"]


def test_a_view_of_the_column_is_not_dropped_with_it(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    database.run_as_owner("CREATE VIEW ratings AS SELECT rating FROM drivers")
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "RevertRefusedError"
    assert outcome.text == (
        f"Other objects need {RATING}, so {NAME} was not reverted: PostgreSQL would refuse to drop it, or writes to"
        " its table would fail. Nothing was changed.\n"
        "  view public.ratings\n"
        "Change or drop them by a migration.\n"
        "--force does not help here."
    )
    assert has_rating(database)
    assert database.run("SELECT count(*) FROM ratings") == [[3]]


# What happens between the look and the lock


@pytest.fixture
def before_the_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[int]]:
    """Does something once all is looked at, right before the first attempt. Returns a list, of one entry an attempt."""

    def set_up(action: Callable[[], Any]) -> list[int]:
        run_file = database_module.Session.run_file
        attempts: list[int] = []

        def act_and_run(session: database_module.Session, *args: Any, **kwargs: Any) -> list[list[Any]]:
            attempts.append(len(attempts))
            if len(attempts) == 1:
                action()
            return run_file(session, *args, **kwargs)

        monkeypatch.setattr(database_module.Session, "run_file", act_and_run)
        return attempts

    return set_up


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_row_written_between_look_and_lock_is_seen_under_the_lock(
    invoke: Invoke,
    applied: Callable[..., str],
    database: Database,
    before_the_lock: Callable[[Callable[[], Any]], list[int]],
    isolation: str,
) -> None:
    database.run(f"ALTER ROLE {database.user} SET default_transaction_isolation = '{isolation}'")
    hotfix_id = applied()
    attempts = before_the_lock(lambda: database.run("UPDATE drivers SET rating = 4"))
    outcome = revert(invoke, hotfix_id)
    assert (outcome.error_name, outcome.text) == ("RevertRefusedError", IN_USE)
    assert len(attempts) == 1
    assert database.run("SELECT DISTINCT rating FROM drivers") == [[4]]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_a_row_that_a_writer_commits_while_the_lock_is_waited_for_is_seen(
    invoke: Invoke, applied: Callable[..., str], database: Database, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run(f"ALTER ROLE {database.user} SET default_transaction_isolation = '{isolation}'")
    hotfix_id = applied()
    # It stands in the queue from the first attempt on, so long that the writer ends while its transaction is open.
    monkeypatch.setattr(lock_wait.LockWait, "begin_attempt", lambda turn: setattr(turn, "queue_wait_ms", 3_000))
    with (
        watching_the_queue(database) as seen_waiting,
        holding(database, "UPDATE drivers SET rating = 4", lambda: until(lambda: seen_waiting)),
    ):
        outcome = revert(invoke, hotfix_id)
    assert seen_waiting != []
    assert (outcome.error_name, outcome.text) == ("RevertRefusedError", IN_USE)
    assert database.run("SELECT DISTINCT rating FROM drivers") == [[4]]


@pytest.mark.parametrize("fields", [{}, {"force": True, "reason": "INC-4712"}], ids=["", "with force"])
def test_another_column_that_comes_into_its_place_is_not_dropped(
    invoke: Invoke,
    applied: Callable[..., str],
    database: Database,
    before_the_lock: Callable[[Callable[[], Any]], list[int]],
    fields: dict[str, Any],
) -> None:
    hotfix_id = applied()
    attempts = before_the_lock(lambda: database.run("ALTER TABLE drivers ALTER COLUMN rating TYPE text"))
    assert revert(invoke, hotfix_id, **fields).error_name == "MismatchError"
    assert len(attempts) == 1
    assert has_rating(database)


SEVERAL_LINES = "CASE WHEN name = 'a' THEN 'b' ELSE 'c' END"


@pytest.mark.parametrize("changed", [False, True])
def test_a_column_whose_expression_is_printed_on_several_lines_is_dropped_unless_it_was_changed(
    invoke: Invoke,
    applied: Callable[..., str],
    database: Database,
    before_the_lock: Callable[[Callable[[], Any]], list[int]],
    changed: bool,
) -> None:
    expected = "text generated always as (CASE WHEN name = 'a'::text THEN 'b'::text ELSE 'c'::text END) stored"
    hotfix_id = applied(f"text GENERATED ALWAYS AS ({SEVERAL_LINES}) STORED", expected)
    again = f"DROP COLUMN rating, ADD COLUMN rating text GENERATED ALWAYS AS ({SEVERAL_LINES.replace('c', 'd')}) STORED"
    attempts = before_the_lock(lambda: changed and database.run_as_owner(f"ALTER TABLE drivers {again}"))
    outcome = revert(invoke, hotfix_id)
    assert (outcome.result, outcome.error_name) == ((None, "MismatchError") if changed else ("reverted", None)), (
        outcome.text
    )
    assert len(attempts) == 1
    assert has_rating(database) is changed


def test_a_table_whose_column_is_gone_is_locked_as_well_since_it_may_come_back(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    database.run_as_owner("CREATE TABLE riders (id int); INSERT INTO riders VALUES (1)")
    hotfix_id = write_hotfix(
        "-- revert: ALTER TABLE drivers DROP COLUMN IF EXISTS rating;\n"
        "-- revert: ALTER TABLE riders DROP COLUMN IF EXISTS rating;\n"
        "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating int;\n"
        "ALTER TABLE riders ADD COLUMN IF NOT EXISTS rating int;",
        f"{RATING} int",
        "public.riders.rating int",
    )
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN rating int")
    with database.connect() as other:
        other.run("BEGIN; ALTER TABLE riders ADD COLUMN rating int; UPDATE riders SET rating = 5")
        outcome = revert(invoke, hotfix_id)
        assert outcome.error_name == "LockBusyError"
        # It never had the one lock while it waited for the other.
        assert "nobody waited behind this run" in outcome.text
        other.run("COMMIT")
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "RevertRefusedError"
    assert outcome.text.startswith("public.riders.rating is in use")
    assert has_rating(database)


def test_a_column_that_somebody_else_drops_first_is_already_reverted(
    invoke: Invoke,
    applied: Callable[..., str],
    database: Database,
    before_the_lock: Callable[[Callable[[], Any]], list[int]],
) -> None:
    hotfix_id = applied()
    attempts = before_the_lock(lambda: database.run("ALTER TABLE drivers DROP COLUMN rating"))
    outcome = revert(invoke, hotfix_id)
    assert (outcome.result, len(attempts)) == ("already_reverted", 1)


def test_a_column_that_goes_while_its_rows_are_looked_at_is_already_reverted(
    invoke: Invoke, applied: Callable[..., str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hotfix_id = applied()
    looks = slow_looks(monkeypatch, 0, 0.6)
    with meanwhile(lambda: until_it_sleeps(database), lambda: database.run("ALTER TABLE drivers DROP COLUMN rating")):
        outcome = revert(invoke, hotfix_id)
    assert (outcome.result, len(looks)) == ("already_reverted", 2), outcome.text


def test_a_partition_that_is_attached_between_look_and_lock_is_looked_at(
    invoke: Invoke,
    write_hotfix: WriteHotfix,
    database: Database,
    before_the_lock: Callable[[Callable[[], Any]], list[int]],
) -> None:
    database.run_as_owner("CREATE TABLE rides (id int) PARTITION BY RANGE (id)")
    hotfix_id = write_hotfix(
        "-- revert: ALTER TABLE rides DROP COLUMN a;\nALTER TABLE rides ADD COLUMN IF NOT EXISTS a int;",
        "public.rides.a int",
    )
    invoke("apply", hotfix_id)
    before_the_lock(
        lambda: database.run_as_owner(
            "CREATE TABLE rides_1 PARTITION OF rides DEFAULT; INSERT INTO rides VALUES (1, 2)"
        )
    )
    assert revert(invoke, hotfix_id).error_name == "RevertRefusedError"
    assert database.run("SELECT a FROM rides") == [[2]]


# Time


def test_a_table_whose_rows_take_long_to_see_is_left_alone(
    invoke: Invoke, applied: Callable[..., str], monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    hotfix_id = applied()
    # The one under the lock, which is put together first, is the second one without it, too.
    looks = slow_looks(monkeypatch, 0.25, 0.3)
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "RevertRefusedError"
    assert re.sub(r"took \d+ ms", "took # ms", outcome.text) == (
        f"Cannot tell in time whether the rows of public.drivers still hold what {NAME} gave them, so it was not"
        " reverted: reading them took # ms. Under the lock, where all sessions wait, it may take 200 ms. Nothing was"
        " changed. Ask the owner of the data before you drop it unread, with --force."
    )
    # A quieter server may answer in time: so the last line drops nothing.
    assert outcome.then == f"Run it again:  ./pg-hotfix revert {hotfix_id}"
    assert len(looks) == 2
    assert has_rating(database)


def slow_looks(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> list[str]:
    """The server takes so long for each look at the rows, as it would for many of them. Returns the looks."""
    monkeypatch.setattr(unused, "LONGEST_READ_MS", 200)
    monkeypatch.setattr(unused, "READ_UNDER_LOCK_MS", 400)
    read_rows_sql = unused.read_rows_sql
    looks: list[str] = []

    def slow(hotfix: Any) -> str:
        sleep = seconds[len(looks)] if len(looks) < len(seconds) else 0
        looks.append(f"PERFORM pg_sleep({sleep})")
        return read_rows_sql(hotfix).replace("    LOOP", f"    LOOP {looks[-1]};")

    monkeypatch.setattr(unused, "read_rows_sql", slow)
    return looks


def test_a_second_look_is_enough_when_the_first_had_to_read_the_disk(
    invoke: Invoke, applied: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hotfix_id = applied()
    took_ms = iter([unused.LONGEST_READ_MS + 1, unused.LONGEST_READ_MS])
    monkeypatch.setattr(unused, "elapsed_ms", lambda _: next(took_ms))
    assert revert(invoke, hotfix_id).result == "reverted"
    assert list(took_ms) == []


def test_a_second_look_is_given_no_longer_than_the_one_under_the_lock(
    invoke: Invoke, applied: Callable[..., str], monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    hotfix_id = applied()
    slow_looks(monkeypatch, 10, 0.3)
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "RevertRefusedError"
    assert "Cannot tell in time whether the rows" in outcome.text
    assert has_rating(database)


def test_a_look_that_is_slow_only_under_the_lock_is_ended_there(
    invoke: Invoke, applied: Callable[..., str], monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    hotfix_id = applied()
    slow_looks(monkeypatch, 10, 0)
    monkeypatch.setattr(unused, "LONGEST_READ_MS", 20_000)
    with somebody_reading(database) as reader:
        outcome = revert(invoke, hotfix_id)
        assert reader.longest_stall() < 1
    assert outcome.error_name == "RevertRefusedError"
    assert "reading them took 400 ms. Under the lock, where all sessions wait, it may take 400 ms." in outcome.text
    assert has_rating(database)


def test_a_look_outside_the_lock_that_takes_too_long_is_ended_too(
    invoke: Invoke, applied: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hotfix_id = applied()
    monkeypatch.setenv("STATEMENT_TIMEOUT_MS", "600")
    slow_looks(monkeypatch, 0, 10)
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "RevertRefusedError"
    assert re.search(r"reading them took \d+ ms. Under the lock", outcome.text), outcome.text


def test_readers_are_not_stalled_while_a_blocker_is_waited_for(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    with (
        somebody_reading(database) as reader,
        watching_the_queue(database) as seen_waiting,
        holding(database, "SELECT * FROM public.drivers", database.until_waited_for),
    ):
        outcome = revert(invoke, hotfix_id)
        assert reader.longest_stall() < 0.5
    assert outcome.result == "reverted", outcome.text
    assert outcome.response["lock_wait_ms"] > 0
    assert {mode for mode, _ in seen_waiting} <= {"AccessExclusiveLock"}


def test_a_lock_that_stays_is_reported_with_who_holds_it(
    invoke: Invoke, applied: Callable[..., str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hotfix_id = applied()
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    with holding(database, "SELECT * FROM public.drivers") as pid, watching_the_queue(database) as seen_waiting:
        outcome = revert(invoke, hotfix_id)
    assert seen_waiting == []
    assert outcome.error_name == "LockBusyError"
    assert timeless(outcome.text) == (
        f"public.drivers stayed locked for # s, so {NAME} was not reverted. Nothing was changed, and nobody waited"
        " behind this run.\n"
        f"In the way: pid {pid} (postgres), ACCESS SHARE on public.drivers.\n"
        f"Wait until it ends, or end it now (its transaction is rolled back):  SELECT pg_terminate_backend({pid});\n"
        f"To see what they do and since when:  {grant(database, 'pg_read_all_stats')}"
    )
    assert has_rating(database)


def test_somebody_who_changes_the_table_while_its_rows_are_looked_at_is_waited_for(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    with holding(database, "LOCK TABLE public.drivers IN ACCESS EXCLUSIVE MODE", database.until_waited_for):
        outcome = revert(invoke, hotfix_id)
    assert outcome.result == "reverted", outcome.text


def test_under_the_lock_there_is_no_round_trip(
    invoke: Invoke, applied: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hotfix_id = applied()
    sent: list[str] = []
    run = Connection.run

    def note_and_run(connection: Any, sql: str, *args: Any, **options: Any) -> Any:
        sent.append(sql)
        return run(connection, sql, *args, **options)

    monkeypatch.setattr(Connection, "run", note_and_run)
    assert revert(invoke, hotfix_id).result == "reverted"
    (locking,) = [number for number, sql in enumerate(sent) if "LOCK TABLE" in sql]
    assert sent[locking].endswith("COMMIT")
    assert "DROP COLUMN" in sent[locking]
    # The login, the look, what depends on the column, and the rows; then the look after COMMIT.
    assert (locking, len(sent) - locking - 1) == (10, 4), [sql[:60] for sql in sent]


# Overlap


def test_reverts_at_once_end_as_one_reverted_and_else_already_reverted(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    results = run_at_once(["revert"] * 8, hotfix_id)
    assert sorted(results) == ["already_reverted"] * 7 + ["reverted"]
    assert not has_rating(database)


def test_applies_and_reverts_at_once_each_tell_what_they_did(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    results = run_at_once(["revert", "apply"] * 4, hotfix_id)
    # What a run had committed may be undone before its look after COMMIT: then it says so, and not what it changed.
    if "MismatchError" not in results:
        changes = results.count("reverted") - results.count("applied")
        assert changes == (0 if has_rating(database) else 1)
    assert set(results) <= {
        *("reverted", "already_reverted", "applied", "already_applied"),
        *("MismatchError", "changed meanwhile"),
    }


def run_at_once(actions: list[str], hotfix_id: str) -> list[str]:
    """What each ended as: a result, or an error. "changed meanwhile" is a revert that had looked at a column which
    others dropped and added again before it had the lock."""
    settings, start = read_settings(os.environ), threading.Barrier(len(actions))

    def run(action: str) -> str:
        start.wait()
        try:
            return hotfix.run(parse_request({"hotfix": hotfix_id, "action": action}), settings, lambda: 55_000).result
        except errors.RevertRefusedError as error:
            return "changed meanwhile" if "has changed since it was looked at" in error.message else error.message
        except errors.HotfixError as error:
            return type(error).__name__

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


# After COMMIT


def test_a_connection_lost_after_commit_is_replaced_for_the_second_look(
    invoke: Invoke, applied: Callable[..., str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hotfix_id = applied()
    end_session_after_commit(database, monkeypatch)
    assert revert(invoke, hotfix_id).result == "reverted"


def test_a_column_that_comes_back_right_after_commit_is_noticed(
    invoke: Invoke, applied: Callable[..., str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hotfix_id = applied()
    end_session_after_commit(database, monkeypatch, "ALTER TABLE public.drivers ADD COLUMN rating text")
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"{hotfix_id} was reverted and committed. Another session has changed the table after that: find out who"
        " did.\n"
        f"{RATING}\n"
        "  expected  missing\n"
        "  actual    text null"
    )


def test_a_second_look_that_fails_twice_leaves_the_outcome_unknown(
    invoke: Invoke, applied: Callable[..., str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hotfix_id = applied()
    end_session_after_commit(database, monkeypatch, f"ALTER ROLE {database.user} NOLOGIN")
    outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "OutcomeUnknownError"
    assert outcome.text == (
        f"The revert of {hotfix_id} was committed at {database.name} at localhost:{database.server.port}, but the"
        " catalog could not be read after COMMIT: this connection failed, and so did a new one (LoginError). The change"
        " was proved inside the transaction."
    )


def test_a_connection_lost_while_it_works_leaves_all_or_nothing(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    database.run(
        "CREATE FUNCTION wait() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(4); END';"
        "CREATE EVENT TRIGGER wait ON sql_drop EXECUTE FUNCTION wait()"
    )
    with meanwhile(lambda: when_it_sleeps(database)):
        outcome = revert(invoke, hotfix_id)
    assert outcome.error_name == "OutcomeUnknownError"
    assert outcome.text.endswith(
        " The change was reverted completely or not at all. Run it again; it is safe. reverted or already_reverted"
        " means that the revert took place."
    )
    assert has_rating(database)
