"""Another role's functions, operators, types and tables change nothing, whatever search_path puts them first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pg8000.exceptions import DatabaseError

from pg_hotfix.server.pinned import END_OF_FILE, PIN, READ_OWN
from tests.integration.own_sql import UnsafeError, judge_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

# Every function, operator, view and type of PostgreSQL once more, in a schema that comes before pg_catalog. Who falls
# for one of them leaves a trace that no ROLLBACK takes away.
TRAP = """
CREATE SCHEMA trap;
CREATE SEQUENCE trap.caught;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
GRANT ALL ON SEQUENCE trap.caught TO PUBLIC;
CREATE FUNCTION trap.spring() RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_catalog.nextval('trap.caught');
    RAISE EXCEPTION 'caught';
END $$;
DO $do$
DECLARE one record;
BEGIN
    FOR one IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, t.typname AS result
        FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset AND t.typtype = 'b'
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION trap.%I(%s) RETURNS pg_catalog.%I LANGUAGE plpgsql AS $$ BEGIN'
                ' PERFORM trap.spring(); RETURN NULL; END $$', one.proname, one.arguments, one.result);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    FOR one IN
        WITH types (name) AS (VALUES ('oid'), ('int2'), ('int4'), ('int8'), ('text'), ('name'), ('bool'), ('float8'),
            ('char'), ('xid'), ('regclass'), ('timestamptz'), ('json'), ('oidvector'), ('int2vector'), ('_text'),
            ('_name'))
        SELECT o.name AS sign, l.name AS left_type, r.name AS right_type,
            CASE WHEN o.name = '||' THEN 'text' WHEN o.name IN ('+', '-', '*', '/') THEN 'float8' ELSE 'bool' END
                AS result
        FROM types l CROSS JOIN types r CROSS JOIN (VALUES ('='), ('<>'), ('<'), ('>'), ('<='), ('>='), ('||'), ('+'),
            ('-'), ('*'), ('/'), ('~'), ('!~'), ('~~'), ('!~~')) AS o (name)
    LOOP
        EXECUTE format('CREATE OR REPLACE FUNCTION trap.f_%1$s_%2$s_%3$s(pg_catalog.%2$I, pg_catalog.%3$I) RETURNS'
            ' pg_catalog.%1$I LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring(); RETURN NULL; END $$',
            one.result, one.left_type, one.right_type);
        EXECUTE format('CREATE OPERATOR trap.%s (FUNCTION = trap.f_%s_%s_%s, LEFTARG = pg_catalog.%I,'
            ' RIGHTARG = pg_catalog.%I)', one.sign, one.result, one.left_type, one.right_type, one.left_type,
            one.right_type);
    END LOOP;
    FOR one IN SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
    LOOP
        BEGIN
            EXECUTE format('CREATE VIEW trap.%1$I AS SELECT * FROM pg_catalog.%1$I WHERE trap.spring()', one.relname);
            EXECUTE format('GRANT SELECT ON trap.%I TO PUBLIC', one.relname);
        EXCEPTION WHEN invalid_table_definition THEN NULL; -- It holds a pseudo-type.
        END;
    END LOOP;
    FOR one IN SELECT typname FROM pg_type
        WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typcategory <> 'A' AND typname !~ '^pg_'
    LOOP
        EXECUTE format('CREATE DOMAIN trap.%1$I AS pg_catalog.%1$I CHECK (trap.spring())', one.typname);
    END LOOP;
END $do$;
"""
HISTORY = """
CREATE TABLE public._prisma_migrations (id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL,
    finished_at timestamptz, migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count int NOT NULL DEFAULT 0)
"""
RATING = "public.drivers.rating integer null default 5"
REVERT = "-- revert: ALTER TABLE public.drivers DROP COLUMN IF EXISTS rating;\n"
ADD = "ALTER TABLE public.drivers ADD COLUMN IF NOT EXISTS rating pg_catalog.int4 DEFAULT 5;"


@pytest.fixture(params=["trap, public, pg_catalog", "trap, pg_catalog", '"$user", public, trap'])
def hostile(request: pytest.FixtureRequest, database: Database) -> Iterator[Database]:
    database.run_as_owner(HISTORY)
    database.run(TRAP)
    database.run(f"ALTER ROLE {database.user} SET search_path = {request.param}")
    database.run(f"ALTER DATABASE {database.name} SET search_path = {request.param}")
    yield database
    ((caught,),) = database.run("SELECT is_called FROM trap.caught")
    assert not caught, "a function of another role was called"


def test_no_action_falls_for_what_another_role_has_created(
    hostile: Database, invoke: Invoke, write_hotfix: WriteHotfix, sql_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hotfix_id = write_hotfix(REVERT + ADD, RATING)
    (sql_dir / "schema.expect").write_text(
        f"-- expect: column {RATING}\n-- expect: column public.drivers.id uuid not null\n"
    )
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    answers: list[Any] = []

    def ask(action: str, hotfix: str | None = hotfix_id, **fields: Any) -> None:
        outcome = invoke(action, hotfix, **fields)
        answers.append(outcome.result or f"{outcome.error_name}: {outcome.text}"[:200])

    ask("check", None)
    ask("gate", None)
    ask("verify")
    with hostile.connect() as reader:
        reader.run("BEGIN; SELECT FROM public.drivers")
        ask("plan")
        ask("apply")
        reader.run("COMMIT")
    ask("apply", record="prisma")
    ask("apply", record="prisma")
    ask("verify")
    ask("gate", None)
    ask("revert")
    hostile.run(
        "DELETE FROM public._prisma_migrations; INSERT INTO public.drivers VALUES"
        " ('f30bc0d9-e7e8-467c-801c-6cf0623d8f0f', 'Marina', 4)"
    )
    ask("revert")
    ask("revert", force=True, reason="INC-1")
    ask("revert")
    names = [answer.partition(":")[0] for answer in answers]
    assert names == [
        *("ready", "MismatchError", "MismatchError", "would_apply", "LockBusyError", "applied"),
        *("already_applied", "verified", "passed", "RevertRefusedError", "RevertRefusedError", "reverted"),
        "already_reverted",
    ], answers


def test_values_print_the_same_whatever_the_session_prints(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE SCHEMA ext; CREATE FUNCTION ext.f() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'")
    for name, value in {
        "TimeZone": "'America/Sao_Paulo'",
        "DateStyle": "'SQL, DMY'",
        "IntervalStyle": "'iso_8601'",
        "bytea_output": "'escape'",
        "extra_float_digits": "0",
        "quote_all_identifiers": "on",
        "search_path": "ext, public",
        "standard_conforming_strings": "off",
    }.items():
        database.run(f"ALTER ROLE {database.user} SET {name} = {value}")
    expectations = (
        "public.drivers.a timestamptz default '2026-02-12 12:20:00+00'::timestamp with time zone",
        "public.drivers.b interval default '26:00:00'::interval",
        r"public.drivers.c bytea default '\xff'::bytea",
        "public.drivers.d float8 default 0.30000000000000004::double precision",
        "public.drivers.e int default ext.f()",
        "public.drivers.f date default '2026-12-01'::date",
    )
    hotfix_id = write_hotfix(
        # Meant as the session means them: São Paulo's time, and the day before the month.
        "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a timestamptz DEFAULT timestamptz '12/02/2026 09:20:00',"
        " ADD COLUMN IF NOT EXISTS b interval DEFAULT interval '26 hours',"
        r" ADD COLUMN IF NOT EXISTS c bytea DEFAULT '\xff', ADD COLUMN IF NOT EXISTS d float8"
        " DEFAULT 0.30000000000000004::float8,"
        " ADD COLUMN IF NOT EXISTS e int DEFAULT f(), ADD COLUMN IF NOT EXISTS f date DEFAULT date '01/12/2026';",
        *expectations,
    )
    applied = invoke("apply", hotfix_id)
    assert (applied.result, applied.error and applied.text) == ("applied", None)
    assert invoke("verify", hotfix_id).result == "verified"


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_file_runs_read_committed_whatever_the_role_says(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, isolation: str
) -> None:
    database.run(f"ALTER ROLE {database.user} SET default_transaction_isolation = '{isolation}'")
    check = "IF current_setting('transaction_isolation') <> 'read committed' THEN RAISE EXCEPTION 'stale'; END IF;"
    hotfix_id = write_hotfix(f"DO $$ BEGIN {check} END $$; {ADD}", RATING)
    assert invoke("apply", hotfix_id).result == "applied"


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1::pg_catalog.oid = 1::pg_catalog.int4", "SELECT lower('A')", "SELECT FROM pg_class", "SELECT 'a'::text"],
)
def test_whoever_names_no_schema_falls_for_it(database: Database, sql: str) -> None:
    """The traps are what they should be: without the empty search_path each of these is caught."""
    database.run(TRAP)
    with database.connect(database.user, database.password) as session:
        session.run("SET search_path = trap, pg_catalog")
        with pytest.raises(DatabaseError, match="caught"):
            session.run(sql)
    assert database.run("SELECT is_called FROM trap.caught") == [[True]]


def test_the_query_of_the_security_page_finds_what_stands_there_and_falls_for_nothing(hostile: Database) -> None:
    (sql,) = re.findall(r"```sql\n(.*?)```", Path("SECURITY.md").read_text(), re.DOTALL)
    with hostile.connect(hostile.user, hostile.password) as session:
        found = session.run(sql)
    assert {row[0] for row in found} == {"trap"}
    assert "trap.=(oid,integer)" in {row[1].replace("pg_catalog.", "") for row in found}


# The judge itself


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (["SELECT 1"], "runs before the settings are pinned"),
        ([READ_OWN, "SELECT 1 = 1"], "runs before the settings are pinned"),
        ([READ_OWN, f"{PIN};SELECT 1 FROM pg_class"], "names the table pg_class without its schema"),
        ([f"{PIN};SELECT now()"], "calls now without its schema"),
        ([f"{PIN};SELECT 1", "SET search_path = public"], "changes the search_path"),
        ([f"{PIN};SELECT 1", "SELECT pg_catalog.set_config('search_path', 'x', false)"], "changes the search_path"),
        (
            [f"{PIN};SELECT 1", f"BEGIN;\nALTER TABLE t ADD c int\n;{END_OF_FILE};COMMIT"],
            "without the session's own settings",
        ),
    ],
)
def test_the_judge_sees_a_message_that_is_not_safe(messages: list[str], why: str) -> None:
    with pytest.raises(UnsafeError, match=why):
        judge_session(messages)
