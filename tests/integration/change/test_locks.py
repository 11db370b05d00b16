"""Waiting outside the queue: real lock_wait, held by real other sessions."""

from __future__ import annotations

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from laptop.postgres import running_server
from pg_hotfix import hotfix
from pg_hotfix.change import in_transaction, lock_wait
from pg_hotfix.request import parse_request
from pg_hotfix.server import limits
from pg_hotfix.server.session import parse_ms
from pg_hotfix.settings import read_settings
from tests.conftest import HOTFIX, PASSWORDS, PATIENCE_SECONDS, grant, meanwhile, until
from tests.integration.aftermath import somebody_reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from laptop.postgres import Server
    from pg_hotfix.report import Report
    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

ADD_NOTE = "ALTER TABLE public.drivers ADD COLUMN IF NOT EXISTS note text;"
NOTE = "public.drivers.note text"
ADD_FLEET = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS fleet_id int REFERENCES fleet;"
FLEET = "public.drivers.fleet_id int"
# Within the block an autovacuum of a table of some pages takes minutes.
SLOW_VACUUM = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: autovacuum looks every second, and transactions can be prepared."""
    version = os.environ.get("PG_VERSION")
    settings = {"max_prepared_transactions": "5", "max_connections": "120"}
    folder = tmp_path_factory.mktemp("postgres")
    with running_server(folder, version=int(version) if version else None, settings=settings) as server:
        PASSWORDS.add(server.admin_password)
        set_naptime(server, 1)
        yield server


def set_naptime(server: Server, seconds: int) -> None:
    with server.connect() as admin:
        admin.run(f"ALTER SYSTEM SET autovacuum_naptime = '{seconds}s'")
        admin.run("SELECT pg_reload_conf()")


@pytest.fixture
def give_up_after_1_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")


@pytest.fixture
def give_up_after_3_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "3")


def columns_of(database: Database, table: str = "public.drivers") -> list[str]:
    rows = database.run(
        f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    return [name for (name,) in rows]


@contextmanager
def holding(database: Database, sql: str, until_then: Callable[[], object] | None = None) -> Iterator[int]:
    """Within the block another session is in a transaction that has run `sql`; or it commits after `until_then`. Its
    pid."""
    with database.connect() as other:
        ((pid,),) = other.run("SELECT pg_backend_pid()")
        other.run(f"BEGIN; {sql}")
        with meanwhile(until_then, lambda: other.run("COMMIT")) if until_then else nullcontext():
            yield pid


def timeless(text: str) -> str:
    """The text without how long something took."""
    return re.sub(r"\b\d+ (m?s)\b", r"# \1", text)


def read_and_write(database: Database) -> None:
    """Others have read and written the table: nobody stands in a queue for it."""
    database.run("SELECT FROM public.drivers; UPDATE public.drivers SET name = name")


# Shorter than the shortest wait of an attempt, and long enough to leave the server to others.
WATCH_SECONDS = 0.003


@contextmanager
def watching_the_queue(database: Database) -> Iterator[list[Any]]:
    """Locks that the function was seen waiting for, in a list that is whole at the end of the block."""
    seen: list[Any] = []
    begun, over = threading.Event(), threading.Event()

    def watch() -> None:
        with database.connect() as admin:
            begun.set()
            while not over.wait(WATCH_SECONDS):
                seen.extend(
                    admin.run(
                        "SELECT mode, relation::regclass::text FROM pg_locks JOIN pg_stat_activity USING (pid)"
                        " WHERE application_name = 'pg-hotfix' AND NOT granted AND relation IS NOT NULL"
                    )
                    or []
                )

    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(watch)
        try:
            assert begun.wait(PATIENCE_SECONDS)
            yield seen
        finally:
            over.set()
            watched.result(PATIENCE_SECONDS)


# Who is in the way


def test_a_lock_that_stays_is_reported_with_who_holds_it_and_nobody_waits(
    invoke: Invoke, database: Database, give_up_after_1_s: None
) -> None:
    database.run(f"GRANT pg_read_all_stats TO {database.user}")
    with database.connect() as other:
        other.run("SET application_name = 'nightly-report'")
        ((pid,),) = other.run("SELECT pg_backend_pid()")
        other.run("BEGIN; SELECT * FROM public.drivers")
        age = f"SELECT extract(epoch FROM now() - xact_start)::float8 FROM pg_stat_activity WHERE pid = {pid}"
        ((at_first,),) = database.run(age)
        with watching_the_queue(database) as seen_waiting:
            outcome = invoke("apply")
        ((at_last,),) = database.run(age)
        assert invoke("plan").response["blockers"][0]["pid"] == pid
    assert seen_waiting == []
    assert outcome.error_name == "LockBusyError"
    assert timeless(outcome.text) == (
        f"public.drivers stayed locked for # s, so {HOTFIX} was not applied. Nothing was changed, and nobody waited"
        " behind this run.\n"
        f"In the way: pid {pid} (postgres, nightly-report), in a transaction for # s (idle in transaction), ACCESS"
        " SHARE on public.drivers.\n"
        f"Wait until it ends, or end it now (its transaction is rolled back):  SELECT pg_terminate_backend({pid});"
    )
    (blocker,) = outcome.line["blockers"]
    assert at_first < blocker.pop("transaction_seconds") < at_last
    # The log leaves out what is null.
    assert {key: value for key, value in blocker.items() if value is not None} == {
        "pid": pid,
        "user": "postgres",
        "application_name": "nightly-report",
        "state": "idle in transaction",
        "lock_mode": "ACCESS SHARE",
        "granted": True,
        "waiting": False,
        "table": "public.drivers",
        "waits_for": [],
        "text": outcome.text.split("\n")[1].removeprefix("In the way: "),
    }
    assert (outcome.line["attempts"], outcome.line["longest_stall_ms"]) == (1, 0)
    assert (outcome.metric("LockBusy"), outcome.metric("Failed")) == (1, 1)
    assert columns_of(database) == ["id", "name"]


def test_what_the_role_may_not_see_is_null_and_the_grant_is_named(
    invoke: Invoke, database: Database, give_up_after_1_s: None
) -> None:
    with holding(database, "SELECT * FROM public.drivers") as pid:
        outcome = invoke("apply")
        (planned,) = invoke("plan").response["blockers"]
    assert timeless(outcome.text) == (
        f"public.drivers stayed locked for # s, so {HOTFIX} was not applied. Nothing was changed, and nobody waited"
        " behind this run.\n"
        f"In the way: pid {pid} (postgres), ACCESS SHARE on public.drivers.\n"
        f"Wait until it ends, or end it now (its transaction is rolled back):  SELECT pg_terminate_backend({pid});\n"
        f"To see what they do and since when:  {grant(database, 'pg_read_all_stats')}"
    )
    assert (planned["state"], planned["application_name"], planned["transaction_seconds"]) == (None, None, None)


def test_of_several_locks_of_a_transaction_the_strongest_is_named(invoke: Invoke, database: Database) -> None:
    with holding(database, "SELECT * FROM public.drivers; UPDATE public.drivers SET name = ''"):
        (blocker,) = invoke("plan").response["blockers"]
    assert blocker["lock_mode"] == "ROW EXCLUSIVE"


def test_whom_a_blocker_itself_waits_for_is_named(invoke: Invoke, database: Database) -> None:
    database.run_as_owner("CREATE TABLE fleet (id int)")
    with (
        holding(database, "LOCK TABLE public.fleet") as root,
        database.connect() as middle,
        ThreadPoolExecutor(1) as pool,
    ):
        ((pid,),) = middle.run("SELECT pg_backend_pid()")
        middle.run("BEGIN; SELECT * FROM public.drivers")
        waiting = pool.submit(middle.run, "SELECT * FROM public.fleet")
        try:
            until(lambda: database.run(f"SELECT pg_blocking_pids({pid})") == [[[root]]])
            (blocker,) = invoke("plan").response["blockers"]
        finally:
            database.run(f"SELECT pg_terminate_backend({root})")
            waiting.result(PATIENCE_SECONDS)
    assert (blocker["pid"], blocker["waits_for"]) == (pid, [root])


def test_of_a_queue_for_one_row_the_one_that_holds_it_is_offered_first(
    invoke: Invoke, database: Database, give_up_after_1_s: None
) -> None:
    database.run_as_owner("INSERT INTO drivers VALUES (gen_random_uuid(), 'x')")
    with ExitStack() as stack:
        others = [stack.enter_context(database.connect()) for _ in range(30)]
        pids = [other.run("SELECT pg_backend_pid()")[0][0] for other in others]
        # The holder of the row is the last by pid.
        holder = others.pop(pids.index(max(pids)))
        holder.run("BEGIN; UPDATE public.drivers SET name = 'y'")
        pool = stack.enter_context(ThreadPoolExecutor(30))
        waiting = [pool.submit(other.run, "UPDATE public.drivers SET name = 'z'") for other in others]
        try:
            until(
                lambda: database.run("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == [[29]]
            )
            outcome = invoke("apply")
        finally:
            holder.run("COMMIT")
        for one in waiting:
            one.result(PATIENCE_SECONDS)
    assert outcome.error_name == "LockBusyError"
    assert outcome.text.split("\n")[1] == f"In the way: pid {max(pids)} (postgres), ROW EXCLUSIVE on public.drivers."
    assert (
        f"them now (their transactions are rolled back):  SELECT pg_terminate_backend({max(pids)});\n" in outcome.text
    )
    assert "\nand 25 more.\n" in outcome.text
    assert len(outcome.line["blockers"]) == 30


def test_a_prepared_transaction_is_named_with_the_line_that_ends_it(
    invoke: Invoke, database: Database, give_up_after_1_s: None
) -> None:
    with database.connect() as other:
        other.run("BEGIN; UPDATE public.drivers SET name = ''; PREPARE TRANSACTION 'order 7'")
    try:
        outcome = invoke("apply")
    finally:
        database.run("ROLLBACK PREPARED 'order 7'")
    assert outcome.error_name == "LockBusyError"
    assert timeless(outcome.text) == (
        f"public.drivers stayed locked for # s, so {HOTFIX} was not applied. Nothing was changed, and nobody waited"
        " behind this run.\n"
        "In the way: the prepared transaction order 7 (postgres), prepared # s ago, ROW EXCLUSIVE on public.drivers."
        " No session will end it: whoever prepared it must commit it or roll it back.\n"
        "Wait until it ends, or end it now (its transaction is rolled back):  ROLLBACK PREPARED 'order 7';"
    )
    assert (outcome.line["blockers"][0].get("pid"), invoke("apply").result) == (None, "applied")


def test_who_waits_in_the_queue_is_in_the_way_but_need_not_be_ended(
    invoke: Invoke, database: Database, give_up_after_1_s: None
) -> None:
    with (
        holding(database, "SELECT * FROM public.drivers") as reader,
        database.connect() as other,
        ThreadPoolExecutor(1) as pool,
    ):
        ((pid,),) = other.run("SELECT pg_backend_pid()")
        waiting = pool.submit(other.run, "ALTER TABLE public.drivers ADD COLUMN rating int")
        try:
            until(lambda: database.run(f"SELECT pg_blocking_pids({pid})") == [[[reader]]])
            outcome = invoke("apply")
        finally:
            database.run(f"SELECT pg_terminate_backend({reader})")
            waiting.result(PATIENCE_SECONDS)
    assert f"In the way: pid {reader} (postgres), ACCESS SHARE on public.drivers.\n" in outcome.text
    assert (
        f"In the way: pid {pid} (postgres), itself waiting for pid {reader}, ACCESS EXCLUSIVE on public.drivers"
        " (awaited)." in outcome.text
    )
    assert f"them now (their transactions are rolled back):  SELECT pg_terminate_backend({reader});\n" in outcome.text


# Which tables count


@pytest.mark.parametrize(
    "create",
    [
        "CREATE TABLE rides (id int) PARTITION BY RANGE (id); CREATE TABLE rides_1 PARTITION OF rides DEFAULT",
        "CREATE TABLE rides (id int); CREATE TABLE rides_1 () INHERITS (rides)",
    ],
    ids=["partition", "inheritance child"],
)
def test_a_reader_of_a_child_is_in_the_way_of_the_whole_table(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, give_up_after_1_s: None, create: str
) -> None:
    database.run_as_owner(create)
    hotfix_id = write_hotfix("ALTER TABLE rides ADD COLUMN IF NOT EXISTS a int;", "public.rides.a int")
    with holding(database, "SELECT * FROM public.rides_1"), somebody_reading(database, "ONLY public.rides") as reader:
        assert [blocker["table"] for blocker in invoke("plan", hotfix_id).response["blockers"]] == ["public.rides_1"]
        outcome = invoke("apply", hotfix_id)
        assert reader.longest_stall() < 0.3
    assert outcome.error_name == "LockBusyError"
    assert "ACCESS SHARE on public.rides_1." in outcome.text
    assert outcome.line["longest_stall_ms"] > 0  # The table itself was locked until the attempt met its child.
    assert invoke("apply", hotfix_id).result == "applied"
    assert columns_of(database, "public.rides_1") == ["id", "a"]


def test_many_partitions_are_locked_together(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> None:
    database.run_as_owner("CREATE TABLE rides (id int) PARTITION BY RANGE (id)")
    partitions = "".join(
        f"CREATE TABLE rides_{number} PARTITION OF rides FOR VALUES FROM ({number}) TO ({number + 1});"
        for number in range(40)
    )
    database.run_as_owner(partitions)
    hotfix_id = write_hotfix("ALTER TABLE rides ADD COLUMN IF NOT EXISTS a int;", "public.rides.a int")
    with holding(database, "SELECT * FROM public.rides", database.until_waited_for):
        outcome = invoke("apply", hotfix_id)
    assert (outcome.result, columns_of(database, "public.rides_39")) == ("applied", ["id", "a"])


def test_a_writer_of_a_referenced_table_is_waited_for_outside_the_queue(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TABLE fleet (id int PRIMARY KEY)")
    hotfix_id = write_hotfix(ADD_FLEET, FLEET)
    with holding(database, "INSERT INTO public.fleet VALUES (1)", database.until_waited_for):
        (blocker,) = invoke("plan", hotfix_id).response["blockers"]
        outcome = invoke("apply", hotfix_id)
    assert (blocker["table"], blocker["lock_mode"]) == ("public.fleet", "ROW EXCLUSIVE")
    assert (outcome.result, outcome.response["attempts"]) == ("applied", 1)
    assert columns_of(database) == ["id", "name", "fleet_id"]


def test_a_reader_of_a_referenced_table_is_not_in_the_way(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TABLE fleet (id int PRIMARY KEY)")
    hotfix_id = write_hotfix(ADD_FLEET, FLEET)
    with holding(database, "SELECT * FROM public.fleet"):
        assert invoke("plan", hotfix_id).response["blockers"] == []
        outcome = invoke("apply", hotfix_id)
    assert (outcome.result, outcome.response["attempts"]) == ("applied", 1)


def test_a_table_that_a_do_block_alters_is_waited_for(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner('CREATE TABLE "Fleet" (id int)')
    hotfix_id = write_hotfix(
        f'{ADD_NOTE} DO $$ BEGIN ALTER TABLE "Fleet" ADD COLUMN IF NOT EXISTS size int; END $$;', NOTE
    )
    with holding(database, 'SELECT * FROM public."Fleet"'):
        (blocker,) = invoke("plan", hotfix_id).response["blockers"]
    assert blocker["table"] == 'public."Fleet"'


def refuse_hidden_lock(
    invoke: Invoke, database: Database, hotfix_id: str, lock: str, table: str, action: str = "apply", **fields: Any
) -> Outcome:
    """The refusal while another session holds `lock`, a lock that no line of the file names. It names the holder."""
    with holding(database, lock) as pid:
        outcome = invoke(action, hotfix_id, **fields)
    assert outcome.error_name == "LockBusyError"
    (blocker,) = outcome.line["blockers"]
    assert (blocker["pid"], blocker["table"]) == (pid, table)
    assert f"pid {pid}" in outcome.text
    # At the start, and after 2 s.
    assert outcome.line["attempts"] <= 2
    return outcome


HIDDEN = "public.drivers could be locked, but 20260301101500_change_something needs one more lock, which was not free"


def test_a_lock_that_a_function_takes_is_tried_for_seldom_and_its_holder_is_named(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, give_up_after_3_s: None
) -> None:
    database.run_as_owner("CREATE TABLE fleet (id int)")
    database.run_as_owner("CREATE FUNCTION grow() RETURNS void AS 'LOCK TABLE fleet' LANGUAGE sql")
    hotfix_id = write_hotfix(f"{ADD_NOTE} SELECT grow();", NOTE)
    outcome = refuse_hidden_lock(invoke, database, hotfix_id, "LOCK TABLE public.fleet", "public.fleet")
    assert outcome.text.startswith(
        f"{HIDDEN} within 3 s, so it was not applied. Nothing was changed, and other sessions waited"
    )
    assert columns_of(database) == ["id", "name"]


def test_a_lock_that_an_event_trigger_takes_has_a_named_holder(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, give_up_after_3_s: None
) -> None:
    database.run(
        "CREATE SCHEMA audit; CREATE TABLE audit.ddl_log (tag text);"
        f"GRANT USAGE ON SCHEMA audit TO {database.user}; GRANT INSERT ON audit.ddl_log TO {database.user};"
        "CREATE FUNCTION audit.note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO audit.ddl_log VALUES (TG_TAG); END $$;"
        "CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION audit.note()"
    )
    hotfix_id = write_hotfix(ADD_NOTE, NOTE)
    refuse_hidden_lock(invoke, database, hotfix_id, "LOCK TABLE audit.ddl_log IN SHARE MODE", "audit.ddl_log")
    with holding(database, "SELECT FROM audit.ddl_log"):  # A reader is in nobody's way there.
        assert invoke("apply", hotfix_id).result == "applied"


def test_a_reader_of_what_a_dropped_foreign_key_refers_to_is_named(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, give_up_after_3_s: None
) -> None:
    database.run_as_owner(
        "CREATE TABLE fleet (id int PRIMARY KEY); ALTER TABLE drivers ADD fleet_id int REFERENCES fleet"
    )
    hotfix_id = write_hotfix(f"ALTER TABLE drivers DROP CONSTRAINT IF EXISTS drivers_fleet_id_fkey; {ADD_NOTE}", NOTE)
    refuse_hidden_lock(invoke, database, hotfix_id, "SELECT FROM public.fleet", "public.fleet")


def test_a_way_back_waits_for_readers_of_what_its_foreign_key_refers_to_without_an_attempt(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    database.run_as_owner("CREATE TABLE fleet (id int PRIMARY KEY)")
    hotfix_id = write_hotfix(
        f"-- revert: ALTER TABLE public.drivers DROP COLUMN IF EXISTS fleet_id;\n{ADD_FLEET}", FLEET
    )
    assert invoke("apply", hotfix_id).result == "applied"
    with watching_the_queue(database) as awaited:
        outcome = refuse_hidden_lock(
            invoke, database, hotfix_id, "SELECT FROM public.fleet", "public.fleet", action="revert"
        )
    assert (awaited, outcome.line["attempts"], outcome.line["longest_stall_ms"]) == ([], 0, 0)
    monkeypatch.delenv("LOCK_WAIT_SECONDS")
    with holding(database, "SELECT FROM public.fleet", database.until_waited_for):
        outcome = invoke("revert", hotfix_id)
    assert (outcome.result, outcome.response["attempts"]) == ("reverted", 1)


# When to try


def test_a_lock_that_is_let_go_is_taken_at_the_second_attempt(invoke: Invoke, database: Database) -> None:
    def until_others_worked() -> None:
        database.until_waited_for()
        read_and_write(database)

    with (
        watching_the_queue(database) as seen_waiting,
        holding(database, "SELECT * FROM public.drivers", until_others_worked),
    ):
        outcome = invoke("apply")
    assert (outcome.error, outcome.result) == (None, "applied")
    assert seen_waiting == []
    assert outcome.response["attempts"] == 2
    assert outcome.response["lock_wait_ms"] > 0
    assert 0 < outcome.response["lock_held_ms"] <= outcome.response["longest_stall_ms"]


def keep_busy(database: Database, seconds: float, over: threading.Event, offset: float) -> None:
    """Reads the table in transactions of that length, one right after the other."""
    with database.connect() as other:
        other.run(f"SELECT pg_sleep({offset})")
        while not over.is_set():
            other.run(f"BEGIN; SELECT * FROM public.drivers; SELECT pg_sleep({seconds}); COMMIT")


@pytest.mark.parametrize(("clients", "seconds"), [(8, 0.02), (2, 0.3)], ids=["short ones", "long ones in turns"])
def test_a_table_that_is_never_free_is_reached(
    invoke: Invoke, database: Database, clients: int, seconds: float
) -> None:
    over = threading.Event()
    with ThreadPoolExecutor(clients) as pool:
        busy = [
            pool.submit(keep_busy, database, seconds, over, number * seconds / clients) for number in range(clients)
        ]
        try:
            until(lambda: len(invoke("plan").response["blockers"]) >= min(clients, 2))
            outcome = invoke("apply")
        finally:
            over.set()
        for one in busy:
            one.result(PATIENCE_SECONDS)
    assert (outcome.error, outcome.result) == (None, "applied")
    assert outcome.response["attempts"] > 1


def test_the_wait_leaves_time_to_report_before_the_function_ends(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[lock_wait.LockWait] = []
    monkeypatch.setattr(lock_wait.LockWait, "give_up", note_and_call(turns, lock_wait.LockWait.give_up))
    with holding(database, "SELECT * FROM public.drivers"):
        assert invoke("apply", seconds=12).error_name == "LockBusyError"
    (turn,) = turns
    # Not the 30 s that it may wait where the function has the time.
    assert turn.deadline == turn.session.limits.last_attempt_at


def note_and_call(
    turns: list[lock_wait.LockWait], method: Callable[[lock_wait.LockWait], Any]
) -> Callable[[lock_wait.LockWait], Any]:
    def noted(turn: lock_wait.LockWait) -> Any:
        turns.append(turn)
        return method(turn)

    return noted


def test_no_statement_of_the_file_runs_before_the_lock_is_held(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, give_up_after_1_s: None
) -> None:
    database.run_as_owner("CREATE SEQUENCE ran")  # A sequence remembers what a rollback undoes.
    hotfix_id = write_hotfix(f"SELECT nextval('ran'); {ADD_NOTE}", NOTE)
    with holding(database, "SELECT * FROM public.drivers"):
        assert invoke("apply", hotfix_id).error_name == "LockBusyError"
    assert database.run("SELECT is_called FROM public.ran") == [[False]]
    assert invoke("apply", hotfix_id).result == "applied"
    assert database.run("SELECT is_called FROM public.ran") == [[True]]


def test_a_lock_that_commit_itself_needs_is_waited_for_in_attempts_too(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(
        "CREATE TABLE audit (id int);"
        "CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN LOCK TABLE audit; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON drivers DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION at_commit()"
    )
    hotfix_id = write_hotfix(f"{ADD_NOTE} INSERT INTO drivers (id, name) VALUES (gen_random_uuid(), '');", NOTE)
    with holding(database, "LOCK TABLE public.audit", database.until_waited_for):
        outcome = invoke("apply", hotfix_id)
    assert (outcome.error, outcome.result) == (None, "applied")
    assert outcome.response["attempts"] > 1


def test_taking_many_locks_one_after_the_other_is_limited_as_a_whole(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if lock_timeout, which counts for each lock, had not yet fired, and nobody had been seen in the way.
    monkeypatch.setattr(in_transaction, "LOCKING_MS", -7)
    looks: list[None] = []

    def see_nobody(*_: object) -> list[Any]:
        looks.append(None)
        return []

    monkeypatch.setattr(lock_wait, "find_blockers", see_nobody)
    with holding(database, "SELECT * FROM public.drivers", lambda: until(lambda: len(looks) > 2)):
        outcome = invoke("apply")
    assert (outcome.error, outcome.result) == (None, "applied")
    assert outcome.response["attempts"] > 2


def test_nothing_is_left_of_a_run_that_gave_up(invoke: Invoke, database: Database, give_up_after_1_s: None) -> None:
    with holding(database, "LOCK TABLE public.drivers IN ACCESS SHARE MODE"):
        invoke("apply")
        until(lambda: not database.run("SELECT FROM pg_stat_activity WHERE application_name = 'pg-hotfix'"))
    assert columns_of(database) == ["id", "name"]


# Those that only look


@pytest.mark.parametrize(("action", "result"), [("plan", "would_apply"), ("check", "ready")])
def test_who_only_looks_waits_for_nobody(invoke: Invoke, database: Database, action: str, result: str) -> None:
    database.run_as_owner("ALTER TABLE drivers ALTER COLUMN name SET DEFAULT 'x'")
    with holding(database, "LOCK TABLE public.drivers IN ACCESS EXCLUSIVE MODE"):
        assert invoke(action).result == result


DEFAULT = ("ALTER TABLE drivers ADD COLUMN IF NOT EXISTS n int DEFAULT 3;", "public.drivers.n int default 3")


def test_a_look_that_needs_a_locked_table_gives_up_at_once(
    invoke: Invoke, write_hotfix: Callable[..., str], database: Database
) -> None:
    """PostgreSQL reads the table to print a default."""
    hotfix_id = write_hotfix(*DEFAULT)
    invoke("apply", hotfix_id)
    with holding(database, "LOCK TABLE public.drivers IN ACCESS EXCLUSIVE MODE") as pid:
        outcome = invoke("verify", hotfix_id)
    assert outcome.error_name == "LockBusyError"
    assert outcome.text == (
        "public.drivers could not be read: another session holds, or waits for, an ACCESS EXCLUSIVE lock on it."
        " Nothing was"
        " changed.\n"
        f"In the way: pid {pid} (postgres), ACCESS EXCLUSIVE on public.drivers.\n"
        f"Wait until it ends, or end it now (its transaction is rolled back):  SELECT pg_terminate_backend({pid});"
    )
    assert outcome.line["blockers"][0]["pid"] == pid


def test_a_default_that_cannot_be_read_now_is_waited_for_by_apply_only(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN rating text DEFAULT 'x'")
    hotfix_id = write_hotfix(ADD_NOTE, "public.drivers.rating text default 'x'::text", NOTE)
    with holding(database, "LOCK TABLE public.drivers IN ACCESS EXCLUSIVE MODE", database.until_waited_for):
        assert invoke("plan", hotfix_id).error_name == "LockBusyError"
        outcome = invoke("apply", hotfix_id)
    assert (outcome.error, outcome.result) == (None, "applied")


# Autovacuum


@contextmanager
def slow_autovacuum(
    database: Database, options: str = SLOW_VACUUM, table: str = "public.drivers", rows: str = "gen_random_uuid()"
) -> Iterator[int]:
    """Within the block an autovacuum works on the table, and would for minutes. Its pid."""
    find = f"SELECT pid FROM pg_stat_activity WHERE query LIKE 'autovacuum: %{table}%'"
    with database.connect() as other:  # Autovacuum learns of its work at its end.
        other.run(
            f"INSERT INTO {table} SELECT {rows}, repeat('x', 500) FROM generate_series(1, 20000) AS n;"
            f"DELETE FROM {table} WHERE name < 'y'; ALTER TABLE {table} SET ({options})"
        )
    until(lambda: database.run(find))
    ((pid,),) = database.run(find)
    yield pid


@contextmanager
def resting_autovacuum(database: Database) -> Iterator[None]:
    """Within the block no further autovacuum begins, as in production for a minute after one has yielded."""
    set_naptime(database.server, 60)
    yield
    set_naptime(database.server, 1)


def test_an_autovacuum_is_made_to_yield_while_readers_and_writers_go_on(invoke: Invoke, database: Database) -> None:
    with (
        slow_autovacuum(database) as pid,
        watching_the_queue(database) as seen_waiting,
        holding(database, "SELECT 1"),
    ):
        (blocker,) = invoke("plan").response["blockers"]
        assert (blocker["pid"], blocker["autovacuum"], blocker["lock_mode"]) == (
            pid,
            "autovacuum",
            "SHARE UPDATE EXCLUSIVE",
        )
        columns_then: list[str] = []
        with meanwhile(
            lambda: until(lambda: seen_waiting),
            lambda: read_and_write(database),
            lambda: columns_then.extend(columns_of(database)),
        ):
            outcome = invoke("apply")
    assert (outcome.error, outcome.result) == (None, "applied")
    # It waited for a lock that no reader and no writer conflicts with, and for no other.
    assert {mode for mode, _ in seen_waiting} == {"ShareUpdateExclusiveLock"}
    assert columns_then == ["id", "name"]


def test_an_autovacuum_of_a_referenced_table_is_made_to_yield_too(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TABLE fleet (id int PRIMARY KEY, name text)")
    hotfix_id = write_hotfix(ADD_FLEET, FLEET)
    with slow_autovacuum(database, table="public.fleet", rows="n"):
        outcome = invoke("apply", hotfix_id)
    assert (outcome.error, outcome.result) == (None, "applied")


def test_autovacuums_of_two_partitions_are_asked_one_after_the_other(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(
        "CREATE TABLE rides (id int, name text) PARTITION BY RANGE (id);"
        "CREATE TABLE rides_1 PARTITION OF rides FOR VALUES FROM (0) TO (30000);"
        "CREATE TABLE rides_2 PARTITION OF rides FOR VALUES FROM (30000) TO (60000)"
    )
    hotfix_id = write_hotfix("ALTER TABLE rides ADD COLUMN IF NOT EXISTS a int;", "public.rides.a int")
    with (
        slow_autovacuum(database, table="public.rides_1", rows="n"),
        slow_autovacuum(database, table="public.rides_2", rows="30000 + n"),
        resting_autovacuum(database),
        watching_the_queue(database) as seen_waiting,
    ):
        outcome = invoke("apply", hotfix_id)
    assert (outcome.error, outcome.result) == (None, "applied")
    asked = {"rides_1", "rides_2"}
    assert {(mode, table) for mode, table in seen_waiting} == {("ShareUpdateExclusiveLock", one) for one in asked}


def test_an_autovacuum_against_wraparound_is_named_and_left_alone(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "3")
    with database.connect() as other:
        # Uses up transaction ids until the table is old enough.
        other.run("DO $$ BEGIN FOR i IN 1..100100 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
    with slow_autovacuum(database, f"{SLOW_VACUUM}, autovacuum_freeze_max_age = 100000") as pid:
        outcome = invoke("apply")
    assert outcome.error_name == "LockBusyError"
    assert timeless(outcome.text) == (
        f"public.drivers stayed locked for # s, so {HOTFIX} was not applied. Nothing was changed, and nobody waited"
        " behind this run.\n"
        f"In the way: autovacuum to prevent wraparound pid {pid}, SHARE UPDATE EXCLUSIVE on public.drivers."
        " PostgreSQL starts it again if it is ended: let it finish.\n"
        "Wait until it ends."
    )


# Overlap


def test_fifty_runs_at_once_end_as_one_applied_and_else_already_applied(invoke: Invoke, database: Database) -> None:
    invoke("plan")  # Stores the secret's value in the cache, and proves that all is set up.
    request, settings = parse_request({"hotfix": HOTFIX, "action": "apply"}), read_settings(os.environ)
    start = threading.Barrier(50)

    def run(_: int) -> Report:
        start.wait()
        return hotfix.run(request, settings, lambda: 55_000)

    def all_wait() -> None:
        database.until_waited_for(50)

    with holding(database, "SELECT * FROM public.drivers", all_wait), ThreadPoolExecutor(50) as pool:
        reports = list(pool.map(run, range(50)))
    assert sorted(report.result for report in reports) == ["already_applied"] * 49 + ["applied"]
    assert sum(column.changed_here for report in reports for column in report.columns) == 1


def test_runs_of_files_that_lock_the_same_tables_the_other_way_round_all_end_well(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TABLE fleet (id int PRIMARY KEY); CREATE TABLE rides (id int PRIMARY KEY)")
    there = write_hotfix(
        "ALTER TABLE fleet ADD COLUMN IF NOT EXISTS ride_id int REFERENCES rides;",
        "public.fleet.ride_id int",
        name="20260301101501_there",
    )
    back = write_hotfix(
        "ALTER TABLE rides ADD COLUMN IF NOT EXISTS fleet_id int REFERENCES fleet;",
        "public.rides.fleet_id int",
        name="20260301101502_back",
    )
    invoke("plan", there)
    settings = read_settings(os.environ)
    start = threading.Barrier(8)

    def run(hotfix_id: str) -> str:
        start.wait()
        return hotfix.run(parse_request({"hotfix": hotfix_id, "action": "apply"}), settings, lambda: 55_000).result

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, [there, back] * 4))
    assert sorted(results) == ["already_applied"] * 6 + ["applied"] * 2


# Limits


def test_the_limits_in_force_are_read_back_and_logged(invoke: Invoke, database: Database) -> None:
    for outcome in (invoke("check"), invoke("apply"), invoke("verify")):
        in_force = outcome.line["limits"]
        assert in_force.pop("transaction_timeout", None) == (5500 if knows_transaction_timeout(database) else None)
        assert in_force == {
            "lock_timeout": 20,
            "statement_timeout": 5000,
            "idle_in_transaction_session_timeout": 1000,
            "client_connection_check_interval": 500,
        }


def test_limits_are_understood_in_each_unit_that_postgresql_shows(database: Database) -> None:
    for limit_ms in (0, 1, 999, 1_000, 5_500, 60_000, 90_000, 120_000, 3_600_000, 86_400_000, 2_147_483_647):
        ((shown,),) = database.run(f"BEGIN; SET LOCAL lock_timeout = {limit_ms}; SHOW lock_timeout; ROLLBACK")
        assert parse_ms(shown) == limit_ms


def knows_transaction_timeout(database: Database) -> bool:
    return database.run("SHOW server_version_num") >= [["170000"]]


def test_a_failure_logs_the_limits_too(invoke: Invoke, write_hotfix: Callable[..., str], database: Database) -> None:
    hotfix_id = write_hotfix(*DEFAULT)
    missing = invoke("verify", hotfix_id)
    assert (missing.error_name, missing.line["limits"]["lock_timeout"]) == ("MismatchError", 20)
    invoke("apply", hotfix_id)
    with holding(database, "LOCK TABLE public.drivers IN ACCESS EXCLUSIVE MODE"):
        blocked = invoke("verify", hotfix_id)
    assert (blocked.error_name, blocked.line["limits"]["lock_timeout"]) == ("LockBusyError", 20)


@pytest.mark.parametrize(
    ("name", "asked_ms"),
    [
        ("lock_timeout", 20),
        ("statement_timeout", 5000),
        ("idle_in_transaction_session_timeout", 1000),
        ("client_connection_check_interval", 500),
    ],
)
def test_a_server_that_does_not_keep_the_limits_is_not_worked_on(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch, name: str, asked_ms: int
) -> None:
    parameters = limits.Limits.startup_parameters
    # As a pooler that takes the start-up parameters and drops them.
    monkeypatch.setattr(
        limits.Limits,
        "startup_parameters",
        lambda self: {one: value for one, value in parameters(self).items() if one != name},
    )
    outcome = invoke("apply")
    assert outcome.error_name == "ConfigurationError"
    assert outcome.text == (
        f"The server of {database.name} at localhost:{database.server.port} does not use the limit that pg-hotfix"
        f" set: {name} is 0 ms (0 means no limit), and must be {asked_ms} ms. Nothing was changed. Without it a run"
        " could block other sessions. Put the instance's own endpoint into the secret or the stack's parameter"
        " DatabaseHost:  aws rds"
        " describe-db-instances --query 'DBInstances[].Endpoint.Address'"
    )
    assert columns_of(database) == ["id", "name"]
