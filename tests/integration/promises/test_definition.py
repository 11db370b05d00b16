"""What PostgreSQL can't make of an expect line: `check`, `plan` and `apply` say so before any lock is taken, and run
nothing for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from pg8000.exceptions import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

# Not looked up in the server: which cases there are depends on it.
VERSION = int(os.environ.get("PG_VERSION") or 17)
CORRECT = "Correct it in the file. Write every name with its schema, except PostgreSQL's own names."

OBJECTS = """
CREATE TABLE public.rides (id int);
CREATE TABLE public.rides_1 () INHERITS (public.rides);
CREATE TABLE public.plain (id int, price numeric);
CREATE TABLE public.split (id int) PARTITION BY RANGE (id);
CREATE TABLE public.split_1 PARTITION OF public.split DEFAULT;
CREATE TYPE public.mood AS ENUM ('ok', 'bad');
CREATE DOMAIN public.key AS int;
CREATE TYPE public.trip AS (ride public.rides, price numeric);
CREATE DOMAIN public.trips AS public.trip[];
CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE SEQUENCE public.numbers;
"""


@pytest.fixture
def refused(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> Callable[..., Outcome]:
    """The refusal of a file that adds such a column. `check`, `plan` and `apply` agree in it while somebody holds the
    table: nobody waits. The server refuses the SQL as well, with that SQLSTATE."""

    def refused(definition: str, sqlstate: str, expected: str | None = None, table: str = "plain") -> Outcome:
        database.run_as_owner(OBJECTS)
        sql = f"ALTER TABLE public.{table} ADD COLUMN IF NOT EXISTS a {definition};"
        with pytest.raises(DatabaseError) as by_server:
            database.run_as_owner(sql)
        assert by_server.value.args[0]["C"] == sqlstate
        hotfix_id = write_hotfix(sql, f"public.{table}.a {expected or definition}")
        with database.connect() as other:
            other.run(f"BEGIN; LOCK TABLE public.{table} IN ACCESS EXCLUSIVE MODE")
            outcomes = [invoke(action, hotfix_id) for action in ("check", "plan", "apply")]
        assert {outcome.text for outcome in outcomes} == {outcomes[0].text}
        assert outcomes[0].error_name == "HotfixFileError"
        return outcomes[0]

    return refused


ID = "20260301101500_change_something"

# Defaults and generation expressions


@pytest.mark.parametrize(
    ("definition", "sqlstate", "column_type", "reason"),
    [
        ("int default now()", "42804", "integer", "42804"),
        ("int default '1'::text", "42804", "integer", "42804"),
        ("bool default 1", "42804", "boolean", "42804"),
        ("public.mood default 'ok'::text", "42804", "public.mood", "42804"),
        ("int default 'x'", "22P02", "integer", '22P02: invalid input syntax for type integer: "x"'),
        ("int default 'x'::int", "22P02", "integer", '22P02: invalid input syntax for type integer: "x"'),
        ("jsonb default '{'::jsonb", "22P02", "jsonb", "22P02: invalid input syntax for type json"),
        (
            "public.mood default 'good'::public.mood",
            "22P02",
            "public.mood",
            '22P02: invalid input value for enum public.mood: "good"',
        ),
        ("int default public.nothing()", "42883", "integer", "42883: function public.nothing() does not exist"),
        (
            "bigint default nextval('public.nothing'::regclass)",
            "42P01",
            "bigint",
            '42P01: relation "public.nothing" does not exist',
        ),
        ("int default 'a'::public.nothing::int", "42704", "integer", None),
        (
            "int default now() + 1",
            "42883",
            "integer",
            "42883: operator does not exist: timestamp with time zone + integer",
        ),
        ("int default (1", "42601", "integer", None),
    ],
)
def test_a_default_that_postgresql_does_not_take_is_refused(
    refused: Callable[..., Outcome],
    invoke: Invoke,
    write_hotfix: WriteHotfix,
    database: Database,
    definition: str,
    sqlstate: str,
    column_type: str,
    reason: str | None,
) -> None:
    if reason is None:  # Nothing of ours parses it: only the server says so, when the file runs.
        database.run_as_owner(OBJECTS)
        sql = f"ALTER TABLE public.plain ADD COLUMN IF NOT EXISTS a {definition};"
        hotfix_id = write_hotfix(sql, f"public.plain.a {definition}")
        assert invoke("plan", hotfix_id).result == "would_apply"
        assert f"({sqlstate}: " in invoke("apply", hotfix_id).text
        return
    outcome = refused(definition, sqlstate)
    default = definition.partition("default ")[2]
    assert outcome.text == (
        f"sql/{ID}.sql expects public.plain.a to have the default {default}, which PostgreSQL does not accept for a"
        f" column of the type {column_type} ({reason}). Nothing was changed. {CORRECT}"
    )


@pytest.mark.parametrize(
    "definition",
    [
        "int default 1.5",
        "text default 1",
        "text default 'it''s'::text",
        "varchar(9) default 'a'::character varying",
        "date default now()",
        "timestamptz default CURRENT_TIMESTAMP",
        "timestamptz default (now() + '01:00:00'::interval)",
        "uuid default gen_random_uuid()",
        "text[] default '{}'::text[]",
        "text[] default ARRAY[]::text[]",
        "numeric(10,2) default 0",
        "interval default '1 day'::interval",
        "public.mood default 'ok'::public.mood",
        "public.mood[] default '{ok}'::public.mood[]",
        "public.key default 3",
        "int default public.one()",
        "bigint default nextval('public.numbers'::regclass)",
        "text default (CURRENT_USER)::text",
        "boolean not null default false",
        "int default NULL",
        "numeric generated always as (price * (2)::numeric) stored",
        "text generated always as (((tableoid)::text || (id)::text)) stored",
    ],
)
def test_a_default_that_postgresql_takes_is_no_obstacle(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, definition: str
) -> None:
    database.run_as_owner(OBJECTS)
    sql = f"ALTER TABLE public.plain ADD COLUMN IF NOT EXISTS a {definition};"
    database.run_as_owner(f"BEGIN; {sql} ROLLBACK")
    hotfix_id = write_hotfix(sql, f"public.plain.a {definition}")
    assert (invoke("check", hotfix_id).error, invoke("plan", hotfix_id).result) == (None, "would_apply")


def test_a_generated_column_of_a_missing_one_is_refused(refused: Callable[..., Outcome]) -> None:
    outcome = refused("numeric generated always as (prize * 2::numeric) stored", "42703")
    assert outcome.text == (
        f"sql/{ID}.sql expects public.plain.a to be generated always as (prize * 2::numeric) stored, which PostgreSQL"
        ' does not accept for a column of the type numeric (42703: column "prize" does not exist). Nothing was'
        f" changed. {CORRECT}"
    )


def test_a_generated_column_may_be_made_of_one_that_the_file_adds(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(OBJECTS)
    add = "ALTER TABLE public.plain ADD COLUMN IF NOT EXISTS"
    hotfix_id = write_hotfix(
        f"{add} tax numeric; {add} gross numeric GENERATED ALWAYS AS (price + tax) STORED;",
        "public.plain.gross numeric generated always as (price + tax) stored",
    )
    assert [invoke(action, hotfix_id).result for action in ("check", "apply")] == ["ready", "applied"]


def test_what_the_file_creates_is_left_to_apply(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> None:
    create = "CREATE OR REPLACE FUNCTION public.two() RETURNS int LANGUAGE sql AS 'SELECT 2';"
    hotfix_id = write_hotfix(
        f"{create} ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int DEFAULT public.two();",
        "public.drivers.a int default public.two()",
    )
    assert [invoke(action, hotfix_id).result for action in ("check", "plan")] == ["ready", "would_apply"]


HOSTILE = """
CREATE TABLE public.seen (what text);
GRANT ALL ON public.seen TO PUBLIC;
CREATE FUNCTION public.note(what anyelement) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RAISE EXCEPTION 'it ran'; END $$;
CREATE FUNCTION public.run() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE EXCEPTION 'it ran'; END $$;
CREATE DOMAIN public.checked AS int CHECK (public.note(VALUE));
CREATE TYPE public.pair AS (a public.checked, b int);
CREATE TYPE public.span AS RANGE (subtype = int);
CREATE CAST (public.pair AS int) WITH FUNCTION public.from_pair(public.pair) AS ASSIGNMENT;
"""


@pytest.mark.parametrize(
    "definition",
    [
        "int default public.run()",
        "int default (1 + public.run())",
        "public.checked default 1",
        "public.checked default '1'::public.checked",
        "public.checked[] default '{1}'::public.checked[]",
        "public.checked[] default '{1}'",
        "public.checked[] default ARRAY['1'::public.checked]",
        "public.pair default '(1,2)'::public.pair",
        "public.pair default ROW('1', 2)::public.pair",
        "int default ('{1}'::public.checked[])[1]",
        "int default (('{1}')::public.checked[])[1]",
        "int default (CAST('{1}' AS public.checked[]))[1]",
        "int default ((E'{1}'::public.checked[]))[1]",
        "int default (($a${1}$a$::public.checked[]))[1]",
        "int default (public.checked[] '{1}')[1]",
        "int default (SELECT public.run())",
        "int default 1); SELECT public.run(); SELECT (1",
    ],
)
@pytest.mark.parametrize("action", ["check", "plan"])
def test_nothing_of_a_default_is_run(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, definition: str, action: str
) -> None:
    database.run(HOSTILE.replace("CREATE CAST", "CREATE FUNCTION public.from_pair(public.pair) RETURNS int LANGUAGE"
                                 " plpgsql AS $$ BEGIN RAISE EXCEPTION 'it ran'; END $$; CREATE CAST"))  # fmt: skip
    outcome = invoke(action, write_hotfix("ALTER TABLE drivers ADD COLUMN a int;", f"public.drivers.a {definition}"))
    assert "P0001" not in outcome.text
    assert "it ran" not in outcome.text


# Types and collations


def test_a_type_that_neither_exists_nor_is_created_is_refused(refused: Callable[..., Outcome]) -> None:
    outcome = refused("public.moods", "42704")
    assert outcome.text == (
        f"sql/{ID}.sql expects public.plain.a to have the type public.moods, which does not exist, and the file does"
        " not create it. Nothing was changed. Correct the type, with its schema unless it is PostgreSQL's own, or"
        " create it in the file."
    )


def test_a_collation_that_does_not_exist_is_refused(refused: Callable[..., Outcome]) -> None:
    outcome = refused('text collate "nowhere"', "42704")
    assert outcome.text == (
        f"sql/{ID}.sql expects public.plain.a to have the collation nowhere, which does not exist, and the file does"
        " not create it. Nothing was changed. Correct it; those that exist:  SELECT collname FROM pg_collation;"
    )


def test_a_collation_of_a_type_that_has_none_is_refused(refused: Callable[..., Outcome]) -> None:
    outcome = refused('int collate "C"', "42804")
    assert outcome.text == (
        f'sql/{ID}.sql expects public.plain.a to have the collation "C", which the type integer cannot have. Nothing'
        " was changed. Remove the collation."
    )


@pytest.mark.parametrize("type_name", ["public.hidden", "public.hidden[]", "public.hidden_key"])
@pytest.mark.parametrize("action", ["check", "plan", "apply"])
def test_a_type_that_the_role_may_not_use_is_told_with_its_grant(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, type_name: str, action: str
) -> None:
    database.run("CREATE TYPE public.hidden AS ENUM ('a'); REVOKE USAGE ON TYPE public.hidden FROM PUBLIC")
    database.run("CREATE DOMAIN public.hidden_key AS int; REVOKE USAGE ON TYPE public.hidden_key FROM PUBLIC")
    sql = f"ALTER TABLE public.drivers ADD COLUMN IF NOT EXISTS a {type_name};"
    hotfix_id = write_hotfix(sql, f"public.drivers.a {type_name}")
    outcome = invoke(action, hotfix_id)
    assert outcome.error_name == "NotOwnerError"
    name = type_name.removesuffix("[]")
    assert outcome.text == (
        f"{database.user} lacks USAGE on the type {type_name} of public.drivers.a. Nothing was changed. Grant it:"
        f'  GRANT USAGE ON TYPE {name} TO "{database.user}";'
    )
    database.run(outcome.text.rpartition("it:  ")[2])
    assert invoke("apply", hotfix_id).result == "applied"


@pytest.mark.parametrize(
    ("table", "type_name", "holds"),
    [
        ("rides", "public.rides", "public.rides"),
        ("rides", "public.rides[]", "public.rides[]"),
        ("rides", "public.trip", "public.trip"),
        ("rides", "public.trips", "public.trips"),
    ],
)
def test_a_type_that_holds_the_tables_own_rows_is_refused(
    refused: Callable[..., Outcome], table: str, type_name: str, holds: str
) -> None:
    outcome = refused(type_name, "42P16", table=table)
    assert outcome.text == (
        f"sql/{ID}.sql expects public.rides.a to have the type {holds}, which holds rows of public.rides itself."
        " Nothing was changed. Give it another type, such as jsonb or the row's key."
    )


def test_a_type_that_holds_a_childs_rows_is_refused(refused: Callable[..., Outcome]) -> None:
    assert "which holds rows of public.rides_1 itself." in refused("public.rides_1", "42P16", table="rides").text


@pytest.mark.skipif(VERSION >= 18, reason="PostgreSQL 18 has virtual columns")
def test_a_virtual_column_is_refused_where_there_are_none(refused: Callable[..., Outcome], database: Database) -> None:
    outcome = refused("int generated always as (id * 2) virtual", "42601")
    ((version,),) = database.run("SELECT split_part(current_setting('server_version'), ' ', 1)")
    assert outcome.text == (
        f"sql/{ID}.sql expects public.plain.a to be virtual, which PostgreSQL {version} does not know. Nothing was"
        " changed. Write  stored  instead, or remove the clause."
    )


# Identities


@pytest.mark.parametrize(
    ("type_name", "shown"), [("text", "text"), ("numeric", "numeric"), ("public.key", "public.key")]
)
def test_an_identity_of_another_type_is_refused(refused: Callable[..., Outcome], type_name: str, shown: str) -> None:
    outcome = refused(f"{type_name} not null generated always as identity", "22023")
    assert outcome.text == (
        f"sql/{ID}.sql expects public.plain.a to be an identity of the type {shown}. Nothing was changed."
        " An identity is smallint, integer or bigint: correct the type."
    )


def test_an_identity_that_may_be_null_is_refused(refused: Callable[..., Outcome]) -> None:
    outcome = refused("int null generated always as identity", "42601")
    assert outcome.text == (
        f"sql/{ID}.sql expects public.plain.a to be an identity that may be NULL. Nothing was changed."
        " An identity is NOT NULL: write  not null generated always as identity"
    )


@pytest.mark.parametrize("table", ["rides", "split"])
def test_an_identity_of_a_table_with_children_is_refused_where_it_is(
    refused: Callable[..., Outcome], invoke: Invoke, write_hotfix: WriteHotfix, database: Database, table: str
) -> None:
    definition = "bigint not null generated by default as identity"
    if table == "split" and VERSION >= 17:
        database.run_as_owner(OBJECTS)
        sql = f"ALTER TABLE public.split ADD COLUMN IF NOT EXISTS a {definition};"
        assert invoke("apply", write_hotfix(sql, f"public.split.a {definition}")).result == "applied"
        return
    outcome = refused(definition, "42P16", table=table)
    ((version,),) = database.run("SELECT split_part(current_setting('server_version'), ' ', 1)")
    children = "partitions" if table == "split" else "inheritance children"
    assert outcome.text == (
        f"sql/{ID}.sql expects public.{table}.a to be an identity, which PostgreSQL {version} cannot add to a table"
        f" with {children}. Nothing was changed. Add a bigint column with a sequence's nextval as its default."
    )


# Rows


@pytest.mark.parametrize(
    "stored",
    [
        "CREATE TABLE public.log (ride public.rides)",
        "CREATE TABLE public.log (ride public.rides[])",
        "CREATE TABLE public.log (ride public.trips)",
        "CREATE TABLE public.log (ride public.rides_1)",
        "CREATE MATERIALIZED VIEW public.log AS SELECT r AS ride FROM public.rides r",
    ],
)
@pytest.mark.parametrize("action", ["check", "plan", "apply"])
def test_a_default_in_rows_that_others_store_is_refused(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, stored: str, action: str
) -> None:
    database.run_as_owner(f"{OBJECTS} {stored}")
    sql = "ALTER TABLE public.rides ADD COLUMN IF NOT EXISTS a int DEFAULT 3;"
    with pytest.raises(DatabaseError, match="uses its row type"):
        database.run_as_owner(sql)
    outcome = invoke(action, write_hotfix(sql, "public.rides.a int default 3"))
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        "PostgreSQL cannot add a column with a value in every row to public.rides, because the column public.log.ride"
        " stores whole rows of public.rides (0A000). Nothing was changed. Add the column without a default, and set"
        " the default for"
        ' later rows in a second statement:  ALTER TABLE "public"."rides" ALTER COLUMN "a" SET DEFAULT ...;'
    )
    two = f"{sql.replace(' DEFAULT 3', '')} ALTER TABLE public.rides ALTER COLUMN a SET DEFAULT 3;"
    assert invoke("apply", write_hotfix(two, "public.rides.a int default 3")).result == "applied"


@pytest.mark.parametrize(
    "definition", ["text generated always as (upper(name)) stored", "integer not null generated always as identity"]
)
def test_a_computed_column_in_rows_that_others_store_is_refused_without_a_line_that_no_column_of_its_kind_takes(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, definition: str
) -> None:
    database.run_as_owner("CREATE TABLE public.log (driver public.drivers)")
    sql = f"ALTER TABLE public.drivers ADD COLUMN IF NOT EXISTS a {definition};"
    with pytest.raises(DatabaseError, match="uses its row type"):
        database.run_as_owner(sql)
    outcome = invoke("plan", write_hotfix(sql, f"public.drivers.a {definition}"))
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        "PostgreSQL cannot add a column with a value in every row to public.drivers, because the column"
        " public.log.driver stores whole rows of public.drivers (0A000). Nothing was changed. Drop public.log.driver,"
        " or give it another type, before you"
        " add a generated column or an identity."
    )


def test_a_column_without_a_value_may_be_added_to_rows_that_others_store(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(f"{OBJECTS} CREATE TABLE public.log (ride public.rides)")
    sql = "ALTER TABLE public.rides ADD COLUMN IF NOT EXISTS a text;"
    assert invoke("apply", write_hotfix(sql, "public.rides.a text")).result == "applied"


@pytest.mark.parametrize(("table", "filled"), [("plain", "plain"), ("rides", "rides_1"), ("split", "split")])
@pytest.mark.parametrize("action", ["check", "plan", "apply"])
def test_not_null_without_a_default_is_refused_where_rows_are(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, table: str, filled: str, action: str
) -> None:
    database.run_as_owner(f"{OBJECTS} INSERT INTO public.{filled} (id) VALUES (1)")
    sql = f"ALTER TABLE public.{table} ADD COLUMN IF NOT EXISTS a int NOT NULL;"
    with pytest.raises(DatabaseError, match="contains null values"):
        database.run_as_owner(sql)
    hotfix_id = write_hotfix(sql, f"public.{table}.a int not null")
    outcome = invoke(action, hotfix_id)
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == (
        f"sql/{hotfix_id}.sql adds public.{table}.a as NOT NULL without a default, and public.{table} has rows:"
        " PostgreSQL refuses that (23502). Nothing was changed. Give the column a default, or remove NOT NULL, in the"
        " SQL and in the expect line."
    )
    database.run_as_owner(f"DELETE FROM public.{filled}")
    assert invoke("apply", hotfix_id).result == "applied"


def test_not_null_is_left_to_apply_where_the_file_fills_the_rows(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(f"{OBJECTS} INSERT INTO public.plain VALUES (1)")
    sql = (
        "ALTER TABLE public.plain ADD COLUMN IF NOT EXISTS a int; UPDATE public.plain SET a = 0 WHERE a IS NULL;"
        " ALTER TABLE public.plain ALTER COLUMN a SET NOT NULL;"
    )
    hotfix_id = write_hotfix(sql, "public.plain.a int not null")
    assert [invoke(action, hotfix_id).result for action in ("check", "apply")] == ["ready", "applied"]


def test_not_null_waits_for_nobody_who_holds_the_table(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(f"{OBJECTS} INSERT INTO public.plain VALUES (1)")
    hotfix_id = write_hotfix(
        "ALTER TABLE plain ADD COLUMN IF NOT EXISTS a int NOT NULL;", "public.plain.a int not null"
    )
    with database.connect() as other:
        other.run("BEGIN; LOCK TABLE public.plain IN ACCESS EXCLUSIVE MODE")
        outcome = invoke("plan", hotfix_id)
    assert (outcome.result, len(outcome.response["blockers"])) == ("would_apply", 1)
