"""A parallel query is one blocker: its leader."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from pg8000.exceptions import DatabaseError, InterfaceError

from tests.conftest import HOTFIX, PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]

pytestmark = pytest.mark.long_too

# Every reader is parallel, and slow enough to be looked at.
EAGER = """SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 3; SET max_parallel_maintenance_workers = 3;
SET maintenance_work_mem = '256MB';"""
ROWS = """
INSERT INTO public.drivers SELECT gen_random_uuid(), 'driver ' || n FROM generate_series(1, 20000) AS n;
ANALYZE public.drivers;
CREATE FUNCTION public.slow(name text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN name; END $$
"""
QUERIES = {
    "a query": ("SELECT count(public.slow(name)) FROM public.drivers", "ACCESS SHARE"),
    "an index build": ("CREATE INDEX ON public.drivers (public.slow(name))", "SHARE"),
}


@contextmanager
def working(database: Database, sql: str, *, as_owner: bool) -> Iterator[int]:
    """Somebody runs it by several processes meanwhile. Yields the leader's pid."""
    role = (database.user, database.password) if as_owner else ()
    with database.connect(*role) as leader, ThreadPoolExecutor(1) as pool:
        ((pid,),) = leader.run(f"{EAGER} SELECT pg_backend_pid()")
        running = pool.submit(leader.run, sql)
        try:
            until(lambda: running.done() or count_workers(database, pid) >= 2)
            assert not running.done(), running.exception()
            yield pid
        finally:
            database.run(f"SELECT pg_terminate_backend({pid})")
            assert isinstance(running.exception(PATIENCE_SECONDS), DatabaseError | InterfaceError)


def count_workers(database: Database, leader: int) -> int:
    """Those that hold the table's lock, as the administrator sees them."""
    ((count,),) = database.run(
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        f" WHERE a.leader_pid = {leader} AND l.relation = 'public.drivers'::regclass"
    )
    return int(count)


@pytest.mark.parametrize(("sql", "mode"), QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("as_owner", [True, False], ids=["of our own role", "of another role"])
def test_a_parallel_query_is_one_blocker(
    invoke: Invoke, database: Database, sql: str, mode: str, as_owner: bool
) -> None:
    database.run_as_owner(ROWS)
    if not as_owner:
        database.run(f"GRANT pg_read_all_stats TO {database.user}")
    with working(database, sql, as_owner=as_owner) as pid:
        outcome = invoke("plan", HOTFIX)
    assert [(one["pid"], one["lock_mode"]) for one in outcome.response["blockers"]] == [(pid, mode)]
    assert "1 transaction in the way now" in outcome.response["summary"]


def test_the_error_names_the_leader_alone(invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    database.run_as_owner(ROWS)
    with working(database, QUERIES["a query"][0], as_owner=True) as pid:
        outcome = invoke("apply", HOTFIX)
    assert outcome.error_name == "LockBusyError"
    assert outcome.text.count("In the way: ") == 1
    assert outcome.text.endswith(f"it now (its transaction is rolled back):  SELECT pg_terminate_backend({pid});")
