"""`apply`: the incident's column, for real, and every way in which it must not happen."""

from __future__ import annotations

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pg_hotfix import hotfix
from pg_hotfix.file import hotfix_file
from pg_hotfix.request import parse_request
from pg_hotfix.server import session as database_module
from pg_hotfix.settings import read_settings
from tests.conftest import HOTFIX, meanwhile, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

ADD_NOTE = "ALTER TABLE public.drivers ADD COLUMN IF NOT EXISTS note text;"
NOTE = "public.drivers.note text"


def columns_of(database: Database, table: str = "public.drivers") -> list[str]:
    rows = database.run(
        f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    return [name for (name,) in rows]


def test_the_incident_is_fixed(invoke: Invoke, database: Database) -> None:
    outcome = invoke("apply", reason="INC-4711", requested_by="ana")
    assert outcome.error is None, outcome.text
    assert database.run(
        "SELECT format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = 'public.drivers'::regclass AND attname = 'active_since'"
    ) == [["timestamp with time zone", False]]
    response = outcome.response
    held_ms = response["lock_held_ms"]
    assert 0 < held_ms <= outcome.line["duration_ms"]
    assert response["summary"] == (
        f"public.drivers.active_since applied, committed and proved; the lock was held for {held_ms} ms."
    )
    assert response["objects"] == [
        {
            "kind": "column",
            "step": 1,
            "schema": "public",
            "table": "drivers",
            "column": "active_since",
            "name": "public.drivers.active_since",
            "expected": "timestamp with time zone null",
            "actual": "timestamp with time zone null",
            "matches": True,
            "changed": True,
        }
    ]
    assert response["database"] == {
        "host": "localhost",
        "port": database.server.port,
        "name": database.name,
        "user": database.user,
        "server_version": database.run("SHOW server_version")[0][0].split()[0],
        "tls": "TLSv1.3",
    }
    words = {
        key: response[key] for key in ("hotfix", "action", "result", "attempts", "caller", "requested_by", "reason")
    }
    assert words == {
        "hotfix": HOTFIX,
        "action": "apply",
        "result": "applied",
        "attempts": 1,
        "caller": "direct",
        "requested_by": "ana",
        "reason": "INC-4711",
    }
    assert response["sql"] == Path(f"sql/{HOTFIX}.sql").read_text()
    assert response["blockers"] == []


def test_a_second_run_takes_no_lock_and_runs_nothing(invoke: Invoke, database: Database) -> None:
    invoke("apply")
    with database.connect() as other:
        other.run("BEGIN; LOCK TABLE public.drivers IN ACCESS EXCLUSIVE MODE")
        outcome = invoke("apply")
    assert (outcome.result, outcome.response["attempts"], outcome.response["lock_held_ms"]) == ("already_applied", 0, 0)
    assert outcome.response["sql"] is None
    assert [column["changed"] for column in outcome.response["objects"]] == [False]


@pytest.mark.parametrize("action", ["plan", "apply"])
def test_an_existing_column_of_another_type_is_refused(invoke: Invoke, database: Database, action: str) -> None:
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN active_since text DEFAULT ''")
    outcome = invoke(action)
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"public.drivers.active_since exists but is not what {HOTFIX} expects. Nothing was changed.\n"
        "  expected  timestamp with time zone null\n"
        "  actual    text null default ''::text\n"
        "ADD COLUMN IF NOT EXISTS keeps an existing column as it is. If the actual column is right, correct the"
        " file:\n"
        "  -- expect: column public.drivers.active_since text null default ''::text\n"
        "Otherwise change the column by a separate migration."
    )
    assert database.run("SELECT attname FROM pg_attribute WHERE attname = 'active_since' AND atttypid = 25") != []


def test_sql_that_makes_something_else_is_rolled_back(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    hotfix_id = write_hotfix(ADD_NOTE, "public.drivers.note varchar(10)")
    outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"sql/{hotfix_id}.sql does not create public.drivers.note as its expect line says. The SQL was run and rolled"
        " back."
        " Nothing was changed.\n"
        "  public.drivers.note\n"
        "    expected  character varying(10) null\n"
        "    made      text null\n"
        "Correct its SQL, or its expect line if what was made is right:\n"
        "  -- expect: column public.drivers.note text null"
    )
    assert columns_of(database) == ["id", "name"]


@pytest.mark.parametrize(
    ("made", "expected", "shown"),
    [
        ("text DEFAULT 'b'", "text default 'a'::text", "text null default 'b'::text"),
        ("text DEFAULT 'b'", "text", "text null default 'b'::text"),
        ("text", "text default 'a'::text", "text null"),
        ("text NOT NULL DEFAULT ''", "text default ''::text", "text not null default ''::text"),
        ("text DEFAULT ''", "text not null default ''::text", "text null default ''::text"),
        ('text COLLATE "C"', "text", 'text collate "C" null'),
        ("text", 'text collate "C"', "text null"),
        (
            "int GENERATED ALWAYS AS IDENTITY",
            "int not null generated by default as identity",
            "integer not null generated always as identity",
        ),
        ("int GENERATED ALWAYS AS IDENTITY", "int not null", "integer not null generated always as identity"),
        (
            "text GENERATED ALWAYS AS (name || 'b') STORED",
            "text generated always as (name || 'a'::text) stored",
            "text null generated always as (name || 'b'::text) stored",
        ),
        (
            "text GENERATED ALWAYS AS (name || 'b') STORED",
            "text default 'b'::text",
            "text null generated always as (name || 'b'::text) stored",
        ),
    ],
)
def test_sql_that_makes_the_column_another_way_is_rolled_back(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, made: str, expected: str, shown: str
) -> None:
    hotfix_id = write_hotfix(
        f"ALTER TABLE public.drivers ADD COLUMN IF NOT EXISTS note {made};", f"public.drivers.note {expected}"
    )
    outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "MismatchError"
    assert f"    made      {shown}\n" in outcome.text
    assert "The SQL was run and rolled back." in outcome.text
    assert columns_of(database) == ["id", "name"]


def test_sql_that_does_not_make_the_column_is_rolled_back(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    hotfix_id = write_hotfix("ALTER TABLE public.drivers ADD COLUMN nota text;", NOTE)
    outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"sql/{hotfix_id}.sql does not create public.drivers.note as its expect line says. The SQL was run and rolled"
        " back."
        " Nothing was changed.\n"
        "  public.drivers.note\n"
        "    expected  text null\n"
        "    made      missing\n"
        "Correct its SQL."
    )
    assert columns_of(database) == ["id", "name"]


def test_of_two_expected_columns_only_the_missing_one_counts_as_this_runs_doing(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN rating int")
    hotfix_id = write_hotfix(
        f"{ADD_NOTE} ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating int;", NOTE, "public.drivers.rating int"
    )
    outcome = invoke("apply", hotfix_id)
    assert outcome.result == "applied"
    assert {column["column"]: column["changed"] for column in outcome.response["objects"]} == {
        "note": True,
        "rating": False,
    }


def test_a_column_added_in_a_subtransaction_counts_as_this_runs_doing(
    invoke: Invoke, write_hotfix: WriteHotfix
) -> None:
    hotfix_id = write_hotfix(f"DO $$ BEGIN {ADD_NOTE} EXCEPTION WHEN duplicate_column THEN NULL; END $$;", NOTE)
    outcome = invoke("apply", hotfix_id)
    assert (outcome.error, outcome.result) == (None, "applied")


def test_runs_at_once_end_as_one_applied_and_else_already_applied(invoke: Invoke) -> None:
    invoke("plan")  # Stores the secret's value in the cache, and proves that all is set up.
    request, settings = parse_request({"hotfix": HOTFIX, "action": "apply"}), read_settings(os.environ)
    start = threading.Barrier(8)

    def run(_: int) -> str:
        start.wait()
        return hotfix.run(request, settings, lambda: 55_000).result

    with ThreadPoolExecutor(8) as pool:
        results = sorted(pool.map(run, range(8)))
    assert results == ["already_applied"] * 7 + ["applied"]


def test_a_bare_name_is_the_checked_table_whatever_the_search_path_says(invoke: Invoke, database: Database) -> None:
    database.run_as_owner("CREATE SCHEMA audit; CREATE TABLE audit.drivers (id int)")
    database.run(f"ALTER ROLE {database.user} SET search_path = audit, public")
    assert invoke("apply").result == "applied"
    assert columns_of(database) == ["id", "name", "active_since"]
    assert columns_of(database, "audit.drivers") == ["id"]


def test_a_column_of_a_same_named_table_in_another_schema_proves_nothing(invoke: Invoke, database: Database) -> None:
    database.run_as_owner("CREATE SCHEMA audit; CREATE TABLE audit.drivers (active_since timestamptz)")
    database.run(f"ALTER ROLE {database.user} SET search_path = audit, public")
    assert invoke("plan").result == "would_apply"
    assert invoke("verify").error_name == "MismatchError"


def test_a_type_that_the_file_itself_creates_is_proved(invoke: Invoke, write_hotfix: WriteHotfix) -> None:
    create = "DO $$ BEGIN CREATE TYPE mood AS ENUM ('ok'); EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
    hotfix_id = write_hotfix(
        f"{create} ALTER TABLE drivers ADD COLUMN IF NOT EXISTS mood mood;", "public.drivers.mood public.mood"
    )
    planned = invoke("plan", hotfix_id)
    assert planned.response["objects"][0]["expected"] == "public.mood (no such type) null"
    assert "missing; a type does not exist yet; apply would run the file" in planned.response["summary"]
    assert invoke("apply", hotfix_id).result == "applied"
    assert invoke("apply", hotfix_id).result == "already_applied"


def test_a_type_that_never_appears_is_a_mismatch(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> None:
    outcome = invoke("apply", write_hotfix(f"{ADD_NOTE} SELECT 1;", "public.drivers.note public.mood"))
    assert outcome.error_name == "MismatchError"
    assert "expected  public.mood (no such type) null" in outcome.text
    assert columns_of(database) == ["id", "name"]


def test_a_type_that_postgresql_cannot_read_is_named(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    for action in ("check", "plan", "apply", "verify"):
        hotfix_id = write_hotfix(ADD_NOTE, "public.drivers.name text", "public.drivers.note timestamptz nul")
        outcome = invoke(action, hotfix_id)
        assert outcome.error_name == "HotfixFileError"
        assert outcome.text == (
            f"sql/{hotfix_id}.sql expects public.drivers.note to have the type timestamptz nul, which PostgreSQL does"
            ' not accept for a column (42601: syntax error at or near "nul"). Nothing was changed. Write the type as'
            " in CREATE TABLE, such as timestamptz, numeric(10,2) or text[]."
        )


@pytest.mark.parametrize(
    ("column_type", "reason"),
    [
        ("text unique", "42601"),
        ("int primary key", "42601"),
        ("varchar(0)", "22023"),
        ("timestamp(3,4)", "42601|22023"),
        ("int(3)", "42601"),
        ("record", "it is a pseudo-type"),
        ("anyelement", "it is a pseudo-type"),
        ("trigger", "it is a pseudo-type"),
    ],
)
def test_what_is_no_type_of_a_column_is_refused(
    invoke: Invoke, write_hotfix: WriteHotfix, column_type: str, reason: str
) -> None:
    outcome = invoke("apply", write_hotfix(ADD_NOTE, f"public.drivers.note {column_type}"))
    assert outcome.error_name == "HotfixFileError"
    assert re.search(rf"which PostgreSQL does not accept for a column \((?:{reason})", outcome.text), outcome.text


# Relations and rights


FOREIGN_TABLE = """
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
CREATE FOREIGN TABLE public.riders (id int) SERVER s"""


@pytest.mark.parametrize(
    ("create", "kind"),
    [
        ("CREATE VIEW public.riders AS SELECT 1 AS id", "view"),
        ("CREATE MATERIALIZED VIEW public.riders AS SELECT 1 AS id", "materialized view"),
        (FOREIGN_TABLE, "foreign table"),
        ("CREATE SEQUENCE public.riders", "sequence"),
        ("CREATE TYPE public.riders AS (id int)", "composite type"),
    ],
)
@pytest.mark.parametrize("action", ["plan", "apply", "verify", "check"])
def test_what_is_no_table_is_refused_by_its_kind(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, create: str, kind: str, action: str
) -> None:
    database.run(create)
    outcome = invoke(action, write_hotfix("ALTER TABLE riders ADD COLUMN IF NOT EXISTS a int;", "public.riders.a int"))
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        f"public.riders is a {kind}, not a table. Nothing was changed. Name an ordinary or partitioned table in the"
        " file, and deploy it."
    )


def test_a_partitioned_table_is_altered_with_its_partitions(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(
        "CREATE TABLE rides (id int) PARTITION BY RANGE (id); CREATE TABLE rides_1 PARTITION OF rides DEFAULT"
    )
    hotfix_id = write_hotfix("ALTER TABLE rides ADD COLUMN IF NOT EXISTS a int;", "public.rides.a int")
    assert invoke("apply", hotfix_id).result == "applied"
    assert columns_of(database, "public.rides_1") == ["id", "a"]


def test_a_missing_table_is_named_with_its_look_alikes(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner('CREATE TABLE "Riders" (id int); CREATE SCHEMA audit; CREATE TABLE audit.riders (id int)')
    outcome = invoke("apply", write_hotfix("ALTER TABLE riders ADD COLUMN a int;", "public.riders.a int"))
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        f"The table public.riders does not exist in the database {database.name}. Nothing was changed. Tables"
        ' with similar names exist: audit.riders, public."Riders". Correct the name in the file, and deploy it.'
    )


def test_a_missing_schema_is_a_missing_table(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> None:
    outcome = invoke("apply", write_hotfix("ALTER TABLE nowhere.t ADD COLUMN a int;", "nowhere.t.a int"))
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        f"The table nowhere.t does not exist in the database {database.name}. Nothing was changed. Correct the name"
        " in the file, and deploy it. If this is the wrong database, correct dbname in the secret, or the stack's"
        " parameter DatabaseName."
    )


@pytest.mark.parametrize("action", ["plan", "apply", "check"])
def test_a_table_of_another_owner_is_refused_before_any_lock(invoke: Invoke, database: Database, action: str) -> None:
    database.run("ALTER TABLE public.drivers OWNER TO postgres")
    outcome = invoke(action)
    assert outcome.error_name == "NotOwnerError"
    assert outcome.text == (
        f"{database.user} does not own public.drivers: postgres does, which is an administrator, and ALTER TABLE needs"
        " the owner's rights. Nothing was changed. Give the table to a role of the application: "
        f' ALTER TABLE "public"."drivers" OWNER TO "{database.user}";'
    )


def test_a_member_of_the_owning_group_may_apply(invoke: Invoke, database: Database) -> None:
    group = f"{database.user}_group"
    database.run(f"CREATE ROLE {group}; GRANT {group} TO {database.user}; GRANT ALL ON SCHEMA public TO {group}")
    database.run(f"ALTER TABLE public.drivers OWNER TO {group}")
    try:
        assert invoke("check").result == "ready"
        assert invoke("apply").result == "applied"
    finally:
        database.run(f"DROP OWNED BY {group}; DROP ROLE {group}")


@pytest.mark.parametrize("column", ["nota", "note"])
def test_a_file_that_ends_its_transaction_is_found_out(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    monkeypatch.setattr(hotfix_file, "refuse_statement", lambda statement: None)  # As if the reading had missed it.
    hotfix_id = write_hotfix(f"ALTER TABLE drivers ADD COLUMN {column} text; COMMIT;", NOTE)
    outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == (
        f"sql/{hotfix_id}.sql ended the transaction in which it ran. PostgreSQL has committed what the file did"
        " before that, without proof. Remove the transaction control from the file."
    )


def test_a_foreign_key_needs_the_right_to_refer_to_the_other_table(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run("CREATE TABLE public.fleet (id int PRIMARY KEY)")
    hotfix_id = write_hotfix(
        "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS fleet_id int REFERENCES fleet;", "public.drivers.fleet_id int"
    )
    grant = f'GRANT REFERENCES ON public.fleet TO "{database.user}";'
    for action in ("check", "plan", "apply"):
        outcome = invoke(action, hotfix_id)
        assert outcome.error_name == "NotOwnerError"
        assert outcome.text == (
            f"{database.user} lacks REFERENCES on public.fleet, and the file adds a foreign key to it. Nothing"
            f" was changed. Grant it:  {grant}"
        )
    assert columns_of(database) == ["id", "name"]
    database.run(grant)
    assert invoke("apply", hotfix_id).result == "applied"


@pytest.mark.parametrize(
    "definition", ["int unique", "int not null generated always as identity", "int constraint one exclude (n with =)"]
)
def test_a_column_that_needs_an_index_or_a_sequence_needs_create_on_the_schema(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, definition: str
) -> None:
    """Since PostgreSQL 15 the owner of a table in `public` may not create another one there."""
    database.run("ALTER SCHEMA public OWNER TO postgres; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    column, _, constraint = definition.partition(" constraint ")
    also = f", ADD CONSTRAINT {constraint}" if constraint else ""
    expected = column.removesuffix(" unique")
    hotfix_id = write_hotfix(f"ALTER TABLE drivers ADD COLUMN n {column}{also};", f"public.drivers.n {expected}")
    grant = f'GRANT CREATE ON SCHEMA "public" TO "{database.user}";'
    for action in ("check", "plan", "apply"):
        outcome = invoke(action, hotfix_id)
        assert outcome.error_name == "NotOwnerError"
        assert outcome.text == (
            f"{database.user} lacks CREATE on the schema public, and the file creates an index or a sequence there."
            f" Nothing was changed. Grant it:  {grant}"
        )
    database.run(grant)
    assert invoke("apply", hotfix_id).result == "applied"


def test_check_asks_for_no_right_that_nothing_needs_any_more(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    hotfix_id = write_hotfix("ALTER TABLE drivers ADD COLUMN IF NOT EXISTS n int unique;", "public.drivers.n int")
    assert invoke("apply", hotfix_id).result == "applied"
    database.run("ALTER SCHEMA public OWNER TO postgres; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert invoke("check", hotfix_id).result == "ready"


def test_a_file_for_two_schemas_needs_create_only_where_its_index_is(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run(
        f"CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO {database.user}; CREATE TABLE other.t (id int);"
        f"ALTER TABLE other.t OWNER TO {database.user}"
    )
    sql = "ALTER TABLE drivers ADD COLUMN n int unique; ALTER TABLE other.t ADD COLUMN n int;"
    assert invoke("apply", write_hotfix(sql, "public.drivers.n int", "other.t.n int")).result == "applied"


def test_another_missing_permission_is_shown_in_postgresqls_words(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run("CREATE TABLE public.fleet (id int PRIMARY KEY)")
    sql = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS fleet int; UPDATE fleet SET id = 1;"
    outcome = invoke("apply", write_hotfix(sql, "public.drivers.fleet int"))
    assert outcome.text == (
        f"{database.user} lacks a privilege (42501: permission denied for table fleet). Nothing was changed. Grant"
        " it, or let pg-hotfix log in as the role that owns the table."
    )


# The SQL


def test_refused_sql_is_shown_with_line_and_caret(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    hotfix_id = write_hotfix("ALTER TABLE drivers ADD COLUMN IF NOT EXISTS note txt", NOTE)
    outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "SqlRefusedError"
    assert outcome.text == (
        f'PostgreSQL refused {hotfix_id} (42704: type "txt" does not exist). Nothing was changed.\n'
        "LINE 2: ALTER TABLE drivers ADD COLUMN IF NOT EXISTS note txt\n"
        "                                                          ^\n"
        f"Correct sql/{hotfix_id}.sql, and have it reviewed."
    )
    assert columns_of(database) == ["id", "name"]


def test_a_message_that_quotes_row_data_is_withheld(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("INSERT INTO drivers VALUES (gen_random_uuid(), 'Ana Confidential')")
    hotfix_id = write_hotfix(f"{ADD_NOTE} ALTER TABLE drivers ALTER COLUMN name TYPE int USING name::int;", NOTE)
    outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "SqlRefusedError"
    assert "(22P02: its text may quote row data and is withheld)" in outcome.text
    assert "Confidential" not in str(outcome.logs)
    assert columns_of(database) == ["id", "name"]


RAISE = "DO $$ BEGIN RAISE EXCEPTION 'bad row %', (SELECT name FROM drivers)"


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("ALTER TABLE drivers ALTER COLUMN name TYPE regclass USING name::regclass;", "42P01: its text may quote"),
        (f"{RAISE}; END $$;", "P0001: its text may quote"),
        (f"{RAISE} USING ERRCODE = 'unique_violation'; END $$;", "23505: its text may quote"),
        (f"{RAISE} USING ERRCODE = 'undefined_table'; END $$;", "42P01: its text may quote"),
        ("DO $$ BEGIN driverz; END $$;", '42601: syntax error at or near "driverz"'),
        ("DO $$ BEGIN EXECUTE (SELECT name FROM drivers); END $$;", "42601: its text may quote"),
        ("DO $$ BEGIN RAISE EXCEPTION 'not on a Sunday'; END $$;", "P0001: not on a Sunday"),
        ("ALTER TABLE driverz ADD COLUMN a int;", '42P01: relation "driverz" does not exist'),
        ("CREATE UNIQUE INDEX ON drivers ((1));", '23505: could not create unique index "drivers_expr_idx"'),
        ("ALTER TABLE drivers ADD COLUMN b int NOT NULL;", '23502: column "b" of relation "drivers" contains null'),
        ("CREATE INDEX CONCURRENTLY ON drivers (id);", "25001: CREATE INDEX CONCURRENTLY cannot run inside"),
    ],
)
def test_a_message_is_shown_only_if_no_row_can_be_in_it(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, sql: str, shown: str
) -> None:
    rows = "SELECT gen_random_uuid(), 'ana_confidential' FROM generate_series(1, 2)"
    database.run_as_owner(f"INSERT INTO drivers {rows if 'UNIQUE' in sql else rows.replace('2)', '1)')}")
    outcome = invoke("apply", write_hotfix(f"{ADD_NOTE} {sql}", NOTE))
    assert outcome.error_name == "SqlRefusedError"
    assert f"({shown}" in outcome.text
    assert "confidential" not in (outcome.text + str(outcome.logs)).lower()


def test_a_statement_that_takes_too_long_is_cancelled(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEMENT_TIMEOUT_MS", "300")
    hotfix_id = write_hotfix(f"{ADD_NOTE} SELECT pg_sleep(20);", NOTE)
    outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "StatementTimeoutError"
    assert outcome.text == (
        f"PostgreSQL cancelled {hotfix_id} (57014: canceling statement due to statement timeout; the limit is"
        f" {limit_of(database, 300, statements=2)} ms). Nothing was changed. A hotfix takes milliseconds. Look for a"
        " rewrite or a scan: a volatile default, SET NOT NULL, an index. If the file is right, raise"
        " STATEMENT_TIMEOUT_MS of MigrateFunction in template.yaml, and deploy."
    )
    assert columns_of(database) == ["id", "name"]


def test_statements_that_together_take_too_long_are_no_reason_to_try_again(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEMENT_TIMEOUT_MS", "2000")
    hotfix_id = write_hotfix(f"{ADD_NOTE} {'SELECT pg_sleep(0.5);' * 8}", NOTE)
    outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "StatementTimeoutError"
    if is_before_17(database):
        assert f"the limit is {2000 // 11} ms" in outcome.text
    else:
        assert outcome.text == (
            f"PostgreSQL ended the transaction of {hotfix_id} because it took longer than 2500 ms. Nothing was"
            " changed: the server rolls back. A hotfix takes milliseconds. Look for a rewrite or a scan: a volatile"
            " default, SET NOT NULL, an index. If the file is right, raise STATEMENT_TIMEOUT_MS of MigrateFunction in"
            " template.yaml, and deploy."
        )
    wait_until_gone(database)
    assert columns_of(database) == ["id", "name"]


def is_before_17(database: Database) -> bool:
    return int(database.run("SHOW server_version_num")[0][0]) < 170000


def limit_of(database: Database, statement_timeout_ms: int, statements: int) -> int:
    """What each statement may take: before 17 they share the limit, since nothing else limits them together."""
    return statement_timeout_ms // (statements + 2) if is_before_17(database) else statement_timeout_ms


def wait_until_gone(database: Database) -> None:
    """No session of the function is left on the server."""
    ours = "SELECT FROM pg_stat_activity WHERE application_name = 'pg-hotfix'"
    until(lambda: not database.run(ours))


def test_a_statement_that_somebody_cancels_says_so(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    hotfix_id = write_hotfix(f"{ADD_NOTE} SELECT pg_sleep(4);", NOTE)
    with meanwhile(lambda: when_it_sleeps(database, "pg_cancel_backend")):
        outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "StatementTimeoutError"
    limit_ms = limit_of(database, 5000, statements=2)
    said = re.escape("(57014: canceling statement due to user request). Nothing was changed. Find out who calls")
    before = rf"Another session cancelled {hotfix_id} after \d+ ms, before its limit of {limit_ms} ms "
    assert re.match(before + said, outcome.text)


def test_rows_that_the_file_selects_disturb_nothing(invoke: Invoke, write_hotfix: WriteHotfix) -> None:
    odd = "SELECT '24:00'::time, '[0:1]={1,2}'::int[], 'infinity'::date, '1 year'::interval, 'x'::bytea, NULL::json"
    hotfix_id = write_hotfix(f"SELECT 1, 2; {odd}; {ADD_NOTE} SELECT generate_series(1, 5) -- no semicolon", NOTE)
    assert invoke("apply", hotfix_id).result == "applied"


def test_a_constraint_that_fails_at_commit_rolls_back(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    add_deferred_trigger(database, "RAISE EXCEPTION 'refused at COMMIT'")
    hotfix_id = write_hotfix(f"{ADD_NOTE} INSERT INTO drivers (id, name) VALUES (gen_random_uuid(), '');", NOTE)
    outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "SqlRefusedError"
    assert outcome.text.startswith(
        f"The trigger at_commit on public.drivers refused {hotfix_id} (P0001 from its function public.at_commit()"
    )
    assert columns_of(database) == ["id", "name"]


def test_a_trigger_that_waits_for_the_end_runs_under_the_settings_of_the_file(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TABLE log (at text)")
    add_deferred_trigger(database, "INSERT INTO log VALUES (current_setting('DateStyle'))")
    database.run(f"ALTER ROLE {database.user} SET DateStyle = 'German, DMY'")
    hotfix_id = write_hotfix(f"{ADD_NOTE} INSERT INTO drivers (id, name) VALUES (gen_random_uuid(), '');", NOTE)
    assert invoke("apply", hotfix_id).result == "applied"
    assert database.run("SELECT at FROM log") == [["German, DMY"]]


def add_deferred_trigger(database: Database, statement: str) -> None:
    database.run_as_owner(
        f"CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON drivers DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION at_commit()"
    )


def test_a_file_that_changes_the_search_path_is_proved_as_it_was_looked_at(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TYPE mood AS ENUM ('ok')")
    hotfix_id = write_hotfix(
        "SELECT pg_catalog.set_config('search_path', '', false);"
        "ALTER TABLE public.drivers ADD COLUMN IF NOT EXISTS mood public.mood DEFAULT 'ok';",
        "public.drivers.mood public.mood default 'ok'::public.mood",
    )
    assert [invoke("apply", hotfix_id).result for _ in range(2)] == ["applied", "already_applied"]


# While waiting


@contextmanager
def reader_until_waited_for(database: Database, sql: str) -> Iterator[None]:
    """A reader is in the way until the function waits for it; then, in its own transaction, it runs `sql`."""
    with database.connect() as other:
        other.run("BEGIN; SELECT * FROM public.drivers")
        with meanwhile(database.until_waited_for, lambda: other.run(f"{sql}; COMMIT")):
            yield


def test_a_column_that_appears_while_waiting_needs_no_lock(invoke: Invoke, database: Database) -> None:
    with reader_until_waited_for(database, "ALTER TABLE drivers ADD COLUMN active_since timestamptz"):
        outcome = invoke("apply")
    assert outcome.result == "already_applied"
    assert outcome.response["attempts"] >= 1
    assert outcome.response["lock_held_ms"] == 0
    assert outcome.response["summary"] == "public.drivers.active_since already as expected; nothing was run."


def test_a_column_of_another_type_that_appears_while_waiting_is_refused(invoke: Invoke, database: Database) -> None:
    with reader_until_waited_for(database, "ALTER TABLE drivers ADD COLUMN active_since text"):
        outcome = invoke("apply")
    assert outcome.error_name == "MismatchError"
    assert "ADD COLUMN IF NOT EXISTS keeps an existing column as it is." in outcome.text


def test_a_table_that_goes_while_waiting_is_named(invoke: Invoke, database: Database) -> None:
    with reader_until_waited_for(database, "DROP TABLE drivers"):
        assert invoke("apply").error_name == "RelationError"


def test_a_table_that_is_replaced_while_waiting_is_not_what_was_planned(invoke: Invoke, database: Database) -> None:
    plan_hash = invoke("plan").response["plan_hash"]
    with reader_until_waited_for(database, "ALTER TABLE drivers RENAME TO old; CREATE TABLE public.drivers (id int)"):
        outcome = invoke("apply", plan_hash=plan_hash)
    assert outcome.error_name == "PlanChangedError"
    assert columns_of(database) == ["id"]


def test_a_table_that_is_replaced_between_look_and_lock_is_looked_at_again(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file, runs = database_module.Session.run_file, 0

    def replace_and_run(session: database_module.Session, *args: Any, **kwargs: Any) -> list[list[Any]]:
        nonlocal runs
        runs += 1
        if runs == 1:
            database.run_as_owner("ALTER TABLE drivers RENAME TO old; CREATE TABLE drivers (id int)")
        return run_file(session, *args, **kwargs)

    monkeypatch.setattr(database_module.Session, "run_file", replace_and_run)
    outcome = invoke("apply")
    assert (outcome.result, outcome.response["attempts"]) == ("applied", 2)
    assert columns_of(database) == ["id", "active_since"]


def test_only_the_tables_that_lack_a_column_are_locked(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TABLE fleet (id int, size int)")
    hotfix_id = write_hotfix(ADD_NOTE, "public.fleet.size int", NOTE)
    with database.connect() as other:
        other.run("BEGIN; SELECT * FROM public.fleet")
        outcome = invoke("apply", hotfix_id)
    assert (outcome.result, outcome.response["attempts"]) == ("applied", 1)


def test_no_attempt_begins_that_could_outlive_the_function(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = database_module.Session.query

    def slow_query(session: database_module.Session, sql: str) -> list[list[Any]]:
        time.sleep(1.75)
        return query(session, sql)

    monkeypatch.setattr(database_module.Session, "query", slow_query)
    outcome = invoke("apply", seconds=7)
    assert outcome.error_name == "DatabaseUnavailableError"
    assert "(it answers so slowly that the function's time would run out under the lock)" in outcome.text
    assert columns_of(database) == ["id", "name"]


def test_a_short_time_is_enough_for_a_quick_server(invoke: Invoke) -> None:
    assert invoke("apply", seconds=15).result == "applied"


# Lost connections


def until_it_sleeps(database: Database) -> None:
    asleep = "SELECT FROM pg_stat_activity WHERE application_name = 'pg-hotfix' AND wait_event = 'PgSleep'"
    until(lambda: database.run(asleep))


def when_it_sleeps(database: Database, function: str = "pg_terminate_backend") -> list[list[Any]]:
    """Ends the function's session, or cancels its statement, once it sleeps as the test's SQL lets it."""
    return database.run(
        "DO $$ BEGIN LOOP PERFORM pg_stat_clear_snapshot();"
        " EXIT WHEN EXISTS (SELECT FROM pg_stat_activity"
        " WHERE application_name = 'pg-hotfix' AND wait_event = 'PgSleep');"
        " PERFORM pg_sleep(0.01); END LOOP; END $$;"
        f"SELECT {function}(pid) FROM pg_stat_activity WHERE application_name = 'pg-hotfix'"
    )


def test_a_connection_lost_between_looks_changes_nothing(invoke: Invoke, database: Database) -> None:
    with reader_until_waited_for(
        database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg-hotfix'"
    ):
        outcome = invoke("apply")
    assert outcome.error_name == "DatabaseUnavailableError"
    assert outcome.text == (
        f"The connection to the database {database.name} at localhost:{database.server.port} was lost before COMMIT"
        " (the server closed it). Nothing was changed: the server rolls back."
    )
    assert columns_of(database) == ["id", "name"]


@pytest.mark.parametrize("under_way", ["the file's SQL", "COMMIT"])
def test_a_connection_lost_after_the_sql_was_sent_leaves_the_outcome_unknown(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, under_way: str
) -> None:
    if under_way == "COMMIT":
        add_deferred_trigger(database, "PERFORM pg_sleep(4)")
        sql = "INSERT INTO drivers (id, name) VALUES (gen_random_uuid(), '');"
    else:
        sql = "SELECT pg_sleep(4);"
    hotfix_id = write_hotfix(f"{ADD_NOTE} {sql}", NOTE)
    with meanwhile(lambda: when_it_sleeps(database)):
        outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "OutcomeUnknownError"
    assert outcome.text == (
        f"The connection to the database {database.name} at localhost:{database.server.port} was lost while"
        f" {hotfix_id} was under way (the server closed it). The change was applied completely or not at all. Run it"
        " again; it is safe. applied or already_applied means that the change is there."
    )
    assert columns_of(database) == ["id", "name"]


def test_a_connection_lost_after_commit_is_replaced_for_the_second_look(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_session_after_commit(database, monkeypatch)
    assert invoke("apply").result == "applied"
    assert columns_of(database) == ["id", "name", "active_since"]


def test_a_second_look_that_fails_twice_leaves_the_outcome_unknown(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_session_after_commit(database, monkeypatch, f"ALTER ROLE {database.user} NOLOGIN")
    outcome = invoke("apply")
    assert outcome.error_name == "OutcomeUnknownError"
    assert outcome.text == (
        f"{HOTFIX} was committed at {database.name} at localhost:{database.server.port}, but the catalog could not be"
        " read after COMMIT: this connection failed, and so did a new one (LoginError). The change was proved inside"
        " the"
        " transaction."
    )


def test_a_column_changed_right_after_commit_is_noticed(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_session_after_commit(database, monkeypatch, "ALTER TABLE public.drivers DROP COLUMN active_since")
    outcome = invoke("apply")
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"{HOTFIX} was applied and committed. Another session has changed the table after that: find out who did.\n"
        "public.drivers.active_since\n"
        "  expected  timestamp with time zone null\n"
        "  actual    missing"
    )


def test_a_table_that_is_gone_right_after_commit_is_noticed(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_session_after_commit(database, monkeypatch, "ALTER TABLE public.drivers RENAME TO riders")
    outcome = invoke("apply")
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"{HOTFIX} was applied and committed. Another session has changed the table after that: find out who did.\n"
        f"The table public.drivers does not exist in the database {database.name}."
    )


def test_a_second_look_that_is_cancelled_is_repeated_on_a_fresh_connection(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = database_module.Session.run_file

    def run_and_hasten(session: database_module.Session, *args: Any, **kwargs: Any) -> list[list[Any]]:
        rows = run_file(session, *args, **kwargs)
        # 57014 for whatever comes next on this connection.
        session.query("SET statement_timeout = '1ms'")
        monkeypatch.setattr(
            session,
            "query",
            lambda sql: database_module.Session.query(session, f"SELECT pg_catalog.pg_sleep(1); {sql}"),
        )
        return rows

    monkeypatch.setattr(database_module.Session, "run_file", run_and_hasten)
    assert invoke("apply").result == "applied"


def end_session_after_commit(database: Database, monkeypatch: pytest.MonkeyPatch, sql: str = "SELECT 1") -> None:
    """The server loses the function's session between COMMIT and the second look, after an administrator's `sql`."""
    run_file = database_module.Session.run_file

    def run_and_lose(session: database_module.Session, *args: Any, **kwargs: Any) -> list[list[Any]]:
        rows = run_file(session, *args, **kwargs)
        database.run(sql)
        database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg-hotfix'")
        return rows

    monkeypatch.setattr(database_module.Session, "run_file", run_and_lose)
