"""`prove` lets a good file pass and tells each bad one what is wrong with it; `new` writes a good one."""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING

import pytest

from cli.author.added import find_added_columns
from cli.author.fill import ROWS, fill
from cli.author.new import prove
from cli.author.prove import check_file
from cli.author.scratch import scratch_database, scratch_server
from laptop.errors import LocalError
from tests.conftest import STATE
from tests.e2e.test_commands import HOTFIX, checkout, pg_hotfix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from laptop.postgres import Server

    Check = Callable[..., dict[str, str]]

CHECKS = ["squawk", "tables", "columns", "rewrite", "scan", "again"]
REVERT = "-- revert: ALTER TABLE drivers DROP COLUMN IF EXISTS n;\n"
N = "public.drivers.n"
ADD = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS n integer"
VOLATILE = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS n timestamptz DEFAULT clock_timestamp();"
EXPECT_VOLATILE = f"-- expect: column {N} timestamptz null default clock_timestamp()\n"
DUMP = r"""
\restrict abc
SET statement_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);
CREATE SCHEMA shop;
ALTER SCHEMA shop OWNER TO "shop-keeper";
CREATE TYPE shop.state AS ENUM ('open', 'paid');
CREATE TABLE shop.orders (id integer NOT NULL, state shop.state NOT NULL, total numeric(5,2) NOT NULL,
    code character(2) UNIQUE, note character varying(3) NOT NULL, flag boolean NOT NULL UNIQUE, rating smallint,
    CONSTRAINT positive CHECK (total > 1000));
ALTER TABLE shop.orders OWNER TO "shop-keeper";
ALTER TABLE shop.orders ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;
ALTER TABLE ONLY shop.orders ADD CONSTRAINT orders_pkey PRIMARY KEY (id);
GRANT SELECT ON TABLE shop.orders TO reporting;
\unrestrict abc
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with scratch_server(tmp_path_factory.mktemp("scratch")) as server:
        yield server


@pytest.fixture
def check(scratch: Server, tmp_path: Path) -> Check:
    """Checks one file. Returns what failed, by the check's name."""
    numbers = itertools.count(1)

    def check(content: str, schema: Path | None = None, failed_only: bool = True) -> dict[str, str]:
        path = tmp_path / f"2026030110150{next(numbers)}_try.sql"
        path.write_text(content)
        findings = list(check_file(scratch, path, schema))
        assert [one.check for one in findings] in (["file"], CHECKS[:2], CHECKS[:3], CHECKS, [*CHECKS, "revert"])
        return {one.check: one.text for one in findings if not (failed_only and one.ok)}

    return check


def test_a_good_file_passes_on_a_filled_table_of_which_nothing_is_left(check: Check, scratch: Server) -> None:
    assert check(f"-- expect: column {N} integer null\n{ADD};", failed_only=False) == {
        "squawk": "nothing to say",
        "tables": "public.drivers with 12,003 rows",
        "columns": "missing before, as expected after: public.drivers.n",
        "rewrite": "none",
        "scan": "none",
        "again": "already_applied; run by psql all the same, it changes nothing",
    }
    with scratch.connect() as admin:
        assert admin.run("SELECT FROM pg_database WHERE datname LIKE 'scratch%'") == []


def test_a_wrong_expectation_is_caught(check: Check) -> None:
    failed = check(f"-- expect: column {N} bigint null\n{ADD};")
    assert list(failed) == ["columns"]
    assert failed["columns"].startswith("MismatchError: sql/20260301101501_try.sql does not create public.drivers.n")
    assert "-- expect: column public.drivers.n integer null" in failed["columns"]


def test_an_expectation_of_a_column_that_was_there_before_is_caught(check: Check) -> None:
    failed = check(f"-- expect: column public.drivers.name text null\n{ADD};")
    assert list(failed) == ["columns"]
    assert "made      missing" in failed["columns"]


def test_a_column_that_nothing_is_promised_of_is_caught(check: Check) -> None:
    failed = check(f'-- expect: column {N} integer null\n{ADD}, ADD COLUMN IF NOT EXISTS "moreOf" text;')
    assert failed == {
        "columns": (
            "It adds columns that it does not promise. Add to its head:\n"
            '-- expect: column public.drivers."moreOf" text null'
        )
    }


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        (
            "ALTER TABLE drivers ADD COLUMN n integer;",
            'It can\'t run twice: line 2, ERROR:  column "n" of relation "drivers" already exists',
        ),
        (
            "DO $$ BEGIN ALTER TABLE drivers DROP COLUMN IF EXISTS n; ALTER TABLE drivers ADD n integer; END $$;",
            "It does its work again when it runs again:\ncolumns of public.drivers dropped and made again",
        ),
        (
            f"{ADD}; INSERT INTO drivers VALUES (gen_random_uuid(), 'a', random());",
            "It does its work again when it runs again:\n1 rows of public.drivers written",
        ),
        (
            f"{ADD}; DO $$ BEGIN EXECUTE format('CREATE SEQUENCE s%s', (random() * 1e9)::int); END $$;",
            "It does its work again when it runs again:\n+CREATE SEQUENCE public.s",
        ),
    ],
)
def test_a_file_that_is_not_idempotent_is_caught(check: Check, sql: str, text: str) -> None:
    failed = check(f"-- expect: column {N} integer null\n{sql}")
    assert list(failed) == ["again"]
    assert failed["again"].startswith(text)
    assert "IF NOT EXISTS" in failed["again"]


@pytest.mark.parametrize("sql", [f"{ADD};", f"{ADD} DEFAULT 5;"])
def test_a_good_way_back_is_proved(check: Check, sql: str) -> None:
    expected = "integer null default 5" if "DEFAULT" in sql else "integer null"
    found = check(f"-- expect: column {N} {expected}\n{REVERT}{sql}", failed_only=False)
    assert found["revert"] == (
        "reverted, already_reverted, applied; every other column is as before, and a row can be added, changed and"
        " deleted"
    )
    assert list(found) == [*CHECKS, "revert"]


@pytest.mark.parametrize(
    ("back", "finding", "text"),
    [
        (
            "DROP INDEX IF EXISTS nothing",
            "revert",
            "MismatchError: The revert lines of sql/20260301101501_try.sql do not drop",
        ),
        (
            "ALTER TABLE drivers DROP n, DROP n",
            "revert",
            'SqlRefusedError: PostgreSQL refused 20260301101501_try (42703: column "n" of relation',
        ),
        (
            "ALTER TABLE drivers DROP n, DROP email",
            "file",
            "the SQL does more than drop the expected columns (ALTER TABLE",
        ),
    ],
)
def test_a_bad_way_back_is_caught(check: Check, back: str, finding: str, text: str) -> None:
    failed = check(f"-- expect: column {N} integer null\n-- revert: {back};\n{ADD};")
    assert list(failed) == [finding]
    assert text in failed[finding]


FUNCTION = """CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    {}
    RETURN coalesce(NEW, OLD); END $$;
CREATE OR REPLACE TRIGGER noting BEFORE {} ON drivers FOR EACH ROW EXECUTE FUNCTION f();"""
LINES = "-- revert: DROP TRIGGER IF EXISTS noting ON drivers;\n-- revert: DROP FUNCTION IF EXISTS f();\n"
# No word of the body is the column's name.
HIDDEN = "EXECUTE format('SELECT ($1).%I', chr(110)) USING {};"
NO_N = 'column "n" not found in data type drivers'


def test_a_way_back_that_leaves_a_trigger_for_the_column_is_caught(check: Check) -> None:
    failed = check(f"-- expect: column {N} integer null\n{REVERT}{ADD};\n{FUNCTION.format('NEW.n := 1;', 'INSERT')}")
    assert list(failed) == ["revert"]
    assert failed["revert"].startswith("RevertRefusedError: Other objects need public.drivers.n, so ")
    assert "\n  -- revert: DROP FUNCTION IF EXISTS public.f();\n" in failed["revert"]


@pytest.mark.parametrize(("event", "row"), [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")])
def test_a_way_back_after_which_rows_cannot_be_written_is_caught(check: Check, event: str, row: str) -> None:
    trigger = FUNCTION.format(HIDDEN.format(row), event)
    failed = check(f"-- expect: column {N} integer null\n{REVERT}{ADD};\n{trigger}")
    assert failed == {
        "revert": (
            "After the way back rows can't be written as before the file:\n"
            f"{event} of public.drivers: {NO_N}\n"
            "Let the revert lines drop what the file makes beside the column: triggers, functions, policies and views."
        )
    }


def test_a_way_back_that_drops_its_triggers_is_proved(check: Check) -> None:
    trigger = FUNCTION.format(HIDDEN.format("coalesce(NEW, OLD)"), "INSERT OR UPDATE OR DELETE")
    assert check(f"-- expect: column {N} integer null\n{LINES}{REVERT}{ADD};\n{trigger}") == {}


def test_a_write_that_failed_before_the_file_is_no_fault_of_its_way_back(check: Check, tmp_path: Path) -> None:
    schema = tmp_path / "dump.sql"
    schema.write_text(
        "CREATE TABLE drivers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " boss bigint NOT NULL REFERENCES drivers, twice bigint GENERATED ALWAYS AS (boss * 2) STORED);"
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'kept'; END$$;"
        "CREATE TRIGGER no BEFORE DELETE ON drivers FOR EACH ROW EXECUTE FUNCTION no();"
    )
    assert check(f"-- expect: column {N} integer null\n{REVERT}{ADD};", schema) == {}


def test_a_rewrite_is_caught(check: Check) -> None:
    failed = check(f"{EXPECT_VOLATILE}{VOLATILE}")
    assert list(failed) == ["rewrite"]
    assert failed["rewrite"] == (
        "public.drivers is rewritten under ACCESS EXCLUSIVE: nobody can read it meanwhile.\n"
        "A constant default, now() included, is stored in the catalog only: add the column with one or with none, and"
        " fill it later.\n"
        "Or say why it does no harm:  -- allow: rewrite <reason>"
    )


def test_a_rewrite_that_hides_in_a_string_is_caught(check: Check) -> None:
    sql = "DO $$ BEGIN EXECUTE 'ALTER TABLE drivers ADD COLUMN IF NOT EXISTS n uuid DEFAULT gen_random_uuid()'; END $$;"
    assert list(check(f"-- expect: column {N} uuid null default gen_random_uuid()\n{sql}")) == ["rewrite"]


def test_a_rewrite_passes_when_the_file_says_why(check: Check) -> None:
    allowed = "-- allow: rewrite the table has 300 rows\n"
    found = check(f"{EXPECT_VOLATILE}{allowed}{VOLATILE}", failed_only=False)
    assert (found["rewrite"], found["scan"]) == ("allowed: the table has 300 rows", "none")


def test_nothing_is_allowed_without_a_reason(check: Check) -> None:
    failed = check(f"{EXPECT_VOLATILE}-- allow: rewrite\n{VOLATILE}")
    assert list(failed) == ["file"]
    assert "allows a rewrite without a reason: -- allow: rewrite." in failed["file"]


def test_what_is_allowed_and_does_not_happen_is_to_be_taken_out(check: Check) -> None:
    assert check(f"-- expect: column {N} integer null\n-- allow: scan at night\n{ADD};") == {
        "scan": "There is none: take the line out.  -- allow: scan at night"
    }


@pytest.mark.parametrize(
    ("expected", "sql"),
    [
        ("integer not null default 0", f"{ADD} DEFAULT 0; ALTER TABLE drivers ALTER COLUMN n SET NOT NULL;"),
        ("integer null", f"{ADD} CONSTRAINT positive CHECK (n > 0);"),
        ("integer null", f"{ADD} UNIQUE;"),
        ("integer null", f"{ADD}; CREATE INDEX IF NOT EXISTS by_n ON drivers (n);"),
        ("integer null", f"{ADD}; UPDATE drivers SET n = 1 WHERE n IS NULL;"),
    ],
)
def test_a_full_scan_is_caught(check: Check, expected: str, sql: str) -> None:
    head = f"-- expect: column {N} {expected}\n"
    failed = check(f"{head}{sql}")
    assert list(failed) == ["scan"]
    assert failed["scan"] == (
        "public.drivers is read from end to end under the lock, all 12,003 rows of it.\n"
        "NOT NULL needs no scan in ADD COLUMN with a constant default, nor does a constraint that is NOT VALID: leave"
        " the rest to a migration.\n"
        "Or say why it does no harm:  -- allow: scan <reason>"
    )


def test_a_full_scan_passes_when_the_file_says_why(check: Check) -> None:
    head = f"-- expect: column {N} integer null\n-- allow: scan the table has 300 rows\n"
    assert check(f"{head}{ADD}; CREATE INDEX IF NOT EXISTS by_n ON drivers (n);") == {}


def test_what_the_server_does_without_a_scan_passes(check: Check) -> None:
    sql = f"{ADD.replace('integer', 'uuid')} REFERENCES drivers (id);"
    assert check(f"-- expect: column {N} uuid null\n{sql}") == {}


def test_a_look_at_a_few_rows_is_no_full_scan(check: Check) -> None:
    sql = f"DO $$ BEGIN IF EXISTS (SELECT FROM drivers LIMIT 1) THEN {ADD}; END IF; END $$;"
    assert check(f"-- expect: column {N} integer null\n{sql}") == {}


def test_what_no_filled_table_takes_is_caught(check: Check) -> None:
    failed = check(f"-- expect: column {N} integer not null\n{ADD} NOT NULL;")
    assert list(failed) == ["squawk", "columns"]
    assert failed["columns"].startswith(
        "HotfixFileError: sql/20260301101501_try.sql adds public.drivers.n as NOT NULL without a default, and"
    )


def test_a_table_of_a_dump_is_loaded_and_filled_and_loses_the_column_first(check: Check, tmp_path: Path) -> None:
    schema = tmp_path / "dump.sql"
    schema.write_text(DUMP)
    sql = "ALTER TABLE orders ADD COLUMN IF NOT EXISTS rating smallint;"
    found = check(f"-- expect: column shop.orders.rating smallint null\n{sql}", schema, failed_only=False)
    # The key on a boolean lets in two rows.
    assert found["tables"] == "shop.orders with 2 rows"
    assert found["columns"] == "missing before, as expected after: shop.orders.rating"
    assert found["again"].startswith("already_applied")


def test_a_table_that_a_dump_lacks_is_named(check: Check, tmp_path: Path) -> None:
    schema = tmp_path / "dump.sql"
    schema.write_text(DUMP)
    sql = "-- expect: column public.orders.n integer\nALTER TABLE orders ADD COLUMN IF NOT EXISTS n integer;"
    assert check(sql, schema) == {
        "tables": (
            f"{schema} has no table public.orders. It has shop.orders. Name the table as it has it, or dump the right"
            " one."
        )
    }


def test_a_dump_that_cannot_be_loaded_says_which_line(check: Check, tmp_path: Path) -> None:
    schema = tmp_path / "dump.sql"
    schema.write_text("CREATE TABLE a ();\nCREATE EXTENSION nowhere;\n")
    assert check(f"-- expect: column {N} integer null\n{ADD};", schema) == {
        "tables": (
            f'{schema} can\'t be loaded: line 2, ERROR:  extension "nowhere" is not available\n'
            "Take out what the columns of its tables do not need. One table alone:"
            "  pg_dump --schema-only --no-owner --no-privileges --table=public.drivers > schema.sql"
        )
    }


def test_a_table_that_no_schema_has_is_a_stub(check: Check) -> None:
    sql = "ALTER TABLE shop.orders ADD COLUMN IF NOT EXISTS n integer;"
    found = check(f"-- expect: column shop.orders.n integer\n{sql}", failed_only=False)
    assert found["tables"] == "shop.orders with 12,000 rows, a stub: laptop/schema.sql does not have it"
    assert found["columns"].startswith("missing before")


FILLED = {
    "a check is NOT VALID afterwards": ("a int NOT NULL CHECK (a < 0), b text CHECK (b = 'x')", ROWS),
    "a unique default is made up": ("a text NOT NULL UNIQUE DEFAULT 'x', b int NOT NULL DEFAULT 5", ROWS),
    "a narrow key lets in few": ("a numeric(2) PRIMARY KEY, b int", 100),
    "a foreign key is not heeded": ("a uuid NOT NULL REFERENCES drivers (id)", ROWS),
    "no column at all": ("", ROWS),
    "generated ones are left to the server": (
        "a int GENERATED ALWAYS AS IDENTITY, b int GENERATED ALWAYS AS (1) STORED",
        ROWS,
    ),
}


@pytest.mark.parametrize("columns", FILLED)
def test_a_table_is_filled(scratch: Server, columns: str) -> None:
    definition, rows = FILLED[columns]
    with scratch_database(scratch, []) as database:
        database.run(f"CREATE TABLE t ({definition})")
        filled = fill(database, ("public", "t"))
        assert (filled.rows, filled.refusal) == (rows, None)
        constraints = "SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'"
        assert database.run(constraints) == [[definition.count("CHECK")]]


def test_a_table_that_cannot_be_filled_says_why(scratch: Server) -> None:
    with scratch_database(scratch, []) as database:
        database.run("CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%'); CREATE TABLE t (a email NOT NULL)")
        filled = fill(database, ("public", "t"))
    assert (filled.rows, filled.refusal) == (
        0,
        'value for domain email violates check constraint "email_check"',
    )


# new


def refuse(scratch: Server, sql: str, schema: Path | None = None) -> str:
    with pytest.raises(LocalError) as caught:
        find_added_columns(scratch, sql, schema)
    return str(caught.value)


def test_expectations_are_worked_out_by_the_server(scratch: Server) -> None:
    sql = (
        "CREATE TABLE IF NOT EXISTS other (id int); DO $$ BEGIN CREATE TYPE mood AS ENUM ('a'); EXCEPTION WHEN"
        ' duplicate_object THEN END $$; ALTER TABLE drivers ADD COLUMN IF NOT EXISTS "lastSeen" timestamptz(3) NOT NULL'
        " DEFAULT now(), ADD COLUMN IF NOT EXISTS a numeric(10,2)[], ADD COLUMN IF NOT EXISTS m mood DEFAULT 'a',"
        " ADD COLUMN IF NOT EXISTS c text COLLATE \"C\" DEFAULT E'x\\ny',"
        " ADD COLUMN IF NOT EXISTS i int GENERATED BY DEFAULT AS IDENTITY;"
    )
    added = find_added_columns(scratch, sql, None)
    assert added.stubs == ()
    assert added.expect_lines == (
        '-- expect: column public.drivers."lastSeen" timestamp(3) with time zone not null default now()',
        "-- expect: column public.drivers.a numeric(10,2)[] null",
        "-- expect: column public.drivers.m public.mood null default 'a'::public.mood",
        "-- expect: column public.drivers.c text collate \"C\" null default E'x\\ny'::text",
        "-- expect: column public.drivers.i integer not null generated by default as identity",
    )
    assert added.revert_lines[:2] == (
        '-- revert: ALTER TABLE "public"."drivers" DROP COLUMN IF EXISTS "lastSeen";',
        '-- revert: ALTER TABLE "public"."drivers" DROP COLUMN IF EXISTS "a";',
    )


def test_sql_that_is_not_idempotent_is_refused_with_its_better_form(scratch: Server) -> None:
    assert refuse(scratch, 'ALTER TABLE "drivers" ADD rating smallint;') == (
        'The SQL can\'t run twice: column "rating" of relation "drivers" already exists. Write\n'
        '  ALTER TABLE "drivers" ADD COLUMN IF NOT EXISTS rating smallint;'
    )
    assert refuse(
        scratch, "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int, ADD CONSTRAINT c CHECK (a > 0) NOT VALID;"
    ).startswith('The SQL can\'t run twice: constraint "c" for relation "drivers" already exists. Write ADD COLUMN IF')


def test_sql_that_adds_nothing_is_refused(scratch: Server) -> None:
    nothing = (
        "The SQL adds no column to a table of laptop/schema.sql, so there is nothing to prove. Is the column there"
        " already? Write it as  ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint"
    )
    assert refuse(scratch, "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS email text;") == nothing
    assert refuse(scratch, "CREATE TABLE IF NOT EXISTS other (id int);") == nothing


def test_sql_that_changes_what_was_there_is_refused(scratch: Server) -> None:
    sql = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int, ALTER COLUMN email DROP NOT NULL, DROP COLUMN name;"
    assert refuse(scratch, sql) == (
        "The SQL changes columns that were there:\n"
        "  public.drivers.name  was text not null, is gone\n"
        "  public.drivers.email  was text not null, is text null\n"
        "Leave that to a migration: a hotfix only adds."
    )


def test_sql_that_postgresql_refuses_is_shown_with_a_caret(scratch: Server) -> None:
    assert refuse(scratch, "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS x txt;") == (
        'PostgreSQL refuses the SQL: type "txt" does not exist.\n'
        "LINE 1: ALTER TABLE drivers ADD COLUMN IF NOT EXISTS x txt;\n"
        "                                                       ^\n"
        "It ran with the tables of laptop/schema.sql. --schema schema.sql takes those of production, from"
        "  pg_dump --schema-only --no-owner --no-privileges --table=public.drivers > schema.sql"
    )


def test_nothing_is_written_that_prove_would_refuse(scratch: Server) -> None:
    with pytest.raises(LocalError) as caught:
        prove(scratch, "20260301101500_try", f"{EXPECT_VOLATILE}{VOLATILE}".encode(), None)
    assert str(caught.value) == (
        "The file was not written, because it would not pass `prove`:\n"
        "  rewrite: public.drivers is rewritten under ACCESS EXCLUSIVE: nobody can read it meanwhile.\n"
        "  rewrite: A constant default, now() included, is stored in the catalog only: add the column with one or with"
        " none, and fill it later.\n"
        "  rewrite: Or say why it does no harm:  -- allow: rewrite <reason>\n"
        "Change the SQL. Or, to allow a rewrite or a scan:  --allow 'rewrite <reason>'"
    )


# The commands


def test_new_writes_a_file_that_prove_lets_pass_and_an_event(tmp_path: Path) -> None:
    project = checkout(tmp_path / "project")
    name = "try_what_new_writes"
    sql = """ALTER TABLE "drivers" ADD COLUMN IF NOT EXISTS "it's $HOME" text DEFAULT $$a "b" c$$"""
    result = pg_hotfix("new", name, "--sql", sql, "--reason", 'The "page" costs $5 & more.', project=project)
    assert result.returncode == 0, result.stderr
    (path,) = project.glob(f"sql/*_{name}.sql")
    assert path.read_text() == (
        '-- The "page" costs $5 & more.\n'
        """-- expect: column public.drivers."it's $HOME" text null default 'a "b" c'::text\n"""
        """-- revert: ALTER TABLE "public"."drivers" DROP COLUMN IF EXISTS "it's $HOME";\n"""
        f"{sql};\n"
    )
    assert result.stdout.startswith(f"sql/{path.name}\n   -- The ")
    event = STATE / "events" / f"{path.stem}.json"
    assert f"{project}/pg-hotfix invoke {os.path.relpath(event, project)}" in result.stdout
    assert json.loads(event.read_text()) == {
        "hotfix": path.stem,
        "action": "plan",
        "reason": 'The "page" costs $5 & more.',
    }


def test_an_id_is_proved_like_its_file_and_another_name_is_refused() -> None:
    assert pg_hotfix("prove", HOTFIX).returncode == 0
    missing = pg_hotfix("prove", "20260101000000_none")
    assert missing.returncode == 1
    assert missing.stderr == (
        "There is no file 20260101000000_none. Name a file, such as sql/<id>.sql, or an id of sql/.\n"
    )


def test_prove_proves_each_file_and_exits_non_zero_when_one_fails(tmp_path: Path) -> None:
    bad = tmp_path / "20260301101500_try.sql"
    bad.write_text(f"{EXPECT_VOLATILE}{VOLATILE}")
    result = pg_hotfix("prove", f"sql/{HOTFIX}.sql", str(bad))
    assert result.returncode != 0
    good, failed = result.stdout.split(f"{bad.stem}\n")
    assert [line.split()[:2] for line in good.splitlines()] == [[HOTFIX], *(["ok", check] for check in CHECKS)]
    assert "   FAILED  rewrite   public.drivers is rewritten" in failed
    assert result.stderr.startswith("1 of 2 files failed.\n")
