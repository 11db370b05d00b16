"""What refuses a file, or cancels a query of ours, is named: the file is to be corrected only where it is the cause."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from laptop.postgres import running_server
from tests.conftest import DRIVERS, HOTFIX, PASSWORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

pytestmark = pytest.mark.long_too

ADD = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS note text;"
NOTE = "public.drivers.note text"
CHANGE = "20260301101500_change_something"
IN_THE_LOG = "its message is in the server's log, and withheld here because it may quote row data"
RAISE = "RAISE EXCEPTION 'Confidential %', (SELECT name FROM public.drivers LIMIT 1)"


def forbid(database: Database, result: str, body: str = f"{RAISE};", name: str = "public.forbid") -> None:
    """A function of the administrator that raises what rows hold."""
    database.run(
        f"INSERT INTO public.drivers VALUES (gen_random_uuid(), 'Ana');"
        f"CREATE FUNCTION {name}() RETURNS {result} LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"
        if result == "trigger"
        else f"INSERT INTO public.drivers VALUES (gen_random_uuid(), 'Ana');"
        f"CREATE FUNCTION {name}() RETURNS {result} LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
    )


def by_event_trigger(event: str, hotfix: str, sqlstate: str = "P0001", enable: str = "ENABLE") -> str:
    return (
        f'The event trigger "No DDL" ({event}) refused {hotfix} ({sqlstate} from its function public.forbid();'
        f" {IN_THE_LOG}). Nothing was changed. Read what it asks for:  SELECT"
        " pg_catalog.pg_get_functiondef('public.forbid()'::pg_catalog.regprocedure);  If its owner agrees, switch it"
        f' off:  ALTER EVENT TRIGGER "No DDL" DISABLE;  After the run:  ALTER EVENT TRIGGER "No DDL" {enable};'
    )


@pytest.mark.parametrize("event", ["ddl_command_start", "ddl_command_end"])
def test_an_event_trigger_that_refuses_is_named_with_the_lines_that_switch_it_off(
    invoke: Invoke, database: Database, event: str
) -> None:
    forbid(database, "event_trigger")
    database.run(f'CREATE EVENT TRIGGER "No DDL" ON {event} EXECUTE FUNCTION public.forbid()')
    outcome = invoke("apply")
    assert outcome.error_name == "SqlRefusedError"
    assert outcome.text == by_event_trigger(event, HOTFIX)
    assert "Ana" not in str(outcome.logs)
    code, off, on = [line.strip() for line in outcome.text.split("  ") if line.endswith(";")]
    assert "CREATE OR REPLACE FUNCTION public.forbid()" in database.run(code)[0][0]
    database.run(off)
    assert invoke("apply").result == "applied"
    database.run(on)
    assert database.run("SELECT evtenabled FROM pg_event_trigger") == [["O"]]


def test_an_event_trigger_that_is_always_on_is_switched_on_as_it_was(invoke: Invoke, database: Database) -> None:
    forbid(database, "event_trigger")
    database.run(
        'CREATE EVENT TRIGGER "No DDL" ON ddl_command_end EXECUTE FUNCTION public.forbid();'
        'ALTER EVENT TRIGGER "No DDL" ENABLE ALWAYS'
    )
    assert invoke("apply").text == by_event_trigger("ddl_command_end", HOTFIX, enable="ENABLE ALWAYS")


def test_an_event_trigger_that_refuses_a_drop_is_named(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix
) -> None:
    hotfix_id = write_hotfix(f"-- revert: ALTER TABLE drivers DROP COLUMN IF EXISTS note;\n{ADD}", NOTE)
    assert invoke("apply", hotfix_id).result == "applied"
    forbid(database, "event_trigger")
    database.run('CREATE EVENT TRIGGER "No DDL" ON sql_drop EXECUTE FUNCTION public.forbid()')
    assert invoke("revert", hotfix_id).text == by_event_trigger("sql_drop", hotfix_id)


def test_an_event_trigger_that_claims_a_missing_right_is_named(invoke: Invoke, database: Database) -> None:
    forbid(database, "event_trigger", f"{RAISE} USING ERRCODE = 'insufficient_privilege';")
    database.run('CREATE EVENT TRIGGER "No DDL" ON ddl_command_end EXECUTE FUNCTION public.forbid()')
    outcome = invoke("apply")
    assert outcome.error_name == "NotOwnerError"
    assert outcome.text == by_event_trigger("ddl_command_end", HOTFIX, "42501")


def test_an_event_trigger_is_named_whose_helper_raises(invoke: Invoke, database: Database) -> None:
    forbid(database, "void", name="public.helper")
    forbid(database, "event_trigger", "PERFORM public.helper();")
    database.run('CREATE EVENT TRIGGER "No DDL" ON ddl_command_end EXECUTE FUNCTION public.forbid()')
    assert invoke("apply").text == by_event_trigger("ddl_command_end", HOTFIX)


@pytest.mark.parametrize(
    "trigger",
    [
        "TRIGGER audit BEFORE UPDATE ON public.drivers",
        "CONSTRAINT TRIGGER audit AFTER UPDATE ON public.drivers DEFERRABLE INITIALLY DEFERRED",
    ],
    ids=["at once", "at COMMIT"],
)
def test_a_trigger_on_a_table_that_the_file_writes_is_named(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix, trigger: str
) -> None:
    forbid(database, "trigger", name='public."Forbid"')
    database.run(f'CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION public."Forbid"()')
    outcome = invoke("apply", write_hotfix(f"{ADD} UPDATE drivers SET note = 'x';", NOTE))
    assert outcome.error_name == "SqlRefusedError"
    assert outcome.text == (
        f'The trigger audit on public.drivers refused {CHANGE} (P0001 from its function public."Forbid"();'
        f" {IN_THE_LOG}). Nothing was changed. Read what it asks for, and correct sql/{CHANGE}.sql: "
        " SELECT pg_catalog.pg_get_functiondef('public.\"Forbid\"()'::pg_catalog.regprocedure);"
    )
    assert "Ana" not in str(outcome.logs)


@pytest.mark.parametrize("elsewhere", ["public", "other"])
def test_a_trigger_of_another_table_or_with_a_function_of_the_same_name_is_not_blamed(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix, elsewhere: str
) -> None:
    """The server tells a function's name without its schema."""
    database.run("CREATE SCHEMA IF NOT EXISTS other; CREATE TABLE public.accounts (id int)")
    forbid(database, "trigger")
    if elsewhere != "public":
        database.run(
            f"CREATE FUNCTION {elsewhere}.forbid() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
        )
    database.run(
        f"CREATE TRIGGER audit BEFORE UPDATE ON public.accounts FOR EACH ROW EXECUTE FUNCTION {elsewhere}.forbid();"
        "CREATE TRIGGER keep BEFORE UPDATE ON public.drivers FOR EACH ROW EXECUTE FUNCTION public.forbid()"
    )
    outcome = invoke("apply", write_hotfix(f"{ADD} UPDATE drivers SET note = 'x';", NOTE))
    assert outcome.text.startswith(
        f"The trigger keep on public.drivers refused {CHANGE} (P0001 from its function public.forbid();"
    )


def test_of_two_triggers_that_may_have_refused_neither_is_blamed(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix
) -> None:
    database.run("CREATE SCHEMA other")
    forbid(database, "trigger")
    database.run(
        "CREATE FUNCTION other.forbid() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER first BEFORE UPDATE ON public.drivers FOR EACH ROW EXECUTE FUNCTION other.forbid();"
        "CREATE TRIGGER second BEFORE UPDATE ON public.drivers FOR EACH ROW EXECUTE FUNCTION public.forbid()"
    )
    hotfix_id = write_hotfix(f"{ADD} UPDATE drivers SET note = 'x';", NOTE)
    assert "The trigger" not in invoke("apply", hotfix_id).text
    database.run(
        "DROP TRIGGER first ON public.drivers;"
        "CREATE TRIGGER first BEFORE UPDATE ON public.drivers FOR EACH ROW EXECUTE FUNCTION public.forbid()"
    )
    assert invoke("apply", hotfix_id).text.startswith(f"The function public.forbid(), which {CHANGE} calls, refused")


def test_a_function_that_the_file_calls_is_named(invoke: Invoke, database: Database, write_hotfix: WriteHotfix) -> None:
    forbid(database, "void")
    outcome = invoke("apply", write_hotfix(f"{ADD} SELECT forbid();", NOTE))
    assert outcome.text == (
        f"The function public.forbid(), which {CHANGE} calls, refused {CHANGE} (P0001; {IN_THE_LOG}). Nothing was"
        f" changed. Read what it asks for, and correct sql/{CHANGE}.sql:  SELECT"
        " pg_catalog.pg_get_functiondef('public.forbid()'::pg_catalog.regprocedure);"
    )


def test_what_the_files_own_block_raises_is_the_files_to_correct(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix
) -> None:
    forbid(database, "event_trigger", "NULL;")
    database.run('CREATE EVENT TRIGGER "No DDL" ON ddl_command_end EXECUTE FUNCTION public.forbid()')
    outcome = invoke("apply", write_hotfix(f"{ADD} DO $$ BEGIN {RAISE}; END $$;", NOTE))
    assert outcome.text == (
        f"PostgreSQL refused {CHANGE} (P0001: its text may quote row data and is withheld). Nothing was changed."
        f" Correct sql/{CHANGE}.sql, and have it reviewed."
    )


# Limits of the server


def test_a_full_lock_table_names_its_setting_and_is_not_tried_again(
    invoke: Invoke,
    secrets_manager: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    version = int(os.environ["PG_VERSION"]) if "PG_VERSION" in os.environ else None
    settings = {"max_locks_per_transaction": "10", "max_connections": "10", "autovacuum": "off"}
    with running_server(tmp_path, version=version, settings=settings) as server:
        PASSWORDS.add(server.admin_password)
        with server.connect() as admin:
            admin.run(f"{DRIVERS.removesuffix(')')}) PARTITION BY HASH (id)")
            for part in range(1_500):
                admin.run(
                    f"CREATE TABLE drivers_{part} PARTITION OF drivers FOR VALUES WITH (MODULUS 1500, REMAINDER {part})"
                )
        address = {"username": "postgres", "password": server.admin_password, "host": "localhost", "port": server.port}
        secrets_manager(address | {"dbname": "postgres"})
        monkeypatch.setenv("DB_CA_BUNDLE", str(server.ca_bundle))
        outcome = invoke("apply")
    assert outcome.error_name == "SqlRefusedError"
    assert outcome.text == (
        f"PostgreSQL refused {HOTFIX} because its lock table is full (53200: out of shared memory;"
        " max_locks_per_transaction is too low). Nothing was changed. Each table, partition and index that is altered"
        " needs a lock, and all sessions share the room. Raise the setting in the instance's parameter group, and"
        " reboot:  aws rds modify-db-parameter-group --db-parameter-group-name <group> --parameters"
        " ParameterName=max_locks_per_transaction,ParameterValue=1024,ApplyMethod=pending-reboot"
    )


LIMITS = {
    "stack depth": (
        f"{ADD} SELECT {'1 + ' * 20_000} 1;",
        (
            '(54001: stack depth limit exceeded; hint: Increase the configuration parameter "max_stack_depth"'
            " (currently 2048kB), after ensuring the platform's stack depth limit is adequate)"
        ),
    ),
    "files": (
        f"{ADD} SELECT FROM (SELECT g FROM generate_series(1, 1000000) AS g ORDER BY g DESC OFFSET 10) AS sorted;",
        "temp_file_limit",
    ),
    "a table in use": (
        f"DECLARE c CURSOR FOR SELECT FROM drivers; FETCH c; {ADD}",
        '(55006: cannot ALTER TABLE "drivers" because it is being used by active queries in this session)',
    ),
    "a function": (
        f"{ADD} SELECT nowhere(1);",
        (
            "(42883: function nowhere(integer) does not exist; hint: No function matches the given name and argument"
            " types. You might need to add explicit type casts)"
        ),
    ),
}


@pytest.mark.parametrize(("sql", "reason"), LIMITS.values(), ids=LIMITS)
def test_a_limit_of_the_server_is_shown_with_its_hint(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix, sql: str, reason: str
) -> None:
    database.run(f"ALTER ROLE {database.user} SET temp_file_limit = '64kB'")
    outcome = invoke("apply", write_hotfix(sql, NOTE))
    assert outcome.error_name == "SqlRefusedError"
    assert reason in outcome.text


# Queries of ours that take too long


@pytest.fixture
def large_list(sql_dir: Path) -> None:
    """So long a list that PostgreSQL reads its catalog for some 100 ms at least."""
    lines = [f"-- expect: column public.drivers.c{number} numeric({number % 900 + 1},1)" for number in range(6_000)]
    (sql_dir / "schema.expect").write_text("\n".join(lines))


@pytest.mark.usefixtures("large_list")
def test_a_slow_catalog_is_not_the_files_fault(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEMENT_TIMEOUT_MS", "100")
    database.run(f"ALTER ROLE {database.user} SET enable_hashjoin = off")
    database.run(f"ALTER ROLE {database.user} SET enable_mergejoin = off")
    database.run(f"ALTER ROLE {database.user} SET enable_indexscan = off")
    database.run(f"ALTER ROLE {database.user} SET enable_bitmapscan = off")
    outcome = invoke("gate", None)
    took = outcome.text.partition("after ")[2].partition(" ms")[0]
    assert outcome.error_name == "StatementTimeoutError"
    assert outcome.text == (
        f"PostgreSQL cancelled a catalog query of pg-hotfix after {took} ms (57014: canceling statement due to"
        " statement timeout; the limit is 100 ms). Nothing was changed. The hotfix file is not the cause: the server of"
        f" {database.name} at localhost:{database.server.port} is overloaded, or its catalog is bloated or very large."
        " See the catalog's dead rows; if there are few, raise STATEMENT_TIMEOUT_MS of MigrateFunction in"
        " template.yaml,"
        " and deploy:  SELECT relname, n_dead_tup,"
        " last_autovacuum FROM pg_catalog.pg_stat_sys_tables ORDER BY n_dead_tup DESC LIMIT 5;"
    )
    assert int(took) >= 100
    assert database.run(outcome.text.rpartition("  ")[2])


@contextmanager
def cancelling(database: Database, when: str = "true") -> Iterator[None]:
    """Somebody cancels each query of ours, or those of which that SQL is true."""
    is_over = threading.Event()

    def cancel() -> None:
        with database.connect() as connection:
            while not is_over.wait(0.005):
                connection.run(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg-hotfix'"
                    f" AND state = 'active' AND {when} AND datname = '{database.name}'"
                )

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.usefixtures("large_list")
def test_a_query_that_somebody_cancels_is_said_to_be(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEMENT_TIMEOUT_MS", "20000")
    with cancelling(database):
        outcome = invoke("gate", None)
    took = outcome.text.partition("after ")[2].partition(" ms")[0]
    assert outcome.error_name == "StatementTimeoutError"
    assert outcome.text == (
        f"Another session cancelled a catalog query of pg-hotfix after {took} ms, before its limit of 20000 ms"
        " (57014: canceling statement due to user request). Nothing was changed. Find out who calls pg_cancel_backend"
        " on this server, such as a monitor of long queries."
    )


def test_a_file_that_somebody_cancels_is_said_to_be(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix
) -> None:
    hotfix_id = write_hotfix(f"{ADD} SELECT pg_sleep(4);", NOTE)
    with cancelling(database, "wait_event = 'PgSleep'"):
        outcome = invoke("apply", hotfix_id)
    assert outcome.error_name == "StatementTimeoutError"
    assert outcome.text.startswith(f"Another session cancelled {CHANGE} after ")
    assert "(57014: canceling statement due to user request). Nothing was changed." in outcome.text
