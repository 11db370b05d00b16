"""`gate`: what the application expects, held against a real database; all that is missing or differs, in one answer."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from pg_hotfix.promises.column import catalog
from pg_hotfix.server import session as database_module
from tests.integration.function.test_actions import CONTRACT, OURS, snapshot
from tests.integration.promises.test_columns import DIFFERENT, SAME, TYPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Database, Outcome

    Gate = Callable[..., Outcome]

EXPECTED = ("public.drivers.id uuid not null", "public.drivers.name text not null")
ACTIVE_SINCE = "public.drivers.active_since timestamp with time zone null"
UNTOUCHED = "Nothing was contacted and nothing was changed."
END = (
    "Do not deploy the application before this passes.\n"
    "If the list is wrong, write it again, and deploy it:  ./pg-hotfix expect-schema schema.sql"
)
UNREADABLE = "has an expect line that cannot be read (the column is not named as schema.table.column)"
NAME_ALL = "Name all three, such as public.drivers.active_since."
HOTFIXES = "Write a hotfix for each table that lacks columns; have it reviewed, deploy it, and apply it:"
NOT_BY_HOTFIX = (
    "needs a separate migration. A hotfix only adds columns. If the table has rows, a hotfix cannot add a column"
    " that is NOT NULL without a default, or whose default calls a function other than now()."
)


@pytest.fixture
def gate(invoke: Callable[..., Outcome], sql_dir: Path) -> Gate:
    """Packages the list of these columns, and calls the gate."""

    def gate(*columns: str, **fields: Any) -> Outcome:
        lines = ["-- What the application expects.", *(f"-- expect: column {column}" for column in columns), ""]
        (sql_dir / "schema.expect").write_text("\n".join(lines))
        return invoke("gate", None, **fields)

    return gate


def test_a_database_with_all_that_is_expected_passes_and_is_left_as_it_is(
    gate: Gate, database: Database, sql_dir: Path
) -> None:
    database.run_as_owner("CREATE TABLE more (id int); ALTER TABLE drivers ADD COLUMN beyond_the_list int")
    before = snapshot(database)
    outcome = gate(*EXPECTED, reason="before the deploy", requested_by="ana")
    assert (outcome.error, outcome.result) == (None, "passed")
    assert outcome.response.keys() == CONTRACT | OURS
    assert outcome.response["summary"] == "As the application expects: 2 columns of 1 table."
    told = {name: outcome.response[name] for name in ("objects", "tables", "hotfixes", "hotfix", "sql", "plan_hash")}
    assert told == {"objects": [], "tables": [], "hotfixes": [], "hotfix": None, "sql": None, "plan_hash": None}
    content = (sql_dir / "schema.expect").read_bytes()
    assert outcome.response["sql_sha256"] == hashlib.sha256(content).hexdigest()
    assert {key: outcome.line.get(key) for key in outcome.response} == outcome.response
    assert snapshot(database) == before


def test_the_incidents_column_is_named_with_the_line_that_adds_it(gate: Gate) -> None:
    outcome = gate(*EXPECTED, ACTIVE_SINCE)
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"The database {outcome_database(outcome)} is not as the application expects: of 3 columns 1 missing, 0"
        " different. Nothing was changed.\n"
        "  public.drivers.active_since\n"
        "    expected  timestamp with time zone null\n"
        "    actual    missing\n"
        f"{HOTFIXES}\n"
        '  ./pg-hotfix new add_drivers_active_since --sql \'ALTER TABLE "public"."drivers" ADD COLUMN IF NOT EXISTS'
        ' "active_since" timestamp with time zone null\'\n'
        f"{END}"
    )
    (column,) = outcome.line["columns"]
    assert (column["name"], column["actual"], column["matches"]) == ("public.drivers.active_since", "missing", False)
    assert outcome.metric("Failed") == 1


def outcome_database(outcome: Outcome) -> str:
    return outcome.text.removeprefix("The database ").partition(" ")[0]


def test_everything_that_is_missing_or_differs_is_in_one_answer(gate: Gate, database: Database) -> None:
    database.run_as_owner(
        'CREATE SCHEMA app; CREATE TABLE app.riders (id int); CREATE TABLE "Trips" (id int); CREATE VIEW trips AS'
        ' SELECT id FROM drivers; CREATE TABLE app."Payment" (id bigint NOT NULL, amount numeric(10,2), "paidAt" date)'
    )
    outcome = gate(
        *EXPECTED,
        "public.drivers.colour text null default '#fff'::text",
        "public.drivers.rating smallint not null default 5",
        "public.drivers.email text not null",
        "public.drivers.mood public.mood null",
        "public.drivers.number integer not null generated always as identity",
        "public.riders.id integer null",
        "public.riders.name text null",
        "public.trips.id uuid null",
        'app."Payment".id integer not null',
        'app."Payment".amount numeric(10,3) null',
        'app."Payment"."paidat" date null',
        'app."Payment"."it\'s" date null',
        "nowhere.cars.id integer null",
    )
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"The database {database.name} is not as the application expects: of 15 columns 10 missing, 3 different."
        " Nothing was changed.\n"
        "  nowhere.cars  missing, with 1 column\n"
        "  public.riders  missing, with 2 columns; there is app.riders\n"
        "  public.trips  is a view, not a table, with 1 column\n"
        '  app."Payment".id\n'
        "    expected  integer not null\n"
        "    actual    bigint not null\n"
        '  app."Payment".amount\n'
        "    expected  numeric(10,3) null\n"
        "    actual    numeric(10,2) null\n"
        '  app."Payment".paidat\n'
        "    expected  date null\n"
        "    actual    missing\n"
        '  app."Payment"."it\'s"\n'
        "    expected  date null\n"
        "    actual    missing\n"
        "  public.drivers.colour\n"
        "    expected  text null default '#fff'::text\n"
        "    actual    missing\n"
        "  public.drivers.rating\n"
        "    expected  smallint not null default 5\n"
        "    actual    missing\n"
        "  public.drivers.email\n"
        "    expected  text not null\n"
        "    actual    missing\n"
        "  public.drivers.mood\n"
        "    expected  public.mood (no such type) null\n"
        "    actual    missing\n"
        "  public.drivers.number\n"
        "    expected  integer not null generated always as identity\n"
        "    actual    missing\n"
        f"{HOTFIXES}\n"
        '  ./pg-hotfix new add_payment_columns --sql \'ALTER TABLE "app"."Payment" ADD COLUMN IF NOT EXISTS "paidat"'
        " date null, ADD COLUMN IF NOT EXISTS \"it'\"'\"'s\" date null'\n"
        '  ./pg-hotfix new add_drivers_columns --sql \'ALTER TABLE "public"."drivers" ADD COLUMN IF NOT EXISTS'
        ' "colour" text null default \'"\'"\'#fff\'"\'"\'::text, ADD COLUMN IF NOT EXISTS "rating" smallint not null'
        " default 5'\n"
        f"The rest {NOT_BY_HOTFIX}\n"
        f"{END}"
    )
    told = {column["name"]: column["actual"] for column in outcome.line["columns"]}
    assert len(told) == 13
    assert (told["public.trips.id"], told["public.riders.name"]) == ("in a view", "missing")


@pytest.mark.parametrize(
    "default",
    [
        "gen_random_uuid()",
        "nextval('drivers_number_seq'::regclass)",
        "clock_timestamp()",
        "random()",
        "random(1, 10)",
        "(now() - '1 day'::interval * random())",
        "app.now()",
        'app."Next Number"()',
    ],
)
def test_what_no_hotfix_can_do_is_not_proposed_as_one(gate: Gate, database: Database, default: str) -> None:
    outcome = gate(
        "public.drivers.id uuid null",
        f"public.drivers.key text not null default {default}",
        "public.drivers.n int null",
    )
    assert outcome.text == (
        f"The database {database.name} is not as the application expects: of 3 columns 2 missing, 1 different."
        " Nothing was changed.\n"
        "  public.drivers.id\n"
        "    expected  uuid null\n"
        "    actual    uuid not null\n"
        "  public.drivers.key\n"
        f"    expected  text not null default {default}\n"
        "    actual    missing\n"
        "  public.drivers.n\n"
        "    expected  integer null\n"
        "    actual    missing\n"
        f"{HOTFIXES}\n"
        '  ./pg-hotfix new add_drivers_n --sql \'ALTER TABLE "public"."drivers" ADD COLUMN IF NOT EXISTS "n" integer'
        " null'\n"
        f"The rest {NOT_BY_HOTFIX}\n"
        f"{END}"
    )


@pytest.mark.parametrize(
    "default",
    [
        "now()",
        "CURRENT_TIMESTAMP(3)",
        "(now() AT TIME ZONE 'utc'::text)",
        "'random()'::text",
        "'it''s random()'::character varying(20)",
        "0::numeric(10,2)",
        "'x'::app.\"Short text (20)\"",
        "ARRAY[]::text[]",
    ],
)
def test_a_default_that_a_filled_table_takes_at_once_is_proposed(gate: Gate, default: str) -> None:
    outcome = gate(f"public.drivers.since text not null default {default}")
    assert "  ./pg-hotfix new add_drivers_since --sql " in outcome.text
    assert "a separate migration" not in outcome.text


@pytest.mark.parametrize(("ddl", "expectation", "expected", "actual"), DIFFERENT)
def test_a_column_that_differs_is_told_apart(
    gate: Gate, database: Database, ddl: str, expectation: str, expected: str, actual: str
) -> None:
    database.run_as_owner(f"{TYPES} ALTER TABLE public.plain ADD COLUMN a {ddl}")
    outcome = gate(f"public.plain.a {expectation}")
    assert f"\n  public.plain.a\n    expected  {expected}\n    actual    {actual}\nThis needs" in outcome.text
    assert gate(f"public.plain.a {actual}").result == "passed"


@pytest.mark.parametrize(("ddl", "expected"), SAME)
def test_the_same_column_in_other_words_passes(gate: Gate, database: Database, ddl: str, expected: str) -> None:
    database.run_as_owner(f'{TYPES} ALTER TABLE public."Driver" ADD COLUMN "activeSince" {ddl}')
    assert gate(f'public."Driver"."activeSince" {expected}').result == "passed"
    other_case = gate(f"public.driver.activesince {expected}")
    assert 'public.driver  missing, with 1 column; there is public."Driver"\n' in other_case.text


@pytest.mark.parametrize(
    ("ddl", "expected", "result"),
    [
        ("timestamptz", "timestamp(6) with time zone", "passed"),
        ("timestamp(6)[]", "timestamp[]", "passed"),
        ("time(6) not null", "time not null", "passed"),
        ("interval", "interval(6)", "passed"),
        ("timestamptz", "timestamptz(3)", None),
        ("timestamptz", "timestamp(6)", None),
        ("timestamptz", "timestamptz(6) not null", None),
    ],
)
def test_a_precision_that_a_type_has_anyway_makes_no_difference(
    gate: Gate, database: Database, ddl: str, expected: str, result: str | None
) -> None:
    database.run_as_owner(f"ALTER TABLE drivers ADD COLUMN a {ddl}")
    assert gate(f"public.drivers.a {expected}").result == result


def test_the_search_path_of_the_role_is_of_no_account(gate: Gate, database: Database) -> None:
    """A bare name on the list is that of the column's own schema, as where the list was written."""
    database.run_as_owner(
        "CREATE SCHEMA app; CREATE SCHEMA other; CREATE TYPE app.mood AS ENUM ('x'); CREATE TYPE other.mood AS ENUM"
        " ('x'); CREATE TABLE app.t (a app.mood DEFAULT 'x', b other.mood DEFAULT 'x'); CREATE TABLE public.t (b"
        " other.mood)"
    )
    columns = ("app.t.a app.mood null default 'x'::app.mood", "app.t.b other.mood null default 'x'::other.mood")
    for search_path in ("public", "other, app", "''"):
        database.run(f"ALTER ROLE {database.user} SET search_path = {search_path}")
        assert gate(*columns, "public.t.b other.mood null").result == "passed"
        refused = gate(*columns, "public.t.b mood null")
        assert "  public.t.b\n    expected  mood (no such type) null\n    actual    other.mood null\n" in refused.text


def test_a_role_without_any_privilege_and_a_read_only_one_can_look(gate: Gate, database: Database) -> None:
    database.run(
        "ALTER TABLE public.drivers OWNER TO postgres; REVOKE ALL ON SCHEMA public FROM public;"
        f"ALTER SCHEMA public OWNER TO postgres; ALTER ROLE {database.user} SET default_transaction_read_only = on"
    )
    assert gate(*EXPECTED).result == "passed"


def test_whoever_keeps_it_from_looking_is_named_and_nobody_else(gate: Gate, database: Database) -> None:
    database.run_as_owner("ALTER TABLE drivers ALTER COLUMN name SET DEFAULT 'x'; CREATE TABLE riders (id int)")
    expected = ("public.drivers.name text not null default 'x'::text", "public.riders.id int")
    with database.connect() as reader, database.connect() as holder:
        reader.run("BEGIN; LOCK TABLE riders IN ACCESS SHARE MODE")
        holder.run("BEGIN; LOCK TABLE drivers IN ACCESS EXCLUSIVE MODE")
        ((pid,),) = holder.run("SELECT pg_backend_pid()")
        outcome = gate(*expected)
    assert outcome.error_name == "LockBusyError"
    assert outcome.text == (
        "A table of sql/schema.expect could not be read: another session holds, or waits for, an ACCESS EXCLUSIVE lock"
        " on it."
        " Nothing was changed.\n"
        f"In the way: pid {pid} (postgres), ACCESS EXCLUSIVE on public.drivers.\n"
        f"Wait until it ends, or end it now (its transaction is rolled back):  SELECT pg_terminate_backend({pid});"
    )
    assert gate(*expected).result == "passed"


# Thousands


def test_three_thousand_columns_of_a_thousand_types_are_seen_in_a_moment(
    gate: Gate, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target list ends at 1664, and the types of the columns are asked for in target lists."""
    assert catalog.TYPES_AT_ONCE < 1000 < 1664 < 3000
    names = [(table, column) for table in range(30) for column in range(100)]
    kinds = {name: f"numeric({number % 1000 + 1},0)" for number, name in enumerate(names)}
    database.run_as_owner(
        ";".join(
            f"CREATE TABLE t{table} ({', '.join(f'c{column} {kinds[table, column]}' for column in range(100))})"
            for table in range(30)
        )
    )
    columns = [f"public.t{table}.c{column} {kinds[table, column]}" for table, column in names]
    sent: list[str] = []
    query = database_module.Session.query

    def note_and_ask(session: database_module.Session, sql: str) -> list[list[Any]]:
        sent.append(sql)
        return query(session, sql)

    monkeypatch.setattr(database_module.Session, "query", note_and_ask)
    outcome = gate(*columns)
    assert (outcome.error, outcome.result) == (None, "passed")
    assert len(sent) <= 10, [sql[:60] for sql in sent]
    assert outcome.response["summary"] == "As the application expects: 3000 columns of 30 tables."
    assert len(outcome.logs[0]["summary"]) < 100
    database.run_as_owner("ALTER TABLE t29 DROP COLUMN c99; ALTER TABLE t7 ALTER COLUMN c0 TYPE numeric(3,1)")
    outcome = gate(*columns)
    assert "of 3000 columns 1 missing, 1 different." in outcome.text
    assert [column["name"] for column in outcome.line["columns"]] == ["public.t29.c99", "public.t7.c0"]


def test_another_database_is_told_in_a_text_that_the_state_machine_can_hold(gate: Gate, database: Database) -> None:
    tables = [f"CREATE TABLE u{number} (id int)" for number in range(20)]
    there = ", ".join(f"колонка{number} int" for number in range(800))
    database.run_as_owner(f"CREATE TABLE t ({there}); {'; '.join(tables)}")
    columns = [f'public.t."колонка{number}" bigint' for number in range(800)]
    columns += [f'public.u{table}."дополнительная{number}" int' for table in range(20) for number in range(15)]
    outcome = gate(*columns, *(f"public.other{number}.id int" for number in range(100)))
    assert "of 1200 columns 400 missing, 800 different." in outcome.text
    assert "  public.other99  missing, with 1 column\n" in outcome.text
    assert " more: is it the right database?\n" in outcome.text
    assert outcome.text.count("  ./pg-hotfix new add_u") == 2
    assert " integer null'\n  and so on\nThe rest" in outcome.text
    assert 20_000 < len(json.dumps(outcome.text)) < 28_000
    assert len(outcome.line["columns"]) == 500


def test_a_hotfix_too_long_for_the_text_is_told_of_without_its_sql(gate: Gate) -> None:
    outcome = gate(*(f'public.drivers."дополнительная{number}" int' for number in range(100)))
    assert f"{HOTFIXES}\n  ./pg-hotfix new NAME --sql 'ALTER TABLE ...'\nDo not deploy" in outcome.text


# The file


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            "-- expect: column public.drivers.id uuid\nSELECT 1;",
            "contains more than expect lines. {} It is a list of columns only.",
        ),
        (
            "-- expect: column public.drivers.id uuid\n-- allow: scan it is small\n",
            "contains more than expect lines. {} It is a list of columns only.",
        ),
        (
            "-- Nothing.\n",
            "expects no column. {} Add a line such as  -- expect: column public.drivers.active_since timestamptz null",
        ),
        (
            "-- expect: column public.drivers.id uuid\n-- expect: column public.Drivers.ID int\n",
            "expects the same column twice. {} Keep one line for each column.",
        ),
        (
            "-- expect: column drivers.id uuid\n",
            f"{UNREADABLE}: -- expect: column drivers.id uuid. {{}} {NAME_ALL}",
        ),
    ],
)
@pytest.mark.parametrize("action", ["gate", "check"])
def test_a_list_that_cannot_be_read_is_refused_before_anything_is_contacted(
    invoke: Callable[..., Outcome],
    sql_dir: Path,
    write_hotfix: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    text: str,
    action: str,
) -> None:
    write_hotfix("ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int;", "public.drivers.a int")
    (sql_dir / "schema.expect").write_text(content)
    monkeypatch.setenv("DB_SECRET_ARN", "arn:aws:secretsmanager:sa-east-1:123456789012:secret:nobody-asks-for-it")
    outcome = invoke(action, None)
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == f"sql/schema.expect {text.format(UNTOUCHED)}"


def test_a_type_that_no_column_can_have_is_refused_by_the_lists_name(gate: Gate) -> None:
    for written in ("numeric(0,5000)", "anyelement"):
        outcome = gate(f"public.drivers.id {written}")
        assert outcome.error_name == "HotfixFileError"
        assert outcome.text.startswith(
            f"sql/schema.expect expects public.drivers.id to have the type {written}, which PostgreSQL does not"
            " accept for a column ("
        )


def test_check_proves_the_files_and_asks_for_no_table_of_the_list(
    invoke: Callable[..., Outcome], sql_dir: Path, write_hotfix: Callable[..., str]
) -> None:
    hotfix_id = write_hotfix("ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int;", "public.drivers.a int")
    (sql_dir / "schema.expect").write_text("-- expect: column nowhere.at_all.id uuid\n")
    assert invoke("check", None).result == "ready"
    (sql_dir / "schema.expect").write_text("broken;")
    assert invoke("check", hotfix_id).result == "ready"
    assert invoke("check", None).error_name == "HotfixFileError"


def test_a_broken_hotfix_is_in_no_gates_way(gate: Gate, sql_dir: Path) -> None:
    (sql_dir / "20260302000000_broken.sql").write_text("SELECT 1;")
    assert gate(*EXPECTED).result == "passed"


def test_without_a_list_it_says_how_to_write_one(invoke: Callable[..., Outcome], sql_dir: Path) -> None:
    outcome = invoke("gate", None)
    assert outcome.error_name == "ConfigurationError"
    assert outcome.text == (
        f"The function has no sql/schema.expect, the list of the columns that the application expects. {UNTOUCHED}"
        " Write it from the application's schema."
    )
