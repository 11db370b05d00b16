"""What Prisma will do next in each state of its history, and `"record": "prisma"`: real rows, locks and failures."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pg8000.native import Connection

from laptop.proxy import Fault, running_proxy
from pg_hotfix import hotfix
from pg_hotfix.change import in_transaction
from pg_hotfix.history import prisma, recording
from pg_hotfix.request import parse_request
from pg_hotfix.settings import read_settings
from tests.conftest import HOTFIX, PATIENCE_SECONDS, meanwhile, until
from tests.integration.aftermath import STALL_SECONDS, examine, run_to_its_end, somebody_reading, try_all
from tests.integration.change.test_faults import queries
from tests.integration.change.test_locks import WATCH_SECONDS, timeless, watching_the_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from laptop.proxy import Proxy
    from tests.conftest import Database, Outcome
    from tests.integration.aftermath import Ending, Lane

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

SQL = Path(f"sql/{HOTFIX}.sql").read_text()
CHECKSUM = hashlib.sha256(SQL.encode()).hexdigest()
OTHER = "20260101000000_add_orders"
# Word for word what Prisma creates.
CREATE = """
CREATE TABLE {schema}._prisma_migrations (
    id                      VARCHAR(36) PRIMARY KEY NOT NULL,
    checksum                VARCHAR(64) NOT NULL,
    finished_at             TIMESTAMPTZ,
    migration_name          VARCHAR(255) NOT NULL,
    logs                    TEXT,
    rolled_back_at          TIMESTAMPTZ,
    started_at              TIMESTAMPTZ NOT NULL DEFAULT now(),
    applied_steps_count     INTEGER NOT NULL DEFAULT 0
)"""
PRISMAS_LOCK = "SELECT pg_advisory_lock(72707369)"
APPLY = {"hotfix": HOTFIX, "action": "apply"}
ADD_COLUMN = "ALTER TABLE public.drivers ADD COLUMN active_since timestamptz"


@dataclass(frozen=True)
class PrismaHistory:
    database: Database

    def add(
        self, name: str = HOTFIX, *, checksum: str = CHECKSUM, finished: bool = True, rolled_back: bool = False
    ) -> None:
        """A row as `migrate deploy` leaves it."""
        self.database.run_as_owner(
            "INSERT INTO public._prisma_migrations"
            " (id, checksum, migration_name, finished_at, rolled_back_at, applied_steps_count) VALUES"
            f" (gen_random_uuid()::text, '{checksum}', '{name}', {'now()' if finished else 'NULL'},"
            f" {'now()' if rolled_back else 'NULL'}, {int(finished)})"
        )

    def rows(self) -> list[list[Any]]:
        return self.database.run(
            "SELECT migration_name, checksum, finished_at IS NOT NULL, rolled_back_at IS NOT NULL"
            " FROM public._prisma_migrations ORDER BY started_at, rolled_back_at"
        )


RECORDED_ROW = [HOTFIX, CHECKSUM, True, False]


@pytest.fixture
def history(database: Database) -> PrismaHistory:
    database.run_as_owner(CREATE.format(schema="public"))
    return PrismaHistory(database)


def has_column(database: Database) -> bool:
    return bool(
        database.run("SELECT FROM pg_attribute WHERE attrelid = 'drivers'::regclass AND attname = 'active_since'")
    )


@contextmanager
def holding(database: Database, sql: str, until_then: Callable[[], object] | None = None) -> Iterator[int]:
    """Within the block another session has run `sql`, and holds what it took; or lets go after `until_then`. Its
    pid."""
    with database.connect() as other:
        ((pid,),) = other.run("SELECT pg_backend_pid()")
        other.run(sql)
        let_go = "ROLLBACK; SELECT pg_advisory_unlock_all()"
        with meanwhile(until_then, lambda: other.run(let_go)) if until_then else nullcontext():
            yield pid


def prisma_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.error is None, outcome.text
    told: dict[str, Any] = outcome.response["prisma"]
    return told


# What the next deploy will do


@dataclass(frozen=True)
class Case:
    """Rows of the history, and what is told of them while the column is missing, and while it is there."""

    rows: tuple[dict[str, Any], ...]
    state: str
    missing: str
    there: str
    blocked_by: tuple[str, ...] = ()


RUNS = f"It runs prisma/migrations/{HOTFIX} if that folder exists"
AGAIN = f"It runs prisma/migrations/{HOTFIX} again, because it is recorded as rolled back, if that folder exists."
WAITS = "waits for ACCESS EXCLUSIVE, and all other sessions wait behind it"
RUNS_THERE = (
    f"With this file's SQL it changes nothing, but {WAITS}. An apply with --record prisma makes it skip the hotfix."
)
RUNS_MISSING = (
    f"It adds what is missing: it {WAITS}. After an apply it changes nothing. An apply with --record prisma makes it"
    " skip the hotfix."
)
SKIPS = f"It skips {HOTFIX}, which is recorded as applied"
LACKS = ". Not all of it is there, and only an apply adds the rest"
STOPS = "It stops with P3009 and runs nothing, because {} recorded as failed."
RESOLVE = f"prisma migrate resolve --applied {HOTFIX}  (an apply with --record prisma does the same)"
RESOLVE_OTHER = (
    f"To let it run again:  prisma migrate resolve --rolled-back {OTHER}  (--applied if all of it is there). After"
    " that: it"
)
FAILED = {"finished": False}
CASES = {
    "not recorded": Case(
        ({"name": OTHER},),
        "not_recorded",
        f"{RUNS}. {RUNS_MISSING}",
        f"{RUNS}. {RUNS_THERE}",
    ),
    "recorded": Case(({},), "recorded", f"{SKIPS}{LACKS}.", f"{SKIPS}."),
    "recorded after a failure": Case(
        ({**FAILED, "rolled_back": True}, {}), "recorded", f"{SKIPS}{LACKS}.", f"{SKIPS}."
    ),
    "rolled back": Case(
        ({**FAILED, "rolled_back": True},),
        "rolled_back",
        f"{AGAIN} {RUNS_MISSING}",
        f"{AGAIN} {RUNS_THERE}",
    ),
    "failed": Case(
        (FAILED,),
        "failed",
        f"{STOPS.format(f'{HOTFIX} is')} After an apply:  {RESOLVE}",
        f"{STOPS.format(f'{HOTFIX} is')} To end that:  {RESOLVE}",
    ),
    "failed after it was applied": Case(
        ({}, FAILED),
        "failed",
        f"{STOPS.format(f'{HOTFIX} is')} After an apply:  prisma migrate resolve --rolled-back {HOTFIX}",
        f"{STOPS.format(f'{HOTFIX} is')} To end that:  prisma migrate resolve --rolled-back {HOTFIX}",
    ),
    "other checksum": Case(
        ({"checksum": "0" * 64},),
        "other_checksum",
        (
            f"{SKIPS}, with the checksum of another file{LACKS}. prisma migrate dev says that it was modified after it"
            " was applied."
        ),
        (
            f"{SKIPS}, with the checksum of another file. prisma migrate dev says that it was modified after it was"
            " applied."
        ),
    ),
    "recorded and blocked": Case(
        ({"name": OTHER, **FAILED}, {}),
        "recorded",
        f"{STOPS.format(f'{OTHER} is')} {RESOLVE_OTHER}{SKIPS[2:]}{LACKS}.",
        f"{STOPS.format(f'{OTHER} is')} {RESOLVE_OTHER}{SKIPS[2:]}.",
        (OTHER,),
    ),
    "failed with another": Case(
        ({"name": OTHER, **FAILED}, FAILED),
        "failed",
        f"{STOPS.format(f'{HOTFIX} and {OTHER} are')} After an apply:  {RESOLVE}",
        f"{STOPS.format(f'{HOTFIX} and {OTHER} are')} To end that:  {RESOLVE}",
        (OTHER,),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_state_of_the_history_is_told_before_and_after(invoke: Invoke, history: PrismaHistory, case: Case) -> None:
    for row in case.rows:
        history.add(**row)
    rows = history.rows()
    told = {"table": "public._prisma_migrations", "state": case.state, "blocked_by": list(case.blocked_by)}
    before = invoke("plan")
    assert prisma_of(before) == told | {"next_deploy": case.missing, "recorded_here": False}
    after = told | {"next_deploy": case.there, "recorded_here": False}
    assert [prisma_of(invoke(action)) for action in ("apply", "apply", "plan", "verify")] == [after] * 4
    assert history.rows() == rows
    blocked = case.state == "failed" or case.blocked_by
    assert ("The next prisma migrate deploy stops with P3009: " in before.response["summary"]) == bool(blocked)


def test_without_a_history_a_deploy_refuses_or_does_not_exist(invoke: Invoke) -> None:
    assert prisma_of(invoke("plan")) == {
        "table": None,
        "state": "no_history",
        "blocked_by": [],
        "next_deploy": (
            "The database has no _prisma_migrations. Without Prisma Migrate there is no next deploy. If the"
            " connection URL of Prisma Migrate names the schema public, it refuses with P3005, because the schema is"
            " not empty, until somebody baselines it."
        ),
        "recorded_here": False,
    }
    assert invoke("check").response["prisma"] is None


def test_the_history_beside_the_table_counts_before_that_of_the_search_path(invoke: Invoke, database: Database) -> None:
    database.run_as_owner("CREATE SCHEMA fleet")
    database.run_as_owner(f"ALTER ROLE {database.user} SET search_path = fleet")
    assert prisma_of(invoke("plan"))["state"] == "no_history"
    database.run_as_owner(CREATE.format(schema="fleet"))
    assert prisma_of(invoke("plan"))["table"] == "fleet._prisma_migrations"
    database.run_as_owner(CREATE.format(schema="public"))
    assert prisma_of(invoke("plan"))["table"] == "public._prisma_migrations"


def test_what_git_does_to_line_ends_makes_no_other_checksum(invoke: Invoke, history: PrismaHistory) -> None:
    history.add(checksum=hashlib.sha256(SQL.replace("\n", "\r\n").encode()).hexdigest())
    assert prisma_of(invoke("plan"))["state"] == "recorded"


def test_a_migration_that_is_running_is_not_taken_for_a_failed_one(
    invoke: Invoke, database: Database, history: PrismaHistory
) -> None:
    history.add(finished=False)
    with holding(database, PRISMAS_LOCK) as pid:
        told = prisma_of(invoke("plan"))
    assert told["next_deploy"].startswith(
        f"{STOPS.format(f'{HOTFIX} is')} But pid {pid} holds Prisma's lock, and may be running it now."
    )


@pytest.mark.parametrize("action", ["plan", "apply"])
def test_a_history_that_may_not_be_read_is_told_with_the_grant(
    invoke: Invoke, database: Database, history: PrismaHistory, action: str
) -> None:
    database.run("ALTER TABLE public._prisma_migrations OWNER TO postgres")
    assert prisma_of(invoke(action)) == {
        "table": "public._prisma_migrations",
        "state": "unreadable",
        "blocked_by": [],
        "next_deploy": (
            "Not known: public._prisma_migrations could not be read."
            f' Grant it:  GRANT SELECT ON "public"."_prisma_migrations" TO "{database.user}";'
        ),
        "recorded_here": False,
    }


@pytest.mark.parametrize(
    ("forced", "undone"),
    [("FORCE ROW LEVEL SECURITY", "NO FORCE ROW LEVEL SECURITY"), ("OWNER TO postgres", 'OWNER TO "{user}"')],
)
def test_a_history_behind_row_security_is_unreadable_and_never_empty(
    invoke: Invoke, database: Database, history: PrismaHistory, forced: str, undone: str
) -> None:
    history.add()
    table = "ALTER TABLE public._prisma_migrations"
    database.run(
        f"{table} ENABLE ROW LEVEL SECURITY; {table} {forced}; GRANT ALL ON _prisma_migrations TO {database.user}"
    )
    line = f'ALTER TABLE "public"."_prisma_migrations" {undone.format(user=database.user)};'
    told = prisma_of(invoke("plan"))
    assert told["state"] == "unreadable"
    assert told["next_deploy"] == (
        "Not known: public._prisma_migrations could not be read. Row security may hide rows of it from"
        f" {database.user}. To show all of them:  {line}"
    )
    assert invoke("apply", record="prisma").error_name == "RelationError"
    database.run(line)
    assert prisma_of(invoke("plan"))["state"] == "recorded"


def test_row_security_that_is_switched_on_after_the_look_hides_nothing(
    invoke: Invoke, database: Database, history: PrismaHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.add()
    find = prisma.find_history

    def find_and_switch_on(*args: Any) -> Any:
        found = find(*args)
        table = "ALTER TABLE public._prisma_migrations"
        database.run(f"{table} ENABLE ROW LEVEL SECURITY; {table} FORCE ROW LEVEL SECURITY")
        return found

    monkeypatch.setattr("pg_hotfix.read_only.find_history", find_and_switch_on)
    assert prisma_of(invoke("plan"))["state"] == "unreadable"


def test_a_history_of_another_role_is_neither_read_nor_written(invoke: Invoke, database: Database) -> None:
    """Its policies and triggers would run with the rights of the tables' owner."""
    role = f"{database.user}_team"
    database.run(f"CREATE ROLE {role}")
    database.run(
        f"CREATE SCHEMA team AUTHORIZATION {role}; SET ROLE {role}; SET search_path = team;"
        + CREATE.format(schema="team")
        + "; CREATE SEQUENCE caught; GRANT ALL ON ALL TABLES IN SCHEMA team TO PUBLIC;"
        "GRANT USAGE ON SCHEMA team TO PUBLIC; GRANT ALL ON SEQUENCE caught TO PUBLIC;"
        "CREATE FUNCTION spring() RETURNS bool LANGUAGE sql AS $$ SELECT nextval('team.caught') > 0 $$;"
        "ALTER TABLE _prisma_migrations ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY spring ON _prisma_migrations USING (spring())"
    )
    database.run(f"ALTER ROLE {database.user} SET search_path = team, public")
    told = prisma_of(invoke("plan"))
    assert told["state"] == "unreadable"
    assert told["next_deploy"] == (
        f"Not known: team._prisma_migrations could not be read. It belongs to {role}, whose policies and triggers"
        f" would run with the rights of {database.user}. Give it to the owner of the application's tables:  ALTER TABLE"
        ' "team"."_prisma_migrations" OWNER TO ...;'
    )
    assert invoke("apply", record="prisma").error_name == "RelationError"
    assert database.run("SELECT is_called FROM team.caught") == [[False]]
    database.run(f"DROP SCHEMA team CASCADE; DROP ROLE {role}")


@pytest.fixture
def stranger(database: Database, history: PrismaHistory) -> Iterator[str]:
    """A role that may create triggers on the history, as GRANT ALL lets it, and functions in a schema of its own."""
    role = f"{database.user}_stranger"
    database.run(
        f"CREATE ROLE {role}; CREATE SCHEMA strange AUTHORIZATION {role}; GRANT USAGE ON SCHEMA strange TO PUBLIC;"
        f"CREATE TABLE strange.caught (); ALTER TABLE strange.caught OWNER TO {role};"
        f"GRANT INSERT ON strange.caught TO PUBLIC; GRANT ALL ON public._prisma_migrations TO {role};"
        "CREATE FUNCTION strange.spring() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO strange.caught DEFAULT VALUES; RETURN NEW; END $$;"
        f"ALTER FUNCTION strange.spring() OWNER TO {role}"
    )
    yield role
    database.run(f"DROP SCHEMA strange CASCADE; DROP OWNED BY {role}; DROP ROLE {role}")


def create_trigger(stranger: str, kind: str) -> str:
    return (
        f"SET ROLE {stranger}; CREATE TRIGGER watch {kind} ON public._prisma_migrations"
        " EXECUTE FUNCTION strange.spring(); RESET ROLE"
    )


@pytest.mark.parametrize("kind", ["BEFORE INSERT", "AFTER INSERT OR UPDATE", "BEFORE UPDATE"])
@pytest.mark.parametrize("before", [True, False])
def test_a_trigger_of_another_role_on_the_history_is_never_run(
    invoke: Invoke, database: Database, stranger: str, monkeypatch: pytest.MonkeyPatch, kind: str, before: bool
) -> None:
    find = prisma.find_history

    def find_and_create(*args: Any) -> Any:
        found = find(*args)
        monkeypatch.setattr("pg_hotfix.hotfix.find_history", find)
        database.run(create_trigger(stranger, kind))
        return found

    if before:
        database.run(create_trigger(stranger, kind))
    else:
        monkeypatch.setattr("pg_hotfix.hotfix.find_history", find_and_create)
    outcome = invoke("apply", record="prisma")
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        f"{HOTFIX} cannot be recorded: the trigger watch on public._prisma_migrations calls a function of another"
        f" role, which would run with the rights of {database.user}. Nothing was changed. Read the function. Give it"
        " to the owner of the application's tables, or drop the trigger, or apply without --record. To drop it:  DROP"
        ' TRIGGER "watch" ON "public"."_prisma_migrations";'
    )
    assert database.run("SELECT count(*) FROM strange.caught") == [[0]]
    assert invoke("apply").result == "applied"


def test_a_trigger_of_the_tables_owner_on_the_history_is_run(
    invoke: Invoke, database: Database, stranger: str, history: PrismaHistory
) -> None:
    database.run(create_trigger(stranger, "BEFORE INSERT"))
    database.run(f"ALTER FUNCTION strange.spring() OWNER TO {database.user}")
    outcome = invoke("apply", record="prisma")
    assert (outcome.result, prisma_of(outcome)["recorded_here"]) == ("applied", True)
    assert database.run("SELECT count(*) FROM strange.caught") == [[1]]


@pytest.mark.parametrize(("action", "result"), [("plan", "would_apply"), ("apply", "applied")])
def test_a_history_that_stays_locked_is_not_waited_for(
    invoke: Invoke, database: Database, history: PrismaHistory, action: str, result: str
) -> None:
    with holding(database, "BEGIN; LOCK TABLE public._prisma_migrations"):
        outcome = invoke(action)
    assert outcome.result == result
    assert prisma_of(outcome)["next_deploy"] == (
        "Not known: public._prisma_migrations could not be read. Another session holds it locked: run it again later."
    )


def test_a_table_that_only_has_the_name_is_told(invoke: Invoke, database: Database) -> None:
    database.run_as_owner("CREATE TABLE public._prisma_migrations (id int, migration_name text)")
    assert prisma_of(invoke("plan"))["next_deploy"] == (
        'Not known: public._prisma_migrations could not be read. 42703: column "checksum" does not exist.'
    )


def test_a_history_costs_two_round_trips_and_its_absence_one(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    run = Connection.run

    def note(connection: Connection, sql: str, *args: Any, **kwargs: Any) -> Any:
        sent.append(sql)
        return run(connection, sql, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "run", note)
        invoke("plan")
    # The session's own settings, its facts, the search for a history, the types, the columns, what ALTER TABLE would
    # refuse, the blockers, and the notes.
    assert len(sent) == 8
    database.run_as_owner(CREATE.format(schema="public"))
    sent.clear()
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "run", note)
        invoke("plan")
    # What the role may do with it, and its rows.
    assert len(sent) == 10


# Recording


def test_the_row_is_that_of_prisma_migrate_resolve_and_of_the_transaction_that_altered(
    invoke: Invoke, database: Database, history: PrismaHistory
) -> None:
    outcome = invoke("apply", record="prisma")
    assert prisma_of(outcome) == {
        "table": "public._prisma_migrations",
        "state": "recorded",
        "blocked_by": [],
        "next_deploy": f"{SKIPS}.",
        "recorded_here": True,
    }
    assert outcome.result == "applied"
    assert outcome.response["summary"].endswith("ms. Recorded in public._prisma_migrations.")
    ((uuid, *row),) = database.run(
        "SELECT h.id, checksum, migration_name, logs, rolled_back_at, applied_steps_count, started_at = finished_at,"
        " finished_at BETWEEN now() - interval '1 minute' AND now(), h.xmin = a.xmin"
        " FROM public._prisma_migrations h, pg_attribute a"
        " WHERE a.attrelid = 'public.drivers'::regclass AND a.attname = 'active_since'"
    )
    assert row == [CHECKSUM, HOTFIX, "", None, 0, True, True, True]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uuid)


def test_a_second_run_records_nothing_more(invoke: Invoke, history: PrismaHistory) -> None:
    assert [invoke("apply", record="prisma").result for _ in range(2)] == ["applied", "already_applied"]
    again = invoke("apply", record="prisma")
    assert (prisma_of(again)["recorded_here"], again.response["attempts"]) == (False, 0)
    assert history.rows() == [RECORDED_ROW]


def test_only_the_row_is_written_where_the_column_is_there(
    invoke: Invoke, database: Database, history: PrismaHistory
) -> None:
    invoke("apply")
    with holding(database, "BEGIN; LOCK TABLE public.drivers IN ACCESS EXCLUSIVE MODE"):
        outcome = invoke("apply", record="prisma")
    assert (outcome.result, prisma_of(outcome)["recorded_here"]) == ("already_applied", True)
    response = outcome.response
    assert (response["sql"], response["lock_held_ms"], response["longest_stall_ms"]) == (None, 0, 0)
    assert response["summary"] == (
        "public.drivers.active_since already as expected; nothing was run. Recorded in public._prisma_migrations."
    )
    assert history.rows() == [RECORDED_ROW]


@pytest.mark.parametrize("there", [False, True], ids=["column missing", "column there"])
@pytest.mark.parametrize(
    ("rows", "recorded"),
    [
        ([FAILED], [[HOTFIX, CHECKSUM, False, True], RECORDED_ROW]),
        ([FAILED, FAILED], [[HOTFIX, CHECKSUM, False, True]] * 2 + [RECORDED_ROW]),
        ([{}, FAILED], [RECORDED_ROW, [HOTFIX, CHECKSUM, False, True]]),
        ([{**FAILED, "rolled_back": True}], [[HOTFIX, CHECKSUM, False, True], RECORDED_ROW]),
        ([{"rolled_back": True}], [[HOTFIX, CHECKSUM, True, True], RECORDED_ROW]),
    ],
    ids=["failed", "failed twice", "applied and failed", "rolled back", "applied and rolled back"],
)
def test_a_failed_row_is_marked_as_rolled_back_and_one_that_is_rolled_back_is_let_be(
    invoke: Invoke, history: PrismaHistory, rows: list[dict[str, Any]], recorded: list[Any], there: bool
) -> None:
    if there:
        invoke("apply")
    for row in rows:
        history.add(**row)
    history.add(OTHER, finished=False)
    told = prisma_of(invoke("apply", record="prisma"))
    assert (told["state"], told["blocked_by"]) == ("recorded", [OTHER])
    assert told["recorded_here"] == (len(recorded) > len(rows))
    assert sorted(history.rows()) == sorted([*recorded, [OTHER, CHECKSUM, False, False]])


def test_a_type_that_the_file_makes_is_proved_and_recorded(
    invoke: Invoke, write_hotfix: WriteHotfix, history: PrismaHistory
) -> None:
    """The server can't judge that: COMMIT follows in a message of its own."""
    sql = "CREATE TYPE shift AS ENUM ('day'); ALTER TABLE drivers ADD COLUMN IF NOT EXISTS shift shift;"
    hotfix_id = write_hotfix(sql, "public.drivers.shift public.shift")
    assert prisma_of(invoke("apply", hotfix_id, record="prisma"))["recorded_here"]
    ((name, *_),) = history.rows()
    assert name == hotfix_id


def test_an_expression_on_several_lines_is_proved_and_recorded(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, history: PrismaHistory
) -> None:
    column = "state text DEFAULT CASE WHEN now() > '2026-01-01'::timestamptz THEN 'new' ELSE 'old' END"
    hotfix_id = write_hotfix(f"ALTER TABLE drivers ADD COLUMN IF NOT EXISTS {column};", "public.drivers.state text")
    shown = re.search(r"made      (.*)", invoke("apply", hotfix_id).text)
    assert shown
    hotfix_id = write_hotfix(
        f"ALTER TABLE drivers ADD COLUMN IF NOT EXISTS {column};", f"public.drivers.state {shown[1]}"
    )
    told = [prisma_of(invoke("apply", hotfix_id, record="prisma"))["recorded_here"]]
    database.run("DELETE FROM public._prisma_migrations")
    told.append(prisma_of(invoke("apply", hotfix_id, record="prisma"))["recorded_here"])
    assert (told, len(history.rows())) == ([True, True], 1)


# What is refused


def nothing_was_done(database: Database, history: PrismaHistory | None, rows: list[Any]) -> bool:
    return not has_column(database) and (history is None or history.rows() == rows)


def test_without_a_history_nothing_is_recorded_and_nothing_run(invoke: Invoke, database: Database) -> None:
    outcome = invoke("apply", record="prisma")
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        f"{HOTFIX} cannot be recorded: the database {database.name} has no _prisma_migrations in the schemas of the"
        " file's tables or in the search_path. Nothing was changed. If Prisma Migrate is to manage this database,"
        " baseline it:  prisma migrate resolve --applied <the first migration>  Otherwise apply without --record."
    )
    assert not has_column(database)
    invoke("apply")
    assert invoke("apply", record="prisma").error_name == "RelationError"


@pytest.mark.parametrize(
    ("granted", "failed", "lacking"),
    [
        ("INSERT", False, ["SELECT"]),
        ("SELECT", False, ["INSERT"]),
        ("SELECT", True, ["INSERT", "UPDATE"]),
        ("SELECT, INSERT", True, ["UPDATE"]),
    ],
)
def test_a_missing_right_is_told_with_the_grant_before_anything_is_run(
    invoke: Invoke, database: Database, history: PrismaHistory, granted: str, failed: bool, lacking: list[str]
) -> None:
    if failed:
        history.add(finished=False)
    rows = history.rows()
    database.run("ALTER TABLE public._prisma_migrations OWNER TO postgres")
    database.run(f"GRANT {granted} ON public._prisma_migrations TO {database.user}")
    outcome = invoke("apply", record="prisma")
    assert outcome.error_name == "NotOwnerError"
    line = f'GRANT {", ".join(lacking)} ON "public"."_prisma_migrations" TO "{database.user}";'
    assert outcome.text == (
        f"{database.user} lacks {' and '.join(lacking)} on public._prisma_migrations, so {HOTFIX} cannot be recorded."
        f" Nothing was changed. Grant it:  {line}"
    )
    assert nothing_was_done(database, history, rows)
    database.run(line)
    assert prisma_of(invoke("apply", record="prisma"))["recorded_here"]


def test_select_and_insert_are_enough_where_nothing_failed(
    invoke: Invoke, database: Database, history: PrismaHistory
) -> None:
    database.run("ALTER TABLE public._prisma_migrations OWNER TO postgres")
    database.run(f"GRANT SELECT, INSERT ON public._prisma_migrations TO {database.user}")
    assert invoke("apply", record="prisma").result == "applied"
    assert history.rows() == [RECORDED_ROW]


@pytest.mark.parametrize("there", [False, True], ids=["column missing", "column there"])
def test_another_file_under_the_same_name_is_refused(
    invoke: Invoke, database: Database, history: PrismaHistory, there: bool
) -> None:
    if there:
        database.run_as_owner(ADD_COLUMN)
    history.add(checksum="0" * 64)
    outcome = invoke("apply", record="prisma")
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == (
        f"{HOTFIX} cannot be recorded: public._prisma_migrations has it as applied, with the checksum of another"
        f" file. Nothing was changed. Compare sql/{HOTFIX}.sql with prisma/migrations/{HOTFIX}/migration.sql. Give"
        " this change an id of its own, or make both files the one that was applied. To add the column now, apply"
        " without --record."
    )
    assert (has_column(database), history.rows()) == (there, [[HOTFIX, "0" * 64, True, False]])


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("migration_name text", '42703: column "id" does not exist.'),
        (
            "id text, checksum text, finished_at timestamptz, migration_name text, rolled_back_at timestamptz",
            '42703: column "logs" of relation "_prisma_migrations" does not exist.',
        ),
    ],
)
def test_a_table_that_only_has_the_name_is_not_written_to(
    invoke: Invoke, database: Database, columns: str, reason: str
) -> None:
    database.run_as_owner(f"CREATE TABLE public._prisma_migrations ({columns})")
    outcome = invoke("apply", record="prisma")
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        f"{HOTFIX} cannot be recorded: public._prisma_migrations could not be read. {reason} Nothing was changed."
        " Find out whether that is a table of Prisma Migrate. If it is not, apply without --record."
    )
    assert not has_column(database)


def test_a_plan_that_has_changed_is_not_recorded(invoke: Invoke, database: Database, history: PrismaHistory) -> None:
    plan_hash = invoke("plan").response["plan_hash"]
    database.run_as_owner(ADD_COLUMN)
    assert invoke("apply", plan_hash=plan_hash, record="prisma").error_name == "PlanChangedError"
    assert history.rows() == []
    plan_hash = invoke("plan").response["plan_hash"]
    assert prisma_of(invoke("apply", plan_hash=plan_hash, record="prisma"))["recorded_here"]
    assert (
        invoke("apply", plan_hash="0" * 64, record="prisma").result == "already_applied"
    )  # A retry, with nothing left.


def test_a_role_that_only_reads_records_nothing(invoke: Invoke, database: Database, history: PrismaHistory) -> None:
    database.run_as_owner(ADD_COLUMN)
    database.run(f"ALTER ROLE {database.user} SET default_transaction_read_only = on")
    assert invoke("apply", record="prisma").error_name == "ReadOnlyDatabaseError"
    assert history.rows() == []


def test_sql_that_fails_its_proof_leaves_no_row(
    invoke: Invoke, write_hotfix: WriteHotfix, history: PrismaHistory
) -> None:
    hotfix_id = write_hotfix("ALTER TABLE drivers ADD COLUMN note text;", "public.drivers.note int")
    assert invoke("apply", hotfix_id, record="prisma").error_name == "MismatchError"
    assert history.rows() == []


def test_a_row_that_cannot_be_written_takes_the_column_back(
    invoke: Invoke, database: Database, history: PrismaHistory
) -> None:
    database.run_as_owner("ALTER TABLE _prisma_migrations ADD CHECK (migration_name NOT LIKE '%drivers%')")
    outcome = invoke("apply", record="prisma")
    assert (outcome.error_name, "23514" in outcome.text) == ("SqlRefusedError", True)
    assert nothing_was_done(database, history, [])


# Whom it waits for


@contextmanager
def watching_the_table(database: Database) -> Iterator[list[Any]]:
    """Each time the function was seen to hold or await ACCESS EXCLUSIVE on the table; whole at the end of the block."""
    seen: list[Any] = []
    over = threading.Event()

    def watch() -> None:
        with database.connect() as admin:
            while not over.wait(WATCH_SECONDS):
                seen.extend(
                    admin.run(
                        "SELECT granted FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name ="
                        " 'pg-hotfix' AND relation = 'public.drivers'::regclass AND mode = 'AccessExclusiveLock'"
                    )
                    or []
                )

    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(watch)
        try:
            yield seen
        finally:
            over.set()
            watched.result(PATIENCE_SECONDS)


@pytest.mark.parametrize("there", [False, True], ids=["column missing", "column there"])
def test_prismas_lock_is_waited_for_outside_of_every_queue_and_its_holder_is_named(
    invoke: Invoke, database: Database, history: PrismaHistory, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    database.run(f"GRANT pg_read_all_stats TO {database.user}")
    if there:
        database.run_as_owner(ADD_COLUMN)
    with (
        holding(database, f"SET application_name = 'schema-engine'; {PRISMAS_LOCK}") as pid,
        somebody_reading(database) as reader,
        # Whoever reads the table for a time is in the way of an ALTER, but not of a row.
        holding(database, "BEGIN; SELECT FROM public.drivers") if there else nullcontext(),
        watching_the_table(database) as seen,
    ):
        outcome = invoke("apply", record="prisma")
        stall = reader.longest_stall()
    assert (seen, outcome.error_name) == ([], "LockBusyError")
    what, undone = ("Prisma's history", "recorded") if there else ("public.drivers or Prisma's history", "applied")
    assert timeless(outcome.text) == (
        f"{what} stayed locked for # s, so {HOTFIX} was not {undone}. Nothing was changed, and nobody waited behind"
        " this run.\n"
        f"In the way: pid {pid} (postgres, schema-engine), EXCLUSIVE on Prisma's advisory lock 72707369. A prisma"
        " migrate that is ended in the middle leaves a failed migration (P3009).\n"
        f"Wait until it ends, or end it now (its transaction is rolled back):  SELECT pg_terminate_backend({pid});"
    )
    (blocker,) = outcome.line["blockers"]
    assert (blocker["pid"], blocker["user"], blocker["lock_mode"], blocker.get("table")) == (
        pid, "postgres", "EXCLUSIVE", None,
    )  # fmt: skip
    assert stall < 0.5
    assert (has_column(database), history.rows()) == (there, [])


@pytest.mark.parametrize("there", [False, True], ids=["column missing", "column there"])
def test_a_deploy_that_ends_is_followed_by_the_row(
    invoke: Invoke, database: Database, history: PrismaHistory, there: bool
) -> None:
    if there:
        database.run_as_owner(ADD_COLUMN)
    with holding(database, PRISMAS_LOCK, database.until_waited_for):
        outcome = invoke("apply", record="prisma")
    assert (outcome.result, prisma_of(outcome)["recorded_here"]) == ("already_applied" if there else "applied", True)
    assert (outcome.response["attempts"], outcome.response["lock_wait_ms"] > 0) == (2, True)
    assert history.rows() == [RECORDED_ROW]


def test_a_deploy_that_applies_it_meanwhile_leaves_nothing_to_do(
    invoke: Invoke, database: Database, history: PrismaHistory
) -> None:
    history.add(finished=False)
    deploy = f"{ADD_COLUMN}; UPDATE public._prisma_migrations SET finished_at = now()"
    with database.connect() as other:
        other.run(PRISMAS_LOCK)
        end = f"{deploy}; SELECT pg_advisory_unlock_all()"
        with meanwhile(database.until_waited_for, lambda: other.run(end)):
            outcome = invoke("apply", record="prisma")
    assert (outcome.result, prisma_of(outcome)["recorded_here"]) == ("already_applied", False)
    assert history.rows() == [RECORDED_ROW]


def test_a_reader_of_the_table_is_in_the_way_as_ever(
    invoke: Invoke, database: Database, history: PrismaHistory
) -> None:
    reading = holding(database, "BEGIN; SELECT FROM public.drivers", database.until_waited_for)
    with reading, watching_the_queue(database) as seen:
        outcome = invoke("apply", record="prisma")
    assert (outcome.result, outcome.response["attempts"], seen) == ("applied", 2, [])
    assert history.rows() == [RECORDED_ROW]


@pytest.mark.parametrize("after_the_look", [False, True], ids=["before the look", "after the look"])
@pytest.mark.parametrize("mode", ["SHARE", "ACCESS EXCLUSIVE"])
def test_a_locked_history_is_waited_for_outside_of_every_queue(
    invoke: Invoke,
    database: Database,
    history: PrismaHistory,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    after_the_look: bool,
) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    with database.connect() as other, watching_the_table(database) as seen:
        ((pid,),) = other.run("SELECT pg_backend_pid()")

        def lock() -> None:
            other.run(f"BEGIN; LOCK TABLE public._prisma_migrations IN {mode} MODE")

        if after_the_look:
            once(monkeypatch, lock)
        else:
            lock()
        outcome = invoke("apply", record="prisma")
    assert (outcome.error_name, seen, outcome.line["longest_stall_ms"]) == ("LockBusyError", [], 0)
    assert f"In the way: pid {pid} (postgres), {mode} on public._prisma_migrations.\n" in outcome.text
    assert nothing_was_done(database, history, [])


def test_whoever_else_writes_to_the_history_is_not_in_the_way(
    invoke: Invoke, database: Database, history: PrismaHistory
) -> None:
    row = f"INSERT INTO public._prisma_migrations (id, checksum, migration_name) VALUES ('1', '', '{OTHER}')"
    with holding(database, f"BEGIN; {row}"):
        outcome = invoke("apply", record="prisma")
    assert (outcome.result, outcome.response["attempts"]) == ("applied", 1)


# Several at once


@pytest.mark.parametrize("there", [False, True], ids=["column missing", "column there"])
def test_fifty_runs_at_once_write_exactly_one_row(
    invoke: Invoke, database: Database, history: PrismaHistory, there: bool
) -> None:
    if there:
        database.run_as_owner(ADD_COLUMN)
    invoke("check")  # The secret is remembered.
    settings, request = read_settings(os.environ), parse_request({**APPLY, "record": "prisma"})
    with ThreadPoolExecutor(50) as pool:
        reports = list(pool.map(lambda _: hotfix.run(request, settings, lambda: 55_000), range(50)))
    assert sorted(report.result for report in reports) == [
        *["already_applied"] * (50 - (not there)),
        *["applied"] * (not there),
    ]
    assert sum(report.history.recorded_here for report in reports if report.history) == 1
    assert [report.history.state for report in reports if report.history] == ["recorded"] * 50
    assert history.rows() == [RECORDED_ROW]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_row_committed_just_before_prismas_lock_is_let_go_is_seen(
    invoke: Invoke, database: Database, history: PrismaHistory, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    database.run_as_owner(ADD_COLUMN)
    database.run(f"ALTER ROLE {database.user} SET default_transaction_isolation = '{isolation}'")
    # The statement that takes Prisma's lock has begun, and with it the snapshot of its transaction.
    pause = "pg_catalog.set_config('lock_timeout', '4s', true), pg_catalog.pg_advisory_xact_lock(1)"
    take_lock_sql = recording.take_lock_sql
    monkeypatch.setattr(recording, "take_lock_sql", lambda: f"{pause}, {take_lock_sql()}")
    with database.connect() as other, ThreadPoolExecutor(1) as pool:
        other.run("SELECT pg_advisory_lock(1)")
        running = pool.submit(invoke, "apply", record="prisma")
        try:
            until(lambda: database.run("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
            history.add()
        finally:
            other.run("SELECT pg_advisory_unlock_all()")
        outcome = running.result(PATIENCE_SECONDS)
    assert (outcome.result, prisma_of(outcome)["recorded_here"]) == ("already_applied", False)
    assert history.rows() == [RECORDED_ROW]


@pytest.mark.parametrize("there", [False, True], ids=["column missing", "column there"])
@pytest.mark.parametrize(
    ("row", "error"), [({}, None), ({"finished": False}, None), ({"checksum": "0" * 64}, "HotfixFileError")]
)
def test_a_row_that_appears_after_the_look_is_looked_at_again(
    invoke: Invoke,
    database: Database,
    history: PrismaHistory,
    monkeypatch: pytest.MonkeyPatch,
    row: dict[str, Any],
    error: str | None,
    there: bool,
) -> None:
    if there:
        database.run_as_owner(ADD_COLUMN)
    once(monkeypatch, lambda: history.add(**row))
    outcome = invoke("apply", record="prisma")
    assert outcome.error_name == error
    applied = [entry for entry in history.rows() if entry[2] and not entry[3]]
    assert applied == [[HOTFIX, row.get("checksum", CHECKSUM), True, False]]
    assert has_column(database) == (there or error is None)


def test_a_failed_row_that_may_not_be_resolved_appears_after_the_look(
    invoke: Invoke, database: Database, history: PrismaHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run("ALTER TABLE public._prisma_migrations OWNER TO postgres")
    database.run(f"GRANT SELECT, INSERT ON public._prisma_migrations TO {database.user}")
    once(monkeypatch, lambda: history.add(finished=False))
    outcome = invoke("apply", record="prisma")
    assert (outcome.error_name, "lacks UPDATE" in outcome.text) == ("NotOwnerError", True)
    assert nothing_was_done(database, history, [[HOTFIX, CHECKSUM, False, False]])


@pytest.mark.parametrize(
    ("change", "error", "result"),
    [
        ("DROP COLUMN active_since", None, "applied"),
        ("ALTER COLUMN active_since TYPE text", "MismatchError", None),
    ],
)
def test_a_column_that_is_changed_after_the_look_is_not_recorded_unproved(
    invoke: Invoke,
    database: Database,
    history: PrismaHistory,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    error: str | None,
    result: str | None,
) -> None:
    database.run_as_owner(ADD_COLUMN)
    once(monkeypatch, lambda: database.run_as_owner(f"ALTER TABLE drivers {change}"))
    outcome = invoke("apply", record="prisma")
    assert (outcome.error_name, outcome.result) == (error, result)
    assert history.rows() == ([RECORDED_ROW] if result else [])


def once(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Calls `action` right before the message that changes something is made for the first time."""
    run_under_lock = in_transaction.run_under_lock
    actions = [action]

    def act_and_run(*args: Any, **kwargs: Any) -> Any:
        if actions:
            actions.pop()()
        return run_under_lock(*args, **kwargs)

    monkeypatch.setattr(in_transaction, "run_under_lock", act_and_run)


# A network that fails


@pytest.fixture
def lanes_with_history(lanes: list[Lane]) -> Iterator[list[Lane]]:
    for lane in lanes:
        lane.database.run_as_owner(CREATE.format(schema="public"))
    yield lanes
    for lane in lanes:
        lane.database.run("DROP TABLE public._prisma_migrations")


def try_to_record(lane: Lane, fault: Fault | None, *, there: bool) -> tuple[Ending, Proxy, list[str]]:
    """One `apply` with `record` was hurt: the column and its row are both there or both missing, and every promise of
    a run without is kept. At the end there is exactly one row."""
    lane.reset()
    lane.admin.run("TRUNCATE public._prisma_migrations")
    if there:
        lane.admin.run(ADD_COLUMN)
    began = lane.clock.now()
    request = parse_request({**APPLY, "record": "prisma"})
    settings = lane.settings
    with running_proxy(lane.database.server, *([fault] if fault else [])) as proxy:
        ending = run_to_its_end(replace(settings, db_port=proxy.port), request=request)
        broken = lane.still_held(STALL_SECONDS)
        column, ((rows,),) = lane.has_column(), lane.admin.run("SELECT count(*) FROM public._prisma_migrations")
        if not there and column != bool(rows):
            broken.append(f"the column is {column}, and there are {rows} rows")
        if rows and "Nothing was changed" in ending.text:
            broken.append("the row is there, though the text says that nothing was changed")
        if ending.result and not rows:
            broken.append("the row is missing after a success")
        # Where the column was there before, "Nothing was changed" says nothing of it.
        broken += [one for one in examine(lane, ending, began) if not (there and "says that nothing was" in one)]
    again = run_to_its_end(settings, request=request)
    ((rows,),) = lane.admin.run("SELECT count(*) FROM public._prisma_migrations WHERE finished_at IS NOT NULL")
    if (again.result, rows) != ("already_applied", 1):
        broken.append(f"a clean run with record ended as {again}, with {rows} rows")
    return ending, proxy, broken


@pytest.mark.parametrize("there", [False, True], ids=["column missing", "column there"])
def test_a_connection_that_breaks_leaves_column_and_row_or_neither(
    lanes_with_history: list[Lane], long: bool, there: bool
) -> None:
    lane = lanes_with_history[0]
    lane.reader.wanted.set()
    ending, proxy, broken = try_to_record(lane, None, there=there)
    assert (ending.result, broken) == ("already_applied" if there else "applied", [])
    sent = [message for message in proxy.messages if message.connection == 1]
    changing = next(message.number for message in queries(sent) if "COMMIT" in message.text)
    assert "EXECUTE" in next(message.text for message in sent if message.number == changing)
    # From the look at the history on; what comes before is as in any run.
    around = [message for message in sent if long or changing - 4 <= message.number <= changing + 12]
    faults = [Fault(kind, message.number) for message in around for kind in ("reset", "close")]
    faults += [Fault("freeze", message.number) for message in queries(around)]

    def trial(lane: Lane, fault: Fault) -> list[str]:
        return try_to_record(lane, fault, there=there)[2]

    try_all(lanes_with_history, faults, trial)
