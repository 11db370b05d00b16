"""Who holds the tables that a hotfix needs, as far as PostgreSQL shows it to a role without special rights."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.blocker import AUTOVACUUM, WRAPAROUND, Blocker
from pg_hotfix.file.hotfix_file import Hotfix
from pg_hotfix.promises.column.catalog import columns_tree_sql
from pg_hotfix.server.session import literal, read_as, with_names
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pg_hotfix.change.job import Bookkeeping
    from pg_hotfix.file.hotfix_file import PackagedFile
    from pg_hotfix.server.session import Session

# A busy table has hundreds; a log event has 256 kB.
SHOWN_BLOCKERS = 50
# Limits for the question whom a blocker waits for: how many blockers, how many steps, how many ms for each query.
ASKED_BLOCKERS = 20
LONGEST_CHAIN = 5
ASKING_MS = 300
# So many words of the server's message about a lock are looked up as names of tables.
SUSPECTED_WORDS = 200
# initdb makes only objects below it. https://www.postgresql.org/docs/current/system-catalog-initial-data.html
FIRST_OWN_OID = 16384

# https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
MODES = (
    *("AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock"),
    *("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"),
)
# The weakest mode, counted from 1, that conflicts with ACCESS EXCLUSIVE; with SHARE ROW EXCLUSIVE, which a foreign key
# or a trigger takes on a table it refers to; and with ROW EXCLUSIVE, which writers take.
IN_THE_WAY_OF_ALTER, IN_THE_WAY_OF_REFERENCES, IN_THE_WAY_OF_WRITERS = 1, 3, 5


def find_blockers(session: Session, hotfix: PackagedFile, bookkeeping: Bookkeeping | None = None) -> list[Blocker]:
    """Every other transaction that holds or awaits a lock in the way of the file or of `bookkeeping`. Those that wait
    for no lock come first, the oldest of them before the others. Any lock counts on the expected tables and on those
    that the file alters, and on their partitions and inheritance children; only the locks of writers count on the
    tables that it refers to. For a revert any lock counts on the tables that foreign keys of its columns refer to.
    Waits for no lock.

    https://www.postgresql.org/docs/current/view-pg-locks.html
    """
    reverting = isinstance(hotfix, Hotfix) and hotfix.reverting
    ctes = columns_tree_sql(hotfix.expectations) + "," if reverting else ""
    keys = f"""
    UNION SELECT k.confrelid, {IN_THE_WAY_OF_ALTER} FROM going JOIN pg_catalog.pg_constraint k
        ON k.conrelid = going.relation AND k.contype = 'f' AND going.number = ANY (k.conkey)"""
    tables = (
        f"{ctes} named (oid, weakest) AS ({named_tables_sql(session, hotfix, bookkeeping)}{keys if reverting else ''})"
    )
    return read_blockers(session, tables, bookkeeping)


def find_suspects(session: Session, hotfix: Hotfix, said: str) -> list[Blocker]:
    """As `find_blockers`, on tables that the file does not name, after an attempt held its locks and failed on one
    more: tables joined to its tables by a foreign key, tables in what the server `said`, and tables that are named in
    the functions of event triggers and in the functions that the server named.

    https://www.postgresql.org/docs/current/event-triggers.html
    """
    words = ", ".join(literal(word) for word in sorted(set(re.findall(r"[^\W\d][\w$]*", said)))[:SUSPECTED_WORDS])
    oids = ", ".join(re.findall(r"relation (\d{1,10}) ", said)[:SUSPECTED_WORDS]) or "0"
    return read_blockers(
        session,
        f"""own (oid, weakest) AS ({named_tables_sql(session, hotfix, None)}), named (oid, weakest) AS (
    SELECT other.oid, {IN_THE_WAY_OF_ALTER} FROM pg_catalog.pg_constraint k
        JOIN own ON own.oid IN (k.conrelid, k.confrelid)
        JOIN pg_catalog.pg_class other ON other.oid IN (k.conrelid, k.confrelid) WHERE k.contype = 'f'
    UNION SELECT c.oid, {IN_THE_WAY_OF_WRITERS} FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_class c ON c.relkind IN ('r', 'p') AND c.oid >= {FIRST_OWN_OID}
            AND c.relname = ANY (pg_catalog.regexp_split_to_array(p.prosrc, '[^[:alnum:]_$]+'))
        WHERE p.oid >= {FIRST_OWN_OID} AND (p.proname = ANY (ARRAY[{words}]::text[])
            OR p.oid IN (SELECT evtfoid FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'))
    UNION SELECT c.oid, {IN_THE_WAY_OF_ALTER} FROM pg_catalog.pg_class c
        WHERE c.relkind IN ('r', 'p') AND c.oid >= {FIRST_OWN_OID}
            AND (c.oid IN ({oids}) OR c.relname = ANY (ARRAY[{words}]::text[]))
    EXCEPT SELECT own.oid, given.weakest FROM own CROSS JOIN (VALUES ({IN_THE_WAY_OF_ALTER}), ({IN_THE_WAY_OF_WRITERS}))
        AS given (weakest))""",
    )


def named_tables_sql(session: Session, hotfix: PackagedFile, bookkeeping: Bookkeeping | None) -> str:
    """Selects oid and weakest mode in the way for each table that the file and `bookkeeping` name."""
    tables: list[tuple[str | None, str, int]] = []
    if not (bookkeeping and bookkeeping.record_only):
        tables += [(one.schema, one.table, IN_THE_WAY_OF_ALTER) for one in hotfix.expectations]
        tables += [
            (named.schema, named.name, IN_THE_WAY_OF_ALTER if named.altered else IN_THE_WAY_OF_REFERENCES)
            for named in hotfix.named_tables
        ]
    if bookkeeping:
        tables.append((*bookkeeping.table, IN_THE_WAY_OF_WRITERS))
    values = ", ".join(
        f"({literal(schema)}::name, {literal(name)}::name, {weakest})" for schema, name, weakest in tables
    )
    # The search_path of the file's own statements, which decides what a bare name means.
    path = [*(one.schema for one in hotfix.expectations), *session.facts.schemas]
    schemas = ", ".join(f"{literal(schema)}::name" for schema in dict.fromkeys(path))
    return f"""
    SELECT c.oid, named.weakest
    FROM (VALUES {values}) AS named (schema, relation, weakest)
    JOIN pg_catalog.pg_class c ON c.relname = named.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = coalesce(named.schema, (SELECT p.nspname
        FROM pg_catalog.unnest(ARRAY[{schemas}]) WITH ORDINALITY AS path (name, position)
        JOIN pg_catalog.pg_namespace p ON p.nspname = path.name
        JOIN pg_catalog.pg_class t ON t.relnamespace = p.oid AND t.relname = named.relation
        ORDER BY path.position LIMIT 1))"""


def read_blockers(session: Session, tables: str, bookkeeping: Bookkeeping | None = None) -> list[Blocker]:
    """`tables`: CTEs, the last of them `named (oid, weakest)`."""
    modes = ", ".join(map(literal, MODES))
    is_advisory = bookkeeping.find_lock if bookkeeping else "false"
    # A prepared transaction has no process; the lock on its own transaction id identifies it.
    sql = f"""
WITH RECURSIVE {tables}, relation (oid, weakest) AS (
    SELECT oid, weakest FROM named
    UNION SELECT i.inhrelid, relation.weakest FROM pg_catalog.pg_inherits i JOIN relation ON i.inhparent = relation.oid
), held AS MATERIALIZED (
    SELECT * FROM pg_catalog.pg_locks WHERE pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
), blocker AS (
    SELECT DISTINCT ON (l.virtualtransaction, l.pid) l.*
    FROM held l LEFT JOIN relation ON relation.oid = l.relation AND l.locktype = 'relation'
    WHERE l.database = {literal(session.facts.database_oid)}
        AND (pg_catalog.array_position(ARRAY[{modes}], l.mode) >= relation.weakest OR {is_advisory})
    ORDER BY l.virtualtransaction, l.pid, l.granted DESC, pg_catalog.array_position(ARRAY[{modes}], l.mode) DESC
)
-- The advisory lock of another tool outlives the transactions of its session.
SELECT CASE WHEN b.relation IS NULL THEN 'advisory' ELSE b.virtualtransaction END || ' ' || coalesce(b.pid, 0)
        AS transaction,
    b.pid, coalesce(a.usename, p.owner) AS user,
    nullif(a.application_name, '') AS application_name, a.state,
    extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8
        AS transaction_seconds,
    pg_catalog.upper(pg_catalog.regexp_replace(
        pg_catalog.replace(b.mode, 'Lock', ''), '([a-z])([A-Z])', '\\1 \\2', 'g')) AS lock_mode,
    b.granted, b.pid IN (SELECT pid FROM held WHERE NOT granted) IS TRUE AS waiting,
    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS table,
    p.gid AS prepared_transaction,
    -- Of the processes with a database only autovacuum has no user. Its query may be hidden, the table's age is not.
    CASE WHEN a.pid IS NULL OR a.usesysid IS NOT NULL THEN NULL
        WHEN a.query LIKE '%(to prevent wraparound)' OR pg_catalog.age(c.relfrozenxid) > least(
            pg_catalog.current_setting('autovacuum_freeze_max_age')::int,
            (SELECT option_value::int FROM pg_catalog.pg_options_to_table(c.reloptions)
                WHERE option_name = 'autovacuum_freeze_max_age'))
        OR pg_catalog.mxid_age(c.relminmxid) > least(
            pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::int,
            (SELECT option_value::int FROM pg_catalog.pg_options_to_table(c.reloptions)
                WHERE option_name = 'autovacuum_multixact_freeze_max_age'))
        THEN '{WRAPAROUND}' ELSE '{AUTOVACUUM}' END AS autovacuum
FROM blocker b
LEFT JOIN pg_catalog.pg_class c ON c.oid = b.relation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
LEFT JOIN held own ON b.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
    AND own.virtualtransaction = b.virtualtransaction
LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = own.transactionid
-- The workers of a query hold no lock that their leader does not hold. Those of a subscription have transactions.
WHERE a.leader_pid IS NULL OR a.backend_type <> 'parallel worker'
ORDER BY waiting, transaction_seconds DESC NULLS LAST, b.pid"""
    return read_as(Blocker, session.query_prepared(with_names(sql)))


def describe_blockers(session: Session, blockers: Sequence[Blocker]) -> tuple[Blocker, ...]:
    """The first of them, with the pids that they wait for. Waits for no lock."""
    shown = blockers[:SHOWN_BLOCKERS]
    waits = find_waits(session, [blocker.pid for blocker in shown if blocker.pid and blocker.waiting])
    return tuple(replace(blocker, waits_for=follow(waits, blocker.pid)) for blocker in shown)


def find_waits(session: Session, pids: Sequence[int]) -> dict[int, list[int]]:
    """The pids that each of the pids waits for, and those that these wait for in turn; fewer if a query takes long.
    pg_blocking_pids stops the whole lock manager for a moment.

    https://www.postgresql.org/docs/current/functions-info.html
    """
    waits: dict[int, list[int]] = {}
    for _ in range(LONGEST_CHAIN):
        asked = ", ".join(str(pid) for pid in list(dict.fromkeys(pids))[:ASKED_BLOCKERS] if pid not in waits)
        if not asked:
            break
        try:
            rows = session.query(
                f"BEGIN; SET LOCAL statement_timeout = {ASKING_MS};"
                "SELECT pid, blocking FROM pg_catalog.unnest(ARRAY[" + asked + "]) AS pid"
                " LEFT JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(pid)) AS blocking ON true; ROLLBACK"
            )
        except (errors.StatementTimeoutError, LockNotAvailable):
            session.roll_back()
            break
        for pid, blocking in rows:
            waits.setdefault(pid, []).extend([] if blocking is None else [blocking])
        pids = [blocking for _, blocking in rows if blocking]
    return waits


def follow(waits: Mapping[int, Sequence[int]], pid: int | None) -> tuple[int, ...]:
    """All pids that the pid waits for, the nearest first."""
    found: dict[int, None] = {}
    nearest = list(waits.get(pid or 0, ()))
    while nearest:
        new = [one for one in dict.fromkeys(nearest) if one not in found and one != pid]
        found |= dict.fromkeys(new)
        nearest = [further for one in new for further in waits.get(one, ())]
    return tuple(found)[:ASKED_BLOCKERS]


def try_to_describe_blockers(session: Session, hotfix: PackagedFile) -> tuple[Blocker, ...]:
    """The blockers; none if they cannot be read, since the caller reports another error."""
    try:
        return describe_blockers(session, find_blockers(session, hotfix))
    except (errors.HotfixError, LockNotAvailable):
        return ()
